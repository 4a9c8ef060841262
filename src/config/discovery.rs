//! `[nat-discovery]`: two addresses of a family, two ports, and the listeners that serve all four.

use std::net::IpAddr;

use super::{
    address::{ExternalIp, LocalIp},
    finding::Place,
    host::Host,
    listen::{check_on_host, port},
    reader::{Entry, Section},
    settings::{Listener, MappedAddress, NatDiscovery, Relay},
    value::Int,
};
use crate::auth::credential::RealmId;

/// Port that clients of NAT discovery know (RFC 5780 §9.2).
const PRIMARY_PORT: u16 = 3478;
/// The other one; nothing prescribes it.
const ALTERNATE_PORT: u16 = 3479;

type Port = Int<1, 65_535>;

/// Reads `[nat-discovery]`, and adds to the listeners what of it they do not serve yet. `None` if the table has no key.
pub(super) fn nat_discovery(
    root: &Section<'_>,
    host: &Host,
    relay: &Relay,
    listeners: &mut Vec<Listener>,
) -> Option<NatDiscovery> {
    let section = root.section("nat-discovery");
    let primary = addresses(&section, "primary-ip", host);
    let alternate = addresses(&section, "alternate-ip", host);
    let (primary_port, alternate_port) = ports(&section);
    let externals = section.list::<ExternalIp>("external-ip");
    let keys = ["primary-ip", "alternate-ip", "primary-port", "alternate-port", "external-ip"];
    if !keys.into_iter().any(|key| section.has(key)) {
        return None;
    }
    let pairs = pairs(&section, primary?, alternate?, host);
    let pairs = map_external(&section, &pairs, externals, relay);
    // A host that serves no TCP at all is not made to.
    let tcp = listeners.iter().any(|listener| listener.tcp);
    let discovery = NatDiscovery { pairs, primary_port, alternate_port, tcp };
    refuse_secured(&section, &discovery, listeners);
    serve(&discovery, listeners);
    Some(discovery)
}

/// The addresses under a key, at most one for each family. `None` once an error is reported.
fn addresses(section: &Section<'_>, key: &'static str, host: &Host) -> Option<Vec<(IpAddr, Place)>> {
    let given = match section.list::<LocalIp>(key) {
        Entry::Given(given, _) => given,
        Entry::Bad => return None,
        Entry::Absent => Vec::new(),
    };
    let mut addresses: Vec<(IpAddr, Place)> = Vec::new();
    for (LocalIp(address), place) in given {
        if address.is_unspecified() {
            section.report.error(&place, "is not one address", "write an address of this host");
        } else if addresses.iter().any(|(other, _)| other.is_ipv4() == address.is_ipv4()) {
            let what = format!("is a second {} address", family(address));
            section.report.error(&place, what, "write one for each family");
        } else {
            check_on_host(section, host, address, &place);
            addresses.push((address, place));
        }
    }
    Some(addresses)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn ports(section: &Section<'_>) -> (u16, u16) {
    let (primary, alternate) = (section.get::<Port>("primary-port"), section.get::<Port>("alternate-port"));
    let trusted = !matches!(primary, Entry::Bad) && !matches!(alternate, Entry::Bad);
    let place = section.place_at(if alternate.is_absent() { "primary-port" } else { "alternate-port" });
    let (primary, alternate) = (port(primary, PRIMARY_PORT), port(alternate, ALTERNATE_PORT));
    if trusted && primary == alternate {
        let what = format!("primary and alternate port are both {primary}");
        section.report.error(&place, what, "write two different ports");
    }
    (primary, alternate)
}

/// The addresses of each family, put together.
fn pairs(
    section: &Section<'_>,
    primary: Vec<(IpAddr, Place)>,
    alternate: Vec<(IpAddr, Place)>,
    host: &Host,
) -> Vec<[IpAddr; 2]> {
    let of_family = |list: &[(IpAddr, Place)], address: IpAddr| {
        list.iter().map(|(other, _)| *other).find(|other| other.is_ipv4() == address.is_ipv4())
    };
    if primary.is_empty() && alternate.is_empty() {
        let remedy = format!("write primary-ip and alternate-ip, two addresses of this host ({})", host.list());
        section.report.error(&section.place("primary-ip"), "is missing", remedy);
    }
    for (address, place) in &alternate {
        if of_family(&primary, *address).is_none() {
            let what = format!("there is no primary {} address that this could be the alternate of", family(*address));
            section.report.error(place, what, "add it to primary-ip");
        }
    }
    let mut pairs = Vec::new();
    for (address, place) in primary {
        match of_family(&alternate, address) {
            None => {
                let remedy =
                    "add another address of this host to alternate-ip; with one address there is no NAT discovery";
                section.report.error(&place, format!("there is no alternate {} address", family(address)), remedy);
            }
            Some(other) if other == address => {
                let remedy = format!("write another of this host's addresses: {}", host.list());
                section.report.error(
                    &section.place_at("alternate-ip"),
                    format!("{other} is the primary address"),
                    remedy,
                );
            }
            Some(other) => pairs.push([address, other]),
        }
    }
    pairs
}

/// What the world sees of each address: as `external-ip` here says, or else that of `[relay]`. Either both of a pair are
/// mapped or none is.
fn map_external(
    section: &Section<'_>,
    pairs: &[[IpAddr; 2]],
    externals: Entry<Vec<(ExternalIp, Place)>>,
    relay: &Relay,
) -> Vec<[MappedAddress; 2]> {
    let mut given: Vec<(IpAddr, IpAddr)> = Vec::new();
    let relayed = relay.addresses.iter().filter(|address| address.external != address.local);
    let inherited: Vec<(IpAddr, IpAddr)> = relayed.map(|address| (address.local, address.external)).collect();
    for (ExternalIp { public, private }, place) in externals.or(Vec::new()) {
        let Some(private) = private else {
            let remedy = format!("write it as \"public/private\", e.g. \"{public}/{}\"", example(pairs, public));
            section.report.error(&place, "does not say which address it stands for", remedy);
            continue;
        };
        if !pairs.is_empty() && !pairs.iter().flatten().any(|address| *address == private) {
            let what = format!("{private} is no address of NAT discovery");
            section.report.error(&place, what, "write one of primary-ip or alternate-ip after the slash");
        } else if given.iter().any(|(local, external)| *local == private || *external == public) {
            section.report.error(&place, "maps an address that is mapped already", "write each address once");
        } else {
            given.push((private, public));
        }
    }
    let find = |list: &[(IpAddr, IpAddr)], address: IpAddr| {
        list.iter().find(|(local, _)| *local == address).map(|(_, external)| *external)
    };
    let external = |address: IpAddr| find(&given, address).or_else(|| find(&inherited, address));
    let map = |pair: &[IpAddr; 2]| {
        match pair.map(external) {
            [Some(_), None] => unmapped(section, pair[1]),
            [None, Some(_)] => unmapped(section, pair[0]),
            [Some(first), Some(second)] if first == second => {
                let what = format!("{} and {} are both {first} to the world", pair[0], pair[1]);
                let remedy = "give each an external address of its own, as \"public/private\"";
                section.report.error(&section.place_at("external-ip"), what, remedy);
            }
            _ => {}
        }
        pair.map(|local| MappedAddress { local, external: external(local).unwrap_or(local) })
    };
    pairs.iter().map(map).collect()
}

fn unmapped(section: &Section<'_>, address: IpAddr) {
    let what = format!("{address} has no external address, the other address of its pair has");
    let remedy = format!("add \"public/{address}\" (\"{address}/{address}\" if it needs none)");
    section.report.error(&section.place_at("external-ip"), what, remedy);
}

/// An address that a public one might stand for.
fn example(pairs: &[[IpAddr; 2]], public: IpAddr) -> String {
    let candidate = pairs.iter().flatten().find(|address| address.is_ipv4() == public.is_ipv4());
    candidate.map_or_else(|| "private".to_owned(), ToString::to_string)
}

/// NAT discovery is plain STUN: a port that is kept for TLS or DTLS cannot be one of its ports.
fn refuse_secured(section: &Section<'_>, discovery: &NatDiscovery, listeners: &[Listener]) {
    for (key, port) in [("primary-port", discovery.primary_port), ("alternate-port", discovery.alternate_port)] {
        for address in discovery.pairs.iter().flatten().map(|address| address.local) {
            let secured = listeners.iter().any(|listener| {
                let alone = listener.dtls && !listener.udp || discovery.tcp && listener.tls && !listener.tcp;
                alone && listener.port == port && covers(listener, address)
            });
            if secured {
                let what = format!("port {port} of {address} is a listener's for TLS or DTLS alone");
                let remedy = "write another port, or add \"udp\" and \"tcp\" to that listener";
                section.report.error(&section.place_at(key), what, remedy);
                return;
            }
        }
    }
}

/// Adds listeners for what none of them serves.
fn serve(discovery: &NatDiscovery, listeners: &mut Vec<Listener>) {
    for port in [discovery.primary_port, discovery.alternate_port] {
        // By what is missing: UDP alone, TCP alone, both.
        let mut missing: [Vec<IpAddr>; 3] = [Vec::new(), Vec::new(), Vec::new()];
        for address in discovery.pairs.iter().flatten().map(|address| address.local) {
            let serves = |transport: fn(&Listener) -> bool| {
                listeners
                    .iter()
                    .any(|listener| listener.port == port && transport(listener) && covers(listener, address))
            };
            match (serves(|it| it.udp), serves(|it| it.tcp) || !discovery.tcp) {
                (false, true) => missing[0].push(address),
                (true, false) => missing[1].push(address),
                (false, false) => missing[2].push(address),
                (true, true) => {}
            }
        }
        for (addresses, (udp, tcp)) in missing.into_iter().zip([(true, false), (false, true), (true, true)]) {
            if !addresses.is_empty() {
                let (tls, dtls, proxies, realm) = (false, false, Vec::new(), RealmId::DEFAULT);
                listeners.push(Listener { addresses, port, udp, tcp, tls, dtls, proxies, realm });
            }
        }
    }
}

fn covers(listener: &Listener, address: IpAddr) -> bool {
    let same = |ip: &IpAddr| *ip == address || ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4();
    listener.addresses.iter().any(same)
}
