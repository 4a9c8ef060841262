//! Listening sockets: opened once, for every worker one of each, and kept open until the server stops or a reload drops the
//! listener, whatever becomes of the workers. A UDP port that a reload has dropped is closed when nobody has a session there any
//! more; a TCP port is closed at once, as its connections do not need it.
//!
//! The kernel finds a client's worker by a hash over the sockets that share an address (SO_REUSEPORT). When one of them closes,
//! the last takes its place and the hash is scaled to one fewer: most clients of all workers would then reach a worker that
//! does not know them. So none closes alone. For the same reason the sockets are not bound to processors
//! (SO_INCOMING_CPU): a client would change its worker whenever the network card changes its mind.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;

use super::{
    accept::Door,
    passed::PassedSockets,
    start::StartError,
    system::{self, Io, Use},
};
use crate::{
    config::{Settings, settings::Listener},
    turn::{RealmId, Transport},
};

/// Where clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// One worker's socket of a listening UDP port.
#[derive(Debug)]
pub(super) struct Pane {
    pub(super) socket: UdpSocket,
    /// Whether this worker receives here, too, and does not only send.
    pub(super) receives: bool,
}

/// A listening UDP port and what is served there.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// As configured: port 0 leaves it to the system.
    origin: SocketAddr,
    pub(super) address: SocketAddr,
    /// By worker.
    pub(super) sockets: Arc<[Pane]>,
    /// Bare datagrams.
    pub(super) plain: bool,
    /// DTLS; with `plain`, told apart by the first byte.
    pub(super) dtls: bool,
    /// The realm that clients are told there.
    pub(super) realm: RealmId,
}

impl Window {
    /// It is configured no longer, and serves those alone who have sessions there.
    pub(super) const fn is_retired(&self) -> bool {
        !self.plain && !self.dtls
    }
}

/// A listening TCP port and what is served there.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// As configured: port 0 leaves it to the system.
    origin: SocketAddr,
    address: SocketAddr,
    /// By worker.
    sockets: Arc<[TcpListener]>,
    plain: bool,
    tls: bool,
    proxies: Arc<[IpNet]>,
    realm: RealmId,
}

impl Gate {
    /// The door of one worker.
    pub(super) fn door(&self, worker: usize) -> io::Result<Door> {
        let listener = self.sockets.get(worker).ok_or(io::ErrorKind::NotFound)?.try_clone()?;
        Ok(Door { listener, plain: self.plain, tls: self.tls, proxies: Arc::clone(&self.proxies), realm: self.realm })
    }

    /// Whether a worker's door is the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        let serves = |gate: &Self| (gate.plain, gate.tls, gate.realm);
        Arc::ptr_eq(&self.sockets, &other.sockets) && serves(self) == serves(other) && self.proxies == other.proxies
    }
}

/// All listening sockets, of all workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Sockets {
    /// Where clients are served, in the order of the configuration.
    pub(super) endpoints: Vec<Endpoint>,
    /// Each keeps its place, by which sessions know it; a place is empty when its window is closed.
    pub(super) windows: Vec<Option<Window>>,
    pub(super) gates: Vec<Gate>,
}

impl Sockets {
    /// What these settings ask for. What there is already stays open, windows that are asked for no longer until they are
    /// [closed](Sockets::without); the rest is opened.
    /// Where sockets of the address were passed to this process, they are taken instead.
    pub(super) fn renewed(
        &self,
        settings: &Settings,
        workers: usize,
        io: Io,
        passed: &mut PassedSockets,
    ) -> Result<Self, StartError> {
        let mut renewed = Self { endpoints: Vec::new(), windows: self.windows.clone(), gates: Vec::new() };
        for window in renewed.windows.iter_mut().flatten() {
            (window.plain, window.dtls) = (false, false);
        }
        let mut gates = self.gates.clone();
        for listener in &settings.listeners {
            for ip in listener.addresses.iter().flat_map(|ip| addresses(*ip, io)) {
                let origin = SocketAddr::new(ip, listener.port);
                if listener.udp || listener.dtls {
                    let window = renewed.window(origin, listener, settings, (workers, io), passed)?;
                    (window.plain, window.dtls, window.realm) = (listener.udp, listener.dtls, listener.realm);
                    let address = window.address;
                    let served = [(Transport::Udp, listener.udp), (Transport::Dtls, listener.dtls)];
                    renewed.endpoints.extend(endpoints(address, served));
                }
                if listener.tcp || listener.tls {
                    // In their order: several have the same origin if the system chose their ports.
                    let known = gates.iter().position(|gate| gate.origin == origin).map(|at| gates.remove(at));
                    let mut gate = match known {
                        Some(gate) => gate,
                        None => {
                            let has_port = |gate: &Gate| gate.address.port() == origin.port();
                            let own = gates.iter().chain(&renewed.gates).any(has_port);
                            open_gate(origin, listener, workers, own, passed)?
                        }
                    };
                    (gate.plain, gate.tls, gate.realm) = (listener.tcp, listener.tls, listener.realm);
                    gate.proxies = listener.proxies.as_slice().into();
                    let served = [(Transport::Tcp, listener.tcp), (Transport::Tls, listener.tls)];
                    renewed.endpoints.extend(endpoints(gate.address, served));
                    renewed.gates.push(gate);
                }
            }
        }
        Ok(renewed)
    }

    /// The window that there is for this address and not asked for yet, or else a new one.
    fn window(
        &mut self,
        origin: SocketAddr,
        listener: &Listener,
        settings: &Settings,
        (workers, io): (usize, Io),
        passed: &mut PassedSockets,
    ) -> Result<&mut Window, StartError> {
        let is_it = |window: &Option<Window>| {
            window.as_ref().is_some_and(|window| window.origin == origin && window.is_retired())
        };
        let at = match self.windows.iter().position(is_it) {
            Some(at) => at,
            None => {
                let own = self.windows.iter().flatten().any(|window| window.address.port() == origin.port());
                let window = open_window(origin, listener, settings, (workers, io), own, passed)?;
                let empty = self.windows.iter().position(Option::is_none);
                let at = empty.unwrap_or(self.windows.len());
                if empty.is_none() {
                    self.windows.push(None);
                }
                self.windows[at] = Some(window);
                at
            }
        };
        // It is there, or has just been put there.
        self.windows[at].as_mut().ok_or_else(|| StartError::System(io::ErrorKind::NotFound.into()))
    }

    /// The same without the windows in these places.
    pub(super) fn without(&self, closed: &[usize]) -> Self {
        let mut rest = self.clone();
        for at in closed {
            if let Some(place) = rest.windows.get_mut(*at) {
                *place = None;
            }
        }
        rest
    }

    /// The places of windows that are not asked for any more.
    pub(super) fn retired(&self) -> Vec<usize> {
        let retired = |window: &Option<Window>| window.as_ref().is_some_and(Window::is_retired);
        self.windows.iter().enumerate().filter(|(_, window)| retired(window)).map(|(at, _)| at).collect()
    }
}

fn endpoints(address: SocketAddr, served: [(Transport, bool); 2]) -> impl Iterator<Item = Endpoint> {
    served.into_iter().filter(|(_, on)| *on).map(move |(transport, _)| Endpoint { transport, address })
}

/// The drops of one UDP port.
#[derive(Debug)]
struct Drops {
    window: Window,
    /// By worker: the kernel's counter when it was last read. It begins anew after 2^32.
    last: Vec<u32>,
    sum: u64,
}

/// The listening sockets in force, and what the kernel has dropped there.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) workers: usize,
    pub(super) io: Io,
    sockets: Mutex<Arc<Sockets>>,
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
        let sockets = Sockets::default().renewed(settings, workers, io, &mut passed)?;
        passed.finish()?;
        let listeners = Self { workers, io, sockets: Mutex::default(), drops: Mutex::default() };
        listeners.set(Arc::new(sockets));
        Ok(listeners)
    }

    /// The sockets in force.
    pub(super) fn sockets(&self) -> Arc<Sockets> {
        // Replaced as a whole.
        Arc::clone(&self.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force.
    pub(super) fn set(&self, sockets: Arc<Sockets>) {
        // Each sum is right after every step.
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |window: &Window| {
            sockets.windows.iter().flatten().any(|other| Arc::ptr_eq(&other.sockets, &window.sockets))
        };
        drops.retain(|drops| is_open(&drops.window));
        for window in sockets.windows.iter().flatten() {
            if !drops.iter().any(|drops| Arc::ptr_eq(&drops.window.sockets, &window.sockets)) {
                drops.push(Drops { window: window.clone(), last: vec![0; self.workers], sum: 0 });
            }
        }
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    }

    /// Reads the kernel's counters.
    pub(super) fn kernel_drops(&self) -> Vec<KernelDrops> {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |drops: &mut Drops| {
            let panes = drops.last.iter_mut().zip(drops.window.sockets.iter());
            for (last, Pane { socket, .. }) in panes.filter(|(_, pane)| pane.receives) {
                let now = system::kernel_drops(socket)?;
                drops.sum += u64::from(now.wrapping_sub(*last));
                *last = now;
            }
            Some(KernelDrops { address: drops.window.address, datagrams: drops.sum })
        };
        drops.iter_mut().filter_map(read).collect()
    }
}

/// Opens one UDP port for every worker. `own`: this server has the port already on some address, so that it cannot be tried who else
/// has it.
fn open_window(
    origin: SocketAddr,
    listener: &Listener,
    settings: &Settings,
    (workers, io): (usize, Io),
    own: bool,
    passed: &mut PassedSockets,
) -> Result<Window, StartError> {
    let transport = if listener.udp { Transport::Udp } else { Transport::Dtls };
    let buffer = settings.process.listener_buffer;
    let found = passed.udp(origin, workers, io, buffer)?;
    let (address, sockets) = if found.is_empty() {
        let fail = |error| cannot_listen(transport, origin, error);
        let port = if own { origin.port() } else { system::probe(origin, false).map_err(fail)? };
        let address = SocketAddr::new(origin.ip(), port);
        let fail = |error| cannot_listen(transport, address, error);
        let open = |_| Ok(Pane { socket: system::bind_udp(address, Use::Listener, io, buffer)?, receives: true });
        (address, (0..workers).map(open).collect::<io::Result<_>>().map_err(fail)?)
    } else {
        (origin, found.into())
    };
    Ok(Window { origin, address, sockets, plain: false, dtls: false, realm: listener.realm })
}

/// Opens one TCP port for every worker.
fn open_gate(
    origin: SocketAddr,
    listener: &Listener,
    workers: usize,
    own: bool,
    passed: &mut PassedSockets,
) -> Result<Gate, StartError> {
    let transport = if listener.tcp { Transport::Tcp } else { Transport::Tls };
    let found = passed.tcp(origin, workers)?;
    let (address, sockets) = if found.is_empty() {
        let fail = |error| cannot_listen(transport, origin, error);
        let port = if own { origin.port() } else { system::probe(origin, true).map_err(fail)? };
        let address = SocketAddr::new(origin.ip(), port);
        let fail = |error| cannot_listen(transport, address, error);
        (address, (0..workers).map(|_| system::bind_tcp(address)).collect::<io::Result<_>>().map_err(fail)?)
    } else {
        (origin, found.into())
    };
    let (realm, proxies) = (listener.realm, Arc::default());
    Ok(Gate { origin, address, sockets, plain: false, tls: false, proxies, realm })
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

/// Every address of this host, in ascending order; `None` if it does not tell its interfaces.
pub(super) fn told_addresses() -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs().ok()?.into_iter().map(|entry| entry.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(addresses)
}

/// Every address of this host. Of one that does not tell its interfaces the rules still know the listening and relay addresses.
pub(super) fn host_addresses() -> Vec<IpAddr> {
    told_addresses().unwrap_or_default()
}
