//! RFC 8656 §9, §10, §21.4: permissions.

use std::net::{IpAddr, SocketAddr};

use crate::setup::{Peer, Session, V4, connected, server};
use crate::wire::{CHANNEL_BIND, CREATE_PERMISSION, Msg, REQUESTED_ADDRESS_FAMILY, XOR_PEER_ADDRESS, allocate, send};

#[test]
fn r8656_9_01_permissions_are_for_addresses_not_ports() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, _, relayed) = connected(session);
        let other = Peer::new(V4);
        session.round_trip(&other, relayed);
    }
}

#[test]
fn r8656_9_04_datagrams_without_a_permission_are_dropped() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let stranger = Peer::new(IpAddr::from([127, 0, 0, 2]));
        stranger.send(b"hello", relayed);
        peer.send(b"permitted", relayed);
        assert_eq!(session.data(), (peer.address, b"permitted".to_vec()));
        assert!(session.fence().is_empty());
    }
}

#[test]
fn r8656_9_05_permissions_of_one_allocation_do_not_serve_another() {
    let server = server(&[]);
    let (_first, peer, _) = connected(Session::udp(&server));
    let mut second = Session::udp(&server);
    let relayed = second.allocate();
    peer.send(b"hello", relayed);
    second.send_to(peer.address, b"hello");
    assert!(second.fence().is_empty());
    second.permit(peer.address);
    second.round_trip(&peer, relayed);
}

#[test]
fn r8656_10_2_01_no_peer_is_a_bad_request() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        session.fail(Msg::new(CREATE_PERMISSION), 400);
    }
}

#[test]
fn r8656_10_2_02_several_peers_in_one_request_are_all_permitted() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let relayed = session.allocate();
    let peers: Vec<Peer> = (1..=8).map(|last| Peer::new(IpAddr::from([127, 0, 1, last]))).collect();
    session.succeed(peers.iter().fold(Msg::new(CREATE_PERMISSION), |message, peer| message.peer(peer.address)));
    for peer in &peers {
        session.round_trip(peer, relayed);
    }
}

/// XOR-PEER-ADDRESS values that are none.
fn malformed() -> Vec<Vec<u8>> {
    vec![
        vec![],
        vec![0, 1, 0, 9],
        vec![0, 3, 0, 9, 1, 2, 3, 4],
        vec![0, 0, 0, 9, 1, 2, 3, 4],
        vec![0, 2, 0, 9, 1, 2, 3, 4],
        vec![0, 1, 0, 9, 1, 2, 3],
        vec![0, 1, 0, 9, 1, 2, 3, 4, 5],
        [&[0, 1, 0, 9][..], &[7; 16]].concat(),
        [&[0, 2, 0, 9][..], &[7; 12]].concat(),
    ]
}

#[test]
fn r8656_10_2_03_any_malformed_peer_is_a_bad_request() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    for value in malformed() {
        session.fail(Msg::new(CREATE_PERMISSION).attr(XOR_PEER_ADDRESS, &value), 400);
        session.fail(Msg::new(CREATE_PERMISSION).peer(peer.address).attr(XOR_PEER_ADDRESS, &value), 400);
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).attr(XOR_PEER_ADDRESS, &value), 400);
    }
}

#[test]
fn r8656_10_2_04_more_permissions_than_there_is_room_for_get_508() {
    let server = server(&[("limits.permissions-per-allocation", "3")]);
    let mut session = Session::udp(&server);
    session.allocate();
    let peer = |last: u8| SocketAddr::from(([127, 0, 2, last], 9));
    session.permit(peer(1));
    session.succeed(Msg::new(CREATE_PERMISSION).peer(peer(2)).peer(peer(3)));
    session.fail(Msg::new(CREATE_PERMISSION).peer(peer(4)), 508);
    session.fail(Msg::new(CREATE_PERMISSION).peer(peer(3)).peer(peer(4)), 508);
    session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer(4)), 508);
    // What is there already can be refreshed.
    session.permit(peer(2));
    session.bind(0x4000, peer(1));
}

const DENIED: &[(&str, &str)] = &[("peers.denied-peer-ip", r#"["127.5.0.0/16"]"#)];

#[test]
fn r8656_10_2_06_12_2_07_a_denied_peer_gets_403() {
    let server = server(DENIED);
    for mut session in Session::each(&server) {
        session.allocate();
        let denied = SocketAddr::from(([127, 5, 6, 7], 9));
        session.fail(Msg::new(CREATE_PERMISSION).peer(denied), 403);
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(denied), 403);
    }
}

#[test]
fn r8656_10_2_07_the_port_of_the_peer_is_ignored() {
    let server = server(&[]);
    for port in [0, 1, 65535] {
        let mut session = Session::udp(&server);
        let relayed = session.allocate();
        let peer = Peer::new(V4);
        session.permit(SocketAddr::new(V4, port));
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_10_2_09_a_rejected_request_installs_nothing() {
    let server = server(DENIED);
    for mut session in Session::each(&server) {
        let relayed = session.allocate();
        let peer = Peer::new(V4);
        let with_good = || Msg::new(CREATE_PERMISSION).peer(peer.address);
        session.fail(with_good().peer(([127, 5, 6, 7], 9)), 403);
        session.fail(with_good().attr(XOR_PEER_ADDRESS, &[]), 400);
        session.fail(with_good().peer(SocketAddr::from((crate::setup::V6, 9))), 443);
        peer.send(b"hello", relayed);
        let bytes = send(peer.address, b"hello").0;
        session.send(&bytes);
        assert!(session.fence().is_empty());
        session.permit(peer.address);
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_21_4_01_02_teredo_and_6to4_peers_are_refused() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    for ip in ["2001::1", "2001:0:808:808::1", "2002::1", "2002:808:808::1"] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 9);
        session.fail(Msg::new(CREATE_PERMISSION).peer(peer), 403);
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer), 403);
    }
}
