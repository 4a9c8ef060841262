//! What proves a request: a key, whose it is, and how long it is good for. Plain values, made by [`super::directory`] and the
//! stores, used by the protocol.

use std::{sync::Arc, time::Duration};

use super::{key::LongTermKey, subject::Subject};
use crate::stun::PasswordAlgorithm;

/// The place of a realm among those of the configuration; the default realm is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RealmId(pub u16);

impl RealmId {
    /// The realm of `[auth]`.
    pub const DEFAULT: Self = Self(0);

    /// As an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who a request says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity<'m> {
    /// USERNAME; with an access token, the id of the key that this is encrypted with (RFC 7635 §7).
    Name(&'m str),
    /// USERHASH: SHA-256(user ":" realm) (RFC 8489 §14.4).
    Hash(&'m [u8; 32]),
}

/// The question that the protocol asks about who made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'m> {
    /// The realm that the client was told.
    pub realm: RealmId,
    /// The user.
    pub identity: Identity<'m>,
    /// Which of the user's keys is needed.
    pub algorithm: PasswordAlgorithm,
    /// ACCESS-TOKEN (RFC 7635 §6.2).
    pub token: Option<&'m [u8]>,
}

/// One of the keys that a request may have been made with.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// The subject's realm.
    pub realm: RealmId,
    /// What the MAC of the request is computed with.
    pub key: LongTermKey,
    /// How long it is good for, if it is not for ever.
    pub term: Option<Term>,
    /// The name of the secret that it was made with, if it was: what a revocation of that secret ends.
    pub secret: Option<Arc<str>>,
    /// It comes out of an access token (RFC 7635), which names no user: any other token of the realm may take its place.
    pub bearer: bool,
    /// Tells the key of a user of a store from others that this user has or had; 0 for everybody else.
    pub mark: u64,
}

/// What a client has proved that it knows, as its sessions remember it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The password of this user, with the mark of the key ([`Credential::mark`]).
    Password(Arc<str>, u64),
    /// What was made with the secret of this name, or encrypted with the key of this id.
    Secret(Arc<str>),
}

/// How long a credential is good for, from the time at which it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Until it expires.
    pub left: Duration,
    /// How long allocations outlive it; nothing new is allocated in this time.
    pub grace: Duration,
}

impl Term {
    /// The term of what expires so many seconds after the UNIX epoch. `None` if that was before `now`, grace included.
    #[must_use]
    pub fn until(expires: u64, grace: Duration, now: Duration) -> Option<Self> {
        let expires = Duration::from_secs(expires);
        let over = now.saturating_sub(expires);
        (over <= grace && expires.saturating_add(grace) > now)
            .then(|| Self { left: expires.saturating_sub(now), grace: grace - over })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_with_its_grace() {
        let seconds = Duration::from_secs;
        let term = |expires, grace, now| Term::until(expires, seconds(grace), seconds(now));
        assert_eq!(term(100, 0, 40), Some(Term { left: seconds(60), grace: seconds(0) }));
        assert_eq!(term(100, 0, 100), None);
        assert_eq!(term(100, 30, 40), Some(Term { left: seconds(60), grace: seconds(30) }));
        assert_eq!(term(100, 30, 110), Some(Term { left: seconds(0), grace: seconds(20) }));
        assert_eq!(term(100, 30, 130), None);
        assert_eq!(term(u64::MAX, 30, 1).map(|term| term.grace), Some(seconds(30)));
        assert_eq!(term(u64::MAX, 0, 1).map(|term| term.left > seconds(1 << 60)), Some(true));
    }
}
