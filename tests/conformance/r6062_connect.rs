//! RFC 6062 §5.2, §5.3: connections that clients ask for, and connections that peers open.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::client::{Event, PATIENCE};
use crate::hostile_flood::resources;
use crate::r6062_setup::{
    Bytes, Listener, Silent, allocated, attempt, bind, bind_to, connect, connect_to, connected, connection_id,
    tcp_server,
};
use crate::setup::{ALICE, BOB, Session, V4, closed_port};
use crate::wire::{
    BINDING, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND, CONNECTION_ID, INDICATION, Msg, XOR_PEER_ADDRESS,
};

#[test]
fn r6062_5_2_01_a_client_without_a_tcp_allocation_cannot_connect() {
    let server = tcp_server(&[]);
    for mut session in Session::each(&server) {
        session.fail(connect_to(([127, 0, 0, 1], 1).into()), 437);
        session.allocate();
        session.fail(connect_to(([127, 0, 0, 1], 1).into()), 437);
    }
}

#[test]
fn r8656_5_04_another_user_does_not_connect() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let account = |session: &mut Session, (user, password): (&str, &str)| {
        (session.user, session.password) = (user.to_owned(), password.to_owned());
    };
    account(&mut session, BOB);
    session.fail(connect_to(listener.address), 441);
    account(&mut session, ALICE);
    connect(&mut session, listener.address);
}

#[test]
fn r8489_6_3_05_classes_that_the_methods_for_tcp_do_not_have() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    for message in [
        session.sign(Msg::new(CONNECT | INDICATION).peer(listener.address)),
        session.sign(Msg::new(CONNECTION_BIND | INDICATION).u32(CONNECTION_ID, 7)),
        session.sign(Msg::new(CONNECTION_ATTEMPT).peer(listener.address)),
        Msg::new(CONNECTION_ATTEMPT | INDICATION).peer(listener.address).u32(CONNECTION_ID, 7),
    ] {
        session.silent(&message.0);
    }
    connect(&mut session, listener.address);
}

#[test]
fn r8489_5_06_transaction_ids_of_connection_attempts_are_unpredictable() {
    const COUNT: usize = 40;
    let server = tcp_server(&[("limits.connections-per-allocation", "100")]);
    let (mut session, relayed) = allocated(&server);
    session.permit(closed_port(V4));
    let mut peers = Vec::new();
    let mut ids = BTreeSet::new();
    for _ in 0..COUNT {
        peers.push(TcpStream::connect(relayed).expect("accepted"));
        match session.client.event() {
            Event::Stun(reply) if reply.kind == CONNECTION_ATTEMPT | INDICATION => ids.insert(reply.id),
            event => panic!("no ConnectionAttempt: {event:02x?}"),
        };
    }
    assert_eq!(ids.len(), COUNT);
    for bit in 0..96 {
        let ones = ids.iter().filter(|id| id[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!(ones > 0 && ones < COUNT, "bit {bit} is always the same");
    }
}

#[test]
fn r6062_5_2_02_a_connection_is_made_once_at_a_time() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let silent = Silent::new();
    let first = session.sign(connect_to(silent.address));
    session.client.send(&first.0);
    session.fail(connect_to(silent.address), 446);
    // Others are served meanwhile.
    let (mut client, mut peer) = connected(&server, &mut session);
    client.echo_with(&mut peer);
}

#[test]
fn r6062_5_2_03_there_is_one_connection_to_a_peer() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    let (peer, _) = listener.accept();
    session.fail(connect_to(listener.address), 446);
    let client = bind(&server, id);
    session.fail(connect_to(listener.address), 446);
    // The same for a connection that the peer has opened.
    session.permit(relayed);
    let opened = Bytes::from(TcpStream::connect(relayed).unwrap());
    assert_eq!(attempt(&mut session).0, opened.address());
    session.fail(connect_to(opened.address()), 446);
    // When it has ended, there may be a new one.
    client.reset();
    drop(peer);
    let deadline = Instant::now() + PATIENCE;
    while session.call(connect_to(listener.address)).error().is_some() {
        assert!(Instant::now() < deadline, "the ended connection stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn r6062_5_2_04_a_peer_must_be_named() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    session.fail(Msg::new(CONNECT), 400);
    session.fail(Msg::new(CONNECT).attr(XOR_PEER_ADDRESS, &[0, 3, 0, 0, 0, 0, 0, 0]), 400);
    session.fail(Msg::new(CONNECT).attr(XOR_PEER_ADDRESS, &[0, 1, 0]), 400);
    session.fail(connect_to("[::1]:1".parse().unwrap()), 443);
}

#[test]
fn r6062_5_2_05_peers_that_the_rules_refuse() {
    let server = tcp_server(&[("peers.denied-peer-ip", "[\"127.0.0.9\"]")]);
    let (mut session, _) = allocated(&server);
    let own = server.ipv4("tcp");
    for peer in [([10, 0, 0, 1], 80).into(), ([127, 0, 0, 9], 80).into(), ([127, 0, 0, 1], 0).into(), own] {
        session.fail(connect_to(peer), 403);
    }
    // Loopback only because these tests allow it.
    let strict = tcp_server(&[("peers.allowed-peer-ip", "")]);
    let (mut session, _) = allocated(&strict);
    session.fail(connect_to(Listener::new().address), 403);
}

#[test]
fn r6062_5_2_06_connections_come_from_the_relayed_address() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    let listeners: Vec<_> = (0..5).map(|_| Listener::new()).collect();
    for listener in &listeners {
        connect(&mut session, listener.address);
        assert_eq!(listener.accept().1, relayed);
    }
}

#[test]
fn r6062_5_2_07_peers_that_do_not_accept() {
    let server = tcp_server(&[("lifetimes.connect-timeout", "\"1s\"")]);
    let (mut session, _) = allocated(&server);
    let closed = Listener::new().address;
    session.fail(connect_to(closed), 447);
    let silent = Silent::new();
    for _ in 0..2 {
        let start = Instant::now();
        session.fail(connect_to(silent.address), 447);
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
    let reopened = Listener::on(closed);
    connect(&mut session, reopened.address);
}

/// The three times of half a minute, side by side.
#[test]
fn r6062_5_2_08_12_5_3_05_half_a_minute_to_connect_and_half_a_minute_to_bind() {
    const LIMIT: Duration = Duration::from_secs(30);
    let server = tcp_server(&[]);
    let start = Instant::now();
    let (mut asking, _) = allocated(&server);
    let silent = Silent::new();
    let unanswered = asking.sign(connect_to(silent.address));
    asking.client.send(&unanswered.0);
    let listener = Listener::new();
    let id = connect(&mut asking, listener.address);
    let (mut accepted, _) = listener.accept();
    let (mut permitting, relayed) = allocated(&server);
    permitting.permit(relayed);
    let mut opened = Bytes::from(TcpStream::connect(relayed).unwrap());
    let (_, other_id) = attempt(&mut permitting);

    let begun = Instant::now();
    for stream in [&accepted.stream, &opened.stream] {
        stream.set_read_timeout(Some(LIMIT + PATIENCE)).unwrap();
    }
    // The system's timeouts of this length are seconds late.
    let early = asking.client.response(unanswered.id(), LIMIT - Duration::from_secs(5) - start.elapsed());
    assert!(early.is_none(), "{early:?} after {:?}", start.elapsed());
    for stream in [&accepted.stream, &opened.stream] {
        stream.set_nonblocking(true).unwrap();
        let waiting = std::io::Read::read(&mut &*stream, &mut [0; 16]);
        assert_eq!(waiting.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
    }
    accepted.expect_close();
    opened.expect_close();
    assert!(begun.elapsed() > LIMIT - Duration::from_secs(1), "closed after {:?}", begun.elapsed());
    assert_eq!(asking.client.response(unanswered.id(), PATIENCE).and_then(|reply| reply.error()), Some(447));
    assert!(start.elapsed() >= LIMIT);
    for id in [id, other_id] {
        Session::tcp(&server).fail(bind_to(id), 400);
    }
}

#[test]
fn r6062_5_2_10_11_ids_are_unique_and_unpredictable() {
    let server = tcp_server(&[]);
    let (mut ids, listeners) = (BTreeSet::new(), (0..25).map(|_| Listener::new()).collect::<Vec<_>>());
    for _ in 0..4 {
        let (mut session, _) = allocated(&server);
        for listener in &listeners {
            assert!(ids.insert(connect(&mut session, listener.address)));
        }
    }
    let ids: Vec<u32> = ids.into_iter().collect();
    assert!(ids[0] < 1 << 30 && ids[99] > 3 << 30, "{ids:x?}");
    assert!(ids.windows(2).all(|pair| pair[1] - pair[0] > 2), "{ids:x?}");
}

#[test]
fn r6062_5_3_01_04_a_permitted_peer_is_announced() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    session.permit(closed_port(V4));
    for _ in 0..3 {
        let mut peer = Bytes::from(TcpStream::connect(relayed).expect("accepted"));
        let (address, id) = attempt(&mut session);
        assert_eq!(address, peer.address());
        bind(&server, id).echo_with(&mut peer);
    }
}

#[test]
fn r6062_5_3_03_a_peer_without_a_permission_is_closed_at_once() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    session.permit(([127, 0, 0, 2], 1).into());
    let start = Instant::now();
    // Closed before or after the peer's system has said that it is open.
    if let Ok(stream) = TcpStream::connect(relayed) {
        Bytes::from(stream).expect_close();
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(session.client.fence().is_empty(), "an indication");
    let permitted = connect_from(([127, 0, 0, 2], 0).into(), relayed);
    assert_eq!(attempt(&mut session).0, permitted.address());
}

fn connect_from(local: SocketAddr, to: SocketAddr) -> Bytes {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&local.into()).unwrap();
    socket.connect(&to.into()).expect("connecting");
    TcpStream::from(socket).into()
}

/// A peer that has forgotten its connection may open it again, which makes the older one invalid.
#[test]
fn a_peer_that_comes_again_replaces_its_older_connection() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    session.permit(closed_port(V4));
    let first = connect_from((V4, 0).into(), relayed);
    let (address, old) = attempt(&mut session);
    first.reset();
    let mut second = connect_from(address, relayed);
    let (again, id) = attempt(&mut session);
    assert_eq!(again, address);
    Session::tcp(&server).fail(bind_to(old), 400);
    bind(&server, id).echo_with(&mut second);
}

#[test]
fn connections_per_allocation_are_limited() {
    let server = tcp_server(&[("limits.connections-per-allocation", "2")]);
    let (mut session, relayed) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    session.permit(listener.address);
    let _opened = Bytes::from(TcpStream::connect(relayed).unwrap());
    attempt(&mut session);
    session.fail(connect_to(Listener::new().address), 508);
    if let Ok(stream) = TcpStream::connect(relayed) {
        Bytes::from(stream).expect_close();
    }
    assert!(session.client.fence().is_empty(), "an indication");
    let (mut client, mut peer) = (bind(&server, id), listener.accept().0);
    client.echo_with(&mut peer);
}

/// Both ends of a call may have nothing but a relay.
#[test]
fn two_clients_of_this_server_reach_each_other() {
    let server = tcp_server(&[]);
    let ((mut one, from), (mut other, to)) = (allocated(&server), allocated(&server));
    other.permit(from);
    let here = connect(&mut one, to);
    let (address, there) = attempt(&mut other);
    assert_eq!(address, from);
    bind(&server, here).echo_with(&mut bind(&server, there));
}

/// Ports of the relay range are peers because relays are behind them; anything else that listens there is not meant.
#[test]
fn other_services_on_relay_ports_are_not_reached() {
    let server = tcp_server(&[("peers.allowed-peer-ip", "")]);
    let [(mut one, from), (mut other, to), (mut third, _)] = [(); 3].map(|()| allocated(&server));
    let listener = (50_000..).find_map(|port| std::net::TcpListener::bind((V4, port)).ok()).unwrap();
    one.fail(connect_to(listener.local_addr().unwrap()), 403);
    other.permit(from);
    let here = connect(&mut one, to);
    bind(&server, here).echo_with(&mut bind(&server, attempt(&mut other).1));
    other.delete();
    third.fail(connect_to(to), 403);
}

/// Whoever is first wins; both clients have an answer, and one connection comes of it.
#[test]
fn two_clients_that_connect_to_each_other_at_once() {
    let server = tcp_server(&[("process.workers", "4")]);
    for round in 0..20 {
        let ((mut one, from), (mut other, to)) = (allocated(&server), allocated(&server));
        one.permit(to);
        other.permit(from);
        let (first, second) = (one.sign(connect_to(to)), other.sign(connect_to(from)));
        one.client.send(&first.0);
        if round % 2 == 0 {
            std::thread::yield_now();
        }
        other.client.send(&second.0);
        // A success, or an error and then the other's connection.
        let connection = |session: &mut Session, id| {
            let reply = session.client.response(id, PATIENCE).expect("an answer");
            match reply.error() {
                None => connection_id(&reply),
                Some(446 | 447) => attempt(session).1,
                Some(error) => panic!("{error}"),
            }
        };
        let (here, there) = (connection(&mut one, first.id()), connection(&mut other, second.id()));
        bind(&server, here).echo_with(&mut bind(&server, there));
    }
}

#[test]
fn a_flood_of_connections_without_a_permission_leaves_nothing() {
    const FLOOD: usize = 4_000;
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    let flood = |count: usize| {
        for _ in 0..count {
            if let Ok(stream) = TcpStream::connect(relayed) {
                Bytes::from(stream).expect_close();
            }
        }
    };
    flood(100);
    let before = resources(&server);
    flood(FLOOD);
    assert_eq!(session.client.request(&Msg::new(BINDING)).error(), None);
    let after = resources(&server);
    assert!(after.descriptors <= before.descriptors + 2, "{before:?} {after:?}");
    assert!(after.memory < before.memory + (1 << 20), "{before:?} {after:?}");
    assert!(session.client.fence().is_empty(), "an indication");
}
