//! A call, and what the server says of itself.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use turnserver::{
    stun::{ChannelNumber, Class, Message, Method},
    turn::Family,
};

use crate::common::{
    LOOPBACK, PATIENCE, Server,
    client::{TurnClient, channel_data, loopback_peer, loopback_socket},
};

pub(crate) const CHANNEL: ChannelNumber = ChannelNumber(0x4000);

/// What the tests on loopback start from: one worker, and management.
pub(crate) fn configuration(workers: usize) -> String {
    LOOPBACK.replace("workers = 2", &format!("workers = {workers}"))
        + "[limits]\nunauthorized-rate = 0\nbinding-rate = 0\n[management]\nlisten = \"127.0.0.1:0\"\n"
}

/// A client with a channel to a peer.
pub(crate) struct Call {
    pub(crate) client: TurnClient,
    pub(crate) peer: UdpSocket,
    pub(crate) relayed: SocketAddr,
}

impl Call {
    /// On loopback.
    pub(crate) fn new(server: &Server) -> Self {
        Self::between(TurnClient::new(loopback_socket(), server.ipv4("udp")), loopback_peer())
    }

    /// Of this client, to this peer.
    pub(crate) fn between(mut client: TurnClient, peer: UdpSocket) -> Self {
        let address = peer.local_addr().expect("an address");
        let relayed = client.allocate_of(if address.is_ipv4() { Family::V4 } else { Family::V6 });
        client.bind(CHANNEL, address);
        Self { client, peer, relayed }
    }

    /// Sends data to the peer and back, once; whether they arrived.
    pub(crate) fn passes(&self, data: &[u8]) -> bool {
        let framed = channel_data(CHANNEL, data);
        let _ = self.client.socket.send_to(&framed, self.client.server);
        if !arrives(&self.peer, data, self.relayed) {
            return false;
        }
        let _ = self.peer.send_to(data, self.relayed);
        arrives(&self.client.socket, &framed, self.client.server)
    }

    /// The same, of which nothing may be lost.
    pub(crate) fn exchange(&self, data: &[u8]) {
        assert!(self.passes(data), "data of a call are lost: {:?}", String::from_utf8_lossy(data));
    }

    /// How long it takes until data pass again, sent every few milliseconds.
    pub(crate) fn resumes(&self) -> Duration {
        let start = Instant::now();
        for socket in [&self.client.socket, &self.peer] {
            socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
        }
        for number in 0u32.. {
            if self.passes(&[b"again ".as_slice(), &number.to_be_bytes()].concat()) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the call does not resume");
        }
        let taken = start.elapsed();
        for socket in [&self.client.socket, &self.peer] {
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
        }
        taken
    }
}

/// Whether this arrives; what comes before it is passed over.
fn arrives(socket: &UdpSocket, wanted: &[u8], wanted_from: SocketAddr) -> bool {
    let mut buffer = vec![0; 70_000];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) if (&buffer[..len], from) == (wanted, wanted_from) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // An ICMP error about something that was sent before; or this process was held still for a while.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => {}
            Err(error) => panic!("cannot receive: {error}"),
        }
    }
}

/// The error of an Allocate on a 5-tuple of its own, if there is one.
pub(crate) fn allocate_error(client: &mut TurnClient) -> Option<u16> {
    client.learn_nonce();
    let response = client.request(Method::Allocate, |writer| {
        writer.attribute(turnserver::stun::AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let response = Message::parse(&response).expect("a STUN message");
    let error = response.get(turnserver::stun::AttributeType::ERROR_CODE);
    assert_eq!(error.is_some(), response.class() == Class::Error);
    error.map(|error| u16::from(error[2]) * 100 + u16::from(error[3]))
}

/// A number that the server counts, by its name with labels.
pub(crate) fn metric(server: &Server, name: &str) -> u64 {
    let address: SocketAddr =
        server.await_logged("management")["address"].as_str().expect("text").parse().expect("an address");
    let text = get(address, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("management");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("to ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Waits until something holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
