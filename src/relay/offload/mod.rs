//! Relaying in the kernel: a program at the interfaces (XDP, `bpf/relay.bpf.c`) relays data in channels of UDP clients, and passes
//! everything else up.
//!
//! User space is the authority. Each worker mirrors the channels of its clients into the kernel's tables (`mirror`): it alone
//! writes what belongs to them, as soon as the protocol reports a change, before the client hears of it and before a socket
//! closes. What is written carries the time of its end by the kernel's own clock, so that nothing outlives its allocation,
//! permission or binding however long user space sleeps. What the kernel has relayed is counted there exactly and read back.
//!
//! * `layout`: the tables' entries, as the program has them. `slots`: who has which place in them.
//! * `kernel`: the program and its tables. `interfaces`: where it is put. `privileges`: what that takes, and its end. `hold`: when nothing is
//!   relayed.
//! * `start`: the choice. `report`: what was chosen, and what the kernel has counted.
//!
//! Without clang at build time, without the feature `offload`, and elsewhere than on Linux `absent` stands in for all of it.

#[cfg(not(offload_program))]
mod absent;
#[cfg(offload_program)]
mod hold;
#[cfg(offload_program)]
mod interfaces;
#[cfg(offload_program)]
mod kernel;
#[cfg(offload_program)]
mod layout;
#[cfg(offload_program)]
mod mirror;
#[cfg(target_os = "linux")]
#[cfg_attr(not(offload_program), allow(dead_code, reason = "without the program they are only given up"))]
mod privileges;
mod report;
#[cfg(offload_program)]
mod slots;
#[cfg(offload_program)]
mod start;

#[cfg(not(target_os = "linux"))]
pub use absent::Privileges;
#[cfg(not(offload_program))]
pub(super) use absent::{Hold, Mirror, Offload, plan, start};
#[cfg(offload_program)]
pub(super) use hold::Hold;
#[cfg(offload_program)]
pub(super) use mirror::Mirror;
#[cfg(target_os = "linux")]
pub use privileges::Privileges;
pub use report::{FORWARDING_OFF, OffloadCounts, OffloadReport};
#[cfg(offload_program)]
pub(super) use start::{Offload, plan, start};

use std::net::SocketAddr;

/// Where a channel's data pass, in addresses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(offload_program), allow(dead_code, reason = "only the kernel's tables are written from it"))]
pub(super) struct Place {
    /// The relay socket's address.
    pub(super) relay: SocketAddr,
    /// Where the peer is reached.
    pub(super) peer: SocketAddr,
    /// That is a relayed address of this server.
    pub(super) hairpin: bool,
}

#[cfg(all(test, offload_program))]
mod tests;
