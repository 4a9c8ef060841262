//! Workers that panic, in a running server with clients on loopback.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use super::*;
use crate::{
    config::{self, Host},
    relay::{Endpoint, Relay},
    stun::{AttributeType, Class, Message, MessageWriter, Method, TransactionId},
    turn::Transport,
};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What has been logged by all tests of this process.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a server for everybody on loopback.
fn start(more: &str) -> Relay {
    // Fails if another test has done it before.
    let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).try_init();
    let text = format!(
        "[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = 0\n[relay]\nrelay-ip = \"127.0.0.1\"\n\
         [auth]\nanonymous = true\n[peers]\nallowed-peer-ip = [\"127.0.0.0/8\"]\n{more}\n"
    );
    Relay::start(config::parse(&text, "t.toml", &Host::detect().unwrap()).unwrap().settings, None, &[]).unwrap()
}

fn address(relay: &Relay, wanted: Transport) -> SocketAddr {
    let found = relay.endpoints().into_iter().find(|Endpoint { transport, .. }| *transport == wanted);
    found.unwrap().address
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

fn message(method: Method, class: Class, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId(rand::random()));
    attributes(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    relayed: Option<SocketAddr>,
}

impl Client {
    fn new(relay: &Relay) -> Self {
        Self { socket: socket(), server: address(relay, Transport::Udp), relayed: None }
    }

    /// Sends a request until it is answered.
    fn request(&self, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
        let request = message(method, Class::Request, attributes);
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 512];
        while Instant::now() < deadline {
            self.socket.send_to(&request, self.server).unwrap();
            while let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
                if buffer[8..20] == request[8..20] {
                    return buffer[..len].to_vec();
                }
            }
        }
        panic!("{} is not answered", method.name());
    }

    /// Allocates; false if that is refused.
    fn allocate(&mut self, more: impl Fn(&mut MessageWriter<'_>)) -> bool {
        let response = self.request(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            more(writer);
        });
        let response = Message::parse(&response).unwrap();
        self.relayed = response.get_xor_address(AttributeType::XOR_RELAYED_ADDRESS).and_then(Result::ok);
        self.relayed.is_some()
    }

    fn permit(&self, peer: SocketAddr) {
        let response = self.request(Method::CreatePermission, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(Message::parse(&response).unwrap().class(), Class::Success);
    }

    /// Sends something to a peer and back.
    fn round_trip(&self, peer: &UdpSocket) {
        let (data, mut buffer): ([u8; 8], _) = (rand::random(), [0; 512]);
        let there = peer.local_addr().unwrap();
        let indication = message(Method::Send, Class::Indication, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, there).attribute(AttributeType::DATA, &data);
        });
        self.socket.send_to(&indication, self.server).unwrap();
        let (len, from) = peer.recv_from(&mut buffer).expect("data for the peer");
        assert_eq!((&buffer[..len], Some(from)), (&data[..], self.relayed));
        peer.send_to(&data, from).unwrap();
        let (len, _) = self.socket.recv_from(&mut buffer).expect("data for the client");
        let indication = Message::parse(&buffer[..len]).unwrap();
        assert_eq!(indication.get(AttributeType::DATA), Some(&data[..]));
    }
}

/// Makes a worker panic as soon as it wakes up, and wakes it up.
fn doom(relay: &Relay, worker: usize) {
    relay.shared.doomed.store(worker + 1, Ordering::Relaxed);
    relay.shared.mailboxes[worker].notify.notify_one();
    let deadline = Instant::now() + PATIENCE;
    while relay.shared.doomed.load(Ordering::Relaxed) != 0 {
        assert!(Instant::now() < deadline, "worker {worker} does not wake up");
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_that_panics_begins_anew_and_the_others_notice_nothing() {
    const CLIENTS: usize = 24;
    let relay = start(&format!("[limits]\ntotal-quota = {CLIENTS}\nbinding-rate = 0\n[process]\nworkers = 3"));
    let peer = socket();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(&relay)).collect();
    let revive = |client: &mut Client| {
        assert!(client.allocate(|_| {}), "the quota of lost sessions is given back");
        client.permit(peer.local_addr().unwrap());
        client.round_trip(&peer);
    };
    clients.iter_mut().for_each(revive);
    let mut made = CLIENTS;
    // The first of the group twice: a later life ends as the first did.
    for worker in [0, 1, 0] {
        let is_lost = |client: &Client| {
            let (_, owner) = relay.shared.spaces().owner(client.relayed.unwrap()).expect("a relayed address in use");
            usize::from(owner.worker) == worker
        };
        let (mut lost, others): (Vec<_>, Vec<_>) = clients.iter_mut().partition(|client| is_lost(client));
        assert!(!lost.is_empty() && !others.is_empty(), "{} of {CLIENTS} are lost", lost.len());
        doom(&relay, worker);
        others.iter().for_each(|client| client.round_trip(&peer));
        let gone: Vec<SocketAddr> = lost.iter().filter_map(|client| client.relayed).collect();
        made += lost.len();
        lost.iter_mut().for_each(|client| revive(client));
        others.iter().for_each(|client| client.round_trip(&peer));
        let log = String::from_utf8(LOG.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap();
        for relayed in gone {
            let end = |line: &&str| line.contains("session ends") && line.contains(&format!("relayed={relayed} "));
            let reasons: Vec<_> = log.lines().filter(end).collect();
            assert!(reasons.iter().any(|line| line.ends_with("reason=\"lost\"")), "{relayed}: {reasons:?}");
        }
        assert!(log.contains(&format!("its sessions are lost, all others go on worker={worker}")), "{log}");
    }
    // No connection is left to a listener that nobody serves.
    for _ in 0..12 {
        let mut connection = TcpStream::connect(address(&relay, Transport::Tcp)).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(&message(Method::Binding, Class::Request, |_| {})).unwrap();
        connection.read_exact(&mut [0; 20]).expect("an answer over TCP");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (reports, complete) = runtime.block_on(relay.monitor().reports());
    let counted = reports.iter().map(|report| report.totals.allocations()).sum::<u64>();
    let living = reports.iter().map(|report| report.census.sum()).sum::<u64>();
    assert_eq!((counted, living, complete), (made as u64, CLIENTS as u64, true), "as management sees it");
    let counts = relay.stop();
    assert_eq!(counts.totals.allocations(), made as u64, "what lost lives have counted is not lost");
}

#[test]
fn a_reservation_outlives_its_worker_and_then_expires() {
    let relay = start("[lifetimes]\nreservation-lifetime = \"1s\"\n[limits]\ntotal-quota = 2\n[process]\nworkers = 1");
    let [mut first, mut second] = [Client::new(&relay), Client::new(&relay)];
    let pair = |writer: &mut MessageWriter<'_>| {
        writer.attribute(AttributeType::EVEN_PORT, &[0x80]);
    };
    assert!(first.allocate(pair));
    assert!(!second.allocate(|_| {}), "the reservation holds the second place");
    doom(&relay, 0);
    assert!(first.allocate(|_| {}), "the place of the lost session is given back");
    let deadline = Instant::now() + PATIENCE;
    while !second.allocate(|_| {}) {
        assert!(Instant::now() < deadline, "the reservation never expires");
    }
    let _ = relay.stop();
}

#[test]
fn a_stop_does_not_wait_for_the_pause() {
    let relay = start("[process]\nworkers = 1");
    let began = Instant::now();
    // Pauses of 50, 100, 200, 400, 800 ms and 1.6 s, the last of which is cut short.
    for _ in 0..6 {
        doom(&relay, 0);
    }
    let paused = began.elapsed();
    assert!(paused >= SHORTEST_PAUSE * 31, "five pauses have passed: {paused:?}");
    let _ = relay.stop();
    assert!(began.elapsed() - paused < SHORTEST_PAUSE * 32, "the sixth has not");
}
