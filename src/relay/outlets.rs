//! The outgoing sides of the connections of a worker's clients.

use std::{mem, task::Waker};

use slab::Slab;

use super::queue::{Queue, Spare};
use crate::turn::{Peak, Time};

/// The outgoing side of one connection.
#[derive(Debug)]
struct Outlet {
    queue: Queue,
    /// The connection's task.
    waker: Option<Waker>,
    /// The task has written all and does not know of what is queued from now on.
    sleeps: bool,
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
    pub(super) fn add(&mut self, queue: Queue) -> usize {
        let at = self.outlets.insert(Outlet { queue, waker: None, sleeps: false });
        self.peak.rise(self.outlets.len());
        at
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.outlets.remove(at);
        if self.peak.has_fallen(self.outlets.len()) {
            self.outlets.shrink_to_fit();
        }
    }

    /// A connection's queue, and memory for it.
    pub(super) fn queue(&mut self, at: usize) -> (&mut Queue, &mut Spare) {
        (&mut self.outlets[at].queue, &mut self.spare)
    }

    /// Whether so many responses wait that no more requests should be read.
    pub(super) fn is_stuffed(&self, at: usize) -> bool {
        self.outlets[at].queue.is_stuffed()
    }

    /// Queues a message of data, given in parts, if the connection still exists; returns how many were dropped for it, itself
    /// perhaps among them. The connection's task is woken once, however much is queued.
    pub(super) fn push_data(&mut self, at: usize, parts: [&[u8]; 3], now: Time) -> usize {
        let Some(outlet) = self.outlets.get_mut(at) else { return 0 };
        let dropped = outlet.queue.push_data(parts, now, &mut self.spare);
        if let (true, Some(waker)) = (mem::take(&mut outlet.sleeps), &outlet.waker) {
            waker.wake_by_ref();
        }
        dropped
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
