//! RFC 8656 §13 to §16: IP header fields of what is relayed.

use std::net::SocketAddr;

use socket2::SockRef;

use crate::client::Client;
use crate::setup::{ALICE, Peer, Session, V4, V6, connected, portable, server};
use crate::sniff::{Packet, Tap, forge};
use crate::wire::{DONT_FRAGMENT, REQUESTED_ADDRESS_FAMILY, allocate, channel_data, send};

/// DSCP EF.
const EXPEDITED: u8 = 46;

/// A UDP session between these families, and a tap on what reaches its peer.
fn relayed_between(server: &crate::setup::Server, client_v4: bool, peer_v4: bool) -> (Session, Peer, SocketAddr, Tap) {
    let address = if client_v4 { server.ipv4("udp") } else { server.ipv6("udp") };
    let mut session = Session::over(Client::udp(address), ALICE);
    let family = if peer_v4 { 1 } else { 2 };
    let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
    let peer = Peer::new(if peer_v4 { V4 } else { V6 });
    session.permit(peer.address);
    session.bind(0x4000, peer.address);
    (session, peer, relayed, Tap::new(peer_v4))
}

fn mark(socket: &std::net::UdpSocket, ipv4: bool, class: u8, ttl: u32) {
    let socket = SockRef::from(socket);
    if ipv4 {
        socket.set_tos_v4(class.into()).unwrap();
        socket.set_ttl_v4(ttl).unwrap();
    } else {
        socket.set_tclass_v6(class.into()).unwrap();
        socket.set_unicast_hops_v6(ttl).unwrap();
    }
}

/// Both are carried over, the preferred behaviour, or the portable path sets them to 0, the alternate one.
fn check_class(packet: &Packet, ecn: u8) {
    let expected = if portable() { (0, 0) } else { (EXPEDITED, ecn) };
    assert_eq!((packet.dscp(), packet.ecn()), expected, "DSCP and ECN of {packet:?}");
}

const FAMILIES: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

#[test]
fn r8656_13_01_13_1_01_13_3_01_14_01_02_class_and_ttl_are_translated_or_the_default_towards_the_peer() {
    let server = server(&[]);
    for (client_v4, peer_v4) in FAMILIES {
        let (mut session, peer, _, tap) = relayed_between(&server, client_v4, peer_v4);
        for ecn in [0, 1, 2, 3] {
            mark(session.udp_socket(), client_v4, EXPEDITED << 2 | ecn, 33);
            for message in [send(peer.address, b"marked").0, channel_data(0x4000, b"marked")] {
                session.send(&message);
                let packet = tap.packet(peer.address.port(), b"marked");
                check_class(&packet, ecn);
                assert!([64, 32].contains(&packet.ttl), "TTL of {packet:?}");
            }
        }
    }
}

#[test]
fn r8656_13_01_14_01_02_class_and_ttl_are_translated_or_the_default_towards_the_client() {
    let server = server(&[]);
    for (client_v4, peer_v4) in FAMILIES {
        let (session, peer, relayed, _) = relayed_between(&server, client_v4, peer_v4);
        let tap = Tap::new(client_v4);
        for ecn in [0, 1, 2, 3] {
            mark(&peer.socket, peer_v4, EXPEDITED << 2 | ecn, 33);
            peer.send(b"marked!!", relayed);
            let packet = tap.packet(session.local.port(), b"marked!!");
            check_class(&packet, ecn);
            assert!([64, 32].contains(&packet.ttl), "TTL of {packet:?}");
        }
    }
}

#[test]
fn r8656_13_2_01_13_1_01_the_flow_label_is_the_relays_own() {
    let server = server(&[]);
    for client_v4 in [true, false] {
        let (mut session, peer, _, tap) = relayed_between(&server, client_v4, false);
        session.send(&channel_data(0x4000, b"labelled"));
        let incoming = (!client_v4).then(|| tap.packet(session.server_port(), b"labelled").flow_label);
        let outgoing = tap.packet(peer.address.port(), b"labelled").flow_label;
        assert!(outgoing == 0 || incoming != Some(outgoing), "the label {outgoing:#x} was copied");
    }
}

#[test]
fn r8656_14_03_11_2_04_7_2_06_dont_fragment_sets_df_or_is_refused_where_it_cannot_be_set() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = connected(session);
        if portable() {
            session.relays_nothing(&peer, &send(peer.address, b"whole").attr(DONT_FRAGMENT, &[]).0);
            Session::udp(&server).fail(allocate().attr(DONT_FRAGMENT, &[]), 420);
            continue;
        }
        let tap = Tap::new(true);
        for _ in 0..3 {
            session.send(&send(peer.address, b"whole").attr(DONT_FRAGMENT, &[]).0);
            assert!(tap.packet(peer.address.port(), b"whole").dont_fragment);
            peer.receive();
        }
    }
}

#[test]
fn r8656_14_04_without_it_df_is_copied_or_0_towards_the_peer() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (mut session, peer, _, tap) = relayed_between(&server, true, true);
    for message in [send(peer.address, b"may be cut").0, channel_data(0x4000, b"may be cut")] {
        forge(session.local, server.ipv4("udp"), &message, 0, 64, false);
        let packet = tap.packet(peer.address.port(), b"may be cut");
        assert!(!packet.dont_fragment, "{packet:?}");
        // Also after one that asked for DF.
        session.send(&send(peer.address, b"whole").attr(DONT_FRAGMENT, &[]).0);
        assert!(tap.packet(peer.address.port(), b"whole").dont_fragment);
    }
}

#[test]
fn r8656_14_04_df_is_copied_or_0_towards_the_client() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (session, peer, relayed, tap) = relayed_between(&server, true, true);
    forge(peer.address, relayed, b"may be cut..", 0, 64, false);
    let packet = tap.packet(session.local.port(), b"may be cut..");
    assert!(!packet.dont_fragment, "{packet:?}");
}

#[test]
fn r8656_14_06_relayed_packets_bear_no_options() {
    let server = server(&[]);
    let (mut session, peer, _, tap) = relayed_between(&server, true, true);
    session.send(&channel_data(0x4000, b"plain"));
    assert!(!tap.packet(peer.address.port(), b"plain").has_options);
}

#[test]
fn r8656_15_01_02_03_from_tcp_dscp_of_the_connection_or_0_no_ecn_no_df() {
    if portable() {
        return;
    }
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::tcp(&server));
    session.bind(0x4000, peer.address);
    SockRef::from(session.stream()).set_tos_v4((EXPEDITED << 2).into()).unwrap();
    let tap = Tap::new(true);
    for message in [send(peer.address, b"from tcp").0, channel_data(0x4000, b"from tcp")] {
        session.send(&message);
        let packet = tap.packet(peer.address.port(), b"from tcp");
        assert!([EXPEDITED, 0].contains(&packet.dscp()), "{packet:?}");
        assert_eq!(packet.ecn(), 0, "{packet:?}");
        assert!(!packet.dont_fragment, "{packet:?}");
    }
}

#[test]
fn r8656_16_01_to_tcp_marks_of_the_peer_change_nothing() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    for ecn in [0, 1, 2, 3] {
        mark(&peer.socket, true, EXPEDITED << 2 | ecn, 33);
        peer.send(b"marked", relayed);
        assert_eq!(session.data(), (peer.address, b"marked".to_vec()));
    }
    // A datagram that comes in fragments is put together.
    let data = vec![7; 60_000];
    peer.send(&data, relayed);
    assert_eq!(session.data().1, data);
}

#[test]
fn r8656_14_05_13_02_what_is_too_large_for_the_link_is_fragmented() {
    crate::common::namespace::with_loopback_of_mtu(1500, relay_more_than_the_link_takes);
}

fn relay_more_than_the_link_takes() {
    let server = server(&[]);
    for (client_v4, peer_v4) in FAMILIES {
        let (mut session, peer, relayed, _) = relayed_between(&server, client_v4, peer_v4);
        for length in [1472, 1473, 3000, 9000] {
            let data: Vec<u8> = (0..length).map(|place| (place * 7) as u8).collect();
            session.send(&channel_data(0x4000, &data));
            assert!(peer.receive() == (data.clone(), relayed), "{length} bytes to the peer");
            peer.send(&data, relayed);
            assert!(session.channel() == (0x4000, data), "{length} bytes to the client");
        }
        // What must not be fragmented does not get through, and what follows does.
        if client_v4 == peer_v4 {
            session.send(&send(peer.address, &[7; 3000]).attr(DONT_FRAGMENT, &[]).0);
        }
        // Between families it may be (8656-13-02).
        if client_v4 != peer_v4 && !portable() {
            session.send(&send(peer.address, &[8; 3000]).attr(DONT_FRAGMENT, &[]).0);
            assert!(peer.receive() == (vec![8; 3000], relayed), "DONT-FRAGMENT is ignored");
        }
        session.send(&channel_data(0x4000, b"small"));
        assert_eq!(peer.receive(), (b"small".to_vec(), relayed));
    }
}
