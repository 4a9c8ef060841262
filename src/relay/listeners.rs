//! Listening sockets: opened once, for every worker one of each, and kept open until the server stops, whatever becomes of the
//! workers.
//!
//! The kernel finds a client's worker by a hash over the sockets that share an address (SO_REUSEPORT). When one of them closes,
//! the last takes its place and the hash is scaled to one fewer: most clients of all workers would then reach a worker that
//! does not know them. So none closes before the end. For the same reason the sockets are not bound to processors
//! (SO_INCOMING_CPU): a client would change its worker whenever the network card changes its mind.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    accept::Door,
    passed::{PassedSockets, PassedUdp},
    start::StartError,
    system::{self, Io, Use},
};
use crate::{
    config::{Settings, settings::Listener},
    turn::{RealmId, Transport},
};

/// Where clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport.
    pub transport: Transport,
    /// The address; the IP may be unspecified.
    pub address: SocketAddr,
}

/// What the kernel has dropped of what clients sent to one UDP listener, since the start: it had no room in the socket's
/// buffer, or the datagram was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDrops {
    /// The listener's address.
    pub address: SocketAddr,
    /// Datagrams, of all workers.
    pub datagrams: u64,
}

/// The listening sockets of one worker.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    udp: Vec<Window>,
    doors: Vec<Door>,
}

/// A listening UDP socket and what is served there.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) socket: UdpSocket,
    /// Whether this worker receives here, too, and does not only send.
    pub(super) receives: bool,
    /// Bare datagrams.
    pub(super) plain: bool,
    /// DTLS; with `plain`, told apart by the first byte.
    pub(super) dtls: bool,
    /// The realm that clients are told there.
    pub(super) realm: RealmId,
}

impl Window {
    /// The same window once more.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, ..*self })
    }
}

impl Sockets {
    /// The same sockets, for the worker to use as its own.
    pub(super) fn lend(&self) -> io::Result<(Vec<Window>, Vec<Door>)> {
        let udp = self.udp.iter().map(Window::try_clone).collect::<io::Result<_>>()?;
        let doors = self.doors.iter().map(Door::try_clone).collect::<io::Result<_>>()?;
        Ok((udp, doors))
    }
}

/// The drops of one UDP port.
#[derive(Debug)]
struct Drops {
    address: SocketAddr,
    /// By worker: the kernel's counter when it was last read. It begins anew after 2^32.
    last: Vec<u32>,
    sum: u64,
}

/// All listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) endpoints: Vec<Endpoint>,
    /// By worker.
    pub(super) sockets: Vec<Arc<Sockets>>,
    /// By UDP port.
    drops: Mutex<Vec<Drops>>,
}

impl Listeners {
    /// Opens every endpoint for every worker.
    pub(super) fn open(
        settings: &Settings,
        workers: usize,
        io: Io,
        mut passed: PassedSockets,
    ) -> Result<Self, StartError> {
        let (mut endpoints, mut drops) = (Vec::new(), Vec::new());
        let mut sockets: Vec<Sockets> = (0..workers).map(|_| Sockets::default()).collect();
        for listener in &settings.listeners {
            for ip in listener.addresses.iter().flat_map(|ip| addresses(*ip, io)) {
                let address = SocketAddr::new(ip, listener.port);
                if listener.udp || listener.dtls {
                    let bound = bind_udp(address, listener, settings, io, &mut passed, &mut sockets)?;
                    // Both, if there are two, are on the same port.
                    let port = bound.iter().take(1);
                    drops.extend(port.map(|port| Drops { address: port.address, last: vec![0; workers], sum: 0 }));
                    endpoints.extend(bound);
                }
                if listener.tcp || listener.tls {
                    endpoints.extend(bind_tcp(address, listener, &mut passed, &mut sockets)?);
                }
            }
        }
        passed.finish()?;
        Ok(Self { endpoints, sockets: sockets.into_iter().map(Arc::new).collect(), drops: Mutex::new(drops) })
    }

    /// Reads the kernel's counters.
    pub(super) fn kernel_drops(&self) -> Vec<KernelDrops> {
        // Each sum is right after every step.
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(at, drops): (usize, &mut Drops)| {
            for (last, sockets) in drops.last.iter_mut().zip(&self.sockets) {
                let window = &sockets.udp[at];
                if !window.receives {
                    continue;
                }
                let now = system::kernel_drops(&window.socket)?;
                drops.sum += u64::from(now.wrapping_sub(*last));
                *last = now;
            }
            Some(KernelDrops { address: drops.address, datagrams: drops.sum })
        };
        drops.iter_mut().enumerate().filter_map(read).collect()
    }
}

/// Opens one UDP port for every worker: an endpoint for each protocol that is served there.
fn bind_udp(
    address: SocketAddr,
    listener: &Listener,
    settings: &Settings,
    io: Io,
    passed: &mut PassedSockets,
    sockets: &mut [Sockets],
) -> Result<Vec<Endpoint>, StartError> {
    let transport = if listener.udp { Transport::Udp } else { Transport::Dtls };
    let fail = |error| cannot_listen(transport, address, error);
    let workers = sockets.len();
    let buffer = settings.process.listener_buffer;
    let mut window = |at: usize, socket, receives| {
        let (plain, dtls, realm) = (listener.udp, listener.dtls, listener.realm);
        sockets[at].udp.push(Window { socket, receives, plain, dtls, realm });
    };
    let found = passed.udp(address, workers, io, buffer)?;
    let mut address = address;
    if found.is_empty() {
        let port = system::probe(address, false).map_err(fail)?;
        address = SocketAddr::new(address.ip(), port);
        for at in 0..workers {
            window(at, system::bind_udp(address, Use::Listener, io, buffer).map_err(fail)?, true);
        }
    }
    found.into_iter().enumerate().for_each(|(at, PassedUdp { socket, receives })| window(at, socket, receives));
    let served = [(Transport::Udp, listener.udp), (Transport::Dtls, listener.dtls)];
    Ok(served.into_iter().filter(|(_, on)| *on).map(|(transport, _)| Endpoint { transport, address }).collect())
}

/// Opens one TCP port for every worker: an endpoint for each protocol that is served there.
fn bind_tcp(
    address: SocketAddr,
    listener: &Listener,
    passed: &mut PassedSockets,
    sockets: &mut [Sockets],
) -> Result<Vec<Endpoint>, StartError> {
    let transport = if listener.tcp { Transport::Tcp } else { Transport::Tls };
    let fail = |error| cannot_listen(transport, address, error);
    let mut found = passed.tcp(address, sockets.len())?;
    let mut address = address;
    if found.is_empty() {
        let port = system::probe(address, true).map_err(fail)?;
        address = SocketAddr::new(address.ip(), port);
        found = sockets.iter().map(|_| system::bind_tcp(address)).collect::<io::Result<_>>().map_err(fail)?;
    }
    let proxies: Arc<[_]> = listener.proxies.as_slice().into();
    for (worker, opened) in sockets.iter_mut().zip(found) {
        worker.doors.push(Door {
            listener: opened,
            plain: listener.tcp,
            tls: listener.tls,
            proxies: Arc::clone(&proxies),
            realm: listener.realm,
        });
    }
    let served = [(Transport::Tcp, listener.tcp), (Transport::Tls, listener.tls)];
    Ok(served.into_iter().filter(|(_, on)| *on).map(|(transport, _)| Endpoint { transport, address }).collect())
}

fn cannot_listen(transport: Transport, address: SocketAddr, error: io::Error) -> StartError {
    StartError::Listen { transport: transport.name(), address, remedy: remedy(&error), error }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process (perhaps another server of this kind) uses this port: stop it, or change listening-port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or use a higher listening-port"
        }
        io::ErrorKind::AddrNotAvailable => "the address is not on this host: correct listening-ip",
        _ => "check listening-ip and listening-port",
    }
}

/// The addresses to bind for a configured one. Where a wildcard listener cannot tell which address a datagram came to, it
/// is replaced by every address of the host.
fn addresses(ip: IpAddr, io: Io) -> Vec<IpAddr> {
    if !ip.is_unspecified() || io.is_full() {
        return vec![ip];
    }
    let loopback = if ip.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
    let mut all: Vec<IpAddr> = host_addresses().into_iter().filter(|host| host.is_ipv4() == ip.is_ipv4()).collect();
    all.retain(|host| !matches!(host, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    if all.is_empty() {
        all.push(loopback);
    }
    all
}

/// Every address of this host.
pub(super) fn host_addresses() -> Vec<IpAddr> {
    // A host that does not tell its interfaces still has its listening and relay addresses, which the rules know.
    if_addrs::get_if_addrs().map(|list| list.into_iter().map(|entry| entry.ip()).collect()).unwrap_or_default()
}
