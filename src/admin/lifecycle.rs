//! Serving, draining, stopping. While the server drains it takes no new sessions; those that there are go on until they end or
//! a deadline passes, and then the server stops. As long as it has not, draining can be undone.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::relay::Monitor;

/// Between two looks at how many sessions are left.
const LOOK: Duration = Duration::from_millis(100);

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It takes new sessions.
    Serving,
    /// It takes none.
    Draining(Drain),
    /// It is about to end.
    Stopping,
}

/// How the server drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) since: Instant,
    /// When the sessions that are left then are ended.
    pub(super) deadline: Option<Instant>,
    /// It goes on running when no session is left.
    pub(super) stays: bool,
    /// It was asked to end.
    terminated: bool,
}

/// What a signal that asks the process to end leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Sessions may go on for a while.
    Drains,
    /// The end, at once.
    Stops,
}

/// The life of a running server.
#[derive(Debug)]
pub struct Lifecycle {
    monitor: Monitor,
    /// How long draining may take.
    timeout: Mutex<Option<Duration>>,
    phase: Mutex<Phase>,
    changed: Notify,
}

impl Lifecycle {
    /// A server that serves. `timeout` is how long draining may take by default; `None` is as long as sessions go on, and makes
    /// [`Lifecycle::terminate`] stop at once.
    #[must_use]
    pub fn new(monitor: Monitor, timeout: Option<Duration>) -> Self {
        Self { monitor, timeout: Mutex::new(timeout), phase: Mutex::new(Phase::Serving), changed: Notify::new() }
    }

    /// Draining may take as long by default from now on; what has begun goes on as it has.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    fn timeout(&self) -> Option<Duration> {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // One value, set as a whole.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        *self.lock()
    }

    fn enter(&self, next: Phase) {
        {
            let mut phase = self.lock();
            if *phase == Phase::Stopping {
                return;
            }
            *phase = next;
            self.monitor.close(next != Phase::Serving);
        }
        self.changed.notify_one();
    }

    /// Drains for at most this time, or as long as is configured, and stops then, unless it is to stay.
    pub fn drain(&self, timeout: Option<Duration>, stays: bool) {
        self.begin(timeout.or(self.timeout()).filter(|_| !stays), stays, false);
    }

    /// A signal asks the process to end: drains for as long as is configured. Stops at once if that is not at all, or if it was
    /// asked before.
    pub fn terminate(&self) -> Next {
        let asked_before = matches!(self.phase(), Phase::Draining(Drain { terminated: true, .. }));
        match self.timeout() {
            Some(timeout) if !asked_before => {
                self.begin(Some(timeout), false, true);
                Next::Drains
            }
            _ => {
                self.stop();
                Next::Stops
            }
        }
    }

    fn begin(&self, timeout: Option<Duration>, stays: bool, terminated: bool) {
        let now = Instant::now();
        let since = match self.phase() {
            Phase::Draining(Drain { since, .. }) => since,
            Phase::Serving | Phase::Stopping => now,
        };
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let seconds = timeout.map(|timeout| timeout.as_secs_f64());
        tracing::info!(sessions = self.monitor.sessions(), seconds, stays, "draining: no new sessions");
        self.enter(Phase::Draining(Drain { since, deadline, stays, terminated }));
    }

    /// Takes new sessions again.
    pub fn undrain(&self) {
        if matches!(self.phase(), Phase::Draining(_)) {
            tracing::info!("serving new sessions again");
            self.enter(Phase::Serving);
        }
    }

    /// Whether new sessions are refused because the server is about to end, or because it was told so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(self.phase(), Phase::Draining(_))
    }

    /// Ends the server.
    pub fn stop(&self) {
        self.enter(Phase::Stopping);
    }

    /// Waits until the server is to end; says why.
    pub async fn ended(&self) -> &'static str {
        let mut was_empty = false;
        loop {
            let changed = self.changed.notified();
            match self.phase() {
                Phase::Stopping => return "told to stop",
                Phase::Serving | Phase::Draining(Drain { stays: true, .. }) => {
                    changed.await;
                    was_empty = false;
                }
                Phase::Draining(Drain { deadline, .. }) => {
                    let now = Instant::now();
                    if deadline.is_some_and(|deadline| deadline <= now) {
                        return "the time to drain is over";
                    }
                    // Seen twice: a request may have been on its way when it began.
                    let is_empty = self.monitor.sessions() == 0;
                    if is_empty && was_empty {
                        return "drained";
                    }
                    was_empty = is_empty;
                    let look = now + LOOK;
                    tokio::select! {
                        () = changed => was_empty = false,
                        () = sleep_until(deadline.map_or(look, |deadline| deadline.min(look))) => {}
                    }
                }
            }
        }
    }
}
