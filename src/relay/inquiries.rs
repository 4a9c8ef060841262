//! Requests that wait for a store of users ([`Slow`]): each worker keeps its own, bounded in number, bytes and time. The
//! questions go to one thread of all workers, and the answers come back as notices among the errands.
//!
//! Only clients that have shown that they receive at their address come as far as this (the protocol sees to it), and no more
//! of one source than it may draw challenges. A request that is sent again joins the one that waits. Whoever has an allocation
//! does not come by here: its key is kept with it.
//!
//! When there is no answer in time, or no room, the client gets a 500 at once: it may then try another server, which silence would
//! keep it from for half a minute.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    core::{Core, Outcome},
    errands::Notice,
    route::Way,
    shared::Shared,
};
use crate::{
    auth::{
        credential::{Credential, Query},
        directory::{Question, Slow, Unavailable},
    },
    stun::{Message, TransactionId},
    turn::{Answer, Client, FiveTuple, Time},
};

/// Requests that wait at most.
const MOST: usize = 1024;
/// Bytes that they have at most.
const MOST_BYTES: usize = 1 << 20;
/// How long one waits: less than it takes a client to give up on another server (RFC 8489 §6.2.1: 39.5 s).
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a store has said.
pub(super) type Found = Result<Vec<Credential>, Unavailable>;

/// A question on its way to the store.
#[derive(Debug)]
struct Asked {
    worker: u16,
    number: u64,
    question: Question,
}

/// Where a worker puts its questions.
#[derive(Debug, Clone)]
pub(super) struct Desk(mpsc::UnboundedSender<Asked>);

impl Desk {
    /// Starts the thread that asks the store; it ends with the last of the workers.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn open(store: Arc<dyn Slow>, shared: Arc<Shared>) -> io::Result<Self> {
        // What is on its way waits with some worker, and is bounded there.
        let (sender, questions) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("users".to_owned()).spawn(move || {
            runtime.block_on(serve(&store, &shared, questions));
            // A store that hangs holds nobody up.
            runtime.shutdown_background();
        })?;
        Ok(Self(sender))
    }
}

async fn serve(store: &Arc<dyn Slow>, shared: &Arc<Shared>, mut questions: mpsc::UnboundedReceiver<Asked>) {
    while let Some(Asked { worker, number, question }) = questions.recv().await {
        let due = Due { shared: Arc::clone(shared), worker, number, found: Err(Unavailable) };
        let store = Arc::clone(store);
        tokio::spawn(async move {
            due.give(tokio::time::timeout(PATIENCE, store.find(question)).await.unwrap_or(Err(Unavailable)));
        });
    }
}

/// An answer that is owed; given in any case, also when the store panics.
struct Due {
    shared: Arc<Shared>,
    worker: u16,
    number: u64,
    found: Found,
}

impl Due {
    fn give(mut self, found: Found) {
        self.found = found;
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        let found = std::mem::replace(&mut self.found, Err(Unavailable));
        self.shared.notify(self.worker, Notice::Answer(self.number, found));
    }
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    client: Client,
    bytes: Box<[u8]>,
    tos: u8,
    request: (FiveTuple, TransactionId),
}

/// The requests of one worker that wait. The default has nobody to ask.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    worker: u16,
    desk: Option<Desk>,
    waiting: HashMap<u64, Waiting>,
    by_request: HashMap<(FiveTuple, TransactionId), u64>,
    /// Until when each waits, in the order that they came; those that were answered are still here.
    order: VecDeque<(Time, u64)>,
    bytes: usize,
    next: u64,
}

impl Inquiries {
    /// `first` is a number that no earlier life of the worker has used.
    pub(super) fn new(worker: u16, desk: Option<Desk>, first: u64) -> Self {
        Self { worker, desk, next: first, ..Self::default() }
    }

    /// Whether there is a store.
    pub(super) const fn can_ask(&self) -> bool {
        self.desk.is_some()
    }

    /// Asks about a request, which waits until [`Core::answered`]. False if it cannot wait.
    pub(super) fn ask(&mut self, client: &Client, (bytes, tos): (&[u8], u8), query: &Query<'_>, now: Time) -> bool {
        let (Some(desk), Ok(message)) = (&self.desk, Message::parse(bytes)) else { return false };
        let request = (client.tuple, message.transaction_id());
        if self.by_request.contains_key(&request) {
            return true;
        }
        if self.waiting.len() >= MOST || self.bytes + bytes.len() > MOST_BYTES {
            return false;
        }
        let number = self.next;
        if desk.0.send(Asked { worker: self.worker, number, question: query.into() }).is_err() {
            return false;
        }
        self.next += 1;
        self.bytes += bytes.len();
        self.by_request.insert(request, number);
        self.order.push_back((now + PATIENCE, number));
        self.waiting.insert(number, Waiting { client: *client, bytes: bytes.into(), tos, request });
        true
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes one out.
    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.by_request.remove(&waiting.request);
        self.bytes -= waiting.bytes.len();
        if self.waiting.is_empty() {
            // A peak's memory is given back.
            (self.waiting, self.by_request, self.order) = Default::default();
        }
        Some(waiting)
    }

    /// When [`Core::expire_inquiries`] has something to do, at the latest.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.order.front().map(|(deadline, _)| *deadline)
    }

    /// The number of one that has waited too long.
    fn overdue(&mut self, now: Time) -> Option<u64> {
        while let Some((deadline, number)) = self.order.front().copied() {
            if deadline > now {
                return None;
            }
            self.order.pop_front();
            if self.waiting.contains_key(&number) {
                return Some(number);
            }
        }
        None
    }
}

impl Core {
    /// Goes on with a request about which a store has answered. What is queued for peers must have left.
    pub(super) fn answered(&mut self, number: u64, found: &Found, now: Time) {
        let Some(Waiting { client, bytes, tos, .. }) = self.inquiries.take(number) else { return };
        if !self.is_connected(&client) {
            return;
        }
        self.tos = tos;
        let answer = match found {
            Ok(credentials) => Answer::Stored(credentials),
            Err(Unavailable) => Answer::Unavailable,
        };
        match self.answered_message(&client, &bytes, answer, now) {
            Outcome::Nothing if !self.server.has_effects() => {}
            // Its own worker makes it, when it is sent again.
            Outcome::Allocate(_) if Way::host(client.route).is_some() => {}
            outcome => {
                if let Some(len) = self.settle(&client, outcome, now) {
                    self.send_reply(&client, len);
                    self.dtls_was_useful(&client, now);
                }
            }
        }
    }

    /// Answers those that have waited too long.
    pub(super) fn expire_inquiries(&mut self, now: Time) {
        while let Some(number) = self.inquiries.overdue(now) {
            self.answered(number, &Err(Unavailable), now);
        }
        self.wake_workers();
    }
}
