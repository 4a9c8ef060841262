//! What a session's data have met with, in words.

use std::net::IpAddr;

use super::{
    Finding,
    words::{period, times},
};
use crate::turn::{EndReason, Ended, History, SessionView, Time, Traffic};

/// What of a session bears on whether it is heard.
struct Facts<'f> {
    to_peers: Traffic,
    to_client: Traffic,
    history: &'f History,
}

fn is_empty(traffic: Traffic) -> bool {
    traffic.packets == 0 && traffic.bytes == 0
}

fn shown(traffic: Traffic) -> String {
    match traffic.packets {
        0 => format!("{} bytes", traffic.bytes),
        packets => format!("{} bytes in {}", traffic.bytes, times(packets, "packet")),
    }
}

fn from(peer: Option<IpAddr>) -> String {
    peer.map_or_else(String::new, |peer| format!(", the last one {peer}"))
}

/// A reason for programs, what happened, and what to do.
type Words = (&'static str, String, String);

impl Facts<'_> {
    /// What is out of order, the gravest first.
    fn troubles(&self) -> Vec<Words> {
        let history = self.history;
        let mut found: Vec<Words> = Vec::new();
        if history.unpermitted_to > 0 {
            found.push((
                "permission-missing",
                format!(
                    "The client has sent {} to peers that it has no permission for{}; they were dropped.",
                    times(history.unpermitted_to.into(), "packet"),
                    from(history.last_unpermitted_to)
                ),
                "The client must install a permission (CreatePermission or ChannelBind) for the peer's address and refresh it \
                 within 5 minutes; if it is yours, do so when the peer's candidates arrive."
                    .to_owned(),
            ));
        }
        if history.unpermitted_from > 0 {
            found.push((
                "permission-missing",
                format!(
                    "{} came from peers that the client has given no permission{}; they were dropped.",
                    times(history.unpermitted_from.into(), "packet"),
                    from(history.last_unpermitted_from)
                ),
                "The client has not been told that the peer sends from there: see that the peer's candidates reach it \
                 (signalling); if the address is the peer's NAT, the peer's own server-reflexive or relayed candidate is missing."
                    .to_owned(),
            ));
        }
        if history.unbound > 0 {
            found.push((
                "channel-not-bound",
                format!(
                    "The client has sent {} on channels that are not bound; they were dropped.",
                    times(history.unbound.into(), "packet")
                ),
                "The client must bind a channel again within 10 minutes, and has not, or uses another number than it has bound."
                    .to_owned(),
            ));
        }
        if history.refused > 0 {
            found.push((
                "peer-refused",
                format!(
                    "{} to or from peers that the rules refuse were dropped{}.",
                    times(history.refused.into(), "packet"),
                    from(history.last_refused)
                ),
                "If that peer is to be reached, allow it with allowed-peer-ip in [peers].".to_owned(),
            ));
        }
        if history.limited > 0 {
            found.push((
                "limited",
                format!(
                    "{} beyond a limit of bandwidth, of packets per second or of the month were dropped.",
                    times(history.limited.into(), "packet")
                ),
                "See [limits] (max-bps, max-pps, bytes-per-month and their kin) and the metrics of limits; raise what is too \
                 tight."
                    .to_owned(),
            ));
        }
        let sent = !is_empty(self.to_peers);
        if sent && is_empty(self.to_client) {
            let unreachable = match history.unreachable {
                0 => String::new(),
                errors => format!(
                    " {} came back instead (unreachable){}.",
                    times(errors.into(), "error"),
                    from(history.last_unreachable)
                ),
            };
            found.push((
                "peer-never-answered",
                format!("The client has sent {} to its peers, and no peer has ever answered.{unreachable}", shown(self.to_peers)),
                "Look at the peer: it is gone, behind a firewall or NAT that lets in nothing from this server's relayed addresses \
                 (relay-ip, or external-ip if it is wrong; UDP ports min-port to max-port), or it was never told of this client."
                    .to_owned(),
            ));
        } else if !sent && history.unreachable > 0 {
            found.push((
                "peer-never-answered",
                format!(
                    "The client's peers cannot be reached: {} came back{}.",
                    times(history.unreachable.into(), "error"),
                    from(history.last_unreachable)
                ),
                "Look at the peer: nothing listens there, or a firewall keeps this server out.".to_owned(),
            ));
        } else if !sent && is_empty(self.to_client) && history.peers == 0 {
            found.push((
                "client-never-sent",
                "The client has got a relayed address, and has never named a peer or sent anything through it.".to_owned(),
                "The candidates of its peer have not reached it (signalling), or it has found a better way than the relay and keeps \
                 this one in reserve, which is ordinary."
                    .to_owned(),
            ));
        } else if !sent {
            found.push((
                "client-never-sent",
                format!(
                    "The client has named peers, and has never sent anything to them; from them came {}.",
                    shown(self.to_client)
                ),
                "Look at the client: it has chosen another way, or its microphone and camera send nothing, or its data do not \
                 arrive here (a firewall that lets only short exchanges pass)."
                    .to_owned(),
            ));
        }
        found
    }
}

/// What there is to say of a session that goes on.
pub(super) fn living(session: &SessionView, history: &History, now: Time) -> Vec<Finding> {
    let facts = Facts { to_peers: session.to_peers, to_client: session.to_client, history };
    let mut words = facts.troubles();
    if session.away {
        words.insert(
            0,
            (
                "client-away",
                "The client's connection is gone, and its session waits for it to come back with its ticket."
                    .to_owned(),
                "It has lost its network; if it does not come back, the session ends by itself.".to_owned(),
            ),
        );
    }
    // A peer is often earlier than its permission: where data pass both ways that was no trouble.
    let passes = !is_empty(session.to_peers) && !is_empty(session.to_client);
    let is_early = |(reason, ..): &Words| passes && *reason == "permission-missing";
    if words.iter().all(is_early) {
        words.push((
            "in-order",
            format!(
                "The session is in order: {} to peers, {} back.",
                shown(session.to_peers),
                shown(session.to_client)
            ),
            "If it is not heard nevertheless, the data are lost or useless behind the relay: look at the client and its peer."
                .to_owned(),
        ));
    }
    let began = Time(now.0.saturating_sub(u64::try_from(session.age.as_millis()).unwrap_or(0)));
    let finding = |(reason, text, remedy): Words| Finding {
        reason,
        is_ordinary: match reason {
            "in-order" => true,
            "client-never-sent" => history.peers == 0,
            "permission-missing" => passes,
            _ => false,
        },
        text: format!("In the session {}, begun {} ago: {text}", session.id, period(session.age)),
        remedy,
        client: Some(session.client.client),
        transport: Some(session.client.transport),
        user: Some(session.subject.user.to_string()).filter(|user| !user.is_empty()),
        session: Some(session.id),
        count: 1,
        times: Some((began, now)),
    };
    words.into_iter().map(finding).collect()
}

/// Adds a finding about a session; of one that has the same trouble as another it is enough to say so.
pub(super) fn add(findings: &mut Vec<Finding>, new: Finding) {
    match findings.iter_mut().find(|other| other.reason == new.reason && other.remedy == new.remedy) {
        Some(other) => other.count += 1,
        None => findings.push(new),
    }
}

/// How a session has ended.
const fn end(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Expired => "was not refreshed in time: the client is gone or has lost its network",
        EndReason::Deleted => "was ended by the client",
        EndReason::CredentialExpired => "ended with the credential that it was made with",
        EndReason::Revoked => "was ended as its user, secret or key was revoked",
        EndReason::ConnectionClosed => "ended with the client's connection",
        EndReason::Stopped => "ended as the server stopped",
        EndReason::Fault | EndReason::Lost => "was lost by a fault of this server, which is a bug",
        EndReason::Disconnected => "was ended by an operator",
    }
}

/// What there is to say of a session that has ended.
pub(super) fn ended(ended: &Ended) -> Finding {
    let facts = Facts { to_peers: ended.to_peers, to_client: ended.to_client, history: &ended.history };
    let mut text = format!(
        "The session {} {}, after {}: {} to peers, {} back.",
        ended.id,
        end(ended.reason),
        period(ended.at.since(ended.begun)),
        shown(ended.to_peers),
        shown(ended.to_client)
    );
    let troubles = facts.troubles();
    for (_, more, _) in &troubles {
        text = format!("{text} {more}");
    }
    let quiet = troubles.iter().all(|(reason, ..)| *reason == "client-never-sent");
    let remedy = match (ended.reason, troubles.into_iter().next()) {
        (EndReason::CredentialExpired, _) => {
            "Make credentials that are good for longer than a call takes (ttl), or let clients refresh with a new one."
                .to_owned()
        }
        (_, Some((_, _, remedy))) => remedy,
        (_, None) => "Nothing is to be done about it.".to_owned(),
    };
    let is_ordinary = ended.reason == EndReason::Deleted && quiet;
    Finding {
        reason: "session-ended",
        is_ordinary,
        text,
        remedy,
        client: Some(ended.client.client),
        transport: Some(ended.client.transport),
        user: Some(ended.user.to_string()).filter(|user| !user.is_empty()),
        session: Some(ended.id),
        count: 1,
        times: Some((ended.begun, ended.at)),
    }
}
