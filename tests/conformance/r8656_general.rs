//! RFC 8656 §5, §6, §17, §18: what holds for all of TURN.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::client::Client;
use crate::setup::{ALICE, BOB, Peer, Session, V4, V6, connected, server};
use crate::wire::{
    ADDITIONAL_ADDRESS_FAMILY, ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, EVEN_PORT, LIFETIME, Msg,
    REFRESH, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT, RESERVATION_TOKEN, SOFTWARE, XOR_RELAYED_ADDRESS, allocate,
    channel_data, padded_channel_data, send,
};

const SOMEWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// The requests that concern an allocation.
fn about_an_allocation() -> [Msg; 3] {
    [
        Msg::new(REFRESH),
        Msg::new(CREATE_PERMISSION).peer(SOMEWHERE),
        Msg::new(CHANNEL_BIND).channel(0x4000).peer(SOMEWHERE),
    ]
}

#[test]
fn r8656_5_04_21_3_01_another_user_gets_441() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let request = allocate();
        session.succeed(request.clone());
        let account = |session: &mut Session, (user, password): (&str, &str)| {
            session.user = user.to_owned();
            session.password = password.to_owned();
        };
        account(&mut session, BOB);
        for request in about_an_allocation() {
            session.fail(request, 441);
        }
        session.fail(Msg::new(REFRESH).u32(LIFETIME, 0), 441);
        // No retransmission, whatever the transaction id: he is not told the relayed address.
        session.fail(request, 437);
        account(&mut session, ALICE);
        for request in about_an_allocation() {
            session.succeed(request);
        }
    }
}

#[test]
fn r8656_5_05_requests_without_an_allocation_get_437() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for request in about_an_allocation() {
            session.fail(request, 437);
        }
    }
}

#[test]
fn r8656_5_06_data_without_an_allocation_are_ignored() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.silent(&send(SOMEWHERE.into(), b"data").0);
        session.silent(&padded_channel_data(0x4000, b"data"));
    }
}

#[test]
fn r8656_5_07_software_is_in_allocate_and_refresh_responses_when_switched_on() {
    let server = server(&[("process.software-attribute", "true")]);
    let mut session = Session::udp(&server);
    for reply in [
        session.fail(Msg::new(REFRESH), 437),
        session.fail(Msg::new(ALLOCATE), 400),
        session.succeed(allocate()),
        session.succeed(Msg::new(REFRESH)),
    ] {
        assert!(reply.has(SOFTWARE));
    }
}

#[test]
fn r8656_5_09_10_16_data_pass_between_all_families_over_udp_and_tcp() {
    let server = server(&[]);
    for transport in ["udp", "tcp"] {
        for client in [server.ipv4(transport), server.ipv6(transport)] {
            for (family, ip) in [(1u8, V4), (2, V6)] {
                let client = if transport == "udp" { Client::udp(client) } else { Client::tcp(client) };
                let mut session = Session::over(client, ALICE);
                let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
                assert_eq!(relayed.is_ipv4(), family == 1);
                let peer = Peer::new(ip);
                session.permit(peer.address);
                session.round_trip(&peer, relayed);
                session.bind(0x4000, peer.address);
                session.send(&padded_channel_data(0x4000, b"four"));
                assert_eq!(peer.receive(), (b"four".to_vec(), relayed));
                peer.send(b"five5", relayed);
                assert_eq!(session.channel(), (0x4000, b"five5".to_vec()));
            }
        }
    }
}

#[test]
fn r8656_5_13_a_retransmitted_request_is_recognised_by_its_transaction_id() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let request = session.sign(allocate());
    let relayed = session.call_signed(&request).xor(XOR_RELAYED_ADDRESS);
    assert!(relayed.is_some());
    assert_eq!(session.call_signed(&request).xor(XOR_RELAYED_ADDRESS), relayed);
    session.fail(allocate(), 437);
    assert_eq!(session.call_signed(&request).xor(XOR_RELAYED_ADDRESS), relayed);
}

#[test]
fn r8656_5_14_7_2_21_22_the_quota_counts_per_user_whatever_the_address() {
    let server = server(&[("limits.user-quota", "2")]);
    let mut first = Session::udp(&server);
    first.allocate();
    let elsewhere = Client::udp_from(([127, 0, 0, 2], 0).into(), server.ipv4("udp"));
    Session::over(elsewhere, ALICE).allocate();
    for mut third in Session::each(&server) {
        third.fail(allocate(), 486);
    }
    Session::bob(&server).allocate();
    first.delete();
    Session::tcp(&server).allocate();
}

#[test]
fn r8656_5_14_the_total_quota() {
    let server = server(&[("limits.total-quota", "2")]);
    let mut first = Session::udp(&server);
    first.allocate();
    Session::bob(&server).allocate();
    Session::bob(&server).fail(allocate(), 486);
    first.delete();
    Session::bob(&server).allocate();
}

#[test]
fn r8656_6_01_relayed_addresses_are_unique() {
    let server = server(&[]);
    let mut sessions: Vec<Session> = (0..100).map(|_| Session::udp(&server)).collect();
    let relayed: HashSet<SocketAddr> = sessions.iter_mut().map(Session::allocate).collect();
    assert_eq!(relayed.len(), 100);
}

#[test]
fn r8656_6_03_the_default_lifetime_is_600_seconds() {
    let server = server(&[]);
    assert_eq!(Session::udp(&server).succeed(allocate()).u32(LIFETIME), Some(600));
}

#[test]
fn r8656_18_02_reserved_bits_of_channel_number_are_ignored() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    session.succeed(Msg::new(CHANNEL_BIND).u32(CHANNEL_NUMBER, 0x4123_FFFF).peer(peer.address));
    session.send(&channel_data(0x4123, b"data"));
    assert_eq!(peer.receive(), (b"data".to_vec(), relayed));
}

#[test]
fn r8656_18_03_04_05_reserved_bits_of_allocate_attributes_are_ignored() {
    let server = server(&[]);
    let family = |value: u32| allocate().u32(REQUESTED_ADDRESS_FAMILY, value);
    assert!(Session::udp(&server).allocate_with(family(0x01FF_FFFF)).is_ipv4());
    assert!(Session::udp(&server).allocate_with(family(0x02FF_FFFF)).is_ipv6());
    let both = allocate().u32(ADDITIONAL_ADDRESS_FAMILY, 0x02FF_FFFF);
    assert_eq!(Session::udp(&server).succeed(both).all_xor(XOR_RELAYED_ADDRESS).len(), 2);
    for (bits, reserves) in [(0x7F, false), (0xFF, true)] {
        let reply = Session::udp(&server).succeed(allocate().attr(EVEN_PORT, &[bits]));
        assert_eq!(reply.has(RESERVATION_TOKEN), reserves);
        assert_eq!(reply.xor(XOR_RELAYED_ADDRESS).unwrap().port() % 2, 0);
    }
    Session::udp(&server).succeed(Msg::new(ALLOCATE).attr(REQUESTED_TRANSPORT, &[17, 0xFF, 0xFF, 0xFF]));
    let mut session = Session::udp(&server);
    session.allocate();
    session.succeed(Msg::new(REFRESH).u32(REQUESTED_ADDRESS_FAMILY, 0x01FF_FFFF));
}

#[test]
fn r8656_18_08_a_lifetime_of_other_than_4_bytes_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for length in [0, 2, 8] {
        session.fail(allocate().attr(LIFETIME, &vec![0; length]), 400);
    }
    session.allocate();
    for length in [0, 2, 8] {
        session.fail(Msg::new(REFRESH).attr(LIFETIME, &vec![0; length]), 400);
    }
    session.succeed(Msg::new(REFRESH));
}

#[test]
fn anonymous_clients_are_served_when_the_operator_says_so() {
    let server = server(&[("auth.anonymous", "true"), ("auth.user", "")]);
    let mut client = Client::udp(server.ipv4("udp"));
    let reply = client.request(&allocate());
    assert!(reply.has(XOR_RELAYED_ADDRESS) && reply.is_unsigned());
}
