//! What the configuration needs of this host: relay ports, descriptors, buffers, processors.

use std::{
    fs,
    net::{IpAddr, TcpListener, UdpSocket},
    num::NonZero,
    thread,
};

use crate::{config::Settings, probe::Finding};

/// With fewer relay ports, those that others take are missed.
const FEW: usize = 1_000;

/// Looks at all of it.
pub(super) fn of(settings: &Settings) -> Vec<Finding> {
    let mut findings = ports(settings);
    findings.push(descriptors(settings, number_in_limits("Max open files")));
    findings.extend(buffers(settings));
    findings.extend(conntrack(settings));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    findings.push(workers(settings, processors));
    findings
}

/// Allocations that there may be at a time, if that is limited.
fn most_allocations(settings: &Settings) -> Option<usize> {
    settings.limits.total.allocations.map(|most| most as usize)
}

/// Whether a port of an address can be bound.
type IsFree = fn(IpAddr, u16) -> bool;

fn ports(settings: &Settings) -> Vec<Finding> {
    const ABOUT: &str = "relay ports";
    let relay = &settings.relay;
    let (range, size) = (relay.min_port..=relay.max_port, usize::from(relay.max_port - relay.min_port) + 1);
    let mut findings = Vec::new();
    for address in &relay.addresses {
        let mut kinds: Vec<(&str, IsFree)> = Vec::new();
        if relay.udp {
            kinds.push(("UDP", |ip, port| UdpSocket::bind((ip, port)).is_ok()));
        }
        if relay.tcp {
            kinds.push(("TCP", |ip, port| TcpListener::bind((ip, port)).is_ok()));
        }
        for (kind, free) in kinds {
            let count = range.clone().filter(|port| free(address.local, *port)).count();
            let what = format!(
                "{count} of {size} {kind} ports from {} to {} are free on {}",
                relay.min_port, relay.max_port, address.local
            );
            findings.push(if count == 0 {
                let remedy = "give it a relay-ip of this host, and a range min-port..max-port that nobody else uses";
                Finding::error(ABOUT, what, remedy)
            } else if count * 10 < size * 9 {
                let remedy =
                    "see who has the others (ss -ulnp), unless it is the running server; or choose another range";
                Finding::warning(ABOUT, what, remedy)
            } else {
                Finding::ok(ABOUT, what)
            });
        }
    }
    if let Some(most) = most_allocations(settings).filter(|most| *most > size) {
        let what = format!("{size} ports are fewer than the {most} allocations that total-quota allows");
        findings.push(Finding::warning(ABOUT, what, "widen min-port..max-port, or lower total-quota"));
    }
    findings.extend(ephemeral(
        &fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default(),
        (relay.min_port, relay.max_port),
    ));
    findings
}

/// Ports of the range that the system gives to whoever asks for any.
fn ephemeral(system: &str, (min, max): (u16, u16)) -> Option<Finding> {
    const ABOUT: &str = "relay ports";
    let mut bounds = system.split_whitespace().filter_map(|word| word.parse::<u16>().ok());
    let (first, last) = (bounds.next()?, bounds.next()?);
    let shared = usize::from(last.min(max)).checked_sub(usize::from(first.max(min))).map_or(0, |more| more + 1);
    if shared == 0 {
        return Some(Finding::ok(ABOUT, format!("the system gives others none of them ({first} to {last})")));
    }
    let what =
        format!("the system gives {shared} of them to other programs, too (ip_local_port_range {first} to {last})");
    let own = usize::from(max - min) + 1;
    if own - shared >= FEW || own >= 4 * FEW {
        return Some(Finding::ok(ABOUT, format!("{what}; the server passes over those in use")));
    }
    let remedy =
        format!("widen the range, or keep it for the server: sysctl -w net.ipv4.ip_local_reserved_ports={min}-{max}");
    Some(Finding::warning(ABOUT, what, remedy))
}

/// The hard limit of a resource of this process.
fn number_in_limits(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1).map(|hard| hard.parse().unwrap_or(u64::MAX))
}

fn descriptors(settings: &Settings, hard: Option<u64>) -> Finding {
    const ABOUT: &str = "descriptors";
    /// Of the process itself: listeners, management, stores.
    const OTHERS: usize = 100;
    let Some(hard) = hard else { return Finding::skipped(ABOUT, "this system does not tell its limit") };
    let relay = &settings.relay;
    let pools = relay.addresses.len() * usize::from(relay.udp) + relay.addresses.len() * usize::from(relay.tcp);
    let range = (usize::from(relay.max_port - relay.min_port) + 1) * pools;
    let relays = most_allocations(settings).map_or(range, |most| most.min(range));
    let streams = settings.listeners.iter().any(|listener| listener.tcp || listener.tls);
    let connections = if streams { settings.tcp.max_connections } else { 0 };
    let needed = relays + connections + OTHERS;
    let what =
        format!("up to {needed} are needed ({relays} relay sockets, {connections} connections), and {hard} may be had");
    if hard < needed as u64 {
        let remedy =
            "raise LimitNOFILE= in the unit (ulimit -Hn elsewhere), or lower total-quota and tcp.max-connections";
        return Finding::warning(ABOUT, what, remedy);
    }
    Finding::ok(ABOUT, what)
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?.trim().parse().ok()
}

fn buffers(settings: &Settings) -> Vec<Finding> {
    let sizes = [
        ("process.listener-buffer", settings.process.listener_buffer),
        ("relay.socket-buffer", settings.relay.socket_buffer),
    ];
    let mut findings = Vec::new();
    for name in ["net.core.rmem_max", "net.core.wmem_max"] {
        let Some(most) = sysctl(name) else { continue };
        for (key, size) in sizes {
            findings.extend(size.and_then(|size| buffer(name, most, key, size as u64)));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("buffers", "the system grants what is configured, or does not tell"));
    }
    findings
}

fn buffer(name: &str, most: u64, key: &str, size: u64) -> Option<Finding> {
    (most < size).then(|| {
        let what = format!("{name} is {most}, and {key} wants {size}: in bursts datagrams are dropped");
        Finding::warning(
            "buffers",
            what,
            format!("sysctl -w {name}={size}, and write it into /etc/sysctl.d/turnserver.conf"),
        )
    })
}

fn conntrack(settings: &Settings) -> Option<Finding> {
    let (most, now) = (sysctl("net.netfilter.nf_conntrack_max")?, sysctl("net.netfilter.nf_conntrack_count")?);
    Some(tracked(most, now, most_allocations(settings).unwrap_or(10_000) as u64))
}

/// Each allocation takes an entry for its client and one for each peer.
fn tracked(most: u64, now: u64, allocations: u64) -> Finding {
    const ABOUT: &str = "conntrack";
    let what = format!("the firewall follows {now} of at most {most} flows");
    if now * 10 > most * 8 || most < 2 * allocations {
        let remedy = format!(
            "raise net.netfilter.nf_conntrack_max above {}, or exempt the server's ports from it (notrack)",
            (2 * allocations).max(2 * now)
        );
        return Finding::warning(ABOUT, what, remedy);
    }
    Finding::ok(ABOUT, what)
}

fn workers(settings: &Settings, processors: usize) -> Finding {
    const ABOUT: &str = "processors";
    let workers = settings.process.workers;
    let what = format!("{workers} workers for {processors} processors");
    if workers > processors {
        return Finding::warning(ABOUT, what, "write workers = \"auto\"");
    }
    Finding::ok(ABOUT, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Host},
        probe::Level,
    };

    fn settings(more: &str) -> Settings {
        let text = format!("[auth]\nrealm = \"r\"\nstatic-auth-secret = \"a secret of the tests\"\n{more}");
        config::parse(&text, "t.toml", &Host::detect().unwrap()).unwrap().settings
    }

    #[test]
    fn ports_that_others_may_take_matter_where_there_are_few() {
        let level = |system: &str, range| ephemeral(system, range).map(|finding| finding.level);
        assert_eq!(level("32768\t60999\n", (49_152, 65_535)), Some(Level::Ok));
        assert_eq!(level("32768 60999", (50_000, 50_099)), Some(Level::Warning));
        assert_eq!(level("32768 60999", (61_000, 61_099)), Some(Level::Ok));
        assert_eq!(level("", (1, 2)), None);
    }

    #[test]
    fn limits_are_held_against_what_is_needed() {
        let few = settings("[limits]\ntotal-quota = 100\n[tcp]\nmax-connections = 100\n");
        assert_eq!(descriptors(&few, Some(1_024)).level, Level::Ok);
        assert_eq!(descriptors(&few, Some(299)).level, Level::Warning);
        assert_eq!(descriptors(&few, None).level, Level::Skipped);
        assert_eq!(descriptors(&settings(""), Some(1_024)).level, Level::Warning);
        assert!(buffer("net.core.rmem_max", 212_992, "k", 4 << 20).is_some_and(|it| it.what.contains("212992")));
        assert!(buffer("net.core.rmem_max", 4 << 20, "k", 4 << 20).is_none());
        assert_eq!(tracked(65_536, 100, 1_000).level, Level::Ok);
        assert_eq!(tracked(65_536, 60_000, 1_000).level, Level::Warning);
        assert_eq!(tracked(1_000, 1, 1_000).level, Level::Warning);
        assert_eq!(workers(&settings("[process]\nworkers = 4\n"), 2).level, Level::Warning);
        assert_eq!(workers(&settings("[process]\nworkers = 2\n"), 2).level, Level::Ok);
    }
}
