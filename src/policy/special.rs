//! Address ranges that are not ordinary public unicast: the IANA special-purpose address registries for IPv4 and IPv6
//! (RFC 6890, RFC 8190), multicast, and the IPv6 space that is not assigned at all.
//!
//! Data only; [`super::peer`] judges with it. Left out on purpose are the blocks that the registries call globally
//! reachable and that are ordinary services: AS112 (192.31.196.0/24, 192.175.48.0/24, 2620:4f:8000::/48) and AMT
//! (192.52.193.0/24). Everything inside 192.0.0.0/24 and 2001::/23 is listed, also the few globally reachable
//! assignments there: they are anycast addresses of infrastructure or overlay identifiers, never a peer.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range that is no peer unless the operator opens it, or no peer at all.
#[derive(Debug, PartialEq, Eq)]
pub struct SpecialRange {
    /// The addresses.
    pub net: IpNet,
    /// What the range is for, with its RFC.
    pub name: &'static str,
    /// Refused whatever the operator allows.
    pub always: bool,
}

impl fmt::Display for SpecialRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.net, self.name)
    }
}

/// NAT64 with the well-known prefix (RFC 6052 §2.1): not special in itself, judged by the embedded IPv4 address.
pub(super) const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// NAT64 prefixes for local use (RFC 8215): closed, and judged by the embedded IPv4 address where opened.
pub(super) const NAT64_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48);

/// `::1`, the one address of the IPv4-compatible range that is something else.
pub(super) const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

const fn v4(a: u8, b: u8, c: u8, len: u8, name: &'static str) -> SpecialRange {
    let net = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), len));
    SpecialRange { net, name, always: false }
}

const fn v6(a: u16, b: u16, c: u16, d: u16, len: u8, name: &'static str) -> SpecialRange {
    let net = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), len));
    SpecialRange { net, name, always: false }
}

const fn low_v6(ip: Ipv6Addr, len: u8, name: &'static str) -> SpecialRange {
    SpecialRange { net: IpNet::V6(Ipv6Net::new_assert(ip, len)), name, always: false }
}

const fn always(range: SpecialRange) -> SpecialRange {
    SpecialRange { net: range.net, name: range.name, always: true }
}

/// Every special range of both families, in address order.
///
/// `always` are the tunnel and embedded forms that must never be peers (RFC 8656 §21.4: Teredo, 6to4) or that give an
/// IPv4 address a second spelling, and what is no unicast address at all.
pub static SPECIAL: &[SpecialRange] = &[
    always(v4(0, 0, 0, 8, "this network, RFC 791")),
    v4(10, 0, 0, 8, "private use, RFC 1918"),
    v4(100, 64, 0, 10, "shared address space, RFC 6598"),
    v4(127, 0, 0, 8, "loopback, RFC 1122"),
    v4(169, 254, 0, 16, "link local, RFC 3927"),
    v4(172, 16, 0, 12, "private use, RFC 1918"),
    v4(192, 0, 0, 24, "IETF protocol assignments, RFC 6890"),
    v4(192, 0, 2, 24, "documentation, RFC 5737"),
    v4(192, 88, 99, 24, "6to4 relay anycast, RFC 7526"),
    v4(192, 168, 0, 16, "private use, RFC 1918"),
    v4(198, 18, 0, 15, "benchmarking, RFC 2544"),
    v4(198, 51, 100, 24, "documentation, RFC 5737"),
    v4(203, 0, 113, 24, "documentation, RFC 5737"),
    always(v4(224, 0, 0, 4, "multicast, RFC 5771")),
    always(v4(240, 0, 0, 4, "reserved and limited broadcast, RFC 1112, RFC 8190")),
    v6(0, 0, 0, 0, 8, "reserved by the IETF, RFC 4291"),
    always(low_v6(Ipv6Addr::UNSPECIFIED, 96, "unspecified and IPv4-compatible, RFC 4291")),
    low_v6(Ipv6Addr::LOCALHOST, 128, "loopback, RFC 4291"),
    always(low_v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "IPv4-mapped, RFC 4291")),
    always(low_v6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, "IPv4-translated, RFC 2765")),
    v6(0x64, 0xff9b, 1, 0, 48, "NAT64 for local use, RFC 8215"),
    v6(0x100, 0, 0, 0, 8, "unassigned, RFC 4291"),
    v6(0x100, 0, 0, 0, 64, "discard only, RFC 6666"),
    v6(0x100, 0, 0, 1, 64, "dummy prefix, RFC 9780"),
    v6(0x200, 0, 0, 0, 7, "unassigned, RFC 4048"),
    v6(0x400, 0, 0, 0, 6, "unassigned, RFC 4291"),
    v6(0x800, 0, 0, 0, 5, "unassigned, RFC 4291"),
    v6(0x1000, 0, 0, 0, 4, "unassigned, RFC 4291"),
    v6(0x2001, 0, 0, 0, 23, "IETF protocol assignments, RFC 2928"),
    always(v6(0x2001, 0, 0, 0, 32, "Teredo, RFC 4380")),
    v6(0x2001, 2, 0, 0, 48, "benchmarking, RFC 5180"),
    v6(0x2001, 0x10, 0, 0, 28, "ORCHID, RFC 4843"),
    v6(0x2001, 0x20, 0, 0, 28, "ORCHIDv2, RFC 7343"),
    v6(0x2001, 0x30, 0, 0, 28, "drone remote identification, RFC 9374"),
    v6(0x2001, 0xdb8, 0, 0, 32, "documentation, RFC 3849"),
    always(v6(0x2002, 0, 0, 0, 16, "6to4, RFC 3056")),
    v6(0x3fff, 0, 0, 0, 20, "documentation, RFC 9637"),
    v6(0x4000, 0, 0, 0, 3, "unassigned, RFC 4291"),
    v6(0x5f00, 0, 0, 0, 16, "segment routing identifiers, RFC 9602"),
    v6(0x6000, 0, 0, 0, 3, "unassigned, RFC 4291"),
    v6(0x8000, 0, 0, 0, 3, "unassigned, RFC 4291"),
    v6(0xa000, 0, 0, 0, 3, "unassigned, RFC 4291"),
    v6(0xc000, 0, 0, 0, 3, "unassigned, RFC 4291"),
    v6(0xe000, 0, 0, 0, 4, "unassigned, RFC 4291"),
    v6(0xf000, 0, 0, 0, 5, "unassigned, RFC 4291"),
    v6(0xf800, 0, 0, 0, 6, "unassigned, RFC 4291"),
    v6(0xfc00, 0, 0, 0, 7, "unique local, RFC 4193"),
    v6(0xfe00, 0, 0, 0, 9, "unassigned, RFC 4291"),
    v6(0xfe80, 0, 0, 0, 10, "link local, RFC 4291"),
    v6(0xfec0, 0, 0, 0, 10, "site local, RFC 3879"),
    always(v6(0xff00, 0, 0, 0, 8, "multicast, RFC 4291")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_no_host_bits_and_are_listed_once_in_order() {
        for range in SPECIAL {
            assert_eq!(range.net, range.net.trunc(), "{range}");
        }
        assert!(SPECIAL.is_sorted_by_key(|range| range.net.addr()));
        let mut nets: Vec<_> = SPECIAL.iter().map(|range| range.net).collect();
        nets.sort_unstable();
        nets.dedup();
        assert_eq!(nets.len(), SPECIAL.len());
    }

    #[test]
    fn outside_2000_3_every_ipv6_address_is_special() {
        for first in 0..=0xffffu16 {
            let ip = IpAddr::V6(Ipv6Addr::new(first, 0xabcd, 0, 0, 0, 0, 0, 1));
            let special = SPECIAL.iter().any(|range| range.net.contains(&ip));
            assert!(special || (0x2000..0x4000).contains(&first), "{ip}");
        }
    }
}
