//! RFC 8656 §7.2: EVEN-PORT and RESERVATION-TOKEN.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::client::Client;
use crate::common::ports::free_port_pair;
use crate::setup::{ALICE, BOB, Peer, Session, V4, server};
use crate::wire::{EVEN_PORT, LIFETIME, Msg, REFRESH, RESERVATION_TOKEN, Reply, XOR_RELAYED_ADDRESS, allocate};

fn even(reserve: bool) -> Msg {
    allocate().attr(EVEN_PORT, &[if reserve { 0x80 } else { 0 }])
}

fn with_token(token: &[u8]) -> Msg {
    allocate().attr(RESERVATION_TOKEN, token)
}

fn address_and_token(reply: &Reply) -> (SocketAddr, Vec<u8>) {
    let token = reply.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
    assert_eq!(token.len(), 8);
    (reply.xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS"), token)
}

/// A server whose range is one pair of ports, the first of them even.
fn pair_server(settings: &[(&str, &str)]) -> (crate::setup::Server, u16) {
    let port = free_port_pair(&[V4]);
    let (min, max) = (port.to_string(), (port + 1).to_string());
    let range = [("relay.min-port", min.as_str()), ("relay.max-port", max.as_str())];
    (server(&[&range[..], settings].concat()), port)
}

#[test]
fn r8656_7_2_10_an_unknown_token_gets_508() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.fail(with_token(&[7; 8]), 508);
        session.allocate();
    }
}

#[test]
fn r8656_7_2_16_even_port_that_cannot_be_satisfied_gets_508() {
    let port = free_port_pair(&[V4]);
    let one = |port: u16| [("relay.min-port", port.to_string()), ("relay.max-port", port.to_string())];
    let start = |port: u16| {
        let range = one(port);
        server(&range.each_ref().map(|(key, value)| (*key, value.as_str())))
    };
    let odd = start(port + 1);
    Session::udp(&odd).fail(even(false), 508);
    Session::udp(&odd).fail(even(true), 508);
    Session::udp(&odd).allocate();
    let alone = start(port);
    Session::udp(&alone).fail(even(true), 508);
    assert_eq!(Session::udp(&alone).allocate_with(even(false)).port(), port);
}

#[test]
fn r8656_7_2_25_26_28_a_token_gives_the_next_port_from_any_5_tuple() {
    let server = server(&[]);
    let clients = [
        Client::udp(server.ipv4("udp")),
        Client::udp_from(([127, 0, 0, 3], 0).into(), server.ipv4("udp")),
        Client::tcp(server.ipv4("tcp")),
        Client::udp(server.ipv6("udp")),
    ];
    for client in clients {
        let mut first = Session::udp(&server);
        let (relayed, token) = address_and_token(&first.succeed(even(true)));
        assert_eq!(relayed.port() % 2, 0);
        let mut second = Session::over(client, ALICE);
        let reply = second.succeed(with_token(&token));
        let next = SocketAddr::new(relayed.ip(), relayed.port() + 1);
        assert_eq!(reply.all_xor(XOR_RELAYED_ADDRESS), [next]);
        assert!(!reply.has(RESERVATION_TOKEN));
        let peer = Peer::new(V4);
        for (session, relayed) in [(&mut first, relayed), (&mut second, next)] {
            session.permit(peer.address);
            session.round_trip(&peer, relayed);
        }
    }
}

#[test]
fn r8656_7_2_25_tokens_work_whichever_worker_the_second_5_tuple_lands_on() {
    let server = server(&[("process.workers", "4")]);
    for _ in 0..16 {
        let (relayed, token) = address_and_token(&Session::udp(&server).succeed(even(true)));
        assert_eq!(Session::udp(&server).allocate_with(with_token(&token)).port(), relayed.port() + 1);
    }
}

#[test]
fn r8656_7_2_27_even_port_alone_gives_an_even_port_and_no_token() {
    let server = server(&[]);
    for _ in 0..10 {
        let reply = Session::udp(&server).succeed(even(false));
        assert_eq!(reply.xor(XOR_RELAYED_ADDRESS).unwrap().port() % 2, 0);
        assert!(!reply.has(RESERVATION_TOKEN));
    }
}

#[test]
fn r8656_7_2_30_a_token_works_once() {
    let server = server(&[]);
    let (_, token) = address_and_token(&Session::udp(&server).succeed(even(true)));
    let mut second = Session::udp(&server);
    let request = second.sign(with_token(&token));
    let relayed = second.call_signed(&request).xor(XOR_RELAYED_ADDRESS);
    Session::udp(&server).fail(with_token(&token), 508);
    // But the retransmission of the request that used it is answered again.
    assert!(relayed.is_some());
    assert_eq!(second.call_signed(&request).xor(XOR_RELAYED_ADDRESS), relayed);
    second.delete();
    Session::udp(&server).fail(with_token(&token), 508);
}

#[test]
fn r8656_7_2_42_the_reserved_port_goes_to_nobody_else() {
    let (server, port) = pair_server(&[]);
    let mut first = Session::udp(&server);
    let (relayed, token) = address_and_token(&first.succeed(even(true)));
    assert_eq!(relayed.port(), port);
    for mut other in Session::each(&server) {
        other.fail(allocate(), 508);
        other.fail(even(false), 508);
    }
    assert_eq!(Session::udp(&server).allocate_with(with_token(&token)).port(), port + 1);
}

#[test]
fn r8656_7_2_29_a_reservation_outlives_its_first_allocation_and_ends_after_its_time() {
    let (server, port) = pair_server(&[("lifetimes.reservation-lifetime", "\"2s\"")]);
    // Used within its time, also when the first allocation is gone.
    let mut first = Session::udp(&server);
    let (_, token) = address_and_token(&first.succeed(even(true)));
    first.delete();
    sleep(Duration::from_millis(1000));
    let mut second = Session::udp(&server);
    assert_eq!(second.allocate_with(with_token(&token)).port(), port + 1);
    second.delete();
    // Not used within its time: the token is void and the port is free.
    let (_, token) = address_and_token(&first.succeed(even(true)));
    sleep(Duration::from_millis(2500));
    second.fail(with_token(&token), 508);
    assert_eq!(second.allocate().port(), port + 1);
}

#[test]
fn a_reservation_may_be_bound_to_its_user() {
    // The RFC leaves it open whether another user may use a token; he must not crash or leak anything.
    let (server, port) = pair_server(&[]);
    let (_, token) = address_and_token(&Session::udp(&server).succeed(even(true)));
    let reply = Session::over(Client::udp(server.ipv4("udp")), BOB).call(with_token(&token));
    match reply.error() {
        None => assert_eq!(reply.xor(XOR_RELAYED_ADDRESS).unwrap().port(), port + 1),
        Some(error) => assert!([403, 441, 508].contains(&error), "{error}"),
    }
}

#[test]
fn deleting_everything_frees_both_ports() {
    let (server, port) = pair_server(&[]);
    for _ in 0..3 {
        let (mut first, mut second) = (Session::udp(&server), Session::udp(&server));
        let (relayed, token) = address_and_token(&first.succeed(even(true)));
        assert_eq!(relayed.port(), port);
        second.allocate_with(with_token(&token));
        first.delete();
        second.succeed(Msg::new(REFRESH).u32(LIFETIME, 0));
    }
}
