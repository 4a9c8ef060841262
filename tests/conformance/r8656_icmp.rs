//! RFC 8656 §11.5, §18.13: ICMP errors become Data indications.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::client::Client;
use crate::setup::{ALICE, Peer, Session, V4, V6, closed_port, connected, portable, server};
use crate::sniff::{ipv4_header, udp_datagram};
use crate::wire::{
    DATA, ICMP, REQUESTED_ADDRESS_FAMILY, XOR_PEER_ADDRESS, allocate, channel_data, padded_channel_data,
};

/// Type, code and error data of the attribute: 16 reserved bits, 7 of type, 9 of code, 32 of data (RFC 8656 §18.13).
fn decode(value: &[u8]) -> (u8, u16, u32) {
    assert_eq!(value.len(), 8, "{value:?}");
    assert_eq!(value[..2], [0, 0], "reserved bits");
    let kind_and_code = u16::from_be_bytes([value[2], value[3]]);
    ((kind_and_code >> 9) as u8, kind_and_code & 0x1FF, u32::from_be_bytes(value[4..].try_into().unwrap()))
}

/// Sends an ICMPv4 message about a datagram from `relayed` to `peer`; the sender of the message is `router`.
fn forge_v4(router: Ipv4Addr, relayed: SocketAddr, peer: SocketAddr, kind: u8, code: u8, rest: u32) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (relayed, peer) else { panic!("IPv4 only") };
    let mut enclosed = ipv4_header(*from.ip(), *to.ip(), 12, 17);
    let checksum = internet_checksum(&enclosed);
    enclosed[10..12].copy_from_slice(&checksum.to_be_bytes());
    enclosed.extend(udp_datagram(from.port(), to.port(), b"lost"));
    let mut message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), &enclosed].concat();
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("a raw socket (needs root)");
    socket.bind(&SocketAddr::from((router, 0)).into()).unwrap();
    socket.send_to(&message, &SocketAddr::from((*from.ip(), 0)).into()).unwrap();
}

/// The same for ICMPv6, whose checksum the system fills in.
fn forge_v6(relayed: SocketAddr, peer: SocketAddr, kind: u8, code: u8, rest: u32) {
    let (SocketAddr::V6(from), SocketAddr::V6(to)) = (relayed, peer) else { panic!("IPv6 only") };
    let mut enclosed = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
    enclosed.extend(from.ip().octets());
    enclosed.extend(to.ip().octets());
    enclosed.extend(udp_datagram(from.port(), to.port(), b"lost"));
    let message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), &enclosed].concat();
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("a raw socket (needs root)");
    socket.send_to(&message, &SocketAddr::from((*from.ip(), 0)).into()).unwrap();
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let sum = (sum >> 16) + (sum & 0xFFFF);
    !((sum >> 16) + (sum & 0xFFFF)) as u16
}

/// A session of UDP with an IPv6 relay.
fn over_v6(server: &crate::setup::Server) -> (Session, SocketAddr) {
    let mut session = Session::udp(server);
    let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    (session, relayed)
}

#[test]
fn r8656_11_5_01_05_06_07_16_01_a_closed_port_is_reported() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let clients = [
        (Client::udp(server.ipv4("udp")), 1u8, V4),
        (Client::tcp(server.ipv4("tcp")), 1, V4),
        (Client::udp(server.ipv6("udp")), 2, V6),
        (Client::udp(server.ipv4("udp")), 2, V6),
        (Client::tcp(server.ipv6("tcp")), 2, V6),
    ];
    for (client, family, ip) in clients {
        let mut session = Session::over(client, ALICE);
        let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
        let closed = closed_port(ip);
        session.permit(closed);
        session.send_to(closed, b"anybody there?");
        let indication = session.data_indication();
        let kinds: Vec<u16> = indication.attributes.iter().map(|(kind, _)| *kind).collect();
        assert!(kinds.contains(&XOR_PEER_ADDRESS) && kinds.contains(&ICMP) && !kinds.contains(&DATA), "{kinds:x?}");
        assert_eq!(indication.xor(XOR_PEER_ADDRESS), Some(closed));
        // Port unreachable: type 3 code 3 in ICMPv4, type 1 code 4 in ICMPv6.
        let expected = if family == 1 { (3, 3, 0) } else { (1, 4, 0) };
        assert_eq!(decode(indication.get(ICMP).unwrap()), expected);
        // And the allocation keeps relaying.
        let peer = Peer::new(ip);
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_11_5_08_an_indication_even_when_a_channel_is_bound() {
    if portable() {
        return;
    }
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        let closed = closed_port(V4);
        session.bind(0x4000, closed);
        session.send(&padded_channel_data(0x4000, b"lost"));
        let (peer, value) = session.icmp();
        assert_eq!((peer, decode(&value)), (closed, (3, 3, 0)));
    }
}

#[test]
fn r8656_11_5_01_18_07_icmpv4_errors_of_types_3_and_11_are_forwarded() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (mut session, _, relayed) = connected(Session::udp(&server));
    let peer = SocketAddr::from(([127, 0, 0, 77], 7));
    session.permit(peer);
    let mut ids = std::collections::BTreeSet::new();
    for (kind, code, rest, expected) in [
        (3, 0, 0, (3, 0, 0)),
        (3, 1, 0, (3, 1, 0)),
        (3, 3, 0, (3, 3, 0)),
        (3, 13, 0, (3, 13, 0)),
        (11, 0, 0, (11, 0, 0)),
        (3, 4, 1400, (3, 4, 1400)),
    ] {
        forge_v4(Ipv4Addr::LOCALHOST, relayed, peer, kind, code, rest);
        let indication = session.data_indication();
        assert!(!indication.has(DATA) && ids.insert(indication.id), "{indication:02x?}");
        assert_eq!(indication.xor(XOR_PEER_ADDRESS), Some(peer));
        assert_eq!(decode(indication.get(ICMP).expect("ICMP")), expected, "type {kind} code {code}");
    }
}

#[test]
fn r8656_11_5_01_18_07_icmpv6_errors_of_types_1_2_and_3_are_forwarded() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (mut session, relayed) = over_v6(&server);
    let peer = closed_port(V6);
    session.permit(peer);
    for (kind, code, rest, expected) in
        [(1, 0, 0, (1, 0, 0)), (1, 4, 0, (1, 4, 0)), (3, 0, 0, (3, 0, 0)), (2, 0, 1400, (2, 0, 1400))]
    {
        forge_v6(relayed, peer, kind, code, rest);
        let (about, value) = session.icmp();
        assert_eq!((about, decode(&value)), (peer, expected), "type {kind} code {code}");
    }
}

#[test]
fn r8656_11_5_02_other_icmp_types_are_dropped() {
    let server = server(&[]);
    let (mut session, good, relayed) = connected(Session::udp(&server));
    let peer = SocketAddr::from(([127, 0, 0, 78], 7));
    session.permit(peer);
    // Echo reply, source quench, redirect, parameter problem.
    for (kind, code) in [(0, 0), (4, 0), (5, 1), (12, 0)] {
        forge_v4(Ipv4Addr::LOCALHOST, relayed, peer, kind, code, 0);
    }
    session.round_trip(&good, relayed);
    let (mut over_v6, relayed_v6) = over_v6(&server);
    let peer = Peer::new(V6);
    over_v6.permit(peer.address);
    // Parameter problem.
    forge_v6(relayed_v6, closed_port(V6), 4, 0, 0);
    over_v6.round_trip(&peer, relayed_v6);
    for session in [&mut session, &mut over_v6] {
        assert!(session.fence().is_empty());
    }
}

#[test]
fn r8656_11_5_03_the_sender_of_the_icmp_message_needs_no_permission() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (mut session, _, relayed) = connected(Session::udp(&server));
    let peer = SocketAddr::from(([127, 0, 0, 79], 7));
    session.permit(peer);
    forge_v4(Ipv4Addr::new(127, 9, 9, 9), relayed, peer, 3, 1, 0);
    let (about, value) = session.icmp();
    assert_eq!((about, decode(&value)), (peer, (3, 1, 0)));
}

#[test]
fn r8656_11_5_04_the_enclosed_destination_needs_a_permission() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, good, relayed) = connected(session);
        forge_v4(Ipv4Addr::LOCALHOST, relayed, SocketAddr::from(([127, 0, 0, 80], 7)), 3, 1, 0);
        session.round_trip(&good, relayed);
        assert!(session.fence().is_empty());
    }
}

#[test]
fn errors_of_many_closed_ports_do_not_stop_the_relay() {
    let server = server(&[]);
    let (mut session, good, relayed) = connected(Session::udp(&server));
    session.bind(0x4000, closed_port(IpAddr::from([127, 0, 0, 81])));
    for _ in 0..300 {
        session.send(&channel_data(0x4000, b"lost"));
    }
    session.fence();
    session.round_trip_ignoring_icmp(&good, relayed);
}
