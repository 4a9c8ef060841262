//! Making time-limited credentials, and telling clients of them in the shapes that they expect.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    prepare::prepare,
    rest::{RestAlgorithm, RestForm, RestNames, RestSecret},
    store::NamedSecret,
};
use crate::config::{Settings, settings::Mechanisms};

/// RFC 8489 §14.3: USERNAME has fewer than 509 bytes.
const LONGEST_NAME: usize = 508;

/// A credential that was made just now.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The user name.
    pub username: String,
    /// The password that goes with it. To be shown to nobody but the user.
    pub password: Zeroizing<String>,
    /// How long it is good for.
    pub ttl: Duration,
    /// Until when, in seconds since the UNIX epoch.
    pub expires: u64,
}

/// Why no credential can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The name would not be read back as it is meant, or has no OpaqueString form.
    #[error("the user's name cannot stand in a user name of the configured form")]
    Name,
    /// USERNAME would be too long.
    #[error("the user's name is too long")]
    TooLong,
}

/// Why there is no secret to make a credential with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No such realm.
    #[error("there is no realm {0:?}")]
    Realm(String),
    /// The realm has none.
    #[error("this realm has no secret; add static-auth-secret, or one to the store")]
    NoSecret,
    /// None of this name.
    #[error("there is no secret {named:?}; there are: {known}")]
    Secret {
        /// The name.
        named: String,
        /// Those that there are.
        known: String,
    },
}

/// The secret to make credentials with, and the form of names: of the named realm, or else that of `[auth]`; of the given name, or
/// else the first.
///
/// # Errors
/// [`ChoiceError`]: there is none.
pub fn choose<'s>(
    settings: &'s Settings,
    realm: Option<&str>,
    secret: Option<&str>,
) -> Result<(&'s RestSecret, &'s RestNames), ChoiceError> {
    let (_, mechanisms) = realm_of(settings, realm)?;
    let secrets = &mechanisms.secrets;
    let chosen = match secret {
        None => secrets.first().ok_or(ChoiceError::NoSecret)?,
        Some(named) => secrets.iter().find(|secret| *secret.name == *named).ok_or_else(|| {
            let known: Vec<&str> = secrets.iter().map(|secret| &*secret.name).collect();
            ChoiceError::Secret { named: named.to_owned(), known: known.join(", ") }
        })?,
    };
    Ok((chosen, &mechanisms.rest))
}

/// The same of the secrets that a store has for that realm.
///
/// # Errors
/// [`ChoiceError`]: there is none.
pub fn choose_stored<'s>(
    settings: &'s Settings,
    realm: Option<&str>,
    secret: Option<&str>,
    stored: &[NamedSecret],
) -> Result<(RestSecret, &'s RestNames), ChoiceError> {
    let (_, mechanisms) = realm_of(settings, realm)?;
    let is_it = |stored: &&NamedSecret| secret.is_none() || stored.name.as_deref() == secret;
    let chosen = stored.iter().find(is_it).ok_or_else(|| match secret {
        None => ChoiceError::NoSecret,
        Some(named) => {
            let known: Vec<&str> = stored.iter().filter_map(|secret| secret.name.as_deref()).collect();
            ChoiceError::Secret { named: named.to_owned(), known: known.join(", ") }
        }
    })?;
    // As clients are let in by it: a name is that of its tenant, where names have one.
    let has_tenant = matches!(mechanisms.rest.form, RestForm::ExpiryTenantUser | RestForm::TenantUserExpiry);
    let name = chosen.name.as_deref();
    let secret = RestSecret {
        name: name.unwrap_or_default().into(),
        tenant: name.filter(|_| has_tenant).map(Arc::from),
        algorithm: RestAlgorithm::Sha1,
        key: Zeroizing::new(chosen.value.as_bytes().to_vec()),
    };
    Ok((secret, &mechanisms.rest))
}

/// The name of the named realm, or else of that of `[auth]`, and who is let in there.
fn realm_of<'s>(settings: &'s Settings, realm: Option<&str>) -> Result<(&'s str, &'s Mechanisms), ChoiceError> {
    let auth = &settings.auth;
    match realm.filter(|named| *named != auth.realm) {
        None => Ok((&auth.realm, &auth.mechanisms)),
        Some(named) => {
            let found = settings.realms.iter().find(|realm| realm.name == named);
            found.map(|realm| (&*realm.name, &realm.mechanisms)).ok_or_else(|| ChoiceError::Realm(named.to_owned()))
        }
    }
}

/// The realm whose secrets a store is asked for, in the form that stores have it, if the configuration has none for it.
#[must_use]
pub fn realm_in_store(settings: &Settings, realm: Option<&str>) -> Option<String> {
    let (name, mechanisms) = realm_of(settings, realm).ok()?;
    let asks = settings.store.is_some() && mechanisms.secrets.is_empty();
    asks.then(|| prepare(name).map_or_else(|_| name.to_owned(), Cow::into_owned))
}

/// Makes a credential for a user; `user` may be empty where the form of names allows it. `now` is the time since the UNIX epoch.
///
/// # Errors
/// [`MintError`]: the user's name does not serve.
pub fn mint(
    secret: &RestSecret,
    names: &RestNames,
    user: &str,
    ttl: Duration,
    now: Duration,
) -> Result<Minted, MintError> {
    let expires = now.as_secs().saturating_add(ttl.as_secs());
    let username = names.write(expires, secret.tenant.as_deref(), user);
    if username.len() > LONGEST_NAME {
        return Err(MintError::TooLong);
    }
    let read_back = names.parse(&username).ok_or(MintError::Name)?;
    let is_meant = read_back.expires == expires
        && read_back.tenant == secret.tenant.as_deref()
        && (read_back.user == user || user.is_empty());
    // Clients prepare names before they hash them, and the password is made of the name as it is here.
    let is_prepared = prepare(&username).is_ok_and(|prepared| prepared == username);
    if !is_meant || !is_prepared {
        return Err(MintError::Name);
    }
    let password = secret.password(&username);
    Ok(Minted { username, password, ttl, expires })
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minted({:?}, ****)", self.username)
    }
}

impl Minted {
    /// As draft-uberti-behave-turn-rest-00 §2.2 has it.
    #[must_use]
    pub fn rest(&self, uris: &[String]) -> Value {
        let turn: Vec<&String> = uris.iter().filter(|uri| is_turn(uri)).collect();
        json!({
            "username": self.username,
            "password": *self.password,
            "ttl": self.ttl.as_secs(),
            "uris": turn,
        })
    }

    /// As the constructor of RTCPeerConnection takes it: all servers in one entry.
    #[must_use]
    pub fn ice_servers(&self, uris: &[String]) -> Value {
        json!({ "iceServers": [self.entry(uris.iter())] })
    }

    /// As Cloudflare's `generate-ice-servers` answers: STUN and TURN in entries of their own.
    #[must_use]
    pub fn generate_ice_servers(&self, uris: &[String]) -> Value {
        let (turn, stun): (Vec<&String>, Vec<&String>) = uris.iter().partition(|uri| is_turn(uri));
        let stun = (!stun.is_empty()).then(|| json!({ "urls": stun }));
        let entries: Vec<Value> = stun.into_iter().chain([self.entry(turn.into_iter())]).collect();
        json!({ "iceServers": entries })
    }

    fn entry<'u>(&self, uris: impl Iterator<Item = &'u String>) -> Value {
        json!({
            "urls": uris.collect::<Vec<_>>(),
            "username": self.username,
            "credential": *self.password,
        })
    }
}

fn is_turn(uri: &str) -> bool {
    uri.starts_with("turn:") || uri.starts_with("turns:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::rest::{RestAlgorithm, RestForm};

    fn secret(tenant: Option<&str>) -> RestSecret {
        RestSecret {
            name: "first".into(),
            tenant: tenant.map(Into::into),
            algorithm: RestAlgorithm::Sha1,
            key: Zeroizing::new(b"north".to_vec()),
        }
    }

    fn made(form: RestForm, tenant: Option<&str>, user: &str) -> Result<Minted, MintError> {
        let names = RestNames { form, separator: ':' };
        mint(&secret(tenant), &names, user, Duration::from_secs(60), Duration::from_millis(1_000_999))
    }

    fn uris() -> Vec<String> {
        ["stun:192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp", "turns:turn.example.org:5349?transport=tcp"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn names_say_who_and_until_when() {
        let name = |form, tenant, user| made(form, tenant, user).map(|minted| minted.username);
        assert_eq!(name(RestForm::ExpiryUser, None, "alice").unwrap(), "1060:alice");
        assert_eq!(name(RestForm::ExpiryUser, None, "").unwrap(), "1060");
        assert_eq!(name(RestForm::UserExpiry, None, "a:b").unwrap(), "a:b:1060");
        assert_eq!(name(RestForm::ExpiryTenantUser, Some("acme"), "alice").unwrap(), "1060:acme:alice");
        let minted = made(RestForm::ExpiryUser, None, "alice").unwrap();
        assert_eq!((minted.expires, &minted.password), (1060, &secret(None).password("1060:alice")));
    }

    #[test]
    fn names_that_would_not_be_understood_are_refused() {
        for user in ["a\nb", "e\u{301}"] {
            assert_eq!(made(RestForm::ExpiryUser, None, user), Err(MintError::Name), "{user:?}");
        }
        assert_eq!(made(RestForm::TenantUserExpiry, Some("ac:me"), "alice"), Err(MintError::Name));
        assert_eq!(made(RestForm::ExpiryUser, None, &"x".repeat(504)), Err(MintError::TooLong));
    }

    #[test]
    fn the_shapes_are_those_that_clients_expect() {
        let minted = made(RestForm::ExpiryUser, None, "alice").unwrap();
        let (username, password) = ("1060:alice", minted.password.as_str());
        let turn = &uris()[1..];
        assert_eq!(
            minted.rest(&uris()),
            json!({ "username": username, "password": password, "ttl": 60, "uris": turn })
        );
        assert_eq!(
            minted.ice_servers(&uris()),
            json!({ "iceServers": [{ "urls": uris(), "username": username, "credential": password }] })
        );
        assert_eq!(
            minted.generate_ice_servers(&uris()),
            json!({ "iceServers": [
                { "urls": ["stun:192.0.2.1:3478"] },
                { "urls": turn, "username": username, "credential": password },
            ] })
        );
    }
}
