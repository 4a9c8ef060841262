//! The server on a public segment, its clients behind NATs: each in a network namespace of its own.
//!
//! Two hosts behind symmetric NATs have no direct path to each other, whatever they try; through the relay they have. What
//! kind of NAT a host is behind, NAT discovery finds out ([`discovery`]). Needs root, iproute2, nftables, coturn's tools and
//! `stun` (Debian's stun-client).

mod agent;
#[path = "../common/mod.rs"]
mod common;
mod discovery;
mod nat;
mod network;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::{Agent, Received};
use common::process::{Process, command_in};
use common::uclient::Run;
use common::{PATIENCE, Server};
use network::{HOST_A, HOST_B, NAT_A, NAT_B, Network, PEER, SERVER, of_family};

/// The addresses are documentation prefixes: special-purpose, hence refused as peers unless allowed.
const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = ["203.0.113.10", "2001:db8:1::10"]
listening-port = 3478
transports = ["udp", "tcp"]
[relay]
relay-ip = ["203.0.113.10", "2001:db8:1::10"]
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["203.0.113.0/24", "2001:db8::/32"]
[compatibility]
rfc5766-channel-numbers = true
[process]
workers = 2
"#;

const PORT: u16 = 3478;
/// How long a test waits for something that must not come.
const SILENCE: Duration = Duration::from_millis(500);

#[test]
fn two_clients_behind_symmetric_nats_ipv4() {
    two_clients_behind_symmetric_nats(4);
}

#[test]
fn two_clients_behind_symmetric_nats_ipv6() {
    two_clients_behind_symmetric_nats(6);
}

fn two_clients_behind_symmetric_nats(family: u8) {
    let network = Network::build();
    let server = Server::start_in(Some(&network.namespace("server")), CONFIGURATION);
    let server_address = SocketAddr::new(of_family(SERVER, family), PORT);
    let agent =
        |host, address| Agent::start(Some(&network.namespace(host)), of_family(address, family), server_address);
    let (mut left, mut right, mut peer) = (agent("host-a", HOST_A), agent("host-b", HOST_B), agent("peer", PEER));

    let (left_relayed, left_mapped) = left.allocate();
    let (right_relayed, right_mapped) = right.allocate();
    assert_eq!(left_relayed.ip(), server_address.ip());
    assert_eq!(right_relayed.ip(), server_address.ip());
    assert_ne!(left_relayed, right_relayed);
    assert_eq!(left_mapped.ip(), of_family(NAT_A, family), "the server sees the NAT's address");
    assert_eq!(right_mapped.ip(), of_family(NAT_B, family), "the server sees the NAT's address");

    for (client, mapped) in [(&mut left, left_mapped), (&mut right, right_mapped)] {
        assert_nat_is_symmetric(client, mapped, &mut peer);
    }
    assert_no_direct_path((&mut left, left_mapped), (&mut right, right_mapped));

    left.permit(right_relayed);
    right.permit(left_relayed);
    for round in 0..20 {
        let relayed = |from, data: &str| Some(Received { relayed: true, from, data: data.to_owned() });
        let there = format!("{round}: from behind one NAT to behind the other");
        left.send(right_relayed, &there);
        assert_eq!(right.receive(PATIENCE), relayed(left_relayed, &there));
        let back = format!("{round}: and back");
        right.send(left_relayed, &back);
        assert_eq!(left.receive(PATIENCE), relayed(right_relayed, &back));
    }
    drop((left, right, peer));
    server.stop();
}

/// The NAT lets the client out and the answer in, but shows another port to another host.
fn assert_nat_is_symmetric(client: &mut Agent, mapped: SocketAddr, peer: &mut Agent) {
    client.send_directly(peer.local(), "who am I?");
    let question = peer.receive(PATIENCE).expect("a direct packet from behind the NAT");
    assert_eq!((question.relayed, question.data.as_str()), (false, "who am I?"));
    assert_eq!(question.from.ip(), mapped.ip());
    assert_ne!(question.from.port(), mapped.port(), "the NAT shows the same port to everyone");
    peer.send_directly(question.from, "you");
    let answer = Received { relayed: false, from: peer.local(), data: "you".to_owned() };
    assert_eq!(client.receive(PATIENCE), Some(answer), "no answer through the NAT");
}

/// Both sides send to each other's address inside and to the one that the server has seen, at the same time and more
/// than once, as hole punching does: nothing arrives.
fn assert_no_direct_path(
    (left, left_mapped): (&mut Agent, SocketAddr),
    (right, right_mapped): (&mut Agent, SocketAddr),
) {
    let (left_local, right_local) = (left.local(), right.local());
    for _ in 0..3 {
        for (client, others) in [(&mut *left, [right_local, right_mapped]), (&mut *right, [left_local, left_mapped])] {
            for other in others {
                client.send_directly(other, "can you hear me?");
            }
        }
    }
    assert_eq!(left.receive(SILENCE), None);
    assert_eq!(right.receive(SILENCE), None);
}

/// coturn's client behind the NAT, its echo peer an ordinary host. With `-M` it changes its port, and the NAT its mapping, after
/// the allocation: the allocation moves along (RFC 8016).
#[test]
fn uclient_behind_a_nat() {
    let network = Network::build();
    let server = Server::start_in(Some(&network.namespace("server")), CONFIGURATION);
    let mut command = command_in(Some(&network.namespace("peer")), "turnutils_peer");
    command.args(["-L", PEER[0], "-L", PEER[1], "-p", &PORT.to_string()]);
    let _peer = Process::start(command);

    let client_namespace = network.namespace("host-a");
    for (family, family_option) in [(4, "-X"), (6, "-x")] {
        let server = SocketAddr::new(of_family(SERVER, family), PORT);
        let peer = SocketAddr::new(of_family(PEER, family), PORT);
        await_echo(&network, peer);
        for transport_options in [&[][..], &["-t"], &["-M"]] {
            let options = [&[family_option, "-c", "-m", "2"], transport_options].concat();
            let namespace = Some(client_namespace.as_str());
            Run { namespace, server, peer: Some(peer), options: &options, sessions: 2 }.check();
        }
    }
    assert_eq!(server.stop().matches("session moves").count(), 4);
}

/// Waits until the echo peer answers a host behind a NAT.
fn await_echo(network: &Network, peer: SocketAddr) {
    let family = if peer.is_ipv4() { 4 } else { 6 };
    let server = SocketAddr::new(of_family(SERVER, family), PORT);
    let mut agent = Agent::start(Some(&network.namespace("host-b")), of_family(HOST_B, family), server);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        agent.send_directly(peer, "there?");
        if agent.receive(Duration::from_millis(50)).is_some() {
            return;
        }
    }
    panic!("turnutils_peer does not answer on {peer} within {PATIENCE:?}");
}

/// The namespaces go when the network does.
#[test]
fn namespaces_are_removed() {
    let network = Network::build();
    let name = network.namespace("server");
    let exists = || {
        let listed = Command::new("ip").args(["netns", "list"]).output().expect("ip");
        String::from_utf8_lossy(&listed.stdout).contains(&name)
    };
    assert!(exists());
    drop(network);
    assert!(!exists());
}
