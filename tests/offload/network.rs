//! The networks of these tests.
//!
//! ```text
//!   namespace "left"                 namespace "server"                  namespace "right"
//!   198.51.100.2, .3  --- veth ---  198.51.100.1   203.0.113.1  --- veth ---  203.0.113.2, .3
//!   2001:db8:a::2, ::3              2001:db8:a::1  2001:db8:b::1              2001:db8:b::2, ::3
//! ```
//!
//! The far ends complete their checksums themselves, as hardware would, and have a program that lets everything in: without one, the
//! driver of veth gives them nothing that was sent by a program.

#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crate::common::{
    await_address,
    process::run,
    veth::{checksums_by_hardware, let_everything_in},
};

const NAMESPACES: [&str; 3] = ["left", "server", "right"];

/// All namespaces of these tests begin with this, then the test's process id and a number.
const PREFIX: &str = "turnfast";

const LIMIT: Duration = Duration::from_secs(20);

/// The networks; they are gone when this is dropped.
pub(crate) struct Network {
    prefix: String,
    /// The programs of the far ends.
    _programs: Vec<OwnedFd>,
}

impl Network {
    pub(crate) fn build() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let user = fs::metadata("/proc/self").expect("/proc").uid();
        assert_eq!(user, 0, "making network namespaces needs root (.ci/run sees to it)");
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut network = Self { prefix: format!("{PREFIX}-{}-{number}", std::process::id()), _programs: Vec::new() };
        for name in NAMESPACES {
            ip(&["netns", "add", &network.namespace(name)]);
            network.ip(name, "link set lo up");
        }
        for (far, near, net) in [("left", "eth0", "a"), ("right", "eth1", "b")] {
            let prefix = if far == "left" { "198.51.100." } else { "203.0.113." };
            let there = network.namespace(far);
            network.ip("server", &format!("link add {near} type veth peer name eth0 netns {there}"));
            network.ip("server", &format!("link set {near} up"));
            network.ip(far, "link set eth0 up");
            let hosts = [("server", near, &[1][..]), (far, "eth0", &[2, 3])];
            for (host, interface, numbers) in hosts {
                for number in numbers {
                    network.ip(host, &format!("address add {prefix}{number}/24 dev {interface}"));
                    network.ip(host, &format!("address add 2001:db8:{net}::{number}/64 dev {interface} nodad"));
                }
            }
            network.ip(far, &format!("route add default via {prefix}1"));
            network.ip(far, &format!("route add default via 2001:db8:{net}::1"));
            let program = network.within(far, || {
                checksums_by_hardware("eth0", false).expect("checksums by software");
                let_everything_in("eth0").expect("a program that lets everything in (needs CAP_BPF)")
            });
            network._programs.push(program);
        }
        network
    }

    /// The full name of the namespace of one host.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs `ip` inside the namespace of one host; returns what it prints.
    pub(crate) fn ip(&self, host: &str, arguments: &str) -> String {
        ip(&[&["-n", &self.namespace(host)], &arguments.split(' ').collect::<Vec<_>>()[..]].concat())
    }

    /// Runs something in the network of one host.
    pub(crate) fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new("/run/netns").join(self.namespace(host))).expect("a namespace");
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: a call with an open descriptor and a constant; only the calling thread changes its network.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A UDP socket in the network of one host that does not wait forever.
    pub(crate) fn socket(&self, host: &str, address: SocketAddr) -> UdpSocket {
        self.within(host, || {
            await_address(address.ip());
            let socket = UdpSocket::bind(address).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
            socket
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in NAMESPACES {
            delete(&self.namespace(name));
        }
    }
}

/// The address of a host on the left or on the right.
pub(crate) fn address(side: &str, ipv4: bool, number: u8) -> IpAddr {
    let text = match (side, ipv4) {
        ("left", true) => format!("198.51.100.{number}"),
        ("left", false) => format!("2001:db8:a::{number}"),
        (_, true) => format!("203.0.113.{number}"),
        (_, false) => format!("2001:db8:b::{number}"),
    };
    text.parse().expect("an address")
}

fn ip(arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, LIMIT)
}

fn delete(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(std::process::Stdio::null()).status();
}

/// Removes what test processes that were killed have left behind.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            delete(&name);
        }
    }
}
