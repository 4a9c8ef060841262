//! Starting and stopping: from settings to bound listeners and running workers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, unbounded_channel},
    watch,
};

use super::{
    clock::Clock,
    complaint::RAISE_DESCRIPTORS,
    shared::Shared,
    system::{self, Io, Use},
    worker::{self, LastWord, Parts},
};
use crate::{
    auth::users::{StaticUsers, UsersError},
    config::{Settings, settings::NatDiscovery},
    policy::peer::PeerRules,
    turn::{Totals, Transport},
};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be opened.
    #[error("cannot listen on {transport} {address}: {error}; {remedy}")]
    Listen {
        /// The transport's name.
        transport: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A relay address cannot be bound.
    #[error("cannot relay from {address}: {error}; relay-ip must be an address of this host")]
    Relay {
        /// The address.
        address: IpAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A user cannot be prepared.
    #[error("[[auth.user]]: {0}")]
    Users(#[from] UsersError),
    /// The limit of file descriptors does not even do for the listeners.
    #[error("cannot start: {0}; {RAISE_DESCRIPTORS}")]
    Descriptors(io::Error),
    /// A thread or its runtime cannot be started, or the system has no random numbers.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Running out of descriptors is not about the socket that it happens at.
    fn by_cause(self) -> Self {
        match self {
            Self::Listen { error, .. } | Self::Relay { error, .. } | Self::System(error)
                if system::is_out_of_descriptors(&error) =>
            {
                Self::Descriptors(error)
            }
            other => other,
        }
    }
}

/// Where clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport.
    pub transport: Transport,
    /// The address; the IP may be unspecified.
    pub address: SocketAddr,
}

/// A running server.
pub struct Relay {
    endpoints: Vec<Endpoint>,
    io: Io,
    workers: Vec<JoinHandle<io::Result<Totals>>>,
    stop: watch::Sender<bool>,
    gone: UnboundedReceiver<()>,
}

/// The sockets of one endpoint, one for each worker.
struct Bound {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
}

impl Relay {
    /// Opens all listeners and starts the workers. When this returns, clients are served.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left open.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        Self::open(settings).map_err(StartError::by_cause)
    }

    fn open(settings: Settings) -> Result<Self, StartError> {
        let users = Arc::new(StaticUsers::new(&settings.auth)?);
        let io = Io::choose(settings.process.udp_io);
        let workers = if system::CAN_SHARE_PORTS { settings.process.workers } else { 1 };
        system::raise_descriptor_limit();
        for relay in &settings.relay.addresses {
            let address = SocketAddr::new(relay.local, 0);
            system::bind_udp(address, Use::Relay, io, None)
                .map_err(|error| StartError::Relay { address: relay.local, error })?;
        }

        let mut endpoints = Vec::new();
        let mut bound: Vec<Bound> = (0..workers).map(|_| Bound { udp: Vec::new(), tcp: Vec::new() }).collect();
        for listener in &settings.listeners {
            for ip in listener.addresses.iter().flat_map(|ip| addresses(*ip, io)) {
                let address = SocketAddr::new(ip, listener.port);
                if listener.udp {
                    endpoints.push(bind(Transport::Udp, address, &settings, io, &mut bound)?);
                }
                if listener.tcp {
                    endpoints.push(bind(Transport::Tcp, address, &settings, io, &mut bound)?);
                }
            }
        }

        let discovery = settings.nat_discovery.iter().flat_map(NatDiscovery::external);
        let own: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).chain(discovery).collect();
        let ports = settings.relay.min_port..=settings.relay.max_port;
        let host = host_addresses();
        let peers = Arc::new(PeerRules::new(&settings.peers, &settings.relay.addresses, ports, &own, &host));
        let shared = Shared::new(&settings);
        let clock = Clock::new();
        let nonce_secret = random()?;
        let settings = Arc::new(settings);
        let (stop, stopped) = watch::channel(false);
        let (last_word, gone) = unbounded_channel();
        let mut relay = Self { endpoints, io, workers: Vec::with_capacity(workers), stop, gone };
        for (index, Bound { udp, tcp }) in bound.into_iter().enumerate() {
            let parts = Parts {
                index,
                settings: Arc::clone(&settings),
                users: Arc::clone(&users),
                peers: Arc::clone(&peers),
                shared: Arc::clone(&shared),
                clock,
                io,
                nonce_secret,
                seed: random()?,
                udp,
                tcp,
            };
            let stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let (started, serves) = mpsc::sync_channel(1);
            let last_word = LastWord(last_word.clone());
            let worker = thread.spawn(move || {
                let _last_word = last_word;
                worker::run(parts, &started, stopped)
            })?;
            if serves.recv().is_err() {
                // It has ended before it served anybody, and knows why.
                let failed = worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
                let _ = relay.stop();
                return Err(failed.err().unwrap_or_else(|| io::Error::other("a worker ended")).into());
            }
            relay.workers.push(worker);
        }
        Ok(relay)
    }

    /// Where clients are served, with the ports that the system chose where it was left to it.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// How datagrams cross the border to the system: `batched` or `portable`.
    #[must_use]
    pub const fn io(&self) -> &'static str {
        self.io.name()
    }

    /// How many workers there are.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Resolves when a worker has ended although nobody stopped it; its clients are no longer served.
    pub async fn worker_gone(&mut self) {
        // None only if no worker is left at all.
        let _ = self.gone.recv().await;
    }

    /// Ends all sessions, closes all sockets, and returns what was counted.
    #[must_use]
    pub fn stop(self) -> Totals {
        // Fails only if no worker is left to hear it.
        let _ = self.stop.send(true);
        let mut totals = Totals::default();
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(counted)) => totals.add(&counted),
                Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        totals
    }
}

/// Opens one endpoint for every worker.
fn bind(
    transport: Transport,
    address: SocketAddr,
    settings: &Settings,
    io: Io,
    bound: &mut [Bound],
) -> Result<Endpoint, StartError> {
    let fail =
        |error: io::Error| StartError::Listen { transport: transport.name(), address, remedy: remedy(&error), error };
    let port = system::probe(address, transport.is_stream()).map_err(fail)?;
    let address = SocketAddr::new(address.ip(), port);
    for worker in bound {
        match transport {
            Transport::Udp => {
                let buffer = settings.process.listener_buffer;
                worker.udp.push(system::bind_udp(address, Use::Listener, io, buffer).map_err(fail)?);
            }
            Transport::Tcp => worker.tcp.push(system::bind_tcp(address).map_err(fail)?),
        }
    }
    Ok(Endpoint { transport, address })
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
fn host_addresses() -> Vec<IpAddr> {
    // A host that does not tell its interfaces still has its listening and relay addresses, which the rules know.
    if_addrs::get_if_addrs().map(|list| list.into_iter().map(|entry| entry.ip()).collect()).unwrap_or_default()
}

/// Random bytes from the system.
fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
