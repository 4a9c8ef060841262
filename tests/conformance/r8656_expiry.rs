//! RFC 8656 §6, §9, §12: what expires and what prolongs it, with lifetimes of seconds.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::setup::{Peer, Server, Session, V4, connected, server};
use crate::wire::{CHANNEL_BIND, LIFETIME, Msg, REFRESH, channel_data, padded_channel_data};

/// Allocations of 2 s.
fn short_allocations() -> Server {
    server(&[("lifetimes.default-allocate-lifetime", "\"2s\""), ("lifetimes.max-allocate-lifetime", "\"10s\"")])
}

/// Permissions of 2 s.
fn short_permissions() -> Server {
    server(&[("lifetimes.permission-lifetime", "\"2s\"")])
}

/// Channels of 2 s.
fn short_channels() -> Server {
    server(&[("lifetimes.channel-lifetime", "\"2s\"")])
}

fn wait_until(start: Instant, millis: u64) {
    sleep((start + Duration::from_millis(millis)).saturating_duration_since(Instant::now()));
}

#[test]
fn r8656_6_04_05_8_2_data_do_not_prolong_an_allocation_and_its_state_ends() {
    let server = short_allocations();
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let start = Instant::now();
        session.bind(0x4000, peer.address);
        while start.elapsed() < Duration::from_millis(1500) {
            session.send(&padded_channel_data(0x4000, b"there"));
            assert_eq!(peer.receive().0, b"there");
            peer.send(b"back", relayed);
            assert_eq!(session.channel().1, b"back");
            sleep(Duration::from_millis(100));
        }
        wait_until(start, 2600);
        session.fail(Msg::new(REFRESH), 437);
        peer.send(b"late", relayed);
        session.send(&padded_channel_data(0x4000, b"late"));
        assert!(session.fence().is_empty());
        let deadline = Instant::now() + PATIENCE;
        while std::net::UdpSocket::bind(relayed).is_err() {
            assert!(Instant::now() < deadline, "the relayed port stays open");
        }
        session.allocate();
    }
}

#[test]
fn r8656_6_04_refresh_prolongs_an_allocation() {
    let server = short_allocations();
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    let start = Instant::now();
    for count in 1..=3 {
        wait_until(start, count * 1300);
        assert_eq!(session.succeed(Msg::new(REFRESH)).u32(LIFETIME), Some(2));
    }
    session.round_trip(&peer, relayed);
    assert_eq!(session.succeed(Msg::new(REFRESH).u32(LIFETIME, 9)).u32(LIFETIME), Some(9));
    wait_until(start, 7000);
    session.succeed(Msg::new(REFRESH));
}

#[test]
fn an_expired_allocation_frees_its_quota_and_its_port() {
    let port = crate::common::ports::free_port_pair(&[V4]).to_string();
    let server = server(&[
        ("lifetimes.default-allocate-lifetime", "\"1s\""),
        ("limits.user-quota", "1"),
        ("relay.min-port", &port),
        ("relay.max-port", &port),
    ]);
    for _ in 0..2 {
        Session::udp(&server).allocate();
        sleep(Duration::from_millis(1500));
    }
    Session::udp(&server).allocate();
}

#[test]
fn r8656_9_02_11_2_06_12_6_05_data_do_not_prolong_a_permission() {
    let server = short_permissions();
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1400) {
            session.round_trip(&peer, relayed);
            sleep(Duration::from_millis(100));
        }
        wait_until(start, 2500);
        session.send_to(peer.address, b"late");
        peer.send(b"late", relayed);
        assert!(session.fence().is_empty());
        session.permit(peer.address);
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_12_6_05_channel_data_do_not_prolong_the_permission() {
    let server = short_permissions();
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    let start = Instant::now();
    session.bind(0x4000, peer.address);
    while start.elapsed() < Duration::from_millis(1400) {
        session.send(&channel_data(0x4000, b"data"));
        assert_eq!(peer.receive().0, b"data");
        sleep(Duration::from_millis(100));
    }
    wait_until(start, 2600);
    peer.send(b"late", relayed);
    assert!(session.fence().is_empty());
    // What comes to the relayed address is served in order: this would come after it.
    session.permit(peer.address);
    peer.send(b"permitted", relayed);
    assert_eq!(session.channel(), (0x4000, b"permitted".to_vec()));
}

#[test]
fn r8656_9_03_create_permission_and_channel_bind_prolong_a_permission() {
    let server = short_permissions();
    for by_channel in [false, true] {
        let (mut session, peer, relayed) = connected(Session::udp(&server));
        let other = Peer::new(V4);
        let start = Instant::now();
        for count in 1..=2 {
            wait_until(start, count * 1300);
            // The second time it is there because of the first.
            session.round_trip(&peer, relayed);
            if by_channel { session.bind(0x4000, other.address) } else { session.permit(peer.address) }
        }
        // Later than what the first of the two has prolonged.
        wait_until(start, 3700);
        session.round_trip(&peer, relayed);
    }
}

#[test]
fn r8656_12_04_05_12_6_05_a_channel_expires_unless_bound_again() {
    let server = short_channels();
    for session in Session::each(&server) {
        let (mut session, peer, relayed) = connected(session);
        let other = Peer::new(V4);
        let start = Instant::now();
        session.bind(0x4000, peer.address);
        session.bind(0x4001, other.address);
        while start.elapsed() < Duration::from_millis(1300) {
            session.send(&padded_channel_data(0x4000, b"data"));
            assert_eq!(peer.receive().0, b"data");
            peer.send(b"back", relayed);
            assert_eq!(session.channel().0, 0x4000);
            sleep(Duration::from_millis(100));
        }
        session.bind(0x4001, other.address);
        wait_until(start, 2500);
        // Data did not prolong 0x4000; binding again prolonged 0x4001.
        session.relays_nothing(&peer, &padded_channel_data(0x4000, b"late"));
        peer.send(b"indicated", relayed);
        assert_eq!(session.data(), (peer.address, b"indicated".to_vec()));
        other.send(b"bound", relayed);
        assert_eq!(session.channel(), (0x4001, b"bound".to_vec()));
        // Number and peer are free for others.
        let third = SocketAddr::from(([127, 0, 0, 9], 9));
        session.bind(0x4000, third);
        session.bind(0x4002, peer.address);
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4001).peer(third), 400);
    }
}
