//! Relay ports of one address: which are free, and leases that cannot be lost.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use rand::{Rng, RngExt};

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

/// The ports of one relay address, shared by all workers and used only when allocations come and go.
#[derive(Debug, Clone)]
pub(super) struct PortPool {
    free: Arc<Mutex<Free>>,
}

impl PortPool {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        let ports: Vec<u16> = range.clone().collect();
        #[allow(clippy::cast_possible_truncation)] // at most 65,536
        let places = (0..ports.len() as u32).collect();
        Self { free: Arc::new(Mutex::new(Free { first: *range.start(), ports, places })) }
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
        PortLease { pool: self.clone(), port }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        // No method can leave the two lists in disagreement by panicking half-way.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.pool.lock().give_back(self.port);
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
        let pool = PortPool::new(50_000..=50_099);
        for _ in 0..3 {
            let leases: Vec<_> = std::iter::from_fn(|| pool.take(false, &mut rng)).collect();
            let ports: Vec<u16> = leases.iter().map(PortLease::port).collect();
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 100);
            assert!(ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count() < 20, "{ports:?}");
        }
    }

    /// 8656-7.2-16, 8656-7.2-27, 8656-7.2-28, 8656-7.2-42
    #[test]
    fn even_ports_and_pairs() {
        let mut rng = StdRng::seed_from_u64(2);
        let pool = PortPool::new(50_001..=50_006);
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
