//! Request rate per source prefix, for what is answered before anybody is authenticated (RFC 8489 §6.3.1).
//!
//! Sources can be forged, so nothing is stored per source (conformance H-16): all share one table of fixed size,
//! allocated when the limit is made, 2 rows of 4096 token buckets (64 KiB). A source hashes to one bucket in each row
//! by two independently seeded hashes. A packet conforms if either bucket has a token, and takes one from both, so a
//! source on its own is held to exactly its rate, and one is starved by others only if both its buckets are.
//!
//! With n prefixes above the rate at once, a given well-behaved prefix is starved with probability
//! (1 - (1 - 1/4096)^n)^2: 6e-8 for 1, 6e-6 for 10, 6e-4 for 100, 0.05 for 1000; the most that sharing the table costs.
//! Beyond several thousand the table drains as a whole: what is left then is a limit on all answers together
//! (at most 8192 times the rate), which is what a flood of forged sources calls for.

use std::{hash::BuildHasher, net::IpAddr};

use foldhash::quality::FixedState;

/// Buckets in each of the two rows; a power of two.
const ROW: usize = 4096;

/// Tokens are counted in thousandths: a rate per second is then the same number of thousandths per millisecond.
const TOKEN: u32 = 1000;

/// Keeps a full bucket (two seconds' worth, in thousandths) within `u32`.
const MAX_RATE: u32 = u32::MAX / TOKEN / 2;

/// At least this many packets may come at once.
const MIN_BURST: u32 = 10;

/// A limit on packets per second and source prefix.
#[derive(Debug)]
pub struct SourceRate {
    limit: Option<Table>,
    ipv4_mask: u32,
    ipv6_mask: u128,
}

impl SourceRate {
    /// A limit of `per_second` packets (`None`: unlimited, no memory) for each prefix of the given lengths in bits;
    /// twice as many, or 10 if that is more, may come at once. `seed` must be unknown to the outside.
    pub fn new(per_second: Option<u32>, ipv4_prefix: u8, ipv6_prefix: u8, seed: u64) -> Self {
        Self {
            limit: per_second.map(|rate| Table::new(rate.min(MAX_RATE), seed)),
            ipv4_mask: u32::MAX.checked_shl(32u32.saturating_sub(ipv4_prefix.into())).unwrap_or(0),
            ipv6_mask: u128::MAX.checked_shl(128u32.saturating_sub(ipv6_prefix.into())).unwrap_or(0),
        }
    }

    /// Counts one packet from `source` at `now_ms`; false if it exceeds the rate. An IPv4-mapped address is its IPv4
    /// address. Time that goes backwards refills nothing.
    pub fn allow(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let prefix = match source.to_canonical() {
            IpAddr::V4(ip) => (ip.to_bits() & self.ipv4_mask).into(),
            IpAddr::V6(ip) => ip.to_bits() & self.ipv6_mask,
        };
        let ipv6 = source.to_canonical().is_ipv6();
        self.limit.as_mut().is_none_or(|table| table.take((ipv6, prefix), now_ms))
    }
}

/// The shared buckets.
#[derive(Debug)]
struct Table {
    /// Thousandths of a token per millisecond.
    rate: u32,
    /// Thousandths of a token in a full bucket.
    full: u32,
    rows: [Row; 2],
}

#[derive(Debug)]
struct Row {
    hash: FixedState,
    buckets: Box<[Bucket]>,
}

/// One token bucket. Times are the low 32 bits of the milliseconds.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    filled_at: u32,
}

impl Table {
    fn new(rate: u32, seed: u64) -> Self {
        let full = rate.saturating_mul(2).max(MIN_BURST) * TOKEN;
        let row = |seed| Row {
            hash: FixedState::with_seed(seed),
            buckets: vec![Bucket { tokens: full, filled_at: 0 }; ROW].into_boxed_slice(),
        };
        // Any fixed odd constant makes the second seed another one.
        Self { rate, full, rows: [row(seed), row(seed ^ 0x9e37_79b9_7f4a_7c15)] }
    }

    fn take(&mut self, source: (bool, u128), now_ms: u64) -> bool {
        let Self { rate, full, rows } = self;
        let [first, second] = rows.each_mut().map(|row| {
            // Masked by the row's length, hence in bounds.
            let bucket = &mut row.buckets[row.hash.hash_one(source) as usize & (ROW - 1)];
            bucket.fill(*rate, *full, now_ms as u32);
            bucket
        });
        let conforms = first.tokens >= TOKEN || second.tokens >= TOKEN;
        if conforms {
            first.tokens = first.tokens.saturating_sub(TOKEN);
            second.tokens = second.tokens.saturating_sub(TOKEN);
        }
        conforms
    }
}

impl Bucket {
    /// Adds what has flowed in since the last time. Half the range of a `u32` counts as the future, so a bucket left
    /// alone for 25 to 50 days may get nothing the first time; it is filled from then on.
    fn fill(&mut self, rate: u32, full: u32, now: u32) {
        let elapsed = u32::try_from(now.wrapping_sub(self.filled_at).cast_signed()).unwrap_or(0);
        self.tokens = self.tokens.saturating_add(elapsed.saturating_mul(rate)).min(full);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    fn passed(limit: &mut SourceRate, source: IpAddr, times: impl Iterator<Item = u64>) -> usize {
        times.filter(|now| limit.allow(source, *now)).count()
    }

    #[test]
    fn a_single_source_is_held_to_burst_and_rate() {
        for (rate, burst) in [(1, 10), (5, 10), (50, 100), (400, 800)] {
            let mut limit = SourceRate::new(Some(rate), 32, 64, 7);
            let start = 1_000_000_007;
            // 1 packet per ms for 20 s.
            let all = passed(&mut limit, v4(0x0808_0808), start..start + 20_000);
            let expected = burst + 20 * rate as usize;
            assert!((expected - 1..=expected).contains(&all), "{rate}: {all}");
        }
    }

    #[test]
    fn at_its_rate_a_source_is_never_refused() {
        let mut limit = SourceRate::new(Some(100), 32, 64, 7);
        assert_eq!(passed(&mut limit, v4(1), (0..100_000).step_by(10)), 10_000);
    }

    #[test]
    fn unlimited_has_no_table() {
        let mut limit = SourceRate::new(None, 24, 64, 7);
        assert!(limit.limit.is_none());
        assert_eq!(passed(&mut limit, v4(1), std::iter::repeat_n(0, 10_000)), 10_000);
    }

    #[test]
    fn a_prefix_shares_and_an_ipv4_mapped_address_is_ipv4() {
        let mut limit = SourceRate::new(Some(1), 24, 64, 7);
        let mapped = |n: u32| IpAddr::V6(Ipv4Addr::from_bits(n).to_ipv6_mapped());
        for n in 0..10 {
            assert!(limit.allow(if n % 2 == 0 { v4(0x0808_0800 + n) } else { mapped(0x0808_0800 + n) }, 0));
        }
        assert!(!limit.allow(v4(0x0808_08ff), 0));
        assert!(!limit.allow(mapped(0x0808_08ff), 0));
        assert!(limit.allow(v4(0x0808_0900), 0));
        let v6 = |subnet: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, host));
        assert!((0..10).all(|host| limit.allow(v6(1, host), 0)));
        assert!(!limit.allow(v6(1, 10), 0));
        assert!(limit.allow(v6(2, 10), 0));
    }

    #[test]
    fn prefixes_of_no_bits_and_of_all_bits() {
        let mut all = SourceRate::new(Some(1), 0, 0, 7);
        assert!((0..10).all(|n| all.allow(v4(n << 28), 0)));
        assert!(!all.allow(v4(0xffff_ffff), 0));
        let mut each = SourceRate::new(Some(1), 255, 255, 7);
        assert!((0..20).all(|n| each.allow(v4(n), 0)));
    }

    #[test]
    fn attackers_starve_others_no_more_than_stated() {
        for (attackers, at_most) in [(10, 5), (100, 30), (1000, 700)] {
            let mut limit = SourceRate::new(Some(5), 32, 64, 42);
            for packet in 0..100 {
                for attacker in 0..attackers {
                    limit.allow(v4(0x0a00_0000 + attacker), packet);
                }
            }
            // 10,000 sources that come once each; each judged against the state that the attackers left.
            let refused = (0..10_000u32)
                .filter(|n| {
                    let table = limit.limit.as_ref().unwrap();
                    let source = (false, u128::from(0xc000_0000 + n));
                    table
                        .rows
                        .iter()
                        .all(|row| row.buckets[row.hash.hash_one(source) as usize & (ROW - 1)].tokens < TOKEN)
                })
                .count();
            assert!(refused <= at_most, "{attackers} attackers: {refused} of 10000 refused");
        }
    }

    #[test]
    fn h16_many_sources_leave_the_table_as_it_was() {
        let mut limit = SourceRate::new(Some(10), 32, 64, 42);
        let place = |limit: &SourceRate| {
            limit.limit.as_ref().unwrap().rows.each_ref().map(|row| (row.buckets.as_ptr(), row.buckets.len()))
        };
        let before = place(&limit);
        for source in 0..100_000 {
            limit.allow(v4(source), 0);
        }
        assert_eq!(place(&limit), before);
        assert_eq!(size_of::<Bucket>() * ROW * 2, 64 * 1024);
    }

    #[test]
    fn a_clock_going_backwards_neither_fills_nor_freezes() {
        let mut limit = SourceRate::new(Some(10), 32, 64, 7);
        let late = 5_000_000_000;
        assert_eq!(passed(&mut limit, v4(1), std::iter::repeat_n(late, 100)), 20);
        assert_eq!(passed(&mut limit, v4(1), (late - 10_000..late - 9_900).rev()), 0);
        // From the earlier time on it is filled as ever.
        assert_eq!(passed(&mut limit, v4(1), std::iter::repeat_n(late - 9_000, 100)), 10);
    }

    #[test]
    fn extreme_rates_and_times_do_not_overflow() {
        let mut limit = SourceRate::new(Some(u32::MAX), 32, 64, 7);
        for now in [0, u64::from(u32::MAX), u64::MAX, 1, u64::MAX / 2] {
            assert!(limit.allow(v4(1), now));
        }
        let mut none = SourceRate::new(Some(0), 32, 64, 7);
        assert_eq!(passed(&mut none, v4(1), 0..100_000), 10);
    }
}
