//! Peer rules: tables of every special range in every encoding, and a bit-by-bit reference.

use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peers(allowed: &[&str], denied: &[&str]) -> Peers {
    Peers {
        allowed: allowed.iter().map(|text| net(text)).collect(),
        denied: denied.iter().map(|text| net(text)).collect(),
    }
}

fn ranges_only(allowed: &[&str], denied: &[&str]) -> PeerRules {
    PeerRules::new(&peers(allowed, denied), &[], 49152..=65535, &[], &[])
}

fn permits(rules: &PeerRules, text: &str) -> bool {
    let ip = ip(text);
    let with_port = rules.permits(SocketAddr::new(ip, 1000)).is_ok();
    assert_eq!(with_port, rules.permits_ip(ip).is_ok(), "{ip}");
    with_port
}

/// Every range that a public relay must not reach, with its first and last address, written out by hand from the
/// IANA registries, independently of `SPECIAL`.
const IPV4_RANGES: &[(&str, &str, bool)] = &[
    ("0.0.0.0", "0.255.255.255", true),
    ("10.0.0.0", "10.255.255.255", false),
    ("100.64.0.0", "100.127.255.255", false),
    ("127.0.0.0", "127.255.255.255", false),
    ("169.254.0.0", "169.254.255.255", false),
    ("172.16.0.0", "172.31.255.255", false),
    ("192.0.0.0", "192.0.0.255", false),
    ("192.0.2.0", "192.0.2.255", false),
    ("192.88.99.0", "192.88.99.255", false),
    ("192.168.0.0", "192.168.255.255", false),
    ("198.18.0.0", "198.19.255.255", false),
    ("198.51.100.0", "198.51.100.255", false),
    ("203.0.113.0", "203.0.113.255", false),
    ("224.0.0.0", "239.255.255.255", true),
    ("240.0.0.0", "255.255.255.255", true),
];

const IPV6_RANGES: &[(&str, &str, bool)] = &[
    ("::", "::", true),
    ("::1", "::1", false),
    ("::2", "::ffff:ffff", true),
    ("::ffff:0:0", "::ffff:ffff:ffff", true),
    ("::ffff:0:0:0", "::ffff:0:ffff:ffff", true),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", false),
    ("100::", "100::ffff:ffff:ffff:ffff", false),
    ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", false),
    ("200::", "3ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("1000::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", true),
    ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", false),
    ("2001:10::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
];

const GLOBAL: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:db7::1",
    "2001:db9::1",
    "2003::1",
    "2620:4f:8000::1",
    "3fff:1000::1",
    "64:ff9b::8.8.8.8",
];

/// Every IPv6 spelling of an IPv4 address.
fn spellings(ip: Ipv4Addr) -> [IpAddr; 7] {
    let [a, b, c, d] = ip.octets();
    let high = u16::from_be_bytes([a, b]);
    let low = u16::from_be_bytes([c, d]);
    [
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
    ]
    .map(IpAddr::V6)
}

#[test]
fn h08_h21_every_special_range_is_refused_in_every_encoding() {
    let rules = ranges_only(&[], &[]);
    for (first, last, _) in IPV4_RANGES.iter().chain(IPV6_RANGES) {
        assert!(!permits(&rules, first), "{first}");
        assert!(!permits(&rules, last), "{last}");
        for edge in [first, last] {
            if let IpAddr::V4(edge) = ip(edge) {
                for spelling in spellings(edge) {
                    assert!(!permits(&rules, &spelling.to_string()), "{edge} as {spelling}");
                }
            }
        }
    }
}

#[test]
fn global_addresses_are_peers_in_their_plain_spelling() {
    let rules = ranges_only(&[], &[]);
    for text in GLOBAL {
        assert!(permits(&rules, text), "{text}");
    }
    let others = spellings(Ipv4Addr::new(8, 8, 8, 8));
    let permitted: Vec<_> = others.iter().filter(|ip| permits(&rules, &ip.to_string())).collect();
    assert_eq!(permitted, [&ip("64:ff9b::808:808")]);
}

#[test]
fn no_default_route_opens_a_special_range_and_its_own_prefix_does() {
    let all = ranges_only(&["0.0.0.0/0", "::/0"], &[]);
    for (first, last, _) in IPV4_RANGES.iter().chain(IPV6_RANGES) {
        assert!(!permits(&all, first) && !permits(&all, last), "{first}-{last}");
    }
    for range in SPECIAL {
        let text = range.net.to_string();
        let rules = ranges_only(&[&text], &[]);
        let last = range.net.broadcast();
        // The last address of a range may lie in a smaller one, or need an IPv4 address inside.
        let inner = SPECIAL.iter().any(|other| other.net != range.net && range.net.contains(&other.net.network()));
        if !inner && range.net != IpNet::V6(NAT64_LOCAL) {
            assert_eq!(permits(&rules, &last.to_string()), !range.always, "{range}");
        }
    }
}

#[test]
fn rfc8656_21_4_and_other_fixed_refusals_hold_whatever_is_allowed() {
    for (first, last, always) in IPV4_RANGES.iter().chain(IPV6_RANGES) {
        for text in [first, last] {
            let exact = IpNet::from(ip(text)).to_string();
            let rules = ranges_only(&[&exact], &[]);
            if *always {
                assert!(!permits(&rules, text), "{text}");
            } else if !text.starts_with("64:") {
                assert!(permits(&rules, text), "{text}");
            }
        }
    }
}

#[test]
fn the_longest_prefix_decides_and_denied_wins_a_tie() {
    let rules =
        ranges_only(&["10.0.0.0/8", "10.1.2.0/24", "192.0.2.0/24"], &["10.1.0.0/16", "192.0.2.0/24", "8.0.0.0/8"]);
    assert!(permits(&rules, "10.0.0.1"));
    assert!(!permits(&rules, "10.1.0.1"));
    assert!(permits(&rules, "10.1.2.3"));
    assert!(!permits(&rules, "192.0.2.1"));
    assert!(!permits(&rules, "8.8.8.8"));
    assert!(permits(&rules, "9.9.9.9"));
    assert_eq!(rules.permits_ip(ip("10.1.0.1")), Err(Denied::Operator(net("10.1.0.0/16"))));
    let closed = ranges_only(&["2001:4860::/32"], &["0.0.0.0/0", "::/0"]);
    assert!(!permits(&closed, "8.8.8.8") && !permits(&closed, "2a00::1") && !permits(&closed, "64:ff9b::8.8.8.8"));
    assert!(permits(&closed, "2001:4860::8888"));
    // Host bits in a rule mean its network.
    assert!(permits(&ranges_only(&["10.9.9.9/8"], &[]), "10.1.1.1"));
}

#[test]
fn nat64_is_judged_by_the_embedded_address() {
    let rules = ranges_only(&["10.0.0.0/8", "64:ff9b::/96"], &["9.0.0.0/8"]);
    assert!(permits(&rules, "64:ff9b::10.1.1.1"));
    assert_eq!(rules.permits_ip(ip("64:ff9b::9.9.9.9")), Err(Denied::Embedded(Ipv4Addr::new(9, 9, 9, 9))));
    assert!(!permits(&rules, "64:ff9b::192.168.0.1"));
    assert!(!permits(&ranges_only(&[], &["64:ff9b::/96"]), "64:ff9b::8.8.8.8"));

    // The local-use range: closed, and where opened still judged, at the place that the prefix length gives.
    assert!(!permits(&ranges_only(&["64:ff9b::/32", "::/0"], &[]), "64:ff9b:1::8.8.8.8"));
    for (prefix, public, private) in [
        ("64:ff9b:1::/48", "64:ff9b:1:808:8:800::", "64:ff9b:1:a01:1:100::"),
        ("64:ff9b:1:ab00::/56", "64:ff9b:1:ab08:8:808::", "64:ff9b:1:ab0a:1:101::"),
        ("64:ff9b:1:abcd::/64", "64:ff9b:1:abcd:8:808:800:0", "64:ff9b:1:abcd:a:101:100:0"),
        ("64:ff9b:1:abcd::/96", "64:ff9b:1:abcd::8.8.8.8", "64:ff9b:1:abcd::10.1.1.1"),
        ("64:ff9b:1::808:808/128", "64:ff9b:1::8.8.8.8", "64:ff9b:1::10.1.1.1"),
    ] {
        let rules = ranges_only(&[prefix], &[]);
        assert!(permits(&rules, public), "{public} in {prefix}");
        assert!(!permits(&rules, private), "{private} in {prefix}");
    }
    let rules = ranges_only(&["64:ff9b:1::/48"], &[]);
    // A /96 translator behind a /48 rule would be asked for 10.1.1.1; the suffix gives it away.
    assert_eq!(rules.permits_ip(ip("64:ff9b:1:808:8:800:a01:101")), Err(Denied::NothingEmbedded));
}

fn relay(local: &str, external: &str) -> RelayAddress {
    RelayAddress { local: ip(local), external: ip(external) }
}

fn at(rules: &PeerRules, peer: &str) -> Result<(), Denied> {
    rules.permits(peer.parse().unwrap())
}

#[test]
fn h22_relay_ports_of_own_relay_addresses_are_peers_even_private_ones() {
    let relays = [relay("10.0.0.5", "198.51.100.7"), relay("fd00::5", "fd00::5"), relay("127.0.0.1", "127.0.0.1")];
    let own = ["10.0.0.5:3478", "10.0.0.5:50000", "[fd00::5]:3478"].map(|text| text.parse().unwrap());
    // A range denied by the operator does not break calls on this server, only the address itself does.
    for denied in [&[][..], &["10.0.0.0/8", "198.51.100.0/24", "fd00::/8", "127.0.0.0/8"]] {
        let rules = PeerRules::new(&peers(&[], denied), &relays, 49152..=65535, &own, &[]);
        for address in ["10.0.0.5", "198.51.100.7", "[fd00::5]", "127.0.0.1"] {
            assert_eq!(at(&rules, &format!("{address}:49152")), Ok(()), "{address}");
            assert_eq!(at(&rules, &format!("{address}:65535")), Ok(()), "{address}");
            assert_eq!(at(&rules, &format!("{address}:49151")), Err(Denied::OwnAddress), "{address}");
            assert_eq!(at(&rules, &format!("{address}:22")), Err(Denied::OwnAddress), "{address}");
            assert_eq!(rules.permits_ip(ip(address.trim_matches(['[', ']']))), Ok(()), "{address}");
        }
        // Own sockets, also as seen from outside and within the relay range.
        for peer in ["10.0.0.5:3478", "198.51.100.7:3478", "10.0.0.5:50000", "198.51.100.7:50000", "[fd00::5]:3478"] {
            assert_eq!(at(&rules, peer), Err(Denied::OwnSocket), "{peer}");
        }
        // The neighbours stay closed, and so do other spellings of the relay address.
        for peer in ["10.0.0.4:50001", "10.0.0.6:50001", "[::ffff:10.0.0.5]:50001", "[64:ff9b::10.0.0.5]:50001"] {
            assert!(at(&rules, peer).is_err(), "{peer}");
        }
    }
    let rules = PeerRules::new(&peers(&[], &["10.0.0.5/32"]), &relays, 49152..=65535, &own, &[]);
    assert_eq!(at(&rules, "10.0.0.5:50001"), Err(Denied::Operator(net("10.0.0.5/32"))));
    assert_eq!(rules.permits_ip(ip("10.0.0.5")), Err(Denied::Operator(net("10.0.0.5/32"))));
    let rules = PeerRules::new(&peers(&["10.0.0.5/32"], &[]), &relays, 49152..=65535, &own, &[]);
    assert_eq!(at(&rules, "10.0.0.5:22"), Ok(()));
    assert_eq!(at(&rules, "10.0.0.5:3478"), Err(Denied::OwnSocket));
}

#[test]
fn what_is_a_peer_as_a_relay_alone_is_told_apart() {
    let relays = [relay("10.0.0.5", "198.51.100.7")];
    let at_most = |allowed: &[&str], peer: &str| {
        PeerRules::new(&peers(allowed, &[]), &relays, 49152..=65535, &[], &[]).is_relay_at_most(peer.parse().unwrap())
    };
    assert!(at_most(&[], "10.0.0.5:50000") && at_most(&[], "198.51.100.7:50000"));
    assert!(at_most(&["10.0.0.0/8"], "10.0.0.5:50000"));
    assert!(!at_most(&["10.0.0.5/32"], "10.0.0.5:50000") && !at_most(&[], "8.8.8.8:50000"));
}

#[test]
fn h09_a_public_relay_behind_nat64_is_not_reached_through_the_translator() {
    let relays = [relay("8.8.8.8", "8.8.8.8")];
    let rules = PeerRules::new(&peers(&[], &[]), &relays, 49152..=65535, &["8.8.8.8:3478".parse().unwrap()], &[]);
    assert_eq!(at(&rules, "[64:ff9b::8.8.8.8]:3478"), Err(Denied::Embedded(Ipv4Addr::new(8, 8, 8, 8))));
    assert_eq!(at(&rules, "[64:ff9b::8.8.8.8]:50000"), Err(Denied::Embedded(Ipv4Addr::new(8, 8, 8, 8))));
    assert_eq!(at(&rules, "[64:ff9b::8.8.8.9]:3478"), Ok(()));
}

#[test]
fn an_isatap_address_is_no_way_to_an_ipv4_address_that_is_refused() {
    let rules = |allowed: &[&str]| ranges_only(allowed, &["9.9.9.0/24"]);
    for inner in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "9.9.9.9"] {
        for id in ["0:5efe", "200:5efe"] {
            let denied = Err(Denied::Isatap(inner.parse().unwrap()));
            assert_eq!(at(&rules(&[]), &format!("[2a00:1:2:3:{id}:{inner}]:9")), denied, "{id} {inner}");
            assert_eq!(rules(&["::/0"]).permits_ip(ip(&format!("2a00:1:2:3:{id}:{inner}"))), denied, "{id} {inner}");
        }
    }
    assert_eq!(at(&rules(&[]), "[2a00:1:2:3:0:5efe:8.8.8.8]:9"), Ok(()));
    assert_eq!(at(&rules(&[]), "[2a00:1:2:3:100:5efe:10.0.0.1]:9"), Ok(()), "no ISATAP");
    assert_eq!(at(&rules(&["10.0.0.0/8"]), "[2a00:1:2:3:0:5efe:10.0.0.1]:9"), Ok(()));
}

#[test]
fn h08_this_host_is_no_peer_unless_its_very_address_is_opened() {
    let hosts = ["9.9.9.9", "10.0.0.9", "2a00::9", "127.0.0.1", "::1"].map(ip);
    let own = ["0.0.0.0:3478", "[::]:3478", "127.0.0.1:9641"].map(|text| text.parse().unwrap());
    let make = |allowed: &[&str]| PeerRules::new(&peers(allowed, &[]), &[], 49152..=65535, &own, &hosts);
    for allowed in [&[][..], &["0.0.0.0/0", "::/0", "10.0.0.0/8", "9.9.9.0/24"]] {
        let rules = make(allowed);
        for host in ["9.9.9.9", "10.0.0.9", "[2a00::9]", "127.0.0.1", "[::1]"] {
            assert_eq!(at(&rules, &format!("{host}:3478")), Err(Denied::OwnSocket), "{host}");
            assert_eq!(at(&rules, &format!("{host}:50000")), Err(Denied::OwnAddress), "{host}");
            assert_eq!(rules.permits_ip(ip(host.trim_matches(['[', ']']))), Err(Denied::OwnAddress), "{host}");
        }
    }
    let rules = make(&["9.9.9.9/32", "2a00::9/128", "127.0.0.0/8", "::1/128"]);
    for host in ["9.9.9.9", "[2a00::9]", "127.0.0.1", "127.0.0.2", "[::1]"] {
        assert_eq!(at(&rules, &format!("{host}:8000")), Ok(()), "{host}");
        // A socket on an unspecified address is on all of loopback, too.
        assert_eq!(at(&rules, &format!("{host}:3478")), Err(Denied::OwnSocket), "{host}");
    }
    assert_eq!(at(&rules, "127.0.0.1:9641"), Err(Denied::OwnSocket));
    assert_eq!(at(&rules, "127.0.0.2:9641"), Ok(()));
    assert_eq!(at(&rules, "10.0.0.9:8000"), Err(Denied::OwnAddress));
}

#[test]
fn an_unspecified_listener_covers_relay_addresses_and_ipv6_any_covers_ipv4() {
    let relays = [relay("10.0.0.5", "198.51.100.7"), relay("2a00::5", "2a00::5")];
    for (own, covered, free) in [
        ("0.0.0.0:50000", &["10.0.0.5:50000", "198.51.100.7:50000"][..], &["[2a00::5]:50000"][..]),
        ("[::]:50000", &["10.0.0.5:50000", "198.51.100.7:50000", "[2a00::5]:50000"], &[]),
    ] {
        let rules = PeerRules::new(&peers(&[], &[]), &relays, 49152..=65535, &[own.parse().unwrap()], &[]);
        for peer in covered {
            assert_eq!(at(&rules, peer), Err(Denied::OwnSocket), "{peer}");
        }
        for peer in free {
            assert_eq!(at(&rules, peer), Ok(()), "{peer}");
        }
    }
}

#[test]
fn a_tunnel_address_is_no_peer_even_as_a_relay_address() {
    let rules = PeerRules::new(&peers(&[], &[]), &[relay("2002::5", "2002::5")], 49152..=65535, &[], &[]);
    assert!(at(&rules, "[2002::5]:50000").is_err());
}

#[test]
fn a_refusal_names_its_rule() {
    let rules = ranges_only(&[], &["8.8.0.0/16"]);
    let reason = |text: &str| rules.permits_ip(ip(text)).unwrap_err().to_string();
    assert_eq!(reason("10.1.2.3"), "in 10.0.0.0/8 (private use, RFC 1918)");
    assert_eq!(reason("2001::1"), "in 2001::/32 (Teredo, RFC 4380)");
    assert_eq!(reason("::ffff:8.8.8.8"), "in ::ffff:0.0.0.0/96 (IPv4-mapped, RFC 4291)");
    assert_eq!(reason("8.8.8.8"), "in 8.8.0.0/16 (denied-peer-ip)");
    assert_eq!(reason("64:ff9b::10.0.0.1"), "NAT64 for 10.0.0.1, which is refused");
    assert!(size_of::<Denied>() <= 24);
}

/// Whether the first `len` bits of both addresses are the same, one bit after the other.
fn same_bits(a: IpAddr, b: IpAddr, len: u8) -> bool {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => Ipv4Addr::octets(&ip).to_vec(),
        IpAddr::V6(ip) => Ipv6Addr::octets(&ip).to_vec(),
    };
    let (a, b) = (octets(a), octets(b));
    let bit = |octets: &[u8], n: usize| octets[n / 8] >> (7 - n % 8) & 1;
    a.len() == b.len() && (0..usize::from(len)).all(|n| bit(&a, n) == bit(&b, n))
}

fn between(ip: IpAddr, ranges: &[(&str, &str, bool)], only_always: bool) -> bool {
    ranges.iter().any(|(first, last, always)| {
        (*always || !only_always) && (first.parse::<IpAddr>().unwrap()..=last.parse().unwrap()).contains(&ip)
    })
}

/// Rules 1, 4, 5 (well-known prefix) and 6 without any cleverness.
fn reference(ip: IpAddr, peers: &Peers) -> bool {
    if between(ip, if ip.is_ipv4() { IPV4_RANGES } else { IPV6_RANGES }, true) {
        return false;
    }
    let matches =
        |nets: &[IpNet], len| nets.iter().any(|net| net.prefix_len() == len && same_bits(net.addr(), ip, len));
    let nat64 = same_bits(ip, "64:ff9b::".parse().unwrap(), 96);
    let special: Vec<_> = SPECIAL.iter().map(|range| range.net).collect();
    let mut permitted = true;
    for len in (0..=if ip.is_ipv4() { 32 } else { 128 }).rev() {
        if matches(&peers.denied, len) {
            return false;
        }
        if matches(&peers.allowed, len) {
            break;
        }
        if !nat64 && matches(&special, len) {
            permitted = false;
            break;
        }
    }
    if let IpAddr::V6(ip) = ip
        && nat64
    {
        let [.., a, b, c, d] = ip.octets();
        // Loopback is this host, which is no peer behind a translator.
        return a != 127 && reference(IpAddr::from([a, b, c, d]), peers);
    }
    permitted
}

/// Addresses near the borders of ranges, and any others.
fn address() -> impl Strategy<Value = IpAddr> {
    let near =
        (0..SPECIAL.len(), any::<bool>(), -2i8..3, any::<u128>(), 0u32..128).prop_map(|(n, last, by, noise, keep)| {
            let net = SPECIAL[n].net;
            let edge = if last { net.broadcast() } else { net.network() };
            match edge {
                IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().wrapping_add_signed(by.into()).into()),
                IpAddr::V6(ip) => {
                    let noise = if by == 0 { noise & u128::MAX.unbounded_shr(keep) } else { 0 };
                    IpAddr::V6((ip.to_bits().wrapping_add_signed(by.into()) ^ noise).into())
                }
            }
        });
    let nat64 = any::<u32>().prop_map(|inner| IpAddr::V6((0x64_ff9b_u128 << 96 | u128::from(inner)).into()));
    prop_oneof![4 => near, 1 => any::<IpAddr>(), 1 => nat64]
}

/// Prefixes of such addresses; not in the local-use NAT64 range, which has its own test.
fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128)
        .prop_map(|(ip, len)| IpNet::new(ip, if ip.is_ipv4() { len % 33 } else { len }).unwrap())
        .prop_filter("NAT64 for local use", |net| {
            !IpNet::V6(NAT64_LOCAL).contains(&net.addr()) || net.prefix_len() < 48
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn segments_decide_as_the_reference_does(
        allowed in proptest::collection::vec(prefix(), 0..6),
        denied in proptest::collection::vec(prefix(), 0..4),
        addresses in proptest::collection::vec(address(), 40),
    ) {
        let peers = Peers { allowed, denied };
        let rules = PeerRules::new(&peers, &[], 49152..=65535, &[], &[]);
        let edges = peers.allowed.iter().chain(&peers.denied).flat_map(|net| [net.network(), net.broadcast(), net.addr()]);
        for ip in addresses.iter().copied().chain(edges) {
            prop_assert_eq!(rules.permits_ip(ip).is_ok(), reference(ip, &peers), "{}", ip);
            prop_assert_eq!(rules.permits(SocketAddr::new(ip, 5000)), rules.permits_ip(ip));
        }
    }

    #[test]
    fn own_sockets_are_refused_and_a_permitted_port_implies_a_permitted_address(
        allowed in proptest::collection::vec(prefix(), 0..6),
        hosts in proptest::collection::vec(address(), 0..4),
        relays in proptest::collection::vec((address(), address()), 0..3),
        own in proptest::collection::vec((address(), any::<u16>()), 0..4),
        peer in address(),
        port in any::<u16>(),
    ) {
        let relays: Vec<_> = relays.into_iter().map(|(local, external)| RelayAddress { local, external }).collect();
        let own: Vec<_> = own.into_iter().map(SocketAddr::from).collect();
        let rules = PeerRules::new(&Peers { allowed, denied: vec![] }, &relays, 49152..=65535, &own, &hosts);
        for socket in &own {
            prop_assert!(rules.permits(*socket).is_err());
        }
        let addresses = hosts.iter().copied().chain(relays.iter().flat_map(|relay| [relay.local, relay.external]));
        for ip in addresses.chain([peer]) {
            if rules.permits(SocketAddr::new(ip, port)).is_ok() {
                prop_assert_eq!(rules.permits_ip(ip), Ok(()));
            }
        }
    }
}
