//! Ending sessions from outside: of a user, of everything that a secret has let in, or one alone.

use std::sync::Arc;

use super::{
    AllocationId, EndReason, Handle, Mechanism, Server, SessionView, Time, allocation::Allocation,
    authentication::Requester,
};
use crate::auth::credential::Proof;

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
    /// All that this has let in.
    Basis(Basis),
    /// Everything of a realm.
    Realm(Arc<str>),
    /// Whoever was not asked for credentials.
    Anonymous,
    /// All that any of these concerns.
    Any(Vec<Self>),
}

/// What lets clients in, as sessions remember it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The realm.
    pub realm: Arc<str>,
    /// What they have proved.
    pub proof: Proof,
}

impl Basis {
    /// What let the client of a session in; `None` if nobody was asked.
    #[must_use]
    pub fn of(session: &SessionView) -> Option<Self> {
        let proof = match &session.secret {
            Some(secret) => Proof::Secret(Arc::clone(secret)),
            None => Proof::Password(Arc::clone(&session.subject.user), session.mark),
        };
        let mechanism = Some(session.mechanism).filter(|mechanism| *mechanism != Mechanism::None)?;
        Some(Self { mechanism, realm: Arc::clone(&session.subject.realm), proof })
    }

    fn has_let_in(&self, owner: &Requester) -> bool {
        let is_proof = match (&self.proof, &owner.secret) {
            (Proof::Password(user, mark), None) => owner.subject.user == *user && owner.mark == *mark,
            (Proof::Secret(name), Some(secret)) => secret == name,
            _ => false,
        };
        is_proof && owner.mechanism() == self.mechanism && owner.subject.realm == self.realm
    }
}

impl Revocation {
    fn concerns(&self, allocation: &Allocation) -> bool {
        let owner = &allocation.owner;
        match self {
            Self::Session(id) => allocation.id == *id,
            Self::User { realm, user } => owner.subject.user == *user && owner.subject.realm == *realm,
            Self::Secret { realm, name } => owner.secret.as_ref() == Some(name) && owner.subject.realm == *realm,
            Self::Basis(basis) => basis.has_let_in(owner),
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
