//! Workers that panic. What makes them is a wait of their runtime that fails as no kernel should let it: no code of the server is there
//! for these tests.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::EBADF;

use crate::{
    call::{CHANNEL, Call, configuration, metric, until},
    common::{
        PATIENCE, Server,
        client::{TurnClient, channel_data},
    },
    inject::{Call as Syscall, Faults},
    network::{Network, address},
};

const WORKERS: usize = 2;

/// Starts a server that may panic.
fn start(faults: &Faults, namespace: Option<&str>, configuration: &str) -> Server {
    let mut server = faults.start_in(namespace, configuration);
    server.expect_panics();
    server
}

/// Makes a worker panic, once.
fn doom(faults: &Faults, server: &Server, worker: usize) {
    let failures = || metric(server, &format!("turn_worker_failures_total{{worker=\"{worker}\"}}"));
    let before = failures();
    faults.inject_at(worker, Syscall::EpollWait, EBADF, 1);
    // Management asks every worker, which wakes it.
    until("the worker panics", || failures() > before);
    assert_eq!(failures(), before + 1);
}

fn allocations(server: &Server, worker: usize) -> u64 {
    metric(server, &format!("turn_worker_allocations_active{{worker=\"{worker}\"}}"))
}

fn ports_used(server: &Server) -> u64 {
    metric(server, "turn_relay_ports_used{address=\"127.0.0.1\",protocol=\"udp\"}")
}

#[test]
fn a_worker_that_panics_loses_its_own_clients_and_begins_anew() {
    const CALLS: u64 = 16;
    let faults = Faults::new();
    let server =
        start(&faults, None, &configuration(WORKERS).replace("[limits]", &format!("[limits]\nuser-quota = {CALLS}")));
    let calls: Vec<Call> = (0..CALLS).map(|_| Call::new(&server)).collect();
    calls.iter().for_each(|call| call.exchange(b"before"));
    let of_each = [0, 1].map(|worker| allocations(&server, worker));
    assert_eq!(of_each.iter().sum::<u64>(), CALLS);
    let (doomed, others) = if of_each[0] > 0 { (0, 1) } else { (1, 0) };
    let relayed_before = metric(&server, "turn_relay_packets_total{direction=\"to-peers\"}");

    // All calls go on while one worker panics: each sends and counts by itself.
    let over = AtomicBool::new(false);
    let counts: Vec<[AtomicU64; 2]> = calls.iter().map(|_| Default::default()).collect();
    thread::scope(|scope| {
        for (call, [sent, received]) in calls.iter().zip(&counts) {
            let over = &over;
            call.peer.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = call.client.socket.send_to(&channel_data(CHANNEL, b"media"), call.client.server);
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            scope.spawn(move || {
                let mut quiet = 0;
                while quiet < 5 {
                    match call.peer.recv(&mut [0; 100]) {
                        Ok(_) => {
                            received.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => quiet += u32::from(over.load(Ordering::Relaxed)),
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        doom(&faults, &server, doomed);
        until("the worker answers again", || metric(&server, "turn_workers_answering") == 1);
        thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
    });
    let counts: Vec<[u64; 2]> = counts.into_iter().map(|pair| pair.map(AtomicU64::into_inner)).collect();
    let whole = counts.iter().filter(|[sent, received]| sent == received).count() as u64;
    assert_eq!(whole, of_each[others], "calls of the other worker lose nothing: {counts:?}");

    // What the lost ones had is given back, counted and told.
    assert_eq!([doomed, others].map(|worker| allocations(&server, worker)), [0, of_each[others]]);
    assert_eq!(ports_used(&server), of_each[others]);
    assert_eq!(metric(&server, "turn_allocations_ended_total{reason=\"lost\"}"), of_each[doomed]);
    let relayed = metric(&server, "turn_relay_packets_total{direction=\"to-peers\"}") - relayed_before;
    let received: u64 = counts.iter().map(|[_, received]| received).sum();
    assert_eq!(relayed, received, "what the lost life had counted is not lost");
    let told = server.await_logged("a bug: a worker has panicked; its sessions are lost, all others go on");
    assert_eq!(told["worker"], doomed);
    let why = told["why"].as_str().expect("a reason");
    assert!(why.contains("polling the I/O driver") && why.contains("driver.rs:"), "{why}");

    // The quota is for as many as there were: they all come back.
    let (whole, lost): (Vec<_>, Vec<_>) =
        calls.into_iter().zip(counts).partition(|(_, [sent, received])| sent == received);
    let revived = lost
        .into_iter()
        .map(|(Call { client, peer, .. }, _)| Call::between(TurnClient::new(client.socket, server.ipv4("udp")), peer));
    let revived: Vec<Call> = revived.collect();
    for call in whole.iter().map(|(call, _)| call).chain(&revived) {
        call.peer.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        call.exchange(b"after");
    }
    server.stop();
}

#[test]
fn a_worker_that_panics_again_and_again_comes_back_each_time() {
    let faults = Faults::new();
    let server = start(&faults, None, &configuration(1));
    for round in 1..=4 {
        let call = Call::new(&server);
        call.exchange(b"in this life");
        doom(&faults, &server, 0);
        until("the worker answers again", || metric(&server, "turn_workers_answering") == 1);
        assert_eq!(metric(&server, "turn_allocations_ended_total{reason=\"lost\"}"), round);
        assert_eq!(ports_used(&server), 0);
    }
    let log = server.stop();
    assert_eq!(log.matches("a worker begins anew").count(), 4, "{log}");
}

/// A peer of a lost session is told nothing, and reaches nobody, in the kernel either.
#[test]
fn what_the_kernel_relays_for_a_worker_ends_with_it() {
    const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = "198.51.100.1"
[relay]
relay-ip = "203.0.113.1"
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = "203.0.113.0/24"
[process]
workers = 1
[offload]
mode = "generic"
"#;
    let (faults, network) = (Faults::new(), Network::build());
    let server = start(&faults, Some(&network.namespace("server")), CONFIGURATION);
    assert_eq!(server.await_logged("offload")["mode"], "generic");
    let call = |port| {
        let client = network.socket("left", (address("left", true, 2), port).into());
        let peer = network.socket("right", (address("right", true, 2), port).into());
        let call = Call::between(TurnClient::new(client, (address("left", true, 1), 3478).into()), peer);
        (0..5).for_each(|_| call.exchange(b"in the kernel"));
        call
    };
    let lost = call(5000);
    faults.inject_at(0, Syscall::EpollWait, EBADF, 1);
    let deadline = Instant::now() + PATIENCE;
    while server.log().matches("a worker begins anew").count() == 0 {
        assert!(Instant::now() < deadline);
        // Something that the worker must wake up for: its own way, not the kernel's.
        let _ = lost.client.socket.send_to(&[0; 20], lost.client.server);
        thread::sleep(Duration::from_millis(10));
    }
    lost.client.socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
    lost.peer.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
    lost.peer.send_to(b"to nobody", lost.relayed).expect("to send");
    assert!(lost.client.socket.recv(&mut [0; 100]).is_err(), "a lost session is served by the kernel");
    let _ = lost.client.socket.send_to(&channel_data(CHANNEL, b"of nobody"), lost.client.server);
    assert!(lost.peer.recv(&mut [0; 100]).is_err(), "a lost session is served by the kernel");
    // The next life is mirrored as the first was.
    call(5001);
    let log = server.stop();
    let relayed = log.lines().find(|line| line.contains("relayed by the kernel")).expect("a line about the kernel");
    let fields: serde_json::Value = serde_json::from_str(relayed).expect("JSON");
    assert!(fields["fields"]["to_client_packets"].as_u64().is_some_and(|packets| packets >= 8), "{relayed}");
}

#[test]
fn a_worker_that_panics_as_soon_as_it_serves_begins_anew() {
    let faults = Faults::new();
    faults.inject_at(0, Syscall::EpollWait, EBADF, 1);
    let server = start(&faults, None, &configuration(1));
    Call::new(&server).exchange(b"in the second life");
    assert_eq!(
        (faults.failed(Syscall::EpollWait), metric(&server, "turn_worker_failures_total{worker=\"0\"}")),
        (1, 1)
    );
    server.stop();
}
