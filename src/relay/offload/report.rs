//! What was chosen, in words for operators, and what the kernel has counted.

use std::fmt;

/// How the kernel relays here, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffloadReport {
    /// The configuration does not ask for it.
    Off,
    /// It would be wanted, but nothing comes of it.
    Unavailable(String),
    /// The kernel relays.
    On {
        /// `native` or `generic`.
        mode: &'static str,
        /// The interfaces that the program is attached to.
        interfaces: Vec<String>,
        /// Why it is this mode, where that was a choice.
        why: Option<String>,
    },
}

impl OffloadReport {
    /// `off`, `unavailable`, `native` or `generic`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unavailable(_) => "unavailable",
            Self::On { mode, .. } => mode,
        }
    }
}

impl fmt::Display for OffloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unavailable(why) => write!(f, "none: {why}"),
            Self::On { mode, interfaces, why } => {
                write!(f, "{mode} on {}", interfaces.join(", "))?;
                why.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
            }
        }
    }
}

/// The reason for passing packets up that means that nothing is relayed.
pub const FORWARDING_OFF: &str = "forwarding-off";

/// Why packets are passed up, in the order of the program, which counts those that it loses after them.
const REASONS: [&str; 12] = [
    "unbound",
    "expired",
    "fragment",
    "length",
    "checksum",
    "hops",
    "route",
    FORWARDING_OFF,
    "neighbour",
    "mtu",
    "interface",
    "headroom",
];

/// What the kernel's program has not relayed of what came to ports of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffloadCounts {
    /// Packets passed up to user space, which serves them, by reason.
    pub passed: [(&'static str, u64); REASONS.len()],
    /// Packets lost: changed already when sending proved impossible.
    pub lost: u64,
    /// Channels for which there was no room.
    pub no_room: u64,
}

impl OffloadCounts {
    /// How many packets were passed up for this reason.
    #[must_use]
    pub fn passed(&self, reason: &str) -> u64 {
        self.passed.iter().find(|(name, _)| *name == reason).map_or(0, |(_, packets)| *packets)
    }
}

impl Default for OffloadCounts {
    fn default() -> Self {
        Self { passed: REASONS.map(|reason| (reason, 0)), lost: 0, no_room: 0 }
    }
}
