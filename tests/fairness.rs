//! A flood on one flow does not cost the others: while one client, or one peer, sends as fast as the system lets it, a call of
//! ordinary rate on the same worker loses nothing and keeps its order, and requests are answered promptly.
//!
//! What stands before the server is not in its hands: a flood on the very socket that a call comes in by is for the system to
//! divide, and some of the call is lost with it. There the test demands what the server owes all the same.

#![cfg(target_os = "linux")]

mod client;
mod common;

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use client::Client;
use common::{
    PASSWORD, PATIENCE, Server, USER,
    client::{TurnClient, channel_data, loopback_peer, loopback_socket},
    datagram::send,
};
use turnserver::stun::{AttributeType, ChannelNumber, Method};

const CHANNEL: ChannelNumber = ChannelNumber(0x4000);
/// The call: so many packets, one every 20 ms as with voice.
const PACKETS: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(20);
const VOICE: usize = 160;
/// Datagrams that the flood hands to the system at once.
const MERGED: usize = 40;
/// Nothing comes for so long: nothing will.
const SILENCE: Duration = Duration::from_secs(5);

/// Two listeners, so that a flood on one socket can be told from one on the worker.
const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = ["127.0.0.1", "127.0.0.2"]
listening-port = 0
transports = ["udp", "tcp"]
[relay]
relay-ip = "127.0.0.1"
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8"]
[process]
workers = 1
"#;

fn server(udp_io: &str, workers: usize) -> Server {
    Server::start(&CONFIGURATION.replace("workers = 1", &format!("workers = {workers}\nudp-io = \"{udp_io}\"")))
}

/// The listener that calls come in by, and the other.
fn listeners(server: &Server, transport: &str) -> [SocketAddr; 2] {
    server.addresses(transport).try_into().expect("two of them")
}

/// Sends without end.
struct Flood {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Flood {
    /// Calls `step` without end, which returns how many packets it has sent.
    fn of(mut step: impl FnMut() -> usize + Send + 'static) -> Self {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (Arc::clone(&over), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                count.fetch_add(step() as u64, Ordering::Relaxed);
            }
        });
        Self { over, sent, thread }
    }

    /// Datagrams, as one if they are several.
    fn of_datagrams(socket: UdpSocket, datagrams: Vec<Vec<u8>>, to: SocketAddr) -> Self {
        Self::of(move || {
            send(&socket, &datagrams, to, 0);
            datagrams.len()
        })
    }

    /// Ends it; returns how many packets it was.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood goes on to the end");
        self.sent.load(Ordering::Relaxed)
    }
}

/// A client with a channel to a peer.
struct Call {
    client: TurnClient,
    relayed: SocketAddr,
    peer: UdpSocket,
}

impl Call {
    fn new(listener: SocketAddr) -> Self {
        let mut client = TurnClient::new(loopback_socket(), listener);
        let (relayed, peer) = (client.allocate(), loopback_peer());
        client.bind(CHANNEL, peer.local_addr().expect("an address"));
        Self { client, relayed, peer }
    }

    /// Sends numbered packets to the peer, which sends each back; returns which have come to the peer, and back to the client.
    fn talk(&self) -> [Vec<u32>; 2] {
        for socket in [&self.peer, &self.client.socket] {
            socket.set_read_timeout(Some(SILENCE)).expect("a time limit");
        }
        thread::scope(|scope| {
            let peer = scope.spawn(|| {
                arrivals(&self.peer, |bytes, from| {
                    assert_eq!(from, self.relayed);
                    self.peer.send_to(bytes, self.relayed).expect("to send back");
                    bytes.to_vec()
                })
            });
            let client = scope.spawn(|| {
                arrivals(&self.client.socket, |bytes, from| {
                    assert_eq!(from, self.client.server);
                    assert_eq!(bytes[..4], channel_data(CHANNEL, &[0; VOICE])[..4]);
                    bytes[4..].to_vec()
                })
            });
            let start = Instant::now();
            for number in 0..PACKETS {
                // Late ones are not sent in a burst: it is the pace that makes it a call.
                thread::sleep((start + INTERVAL * number).saturating_duration_since(Instant::now()));
                let message = channel_data(CHANNEL, &voice(number));
                self.client.socket.send_to(&message, self.client.server).expect("to send");
            }
            [peer.join().expect("what came to the peer"), client.join().expect("what came back")]
        })
    }
}

fn voice(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(VOICE / 4)
}

/// The numbers of the packets that come, until the last has come or none comes any more.
fn arrivals(socket: &UdpSocket, mut open: impl FnMut(&[u8], SocketAddr) -> Vec<u8>) -> Vec<u32> {
    let (mut numbers, mut buffer) = (Vec::new(), [0; 2048]);
    while numbers.last() != Some(&(PACKETS - 1)) {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                let data = open(&buffer[..len], from);
                let number = u32::from_be_bytes(*data.first_chunk().expect("a number"));
                assert_eq!(data, voice(number));
                numbers.push(number);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    numbers
}

/// Requests one after the other until `over`; returns how long each took.
fn refresh(mut client: TurnClient, over: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.succeed(Method::Refresh, |writer| {
            writer.u32(AttributeType::LIFETIME, 600);
        });
        times.push(start.elapsed());
        thread::sleep(INTERVAL);
    }
    times.sort();
    times
}

/// What a call has come to.
#[derive(Debug)]
struct Outcome {
    to_peer: Vec<u32>,
    to_client: Vec<u32>,
    median: Duration,
}

/// A call and requests on `listener` while a flood goes on.
fn under(flood: Flood, listener: SocketAddr, call: Call) -> Outcome {
    let mut requester = TurnClient::new(loopback_socket(), listener);
    requester.allocate();
    let over = AtomicBool::new(false);
    let ([to_peer, to_client], times) = thread::scope(|scope| {
        let times = scope.spawn(|| refresh(requester, &over));
        let arrived = call.talk();
        over.store(true, Ordering::Relaxed);
        (arrived, times.join().expect("all requests are answered"))
    });
    let sent = flood.end();
    let median = times[times.len() / 2];
    eprintln!(
        "{sent} packets of flood; {} and {} of {PACKETS} arrived; {} requests took {median:?}, at most {:?}",
        to_peer.len(),
        to_client.len(),
        times.len(),
        times[times.len() - 1],
    );
    assert!(sent > 100 * u64::from(PACKETS), "that was no flood");
    for numbers in [&to_peer, &to_client] {
        assert!(numbers.is_sorted_by(|one, next| one < next), "out of order or twice: {numbers:?}");
    }
    Outcome { to_peer, to_client, median }
}

/// Nothing is lost, and requests do not wait.
fn expect_everything(outcome: &Outcome) {
    let all: Vec<u32> = (0..PACKETS).collect();
    assert_eq!((&outcome.to_peer, &outcome.to_client), (&all, &all));
    assert!(outcome.median < Duration::from_millis(500), "{:?}", outcome.median);
}

/// One at a time: floods are not to compete with each other.
fn alone() -> impl Drop {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const BOTH_PATHS: [&str; 2] = ["auto", "portable"];

#[test]
fn a_peer_floods_an_allocation() {
    let _turn = alone();
    for udp_io in BOTH_PATHS {
        let server = server(udp_io, 1);
        let [listener, _] = listeners(&server, "udp");
        let (call, victim) = (Call::new(listener), Call::new(listener));
        let flood = Flood::of_datagrams(victim.peer, vec![vec![7; VOICE]; MERGED], victim.relayed);
        expect_everything(&under(flood, listener, call));
    }
}

#[test]
fn a_client_floods_another_listener_of_the_worker() {
    let _turn = alone();
    for udp_io in BOTH_PATHS {
        let server = server(udp_io, 1);
        let [listener, other] = listeners(&server, "udp");
        let (call, flooding) = (Call::new(listener), Call::new(other));
        let message = channel_data(CHANNEL, &[7; VOICE]);
        let flood = Flood::of_datagrams(flooding.client.socket, vec![message; MERGED], other);
        expect_everything(&under(flood, listener, call));
    }
}

/// The system drops what the listener's buffer has no room for, whoever it is from. What gets through is relayed in order, and who
/// asks again is answered.
#[test]
fn a_client_floods_the_listener_that_a_call_comes_in_by() {
    let _turn = alone();
    let server = server("auto", 1);
    let [listener, _] = listeners(&server, "udp");
    let (call, flooding) = (Call::new(listener), Call::new(listener));
    let message = channel_data(CHANNEL, &[7; VOICE]);
    let flood = Flood::of_datagrams(flooding.client.socket, vec![message], listener);
    let outcome = under(flood, listener, call);
    assert!(outcome.to_peer.len() >= PACKETS as usize / 10, "next to nothing got through: {outcome:?}");
    // The way down shares no socket with the flood.
    assert_eq!(outcome.to_client, outcome.to_peer);
}

/// A client on TCP with a permission for a peer, and its relayed address.
fn stream(server: &Server, peer: &UdpSocket) -> (Client, SocketAddr) {
    let [listener, _] = listeners(server, "tcp");
    let mut client = Client::new("tcp", listener, Some((USER, PASSWORD)));
    let relayed = client.allocate().expect("an allocation");
    client.permit(peer.local_addr().expect("an address")).expect("a permission");
    (client, relayed)
}

#[test]
fn a_client_on_tcp_floods_its_peer() {
    let _turn = alone();
    for udp_io in BOTH_PATHS {
        let server = server(udp_io, 1);
        let [listener, _] = listeners(&server, "udp");
        let (call, peer) = (Call::new(listener), loopback_peer());
        let (mut flooding, _) = stream(&server, &peer);
        let to = peer.local_addr().expect("an address");
        let flood = Flood::of(move || {
            flooding.send(to, &[7; VOICE]);
            1
        });
        expect_everything(&under(flood, listener, call));
    }
}

#[test]
fn a_peer_floods_a_client_on_tcp_that_does_not_read() {
    let _turn = alone();
    for udp_io in BOTH_PATHS {
        let server = server(udp_io, 1);
        let [listener, _] = listeners(&server, "udp");
        let (call, peer) = (Call::new(listener), loopback_peer());
        let (_slow, relayed) = stream(&server, &peer);
        let flood = Flood::of_datagrams(peer, vec![vec![7; VOICE]; MERGED], relayed);
        expect_everything(&under(flood, listener, call));
    }
}

/// The worker that serves a call: the upper half of the session's number names it.
fn worker_of(server: &Server, call: &Call) -> u8 {
    let (client, deadline) =
        (call.client.socket.local_addr().expect("an address").to_string(), Instant::now() + PATIENCE);
    while Instant::now() < deadline {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("session begins") && line.contains(&client));
        if let Some(line) = line {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let id = entry["fields"]["id"].as_str().expect("a number");
            return u8::from_str_radix(&id[..4], 16).expect("a worker's number");
        }
        thread::yield_now();
    }
    panic!("no session of {client} in the log:\n{}", server.log());
}

/// A new call that this worker serves.
fn call_on(server: &Server, worker: u8) -> Call {
    let [listener, _] = listeners(server, "udp");
    let mut calls = (0..100).map(|_| Call::new(listener));
    calls.find(|call| worker_of(server, call) == worker).expect("the system spreads clients over the workers")
}

/// Within the process there is no buffer of the system that would overflow.
#[test]
fn a_client_floods_an_allocation_of_another_worker() {
    let _turn = alone();
    for udp_io in BOTH_PATHS {
        let server = server(udp_io, 2);
        let (call, mut flooding, mut victim) = (call_on(&server, 1), call_on(&server, 0), call_on(&server, 1));
        let to_victim = ChannelNumber(CHANNEL.0 + 1);
        flooding.client.bind(to_victim, victim.relayed);
        victim.client.permit(flooding.relayed);
        let (to, message) = (flooding.client.server, channel_data(to_victim, &[7; VOICE]));
        let flood = Flood::of_datagrams(flooding.client.socket, vec![message; MERGED], to);
        // Requests of a new client might come in by the very socket that is flooded: they are left out here.
        let outcome = call.talk();
        let sent = flood.end();
        eprintln!("{sent} packets of flood; {} and {} of {PACKETS} arrived", outcome[0].len(), outcome[1].len());
        let all: Vec<u32> = (0..PACKETS).collect();
        assert_eq!(outcome, [all.clone(), all]);
    }
}
