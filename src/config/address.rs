//! The address types: local addresses, external addresses, peer ranges, alternate servers, domain names.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use toml::de::DeValue;

use super::{
    reader::{Leaf, Mistake},
    value::text,
};

/// Ports of alternate servers that name none (RFC 8656 §4.1).
const DEFAULT_PORT: u16 = 3478;
pub(super) const DEFAULT_SECURE_PORT: u16 = 5349;

/// Parses an address; the IPv4-mapped form is refused so that one address has one spelling.
fn address(written: &str) -> Result<IpAddr, Mistake> {
    if written.contains('%') {
        let remedy = "write a global or unique-local address, without % and what follows";
        return Err(Mistake::new("names an interface (a scope id), which addresses here cannot", remedy));
    }
    let address = IpAddr::from_str(written.trim()).map_err(|_| {
        let remedy = "write an address like \"192.0.2.1\" or \"2001:db8::1\"; names are not resolved";
        Mistake::new("is not an IP address", remedy)
    })?;
    match address.to_canonical() {
        canonical if canonical == address => Ok(address),
        canonical => Err(Mistake::new("is an IPv4-mapped address", format!("write it as \"{canonical}\""))),
    }
}

/// An address that clients or redirects can name: of one host, not of a group or of none.
fn one_host(address: IpAddr) -> Result<IpAddr, Mistake> {
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::from([255, 255, 255, 255]) {
        return Err(Mistake::new("is not the address of one host", "write a unicast address"));
    }
    Ok(address)
}

/// An address to bind sockets to.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalIp(pub(super) IpAddr);

impl Leaf for LocalIp {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let address = address(text(value, "an IP address")?)?;
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Mistake::new(
                "is a link-local address, which is not usable without naming an interface",
                "write a global or unique-local address",
            )),
            _ => Ok(Self(address)),
        }
    }
}

/// `external-ip`: the public address, and which private address it stands for (all of its family if none).
#[derive(Debug, Clone, Copy)]
pub(super) struct ExternalIp {
    pub(super) public: IpAddr,
    pub(super) private: Option<IpAddr>,
}

impl Leaf for ExternalIp {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let written = text(value, "\"public\" or \"public/private\" addresses")?;
        let (public, private) = match written.split_once('/') {
            Some((public, private)) => (public, Some(one_host(address(private)?)?)),
            None => (written, None),
        };
        let public = one_host(address(public)?)?;
        if private.is_some_and(|private| private.is_ipv4() != public.is_ipv4()) {
            return Err(Mistake::new("maps one family to the other", "write two addresses of one family"));
        }
        Ok(Self { public, private })
    }
}

/// A set of peer addresses: a network, one address, or `first-last`.
#[derive(Debug)]
pub(super) struct PeerRange(pub(super) Vec<IpNet>);

impl Leaf for PeerRange {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        peer_range(text(value, "a network, an address or a range")?.trim()).map(Self)
    }
}

/// The networks of `network`, `address` or `first-last`.
pub(super) fn peer_range(written: &str) -> Result<Vec<IpNet>, Mistake> {
    if let Some((first, last)) = written.split_once('-') {
        return range(address(first)?, address(last)?);
    }
    let Some((network, _)) = written.split_once('/') else {
        return Ok(vec![IpNet::from(address(written)?)]);
    };
    address(network)?;
    let network = IpNet::from_str(written).map_err(|_| {
        Mistake::new("is not a network", "write a prefix length, e.g. \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })?;
    if network != network.trunc() {
        return Err(Mistake::new("has bits set after its prefix", format!("write \"{}\"", network.trunc())));
    }
    Ok(vec![network])
}

/// The networks that cover exactly `first..=last`.
fn range(first: IpAddr, last: IpAddr) -> Result<Vec<IpNet>, Mistake> {
    if first > last && first.is_ipv4() == last.is_ipv4() {
        return Err(Mistake::new("ends before it begins", "write the lower address first"));
    }
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ok(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ok(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()),
        _ => Err(Mistake::new("spans two families", "write two addresses of one family")),
    }
}

/// `alternate-server`, `tls-alternate-server`: an address with an optional port.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerAddress<const PORT: u16 = DEFAULT_PORT>(pub(super) SocketAddr);

impl<const PORT: u16> Leaf for ServerAddress<PORT> {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let written = text(value, "an address with an optional port")?.trim();
        let server = match SocketAddr::from_str(written) {
            // The parser takes a scope id, as a number.
            Ok(server) if !written.contains('%') => SocketAddr::new(address(&server.ip().to_string())?, server.port()),
            _ => {
                let bare = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(written);
                let address = address(bare).map_err(|mistake| {
                    let remedy = "write \"192.0.2.1\", \"192.0.2.1:3478\" or \"[2001:db8::1]:3478\"";
                    if bare.parse::<IpAddr>().is_ok() || bare.contains('%') {
                        mistake
                    } else {
                        Mistake::new("is not a server address", remedy)
                    }
                })?;
                SocketAddr::new(address, PORT)
            }
        };
        one_host(server.ip())?;
        if server.port() == 0 {
            return Err(Mistake::new("has port 0", "write a port from 1 to 65535"));
        }
        Ok(Self(server))
    }
}

/// `alternate-domain`: a DNS name in ASCII.
#[derive(Debug)]
pub(super) struct Domain(pub(super) String);

impl Leaf for Domain {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        const LONGEST: usize = 255;
        let written = text(value, "a domain name")?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if written.len() > LONGEST {
            return Err(Mistake::new("is too long for a domain name", format!("write at most {LONGEST} characters")));
        }
        if !written.split('.').all(label) || written.parse::<IpAddr>().is_ok() {
            let remedy = "write a name like \"turn.example.org\", in ASCII (xn-- for others)";
            return Err(Mistake::new("is not a domain name", remedy));
        }
        Ok(Self(written.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Leaf>(written: &str) -> Result<T, Mistake> {
        T::read(&DeValue::String(written.into()))
    }

    fn networks(written: &str) -> Vec<String> {
        read::<PeerRange>(written).unwrap().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn peer_ranges_become_exact_networks() {
        assert_eq!(networks("10.0.0.0/8"), ["10.0.0.0/8"]);
        assert_eq!(networks("192.0.2.7"), ["192.0.2.7/32"]);
        assert_eq!(networks("2001:db8::1"), ["2001:db8::1/128"]);
        assert_eq!(networks("10.0.0.0-10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(networks("83.166.64.2-83.166.64.5"), ["83.166.64.2/31", "83.166.64.4/31"]);
        assert_eq!(networks("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(networks("fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["fc00::/7"]);
    }

    #[test]
    fn bad_peer_ranges_say_why() {
        assert_eq!(read::<PeerRange>("10.0.0.1/8").unwrap_err().remedy, "write \"10.0.0.0/8\"");
        assert_eq!(read::<PeerRange>("10.0.0.0/33").unwrap_err().what, "is not a network");
        assert_eq!(read::<PeerRange>("10.0.0.9-10.0.0.1").unwrap_err().what, "ends before it begins");
        assert_eq!(read::<PeerRange>("10.0.0.9-2001:db8::1").unwrap_err().what, "spans two families");
        assert_eq!(read::<PeerRange>("example.org").unwrap_err().what, "is not an IP address");
        assert_eq!(read::<PeerRange>("::ffff:10.0.0.0/104").unwrap_err().what, "is an IPv4-mapped address");
    }

    #[test]
    fn external_addresses() {
        let both = read::<ExternalIp>("198.51.100.1/10.0.0.1").unwrap();
        assert_eq!(
            (both.public.to_string(), both.private.unwrap().to_string()),
            ("198.51.100.1".into(), "10.0.0.1".into())
        );
        assert!(read::<ExternalIp>("2001:db8::1").unwrap().private.is_none());
        assert_eq!(read::<ExternalIp>("198.51.100.1/fd00::1").unwrap_err().what, "maps one family to the other");
        assert_eq!(read::<ExternalIp>("0.0.0.0").unwrap_err().what, "is not the address of one host");
        assert_eq!(read::<ExternalIp>("224.0.0.1").unwrap_err().what, "is not the address of one host");
    }

    #[test]
    fn local_addresses() {
        assert!(read::<LocalIp>("0.0.0.0").is_ok() && read::<LocalIp>("::").is_ok());
        assert!(read::<LocalIp>("fe80::1").unwrap_err().what.starts_with("is a link-local address"));
        assert_eq!(read::<LocalIp>("::ffff:192.0.2.1").unwrap_err().remedy, "write it as \"192.0.2.1\"");
    }

    #[test]
    fn scope_ids_are_refused_everywhere() {
        let scoped = "names an interface (a scope id), which addresses here cannot";
        assert_eq!(read::<LocalIp>("fe80::1%eth0").unwrap_err().what, scoped);
        assert_eq!(read::<LocalIp>("2001:db8::1%2").unwrap_err().what, scoped);
        assert_eq!(read::<ExternalIp>("2001:db8::1/fe80::1%2").unwrap_err().what, scoped);
        assert_eq!(read::<PeerRange>("fe80::%eth0/64").unwrap_err().what, scoped);
        assert_eq!(read::<PeerRange>("fe80::1%1-fe80::2%1").unwrap_err().what, scoped);
        assert_eq!(read::<ServerAddress>("fe80::1%eth0").unwrap_err().what, scoped);
        assert_eq!(read::<ServerAddress>("[fe80::1%eth0]:3478").unwrap_err().what, scoped);
        assert_eq!(read::<ServerAddress>("[2001:db8::1%2]:3478").unwrap_err().what, scoped);
    }

    #[test]
    fn server_addresses_have_a_default_port() {
        for (written, address) in [
            ("192.0.2.1", "192.0.2.1:3478"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:3478"),
            ("[2001:db8::1]", "[2001:db8::1]:3478"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(read::<ServerAddress>(written).unwrap().0.to_string(), address);
        }
        assert_eq!(read::<ServerAddress>("192.0.2.1:0").unwrap_err().what, "has port 0");
        assert_eq!(read::<ServerAddress>("turn.example.org:3478").unwrap_err().what, "is not a server address");
        assert_eq!(read::<ServerAddress>("[::ffff:192.0.2.1]:1").unwrap_err().what, "is an IPv4-mapped address");
    }

    #[test]
    fn domain_names() {
        assert!(read::<Domain>("turn.example.org").is_ok());
        for bad in ["", "a..b", "-a.org", "bücher.example", "192.0.2.1", &"a.".repeat(200)] {
            assert!(read::<Domain>(bad).is_err(), "{bad}");
        }
    }
}
