//! Token buckets that several workers draw from at once, without a lock and without drift.
//!
//! A [`Bucket`] is a single number: the millisecond up to which what flows in has been handed out. With a rate of *r* per
//! second, a millisecond brings *r* thousandths of a token, so all arithmetic is exact. What lies further back than the burst has
//! flowed over. A bucket may be overdrawn into the future: by the one thing that was let through while there was something left,
//! however large it was; then nothing more is let through until time has made up for it.
//!
//! A worker takes whole milliseconds and keeps what it does not need as its [`Spare`], which nobody else writes. So workers meet
//! at the bucket no more than once in each of its milliseconds, whatever the packet rate is, and all that is ever let through
//! is what has flowed in, less what is kept (below a millisecond for each worker), plus at most one thing for each worker.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Tokens are counted in thousandths.
const TOKEN: u64 = 1000;

/// A token bucket for everybody.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens per second; the same number of thousandths per millisecond. At least 1.
    rate: u64,
    burst_ms: u64,
    /// What flows in up to this time has been handed out.
    until_ms: AtomicU64,
}

impl Bucket {
    /// A full bucket: `per_second` tokens flow in, and what flows in within `burst` may come at once.
    pub fn new(per_second: u64, burst: Duration) -> Self {
        let burst_ms = u64::try_from(burst.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { rate: per_second.max(1), burst_ms, until_ms: AtomicU64::new(0) }
    }

    /// Whether there is anything in it.
    pub fn has_some(&self, now_ms: u64) -> bool {
        self.until_ms.load(Relaxed) < now_ms
    }

    /// When there will be something in it, if nobody else takes any.
    pub fn next_ms(&self) -> u64 {
        self.until_ms.load(Relaxed).saturating_add(1)
    }

    /// Whether it has not been drawn from for as long as its burst.
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.until_ms.load(Relaxed) <= now_ms.saturating_sub(self.burst_ms)
    }

    /// How many tokens flow in within this time, at least one.
    pub fn within(&self, time: Duration) -> u64 {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (self.rate.saturating_mul(ms) / TOKEN).max(1)
    }

    /// Takes as many thousandths, and what there is more of them in the last millisecond. Overdraws it if need be.
    fn take(&self, thousandths: u64, now_ms: u64) -> u64 {
        let ms = thousandths.div_ceil(self.rate);
        let begin = now_ms.saturating_sub(self.burst_ms);
        let take = |until: u64| Some(until.max(begin).saturating_add(ms));
        // The closure never declines.
        let _ = self.until_ms.fetch_update(Relaxed, Relaxed, take);
        ms.saturating_mul(self.rate)
    }
}

/// What one worker has taken from a bucket and not used, in thousandths. Only that worker writes it.
#[derive(Debug, Default)]
pub struct Spare(AtomicU64);

impl Spare {
    /// Whether `tokens` may be spent now.
    pub fn may_spend(&self, tokens: u64, bucket: &Bucket, now_ms: u64) -> bool {
        self.0.load(Relaxed) >= tokens.saturating_mul(TOKEN) || bucket.has_some(now_ms)
    }

    /// Spends `tokens`, whether or not they may be.
    pub fn spend(&self, tokens: u64, bucket: &Bucket, now_ms: u64) {
        let cost = tokens.saturating_mul(TOKEN);
        let mut held = self.0.load(Relaxed);
        if held < cost {
            held = held.saturating_add(bucket.take(cost - held, now_ms));
        }
        self.0.store(held.saturating_sub(cost), Relaxed);
    }

    /// Whole tokens that are kept.
    pub fn held(&self) -> u64 {
        self.0.load(Relaxed) / TOKEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_790_000_000_000;
    const BURST: Duration = Duration::from_millis(200);

    /// Offers things of `size` tokens, `per_ms` of them each millisecond, by workers in turn; what was let through.
    fn flood(rate: u64, size: u64, per_ms: usize, workers: usize, ms: u64) -> u64 {
        let bucket = Bucket::new(rate, BURST);
        let spare: Vec<Spare> = (0..workers).map(|_| Spare::default()).collect();
        let mut passed = 0;
        for now in START..START + ms {
            for at in 0..per_ms {
                let spare = &spare[(at + now as usize) % workers];
                if spare.may_spend(size, &bucket, now) {
                    spare.spend(size, &bucket, now);
                    passed += size;
                }
            }
        }
        passed
    }

    #[test]
    fn ten_seconds_of_a_flood_come_to_the_rate_and_one_burst() {
        for workers in [1, 2, 8] {
            for (rate, size) in [(64_000, 1_280), (1_000_000, 9_600), (10_000_000, 12_000), (1_000_000_000, 12_000)] {
                let per_ms = usize::try_from(2 * rate / 1000 / size).unwrap().max(workers);
                let passed = flood(rate, size, per_ms, workers, 10_000);
                let most = rate * 10_200 / 1000 + size * workers as u64;
                let least = rate * 10_199 / 1000 - rate * workers as u64 / 1000 - size;
                assert!((least..=most).contains(&passed), "{rate} by {size}, {workers} workers: {passed}");
            }
        }
    }

    #[test]
    fn slow_rates_are_exact_too() {
        // 3 packets per second for an hour, by two workers; a burst of 200 ms is less than one packet.
        let passed = flood(3, 1, 2, 2, 3_600_000);
        assert!((10_799..=10_803).contains(&passed), "{passed}");
    }

    #[test]
    fn one_thing_larger_than_the_burst_passes_and_is_made_up_for() {
        let (bucket, spare) = (Bucket::new(8_000, BURST), Spare::default());
        assert!(spare.may_spend(64_000, &bucket, START));
        spare.spend(64_000, &bucket, START);
        // 8 seconds' worth, of which 200 ms were there.
        assert!(!spare.may_spend(1, &bucket, START + 7_800));
        assert_eq!(bucket.next_ms(), START + 7_801);
        assert!(spare.may_spend(1, &bucket, START + 7_801));
    }

    #[test]
    fn what_is_at_rest_gathers_no_more_than_the_burst() {
        let (bucket, spare) = (Bucket::new(1_000, BURST), Spare::default());
        for now in [START, START + 1_000_000] {
            let passed = (0..1000).filter(|_| {
                let may = spare.may_spend(1, &bucket, now);
                if may {
                    spare.spend(1, &bucket, now);
                }
                may
            });
            assert_eq!(passed.count(), 200);
            assert!(!bucket.is_full(now + 199) && bucket.is_full(now + 200));
        }
    }

    #[test]
    fn extreme_rates_sizes_and_times_do_not_overflow() {
        for rate in [0, 1, u64::MAX] {
            let (bucket, spare) = (Bucket::new(rate, Duration::MAX), Spare::default());
            for now in [0, u64::MAX, 1] {
                for tokens in [0, 1, u64::MAX] {
                    let _ = spare.may_spend(tokens, &bucket, now);
                    spare.spend(tokens, &bucket, now);
                }
            }
            assert!(bucket.within(Duration::MAX) > 0);
        }
    }

    /// Threads at once on one bucket: nothing is handed out twice.
    #[test]
    fn threads_together_take_no_more_than_flows_in() {
        let bucket = Bucket::new(1_000_000, BURST);
        let take = || {
            let spare = Spare::default();
            let mut passed = 0;
            for now in START..START + 2_000 {
                while spare.may_spend(100, &bucket, now) {
                    spare.spend(100, &bucket, now);
                    passed += 100;
                }
            }
            passed
        };
        let passed: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Each thread has its own time, so that what one lets flow over is lost for the others; never is there more.
        assert!(passed <= 2_200_000 + 4 * 1_100, "{passed}");
        assert!(passed >= 1_990_000, "{passed}");
    }

    proptest! {
        /// Whatever is offered, whenever, by whomever: what passes is bounded by what flows in, in any stretch of time.
        #[test]
        fn no_stretch_of_time_has_more_than_its_share(
            rate in 1u64..2_000_000,
            burst in 1u64..1_000,
            offers in proptest::collection::vec((0u64..300, 0usize..3, 1u64..20_000), 1..300),
        ) {
            let bucket = Bucket::new(rate, Duration::from_millis(burst));
            let spare: [Spare; 3] = Default::default();
            let (mut now, mut passed) = (START, Vec::new());
            for (pause, worker, tokens) in offers {
                now += pause;
                let spare = &spare[worker];
                if spare.may_spend(tokens, &bucket, now) {
                    spare.spend(tokens, &bucket, now);
                    passed.push((now, tokens));
                }
            }
            for (first, (begin, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end, tokens) in &passed[first..] {
                    let before = sum;
                    sum += tokens;
                    // Before the last one there was something left: not more had passed than had flowed in, but for what
                    // three workers kept.
                    let inflow = rate * (end - begin + burst) / 1000 + 3 * (rate / 1000 + 1) + 2 * 20_000;
                    prop_assert!(before <= inflow, "{before} of {inflow} between {begin} and {end}");
                }
            }
        }

        /// A worker that asks for more than flows in gets all of it.
        #[test]
        fn nothing_is_lost_for_whoever_keeps_asking(
            rate in 1_000u64..10_000_000,
            sizes in proptest::collection::vec(1u64..12_000, 1..20),
        ) {
            let (bucket, spare) = (Bucket::new(rate, BURST), Spare::default());
            let (mut passed, mut at) = (0, 0);
            for now in START..START + 20_000 {
                loop {
                    let size = sizes[at % sizes.len()];
                    if !spare.may_spend(size, &bucket, now) {
                        break;
                    }
                    spare.spend(size, &bucket, now);
                    passed += size;
                    at += 1;
                }
            }
            let inflow = rate * 20_199 / 1000;
            prop_assert!(passed + rate / 1000 + 1 + 12_000 >= inflow, "{passed} of {inflow}");
            prop_assert!(passed <= inflow + rate / 1000 + 1 + 12_000, "{passed} of {inflow}");
        }
    }
}
