//! The border to the operating system: sockets, batches, readiness, limits.
//!
//! Everything that only Linux has is in `linux.rs` and `epoll.rs`; `portable.rs` does the same work with one portable call per
//! datagram and is compiled, and can be chosen, everywhere. Which of the two serves is decided once, at start ([`Io`]).
//! No protocol here: datagrams come in with their metadata and go out as they are told.

#[cfg(target_os = "linux")]
mod epoll;
#[cfg(target_os = "linux")]
mod linux;
mod portable;

use std::{
    io,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::settings::UdpIo,
    turn::{HEADROOM, IcmpError},
};

/// Datagrams, or merged runs of them, taken per call.
pub(super) const BATCH: usize = 32;
/// Longest UDP payload that any family can carry.
const MAX_DATAGRAM: usize = 65_535;
/// Bytes of a slot. Not a power of two, so that the first bytes of all slots do not compete for the same cache lines.
const SLOT_LEN: usize = MAX_DATAGRAM + 1 + 64;

/// How datagrams cross the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Io {
    /// recvmmsg, sendmmsg, epoll; DSCP/ECN, DF, ICMP errors, the local address of wildcard listeners.
    #[cfg(target_os = "linux")]
    Batched,
    /// One portable call per datagram, payloads and addresses only.
    Portable,
}

impl Io {
    /// The best of this system, unless the operator wants the portable way.
    pub(crate) const fn choose(wanted: UdpIo) -> Self {
        match wanted {
            #[cfg(target_os = "linux")]
            UdpIo::Auto => Self::Batched,
            #[cfg(not(target_os = "linux"))]
            UdpIo::Auto => Self::Portable,
            UdpIo::Portable => Self::Portable,
        }
    }

    /// Whether it can set the DF bit per datagram (RFC 8656 §14) and tell the local address of a wildcard listener.
    pub(crate) const fn is_full(self) -> bool {
        !matches!(self, Self::Portable)
    }

    /// For the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Batched => "batched",
            Self::Portable => "portable",
        }
    }
}

/// What a socket is for; decides its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Clients send here; several workers share the address.
    Listener,
    /// Peers send here; nobody shares it.
    Relay,
}

/// Opens and binds a UDP socket. Its options follow from its use and from `io`.
pub(crate) fn bind_udp(
    address: SocketAddr,
    usage: Use,
    io: Io,
    buffer: Option<usize>,
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, address, usage == Use::Listener)?;
    if let Some(bytes) = buffer {
        // The system caps what it grants; less than asked for is no reason not to serve.
        let _ = socket.set_recv_buffer_size(bytes);
        let _ = socket.set_send_buffer_size(bytes);
    }
    #[cfg(target_os = "linux")]
    if io == Io::Batched {
        linux::set_options(&socket, address, usage)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = io;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens, binds and starts a TCP listener that several workers share.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    prepare(&socket, address, true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Opens the TCP listener of a relayed address, for peers. Fails if anybody else has the port, but does not keep
/// [`bind_tcp_source`] from using it, too.
pub(crate) fn listen_for_peers(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    prepare(&socket, address, false)?;
    socket.bind(&address.into())?;
    // A backlog as for clients would let one allocation's peers take much more memory than its connections may.
    socket.listen(128)?;
    // Only now: had it been set before, somebody else who sets it could have the same port.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Opens a TCP socket that is to connect to a peer from a relayed address (RFC 6062 §5.2).
pub(crate) fn bind_tcp_source(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    prepare(&socket, address, true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Makes the end of a connection a reset, which says that data may have been lost.
pub(crate) fn reset_on_close(stream: &tokio::net::TcpStream) {
    // Where it cannot be set, the end looks like an ordinary one.
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// Fails if anybody already serves this address, which sharing would hide; returns the port (chosen by the system if 0).
pub(crate) fn probe(address: SocketAddr, stream: bool) -> io::Result<u16> {
    let kind = if stream { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(stream)?;
    prepare(&socket, address, false)?;
    socket.bind(&address.into())?;
    if stream {
        socket.listen(1)?;
    }
    Ok(socket.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port()))
}

fn prepare(socket: &Socket, address: SocketAddr, shared: bool) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    if shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    let _ = shared;
    socket.set_nonblocking(true)
}

/// Whether several workers can share a listening address.
pub(crate) const CAN_SHARE_PORTS: bool = cfg!(unix);

/// Raises the limit of file descriptors to what the system allows this process; returns the limit.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::raise_descriptor_limit().ok();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether this process, or the whole system, has no file descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// A UDP socket that belongs to one worker.
#[derive(Debug)]
pub(crate) enum UdpSocket {
    #[cfg(target_os = "linux")]
    Batched(linux::LinuxSocket),
    Portable(std::rc::Rc<tokio::net::UdpSocket>),
}

impl UdpSocket {
    /// Takes a non-blocking socket over. To be called on the worker's own runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, io: Io) -> io::Result<Self> {
        match io {
            #[cfg(target_os = "linux")]
            Io::Batched => Ok(Self::Batched(linux::LinuxSocket::new(socket))),
            Io::Portable => Ok(Self::Portable(tokio::net::UdpSocket::from_std(socket)?.into())),
        }
    }

    /// Sends one datagram now. What the system will not take is lost, as datagrams may be.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr, options: SendOptions) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Batched(socket) => linux::send_one(socket, bytes, to, options),
            Self::Portable(_) if options.dont_fragment => Err(io::ErrorKind::Unsupported.into()),
            Self::Portable(socket) => socket.try_send_to(bytes, to).map(|_| ()),
        }
    }

    /// Takes one ICMP error about a datagram that this socket sent: the datagram's destination, and the error.
    pub(crate) fn take_icmp_error(&self) -> Option<(SocketAddr, IcmpError)> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Batched(socket) => linux::take_icmp_error(socket),
            Self::Portable(_) => None,
        }
    }
}

/// How a datagram is to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SendOptions {
    /// Local address to send from; `None` leaves it to the socket.
    pub(crate) from: Option<IpAddr>,
    /// Traffic class: DSCP and ECN.
    pub(crate) tos: u8,
    /// Set the DF bit (IPv4) or refuse to fragment (IPv6).
    pub(crate) dont_fragment: bool,
}

/// What is known of a received datagram besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Where it came from.
    pub(crate) source: SocketAddr,
    /// The local address that it was sent to; `None` unless the listener is on a wildcard address.
    pub(crate) local: Option<IpAddr>,
    /// Traffic class: DSCP and ECN.
    pub(crate) tos: u8,
    /// Where its payload begins in the batch.
    start: usize,
    /// Bytes of payload.
    pub(crate) len: usize,
}

/// Received datagrams of one socket or of several. A slot holds one datagram, or several that the kernel has merged.
pub(crate) struct Batch {
    slots: Box<[u8]>,
    /// Slots filled.
    used: usize,
    received: Vec<Received>,
    #[cfg(target_os = "linux")]
    calls: Option<linux::ReceiveCalls>,
}

impl Batch {
    /// A batch for this kind of input/output. Memory is only touched where datagrams are received.
    pub(crate) fn new(io: Io) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = io;
        Self {
            slots: vec![0; BATCH * SLOT_LEN].into_boxed_slice(),
            used: 0,
            received: Vec::with_capacity(BATCH),
            #[cfg(target_os = "linux")]
            calls: (io == Io::Batched).then(linux::ReceiveCalls::new),
        }
    }

    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.received.clear();
    }

    /// Whether there is no slot left to receive into.
    pub(crate) const fn is_full(&self) -> bool {
        self.used == BATCH
    }

    /// Takes what is there, as far as there are slots, and adds it; returns the new datagrams' places. If the batch is full
    /// then, there may be more.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<Range<usize>> {
        let before = self.received.len();
        match socket {
            #[cfg(target_os = "linux")]
            UdpSocket::Batched(socket) => {
                if let Some(calls) = &mut self.calls {
                    self.used += calls.receive(socket, &mut self.slots, self.used, &mut self.received)?;
                }
            }
            UdpSocket::Portable(socket) => {
                self.used += portable::receive(socket, &mut self.slots, self.used, &mut self.received)?;
            }
        }
        Ok(before..self.received.len())
    }

    pub(crate) fn received(&self, at: usize) -> Received {
        self.received[at]
    }

    pub(crate) fn payload(&self, at: usize) -> &[u8] {
        &self.slots[self.place(at)]
    }

    /// What payloads stand in.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.slots
    }

    /// Where the payload of a received datagram stands.
    pub(crate) fn place(&self, at: usize) -> Range<usize> {
        let Received { start, len, .. } = self.received[at];
        start..start + len
    }

    /// Where a part of the payload stands.
    pub(crate) fn part(&self, at: usize, part: &Range<usize>) -> Range<usize> {
        let start = self.received[at].start;
        start + part.start..start + part.end
    }
}

const fn payload_start(slot: usize) -> usize {
    slot * SLOT_LEN
}

/// A datagram to be sent: a header of its own, a payload that stands elsewhere, and padding.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// How.
    pub(crate) options: SendOptions,
    /// The header is in the last bytes of this.
    pub(crate) head: [u8; HEADROOM],
    /// Bytes of header.
    pub(crate) header_len: usize,
    /// Where the payload stands in a [`Batch`] or in what another worker has sent.
    pub(crate) payload: Range<usize>,
    /// Zero bytes after the payload, at most 3.
    pub(crate) padding: usize,
}

impl Outgoing {
    /// A payload by itself.
    pub(crate) const fn bare(to: SocketAddr, options: SendOptions, payload: Range<usize>) -> Self {
        Self { to, options, head: [0; HEADROOM], header_len: 0, payload, padding: 0 }
    }

    /// Bytes on the wire.
    #[cfg(target_os = "linux")]
    pub(crate) fn len(&self) -> usize {
        self.header_len + self.payload.len() + self.padding
    }

    /// Header, payload, padding; any of them may be empty. The payload stands in `bytes`.
    pub(crate) fn parts<'p>(&'p self, bytes: &'p [u8]) -> [&'p [u8]; 3] {
        let header = &self.head[HEADROOM - self.header_len..];
        [header, &bytes[self.payload.clone()], &[0; 3][..self.padding]]
    }

    /// How many of the parts are not empty.
    #[cfg(target_os = "linux")]
    fn slices(&self) -> usize {
        [self.header_len, self.payload.len(), self.padding].into_iter().filter(|len| *len > 0).count()
    }
}

/// Sends runs of datagrams from one socket.
pub(crate) struct Sender {
    #[cfg(target_os = "linux")]
    calls: linux::SendCalls,
    /// Where a datagram is put together for systems that take it in one piece.
    whole: Vec<u8>,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            calls: linux::SendCalls::new(),
            whole: Vec::new(),
        }
    }

    /// Sends all of `run`, whose payloads stand in `bytes`; returns how many the system refused.
    pub(crate) fn send(&mut self, socket: &UdpSocket, run: &[Outgoing], bytes: &[u8]) -> usize {
        match socket {
            #[cfg(target_os = "linux")]
            UdpSocket::Batched(socket) => self.calls.send(socket, run, bytes),
            UdpSocket::Portable(_) => {
                let mut refused = 0;
                for out in run {
                    self.whole.clear();
                    out.parts(bytes).into_iter().for_each(|part| self.whole.extend_from_slice(part));
                    refused += usize::from(socket.send(&self.whole, out.to, out.options).is_err());
                }
                refused
            }
        }
    }
}

/// A socket that has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The token that the socket was added with.
    pub(crate) token: u64,
    /// There may be datagrams.
    pub(crate) readable: bool,
    /// There may be ICMP errors.
    pub(crate) error: bool,
}

/// Watches the sockets of one worker.
pub(crate) enum Poller {
    #[cfg(target_os = "linux")]
    Epoll(epoll::Epoll),
    Portable(portable::Poller),
}

impl Poller {
    pub(crate) fn new(io: Io) -> io::Result<Self> {
        match io {
            #[cfg(target_os = "linux")]
            Io::Batched => epoll::Epoll::new().map(Self::Epoll),
            Io::Portable => Ok(Self::Portable(portable::Poller::default())),
        }
    }

    /// Watches a socket. It is forgotten when it is dropped.
    pub(crate) fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        match (self, socket) {
            #[cfg(target_os = "linux")]
            (Self::Epoll(epoll), UdpSocket::Batched(socket)) => epoll.add(socket, token),
            (Self::Portable(poller), UdpSocket::Portable(socket)) => {
                poller.add(socket, token);
                Ok(())
            }
            #[cfg(target_os = "linux")]
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Waits until a socket is ready. `ready` is filled with those that are; each will come again until it is drained.
    pub(crate) async fn wait(&self, ready: &mut Vec<Ready>) -> io::Result<Turn<'_>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.wait(ready).await.map(Turn::Epoll),
            Self::Portable(poller) => poller.wait(ready).await.map(|()| Turn::Portable(PhantomData)),
        }
    }
}

/// The handling of the sockets that were ready.
pub(crate) enum Turn<'p> {
    #[cfg(target_os = "linux")]
    Epoll(epoll::Turn<'p>),
    Portable(PhantomData<&'p ()>),
}

impl Turn<'_> {
    /// Ends the turn; `drained` says that every ready socket was left empty. Returns whether nothing is left to do, so that the next
    /// wait will wait.
    pub(crate) fn end(self, drained: bool) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(turn) => turn.end(drained),
            Self::Portable(_) => false,
        }
    }
}
