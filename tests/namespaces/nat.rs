//! The four classic kinds of NAT (RFC 3489 §5), made with nftables.
//!
//! Linux keeps the port of what it masquerades, so all mappings of one inner port are the same, and lets in only what answers:
//! a port-restricted cone. The others differ from it as their rules say.

/// A kind of NAT. Mapping and filtering are as RFC 4787 calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Endpoint-independent mapping, endpoint-independent filtering: once a port is open, it is open to all.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering: it is open to the addresses that have been sent to.
    RestrictedCone,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestrictedCone,
    /// Address- and port-dependent mapping and filtering: a new port at random for each connection from inside.
    Symmetric,
}

impl Nat {
    /// The rules of a NAT between `lan0` and `wan0` with one host inside, which has these addresses.
    pub(crate) fn rules(self, [ipv4, ipv6]: [&str; 2]) -> String {
        let (open, note, admit) = match self {
            Self::FullCone => (
                "set open4 { type inet_service; flags dynamic,timeout; timeout 5m; }
                 set open6 { type inet_service; flags dynamic,timeout; timeout 5m; }",
                "meta nfproto ipv4 add @open4 { udp sport }
                 meta nfproto ipv6 add @open6 { udp sport }",
                ["udp dport @open4", "udp dport @open6"],
            ),
            Self::RestrictedCone => (
                "set open4 { type inet_service . ipv4_addr; flags dynamic,timeout; timeout 5m; }
                 set open6 { type inet_service . ipv6_addr; flags dynamic,timeout; timeout 5m; }",
                "meta nfproto ipv4 add @open4 { udp sport . ip daddr }
                 meta nfproto ipv6 add @open6 { udp sport . ip6 daddr }",
                ["udp dport . ip saddr @open4", "udp dport . ip6 saddr @open6"],
            ),
            Self::PortRestrictedCone | Self::Symmetric => ("", "", ["", ""]),
        };
        let note: String = note.lines().map(|rule| format!("iifname lan0 {}\n", rule.trim())).collect();
        let admit = match admit {
            ["", ""] => String::new(),
            [of_ipv4, of_ipv6] => format!(
                "iifname wan0 meta nfproto ipv4 {of_ipv4} dnat ip to {ipv4}
                 iifname wan0 meta nfproto ipv6 {of_ipv6} dnat ip6 to {ipv6}"
            ),
        };
        let masquerade = if self == Self::Symmetric { "masquerade random,fully-random" } else { "masquerade" };
        format!(
            "table inet nat {{
                {open}
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    {admit}
                }}
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    {note}
                    ct state established,related accept
                    ct status dnat accept
                    iifname lan0 oifname wan0 accept
                }}
                chain input {{
                    # What nobody inside has asked for is not for the NAT either: answering it would take up its port.
                    type filter hook input priority filter; policy drop;
                    meta l4proto {{ icmp, ipv6-icmp }} accept
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    oifname wan0 {masquerade}
                }}
            }}"
        )
    }
}
