//! The circuit breaker: when a store that fails is left alone, and when it is asked again. Time is passed in.
//!
//! Closed, questions are asked. After some failures in a row it opens: questions are refused at once, so that whoever asks
//! is not kept waiting and the store not pressed. After a pause one probe decides: if it fails, the next pause is twice as
//! long; if it is answered, questions are asked again, but the first that fails opens it at once, with the longer pause.
//! Only an answered question makes everything well.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Whether a store is asked.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// How long the next pause is.
    pause: Duration,
    max_failures: u32,
    max_pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Questions are asked; so many in a row have failed.
    Closed { failures: u32 },
    /// None are asked until then.
    Open { until: Instant },
}

impl Breaker {
    /// Opens after `max_failures` failures in a row (at least one) and pauses for at most `max_pause`.
    pub fn new(max_failures: u32, max_pause: Duration) -> Self {
        let max_failures = max_failures.max(1);
        Self { state: State::Closed { failures: 0 }, pause: FIRST_PAUSE.min(max_pause), max_failures, max_pause }
    }

    /// Whether questions are asked.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// When the next probe is due; `None` if questions are asked.
    pub fn probe_due(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } => None,
        }
    }

    /// A question was answered. True if that closes it.
    pub fn succeeded(&mut self) -> bool {
        let closes = !self.is_closed();
        self.state = State::Closed { failures: 0 };
        self.pause = FIRST_PAUSE.min(self.max_pause);
        closes
    }

    /// A question failed. True if that opens it.
    pub fn failed(&mut self, now: Instant) -> bool {
        let State::Closed { failures } = self.state else { return false };
        if failures + 1 < self.max_failures {
            self.state = State::Closed { failures: failures + 1 };
            return false;
        }
        self.open(now);
        true
    }

    /// A probe was answered: questions are asked again, on trial.
    pub fn probe_succeeded(&mut self) {
        if !self.is_closed() {
            self.state = State::Closed { failures: self.max_failures - 1 };
        }
    }

    /// A probe failed.
    pub fn probe_failed(&mut self, now: Instant) {
        self.open(now);
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now + self.pause };
        self.pause = (self.pause * 2).min(self.max_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_PAUSE: Duration = Duration::from_secs(3);

    fn pause(breaker: &Breaker, now: Instant) -> u128 {
        (breaker.probe_due().unwrap() - now).as_millis()
    }

    #[test]
    fn some_failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(3, MAX_PAUSE));
        for _ in 0..5 {
            assert!(!breaker.failed(now) && !breaker.failed(now));
            assert!(!breaker.succeeded() && breaker.is_closed());
        }
        assert!(!breaker.failed(now) && !breaker.failed(now) && breaker.failed(now));
        assert!(!breaker.is_closed());
        // Those that were on their way change nothing more.
        assert!(!breaker.failed(now + MAX_PAUSE));
        assert_eq!(pause(&breaker, now), 500);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(1, MAX_PAUSE));
        assert!(breaker.failed(now));
        let mut pauses = vec![pause(&breaker, now)];
        for _ in 0..4 {
            breaker.probe_failed(now);
            pauses.push(pause(&breaker, now));
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 3_000, 3_000]);
    }

    #[test]
    fn after_a_probe_one_failure_opens_it_again_for_longer_and_one_answer_makes_all_well() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(3, MAX_PAUSE));
        for _ in 0..3 {
            breaker.failed(now);
        }
        breaker.probe_succeeded();
        assert!(breaker.is_closed() && breaker.probe_due().is_none());
        assert!(breaker.failed(now));
        assert_eq!(pause(&breaker, now), 1_000);
        breaker.probe_succeeded();
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(now) && !breaker.failed(now) && breaker.failed(now));
        assert_eq!(pause(&breaker, now), 500);
    }

    #[test]
    fn a_late_answer_closes_it() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(1, MAX_PAUSE));
        assert!(breaker.failed(now) && breaker.succeeded() && breaker.is_closed());
    }

    #[test]
    fn a_longest_pause_below_the_first_holds() {
        let (now, mut breaker) = (Instant::now(), Breaker::new(1, Duration::from_millis(50)));
        assert!(breaker.failed(now));
        assert_eq!(pause(&breaker, now), 50);
    }
}
