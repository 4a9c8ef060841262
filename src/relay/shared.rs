//! What all workers share: quotas, relay ports, reservations, connection counts. Small, explicit, never on the data path.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};

use super::ports::{PortLease, PortPool};
use crate::{
    config::settings::{RelayAddress, Settings, Tcp},
    policy::quota::Quotas,
    turn::Time,
};

/// A relay address with its free ports.
#[derive(Debug)]
pub(super) struct RelaySpace {
    pub(super) address: RelayAddress,
    pub(super) ports: PortPool,
}

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
    by_ip: HashMap<IpAddr, usize>,
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) relays: Vec<RelaySpace>,
    pub(super) relay_buffer: Option<usize>,
    reservation_lifetime: Duration,
    tcp: Tcp,
    quotas: Mutex<Quotas>,
    reservations: Mutex<HashMap<[u8; 8], Reservation>>,
    connections: Mutex<Connections>,
}

/// None of the locked values can be left half-changed by a panic: each is changed by one call that does not call out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let relay = &settings.relay;
        let relays = relay
            .addresses
            .iter()
            .map(|address| RelaySpace { address: *address, ports: PortPool::new(relay.min_port..=relay.max_port) })
            .collect();
        Arc::new(Self {
            relays,
            relay_buffer: relay.socket_buffer,
            reservation_lifetime: settings.lifetimes.reservation,
            tcp: settings.tcp.clone(),
            quotas: Mutex::new(Quotas::new(settings.limits.user_quota, settings.limits.total_quota)),
            reservations: Mutex::default(),
            connections: Mutex::default(),
        })
    }

    /// Counts one more allocation of this user, if the quotas allow it.
    pub(super) fn take_quota(self: &Arc<Self>, user: &Arc<str>) -> Option<QuotaLease> {
        lock(&self.quotas).try_take(user).ok()?;
        Some(QuotaLease { shared: Arc::clone(self), user: Arc::clone(user) })
    }

    /// Holds a bound port until its token comes or it expires. Returns the token and when it expires.
    pub(super) fn reserve(&self, opened: Opened, quota: QuotaLease, now: Time, rng: &mut StdRng) -> ([u8; 8], Time) {
        let mut token = [0; 8];
        rng.fill_bytes(&mut token);
        let expires = now + self.reservation_lifetime;
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

    /// Counts one more connection from this address, if the limits allow it.
    pub(super) fn take_connection(self: &Arc<Self>, ip: IpAddr) -> Option<ConnectionLease> {
        let mut connections = lock(&self.connections);
        let from_ip = connections.by_ip.get(&ip).copied().unwrap_or(0);
        if connections.total >= self.tcp.max_connections || from_ip >= self.tcp.max_connections_per_ip {
            return None;
        }
        connections.total += 1;
        connections.by_ip.insert(ip, from_ip + 1);
        Some(ConnectionLease { shared: Arc::clone(self), ip })
    }

    /// Where a datagram to `peer` goes: one to this server's own external address goes to the local address behind it,
    /// since the NAT in front need not send it back (both ends of a call on this server).
    pub(super) fn inward(&self, peer: SocketAddr) -> SocketAddr {
        self.translate(peer, |address| (address.external, address.local))
    }

    /// Who a datagram from `source` is from, in the addresses that clients know: the inverse of [`Shared::inward`].
    pub(super) fn outward(&self, source: SocketAddr) -> SocketAddr {
        self.translate(source, |address| (address.local, address.external))
    }

    fn translate(&self, address: SocketAddr, pair: impl Fn(&RelayAddress) -> (IpAddr, IpAddr)) -> SocketAddr {
        for relay in &self.relays {
            let (from, to) = pair(&relay.address);
            if from == address.ip() && from != to {
                return SocketAddr::new(to, address.port());
            }
        }
        address
    }
}

/// One allocation's place in the quotas; given back when this is dropped.
#[derive(Debug)]
pub(super) struct QuotaLease {
    shared: Arc<Shared>,
    user: Arc<str>,
}

impl QuotaLease {
    /// Whether this is a place of this user.
    pub(super) fn is_of(&self, user: &str) -> bool {
        *self.user == *user
    }
}

impl Drop for QuotaLease {
    fn drop(&mut self) {
        lock(&self.shared.quotas).give_back(&self.user);
    }
}

/// One connection's place in the limits; given back when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionLease {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        let mut connections = lock(&self.shared.connections);
        connections.total = connections.total.saturating_sub(1);
        if let Some(count) = connections.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                connections.by_ip.remove(&self.ip);
            }
        }
    }
}
