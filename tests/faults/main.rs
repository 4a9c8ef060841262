//! Faults around a running server: system calls that fail, workers that panic, clocks that are set, disks that are full, interfaces
//! that vanish. What each costs, and that it is over when the fault is.
//!
//! Needs root, iproute2, util-linux, and a build with offload (clang). Stores that fail are in `tests/store` and `tests/elsewhere`,
//! descriptors that run out for real in `tests/process`, a worker that is held still in `tests/service`.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../offload/network.rs"]
mod network;

mod call;
mod calls;
mod clock;
mod disk;
mod inject;
mod links;
mod panics;
