//! How often a busy worker looks at its sockets.
//!
//! A worker that is woken for each datagram pays a wake-up, and one pass through the kernel's network stack, for each. Under
//! load it therefore looks at its sockets at intervals and handles together what has gathered, as network cards do with their
//! interrupts. No clock and no sleep here: times are passed in, and the answer is how long to wait.

use std::time::{Duration, Instant};

/// Datagrams per second from which on a worker gathers. Below, each would wait for company that does not come.
const BUSY: u32 = 25_000;
/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_millis(1);

/// The pace of one worker.
#[derive(Debug)]
pub(super) struct Pace {
    /// Time between two looks while busy; `None` never waits.
    interval: Option<Duration>,
    /// Begin of the window, and the datagrams in it.
    window: Instant,
    datagrams: u32,
    /// When to look next, while busy.
    next: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(interval: Option<Duration>, now: Instant) -> Self {
        Self { interval, window: now, datagrams: 0, next: None }
    }

    /// Notes a turn that has handled so many datagrams; returns how long to wait before the next one. Sockets that the turn has
    /// not `drained` do not wait: with one batch per interval, what comes faster would be lost.
    pub(super) fn rest(&mut self, datagrams: usize, drained: bool, now: Instant) -> Option<Duration> {
        let interval = self.interval?;
        self.datagrams = self.datagrams.saturating_add(u32::try_from(datagrams).unwrap_or(u32::MAX));
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            let busy = Duration::from_secs(1) * self.datagrams >= elapsed * BUSY;
            self.next = busy.then(|| self.next.unwrap_or(self.window));
            (self.window, self.datagrams) = (now, 0);
        }
        if !drained {
            return None;
        }
        // Time lost is not made up for: a worker that is late looks at once, and from then on in intervals.
        let next = (self.next? + interval).max(now);
        self.next = Some(next);
        Some(next.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_micros(200);

    /// Turns of so many datagrams that leave none, each taking `each`; returns the rests.
    fn turns(pace: &mut Pace, now: &mut Instant, count: usize, datagrams: usize, each: Duration) -> Vec<Duration> {
        (0..count)
            .map(|_| {
                *now += each;
                let rest = pace.rest(datagrams, true, *now).unwrap_or_default();
                *now += rest;
                rest
            })
            .collect()
    }

    #[test]
    fn a_worker_with_little_to_do_never_waits() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(INTERVAL), now);
        // 10,000 datagrams per second, one at a time.
        let rests = turns(&mut pace, &mut now, 1000, 1, Duration::from_micros(100));
        assert!(rests.iter().all(Duration::is_zero));
    }

    #[test]
    fn a_busy_worker_looks_once_per_interval() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(INTERVAL), now);
        turns(&mut pace, &mut now, 20, 20, Duration::from_micros(120));
        let start = now;
        let rests = turns(&mut pace, &mut now, 100, 20, Duration::from_micros(120));
        assert!(rests.iter().all(|rest| *rest <= INTERVAL));
        assert_eq!((now - start).as_micros() / INTERVAL.as_micros(), 100);
    }

    #[test]
    fn an_overloaded_worker_does_not_wait() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(INTERVAL), now);
        let rests = turns(&mut pace, &mut now, 100, 64, Duration::from_micros(300));
        assert!(rests.iter().all(Duration::is_zero));
    }

    #[test]
    fn what_is_left_on_a_socket_does_not_wait() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(INTERVAL), now);
        turns(&mut pace, &mut now, 20, 20, Duration::from_micros(120));
        let start = now;
        // Two turns per interval, the first of which leaves something.
        for _ in 0..100 {
            now += Duration::from_micros(60);
            assert_eq!(pace.rest(32, false, now), None);
            turns(&mut pace, &mut now, 1, 10, Duration::from_micros(30));
        }
        assert_eq!((now - start).as_micros() / INTERVAL.as_micros(), 100);
    }

    #[test]
    fn the_wait_ends_with_the_load() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(INTERVAL), now);
        turns(&mut pace, &mut now, 20, 20, Duration::from_micros(100));
        now += Duration::from_secs(1);
        assert_eq!(pace.rest(1, true, now), None);
        assert!(turns(&mut pace, &mut now, 100, 1, Duration::from_millis(1)).iter().all(Duration::is_zero));
    }

    #[test]
    fn switched_off_it_never_waits() {
        let mut now = Instant::now();
        let mut pace = Pace::new(None, now);
        assert!(turns(&mut pace, &mut now, 100, 20, Duration::from_micros(10)).iter().all(Duration::is_zero));
    }
}
