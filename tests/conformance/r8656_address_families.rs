//! RFC 8656 §7.2, §8: address families, and allocations with two relayed addresses.

use std::net::{SocketAddr, SocketAddrV6};
use std::process::Command;
use std::time::Instant;

use crate::client::{Client, PATIENCE};
use crate::common::namespace::{add_address, with_loopback_of_mtu};
use crate::common::ports::free_port_pair;
use crate::setup::{ALICE, Peer, Server, Session, V4, V6, portable, server};
use crate::wire::{
    ADDITIONAL_ADDRESS_FAMILY, ADDRESS_ERROR_CODE, BINDING, CHANNEL_BIND, CREATE_PERMISSION, EVEN_PORT, LIFETIME, Msg,
    REFRESH, REQUESTED_ADDRESS_FAMILY, Reply, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, allocate, channel_data,
};

const ONLY_V4: (&str, &str) = ("relay.relay-ip", r#"["127.0.0.1"]"#);
const ONLY_V6: (&str, &str) = ("relay.relay-ip", r#"["::1"]"#);

fn family(message: Msg, code: u8) -> Msg {
    message.attr(REQUESTED_ADDRESS_FAMILY, &[code, 0, 0, 0])
}

fn both() -> Msg {
    allocate().attr(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])
}

/// An allocation with two addresses, and a permitted peer in each family.
fn dual(server: &Server) -> (Session, [(Peer, SocketAddr); 2]) {
    let mut session = Session::udp(server);
    let relayed = session.succeed(both()).all_xor(XOR_RELAYED_ADDRESS);
    let v4 = *relayed.iter().find(|address| address.is_ipv4()).expect("an IPv4 address");
    let v6 = *relayed.iter().find(|address| address.is_ipv6()).expect("an IPv6 address");
    let peers = [(Peer::new(V4), v4), (Peer::new(V6), v6)];
    session.succeed(Msg::new(CREATE_PERMISSION).peer(peers[0].0.address).peer(peers[1].0.address));
    (session, peers)
}

fn refused_family(reply: &Reply) -> (u8, u16) {
    let value = reply.get(ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE");
    (value[0], u16::from(value[2]) * 100 + u16::from(value[3]))
}

#[test]
fn r8656_7_2_12_an_unsupported_or_disabled_family_gets_440() {
    let whole = server(&[]);
    let mut session = Session::udp(&whole);
    for code in [0, 3, 255] {
        session.fail(family(allocate(), code), 440);
    }
    assert!(session.allocate_with(family(allocate(), 2)).is_ipv6());
    Session::udp(&server(&[ONLY_V4])).fail(family(allocate(), 2), 440);
    Session::udp(&server(&[ONLY_V6])).fail(family(allocate(), 1), 440);
}

#[test]
fn r8656_7_2_13_no_family_asked_and_no_ipv4_gets_440() {
    let server = server(&[ONLY_V6]);
    let mut session = Session::udp(&server);
    session.fail(allocate(), 440);
    assert!(session.allocate_with(family(allocate(), 2)).is_ipv6());
}

#[test]
fn r8656_7_2_14_no_family_asked_gives_ipv4_to_clients_of_ipv6_too() {
    let server = server(&[]);
    for client in [Client::udp(server.ipv6("udp")), Client::tcp(server.ipv6("tcp"))] {
        assert!(Session::over(client, ALICE).allocate().is_ipv4());
    }
}

#[test]
fn allocation_default_address_family_departs_from_ipv4() {
    let server = server(&[("relay.allocation-default-address-family", r#""keep""#)]);
    assert!(Session::over(Client::udp(server.ipv6("udp")), ALICE).allocate().is_ipv6());
    assert!(Session::udp(&server).allocate().is_ipv4());
}

#[test]
fn r8656_7_2_17_additional_address_family_ipv4_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for code in [1, 0, 3] {
        session.fail(allocate().attr(ADDITIONAL_ADDRESS_FAMILY, &[code, 0, 0, 0]), 400);
    }
}

#[test]
fn r8656_7_2_18_additional_address_family_gives_one_address_of_each() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let reply = session.succeed(both());
        let mut families: Vec<bool> = reply.all_xor(XOR_RELAYED_ADDRESS).iter().map(SocketAddr::is_ipv4).collect();
        families.sort_unstable();
        assert_eq!(families, [false, true]);
        assert!(!reply.has(ADDRESS_ERROR_CODE));
    }
    // EVEN-PORT holds for both; without it as many ports are odd.
    for _ in 0..8 {
        let even = both().attr(EVEN_PORT, &[0]);
        let addresses = Session::udp(&server).succeed(even).all_xor(XOR_RELAYED_ADDRESS);
        assert!(addresses.len() == 2 && addresses.iter().all(|address| address.port() % 2 == 0), "{addresses:?}");
    }
}

#[test]
fn r8656_7_2_19_r8656_18_06_a_family_that_is_not_relayed_is_reported_beside_the_other() {
    // Reply::parse checks reserved bits, class, number and reason of ADDRESS-ERROR-CODE.
    let only_v4 = server(&[ONLY_V4]);
    let reply = Session::udp(&only_v4).succeed(both());
    assert!(matches!(reply.all_xor(XOR_RELAYED_ADDRESS)[..], [SocketAddr::V4(_)]));
    assert_eq!(refused_family(&reply), (2, 440));
    let only_v6 = server(&[ONLY_V6]);
    let mut session = Session::udp(&only_v6);
    let request = session.sign(both());
    let reply = session.call_signed(&request);
    assert!(matches!(reply.all_xor(XOR_RELAYED_ADDRESS)[..], [SocketAddr::V6(_)]));
    assert_eq!(refused_family(&reply), (1, 440));
    // And so it is told again.
    assert_eq!(refused_family(&session.call_signed(&request)), (1, 440));
}

#[test]
fn r8656_7_2_19_a_family_without_capacity_is_reported_beside_the_other() {
    let port = free_port_pair(&[V4, V6]);
    let server = server(&[("relay.min-port", &port.to_string()), ("relay.max-port", &port.to_string())]);
    for (taken, free, code) in [(V6, V4, 2), (V4, V6, 1)] {
        let _taken = Peer::on((taken, port).into());
        let mut session = Session::udp(&server);
        let reply = session.succeed(both());
        assert_eq!(reply.all_xor(XOR_RELAYED_ADDRESS), [SocketAddr::from((free, port))]);
        assert_eq!(refused_family(&reply), (code, 508));
        session.delete();
    }
}

#[test]
fn r8656_8_1_01_8_2_07_deleting_one_family_leaves_the_other_as_it_was() {
    let server = server(&[]);
    let (mut session, [(peer, relayed), (lost, _)]) = dual(&server);
    session.bind(0x4000, peer.address);
    let reply = session.succeed(family(Msg::new(REFRESH), 2).u32(LIFETIME, 0));
    assert_eq!(reply.u32(LIFETIME), Some(0));
    session.send(&channel_data(0x4000, b"still"));
    assert_eq!(peer.receive(), (b"still".to_vec(), relayed));
    peer.send(b"bound", relayed);
    assert_eq!(session.channel(), (0x4000, b"bound".to_vec()));
    let second = Peer::new(V4);
    session.send_to(second.address, b"permitted");
    assert_eq!(second.receive(), (b"permitted".to_vec(), relayed));
    session.fail(Msg::new(CREATE_PERMISSION).peer(lost.address), 443);
    session.fail(family(Msg::new(REFRESH), 2), 443);
    session.succeed(family(Msg::new(REFRESH), 1));
}

#[test]
fn r8656_8_2_07_deleting_the_ipv4_address_leaves_the_ipv6_one() {
    let server = server(&[]);
    let (mut session, [_, (peer, relayed)]) = dual(&server);
    session.bind(0x4000, peer.address);
    session.succeed(family(Msg::new(REFRESH), 1).u32(LIFETIME, 0));
    session.send(&channel_data(0x4000, b"still"));
    assert_eq!(peer.receive(), (b"still".to_vec(), relayed));
    peer.send(b"bound", relayed);
    assert_eq!(session.channel(), (0x4000, b"bound".to_vec()));
    let second = Peer::new(V6);
    session.round_trip(&second, relayed);
    session.fail(allocate(), 437);
    session.succeed(family(Msg::new(REFRESH), 2).u32(LIFETIME, 0));
    session.fail(Msg::new(REFRESH), 437);
}

#[test]
fn r8656_8_2_01_refresh_with_a_family_that_the_allocation_has_not_gets_443() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    for code in [2, 3, 0] {
        session.fail(family(Msg::new(REFRESH), code), 443);
        session.fail(family(Msg::new(REFRESH), code).u32(LIFETIME, 0), 443);
    }
    session.succeed(family(Msg::new(REFRESH), 1));
}

#[test]
fn r8656_8_2_06_refresh_without_a_family_applies_to_both() {
    let server = server(&[]);
    let (mut session, [(v4, relayed_v4), (v6, relayed_v6)]) = dual(&server);
    assert_eq!(session.succeed(Msg::new(REFRESH).u32(LIFETIME, 900)).u32(LIFETIME), Some(900));
    session.round_trip(&v4, relayed_v4);
    session.round_trip(&v6, relayed_v6);
    session.delete();
    session.fail(Msg::new(REFRESH), 437);
    session.fail(family(Msg::new(REFRESH), 1), 437);
}

/// Allocations of 3 s.
#[test]
fn r8656_8_2_06_07_refresh_prolongs_both_families_or_the_one_it_names() {
    let server =
        server(&[("lifetimes.default-allocate-lifetime", "\"3s\""), ("lifetimes.max-allocate-lifetime", "\"30s\"")]);
    let begun = Instant::now();
    let (mut whole, peers) = dual(&server);
    let (mut first, first_peers) = dual(&server);
    let (mut second, second_peers) = dual(&server);
    assert_eq!(whole.succeed(Msg::new(REFRESH).u32(LIFETIME, 30)).u32(LIFETIME), Some(30));
    first.succeed(family(Msg::new(REFRESH), 1).u32(LIFETIME, 30));
    second.succeed(family(Msg::new(REFRESH), 2).u32(LIFETIME, 30));
    std::thread::sleep(std::time::Duration::from_millis(3700).saturating_sub(begun.elapsed()));
    for (peer, relayed) in &peers {
        whole.round_trip(peer, *relayed);
    }
    for (session, peers, kept) in [(&mut first, first_peers, 0), (&mut second, second_peers, 1)] {
        let (peer, relayed) = &peers[kept];
        session.round_trip(peer, *relayed);
        let gone = 2 - kept as u8;
        session.fail(family(Msg::new(REFRESH), gone), 443);
        session.fail(Msg::new(CREATE_PERMISSION).peer(peers[1 - kept].0.address), 443);
    }
}

#[test]
fn r8656_10_2_05_12_2_06_a_peer_of_a_family_that_the_allocation_has_not_gets_443() {
    let server = server(&[]);
    for (code, wrong) in [(1, SocketAddr::from((V6, 9))), (2, (V4, 9).into())] {
        let mut session = Session::udp(&server);
        session.allocate_with(family(allocate(), code));
        session.fail(Msg::new(CREATE_PERMISSION).peer(wrong), 443);
        session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(wrong), 443);
    }
}

#[test]
fn r8656_10_2_08_a_dual_allocation_takes_peers_of_both_families() {
    let server = server(&[]);
    let (mut session, peers) = dual(&server);
    for (number, (peer, relayed)) in peers.iter().enumerate() {
        session.round_trip(peer, *relayed);
        session.bind(0x4000 + number as u16, peer.address);
        session.send(&channel_data(0x4000 + number as u16, b"data"));
        assert_eq!(peer.receive(), (b"data".to_vec(), *relayed));
    }
}

/// An address of a link is one only together with an interface: clients there are served, but are no peers.
#[test]
fn clients_on_a_link_local_address_are_served_and_are_no_peers() {
    if portable() {
        // No wildcard listeners there, and nothing else listens on such an address.
        return;
    }
    with_loopback_of_mtu(1500, || {
        for arguments in ["link add link0 type veth peer name link1", "link set link0 up", "link set link1 up"] {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.expect("ip of iproute2").success());
        }
        add_address("2001:db8::1");
        let local = link_local("link0");
        let server = server(&[
            ("listener.listening-ip", r#"["::"]"#),
            ("relay.relay-ip", r#"["2001:db8::1"]"#),
            ("peers.allowed-peer-ip", r#"["fe80::/10", "2001:db8::1"]"#),
        ]);
        let reach = |transport| SocketAddrV6::new(*local.ip(), server.ipv6(transport).port(), 0, local.scope_id());
        let tcp = Client::tcp(reach("tcp").into());
        let udp = Client::udp_from(local.into(), reach("udp").into());
        for mut client in [udp, tcp] {
            let mapped = client.request(&Msg::new(BINDING)).xor(XOR_MAPPED_ADDRESS).expect("XOR-MAPPED-ADDRESS");
            assert_eq!((mapped.ip(), mapped.port()), (client.local.ip(), client.local.port()));
            let mut session = Session::over(client, ALICE);
            let relayed = session.allocate_with(family(allocate(), 2));
            session.fail(Msg::new(CREATE_PERMISSION).peer((*local.ip(), 9)), 403);
            session.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer((*local.ip(), 9)), 403);
            let peer = Peer::new("2001:db8::1".parse().unwrap());
            session.permit(peer.address);
            session.round_trip(&peer, relayed);
        }
    });
}

/// The link-local address of an interface, once it can be used.
fn link_local(interface: &str) -> SocketAddrV6 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{interface} has no address");
        let listed = Command::new("ip").args(["-o", "-6", "address", "show", "dev", interface]).output().expect("ip");
        let listed = String::from_utf8(listed.stdout).unwrap();
        let address = listed
            .split_whitespace()
            .find_map(|word| word.strip_suffix("/64"))
            .filter(|_| !listed.contains("tentative"));
        let Some(address) = address else { continue };
        let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let line = index.lines().find(|line| line.ends_with(interface)).expect("the interface");
        let scope = u32::from_str_radix(line.split_whitespace().nth(1).expect("an index"), 16).unwrap();
        return SocketAddrV6::new(address.parse().unwrap(), 0, 0, scope);
    }
}
