//! Browsers act for whatever site is open in them. What they ask in the name of a foreign one is refused, so that no web site
//! manages this server through its operator: neither by a request across sites, nor by a name of its own that leads here (DNS
//! rebinding). Programs that are no browsers send none of these headers.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName},
    http::{Uri, uri::Authority},
};

use super::reply::{Refusal, refused};

/// How the page that makes a browser ask stands to this server (W3C Fetch Metadata §2.4). Scripts cannot set it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Refuses what a browser asks in the name of another site. `names` are this server's own, besides the one in the request.
pub(super) fn same_site(method: &Method, headers: &HeaderMap, names: &[String]) -> Result<(), Refusal> {
    let value = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match value(SITE) {
        // The browser itself has compared the origins, and it may know more of them than a server behind a proxy.
        Some("same-origin" | "none") => return Ok(()),
        // Somebody follows a link.
        Some(_)
            if method == Method::GET && value(MODE) == Some("navigate") && value(DESTINATION) == Some("document") =>
        {
            return Ok(());
        }
        Some(_) => return Err(foreign()),
        // Not a browser, an old one, or one on its way over plain HTTP to another host.
        None => {}
    }
    let Some(origin) = value(header::ORIGIN) else { return Ok(()) };
    let Ok(origin) = origin.parse::<Uri>() else { return Err(foreign()) };
    let own = authority(headers);
    let is_own = origin.authority().is_some_and(|origin| {
        own.as_ref().is_some_and(|own| own == origin)
            || names.iter().any(|name| name.eq_ignore_ascii_case(origin.host()))
    });
    if is_own { Ok(()) } else { Err(foreign()) }
}

/// Refuses names that are not of this host: a site that lets its own name lead to 127.0.0.1 is, to a browser, at home here.
/// `names` are others that the operator has written down.
pub(super) fn known_host(headers: &HeaderMap, names: &[String]) -> Result<(), Refusal> {
    let host = authority(headers);
    let host = host.as_ref().map(|authority| authority.host().trim_start_matches('[').trim_end_matches(']'));
    let is_known = host.is_some_and(|host| {
        let host = host.to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok()
            || names.iter().any(|name| name.eq_ignore_ascii_case(&host))
    });
    let why =
        "management on loopback is asked for by an address or as localhost; add other names to management.host-names";
    if is_known { Ok(()) } else { Err(refused(StatusCode::MISDIRECTED_REQUEST, why)) }
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn foreign() -> Refusal {
    refused(StatusCode::FORBIDDEN, "asked for by a page of another site")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn foreign_sites_are_refused_and_programs_are_not() {
        let ask = |method: Method, fields: &[(&'static str, &'static str)]| {
            same_site(&method, &headers(fields), &["turn.example.org".to_owned()]).is_ok()
        };
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(ask(Method::DELETE, &[("host", "127.0.0.1:9641")]));
        assert!(ask(Method::DELETE, &[("sec-fetch-site", "same-origin"), ("origin", "https://elsewhere.example")]));
        assert!(ask(Method::GET, &[("sec-fetch-site", "none")]));
        assert!(ask(Method::GET, &link) && !ask(Method::POST, &link));
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!ask(Method::GET, &frame));
        for site in ["cross-site", "same-site", "something-new", ""] {
            assert!(!ask(Method::GET, &[("sec-fetch-site", site)]), "{site}");
        }
        for own in [
            "http://127.0.0.1:9641",
            "https://127.0.0.1:9641",
            "https://turn.example.org",
            "https://TURN.example.org:8443",
        ] {
            assert!(ask(Method::POST, &[("host", "127.0.0.1:9641"), ("origin", own)]), "{own}");
        }
        for foreign in [
            "null",
            "http://127.0.0.1:80",
            "http://127.0.0.1",
            "http://evil.example",
            "http://turn.example.org.evil.example",
            "",
        ] {
            assert!(!ask(Method::POST, &[("host", "127.0.0.1:9641"), ("origin", foreign)]), "{foreign}");
        }
        assert!(!ask(Method::POST, &[("origin", "http://127.0.0.1:9641")]));
    }

    #[test]
    fn foreign_names_do_not_lead_here() {
        let asks = |host| known_host(&headers(&[("host", host)]), &["turn.example.org".to_owned()]).is_ok();
        for own in [
            "127.0.0.1",
            "127.0.0.1:9641",
            "[::1]:9641",
            "localhost:9641",
            "LOCALHOST",
            "a.localhost",
            "turn.example.org",
        ] {
            assert!(asks(own), "{own}");
        }
        for foreign in
            ["evil.example", "evil.example:9641", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost", ""]
        {
            assert!(!asks(foreign), "{foreign}");
        }
        assert!(known_host(&headers(&[]), &[]).is_err());
    }
}
