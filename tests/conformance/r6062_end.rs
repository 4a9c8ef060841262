//! RFC 6062 §5.5: how connections end, with each other and with their allocation.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::hostile_flood::resources;
use crate::r6062_setup::{
    Bytes, Listener, Silent, allocated, attempt, bind, bind_to, connect, connect_to, connected, tcp_server,
};
use crate::setup::{Server, Session, V4, closed_port};
use crate::wire::{LIFETIME, Msg, REFRESH};

/// An allocation with connections in every state.
struct Everything {
    session: Session,
    relayed: std::net::SocketAddr,
    /// Bound ones, both ends of each, and unbound ones.
    ends: Vec<Bytes>,
    /// An id that was never bound.
    unbound: u32,
    _silent: Silent,
}

fn everything(server: &Server) -> Everything {
    let (mut session, relayed) = allocated(server);
    session.permit(closed_port(V4));
    let mut ends = Vec::new();
    for _ in 0..4 {
        let (mut client, mut peer) = connected(server, &mut session);
        client.echo_with(&mut peer);
        let mut opened = Bytes::from(TcpStream::connect(relayed).unwrap());
        let mut bound = bind(server, attempt(&mut session).1);
        bound.echo_with(&mut opened);
        ends.extend([client, peer, bound, opened]);
    }
    let listener = Listener::new();
    let unbound = connect(&mut session, listener.address);
    ends.push(listener.accept().0);
    ends.push(TcpStream::connect(relayed).unwrap().into());
    attempt(&mut session);
    let silent = Silent::new();
    let request = session.sign(connect_to(silent.address));
    session.client.send(&request.0);
    session.client.fence();
    Everything { session, relayed, ends, unbound, _silent: silent }
}

/// Expects all of it to be closed.
fn expect_all_closed(server: &Server, all: Everything) {
    let Everything { ends, relayed, unbound, .. } = all;
    for mut end in ends {
        end.expect_close();
    }
    Session::tcp(server).fail(bind_to(unbound), 400);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(relayed).is_ok() {
        assert!(Instant::now() < deadline, "the relayed address still accepts");
    }
}

#[test]
fn r6062_5_5_01_everything_ends_with_a_deleted_allocation() {
    let server = tcp_server(&[("process.workers", "4")]);
    let mut all = everything(&server);
    all.session.delete();
    expect_all_closed(&server, all);
}

#[test]
fn r6062_5_5_01_everything_ends_with_an_expired_allocation() {
    let server =
        tcp_server(&[("lifetimes.default-allocate-lifetime", "\"3s\""), ("lifetimes.max-allocate-lifetime", "\"9s\"")]);
    let start = Instant::now();
    let mut all = everything(&server);
    // As long as it is refreshed it stays.
    let reply = all.session.succeed(Msg::new(REFRESH).u32(LIFETIME, 3));
    assert_eq!(reply.get(LIFETIME), Some(&3u32.to_be_bytes()[..]));
    let (bound, rest) = all.ends.split_at_mut(1);
    bound[0].echo_with(&mut rest[0]);
    expect_all_closed(&server, all);
    assert!(start.elapsed() >= Duration::from_secs(3));
}

#[test]
fn r6062_5_5_01_everything_ends_with_the_control_connection() {
    let server = tcp_server(&[]);
    let mut all = everything(&server);
    all.session.stream().shutdown(std::net::Shutdown::Both).unwrap();
    all.session.client = crate::client::Client::tcp(server.ipv4("tcp"));
    expect_all_closed(&server, all);
}

/// Nothing is left behind, whichever way connections end.
#[test]
fn ended_allocations_leave_no_descriptor() {
    let server = tcp_server(&[("process.workers", "4")]);
    let round = || {
        let mut all = everything(&server);
        all.session.delete();
        expect_all_closed(&server, all);
    };
    round();
    let settled = |limit: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = resources(&server);
            if now.descriptors <= limit || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = resources(&server);
    (0..10).for_each(|_| round());
    let after = settled(before.descriptors);
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.memory < before.memory + (1 << 20), "{before:?} {after:?}");
}

#[test]
fn r6062_5_5_02_a_closed_client_closes_the_peer() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let (mut client, mut peer) = connected(&server, &mut session);
    client.send(b"bye");
    drop(client);
    assert_eq!(peer.receive(3), b"bye");
    peer.expect_end();
    // What the peer goes on sending has nowhere to go, and it is told so.
    let deadline = Instant::now() + PATIENCE;
    while std::io::Write::write(&mut peer.stream, b"anybody?").is_ok() {
        assert!(Instant::now() < deadline, "the peer's connection stays open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn r6062_5_5_03_a_closed_peer_closes_the_client() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let (mut client, mut peer) = connected(&server, &mut session);
    peer.send(b"bye");
    drop(peer);
    assert_eq!(client.receive(3), b"bye");
    client.expect_end();
    let deadline = Instant::now() + PATIENCE;
    while std::io::Write::write(&mut client.stream, b"anybody?").is_ok() {
        assert!(Instant::now() < deadline, "the client's connection stays open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_direction_may_end_before_the_other() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    for turned in [false, true] {
        let (client, peer) = connected(&server, &mut session);
        let (mut first, mut second) = if turned { (peer, client) } else { (client, peer) };
        first.send(b"question");
        first.finish();
        assert_eq!(second.receive(8), b"question");
        second.expect_end();
        for _ in 0..10 {
            second.send(&[7; 100_000]);
            assert_eq!(first.receive(100_000), [7; 100_000]);
        }
        second.finish();
        first.expect_end();
    }
}

/// Who has closed one direction and is gone is not waited for longer than any idle connection.
#[test]
fn a_deserted_half_is_closed() {
    let server = tcp_server(&[("tcp.idle-timeout", "\"1s\"")]);
    let (mut session, _) = allocated(&server);
    let (mut client, mut peer) = connected(&server, &mut session);
    // As long as both are open nobody has to send.
    std::thread::sleep(Duration::from_millis(1500));
    client.echo_with(&mut peer);
    client.finish();
    peer.expect_end();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(400));
        peer.send(b"still here");
        assert_eq!(client.receive(10), b"still here");
    }
    let start = Instant::now();
    client.expect_close();
    assert!(start.elapsed() > Duration::from_millis(500) && start.elapsed() < Duration::from_secs(10));
}

/// A reset is no orderly end: the other side must not take what it has got for all there was.
#[test]
fn a_reset_is_passed_on() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    for turned in [false, true] {
        let (client, peer) = connected(&server, &mut session);
        let (mut first, mut second) = if turned { (peer, client) } else { (client, peer) };
        first.echo_with(&mut second);
        first.reset();
        let error = second.stream.read(&mut [0; 16]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_connections_have_relayed_is_counted() {
    let server = tcp_server(&[("process.workers", "4")]);
    let (mut session, _) = allocated(&server);
    let mut open = Vec::new();
    for round in 0..6 {
        let (mut client, mut peer) = connected(&server, &mut session);
        client.send(&[1; 70_000]);
        assert_eq!(peer.receive(70_000).len(), 70_000);
        peer.send(&[2; 1000]);
        assert_eq!(client.receive(1000).len(), 1000);
        if round % 2 == 0 {
            open.push((client, peer));
        }
    }
    session.delete();
    let log = server.stop();
    let ended = log.lines().find(|line| line.contains("session ends")).expect("a line at the end");
    let entry: serde_json::Value = serde_json::from_str(ended).unwrap();
    let fields = &entry["fields"];
    assert_eq!((fields["to_peer_bytes"].as_u64(), fields["to_client_bytes"].as_u64()), (Some(420_000), Some(6_000)));
    assert_eq!((fields["to_peer_packets"].as_u64(), fields["to_client_packets"].as_u64()), (Some(0), Some(0)));
}
