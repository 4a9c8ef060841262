//! `[management]`: where the server is watched and managed, and by whom.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::{
    access::secret,
    address::Domain,
    host::Host,
    reader::{Entry, Leaf, Mistake, Section},
    settings::{Access, Listener, Management, Relay, RelayAddress, Secret},
    value::{Text, text},
};

/// The port that coturn has its metrics on.
const PORT: u16 = 9641;

/// Where the Unix socket is by default; systemd makes the folder (`RuntimeDirectory=turnserver`).
pub const SOCKET: &str = "/run/turnserver/control.sock";

/// What is shorter could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Longest path of a Unix socket that every system takes.
const LONGEST_PATH: usize = 103;

/// How the token is given.
const NAMES: [&str; 3] = ["token", "token-file", "token-env"];

/// An address and a port, or `"off"`.
#[derive(Debug)]
struct Address(Option<SocketAddr>);

impl Leaf for Address {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const EXAMPLES: &str = "write an address and a port like \"127.0.0.1:9641\" or \"[::1]:9641\", or \"off\"";
        match text(value, "an address with a port, or \"off\"")? {
            "off" => Ok(Self(None)),
            written => written
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| Mistake::new("is not an address with a port", EXAMPLES)),
        }
    }
}

/// Reads `[management]`. A relative path of a token is relative to `base`.
pub(super) fn management(
    root: &Section<'_>,
    base: &Path,
    host: &Host,
    listeners: &[Listener],
    relay: &Relay,
) -> Management {
    let section = root.section("management");
    let token = token(&section, base, host);
    let listen = match section.get::<Address>("listen") {
        Entry::Given(Address(None), _) | Entry::Bad => None,
        Entry::Absent => Some(Access { at: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), required: false }),
        Entry::Given(Address(Some(at)), place) => {
            let has = at.ip().is_unspecified() || at.ip().is_loopback() || host.has(at.ip());
            if !has {
                section.report.error(&place, "is not an address of this host", "write one of its addresses");
            } else if !at.ip().is_loopback() && token.is_none() && !NAMES.iter().any(|name| section.has(name)) {
                let remedy = "add token-file, or listen on 127.0.0.1 or [::1]";
                section.report.error(&place, "is reached from elsewhere, and there is no token", remedy);
            }
            let is_ours = |listener: &Listener| {
                at.port() != 0
                    && listener.port == at.port()
                    && (listener.tcp || listener.tls)
                    && listener.addresses.iter().any(|ip| {
                        let wild = ip.is_unspecified() || at.ip().is_unspecified();
                        *ip == at.ip() || wild && ip.is_ipv4() == at.is_ipv4()
                    })
            };
            if listeners.iter().any(is_ours) {
                section.report.error(&place, "is where clients are served", "write another port");
            }
            let relayed = |address: &RelayAddress| address.local == at.ip() || at.ip().is_unspecified();
            if relay.tcp
                && (relay.min_port..=relay.max_port).contains(&at.port())
                && relay.addresses.iter().any(relayed)
            {
                let what = "is a port of the relay range, where TCP is relayed";
                section.report.error(&place, what, "write a port outside of min-port..max-port");
            }
            Some(Access { at, required: true })
        }
    };
    let socket = match section.get::<Text>("socket") {
        Entry::Bad => None,
        Entry::Absent if cfg!(unix) => Some(Access { at: PathBuf::from(SOCKET), required: false }),
        Entry::Absent => None,
        Entry::Given(Text(written), _) if written == "off" => None,
        Entry::Given(Text(written), place) => {
            let at = base.join(&written);
            if !cfg!(unix) {
                section.report.error(&place, "is a Unix socket, which this system has not", "write \"off\"");
            } else if at.as_os_str().len() > LONGEST_PATH {
                let remedy = format!("write a path of at most {LONGEST_PATH} bytes");
                section.report.error(&place, "is too long for a Unix socket", remedy);
            }
            Some(Access { at, required: true })
        }
    };
    Management {
        listen,
        socket,
        token,
        public_metrics: section.get("public-metrics").or(false),
        coturn_metrics: section.get("coturn-metrics").or(false),
        web_page: section.get("web-page").or(true),
        host_names: section.list("host-names").or(Vec::new()).into_iter().map(|(Domain(name), _)| name).collect(),
    }
}

fn token(section: &Section<'_>, base: &Path, host: &Host) -> Option<Secret<Zeroizing<String>>> {
    let mut given = NAMES.into_iter().filter(|name| section.has(name));
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        let what = format!("the token is given twice, as {first} and as {second}");
        section.report.error(&section.place_at(second), what, "keep one");
        return None;
    }
    let (token, place) = secret(section, NAMES, base, host)?;
    if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("is not {SHORTEST_TOKEN} or more printable ASCII characters without spaces");
        section.report.error(&place, what, "make one: openssl rand -hex 24");
    }
    Some(Secret(token))
}
