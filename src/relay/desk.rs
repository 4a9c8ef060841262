//! What management asks of a worker: questions wait on the worker's desk until it has a moment between two turns. A worker
//! looks at one flag per turn; no packet pays for being counted.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{core::Core, datagrams::Datagrams};
use crate::turn::{Time, Totals};

/// Questions that wait at most.
const ROOM: usize = 64;

/// A question, which answers itself. It must be answered in a moment: everybody else waits.
pub(super) type Question = Box<dyn FnOnce(&mut Core, &Datagrams, Time) + Send>;

/// The desk of one worker.
#[derive(Default)]
pub(super) struct Desk {
    /// There is a question.
    waiting: AtomicBool,
    questions: Mutex<Vec<Question>>,
    /// What the worker's earlier lives have counted.
    before: Mutex<Totals>,
    /// How many of its lives a bug has ended.
    failures: AtomicU64,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("questions", &lock(&self.questions).len()).finish_non_exhaustive()
    }
}

/// Every change of what is locked is complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Lays a question down; false if too many wait. The worker is to be woken.
    pub(super) fn ask(&self, question: Question) -> bool {
        let mut questions = lock(&self.questions);
        let has_room = questions.len() < ROOM;
        if has_room {
            questions.push(question);
            self.waiting.store(true, Ordering::Release);
        }
        has_room
    }

    /// Takes what waits.
    fn take(&self) -> Vec<Question> {
        if !self.waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut questions = lock(&self.questions);
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut *questions)
    }

    /// Forgets what was asked of an earlier life.
    pub(super) fn clear(&self) {
        drop(self.take());
    }

    /// Notes what a life has counted.
    pub(super) fn add(&self, totals: &Totals) {
        lock(&self.before).add(totals);
    }

    /// Notes that a bug has ended a life.
    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lives a bug has ended.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What earlier lives have counted.
    pub(super) fn before(&self) -> Totals {
        lock(&self.before).clone()
    }
}

/// Answers what management has asked. Nothing may be queued from before.
pub(super) fn answer(core: &mut Core, datagrams: &Datagrams, now: Time) {
    for question in core.shared.desks[usize::from(core.worker)].take() {
        question(core, datagrams, now);
    }
}
