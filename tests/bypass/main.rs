//! Ways around the rules for peers: every special-purpose range of IANA's registries, in every spelling, on every path by which a
//! client names a peer or a peer reaches a client; the server's own addresses; loops of relays. The table says of each row what is
//! expected and why, without asking the server's own list.
//!
//! Needs root and iproute2: hosts with such addresses are made.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../conformance/client.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../offload/network.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod network;
#[path = "../conformance/setup.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod setup;
#[path = "../conformance/wire.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod wire;

mod incoming;
mod outgoing;
mod own;
mod support;
mod table;
