//! A client process inside a namespace, led by the test line by line.
//!
//! The test starts its own binary again through `ip netns exec`, with the one test [`serve`] selected. The agent
//! reads commands as JSON lines from its standard input and answers each with one JSON line on standard error, which
//! the test harness leaves alone.
//!
//! The TURN client in it is a minimal one on one UDP socket; its messages are written and read by `stun-rs`.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stun_rs::attributes::stun::{ErrorCode, MessageIntegrity, Nonce, Realm, UserName, XorMappedAddress};
use stun_rs::attributes::turn::{Data, RequestedAddressFamily, RequestedTrasport, XorPeerAddress, XorRelayedAddress};
use stun_rs::methods::{ALLOCATE, CREATE_PERMMISSION, DATA, SEND};
use stun_rs::{
    AddressFamily, Algorithm, AlgorithmId, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder,
    MessageMethod, StunMessage, StunMessageBuilder, protocols,
};

use crate::common::process::{Process, command_in};
use crate::common::{LOOPBACK, PASSWORD, PATIENCE, Server, USER};

/// Set for the agent: the local address to bind.
const LOCAL: &str = "TURNSERVER_TEST_AGENT_LOCAL";
/// Set for the agent: the server's address.
const SERVER: &str = "TURNSERVER_TEST_AGENT_SERVER";

/// How long a request waits for its answer before it is sent again.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// The test's end of an agent.
pub(crate) struct Agent(Process);

/// What has come in at an agent.
#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    /// In a Data indication from the server; otherwise as a datagram by itself.
    pub(crate) relayed: bool,
    pub(crate) from: SocketAddr,
    pub(crate) data: String,
}

impl Agent {
    /// Starts an agent inside `namespace` (or where the test runs), on a port of `local`, as a client of `server`.
    pub(crate) fn start(namespace: Option<&str>, local: IpAddr, server: SocketAddr) -> Self {
        let binary = std::env::current_exe().expect("the test binary");
        let mut command = command_in(namespace, binary.to_str().expect("a path in UTF-8"));
        command.args(["--exact", "agent::serve", "--nocapture", "--test-threads=1"]);
        command.env(LOCAL, local.to_string()).env(SERVER, server.to_string());
        Self(Process::start(command))
    }

    /// The agent's own address.
    pub(crate) fn local(&mut self) -> SocketAddr {
        address(&self.ask(json!({"do": "local"})), "local")
    }

    /// Allocates; returns the relayed address and the agent's address as the server sees it.
    pub(crate) fn allocate(&mut self) -> (SocketAddr, SocketAddr) {
        let answer = self.ask(json!({"do": "allocate"}));
        (address(&answer, "relayed"), address(&answer, "mapped"))
    }

    /// Installs a permission for `peer`.
    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        self.ask(json!({"do": "permit", "peer": peer}));
    }

    /// Sends through the relay.
    pub(crate) fn send(&mut self, peer: SocketAddr, data: &str) {
        self.ask(json!({"do": "send", "peer": peer, "data": data}));
    }

    /// Sends by itself, from the same socket.
    pub(crate) fn send_directly(&mut self, to: SocketAddr, data: &str) {
        self.ask(json!({"do": "send directly", "to": to, "data": data}));
    }

    /// The next data that comes in, if any does within `limit`.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<Received> {
        let answer = self.ask(json!({"do": "receive", "milliseconds": limit.as_millis() as u64}));
        let data = answer["data"].as_str()?.to_owned();
        Some(Received { relayed: answer["relayed"] == true, from: address(&answer, "from"), data })
    }

    fn ask(&mut self, command: Value) -> Value {
        self.0.write_line(&command.to_string());
        self.0.find_line(PATIENCE * 2, |line| serde_json::from_str(line).ok().filter(Value::is_object))
    }
}

fn address(value: &Value, key: &str) -> SocketAddr {
    value[key].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address `{key}` in {value}"))
}

/// The agent itself, when a test starts it as one; run as an ordinary test, it checks agents on loopback.
#[test]
fn serve() {
    let (Ok(local), Ok(server)) = (std::env::var(LOCAL), std::env::var(SERVER)) else { return relay_on_loopback() };
    let mut client = Client::new(local.parse().expect(LOCAL), server.parse().expect(SERVER));
    for line in std::io::stdin().lines() {
        let command: Value = serde_json::from_str(&line.expect("a line")).expect("a JSON line");
        let data = command["data"].as_str().unwrap_or_default().as_bytes();
        let answer = match command["do"].as_str() {
            Some("local") => json!({"local": client.socket.local_addr().expect("the local address")}),
            Some("allocate") => client.allocate(),
            Some("permit") => {
                client.request(CREATE_PERMMISSION, |builder| {
                    builder.with_attribute(XorPeerAddress::from(address(&command, "peer")))
                });
                json!({})
            }
            Some("send") => {
                let message = StunMessageBuilder::new(SEND, MessageClass::Indication)
                    .with_attribute(XorPeerAddress::from(address(&command, "peer")))
                    .with_attribute(Data::new(data))
                    .build();
                client.transmit(&message);
                json!({})
            }
            Some("send directly") => {
                // The network may refuse it at once, which is as good as losing it.
                json!({"sent": client.socket.send_to(data, address(&command, "to")).is_ok()})
            }
            Some("receive") => {
                client.receive(Duration::from_millis(command["milliseconds"].as_u64().expect("milliseconds")))
            }
            _ => panic!("unknown command {command}"),
        };
        eprintln!("{answer}");
    }
}

/// Two agents and no network between them: what fails here is not for the namespaces to explain.
fn relay_on_loopback() {
    let server = Server::start(LOOPBACK);
    for address in [server.ipv4("udp"), server.ipv6("udp")] {
        let (mut left, mut right) =
            (Agent::start(None, address.ip(), address), Agent::start(None, address.ip(), address));
        let ((left_relayed, left_mapped), (right_relayed, _)) = (left.allocate(), right.allocate());
        assert_eq!(left_mapped, left.local());
        left.permit(right_relayed);
        right.permit(left_relayed);
        left.send(right_relayed, "hello");
        let hello = Received { relayed: true, from: left_relayed, data: "hello".to_owned() };
        assert_eq!(right.receive(PATIENCE), Some(hello));
    }
    server.stop();
}

/// The TURN client.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// Realm and nonce, as the server has last told them.
    challenge: Option<(Realm, Nonce)>,
    /// Data that came in while a response was awaited.
    arrived: VecDeque<Value>,
}

impl Client {
    fn new(local: IpAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((local, 0)).expect("a socket");
        Self { socket, server, challenge: None, arrived: VecDeque::new() }
    }

    fn allocate(&mut self) -> Value {
        let family = if self.server.is_ipv4() { AddressFamily::IPv4 } else { AddressFamily::IPv6 };
        let response = self.request(ALLOCATE, |builder| {
            builder
                .with_attribute(RequestedTrasport::new(protocols::UDP))
                .with_attribute(RequestedAddressFamily::new(family))
        });
        let relayed = response.get::<XorRelayedAddress>().and_then(|it| it.as_xor_relayed_address().ok());
        let mapped = response.get::<XorMappedAddress>().and_then(|it| it.as_xor_mapped_address().ok());
        let (relayed, mapped) = (relayed.expect("XOR-RELAYED-ADDRESS"), mapped.expect("XOR-MAPPED-ADDRESS"));
        json!({"relayed": relayed.socket_address(), "mapped": mapped.socket_address()})
    }

    /// Sends a request and returns its success response; answers a challenge (401, 438) once for each new nonce.
    fn request(
        &mut self,
        method: MessageMethod,
        attributes: impl Fn(StunMessageBuilder) -> StunMessageBuilder,
    ) -> StunMessage {
        for _ in 0..3 {
            let mut builder = attributes(StunMessageBuilder::new(method, MessageClass::Request));
            if let Some((realm, nonce)) = &self.challenge {
                let user = UserName::new(USER).expect("a user name");
                let algorithm = Algorithm::from(AlgorithmId::MD5);
                let key = HMACKey::new_long_term(&user, realm, PASSWORD, algorithm).expect("a key");
                builder = builder
                    .with_attribute(user)
                    .with_attribute(realm.clone())
                    .with_attribute(nonce.clone())
                    .with_attribute(MessageIntegrity::new(key));
            }
            let response = self.exchange(&builder.build());
            if response.class() == MessageClass::SuccessResponse {
                return response;
            }
            let code = response.get::<ErrorCode>().and_then(|it| it.as_error_code().ok()).expect("ERROR-CODE");
            let code = code.error_code().error_code();
            assert!(code == 438 || (code == 401 && self.challenge.is_none()), "{method:?} is refused: {response:?}");
            let realm = response.get::<Realm>().and_then(|it| it.as_realm().ok()).expect("REALM");
            let nonce = response.get::<Nonce>().and_then(|it| it.as_nonce().ok()).expect("NONCE");
            self.challenge = Some((realm.clone(), nonce.clone()));
        }
        panic!("{method:?}: one challenge after the other");
    }

    /// Sends a request until its response comes.
    fn exchange(&mut self, request: &StunMessage) -> StunMessage {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.transmit(request);
            let next = Instant::now() + RETRANSMIT;
            while let Some((datagram, from)) = self.datagram(next) {
                match self.take(&datagram, from) {
                    Some(message) if message.transaction_id() == request.transaction_id() => return message,
                    _ => {}
                }
            }
        }
        panic!("no response from {} within {PATIENCE:?}: {request:?}", self.server);
    }

    fn transmit(&self, message: &StunMessage) {
        let mut buffer = [0; 2048];
        let length = MessageEncoderBuilder::default().build().encode(&mut buffer, message).expect("encoding");
        self.socket.send_to(&buffer[..length], self.server).expect("sending to the server");
    }

    fn receive(&mut self, limit: Duration) -> Value {
        let deadline = Instant::now() + limit;
        while self.arrived.is_empty() {
            let Some((datagram, from)) = self.datagram(deadline) else { return json!({}) };
            self.take(&datagram, from);
        }
        self.arrived.pop_front().unwrap_or_default()
    }

    /// Keeps a datagram with data in it; returns one with any other message.
    fn take(&mut self, datagram: &[u8], from: SocketAddr) -> Option<StunMessage> {
        let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
        if from != self.server {
            self.arrived.push_back(json!({"relayed": false, "from": from, "data": text(datagram)}));
            return None;
        }
        let (message, _) = MessageDecoderBuilder::default().build().decode(datagram).expect("a STUN message");
        if message.method() != DATA {
            return Some(message);
        }
        let peer = message.get::<XorPeerAddress>().and_then(|it| it.as_xor_peer_address().ok());
        let data = message.get::<Data>().and_then(|it| it.as_data().ok());
        let (peer, data) = (peer.expect("XOR-PEER-ADDRESS"), data.expect("DATA"));
        self.arrived.push_back(json!({"relayed": true, "from": peer.socket_address(), "data": text(data.as_bytes())}));
        None
    }

    /// The next datagram before `deadline`.
    fn datagram(&self, deadline: Instant) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 2048];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    buffer.truncate(length);
                    return Some((buffer, from));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // An ICMP error about something sent before.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("receiving: {error}"),
            }
        }
    }
}
