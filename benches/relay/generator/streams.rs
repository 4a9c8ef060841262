//! Clients over connections: each has one, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use turnserver::stun::frame::{self, Frame};

use super::tls::{Session, Tls};
use crate::system::Poll;

/// Bytes that a client keeps for a server that does not read; what comes to it beyond them is lost.
const OUTBOX: usize = 256 << 10;

/// How long a server may take to connect, and for each step of a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// All clients' connections with one server.
pub(crate) struct StreamClients {
    poll: Poll,
    connections: Vec<Connection>,
    ready: Vec<usize>,
    buffer: Vec<u8>,
    /// What a client writes at once, before it is encrypted.
    plain: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Session>,
    /// The start of a frame whose end has not come.
    inbox: Vec<u8>,
    /// What could not be sent yet.
    outbox: Vec<u8>,
}

impl StreamClients {
    /// Connects from each of `clients`, one after the other.
    pub(crate) fn connect(
        server: SocketAddrV4,
        clients: impl Iterator<Item = Ipv4Addr>,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for (number, address) in clients.enumerate() {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((address, 0)).into())?;
            socket.connect_timeout(&SocketAddr::from(server).into(), PATIENCE)?;
            let mut stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let tls = tls.map(|tls| tls.handshake(&mut stream)).transpose()?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, number)?;
            connections.push(Connection { stream, tls, inbox: Vec::new(), outbox: Vec::new() });
        }
        Ok(Self { poll, connections, ready: Vec::new(), buffer: vec![0; 64 << 10], plain: Vec::new() })
    }

    /// Version and cipher suite of the first.
    pub(crate) fn security(&self) -> Option<String> {
        self.connections.first()?.tls.as_ref().map(Session::name)
    }

    /// Writes what `fill` appends to a buffer. It counts as sent even if the server is so far behind that it is dropped here.
    pub(crate) fn send(&mut self, client: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let connection = &mut self.connections[client];
        self.plain.clear();
        fill(&mut self.plain);
        if connection.outbox.len() <= OUTBOX {
            match &mut connection.tls {
                Some(session) => session.seal(&self.plain, &mut connection.outbox),
                None => connection.outbox.extend_from_slice(&self.plain),
            }
        }
        connection.flush();
    }

    /// Reads once from every connection that has something, and shows each message with its client; returns how many.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8], u64)) -> usize {
        self.ready.clear();
        self.ready.extend(self.poll.ready());
        let mut messages = 0;
        for &client in &self.ready {
            let connection = &mut self.connections[client];
            connection.flush();
            let Ok(length) = connection.stream.read(&mut self.buffer) else { continue };
            let fresh = &self.buffer[..length];
            let Connection { tls, inbox, .. } = connection;
            let mut show = |message: &[u8]| {
                messages += 1;
                each(client, message, 0);
            };
            if let Some(session) = tls {
                session.open(fresh, inbox);
            } else if inbox.is_empty() {
                let used = frames(fresh, show);
                inbox.extend_from_slice(&fresh[used..]);
                continue;
            } else {
                inbox.extend_from_slice(fresh);
            }
            let used = frames(inbox, &mut show);
            inbox.drain(..used);
        }
        messages
    }
}

impl Connection {
    fn flush(&mut self) {
        if !self.outbox.is_empty()
            && let Ok(sent) = self.stream.write(&self.outbox)
        {
            self.outbox.drain(..sent);
        }
    }
}

/// Shows the whole frames at the front of a stream; returns how many bytes they take.
fn frames(stream: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    while let Frame::Stun(length) | Frame::ChannelData(length) = frame::front(&stream[used..], true) {
        each(&stream[used..used + length]);
        used += length;
    }
    used
}
