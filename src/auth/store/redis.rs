//! Redis, with coturn's keys.
//!
//! `turn/realm/R/user/U/key` is the user's key; the sets `turn/realm/R/secret`, `…/allowed-peer-ip`, `…/denied-peer-ip`; the
//! texts `turn/realm/R/max-bps`, `…/total-quota`, `…/user-quota`; the hashes `turn/oauth/kid/K`.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection, cmd};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Answer, NamedSecret, PeerRules, RealmOptions, Record, Registry, Store, StoreError, TokenKey, UserName,
    record::{ORIGINS_ARE_IGNORED, RealmRows, TokenRow, digits, record, token_key},
};
use crate::auth::key::LongTermKey;

/// Keys asked for in one step of going through them all.
const STEP: usize = 1_000;

/// Users in a Redis database.
pub struct RedisStore {
    client: Client,
    config: AsyncConnectionConfig,
    /// The connection that all questions share, while it is good.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Held while a connection is made.
    connecting: tokio::sync::Mutex<()>,
    origins_looked_for: AtomicBool,
}

impl RedisStore {
    /// A database by its URL. It is connected to when it is first asked.
    pub fn open(url: &Url) -> Result<Self, StoreError> {
        let client = Client::open(url.as_str()).map_err(|error| failure(&error))?;
        // Whoever asks has a time limit.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        Ok(Self {
            client,
            config,
            connection: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            origins_looked_for: AtomicBool::new(false),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, and whether it is new.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), StoreError> {
        let _one_at_a_time = self.connecting.lock().await;
        let there = self.slot().clone();
        if let Some(connection) = there {
            return Ok((connection, false));
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await;
        let connection = connection.map_err(|error| failure(&error))?;
        *self.slot() = Some(connection.clone());
        Ok((connection, true))
    }

    /// Sends a command and waits for its answer. Where the connection turns out to be broken, another one is tried once.
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        loop {
            let (mut connection, is_new) = self.connection().await?;
            let mut pending = Pending { store: self, answered: false };
            let outcome = command.query_async(&mut connection).await;
            pending.answered = outcome.as_ref().err().is_none_or(|error| !is_broken(error));
            drop(pending);
            match outcome {
                Err(error) if is_broken(&error) && !is_new => {}
                outcome => return outcome.map_err(|error| failure(&error)),
            }
        }
    }

    /// Every key that matches a pattern, going through the database in steps that keep nobody else waiting.
    async fn keys(&self, pattern: &str) -> Result<Vec<String>, StoreError> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let mut command = cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
            let (next, found): (String, Vec<String>) = self.run(&command).await?;
            keys.extend(found);
            if next == "0" {
                // A key can come twice.
                keys.sort_unstable();
                keys.dedup();
                return Ok(keys);
            }
            cursor = next;
        }
    }

    async fn members(&self, key: String) -> Result<Vec<String>, StoreError> {
        self.run(cmd("SMEMBERS").arg(key)).await
    }

    async fn warn_of_origins(&self) -> Result<(), StoreError> {
        if !self.origins_looked_for.load(Ordering::Relaxed) {
            let origins = self.keys("turn/origin/*").await?;
            self.origins_looked_for.store(true, Ordering::Relaxed);
            if !origins.is_empty() {
                tracing::warn!("{}", ORIGINS_ARE_IGNORED);
            }
        }
        Ok(())
    }
}

/// A command on its way. If nobody waits for the answer any more, or the connection is broken, it is not used again.
struct Pending<'s> {
    store: &'s RedisStore,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            *self.store.slot() = None;
        }
    }
}

/// Whether the connection is of no use any more.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

fn failure(error: &RedisError) -> StoreError {
    if error.code() == Some("WRONGTYPE") {
        StoreError::Malformed("a key has a value of the wrong type".to_owned())
    } else if is_broken(error) || error.is_connection_refusal() {
        StoreError::Unreachable(error.to_string())
    } else {
        StoreError::Refused(error.to_string())
    }
}

fn user_key(realm: &str, name: &str) -> String {
    format!("turn/realm/{realm}/user/{name}/key")
}

/// A text as a pattern that matches nothing else.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Realm and name of a user's key.
fn user_of(key: &str) -> Option<UserName> {
    let (realm, name) = key.strip_prefix("turn/realm/")?.strip_suffix("/key")?.split_once("/user/")?;
    Some(UserName { realm: realm.to_owned(), name: name.to_owned() })
}

impl Store for RedisStore {
    fn user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, Option<Record>> {
        Box::pin(async move {
            let key: Option<String> = self.run(cmd("GET").arg(user_key(realm, name))).await?;
            key.map(|key| record(&Zeroizing::new(key))).transpose()
        })
    }

    fn secrets<'a>(&'a self, realm: &'a str) -> Answer<'a, Vec<NamedSecret>> {
        Box::pin(async move {
            let mut secrets = self.members(format!("turn/realm/{realm}/secret")).await?;
            secrets.sort_unstable();
            let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
            Ok(secrets.map(|value| NamedSecret { name: None, value: value.into() }).collect())
        })
    }

    fn token_key<'a>(&'a self, kid: &'a str) -> Answer<'a, Option<TokenKey>> {
        Box::pin(async move {
            let mut command = cmd("HMGET");
            command.arg(format!("turn/oauth/kid/{kid}"));
            command.arg(&["ikm_key", "timestamp", "lifetime", "as_rs_alg", "realm"]);
            let [ikm_key, timestamp, lifetime, as_rs_alg, realm]: [Option<String>; 5] =
                self.run::<Vec<Option<String>>>(&command).await?.try_into().unwrap_or_default();
            if ikm_key.is_none() {
                return Ok(None);
            }
            let number = |text: Option<String>| match text.as_deref().map(str::trim) {
                None | Some("") => Ok(None),
                Some(text) => text
                    .parse()
                    .map(Some)
                    .map_err(|_| StoreError::Malformed(format!("token key {kid:?} has a time that is no number"))),
            };
            let (timestamp, lifetime) = (number(timestamp)?, number(lifetime)?);
            token_key(kid, TokenRow { ikm_key, timestamp, lifetime, as_rs_alg, realm }).map(Some)
        })
    }

    fn realms(&self) -> Answer<'_, Vec<RealmOptions>> {
        const OPTIONS: [&str; 3] = ["max-bps", "total-quota", "user-quota"];
        Box::pin(async move {
            self.warn_of_origins().await?;
            let keys = self.keys("turn/realm/*/[mtu]*-[bq]*").await?;
            let mut realms = RealmRows::default();
            for key in keys {
                let Some((realm, option)) = key.strip_prefix("turn/realm/").and_then(|key| key.rsplit_once('/')) else {
                    continue;
                };
                if !OPTIONS.contains(&option) || realm.contains("/user/") {
                    continue;
                }
                let value: Option<String> = self.run(cmd("GET").arg(&key)).await?;
                if let Some(value) = value {
                    realms.add(realm, option, &value)?;
                }
            }
            Ok(realms.finish())
        })
    }

    fn peer_rules<'a>(&'a self, realm: &'a str) -> Answer<'a, PeerRules> {
        Box::pin(async move {
            let (mut allowed, mut denied) = (Vec::new(), Vec::new());
            // Those of the empty realm are everybody's.
            for realm in ["", realm] {
                allowed.extend(self.members(format!("turn/realm/{realm}/allowed-peer-ip")).await?);
                denied.extend(self.members(format!("turn/realm/{realm}/denied-peer-ip")).await?);
            }
            PeerRules::read(allowed.iter().map(String::as_str), denied.iter().map(String::as_str))
        })
    }

    fn probe(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            // What logins need; no user has an empty name.
            let _: Option<String> = self.run(cmd("GET").arg(user_key("", ""))).await?;
            Ok(())
        })
    }
}

impl Registry for RedisStore {
    fn prepare(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn users<'a>(&'a self, realm: Option<&'a str>) -> Answer<'a, Vec<UserName>> {
        Box::pin(async move {
            let pattern = realm.map_or_else(|| "*".to_owned(), literally);
            let keys = self.keys(&format!("turn/realm/{pattern}/user/*/key")).await?;
            let users = keys.iter().filter_map(|key| user_of(key));
            let mut users: Vec<_> = users.filter(|user| realm.is_none_or(|realm| user.realm == realm)).collect();
            users.sort_unstable();
            Ok(users)
        })
    }

    fn put_user<'a>(&'a self, realm: &'a str, name: &'a str, md5: &'a LongTermKey) -> Answer<'a, ()> {
        Box::pin(async move { self.run(cmd("SET").arg(user_key(realm, name)).arg(digits(md5).as_str())).await })
    }

    fn remove_user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.run(cmd("DEL").arg(user_key(realm, name))).await })
    }

    fn add_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let _: u64 = self.run(cmd("SADD").arg(format!("turn/realm/{realm}/secret")).arg(secret)).await?;
            Ok(())
        })
    }

    fn remove_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.run(cmd("SREM").arg(format!("turn/realm/{realm}/secret")).arg(secret)).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_from_its_key() {
        let user = |realm: &str, name: &str| Some(UserName { realm: realm.to_owned(), name: name.to_owned() });
        assert_eq!(user_of("turn/realm/north.gov/user/gorst/key"), user("north.gov", "gorst"));
        assert_eq!(user_of(&user_key("a", "b/user/c")), user("a", "b/user/c"));
        for other in ["turn/realm/north.gov/max-bps", "turn/realm/r/user/u/allocation/1/status", "turn/origin/x/key"] {
            assert_eq!(user_of(other), None);
        }
    }

    #[test]
    fn a_pattern_of_a_realm_matches_that_realm_only() {
        assert_eq!(literally("north.gov"), "north.gov");
        assert_eq!(literally("a*[b]?\\^"), "a\\*\\[b\\]\\?\\\\\\^");
    }
}
