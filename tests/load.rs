//! A thousand allocations with traffic: nothing is lost at a rate that the machine holds, and when all sessions have ended,
//! descriptors, ports and memory are back where they began.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, UdpSocket},
};

use common::{
    Server,
    client::{TurnClient, channel_data, loopback_peer, loopback_socket},
};
use turnserver::stun::ChannelNumber;

/// Sockets of the client; each has an allocation with every listener.
const SOCKETS: usize = 250;
/// Datagrams of each allocation in each direction.
const ROUNDS: u32 = 20;
/// Datagrams under way at once: few enough for every buffer on the way.
const WINDOW: usize = 50;
const CHANNEL: ChannelNumber = ChannelNumber(0x4ABC);

/// Exactly as many relay ports as allocations, so that a port that is lost is missed; on an address of their own, where
/// nobody else holds one.
const CONFIG: &str = r#"
[[listener]]
listening-ip = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
listening-port = 0
transports = ["udp"]
[relay]
relay-ip = "127.61.0.1"
min-port = 61000
max-port = 61999
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8"]
[limits]
unauthorized-rate = 0
[process]
workers = 2
[log]
level = "warn,turnserver::cli=info"
"#;

/// What a process holds, as the kernel counts it.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    resident_kib: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server's descriptors").count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let resident_kib = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        Self { descriptors, resident_kib }
    }
}

/// An allocation and its relayed address.
struct Session {
    client: TurnClient,
    relayed: SocketAddr,
}

/// One life of a thousand allocations.
fn generation(servers: &[SocketAddr], peer: &UdpSocket) -> Vec<Session> {
    let to = peer.local_addr().expect("the peer's address");
    let mut sessions = Vec::with_capacity(SOCKETS * servers.len());
    for _ in 0..SOCKETS {
        let socket = loopback_socket();
        for server in servers {
            let mut client = TurnClient::new(socket.try_clone().expect("the socket again"), *server);
            let relayed = client.allocate();
            client.bind(CHANNEL, to);
            sessions.push(Session { client, relayed });
        }
    }
    sessions
}

/// Relays `ROUNDS` numbered datagrams per session and direction; panics if one is lost, altered or misdirected.
fn traffic(sessions: &[Session], peer: &UdpSocket) {
    let mut buffer = [0; 2048];
    for round in 0..ROUNDS {
        for window in sessions.chunks(WINDOW) {
            let (mut to_peer, mut to_clients) = (BTreeSet::new(), BTreeSet::new());
            for (at, session) in window.iter().enumerate() {
                let mut data = [0u8; 160];
                data[..4].copy_from_slice(&round.to_be_bytes());
                data[4..12].copy_from_slice(&(at as u64).to_be_bytes());
                let message = channel_data(CHANNEL, &data);
                session.client.socket.send_to(&message, session.client.server).expect("to send");
                to_peer.insert((session.relayed, data.to_vec()));
                to_clients.insert((session.client.server, message));
            }
            for _ in window {
                let (len, from) = peer.recv_from(&mut buffer).expect("what a client sent");
                assert!(to_peer.remove(&(from, buffer[..len].to_vec())), "from {from}");
                peer.send_to(&buffer[..len], from).expect("to send back");
            }
            for session in window {
                let (len, from) = session.client.socket.recv_from(&mut buffer).expect("what the peer sent back");
                assert!(to_clients.remove(&(from, buffer[..len].to_vec())), "from {from}");
            }
        }
    }
}

#[test]
fn a_thousand_allocations_lose_nothing_and_leave_nothing() {
    let server = Server::start(CONFIG);
    let servers = server.addresses("udp");
    let peer = loopback_peer();
    // What is touched once and kept (buffers, tables) is touched first.
    let mut warm = generation(&servers, &peer);
    traffic(&warm[..WINDOW], &peer);
    warm.iter_mut().for_each(|session| session.client.delete());
    drop(warm);
    let before = Held::by(server.pid());

    let mut sessions = generation(&servers, &peer);
    let ports: BTreeSet<SocketAddr> = sessions.iter().map(|session| session.relayed).collect();
    assert_eq!(ports.len(), sessions.len(), "every relayed address is its own");
    assert!(Held::by(server.pid()).descriptors >= before.descriptors + sessions.len());
    traffic(&sessions, &peer);
    sessions.iter_mut().for_each(|session| session.client.delete());

    let after = Held::by(server.pid());
    eprintln!("before {before:?}, after {after:?}");
    assert_eq!(after.descriptors, before.descriptors);
    assert!(after.resident_kib <= before.resident_kib + 1024, "{before:?} {after:?}");

    let log = server.stop();
    let relayed = u64::from(ROUNDS) * sessions.len() as u64 + u64::from(ROUNDS) * WINDOW as u64;
    let totals = log.lines().find(|line| line.contains("\"stopped\"")).expect("totals");
    for key in ["to_peer_packets", "to_client_packets"] {
        assert!(totals.contains(&format!("\"{key}\":{relayed}")), "{totals}");
    }
    assert!(totals.contains("\"drops\":\"\""), "{totals}");
}
