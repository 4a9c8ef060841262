//! Relay ports of one address: which are free, and leases that cannot be lost.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use rand::{Rng, RngExt};

use crate::turn::RelayId;

/// The free ports, in no order, and where each of them stands, so that any can be taken in constant time.
#[derive(Debug)]
struct Free {
    first: u16,
    ports: Vec<u16>,
    /// By port minus `first`: the place in `ports`, or [`TAKEN`].
    places: Vec<u32>,
}

const TAKEN: u32 = u32::MAX;

impl Free {
    fn is_free(&self, port: u16) -> bool {
        port.checked_sub(self.first)
            .and_then(|offset| self.places.get(usize::from(offset)))
            .is_some_and(|place| *place != TAKEN)
    }

    fn take(&mut self, port: u16) {
        let offset = usize::from(port - self.first);
        let place = std::mem::replace(&mut self.places[offset], TAKEN) as usize;
        self.ports.swap_remove(place);
        if let Some(moved) = self.ports.get(place) {
            // A place is below the number of ports, 65,536 at most.
            #[allow(clippy::cast_possible_truncation)]
            {
                self.places[usize::from(moved - self.first)] = place as u32;
            }
        }
    }

    fn give_back(&mut self, port: u16) {
        #[allow(clippy::cast_possible_truncation)]
        let place = self.ports.len() as u32;
        self.places[usize::from(port - self.first)] = place;
        self.ports.push(port);
    }

    /// A random free port that fits (RFC 6056 §3.3.1: every fitting one equally likely, but for the neighbours of a run that
    /// does not fit).
    fn pick(&self, rng: &mut impl Rng, fits: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        if self.ports.is_empty() {
            return None;
        }
        let start = rng.random_range(0..self.ports.len());
        let (before, after) = self.ports.split_at(start);
        after.iter().chain(before).copied().find(|port| fits(self, *port))
    }
}

/// A relayed address: the number of the relay address among all, and the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) space: u16,
    pub(super) port: u16,
}

/// Who serves a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// The worker's number.
    pub(super) worker: u16,
    /// The relay socket among the worker's own.
    pub(super) relay: RelayId,
}

/// Where the space stands in the code of an owner: above 32 bits of the relay socket and 17 of the worker, plus one.
const SPACE_SHIFT: u32 = 49;

impl Owner {
    /// Never 0, which stands for nobody.
    fn encode(self, space: u16) -> u64 {
        u64::from(space) << SPACE_SHIFT | (u64::from(self.worker) + 1) << 32 | u64::from(self.relay.0)
    }

    /// The space, and who serves it.
    #[allow(clippy::cast_possible_truncation)] // all parts were put in by `encode`
    const fn decode(code: u64) -> Option<(u16, Self)> {
        let rest = code & ((1 << SPACE_SHIFT) - 1);
        match (rest >> 32).checked_sub(1) {
            Some(worker) => {
                Some(((code >> SPACE_SHIFT) as u16, Self { worker: worker as u16, relay: RelayId(code as u32) }))
            }
            None => None,
        }
    }
}

#[derive(Debug)]
struct Ports {
    first: u16,
    /// How many ports there are.
    size: usize,
    free: Mutex<Free>,
    /// By port minus `first`: who serves it, and for which space. Read for data between allocations of this server.
    owners: Box<[AtomicU64]>,
}

/// The ports of one relay address, shared by all workers and by the spaces with that address.
#[derive(Debug, Clone)]
pub(super) struct PortPool {
    space: u16,
    ports: Arc<Ports>,
    /// Ports that are in use, or reserved, for this space.
    leased: Arc<AtomicUsize>,
}

impl PortPool {
    /// Numbers of spaces are below.
    pub(super) const MOST_SPACES: u16 = 1 << (u64::BITS - SPACE_SHIFT);

    /// `space` is the number of the relay address; ports that do not `serve` are never taken.
    pub(super) fn new(space: u16, range: RangeInclusive<u16>, serve: impl Fn(u16) -> bool) -> Self {
        let first = *range.start();
        let owners = range.clone().map(|_| AtomicU64::new(0)).collect();
        let mut free = Free { first, ports: Vec::new(), places: vec![TAKEN; range.len()] };
        range.filter(|port| serve(*port)).for_each(|port| free.give_back(port));
        let size = free.ports.len();
        let free = Mutex::new(free);
        Self { space, ports: Arc::new(Ports { first, size, free, owners }), leased: Arc::default() }
    }

    /// The same ports for another space.
    pub(super) fn of_space(&self, space: u16) -> Self {
        Self { space, ports: Arc::clone(&self.ports), leased: Arc::default() }
    }

    /// Whether any port is in use, or reserved, for this space.
    pub(super) fn serves(&self) -> bool {
        self.leased.load(Ordering::Relaxed) > 0
    }

    /// Ports in use, and ports there are.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.ports.size.saturating_sub(self.lock().ports.len()), self.ports.size)
    }

    fn entry(&self, port: u16) -> Option<&AtomicU64> {
        self.ports.owners.get(usize::from(port.checked_sub(self.ports.first)?))
    }

    /// Who serves a port, if it is served. May be outdated where another worker does.
    pub(super) fn owner(&self, port: u16) -> Option<(Place, Owner)> {
        let (space, owner) = Owner::decode(self.entry(port)?.load(Ordering::Relaxed))?;
        Some((Place { space, port }, owner))
    }

    /// A random port; an even one if `even`.
    pub(super) fn take(&self, even: bool, rng: &mut impl Rng) -> Option<PortLease> {
        let mut free = self.lock();
        let port = free.pick(rng, |_, port| !even || port % 2 == 0)?;
        free.take(port);
        drop(free);
        Some(self.lease(port))
    }

    /// A random even port and the one above it.
    pub(super) fn take_pair(&self, rng: &mut impl Rng) -> Option<(PortLease, PortLease)> {
        let mut free = self.lock();
        let port = free.pick(rng, |free, port| port % 2 == 0 && port < u16::MAX && free.is_free(port + 1))?;
        free.take(port);
        free.take(port + 1);
        drop(free);
        Some((self.lease(port), self.lease(port + 1)))
    }

    fn lease(&self, port: u16) -> PortLease {
        self.leased.fetch_add(1, Ordering::Relaxed);
        PortLease { pool: self.clone(), port }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        // No method can leave the two lists in disagreement by panicking half-way.
        self.ports.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port that is in use; free again when this is dropped, whatever happens.
#[derive(Debug)]
pub(super) struct PortLease {
    pool: PortPool,
    port: u16,
}

impl PortLease {
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn place(&self) -> Place {
        Place { space: self.pool.space, port: self.port }
    }

    /// From now on this port is served, as long as the lease lives.
    pub(super) fn set_owner(&self, owner: Owner) {
        if let Some(entry) = self.pool.entry(self.port) {
            entry.store(owner.encode(self.pool.space), Ordering::Relaxed);
        }
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if let Some(entry) = self.pool.entry(self.port) {
            entry.store(0, Ordering::Relaxed);
        }
        self.pool.lock().give_back(self.port);
        self.pool.leased.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// 8656-6-01, 8656-7.2-33
    #[test]
    fn every_port_once_in_random_order_and_back() {
        let mut rng = StdRng::seed_from_u64(1);
        let pool = PortPool::new(0, 50_000..=50_099, |_| true);
        for _ in 0..3 {
            let leases: Vec<_> = std::iter::from_fn(|| pool.take(false, &mut rng)).collect();
            let ports: Vec<u16> = leases.iter().map(PortLease::port).collect();
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 100);
            assert_eq!(pool.usage(), (100, 100));
            assert!(ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count() < 20, "{ports:?}");
        }
    }

    #[test]
    fn ports_that_do_not_serve_are_never_taken() {
        let mut rng = StdRng::seed_from_u64(4);
        let pool = PortPool::new(0, 50_000..=50_005, |port| ![50_001, 50_004].contains(&port));
        let (pair, none) = (pool.take_pair(&mut rng).unwrap(), pool.take_pair(&mut rng));
        assert_eq!((pair.0.port(), none.is_none()), (50_002, true));
        let others: BTreeSet<_> = std::iter::from_fn(|| {
            pool.take(false, &mut rng).map(|lease| {
                let port = lease.port();
                std::mem::forget(lease);
                port
            })
        })
        .collect();
        assert_eq!(others, BTreeSet::from([50_000, 50_005]));
    }

    #[test]
    fn an_owner_is_known_as_long_as_the_lease() {
        let mut rng = StdRng::seed_from_u64(3);
        let pool = PortPool::new(3, 65_530..=65_535, |_| true);
        let lease = pool.take(false, &mut rng).unwrap();
        let (port, owner) = (lease.port(), Owner { worker: u16::MAX, relay: RelayId(u32::MAX) });
        assert_eq!(pool.owner(port), None);
        lease.set_owner(owner);
        assert_eq!(pool.owner(port), Some((Place { space: 3, port }, owner)));
        assert_eq!(pool.owner(65_529), None);
        drop(lease);
        assert_eq!(pool.owner(port), None);
    }

    /// 8656-7.2-16, 8656-7.2-27, 8656-7.2-28, 8656-7.2-42
    #[test]
    fn even_ports_and_pairs() {
        let mut rng = StdRng::seed_from_u64(2);
        let pool = PortPool::new(0, 50_001..=50_006, |_| true);
        let (low, high) = pool.take_pair(&mut rng).unwrap();
        assert_eq!((low.port() % 2, high.port()), (0, low.port() + 1));
        let pair = pool.take_pair(&mut rng).unwrap();
        // 50,006 is left without its upper half.
        assert!(pool.take_pair(&mut rng).is_none());
        let even = pool.take(true, &mut rng).unwrap();
        assert_eq!(even.port(), 50_006);
        assert!(pool.take(true, &mut rng).is_none());
        drop((low, high));
        assert!(pool.take_pair(&mut rng).is_some());
        drop((pair, even));
        assert_eq!(std::iter::from_fn(|| pool.take(false, &mut rng).map(std::mem::forget)).count(), 6);
    }
}
