//! Who may, in every realm: the mechanisms together, tried in order.
//!
//! A request is looked up where its client was told a realm: among the accounts of that realm, then by its secrets; a request
//! with an access token among its token keys only. Where the default realm is told, so are realms that no listener tells: by
//! `user@realm`, or by the secret or token key that proves the request. What is known at once is found here; whoever is kept
//! elsewhere is found by [`Slow`], which is asked after that.

use std::{borrow::Cow, future::Future, pin::Pin, slice, time::Duration};

use super::{
    credential::{Credential, Identity, Query, RealmId},
    realm::{Realm, Realms},
    rest::RestSecret,
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
    realms: Realms,
    /// By realm.
    members: Vec<Members>,
    /// Further users are kept elsewhere.
    has_store: bool,
}

/// Who is in a realm, by the configuration.
#[derive(Debug)]
struct Members {
    users: StaticUsers,
    secrets: Vec<RestSecret>,
    tokens: Vec<TokenKey>,
}

impl Directory {
    /// Makes the mechanisms of all configured realms. `has_store`: there are further users, whom [`Slow`] knows.
    ///
    /// # Errors
    /// A name or password has no OpaqueString form, or a user is there twice.
    pub fn new(settings: &Settings, has_store: bool) -> Result<Self, DirectoryError> {
        let auth = &settings.auth;
        let first = Members::new(RealmId::DEFAULT, [&auth.realm, &auth.realm], &auth.users, &auth.mechanisms);
        let others = settings.realms.iter().zip(1..).map(|(realm, id)| {
            let announced = if realm.announced { &realm.name } else { &auth.realm };
            Members::new(RealmId(id), [&realm.name, announced], &realm.users, &realm.mechanisms)
        });
        let members = [first].into_iter().chain(others).collect::<Result<_, _>>()?;
        Ok(Self { realms: Realms::new(settings), members, has_store })
    }

    /// The keys that the request may have been made with, the likeliest first. `now` is the time since the UNIX epoch.
    #[must_use]
    pub fn find(&self, query: &Query<'_>, now: Duration) -> Cow<'_, [Credential]> {
        let Some(told) = self.realms.get(query.realm) else { return Cow::Borrowed(&[]) };
        if let Some(token) = query.token {
            return self.by_token(told, query.identity, token, now).unwrap_or_default().into();
        }
        let account = self.reach(told).find_map(|(_, members)| match query.identity {
            Identity::Name(name) => members.users.by_name(name),
            Identity::Hash(hash) => members.users.by_hash(hash),
        });
        let account = account.and_then(|account| account.credential(query.algorithm));
        let mut made = Vec::new();
        if let Identity::Name(name) = query.identity {
            for (realm, members) in self.reach(told).filter(|(_, members)| !members.secrets.is_empty()) {
                let name = (name, query.algorithm);
                self.realms.by_secrets((told, realm), &members.secrets, name, now, &mut made);
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

    /// The realms whose credentials serve where this one is told, with who is in them.
    fn reach<'d>(&'d self, told: &'d Realm) -> impl Iterator<Item = (&'d Realm, &'d Members)> {
        self.realms.reach(told).filter_map(|realm| Some((realm, self.members.get(realm.id.index())?)))
    }

    /// What is in an access token, if one of the keys of this id opens it.
    fn by_token(&self, told: &Realm, kid: Identity<'_>, token: &[u8], now: Duration) -> Option<Vec<Credential>> {
        let Identity::Name(kid) = kid else { return None };
        let keys = self.reach(told).flat_map(|(realm, members)| members.tokens.iter().map(move |key| (realm, key)));
        let mut keys = keys.filter(|(_, key)| **key.kid() == *kid);
        keys.find_map(|(realm, key)| realm.by_token(told, key, token, now))
    }

    /// What PASSWORD-ALGORITHMS offers where this realm is told, best first.
    ///
    /// SHA-256 is offered only if every account has a key for it: the list is sent before the user is known, and a client that
    /// then chose SHA-256 for an account with nothing but an MD5 key could never get in. Stores have accounts with nothing but an
    /// MD5 key, as coturn's tables have no other.
    #[must_use]
    pub fn offered(&self, realm: RealmId) -> Vec<PasswordAlgorithm> {
        let mut offered = if self.has_store { Vec::new() } else { vec![PasswordAlgorithm::Sha256] };
        offered.push(PasswordAlgorithm::Md5);
        for (_, members) in self.realms.get(realm).into_iter().flat_map(|told| self.reach(told)) {
            offered.retain(|algorithm| members.users.offered().contains(algorithm));
        }
        offered
    }

    /// Whether clients may hide their names in USERHASH where this realm is told. Not where there are secrets: the password is
    /// made of a name, which a hash does not tell, and a client that chose to hide it could never get in. Nor where there is a
    /// store, which finds nobody by a hash.
    #[must_use]
    pub fn takes_hashes(&self, realm: RealmId) -> bool {
        let told = self.realms.get(realm).filter(|_| !self.has_store);
        told.is_some_and(|told| self.reach(told).all(|(_, members)| members.secrets.is_empty()))
    }

    /// What the server is called in THIRD-PARTY-AUTHORIZATION, if access tokens serve where this realm is told: there are keys, or a
    /// store that may have some and a name that was configured for it.
    #[must_use]
    pub fn third_party(&self, realm: RealmId) -> Option<&str> {
        let told = self.realms.get(realm)?;
        let takes_tokens =
            self.has_store && told.has_server_name || self.reach(told).any(|(_, members)| !members.tokens.is_empty());
        takes_tokens.then_some(&told.server_name)
    }

    /// When a time-limited name ends, in seconds since the UNIX epoch, by the first realm that has secrets, or may have some in a
    /// store, and takes it for one.
    #[must_use]
    pub fn expiry(&self, name: &str) -> Option<u64> {
        let realms = self.realms.iter().zip(&self.members);
        let mut realms = realms.filter(|(_, members)| self.has_store || !members.secrets.is_empty());
        realms.find_map(|(realm, _)| realm.names.parse(name)).map(|parts| parts.expires)
    }

    /// The realm of this name.
    #[must_use]
    pub fn realm(&self, name: &str) -> Option<RealmId> {
        self.realms.iter().find(|realm| *realm.name == *name).map(|realm| realm.id)
    }
}

impl Members {
    fn new(
        id: RealmId,
        [name, announced]: [&str; 2],
        users: &[User],
        mechanisms: &settings::Mechanisms,
    ) -> Result<Self, DirectoryError> {
        let users = StaticUsers::new(users::Realm { id, name, announced }, users)
            .map_err(|error| DirectoryError { realm: name.to_owned(), error })?;
        // The configuration has checked their lengths.
        let token = |key: &settings::TokenKey| {
            let Secret(bytes) = &key.key;
            TokenKey::new(&key.kid, key.algorithm, bytes)
        };
        let tokens = mechanisms.token_keys.iter().filter_map(token).collect();
        Ok(Self { users, secrets: mechanisms.secrets.clone(), tokens })
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
