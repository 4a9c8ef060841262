//! RFC 8656 §8: Refresh.

use crate::setup::{Peer, Session, V4, connected, server};
use crate::wire::{LIFETIME, Msg, REFRESH, REQUESTED_ADDRESS_FAMILY, allocate, channel_data};

#[test]
fn r8656_8_2_02_lifetime_0_deletes_the_allocation() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        session.bind(0x4000, peer.address);
        let reply = session.succeed(Msg::new(REFRESH).u32(LIFETIME, 0));
        assert_eq!(reply.u32(LIFETIME), Some(0));
        session.fail(Msg::new(REFRESH), 437);
        // The relayed port is dead: another program can have it.
        peer.send(b"late", relayed);
        assert!(session.fence().is_empty());
        let deadline = std::time::Instant::now() + crate::client::PATIENCE;
        while std::net::UdpSocket::bind(relayed).is_err() {
            assert!(std::time::Instant::now() < deadline, "the relayed port stays open");
        }
    }
}

#[test]
fn r8656_8_2_03_04_05_the_lifetime_is_computed_as_for_allocate_and_reported() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        for (requested, granted) in [(1, 600), (599, 600), (700, 700), (3600, 3600), (u32::MAX, 3600)] {
            let reply = session.succeed(Msg::new(REFRESH).u32(LIFETIME, requested));
            assert_eq!(reply.u32(LIFETIME), Some(granted), "requested {requested}");
        }
        assert_eq!(session.succeed(Msg::new(REFRESH)).u32(LIFETIME), Some(600));
    }
}

#[test]
fn r8656_8_2_08_a_retransmitted_delete_gets_success_or_437() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    let request = session.sign(Msg::new(REFRESH).u32(LIFETIME, 0));
    assert_eq!(session.call_signed(&request).error(), None);
    assert!(matches!(session.call_signed(&request).error(), None | Some(437)));
}

#[test]
fn r8656_8_2_09_the_5_tuple_can_allocate_anew() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for _ in 0..5 {
            let relayed = session.allocate();
            let peer = Peer::new(V4);
            session.permit(peer.address);
            session.round_trip(&peer, relayed);
            session.delete();
        }
    }
}

#[test]
fn r8656_9_06_12_03_permissions_and_channels_die_with_the_allocation() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    session.bind(0x4000, peer.address);
    session.delete();
    let relayed = session.allocate();
    session.send_to(peer.address, b"no permission");
    session.send(&channel_data(0x4000, b"no channel"));
    peer.send(b"no permission", relayed);
    assert!(session.fence().is_empty());
    session.permit(peer.address);
    session.round_trip(&peer, relayed);
    session.bind(0x4001, peer.address);
}

#[test]
fn a_malformed_family_in_a_refresh_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.succeed(allocate());
    session.fail(Msg::new(REFRESH).attr(REQUESTED_ADDRESS_FAMILY, &[1]), 400);
    session.succeed(Msg::new(REFRESH));
}
