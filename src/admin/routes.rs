//! Who may ask for what, and who answers.
//!
//! Over the Unix socket everything is open: its mode says who may connect. Over the network `/live` and `/ready` are open to
//! all, `/metrics` and `/status` on loopback or if the configuration says so, and everything else needs the token: without
//! one in the configuration, nobody has it. The files of the page are open to all: they show nothing by themselves.
//!
//! What a browser asks for a foreign site is refused, whatever else it shows (`browser`).

use std::{pin::Pin, sync::Arc, time::Duration};

use hyper::{
    Method, Request, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    House, browser, control, credentials, events, explain, health, metrics,
    query::{Query, decode},
    reload,
    reply::{self, Content, Refusal, Reply, bad, refused},
    sessions, users, web,
};

/// Bytes of a request's body.
const BODY: usize = 16 << 10;
/// How long it may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How a client has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    Network,
    Socket,
}

/// What lets clients in. Kept as a hash, so that comparing takes the same time whatever they show.
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

/// For whom a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Everybody,
    /// Who may see numbers that name nobody.
    Watchers,
    Operators,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Live,
    Ready,
    Metrics,
    Status,
    OpenApi,
    Sessions,
    Session,
    Users,
    Credentials,
    Configuration,
    Events,
    Explain,
    LogLevel,
    Reload,
    Drain,
    Stop,
    StoreChanges,
}

/// Every resource: its path, where `{id}` stands for one segment, for whom it is, and what can be done to it.
const RESOURCES: &[(&str, Resource, Audience, &[Method])] = &[
    ("/live", Resource::Live, Audience::Everybody, &[Method::GET]),
    ("/ready", Resource::Ready, Audience::Everybody, &[Method::GET]),
    ("/metrics", Resource::Metrics, Audience::Watchers, &[Method::GET]),
    ("/status", Resource::Status, Audience::Watchers, &[Method::GET]),
    ("/openapi.json", Resource::OpenApi, Audience::Watchers, &[Method::GET]),
    ("/v1/sessions", Resource::Sessions, Audience::Operators, &[Method::GET, Method::DELETE]),
    ("/v1/sessions/{id}", Resource::Session, Audience::Operators, &[Method::GET, Method::DELETE]),
    ("/v1/users", Resource::Users, Audience::Operators, &[Method::GET]),
    ("/v1/credentials", Resource::Credentials, Audience::Operators, &[Method::GET, Method::POST]),
    ("/v1/configuration", Resource::Configuration, Audience::Operators, &[Method::GET]),
    ("/v1/events", Resource::Events, Audience::Operators, &[Method::GET]),
    ("/v1/explain", Resource::Explain, Audience::Operators, &[Method::GET]),
    ("/v1/log-level", Resource::LogLevel, Audience::Operators, &[Method::GET, Method::PUT]),
    ("/v1/reload", Resource::Reload, Audience::Operators, &[Method::POST]),
    ("/v1/drain", Resource::Drain, Audience::Operators, &[Method::POST, Method::DELETE]),
    ("/v1/stop", Resource::Stop, Audience::Operators, &[Method::POST]),
    ("/v1/store/changes", Resource::StoreChanges, Audience::Operators, &[Method::POST]),
];

/// How management is spoken to, for programs (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

/// The resource at a path, with what stands for `{id}` there.
fn find(path: &str) -> Option<(Resource, Audience, &'static [Method], &str)> {
    RESOURCES.iter().find_map(|(pattern, resource, audience, methods)| match pattern.split_once("{id}") {
        None => (path == *pattern).then_some((*resource, *audience, *methods, "")),
        Some((start, _)) => {
            let id = path.strip_prefix(start).filter(|id| !id.is_empty() && !id.contains('/'))?;
            Some((*resource, *audience, *methods, id))
        }
    })
}

/// Answers a request.
pub(super) async fn answer(request: Request<Incoming>, house: &Arc<House>, entrance: Entrance) -> Reply {
    let head = request.method() == Method::HEAD;
    let mut answer = respond(request, house, entrance).await.unwrap_or_else(Refusal::into_reply);
    if head {
        *answer.body_mut() = Content::Whole(None);
    }
    answer
}

async fn respond(request: Request<Incoming>, house: &Arc<House>, entrance: Entrance) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    let known = house.known();
    let names = &known.settings.management.host_names;
    browser::same_site(&head.method, &head.headers, names)?;
    if let Some(file) = web::find(head.uri.path()).filter(|_| known.settings.management.web_page) {
        return web::answer(&head.method, file);
    }
    let (resource, audience, methods, id) = find(head.uri.path())
        .ok_or_else(|| refused(StatusCode::NOT_FOUND, "there is nothing here; /openapi.json says what there is"))?;
    if house.is_local && entrance == Entrance::Network && audience != Audience::Everybody {
        browser::known_host(&head.headers, names)?;
    }
    admit(house, entrance, audience, head.headers.get(header::AUTHORIZATION))?;
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    if !methods.contains(&method) {
        let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let refusal = refused(StatusCode::METHOD_NOT_ALLOWED, format!("what can be done here: {allowed}"));
        return Err(refusal.with(header::ALLOW, &allowed));
    }
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let mut query = query.ok_or_else(|| bad("the query is not well-formed"))?;
    let id = decode(id).ok_or_else(|| bad("the path is not well-formed"))?;
    let body = whole(body).await?;
    let is_get = method == Method::GET;
    match resource {
        Resource::Live => health::live(house).await,
        Resource::Ready => Ok(health::ready(house)),
        Resource::Metrics => Ok(metrics::metrics(house).await),
        Resource::Status => Ok(health::status(house).await),
        Resource::OpenApi => Ok(reply::text("application/json", OPENAPI.to_owned())),
        Resource::Sessions if is_get => sessions::list(house, &mut query).await,
        Resource::Sessions => sessions::revoke(house, &mut query).await,
        Resource::Session if is_get => sessions::show(house, &id).await,
        Resource::Session => sessions::disconnect(house, &id).await,
        Resource::Users => users::list(house, &mut query).await,
        Resource::Credentials if is_get => credentials::by_query(house, &mut query).await,
        Resource::Credentials => credentials::by_body(house, &body).await,
        Resource::Configuration => control::configuration(house),
        Resource::Events => events::listen(house),
        Resource::Explain => explain::explain(house, &mut query).await,
        Resource::LogLevel if is_get => Ok(control::log_level(house)),
        Resource::LogLevel => control::set_log_level(house, &body),
        Resource::Reload => reload::reload(house).await,
        Resource::Drain if method == Method::POST => control::drain(house, &body),
        Resource::Drain => Ok(control::undrain(house)),
        Resource::Stop => Ok(control::stop(house)),
        Resource::StoreChanges => control::store_has_changed(house, &body).await,
    }
}

/// Whether this client may ask for what is for this audience.
fn admit(
    house: &House,
    entrance: Entrance,
    audience: Audience,
    authorization: Option<&HeaderValue>,
) -> Result<(), Refusal> {
    let is_open = match audience {
        Audience::Everybody => true,
        Audience::Watchers => house.known().open_metrics,
        Audience::Operators => false,
    };
    if entrance == Entrance::Socket || is_open {
        return Ok(());
    }
    let known = house.known();
    let Some(token) = &known.token else {
        let why = "needs a token, and the configuration has none: set management.token-file, or use the Unix socket";
        return Err(refused(StatusCode::FORBIDDEN, why));
    };
    let shown = authorization.and_then(|value| {
        let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
    });
    if shown.is_some_and(|shown| token.is(shown)) {
        return Ok(());
    }
    let refusal = refused(StatusCode::UNAUTHORIZED, "needs the header `Authorization: Bearer TOKEN`");
    Err(refusal.with(header::WWW_AUTHENTICATE, "Bearer"))
}

/// The whole body of a request, if it is short and comes soon.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > BODY {
                    return Err(StatusCode::PAYLOAD_TOO_LARGE);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    let status = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(())) => return Ok(bytes),
        Ok(Err(status)) => status,
        Err(_) => StatusCode::REQUEST_TIMEOUT,
    };
    Err(refused(status, "the body is too long, too slow, or broken").with(header::CONNECTION, "close"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = Token::new("0123456789abcdef");
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeF", b"0123456789abcdef "] {
            assert!(!token.is(wrong));
        }
    }

    #[test]
    fn paths_lead_to_resources() {
        assert!(matches!(find("/v1/sessions"), Some((Resource::Sessions, ..))));
        assert!(matches!(find("/v1/sessions/00ff"), Some((Resource::Session, .., "00ff"))));
        for nothing in ["/nothing", "", "/v1", "/v1/sessions/", "/v1/sessions/a/b", "/Live", "//live", "/live/"] {
            assert!(find(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn the_description_has_every_resource_and_no_other() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let operations = |item: &Value| {
            let known = ["get", "put", "post", "delete"];
            let keys = item.as_object().unwrap().keys().filter(|key| known.contains(&key.as_str()));
            keys.map(|key| key.to_uppercase()).collect::<BTreeSet<_>>()
        };
        let described: BTreeSet<(String, BTreeSet<String>)> = described["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, item)| (path.clone(), operations(item)))
            .collect();
        let served = RESOURCES.iter().map(|(path, _, _, methods)| {
            ((*path).to_owned(), methods.iter().map(|method| method.as_str().to_owned()).collect())
        });
        assert_eq!(described, served.collect());
    }
}
