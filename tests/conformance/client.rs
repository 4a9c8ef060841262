//! A client: one 5-tuple over UDP, TCP, TLS or DTLS, with what came in and was not asked for kept in order.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{Server, dtls, tls};
use crate::wire::{
    BINDING, DATA, DATA_METHOD, ERROR, ICMP, INDICATION, Msg, Reply, SUCCESS, TransactionId, XOR_PEER_ADDRESS,
};

/// How long anything may take that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// First wait before a request over UDP is sent again (RFC 8489 §6.2.1).
const RTO: Duration = Duration::from_millis(500);

/// Something that the server sent.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Stun(Reply),
    /// A channel's number and data.
    Channel(u16, Vec<u8>),
}

enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, received: Vec<u8> },
    Tls { stream: Box<tls::Stream>, received: Vec<u8> },
    Dtls(Box<dtls::Stream>),
}

pub(crate) struct Client {
    link: Link,
    pub(crate) local: SocketAddr,
    /// What came in while something else was awaited.
    waiting: VecDeque<Event>,
    /// Transactions that were answered; over UDP a late second answer may follow.
    answered: HashSet<TransactionId>,
}

impl Client {
    /// A client on loopback with a port of its own.
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let ip: IpAddr = if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        Self::udp_from((ip, 0).into(), server)
    }

    pub(crate) fn udp_from(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = fresh_socket(local);
        socket.connect(server).expect("connecting a UDP socket");
        Self::of_udp(socket)
    }

    /// A client on a socket that is connected to the server.
    pub(crate) fn of_udp(socket: UdpSocket) -> Self {
        let local = socket.local_addr().unwrap();
        Self { link: Link::Udp(socket), local, waiting: VecDeque::new(), answered: HashSet::new() }
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        Self::of_stream(TcpStream::connect_timeout(&server, PATIENCE).expect("connecting to the server"))
    }

    pub(crate) fn of_stream(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let local = stream.local_addr().unwrap();
        let link = Link::Tcp { stream, received: Vec::new() };
        Self { link, local, waiting: VecDeque::new(), answered: HashSet::new() }
    }

    /// A client over TLS.
    pub(crate) fn tls(server: &Server, address: SocketAddr) -> Self {
        Self::of_tls(tls::connect(tls::client(server.folder()), address))
    }

    pub(crate) fn of_tls(stream: tls::Stream) -> Self {
        let local = stream.sock.local_addr().unwrap();
        let link = Link::Tls { stream: Box::new(stream), received: Vec::new() };
        Self { link, local, waiting: VecDeque::new(), answered: HashSet::new() }
    }

    /// A client over DTLS.
    pub(crate) fn dtls(server: &Server, address: SocketAddr) -> Self {
        let local = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
        let socket = fresh_socket((local, 0).into());
        socket.connect(address).expect("connecting a UDP socket");
        let mut stream = dtls::prepare(server.folder(), socket);
        assert!(dtls::handshake(&mut stream, PATIENCE), "no handshake with the server");
        Self::of_dtls(stream)
    }

    pub(crate) fn of_dtls(stream: dtls::Stream) -> Self {
        let local = stream.get_ref().socket.local_addr().unwrap();
        Self { link: Link::Dtls(Box::new(stream)), local, waiting: VecDeque::new(), answered: HashSet::new() }
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.link, Link::Tcp { .. } | Link::Tls { .. })
    }

    /// The most data that a message to or from this client can carry: what fits in a datagram, or in a record of DTLS.
    pub(crate) fn longest_data(&self) -> usize {
        if matches!(self.link, Link::Dtls(_)) { 16_000 } else { 65_000 }
    }

    pub(crate) fn udp_socket(&self) -> &UdpSocket {
        let Link::Udp(socket) = &self.link else { panic!("a TCP client") };
        socket
    }

    /// The port that this client talks to.
    pub(crate) fn server_port(&self) -> u16 {
        match &self.link {
            Link::Udp(socket) => socket.peer_addr().unwrap().port(),
            Link::Tcp { stream, .. } => stream.peer_addr().unwrap().port(),
            Link::Tls { stream, .. } => stream.sock.peer_addr().unwrap().port(),
            Link::Dtls(stream) => stream.get_ref().socket.peer_addr().unwrap().port(),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        let Link::Tcp { stream, .. } = &self.link else { panic!("no TCP client") };
        stream
    }

    /// The stream, with what has come in after the last message that was taken.
    pub(crate) fn into_stream(self) -> (TcpStream, Vec<u8>) {
        assert!(self.waiting.is_empty(), "messages that nobody expected: {:02x?}", self.waiting);
        let Link::Tcp { stream, received } = self.link else { panic!("a UDP client") };
        (stream, received)
    }

    /// The same for a client of TLS.
    pub(crate) fn into_tls(self) -> (tls::Stream, Vec<u8>) {
        assert!(self.waiting.is_empty(), "messages that nobody expected: {:02x?}", self.waiting);
        let Link::Tls { stream, received } = self.link else { panic!("no client of TLS") };
        (*stream, received)
    }

    /// Sends bytes as they are: one datagram, or the next bytes of the stream.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => loop {
                // A connected socket reports what ICMP said about an earlier datagram; that is not about this one.
                match socket.send(bytes) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    result => break assert_eq!(result.expect("sending a datagram"), bytes.len()),
                }
            },
            Link::Tcp { stream, .. } => stream.write_all(bytes).expect("writing to the server"),
            Link::Tls { stream, .. } => tls::send(stream, bytes),
            Link::Dtls(stream) => dtls::send(stream, bytes),
        }
    }

    /// The next thing that the server sends; `None` if nothing comes in time. Panics if the server closes the stream.
    fn receive(&mut self, limit: Duration) -> Option<Event> {
        self.receive_or_end(limit).expect("the server closed the connection")
    }

    /// The same; `Err` when the server closes the stream.
    fn receive_or_end(&mut self, limit: Duration) -> Result<Option<Event>, ()> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 70_000];
        loop {
            if let Link::Tcp { received, .. } | Link::Tls { received, .. } = &mut self.link
                && let Some(event) = take_frame(received)
            {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let result = match &mut self.link {
                Link::Udp(socket) => {
                    socket.set_read_timeout(Some(left)).unwrap();
                    socket.recv(&mut buffer)
                }
                Link::Tcp { stream, .. } => {
                    stream.set_read_timeout(Some(left)).unwrap();
                    stream.read(&mut buffer)
                }
                Link::Tls { stream, .. } => {
                    stream.sock.set_read_timeout(Some(left)).unwrap();
                    stream.read(&mut buffer)
                }
                Link::Dtls(stream) => match dtls::receive(stream, &mut buffer, left) {
                    dtls::Received::Message(length) => Ok(length),
                    dtls::Received::Nothing => Err(ErrorKind::WouldBlock.into()),
                    dtls::Received::End => Err(ErrorKind::ConnectionReset.into()),
                },
            };
            match (result, &mut self.link) {
                (Ok(length), Link::Udp(_) | Link::Dtls(_)) => return Ok(Some(datagram(&buffer[..length]))),
                (Ok(0), Link::Tcp { .. } | Link::Tls { .. }) => return Err(()),
                (Ok(length), Link::Tcp { received, .. } | Link::Tls { received, .. }) => {
                    received.extend(&buffer[..length]);
                }
                (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                (Err(error), Link::Udp(_)) if error.kind() == ErrorKind::ConnectionRefused => {}
                (Err(error), _) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return Err(());
                }
                (Err(error), _) => panic!("receiving: {error}"),
            }
        }
    }

    /// Sends a request, again and again over UDP, and returns its response.
    pub(crate) fn request(&mut self, request: &Msg) -> Reply {
        self.try_request(request, PATIENCE).unwrap_or_else(|| panic!("no response to {:02x?}", request.0))
    }

    /// The same; `None` if none comes in time.
    pub(crate) fn try_request(&mut self, request: &Msg, limit: Duration) -> Option<Reply> {
        let deadline = Instant::now() + limit;
        let mut sent = false;
        while Instant::now() < deadline {
            if !sent || !self.is_stream() {
                self.send(&request.0);
                sent = true;
            }
            if let Some(reply) = self.response(request.id(), RTO.min(deadline - Instant::now())) {
                assert_eq!(
                    reply.kind & !ERROR,
                    u16::from_be_bytes([request.0[0], request.0[1]]),
                    "method of the response"
                );
                return Some(reply);
            }
        }
        None
    }

    /// The response to a transaction; everything else that comes in before it is kept.
    pub(crate) fn response(&mut self, id: TransactionId, limit: Duration) -> Option<Reply> {
        let deadline = Instant::now() + limit;
        while let Some(event) = self.receive(deadline.saturating_duration_since(Instant::now())) {
            match event {
                Event::Stun(reply) if reply.id == id => {
                    self.answered.insert(id);
                    return Some(reply);
                }
                Event::Stun(reply) if self.answered.contains(&reply.id) => {}
                event => self.waiting.push_back(event),
            }
        }
        None
    }

    /// Everything that the server sends up to its answer to a Binding request sent now: what it sends in response to
    /// anything sent before, since it answers one client in order.
    pub(crate) fn fence(&mut self) -> Vec<Event> {
        let request = Msg::new(BINDING);
        let reply = self.request(&request);
        assert_eq!(reply.kind, BINDING | SUCCESS);
        self.waiting.drain(..).collect()
    }

    /// Sends bytes that must draw no answer.
    pub(crate) fn silent(&mut self, bytes: &[u8]) {
        let before = self.fence();
        assert!(before.is_empty(), "not expected before the message that is to be ignored: {before:02x?}");
        self.send(bytes);
        let answers = self.fence();
        assert!(answers.is_empty(), "to be ignored: {bytes:02x?}\nanswered with {answers:02x?}");
    }

    /// The next thing that is no response.
    pub(crate) fn event(&mut self) -> Event {
        self.next_event(PATIENCE).expect("nothing comes from the server")
    }

    /// The same; `None` if nothing comes in time.
    pub(crate) fn next_event(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            match self.receive(deadline.saturating_duration_since(Instant::now()))? {
                Event::Stun(reply) if self.answered.contains(&reply.id) => {}
                event => return Some(event),
            }
        }
    }

    /// The next Data indication with data: the peer, and what it sent.
    pub(crate) fn data(&mut self) -> (SocketAddr, Vec<u8>) {
        let reply = self.data_indication();
        (reply.xor(XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS"), reply.get(DATA).expect("DATA").to_vec())
    }

    /// The next Data indication with an ICMP error: the peer, and the attribute's value.
    pub(crate) fn icmp(&mut self) -> (SocketAddr, Vec<u8>) {
        let reply = self.data_indication();
        assert!(!reply.has(DATA));
        (reply.xor(XOR_PEER_ADDRESS).expect("XOR-PEER-ADDRESS"), reply.get(ICMP).expect("ICMP").to_vec())
    }

    /// The next thing that is no response, which must be a Data indication.
    pub(crate) fn data_indication(&mut self) -> Reply {
        match self.event() {
            Event::Stun(reply) if reply.kind == DATA_METHOD | INDICATION => reply,
            event => panic!("no Data indication: {event:02x?}"),
        }
    }

    /// The next thing that is no response, which must be ChannelData.
    pub(crate) fn channel(&mut self) -> (u16, Vec<u8>) {
        match self.event() {
            Event::Channel(number, data) => (number, data),
            event => panic!("no ChannelData: {event:02x?}"),
        }
    }

    /// Reads until the server closes the stream. Panics when it does not.
    pub(crate) fn expect_close(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            match self.receive_or_end(deadline.saturating_duration_since(Instant::now())) {
                Err(()) => return,
                Ok(Some(_)) => {}
                Ok(None) => panic!("the server has not closed the connection within {limit:?}"),
            }
        }
    }
}

/// A socket with a port that no client had before, whose allocation might still be there.
fn fresh_socket(local: SocketAddr) -> UdpSocket {
    static USED: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let socket = UdpSocket::bind(local).expect("a UDP socket");
        if USED.lock().unwrap().insert(socket.local_addr().unwrap()) || local.port() != 0 {
            return socket;
        }
    }
}

/// Takes a datagram from the server for what it is.
fn datagram(bytes: &[u8]) -> Event {
    if bytes.first().is_some_and(|first| (64..=127).contains(first)) {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let padded = (4 + length).next_multiple_of(4);
        assert!(bytes.len() == 4 + length || bytes.len() == padded, "length field of ChannelData {bytes:02x?}");
        assert!(bytes[4 + length..].iter().all(|byte| *byte == 0), "padding of ChannelData {bytes:02x?}");
        return Event::Channel(u16::from_be_bytes([bytes[0], bytes[1]]), bytes[4..4 + length].to_vec());
    }
    Event::Stun(Reply::parse(bytes))
}

/// Takes the first whole message off a stream; padding of ChannelData must be there and zero (RFC 8656 §12.5).
fn take_frame(received: &mut Vec<u8>) -> Option<Event> {
    let [first, _, high, low] = *received.first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_channel = (64..=127).contains(&first);
    let total = if is_channel { (4 + length).next_multiple_of(4) } else { 20 + length };
    if received.len() < total {
        return None;
    }
    let frame: Vec<u8> = received.drain(..total).collect();
    Some(datagram(&frame))
}
