//! Servers and what stands around them: configurations, authenticated clients, peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};

use crate::client::{Client, PATIENCE};
pub(crate) use crate::common::Server;
use crate::common::ports::peer_socket;
use crate::wire::{
    ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, LIFETIME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Msg, NONCE,
    PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, REALM, REFRESH, Reply, SUCCESS, USERNAME, XOR_RELAYED_ADDRESS, allocate,
    md5, send, sha256,
};

pub(crate) const REALM_NAME: &str = "example.org";
/// USERNAME, password.
pub(crate) const ALICE: (&str, &str) = ("alice", "secret");
/// Another account.
pub(crate) const BOB: (&str, &str) = ("bob", "another secret");

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Serves clients and peers on this host: IPv4 and IPv6, UDP, TCP, TLS and DTLS, without rate limits.
const BASE: &str = r#"
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["udp", "tcp"]
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["tls", "dtls"]
[tls]
cert = "cert.pem"
pkey = "cert.key"
[relay]
relay-ip = ["127.0.0.1", "::1"]
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[[auth.user]]
name = "bob"
password = "another secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8", "::1"]
[limits]
unauthorized-rate = 0
binding-rate = 0
[process]
workers = 2
"#;

/// Whether the servers run on the portable path, which knows payloads and addresses only: no ICMP errors, no DF, no local
/// address of a wildcard listener.
pub(crate) fn portable() -> bool {
    std::env::var("TURNSERVER_TEST_UDP_IO").is_ok_and(|udp_io| udp_io == "portable")
}

/// Starts a server; each setting is `("table.key", "TOML value")`, and an empty value takes the key away.
pub(crate) fn server(settings: &[(&str, &str)]) -> Server {
    let mut table: toml::Table = BASE.parse().unwrap();
    if let Ok(udp_io) = std::env::var("TURNSERVER_TEST_UDP_IO") {
        set(&mut table, "process.udp-io", udp_io.into());
    }
    for (path, value) in settings {
        if value.is_empty() {
            let (room, key) = path.split_once('.').expect("table.key");
            table[room].as_table_mut().expect("a table").remove(key);
            continue;
        }
        let parsed: toml::Table = format!("value = {value}").parse().expect("a TOML value");
        set(&mut table, path, parsed["value"].clone());
    }
    Server::start(&toml::to_string(&table).unwrap())
}

fn set(table: &mut toml::Table, path: &str, value: toml::Value) {
    let (room, key) = path.split_once('.').expect("table.key");
    let entry = table.entry(room).or_insert_with(|| toml::Table::new().into());
    let target = match entry {
        toml::Value::Array(tables) => tables[0].as_table_mut(),
        other => other.as_table_mut(),
    };
    target.expect("a table").insert(key.to_owned(), value);
}

/// How a client makes its key and signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// RFC 5389: MD5 key, MESSAGE-INTEGRITY, no password algorithms.
    Legacy,
    /// PASSWORD-ALGORITHM MD5, MESSAGE-INTEGRITY-SHA256.
    Md5,
    /// PASSWORD-ALGORITHM SHA-256, MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

/// A client with credentials and a nonce.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) scheme: Scheme,
    pub(crate) nonce: Vec<u8>,
    pub(crate) algorithms: Vec<u8>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    /// alice over UDP and IPv4.
    pub(crate) fn udp(server: &Server) -> Self {
        Self::over(Client::udp(server.ipv4("udp")), ALICE)
    }

    /// alice over TCP and IPv4.
    pub(crate) fn tcp(server: &Server) -> Self {
        Self::over(Client::tcp(server.ipv4("tcp")), ALICE)
    }

    /// alice over TLS and IPv4.
    pub(crate) fn tls(server: &Server) -> Self {
        Self::over(Client::tls(server, server.ipv4("tls")), ALICE)
    }

    /// alice over DTLS and IPv4.
    pub(crate) fn dtls(server: &Server) -> Self {
        Self::over(Client::dtls(server, server.ipv4("dtls")), ALICE)
    }

    /// All four.
    pub(crate) fn each(server: &Server) -> [Self; 4] {
        [Self::udp(server), Self::tcp(server), Self::tls(server), Self::dtls(server)]
    }

    /// bob over UDP and IPv4.
    pub(crate) fn bob(server: &Server) -> Self {
        Self::over(Client::udp(server.ipv4("udp")), BOB)
    }

    /// Draws a nonce.
    pub(crate) fn over(client: Client, account: (&str, &str)) -> Self {
        let (user, password) = (account.0.to_owned(), account.1.to_owned());
        let mut session =
            Self { client, user, password, scheme: Scheme::Legacy, nonce: Vec::new(), algorithms: Vec::new() };
        session.draw_nonce();
        session
    }

    pub(crate) fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Gets a nonce by an Allocate without credentials.
    pub(crate) fn draw_nonce(&mut self) {
        let challenge = self.client.request(&allocate());
        assert_eq!(challenge.error(), Some(401));
        self.take_challenge(&challenge);
    }

    /// Takes the nonce of a 401 or 438.
    pub(crate) fn take_challenge(&mut self, challenge: &Reply) {
        assert_eq!(challenge.get(REALM), Some(REALM_NAME.as_bytes()));
        self.nonce = challenge.get(NONCE).expect("NONCE").to_vec();
        self.algorithms = challenge.get(PASSWORD_ALGORITHMS).expect("PASSWORD-ALGORITHMS").to_vec();
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        let text = format!("{}:{REALM_NAME}:{}", self.user, self.password);
        if self.scheme == Scheme::Sha256 { sha256(&text) } else { md5(&text) }
    }

    /// Adds USERNAME, REALM, NONCE and, if the scheme has them, the password algorithms.
    pub(crate) fn identify(&self, message: Msg) -> Msg {
        let message =
            message.attr(USERNAME, self.user.as_bytes()).attr(REALM, REALM_NAME.as_bytes()).attr(NONCE, &self.nonce);
        let algorithm = match self.scheme {
            Scheme::Legacy => return message,
            Scheme::Md5 => [0, 1, 0, 0],
            Scheme::Sha256 => [0, 2, 0, 0],
        };
        message.attr(PASSWORD_ALGORITHMS, &self.algorithms).attr(PASSWORD_ALGORITHM, &algorithm)
    }

    /// Adds all that authenticates a request.
    pub(crate) fn sign(&self, message: Msg) -> Msg {
        let message = self.identify(message);
        match self.scheme {
            Scheme::Legacy => message.mi(&self.key()),
            Scheme::Md5 | Scheme::Sha256 => message.mi256(&self.key()),
        }
    }

    /// Signs and sends a request, and checks the signature of its response, which names no user, realm or nonce.
    pub(crate) fn call(&mut self, message: Msg) -> Reply {
        let request = self.sign(message);
        self.call_signed(&request)
    }

    /// The same for a request that is signed already.
    pub(crate) fn call_signed(&mut self, request: &Msg) -> Reply {
        let reply = self.client.request(request);
        assert!(self.has_signed(&reply), "the response is not signed as it should be: {reply:02x?}");
        reply
    }

    /// Whether the server has signed this response for this client.
    pub(crate) fn has_signed(&self, reply: &Reply) -> bool {
        let kind = if self.scheme == Scheme::Legacy { MESSAGE_INTEGRITY } else { MESSAGE_INTEGRITY_SHA256 };
        reply.is_signed(kind, &self.key())
    }

    /// Calls and expects success.
    pub(crate) fn succeed(&mut self, message: Msg) -> Reply {
        let reply = self.call(message);
        assert_eq!(reply.error(), None, "{reply:02x?}");
        assert_eq!(reply.kind & SUCCESS, SUCCESS);
        reply
    }

    /// Calls and expects this error.
    pub(crate) fn fail(&mut self, message: Msg, error: u16) -> Reply {
        let reply = self.call(message);
        assert_eq!(reply.error(), Some(error), "{reply:02x?}");
        reply
    }

    /// Allocates and returns the relayed address.
    pub(crate) fn allocate(&mut self) -> SocketAddr {
        self.allocate_with(allocate())
    }

    pub(crate) fn allocate_with(&mut self, request: Msg) -> SocketAddr {
        self.succeed(request).xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS")
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        self.succeed(Msg::new(CREATE_PERMISSION).peer(peer));
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) {
        self.succeed(Msg::new(CHANNEL_BIND).channel(number).peer(peer));
    }

    pub(crate) fn delete(&mut self) {
        self.succeed(Msg::new(REFRESH).u32(LIFETIME, 0));
    }

    /// Sends data to a peer in a Send indication.
    pub(crate) fn send_to(&mut self, peer: SocketAddr, data: &[u8]) {
        self.client.send(&send(peer, data).0);
    }

    /// Sends bytes after which no datagram may reach the peer: the next one to reach it comes from `self` for a fence.
    /// There must be a permission for the peer.
    pub(crate) fn relays_nothing(&mut self, peer: &Peer, bytes: &[u8]) {
        self.client.send(bytes);
        self.send_to(peer.address, b"fence");
        assert_eq!(peer.receive().0, b"fence", "relayed: {bytes:02x?}");
    }

    /// Whether data passes both ways.
    pub(crate) fn round_trip(&mut self, peer: &Peer, relayed: SocketAddr) {
        self.send_to(peer.address, b"there");
        assert_eq!(peer.receive(), (b"there".to_vec(), relayed));
        peer.send(b"and back", relayed);
        assert_eq!(self.client.data(), (peer.address, b"and back".to_vec()));
    }
}

impl Session {
    /// Whether data pass both ways, with ICMP errors about other peers in between.
    pub(crate) fn round_trip_ignoring_icmp(&mut self, peer: &Peer, relayed: SocketAddr) {
        self.send_to(peer.address, b"there");
        assert_eq!(peer.receive(), (b"there".to_vec(), relayed));
        peer.send(b"and back", relayed);
        while self.client.data_indication().get(crate::wire::DATA) != Some(b"and back") {}
    }
}

/// A client with an allocation, and a peer that it may reach.
pub(crate) fn connected(mut session: Session) -> (Session, Peer, SocketAddr) {
    let relayed = session.allocate();
    let peer = Peer::new(V4);
    session.permit(peer.address);
    (session, peer, relayed)
}

/// A peer on loopback.
pub(crate) struct Peer {
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn new(ip: IpAddr) -> Self {
        Self::with(peer_socket(ip))
    }

    pub(crate) fn on(address: SocketAddr) -> Self {
        Self::with(UdpSocket::bind(address).expect("a UDP socket"))
    }

    fn with(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// The next datagram and where it comes from.
    pub(crate) fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 70_000];
        let (length, from) = self.socket.recv_from(&mut buffer).expect("a datagram at the peer");
        buffer.truncate(length);
        (buffer, from)
    }

    pub(crate) fn send(&self, data: &[u8], to: SocketAddr) {
        self.socket.send_to(data, to).expect("sending from the peer");
    }
}

/// A port on loopback that nothing listens on.
pub(crate) fn closed_port(ip: IpAddr) -> SocketAddr {
    Peer::new(ip).address
}

/// The type of a message that draws a challenge.
pub(crate) const AUTHENTICATED: [u16; 4] = [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND];
