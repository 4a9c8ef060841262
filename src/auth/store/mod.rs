//! Users and secrets that are kept elsewhere: in a database or behind an HTTP service.
//!
//! * [`Store`]: the narrow trait of whatever can be asked; [`Registry`]: of what the commands can write to, too.
//! * [`record`]: what a store answers with, and the texts that it is read from.
//! * [`guard`]: [`Stores`], what the rest of the server sees: a store behind a cache, time limits and a circuit breaker.
//!   [`cache`] and [`breaker`] are its pure parts, `question` what can be asked.
//! * [`logins`]: clients are let in by what is in a store. [`realms`]: limits and peers of realms that a store has.
//! * `sqlite`, `postgresql`, `mysql` with what they share in `sql`, `redis`, `hook`: the stores there are, each a feature.
//! * [`open`]: from the configuration to one of them.
//!
//! coturn's tables and Redis keys are read and written as they are, so that a database of coturn's is used unchanged.
//!
//! The invariants of this room: nothing here is on the way of a packet. A question has an end, whatever the store does.
//! What waits and what is kept is bounded. Keys and secrets are wiped when dropped and never show in debug output, errors
//! or logs; a password is never kept.

pub mod breaker;
pub mod cache;
pub mod guard;
#[cfg(feature = "http-store")]
pub mod hook;
pub mod logins;
#[cfg(feature = "mysql")]
pub mod mysql;
pub mod open;
#[cfg(feature = "postgresql")]
pub mod postgresql;
mod question;
pub mod realms;
pub mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "sqlite", feature = "postgresql", feature = "mysql"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::pin::Pin;

pub use self::{
    guard::{StoreCounts, Stores, Unavailable},
    record::{NamedSecret, PeerRules, RealmOptions, Record, TokenAlgorithm, TokenKey, UserName},
};
use super::key::LongTermKey;

/// What a store answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store has not answered. The texts hold neither keys nor passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or the connection broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It was reached and refuses: a wrong password, a missing table, no permission.
    #[error("refuses: {0}")]
    Refused(String),
    /// It answered, but what it holds makes no sense. Only this question is concerned.
    #[error("holds something that cannot be used: {0}")]
    Malformed(String),
}

/// What can be asked about users. Names and realms are in OpaqueString form and compared exactly.
pub trait Store: Send + Sync {
    /// The user of this name.
    fn user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, Option<Record>>;

    /// The secrets of time-limited credentials.
    fn secrets<'a>(&'a self, realm: &'a str) -> Answer<'a, Vec<NamedSecret>>;

    /// The key of access tokens (RFC 7635) with this key id.
    fn token_key<'a>(&'a self, kid: &'a str) -> Answer<'a, Option<TokenKey>>;

    /// The realms that have options, with them.
    fn realms(&self) -> Answer<'_, Vec<RealmOptions>>;

    /// Which peers clients of this realm may and may not reach.
    fn peer_rules<'a>(&'a self, realm: &'a str) -> Answer<'a, PeerRules>;

    /// Asks something small, to see whether questions are answered.
    fn probe(&self) -> Answer<'_, ()>;
}

/// What the commands do to a store.
pub trait Registry: Store {
    /// Makes what is missing for the others to work: the tables of a database.
    fn prepare(&self) -> Answer<'_, ()>;

    /// The users of a realm or of all, in order.
    fn users<'a>(&'a self, realm: Option<&'a str>) -> Answer<'a, Vec<UserName>>;

    /// Adds a user, or replaces the key of the one there is.
    fn put_user<'a>(&'a self, realm: &'a str, name: &'a str, md5: &'a LongTermKey) -> Answer<'a, ()>;

    /// Removes a user; false if there is none.
    fn remove_user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, bool>;

    /// Adds a secret, if it is not there already.
    fn add_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> Answer<'a, ()>;

    /// Removes a secret; false if there is none like it.
    fn remove_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> Answer<'a, bool>;
}
