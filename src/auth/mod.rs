//! Who may: users and the keys that prove them.
//!
//! * [`prepare`]: OpaqueString, the one form in which names, realms and passwords are compared and hashed.
//! * [`key`]: long-term keys and user hashes, computed from prepared strings.
//! * [`subject`]: who a verified request is from.
//! * [`users`]: the accounts of the configuration.
//!
//! The invariant of this room: a password is never kept, only keys are, and keys never show in debug output.
//! What must not be here: messages, nonces, MACs over packets (`stun`, `turn`), sockets, clocks, files.

pub mod key;
pub mod prepare;
pub mod subject;
pub mod users;
