//! What systemd does with the server: it is told when clients are served and whether the server is alive, hands over sockets that
//! are open already, secrets, and a log that takes fields; the units, and what they allow.
//!
//! Needs root, systemd's tools (not a running systemd), and `unshare` and `mount` (util-linux, mount).

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod activation;
mod credentials;
mod journal;
mod notifications;
mod tracee;
mod units;
