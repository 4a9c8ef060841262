//! `[[listener]]` and `[relay]`: addresses and ports, resolved against the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    address::{DEFAULT_SECURE_PORT, ExternalIp, LocalIp, PeerRange},
    external::{self, External},
    finding::Place,
    host::Host,
    reader::{Entry, Section},
    settings::{DefaultFamily, Listener, Relay, RelayAddress},
    value::{Buffer, Int, Text, Transport},
};
use crate::auth::credential::RealmId;

/// Port of STUN and TURN over UDP and TCP (RFC 8656 §4.1).
const DEFAULT_PORT: u16 = 3478;

/// Dynamic ports (RFC 8656 §7.2).
const RELAY_PORTS: (u16, u16) = (49_152, 65_535);

/// Reads every `[[listener]]`; without any, one with the defaults.
/// Returns with each the realm that it names, which is not looked up yet.
pub(super) fn listeners(root: &Section<'_>, host: &Host) -> (Vec<Listener>, Vec<Option<(String, Place)>>) {
    let sections = root.sections("listener").unwrap_or_else(|| vec![root.section("listener")]);
    let mut bound: Vec<(IpAddr, u16, &'static str, usize)> = Vec::new();
    let realm = |section: &Section<'_>| match section.get::<Text>("realm") {
        Entry::Given(Text(name), place) => Some((name, place)),
        Entry::Absent | Entry::Bad => None,
    };
    sections.iter().map(|section| (listener(section, host, &mut bound), realm(section))).unzip()
}

fn listener(section: &Section<'_>, host: &Host, bound: &mut Vec<(IpAddr, u16, &'static str, usize)>) -> Listener {
    let transports = transports(section);
    let secure = !transports.is_empty() && transports.iter().all(|transport| transport.is_secure());
    let default_port = if secure { DEFAULT_SECURE_PORT } else { DEFAULT_PORT };
    let port = port(section.get::<Int<0, 65_535>>("listening-port"), default_port);
    let addresses = match section.list::<LocalIp>("listening-ip") {
        Entry::Given(addresses, place) if addresses.is_empty() => {
            section.report.error(&place, "is empty", "write an address, or leave it out to listen on all addresses");
            Vec::new()
        }
        Entry::Given(addresses, _) => {
            addresses.iter().for_each(|(LocalIp(address), place)| check_listening(section, host, *address, place));
            addresses.into_iter().map(|(LocalIp(address), place)| (address, place)).collect()
        }
        Entry::Bad => Vec::new(),
        Entry::Absent => everywhere(section, host),
    };
    let mut kinds: Vec<&'static str> = transports.iter().map(|transport| transport.port_kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for (address, place) in &addresses {
        for &kind in &kinds {
            let line = section.report.line(place.offset.unwrap_or_default());
            let twin = bound.iter().find(|(ip, p, k, _)| (ip, *p, *k) == (address, port, kind));
            match twin {
                Some((.., first)) if port != 0 => {
                    let what = format!("{kind} port {port} of {address} is already listened on (line {first})");
                    section.report.error(place, what, "remove one, or change its listening-port or transports");
                }
                _ => bound.push((*address, port, kind, line)),
            }
        }
    }
    Listener {
        addresses: addresses.into_iter().map(|(address, _)| address).collect(),
        port,
        udp: transports.contains(&Transport::Udp),
        tcp: transports.contains(&Transport::Tcp),
        tls: transports.contains(&Transport::Tls),
        dtls: transports.contains(&Transport::Dtls),
        proxies: proxies(section, &transports),
        realm: RealmId::DEFAULT,
    }
}

/// The balancers whose connections begin with a PROXY protocol header.
fn proxies(section: &Section<'_>, transports: &[Transport]) -> Vec<IpNet> {
    let Entry::Given(given, place) = section.list::<PeerRange>("proxy-protocol") else { return Vec::new() };
    if given.is_empty() {
        section.report.error(&place, "is empty", "write the networks of your balancers, or leave it out");
    } else if !transports.is_empty() && !transports.iter().any(|transport| transport.port_kind() == "TCP") {
        section.report.error(&place, "is for TCP and TLS, which this listener does not serve", "remove it");
    }
    let networks: Vec<IpNet> = given.into_iter().flat_map(|(PeerRange(networks), _)| networks).collect();
    if networks.iter().any(|network| network.prefix_len() == 0) {
        let what = "lets every client choose the address that it is known by";
        section.report.warning(&place, what, "write the networks of your balancers only");
    }
    networks
}

fn transports(section: &Section<'_>) -> Vec<Transport> {
    match section.list::<Transport>("transports") {
        Entry::Given(transports, place) if transports.is_empty() => {
            section.report.error(&place, "is empty", "write [\"udp\", \"tcp\"] or one of them");
            Vec::new()
        }
        Entry::Given(given, _) => {
            let mut transports = Vec::new();
            for (transport, place) in given {
                if transports.contains(&transport) {
                    section.report.error(&place, "is listed twice", "remove one");
                } else if transport == Transport::Dtls && !cfg!(feature = "dtls") {
                    let remedy = "remove it, or build with the feature `dtls`, which needs OpenSSL";
                    section.report.error(&place, "this program was built without DTLS", remedy);
                }
                transports.push(transport);
            }
            transports
        }
        Entry::Absent | Entry::Bad => vec![Transport::Udp, Transport::Tcp],
    }
}

/// The unspecified address of every family that the host has.
fn everywhere(section: &Section<'_>, host: &Host) -> Vec<(IpAddr, Place)> {
    let place = section.place("listening-ip");
    let unspecified = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let addresses: Vec<(IpAddr, Place)> = unspecified
        .into_iter()
        .filter(|address| host.has_family(address.is_ipv4()))
        .map(|address| (address, place.clone()))
        .collect();
    if addresses.is_empty() {
        section.report.error(&place, "this host has no address to listen on", "bring an interface up");
    }
    addresses
}

fn check_listening(section: &Section<'_>, host: &Host, address: IpAddr, place: &Place) {
    if !address.is_unspecified() {
        check_on_host(section, host, address, place);
    } else if !host.has_family(address.is_ipv4()) {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        section.report.error(place, format!("this host has no {family} address"), "remove it");
    }
}

pub(super) fn check_on_host(section: &Section<'_>, host: &Host, address: IpAddr, place: &Place) {
    if !host.has(address) {
        let remedy = format!("write one of this host's addresses: {}", host.list());
        section.report.error(place, "is not an address of this host", remedy);
    }
}

/// Reads `[relay]`.
pub(super) fn relay(root: &Section<'_>, host: &Host, listeners: &[Listener]) -> Relay {
    let section = root.section("relay");
    let (min_port, max_port) = relay_ports(&section);
    let mut addresses: Vec<RelayAddress> = relay_addresses(&section, host, listeners)
        .into_iter()
        .map(|local| RelayAddress { local, external: local })
        .collect();
    map_external(&section, &mut addresses);
    let find_external = external::find(&section, &addresses);
    let default_family = default_family(&section, &addresses);
    let (udp, tcp) = (section.get("udp-relaying").or(true), section.get("tcp-relaying").or(false));
    if !udp && !tcp {
        let what = "is false, and so is tcp-relaying: nothing could be relayed";
        section.report.error(&section.place_at("udp-relaying"), what, "set one of the two to true");
    }
    Relay {
        addresses,
        find_external,
        min_port,
        max_port,
        socket_buffer: section.get("socket-buffer").or(Buffer(Some(1 << 20))).0,
        default_family,
        udp,
        tcp,
        mobility: section.get("mobility").or(true),
    }
}

/// The family of an allocation that asks for none. Without an IPv4 address to relay from, "ipv4" is what RFC 8656 §7.2 wants
/// (440), but hardly ever what the operator does: few clients ask for a family.
fn default_family(section: &Section<'_>, addresses: &[RelayAddress]) -> DefaultFamily {
    const KEY: &str = "allocation-default-address-family";
    let served = |ipv4| addresses.is_empty() || addresses.iter().any(|address| address.local.is_ipv4() == ipv4);
    let entry = section.get(KEY);
    if matches!(entry, Entry::Given(DefaultFamily::Ipv6, _)) && !served(false) {
        let what = "there is no relay address of this family";
        section.report.error(&section.place_at(KEY), what, "add one to relay-ip");
    }
    let trusted = !matches!(entry, Entry::Bad);
    let family = entry.or(DefaultFamily::Ipv4);
    if trusted && family == DefaultFamily::Ipv4 && !served(true) {
        let what = "without an IPv4 relay address, clients that ask for no family are refused (440)";
        section.report.warning(&section.place_at(KEY), what, "write \"keep\" or \"ipv6\"");
    }
    family
}

fn relay_ports(section: &Section<'_>) -> (u16, u16) {
    type RelayPort = Int<1024, 65_535>;
    let (min, max) = (section.get::<RelayPort>("min-port"), section.get::<RelayPort>("max-port"));
    let trusted = !matches!(min, Entry::Bad) && !matches!(max, Entry::Bad);
    let place = section.place_at(if min.is_absent() { "max-port" } else { "min-port" });
    let (min, max) = (port(min, RELAY_PORTS.0), port(max, RELAY_PORTS.1));
    if trusted && min > max {
        let what = format!("the relay ports begin at {min} and end at {max}");
        section.report.error(&place, what, "write a min-port that is not above max-port");
    }
    (min, max)
}

pub(super) fn port<const MIN: u32, const MAX: u32>(entry: Entry<Int<MIN, MAX>>, default: u16) -> u16 {
    match entry {
        // The bounds of every port type fit.
        Entry::Given(Int(port), _) => u16::try_from(port).unwrap_or(default),
        Entry::Absent | Entry::Bad => default,
    }
}

/// `relay-ip`, or what the listeners imply: their specific addresses, and the primary one for an unspecified one.
fn relay_addresses(section: &Section<'_>, host: &Host, listeners: &[Listener]) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    match section.list::<LocalIp>("relay-ip") {
        Entry::Given(given, place) => {
            if given.is_empty() {
                section.report.error(&place, "is empty", "write an address, or leave it out to relay where you listen");
            }
            for (LocalIp(address), place) in given {
                if address.is_unspecified() {
                    section.report.error(
                        &place,
                        "relay sockets need a specific address",
                        "write an address of this host",
                    );
                } else if addresses.contains(&address) {
                    section.report.error(&place, "is listed twice", "remove one");
                } else {
                    check_on_host(section, host, address, &place);
                    addresses.push(address);
                }
            }
        }
        Entry::Bad => {}
        Entry::Absent => {
            for &address in listeners.iter().flat_map(|listener| &listener.addresses) {
                let primary = host.primary.iter().filter(|primary| primary.is_ipv4() == address.is_ipv4());
                let implied: Vec<IpAddr> =
                    if address.is_unspecified() { primary.copied().collect() } else { vec![address] };
                addresses
                    .extend(implied.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
            }
            if addresses.is_empty() && !section.report.failed() {
                let place = section.place("relay-ip");
                section.report.error(&place, "no address of this host can be relayed from", "write relay-ip");
            }
        }
    }
    addresses
}

/// Applies `external-ip` to the relay addresses.
fn map_external(section: &Section<'_>, addresses: &mut [RelayAddress]) {
    let Entry::Given(externals, _) = section.list::<External>("external-ip") else { return };
    let mut families: Vec<bool> = Vec::new();
    for (external, place) in externals {
        // What is to be found is the same as the local one until it is.
        let External::Is(ExternalIp { public, private }) = external else { continue };
        if families.contains(&public.is_ipv4()) {
            let family = if public.is_ipv4() { "IPv4" } else { "IPv6" };
            section.report.error(&place, format!("is a second external address for {family}"), "write one per family");
            continue;
        }
        families.push(public.is_ipv4());
        if addresses.is_empty() {
            // relay-ip was refused; what it would have held is not known.
            continue;
        }
        let relayed = addresses.iter().map(|address| address.local.to_string()).collect::<Vec<_>>().join(", ");
        let mut mapped = false;
        let of_family = addresses.iter().filter(|address| address.local.is_ipv4() == public.is_ipv4()).count();
        if private.is_none() && of_family > 1 {
            // Each has ports of its own; behind one public address they would be told apart by nobody.
            let what = format!("would stand for {of_family} relay addresses ({relayed})");
            section.report.error(&place, what, "write it as \"public/private\", or one relay-ip of this family");
            continue;
        }
        for address in addresses.iter_mut().filter(|address| address.local.is_ipv4() == public.is_ipv4()) {
            if private.is_none_or(|private| private == address.local) {
                address.external = public;
                mapped = true;
            }
        }
        match private {
            _ if mapped => {}
            Some(private) => {
                let what = format!("{private} is not a relay address");
                section.report.error(&place, what, format!("write one of the relay addresses: {relayed}"));
            }
            None => {
                let what = "there is no relay address of this family";
                section.report.error(&place, what, format!("add one to relay-ip (now {relayed}), or remove it"));
            }
        }
    }
}
