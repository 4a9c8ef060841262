//! What is tried: `turn:`, `turns:`, `stun:` and `stuns:` URIs (RFC 7064, RFC 7065).

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use crate::turn::Transport;

/// Ports of URIs that name none (RFC 8656 §4.1).
const PORTS: [u16; 2] = [3478, 5349];

/// A server as a URI names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// It relays; otherwise only its STUN is of interest.
    pub relays: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How it is reached.
    pub transport: Transport,
}

impl FromStr for Target {
    type Err = String;

    /// What names no transport is what browsers take: UDP for `turn:` and `stun:`, TLS for `turns:` and `stuns:`.
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write it like turn:turn.example.org, turns:192.0.2.1:5349?transport=tcp or stun:[2001:db8::1]";
        let (scheme, rest) = text.split_once(':').ok_or(FORM)?;
        let (relays, secure) = match scheme.to_ascii_lowercase().as_str() {
            "turn" => (true, false),
            "turns" => (true, true),
            "stun" => (false, false),
            "stuns" => (false, true),
            _ => return Err(FORM.to_owned()),
        };
        if rest.starts_with("//") || rest.contains('@') {
            return Err(format!("has no // and no user in it; {FORM}"));
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let transport = match (query, secure) {
            (None, false) | (Some("transport=udp"), false) => Transport::Udp,
            (Some("transport=tcp"), false) => Transport::Tcp,
            (None, true) | (Some("transport=tcp"), true) => Transport::Tls,
            (Some("transport=udp"), true) => Transport::Dtls,
            (Some(query), _) => return Err(format!("?{query} is not known; write ?transport=udp or ?transport=tcp")),
        };
        let (host, port) = host_and_port(place).ok_or(FORM)?;
        Ok(Self { relays, host, port: port.unwrap_or(PORTS[usize::from(secure)]), transport })
    }
}

/// A host, with or without a port. An IPv6 address stands in brackets, unless there is no port.
pub fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').and_then(port)?) };
        return Some((host.to_owned(), port));
    }
    if place.parse::<Ipv6Addr>().is_ok() {
        return Some((place.to_owned(), None));
    }
    let (host, number) = match place.split_once(':') {
        Some((host, number)) => (host, Some(port(number)?)),
        None => (place, None),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(good)).then(|| (host.to_owned(), number))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.relays, self.transport.is_secure()) {
            (true, false) => "turn",
            (true, true) => "turns",
            (false, false) => "stun",
            (false, true) => "stuns",
        };
        let query = match self.transport {
            _ if !self.relays => "",
            Transport::Udp | Transport::Dtls => "?transport=udp",
            Transport::Tcp | Transport::Tls => "?transport=tcp",
        };
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => write!(f, "{scheme}:[{ip}]:{}{query}", self.port),
            _ => write!(f, "{scheme}:{}:{}{query}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_the_rfcs_are_read() {
        for (text, expected, transport) in [
            ("stun:example.org", "stun:example.org:3478", Transport::Udp),
            ("stuns:example.org", "stuns:example.org:5349", Transport::Tls),
            ("turn:example.org", "turn:example.org:3478?transport=udp", Transport::Udp),
            ("TURN:example.org:8000?transport=tcp", "turn:example.org:8000?transport=tcp", Transport::Tcp),
            ("turns:example.org", "turns:example.org:5349?transport=tcp", Transport::Tls),
            ("turns:192.0.2.1:443?transport=udp", "turns:192.0.2.1:443?transport=udp", Transport::Dtls),
            ("turn:[2001:db8::1]:1", "turn:[2001:db8::1]:1?transport=udp", Transport::Udp),
            ("turn:2001:db8::1", "turn:[2001:db8::1]:3478?transport=udp", Transport::Udp),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.to_string().as_str(), target.transport), (expected, transport), "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_a_word() {
        for wrong in
            ["", "example.org", "http:example.org", "turn:", "turn:a:0", "turn:a:99999", "turn:[::1", "turn:a b"]
        {
            assert!(wrong.parse::<Target>().unwrap_err().starts_with("write it like"), "{wrong}");
        }
        assert!("turn://example.org".parse::<Target>().unwrap_err().contains("no //"));
        assert!("turn:u@example.org".parse::<Target>().unwrap_err().contains("no user"));
        assert!("turn:a?transport=sctp".parse::<Target>().unwrap_err().contains("transport=sctp is not known"));
    }
}
