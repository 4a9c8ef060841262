//! The clients' side: many UDP clients on one socket, or one TCP connection per client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};
use turnserver::stun::frame::{self, Frame};

use crate::job::Job;
use crate::system::{self, DatagramOptions, Poll, Receiver, Sender};

/// Bytes that a TCP client keeps for a server that does not read; what does not fit is lost.
const OUTBOX: usize = 256 << 10;

/// The clients of one server.
pub(crate) enum Clients {
    Udp(Box<UdpClients>),
    Tcp(TcpClients),
}

pub(crate) struct UdpClients {
    socket: UdpSocket,
    prefix: [u8; 2],
    server: SocketAddrV4,
    sender: Sender,
    receiver: Receiver,
}

pub(crate) struct TcpClients {
    poll: Poll,
    connections: Vec<Connection>,
    ready: Vec<usize>,
    buffer: Vec<u8>,
    refused: u64,
}

struct Connection {
    stream: TcpStream,
    /// The start of a frame whose end has not come.
    inbox: Vec<u8>,
    /// What could not be sent yet.
    outbox: Vec<u8>,
}

impl Clients {
    /// UDP clients, any number.
    pub(crate) fn udp(job: &Job, options: DatagramOptions) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        system::set_options(&socket, options)?;
        let (sender, receiver) = (Sender::new(), Receiver::new(options.gro));
        Ok(Self::Udp(Box::new(UdpClients { socket, prefix: job.clients, server: job.server, sender, receiver })))
    }

    /// `count` TCP connections.
    pub(crate) fn tcp(job: &Job, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(count);
        for client in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let local = SocketAddrV4::new(address(job.clients, client), 0);
            socket.bind(&SocketAddr::from(local).into())?;
            socket.connect(&SocketAddr::from(job.server).into())?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, client)?;
            connections.push(Connection { stream, inbox: Vec::new(), outbox: Vec::new() });
        }
        Ok(Self::Tcp(TcpClients { poll, connections, ready: Vec::new(), buffer: vec![0; 64 << 10], refused: 0 }))
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Sends one STUN message.
    pub(crate) fn send(&mut self, client: usize, message: &[u8]) {
        self.send_with(client, None, |buffer| buffer.extend_from_slice(message));
    }

    /// Sends what `fill` appends to a buffer: over UDP one datagram, or a train of datagrams of `segment` bytes.
    pub(crate) fn send_with(&mut self, client: usize, segment: Option<u16>, fill: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Udp(udp) => {
                fill(udp.sender.buffer());
                udp.sender.commit(udp.server, Some(address(udp.prefix, client)), segment);
                if udp.sender.is_full() {
                    udp.sender.flush(&udp.socket);
                }
            }
            Self::Tcp(tcp) => {
                let connection = &mut tcp.connections[client];
                if connection.outbox.len() > OUTBOX {
                    tcp.refused += 1;
                } else {
                    fill(&mut connection.outbox);
                }
                connection.flush();
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Self::Udp(udp) = self {
            udp.sender.flush(&udp.socket);
        }
    }

    /// Takes what is there and shows each message with its client and its time of arrival; returns how many there were.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8], u64)) -> usize {
        match self {
            Self::Udp(udp) => {
                let (prefix, server) = (udp.prefix, udp.server);
                udp.receiver.receive(&udp.socket, |datagram| {
                    if let Some(client) = client(prefix, datagram.local)
                        && datagram.source == server
                    {
                        each(client, datagram.bytes, datagram.stamp);
                    }
                })
            }
            Self::Tcp(tcp) => tcp.receive(each),
        }
    }

    /// Datagrams that this end dropped or could not send.
    pub(crate) fn faults(&self) -> u64 {
        match self {
            Self::Udp(udp) => u64::from(system::dropped(&udp.socket)) + udp.sender.refused(),
            Self::Tcp(_) => 0,
        }
    }
}

impl TcpClients {
    fn receive(&mut self, mut each: impl FnMut(usize, &[u8], u64)) -> usize {
        self.ready.clear();
        self.ready.extend(self.poll.ready());
        let mut messages = 0;
        for &client in &self.ready {
            let connection = &mut self.connections[client];
            connection.flush();
            let Ok(length) = connection.stream.read(&mut self.buffer) else { continue };
            let fresh = &self.buffer[..length];
            if connection.inbox.is_empty() {
                let used = frames(fresh, |message| {
                    messages += 1;
                    each(client, message, 0);
                });
                connection.inbox.extend_from_slice(&fresh[used..]);
            } else {
                connection.inbox.extend_from_slice(fresh);
                let used = frames(&connection.inbox, |message| {
                    messages += 1;
                    each(client, message, 0);
                });
                connection.inbox.drain(..used);
            }
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

/// The address of a client.
fn address(prefix: [u8; 2], client: usize) -> Ipv4Addr {
    let [high, low] = (client as u16 + 1).to_be_bytes();
    Ipv4Addr::new(prefix[0], prefix[1], high, low)
}

/// The client with an address.
fn client(prefix: [u8; 2], address: Ipv4Addr) -> Option<usize> {
    let [first, second, high, low] = address.octets();
    let number = usize::from(u16::from_be_bytes([high, low]));
    if [first, second] == prefix { number.checked_sub(1) } else { None }
}
