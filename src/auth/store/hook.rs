//! A service elsewhere that knows the users: asked by POST over HTTP, in JSON, each request signed.
//!
//! The body says what is asked, and the answer with status 200 is what is known, `null` if there is nothing like it:
//!
//! | question | answer |
//! |---|---|
//! | `{"question":"user","realm":"example.org","user":"alice"}` | `{"password":"…"}`, or the keys `{"key":"32 hex digits of MD5","key-sha256":"64 hex digits"}` |
//! | `{"question":"secrets","realm":"example.org"}` | `[{"secret":"…","name":"blue"}]`, with or without names |
//! | `{"question":"token-key","kid":"oldempire"}` | `{"key":"base64","algorithm":"A256GCM","timestamp":0,"lifetime":0,"realm":"example.org"}`; the key and nothing else is needed |
//! | `{"question":"realms"}` | `[{"realm":"example.org","user-quota":10,"total-quota":1000,"max-bps":500000}]` |
//! | `{"question":"peer-rules","realm":"example.org"}` | `{"allowed-peer-ip":["10.0.0.0/8"],"denied-peer-ip":[]}` |
//! | `{"question":"probe"}` | anything |
//!
//! Two headers prove who asks: `Turnserver-Timestamp`, seconds since the UNIX epoch, and `Turnserver-Signature`, which is
//! `sha256=` and the hexadecimal HMAC-SHA256 over timestamp, a full stop, and the body. Any other status, and an answer that
//! is not understood, is a failure. Redirections are not followed.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, header::CONTENT_TYPE};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    Answer, NamedSecret, PeerRules, RealmOptions, Record, Store, StoreError, TokenKey,
    record::{TokenRow, hex, token_key},
};
use crate::{
    auth::key::{LongTermKey, md5_key, sha256_key},
    config::settings::{HttpStore, Secret},
};

/// Longest answer taken.
const LONGEST_ANSWER: usize = 1 << 20;

/// How long a connection that nobody needs is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Users known to a service.
pub struct HookStore {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    secret: Zeroizing<String>,
}

impl HookStore {
    /// A service as configured. It is connected to when it is first asked.
    pub fn open(service: &HttpStore, connections: u32) -> Result<Self, StoreError> {
        let HttpStore { url: Secret(url), secret: Secret(secret), ca } = service;
        let refused = |what: String| StoreError::Refused(what);
        let uri: Uri = url.as_str().parse().map_err(|error| refused(format!("has an unusable URL: {error}")))?;
        let mut roots = RootCertStore::empty();
        match ca {
            Some((file, certificates)) => {
                for certificate in certificates {
                    let added = roots.add(certificate.clone());
                    added.map_err(|error| refused(format!("cannot be trusted by {}: {error}", file.display())))?;
                }
            }
            None if url.scheme() == "https" => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(refused(
                        "cannot be trusted: this system has no root certificates; give `ca`".to_owned(),
                    ));
                }
            }
            None => {}
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(connections as usize)
            .build(connector);
        Ok(Self { client, uri, secret: secret.clone() })
    }

    /// Asks, and reads the answer; `None` if that is `null`.
    async fn ask<T: DeserializeOwned>(&self, question: &Question<'_>) -> Result<Option<T>, StoreError> {
        let refused = |what: String| StoreError::Refused(what);
        let body = serde_json::to_vec(question).map_err(|error| refused(error.to_string()))?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = since_epoch.as_secs().to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("turnserver-timestamp", &timestamp)
            .header("turnserver-signature", signature(&self.secret, &timestamp, &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| refused(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| {
            // The error alone says "client error (Connect)"; what happened is behind it.
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            StoreError::Unreachable(cause)
        })?;
        if response.status() != StatusCode::OK {
            return Err(refused(format!("answers with status {}", response.status())));
        }
        let answer = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let answer = answer.map_err(|error| StoreError::Unreachable(error.to_string()))?.to_bytes();
        read(&answer)
    }
}

/// Reads an answer; `None` if it is `null`.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<Option<T>, StoreError> {
    // What the text of this error repeats of the answer are names of fields and types, never values.
    serde_json::from_slice(answer).map_err(|error| {
        let place = (error.line(), error.column());
        let kind = if error.is_data() { "is not what was asked for" } else { "is not JSON" };
        StoreError::Malformed(format!("the answer {kind}, at line {} column {}", place.0, place.1))
    })
}

/// Reads an answer as that to each of the questions, about this user of this realm.
#[doc(hidden)]
pub fn read_as_any(answer: &[u8], realm: &str, name: &str) -> AsAny {
    AsAny {
        user: read(answer).and_then(|answer| user(realm, name, answer)),
        secrets: read(answer).and_then(|answer| secrets(realm, answer)),
        token_key: read(answer).and_then(|answer| key_of_tokens(name, answer)),
        realms: read(answer).map(realms),
        peer_rules: read(answer).and_then(peer_rules),
    }
}

/// What an answer is to each of the questions.
#[doc(hidden)]
#[derive(Debug)]
#[allow(missing_docs)]
pub struct AsAny {
    pub user: Result<Option<Record>, StoreError>,
    pub secrets: Result<Vec<NamedSecret>, StoreError>,
    pub token_key: Result<Option<TokenKey>, StoreError>,
    pub realms: Result<Vec<RealmOptions>, StoreError>,
    pub peer_rules: Result<PeerRules, StoreError>,
}

/// The value of `Turnserver-Signature`.
fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut text = "sha256=".to_owned();
    // HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            // Writing into a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[derive(Serialize)]
#[serde(tag = "question", rename_all = "kebab-case")]
enum Question<'a> {
    User { realm: &'a str, user: &'a str },
    Secrets { realm: &'a str },
    TokenKey { kid: &'a str },
    Realms,
    PeerRules { realm: &'a str },
    Probe,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UserAnswer {
    password: Option<String>,
    key: Option<String>,
    key_sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SecretAnswer {
    name: Option<String>,
    secret: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TokenAnswer {
    key: String,
    algorithm: Option<String>,
    timestamp: Option<i64>,
    lifetime: Option<i64>,
    realm: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RealmAnswer {
    realm: String,
    max_bps: Option<u64>,
    total_quota: Option<u32>,
    user_quota: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct PeersAnswer {
    allowed_peer_ip: Vec<String>,
    denied_peer_ip: Vec<String>,
}

/// The keys of a user, made from the password if that is what there is.
fn record(realm: &str, name: &str, answer: UserAnswer) -> Result<Record, StoreError> {
    let malformed = |what: String| StoreError::Malformed(format!("the user {name:?} {what}"));
    let UserAnswer { password, key, key_sha256 } = answer;
    let [password, key, key_sha256] = [password, key, key_sha256].map(|secret| secret.map(Zeroizing::new));
    let (md5, sha256) = match (password, key, key_sha256) {
        (Some(password), None, None) => {
            let unfit = |error| malformed(format!("has a password that {error}"));
            (
                Some(md5_key(name, realm, &password).map_err(unfit)?),
                Some(sha256_key(name, realm, &password).map_err(unfit)?),
            )
        }
        (None, None, None) => return Err(malformed("has neither password nor key".to_owned())),
        (None, md5, sha256) => {
            let unfit = || malformed("has a key that is none".to_owned());
            (
                md5.map(|key| hex(&key).map(LongTermKey::Md5).ok_or_else(unfit)).transpose()?,
                sha256.map(|key| hex(&key).map(LongTermKey::Sha256).ok_or_else(unfit)).transpose()?,
            )
        }
        (Some(_), ..) => return Err(malformed("has both password and key".to_owned())),
    };
    Ok(Record { md5, sha256 })
}

fn user(realm: &str, name: &str, answer: Option<UserAnswer>) -> Result<Option<Record>, StoreError> {
    answer.map(|answer| record(realm, name, answer)).transpose()
}

fn secrets(realm: &str, answer: Option<Vec<SecretAnswer>>) -> Result<Vec<NamedSecret>, StoreError> {
    let answer = answer.unwrap_or_default();
    if answer.iter().any(|secret| secret.secret.is_empty()) {
        return Err(StoreError::Malformed(format!("a secret of realm {realm:?} is empty")));
    }
    let named = |SecretAnswer { name, secret }| NamedSecret { name, value: Zeroizing::new(secret) };
    Ok(answer.into_iter().map(named).collect())
}

fn key_of_tokens(kid: &str, answer: Option<TokenAnswer>) -> Result<Option<TokenKey>, StoreError> {
    let row = |TokenAnswer { key, algorithm, timestamp, lifetime, realm }| TokenRow {
        ikm_key: Some(key),
        timestamp,
        lifetime,
        as_rs_alg: algorithm,
        realm,
    };
    answer.map(|answer| token_key(kid, row(answer))).transpose()
}

fn realms(answer: Option<Vec<RealmAnswer>>) -> Vec<RealmOptions> {
    let options = |RealmAnswer { realm, max_bps, total_quota, user_quota }| RealmOptions {
        realm,
        max_bytes_per_second: max_bps.filter(|number| *number > 0),
        total_quota: total_quota.filter(|number| *number > 0),
        user_quota: user_quota.filter(|number| *number > 0),
    };
    answer.unwrap_or_default().into_iter().map(options).collect()
}

fn peer_rules(answer: Option<PeersAnswer>) -> Result<PeerRules, StoreError> {
    let PeersAnswer { allowed_peer_ip, denied_peer_ip } = answer.unwrap_or_default();
    PeerRules::read(allowed_peer_ip.iter().map(String::as_str), denied_peer_ip.iter().map(String::as_str))
}

impl Store for HookStore {
    fn user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, Option<Record>> {
        Box::pin(async move { user(realm, name, self.ask(&Question::User { realm, user: name }).await?) })
    }

    fn secrets<'a>(&'a self, realm: &'a str) -> Answer<'a, Vec<NamedSecret>> {
        Box::pin(async move { secrets(realm, self.ask(&Question::Secrets { realm }).await?) })
    }

    fn token_key<'a>(&'a self, kid: &'a str) -> Answer<'a, Option<TokenKey>> {
        Box::pin(async move { key_of_tokens(kid, self.ask(&Question::TokenKey { kid }).await?) })
    }

    fn realms(&self) -> Answer<'_, Vec<RealmOptions>> {
        Box::pin(async move { Ok(realms(self.ask(&Question::Realms).await?)) })
    }

    fn peer_rules<'a>(&'a self, realm: &'a str) -> Answer<'a, PeerRules> {
        Box::pin(async move { peer_rules(self.ask(&Question::PeerRules { realm }).await?) })
    }

    fn probe(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.ask::<serde_json::Value>(&Question::Probe).await {
                // Whatever it says, it is there and has accepted the signature.
                Ok(_) | Err(StoreError::Malformed(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(text: &str) -> Result<Record, StoreError> {
        record("r", "u", serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_user_has_a_password_or_keys() {
        let by_password = record_of(r#"{"password":"p"}"#).unwrap();
        assert_eq!(by_password.md5.unwrap().as_bytes(), md5_key("u", "r", "p").unwrap().as_bytes());
        assert_eq!(by_password.sha256.unwrap().as_bytes(), sha256_key("u", "r", "p").unwrap().as_bytes());
        let by_key = record_of(r#"{"key":"bc807ee29df3c9ffa736523fb2c4e8ee"}"#).unwrap();
        assert!(by_key.md5.is_some() && by_key.sha256.is_none());
        for (text, what) in [
            ("{}", "neither password nor key"),
            (r#"{"password":"hunter2","key":"00"}"#, "both password and key"),
            (r#"{"key":"hunter2"}"#, "has a key that is none"),
            (r#"{"password":"hunter2\n"}"#, "has a password that has a forbidden character at position 8"),
        ] {
            let error = record_of(text).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("hunter2"), "{error}");
        }
    }

    /// The expected value is that of Python's `hmac.new(b"Jefe", b"17.{}", "sha256")`.
    #[test]
    fn the_signature_is_hmac_sha256_over_timestamp_full_stop_and_body() {
        let expected = "sha256=20436aa1b1c2be79262487183b4bde32ab5295b6c1b6708037853fcdd1912c7b";
        assert_eq!(signature("Jefe", "17", b"{}"), expected);
    }
}
