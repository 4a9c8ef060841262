//! The server's own addresses, by every name that they have, and relays of this server as peers of each other.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    client::PATIENCE,
    common::namespace::add_address,
    setup::{Server, Session},
    support::{Client, V4, V6, management, metric, on_a_host, refused, relayed, start},
    wire::{
        BINDING, CHANNEL_BIND, CONNECT, CREATE_PERMISSION, Msg, REQUESTED_ADDRESS_FAMILY, allocate, allocate_tcp,
        padded_channel_data, send,
    },
};

/// What the NAT before the host maps to its address.
const OUTSIDE: &str = "8.8.4.4";
/// What an operator can open that means this host.
const OPEN: &str =
    "[\"0.0.0.0/0\", \"::/0\", \"127.0.0.0/8\", \"::1/128\", \"9.9.9.9/32\", \"2a00::9/128\", \"8.8.4.4/32\"]";

/// A server that listens everywhere and relays from public addresses, one of them behind a NAT.
fn everywhere(allowed: &str) -> Server {
    start(&[
        ("listener.listening-ip", "[\"0.0.0.0\", \"::\"]"),
        ("relay.external-ip", "[\"8.8.4.4/9.9.9.9\"]"),
        ("peers.allowed-peer-ip", allowed),
    ])
}

/// Every socket that the server has for clients and for operators, by every name of this host.
fn own_sockets(server: &Server) -> Vec<SocketAddr> {
    let mut sockets = vec![management(server)];
    for transport in ["udp", "tcp", "tls", "dtls"] {
        for listener in server.addresses(transport) {
            sockets.push(listener);
            let names: &[&str] = match listener.ip() {
                ip if !ip.is_unspecified() => &[],
                IpAddr::V4(_) => &["127.0.0.1", V4, OUTSIDE],
                IpAddr::V6(_) => &["::1", V6],
            };
            sockets.extend(names.iter().map(|name| SocketAddr::new(name.parse().unwrap(), listener.port())));
        }
    }
    sockets
}

#[test]
fn the_servers_sockets_are_no_peers_by_any_name_whatever_is_opened() {
    on_a_host(|| {
        for allowed in ["", OPEN] {
            let server = everywhere(allowed);
            let mut clients = [true, false].map(|ipv4| Client::new(&server, ipv4));
            let (before, mut sent) = (refused(&server), 0);
            for socket in own_sockets(&server) {
                let client = &mut clients[usize::from(socket.is_ipv6())];
                client.udp.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(socket), 403);
                client.tcp.fail(Msg::new(CONNECT).peer(socket), 403);
                // A permission is for an address, which may be a relay's, too; data are for a port.
                let _ = client.udp.call(Msg::new(CREATE_PERMISSION).peer(socket));
                for request in [&Msg::new(BINDING).0, &allocate().0] {
                    client.udp.send(&send(socket, request).0);
                    sent += 1;
                }
                assert!(client.udp.fence().is_empty(), "{socket} answers through the relay ({allowed})");
            }
            assert_eq!((refused(&server) - before, relayed(&server)), (sent, 0), "{allowed}");
        }
    });
}

#[test]
fn of_the_relays_addresses_only_relay_ports_are_peers() {
    on_a_host(|| {
        let server = everywhere("");
        let mut client = Client::new(&server, true);
        for ip in [V4, OUTSIDE] {
            for port in [1, 22, 80, 4000, 49_151] {
                let peer = SocketAddr::new(ip.parse().unwrap(), port);
                client.udp.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer), 403);
                client.tcp.fail(Msg::new(CONNECT).peer(peer), 403);
            }
        }
        // By the name that clients are told, and by its own.
        let mut other = Session::udp(&server);
        let relayed_address = other.allocate();
        assert_eq!(relayed_address.ip(), OUTSIDE.parse::<IpAddr>().unwrap());
        client.udp.bind(0x4000, relayed_address);
    });
}

#[test]
fn an_address_that_this_host_gets_later_is_its_own_within_seconds() {
    on_a_host(|| {
        const NEW: &str = "9.9.9.10";
        let server = everywhere("");
        let peer = SocketAddr::new(NEW.parse().unwrap(), server.ipv4("udp").port());
        let mut session = Session::udp(&server);
        session.allocate();
        // As yet it is another host's.
        session.bind(0x4000, peer);
        add_address(NEW);
        let start = Instant::now();
        while session.call(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer)).error() != Some(403) {
            assert!(start.elapsed() < PATIENCE, "{peer} is a peer still");
            std::thread::sleep(Duration::from_millis(100));
        }
        // What was bound before is so no longer.
        session.send(&padded_channel_data(0x4000, &Msg::new(BINDING).0));
        session.send_to(peer, &Msg::new(BINDING).0);
        assert!(session.fence().is_empty());
        session.fail(Msg::new(CREATE_PERMISSION).peer(peer), 403);
    });
}

/// Datagrams relayed to peers and to clients.
fn traffic(server: &Server) -> [u64; 2] {
    ["to-peers", "to-clients"].map(|way| metric(server, &format!("turn_relay_packets_total{{direction=\"{way}\"}}")))
}

#[test]
fn a_ring_of_relays_passes_each_datagram_on_once() {
    const RING: usize = 8;
    const DATAGRAMS: u64 = 25;
    on_a_host(|| {
        let server = everywhere("");
        for family in [1u8, 2] {
            let mut ring: Vec<_> = (0..RING)
                .map(|_| {
                    let mut session = Session::udp(&server);
                    let relayed = session.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]));
                    (session, relayed)
                })
                .collect();
            // Each has a channel to itself, to the next and to the one before.
            let addresses: Vec<_> = ring.iter().map(|(_, relayed)| *relayed).collect();
            for (at, (session, _)) in ring.iter_mut().enumerate() {
                for (number, by) in [(0x4000, 0), (0x4001, 1), (0x4002, RING - 1)] {
                    session.bind(number, addresses[(at + by) % RING]);
                }
            }
            let before = traffic(&server);
            for count in 0..DATAGRAMS {
                for (session, _) in &mut ring {
                    for number in [0x4000, 0x4001] {
                        session.send(&padded_channel_data(number, &count.to_be_bytes()));
                    }
                }
                for (session, _) in &mut ring {
                    let mut channels = [session.channel(), session.channel()];
                    channels.sort_unstable();
                    // From itself, and from the one before.
                    let expected = [0x4000, 0x4002].map(|number| (number, count.to_be_bytes().to_vec()));
                    assert_eq!(channels, expected);
                }
            }
            for (session, _) in &mut ring {
                assert!(session.fence().is_empty());
            }
            let sent = 2 * RING as u64 * DATAGRAMS;
            let after = traffic(&server);
            assert_eq!([after[0] - before[0], after[1] - before[1]], [sent, sent], "each once, and no more");
        }
    });
}

#[test]
fn a_relay_that_connects_to_relays_makes_no_loop() {
    on_a_host(|| {
        let server = everywhere("");
        let (mut first, mut second) = (Session::tcp(&server), Session::tcp(&server));
        let (first_relayed, second_relayed) =
            (first.allocate_with(allocate_tcp()), second.allocate_with(allocate_tcp()));
        // Without a permission, the other one takes nothing: connecting fails, or ends.
        let itself = first.call(Msg::new(CONNECT).peer(first_relayed)).error();
        assert_ne!(itself, Some(403), "a relay port is a peer");
        let other = first.call(Msg::new(CONNECT).peer(second_relayed)).error();
        assert_ne!(other, Some(403), "a relay port is a peer");
        assert!(second.fence().is_empty(), "nobody is told of a connection that was not permitted");
    });
}
