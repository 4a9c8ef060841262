//! `[peers]` and `[[redirect.server]]`: whom clients reach, and to whom they are sent.
//!
//! With coturn an allowed range beats every denied one; here the longest prefix does. So what is denied within an allowed range
//! is left out, and all else comes out the same.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    document::{Table, long_list, text},
    keys,
    report::Kind,
    source::{Given, Source, from},
};
use crate::config::parse_peer_range;

/// A range as it is written, and the networks that cover it.
struct Range<'t> {
    written: &'t str,
    networks: Vec<IpNet>,
    line: usize,
}

pub(super) fn import(source: &mut Source<'_>) {
    rules(source);
    redirect(source);
}

fn rules(source: &mut Source<'_>) {
    let allowed = ranges(source, "allowed-peer-ip");
    let denied = ranges(source, "denied-peer-ip");
    let is_allowed =
        |network: &IpNet| allowed.iter().flat_map(|range| &range.networks).any(|outer| outer.contains(network));
    let mut written: Vec<(String, usize)> = Vec::new();
    for Range { written: range, networks, line } in &denied {
        if !networks.iter().any(is_allowed) {
            written.push(((*range).to_owned(), *line));
            continue;
        }
        let what =
            "an allowed range is in it or around it, and beats it with coturn: what is allowed is left out of it";
        source.report.say(Kind::Note, *line, "denied-peer-ip", what);
        written
            .extend(networks.iter().filter(|network| !is_allowed(network)).map(|network| (network.to_string(), *line)));
    }
    let mut opened: Vec<(String, usize)> = allowed.iter().map(|range| (range.written.to_owned(), range.line)).collect();
    for range in &allowed {
        if range.networks.iter().any(|network| network.prefix_len() < 8) {
            let what = "private and other special ranges within it stay closed here: name those that are to be open by themselves";
            source.report.say(Kind::Changed, range.line, "allowed-peer-ip", what);
        }
    }
    loopback(source, &mut opened, &denied);
    relay_to_relay(source, &denied, is_allowed);
    if !opened.is_empty() {
        source.document.set("[peers]", "allowed-peer-ip", long_list(opened), "");
    }
    if !written.is_empty() {
        source.document.set("[peers]", "denied-peer-ip", long_list(written), "");
    }
    let what = "coturn lets clients reach private addresses unless they are denied; here private, local and other special \
                addresses are refused unless allowed: if your media servers have such addresses, add them to allowed-peer-ip";
    source.report.say(Kind::Changed, None, "denied-peer-ip", what);
}

/// coturn refuses its own relayed addresses if they are denied as any other; here that takes a rule for exactly that address.
fn relay_to_relay(source: &mut Source<'_>, denied: &[Range<'_>], is_allowed: impl Fn(&IpNet) -> bool) {
    let own = ["relay-ip", "listening-ip", "external-ip"].into_iter().flat_map(|key| source.all(key));
    let own: Vec<IpNet> = own
        .flat_map(|given| given.value.split('/'))
        .filter_map(|ip| ip.trim().parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect();
    let covers = |range: &&Range<'_>| {
        let nets = || range.networks.iter();
        own.iter().any(|own| nets().any(|net| net.contains(own) && net != own) && !is_allowed(own))
    };
    if let Some(range) = denied.iter().find(covers) {
        let what = "this server's own addresses are in this range; unlike with coturn, two of its clients still reach each other by \
                    their relayed addresses, unless exactly that address is denied";
        source.report.say(Kind::Changed, range.line, "denied-peer-ip", what);
    }
}

/// `allow-loopback-peers`, which opens all of this host.
fn loopback(source: &mut Source<'_>, opened: &mut Vec<(String, usize)>, denied: &[Range<'_>]) {
    let (Some(line), Some(key)) = (source.on("allow-loopback-peers"), keys::find("allow-loopback-peers")) else {
        return;
    };
    if source.ask(key).as_deref() == Some("allow") {
        for range in ["127.0.0.0/8", "::1"] {
            let networks = parse_peer_range(range).unwrap_or_default();
            let is_within = |outer: &IpNet| networks.iter().all(|network| outer.contains(network));
            if let Some(denied) = denied.iter().find(|denied| denied.networks.iter().any(is_within)) {
                let what = format!("{range} stays refused, as line {} denies it", denied.line);
                source.report.say(Kind::Note, line, "allow-loopback-peers", what);
            } else if opened.iter().all(|(other, _)| other != range) {
                opened.push((range.to_owned(), line));
            }
        }
    }
}

/// The ranges of a key, each network once.
fn ranges<'t>(source: &mut Source<'t>, key: &'static str) -> Vec<Range<'t>> {
    let mut ranges: Vec<Range<'t>> = Vec::new();
    for Given { value, line } in source.all(key) {
        let ends = value.split('-').map(|end| end.split('/').next().unwrap_or(end).trim());
        if ends.filter_map(|end| end.parse::<IpAddr>().ok()).any(|ip| ip.to_canonical() != ip) {
            let what =
                "peers in this spelling (IPv4 in IPv6) are always refused here, and denied by their IPv4 address";
            source.report.say(Kind::Ignored, line, key, what);
            continue;
        }
        match parse_peer_range(value) {
            Ok(networks) => {
                if value.contains('/') {
                    let what =
                        "coturn knows no prefix lengths, and does not enforce this or does not start; here it holds";
                    source.report.say(Kind::Changed, line, key, what);
                }
                // Networks that overlap nest: one that is there already would only be warned about.
                let known =
                    |network: &IpNet| ranges.iter().flat_map(|range| &range.networks).any(|other| other == network);
                if !networks.iter().all(known) {
                    ranges.push(Range { written: value, networks, line });
                }
            }
            Err(fault) => {
                let what = format!("{fault}; write an address, or a range like 10.0.0.0-10.255.255.255");
                source.report.say(Kind::Error, line, key, what);
            }
        }
    }
    ranges
}

/// What each transport is redirected by: the first key that is given.
const REDIRECTED: [(&str, &[&str]); 4] = [
    ("udp", &["udp-alternate-server", "alternate-server"]),
    ("tcp", &["tcp-alternate-server", "alternate-server"]),
    ("tls", &["tls-alternate-server"]),
    ("dtls", &["udp-alternate-server", "tls-alternate-server"]),
];

fn redirect(source: &mut Source<'_>) {
    const PORT: u16 = 3_478;
    const SECURE_PORT: u16 = 5_349;
    let mut servers: Vec<(SocketAddr, Vec<&str>, String)> = Vec::new();
    for key in ["alternate-server", "tls-alternate-server", "udp-alternate-server", "tcp-alternate-server"] {
        let default = if key == "tls-alternate-server" { SECURE_PORT } else { PORT };
        for given in source.all(key) {
            let Some(address) = source.socket(key, given, Some(default)) else { continue };
            let is_used =
                |(_, keys): &&(&str, &[&str])| keys.iter().find(|key| source.line(key).is_some()) == Some(&key);
            let transports: Vec<&str> = REDIRECTED.iter().filter(is_used).map(|(transport, _)| *transport).collect();
            if transports.is_empty() {
                source.report.say(
                    Kind::Ignored,
                    given.line,
                    key,
                    "udp-alternate-server and tcp-alternate-server replace it",
                );
                continue;
            }
            match servers.iter_mut().find(|(other, ..)| *other == address) {
                Some((_, all, _)) => {
                    all.extend(transports.into_iter().filter(|new| !all.contains(new)).collect::<Vec<_>>())
                }
                None => servers.push((address, transports, from(key, given.line))),
            }
        }
    }
    for (address, transports, why) in servers {
        let table = Table::new("[[redirect.server]]").set("address", text(address), why);
        source.document.add(table.set("transports", super::document::list(transports), ""));
    }
}
