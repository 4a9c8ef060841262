//! [`Logins`]: the users, secrets and token keys of a store let clients in, after those of the configuration.
//!
//! * A user is looked for under the realm that the client was told, as keys are made of that: a realm that no listener tells
//!   has no users in a store.
//! * The secrets of every realm that a credential may be of where this realm is told are tried. Where names have a tenant, a
//!   secret with a name is for the tenant of that name, and one without for any. Passwords are HMAC-SHA1, as coturn has it.
//! * A token key serves in its own realm, or, if it has none, in the one that the client was told; until its lifetime is over.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{NamedSecret, Record, StoreCounts, Stores, TokenAlgorithm};
use crate::{
    auth::{
        credential::{Credential, Proof},
        directory::{Finding, Name, Question, Slow, Unavailable},
        key::LongTermKey,
        prepare::prepare,
        realm::{Realm, Realms},
        rest::{RestAlgorithm, RestSecret},
        subject::Subject,
        token,
    },
    config::settings::Settings,
    stun::PasswordAlgorithm,
};

/// Secrets of a realm that are tried; each costs a login some microseconds.
const MOST_SECRETS: usize = 128;

/// How far clocks may be apart when a token key ends, as coturn has it.
const DELTA: Duration = Duration::from_secs(5);

/// A store that clients log in with.
#[derive(Debug)]
pub struct Logins {
    stores: Stores,
    /// Replaced as a whole by a reload.
    realms: RwLock<Arc<Realms>>,
    /// Makes names for secrets that have none, which say nothing about them.
    salt: [u8; 32],
    /// It was said that a realm has too many secrets.
    said: AtomicBool,
}

impl Logins {
    /// What is in `stores` for the realms of the configuration.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(settings: &Settings, stores: Stores) -> io::Result<Self> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let realms = RwLock::new(Arc::new(Realms::new(settings)));
        Ok(Self { stores, realms, salt, said: AtomicBool::new(false) })
    }

    /// Goes on with the realms of another configuration, each in the place that it had.
    pub fn renew(&self, settings: &Settings) {
        *self.realms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Realms::new(settings));
    }

    fn realms(&self) -> Arc<Realms> {
        Arc::clone(&self.realms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `now` is the time since the UNIX epoch.
    async fn look_up(&self, question: &Question, now: Duration) -> Result<Vec<Credential>, Unavailable> {
        let realms = self.realms();
        let (Some(told), Name::Plain(name)) = (realms.get(question.realm), &question.name) else {
            return Ok(Vec::new());
        };
        if let Some(token) = &question.token {
            return self.by_token((&realms, told), name, token, now).await;
        }
        let (account, made) = tokio::join!(
            self.account(told, name, question.algorithm),
            self.by_secrets((&realms, told), name, question.algorithm, now)
        );
        // What is known lets in, also while something else is not.
        match (account, made) {
            (Ok(account), Ok(made)) => Ok(account.into_iter().chain(made).collect()),
            (Ok(Some(account)), Err(_)) => Ok(vec![account]),
            (Err(_), Ok(made)) if !made.is_empty() => Ok(made),
            _ => Err(Unavailable),
        }
    }

    async fn account(
        &self,
        told: &Realm,
        name: &str,
        algorithm: PasswordAlgorithm,
    ) -> Result<Option<Credential>, Unavailable> {
        let Ok(name) = prepare(name) else { return Ok(None) };
        let record = self.stores.user(&told.prepared(), &name).await.map_err(|_| Unavailable)?;
        let mark = record.as_ref().map_or(0, |record| self.mark(record));
        let key = record.and_then(|record| match algorithm {
            PasswordAlgorithm::Md5 => record.md5.clone(),
            PasswordAlgorithm::Sha256 => record.sha256.clone(),
        });
        Ok(key.map(|key| Credential {
            subject: Arc::new(Subject::new(&*name, Arc::clone(&told.name))),
            realm: told.id,
            key,
            term: None,
            secret: None,
            bearer: false,
            mark,
        }))
    }

    async fn by_secrets(
        &self,
        (realms, told): (&Realms, &Realm),
        name: &str,
        algorithm: PasswordAlgorithm,
        now: Duration,
    ) -> Result<Vec<Credential>, Unavailable> {
        let mut made = Vec::new();
        let mut outcome = Ok(());
        for realm in realms.reach(told) {
            let Some(parts) = realm.names.parse(name) else { continue };
            if realms.term(parts.expires, now).is_none() {
                continue;
            }
            match self.stores.secrets(&realm.prepared()).await {
                Ok(secrets) => {
                    let secrets = self.rest_secrets(realm, &secrets, parts.tenant);
                    realms.by_secrets((told, realm), &secrets, (name, algorithm), now, &mut made);
                }
                Err(_) => outcome = Err(Unavailable),
            }
        }
        if made.is_empty() { outcome.map(|()| made) } else { Ok(made) }
    }

    /// The secrets of a realm as they are used for names of a tenant, or of none.
    fn rest_secrets(&self, realm: &Realm, secrets: &[NamedSecret], tenant: Option<&str>) -> Vec<RestSecret> {
        if secrets.len() > MOST_SECRETS && !self.said.swap(true, Relaxed) {
            tracing::warn!(
                realm = &*realm.name,
                secrets = secrets.len(),
                most = MOST_SECRETS,
                "the store has more secrets than are tried for a login: remove those that are no longer used"
            );
        }
        let secret = |secret: &NamedSecret| RestSecret {
            name: self.name(secret),
            tenant: tenant.map(|tenant| secret.name.as_deref().unwrap_or(tenant).into()),
            algorithm: RestAlgorithm::Sha1,
            key: Zeroizing::new(secret.value.as_bytes().to_vec()),
        };
        secrets.iter().take(MOST_SECRETS).map(secret).collect()
    }

    /// What tells the keys of a user from any others.
    fn mark(&self, record: &Record) -> u64 {
        let bytes = |key: &Option<LongTermKey>| key.as_ref().map_or_else(Vec::new, |key| key.as_bytes().to_vec());
        let keys = [&record.md5, &record.sha256].map(|key| Zeroizing::new(bytes(key)));
        // HMAC takes keys of any length (RFC 2104 §2).
        let mac = Hmac::<Sha256>::new_from_slice(&self.salt).unwrap_or_else(|_| unreachable!());
        let mac = keys.iter().fold(mac, |mac, key| mac.chain_update([key.len() as u8]).chain_update(key.as_slice()));
        mac.finalize().into_bytes().iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }

    /// What a secret goes by: its name, or else one that stays the same for as long as this process lives.
    fn name(&self, secret: &NamedSecret) -> Arc<str> {
        if let Some(name) = &secret.name {
            return name.as_str().into();
        }
        // HMAC takes keys of any length (RFC 2104 §2).
        let mac = Hmac::<Sha256>::new_from_slice(&self.salt).unwrap_or_else(|_| unreachable!());
        let mac = mac.chain_update(secret.value.as_bytes()).finalize().into_bytes();
        mac.iter().take(6).fold("store-".to_owned(), |text, byte| text + &format!("{byte:02x}")).into()
    }

    async fn by_token(
        &self,
        (realms, told): (&Realms, &Realm),
        kid: &str,
        token: &[u8],
        now: Duration,
    ) -> Result<Vec<Credential>, Unavailable> {
        let Some(kept) = self.stores.token_key(kid).await.map_err(|_| Unavailable)? else { return Ok(Vec::new()) };
        let is_over = |lifetime| Duration::from_secs(kept.from).saturating_add(lifetime).saturating_add(DELTA) <= now;
        let realm = match &kept.realm {
            Some(name) => realms.reach(told).find(|realm| *realm.prepared() == **name),
            None => Some(told),
        };
        let algorithm = match kept.algorithm {
            TokenAlgorithm::A128Gcm => token::TokenAlgorithm::A128Gcm,
            TokenAlgorithm::A256Gcm => token::TokenAlgorithm::A256Gcm,
        };
        let key = token::TokenKey::new(kid, algorithm, &kept.key);
        let (Some(realm), Some(key), false) = (realm, key, kept.lifetime.is_some_and(is_over)) else {
            return Ok(Vec::new());
        };
        Ok(realm.by_token(told, &key, token, now).unwrap_or_default())
    }
}

impl Logins {
    /// What the store is called, and what it has been asked.
    #[must_use]
    pub fn counts(&self) -> (&'static str, StoreCounts) {
        (self.stores.name(), self.stores.counts())
    }

    /// The secrets that the store has for a realm.
    ///
    /// # Errors
    /// The store has not said.
    pub async fn secrets(&self, realm: &str) -> Result<Arc<[NamedSecret]>, super::Unavailable> {
        self.stores.secrets(realm).await
    }

    /// Forgets what the store has said.
    pub fn forget(&self) {
        self.stores.forget();
    }

    /// Whether the store still has what let clients in. It is asked, whatever is in the cache.
    ///
    /// # Errors
    /// The store has not said.
    pub async fn has(&self, realm: &str, proof: &Proof) -> Result<bool, super::Unavailable> {
        let realms = self.realms();
        let Some(realm) = realms.iter().find(|known| *known.name == *realm) else { return Ok(false) };
        let prepared = realm.prepared();
        match proof {
            Proof::Password(user, mark) => {
                let record = self.stores.user_now(&prepared, user).await?;
                Ok(record.is_some_and(|record| self.mark(&record) == *mark))
            }
            Proof::Secret(name) => {
                let secrets = self.stores.secrets_now(&prepared).await?;
                // A name from here is never a key's id, and a service's may be: then either serves.
                Ok(secrets.iter().any(|secret| self.name(secret) == *name)
                    || self.stores.token_key_now(name).await?.is_some())
            }
        }
    }
}

impl Slow for Logins {
    fn find(&self, question: Question) -> Finding<'_> {
        Box::pin(async move {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.look_up(&question, now).await
        })
    }
}

#[cfg(test)]
mod tests;
