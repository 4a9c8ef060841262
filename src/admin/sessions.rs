//! Sessions: lists with filters and pages, one in detail, and ending them.

use std::{net::IpAddr, sync::Arc};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{
    House,
    query::Query,
    reply::{self, Refusal, Reply, bad},
};
use crate::{
    relay::Filter,
    turn::{AllocationId, RelayProtocol, Revocation, SessionView, Transport},
};

/// Sessions on one page, if nothing else is asked for, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

fn absent() -> Refusal {
    reply::refused(StatusCode::NOT_FOUND, "there is no such session")
}

pub(super) fn silent() -> Refusal {
    reply::refused(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer")
}

/// Where a list goes on: a worker, and a place of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    worker: usize,
    place: usize,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (worker, place) = text.split_once('.')?;
        Some(Self { worker: worker.parse().ok()?, place: place.parse().ok()? })
    }

    fn text(self) -> String {
        format!("{}.{}", self.worker, self.place)
    }
}

/// Whole numbers in queries.
pub(super) fn number(query: &mut Query, name: &str, default: usize, most: usize) -> Result<usize, Refusal> {
    let Some(written) = query.take(name) else { return Ok(default) };
    let number = written.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| bad(format!("`{name}` is not a number from 1 to {most}")))
}

/// Refuses what nobody knows.
pub(super) fn nothing_else(query: &Query) -> Result<(), Refusal> {
    match query.rest() {
        None => Ok(()),
        Some(unknown) => Err(bad(format!("`{unknown}` is not known here"))),
    }
}

/// What is looked for.
fn filter(query: &mut Query) -> Result<Filter, Refusal> {
    let (user, realm) = (query.take("user"), query.take("realm"));
    let (tenant, secret) = (query.take("tenant"), query.take("secret"));
    let ip = |text: Option<String>, name| {
        let parsed = text.map(|text| text.parse::<IpAddr>().map(|ip| ip.to_canonical()));
        parsed.transpose().map_err(|_| bad(format!("`{name}` is not an IP address")))
    };
    let client = ip(query.take("client"), "client")?;
    let relayed = ip(query.take("relayed"), "relayed")?;
    let transport = match query.take("transport") {
        None => None,
        Some(name) => {
            let known = Transport::ALL.into_iter().find(|transport| transport.name() == name);
            Some(known.ok_or_else(|| bad("`transport` is not one of udp, tcp, tls, dtls"))?)
        }
    };
    Ok(Arc::new(move |session: &SessionView| {
        let subject = &session.subject;
        user.as_ref().is_none_or(|user| **user == *subject.user)
            && realm.as_ref().is_none_or(|realm| **realm == *subject.realm)
            && tenant.as_ref().is_none_or(|tenant| Some(tenant.as_str()) == subject.tenant.as_deref())
            && secret.as_ref().is_none_or(|secret| Some(secret.as_str()) == session.secret.as_deref())
            && client.is_none_or(|ip| session.client.client.ip().to_canonical() == ip)
            && transport.is_none_or(|transport| session.client.transport == transport)
            && relayed.is_none_or(|ip| session.relayed.iter().flatten().any(|address| address.ip() == ip))
    }))
}

/// Visits sessions from a cursor on, until `see` has seen enough. Returns where to go on.
pub(super) async fn visit(
    house: &House,
    mut at: Cursor,
    filter: &Filter,
    mut see: impl FnMut(SessionView) -> bool,
) -> Result<Option<Cursor>, Refusal> {
    while at.worker < house.monitor.workers() {
        let stretch = house.monitor.look(at.worker, at.place, Arc::clone(filter)).await.ok_or_else(silent)?;
        for (place, session) in stretch.sessions {
            if !see(session) {
                return Ok(Some(Cursor { worker: at.worker, place: place + 1 }));
            }
        }
        at = match stretch.next {
            Some(place) => Cursor { place, ..at },
            None => Cursor { worker: at.worker + 1, place: 0 },
        };
    }
    Ok(None)
}

/// Whether a session has `needle`, in small letters, anywhere in what a list shows of it.
fn has(session: &SessionView, needle: &str) -> bool {
    let subject = &session.subject;
    let names = [Some(&*subject.user), Some(&*subject.realm), subject.tenant.as_deref(), session.secret.as_deref()];
    names.into_iter().flatten().any(|name| name.to_lowercase().contains(needle))
        || session.client.client.to_string().contains(needle)
        || session.relayed.iter().flatten().any(|address| address.to_string().contains(needle))
        || session.id.to_string().contains(needle)
}

/// A page of sessions.
pub(super) async fn list(house: &House, query: &mut Query) -> Result<Reply, Refusal> {
    let limit = number(query, "limit", PAGE, LONGEST_PAGE)?;
    let from = match query.take("cursor") {
        None => Cursor::default(),
        Some(text) => Cursor::parse(&text).ok_or_else(|| bad("`cursor` is not one that was given out"))?,
    };
    let filter = filter(query)?;
    let search = query.take("search").map(|text| text.to_lowercase());
    nothing_else(query)?;
    let mut page = Vec::new();
    let next = visit(house, from, &filter, |session| {
        // Here rather than in the filter: workers have better things to do than to compare text.
        if search.as_ref().is_none_or(|search| has(&session, search)) {
            page.push(shown(&session));
        }
        page.len() < limit
    });
    let next = next.await?.map(Cursor::text);
    Ok(reply::found(&json!({ "sessions": page, "next": next })))
}

/// One session.
pub(super) fn shown(session: &SessionView) -> Value {
    json!({
        "id": session.id.to_string(),
        "user": &*session.subject.user,
        "realm": &*session.subject.realm,
        "tenant": session.subject.tenant.as_deref(),
        "secret": session.secret.as_deref(),
        "client": session.client.client.to_string(),
        "server": session.client.server.to_string(),
        "transport": session.client.transport.name(),
        "protocol": match session.protocol {
            RelayProtocol::Tcp => "tcp",
            RelayProtocol::Udp => "udp",
        },
        "relayed": session.relayed.iter().flatten().map(ToString::to_string).collect::<Vec<_>>(),
        "age": session.age.as_secs_f64(),
        "expires_in": session.expires_in.as_secs_f64(),
        "to_peers": { "packets": session.to_peers.packets, "bytes": session.to_peers.bytes },
        "to_client": { "packets": session.to_client.packets, "bytes": session.to_client.bytes },
        "permissions": session.permissions,
        "channels": session.channels,
        "connections": session.connections,
        "away": session.away,
    })
}

fn id(text: &str) -> Result<AllocationId, Refusal> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    id.map(AllocationId).ok_or_else(|| bad("the id of a session is of hexadecimal digits, as in lists and log lines"))
}

/// One session, with whom it has to do.
pub(super) async fn show(house: &House, text: &str) -> Result<Reply, Refusal> {
    let id = id(text)?;
    let place = house.monitor.find(id).await.ok_or_else(absent)?;
    let (session, detail) = house.monitor.detail(place, id).await.ok_or_else(absent)?;
    let mut shown = shown(&session);
    let channels = detail
        .channels
        .iter()
        .map(|(number, peer)| json!({ "number": format!("0x{:04x}", number.0), "peer": peer.to_string() }));
    shown["peers"] = json!({
        "permissions": detail.permissions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "channels": channels.collect::<Vec<_>>(),
        "connections": detail.connections.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    Ok(reply::found(&shown))
}

/// Ends one session.
pub(super) async fn disconnect(house: &House, text: &str) -> Result<Reply, Refusal> {
    let id = id(text)?;
    let place = house.monitor.find(id).await.ok_or_else(absent)?;
    if !house.monitor.disconnect(place, id).await {
        return Err(absent());
    }
    Ok(reply::found(&json!({ "disconnected": 1 })))
}

/// Ends all sessions of a user, or of all whom a secret has let in; in one realm, or in all.
pub(super) async fn revoke(house: &House, query: &mut Query) -> Result<Reply, Refusal> {
    let (user, secret, realm) = (query.take("user"), query.take("secret"), query.take("realm"));
    nothing_else(query)?;
    if user.is_some() == secret.is_some() {
        return Err(bad("either `user` or `secret` says whose sessions are to end"));
    }
    let known = house.known();
    let settings = &known.settings;
    let all = [&settings.auth.realm].into_iter().chain(settings.realms.iter().map(|realm| &realm.name));
    let realms: Vec<Arc<str>> =
        all.filter(|name| realm.as_ref().is_none_or(|realm| realm == *name)).map(|name| name.as_str().into()).collect();
    if realms.is_empty() {
        return Err(bad("there is no such `realm`"));
    }
    let mut ended = 0;
    for realm in realms {
        let revocation = match (&user, &secret) {
            (Some(user), _) => Revocation::User { realm, user: user.as_str().into() },
            (None, secret) => Revocation::Secret { realm, name: secret.as_deref().unwrap_or_default().into() },
        };
        ended += house.monitor.revoke(revocation).await.ok_or_else(silent)?;
    }
    tracing::info!(user, secret, sessions = ended, "sessions revoked");
    Ok(reply::found(&json!({ "disconnected": ended })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_and_ids_come_back() {
        let cursor = Cursor { worker: 3, place: 512 };
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        for wrong in ["", ".", "1", "1.", "-1.2", "1.2.3", "a.b"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
        let session = AllocationId(0x0001_0000_0000_0007);
        assert_eq!(id(&session.to_string()).ok(), Some(session));
        for wrong in ["", "+1", "g", "00000000000000001"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters_say_what_is_wrong() {
        for wrong in ["client=nobody", "transport=sctp", "relayed=1.2.3"] {
            assert!(filter(&mut Query::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
        for wrong in ["limit=0", "limit=1001", "limit=x"] {
            assert!(number(&mut Query::parse(wrong).unwrap(), "limit", PAGE, LONGEST_PAGE).is_err(), "{wrong}");
        }
        assert!(nothing_else(&Query::parse("usr=a").unwrap()).is_err());
    }
}
