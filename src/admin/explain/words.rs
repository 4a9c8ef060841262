//! What was refused, in words.

use std::{net::SocketAddr, time::Duration};

use super::Finding;
use crate::{
    relay::{Endpoint, Told},
    stun::Method,
    turn::{Incident, Reason, Text, Transport, Tried},
};

/// So many of something.
pub(super) fn times(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A time in its largest unit, as people say it.
pub(super) fn period(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => times(seconds, "second"),
        seconds @ ..7_200 => times(seconds / 60, "minute"),
        seconds @ ..172_800 => times(seconds / 3600, "hour"),
        seconds => times(seconds / 86_400, "day"),
    }
}

/// A user, by the name that there is.
pub(super) fn who(user: &Text) -> String {
    if user.as_str().is_empty() { "somebody without a name".to_owned() } else { format!("{:?}", user.to_string()) }
}

fn tried(tried: Tried) -> String {
    let mut with = Vec::new();
    if tried.session {
        with.push("the key of its own session".to_owned());
    }
    if tried.password {
        with.push("the user's password in the configuration".to_owned());
    }
    if tried.secrets > 0 {
        with.push(times(tried.secrets.into(), "secret") + " of time-limited credentials (static-auth-secret)");
    }
    if tried.token {
        with.push("the key in its access token".to_owned());
    }
    if tried.store {
        with.push("what the store of users knows".to_owned());
    }
    with.join(" and ")
}

/// What is served where.
pub(super) struct Scene<'s> {
    pub(super) endpoints: &'s [Endpoint],
}

/// What happened, and what to do.
type Words = (String, String);

impl Scene<'_> {
    pub(super) fn finding(&self, told: &Told) -> Finding {
        let incident = &told.incident;
        let over = told.expires.map(Duration::from_secs).and_then(|expires| {
            let last = Duration::from_millis(incident.last.0);
            last.checked_sub(expires)
        });
        let is_expired = matches!(incident.reason, Reason::Expired) || over.is_some();
        let (text, remedy) = if is_expired { expired(incident, over) } else { self.words(told) };
        let port = match incident.reason {
            // The last one that has not come back.
            Reason::Challenged(ports) => ports.into_iter().rfind(|port| *port != 0).unwrap_or(incident.port),
            _ => incident.port,
        };
        let is_user = !matches!(incident.reason, Reason::Handshake { .. });
        Finding {
            is_ordinary: false,
            reason: if is_expired { Reason::Expired.name() } else { incident.reason.name() },
            text,
            remedy,
            client: Some(SocketAddr::new(told.source, port)),
            transport: Some(incident.transport),
            user: Some(incident.text.to_string()).filter(|user| is_user && !user.is_empty()),
            session: None,
            count: incident.count,
            times: Some((incident.first, incident.last)),
        }
    }

    fn words(&self, told: &Told) -> Words {
        let incident = &told.incident;
        let user = who(&incident.text);
        let (text, remedy) = match incident.reason {
            Reason::Challenged(_) => (
                "The client was asked for credentials (401), as every client is at first, and never came back with any.".to_owned(),
                "Give it a username and a password (iceServers: username, credential). If it has them, the 401 does not reach it: \
                 look for a firewall or NAT that drops what comes back, or a client that wants other attributes."
                    .to_owned(),
            ),
            Reason::WrongPassword(with) => (
                format!("The password of {user} is wrong; it was compared with {}.", tried(with)),
                "Compare password and realm with those of the server; a time-limited password is made with the server's secret from \
                 the whole user name, so whoever makes it must have the same secret and algorithm (turnserver ctl credentials makes \
                 a right one)."
                    .to_owned(),
            ),
            Reason::UnknownUser { store } => (
                format!(
                    "Nobody is called {user}: it is no user of the configuration, no time-limited name for one of its secrets{}.",
                    if store { ", and the store of users does not know it" } else { "" }
                ),
                "Add the user ([[auth.user]], or turnserver user add), or see that the name has the form that rest-api-username says, \
                 and that it is meant for this server and realm."
                    .to_owned(),
            ),
            Reason::BadToken => (
                "The access token was refused: it is over, for another server, or of no key that there is here.".to_owned(),
                format!("Compare the key id {user} with [[auth.token-key]], its key and server-name, and the clocks of both servers."),
            ),
            Reason::StaleNonce => stale(incident),
            Reason::BadCredentials => (
                "The request was malformed (400): attributes of its credentials are missing or contradict each other.".to_owned(),
                "The client must send USERNAME, REALM and NONCE of the last 401, and with PASSWORD-ALGORITHM the list as it was \
                 told; a client that does not needs an update."
                    .to_owned(),
            ),
            Reason::UnexpectedToken => (
                "The client has shown an access token (420), and none is asked for here.".to_owned(),
                "Add [[auth.token-key]], or have the client use a username and a password.".to_owned(),
            ),
            Reason::StoreUnavailable => (
                format!("The store of users could not be asked about {user} (500)."),
                "See that the store of [store] runs and can be reached; the log and the metrics of stores say what it answers."
                    .to_owned(),
            ),
            Reason::RateLimited => (
                "The source draws more answers without credentials than it may, and gets none for now.".to_owned(),
                "Many clients behind one address: raise unauthorized-rate and binding-rate in [limits]. One client: it tries again \
                 and again without listening to what it is told."
                    .to_owned(),
            ),
            Reason::TooManyConnections => (
                "The source, or all together, have as many connections as they may; one more was closed at once.".to_owned(),
                "Raise max-connections-per-ip or max-connections in [tcp] if they are in earnest.".to_owned(),
            ),
            Reason::PeerRefused { peer, .. } => refused_peer(peer, told.rule.as_deref()),
            Reason::Redirected => (
                "The client was sent to another server (300), as [redirect] says.".to_owned(),
                "Look for it there; a client that does not follow needs the other server's address in its configuration.".to_owned(),
            ),
            Reason::Draining(code) => (
                format!("The server takes no new sessions, as it is drained ({code})."),
                "Take it back with turnserver ctl undrain, or wait for the other server.".to_owned(),
            ),
            Reason::Limit(key) => (
                format!("{user} was refused a session by a limit: {key}."),
                format!("Raise {key} in [limits], or see why so many sessions are left open (turnserver ctl sessions)."),
            ),
            Reason::Refused(method, code) => refused(method, code),
            Reason::NotServed(start) => return self.not_served(incident, start),
            Reason::NoSession => (
                "The client sends data for a peer, and has no session (any more): they are dropped.".to_owned(),
                "Its session has ended by time, or with a restart of the server; the client must allocate again, as it learns when \
                 it refreshes."
                    .to_owned(),
            ),
            Reason::Handshake { alert } => handshake(incident, alert),
            Reason::Expired => return expired(incident, None),
        };
        (text, remedy)
    }

    /// Where this transport is served.
    fn ports(&self, transport: Transport) -> String {
        let mut ports: Vec<String> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.transport == transport)
            .map(|endpoint| endpoint.address.port().to_string())
            .collect();
        ports.dedup();
        if ports.is_empty() { "no port".to_owned() } else { format!("port {}", ports.join(", ")) }
    }

    /// Everything that is served.
    pub(super) fn everywhere(&self) -> String {
        let served =
            Transport::ALL.into_iter().filter(|of| self.endpoints.iter().any(|endpoint| endpoint.transport == *of));
        let served: Vec<String> = served.map(|of| format!("{} {}", of.name(), self.ports(of))).collect();
        served.join(", ")
    }

    /// What is no protocol of this server, told by how it begins.
    fn not_served(&self, incident: &Incident, start: [u8; 4]) -> Words {
        let (over, port) = (incident.transport, incident.server);
        let serves = |transport: Transport| {
            self.endpoints.iter().any(|endpoint| (endpoint.transport, endpoint.address.port()) == (transport, port))
        };
        let (secured, scheme) =
            if over.is_stream() { (Transport::Tls, "turns:") } else { (Transport::Dtls, "turns: with transport=udp") };
        let secured_name = secured.name().to_uppercase();
        match start {
            [20..=63, ..] => (
                format!("The client spoke {secured_name} to {} port {port}, which takes plain messages only.", over.name()),
                format!(
                    "It was given {scheme} for a plain port: {secured_name} is on {} here. Correct the address, or add \
                     \"{}\" to the listener's transports.",
                    self.ports(secured),
                    secured.name()
                ),
            ),
            _ if is_http(start) => (
                format!("What came to {} port {port} is HTTP, not STUN: a browser, a health check or a scanner.", over.name()),
                "Point health checks at /live and /ready of the management interface; a client needs turn: here, not http:.".to_owned(),
            ),
            [128..=191, ..] => (
                format!("What came to {} port {port} looks like media (RTP), not STUN.", over.name()),
                "The client sends media to the server itself instead of through a session: its peer was given the server's address as \
                 a candidate."
                    .to_owned(),
            ),
            [0..=3, ..] if over == Transport::Udp && !serves(Transport::Udp) => (
                format!("The client spoke plain STUN to udp port {port}, which takes DTLS only."),
                format!("Give it turn: and {} instead, or add \"udp\" to the listener's transports.", self.ports(Transport::Udp)),
            ),
            [0..=3, ..] => (
                format!("What came to {} port {port} begins like STUN and is not well-formed.", over.name()),
                "The client is broken, or something on the way changes what it sends (an ALG in a router: turn it off).".to_owned(),
            ),
            [a, b, c, d] => (
                format!(
                    "What came to {} port {port} is not STUN: it begins with {a:02x} {b:02x} {c:02x} {d:02x}.",
                    over.name()
                ),
                "Something else than a TURN client talks to this port: correct its address, or leave it be if it is a scanner.".to_owned(),
            ),
        }
    }
}

fn is_http(start: [u8; 4]) -> bool {
    [*b"GET ", *b"POST", *b"HEAD", *b"PUT ", *b"OPTI", *b"CONN", *b"DELE", *b"PRI "].contains(&start)
}

fn expired(incident: &Incident, over: Option<Duration>) -> Words {
    let by = over.map_or_else(String::new, |over| format!(" {} before it was shown", period(over)));
    (
        format!("The credential of {} is over: it ended{by}.", who(&incident.text)),
        "Make a new one; the application must renew it before it ends. If it was made just now, the clock of whoever makes it is \
         behind by at least as much, or this server's is ahead: see timedatectl on both. (Of what is over, the password is not \
         looked at.)"
            .to_owned(),
    )
}

fn stale(incident: &Incident) -> Words {
    let what = if incident.count > 2 {
        format!(
            "The client was told {} times that its nonce is stale (438), and goes on without the new one.",
            incident.count
        )
    } else {
        "The client was told that its nonce is stale (438), and has not come back with the new one.".to_owned()
    };
    let remedy = "The client must take the nonce out of each 438 and use it from the same address and port. A NAT or balancer that \
                  changes the client's port with every packet, or spreads it over several servers, looks the same: each request \
                  then comes from somebody else.";
    (what, remedy.to_owned())
}

fn refused_peer(peer: SocketAddr, rule: Option<&str>) -> Words {
    let shown = if peer.port() == 0 { peer.ip().to_string() } else { peer.to_string() };
    let because = rule.map_or_else(
        || "; the rules have changed since, and would let it now".to_owned(),
        |rule| format!(": it is {rule}"),
    );
    (
        format!("The peer {shown} was refused to the client (403){because}."),
        "For the private addresses of a browser's peer that is ordinary: its other candidates serve. If this one is to be reached, \
         allow it with allowed-peer-ip in [peers]."
            .to_owned(),
    )
}

fn refused(method: Method, code: u16) -> Words {
    let name = method.name();
    let (what, remedy) = match (code, method) {
        (403, _) => ("UDP is not relayed here", "Set udp-relaying = true in [relay], or have the client ask for TCP."),
        (400, Method::ChannelBind) => (
            "its number is none of a channel (0x4000 to 0x4FFF), or the number or the peer is bound otherwise already",
            "Old clients bind numbers up to 0x7FFF: set rfc5766-channel-numbers = true in [compatibility].",
        ),
        (420, _) => (
            "it asks for something that this server does not know and may not pass over",
            "The client must do without it, as it is told what it is.",
        ),
        (405, _) => ("mobility is not offered", "Set mobility = true in [relay]; clients do without it otherwise."),
        (437, Method::Allocate) => (
            "the client's address and port have a session already",
            "The client has lost sight of it, or a NAT has given its port to another: it must use another port, or wait until the \
             old session ends.",
        ),
        (437, _) => (
            "the client has no session (any more)",
            "Its session has ended by time, or with a restart of the server; the client must allocate again.",
        ),
        (440, _) => (
            "the family of addresses that the client asks for is not relayed",
            "Add an address of that family (IPv4 or IPv6) to relay-ip, if the host has one, or have the client ask for the other.",
        ),
        (441, _) => (
            "the session was made with other credentials",
            "The client must go on with the user that it has begun with, or delete the session and make its own.",
        ),
        (442, _) => (
            "the transport that the client asks to be relayed is not",
            "TCP relaying (RFC 6062) is off by default: set tcp-relaying = true in [relay] if it is wanted; most clients ask for UDP.",
        ),
        (443, _) => (
            "the peer's address is of another family than the relayed one",
            "The client must allocate an address of the peer's family, or one of each; relay-ip needs both.",
        ),
        (447, _) => (
            "the peer did not take the connection",
            "See that it listens there, and that no firewall keeps this server out.",
        ),
        (508, Method::Allocate) => (
            "no relay port or descriptor is left",
            "Widen min-port to max-port, add a relay-ip, or raise the limit of descriptors; turnserver ctl info says what is used.",
        ),
        (508, _) => (
            "the session has as many permissions, channels, connections or new peers as it may",
            "Raise permissions-per-allocation, channels-per-allocation, connections-per-allocation or the new-peer-rate in [limits].",
        ),
        (500, _) => ("this server could not do it", "See the log of the server."),
        _ => ("the request was malformed", "The client is at fault; update it."),
    };
    (format!("{name} was refused with {code}: {what}."), remedy.to_owned())
}

/// Alerts of TLS (RFC 8446 §6.2) that clients send.
fn alert_name(alert: u8) -> &'static str {
    match alert {
        0 => "close_notify",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        90 => "user_canceled",
        112 => "unrecognized_name",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "not a common one",
    }
}

fn handshake(incident: &Incident, alert: Option<u8>) -> Words {
    let name = incident.transport.name().to_uppercase();
    let said = incident.text.to_string();
    let text = match alert {
        Some(alert) => {
            format!("The {name} handshake failed: the client ended it with alert {alert} ({}).", alert_name(alert))
        }
        None => format!("The {name} handshake failed: {said}."),
    };
    let remedy = match alert {
        Some(42..=46 | 48 | 51) => {
            "The client does not trust the server's certificate: it must be for the name that the client asks for, not be over, and \
             come with its whole chain (fullchain.pem), from an authority that the client knows."
        }
        Some(112) => {
            "The client asks for a name that the certificate is not for: correct the name, or add a certificate for it."
        }
        Some(_) => {
            "Client and server have no version of TLS, suite or protocol in common: see min-version in [tls], and update the client."
        }
        None if said.contains("InvalidContentType") || said.contains("wrong version number") => {
            "What came is no TLS: the client was given turn: for a port that takes TLS only; it needs turns:, or a plain port."
        }
        None if said.contains("eof") || said == "not finished in time" => {
            "The client has gone or fallen silent in the middle: it does not like the certificate and does not say so, or something \
             on the way lets only short exchanges pass (a firewall that inspects TLS)."
        }
        None => "See versions, suites and the certificate of the client, if it must show one, against [tls].",
    };
    (text, remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_do() {
        for (seconds, said) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(period(Duration::from_secs(seconds)), said);
        }
    }
}
