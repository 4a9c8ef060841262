//! Who may: users and the keys that prove them.
//!
//! * [`subject`], [`credential`]: who a request is from, and what proves it; plain values that the other rooms keep.
//! * [`directory`]: the mechanisms of every realm, tried in order.
//! * `realm`: what the configured realms are, and what names and tokens say in them.
//! * [`users`]: the accounts of the configuration. [`rest`]: time-limited credentials. [`token`]: access tokens.
//! * [`mint`]: making time-limited credentials and telling clients of them.
//! * [`prepare`]: OpaqueString, the one form in which names, realms and passwords are compared and hashed.
//! * [`key`]: long-term keys and user hashes, computed from prepared strings.
//! * [`store`]: users that are kept elsewhere, in databases or behind an HTTP service; the only part that waits for anything.
//!
//! The invariant of this room: a user's password is never kept, only keys are; keys and secrets are wiped, and never show in
//! debug output. What must not be here: messages, nonces, MACs over packets (`stun`, `turn`); outside of [`store`] no sockets,
//! clocks, files.

pub mod credential;
pub mod directory;
pub mod key;
pub mod mint;
pub mod prepare;
mod realm;
pub mod rest;
pub mod store;
pub mod subject;
pub mod token;
pub mod users;
