//! `[limits]`: how much an allocation, a user, a tenant, a realm, and all together may take.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    reader::{Entry, Section},
    settings::{HolderLimits, Limits, Realm, RealmLimits},
    value::{BitRate, Int, Period, Text, Volume, bit_rate_text, period_text, volume_text},
};

/// Largest number taken for a quota or a rate.
const MANY: u32 = 1_000_000_000;

/// Channel numbers that RFC 8656 §12 allows: 0x4000–0x4FFF; RFC 5766 allowed 0x4000–0x7FFF.
const MOST_CHANNELS: u32 = 0x4000;

/// The keys of one holder's limits.
#[derive(Debug)]
pub struct HolderKeys {
    /// Allocations; not of an allocation.
    pub allocations: &'static str,
    /// Allocations that are not used; not of an allocation.
    pub unused: &'static str,
    /// Bandwidth.
    pub bits_per_second: &'static str,
    /// Datagrams.
    pub packets_per_second: &'static str,
    /// Peers.
    pub new_peers_per_second: &'static str,
    /// Bytes per month; not of an allocation.
    pub bytes_per_month: &'static str,
}

/// Of an allocation.
pub const ALLOCATION_KEYS: HolderKeys = HolderKeys {
    allocations: "",
    unused: "",
    bits_per_second: "max-bps",
    packets_per_second: "max-pps",
    new_peers_per_second: "new-peer-rate",
    bytes_per_month: "",
};
/// Of a user.
pub const USER_KEYS: HolderKeys = HolderKeys {
    allocations: "user-quota",
    unused: "user-unused-quota",
    bits_per_second: "user-max-bps",
    packets_per_second: "user-max-pps",
    new_peers_per_second: "user-new-peer-rate",
    bytes_per_month: "user-bytes-per-month",
};
/// Of a tenant.
pub const TENANT_KEYS: HolderKeys = HolderKeys {
    allocations: "tenant-quota",
    unused: "tenant-unused-quota",
    bits_per_second: "tenant-max-bps",
    packets_per_second: "tenant-max-pps",
    new_peers_per_second: "tenant-new-peer-rate",
    bytes_per_month: "tenant-bytes-per-month",
};
/// Of a realm.
pub const REALM_KEYS: HolderKeys = HolderKeys {
    allocations: "realm-quota",
    unused: "realm-unused-quota",
    bits_per_second: "realm-max-bps",
    packets_per_second: "realm-max-pps",
    new_peers_per_second: "realm-new-peer-rate",
    bytes_per_month: "realm-bytes-per-month",
};
/// Of all together.
pub const TOTAL_KEYS: HolderKeys = HolderKeys {
    allocations: "total-quota",
    unused: "total-unused-quota",
    bits_per_second: "bps-capacity",
    packets_per_second: "pps-capacity",
    new_peers_per_second: "total-new-peer-rate",
    bytes_per_month: "total-bytes-per-month",
};

fn unlimited_at_zero(entry: Entry<Int<0, MANY>>, default: Option<u32>) -> Option<u32> {
    match entry {
        Entry::Given(Int(number), _) => (number != 0).then_some(number),
        Entry::Absent | Entry::Bad => default,
    }
}

/// Reads `[limits]`, but for what depends on the realms' own ([`state_directory`]).
pub(super) fn limits(section: &Section<'_>) -> Limits {
    let total = holder(section, &TOTAL_KEYS, &HolderLimits::default());
    let realm = realm(section, &RealmLimits::default(), &total);
    Limits {
        total,
        realm,
        burst: burst(section),
        allocation_rate: unlimited_at_zero(section.get("allocation-rate"), None),
        state_directory: None,
        permissions_per_allocation: section.get("permissions-per-allocation").or(Int::<1, MANY>(1_000)).0 as usize,
        channels_per_allocation: section.get("channels-per-allocation").or(Int::<1, MOST_CHANNELS>(1_000)).0 as usize,
        connections_per_allocation: section.get("connections-per-allocation").or(Int::<1, 10_000>(100)).0 as usize,
        unauthorized_rate: unlimited_at_zero(section.get("unauthorized-rate"), Some(100)),
        binding_rate: unlimited_at_zero(section.get("binding-rate"), Some(200)),
        // The bounds fit.
        ipv4_prefix: section.get("source-prefix-ipv4").or(Int::<1, 32>(32)).0 as u8,
        ipv6_prefix: section.get("source-prefix-ipv6").or(Int::<1, 128>(56)).0 as u8,
    }
}

/// Reads what a realm may have of its own: everything but what is of all realms together (`total`) and of the server. What is not
/// there is as in `others`.
pub(super) fn realm(section: &Section<'_>, others: &RealmLimits, total: &HolderLimits) -> RealmLimits {
    let limits = RealmLimits {
        realm: holder(section, &REALM_KEYS, &others.realm),
        tenant: holder(section, &TENANT_KEYS, &others.tenant),
        user: holder(section, &USER_KEYS, &others.user),
        allocation: holder(section, &ALLOCATION_KEYS, &others.allocation),
    };
    for (limits, keys) in [(&limits.user, &USER_KEYS), (&limits.tenant, &TENANT_KEYS), (&limits.realm, &REALM_KEYS)] {
        warn_if_never_reached(section, (limits, keys), (total, &TOTAL_KEYS));
    }
    warn_if_never_reached(section, (&limits.allocation, &ALLOCATION_KEYS), (&limits.user, &USER_KEYS));
    limits
}

fn holder(section: &Section<'_>, keys: &HolderKeys, others: &HolderLimits) -> HolderLimits {
    let number = |key: &'static str, other| match key {
        "" => None,
        key => unlimited_at_zero(section.get(key), other),
    };
    HolderLimits {
        allocations: number(keys.allocations, others.allocations),
        unused: number(keys.unused, others.unused),
        bits_per_second: section.get(keys.bits_per_second).or(BitRate(others.bits_per_second)).0,
        packets_per_second: number(keys.packets_per_second, others.packets_per_second),
        new_peers_per_second: number(keys.new_peers_per_second, others.new_peers_per_second),
        bytes_per_month: match keys.bytes_per_month {
            "" => None,
            key => section.get(key).or(Volume(others.bytes_per_month)).0,
        },
    }
}

/// Warns of limits that are above those of the holder that contains this one.
fn warn_if_never_reached(
    section: &Section<'_>,
    (inner, inner_keys): (&HolderLimits, &HolderKeys),
    (outer, outer_keys): (&HolderLimits, &HolderKeys),
) {
    let all = |limits: &HolderLimits, keys: &HolderKeys| {
        [
            (limits.allocations.map(u64::from), keys.allocations),
            (limits.unused.map(u64::from), keys.unused),
            (limits.bits_per_second, keys.bits_per_second),
            (limits.packets_per_second.map(u64::from), keys.packets_per_second),
            (limits.new_peers_per_second.map(u64::from), keys.new_peers_per_second),
            (limits.bytes_per_month, keys.bytes_per_month),
        ]
    };
    for ((inner, key), (outer, outer_key)) in all(inner, inner_keys).into_iter().zip(all(outer, outer_keys)) {
        if let (Some(inner), Some(outer)) = (inner, outer)
            && inner > outer
        {
            let what = match key {
                key if key.ends_with("quota") => format!("is above {outer_key} ({outer}) and never reached"),
                _ => format!("is above {outer_key} and never reached"),
            };
            section.report.warning(&section.place_at(key), what, "write a smaller one");
        }
    }
}

/// Streams wait for 10 ms at least when there is nothing left; a bucket must not flow over meanwhile.
const SHORTEST_BURST: Duration = Duration::from_millis(50);
/// Longer ones would be no limit of a rate any more.
const LONGEST_BURST: Duration = Duration::from_secs(60);

fn burst(section: &Section<'_>) -> Duration {
    match section.get("burst") {
        Entry::Given(Period(burst), place) => {
            if !(SHORTEST_BURST..=LONGEST_BURST).contains(&burst) {
                let [shortest, longest] = [SHORTEST_BURST, LONGEST_BURST].map(period_text);
                let remedy = format!("write a duration from \"{shortest}\" to \"{longest}\"");
                section.report.error(&place, "is out of range", remedy);
            }
            burst
        }
        Entry::Absent | Entry::Bad => Duration::from_millis(200),
    }
}

/// Where counts are kept. Bytes of a month that a restart forgets would be no limit. A relative path is one in `base`.
pub(super) fn state_directory(
    section: &Section<'_>,
    base: &Path,
    limits: &Limits,
    realms: &[Realm],
) -> Option<PathBuf> {
    let of_realm =
        |limits: &RealmLimits| [(limits.realm, &REALM_KEYS), (limits.tenant, &TENANT_KEYS), (limits.user, &USER_KEYS)];
    let counted = [(limits.total, &TOTAL_KEYS)]
        .into_iter()
        .chain(of_realm(&limits.realm))
        .chain(realms.iter().filter_map(|realm| realm.limits.as_ref()).flat_map(of_realm))
        .find(|(limits, _)| limits.bytes_per_month.is_some());
    match (section.get::<Text>("state-directory"), counted) {
        (Entry::Given(Text(path), _), Some(_)) => Some(base.join(path)),
        (Entry::Given(_, place), None) => {
            let what = "is not used: no bytes per month are limited";
            section.report.warning(&place, what, "remove it, or limit the bytes per month");
            None
        }
        (Entry::Absent, Some((_, keys))) => {
            let remedy =
                "write state-directory = \"/var/lib/turnserver\", or another folder that the server may write to";
            let what = "needs state-directory, where the count outlives a restart";
            section.report.error(&section.place_at(keys.bytes_per_month), what, remedy);
            None
        }
        (Entry::Absent | Entry::Bad, _) => None,
    }
}

/// Prints `[limits]` as it is read, without the header.
pub(super) fn render(f: &mut impl fmt::Write, limits: &Limits) -> fmt::Result {
    realm_lines(f, &limits.realm)?;
    holder_lines(f, &limits.total, &TOTAL_KEYS)?;
    writeln!(f, "allocation-rate = {}", limits.allocation_rate.unwrap_or(0))?;
    writeln!(f, "burst = \"{}\"", period_text(limits.burst))?;
    if let Some(directory) = &limits.state_directory {
        writeln!(f, "state-directory = {}", toml::Value::String(directory.display().to_string()))?;
    }
    writeln!(f, "permissions-per-allocation = {}", limits.permissions_per_allocation)?;
    writeln!(f, "channels-per-allocation = {}", limits.channels_per_allocation)?;
    writeln!(f, "connections-per-allocation = {}", limits.connections_per_allocation)?;
    writeln!(f, "unauthorized-rate = {}", limits.unauthorized_rate.unwrap_or(0))?;
    writeln!(f, "binding-rate = {}", limits.binding_rate.unwrap_or(0))?;
    writeln!(f, "source-prefix-ipv4 = {}", limits.ipv4_prefix)?;
    writeln!(f, "source-prefix-ipv6 = {}", limits.ipv6_prefix)
}

/// Prints what [`realm`] reads.
pub(super) fn realm_lines(f: &mut impl fmt::Write, limits: &RealmLimits) -> fmt::Result {
    holder_lines(f, &limits.allocation, &ALLOCATION_KEYS)?;
    holder_lines(f, &limits.user, &USER_KEYS)?;
    holder_lines(f, &limits.tenant, &TENANT_KEYS)?;
    holder_lines(f, &limits.realm, &REALM_KEYS)
}

fn holder_lines(f: &mut impl fmt::Write, limits: &HolderLimits, keys: &HolderKeys) -> fmt::Result {
    let mut number = |key: &str, value: Option<u32>| match key {
        "" => Ok(()),
        key => writeln!(f, "{key} = {}", value.unwrap_or(0)),
    };
    number(keys.allocations, limits.allocations)?;
    number(keys.unused, limits.unused)?;
    number(keys.packets_per_second, limits.packets_per_second)?;
    number(keys.new_peers_per_second, limits.new_peers_per_second)?;
    writeln!(f, "{} = {}", keys.bits_per_second, limits.bits_per_second.map_or("0".into(), bit_rate_text))?;
    if keys.bytes_per_month.is_empty() {
        return Ok(());
    }
    writeln!(f, "{} = {}", keys.bytes_per_month, limits.bytes_per_month.map_or("0".into(), volume_text))
}
