//! H-05, H-08, H-09, H-19 to H-22: peers that must not be reached, and peers that are trouble.

use std::net::{IpAddr, SocketAddr};

use crate::client::{Client, Event};
use crate::setup::{ALICE, Peer, Server, Session, V4, V6, connected, server};
use crate::wire::{
    CHANNEL_BIND, CREATE_PERMISSION, Msg, REQUESTED_ADDRESS_FAMILY, allocate, channel_data, padded_channel_data,
};

/// The rules as they are when the operator opens nothing.
fn default_policy() -> Server {
    server(&[("peers.allowed-peer-ip", "")])
}

fn refused(family: u8, addresses: &[&str]) {
    let server = default_policy();
    let mut session = Session::udp(&server);
    session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
    for ip in addresses {
        let peer = SocketAddr::new(ip.parse().unwrap(), 4000);
        let permission = session.call(Msg::new(CREATE_PERMISSION).peer(peer));
        assert_eq!(permission.error(), Some(403), "CreatePermission {ip}");
        let binding = session.call(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer));
        assert_eq!(binding.error(), Some(403), "ChannelBind {ip}");
    }
}

#[test]
fn h_08_the_host_and_what_is_no_unicast_address_over_ipv4() {
    refused(
        1,
        &[
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.2",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ],
    );
}

#[test]
fn h_08_the_host_in_every_spelling_over_ipv6() {
    refused(
        2,
        &[
            "::",
            "::2",
            "fe80::1",
            "ff02::1",
            "ff0e::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0.0.0.0",
            "::127.0.0.1",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::0.0.0.0",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::1",
            "2001:0:7f00:1::1",
            "2001:0::80ff:fffe",
        ],
    );
}

#[test]
fn h_21_private_and_shared_ranges() {
    refused(
        1,
        &[
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.254",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.254",
            "198.18.0.1",
            "198.19.255.254",
        ],
    );
    refused(
        2,
        &["fc00::1", "fdff::1", "64:ff9b::a00:1", "64:ff9b::c0a8:1", "2002:a00:1::1", "::ffff:10.0.0.1", "::10.0.0.1"],
    );
}

#[test]
fn h_21_global_addresses_are_peers() {
    let server = default_policy();
    for (family, ips) in [(1u8, ["8.8.8.8", "172.32.0.1"]), (2, ["2606:4700::1111", "64:ff9b::808:808"])] {
        let mut session = Session::udp(&server);
        session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
        for (number, ip) in (0x4000u16..).zip(ips) {
            let peer = SocketAddr::new(ip.parse().unwrap(), 4000);
            session.permit(peer);
            session.bind(number, peer);
        }
    }
}

#[test]
fn h_08_h_09_the_servers_own_listeners_are_no_peers_whatever_is_open() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    for transport in ["udp", "tcp"] {
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(server.ipv4(transport)), 403);
    }
    session.permit(server.ipv4("udp"));
    for _ in 0..10 {
        session.send_to(server.ipv4("udp"), &allocate().0);
    }
    assert!(session.fence().is_empty());
}

#[test]
fn h_08_data_of_a_peer_that_is_not_allowed_is_dropped() {
    // The permission for the relay's own address serves relay ports only, not other programs on this host.
    let server = default_policy();
    let mut session = Session::udp(&server);
    let relayed = session.allocate();
    session.permit(SocketAddr::new(V4, 0));
    let program = std::iter::repeat_with(|| Peer::new(V4)).find(|peer| peer.address.port() < 49152).unwrap();
    // Several times, as the answer to the client may overtake what comes to the relayed address.
    for _ in 0..10 {
        program.send(b"hello", relayed);
        session.send_to(program.address, b"hello");
        assert!(session.fence().is_empty());
    }
    program.socket.set_nonblocking(true).unwrap();
    assert!(program.socket.recv(&mut [0; 10]).is_err());
}

#[test]
fn h_22_two_clients_reach_each_other_by_their_relayed_addresses() {
    let server = default_policy();
    for family in [1u8, 2] {
        let request = || allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        // Several, so that both land on the same worker and on different ones.
        for _ in 0..6 {
            let (mut alice, mut bob) = (Session::udp(&server), Session::bob(&server));
            let (alice_relayed, bob_relayed) = (alice.allocate_with(request()), bob.allocate_with(request()));
            alice.permit(bob_relayed);
            bob.bind(0x4001, alice_relayed);
            alice.send_to(bob_relayed, b"to bob");
            assert_eq!(bob.channel(), (0x4001, b"to bob".to_vec()));
            bob.send(&channel_data(0x4001, b"to alice"));
            assert_eq!(alice.data(), (bob_relayed, b"to alice".to_vec()));
        }
    }
}

#[test]
fn h_09_r8656_21_1_01_a_packet_is_never_multiplied_inside_the_server() {
    let server = server(&[]);
    // An allocation whose peer is its own relayed address: each datagram comes back once.
    let mut session = Session::udp(&server);
    let relayed = session.allocate();
    session.bind(0x4000, relayed);
    for count in 0..10u8 {
        session.send(&channel_data(0x4000, &[count]));
        assert_eq!(session.channel(), (0x4000, vec![count]));
    }
    // A client that reaches the server through the server's own relay does not get in: see the listeners above.
    // Two allocations bound to each other: one in, one out.
    let (mut first, mut second) = (Session::udp(&server), Session::udp(&server));
    let (first_relayed, second_relayed) = (first.allocate(), second.allocate());
    first.bind(0x4000, second_relayed);
    second.bind(0x4000, first_relayed);
    for count in 0..10u8 {
        first.send(&channel_data(0x4000, &[count]));
        assert_eq!(second.channel(), (0x4000, vec![count]));
    }
    for session in [&mut session, &mut first, &mut second] {
        assert!(session.fence().is_empty());
    }
}

#[test]
fn h_19_unusual_peers_harm_nothing_but_their_datagrams() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, good, relayed) = connected(session);
        let unusual: [SocketAddr; 4] = [
            (V4, 0).into(),
            // Broadcast on the loopback network, the network itself, and a route that the relay's address cannot take.
            ([127, 255, 255, 255], 9).into(),
            ([127, 0, 0, 0], 9).into(),
            ([8, 8, 8, 8], 9).into(),
        ];
        for peer in unusual {
            session.permit(peer);
            for _ in 0..5 {
                session.send_to(peer, b"data");
            }
            session.round_trip_ignoring_icmp(&good, relayed);
        }
        let error = session.call(Msg::new(CHANNEL_BIND).channel(0x4000).peer((V4, 0))).error();
        assert!(matches!(error, Some(400 | 403)), "{error:?}");
        session.bind(0x4001, unusual[3]);
        session.send(&padded_channel_data(0x4001, b"data"));
        session.round_trip_ignoring_icmp(&good, relayed);
    }
}

#[test]
fn h_20_datagrams_that_the_system_refuses_do_not_end_the_allocation() {
    let server = server(&[]);
    let (mut session, good, relayed) = connected(Session::tcp(&server));
    session.bind(0x4000, good.address);
    for length in [65_508, 65_535] {
        session.send(&padded_channel_data(0x4000, &vec![7; length]));
        session.send(&padded_channel_data(0x4000, b"good"));
        assert_eq!(good.receive(), (b"good".to_vec(), relayed), "{length} bytes");
    }
    session.send(&padded_channel_data(0x4000, &vec![7; 65_507]));
    assert_eq!(good.receive().0.len(), 65_507);
    good.send(&vec![7; 65_507], relayed);
    assert!(matches!(session.event(), Event::Channel(0x4000, data) if data.len() == 65_507));
}

#[test]
fn h_20_the_longest_datagram_of_a_peer_over_udp() {
    // With its header it may be too long for a datagram to the client; the allocation goes on.
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    for length in [65_507, 65_480, 65_460] {
        peer.send(&vec![7; length], relayed);
    }
    peer.send(b"small", relayed);
    let mut received = Vec::new();
    while received != b"small" {
        received = session.data().1;
    }
    session.round_trip(&peer, relayed);
}

#[test]
fn h_05_a_flood_of_allocations_stops_at_the_quota() {
    let server = server(&[("limits.user-quota", "5")]);
    let mut flood: Vec<Session> = (0..100).map(|_| Session::udp(&server)).collect();
    let granted = flood.iter_mut().filter_map(|session| session.call(allocate()).error()).count();
    assert_eq!(granted, 95);
    let (mut bob, peer, relayed) = connected(Session::bob(&server));
    bob.round_trip(&peer, relayed);
}

#[test]
fn clients_of_ipv6_reach_peers_of_ipv6() {
    let server = server(&[]);
    let mut session = Session::over(Client::udp(server.ipv6("udp")), ALICE);
    let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    let peer = Peer::new(V6);
    session.permit(SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 1));
    session.round_trip(&peer, relayed);
}
