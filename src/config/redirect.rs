//! `[redirect]` and `[[redirect.server]]`: which other servers new clients are sent to (RFC 8489 §10).

use std::net::SocketAddr;

use super::{
    address::{DEFAULT_SECURE_PORT, Domain, ServerAddress},
    finding::Place,
    host::Host,
    reader::{Entry, Section},
    settings::{AlternateServer, Listener, Redirect, Relay},
    value::{Int, Transport},
};

/// Largest weight of one server.
const HEAVIEST: u32 = 1_000_000;

/// Reads `[redirect]`.
pub(super) fn redirect(root: &Section<'_>, host: &Host, listeners: &[Listener], relay: &Relay) -> Option<Redirect> {
    let section = root.section("redirect");
    let is_ours = |server: &SocketAddr| {
        let local = |ip| host.has(ip) || relay.addresses.iter().any(|address| address.external == ip);
        listeners.iter().filter(|listener| listener.port == server.port()).flat_map(|listener| &listener.addresses).any(
            |ip| *ip == server.ip() || ip.is_unspecified() && ip.is_ipv4() == server.is_ipv4() && local(server.ip()),
        )
    };
    let mut servers = simple(&section, is_ours);
    let named = section.sections("server");
    for section in named.iter().flatten() {
        servers.extend(server(section));
    }

    let mut redirect = Redirect { servers: Vec::new(), share: share(&section) };
    for (server, place) in servers {
        let same = |other: &AlternateServer| {
            let (a, b) = (server.transports(), other.transports());
            other.address == server.address && a.into_iter().zip(b).any(|(a, b)| a && b)
        };
        if is_ours(&server.address) {
            section.report.error(&place, "is this server itself", "write another server");
        } else if redirect.servers.iter().any(same) {
            section.report.error(&place, "is listed twice", "remove one");
        } else {
            redirect.servers.push(server);
        }
    }
    if !redirect.servers.is_empty() && redirect.servers.iter().all(|server| server.weight == 0) {
        let remedy = "give one a weight, or remove them all to serve clients here";
        section.report.error(&section.place("server"), "no server has a weight above 0", remedy);
    }
    if redirect.servers.is_empty()
        && section.has("share")
        && section.list::<ServerAddress>("alternate-server").is_absent()
    {
        section.report.error(&section.place_at("share"), "is given without a server", "add a [[redirect.server]]");
    }
    (!redirect.servers.is_empty()).then_some(redirect)
}

/// How many of 100 requests are redirected.
fn share(section: &Section<'_>) -> u8 {
    // The bound fits.
    section.get("share").or(Int::<0, 100>(100)).0 as u8
}

/// The servers of `alternate-server`, for clients over UDP and TCP, and of `tls-alternate-server`, for those over TLS and DTLS:
/// alike, with one name.
fn simple(section: &Section<'_>, is_ours: impl Fn(&SocketAddr) -> bool) -> Vec<(AlternateServer, Place)> {
    let plain = section.list::<ServerAddress>("alternate-server");
    let secure = section.list::<ServerAddress<DEFAULT_SECURE_PORT>>("tls-alternate-server");
    let domain = match section.get::<Domain>("alternate-domain") {
        Entry::Given(Domain(domain), place) => {
            if plain.is_absent() {
                let remedy = "add the address that this name stands for";
                section.report.error(&place, "is given without alternate-server", remedy);
            }
            Some(domain)
        }
        Entry::Absent | Entry::Bad => None,
    };
    if plain.is_absent() && !secure.is_absent() {
        let remedy = "add alternate-server, for clients over UDP and TCP";
        section.report.error(&section.place_at("tls-alternate-server"), "is given without alternate-server", remedy);
    }
    let by_default = secure.is_absent();
    let (plain, mut secure) = (addresses(section, plain), addresses(section, secure));
    if by_default {
        for (address, place) in &plain {
            let address = SocketAddr::new(address.ip(), DEFAULT_SECURE_PORT);
            if is_ours(&address) {
                let what = format!("would send clients over TLS to {address}, which is this server itself");
                section.report.error(place, what, "write tls-alternate-server, too");
            } else if !secure.iter().any(|(other, _)| *other == address) {
                secure.push((address, place.clone()));
            }
        }
    }
    let of = |servers: Vec<(SocketAddr, Place)>, is_secure: bool| {
        let (udp, tcp, tls, dtls) = (!is_secure, !is_secure, is_secure, is_secure);
        let alike = AlternateServer { udp, tcp, tls, dtls, domain: domain.clone(), ..AlternateServer::default() };
        servers.into_iter().map(move |(address, place)| (AlternateServer { address, ..alike.clone() }, place))
    };
    of(plain, false).chain(of(secure, true)).collect()
}

/// The servers of one list.
fn addresses<const PORT: u16>(
    section: &Section<'_>,
    given: Entry<Vec<(ServerAddress<PORT>, Place)>>,
) -> Vec<(SocketAddr, Place)> {
    let Entry::Given(servers, place) = given else { return Vec::new() };
    if servers.is_empty() {
        section.report.error(&place, "is empty", "write a server, or leave it out to serve clients here");
    }
    servers.into_iter().map(|(ServerAddress(address), place)| (address, place)).collect()
}

/// One `[[redirect.server]]`; `None` once an error is reported.
fn server(section: &Section<'_>) -> Option<(AlternateServer, Place)> {
    let address = section.get::<ServerAddress>("address");
    let transports = match section.list::<Transport>("transports") {
        Entry::Given(transports, place) if transports.is_empty() => {
            section.report.error(&place, "is empty", "write the server's transports, or leave it out for all");
            Vec::new()
        }
        Entry::Given(transports, _) => transports.into_iter().map(|(transport, _)| transport).collect(),
        Entry::Absent | Entry::Bad => Transport::ALL.to_vec(),
    };
    let weight = section.get("weight").or(Int::<0, HEAVIEST>(1)).0;
    let domain = match section.get::<Domain>("domain") {
        Entry::Given(Domain(domain), place) => {
            if !transports.iter().any(|transport| transport.is_secure()) {
                let what = "is for TLS and DTLS, which this server is not named for";
                section.report.warning(&place, what, "remove it, or add \"tls\" to transports");
            }
            Some(domain)
        }
        Entry::Absent | Entry::Bad => None,
    };
    match address {
        Entry::Given(ServerAddress(address), place) => {
            let has = |transport| transports.contains(&transport);
            let (udp, tcp) = (has(Transport::Udp), has(Transport::Tcp));
            let (tls, dtls) = (has(Transport::Tls), has(Transport::Dtls));
            Some((AlternateServer { address, udp, tcp, tls, dtls, weight, domain }, place))
        }
        Entry::Absent => {
            section.report.error(&section.place("address"), "is missing", "write the server's address and port");
            None
        }
        Entry::Bad => None,
    }
}
