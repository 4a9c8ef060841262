//! The one clock: milliseconds since the UNIX epoch at start, then monotonic; and the one on the wall.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::turn::Time;

/// Turns the system's monotonic clock into the protocol's [`Time`]. A jump of the wall clock changes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    epoch_ms: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), epoch_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(0) }
    }

    pub(super) fn now(&self) -> Time {
        Time(self.epoch_ms) + self.start.elapsed()
    }

    /// What the clock on the wall says, since the UNIX epoch: for what somebody else has written a time on. Cold.
    pub(super) fn wall() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// When `time` will be.
    pub(super) fn instant(&self, time: Time) -> Instant {
        // Rounded up by a millisecond: what is due at `time` is due when a timer set to this fires.
        self.start + time.since(Time(self.epoch_ms)) + Duration::from_millis(1)
    }
}
