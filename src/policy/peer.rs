//! Which peer addresses are served (RFC 8656 §21.1.7, §21.2.2, §21.4).
//!
//! The rules, from the strongest:
//!
//! 1. What is no unicast address, tunnel addresses (Teredo, 6to4) and IPv6 spellings of IPv4 addresses (mapped,
//!    compatible) are refused, whatever the operator allows. Peers must be given in their plain spelling.
//! 2. The server's own listening and management sockets are refused, whatever the operator allows. A socket on an
//!    unspecified address is on every address of this host, of its relay, and on loopback.
//! 3. **Relay to relay**: a port of the relay range on a relay address of this server is a permitted peer, also when
//!    that address is private or loopback, so that two clients of this server reach each other. Every other port of a
//!    relay address, and every other address of this host, is refused. Only an operator's rule for exactly that
//!    address (/32, /128) changes either: `allowed-peer-ip` opens the other ports, `denied-peer-ip` closes all. Whoever
//!    opens the loopback range as such means this host, so there any rule that opens it is enough.
//! 4. `allowed-peer-ip`, `denied-peer-ip` and the special ranges ([`super::special`]): the longest matching prefix
//!    decides; at equal length the operator beats the built-in range, and denied beats allowed. So `0.0.0.0/0` does
//!    not open loopback, `10.0.0.0/8` opens that range, and `10.1.0.0/16` denied stays denied in it.
//! 5. NAT64 addresses (64:ff9b::/96; 64:ff9b:1::/48 where the operator opened it) are refused also if the embedded
//!    IPv4 address is, or if that is an address of this host. In the local-use range an allowed prefix is taken for
//!    the translator's own (RFC 6052 §2.2: /48, /56, /64, /96; other lengths count as the next shorter of these).
//! 6. ISATAP addresses (RFC 5214 §6.1), under whatever prefix, are refused also if the embedded IPv4 address is.
//! 7. Everything else is allowed.
//!
//! All of this is worked out once, when the rules are made, into sorted address segments with a verdict each; a
//! decision is then one binary search without allocation, since it stands on the path of each Send indication.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use super::special::{LOOPBACK_V6, NAT64, NAT64_LOCAL, SPECIAL, SpecialRange};
use crate::config::settings::{Peers, RelayAddress};

/// Why a peer is refused: the rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// A built-in range.
    Range(&'static SpecialRange),
    /// A rule of `denied-peer-ip`.
    Operator(IpNet),
    /// A listening or management socket of this server.
    OwnSocket,
    /// Another port of this host.
    OwnAddress,
    /// The IPv4 address embedded in a NAT64 address is refused.
    Embedded(Ipv4Addr),
    /// The IPv4 address embedded in an ISATAP address is refused.
    Isatap(Ipv4Addr),
    /// A NAT64 address of the local-use range that embeds no IPv4 address (RFC 6052 §2.2).
    NothingEmbedded,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(f, "in {range}"),
            Self::Operator(net) => write!(f, "in {net} (denied-peer-ip)"),
            Self::OwnSocket => f.write_str("a listening or management address of this server"),
            Self::OwnAddress => f.write_str("an address of this server, but no relayed one"),
            Self::Embedded(ip) => write!(f, "NAT64 for {ip}, which is refused"),
            Self::Isatap(ip) => write!(f, "ISATAP for {ip}, which is refused"),
            Self::NothingEmbedded => f.write_str("NAT64 without an embedded IPv4 address"),
        }
    }
}

/// The rules for peer addresses, ready to decide.
#[derive(Debug, Clone)]
pub struct PeerRules {
    ipv4: Segments,
    ipv6: Segments,
    here: Vec<Here>,
    relay_ports: RangeInclusive<u16>,
}

impl PeerRules {
    /// Makes the rules of `peers` for a server that relays on `relay` with `relay_ports`.
    ///
    /// `own` are the server's listening and management addresses, with the ports that the system chose; an
    /// unspecified address stands for all of `host_addresses` and `relay`, and `::` for both families.
    /// `host_addresses` is every address of this host.
    pub fn new(
        peers: &Peers,
        relay: &[RelayAddress],
        relay_ports: RangeInclusive<u16>,
        own: &[SocketAddr],
        host_addresses: &[IpAddr],
    ) -> Self {
        let plan = Plan::new(peers, relay, own, host_addresses);
        let mut here = Vec::new();
        let ipv4 = plan.segments(false, &mut here);
        let ipv6 = plan.segments(true, &mut here);
        Self { ipv4, ipv6, here, relay_ports }
    }

    /// Whether data may go to and come from this address: Send, ChannelBind, data from peers (RFC 8656 §11, §12).
    pub fn permits(&self, peer: SocketAddr) -> Result<(), Denied> {
        match self.verdict(peer.ip()) {
            Verdict::Here(index) => self.here[index].permits(peer.port(), &self.relay_ports),
            verdict => self.without_port(verdict, peer.ip()),
        }
    }

    /// Whether a permitted peer is one only because its port is of the relay range (rule 3): whatever else of this host listens
    /// there would not be.
    pub fn is_relay_at_most(&self, peer: SocketAddr) -> bool {
        match self.verdict(peer.ip()) {
            Verdict::Here(index) => self.here[index].other_port.is_err(),
            _ => false,
        }
    }

    /// Whether a permission may be installed for this address (CreatePermission has no port, RFC 8656 §10): true if
    /// some port of it may be reached.
    pub fn permits_ip(&self, ip: IpAddr) -> Result<(), Denied> {
        match self.verdict(ip) {
            Verdict::Here(index) => self.here[index].relay_port.or(self.here[index].other_port),
            verdict => self.without_port(verdict, ip),
        }
    }

    fn verdict(&self, ip: IpAddr) -> Verdict {
        match ip {
            IpAddr::V4(_) => self.ipv4.find(bits(ip)),
            IpAddr::V6(_) => self.ipv6.find(bits(ip)),
        }
    }

    fn without_port(&self, verdict: Verdict, ip: IpAddr) -> Result<(), Denied> {
        match (verdict, ip) {
            (Verdict::Allowed, IpAddr::V4(_)) => Ok(()),
            (Verdict::Allowed, IpAddr::V6(ip)) => match isatap(ip) {
                Some(inner) if self.verdict(IpAddr::V4(inner)) != Verdict::Allowed => Err(Denied::Isatap(inner)),
                _ => Ok(()),
            },
            (Verdict::Refused(denied), _) => Err(denied),
            (Verdict::Embedded(prefix), IpAddr::V6(ip)) => {
                let inner = embedded(ip, prefix).ok_or(Denied::NothingEmbedded)?;
                match self.verdict(IpAddr::V4(inner)) {
                    Verdict::Allowed => Ok(()),
                    _ => Err(Denied::Embedded(inner)),
                }
            }
            // IPv4 segments hold no `Embedded`, and callers resolve `Here`; refusing is right for both.
            (Verdict::Embedded(_) | Verdict::Here(_), _) => Err(Denied::OwnAddress),
        }
    }
}

/// The decision for all addresses of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused(Denied),
    /// Decided by the IPv4 address embedded behind a prefix of this length (RFC 6052 §2.2).
    Embedded(u8),
    /// The index of an entry of [`PeerRules::here`], which only grows while the rules are made.
    Here(usize),
}

/// An address that reaches this host: the port decides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Here {
    /// Ports of own sockets, always refused.
    sockets: Vec<u16>,
    relay_port: Result<(), Denied>,
    other_port: Result<(), Denied>,
}

impl Here {
    fn permits(&self, port: u16, relay_ports: &RangeInclusive<u16>) -> Result<(), Denied> {
        if self.sockets.contains(&port) {
            Err(Denied::OwnSocket)
        } else if relay_ports.contains(&port) {
            self.relay_port
        } else {
            self.other_port
        }
    }
}

/// One family's addresses, cut where the verdict changes.
#[derive(Debug, Clone)]
struct Segments {
    /// First address of each segment, ascending; the first is 0.
    starts: Vec<u128>,
    verdicts: Vec<Verdict>,
}

impl Segments {
    fn find(&self, address: u128) -> Verdict {
        // The first segment starts at 0, so at least one start is at or below any address: no underflow, in bounds.
        self.verdicts[self.starts.partition_point(|start| *start <= address) - 1]
    }
}

/// Everything that the verdicts are worked out from.
struct Plan<'a> {
    peers: &'a Peers,
    /// Addresses of relay sockets, inside and outside.
    relay: BTreeSet<IpAddr>,
    /// All addresses of this host, `relay` included.
    host: BTreeSet<IpAddr>,
    /// Own sockets; of one on a relay's local address also its external spelling.
    own: Vec<SocketAddr>,
}

impl<'a> Plan<'a> {
    fn new(peers: &'a Peers, relay: &[RelayAddress], own: &[SocketAddr], host_addresses: &[IpAddr]) -> Self {
        let mut sockets: Vec<_> =
            own.iter().map(|socket| SocketAddr::new(socket.ip().to_canonical(), socket.port())).collect();
        for RelayAddress { local, external } in relay {
            let outside: Vec<_> = sockets
                .iter()
                .filter(|socket| socket.ip() == local.to_canonical())
                .map(|socket| SocketAddr::new(external.to_canonical(), socket.port()))
                .collect();
            sockets.extend(outside);
        }
        let relay: BTreeSet<_> =
            relay.iter().flat_map(|address| [address.local, address.external]).map(|ip| ip.to_canonical()).collect();
        let host = host_addresses
            .iter()
            .map(IpAddr::to_canonical)
            .chain(relay.iter().copied())
            .chain(sockets.iter().map(SocketAddr::ip))
            .filter(|ip| !ip.is_unspecified())
            .collect();
        Self { peers, relay, host, own: sockets }
    }

    /// Cuts one family at every border of a rule and judges the first address of each piece.
    fn segments(&self, ipv6: bool, here: &mut Vec<Here>) -> Segments {
        let mut borders = BTreeSet::from([0]);
        let rules = SPECIAL.iter().map(|range| range.net).chain(self.peers.allowed.iter().copied());
        let rules = rules.chain(self.peers.denied.iter().copied()).chain([IpNet::V6(NAT64)]);
        for net in rules.chain(self.host.iter().copied().map(IpNet::from)) {
            if net.network().is_ipv6() == ipv6 {
                borders.insert(bits(net.network()));
                borders.extend(bits(net.broadcast()).checked_add(1));
            }
        }
        let mut segments = Segments { starts: Vec::new(), verdicts: Vec::new() };
        for start in borders {
            let ip = match u32::try_from(start) {
                Ok(start) if !ipv6 => IpAddr::V4(start.into()),
                // One past 255.255.255.255: no IPv4 address comes here.
                Err(_) if !ipv6 => continue,
                _ => IpAddr::V6(start.into()),
            };
            let verdict = self.judge(ip, here);
            if segments.verdicts.last() != Some(&verdict) {
                segments.starts.push(start);
                segments.verdicts.push(verdict);
            }
        }
        segments
    }

    fn judge(&self, ip: IpAddr, here: &mut Vec<Here>) -> Verdict {
        if let Some(range) = SPECIAL.iter().find(|range| range.always && range.net.contains(&ip))
            && ip != LOOPBACK_V6
        {
            return Verdict::Refused(Denied::Range(range));
        }
        let ranges = self.judge_ranges(ip);
        if let Some(address) = self.host_address(ip, ranges) {
            let known = here.iter().position(|other| *other == address);
            return Verdict::Here(known.unwrap_or_else(|| {
                here.push(address);
                here.len() - 1
            }));
        }
        ranges
    }

    /// Rules 2 and 3, if the address reaches this host.
    fn host_address(&self, ip: IpAddr, ranges: Verdict) -> Option<Here> {
        let sockets: BTreeSet<_> =
            self.own.iter().filter(|socket| covers(socket.ip(), ip)).map(SocketAddr::port).collect();
        let sockets = sockets.into_iter().collect();
        if self.host.contains(&ip) {
            let other_port = match self.operator_rule(ip) {
                Some((net, rule)) if net.prefix_len() == net.max_prefix_len() => rule,
                // Whoever opens loopback means this host.
                _ if ip.is_loopback() && ranges == Verdict::Allowed => Ok(()),
                _ => Err(Denied::OwnAddress),
            };
            let relay_port = match other_port {
                Err(Denied::OwnAddress) if self.relay.contains(&ip) => Ok(()),
                rule => rule,
            };
            return Some(Here { sockets, relay_port, other_port });
        }
        // The rest of 127.0.0.0/8 is no configured address but reaches sockets on unspecified addresses.
        (ip.is_loopback() && ranges == Verdict::Allowed).then_some(Here {
            sockets,
            relay_port: Ok(()),
            other_port: Ok(()),
        })
    }

    /// Rules 4 to 6.
    fn judge_ranges(&self, ip: IpAddr) -> Verdict {
        let operator = self.operator_rule(ip);
        let in_nat64 = |nat64| matches!(ip, IpAddr::V6(ip) if ipnet::Ipv6Net::contains(nat64, &ip));
        let built_in = SPECIAL
            .iter()
            .filter(|range| range.net.contains(&ip) && !in_nat64(&NAT64))
            .max_by_key(|range| range.net.prefix_len());
        match (operator, built_in) {
            (Some((net, _)), Some(range)) if net.prefix_len() < range.net.prefix_len() => {
                Verdict::Refused(Denied::Range(range))
            }
            (None, Some(range)) => Verdict::Refused(Denied::Range(range)),
            (Some((_, Err(denied))), _) => Verdict::Refused(denied),
            (Some((net, Ok(()))), _) if in_nat64(&NAT64_LOCAL) => Verdict::Embedded(match net.prefix_len() {
                ..56 => 48,
                56..64 => 56,
                64..96 => 64,
                96.. => 96,
            }),
            _ if in_nat64(&NAT64) => Verdict::Embedded(96),
            _ => Verdict::Allowed,
        }
    }

    /// The operator's longest matching rule; denied beats allowed.
    fn operator_rule(&self, ip: IpAddr) -> Option<(IpNet, Result<(), Denied>)> {
        let allowed = self.peers.allowed.iter().map(|net| (*net, Ok(())));
        let denied = self.peers.denied.iter().map(|net| (*net, Err(Denied::Operator(*net))));
        // The last of equals is taken.
        allowed.chain(denied).filter(|(net, _)| net.contains(&ip)).max_by_key(|(net, _)| net.prefix_len())
    }
}

/// Whether a socket bound to `bound` receives what is sent to `ip` of this host. `::` may serve both families.
fn covers(bound: IpAddr, ip: IpAddr) -> bool {
    bound == ip || (bound.is_unspecified() && (bound.is_ipv6() || ip.is_ipv4()))
}

/// The address as a number, each family for itself.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The IPv4 address embedded behind a NAT64 prefix of 48, 56, 64 or 96 bits (RFC 6052 §2.2). Bits 64 to 71 and the
/// suffix must be zero: an address that says the same in two ways is not taken.
fn embedded(ip: Ipv6Addr, prefix: u8) -> Option<Ipv4Addr> {
    let o = ip.octets();
    let (inner, suffix) = match prefix {
        48 => ([o[6], o[7], o[9], o[10]], &o[11..]),
        56 => ([o[7], o[9], o[10], o[11]], &o[12..]),
        64 => ([o[9], o[10], o[11], o[12]], &o[13..]),
        _ => ([o[12], o[13], o[14], o[15]], &o[16..]),
    };
    (o[8] == 0 && suffix.iter().all(|octet| *octet == 0)).then_some(inner.into())
}

/// The IPv4 address embedded in an ISATAP interface identifier, with the universal/local bit set or not (RFC 5214 §6.1).
fn isatap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, _, _, first, 0x5efe, high, low] = ip.segments() else { return None };
    matches!(first, 0 | 0x200).then(|| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests;
