//! Who a verified request is from.

use std::sync::Arc;

/// The holder of a credential: what quotas and limits count by, what logs name, what a revocation ends.
///
/// Shared by all that one login leads to, so that an allocation keeps a pointer and not three names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The user's name in OpaqueString form, without its realm, expiry or tenant; empty for an anonymous client.
    pub user: Arc<str>,
    /// The realm that the user belongs to, and whose rules hold.
    pub realm: Arc<str>,
    /// The tenant on whose behalf the credential was issued, if it names one.
    pub tenant: Option<Arc<str>>,
}

impl Subject {
    /// A user of a realm, of no tenant.
    pub fn new(user: impl Into<Arc<str>>, realm: impl Into<Arc<str>>) -> Self {
        Self { user: user.into(), realm: realm.into(), tenant: None }
    }
}
