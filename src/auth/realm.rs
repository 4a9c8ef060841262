//! The realms of the configuration, and what time-limited names and access tokens say about who is in them, wherever their
//! secrets and keys are kept: [`super::directory`] has those of the configuration, [`super::store::logins`] those of a store.

use std::{borrow::Cow, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::{
    credential::{Credential, RealmId, Term},
    key::{LongTermKey, md5_key, sha256_key},
    prepare::prepare,
    rest::{RestNames, RestSecret},
    subject::Subject,
    token::TokenKey,
};
use crate::{
    config::settings::{Mechanisms, Settings},
    stun::PasswordAlgorithm,
};

/// The realms, without those who are in them.
#[derive(Debug)]
pub(super) struct Realms {
    /// The default realm first; a [`RealmId`] is an index.
    all: Vec<Realm>,
    /// How long allocations outlive their credential.
    grace: Duration,
}

/// One realm.
#[derive(Debug)]
pub(super) struct Realm {
    pub(super) id: RealmId,
    pub(super) name: Arc<str>,
    /// The form of its time-limited names.
    pub(super) names: RestNames,
    /// What authorization servers call this one (RFC 7635 §6.1).
    pub(super) server_name: Box<str>,
    /// Whether the configuration says that name.
    pub(super) has_server_name: bool,
    /// Whose credentials serve where this realm is told: its own first.
    reach: Vec<RealmId>,
}

impl Realms {
    pub(super) fn new(settings: &Settings) -> Self {
        let auth = &settings.auth;
        let unannounced = settings.realms.iter().zip(1..).filter(|(realm, _)| !realm.announced);
        let reach = [0].into_iter().chain(unannounced.map(|(_, id)| id)).map(RealmId).collect();
        let first = Realm::new(RealmId::DEFAULT, &auth.realm, &auth.mechanisms, reach);
        let others = settings.realms.iter().zip(1..).map(|(realm, id)| {
            let id = RealmId(id);
            Realm::new(id, &realm.name, &realm.mechanisms, vec![id])
        });
        Self { all: [first].into_iter().chain(others).collect(), grace: auth.expiry_grace }
    }

    /// The realm that a client was told.
    pub(super) fn get(&self, id: RealmId) -> Option<&Realm> {
        self.all.get(id.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Realm> {
        self.all.iter()
    }

    /// The realms whose credentials serve where this one is told.
    pub(super) fn reach<'r>(&'r self, told: &'r Realm) -> impl Iterator<Item = &'r Realm> {
        told.reach.iter().filter_map(|id| self.get(*id))
    }

    /// Until when a time-limited name is good, grace included, `now` being the time since the UNIX epoch; `None` if it is not.
    pub(super) fn term(&self, expires: u64, now: Duration) -> Option<Term> {
        Term::until(expires, self.grace, now)
    }

    /// What each of `secrets`, which are of `realm`, makes of a time-limited name.
    pub(super) fn by_secrets(
        &self,
        (told, realm): (&Realm, &Realm),
        secrets: &[RestSecret],
        (name, algorithm): (&str, PasswordAlgorithm),
        now: Duration,
        made: &mut Vec<Credential>,
    ) {
        let Some(parts) = realm.names.parse(name) else { return };
        let Some(term) = self.term(parts.expires, now) else { return };
        let user = match parts.user.rsplit_once('@') {
            Some((user, named)) if *named == *realm.name => user,
            // Another realm's, which its own secrets have to prove.
            Some((_, named)) if self.reach(told).any(|other| *other.name == *named) => return,
            _ => parts.user,
        };
        let Ok(user) = prepare(user) else { return };
        let secrets = secrets.iter().filter(|secret| secret.tenant.as_deref() == parts.tenant);
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
                mark: 0,
            });
        }
    }
}

impl Realm {
    /// Its name in OpaqueString form, as stores have it.
    pub(super) fn prepared(&self) -> Cow<'_, str> {
        // A realm that has no such form was refused at the start.
        prepare(&self.name).unwrap_or(Cow::Borrowed(&self.name))
    }

    fn new(id: RealmId, name: &str, mechanisms: &Mechanisms, reach: Vec<RealmId>) -> Self {
        let server_name = mechanisms.server_name.as_deref();
        Self {
            id,
            name: name.into(),
            names: mechanisms.rest,
            server_name: server_name.unwrap_or(name).into(),
            has_server_name: server_name.is_some(),
            reach,
        }
    }

    /// What is in an access token, if this key of this realm opens it. `told` is the realm that the client was told.
    pub(super) fn by_token(&self, told: &Self, key: &TokenKey, token: &[u8], now: Duration) -> Option<Vec<Credential>> {
        let opened = key.open(token, &told.server_name)?;
        let term = opened.term(now)?;
        let keys = opened.keys();
        Some(keys.map(|mac_key| self.bearer(key.kid(), token, mac_key, term)).collect())
    }

    /// The credential in an access token. Its holder has no name but the token: who holds another one is another user.
    fn bearer(&self, kid: &Arc<str>, token: &[u8], key: LongTermKey, term: Term) -> Credential {
        let digest = Sha256::digest(token);
        let user = digest.iter().take(6).fold(format!("{kid}#"), |text, byte| text + &format!("{byte:02x}"));
        let subject = Subject { user: user.into(), realm: Arc::clone(&self.name), tenant: Some(Arc::clone(kid)) };
        let (subject, secret) = (Arc::new(subject), Some(Arc::clone(kid)));
        Credential { subject, realm: self.id, key, term: Some(term), secret, bearer: true, mark: 0 }
    }
}
