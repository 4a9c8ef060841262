//! The long-term credential mechanism, server side (RFC 8489 §9.2.4), in the order that the RFC gives its checks, and access
//! tokens (RFC 7635 §7), which take the place of user and password in it.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::fast::FixedState;

use super::{
    Client, Mechanism, Realm, Rules, Time,
    nonce::{self, Features, Nonces},
};
pub use crate::auth::{
    credential::{Credential, Identity, Query, RealmId, Term},
    subject::Subject,
};
use crate::stun::{AttributeType, IntegrityKey, MacAlgorithm, Message, PasswordAlgorithm};

/// What has less time left is over: LIFETIME counts whole seconds.
pub(super) const SHORTEST_TERM: Duration = Duration::from_secs(1);

/// The answer to a [`Query`].
#[derive(Debug, Clone, Copy)]
pub enum Answer<'c> {
    /// Not asked yet.
    Unasked,
    /// What the request may have been made with.
    Known {
        /// The keys, to be tried in this order; none if there is no such user.
        credentials: &'c [Credential],
        /// There may be others, for whom one has to ask and wait.
        more: bool,
    },
    /// What a store has said, which was asked after all that is known at once.
    Stored(&'c [Credential]),
    /// Whoever knows cannot be asked now.
    Unavailable,
}

/// A key that has verified a request.
#[derive(Debug, Clone)]
pub(super) struct CachedKey {
    /// A hash of the user as the request named it.
    identity: u64,
    algorithm: PasswordAlgorithm,
    mac: IntegrityKey,
}

/// Who made a request that passed all checks.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    /// The holder of the credential; its user is empty for an anonymous client.
    pub(super) subject: Arc<Subject>,
    /// Its realm.
    pub(super) realm: RealmId,
    /// Signs the responses and is kept with the allocation; `None` for an anonymous client.
    pub(super) key: Option<CachedKey>,
    /// When what it is allowed ends, grace included.
    pub(super) until: Time,
    /// The secret that the credential was made with.
    pub(super) secret: Option<Arc<str>>,
    bearer: bool,
    /// Tells the key from others of the same user.
    pub(super) mark: u64,
    mechanism: Mechanism,
}

impl Requester {
    /// Somebody who was not asked for credentials.
    pub(super) fn anonymous(subject: Arc<Subject>) -> Self {
        let (realm, mechanism) = (RealmId::DEFAULT, Mechanism::None);
        Self { subject, realm, key: None, until: Time(u64::MAX), secret: None, bearer: false, mark: 0, mechanism }
    }

    /// What let it in.
    pub(super) const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The key that signs responses.
    pub(super) fn signing_key(&self) -> Option<IntegrityKey> {
        self.key.as_ref().map(|key| key.mac.clone())
    }

    /// Whether what this one has made is the other's, too. Tokens name no user: a client that takes a new one, as it must when
    /// the old one expires, even with a key of another id, goes on with what it has (RFC 7635 §9).
    pub(super) fn is(&self, other: &Self) -> bool {
        self.subject == other.subject || self.bearer && other.bearer && self.realm == other.realm
    }

    /// Goes on with another's credential.
    pub(super) fn renew(&mut self, by: &Self) {
        let Self { subject: _, realm: _, key, until, secret, bearer, mark, mechanism } = by;
        (self.key, self.until) = (key.clone(), *until);
        (self.secret, self.bearer, self.mark, self.mechanism) = (secret.clone(), *bearer, *mark, *mechanism);
    }

    /// What is left of a lifetime that the rules grant: it ends with the credential.
    pub(super) fn lifetime(&self, granted: Duration, now: Time) -> Duration {
        if self.until == Time(u64::MAX) {
            return granted;
        }
        granted.min(Duration::from_secs(self.until.since(now).as_secs()))
    }
}

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// 401 with a new nonce.
    Challenge,
    /// 400: attributes are missing or contradict each other.
    BadRequest,
    /// 438 with a new nonce: all is right but the nonce.
    StaleNonce {
        /// The client has shown that it receives at its address: the allocation there is its own, or the nonce was good before.
        proved: bool,
    },
    /// 438 with a new nonce: nobody is looked up for a client that has not shown that it receives at its address.
    UnprovedAddress,
    /// 420: an access token where none was asked for (RFC 7635 §7).
    UnexpectedToken,
    /// 500: whoever knows the user cannot be asked.
    Unavailable,
}

/// What a request was proved with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A credential that is good.
    Good,
    /// One in its grace: it serves what it has made, and nothing new.
    Over,
}

/// What the checks came to.
#[derive(Debug)]
pub(super) enum Outcome<'m> {
    Passed(Requester, Proof),
    Ask(Query<'m>),
    /// Ask those for whose answer one has to wait.
    AskFurther(Query<'m>),
    Failed(Failure),
}

/// What is sent to clients of one realm, and must come back.
struct Challenge {
    /// The value of PASSWORD-ALGORITHMS.
    offered: Vec<u8>,
    features: Features,
    takes_hashes: bool,
    takes_tokens: bool,
    /// Those that go with what is offered.
    nonces: Nonces,
    /// Those that went with what was offered before.
    former: Option<(Nonces, Features)>,
}

impl Challenge {
    fn new(realm: &Realm, nonces: &Nonces) -> Self {
        let anonymity = if realm.user_hashes { nonce::USERNAME_ANONYMITY } else { 0 };
        let offered = PasswordAlgorithm::encode_list(&realm.password_algorithms);
        Self {
            features: nonce::features(nonce::PASSWORD_ALGORITHMS | anonymity),
            takes_hashes: realm.user_hashes,
            takes_tokens: realm.third_party.is_some(),
            nonces: nonces.bound_to(&offered),
            former: None,
            offered,
        }
    }
}

/// What authenticates requests, apart from the users.
pub(super) struct Authenticator {
    nonces: Nonces,
    /// By realm.
    challenges: Vec<Challenge>,
    /// Verified instead of an unknown user's key, so that the time taken tells nothing (H-12).
    decoy: [u8; 32],
    hasher: FixedState,
}

/// Everything about a request that bears on its authentication.
struct Claim<'m> {
    query: Query<'m>,
    nonce: &'m [u8],
    features: Features,
    /// The attribute that counts.
    mac: MacAlgorithm,
    /// The response's.
    signing: MacAlgorithm,
    /// A hash of the user as named.
    identity: u64,
}

impl Authenticator {
    pub(super) fn new(nonces: Nonces, rules: &Rules, decoy: &[u8; 32], seed: u64) -> Self {
        let challenges = rules.realms.iter().map(|realm| Challenge::new(realm, &nonces)).collect();
        Self { nonces, challenges, decoy: *decoy, hasher: FixedState::with_seed(seed) }
    }

    /// Goes on with other realms. Nonces stay good where the same is offered as before.
    pub(super) fn renew(&mut self, rules: &Rules) {
        self.nonces = self.nonces.lasting(rules.nonce_lifetime);
        let mut before = std::mem::take(&mut self.challenges).into_iter();
        let renewed = rules.realms.iter().map(|realm| {
            let (mut challenge, before) = (Challenge::new(realm, &self.nonces), before.next());
            let former = before.filter(|before| before.offered != challenge.offered);
            challenge.former = former.map(|former| (former.nonces, former.features));
            challenge
        });
        self.challenges = renewed.collect();
    }

    /// What clients of this realm are sent: PASSWORD-ALGORITHMS, and NONCE with its features.
    pub(super) fn challenge(&self, realm: RealmId) -> (&[u8], Features, &Nonces) {
        let challenge = self.challenges.get(realm.index());
        challenge.map_or((&[], Features::default(), &self.nonces), |to| (&to.offered, to.features, &to.nonces))
    }

    /// Whether access tokens serve where this realm is told.
    pub(super) fn takes_tokens(&self, realm: RealmId) -> bool {
        self.challenges.get(realm.index()).is_some_and(|to| to.takes_tokens)
    }

    /// Runs the checks of RFC 8489 §9.2.4. `owner` is who made the allocation on the request's 5-tuple.
    pub(super) fn check<'m>(
        &self,
        message: &Message<'m>,
        client: &Client,
        owner: Option<&Requester>,
        answer: Answer<'_>,
        now: Time,
    ) -> Outcome<'m> {
        let claim = match self.claim(message, client, owner, now) {
            Ok(claim) => claim,
            Err(failure) => return Outcome::Failed(failure),
        };
        if let Some(owner) = owner.filter(|owner| serves(owner, &claim)) {
            let verified = owner.key.as_ref().is_some_and(|key| key.mac.verifies(message));
            if !verified || owner.until.since(now) < SHORTEST_TERM {
                return Outcome::Failed(Failure::Challenge);
            }
            return self.check_nonce(&claim, client, now, (owner.clone(), Proof::Good), true);
        }
        let (credentials, more, stored) = match answer {
            Answer::Unasked => return Outcome::Ask(claim.query),
            Answer::Unavailable => return Outcome::Failed(Failure::Unavailable),
            Answer::Known { credentials, more } => (credentials, more, false),
            Answer::Stored(credentials) => (credentials, false, true),
        };
        let mechanism = |credential| if stored { Mechanism::Store } else { Mechanism::of(credential) };
        let verifies =
            |credential: &&Credential| IntegrityKey::new(claim.mac, credential.key.as_bytes()).verifies(message);
        let passed = credentials.iter().find(verifies);
        let passed = passed.and_then(|credential| accept(credential, mechanism(credential), &claim, now));
        match passed {
            Some(passed) => {
                let is_owner = owner.is_some_and(|owner| owner.is(&passed.0));
                self.check_nonce(&claim, client, now, passed, is_owner)
            }
            None if more && self.is_fresh(&claim, client, now) => Outcome::AskFurther(claim.query),
            None if more => Outcome::Failed(Failure::UnprovedAddress),
            None if credentials.is_empty() => Outcome::Failed(self.unknown_user(message, claim.mac)),
            None => Outcome::Failed(Failure::Challenge),
        }
    }

    /// The checks before that of the user.
    fn claim<'m>(
        &self,
        message: &Message<'m>,
        client: &Client,
        owner: Option<&Requester>,
        now: Time,
    ) -> Result<Claim<'m>, Failure> {
        let challenge = self.challenges.get(client.realm.index()).ok_or(Failure::BadRequest)?;
        let mac = if message.has(AttributeType::MESSAGE_INTEGRITY_SHA256) {
            MacAlgorithm::Sha256
        } else if message.has(AttributeType::MESSAGE_INTEGRITY) {
            MacAlgorithm::Sha1
        } else {
            return Err(Failure::Challenge);
        };
        let (username, userhash) = (message.get(AttributeType::USERNAME), message.get(AttributeType::USERHASH));
        let nonce = message.get(AttributeType::NONCE);
        let (Some(nonce), true, true) =
            (nonce, message.has(AttributeType::REALM), username.is_some() || userhash.is_some())
        else {
            return Err(Failure::BadRequest);
        };
        let token = access_token(message);
        if token.is_some() && !challenge.takes_tokens {
            return Err(Failure::UnexpectedToken);
        }
        let chosen = password_algorithm(message, &challenge.offered).map_err(|failure| {
            // A client that was offered something else, before a reload, is told anew what there is.
            let former = challenge.former.as_ref();
            let is_former =
                former.is_some_and(|(nonces, features)| nonces.is_valid(nonce, *features, &client.tuple, now));
            if is_former { Failure::StaleNonce { proved: true } } else { failure }
        })?;
        let identity = match (username, userhash) {
            (Some(name), _) => std::str::from_utf8(name).ok().map(Identity::Name),
            (None, Some(hash)) if challenge.takes_hashes => hash.try_into().ok().map(Identity::Hash),
            (None, _) => None,
        };
        let Some(identity) = identity else { return Err(self.unknown_user(message, mac)) };
        let algorithm = chosen.unwrap_or(PasswordAlgorithm::Md5);
        let query = Query { realm: client.realm, identity, algorithm, token };
        let identity = self.hasher.hash_one(identity);
        let by_token = token.is_some()
            || owner
                .is_some_and(|owner| owner.bearer && owner.key.as_ref().is_some_and(|key| key.identity == identity));
        // The key of a token is made of no password, so there is no algorithm to answer in kind to.
        let signing = if by_token { mac } else { signing_algorithm(chosen) };
        Ok(Claim { query, nonce, features: challenge.features, mac, signing, identity })
    }

    /// The last check.
    fn check_nonce<'m>(
        &self,
        claim: &Claim<'m>,
        client: &Client,
        now: Time,
        (requester, proof): (Requester, Proof),
        proved: bool,
    ) -> Outcome<'m> {
        if self.is_fresh(claim, client, now) {
            Outcome::Passed(requester, proof)
        } else {
            Outcome::Failed(Failure::StaleNonce { proved })
        }
    }

    /// Whether the nonce is good.
    fn is_fresh(&self, claim: &Claim<'_>, client: &Client, now: Time) -> bool {
        self.challenge(claim.query.realm).2.is_valid(claim.nonce, claim.features, &client.tuple, now)
    }

    fn unknown_user(&self, message: &Message<'_>, algorithm: MacAlgorithm) -> Failure {
        let key = IntegrityKey::new(algorithm, &self.decoy);
        let _ = std::hint::black_box(key.verifies(message));
        Failure::Challenge
    }
}

/// ACCESS-TOKEN, which the reader of messages does not know: it is understood here alone.
pub(super) fn access_token<'m>(message: &Message<'m>) -> Option<&'m [u8]> {
    if !message.has_unknown_required() {
        return None;
    }
    message.attributes().find(|(found, _)| *found == AttributeType::ACCESS_TOKEN).map(|(_, token)| token)
}

/// The algorithm named by PASSWORD-ALGORITHM; `Ok(None)` if the request has neither it nor PASSWORD-ALGORITHMS.
fn password_algorithm(message: &Message<'_>, offered: &[u8]) -> Result<Option<PasswordAlgorithm>, Failure> {
    let listed = message.get(AttributeType::PASSWORD_ALGORITHMS);
    let chosen = message.get(AttributeType::PASSWORD_ALGORITHM);
    let (Some(listed), Some(chosen)) = (listed, chosen) else {
        return if listed.is_none() && chosen.is_none() { Ok(None) } else { Err(Failure::BadRequest) };
    };
    let algorithm = PasswordAlgorithm::decode(chosen).ok_or(Failure::BadRequest)?;
    let is_offered = offered.chunks(4).any(|offered| offered == algorithm.encode());
    if listed != offered || !is_offered {
        return Err(Failure::BadRequest);
    }
    Ok(Some(algorithm))
}

/// Whether the key that is kept with an allocation serves both to verify a request and to sign its response: it names the same
/// user and is made the same way. A token is looked at anew.
fn serves(owner: &Requester, claim: &Claim<'_>) -> bool {
    let Some(key) = &owner.key else { return false };
    claim.query.token.is_none()
        && key.identity == claim.identity
        && key.algorithm == claim.query.algorithm
        && key.mac.algorithm() == claim.mac
        && claim.mac == claim.signing
}

/// Who a credential that has verified a request stands for; `None` if it is over, grace included.
fn accept(credential: &Credential, mechanism: Mechanism, claim: &Claim<'_>, now: Time) -> Option<(Requester, Proof)> {
    let (until, proof) = match credential.term {
        None => (Time(u64::MAX), Proof::Good),
        Some(Term { left, grace }) => {
            let all = left.saturating_add(grace);
            if all < SHORTEST_TERM {
                return None;
            }
            (now + all, if left < SHORTEST_TERM { Proof::Over } else { Proof::Good })
        }
    };
    let mac = IntegrityKey::new(claim.signing, credential.key.as_bytes());
    let requester = Requester {
        subject: Arc::clone(&credential.subject),
        realm: credential.realm,
        key: Some(CachedKey { identity: claim.identity, algorithm: claim.query.algorithm, mac }),
        until,
        secret: credential.secret.clone(),
        bearer: credential.bearer,
        mark: credential.mark,
        mechanism,
    };
    Some((requester, proof))
}

/// Responses carry MESSAGE-INTEGRITY-SHA256 unless the request named no password algorithm (RFC 8489 §9.2.4).
const fn signing_algorithm(chosen: Option<PasswordAlgorithm>) -> MacAlgorithm {
    if chosen.is_some() { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 }
}
