//! RFC 6062 §5.1: allocations of TCP relayed addresses, and what does not go with them.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::common::ports::free_port_pair;
use crate::r6062_setup::{allocated, bind, bind_to, connect, connect_to, tcp_server};
use crate::setup::{Peer, Session, V4, connected, server};
use crate::wire::{
    ADDITIONAL_ADDRESS_FAMILY, CHANNEL_BIND, DONT_FRAGMENT, EVEN_PORT, LIFETIME, Msg, REFRESH,
    REQUESTED_ADDRESS_FAMILY, RESERVATION_TOKEN, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, allocate, allocate_tcp, send,
};

#[test]
fn r6062_5_1_02_udp_over_tcp_is_an_ordinary_allocation() {
    let server = tcp_server(&[]);
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    session.round_trip(&peer, relayed);
}

#[test]
fn r6062_5_1_03_udp_is_forbidden_where_it_is_not_relayed() {
    let server = tcp_server(&[("relay.udp-relaying", "false")]);
    Session::udp(&server).fail(allocate(), 403);
    let mut session = Session::tcp(&server);
    session.fail(allocate(), 403);
    session.succeed(allocate_tcp());
}

#[test]
fn tcp_is_an_unsupported_protocol_unless_it_is_switched_on() {
    let server = server(&[]);
    let mut session = Session::tcp(&server);
    session.fail(allocate_tcp(), 442);
    // The methods are unknown then, and unknown methods draw no answer.
    session.allocate();
    let requests = [connect_to(([127, 0, 0, 1], 1).into()), bind_to(1)];
    for request in requests {
        let request = session.sign(request);
        session.client.silent(&request.0);
    }
}

#[test]
fn r6062_5_1_04_r7350_4_6_02_a_client_of_udp_or_dtls_gets_none() {
    let server = tcp_server(&[]);
    for mut session in [Session::udp(&server), Session::dtls(&server)] {
        session.fail(allocate_tcp(), 400);
        session.allocate();
    }
}

#[test]
fn r6062_5_1_05_06_07_attributes_that_are_for_udp() {
    let server = tcp_server(&[]);
    let mut session = Session::tcp(&server);
    session.fail(allocate_tcp().attr(DONT_FRAGMENT, &[]), 400);
    session.fail(allocate_tcp().attr(EVEN_PORT, &[0]), 400);
    session.fail(allocate_tcp().attr(EVEN_PORT, &[0x80]), 400);
    session.fail(allocate_tcp().attr(RESERVATION_TOKEN, &[7; 8]), 400);
    session.fail(allocate_tcp().attr(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]), 400);
    session.succeed(allocate_tcp());
}

#[test]
fn r6062_5_1_08_09_10_peers_can_connect_to_the_relayed_address() {
    let server = tcp_server(&[]);
    let mut session = Session::tcp(&server);
    let reply = session.succeed(allocate_tcp().u32(LIFETIME, 1200));
    let relayed = reply.xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS");
    assert_eq!((relayed.ip(), relayed.port() >= 49152), (V4, true));
    assert!(!reply.has(RESERVATION_TOKEN));
    assert_eq!(reply.xor(XOR_MAPPED_ADDRESS), Some(session.local));
    assert_eq!(reply.get(LIFETIME), Some(&1200u32.to_be_bytes()[..]));
    std::net::TcpStream::connect(relayed).expect("a listener at the relayed address");
    // UDP there is nobody's.
    let peer = Peer::new(V4);
    peer.socket.connect(relayed).unwrap();
    peer.socket.send(b"anybody?").unwrap();
    assert_eq!(peer.socket.recv(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_relayed_address_of_ipv6() {
    let server = tcp_server(&[]);
    let mut session = Session::over(Client::tcp(server.ipv6("tcp")), crate::setup::ALICE);
    let relayed = session.allocate_with(allocate_tcp().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    assert!(relayed.is_ipv6());
    let listener = crate::r6062_setup::Listener::at(crate::setup::V6);
    let id = connect(&mut session, listener.address);
    let (mut peer, from) = listener.accept();
    assert_eq!(from, relayed);
    bind(&server, id).echo_with(&mut peer);
    session.fail(connect_to(([127, 0, 0, 1], 1).into()), 443);
}

#[test]
fn channels_and_indications_are_not_for_tcp_allocations() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let peer = Peer::new(V4);
    session.permit(peer.address);
    session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer.address), 400);
    session.client.silent(&send(peer.address, b"lost").0);
    peer.socket.set_nonblocking(true).unwrap();
    assert!(peer.socket.recv(&mut [0; 16]).is_err());
    session.succeed(Msg::new(REFRESH));
}

#[test]
fn ports_of_tcp_and_of_udp_are_apart() {
    let port = free_port_pair(&[V4]).to_string();
    let server = tcp_server(&[("relay.min-port", &port), ("relay.max-port", &port)]);
    let (mut first, relayed) = allocated(&server);
    assert_eq!(Session::tcp(&server).allocate(), relayed);
    Session::tcp(&server).fail(allocate_tcp(), 508);
    first.delete();
    // The listener is closed by a task of its own.
    let deadline = std::time::Instant::now() + crate::client::PATIENCE;
    while Session::tcp(&server).call(allocate_tcp()).error().is_some() {
        assert!(std::time::Instant::now() < deadline, "the port stays taken");
    }
}

#[test]
fn a_port_that_another_program_listens_on_is_passed_over() {
    let port = free_port_pair(&[V4]);
    let server = tcp_server(&[("relay.min-port", &port.to_string()), ("relay.max-port", &(port + 1).to_string())]);
    // Even one that would share it.
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    other.set_reuse_port(true).unwrap();
    other.bind(&SocketAddr::from((V4, port)).into()).unwrap();
    other.listen(1).unwrap();
    let (_session, relayed) = allocated(&server);
    assert_eq!(relayed.port(), port + 1);
    Session::tcp(&server).fail(allocate_tcp(), 508);
    // And nobody else gets ours, not even by sharing.
    let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    late.set_reuse_address(true).unwrap();
    late.bind(&SocketAddr::from((V4, port + 1)).into()).expect_err("it is in use");
}

#[test]
fn quotas_count_tcp_allocations() {
    let server = tcp_server(&[("limits.user-quota", "1")]);
    let (mut first, _) = allocated(&server);
    Session::tcp(&server).fail(allocate_tcp(), 486);
    Session::udp(&server).fail(allocate(), 486);
    first.delete();
    Session::tcp(&server).succeed(allocate_tcp());
}
