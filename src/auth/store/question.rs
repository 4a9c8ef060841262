//! What can be asked of a store, each kind with its answers under way and its cache.

use std::{hash::Hash, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, Store, Unavailable,
    cache::Cache,
    record::{NamedSecret, PeerRules, RealmOptions, Record, TokenKey},
};

/// One kind of question.
pub(super) trait Question: Clone + Eq + Hash + Send + Sync + 'static {
    /// What it is answered with; cheap to copy.
    type Answer: Clone + Send + 'static;

    /// Where questions of this kind are kept.
    fn desk(desks: &mut Desks) -> &mut Desk<Self>;

    /// Puts it to a store.
    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer>;

    /// Whether the answer is that there is nothing.
    fn is_negative(answer: &Self::Answer) -> bool;
}

/// A user by realm and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct User(pub(super) Arc<str>, pub(super) Arc<str>);

/// The secrets of a realm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Secrets(pub(super) Arc<str>);

/// A token key by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Token(pub(super) Arc<str>);

/// The options of all realms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Realms;

/// The peer rules of a realm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Peers(pub(super) Arc<str>);

impl Question for User {
    type Answer = Option<Arc<Record>>;

    fn desk(desks: &mut Desks) -> &mut Desk<Self> {
        &mut desks.users
    }

    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer> {
        Box::pin(async move { Ok(store.user(&self.0, &self.1).await?.map(Arc::new)) })
    }

    fn is_negative(answer: &Self::Answer) -> bool {
        answer.is_none()
    }
}

impl Question for Secrets {
    type Answer = Arc<[NamedSecret]>;

    fn desk(desks: &mut Desks) -> &mut Desk<Self> {
        &mut desks.secrets
    }

    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer> {
        Box::pin(async move { Ok(store.secrets(&self.0).await?.into()) })
    }

    fn is_negative(answer: &Self::Answer) -> bool {
        answer.is_empty()
    }
}

impl Question for Token {
    type Answer = Option<Arc<TokenKey>>;

    fn desk(desks: &mut Desks) -> &mut Desk<Self> {
        &mut desks.tokens
    }

    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer> {
        Box::pin(async move { Ok(store.token_key(&self.0).await?.map(Arc::new)) })
    }

    fn is_negative(answer: &Self::Answer) -> bool {
        answer.is_none()
    }
}

impl Question for Realms {
    type Answer = Arc<[RealmOptions]>;

    fn desk(desks: &mut Desks) -> &mut Desk<Self> {
        &mut desks.realms
    }

    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer> {
        Box::pin(async move { Ok(store.realms().await?.into()) })
    }

    /// No options are options, too, and not asked for by whoever is not let in.
    fn is_negative(_: &Self::Answer) -> bool {
        false
    }
}

impl Question for Peers {
    type Answer = Arc<PeerRules>;

    fn desk(desks: &mut Desks) -> &mut Desk<Self> {
        &mut desks.peers
    }

    fn ask<'a>(&'a self, store: &'a dyn Store) -> Answer<'a, Self::Answer> {
        Box::pin(async move { Ok(Arc::new(store.peer_rules(&self.0).await?)) })
    }

    fn is_negative(_: &Self::Answer) -> bool {
        false
    }
}

/// Every kind of question.
pub(super) struct Desks {
    users: Desk<User>,
    secrets: Desk<Secrets>,
    tokens: Desk<Token>,
    realms: Desk<Realms>,
    peers: Desk<Peers>,
}

impl Desks {
    /// Desks that keep up to `entries` answers of each kind, found and not found apart.
    pub(super) fn new(entries: usize, time: Duration, negative_time: Duration) -> Self {
        Self {
            users: Desk::new(entries, time, negative_time),
            secrets: Desk::new(entries, time, negative_time),
            tokens: Desk::new(entries, time, negative_time),
            realms: Desk::new(entries, time, negative_time),
            peers: Desk::new(entries, time, negative_time),
        }
    }

    /// Forgets all answers.
    pub(super) fn forget(&mut self) {
        let Self { users, secrets, tokens, realms, peers } = self;
        users.forget();
        secrets.forget();
        tokens.forget();
        realms.forget();
        peers.forget();
    }

    /// Users and token keys that are kept, and names and ids that are known not to be there.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.users.found.len() + self.tokens.found.len(), self.users.absent.len() + self.tokens.absent.len())
    }
}

/// Who waits for the answer to a question.
type Waiters<A> = Vec<oneshot::Sender<Result<A, Unavailable>>>;

/// The questions of one kind.
pub(super) struct Desk<Q: Question> {
    /// Put to the store and not answered yet.
    pub(super) asked: HashMap<Q, Waiters<Q::Answer>>,
    found: Cache<Q, Q::Answer>,
    /// Kept apart, so that guessing names pushes out nobody who exists.
    absent: Cache<Q, Q::Answer>,
}

impl<Q: Question> Desk<Q> {
    fn new(entries: usize, time: Duration, negative_time: Duration) -> Self {
        Self { asked: HashMap::new(), found: Cache::new(entries, time), absent: Cache::new(entries, negative_time) }
    }

    /// An answer that is still good.
    pub(super) fn known(&self, question: &Q, now: Instant) -> Option<Q::Answer> {
        self.found.get(question, now).or_else(|| self.absent.get(question, now))
    }

    fn forget(&mut self) {
        self.found.clear();
        self.absent.clear();
    }

    /// Keeps an answer.
    pub(super) fn keep(&mut self, question: Q, answer: Q::Answer, now: Instant) {
        let (into, from) = if Q::is_negative(&answer) {
            (&mut self.absent, &mut self.found)
        } else {
            (&mut self.found, &mut self.absent)
        };
        from.remove(&question);
        into.insert(question, answer, now);
    }
}
