//! The address that the world sees of a relay address, which may change while the server runs. Read for packets: without a lock.

use std::{
    hint,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

/// An address, and the one before: clients that were told that one go on with it.
#[derive(Debug)]
pub(super) struct External {
    /// Odd while the others are written.
    edition: AtomicU64,
    now: [AtomicU64; 2],
    before: [AtomicU64; 2],
}

impl External {
    pub(super) fn new(address: IpAddr) -> Self {
        let words = || split(address).map(AtomicU64::new);
        Self { edition: AtomicU64::new(0), now: words(), before: words() }
    }

    /// What clients are told.
    pub(super) fn now(&self) -> IpAddr {
        self.both()[0]
    }

    /// That, and what they were told before.
    pub(super) fn both(&self) -> [IpAddr; 2] {
        loop {
            let edition = self.edition.load(Acquire);
            let read = [&self.now, &self.before].map(|words| words.each_ref().map(|word| word.load(Relaxed)));
            fence(Acquire);
            if edition.is_multiple_of(2) && self.edition.load(Relaxed) == edition {
                return read.map(join);
            }
            hint::spin_loop();
        }
    }

    /// How often it has changed.
    pub(super) fn changes(&self) -> u64 {
        self.edition.load(Relaxed) / 2
    }

    /// Puts another in its place. One caller at a time.
    pub(super) fn set(&self, address: IpAddr) {
        let before = split(self.now());
        let edition = self.edition.load(Relaxed);
        self.edition.store(edition.wrapping_add(1), Relaxed);
        fence(Release);
        let write = |words: &[AtomicU64; 2], value: [u64; 2]| {
            words.iter().zip(value).for_each(|(word, value)| word.store(value, Relaxed));
        };
        write(&self.now, split(address));
        write(&self.before, before);
        self.edition.store(edition.wrapping_add(2), Release);
    }
}

/// The IPv4-mapped form stands for an IPv4 address; no external address is written in it.
fn split(address: IpAddr) -> [u64; 2] {
    let mapped = match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = mapped.to_bits();
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    [(bits >> 64) as u64, bits as u64]
}

fn join([high, low]: [u64; 2]) -> IpAddr {
    let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), |ip: Ipv4Addr| IpAddr::V4(ip))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn the_one_before_is_kept() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let external = External::new(ip("192.0.2.1"));
        assert_eq!(external.both(), [ip("192.0.2.1"); 2]);
        external.set(ip("198.51.100.7"));
        assert_eq!(external.both(), [ip("198.51.100.7"), ip("192.0.2.1")]);
        external.set(ip("2001:db8::1"));
        assert_eq!(external.both(), [ip("2001:db8::1"), ip("198.51.100.7")]);
    }

    #[test]
    fn nobody_sees_half_of_a_change() {
        let addresses = ["2001:db8:1:1:1:1:1:1", "2001:db8:2:2:2:2:2:2"].map(|text| text.parse::<IpAddr>().unwrap());
        let external = Arc::new(External::new(addresses[0]));
        let reader = {
            let external = Arc::clone(&external);
            thread::spawn(move || (0..200_000).all(|_| addresses.contains(&external.now())))
        };
        for round in 0..100_000 {
            external.set(addresses[round % 2]);
        }
        assert!(reader.join().unwrap());
    }
}
