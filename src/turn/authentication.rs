//! The long-term credential mechanism, server side (RFC 8489 §9.2.4), in the order that the RFC gives its checks.

use std::sync::Arc;

use super::{FiveTuple, Rules, Time, nonce::Nonces};
use crate::stun::{AttributeType, IntegrityKey, MacAlgorithm, Message, PasswordAlgorithm};

/// Who a request says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'m> {
    /// USERNAME.
    Name(&'m str),
    /// USERHASH: SHA-256(user ":" realm) (RFC 8489 §14.4).
    Hash(&'m [u8; 32]),
}

/// The question that the protocol asks about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'m> {
    /// The user.
    pub identity: Identity<'m>,
    /// Which of the user's keys is needed.
    pub algorithm: PasswordAlgorithm,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, Copy)]
pub enum Answer<'c> {
    /// Not asked yet.
    Unasked,
    /// There is no such user, or the user has no such key.
    Unknown,
    /// The user's name and key.
    Known {
        /// The name, for quotas and logs.
        user: &'c Arc<str>,
        /// The long-term key.
        key: &'c [u8],
    },
}

/// A key that has verified a request.
#[derive(Debug, Clone)]
pub(super) struct CachedKey {
    algorithm: PasswordAlgorithm,
    mac: IntegrityKey,
}

/// Who made a request that passed all checks.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    /// The user; empty for an anonymous client.
    pub(super) user: Arc<str>,
    /// Signs the responses and is kept with the allocation; `None` for an anonymous client.
    pub(super) key: Option<CachedKey>,
}

impl Requester {
    /// The key that signs responses.
    pub(super) fn signing_key(&self) -> Option<IntegrityKey> {
        self.key.as_ref().map(|key| key.mac.clone())
    }
}

/// Why a request is not authenticated.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// 401 with a new nonce.
    Challenge,
    /// 400: attributes are missing or contradict each other.
    BadRequest,
    /// 438 with a new nonce: all is right but the nonce.
    StaleNonce,
}

/// What the checks came to.
#[derive(Debug)]
pub(super) enum Outcome<'m> {
    Passed(Requester),
    Ask(Query<'m>),
    Failed(Failure),
}

/// What authenticates requests, apart from the users.
pub(super) struct Authenticator {
    pub(super) nonces: Nonces,
    /// The value of PASSWORD-ALGORITHMS that goes out and must come back.
    pub(super) offered: Vec<u8>,
    /// Verified instead of an unknown user's key, so that the time taken tells nothing (H-12).
    decoy: [u8; 32],
}

impl Authenticator {
    pub(super) fn new(nonces: Nonces, rules: &Rules, decoy: &[u8; 32]) -> Self {
        Self { nonces, offered: PasswordAlgorithm::encode_list(&rules.password_algorithms), decoy: *decoy }
    }

    /// Runs the checks of RFC 8489 §9.2.4. `owner` is who made the allocation on the request's 5-tuple.
    pub(super) fn check<'m>(
        &self,
        message: &Message<'m>,
        tuple: &FiveTuple,
        owner: Option<&Requester>,
        answer: Answer<'_>,
        now: Time,
    ) -> Outcome<'m> {
        let mac_algorithm = if message.has(AttributeType::MESSAGE_INTEGRITY_SHA256) {
            MacAlgorithm::Sha256
        } else if message.has(AttributeType::MESSAGE_INTEGRITY) {
            MacAlgorithm::Sha1
        } else {
            return Outcome::Failed(Failure::Challenge);
        };
        let (username, userhash) = (message.get(AttributeType::USERNAME), message.get(AttributeType::USERHASH));
        let nonce = message.get(AttributeType::NONCE);
        let (Some(nonce), true, true) =
            (nonce, message.has(AttributeType::REALM), username.is_some() || userhash.is_some())
        else {
            return Outcome::Failed(Failure::BadRequest);
        };
        let Ok(chosen) = self.password_algorithm(message) else { return Outcome::Failed(Failure::BadRequest) };
        let algorithm = chosen.unwrap_or(PasswordAlgorithm::Md5);
        let signing = signing_algorithm(chosen);

        let identity = match (username, userhash) {
            (Some(name), _) => std::str::from_utf8(name).ok().map(Identity::Name),
            (None, Some(hash)) => hash.try_into().ok().map(Identity::Hash),
            (None, None) => None,
        };
        let Some(identity) = identity else { return Outcome::Failed(self.unknown_user(message, mac_algorithm)) };
        let kept = if mac_algorithm == signing { cached(owner, identity, algorithm, signing) } else { None };
        let requester = match (kept, answer) {
            (Some(requester), _) => requester,
            (None, Answer::Unasked) => return Outcome::Ask(Query { identity, algorithm }),
            (None, Answer::Unknown) => return Outcome::Failed(self.unknown_user(message, mac_algorithm)),
            (None, Answer::Known { user, key }) => Requester {
                user: Arc::clone(user),
                key: Some(CachedKey { algorithm, mac: IntegrityKey::new(mac_algorithm, key) }),
            },
        };
        if !requester.key.as_ref().is_some_and(|key| key.mac.verifies(message)) {
            return Outcome::Failed(Failure::Challenge);
        }
        if !self.nonces.is_valid(nonce, tuple, now) {
            return Outcome::Failed(Failure::StaleNonce);
        }
        Outcome::Passed(sign_with(signing, requester, answer))
    }

    /// The algorithm named by PASSWORD-ALGORITHM; `Ok(None)` if the request has neither it nor PASSWORD-ALGORITHMS.
    fn password_algorithm(&self, message: &Message<'_>) -> Result<Option<PasswordAlgorithm>, Failure> {
        let listed = message.get(AttributeType::PASSWORD_ALGORITHMS);
        let chosen = message.get(AttributeType::PASSWORD_ALGORITHM);
        let (Some(listed), Some(chosen)) = (listed, chosen) else {
            return if listed.is_none() && chosen.is_none() { Ok(None) } else { Err(Failure::BadRequest) };
        };
        let algorithm = PasswordAlgorithm::decode(chosen).ok_or(Failure::BadRequest)?;
        let is_offered = self.offered.chunks(4).any(|offered| offered == algorithm.encode());
        if listed != self.offered || !is_offered {
            return Err(Failure::BadRequest);
        }
        Ok(Some(algorithm))
    }

    fn unknown_user(&self, message: &Message<'_>, algorithm: MacAlgorithm) -> Failure {
        let key = IntegrityKey::new(algorithm, &self.decoy);
        let _ = std::hint::black_box(key.verifies(message));
        Failure::Challenge
    }
}

/// The owner of the allocation, if the request names the same user and is made the same way, so that the kept key serves
/// both to verify it and to sign its response.
fn cached(
    owner: Option<&Requester>,
    identity: Identity<'_>,
    algorithm: PasswordAlgorithm,
    mac_algorithm: MacAlgorithm,
) -> Option<Requester> {
    let owner = owner?;
    let key = owner.key.as_ref()?;
    let serves =
        identity == Identity::Name(&owner.user) && key.algorithm == algorithm && key.mac.algorithm() == mac_algorithm;
    serves.then(|| owner.clone())
}

/// Responses carry MESSAGE-INTEGRITY-SHA256 unless the request named no password algorithm (RFC 8489 §9.2.4).
const fn signing_algorithm(chosen: Option<PasswordAlgorithm>) -> MacAlgorithm {
    if chosen.is_some() { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 }
}

/// Changes the key of a requester who used the other integrity attribute than the response must carry.
fn sign_with(signing: MacAlgorithm, requester: Requester, answer: Answer<'_>) -> Requester {
    match (requester.key, answer) {
        (Some(key), Answer::Known { key: bytes, .. }) if key.mac.algorithm() != signing => Requester {
            user: requester.user,
            key: Some(CachedKey { algorithm: key.algorithm, mac: IntegrityKey::new(signing, bytes) }),
        },
        (key, _) => Requester { user: requester.user, key },
    }
}
