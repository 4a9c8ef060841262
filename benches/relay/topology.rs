//! Where the traffic runs: loopback, or a veth pair between two namespaces.
//!
//! ```text
//!   namespace "generator"                              namespace "server"
//!   clients 198.18.0.1 ... (all local, by one route)
//!   peer    198.19.0.2  far0 -------- veth -------- eth0  198.19.0.1
//! ```
//! 198.18.0.0/15 is for benchmarks (RFC 2544). Nothing is connected to this machine's own network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::options;
use crate::run::Cpus;
use crate::servers::RELAY_PORTS;
use crate::system;
use crate::veth;

/// All namespaces of this benchmark begin with this, then its process id.
const PREFIX: &str = "turnbench";

/// Addresses and namespaces. What was made is gone when this is dropped.
pub(crate) struct Topology {
    pub(crate) server_namespace: Option<String>,
    pub(crate) generator_namespace: Option<String>,
    pub(crate) server: Ipv4Addr,
    pub(crate) peer: Ipv4Addr,
    pub(crate) clients: [u8; 2],
}

impl Topology {
    pub(crate) fn build(wanted: options::Topology) -> io::Result<Self> {
        let root = std::fs::metadata("/proc/self")?.uid() == 0;
        match wanted {
            options::Topology::Loopback => Ok(Self::loopback()),
            options::Topology::Veth => Self::veth(),
            options::Topology::Auto if root => Self::veth(),
            options::Topology::Auto => Ok(Self::loopback()),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.server_namespace.is_some() { "veth pair between namespaces" } else { "loopback" }
    }

    fn loopback() -> Self {
        Self {
            server_namespace: None,
            generator_namespace: None,
            server: Ipv4Addr::LOCALHOST,
            peer: Ipv4Addr::new(127, 0, 0, 2),
            clients: [127, 64],
        }
    }

    fn veth() -> io::Result<Self> {
        sweep();
        let (server, generator) =
            (format!("{PREFIX}-{}-server", std::process::id()), format!("{PREFIX}-{}-generator", std::process::id()));
        let topology = Self {
            server_namespace: Some(server.clone()),
            generator_namespace: Some(generator.clone()),
            server: Ipv4Addr::new(198, 19, 0, 1),
            peer: Ipv4Addr::new(198, 19, 0, 2),
            clients: [198, 18],
        };
        for line in [
            format!("netns add {server}"),
            format!("netns add {generator}"),
            format!("-n {server} link set lo up"),
            format!("-n {generator} link set lo up"),
            format!("-n {server} link add eth0 type veth peer name far0 netns {generator}"),
            format!("-n {server} address add 198.19.0.1/30 dev eth0"),
            format!("-n {generator} address add 198.19.0.2/30 dev far0"),
            format!("-n {server} link set eth0 up"),
            format!("-n {generator} link set far0 up"),
            format!("-n {server} route add 198.18.0.0/16 via 198.19.0.2"),
            format!("-n {generator} route add local 198.18.0.0/16 dev lo"),
        ] {
            ip(&line)?;
        }
        Ok(topology)
    }

    /// Makes the wire that of two hosts: each end does its own work on its own processors, and not on those of whoever sent. The kernel
    /// has the driver's work done by threads where a program is in the driver, and by interrupts elsewhere. With `offload` the
    /// generator's end also completes its checksums, as programs need it, and takes what programs send, as long as what is
    /// returned lives.
    pub(crate) fn steer(&self, cpus: &Cpus, offload: bool) -> io::Result<Vec<OwnedFd>> {
        let ends =
            [(&self.server_namespace, "eth0", &cpus.server), (&self.generator_namespace, "far0", &cpus.generator)];
        let mut held = Vec::new();
        for (namespace, interface, cpus) in ends {
            let namespace = namespace.as_deref().ok_or_else(|| io::Error::other("offload needs a veth pair"))?;
            let mask = cpus.iter().fold(0u64, |mask, cpu| mask | 1 << cpu);
            let script = format!("echo {mask:x} >/sys/class/net/{interface}/queues/rx-0/rps_cpus");
            run(Command::new("ip").args(["netns", "exec", namespace, "sh", "-ec", &script]))?;
            if interface == "far0" {
                held.extend(within(namespace, || {
                    veth::checksums_by_hardware(interface, !offload)?;
                    offload.then(|| veth::let_everything_in(interface)).transpose()
                })?);
            }
        }
        Ok(held)
    }

    /// Where a program is in the driver: has the driver's work done by threads, on the processors of their ends and, like that of
    /// interrupts, before all else there. To be called when the program is there.
    pub(crate) fn pin_driver(&self, cpus: &Cpus) -> io::Result<()> {
        for (namespace, interface) in [(&self.server_namespace, "eth0"), (&self.generator_namespace, "far0")] {
            let namespace = namespace.as_deref().ok_or_else(|| io::Error::other("offload needs a veth pair"))?;
            let script = format!("echo 1 >/sys/class/net/{interface}/threaded");
            run(Command::new("ip").args(["netns", "exec", namespace, "sh", "-ec", &script]))?;
        }
        for process in std::fs::read_dir("/proc")?.flatten() {
            let Ok(name) = std::fs::read_to_string(process.path().join("comm")) else { continue };
            let cpus = match name.strip_prefix("napi/").and_then(|rest| rest.split('-').next()) {
                Some("eth0") => &cpus.server,
                Some("far0") => &cpus.generator,
                _ => continue,
            };
            let id = process.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
            system::pin(id, cpus)?;
            system::put_first(id)?;
        }
        Ok(())
    }

    /// Where the next server is to listen, without and with TLS: ports that are free for UDP and TCP and no relay ports.
    pub(crate) fn listen(&self) -> io::Result<[SocketAddrV4; 2]> {
        if self.server_namespace.is_some() {
            return Ok([3478, 5349].map(|port| SocketAddrV4::new(self.server, port)));
        }
        let start = std::process::id() as u16 % 1000 + 5000;
        let mut free = (start..*RELAY_PORTS.start())
            .map(|port| SocketAddrV4::new(self.server, port))
            .filter(|&address| UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok());
        let both = free.next().zip(free.next());
        both.map(|(plain, secured)| [plain, secured]).ok_or_else(|| io::Error::other("no free ports for the server"))
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        for name in [&self.server_namespace, &self.generator_namespace].into_iter().flatten() {
            delete(name);
        }
    }
}

fn ip(line: &str) -> io::Result<()> {
    run(Command::new("ip").args(line.split(' ')))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Does something in the network of a namespace.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| system::enter_namespace(namespace).and_then(|()| work()));
        inside.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

fn delete(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
}

/// Removes what benchmarks that were killed have left behind.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            delete(&name);
        }
    }
}
