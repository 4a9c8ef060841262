//! `[limits]` and `[lifetimes]`: how much, and for how long.

use super::{
    report::Kind,
    source::{Given, Source, bandwidth, from},
};

/// Largest number that our limits take.
const MOST: u64 = 1_000_000_000;

/// Lowest bandwidth that our limits take, in bytes per second.
const SLOWEST: u64 = 1_000;

/// Highest bandwidth that they take.
const FASTEST: u64 = 1_000_000_000_000;

pub(super) fn import(source: &mut Source<'_>) {
    quotas(source);
    unauthorized(source);
    if let Some(Given { value, line }) = source.number("multiplex-peer-max-peers") {
        if source.is_on("multiplex-peer") {
            let peers = value.clamp(1, 0x4000);
            source.document.set(
                "[limits]",
                "permissions-per-allocation",
                peers,
                from("multiplex-peer-max-peers", line),
            );
            source.document.set("[limits]", "channels-per-allocation", peers, "");
        } else {
            source.report.say(Kind::Ignored, line, "multiplex-peer-max-peers", "it is of use with multiplex-peer only");
        }
    }
    lifetimes(source);
}

/// coturn reserves `max-bps` of `bps-capacity` for each session, and has no more of them than that makes.
fn quotas(source: &mut Source<'_>) {
    if let Some(Given { value, line }) = source.number("user-quota") {
        source.document.set("[limits]", "user-quota", value.min(MOST), from("user-quota", line));
    }
    let max_bps = source.number("max-bps");
    let total = source.number("total-quota");
    let mut total = total.map(|given| (given.value.min(MOST), from("total-quota", given.line)));
    if let Some(Given { value: capacity, line }) = source.number("bps-capacity").filter(|given| given.value > 0) {
        match max_bps.filter(|given| given.value > 0) {
            Some(each) => {
                let sessions = (capacity / each.value).clamp(1, MOST);
                let what =
                    format!("with max-bps of line {} it makes {sessions} sessions, which total-quota says", each.line);
                source.report.say(Kind::Note, line, "bps-capacity", what);
                if total.as_ref().is_none_or(|(quota, _)| *quota == 0 || *quota > sessions) {
                    total = Some((sessions, format!("bps-capacity / max-bps, lines {line} and {}", each.line)));
                }
            }
            None => source.report.say(Kind::Ignored, line, "bps-capacity", "it limits nothing without max-bps"),
        }
    }
    if let Some((quota, why)) = total {
        source.document.set("[limits]", "total-quota", quota, why);
    }
    match max_bps {
        Some(Given { value: 1..SLOWEST, line }) => {
            let what = "is less than 1000 bytes per second, which would relay nothing; write more, or remove it";
            source.report.say(Kind::Error, line, "max-bps", what);
        }
        Some(Given { value: 0, .. }) | None => {}
        Some(Given { value, line }) => {
            source.document.set("[limits]", "max-bps", bandwidth(value.min(FASTEST)), from("max-bps", line));
            let what = "is in bytes per second with coturn, and written so, with its unit";
            source.report.say(Kind::Note, line, "max-bps", what);
        }
    }
}

fn unauthorized(source: &mut Source<'_>) {
    let is_on = source.on("unauthorized-ratelimit");
    match (source.number("unauthorized-ratelimit-rps"), is_on) {
        (Some(Given { value, line }), Some(_)) => {
            let rate = value.clamp(1, MOST);
            source.document.set("[limits]", "unauthorized-rate", rate, from("unauthorized-ratelimit-rps", line));
        }
        (None, Some(line)) => {
            source.document.set("[limits]", "unauthorized-rate", 10, from("unauthorized-ratelimit", line));
        }
        (Some(Given { line, .. }), None) => {
            let what = "unauthorized-ratelimit is off, so that coturn limits nothing; the limit here stays as it is by default";
            source.report.say(Kind::Ignored, line, "unauthorized-ratelimit-rps", what);
        }
        (None, None) => {}
    }
}

fn lifetimes(source: &mut Source<'_>) {
    /// What an allocation gets that asks for nothing; coturn grants nothing shorter.
    const DEFAULT: u64 = 600;
    if let Some(Given { value, line }) = source.number("max-allocate-lifetime") {
        let value = value.clamp(1, 365 * 86_400);
        if value < DEFAULT {
            source.document.set("[lifetimes]", "default-allocate-lifetime", value, "not above the longest");
            let what =
                "is below 600 seconds, which coturn grants to clients that ask for nothing; here they get this, too";
            source.report.say(Kind::Changed, line, "max-allocate-lifetime", what);
        }
        source.document.set("[lifetimes]", "max-allocate-lifetime", value, from("max-allocate-lifetime", line));
    }
    for (key, rfc) in [("permission-lifetime", 300), ("channel-lifetime", 600)] {
        let Some(Given { value, line }) = source.number(key) else { continue };
        if value != rfc {
            source.report.say(Kind::Note, line, key, format!("RFC 8656 says {rfc} seconds, and clients rely on it"));
        }
        source.document.set("[lifetimes]", key, value.clamp(1, 365 * 86_400), from(key, line));
    }
    if let Some(Given { value, line }) = source.number("max-allocate-timeout") {
        source.document.set("[tcp]", "idle-timeout", value.clamp(1, 365 * 86_400), from("max-allocate-timeout", line));
    }
}
