//! Whether the server lives and takes new clients, and how it is in short.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    House,
    lifecycle::{Drain, Phase},
    reply::{self, Refusal, Reply},
    uris::uris,
};
use crate::{
    config::TOTAL_KEYS,
    turn::{Drop, Families, Mechanism, Totals, Transport, Verdict},
};

/// Seconds since 1970.
pub(super) fn unix_time(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Whether all workers work.
pub(super) async fn live(house: &House) -> Result<Reply, Refusal> {
    if house.surveyor.survey().await.complete {
        Ok(reply::found(&json!({ "live": true })))
    } else {
        Err(reply::refused(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer"))
    }
}

/// Why the server should get no new clients, if there are reasons.
pub(super) fn obstacles(house: &House) -> Vec<String> {
    let mut obstacles = Vec::new();
    match house.lifecycle.phase() {
        Phase::Serving => {}
        Phase::Draining(_) => obstacles.push("draining".to_owned()),
        Phase::Stopping => obstacles.push("stopping".to_owned()),
    }
    let known = house.known();
    let (limits, held) = (&known.settings.limits.total, house.monitor.held());
    for (key, limit, held) in
        [(TOTAL_KEYS.allocations, limits.allocations, held.used), (TOTAL_KEYS.unused, limits.unused, held.unused)]
    {
        if limit.is_some_and(|limit| held >= limit) {
            obstacles.push(format!("{key} is reached"));
        }
    }
    for ports in house.monitor.ports() {
        if ports.used >= ports.size {
            obstacles.push(format!("no {} relay port is left on {}", ports.protocol, ports.address));
        }
    }
    obstacles
}

/// Whether new clients should be sent here.
pub(super) fn ready(house: &House) -> Reply {
    let obstacles = obstacles(house);
    let status = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &json!({ "ready": obstacles.is_empty(), "obstacles": obstacles }))
}

/// Serving, draining or stopping.
pub(super) fn state(house: &House) -> Value {
    let (name, drain) = match house.lifecycle.phase() {
        Phase::Serving => ("serving", Value::Null),
        Phase::Stopping => ("stopping", Value::Null),
        Phase::Draining(Drain { since, deadline, stays, .. }) => {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
            ("draining", json!({ "for": since.elapsed().as_secs_f64(), "left": left, "stay": stays }))
        }
    };
    json!({ "state": name, "drain": drain, "sessions": house.monitor.sessions() })
}

/// Error responses by code, those of 0 counted as "other"; without the 401 that every client begins with.
fn refusals(totals: &Totals) -> Map<String, Value> {
    let mut refusals: BTreeMap<u16, u64> = BTreeMap::new();
    for (_, code, count) in totals.responses.iter() {
        if let Some(code) = code {
            *refusals.entry(code).or_default() += count;
        }
    }
    if let Some(challenges) = refusals.get_mut(&401) {
        *challenges = challenges.saturating_sub(totals.credentials(Mechanism::None, Verdict::Unauthenticated));
    }
    let named = |code: u16| if code == 0 { "other".to_owned() } else { code.to_string() };
    refusals.into_iter().map(|(code, count)| (named(code), count.into())).collect()
}

/// How the server is.
pub(super) async fn status(house: &House) -> Reply {
    let survey = house.surveyor.survey().await;
    let (totals, census, load) = (survey.totals(), survey.census(), house.surveyor.load());
    let obstacles = obstacles(house);
    let worker = |(at, worker): (usize, &crate::relay::Report)| {
        json!({
            "worker": at,
            "allocations": worker.census.sum(),
            "load": load.get(at),
            "processor_seconds": worker.processor_time.map(|time| time.as_secs_f64()),
        })
    };
    let by = Transport::ALL.into_iter().flat_map(|transport| Families::ALL.map(|families| (transport, families)));
    let by = by.map(|(transport, families)| {
        json!({
            "transport": transport.name(),
            "family": families.name(),
            "active": census.get(transport, families),
            "total": totals.begun.get(transport, families),
        })
    });
    let drops: Map<String, Value> =
        Drop::ALL.iter().map(|reason| (reason.name().to_owned(), totals.dropped(*reason).into())).collect();
    let traffic = |traffic: crate::turn::Traffic| json!({ "packets": traffic.packets, "bytes": traffic.bytes });
    let mut status = state(house);
    let details = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": unix_time(house.started),
        "uptime": house.started.elapsed().unwrap_or_default().as_secs_f64(),
        "ready": obstacles.is_empty(),
        "obstacles": obstacles,
        "answering": survey.complete,
        "workers": survey.workers.iter().enumerate().map(worker).collect::<Vec<_>>(),
        "listeners": house.monitor.endpoints().iter().map(|endpoint| {
            json!({ "transport": endpoint.transport.name(), "address": endpoint.address.to_string() })
        }).collect::<Vec<_>>(),
        "uris": uris(&house.known().settings, &house.monitor.endpoints()),
        "connections": house.monitor.connections(),
        "allocations": { "active": census.sum(), "total": totals.allocations(), "by": by.collect::<Vec<_>>() },
        "traffic": { "to_peers": traffic(totals.to_peers), "to_clients": traffic(totals.to_clients) },
        "offload": {
            "mode": house.monitor.offload().name(),
            "details": house.monitor.offload().to_string(),
            "to_peers": traffic(totals.kernel_to_peers),
            "to_clients": traffic(totals.kernel_to_clients),
        },
        "requests": { "successes": totals.successes(), "errors": totals.errors() },
        "refusals": refusals(&totals),
        "drops": drops,
        "kernel_drops": house.monitor.kernel_drops().iter().map(|drops| {
            json!({ "address": drops.address.to_string(), "datagrams": drops.datagrams })
        }).collect::<Vec<_>>(),
        "ports": house.monitor.ports().iter().map(|ports| {
            json!({
                "address": ports.address.to_string(),
                "protocol": ports.protocol,
                "used": ports.used,
                "size": ports.size,
            })
        }).collect::<Vec<_>>(),
        "certificates": house.known().certificates.iter().map(|certificate| {
            json!({ "file": certificate.file, "expires": certificate.at })
        }).collect::<Vec<_>>(),
    });
    if let (Some(status), Value::Object(details)) = (status.as_object_mut(), details) {
        status.extend(details);
    }
    reply::found(&status)
}
