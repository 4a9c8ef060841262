//! Why a client cannot connect, or is not heard: what the workers remember of it and the sessions that it has, in words.
//!
//! `words`: what was refused. `sessions`: what a session's data have met with. Each finding is one sentence or two of what
//! happened, and one of what to do.

mod sessions;
mod words;

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use self::words::Scene;
use super::{
    House,
    query::Query,
    reply::{self, Refusal, Reply, bad},
    sessions::{Cursor, nothing_else, silent, visit},
};
use crate::{
    relay::{Filter, Recalled, Told},
    turn::{AllocationId, Arrival, SessionView, Time, Transport, Whom},
};

/// Sessions that are looked into.
const SESSIONS: usize = 20;
/// Sessions that have ended, of which is told.
const ENDED: usize = 5;

/// One thing that is known.
#[derive(Debug)]
struct Finding {
    reason: &'static str,
    /// It is no trouble by itself.
    is_ordinary: bool,
    text: String,
    remedy: String,
    client: Option<SocketAddr>,
    transport: Option<Transport>,
    user: Option<String>,
    session: Option<AllocationId>,
    count: u32,
    /// First and last time.
    times: Option<(Time, Time)>,
}

impl Finding {
    fn shown(&self, now: Time) -> Value {
        let ago = |time: Time| now.since(time).as_secs_f64();
        json!({
            "reason": self.reason,
            "text": self.text,
            "remedy": self.remedy,
            "client": self.client.map(|client| client.to_string()),
            "transport": self.transport.map(Transport::name),
            "user": self.user,
            "session": self.session.map(|id| id.to_string()),
            "count": self.count,
            "first": self.times.map(|(first, _)| ago(first)),
            "last": self.times.map(|(_, last)| ago(last)),
        })
    }
}

/// What somebody asks about. 16 hexadecimal digits are a session's id, as lists write it.
fn whom(text: &str) -> Result<(Whom, &'static str), Refusal> {
    if text.is_empty() {
        return Err(bad("`of` is an IP address, an address with its port, a user, or the id of a session"));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok((Whom::Client(ip.to_canonical(), None), "address"));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Whom::Client(address.ip().to_canonical(), Some(address.port())), "address"));
    }
    let id = (text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text);
    if let Some(Ok(id)) = id.map(|text| u64::from_str_radix(text, 16)) {
        return Ok((Whom::Session(AllocationId(id)), "session"));
    }
    Ok((Whom::User(text.to_owned()), "user"))
}

/// The sessions that somebody has.
fn filter(whom: Whom) -> Filter {
    Arc::new(move |session: &SessionView| match &whom {
        Whom::Client(ip, port) => {
            let client = session.client.client;
            client.ip().to_canonical() == *ip && port.is_none_or(|port| client.port() == port)
        }
        Whom::User(user) => *session.subject.user == **user,
        Whom::Session(id) => session.id == *id,
    })
}

/// Answers `GET /v1/explain`.
pub(super) async fn explain(house: &House, query: &mut Query) -> Result<Reply, Refusal> {
    let of = query.take("of").unwrap_or_default();
    nothing_else(query)?;
    let (whom, kind) = whom(&of)?;
    let recalled = house.monitor.recall(&whom).await.ok_or_else(silent)?;
    let mut views = Vec::new();
    visit(house, Cursor::default(), &filter(whom.clone()), |session| {
        views.push(session);
        views.len() < SESSIONS
    })
    .await?;
    let mut findings = Vec::new();
    for session in views {
        let Some(place) = house.monitor.find(session.id).await else { continue };
        // It may have ended meanwhile.
        if let Some((session, detail)) = house.monitor.detail(place, session.id).await {
            sessions::living(&session, &detail.history, house.monitor.now()).into_iter().for_each(|finding| {
                sessions::add(&mut findings, finding);
            });
        }
    }
    let now = house.monitor.now();
    let scene = Scene { endpoints: &house.monitor.endpoints() };
    findings.extend(past(&recalled, &scene));
    // Trouble first, and then the last first.
    findings.sort_by_key(|finding| (finding.is_ordinary, Reverse(finding.times.map(|(_, last)| last))));
    if findings.is_empty() {
        findings.push(nothing(&whom, &recalled.arrivals, &scene, house.started.elapsed().unwrap_or_default()));
    }
    let findings: Vec<Value> = findings.iter().map(|finding| finding.shown(now)).collect();
    Ok(reply::found(&json!({ "of": of, "kind": kind, "findings": findings })))
}

/// What is over.
fn past(recalled: &Recalled, scene: &Scene<'_>) -> Vec<Finding> {
    let told = recalled.told.iter().map(|told: &Told| scene.finding(told));
    let mut ended: Vec<_> = recalled.ended.iter().collect();
    ended.sort_by_key(|ended| Reverse(ended.at));
    told.chain(ended.into_iter().take(ENDED).map(sessions::ended)).collect()
}

/// What it means that nothing is known.
fn nothing(whom: &Whom, arrivals: &[(IpAddr, Arrival)], scene: &Scene<'_>, running: Duration) -> Finding {
    let running = words::period(running);
    let ports = scene.everywhere();
    if let Some((ip, arrival)) = arrivals.iter().max_by_key(|(_, arrival)| arrival.at) {
        return Finding {
            reason: "in-order",
            is_ordinary: true,
            text: format!(
                "Nothing is wrong that this server knows of: {} has come in from {ip}.",
                words::who(&arrival.user)
            ),
            remedy: "If there is trouble nevertheless, it is at the client, at its peer, or between them.".to_owned(),
            client: Some(SocketAddr::new(*ip, arrival.port)),
            transport: None,
            user: Some(arrival.user.to_string()).filter(|user| !user.is_empty()),
            session: None,
            count: 1,
            times: Some((arrival.at, arrival.at)),
        };
    }
    let (text, remedy) = match whom {
        Whom::Client(ip, _) => (
            format!(
                "Nothing is known of {ip}: most likely nothing from there has ever reached this server, which runs for \
                 {running}. (Plain STUN, which asks for no relay, and connections that say nothing leave no trace here, and \
                 what is long past is forgotten.)"
            ),
            format!(
                "Check that the client asks the right name and port (DNS; this server listens on {ports}), and that no \
                 firewall or security group on the way keeps that out. Behind a NAT or a proxy it comes from another \
                 address than its own."
            ),
        ),
        Whom::User(user) => (
            format!(
                "Nothing is known of a user {user:?}: in the {running} that this server runs nobody has shown credentials \
                 with that name, or it is long past."
            ),
            "Ask by the client's IP address: before it has shown credentials it has no name here, and if it never reaches this \
             server it never shows any."
                .to_owned(),
        ),
        Whom::Session(id) => (
            format!("There is no session {id}, and none is remembered."),
            "Ask by the client's IP address or the user; the ids of sessions are in the log, and change with each start."
                .to_owned(),
        ),
    };
    let (client, transport, user, session) = (None, None, None, None);
    let is_ordinary = true;
    Finding {
        reason: "nothing-known",
        is_ordinary,
        text,
        remedy,
        client,
        transport,
        user,
        session,
        count: 0,
        times: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Text;

    #[test]
    fn who_has_come_in_and_has_no_trouble_is_in_order() {
        let arrival = |user: &str, at| Arrival { port: 5000, user: Text::new(user.as_bytes()), at: Time(at) };
        let arrivals =
            [("192.0.2.1".parse().unwrap(), arrival("alice", 1)), ("192.0.2.2".parse().unwrap(), arrival("bob", 2))];
        let finding = nothing(&Whom::User("x".to_owned()), &arrivals, &Scene { endpoints: &[] }, Duration::ZERO);
        assert_eq!((finding.reason, finding.user.as_deref()), ("in-order", Some("bob")));
        assert!(finding.text.contains("\"bob\" has come in from 192.0.2.2"), "{}", finding.text);
    }

    #[test]
    fn what_is_asked_about_is_told_by_its_form() {
        let of = |text: &str| whom(text).unwrap().0;
        assert_eq!(of("192.0.2.1"), Whom::Client("192.0.2.1".parse().unwrap(), None));
        assert_eq!(of("::ffff:192.0.2.1"), Whom::Client("192.0.2.1".parse().unwrap(), None));
        assert_eq!(of("192.0.2.1:5000"), Whom::Client("192.0.2.1".parse().unwrap(), Some(5000)));
        assert_eq!(of("[2001:db8::1]:5000"), Whom::Client("2001:db8::1".parse().unwrap(), Some(5000)));
        assert_eq!(of("[2001:db8::1]"), Whom::Client("2001:db8::1".parse().unwrap(), None));
        assert_eq!(of("0001000000000007"), Whom::Session(AllocationId(0x0001_0000_0000_0007)));
        assert_eq!(of("1700000000:alice"), Whom::User("1700000000:alice".to_owned()));
        assert_eq!(of("beef"), Whom::User("beef".to_owned()));
        assert!(whom("").is_err());
    }
}
