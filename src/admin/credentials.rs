//! Time-limited credentials, made with a secret of the configuration or, where that has none, of the store, for applications that give them to their users.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{
    House,
    query::Query,
    reply::{self, Refusal, Reply, bad, refused},
    sessions::{nothing_else, number},
};
use crate::{
    auth::mint::{choose, choose_stored, mint, realm_in_store},
    config::client_uris,
};

/// How long one is good for, in seconds, if nothing else is asked for, and at most.
const TTL: usize = 86_400;
const LONGEST_TTL: usize = 365 * 86_400;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    user: String,
    /// Seconds.
    ttl: usize,
    realm: Option<String>,
    secret: Option<String>,
    shape: Shape,
}

impl Default for Wish {
    fn default() -> Self {
        Self { user: String::new(), ttl: TTL, realm: None, secret: None, shape: Shape::Rest }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    Rest,
    IceServers,
    Cloudflare,
}

/// As the draft asks: everything in the query.
pub(super) async fn by_query(house: &House, query: &mut Query) -> Result<Reply, Refusal> {
    if query.take("service").is_some_and(|service| service != "turn") {
        return Err(bad("`service` is not turn"));
    }
    let (user, username) = (query.take("user"), query.take("username"));
    let shape = match query.take("shape").as_deref() {
        None | Some("rest") => Shape::Rest,
        Some("ice-servers") => Shape::IceServers,
        Some("cloudflare") => Shape::Cloudflare,
        Some(_) => return Err(bad("`shape` is not one of rest, ice-servers, cloudflare")),
    };
    let wish = Wish {
        user: user.or(username).unwrap_or_default(),
        ttl: number(query, "ttl", TTL, LONGEST_TTL)?,
        realm: query.take("realm"),
        secret: query.take("secret"),
        shape,
    };
    nothing_else(query)?;
    make(house, &wish, StatusCode::OK).await
}

/// Everything in the body, as far as it is not as usual.
pub(super) async fn by_body(house: &House, body: &[u8]) -> Result<Reply, Refusal> {
    let wish = match body {
        [] => Wish::default(),
        // A list would be taken for an object without names.
        body => serde_json::from_slice(body).and_then(|wish| serde_json::from_value(Value::Object(wish))).map_err(|_| {
            bad("write {\"user\": \"alice\", \"ttl\": SECONDS, \"realm\": …, \"secret\": …, \"shape\": \"rest\"}, or less")
        })?,
    };
    if !(1..=LONGEST_TTL).contains(&wish.ttl) {
        return Err(bad(format!("`ttl` is not a number from 1 to {LONGEST_TTL}")));
    }
    make(house, &wish, StatusCode::CREATED).await
}

async fn make(house: &House, wish: &Wish, status: StatusCode) -> Result<Reply, Refusal> {
    let known = house.known();
    let settings = &known.settings;
    let (realm, named) = (wish.realm.as_deref(), wish.secret.as_deref());
    let chosen = match (realm_in_store(settings, realm), &house.standing) {
        (Some(prepared), Some(standing)) => {
            let stored = standing.secrets(&prepared).await;
            let stored = stored.map_err(|_| refused(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"))?;
            choose_stored(settings, realm, named, &stored)
        }
        _ => choose(settings, realm, named).map(|(secret, names)| (secret.clone(), names)),
    };
    let (secret, names) = chosen.map_err(|error| bad(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // At most a year.
    let ttl = Duration::from_secs(wish.ttl as u64);
    let minted = mint(&secret, names, &wish.user, ttl, now).map_err(|error| bad(error.to_string()))?;
    let uris = client_uris(settings);
    let shown = match wish.shape {
        Shape::Rest => minted.rest(&uris),
        Shape::IceServers => minted.ice_servers(&uris),
        Shape::Cloudflare => minted.generate_ice_servers(&uris),
    };
    Ok(reply::json(status, &shown))
}
