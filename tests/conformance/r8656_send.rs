//! RFC 8656 §11: Send and Data indications.

use std::net::{IpAddr, SocketAddr};

use crate::setup::{Peer, Session, V4, connected, portable, server};
use crate::wire::{DATA, DONT_FRAGMENT, INDICATION, Msg, SEND, XOR_PEER_ADDRESS, send};

#[test]
fn r8656_11_2_01_a_send_without_peer_is_discarded() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = connected(session);
        session.relays_nothing(&peer, &Msg::new(SEND | INDICATION).attr(DATA, b"data").0);
    }
}

#[test]
fn r8656_11_2_02_a_send_without_data_is_discarded() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = connected(session);
        session.relays_nothing(&peer, &Msg::new(SEND | INDICATION).peer(peer.address).0);
    }
}

#[test]
fn r8656_11_2_03_empty_data_make_an_empty_datagram() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        session.send_to(peer.address, b"");
        assert_eq!(peer.receive(), (Vec::new(), relayed));
    }
}

#[test]
fn r8656_11_2_05_a_send_without_permission_is_discarded() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, _, relayed) = connected(session);
        let stranger = Peer::new(IpAddr::from([127, 0, 0, 2]));
        session.send_to(stranger.address, b"data");
        assert!(session.fence().is_empty());
        session.permit(stranger.address);
        session.send_to(stranger.address, b"permitted");
        assert_eq!(stranger.receive(), (b"permitted".to_vec(), relayed));
    }
}

#[test]
fn r8656_11_2_07_a_send_to_a_disallowed_port_is_discarded() {
    // The server's own listener is no peer, although its address is permitted.
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    session.send_to(server.ipv4("udp"), &Msg::new(crate::wire::BINDING).0);
    session.send_to(SocketAddr::new(V4, 0), b"port 0");
    session.round_trip(&peer, relayed);
    assert!(session.fence().is_empty());
}

#[test]
fn r8656_11_2_08_09_the_peer_gets_the_data_from_the_relayed_address() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        for length in [1, 2, 3, 4, 5, 100, 1200, 1472, 9000, session.longest_data()] {
            let data: Vec<u8> = (0..length).map(|place| (place * 7 + length) as u8).collect();
            session.send_to(peer.address, &data);
            let (received, from) = peer.receive();
            assert_eq!(from, relayed);
            assert!(received == data, "{length} bytes");
        }
    }
}

#[test]
fn r8656_11_2_10_a_send_with_a_malformed_peer_is_discarded() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    for value in [&[][..], &[0, 1, 0, 9], &[0, 3, 0, 9, 1, 2, 3, 4], &[0, 2, 0, 9, 1, 2, 3, 4], &[0, 1, 0, 9, 1, 2, 3]]
    {
        let message = Msg::new(SEND | INDICATION).attr(XOR_PEER_ADDRESS, value).attr(DATA, b"data");
        session.relays_nothing(&peer, &message.0);
    }
    // A peer of the family that the allocation has not.
    session.relays_nothing(&peer, &send((crate::setup::V6, 9).into(), b"data").0);
}

#[test]
fn r8656_11_3_01_02_03_peer_data_come_as_data_indications() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        for length in [0, 1, 2, 3, 4, 5, 1200, 9000, session.longest_data()] {
            let data: Vec<u8> = (0..length).map(|place| (place * 5 + length) as u8).collect();
            peer.send(&data, relayed);
            let indication = session.data_indication();
            let kinds: Vec<u16> = indication.attributes.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds, [XOR_PEER_ADDRESS, DATA]);
            assert_eq!(indication.xor(XOR_PEER_ADDRESS), Some(peer.address));
            assert!(indication.get(DATA) == Some(&data), "{length} bytes");
        }
    }
}

#[test]
fn r8656_11_3_04_channel_data_only_for_exactly_the_bound_address_and_port() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, bound, relayed) = connected(session);
        let other = Peer::new(V4);
        session.bind(0x4000, bound.address);
        other.send(b"other port", relayed);
        assert_eq!(session.data(), (other.address, b"other port".to_vec()));
        bound.send(b"bound port", relayed);
        assert_eq!(session.channel(), (0x4000, b"bound port".to_vec()));
    }
}

#[test]
fn r8656_13_02_dont_fragment_is_ignored_between_families() {
    if portable() {
        return;
    }
    use crate::wire::{REQUESTED_ADDRESS_FAMILY, allocate};
    let server = server(&[]);
    let clients = [(server.ipv4("udp"), 2u8, crate::setup::V6), (server.ipv6("udp"), 1, V4)];
    for (address, family, ip) in clients {
        let client = crate::client::Client::udp(address);
        let mut session = Session::over(client, crate::setup::ALICE);
        let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
        let peer = Peer::new(ip);
        session.permit(peer.address);
        session.send(&send(peer.address, b"data").attr(DONT_FRAGMENT, &[]).0);
        assert_eq!(peer.receive(), (b"data".to_vec(), relayed));
    }
}

#[test]
fn r8656_18_01_h_17_attributes_are_padded_with_zeros() {
    // Reply::parse checks both; a long datagram first, so that leftovers would show.
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        session.bind(0x4000, peer.address);
        let other = Peer::new(V4);
        for _ in 0..3 {
            for length in [1400, 1, 2, 3, 5, 6, 7] {
                let data = vec![0xAA; length];
                other.send(&data, relayed);
                assert_eq!(session.data(), (other.address, data.clone()));
                peer.send(&data, relayed);
                assert_eq!(session.channel(), (0x4000, data));
            }
        }
    }
}
