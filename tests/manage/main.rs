//! Management from outside: every endpoint and every verb of `turnserver ctl`, who may use them, what they are bounded by,
//! metrics that agree with what clients did, and draining under traffic.
//!
//! Needs `promtool` (Debian's prometheus).

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod credentials;
mod ctl;
mod drain;
mod events;
mod hostile;
mod limits;
mod metrics;
mod openapi;
mod routes;
mod sessions;
mod web;
