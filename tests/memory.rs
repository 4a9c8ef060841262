//! Memory that a peak took is given back: thousands of allocations, and queues to clients that do not read.

#![cfg(target_os = "linux")]

mod client;
mod common;

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use client::Client;
use common::{
    PASSWORD, PATIENCE, Server, USER,
    client::{TurnClient, loopback_peer, loopback_socket},
    datagram::send,
};
use turnserver::stun::ChannelNumber;

/// Listeners; each socket of a client has an allocation with every one of them.
const LISTENERS: usize = 16;
/// Sockets of clients at the peak.
const SOCKETS: usize = 250;
/// Connections of clients that do not read, and what waits for each at the most.
const STREAMS: usize = 16;
const QUEUE_KIB: usize = 1024;
/// What may be left of thousands of allocations.
const LEFT_KIB: usize = 2048;

fn server(workers: usize) -> Server {
    let listeners: Vec<String> = (1..=LISTENERS).map(|last| format!("\"127.0.0.{last}\"")).collect();
    Server::start(&format!(
        r#"
        [[listener]]
        listening-ip = [{}]
        listening-port = 0
        transports = ["udp"]
        [[listener]]
        listening-ip = ["127.0.0.1"]
        listening-port = 0
        transports = ["tcp"]
        [relay]
        relay-ip = "127.62.0.1"
        [auth]
        realm = "example.org"
        [[auth.user]]
        name = "alice"
        password = "secret"
        [peers]
        allowed-peer-ip = ["127.0.0.0/8"]
        [limits]
        unauthorized-rate = 0
        [tcp]
        queue-bytes = "{QUEUE_KIB}KiB"
        queue-age = "60s"
        [process]
        workers = {workers}
        [log]
        level = "warn,turnserver::cli=info"
        "#,
        listeners.join(", ")
    ))
}

/// What a process holds, as the kernel counts it.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    resident_kib: usize,
}

fn held(server: &Server) -> Held {
    let pid = server.pid();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server's descriptors").count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let resident_kib = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    Held { descriptors, resident_kib }
}

/// Waits until something is so of what the server holds; returns that.
fn until(server: &Server, what: &str, reached: impl Fn(Held) -> bool) -> Held {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = held(server);
        if reached(now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}: {now:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// So many clients' sockets, each with an allocation, a channel and a permission at every listener.
fn allocations(server: &Server, sockets: usize, peer: SocketAddr) -> Vec<TurnClient> {
    let mut clients = Vec::new();
    for _ in 0..sockets {
        let socket = loopback_socket();
        for listener in server.addresses("udp") {
            let mut client = TurnClient::new(socket.try_clone().expect("the socket again"), listener);
            client.allocate();
            client.bind(ChannelNumber(0x4000), peer);
            clients.push(client);
        }
    }
    clients
}

fn end(clients: Vec<TurnClient>) {
    for mut client in clients {
        client.delete();
    }
}

#[test]
fn thousands_of_allocations_leave_no_memory_behind() {
    let (server, peer) = (server(2), loopback_peer());
    let peer = peer.local_addr().expect("an address");
    // What is touched once and kept is touched first, by a few.
    end(allocations(&server, 4, peer));
    let before = held(&server);
    let clients = allocations(&server, SOCKETS, peer);
    let peak = held(&server);
    assert!(peak.descriptors >= before.descriptors + SOCKETS * LISTENERS);
    assert!(peak.resident_kib >= before.resident_kib + 2 * LEFT_KIB, "no peak: {before:?} {peak:?}");
    end(clients);
    let after = held(&server);
    eprintln!("before {before:?}, peak {peak:?}, after {after:?}");
    assert_eq!(after.descriptors, before.descriptors);
    assert!(after.resident_kib <= before.resident_kib + LEFT_KIB, "before {before:?}, peak {peak:?}, after {after:?}");
}

/// Connections whose clients read nothing, filled from peers until no more is kept for them; returns what is held then.
fn fill(server: &Server, streams: usize) -> Held {
    let before = held(server);
    let mut clients = Vec::new();
    for _ in 0..streams {
        let mut client = Client::new("tcp", server.addresses("tcp")[0], Some((USER, PASSWORD)));
        let relayed = client.allocate().expect("an allocation");
        let peer = loopback_peer();
        client.permit(peer.local_addr().expect("an address")).expect("a permission");
        clients.push((client, relayed, peer));
    }
    // The system's own buffers of a connection take a few megabytes first.
    let deadline = Instant::now() + PATIENCE;
    let (burst, wanted) = (vec![vec![7; 1200]; 40], before.resident_kib + streams * QUEUE_KIB);
    while held(server).resident_kib < wanted {
        assert!(Instant::now() < deadline, "{:?} instead of {wanted}", held(server));
        for (_, relayed, peer) in &clients {
            send(peer, &burst, *relayed, 0);
        }
    }
    let peak = held(server);
    drop(clients);
    until(server, "connections are closed", |now| now.descriptors <= before.descriptors);
    peak
}

#[test]
fn queues_to_clients_that_do_not_read_leave_no_memory_behind() {
    // A worker's buffers for datagrams are touched by the first and stay: one worker, so that it is this one's.
    let server = server(1);
    fill(&server, 1);
    let before = held(&server);
    let peak = fill(&server, STREAMS);
    // Blocks that other ones keep in place stay with the allocator.
    let left = before.resident_kib + (peak.resident_kib - before.resident_kib) / 4;
    let after = until(&server, "memory is given back", |now| now.resident_kib <= left);
    eprintln!("before {before:?}, peak {peak:?}, after {after:?}");
    assert_eq!(after.descriptors, before.descriptors);
}
