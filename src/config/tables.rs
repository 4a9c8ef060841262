//! The tables of plain numbers and switches: lifetimes, peers, tcp, compatibility, process, offload, log.

use std::time::Duration;

use ipnet::IpNet;

use super::{
    address::PeerRange,
    finding::Place,
    host::Host,
    reader::{Entry, Section},
    settings::{
        Compatibility, DrainError, Lifetimes, Log, LogFormat, Offload, OffloadMode, Peers, Process, Tcp, UdpIo,
    },
    value::{
        Buffer, Gather, Int, InterfaceName, LogLevel, MAX_WORKERS, Period, PeriodOrOff, Size, Workers, period_text,
    },
};

/// Most connections.
const MANY: u32 = 1_000_000_000;

fn period(section: &Section<'_>, key: &'static str, seconds: u64) -> Duration {
    section.get(key).or(Period(Duration::from_secs(seconds))).0
}

/// Reads `[lifetimes]`.
pub(super) fn lifetimes(root: &Section<'_>) -> Lifetimes {
    let section = root.section("lifetimes");
    let defaults = [("default-allocate-lifetime", 600), ("max-allocate-lifetime", 3_600)];
    let [default_allocate, max_allocate] = defaults.map(|(key, seconds)| match section.get(key) {
        Entry::Given(Period(period), place) => {
            if period.subsec_nanos() != 0 {
                let remedy = "LIFETIME counts whole seconds; write whole seconds";
                section.report.error(&place, "is not a whole number of seconds", remedy);
            }
            Some(period)
        }
        Entry::Absent => Some(Duration::from_secs(seconds)),
        Entry::Bad => None,
    });
    if let (Some(default), Some(max)) = (default_allocate, max_allocate)
        && default > max
    {
        let key =
            if section.has("max-allocate-lifetime") { "max-allocate-lifetime" } else { "default-allocate-lifetime" };
        let what = format!("the default lifetime {} is above the longest, {}", period_text(default), period_text(max));
        let remedy = "write a max-allocate-lifetime that is not below default-allocate-lifetime";
        section.report.error(&section.place_at(key), what, remedy);
    }
    Lifetimes {
        default_allocate: default_allocate.unwrap_or_default(),
        max_allocate: max_allocate.unwrap_or_default(),
        permission: rfc_period(&section, "permission-lifetime", 8656, 300, |given, rfc| given != rfc),
        channel: rfc_period(&section, "channel-lifetime", 8656, 600, |given, rfc| given != rfc),
        reservation: rfc_period(&section, "reservation-lifetime", 8656, 30, |given, rfc| given < rfc),
        connect: rfc_period(&section, "connect-timeout", 6062, 30, |given, rfc| given < rfc),
        connection_bind: rfc_period(&section, "connection-bind-timeout", 6062, 30, |given, rfc| given != rfc),
    }
}

/// A lifetime that the RFC fixes: others work, with a warning.
fn rfc_period(
    section: &Section<'_>,
    key: &'static str,
    rfc_number: u32,
    seconds: u64,
    departs: fn(Duration, Duration) -> bool,
) -> Duration {
    let rfc = Duration::from_secs(seconds);
    match section.get(key) {
        Entry::Given(Period(period), place) => {
            if departs(period, rfc) {
                let remedy = "write the RFC's value, unless this is a test";
                section.report.warning(&place, format!("RFC {rfc_number} says {}", period_text(rfc)), remedy);
            }
            period
        }
        Entry::Absent | Entry::Bad => rfc,
    }
}

/// Reads `[peers]`.
pub(super) fn peers(root: &Section<'_>) -> Peers {
    peers_of(&root.section("peers"))
}

/// Reads peer rules.
pub(super) fn peers_of(section: &Section<'_>) -> Peers {
    let allowed = peer_list(section, "allowed-peer-ip");
    let denied = peer_list(section, "denied-peer-ip");
    for (network, place) in &denied {
        if allowed.iter().any(|(other, _)| other == network) {
            let what = format!("{network} is both allowed and denied");
            section.report.error(place, what, "remove it from allowed-peer-ip or from denied-peer-ip");
        }
    }
    for (network, place) in &allowed {
        if let Some(danger) = exposed(network) {
            section.report.warning(
                place,
                format!("opens {danger} to every client"),
                "allow only the addresses you need",
            );
        }
    }
    let networks = |list: Vec<(IpNet, Place)>| list.into_iter().map(|(network, _)| network).collect();
    Peers { allowed: networks(allowed), denied: networks(denied) }
}

fn peer_list(section: &Section<'_>, key: &'static str) -> Vec<(IpNet, Place)> {
    let mut list: Vec<(IpNet, Place)> = Vec::new();
    for (PeerRange(networks), place) in section.list(key).or(Vec::new()) {
        for network in networks {
            if list.iter().any(|(other, _)| *other == network) {
                section.report.warning(&place, format!("{network} is listed twice"), "remove one");
            } else {
                list.push((network, place.clone()));
            }
        }
    }
    list
}

/// What an allowed network exposes that is hardly ever meant.
fn exposed(network: &IpNet) -> Option<&'static str> {
    const DANGERS: [(&str, &str); 3] = [
        ("127.0.0.0/8", "this host's own services"),
        ("::1/128", "this host's own services"),
        ("169.254.169.254/32", "the cloud's metadata service"),
    ];
    let overlaps =
        |other: &str| other.parse::<IpNet>().is_ok_and(|other| other.contains(network) || network.contains(&other));
    DANGERS.into_iter().find(|(other, _)| overlaps(other)).map(|(_, danger)| danger)
}

/// Reads `[tcp]`.
pub(super) fn tcp(root: &Section<'_>) -> Tcp {
    let section = root.section("tcp");
    let max_connections = section.get("max-connections").or(Int::<1, MANY>(10_000)).0;
    let max_connections_per_ip = match section.get::<Int<1, MANY>>("max-connections-per-ip") {
        Entry::Given(Int(per_ip), place) => {
            if per_ip > max_connections {
                let what = format!("is above max-connections ({max_connections})");
                section.report.error(&place, what, "write a smaller one");
            }
            per_ip
        }
        Entry::Absent | Entry::Bad => max_connections.min(1_000),
    };
    Tcp {
        idle_timeout: period(&section, "idle-timeout", 60),
        message_timeout: period(&section, "message-timeout", 10),
        max_connections: max_connections as usize,
        max_connections_per_ip: max_connections_per_ip as usize,
        queue_bytes: section.get("queue-bytes").or(Size::<{ 16 << 10 }, { 1 << 30 }>(256 << 10)).0,
        queue_age: period(&section, "queue-age", 1),
    }
}

/// Reads `[compatibility]`.
pub(super) fn compatibility(root: &Section<'_>) -> Compatibility {
    let section = root.section("compatibility");
    Compatibility {
        rfc3489: section.get("rfc3489").or(false),
        rfc5766_channel_numbers: section.get("rfc5766-channel-numbers").or(false),
    }
}

/// Far below what a jitter buffer notices. With less than some 300 µs the timer costs what fewer wake-ups save.
const GATHER: Duration = Duration::from_millis(1);

/// Reads `[process]`.
pub(super) fn process(root: &Section<'_>, host: &Host) -> Process {
    let section = root.section("process");
    Process {
        workers: section.get("workers").or(Workers(None)).0.unwrap_or(host.processors.clamp(1, MAX_WORKERS as usize)),
        pin_workers: section.get("pin-workers").or(false),
        udp_io: section.get("udp-io").or(UdpIo::Auto),
        listener_buffer: section.get("listener-buffer").or(Buffer(Some(4 << 20))).0,
        gather: section.get("gather").or(Gather(Some(GATHER))).0,
        software_attribute: section.get("software-attribute").or(false),
        fingerprint: section.get("fingerprint").or(false),
        drain_timeout: section.get("drain-timeout").or(PeriodOrOff(None)).0,
        drain_error: section.get("drain-error").or(DrainError::Capacity),
    }
}

/// Reads `[offload]`.
pub(super) fn offload(root: &Section<'_>) -> Offload {
    let section = root.section("offload");
    let mut interfaces: Vec<String> = Vec::new();
    for (InterfaceName(name), place) in section.list("interfaces").or(Vec::new()) {
        if interfaces.contains(&name) {
            section.report.warning(&place, format!("{name} is listed twice"), "remove one");
        } else {
            interfaces.push(name);
        }
    }
    Offload {
        mode: section.get("mode").or(OffloadMode::Off),
        interfaces,
        channels: section.get("channels").or(Int::<1, MOST_OFFLOADED>(16_384)).0,
    }
}

/// Each channel takes some 400 bytes of the kernel's memory, and 32 for each processor.
const MOST_OFFLOADED: u32 = 1 << 20;

/// Reads `[log]`.
pub(super) fn log(root: &Section<'_>) -> Log {
    let section = root.section("log");
    Log {
        level: section.get("level").or(LogLevel("info".to_owned())).0,
        format: section.get("format").or(LogFormat::Text),
    }
}
