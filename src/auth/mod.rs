//! Who may: users and the keys that prove them.
//!
//! * [`prepare`]: OpaqueString, the one form in which names, realms and passwords are compared and hashed.
//! * [`key`]: long-term keys and user hashes, computed from prepared strings.
//! * [`users`]: the accounts of the configuration.
//! * [`store`]: users that are kept elsewhere, in databases or behind an HTTP service; the only part that waits for anything.
//!
//! The invariant of this room: a password is never kept, only keys are, and keys never show in debug output.
//! What must not be here: messages, nonces, MACs over packets (`stun`, `turn`); outside of [`store`] no sockets, clocks, files.

pub mod key;
pub mod prepare;
pub mod store;
pub mod users;
