//! What the configuration is resolved against: the addresses, processors and environment of this host.
//!
//! A plain value, so that tests say what the host is like instead of depending on the one they run on.

use std::{
    env, io,
    net::{IpAddr, UdpSocket},
    num::NonZero,
    thread,
};

/// This host as the configuration sees it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Addresses of all interfaces.
    pub addresses: Vec<IpAddr>,
    /// The address to relay from when none is configured: at most one per family.
    pub primary: Vec<IpAddr>,
    /// Processors that this process may use.
    pub processors: usize,
    /// Looks up an environment variable (`password-env` and its like).
    pub variable: fn(&str) -> Result<String, env::VarError>,
}

impl Host {
    /// Looks at the real host.
    pub fn detect() -> io::Result<Self> {
        let addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect();
        Ok(Self {
            primary: primary_addresses(&addresses, routed_addresses()),
            addresses,
            processors: thread::available_parallelism().map_or(1, NonZero::get),
            variable: |name| env::var(name),
        })
    }

    /// Whether sockets can be bound to `address` here.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether any interface has an address of the family.
    pub(super) fn has_family(&self, ipv4: bool) -> bool {
        self.addresses.iter().any(|address| address.is_ipv4() == ipv4)
    }

    /// The addresses of this host in words, for remedies.
    pub(super) fn list(&self) -> String {
        let addresses: Vec<String> =
            self.addresses.iter().filter(|address| usable(**address)).map(ToString::to_string).collect();
        addresses.join(", ")
    }
}

/// A link-local IPv6 address means nothing without an interface, which our address types do not carry.
fn usable(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Source addresses of routes to the internet. Connecting a UDP socket sends nothing.
fn routed_addresses() -> Vec<IpAddr> {
    // Any globally routed address would do; these are the first DNS root server's.
    [("0.0.0.0:0", "198.41.0.4:53"), ("[::]:0", "[2001:503:ba3e::2:30]:53")]
        .into_iter()
        .filter_map(|(local, remote)| {
            let socket = UdpSocket::bind(local).ok()?;
            socket.connect(remote).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .collect()
}

/// One address per family: the routed one, else the first that is not loopback. Loopback serves only a host that has
/// nothing else: next to a real address of the other family it would be handed to clients that cannot use it.
fn primary_addresses(addresses: &[IpAddr], routed: Vec<IpAddr>) -> Vec<IpAddr> {
    let pick = |accept: &dyn Fn(&IpAddr) -> bool| -> Vec<IpAddr> {
        [true, false]
            .into_iter()
            .filter_map(|ipv4| {
                let candidates = routed.iter().chain(addresses);
                candidates.copied().find(|address| address.is_ipv4() == ipv4 && accept(address))
            })
            .collect()
    };
    let real = pick(&|address| !address.is_loopback() && !address.is_unspecified() && usable(*address));
    if real.is_empty() { pick(&IpAddr::is_loopback) } else { real }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_routed_address_is_primary() {
        let addresses = ips(&["127.0.0.1", "10.0.0.1", "192.0.2.7", "::1", "fe80::1", "2001:db8::7"]);
        assert_eq!(primary_addresses(&addresses, ips(&["192.0.2.7"])), ips(&["192.0.2.7", "2001:db8::7"]));
    }

    #[test]
    fn loopback_is_primary_only_without_any_other() {
        assert_eq!(primary_addresses(&ips(&["127.0.0.1", "::1"]), vec![]), ips(&["127.0.0.1", "::1"]));
        assert_eq!(primary_addresses(&ips(&["127.0.0.1", "10.0.0.1", "::1"]), vec![]), ips(&["10.0.0.1"]));
        assert_eq!(primary_addresses(&ips(&["10.0.0.1", "fe80::1"]), vec![]), ips(&["10.0.0.1"]));
    }

    #[test]
    fn this_host_has_loopback_and_a_processor() {
        let host = Host::detect().unwrap();
        assert!(host.has("127.0.0.9".parse().unwrap()));
        assert!(!host.has("203.0.113.99".parse().unwrap()));
        assert!(host.processors >= 1);
    }
}
