//! What is measured, as the command line says it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Relay benchmark: this server and the peers found on this machine, in turn, under the same load.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench relay --")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What the benchmark starts itself as.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The load generator.
    #[command(hide = true)]
    Generate {
        /// A job, in JSON.
        job: String,
    },
    /// A server made of the `turn` crate.
    #[command(hide = true)]
    TurnCrate {
        /// Address and port to listen on.
        listen: std::net::SocketAddrV4,
        /// Network namespace to serve in.
        #[arg(long)]
        namespace: Option<String>,
        /// Threads.
        #[arg(long)]
        workers: usize,
    },
}

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// A few short runs: to see that it works, not to cite.
    #[arg(long)]
    pub(crate) quick: bool,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Measure::DEFAULT)]
    pub(crate) measure: Vec<Measure>,
    /// Servers to run, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::DEFAULT)]
    pub(crate) servers: Vec<Kind>,
    /// Numbers of flows. Any of the five workload options replaces the standard set by all combinations.
    #[arg(long, value_delimiter = ',')]
    pub(crate) flows: Vec<usize>,
    /// Payload sizes in bytes, 24 to 1400.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(24..=1400))]
    pub(crate) payload: Vec<u16>,
    /// Directions: up is from client to peer.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) direction: Vec<Direction>,
    /// Datagrams that a flow sends back to back, 1 to 32.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) burst: Vec<u8>,
    /// What clients use, and what is at the other end of a flow.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) path: Vec<Path>,
    /// Relayed packets per second that are offered.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) rate: u64,
    /// Repetitions of every measurement [default: 5; quick: 1].
    #[arg(long)]
    pub(crate) repetitions: Option<usize>,
    /// Seconds of load that are measured [default: 3; quick: 1].
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Where the traffic runs.
    #[arg(long, value_enum, default_value_t = Topology::Auto)]
    pub(crate) topology: Topology,
    /// Workers of this server, relay threads of coturn; each has a processor.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
    /// Processors for the servers [default: the last ones, as many as workers].
    #[arg(long, value_delimiter = ',')]
    pub(crate) server_cpus: Vec<usize>,
    /// Processors for the generator [default: all others].
    #[arg(long, value_delimiter = ',')]
    pub(crate) generator_cpus: Vec<usize>,
    /// This server's binary.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_turnserver"))]
    pub(crate) ours: PathBuf,
    /// Another build of this server, to compare with.
    #[arg(long)]
    pub(crate) baseline: Option<PathBuf>,
    /// Coturn's binary.
    #[arg(long, default_value = "/usr/bin/turnserver")]
    pub(crate) coturn: PathBuf,
    /// The binary of the `turn-server` crate.
    #[arg(long, default_value = "turn-server")]
    pub(crate) turn_server: PathBuf,
    /// More lines for this server's configuration, in TOML; tables that it already has cannot be opened again.
    #[arg(long, default_value = "")]
    pub(crate) ours_extra: String,
    /// The generator's sockets take coalesced trains, as a network card that segments would.
    #[arg(long)]
    pub(crate) receiver_gro: bool,
    /// The generator sends bursts one datagram at a time.
    #[arg(long)]
    pub(crate) no_gso: bool,
    /// Microseconds for which the generator collects what is due before it sends, as a network card collects packets
    /// before it interrupts; 0 for each packet at its own time. Latency is always measured with 0.
    #[arg(long, default_value_t = 100)]
    pub(crate) tick: u64,
    /// Write all results to this file, in JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Plot CPU per packet against flows to this file.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../relay-benchmark.svg"))]
    pub(crate) svg: PathBuf,
    /// Keep the servers' logs in this directory.
    #[arg(long)]
    pub(crate) logs: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl RunOptions {
    pub(crate) fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 3.0 }).clamp(0.2, 60.0)
    }
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// CPU per relayed packet at a fixed rate.
    Cpu,
    /// Latency at 10,000 packets per second.
    Latency,
    /// Memory per idle allocation.
    Memory,
    /// Allocations set up and torn down per second.
    Allocations,
    /// The highest rate held with at most 0.1 % loss; takes long.
    MaxRate,
}

impl Measure {
    const DEFAULT: [Self; 4] = [Self::Cpu, Self::Latency, Self::Memory, Self::Allocations];
}

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// This server.
    Ours,
    /// This server with offload in the driver (needs veth).
    Native,
    /// This server with offload in front of the stack (needs veth).
    Generic,
    /// Another build of this server.
    Baseline,
    /// Coturn.
    Coturn,
    /// A server made of the `turn` crate.
    TurnCrate,
    /// The `turn-server` crate.
    TurnServer,
}

impl Kind {
    const DEFAULT: [Self; 5] = [Self::Ours, Self::Baseline, Self::Coturn, Self::TurnCrate, Self::TurnServer];

    /// Whether the kernel relays.
    pub(crate) const fn is_offloaded(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Native => "ours, XDP native",
            Self::Generic => "ours, XDP generic",
            Self::Baseline => "baseline",
            Self::Coturn => "coturn",
            Self::TurnCrate => "turn (crate)",
            Self::TurnServer => "turn-server (crate)",
        }
    }
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// From client to peer.
    Up,
    /// From peer to client.
    Down,
    /// Half up, half down.
    Both,
}

/// What a flow's two ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// A UDP client and a peer that is no client.
    Udp,
    /// A TCP client and a peer that is no client.
    Tcp,
    /// A TLS client and a peer that is no client.
    Tls,
    /// A DTLS client and a peer that is no client.
    Dtls,
    /// Two UDP clients of the same server, relayed address to relayed address.
    RelayToRelay,
}

impl Path {
    /// Whether clients send bare datagrams.
    pub(crate) const fn is_plain_udp(self) -> bool {
        matches!(self, Self::Udp | Self::RelayToRelay)
    }

    /// Whether the server needs a certificate for it.
    pub(crate) const fn is_secured(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }
}

/// Where the traffic runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// A veth pair if this is root's, else loopback.
    Auto,
    /// Everything in this namespace, on 127.0.0.0/8.
    Loopback,
    /// A veth pair between two network namespaces, made for this and removed afterwards.
    Veth,
}
