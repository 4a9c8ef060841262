//! What users take now: their sessions, and what these have relayed so far.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::{
    House,
    query::Query,
    reply::{self, Refusal, Reply},
    sessions::{Cursor, nothing_else, number, visit},
};
use crate::{
    relay::Filter,
    turn::{Subject, Traffic},
};

/// Users on one page, if nothing else is asked for, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

/// A user's realm and tenant.
type Home = (Arc<str>, Option<Arc<str>>);

/// What one user takes.
#[derive(Debug, Default)]
struct Usage {
    sessions: u64,
    to_peers: Traffic,
    to_clients: Traffic,
}

/// A page of the users that have sessions, by name. Who has the same name in several realms or tenants is somebody else in each,
/// and all of them are on the same page.
pub(super) async fn list(house: &House, query: &mut Query) -> Result<Reply, Refusal> {
    let limit = number(query, "limit", PAGE, LONGEST_PAGE)?;
    let (after, only, realm) = (query.take("after"), query.take("user"), query.take("realm"));
    nothing_else(query)?;
    let mut users: BTreeMap<Arc<str>, BTreeMap<Home, Usage>> = BTreeMap::new();
    let mut more = false;
    let filter: Filter = Arc::new(move |session| {
        let subject = &session.subject;
        after.as_ref().is_none_or(|after| **after < *subject.user)
            && only.as_ref().is_none_or(|only| **only == *subject.user)
            && realm.as_ref().is_none_or(|realm| **realm == *subject.realm)
    });
    visit(house, Cursor::default(), &filter, |session| {
        let Subject { user, realm, tenant } = &*session.subject;
        let home = (Arc::clone(realm), tenant.clone());
        let usage = users.entry(Arc::clone(user)).or_default().entry(home).or_default();
        usage.sessions += 1;
        usage.to_peers.add(session.to_peers);
        usage.to_clients.add(session.to_client);
        // Whoever comes after the page is on a later one, with everything.
        if users.len() > limit {
            users.pop_last();
            more = true;
        }
        true
    })
    .await?;
    let next = users.keys().next_back().filter(|_| more).map(ToString::to_string);
    let each = users.iter().flat_map(|(name, homes)| homes.iter().map(move |(home, usage)| (name, home, usage)));
    let shown = each.map(|(name, (realm, tenant), usage)| {
        json!({
            "user": &**name,
            "realm": &**realm,
            "tenant": tenant.as_deref(),
            "sessions": usage.sessions,
            "to_peers": { "packets": usage.to_peers.packets, "bytes": usage.to_peers.bytes },
            "to_clients": { "packets": usage.to_clients.packets, "bytes": usage.to_clients.bytes },
        })
    });
    Ok(reply::found(&json!({ "users": shown.collect::<Vec<_>>(), "next": next })))
}
