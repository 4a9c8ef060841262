//! Who may, in every realm: the mechanisms together, tried in order.
//!
//! A request is looked up where its client was told a realm: among the accounts of that realm, then by its secrets; a request
//! with an access token among its token keys only. Where the default realm is told, so are realms that no listener tells: by
//! `user@realm`, or by the secret or token key that proves the request. What is known at once is found here; whoever is kept
//! elsewhere is found by [`Slow`], which is asked after that.

use std::{borrow::Cow, future::Future, pin::Pin, slice, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::{
    credential::{Credential, Identity, Query, RealmId, Term},
    key::{LongTermKey, md5_key, sha256_key},
    prepare::prepare,
    rest::{RestNames, RestSecret},
    subject::Subject,
    token::TokenKey,
    users::{self, StaticUsers, UsersError},
};
use crate::{
    config::settings::{self, Secret, Settings, User},
    stun::PasswordAlgorithm,
};

/// Why the configured realms cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("realm {realm:?}: {error}")]
pub struct DirectoryError {
    /// The realm's name.
    realm: String,
    /// What is wrong with its users.
    error: UsersError,
}

/// The mechanisms of all realms. Never changes after it is made: a reload makes a new one.
#[derive(Debug)]
pub struct Directory {
    /// The default realm first; a [`RealmId`] is an index.
    realms: Vec<Realm>,
    /// How long allocations outlive their credential.
    grace: Duration,
}

/// One realm.
#[derive(Debug)]
struct Realm {
    id: RealmId,
    name: Arc<str>,
    users: StaticUsers,
    secrets: Vec<RestSecret>,
    names: RestNames,
    tokens: Vec<TokenKey>,
    /// What authorization servers call this one (RFC 7635 §6.1).
    server_name: Box<str>,
    /// Whose credentials serve where this realm is told: its own first.
    reach: Vec<RealmId>,
}

impl Directory {
    /// Makes the mechanisms of all configured realms.
    ///
    /// # Errors
    /// A name or password has no OpaqueString form, or a user is there twice.
    pub fn new(settings: &Settings) -> Result<Self, DirectoryError> {
        let auth = &settings.auth;
        let unannounced = settings.realms.iter().zip(1..).filter(|(realm, _)| !realm.announced);
        let first = Parts {
            name: &auth.realm,
            announced: &auth.realm,
            users: &auth.users,
            mechanisms: &auth.mechanisms,
            reach: [0].into_iter().chain(unannounced.map(|(_, id)| id)).map(RealmId).collect(),
        };
        let others = settings.realms.iter().zip(1..).map(|(realm, id)| Parts {
            name: &realm.name,
            announced: if realm.announced { &realm.name } else { &auth.realm },
            users: &realm.users,
            mechanisms: &realm.mechanisms,
            reach: vec![RealmId(id)],
        });
        let realms = [first].into_iter().chain(others).zip(0..).map(|(parts, id)| parts.make(RealmId(id)));
        Ok(Self { realms: realms.collect::<Result<_, _>>()?, grace: auth.expiry_grace })
    }

    /// The keys that the request may have been made with, the likeliest first. `now` is the time since the UNIX epoch.
    #[must_use]
    pub fn find(&self, query: &Query<'_>, now: Duration) -> Cow<'_, [Credential]> {
        let Some(told) = self.realms.get(query.realm.index()) else { return Cow::Borrowed(&[]) };
        if let Some(token) = query.token {
            return self.by_token(told, query.identity, token, now).unwrap_or_default().into();
        }
        let account = self.reach(told).find_map(|realm| match query.identity {
            Identity::Name(name) => realm.users.by_name(name),
            Identity::Hash(hash) => realm.users.by_hash(hash),
        });
        let account = account.and_then(|account| account.credential(query.algorithm));
        let mut made = Vec::new();
        if let Identity::Name(name) = query.identity {
            for realm in self.reach(told).filter(|realm| !realm.secrets.is_empty()) {
                self.by_secrets(told, realm, name, query.algorithm, now, &mut made);
            }
        }
        match account {
            Some(account) if made.is_empty() => Cow::Borrowed(slice::from_ref(account)),
            Some(account) => {
                made.insert(0, account.clone());
                Cow::Owned(made)
            }
            None => Cow::Owned(made),
        }
    }

    fn reach<'d>(&'d self, told: &'d Realm) -> impl Iterator<Item = &'d Realm> {
        told.reach.iter().filter_map(|id| self.realms.get(id.index()))
    }

    /// What each secret of a realm makes of a time-limited name.
    fn by_secrets(
        &self,
        told: &Realm,
        realm: &Realm,
        name: &str,
        algorithm: PasswordAlgorithm,
        now: Duration,
        made: &mut Vec<Credential>,
    ) {
        let Some(parts) = realm.names.parse(name) else { return };
        let Some(term) = Term::until(parts.expires, self.grace, now) else { return };
        let user = match parts.user.rsplit_once('@') {
            Some((user, named)) if *named == *realm.name => user,
            // Another realm's, which its own secrets have to prove.
            Some((_, named)) if self.reach(told).any(|other| *other.name == *named) => return,
            _ => parts.user,
        };
        let Ok(user) = prepare(user) else { return };
        let secrets = realm.secrets.iter().filter(|secret| secret.tenant.as_deref() == parts.tenant);
        let mut subject = None;
        for secret in secrets {
            let password = secret.password(name);
            let key = match algorithm {
                PasswordAlgorithm::Md5 => md5_key(name, &told.name, &password),
                PasswordAlgorithm::Sha256 => sha256_key(name, &told.name, &password),
            };
            // A name without OpaqueString form is nobody's.
            let Ok(key) = key else { return };
            let subject = subject.get_or_insert_with(|| {
                let (user, realm) = (Arc::from(&*user), Arc::clone(&realm.name));
                Arc::new(Subject { user, realm, tenant: secret.tenant.clone() })
            });
            made.push(Credential {
                subject: Arc::clone(subject),
                realm: realm.id,
                key,
                term: Some(term),
                secret: Some(Arc::clone(&secret.name)),
                bearer: false,
            });
        }
    }

    /// What is in an access token, if one of the keys of this id opens it.
    fn by_token(&self, told: &Realm, kid: Identity<'_>, token: &[u8], now: Duration) -> Option<Vec<Credential>> {
        let Identity::Name(kid) = kid else { return None };
        let keys = self.reach(told).flat_map(|realm| realm.tokens.iter().map(move |key| (realm, key)));
        let mut keys = keys.filter(|(_, key)| **key.kid() == *kid);
        keys.find_map(|(realm, key)| {
            let opened = key.open(token, &told.server_name)?;
            let term = opened.term(now)?;
            let keys = opened.keys();
            Some(keys.map(|mac_key| bearer(key.kid(), token, (realm.id, &realm.name), mac_key, term)).collect())
        })
    }

    /// What PASSWORD-ALGORITHMS offers where this realm is told, best first.
    ///
    /// SHA-256 is offered only if every account has a key for it: the list is sent before the user is known, and a client that
    /// then chose SHA-256 for an account with nothing but an MD5 key could never get in.
    #[must_use]
    pub fn offered(&self, realm: RealmId) -> Vec<PasswordAlgorithm> {
        let mut offered = vec![PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];
        for realm in self.realms.get(realm.index()).into_iter().flat_map(|told| self.reach(told)) {
            offered.retain(|algorithm| realm.users.offered().contains(algorithm));
        }
        offered
    }

    /// Whether clients may hide their names in USERHASH where this realm is told. Not where there are secrets: the password is
    /// made of a name, which a hash does not tell, and a client that chose to hide it could never get in.
    #[must_use]
    pub fn takes_hashes(&self, realm: RealmId) -> bool {
        let told = self.realms.get(realm.index());
        told.is_some_and(|told| self.reach(told).all(|realm| realm.secrets.is_empty()))
    }

    /// What the server is called in THIRD-PARTY-AUTHORIZATION, if access tokens serve where this realm is told.
    #[must_use]
    pub fn third_party(&self, realm: RealmId) -> Option<&str> {
        let told = self.realms.get(realm.index())?;
        self.reach(told).any(|realm| !realm.tokens.is_empty()).then_some(&told.server_name)
    }

    /// The realm of this name.
    #[must_use]
    pub fn realm(&self, name: &str) -> Option<RealmId> {
        self.realms.iter().find(|realm| *realm.name == *name).map(|realm| realm.id)
    }
}

/// The credential in an access token. Its holder has no name but the token: who holds another one is another user.
fn bearer(
    kid: &Arc<str>,
    token: &[u8],
    (realm, realm_name): (RealmId, &Arc<str>),
    key: LongTermKey,
    term: Term,
) -> Credential {
    let digest = Sha256::digest(token);
    let user = digest.iter().take(6).fold(format!("{kid}#"), |text, byte| text + &format!("{byte:02x}"));
    let subject = Subject { user: user.into(), realm: Arc::clone(realm_name), tenant: Some(Arc::clone(kid)) };
    let (subject, secret) = (Arc::new(subject), Some(Arc::clone(kid)));
    Credential { subject, realm, key, term: Some(term), secret, bearer: true }
}

/// What a realm is made of.
struct Parts<'s> {
    name: &'s str,
    announced: &'s str,
    users: &'s [User],
    mechanisms: &'s settings::Mechanisms,
    reach: Vec<RealmId>,
}

impl Parts<'_> {
    fn make(self, id: RealmId) -> Result<Realm, DirectoryError> {
        let Self { name, announced, users, mechanisms, reach } = self;
        let users = StaticUsers::new(users::Realm { id, name, announced }, users)
            .map_err(|error| DirectoryError { realm: name.to_owned(), error })?;
        // The configuration has checked their lengths.
        let token = |key: &settings::TokenKey| {
            let Secret(bytes) = &key.key;
            TokenKey::new(&key.kid, key.algorithm, bytes)
        };
        Ok(Realm {
            id,
            name: name.into(),
            users,
            secrets: mechanisms.secrets.clone(),
            names: mechanisms.rest,
            tokens: mechanisms.token_keys.iter().filter_map(token).collect(),
            server_name: mechanisms.server_name.as_deref().unwrap_or(name).into(),
            reach,
        })
    }
}

/// What a store of users is asked: a [`Query`] that lives as long as it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The realm that the client was told.
    pub realm: RealmId,
    /// The user.
    pub name: Name,
    /// Which of the user's keys is needed.
    pub algorithm: PasswordAlgorithm,
    /// ACCESS-TOKEN.
    pub token: Option<Box<[u8]>>,
}

/// Who a request says it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// USERNAME.
    Plain(Box<str>),
    /// USERHASH.
    Hash([u8; 32]),
}

impl From<&Query<'_>> for Question {
    fn from(query: &Query<'_>) -> Self {
        let name = match query.identity {
            Identity::Name(name) => Name::Plain(name.into()),
            Identity::Hash(hash) => Name::Hash(*hash),
        };
        Self { realm: query.realm, name, algorithm: query.algorithm, token: query.token.map(Into::into) }
    }
}

/// No answer can be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the users cannot be looked up now")]
pub struct Unavailable;

/// The answer to a [`Question`], when it is known.
pub type Finding<'s> = Pin<Box<dyn Future<Output = Result<Vec<Credential>, Unavailable>> + Send + 's>>;

/// Users who are kept elsewhere: in a database, behind an HTTP hook.
pub trait Slow: Send + Sync {
    /// The keys that a request may have been made with; none if there is no such user.
    fn find(&self, question: Question) -> Finding<'_>;
}

#[cfg(test)]
mod tests;
