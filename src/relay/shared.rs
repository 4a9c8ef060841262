//! What all workers share: quotas, relay ports, reservations, connection counts, peer connections that wait for their client.
//! Small, explicit; on the data path only read, but for the mailboxes between workers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use rand::{Rng, rngs::StdRng};

use super::{
    desk::Desk,
    errands::{Errands, Notice},
    events::Events,
    limits::QuotaLease,
    mail::Mailbox,
    ports::PortLease,
    rendezvous::Rendezvous,
    spaces::Spaces,
};
use crate::{
    auth::subject::Subject,
    config::settings::{DrainError, RealmLimits, Settings},
    policy::{
        limit::Limit,
        limiter::{Allowance, Limiter},
        peer::PeerRules,
        quota::{Held, Holder},
        rate::SourceRate,
    },
    stun::ErrorCode,
    turn::{Refusal, Time},
};

/// A bound relay socket that no worker watches yet.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) socket: std::net::UdpSocket,
    pub(super) lease: PortLease,
    /// The address that clients are told.
    pub(super) external: SocketAddr,
}

/// A port held for the Allocate that will bring its token (RFC 8656 §7.2).
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) opened: Opened,
    /// A reservation counts like the allocation that it is for.
    pub(super) quota: QuotaLease,
    expires: Time,
}

/// Open client connections.
#[derive(Debug, Default)]
struct Connections {
    total: usize,
    /// By source prefix: one client has as many IPv6 addresses as it likes.
    by_source: HashMap<IpNet, usize>,
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The newest list; each worker has one of its own.
    spaces: Mutex<Arc<Spaces>>,
    /// What else a reload may change.
    terms: RwLock<Arc<Terms>>,
    /// By worker.
    pub(super) mailboxes: Box<[Mailbox]>,
    /// By worker; its mailbox is what wakes it.
    pub(super) errands: Box<[Errands]>,
    /// By worker: what management asks of it. Its mailbox is what wakes it.
    pub(super) desks: Box<[Desk]>,
    /// What happens to sessions, for whoever listens.
    pub(super) events: Arc<Events>,
    /// There are to be no new allocations.
    closed: AtomicBool,
    /// Where peer connections wait for the clients that bind them.
    pub(super) rendezvous: Rendezvous,
    /// Limits of allocations, and of what is relayed.
    pub(super) limiter: Arc<Limiter>,
    /// Allocations of each source.
    allocation_rate: Mutex<SourceRate>,
    reservations: Mutex<HashMap<[u8; 8], Reservation>>,
    connections: Mutex<Connections>,
    /// The number of a worker that is to panic, plus one.
    #[cfg(test)]
    pub(super) doomed: std::sync::atomic::AtomicUsize,
}

/// What is looked up for a request or a connection, never for a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Of each relay socket.
    pub(super) relay_buffer: Option<usize>,
    reservation_lifetime: Duration,
    max_connections: usize,
    max_connections_per_ip: usize,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    /// What new allocations get when there are to be none.
    drain_error: ErrorCode,
    allocation_rate: Option<u32>,
}

impl Terms {
    fn new(settings: &Settings) -> Self {
        Self {
            relay_buffer: settings.relay.socket_buffer,
            reservation_lifetime: settings.lifetimes.reservation,
            max_connections: settings.tcp.max_connections,
            max_connections_per_ip: settings.tcp.max_connections_per_ip,
            ipv4_prefix: settings.limits.ipv4_prefix,
            ipv6_prefix: settings.limits.ipv6_prefix,
            drain_error: match settings.process.drain_error {
                DrainError::Quota => ErrorCode::AllocationQuotaReached,
                DrainError::Capacity => ErrorCode::InsufficientCapacity,
            },
            allocation_rate: settings.limits.allocation_rate,
        }
    }

    fn rate(&self, seed: u64) -> SourceRate {
        SourceRate::new(self.allocation_rate, self.ipv4_prefix, self.ipv6_prefix, seed)
    }

    fn counts_sources_as(&self, other: &Self) -> bool {
        let of = |terms: &Self| (terms.allocation_rate, terms.ipv4_prefix, terms.ipv6_prefix);
        of(self) == of(other)
    }
}

/// The limits of realms that have their own.
fn realm_limits(settings: &Settings) -> impl Iterator<Item = (Arc<str>, RealmLimits)> {
    let default = (settings.auth.realm.as_str(), settings.auth.limits);
    let realms = settings.realms.iter().map(|realm| (realm.name.as_str(), realm.limits));
    [default].into_iter().chain(realms).filter_map(|(name, limits)| Some((name.into(), limits?)))
}

/// None of the locked values can be left half-changed by a panic: each is changed by one call that does not call out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// `seed` must be unknown to the outside. `peers` knows this server's own sockets: nobody could reach a relayed address
    /// with the port of one of them, as that is refused as a peer.
    pub(super) fn new(settings: &Settings, peers: &PeerRules, seed: u64) -> Arc<Self> {
        let terms = Terms::new(settings);
        let allocation_rate = terms.rate(seed);
        let spaces = Spaces::new(&settings.relay, peers, &Spaces::default());
        Arc::new(Self {
            spaces: Mutex::new(Arc::new(spaces)),
            terms: RwLock::new(Arc::new(terms)),
            mailboxes: (0..settings.process.workers.max(1)).map(|_| Mailbox::default()).collect(),
            errands: (0..settings.process.workers.max(1)).map(|_| Errands::default()).collect(),
            desks: (0..settings.process.workers.max(1)).map(|_| Desk::default()).collect(),
            events: Arc::default(),
            closed: AtomicBool::new(false),
            rendezvous: Rendezvous::new(settings.process.workers.max(1)),
            limiter: Arc::new(Limiter::new(&settings.limits, realm_limits(settings), settings.process.workers)),
            allocation_rate: Mutex::new(allocation_rate),
            reservations: Mutex::default(),
            connections: Mutex::default(),
            #[cfg(test)]
            doomed: std::sync::atomic::AtomicUsize::default(),
        })
    }

    /// Goes on with other settings; what is counted stays counted. Returns whether the limits of sessions are others than before.
    pub(super) fn renew(&self, settings: &Settings, spaces: Arc<Spaces>, seed: u64, now: Time) -> bool {
        let (before, terms) = (self.terms(), Arc::new(Terms::new(settings)));
        if !before.counts_sources_as(&terms) {
            *lock(&self.allocation_rate) = terms.rate(seed);
        }
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        *lock(&self.spaces) = spaces;
        self.limiter.renew(&settings.limits, realm_limits(settings), now.0)
    }

    /// What is looked up for a request.
    pub(super) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest list of what is relayed from.
    pub(super) fn spaces(&self) -> Arc<Spaces> {
        Arc::clone(&lock(&self.spaces))
    }

    /// Panics in the worker that is doomed, once.
    #[cfg(test)]
    pub(super) fn strike(&self, worker: u16) {
        use std::sync::atomic::Ordering::Relaxed;
        let doomed = self.doomed.compare_exchange(usize::from(worker) + 1, 0, Relaxed, Relaxed);
        assert!(doomed.is_err(), "worker {worker} was doomed by a test");
    }

    /// Counts one more allocation, if the quotas allow it.
    pub(super) fn take_quota(&self, subject: &Subject, worker: u16) -> Result<QuotaLease, Refusal> {
        QuotaLease::new(&self.limiter, subject).map_err(|limit| self.refuse(limit, worker))
    }

    /// What an allocation that this source asks for may take, if it may have one now.
    pub(super) fn admit(
        &self,
        subject: &Subject,
        source: IpAddr,
        streams: bool,
        worker: u16,
        now: Time,
    ) -> Result<Option<Arc<Allowance>>, Refusal> {
        if !lock(&self.allocation_rate).allow(source, now.0) {
            self.limiter.refused_by_rate();
            let words = "too many from this address, try again later";
            return Err(Refusal::Quota { words, key: "allocation-rate" });
        }
        self.limiter.allowance(subject, streams, now.0).map_err(|limit| self.refuse(limit, worker))
    }

    fn refuse(&self, limit: Limit, worker: u16) -> Refusal {
        self.limiter.refused(worker.into(), limit);
        Refusal::Quota { words: limit.words(), key: limit.key() }
    }

    /// Tells a worker something.
    pub(super) fn notify(&self, worker: u16, notice: Notice) {
        let at = usize::from(worker);
        if self.errands.get(at).is_some_and(|errands| errands.tell(notice)) {
            self.mailboxes[at].notify.notify_one();
        }
    }

    /// How many allocations and reservations there are, as quotas count them.
    pub(super) fn held(&self) -> Held {
        self.limiter.held_by(&Holder::Total)
    }

    /// How many connections of clients there are.
    pub(super) fn connections(&self) -> usize {
        lock(&self.connections).total
    }

    /// Refuses new allocations, or takes them again.
    pub(super) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// The error that new allocations get while there are to be none.
    pub(super) fn refuses_allocations(&self) -> Option<ErrorCode> {
        self.closed.load(Ordering::Relaxed).then(|| self.terms().drain_error)
    }

    /// Holds a bound port until its token comes or it expires. Returns the token and when it expires.
    pub(super) fn reserve(&self, opened: Opened, quota: QuotaLease, now: Time, rng: &mut StdRng) -> ([u8; 8], Time) {
        let mut token = [0; 8];
        rng.fill_bytes(&mut token);
        let expires = now + self.terms().reservation_lifetime;
        lock(&self.reservations).insert(token, Reservation { opened, quota, expires });
        (token, expires)
    }

    /// Takes what is held under this token; a token serves once.
    pub(super) fn redeem(&self, token: [u8; 8], now: Time) -> Option<Reservation> {
        let taken = lock(&self.reservations).remove(&token);
        taken.filter(|reservation| reservation.expires > now)
    }

    /// Lets go of a reservation whose token nobody will be told.
    pub(super) fn cancel(&self, token: [u8; 8]) {
        let cancelled = lock(&self.reservations).remove(&token);
        // The socket is closed here, after the lock is released.
        drop(cancelled);
    }

    /// Lets go of reservations that nobody redeemed; returns when the next one expires.
    pub(super) fn expire_reservations(&self, now: Time) -> Option<Time> {
        let mut reservations = lock(&self.reservations);
        let expired: Vec<_> = reservations.extract_if(|_, reservation| reservation.expires <= now).collect();
        let next = reservations.values().map(|reservation| reservation.expires).min();
        drop(reservations);
        // Sockets are closed here, after the lock is released.
        drop(expired);
        next
    }

    /// Counts one more connection from this address's prefix, if the limits allow it. Without an address it is one whose
    /// source is not known yet, to be [charged](ConnectionLease::charge) later.
    pub(super) fn take_connection(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<ConnectionLease> {
        {
            let mut connections = lock(&self.connections);
            if connections.total >= self.terms().max_connections {
                return None;
            }
            connections.total += 1;
        }
        let mut lease = ConnectionLease { shared: Arc::clone(self), source: None };
        ip.is_none_or(|ip| lease.charge(ip)).then_some(lease)
    }

    /// What counts as one source, as for the rate limits. An IPv4-mapped address is its IPv4 address.
    fn source(&self, ip: IpAddr) -> IpNet {
        let ip = ip.to_canonical();
        let terms = self.terms();
        let prefix = if ip.is_ipv4() { terms.ipv4_prefix } else { terms.ipv6_prefix };
        IpNet::new(ip, prefix).map_or(ip.into(), |net| net.trunc())
    }
}

/// One connection's place in the limits; given back when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionLease {
    shared: Arc<Shared>,
    /// The prefix that it is counted for, once it is known.
    source: Option<IpNet>,
}

impl ConnectionLease {
    /// Counts the connection for this address's prefix, if the limit allows it.
    pub(super) fn charge(&mut self, ip: IpAddr) -> bool {
        let source = self.shared.source(ip);
        let mut connections = lock(&self.shared.connections);
        let count = connections.by_source.get(&source).copied().unwrap_or(0);
        if self.source.is_some() || count >= self.shared.terms().max_connections_per_ip {
            return false;
        }
        connections.by_source.insert(source, count + 1);
        self.source = Some(source);
        true
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        let mut connections = lock(&self.shared.connections);
        connections.total = connections.total.saturating_sub(1);
        let Some(source) = self.source else { return };
        if let Some(count) = connections.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                connections.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};

    #[test]
    fn connections_are_counted_by_source_prefix() {
        let text = "[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n[tcp]\nmax-connections-per-ip = 2\n\
                    [limits]\nsource-prefix-ipv4 = 24\nsource-prefix-ipv6 = 56\n";
        let settings = config::parse(text, "t.toml", &Host::detect().unwrap()).unwrap().settings;
        let shared = Shared::new(&settings, &PeerRules::new(&settings.peers, &[], 0..=0, &[], &[]), 1);
        let take = |ip: &str| shared.take_connection(Some(ip.parse().unwrap()));
        let mut leases = Vec::new();
        for [first, second, refused, other] in [
            ["2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:7::2", "2001:db8:0:100::1"],
            ["192.0.2.1", "192.0.2.255", "::ffff:192.0.2.7", "192.0.3.1"],
        ] {
            leases.extend([first, second, other].map(|ip| take(ip).expect(ip)));
            assert!(take(refused).is_none(), "{refused}");
        }
        let late = |ip: &str| {
            let mut lease = shared.take_connection(None).unwrap();
            lease.charge(ip.parse().unwrap()).then_some(lease)
        };
        assert!(late("192.0.2.9").is_none());
        leases.push(late("192.0.3.2").expect("there is room for one more"));
        assert!(take("192.0.3.3").is_none());
        leases.clear();
        assert_eq!(lock(&shared.connections).total, 0);
        assert!(lock(&shared.connections).by_source.is_empty());
        assert!(take("192.0.2.1").is_some());
    }
}
