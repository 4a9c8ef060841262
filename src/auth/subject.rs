//! Who a verified request is from.

use std::sync::Arc;

/// The user that a request was verified for, with what limits and rules go by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The user name in OpaqueString form; empty for an anonymous client.
    pub user: Arc<str>,
    /// The realm in which the user is known.
    pub realm: Arc<str>,
    /// The key id inside a time-limited user name, if there is one.
    pub tenant: Option<Arc<str>>,
}
