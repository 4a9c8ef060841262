//! [`Stores`]: a store as the rest of the server sees it, behind a cache, time limits and a circuit breaker.
//!
//! Whatever the store does, a question is answered or refused within the time limit; questions that are the same are
//! joined; those that wait are bounded in number. A store that fails is left alone for a while ([`super::breaker`]), which is
//! logged once when it begins and once when it ends, and probed until it answers. What is in the cache is answered meanwhile.
//!
//! Questions are put by tasks of one runtime, on whose thread the connections live; whoever asks may be on any other.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Store, StoreError,
    breaker::Breaker,
    question::{Desks, Peers, Question, Realms, Secrets, Token, User},
    record::{NamedSecret, PeerRules, RealmOptions, Record, TokenKey},
};
use crate::config::settings::StoreLimits;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unavailable {
    /// The store has not answered within the time limit.
    #[error("the store has not answered in time")]
    TimedOut,
    /// The store cannot be reached, or refuses.
    #[error("the store fails")]
    Failed,
    /// The store has failed and is left alone for a moment.
    #[error("the store is left alone after failures")]
    Resting,
    /// Too many questions wait already.
    #[error("too many questions wait for the store")]
    Busy,
    /// What the store holds for this question makes no sense.
    #[error("the store's answer makes no sense")]
    Malformed,
}

/// What has been asked since the start, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Questions answered from the cache.
    pub cached: u64,
    /// Questions that joined one under way.
    pub joined: u64,
    /// Questions put to the store.
    pub asked: u64,
    /// Of those: answered.
    pub answered: u64,
    /// Of those: not answered within the time limit.
    pub timed_out: u64,
    /// Of those: failed.
    pub failed: u64,
    /// Of those: answered with something that makes no sense.
    pub malformed: u64,
    /// Refused, because the store was being left alone.
    pub refused_resting: u64,
    /// Refused, because too many waited.
    pub refused_busy: u64,
    /// How often the store has begun to fail.
    pub outages: u64,
    /// Whether it is being left alone now.
    pub resting: bool,
    /// Questions that wait now.
    pub waiting: usize,
    /// Users and token keys in the cache.
    pub kept: usize,
    /// Names and key ids in the cache that the store does not have.
    pub kept_absent: usize,
}

/// A store behind its guard. Copies are the same one.
#[derive(Clone)]
pub struct Stores(Arc<Shared>);

struct Shared {
    name: &'static str,
    store: Arc<dyn Store>,
    runtime: Handle,
    limits: StoreLimits,
    state: Mutex<State>,
    /// Ends the thread of the runtime when dropped, if that is the store's own.
    _thread: Option<oneshot::Sender<()>>,
}

struct State {
    desks: Desks,
    breaker: Breaker,
    counts: StoreCounts,
    /// A task is there that probes.
    probing: bool,
    /// When the store began to fail; `None` while all is well.
    failing_since: Option<Instant>,
    /// What made no sense last, and when that was logged.
    malformed: Option<(String, Instant)>,
}

/// How the same nonsense in a store is logged no more often than.
const NONSENSE_AGAIN: Duration = Duration::from_secs(600);
/// How any is logged no more often than.
const OTHER_NONSENSE: Duration = Duration::from_secs(10);

/// Why a question was not answered, with the store's own words.
enum Fault {
    TimedOut(Duration),
    Store(StoreError),
    /// The task that asked is gone: it has panicked, or the runtime ends.
    Abandoned,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {limit:?}"),
            Self::Store(error) => error.fmt(f),
            Self::Abandoned => f.write_str("the question was abandoned"),
        }
    }
}

impl Fault {
    fn for_the_asker(&self) -> Unavailable {
        match self {
            Self::TimedOut(_) => Unavailable::TimedOut,
            Self::Store(StoreError::Malformed(_)) => Unavailable::Malformed,
            Self::Store(_) | Self::Abandoned => Unavailable::Failed,
        }
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("name", &self.0.name).field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Stores {
    /// Guards `store`, called `name` in logs; questions are put on `runtime`.
    pub fn new(name: &'static str, store: Arc<dyn Store>, limits: StoreLimits, runtime: Handle) -> Self {
        Self::with_thread(name, store, limits, runtime, None)
    }

    /// The same, with what ends the thread of `runtime`.
    pub(super) fn with_thread(
        name: &'static str,
        store: Arc<dyn Store>,
        limits: StoreLimits,
        runtime: Handle,
        thread: Option<oneshot::Sender<()>>,
    ) -> Self {
        let state = State {
            desks: Desks::new(limits.cache_entries, limits.cache_time, limits.negative_cache_time),
            breaker: Breaker::new(limits.max_failures, limits.max_pause),
            counts: StoreCounts::default(),
            probing: false,
            failing_since: None,
            malformed: None,
        };
        Self(Arc::new(Shared { name, store, runtime, limits, state: Mutex::new(state), _thread: thread }))
    }

    /// Probes the store once, so that what is wrong is said at the start and not with the first login.
    pub async fn probe(&self) -> Result<(), Unavailable> {
        let (sender, receiver) = oneshot::channel();
        let shared = self.0.clone();
        self.0.runtime.spawn(async move {
            let outcome = shared.limited(shared.store.probe()).await;
            match &outcome {
                Ok(()) => shared.answered(),
                Err(fault) => shared.opened(fault),
            }
            let _ = sender.send(outcome.map_err(|fault| fault.for_the_asker()));
        });
        receiver.await.unwrap_or(Err(Unavailable::Failed))
    }

    /// The user of this name in this realm, both in OpaqueString form.
    pub async fn user(&self, realm: &str, name: &str) -> Result<Option<Arc<Record>>, Unavailable> {
        if !is_askable(realm) || !is_askable(name) {
            return Ok(None);
        }
        self.ask(User(realm.into(), name.into())).await
    }

    /// The secrets of time-limited credentials of this realm.
    pub async fn secrets(&self, realm: &str) -> Result<Arc<[NamedSecret]>, Unavailable> {
        self.ask(Secrets(realm.into())).await
    }

    /// The key of access tokens with this key id.
    pub async fn token_key(&self, kid: &str) -> Result<Option<Arc<TokenKey>>, Unavailable> {
        if !is_askable(kid) {
            return Ok(None);
        }
        self.ask(Token(kid.into())).await
    }

    /// The realms that have options, with them.
    pub async fn realms(&self) -> Result<Arc<[RealmOptions]>, Unavailable> {
        self.ask(Realms).await
    }

    /// Which peers clients of this realm may and may not reach.
    pub async fn peer_rules(&self, realm: &str) -> Result<Arc<PeerRules>, Unavailable> {
        self.ask(Peers(realm.into())).await
    }

    /// What it is called in logs.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What has been asked, and how it stands.
    pub fn counts(&self) -> StoreCounts {
        let state = self.0.state();
        let (kept, kept_absent) = state.desks.kept();
        StoreCounts { resting: !state.breaker.is_closed(), kept, kept_absent, ..state.counts }
    }

    /// The user of this name: asked of the store, whatever is in the cache, where the answer then stands.
    pub async fn user_now(&self, realm: &str, name: &str) -> Result<Option<Arc<Record>>, Unavailable> {
        if !is_askable(realm) || !is_askable(name) {
            return Ok(None);
        }
        self.ask_anew(User(realm.into(), name.into())).await
    }

    /// Forgets what the store has said: it is asked anew about everything.
    pub fn forget(&self) {
        let mut state = self.0.state();
        state.desks.forget();
    }

    /// The secrets of this realm, in the same way.
    pub async fn secrets_now(&self, realm: &str) -> Result<Arc<[NamedSecret]>, Unavailable> {
        self.ask_anew(Secrets(realm.into())).await
    }

    /// The key of access tokens with this key id, in the same way.
    pub async fn token_key_now(&self, kid: &str) -> Result<Option<Arc<TokenKey>>, Unavailable> {
        if !is_askable(kid) {
            return Ok(None);
        }
        self.ask_anew(Token(kid.into())).await
    }

    async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        {
            let mut state = self.0.state();
            let State { desks, counts, .. } = &mut *state;
            if let Some(answer) = Q::desk(desks).known(&question, Instant::now()) {
                counts.cached += 1;
                return Ok(answer);
            }
        }
        self.ask_anew(question).await
    }

    async fn ask_anew<Q: Question>(&self, question: Q) -> Result<Q::Answer, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.state();
            let State { desks, breaker, counts, .. } = &mut *state;
            let desk = Q::desk(desks);
            if counts.waiting >= self.0.limits.max_questions {
                counts.refused_busy += 1;
                return Err(Unavailable::Busy);
            }
            if let Some(waiters) = desk.asked.get_mut(&question) {
                counts.joined += 1;
                counts.waiting += 1;
                waiters.push(sender);
            } else if breaker.is_closed() {
                counts.asked += 1;
                counts.waiting += 1;
                desk.asked.insert(question.clone(), vec![sender]);
                drop(state);
                self.put(question);
            } else {
                counts.refused_resting += 1;
                return Err(Unavailable::Resting);
            }
        }
        receiver.await.unwrap_or(Err(Unavailable::Failed))
    }

    /// Puts a question to the store, in a task of its own: whoever asks may go away meanwhile.
    fn put<Q: Question>(&self, question: Q) {
        let ticket = Ticket { shared: self.0.clone(), question: Some(question.clone()) };
        self.0.runtime.spawn(async move {
            let shared = ticket.shared.clone();
            let outcome = shared.limited(question.ask(&*shared.store)).await;
            ticket.settle(outcome);
        });
    }
}

/// Whether a name can be in any store. What clients make up must not become an error of the store: databases have limits
/// of their own, and refuse what no name has in the prepared form.
fn is_askable(name: &str) -> bool {
    /// RFC 8489 §14.3: fewer than 509 bytes.
    const LONGEST: usize = 508;
    !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock, and what is in there is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn limited<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, Fault> {
        match timeout(self.limits.timeout, answer).await {
            Ok(outcome) => outcome.map_err(Fault::Store),
            Err(_) => Err(Fault::TimedOut(self.limits.timeout)),
        }
    }

    /// The store has answered.
    fn answered(&self) {
        let recovered = {
            let mut state = self.state();
            state.breaker.succeeded();
            state.failing_since.take()
        };
        if let Some(since) = recovered {
            self.log_recovery(since);
        }
    }

    /// A question has failed.
    fn failed(self: &Arc<Self>, fault: &Fault) {
        let opens = self.state().breaker.failed(Instant::now());
        if opens { self.begin_outage(fault) } else { tracing::debug!(store = self.name, %fault, "a question failed") }
    }

    /// The probe at the start has failed. Unless somebody was answered meanwhile, the store is not even there.
    fn opened(self: &Arc<Self>, fault: &Fault) {
        let is_there = {
            let mut state = self.state();
            let is_there = state.counts.answered > 0;
            if !is_there {
                if !state.breaker.is_closed() {
                    return;
                }
                state.breaker.probe_failed(Instant::now());
            }
            is_there
        };
        if is_there { self.failed(fault) } else { self.begin_outage(fault) }
    }

    /// Logs that the store fails, and begins to probe it.
    fn begin_outage(self: &Arc<Self>, fault: &Fault) {
        let probes = {
            let mut state = self.state();
            state.counts.outages += 1;
            state.failing_since.get_or_insert_with(Instant::now);
            !std::mem::replace(&mut state.probing, true)
        };
        tracing::error!(
            store = self.name, %fault,
            "the store fails: whoever needs it to log in is refused until it answers again; sessions go on"
        );
        if probes {
            self.runtime.spawn(probe_until_well(Arc::downgrade(self)));
        }
    }

    fn log_recovery(&self, since: Instant) {
        let after = since.elapsed().as_secs_f64();
        tracing::info!(store = self.name, after_seconds = (after * 10.0).round() / 10.0, "the store answers again");
    }

    /// Says what makes no sense, unless it has just been said.
    fn log_malformed(&self, what: &str) {
        let now = Instant::now();
        let mut state = self.state();
        // The texts may name whoever has asked, and be as many as somebody invents.
        let said = state
            .malformed
            .as_ref()
            .is_some_and(|(said, at)| now < *at + if said == what { NONSENSE_AGAIN } else { OTHER_NONSENSE });
        if !said {
            state.malformed = Some((what.to_owned(), now));
            drop(state);
            tracing::warn!(store = self.name, "the store holds something that cannot be used: {what}");
        }
    }

    /// When the next probe is due. `None` if none is needed any more, and then the task that probes ends.
    fn next_probe(&self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.breaker.probe_due();
        state.probing = due.is_some();
        due
    }

    async fn probe_once(&self) {
        match self.limited(self.store.probe()).await {
            Ok(()) => {
                let since = {
                    let mut state = self.state();
                    state.breaker.probe_succeeded();
                    state.failing_since.take()
                };
                if let Some(since) = since {
                    self.log_recovery(since);
                }
            }
            Err(fault) => {
                self.state().breaker.probe_failed(Instant::now());
                tracing::debug!(store = self.name, %fault, "the store still fails");
            }
        }
    }
}

/// Probes a store whenever that is due, until questions are asked again.
async fn probe_until_well(shared: Weak<Shared>) {
    loop {
        let Some(due) = shared.upgrade().and_then(|shared| shared.next_probe()) else { return };
        sleep_until(due).await;
        let Some(shared) = shared.upgrade() else { return };
        // A late answer may have made all well meanwhile.
        let due = shared.state().breaker.probe_due();
        if due.is_some_and(|due| due <= Instant::now()) {
            shared.probe_once().await;
        }
    }
}

/// A question under way: whatever becomes of it, those who wait are told.
struct Ticket<Q: Question> {
    shared: Arc<Shared>,
    /// `None` once it is settled.
    question: Option<Q>,
}

impl<Q: Question> Ticket<Q> {
    fn settle(mut self, outcome: Result<Q::Answer, Fault>) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Result<Q::Answer, Fault>) {
        let Some(question) = self.question.take() else { return };
        let shared = &self.shared;
        // The state of the breaker first: who is told of a failure and asks again finds it as it is.
        match &outcome {
            Ok(_) => shared.answered(),
            Err(Fault::Store(StoreError::Malformed(what))) => {
                // It has answered, after all.
                shared.answered();
                shared.log_malformed(what);
            }
            Err(fault) => shared.failed(fault),
        }
        let waiters = {
            let mut state = shared.state();
            let State { desks, counts, .. } = &mut *state;
            match &outcome {
                Ok(_) => counts.answered += 1,
                Err(Fault::TimedOut(_)) => counts.timed_out += 1,
                Err(Fault::Store(StoreError::Malformed(_))) => counts.malformed += 1,
                Err(Fault::Store(_) | Fault::Abandoned) => counts.failed += 1,
            }
            let desk = Q::desk(desks);
            let waiters = desk.asked.remove(&question).unwrap_or_default();
            counts.waiting -= waiters.len();
            if let Ok(answer) = &outcome {
                desk.keep(question, answer.clone(), Instant::now());
            }
            waiters
        };
        let told = outcome.map_err(|fault| fault.for_the_asker());
        for waiter in waiters {
            // Who has gone away needs no answer.
            let _ = waiter.send(told.clone());
        }
    }
}

impl<Q: Question> Drop for Ticket<Q> {
    fn drop(&mut self) {
        self.finish(Err(Fault::Abandoned));
    }
}

#[cfg(test)]
mod tests;
