//! Ending sessions from outside: of a user, of everything that a secret has let in, or one alone.

use std::sync::Arc;

use super::{AllocationId, EndReason, Handle, Server, Time, allocation::Allocation};

/// What is no longer allowed. It ends what has been made; what is made from now on is decided by whoever knows the users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One session.
    Session(AllocationId),
    /// All of a user.
    User {
        /// The user's realm.
        realm: Arc<str>,
        /// The user's name, without realm, expiry or tenant.
        user: Arc<str>,
    },
    /// All whose credentials were made with a secret, or tokens encrypted with a key.
    Secret {
        /// The realm of the secret.
        realm: Arc<str>,
        /// The name of the secret, or the key's id.
        name: Arc<str>,
    },
    /// All of a user that no secret has let in.
    Account {
        /// The user's realm.
        realm: Arc<str>,
        /// The user's name, without realm.
        user: Arc<str>,
    },
    /// Everything of a realm.
    Realm(Arc<str>),
    /// Whoever was not asked for credentials.
    Anonymous,
    /// All that any of these concerns.
    Any(Vec<Self>),
}

impl Revocation {
    fn concerns(&self, allocation: &Allocation) -> bool {
        let owner = &allocation.owner;
        match self {
            Self::Session(id) => allocation.id == *id,
            Self::User { realm, user } => owner.subject.user == *user && owner.subject.realm == *realm,
            Self::Secret { realm, name } => owner.secret.as_ref() == Some(name) && owner.subject.realm == *realm,
            Self::Account { realm, user } => {
                let is_by_account = owner.secret.is_none() && owner.key.is_some();
                is_by_account && owner.subject.user == *user && owner.subject.realm == *realm
            }
            Self::Realm(realm) => owner.subject.realm == *realm,
            Self::Anonymous => owner.key.is_none(),
            Self::Any(all) => all.iter().any(|one| one.concerns(allocation)),
        }
    }
}

impl Server {
    /// Ends the sessions that this concerns; returns how many. Looks at all of them.
    pub fn revoke(&mut self, revocation: &Revocation, now: Time) -> usize {
        let concerned = self.table.iter().filter(|(_, allocation)| revocation.concerns(allocation));
        let handles: Vec<Handle> = concerned.map(|(handle, _)| handle).collect();
        for handle in &handles {
            self.end(*handle, EndReason::Revoked, now);
        }
        handles.len()
    }
}
