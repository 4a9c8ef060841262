//! A small TURN client on the library's own codec, over UDP or DTLS, or one connection with TCP or TLS.
//!
//! It does what a test of the process needs (Binding, Allocate, permissions, data, deletion) and answers a challenge by
//! itself. That the codec is right is shown elsewhere, against other implementations.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use openssl::ssl::{ErrorCode, SslStream};
use rustls::{ClientConnection, StreamOwned};
use turnserver::stun::frame::{Frame, front};
use turnserver::stun::{
    AttributeType, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId,
};

/// How long a request waits for its answer, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long before a request over UDP is sent again.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// The error code of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u16);

enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
    Tls(Box<TlsStream>, Vec<u8>),
    Dtls(Box<DtlsStream>),
}

/// TLS after its handshake.
type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// DTLS after its handshake.
type DtlsStream = SslStream<crate::common::dtls::Socket>;

/// A client with at most one allocation.
pub(crate) struct Client {
    connection: Connection,
    credentials: Option<(String, String)>,
    /// Realm and nonce, as the server has last told them.
    challenge: Option<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    /// A client of `server` over `udp` or `tcp`. Without credentials, a challenge is a refusal.
    pub(crate) fn new(transport: &str, server: SocketAddr, credentials: Option<(&str, &str)>) -> Self {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let connection = match transport {
            "udp" => {
                let socket = UdpSocket::bind((any, 0)).expect("a socket");
                socket.connect(server).expect("connecting a socket");
                Connection::Udp(socket)
            }
            "tcp" => {
                let stream = TcpStream::connect_timeout(&server, PATIENCE).expect("a connection");
                Connection::Tcp(stream, Vec::new())
            }
            other => panic!("no transport {other}"),
        };
        Self::of(connection, credentials)
    }

    /// The same over a connection that is there already.
    pub(crate) fn over_tcp(stream: TcpStream, credentials: Option<(&str, &str)>) -> Self {
        Self::of(Connection::Tcp(stream, Vec::new()), credentials)
    }

    /// The same over TLS.
    pub(crate) fn over_tls(stream: TlsStream, credentials: Option<(&str, &str)>) -> Self {
        Self::of(Connection::Tls(Box::new(stream), Vec::new()), credentials)
    }

    /// The same over DTLS.
    pub(crate) fn over_dtls(stream: DtlsStream, credentials: Option<(&str, &str)>) -> Self {
        Self::of(Connection::Dtls(Box::new(stream)), credentials)
    }

    fn of(connection: Connection, credentials: Option<(&str, &str)>) -> Self {
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Self { connection, credentials, challenge: None }
    }

    /// The client's own address.
    pub(crate) fn local(&self) -> SocketAddr {
        match &self.connection {
            Connection::Udp(socket) => socket.local_addr(),
            Connection::Tcp(stream, _) => stream.local_addr(),
            Connection::Tls(stream, _) => stream.sock.local_addr(),
            Connection::Dtls(stream) => stream.get_ref().socket.local_addr(),
        }
        .expect("the local address")
    }

    /// The address that the server sees this client under.
    pub(crate) fn binding(&mut self) -> SocketAddr {
        let response = self.exchange(Method::Binding, false, &|_| {}).expect("a Binding answer");
        address(&response, AttributeType::XOR_MAPPED_ADDRESS)
    }

    /// Allocates an address of the family that the server decides; returns it.
    pub(crate) fn allocate(&mut self) -> Result<SocketAddr, Refused> {
        self.allocate_with(&|_| {})
    }

    /// Allocates with more attributes.
    pub(crate) fn allocate_with(&mut self, more: &dyn Fn(&mut MessageWriter<'_>)) -> Result<SocketAddr, Refused> {
        const UDP: u32 = 17 << 24;
        let response = self.request(Method::Allocate, &|writer| {
            writer.u32(AttributeType::REQUESTED_TRANSPORT, UDP);
            more(writer);
        })?;
        Ok(address(&response, AttributeType::XOR_RELAYED_ADDRESS))
    }

    /// An Allocate without credentials.
    pub(crate) fn knock(&mut self) -> Result<(), Refused> {
        self.exchange(Method::Allocate, false, &|_| {}).map(|_| ())
    }

    /// Says goodbye, over DTLS.
    pub(crate) fn shut_down(&mut self) {
        let Connection::Dtls(stream) = &mut self.connection else { panic!("no client of DTLS") };
        stream.shutdown().expect("close_notify");
    }

    /// Ends the allocation.
    pub(crate) fn delete(&mut self) -> Result<(), Refused> {
        self.request(Method::Refresh, &|writer| {
            writer.u32(AttributeType::LIFETIME, 0);
        })
        .map(|_| ())
    }

    /// Installs a permission.
    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        self.request(Method::CreatePermission, &|writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })
        .map(|_| ())
    }

    /// Goes on with another password.
    pub(crate) fn set_password(&mut self, password: &str) {
        if let Some((_, old)) = &mut self.credentials {
            password.clone_into(old);
        }
    }

    /// Goes on as another user.
    pub(crate) fn set_user(&mut self, user: &str) {
        if let Some((old, _)) = &mut self.credentials {
            user.clone_into(old);
        }
    }

    /// Allocates an address for TCP (RFC 6062).
    pub(crate) fn allocate_tcp(&mut self) -> Result<SocketAddr, Refused> {
        const TCP: u32 = 6 << 24;
        let response = self.request(Method::Allocate, &|writer| {
            writer.u32(AttributeType::REQUESTED_TRANSPORT, TCP);
        })?;
        Ok(address(&response, AttributeType::XOR_RELAYED_ADDRESS))
    }

    /// Has the server connect to a peer (RFC 6062).
    pub(crate) fn connect(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        self.request(Method::Connect, &|writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })
        .map(|_| ())
    }

    /// Binds a channel.
    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), Refused> {
        self.request(Method::ChannelBind, &|writer| {
            writer.u32(AttributeType::CHANNEL_NUMBER, u32::from(channel) << 16);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })
        .map(|_| ())
    }

    /// Sends data to a peer.
    pub(crate) fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let message = write(Method::Send, Class::Indication, &|writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).attribute(AttributeType::DATA, data);
        });
        self.transmit(&message);
    }

    /// The next data from a peer.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(bytes) = self.next(deadline) {
            let message = Message::parse(&bytes).expect("a STUN message");
            if let Some(data) = message.get(AttributeType::DATA) {
                return data.to_vec();
            }
        }
        panic!("no data within {PATIENCE:?}");
    }

    /// Sends a request with credentials; answers a challenge (401, 438).
    fn request(&mut self, method: Method, attributes: &dyn Fn(&mut MessageWriter<'_>)) -> Result<Vec<u8>, Refused> {
        let mut challenged = 0;
        loop {
            match self.exchange(method, true, attributes) {
                Err(Refused(401 | 438)) if self.credentials.is_some() && challenged < 2 => challenged += 1,
                result => return result,
            }
        }
    }

    /// Sends a request until its response comes.
    fn exchange(
        &mut self,
        method: Method,
        authenticated: bool,
        attributes: &dyn Fn(&mut MessageWriter<'_>),
    ) -> Result<Vec<u8>, Refused> {
        let request = write(method, Class::Request, &|writer| {
            attributes(writer);
            if let (true, Some((realm, nonce)), Some((user, password))) =
                (authenticated, &self.challenge, &self.credentials)
            {
                let key = [user.as_bytes(), realm, password.as_bytes()].join(&b':');
                writer
                    .attribute(AttributeType::USERNAME, user.as_bytes())
                    .attribute(AttributeType::REALM, realm)
                    .attribute(AttributeType::NONCE, nonce)
                    .integrity(&IntegrityKey::new(MacAlgorithm::Sha1, &Md5::digest(key)));
            }
        });
        let wanted = Message::parse(&request).expect("our own message").transaction_id();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.transmit(&request);
            let again = match self.connection {
                Connection::Udp(_) | Connection::Dtls(_) => Instant::now() + RETRANSMIT,
                Connection::Tcp(..) | Connection::Tls(..) => deadline,
            };
            while let Some(bytes) = self.next(again) {
                let message = Message::parse(&bytes).expect("a STUN message");
                if message.transaction_id() != wanted {
                    continue;
                }
                if let (Some(realm), Some(nonce)) =
                    (message.get(AttributeType::REALM), message.get(AttributeType::NONCE))
                {
                    self.challenge = Some((realm.to_vec(), nonce.to_vec()));
                }
                return match message.get(AttributeType::ERROR_CODE) {
                    Some(&[_, _, class, number, ..]) => Err(Refused(u16::from(class) * 100 + u16::from(number))),
                    _ => Ok(bytes),
                };
            }
        }
        panic!("no answer to {method:?} within {PATIENCE:?}");
    }

    /// Sends bytes as they are.
    pub(crate) fn transmit(&mut self, message: &[u8]) {
        match &mut self.connection {
            // An ICMP error about something sent before is reported here, and is no reason to give up.
            Connection::Udp(socket) => drop(socket.send(message)),
            Connection::Tcp(stream, _) => stream.write_all(message).expect("writing to the server"),
            Connection::Tls(stream, _) => {
                stream.write_all(message).and_then(|()| stream.flush()).expect("writing to the server");
            }
            Connection::Dtls(stream) => assert!(stream.ssl_write(message).is_ok(), "writing to the server"),
        }
    }

    /// The next message before `deadline`.
    fn next(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        loop {
            if let Connection::Tcp(_, received) | Connection::Tls(_, received) = &mut self.connection
                && let Frame::Stun(length) = front(received, false)
            {
                return Some(received.drain(..length).collect());
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            let read = match &mut self.connection {
                Connection::Udp(socket) => {
                    socket.set_read_timeout(Some(left)).expect("a timeout");
                    socket.recv(&mut buffer)
                }
                Connection::Tcp(stream, _) => {
                    stream.set_read_timeout(Some(left)).expect("a timeout");
                    stream.read(&mut buffer)
                }
                Connection::Tls(stream, _) => {
                    stream.sock.set_read_timeout(Some(left)).expect("a timeout");
                    stream.read(&mut buffer)
                }
                Connection::Dtls(stream) => {
                    stream.get_ref().socket.set_read_timeout(Some(left)).expect("a timeout");
                    stream.ssl_read(&mut buffer).map_err(|error| match error.code() {
                        ErrorCode::WANT_READ => ErrorKind::WouldBlock.into(),
                        _ => std::io::Error::other(error),
                    })
                }
            };
            match (read, &mut self.connection) {
                (Ok(length), Connection::Udp(_) | Connection::Dtls(_)) => return Some(buffer[..length].to_vec()),
                (Ok(0), Connection::Tcp(..) | Connection::Tls(..)) => panic!("the server has closed the connection"),
                (Ok(length), Connection::Tcp(_, received) | Connection::Tls(_, received)) => {
                    received.extend_from_slice(&buffer[..length]);
                }
                (Err(error), _) if is_passing(error.kind()) => {}
                (Err(error), _) => panic!("receiving: {error}"),
            }
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused)
}

fn write(method: Method, class: Class, attributes: &dyn Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut transaction_id = [0; 12];
    transaction_id[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let mut buffer = vec![0; 2048];
    let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId(transaction_id));
    attributes(&mut writer);
    let length = writer.finish().expect("a message of less than 2 KB");
    buffer.truncate(length);
    buffer
}

fn address(message: &[u8], attribute: AttributeType) -> SocketAddr {
    let message = Message::parse(message).expect("a STUN message");
    message.get_xor_address(attribute).and_then(Result::ok).unwrap_or_else(|| panic!("no {attribute:?}"))
}
