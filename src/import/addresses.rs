//! `[relay]` and `[nat-discovery]`: where relayed addresses come from, and what clients are told of them.

use std::net::IpAddr;

use super::{
    document::{list, text},
    listeners,
    report::Kind,
    source::{Given, Source, from, from_all},
    version::Version,
};

/// Lowest port that can be relayed from.
const LOWEST: u16 = 1_024;

/// A public address, and the address that it stands for if that is said.
type External = Given<(IpAddr, Option<IpAddr>)>;

pub(super) fn import(source: &mut Source<'_>) {
    let listening = listeners::addresses(source);
    let externals = externals(source);
    let relayed = relay_addresses(source, &listening, &externals);
    ports(source);
    switches(source);
    family(source, relayed.as_deref());
    discovery(source, &listening, &externals);
}

fn externals(source: &mut Source<'_>) -> Vec<External> {
    let mut externals: Vec<External> = Vec::new();
    for given in source.all("external-ip") {
        let Given { value, line } = given;
        let (public, private) = match value.split_once('/') {
            Some((public, private)) => (public, Some(private)),
            None => (value, None),
        };
        let Some(public) = source.address("external-ip", Given { value: public.trim(), line }) else { continue };
        let private = match private.map(|private| source.address("external-ip", Given { value: private.trim(), line }))
        {
            None => None,
            Some(Some(private)) => Some(private),
            Some(None) => continue,
        };
        if private.is_some_and(|private| private.is_ipv4() != public.is_ipv4()) {
            source.report.say(
                Kind::Error,
                line,
                "external-ip",
                "maps one family to the other; write two addresses of one family",
            );
            continue;
        }
        externals.push(Given { value: (public, private), line });
    }
    externals
}

/// `relay-ip` and `external-ip`. Returns what is relayed from, if it is named. One public address of a family stands for one relay address: more would be told apart by nobody.
fn relay_addresses(
    source: &mut Source<'_>,
    listening: &[Given<IpAddr>],
    externals: &[External],
) -> Option<Vec<IpAddr>> {
    let mut named: Vec<Given<IpAddr>> = Vec::new();
    for given in source.all("relay-ip") {
        match source.address("relay-ip", given) {
            Some(address) if address.is_unspecified() => {
                let what =
                    "is no address to relay from: the one of each family that has a route to the internet is taken";
                source.report.say(Kind::Changed, given.line, "relay-ip", what);
            }
            Some(value) => named.push(Given { value, line: given.line }),
            None => {}
        }
    }
    let mut relays: Vec<Given<IpAddr>> = if named.is_empty() { listening.to_vec() } else { named.clone() };
    relays.retain(|given| !given.value.is_unspecified());
    let specific = !relays.is_empty();
    // Here every listening address is relayed from unless they are named; with coturn those of aux-server are not.
    let more_is_heard =
        source.line("aux-server").is_some() || listening.iter().any(|given| given.value.is_unspecified());
    if !specific {
        let what = "coturn relays from every address that it listens on; here from the one of each family that has a route to \
                    the internet, unless relay-ip says otherwise";
        source.report.say(Kind::Note, None, "relay-ip", what);
    }
    let mut written = Vec::new();
    let mut narrowed = false;
    for ipv4 in [true, false] {
        let of_family: Vec<IpAddr> = relays.iter().map(|given| given.value).filter(|ip| ip.is_ipv4() == ipv4).collect();
        let mapped: Vec<&External> = externals.iter().filter(|external| external.value.0.is_ipv4() == ipv4).collect();
        let usable = |external: &&&External| {
            !specific || external.value.1.map_or(!of_family.is_empty(), |private| of_family.contains(&private))
        };
        let Some(external) = mapped.iter().find(usable) else {
            for external in mapped {
                let what = "stands for no address that is relayed from";
                source.report.say(Kind::Ignored, external.line, "external-ip", what);
            }
            continue;
        };
        let Given { value: (public, private), line } = **external;
        for other in mapped.iter().filter(|other| other.line != line) {
            let what = format!(
                "there is one external address for each family here: that of line {line}; relay-ip is narrowed to it"
            );
            source.report.say(Kind::Changed, other.line, "external-ip", what);
        }
        let keep = match private {
            Some(private) if mapped.len() > 1 => Some(private),
            None if of_family.len() > 1 => {
                of_family.iter().copied().find(|ip| !ip.is_loopback()).or(of_family.first().copied())
            }
            _ => None,
        };
        if let Some(keep) = keep.filter(|_| of_family.len() > 1) {
            relays.retain(|given| given.value.is_ipv4() != ipv4 || given.value == keep);
            narrowed = true;
            let what = format!(
                "{public} cannot stand for several addresses, whose ports would be told apart by nobody: {keep} alone is relayed from"
            );
            source.report.say(Kind::Changed, line, "external-ip", what);
        }
        written
            .push(Given { value: private.map_or(public.to_string(), |private| format!("{public}/{private}")), line });
    }
    if narrowed || !named.is_empty() || specific && more_is_heard {
        let key = if named.is_empty() { "listening-ip" } else { "relay-ip" };
        let ips = list(relays.iter().map(|given| given.value));
        source.document.set("[relay]", "relay-ip", ips, from_all(key, &relays));
    }
    if !written.is_empty() {
        let value = list(written.iter().map(|given| &given.value));
        source.document.set("[relay]", "external-ip", value, from_all("external-ip", &written));
    }
    (specific || narrowed).then(|| relays.iter().map(|given| given.value).collect())
}

fn ports(source: &mut Source<'_>) {
    let given = [source.port("min-port"), source.port("max-port")];
    for (key, port) in ["min-port", "max-port"].into_iter().zip(given) {
        let Some(Given { value, line }) = port else { continue };
        if value < LOWEST {
            let what = format!("is raised to {LOWEST}: ports below belong to services");
            source.report.say(Kind::Changed, line, key, what);
        }
        source.document.set("[relay]", key, value.max(LOWEST), from(key, line));
    }
    let [min, max] = given;
    if min.map_or(49_152, |given| given.value) > max.map_or(65_535, |given| given.value) {
        let line = min.or(max).map(|given| given.line);
        source.report.say(Kind::Error, line, "min-port", "is above max-port; write a range");
    }
}

/// What is relayed, and mobility.
fn switches(source: &mut Source<'_>) {
    let (no_udp, no_tcp) = (source.on("no-udp-relay"), source.on("no-tcp-relay"));
    if let (Some(line), Some(_)) = (no_udp, no_tcp) {
        source.report.say(Kind::Error, line, "no-udp-relay", "leaves nothing to relay beside no-tcp-relay; remove one");
    }
    if let Some(line) = no_udp {
        source.document.set("[relay]", "udp-relaying", false, from("no-udp-relay", line));
    }
    match no_tcp {
        Some(line) => source.document.set("[relay]", "tcp-relaying", false, from("no-tcp-relay", line)),
        None => {
            let why = "as coturn does unless no-tcp-relay is set; browsers never use it: false is safer";
            source.document.set("[relay]", "tcp-relaying", true, why);
            let what = "TCP is relayed, too (RFC 6062), as with coturn; browsers never use it, so unless another client of yours \
                        does, set tcp-relaying = false";
            source.report.say(Kind::Note, None, "no-tcp-relay", what);
        }
    }
    match source.on("mobility") {
        Some(line) => source.document.set("[relay]", "mobility", true, from("mobility", line)),
        None => source.document.set("[relay]", "mobility", false, "coturn's default"),
    }
    if let Some(Given { value, line }) = source.number("sock-buf-size") {
        let bytes = value.clamp(4_096, 1 << 30);
        source.document.set("[relay]", "socket-buffer", bytes, from("sock-buf-size", line));
        source.document.set("[process]", "listener-buffer", bytes, from("sock-buf-size", line));
    }
}

fn family(source: &mut Source<'_>, relayed: Option<&[IpAddr]>) {
    let key = "allocation-default-address-family";
    if let Some(Given { value, line }) = source.text(key) {
        if value == "ipv6" && relayed.is_some_and(|relayed| !relayed.iter().any(IpAddr::is_ipv6)) {
            let what = "there is no IPv6 address to relay from, and clients that ask for no family would get nothing; add a relay-ip";
            source.report.say(Kind::Error, line, key, what);
        } else if ["ipv4", "ipv6", "keep"].contains(&value) {
            source.document.set("[relay]", key, text(value), from(key, line));
        } else {
            source.report.say(Kind::Error, line, key, "is none of ipv4, ipv6 and keep");
        }
    } else if let Some(line) = source.on("keep-address-family") {
        source.document.set("[relay]", key, text("keep"), from("keep-address-family", line));
    }
}

/// Whether coturn would offer NAT discovery if it had the addresses.
pub(super) fn is_discovery_on(source: &mut Source<'_>) -> bool {
    let is_on =
        if source.version < Version::WITHOUT_EXTRAS { !source.is_on("no-rfc5780") } else { source.is_on("rfc5780") };
    // It is a matter of UDP.
    is_on && !source.is_on("no-udp")
}

/// `[nat-discovery]`: two addresses of a family, if they are named.
fn discovery(source: &mut Source<'_>, listening: &[Given<IpAddr>], externals: &[External]) {
    let asked_for = source.on("rfc5780");
    if !is_discovery_on(source) {
        if let Some(given) = source.port("alt-listening-port") {
            source.report.say(Kind::Ignored, given.line, "alt-listening-port", "it is of use with RFC 5780 only");
        }
        return;
    }
    let of_family = |ipv4: bool| {
        let ips = listening.iter().map(|given| given.value);
        ips.filter(move |ip| ip.is_ipv4() == ipv4 && !ip.is_unspecified()).collect::<Vec<IpAddr>>()
    };
    let pairs: Vec<[IpAddr; 2]> =
        [true, false].into_iter().filter_map(|ipv4| of_family(ipv4).first_chunk::<2>().copied()).collect();
    let mapping =
        |ip: IpAddr| externals.iter().find(|external| external.value.1 == Some(ip)).map(|external| external.value.0);
    let half_mapped = pairs.iter().any(|pair| {
        let bare = externals
            .iter()
            .any(|external| external.value.1.is_none() && external.value.0.is_ipv4() == pair[0].is_ipv4());
        bare || mapping(pair[0]).is_some() != mapping(pair[1]).is_some()
            || mapping(pair[0]).is_some() && mapping(pair[0]) == mapping(pair[1])
    });
    if pairs.is_empty() || half_mapped {
        if asked_for.is_some() {
            let question = "NAT discovery needs two addresses of this host by name (listening-ip), each with an external-ip of its \
                            own as public/private, or none of them";
            source.decide("rfc5780", question, &["drop"]);
        }
        return;
    }
    let primary = source.port("listening-port");
    let port = primary.map_or(3_478, |given| given.value);
    let alternate = source.port("alt-listening-port");
    let why = asked_for.map_or_else(|| "on by default before coturn 4.7.0".to_owned(), |line| from("rfc5780", line));
    let set = |source: &mut Source<'_>, key, value: String, why: String| {
        source.document.set("[nat-discovery]", key, value, why)
    };
    set(source, "primary-ip", list(pairs.iter().map(|pair| pair[0])), why);
    set(source, "alternate-ip", list(pairs.iter().map(|pair| pair[1])), String::new());
    set(source, "primary-port", port.to_string(), String::new());
    let other = alternate.map_or(port.saturating_add(1), |given| given.value);
    if other == port {
        let line = alternate.map(|given| given.line);
        source.report.say(Kind::Error, line, "alt-listening-port", "is listening-port, too; write another port");
    }
    let why = alternate.map_or_else(|| "coturn's default".to_owned(), |given| from("alt-listening-port", given.line));
    set(source, "alternate-port", other.to_string(), why);
    let mapped: Vec<String> =
        pairs.iter().flatten().filter_map(|ip| mapping(*ip).map(|public| format!("{public}/{ip}"))).collect();
    if !mapped.is_empty() {
        set(source, "external-ip", list(mapped), "external-ip".to_owned());
    }
    if asked_for.is_none() {
        let what = "NAT discovery (RFC 5780) is served, as coturn before 4.7.0 does where it listens on two addresses";
        source.report.say(Kind::Note, None, "no-rfc5780", what);
    }
}
