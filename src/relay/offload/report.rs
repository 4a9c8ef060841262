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

/// Why the kernel's program has passed packets to ports of this server up to user space, by name, and how many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffloadCounts {
    /// Passed up: they are served there.
    pub passed: Vec<(&'static str, u64)>,
    /// Lost: changed already when sending proved impossible.
    pub lost: u64,
}
