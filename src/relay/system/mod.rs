//! The border to the operating system: sockets, batches, readiness, limits.
//!
//! Everything that only Linux has is in `linux` and `epoll.rs`; `portable.rs` does the same work with one portable call per
//! datagram and is compiled, and can be chosen, everywhere. Which of the two serves is decided once, at start ([`DatagramPath`]).
//! No protocol here: datagrams come in with their metadata and go out as they are told.

mod batch;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(target_os = "linux")]
mod linux;
mod path;
mod portable;

pub(super) use batch::{BATCH, Batch, Outgoing, Received, Run, SendOptions, Sender};
#[cfg(offload_program)]
pub(super) use linux::{driver, hardware_address, interface_index};
pub use path::DatagramPath;
pub(super) use path::Io;

use std::{
    io,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
};

use batch::{MAX_DATAGRAM, payload_start};
use socket2::{Domain, Protocol, Socket, Type};

use crate::turn::IcmpError;

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
    set_options(&socket, address, usage, io, buffer)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets what a listener needs on a UDP socket that somebody else has opened and bound.
pub(crate) fn adopt_udp(socket: &Socket, address: SocketAddr, io: Io, buffer: Option<usize>) -> io::Result<()> {
    set_options(socket, address, Use::Listener, io, buffer)
}

fn set_options(socket: &Socket, address: SocketAddr, usage: Use, io: Io, buffer: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = buffer {
        // The system caps what it grants; less than asked for is no reason not to serve.
        let _ = socket.set_recv_buffer_size(bytes);
        let _ = socket.set_send_buffer_size(bytes);
    }
    #[cfg(target_os = "linux")]
    if io.is_full() {
        linux::set_options(socket, address, usage)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (io, address, usage);
    Ok(())
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

/// The MTU in bytes of the interface that has this address; that of Ethernet where the system does not tell.
pub(crate) fn mtu(address: IpAddr) -> usize {
    const ETHERNET: usize = 1500;
    #[cfg(target_os = "linux")]
    {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        // All of 127.0.0.0/8 is on the loopback interface, which lists one address of it.
        let has = |interface: &&if_addrs::Interface| {
            interface.ip() == address || address.is_loopback() && interface.is_loopback()
        };
        let mtu = interfaces.iter().find(has).and_then(|interface| linux::interface_mtu(&interface.name).ok());
        mtu.unwrap_or(ETHERNET)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        ETHERNET
    }
}

/// Makes short sleeps of this thread as exact as the system can; whether that is some microseconds.
pub(crate) fn sleeps_exactly() -> bool {
    #[cfg(target_os = "linux")]
    return linux::sleep_exactly().is_ok();
    #[cfg(not(target_os = "linux"))]
    false
}

/// The processors that this process may use, in ascending order.
pub(crate) fn processors() -> io::Result<Vec<usize>> {
    #[cfg(target_os = "linux")]
    return linux::processors();
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin_thread(processor: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return linux::pin_thread(processor);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = processor;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How many datagrams the kernel has dropped on a socket, modulo 2^32; `None` if it does not tell.
pub(crate) fn kernel_drops(socket: &std::net::UdpSocket) -> Option<u32> {
    #[cfg(target_os = "linux")]
    return linux::kernel_drops(socket);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

/// How long the calling thread has had a processor.
pub(crate) fn thread_time() -> Option<std::time::Duration> {
    #[cfg(target_os = "linux")]
    return linux::thread_time();
    #[cfg(not(target_os = "linux"))]
    None
}

/// From now on, large blocks of memory go back to the system as soon as they are freed, where the allocator would keep them.
pub(crate) fn give_back_large_blocks() {
    #[cfg(target_os = "linux")]
    linux::give_back_large_blocks();
}

/// Gives memory that the process has freed back to the system, where the allocator would keep it. Takes time proportional to what
/// is free: for after a peak.
pub(crate) fn release_freed_memory() {
    #[cfg(target_os = "linux")]
    linux::release_freed_memory();
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
    /// It was closed, and its place is kept.
    Closed,
}

impl UdpSocket {
    /// Takes a non-blocking socket over. To be called on the worker's own runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, io: Io) -> io::Result<Self> {
        match io {
            #[cfg(target_os = "linux")]
            Io::Batched(merges) => Ok(Self::Batched(linux::LinuxSocket::new(socket, merges))),
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
            Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes one ICMP error about a datagram that this socket sent: the datagram's destination, and the error.
    pub(crate) fn take_icmp_error(&self) -> Option<(SocketAddr, IcmpError)> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Batched(socket) => linux::take_icmp_error(socket),
            Self::Portable(_) | Self::Closed => None,
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
            Io::Batched(_) => epoll::Epoll::new().map(Self::Epoll),
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
            (_, UdpSocket::Closed) => Ok(()),
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
        #[cfg(not(target_os = "linux"))]
        let _ = drained;
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(turn) => turn.end(drained),
            Self::Portable(_) => false,
        }
    }
}
