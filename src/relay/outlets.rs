//! The outgoing sides of the connections of a worker's clients.

use std::{mem, task::Waker};

use slab::Slab;

use super::{
    queue::{Queue, Spare},
    tcp_relay::Bound,
};
use crate::turn::{FiveTuple, Peak, Time};

/// The outgoing side of one connection.
#[derive(Debug)]
struct Outlet {
    queue: Queue,
    /// Whose it is.
    tuple: FiveTuple,
    /// The connection's task.
    waker: Option<Waker>,
    /// The task has written all and does not know of what is queued from now on.
    sleeps: bool,
    /// The peer connection that it has been bound to: no more messages come, only data (RFC 6062 §5.4).
    bound: Option<Box<Bound>>,
}

impl Outlet {
    /// Wakes the connection's task once, if it does not know that there is more.
    fn wake(&mut self) {
        if let (true, Some(waker)) = (mem::take(&mut self.sleeps), &self.waker) {
            waker.wake_by_ref();
        }
    }
}

/// The outgoing sides of all connections of a worker, by number.
#[derive(Debug, Default)]
pub(super) struct Outlets {
    outlets: Slab<Outlet>,
    /// Memory for their queues.
    spare: Spare,
    /// Decides when the table gives memory back.
    peak: Peak,
}

impl Outlets {
    pub(super) fn add(&mut self, queue: Queue, tuple: FiveTuple) -> usize {
        let at = self.outlets.insert(Outlet { queue, tuple, waker: None, sleeps: false, bound: None });
        self.peak.rise(self.outlets.len());
        at
    }

    /// Forgets a connection. If it was bound: the peer connection, and what is still to be written before its data.
    pub(super) fn remove(&mut self, at: usize) -> Option<(Box<Bound>, Vec<u8>)> {
        let Outlet { mut queue, bound, .. } = self.outlets.remove(at);
        let bound = bound.map(|bound| (bound, queue.drain(&mut self.spare)));
        if self.peak.has_fallen(self.outlets.len()) {
            self.outlets.shrink_to_fit();
        }
        bound
    }

    /// Whether there (still) is a connection of this number and it is this client's.
    pub(super) fn is_of(&self, at: usize, tuple: &FiveTuple) -> bool {
        self.outlets.get(at).is_some_and(|outlet| outlet.tuple == *tuple)
    }

    /// A connection's queue, and memory for it.
    pub(super) fn queue(&mut self, at: usize) -> (&mut Queue, &mut Spare) {
        (&mut self.outlets[at].queue, &mut self.spare)
    }

    /// Binds a connection to a peer's, if it still exists; whether it does.
    pub(super) fn bind(&mut self, at: usize, bound: Bound) -> bool {
        let Some(outlet) = self.outlets.get_mut(at) else { return false };
        outlet.bound = Some(Box::new(bound));
        true
    }

    /// Whether a connection is bound to a peer's.
    pub(super) fn is_bound(&self, at: usize) -> bool {
        self.outlets[at].bound.is_some()
    }

    /// Whether so many responses wait that no more requests should be read, or nothing can be said any more.
    pub(super) fn is_stuffed(&self, at: usize) -> bool {
        self.outlets.get(at).is_none_or(|outlet| outlet.queue.is_stuffed())
    }

    /// Queues a message of data, given in parts, if the connection still exists; returns how many were dropped for it, itself
    /// perhaps among them. The connection's task is woken once, however much is queued.
    pub(super) fn push_data(&mut self, at: usize, parts: [&[u8]; 3], now: Time) -> usize {
        let Some(outlet) = self.outlets.get_mut(at) else { return 0 };
        let dropped = outlet.queue.push_data(parts, now, &mut self.spare);
        outlet.wake();
        dropped
    }

    /// Queues a message that never gives way, if the connection still exists.
    pub(super) fn push_control(&mut self, at: usize, bytes: &[u8], now: Time) {
        let Some(outlet) = self.outlets.get_mut(at) else { return };
        outlet.queue.push_control(bytes, now, &mut self.spare);
        outlet.wake();
    }

    /// The task of a connection has written all: it is to be woken when there is more.
    pub(super) fn sleep(&mut self, at: usize, waker: &Waker) {
        let outlet = &mut self.outlets[at];
        if !outlet.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            outlet.waker = Some(waker.clone());
        }
        outlet.sleeps = true;
    }

    /// The task of a connection waits until it can write: more in the queue changes nothing.
    pub(super) fn stay_awake(&mut self, at: usize) {
        self.outlets[at].sleeps = false;
    }
}
