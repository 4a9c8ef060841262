//! Conformance: the observable statements of RFC 8489, RFC 8656, RFC 8016 and of the robustness rules, tested against the running
//! binary. Each test bears the id of its statement; `coverage.md` lists them all, and `coverage.rs` checks that it does.
//!
//! `TURNSERVER_TEST_UDP_IO=portable` runs every server with `udp-io = "portable"`, and `batched` likewise; `TURNSERVER_TEST_MERGING=refused`
//! on a system that refuses to merge datagrams, `partly-refused` on one that refuses it to some sockets.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

mod client;
mod setup;
mod sniff;
mod wire;

mod dtls;
mod tls;

mod r5780_discovery;
mod r6062_allocate;
mod r6062_connect;
mod r6062_data;
mod r6062_end;
mod r6062_setup;
mod r7635_token;
mod r8016_mobility;
mod r8489_compatibility;
mod r8489_credentials;
mod r8489_discard;
mod r8489_message;
mod r8489_nonce;
mod r8489_redirect;
mod r8489_tcp;
mod r8656_address_families;
mod r8656_allocate;
mod r8656_channel;
mod r8656_channel_data;
mod r8656_expiry;
mod r8656_general;
mod r8656_icmp;
mod r8656_ip_header;
mod r8656_permission;
mod r8656_refresh;
mod r8656_reservation;
mod r8656_send;
mod rest;

mod hostile_flood;
mod hostile_input;
mod hostile_peers;
mod hostile_tcp;

mod coverage;
