//! RFC 8656 §12, §12.2: ChannelBind.

use std::net::SocketAddr;

use crate::setup::{Peer, Session, V4, connected, server};
use crate::wire::{CHANNEL_BIND, CHANNEL_NUMBER, Msg, channel_data};

fn bind(number: u16, peer: SocketAddr) -> Msg {
    Msg::new(CHANNEL_BIND).channel(number).peer(peer)
}

#[test]
fn r8656_12_02_channels_belong_to_their_allocation() {
    let server = server(&[]);
    let (mut first, first_peer, first_relayed) = connected(Session::udp(&server));
    let (mut second, second_peer, second_relayed) = connected(Session::udp(&server));
    first.bind(0x4000, first_peer.address);
    second.bind(0x4000, second_peer.address);
    first.send(&channel_data(0x4000, b"first"));
    second.send(&channel_data(0x4000, b"second"));
    assert_eq!(first_peer.receive(), (b"first".to_vec(), first_relayed));
    assert_eq!(second_peer.receive(), (b"second".to_vec(), second_relayed));
}

#[test]
fn r8656_12_2_01_no_channel_number_is_a_bad_request() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    session.fail(Msg::new(CHANNEL_BIND).peer(peer.address), 400);
    for length in [0, 1, 2, 3, 5, 8] {
        session.fail(Msg::new(CHANNEL_BIND).attr(CHANNEL_NUMBER, &vec![0x40; length]).peer(peer.address), 400);
    }
}

#[test]
fn r8656_12_2_02_no_peer_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    session.fail(Msg::new(CHANNEL_BIND).channel(0x4000), 400);
}

#[test]
fn r8656_12_2_03_numbers_out_of_range_are_a_bad_request() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = connected(session);
        for number in [0, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF] {
            session.fail(bind(number, peer.address), 400);
        }
    }
}

#[test]
fn r8656_12_2_04_05_a_number_and_a_peer_are_bound_to_each_other_only() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let other = Peer::new(V4);
        session.bind(0x4000, peer.address);
        session.fail(bind(0x4000, other.address), 400);
        session.fail(bind(0x4001, peer.address), 400);
        session.bind(0x4001, other.address);
        other.send(b"still two", relayed);
        assert_eq!(session.channel(), (0x4001, b"still two".to_vec()));
        peer.send(b"still one", relayed);
        assert_eq!(session.channel(), (0x4000, b"still one".to_vec()));
    }
}

#[test]
fn r8656_12_2_08_more_channels_than_there_is_room_for_get_508() {
    let server = server(&[("limits.channels-per-allocation", "2")]);
    let mut session = Session::udp(&server);
    session.allocate();
    let peer = |port: u16| SocketAddr::from((V4, port));
    session.bind(0x4000, peer(1));
    session.bind(0x4001, peer(2));
    session.fail(bind(0x4002, peer(3)), 508);
    session.bind(0x4001, peer(2));
}

#[test]
fn r8656_12_2_09_the_first_and_the_last_number_work() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let other = Peer::new(V4);
        for (number, peer) in [(0x4000, &peer), (0x4FFF, &other)] {
            session.bind(number, peer.address);
            session.send(&channel_data(number, b"data"));
            assert_eq!(peer.receive(), (b"data".to_vec(), relayed));
            peer.send(b"back", relayed);
            assert_eq!(session.channel(), (number, b"back".to_vec()));
        }
    }
}

#[test]
fn r8656_12_2_10_binding_the_same_pair_again_refreshes() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    for _ in 0..3 {
        session.bind(0x4000, peer.address);
        session.send(&channel_data(0x4000, b"data"));
        assert_eq!(peer.receive(), (b"data".to_vec(), relayed));
    }
}

#[test]
fn r8656_12_2_11_a_binding_installs_the_permission() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let relayed = session.allocate();
        let (bound, other) = (Peer::new(V4), Peer::new(V4));
        session.bind(0x4000, bound.address);
        session.round_trip(&other, relayed);
    }
}

#[test]
fn h_06_thousands_of_permissions_and_channels() {
    let server = server(&[("limits.permissions-per-allocation", "6000"), ("limits.channels-per-allocation", "4096")]);
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    for number in 0x4000..=0x4FFFu16 {
        session.bind(number, SocketAddr::from((V4, number)));
    }
    for count in 0..5000u16 {
        session.permit(SocketAddr::from(([127, 8, (count >> 8) as u8, count as u8], 9)));
    }
    session.round_trip(&peer, relayed);
}

#[test]
fn h_06_the_default_limits_hold_with_508() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    let mut refused = 0;
    for count in 0..5000u16 {
        let peer = SocketAddr::from(([127, 8, (count >> 8) as u8, count as u8], 9));
        let error = session.call(Msg::new(crate::wire::CREATE_PERMISSION).peer(peer)).error();
        assert!(matches!(error, None | Some(508)), "{error:?}");
        refused += usize::from(error.is_some());
    }
    assert!(refused > 0);
    session.round_trip(&peer, relayed);
}
