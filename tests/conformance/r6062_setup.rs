//! What the tests of RFC 6062 share: clients with TCP allocations, client data connections, peers.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Client, Event, PATIENCE};
use crate::common::ports::peer_listener;
use crate::setup::{ALICE, Server, Session, V4, server};
use crate::wire::{
    CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND, CONNECTION_ID, INDICATION, Msg, Reply, XOR_PEER_ADDRESS, allocate_tcp,
};

/// A server that relays TCP, with these settings besides.
pub(crate) fn tcp_server(settings: &[(&str, &str)]) -> Server {
    server(&[&[("relay.tcp-relaying", "true")], settings].concat())
}

/// A client with a TCP allocation, and its relayed address.
pub(crate) fn allocated(server: &Server) -> (Session, SocketAddr) {
    let mut session = Session::tcp(server);
    let relayed = session.allocate_with(allocate_tcp());
    (session, relayed)
}

pub(crate) fn connect_to(peer: SocketAddr) -> Msg {
    Msg::new(CONNECT).peer(peer)
}

pub(crate) fn bind_to(id: u32) -> Msg {
    Msg::new(CONNECTION_BIND).u32(CONNECTION_ID, id)
}

/// The CONNECTION-ID of a message.
pub(crate) fn connection_id(reply: &Reply) -> u32 {
    u32::from_be_bytes(reply.get(CONNECTION_ID).expect("CONNECTION-ID").try_into().expect("4 bytes"))
}

/// Connects to a peer; the connection's id.
pub(crate) fn connect(session: &mut Session, peer: SocketAddr) -> u32 {
    connection_id(&session.succeed(connect_to(peer)))
}

/// The next ConnectionAttempt indication: the peer and the connection's id.
pub(crate) fn attempt(session: &mut Session) -> (SocketAddr, u32) {
    match session.client.event() {
        Event::Stun(reply) if reply.kind == CONNECTION_ATTEMPT | INDICATION => {
            (reply.xor(XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS"), connection_id(&reply))
        }
        event => panic!("no ConnectionAttempt: {event:02x?}"),
    }
}

/// A connection of bytes, from either side.
pub(crate) struct Bytes {
    pub(crate) stream: TcpStream,
    /// What has come in already.
    early: Vec<u8>,
}

impl From<TcpStream> for Bytes {
    fn from(stream: TcpStream) -> Self {
        Self::new(stream, Vec::new())
    }
}

impl Bytes {
    pub(crate) fn new(stream: TcpStream, early: Vec<u8>) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, early }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("writing");
    }

    /// The next so many bytes.
    pub(crate) fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let early = self.early.len().min(length);
        bytes[..early].copy_from_slice(&self.early[..early]);
        self.early.drain(..early);
        self.stream.read_exact(&mut bytes[early..]).expect("reading");
        bytes
    }

    /// No more is written from this side.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Expects the other side's end, without a reset and without anything before it.
    pub(crate) fn expect_end(&mut self) {
        assert!(self.early.is_empty());
        assert_eq!(self.stream.read(&mut [0; 16]).expect("an end"), 0);
    }

    /// Expects the end of the connection, be it orderly or not, and nothing before it.
    pub(crate) fn expect_close(&mut self) {
        assert!(self.early.is_empty());
        match self.stream.read(&mut [0; 16]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Whether bytes pass both ways.
    pub(crate) fn echo_with(&mut self, other: &mut Self) {
        self.send(b"there");
        assert_eq!(other.receive(5), b"there");
        other.send(b"and back");
        assert_eq!(self.receive(8), b"and back");
    }
}

/// Opens a client data connection for alice.
pub(crate) fn bind(server: &Server, id: u32) -> Bytes {
    bind_session(Session::tcp(server), id)
}

pub(crate) fn bind_session(mut session: Session, id: u32) -> Bytes {
    session.succeed(bind_to(id));
    let (stream, early) = session.client.into_stream();
    Bytes::new(stream, early)
}

/// A peer that listens.
pub(crate) struct Listener {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) fn new() -> Self {
        Self::at(V4)
    }

    pub(crate) fn at(ip: IpAddr) -> Self {
        Self::with(peer_listener(ip))
    }

    pub(crate) fn on(address: SocketAddr) -> Self {
        Self::with(TcpListener::bind(address).expect("listening"))
    }

    fn with(socket: TcpListener) -> Self {
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// The next connection and where it comes from.
    pub(crate) fn accept(&self) -> (Bytes, SocketAddr) {
        self.socket.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(false).unwrap();
                    return (stream.into(), from);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nobody connects");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("accepting: {error}"),
            }
        }
    }
}

/// A client's and a peer's end of a relayed connection that the client has asked for.
pub(crate) fn connected(server: &Server, session: &mut Session) -> (Bytes, Bytes) {
    let listener = Listener::new();
    let id = connect(session, listener.address);
    let (peer, _) = listener.accept();
    (bind(server, id), peer)
}

/// A peer that answers no connection: its queue of new connections is full.
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((V4, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // The system takes the first ones, until it has noticed that nobody accepts them.
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// alice on a connection with these properties.
pub(crate) fn session_on(server: &Server, prepare: impl Fn(&Socket)) -> Session {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    prepare(&socket);
    socket.connect(&server.ipv4("tcp").into()).unwrap();
    Session::over(Client::of_stream(socket.into()), ALICE)
}
