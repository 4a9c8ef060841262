//! What is expected of every range: IANA's special-purpose address registries for IPv4 and IPv6, whole, and what else is no ordinary
//! unicast address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use Expected::{Closed, Embedded, Never, Open};

/// What becomes of peers in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// They are served.
    Open,
    /// They are refused unless the operator opens that very range.
    Closed,
    /// They are refused whatever the operator opens.
    Never,
    /// As the IPv4 address in them.
    Embedded,
}

/// A range, what the registry says of "Globally Reachable" (`None`: N/A, or not in a registry), what is expected, and why.
pub(crate) type Row = (&'static str, Option<bool>, Expected, &'static str);

const NOT: Option<bool> = Some(false);
const GLOBAL: Option<bool> = Some(true);

/// The registries, in their order.
pub(crate) const REGISTERED: &[Row] = &[
    // https://www.iana.org/assignments/iana-ipv4-special-registry
    ("0.0.0.0/8", NOT, Never, "this network (RFC 791): no address of anybody; systems take it for themselves"),
    ("0.0.0.0/32", NOT, Never, "this host on this network (RFC 1122): sent to, it is loopback"),
    ("10.0.0.0/8", NOT, Closed, "private use (RFC 1918): the operator's network"),
    ("100.64.0.0/10", NOT, Closed, "shared address space (RFC 6598): the provider's network"),
    ("127.0.0.0/8", NOT, Closed, "loopback (RFC 1122): this host"),
    ("169.254.0.0/16", NOT, Closed, "link local (RFC 3927): metadata services of clouds"),
    ("172.16.0.0/12", NOT, Closed, "private use (RFC 1918)"),
    ("192.0.0.0/24", NOT, Closed, "IETF protocol assignments (RFC 6890)"),
    ("192.0.0.0/29", NOT, Closed, "IPv4 service continuity (RFC 7335): the inside of DS-Lite"),
    ("192.0.0.8/32", NOT, Closed, "IPv4 dummy address (RFC 7600)"),
    ("192.0.0.9/32", GLOBAL, Closed, "PCP anycast (RFC 7723): the next NAT, which takes orders; never a peer"),
    ("192.0.0.10/32", GLOBAL, Closed, "TURN anycast (RFC 8155): the next relay, perhaps this one; never a peer"),
    ("192.0.0.170/32", NOT, Closed, "NAT64/DNS64 discovery (RFC 7050)"),
    ("192.0.0.171/32", NOT, Closed, "NAT64/DNS64 discovery (RFC 7050)"),
    ("192.0.2.0/24", NOT, Closed, "documentation (RFC 5737)"),
    ("192.31.196.0/24", GLOBAL, Open, "AS112-v4 (RFC 7535): public DNS servers, as any host"),
    ("192.52.193.0/24", GLOBAL, Open, "AMT (RFC 7450): public multicast relays, as any host"),
    ("192.88.99.0/24", None, Closed, "6to4 relay anycast (RFC 7526): deprecated; a tunnel's mouth"),
    ("192.88.99.2/32", NOT, Closed, "6a44 relay anycast (RFC 6751): a tunnel's mouth"),
    ("192.168.0.0/16", NOT, Closed, "private use (RFC 1918)"),
    ("192.175.48.0/24", GLOBAL, Open, "direct delegation AS112 (RFC 7534): public DNS servers, as any host"),
    ("198.18.0.0/15", NOT, Closed, "benchmarking (RFC 2544): the operator's laboratory"),
    ("198.51.100.0/24", NOT, Closed, "documentation (RFC 5737)"),
    ("203.0.113.0/24", NOT, Closed, "documentation (RFC 5737)"),
    ("240.0.0.0/4", NOT, Never, "reserved (RFC 1112): no unicast address"),
    ("255.255.255.255/32", NOT, Never, "limited broadcast (RFC 919): everybody on the link"),
    // https://www.iana.org/assignments/iana-ipv6-special-registry
    ("::1/128", NOT, Closed, "loopback (RFC 4291): this host"),
    ("::/128", NOT, Never, "unspecified (RFC 4291): sent to, it is loopback"),
    ("::ffff:0:0/96", NOT, Never, "IPv4-mapped (RFC 4291): a second spelling of IPv4 addresses"),
    ("64:ff9b::/96", GLOBAL, Embedded, "NAT64 (RFC 6052): whatever the translator reaches"),
    ("64:ff9b:1::/48", NOT, Closed, "NAT64 for local use (RFC 8215): whatever a translator of the operator's reaches"),
    ("100::/64", NOT, Closed, "discard only (RFC 6666)"),
    ("100:0:0:1::/64", NOT, Closed, "dummy prefix (RFC 9780)"),
    ("2001::/23", NOT, Closed, "IETF protocol assignments (RFC 2928)"),
    ("2001::/32", None, Never, "Teredo (RFC 4380): a tunnel to the IPv4 address in it (RFC 8656 §21.4)"),
    ("2001:1::1/128", GLOBAL, Closed, "PCP anycast (RFC 7723): the next firewall, which takes orders; never a peer"),
    ("2001:1::2/128", GLOBAL, Closed, "TURN anycast (RFC 8155): the next relay, perhaps this one; never a peer"),
    ("2001:1::3/128", GLOBAL, Closed, "DNS-SD SRP anycast (RFC 9665): the next registrar; never a peer"),
    ("2001:2::/48", NOT, Closed, "benchmarking (RFC 5180)"),
    ("2001:3::/32", GLOBAL, Closed, "AMT (RFC 7450): among protocol assignments; no peer is known to live there"),
    ("2001:4:112::/48", GLOBAL, Closed, "AS112-v6 (RFC 7535): among protocol assignments; no peer lives there"),
    ("2001:10::/28", None, Closed, "ORCHID (RFC 4843): deprecated; identifiers, not addresses"),
    ("2001:20::/28", GLOBAL, Closed, "ORCHIDv2 (RFC 7343): identifiers of an overlay"),
    ("2001:30::/28", GLOBAL, Closed, "drone remote identification (RFC 9374): identifiers of an overlay"),
    ("2001:db8::/32", NOT, Closed, "documentation (RFC 3849)"),
    ("2002::/16", None, Never, "6to4 (RFC 3056): a tunnel to the IPv4 address in it (RFC 8656 §21.4)"),
    ("2620:4f:8000::/48", GLOBAL, Open, "direct delegation AS112 (RFC 7534): public DNS servers, as any host"),
    ("3fff::/20", NOT, Closed, "documentation (RFC 9637)"),
    ("5f00::/16", NOT, Closed, "segment routing (RFC 9602): instructions to routers of the operator's"),
    ("fc00::/7", NOT, Closed, "unique local (RFC 4193): the operator's network"),
    ("fe80::/10", NOT, Closed, "link local (RFC 4291)"),
];

/// Not in the registries, and no ordinary unicast addresses either.
pub(crate) const OTHERS: &[Row] = &[
    ("224.0.0.0/4", None, Never, "multicast (RFC 5771)"),
    ("233.252.0.0/24", None, Never, "multicast for documentation (RFC 6676)"),
    ("::/96", None, Never, "IPv4-compatible (RFC 4291): a second spelling of IPv4 addresses"),
    ("::/8", None, Closed, "reserved (RFC 4291)"),
    ("::ffff:0:0:0/96", None, Never, "IPv4-translated (RFC 2765): a second spelling of IPv4 addresses"),
    ("100::/8", None, Closed, "not assigned (RFC 4291)"),
    ("200::/7", None, Closed, "not assigned; once NSAP (RFC 4048); overlays use it"),
    ("400::/6", None, Closed, "not assigned (RFC 4291)"),
    ("800::/5", None, Closed, "not assigned (RFC 4291)"),
    ("1000::/4", None, Closed, "not assigned (RFC 4291)"),
    ("4000::/3", None, Closed, "not assigned (RFC 4291)"),
    ("6000::/3", None, Closed, "not assigned (RFC 4291)"),
    ("8000::/3", None, Closed, "not assigned (RFC 4291)"),
    ("a000::/3", None, Closed, "not assigned (RFC 4291)"),
    ("c000::/3", None, Closed, "not assigned (RFC 4291)"),
    ("e000::/4", None, Closed, "not assigned (RFC 4291)"),
    ("f000::/5", None, Closed, "not assigned (RFC 4291)"),
    ("f800::/6", None, Closed, "not assigned (RFC 4291)"),
    ("fe00::/9", None, Closed, "not assigned (RFC 4291)"),
    ("fec0::/10", None, Closed, "site local (RFC 3879): deprecated; the operator's network"),
    ("ff00::/8", None, Never, "multicast (RFC 4291)"),
];

/// The neighbours of special ranges, and others: ordinary addresses that must be served.
pub(crate) const ORDINARY: &[&str] = &[
    "1.0.0.0",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::",
    "2001:200::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2003::",
    "2606:4700:4700::1111",
    "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "3fff:1000::",
];

/// All rows.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    REGISTERED.iter().chain(OTHERS)
}

fn net(row: &Row) -> IpNet {
    row.0.parse().unwrap()
}

/// The first address of a row, the last, and one inside.
pub(crate) fn addresses(row: &Row) -> [IpAddr; 3] {
    let net = net(row);
    let inside = match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            IpAddr::from(Ipv4Addr::from_bits(first.to_bits() + (last.to_bits() - first.to_bits()) / 3))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            IpAddr::from(Ipv6Addr::from_bits(first.to_bits() + (last.to_bits() - first.to_bits()) / 3))
        }
        mixed => unreachable!("{mixed:?}"),
    };
    [net.network(), net.broadcast(), inside]
}

/// What is expected of an address, by the longest row that it is in.
pub(crate) fn expected(ip: IpAddr) -> Expected {
    let row = rows().filter(|row| net(row).contains(&ip)).max_by_key(|row| net(row).prefix_len());
    match row.map_or(Open, |row| row.2) {
        Embedded => {
            let IpAddr::V6(ip) = ip else { unreachable!("no IPv4 address has one in it") };
            let [.., a, b, c, d] = ip.octets();
            expected([a, b, c, d].into())
        }
        expected => expected,
    }
}

/// Ways of writing an IPv4 address as an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    Mapped,
    Compatible,
    Translated,
    Nat64,
    /// With a prefix of so many bits (RFC 6052 §2.2).
    Nat64Local(u8),
    SixToFour,
    TeredoServer,
    TeredoClient,
    /// Behind a global prefix, with this first group of the interface identifier.
    Isatap(u16),
    IsatapLinkLocal,
}

impl Spelling {
    pub(crate) const ALL: [Self; 14] = [
        Self::Mapped,
        Self::Compatible,
        Self::Translated,
        Self::Nat64,
        Self::Nat64Local(48),
        Self::Nat64Local(56),
        Self::Nat64Local(64),
        Self::Nat64Local(96),
        Self::SixToFour,
        Self::TeredoServer,
        Self::TeredoClient,
        Self::Isatap(0),
        Self::Isatap(0x200),
        Self::IsatapLinkLocal,
    ];

    pub(crate) fn of(self, ip: Ipv4Addr) -> Ipv6Addr {
        let [a, b, c, d] = ip.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let groups = match self {
            Self::Mapped => [0, 0, 0, 0, 0, 0xffff, high, low],
            Self::Compatible => [0, 0, 0, 0, 0, 0, high, low],
            Self::Translated => [0, 0, 0, 0, 0xffff, 0, high, low],
            Self::Nat64 => [0x64, 0xff9b, 0, 0, 0, 0, high, low],
            // The octet from bit 64 on is always zero.
            Self::Nat64Local(48) => [0x64, 0xff9b, 1, high, low >> 8, low << 8, 0, 0],
            Self::Nat64Local(56) => [0x64, 0xff9b, 1, 0xab00 | high >> 8, high & 0xff, low, 0, 0],
            Self::Nat64Local(64) => [0x64, 0xff9b, 1, 0xabcd, high >> 8, high << 8 | low >> 8, low << 8, 0],
            Self::Nat64Local(_) => [0x64, 0xff9b, 1, 0xabcd, 0, 0, high, low],
            Self::SixToFour => [0x2002, high, low, 0, 0, 0, 0, 1],
            Self::TeredoServer => [0x2001, 0, high, low, 0, 0, !0x0808, !0x0808],
            Self::TeredoClient => [0x2001, 0, 0x0808, 0x0808, 0x8000, !40000, !high, !low],
            Self::Isatap(id) => [0x2a00, 1, 2, 3, id, 0x5efe, high, low],
            Self::IsatapLinkLocal => [0xfe80, 0, 0, 0, 0, 0x5efe, high, low],
        };
        groups.into()
    }

    /// What is expected of an address in this spelling, and why.
    pub(crate) fn expected(self, ip: Ipv4Addr) -> (Expected, &'static str) {
        match self {
            Self::Mapped | Self::Compatible | Self::Translated => (Never, "IPv4 addresses have one spelling"),
            Self::SixToFour | Self::TeredoServer | Self::TeredoClient => (Never, "tunnels (RFC 8656 §21.4)"),
            Self::Nat64 | Self::Isatap(_) => (expected(ip.into()), "as what is embedded"),
            Self::Nat64Local(_) => (Closed, "the operator's translator"),
            Self::IsatapLinkLocal => (Closed, "link local"),
        }
    }
}

#[test]
fn the_table_is_in_order() {
    for row in rows() {
        assert_eq!(net(row), net(row).trunc(), "{row:?}");
        // What is not reachable globally is refused; what is and is refused says why.
        assert!(row.1 != NOT || row.2 != Open, "{row:?}");
        assert!(addresses(row).iter().all(|ip| net(row).contains(ip)), "{row:?}");
        assert!(row.3.len() > 8, "{row:?}");
    }
    assert!(ORDINARY.iter().all(|ip| expected(ip.parse().unwrap()) == Open));
    let ip = Ipv4Addr::new(10, 1, 2, 3);
    let spelt = |spelling: Spelling| spelling.of(ip).to_string();
    // The examples of RFC 6052 §2.4 have 192.0.2.33; these are made as they are.
    assert_eq!(spelt(Spelling::Nat64Local(48)), "64:ff9b:1:a01:2:300::");
    assert_eq!(spelt(Spelling::Nat64Local(56)), "64:ff9b:1:ab0a:1:203::");
    assert_eq!(spelt(Spelling::Nat64Local(64)), "64:ff9b:1:abcd:a:102:300:0");
    assert_eq!(spelt(Spelling::Nat64Local(96)), "64:ff9b:1:abcd::a01:203");
    assert_eq!(spelt(Spelling::TeredoClient), "2001:0:808:808:8000:63bf:f5fe:fdfc");
    assert_eq!(spelt(Spelling::Isatap(0)), "2a00:1:2:3:0:5efe:a01:203");
}
