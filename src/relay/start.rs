//! Starting and stopping: from settings to bound listeners and running workers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc::sync_channel},
    thread::JoinHandle,
};

use tokio::sync::watch;

use super::{
    clock::Clock,
    complaint::RAISE_DESCRIPTORS,
    current::{Current, TakenUp},
    dtls,
    errands::Notice,
    inquiries::Desk,
    limits::{Bookkeeper, StateError},
    listeners::{Endpoint, KernelDrops, Listeners, host_addresses, told_addresses},
    monitor::Monitor,
    offload::{self, Offload, OffloadCounts, OffloadReport, Privileges},
    passed::PassedSockets,
    peers::{Own, PeerBook},
    reload::own_sockets,
    shared::Shared,
    supervise,
    system::{self, DatagramPath, Use},
    tls::Tls,
    worker::Plan,
};
use crate::{
    auth::directory::{Directory, DirectoryError, Slow},
    config::{
        Settings,
        settings::{OffloadMode, Peers},
    },
    policy::limiter::LimitCounts,
    turn::{Revocation, Totals},
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
    #[error("{0}")]
    Users(#[from] DirectoryError),
    /// A socket that was passed to the process cannot be used.
    #[error("{0}")]
    Passed(String),
    /// The certificates cannot be used together.
    #[error("[tls]: {0}")]
    Tls(rustls::Error),
    /// The certificates cannot be used for DTLS.
    #[error("[tls], for DTLS: {0}")]
    Dtls(String),
    /// The kernel does not relay as it was asked to.
    #[error("[offload] mode = \"{mode}\" cannot be had: {why}; correct this, or write mode = \"auto\" or \"off\"")]
    Offload {
        /// The mode.
        mode: &'static str,
        /// Why, in words.
        why: String,
    },
    /// What an earlier process has counted cannot be gone on with.
    #[error("[limits]: {0}")]
    State(#[from] StateError),
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

/// What a server has counted.
#[derive(Debug, Clone)]
pub struct Counts {
    /// By the workers, in all.
    pub totals: Totals,
    /// By the limits.
    pub limits: LimitCounts,
    /// By the kernel, for each UDP listener; empty on systems that do not tell.
    pub kernel_drops: Vec<KernelDrops>,
    /// By the kernel's own relaying; `None` if there was none.
    pub offload: Option<OffloadCounts>,
}

/// A running server.
pub struct Relay {
    pub(super) listeners: Arc<Listeners>,
    pub(super) monitor: Monitor,
    path: DatagramPath,
    pub(super) offload: Option<Arc<Offload>>,
    workers: Vec<JoinHandle<io::Result<Totals>>>,
    stop: watch::Sender<bool>,
    /// There if bytes of the month are, or were, limited.
    pub(super) bookkeeper: Option<Bookkeeper>,
    pub(super) peers: Arc<PeerBook>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    /// Users are kept elsewhere, too.
    pub(super) has_store: bool,
    /// What it was told last.
    pub(super) settings: Settings,
    /// What workers go by.
    pub(super) current: watch::Sender<Arc<Current>>,
}

impl Relay {
    /// Opens all listeners and starts the workers. When this returns, clients are served. `reserved` are addresses where this
    /// process serves others than clients: no client reaches them as a peer, whatever the rules allow. Users that are kept in
    /// `store` are asked for after those of the configuration. If offload is asked for, the calling thread loses the capabilities
    /// that it takes ([`Privileges::set_apart`]).
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left open.
    pub fn start(
        settings: Settings,
        store: Option<Arc<dyn Slow>>,
        reserved: &[SocketAddr],
    ) -> Result<Self, StartError> {
        let privileges = match settings.offload.mode {
            OffloadMode::Off => Privileges::default(),
            _ => Privileges::set_apart(&settings),
        };
        Self::start_on(settings, store, reserved, PassedSockets::default(), privileges)
    }

    /// The same with listening sockets that are open already, where they match the configured ones, and with what offload takes.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left open.
    pub fn start_on(
        settings: Settings,
        store: Option<Arc<dyn Slow>>,
        reserved: &[SocketAddr],
        passed: PassedSockets,
        privileges: Privileges,
    ) -> Result<Self, StartError> {
        Self::open(settings, store, reserved, passed, privileges).map_err(StartError::by_cause)
    }

    fn open(
        settings: Settings,
        store: Option<Arc<dyn Slow>>,
        reserved: &[SocketAddr],
        passed: PassedSockets,
        privileges: Privileges,
    ) -> Result<Self, StartError> {
        let has_store = store.is_some();
        let directory = Arc::new(Directory::new(&settings, has_store)?);
        let path = DatagramPath::probe(settings.process.udp_io)?;
        let io = path.io();
        let workers = if system::CAN_SHARE_PORTS { settings.process.workers } else { 1 };
        system::raise_descriptor_limit();
        system::give_back_large_blocks();
        for relay in &settings.relay.addresses {
            let address = SocketAddr::new(relay.local, 0);
            system::bind_udp(address, Use::Relay, io, None)
                .map_err(|error| StartError::Relay { address: relay.local, error })?;
        }

        let tls = settings.tls.as_ref().map(Tls::new).transpose().map_err(StartError::Tls)?.map(Arc::new);
        let dtls = settings.tls.as_ref().filter(|_| settings.listeners.iter().any(|listener| listener.dtls));
        let dtls = dtls.map(dtls::Context::new).transpose().map_err(StartError::Dtls)?.map(Arc::new);
        let listeners = Arc::new(Listeners::open(&settings, workers, io, passed)?);
        let sockets = listeners.sockets();
        let clock = Clock::new();
        let (offload, offload_report) = offload::start(&settings, &sockets.endpoints, privileges, move || clock.now())
            .map_err(|why| StartError::Offload { mode: settings.offload.mode.name(), why })?;
        let relay = settings.relay.addresses.clone();
        let own = Own { sockets: own_sockets(&settings, &sockets, reserved), relay, host: host_addresses() };
        let peers = Arc::new(PeerBook::new(&settings, own));
        let default = peers.rules().first().cloned();
        // The default realm is always there.
        let default = default.ok_or_else(|| io::Error::other("there is no realm"))?;
        let shared = Shared::new(&settings, &default, random_seed()?);
        let desk = store.map(|store| Desk::open(store, Arc::clone(&shared))).transpose()?;
        let state = settings.limits.state_directory.as_deref();
        let keep = |directory| Bookkeeper::start(&shared.limiter, directory, clock);
        let bookkeeper = state.map(keep).transpose()?;
        let processors = processors(&settings);
        let (stop, stopped) = watch::channel(false);
        let (placed, limits, taken_up) = (Arc::new(settings.clone()), 0, TakenUp::default());
        let current = Current { settings: placed, directory, sockets, tls, dtls, limits, taken_up };
        let (current, news) = watch::channel(Arc::new(current));
        let plan = Plan {
            index: 0,
            current: news,
            desk,
            peers: Arc::clone(&peers),
            shared: Arc::clone(&shared),
            clock,
            io,
            nonce_secret: random()?,
            ticket_key: random()?,
            offload: offload.clone(),
            processor: None,
        };
        let mut relay = Self {
            monitor: Monitor::new(
                Arc::clone(&plan.shared),
                Arc::clone(&listeners),
                clock,
                (offload.clone(), offload_report),
            ),
            listeners,
            path,
            offload,
            workers: Vec::with_capacity(workers),
            stop,
            bookkeeper,
            peers,
            shared,
            clock,
            has_store,
            settings,
            current,
        };
        for index in 0..workers {
            let processor = processors.get(index % processors.len().max(1)).copied();
            let plan = Plan { index, processor, ..plan.clone() };
            let stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let (started, serves) = sync_channel(1);
            let worker = thread.spawn(move || supervise::run(&plan, &started, stopped))?;
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
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.listeners.sockets().endpoints.clone()
    }

    /// What workers go by.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells the workers what to go by from now on.
    pub(super) fn publish(&self, current: Current) {
        self.current.send_replace(Arc::new(current));
    }

    /// A view of this server for management.
    #[must_use]
    pub const fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// How datagrams are received and sent.
    #[must_use]
    pub const fn datagram_path(&self) -> &DatagramPath {
        &self.path
    }

    /// What would come of these settings for relaying in the kernel.
    #[must_use]
    pub fn plan_offload(settings: &Settings) -> OffloadReport {
        offload::plan(settings)
    }

    /// How many workers there are.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What the kernel has dropped on each UDP listener so far; empty on systems that do not tell. To be read every few
    /// minutes at least if no drop is to be missed: the kernel's own counters begin anew after 2^32.
    #[must_use]
    pub fn kernel_drops(&self) -> Vec<KernelDrops> {
        self.listeners.kernel_drops()
    }

    /// Ends the sessions that this concerns, of all workers; returns how many they were. A worker that fails meanwhile has lost
    /// its sessions, and counts none.
    pub async fn revoke(&self, revocation: Revocation) -> usize {
        self.monitor.revoke_all(revocation).await
    }

    /// Adds peer rules, by realm, to those of the configuration, in place of what was added before.
    /// What they do not permit any more ends.
    pub fn add_peers(&self, added: &[Peers]) {
        self.peers.add(added);
        (0..).take(self.workers()).for_each(|worker| self.shared.notify(worker, Notice::Peers));
    }

    /// Looks whether this host has other addresses than before: its own are no peers, also those that it got a moment ago. To be
    /// called now and then.
    pub fn look_at_addresses(&self) {
        // Without descriptors the host tells nothing; what was known holds.
        if told_addresses().is_some_and(|host| self.peers.set_host(host)) {
            (0..).take(self.workers()).for_each(|worker| self.shared.notify(worker, Notice::Peers));
        }
    }

    /// What the limits have done so far.
    #[must_use]
    pub fn limits(&self) -> LimitCounts {
        self.shared.limiter.counts()
    }

    /// Ends all sessions, closes all sockets, and returns what was counted.
    #[must_use]
    pub fn stop(self) -> Counts {
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
        let offload = self.offload.as_ref().map(|offload| {
            offload.count_late(&mut totals);
            offload.counts()
        });
        if let Some(bookkeeper) = self.bookkeeper {
            bookkeeper.stop();
        }
        let limits = self.shared.limiter.counts();
        Counts { totals, limits, kernel_drops: self.listeners.kernel_drops(), offload }
    }
}

/// The processors to pin workers to, if they are to be pinned.
fn processors(settings: &Settings) -> Vec<usize> {
    if !settings.process.pin_workers {
        return Vec::new();
    }
    system::processors().unwrap_or_else(|error| {
        tracing::warn!(%error, "pin-workers has no effect: this system does not tell its processors");
        Vec::new()
    })
}

/// A number that nobody outside can know.
pub(super) fn random_seed() -> io::Result<u64> {
    Ok(random()?.iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte)))
}

/// Random bytes from the system.
pub(super) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}
