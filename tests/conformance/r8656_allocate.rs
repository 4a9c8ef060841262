//! RFC 8656 §7.2: Allocate.

use std::collections::HashSet;

use crate::client::Client;
use crate::common::ports::free_port_pair;
use crate::setup::{ALICE, Peer, Session, V4, V6, connected, portable, server};
use crate::wire::{
    ADDITIONAL_ADDRESS_FAMILY, ALLOCATE, DONT_FRAGMENT, EVEN_PORT, LIFETIME, Msg, REFRESH, REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT, RESERVATION_TOKEN, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, allocate,
    channel_data,
};

#[test]
fn r8656_7_2_02_a_second_allocation_on_the_5_tuple_gets_437() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        session.fail(allocate(), 437);
        session.fail(Msg::new(ALLOCATE), 437);
    }
}

#[test]
fn r8656_7_2_03_04_requested_transport_missing_or_malformed_is_a_bad_request() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.fail(Msg::new(ALLOCATE), 400);
        for length in [0, 1, 8] {
            session.fail(Msg::new(ALLOCATE).attr(REQUESTED_TRANSPORT, &vec![17; length]), 400);
        }
        session.allocate();
    }
}

#[test]
fn r8656_7_2_05_r6062_5_1_01_other_protocols_get_442() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for protocol in [0, 1, 132, 255] {
            session.fail(Msg::new(ALLOCATE).attr(REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]), 442);
        }
        session.allocate();
    }
}

#[test]
fn r8656_7_2_06_dont_fragment_is_supported_or_refused_by_name() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let reply = session.call(allocate().attr(DONT_FRAGMENT, &[]));
        if portable() {
            assert_eq!(reply.error(), Some(420));
            assert_eq!(reply.get(UNKNOWN_ATTRIBUTES), Some(&[0, 0x1A][..]));
        } else {
            assert!(reply.error().is_none() && reply.has(XOR_RELAYED_ADDRESS), "{reply:02x?}");
        }
    }
}

#[test]
fn r8656_7_2_07_08_09_11_15_attributes_that_exclude_each_other_are_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let token = |message: Msg| message.attr(RESERVATION_TOKEN, &[7; 8]);
    let family = |message: Msg| message.attr(REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    let additional = |message: Msg| message.attr(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    session.fail(token(allocate()).attr(EVEN_PORT, &[0]), 400);
    session.fail(token(allocate()).attr(EVEN_PORT, &[0x80]), 400);
    session.fail(family(token(allocate())), 400);
    session.fail(additional(token(allocate())), 400);
    session.fail(additional(family(allocate())), 400);
    session.fail(additional(allocate()).attr(EVEN_PORT, &[0x80]), 400);
    session.allocate();
}

#[test]
fn malformed_values_in_an_allocate_are_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.fail(allocate().attr(EVEN_PORT, &[]), 400);
    session.fail(allocate().attr(RESERVATION_TOKEN, &[7; 7]), 400);
    session.fail(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[]), 400);
    session.fail(allocate().attr(ADDITIONAL_ADDRESS_FAMILY, &[2]), 400);
}

#[test]
fn r8656_7_2_24_a_new_allocation_has_no_permissions_and_no_channels() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let relayed = session.allocate();
        let peer = Peer::new(V4);
        peer.send(b"early", relayed);
        session.send_to(peer.address, b"early");
        let padded = crate::wire::padded_channel_data(0x4000, b"early");
        session.send(&padded);
        assert!(session.fence().is_empty());
        session.permit(peer.address);
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_7_2_31_32_33_relay_ports_are_dynamic_ports_at_random() {
    let server = server(&[]);
    let mut sessions: Vec<Session> = (0..40).map(|_| Session::udp(&server)).collect();
    let ports: Vec<u16> = sessions.iter_mut().map(|session| session.allocate().port()).collect();
    assert!(ports.iter().all(|port| *port >= 49152), "{ports:?}");
    let steps: HashSet<u16> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 30, "sequential ports: {ports:?}");
    let (low, high) = (ports.iter().min().unwrap(), ports.iter().max().unwrap());
    assert!(high - low > 4096, "ports from a small part of the range: {ports:?}");
}

#[test]
fn r8656_7_2_31_the_configured_port_range_is_kept() {
    let port = free_port_pair(&[V4]);
    let server = server(&[("relay.min-port", &port.to_string()), ("relay.max-port", &(port + 1).to_string())]);
    let ports: HashSet<u16> = {
        let mut sessions = [Session::udp(&server), Session::tcp(&server)];
        let ports = sessions.each_mut().map(|session| session.allocate().port());
        Session::udp(&server).fail(allocate(), 508);
        ports.into()
    };
    assert_eq!(ports, [port, port + 1].into());
}

#[test]
fn r8656_7_2_34_35_the_lifetime_is_between_the_default_and_the_maximum() {
    let server = server(&[]);
    for (requested, granted) in [(0, 600), (1, 600), (599, 600), (600, 600), (601, 601), (3600, 3600), (u32::MAX, 3600)]
    {
        let reply = Session::udp(&server).succeed(allocate().u32(LIFETIME, requested));
        assert_eq!(reply.u32(LIFETIME), Some(granted), "requested {requested}");
    }
}

#[test]
fn r8656_7_2_36_37_38_39_40_what_a_success_response_carries() {
    let server = server(&[]);
    for transport in ["udp", "tcp"] {
        for address in [server.ipv4(transport), server.ipv6(transport)] {
            let client = if transport == "udp" { Client::udp(address) } else { Client::tcp(address) };
            let mut session = Session::over(client, ALICE);
            let reply = session.succeed(allocate());
            assert_eq!(reply.all_xor(XOR_RELAYED_ADDRESS).len(), 1);
            assert_eq!(reply.u32(LIFETIME), Some(600));
            assert!(!reply.has(RESERVATION_TOKEN));
            assert_eq!(reply.all_xor(XOR_MAPPED_ADDRESS), [session.local]);
        }
    }
}

#[test]
fn r8656_7_2_41_a_retransmitted_allocate_gets_the_same_answer() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let request = session.sign(allocate().attr(EVEN_PORT, &[0x80]));
        let first = session.call_signed(&request);
        let second = session.call_signed(&request);
        assert_eq!(first.xor(XOR_RELAYED_ADDRESS), second.xor(XOR_RELAYED_ADDRESS));
        assert!(first.has(RESERVATION_TOKEN));
        assert_eq!(first.get(RESERVATION_TOKEN), second.get(RESERVATION_TOKEN));
        assert_eq!(first.xor(XOR_MAPPED_ADDRESS), second.xor(XOR_MAPPED_ADDRESS));
    }
}

#[test]
fn r8656_7_2_20_the_relay_is_exhausted() {
    let port = free_port_pair(&[V4, V6]).to_string();
    let server = server(&[("relay.min-port", &port), ("relay.max-port", &port)]);
    let mut first = Session::udp(&server);
    let both = || allocate().attr(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    assert_eq!(first.succeed(both()).all_xor(XOR_RELAYED_ADDRESS).len(), 2);
    let mut second = Session::udp(&server);
    second.fail(both(), 508);
    second.fail(allocate(), 508);
    second.fail(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]), 508);
    first.delete();
    second.succeed(both());
}

#[test]
fn a_port_that_another_program_holds_is_passed_over() {
    let port = free_port_pair(&[V4]);
    let server = server(&[("relay.min-port", &port.to_string()), ("relay.max-port", &(port + 1).to_string())]);
    let taken = Peer::on((V4, port).into());
    assert_eq!(Session::udp(&server).allocate().port(), port + 1);
    drop(taken);
}

#[test]
fn a_client_of_tcp_loses_its_allocation_with_its_connection() {
    let server = server(&[("limits.user-quota", "1")]);
    for _ in 0..3 {
        let (session, peer, relayed) = connected(Session::tcp(&server));
        drop(session);
        peer.send(b"late", relayed);
        // The quota frees the user's place as soon as the allocation is gone.
        let mut next = Session::udp(&server);
        let deadline = std::time::Instant::now() + crate::client::PATIENCE;
        while next.call(allocate()).error() == Some(486) {
            assert!(std::time::Instant::now() < deadline, "the allocation stays");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        next.send(&channel_data(0x4000, b"x"));
        next.succeed(Msg::new(REFRESH).u32(LIFETIME, 0));
    }
}
