//! A small internet of network namespaces.
//!
//! ```text
//!   server 203.0.113.10    peer 203.0.113.20           the public segment, 203.0.113.0/24 and 2001:db8:1::/64
//!        | 203.0.113.11         |
//!   -----+------ wan (bridge) --+-------+----------
//!        |                              |
//!   nat-a 203.0.113.1              nat-b 203.0.113.2   NATs of one kind ([`nat`](crate::nat)): symmetric ones
//!        |                              |
//!   host-a 192.168.1.10            host-b 192.168.2.10
//!          fd00:1::10                     fd00:2::10
//! ```
//!
//! Nothing of it is connected to this machine's own network.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::common::process::run;
use crate::nat::Nat;

/// Where the server listens and relays.
pub(crate) const SERVER: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
/// Its second address, for NAT discovery.
pub(crate) const ALTERNATE: [&str; 2] = ["203.0.113.11", "2001:db8:1::11"];
/// An ordinary host on the public segment.
pub(crate) const PEER: [&str; 2] = ["203.0.113.20", "2001:db8:1::20"];
/// The public addresses of the two NATs.
pub(crate) const NAT_A: [&str; 2] = ["203.0.113.1", "2001:db8:1::1"];
pub(crate) const NAT_B: [&str; 2] = ["203.0.113.2", "2001:db8:1::2"];
/// The hosts behind them.
pub(crate) const HOST_A: [&str; 2] = ["192.168.1.10", "fd00:1::10"];
pub(crate) const HOST_B: [&str; 2] = ["192.168.2.10", "fd00:2::10"];

const NAMESPACES: [&str; 7] = ["wan", "server", "peer", "nat-a", "nat-b", "host-a", "host-b"];

/// All namespaces of these tests begin with this, then the test's process id and a number.
const PREFIX: &str = "turntest";

const LIMIT: Duration = Duration::from_secs(20);

/// The namespaces; they are gone when this is dropped.
pub(crate) struct Network {
    prefix: String,
}

impl Network {
    /// The two hosts are behind symmetric NATs.
    pub(crate) fn build() -> Self {
        Self::build_behind(Nat::Symmetric)
    }

    pub(crate) fn build_behind(kind: Nat) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let user = std::fs::metadata("/proc/self").expect("/proc").uid();
        assert_eq!(user, 0, "making network namespaces needs root (.ci/run sees to it)");
        sweep();

        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let network = Self { prefix: format!("{PREFIX}-{}-{number}", std::process::id()) };
        for name in NAMESPACES {
            ip(&["netns", "add", &network.namespace(name)]);
            network.ip(name, &["link", "set", "lo", "up"]);
        }
        // No multicast snooping: neighbour discovery must work from the first packet on.
        network.ip("wan", &["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        network.ip("wan", &["link", "set", "br0", "up"]);
        for (name, interface, addresses) in
            [("server", "eth0", SERVER), ("peer", "eth0", PEER), ("nat-a", "wan0", NAT_A), ("nat-b", "wan0", NAT_B)]
        {
            network.cable((name, interface), ("wan", name));
            network.ip("wan", &["link", "set", name, "master", "br0"]);
            network.address(name, interface, addresses);
        }
        network.address("server", "eth0", ALTERNATE);
        for (nat, host, inside, addresses) in [
            ("nat-a", "host-a", ["192.168.1.1", "fd00:1::1"], HOST_A),
            ("nat-b", "host-b", ["192.168.2.1", "fd00:2::1"], HOST_B),
        ] {
            network.cable((host, "eth0"), (nat, "lan0"));
            network.address(nat, "lan0", inside);
            network.address(host, "eth0", addresses);
            for gateway in inside {
                network.ip(host, &["route", "add", "default", "via", gateway]);
            }
            ip(&["netns", "exec", &network.namespace(nat), "nft", &kind.rules(addresses)]);
            let forwarding = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
            ip(&["netns", "exec", &network.namespace(nat), "sh", "-ec", forwarding]);
        }
        network
    }

    /// The full name of the namespace of one host.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs `ip` inside the namespace of one host.
    fn ip(&self, host: &str, arguments: &[&str]) {
        ip(&[&["-n", &self.namespace(host)], arguments].concat());
    }

    /// Connects two interfaces, each given with its host.
    fn cable(&self, (host, interface): (&str, &str), (other_host, other_interface): (&str, &str)) {
        let other_namespace = self.namespace(other_host);
        let there = ["peer", "name", other_interface, "netns", &other_namespace];
        self.ip(host, &[&["link", "add", interface, "type", "veth"], &there[..]].concat());
        self.ip(host, &["link", "set", interface, "up"]);
        self.ip(other_host, &["link", "set", other_interface, "up"]);
    }

    /// Gives an interface its IPv4 and its IPv6 address, usable at once.
    fn address(&self, host: &str, interface: &str, [ipv4, ipv6]: [&str; 2]) {
        self.ip(host, &["address", "add", &format!("{ipv4}/24"), "dev", interface]);
        self.ip(host, &["address", "add", &format!("{ipv6}/64"), "dev", interface, "nodad"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in NAMESPACES {
            delete(&self.namespace(name));
        }
    }
}

/// The address of the wanted family out of a host's two.
pub(crate) fn of_family([ipv4, ipv6]: [&str; 2], family: u8) -> IpAddr {
    (if family == 4 { ipv4 } else { ipv6 }).parse().expect("an address")
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, LIMIT);
}

fn delete(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(std::process::Stdio::null()).status();
}

/// Removes what test processes that were killed have left behind.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            delete(&name);
        }
    }
}
