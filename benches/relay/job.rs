//! What the benchmark asks of its load generator, and what that answers. Both cross a process border in JSON.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::{Direction, Path};

/// The user of every server.
pub(crate) const USER: &str = "bench";
/// Its password.
pub(crate) const PASSWORD: &str = "bench-password";
/// The realm of every server.
pub(crate) const REALM: &str = "bench.example";

/// The largest share of packets that may be lost at a rate that counts as held.
pub(crate) const HELD_LOSS: f64 = 0.001;

/// One workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) path: Path,
    pub(crate) flows: usize,
    pub(crate) payload: u16,
    pub(crate) direction: Direction,
    pub(crate) burst: u8,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = match self.path {
            Path::Udp => "UDP",
            Path::Tcp => "TCP",
            Path::Tls => "TLS",
            Path::Dtls => "DTLS",
            Path::RelayToRelay => "relay to relay",
        };
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
            Direction::Both => "both ways",
        };
        write!(f, "{path}, {} flows, {} B, {direction}, bursts of {}", self.flows, self.payload, self.burst)
    }
}

/// Where a server offers TLS or DTLS, and how it is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Secured {
    pub(crate) server: SocketAddrV4,
    /// A PEM file.
    pub(crate) certificate: PathBuf,
    /// It is DTLS.
    pub(crate) dtls: bool,
}

/// One start of the generator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) namespace: Option<String>,
    pub(crate) server: SocketAddrV4,
    /// For workloads that need it.
    pub(crate) secured: Option<Secured>,
    pub(crate) server_pid: u32,
    pub(crate) server_cpus: Vec<usize>,
    /// What is left of them is taken and counted.
    pub(crate) filled: bool,
    /// The first two bytes of all client addresses.
    pub(crate) clients: [u8; 2],
    /// The address of peers.
    pub(crate) peer: Ipv4Addr,
    pub(crate) receiver_gro: bool,
    pub(crate) gso: bool,
    /// Microseconds between two sendings.
    pub(crate) tick: u64,
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    /// Load at a fixed rate, halved until the server holds it.
    Load { workload: Workload, rate: u64, seconds: f64, latency: bool },
    /// The highest rate held.
    Search { workload: Workload, rate: u64, seconds: f64 },
    /// So many idle allocations.
    Memory { allocations: usize },
    /// Allocations that come and go.
    Churn { seconds: f64, in_flight: usize },
}

/// What came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Load(LoadResult),
    /// The highest rate held, and the run that held it.
    Search {
        pps: u64,
        limit: Limit,
        run: Option<LoadResult>,
    },
    Memory {
        allocations: usize,
        before: u64,
        after: u64,
    },
    Churn(ChurnResult),
    Failed(String),
}

/// Who gave up first in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    Server,
    Generator,
}

/// One run at one rate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LoadResult {
    /// Packets per second that were to be offered.
    pub(crate) rate: u64,
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Wrong checksum, wrong flow or wrong sender.
    pub(crate) corrupt: u64,
    /// Packets that arrived between the two readings of the CPU clocks.
    pub(crate) relayed: u64,
    pub(crate) process_ns_per_packet: f64,
    pub(crate) core_ns_per_packet: f64,
    /// Share of the generator's time in which it had nothing to do.
    pub(crate) headroom: f64,
    /// Share of the server's processors that was busy before the load began.
    pub(crate) background: f64,
    /// Share of the time in which the server could have run but something else did.
    pub(crate) waited: f64,
    /// Why the generator, or something else on this machine, and not the server, may be what was measured.
    pub(crate) invalid: Option<String>,
    /// Version and cipher suite that the server chose, where there is TLS.
    pub(crate) security: Option<String>,
    /// Microseconds, where latency was asked for.
    pub(crate) latency_p50: Option<f64>,
    pub(crate) latency_p99: Option<f64>,
}

impl LoadResult {
    pub(crate) fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.sent.saturating_sub(self.received) as f64 / self.sent as f64 }
    }

    pub(crate) fn held(&self) -> bool {
        self.sent > 0 && self.loss() <= HELD_LOSS && self.corrupt == 0
    }
}

/// Allocations that came and went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChurnResult {
    pub(crate) seconds: f64,
    /// Allocate, 401, Allocate, ChannelBind, Refresh with lifetime 0: all of it once.
    pub(crate) cycles: u64,
    pub(crate) retransmissions: u64,
    /// Cycles per second of the server's processors being busy.
    pub(crate) cycles_per_busy_second: f64,
    /// CPU time of the server process per cycle.
    pub(crate) process_ns_per_cycle: f64,
    pub(crate) headroom: f64,
}
