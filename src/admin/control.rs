//! What changes how the server runs: log level, drain, stop, what is in its store; and how it is configured.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{
    House,
    reply::{self, Refusal, Reply, bad},
    standing::Unknown,
};

/// Longest time to drain that can be asked for.
const LONGEST_DRAIN: f64 = 365.0 * 86_400.0;

/// The effective configuration, secrets masked.
pub(super) fn configuration(house: &House) -> Result<Reply, Refusal> {
    // The text is what `check` prints, which is TOML.
    let tree =
        house.known().configuration.parse::<toml::Table>().ok().and_then(|table| serde_json::to_value(table).ok());
    tree.map(|tree| reply::found(&tree))
        .ok_or_else(|| reply::refused(StatusCode::INTERNAL_SERVER_ERROR, "the configuration cannot be shown"))
}

pub(super) fn log_level(house: &House) -> Reply {
    reply::found(&json!({ "level": house.log.current() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: String,
}

pub(super) fn set_log_level(house: &House, body: &[u8]) -> Result<Reply, Refusal> {
    let Level { level } = serde_json::from_slice(body).map_err(|_| bad("write {\"level\": \"debug\"}"))?;
    let level = crate::config::check_log_level(&level).map_err(bad)?;
    house.log.set(&level).map_err(bad)?;
    tracing::info!(%level, "log level changed");
    Ok(reply::found(&json!({ "level": level })))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Drain {
    /// Seconds.
    timeout: Option<f64>,
    stay: bool,
}

pub(super) fn drain(house: &House, body: &[u8]) -> Result<Reply, Refusal> {
    let Drain { timeout, stay } = match body {
        [] => Drain::default(),
        body => {
            serde_json::from_slice(body).map_err(|_| bad("write {\"timeout\": SECONDS}, {\"stay\": true} or {}"))?
        }
    };
    if stay && timeout.is_some() {
        return Err(bad("a server that stays has no time after which it stops; leave one of the two out"));
    }
    if timeout.is_some_and(|seconds| !(0.0..=LONGEST_DRAIN).contains(&seconds)) {
        return Err(bad("the timeout is not a number of seconds up to a year"));
    }
    house.lifecycle.drain(timeout.map(Duration::from_secs_f64), stay);
    Ok(reply::json(StatusCode::ACCEPTED, &super::health::state(house)))
}

pub(super) fn undrain(house: &House) -> Reply {
    house.lifecycle.undrain();
    reply::found(&super::health::state(house))
}

pub(super) fn stop(house: &House) -> Reply {
    house.lifecycle.stop();
    reply::json(StatusCode::ACCEPTED, &super::health::state(house))
}

/// What has changed; everything, where nothing is said.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Changes {
    realm: Option<String>,
    user: Option<String>,
    secrets: bool,
}

/// Somebody has changed what is in the store: what is in the cache is asked for again, and what is no longer there ends its sessions.
pub(super) async fn store_has_changed(house: &House, body: &[u8]) -> Result<Reply, Refusal> {
    let wanted = "write {}, {\"realm\": \"…\", \"user\": \"…\"} or {\"realm\": \"…\", \"secrets\": true}";
    let changes =
        if body.is_empty() { Changes::default() } else { serde_json::from_slice(body).map_err(|_| bad(wanted))? };
    let standing = house.standing.as_ref();
    let standing = standing.ok_or_else(|| reply::refused(StatusCode::CONFLICT, "this server has no store of users"))?;
    let ended = match changes {
        Changes { realm: None, user: None, secrets: false } => standing.look_after_change().await,
        Changes { realm: Some(realm), user: Some(user), secrets: false } => standing.look_at_user(realm, user).await,
        Changes { realm: Some(realm), user: None, secrets: true } => standing.look_at_secrets(realm).await,
        _ => return Err(bad(wanted)),
    };
    let silent = |who| match who {
        Unknown::Worker => "a worker does not answer",
        Unknown::Store => "the store does not answer; what it let in goes on until it does",
    };
    let ended = ended.map_err(|who| reply::refused(StatusCode::SERVICE_UNAVAILABLE, silent(who)))?;
    Ok(reply::found(&json!({ "disconnected": ended })))
}
