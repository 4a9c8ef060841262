//! What happens to sessions, told to whoever listens: each listener has room for so many events, and is told how many it has
//! missed. Where nobody listens, nothing is made.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::turn::{AllocationId, FiveTuple, SessionSummary, Subject, Time};

/// Events that wait for a slow listener before it misses the oldest.
const ROOM: usize = 1024;
/// Listeners at a time.
const LISTENERS: usize = 8;
/// Refusals that one worker tells of in a second; a flood of them is no news.
const REFUSALS: u32 = 100;

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// A session begins.
    Begins {
        /// Its id.
        id: AllocationId,
        /// Who it is of; the user is empty for an anonymous client.
        subject: Arc<Subject>,
        /// Its client.
        client: FiveTuple,
        /// Its relayed addresses, by family.
        relayed: [Option<SocketAddr>; 2],
    },
    /// A session has another client address (RFC 8016).
    Moves {
        /// Its id.
        id: AllocationId,
        /// Where its client was.
        from: FiveTuple,
        /// Where its client is.
        to: FiveTuple,
    },
    /// A session ends.
    Ends {
        /// What is left to say of it.
        summary: SessionSummary,
        /// The relayed addresses that it began with, by family.
        relayed: [Option<SocketAddr>; 2],
    },
    /// A request was answered with an error.
    Refused {
        /// Whose it was.
        client: FiveTuple,
        /// Its method.
        method: &'static str,
        /// The error.
        code: u16,
        /// Its reason phrase.
        reason: String,
        /// How many before it were not told of, as there were too many.
        untold: u64,
    },
}

/// An event and when it happened.
#[derive(Debug)]
pub struct Stamped {
    /// When.
    pub at: SystemTime,
    /// What.
    pub event: Event,
}

/// Where events are told.
#[derive(Debug)]
pub(super) struct Events {
    sender: broadcast::Sender<Arc<Stamped>>,
    listeners: AtomicUsize,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(ROOM), listeners: AtomicUsize::new(0) }
    }
}

impl Events {
    /// Whether anybody listens.
    pub(super) fn are_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells an event to whoever listens; it is made only for them.
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.are_heard() {
            // Fails if the last listener has just left.
            let _ = self.sender.send(Arc::new(Stamped { at: SystemTime::now(), event: event() }));
        }
    }

    /// Listens from now on; `None` if there are as many listeners as there may be.
    pub(super) fn listen(self: &Arc<Self>) -> Option<Listener> {
        let admitted = self.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |listeners| {
            (listeners < LISTENERS).then_some(listeners + 1)
        });
        admitted.ok()?;
        Some(Listener { receiver: self.sender.subscribe(), events: Arc::clone(self) })
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Stamped>>,
    events: Arc<Events>,
}

/// What a listener hears.
#[derive(Debug)]
pub enum Heard {
    /// What comes next.
    Event(Arc<Stamped>),
    /// It was too slow, and has missed so many.
    Missed(u64),
}

impl Listener {
    /// The next event; `None` when the server has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many refusals one worker has told of.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    second: u64,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// Whether to tell of another one, and how many before it were not told of.
    pub(super) fn admit(&mut self, now: Time) -> Option<u64> {
        let second = now.0 / 1000;
        if self.second != second {
            (self.second, self.told) = (second, 0);
        }
        if self.told >= REFUSALS {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Event {
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let client = FiveTuple { client: address, server: address, transport: crate::turn::Transport::Udp };
        Event::Refused { client, method: "Allocate", code: 401, reason: String::new(), untold: 0 }
    }

    #[test]
    fn events_are_made_only_where_somebody_listens_and_listeners_are_few() {
        let events = Arc::new(Events::default());
        events.tell(|| panic!("nobody listens"));
        let listeners: Vec<_> = std::iter::from_fn(|| events.listen()).take(100).collect();
        assert_eq!(listeners.len(), LISTENERS);
        drop(listeners);
        assert!(events.listen().is_some());
        assert!(!events.are_heard());
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told() {
        let events = Arc::new(Events::default());
        let mut slow = events.listen().unwrap();
        (0..ROOM + 7).for_each(|_| events.tell(refusal));
        assert!(matches!(slow.next().await, Some(Heard::Missed(7))));
        for _ in 0..ROOM {
            assert!(matches!(slow.next().await, Some(Heard::Event(_))));
        }
        events.tell(refusal);
        assert!(matches!(slow.next().await, Some(Heard::Event(_))));
    }

    #[test]
    fn a_flood_of_refusals_is_told_as_a_number() {
        let mut refusals = Refusals::default();
        let admitted = (0..250).filter(|_| refusals.admit(Time(5_000)).is_some()).count();
        assert_eq!(admitted, REFUSALS as usize);
        assert_eq!(refusals.admit(Time(6_000)), Some(150));
        assert_eq!(refusals.admit(Time(6_001)), Some(0));
    }
}
