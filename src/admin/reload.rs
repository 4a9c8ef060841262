//! Reading the configuration again: asked for here, done by whoever runs the server, counted here.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use hyper::StatusCode;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{
    House,
    exposition::{Exposition, Kind},
    health::unix_time,
    reply::{self, Refusal, Reply, refused},
};

/// Requests that wait at most.
const ROOM: usize = 8;

/// What a reload has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Keys and tables that are different from before.
    pub changed: Vec<String>,
    /// Keys that are written otherwise than they are in force, because they need a restart.
    pub restart: Vec<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Sessions that have ended because their users or secrets are gone.
    pub ended: usize,
    /// Every worker goes by it.
    pub complete: bool,
}

/// Why nothing has changed, for people; a line for each reason.
pub type Refused = String;

/// Somebody who waits for a reload.
#[derive(Debug)]
pub struct ReloadRequest(oneshot::Sender<Result<Outcome, Refused>>);

impl ReloadRequest {
    /// Tells what it has come to.
    pub fn answer(self, outcome: Result<Outcome, Refused>) {
        // Nobody may want to know any more.
        let _ = self.0.send(outcome);
    }
}

/// Where reloads are asked for and counted.
#[derive(Debug)]
pub struct Reloads {
    requests: mpsc::Sender<ReloadRequest>,
    applied: AtomicU64,
    refused: AtomicU64,
    addresses: AtomicU64,
    /// When the configuration in force was read.
    last: Mutex<SystemTime>,
}

impl Reloads {
    /// With what comes in. The configuration was read just now.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<ReloadRequest>) {
        let (requests, asked) = mpsc::channel(ROOM);
        let (applied, refused, addresses) = Default::default();
        (Arc::new(Self { requests, applied, refused, addresses, last: Mutex::new(SystemTime::now()) }), asked)
    }

    /// Counts a reload.
    pub fn count(&self, applied: bool) {
        if applied {
            self.applied.fetch_add(1, Relaxed);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    /// Counts another external address.
    pub fn count_address(&self) {
        self.addresses.fetch_add(1, Relaxed);
    }

    pub(super) fn metrics(&self, text: &mut Exposition) {
        let help = "Reloads of the configuration, or of a file that belongs to it.";
        let mut family = text.family("turn_config_reloads_total", Kind::Counter, help);
        for (result, count) in [("applied", &self.applied), ("refused", &self.refused)] {
            family.sample(&[("result", result)], count.load(Relaxed));
        }
        let help = "How often the external address of a relay address has changed (external-ip = \"auto\").";
        text.single("turn_external_address_changes_total", Kind::Counter, help, self.addresses.load(Relaxed));
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "When the configuration in force was read, in seconds since 1970.";
        text.single("turn_config_last_success_timestamp_seconds", Kind::Gauge, help, unix_time(last));
    }
}

/// Reads the configuration again and waits until all that can change has changed.
pub(super) async fn reload(house: &House) -> Result<Reply, Refusal> {
    let unavailable = || refused(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping, or busy with other reloads");
    let (sender, answer) = oneshot::channel();
    house.reloads.requests.try_send(ReloadRequest(sender)).map_err(|_| unavailable())?;
    let outcome = answer.await.map_err(|_| unavailable())?;
    let Outcome { changed, restart, warnings, ended, complete } = outcome.map_err(|why| {
        refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the configuration is refused, and nothing has changed:\n{why}"),
        )
    })?;
    Ok(reply::found(&json!({
        "changed": changed,
        "needs_restart": restart,
        "warnings": warnings,
        "sessions_ended": ended,
        "complete": complete,
    })))
}
