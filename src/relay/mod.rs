//! The data path and its input/output: workers, batched UDP, TCP streams, relay sockets, TCP relaying.
//!
//! A [`Relay`] is a set of workers. Each worker is one thread with a runtime of its own that owns everything of its clients:
//! listeners (shared with the other workers by the kernel, which pins a client to one of them), relay sockets, the
//! protocol's state, buffers. What workers share is in `shared.rs`.
//!
//! The protocol itself is in [`crate::turn`]; here it is only asked what to do, and done.

mod clock;
mod complaint;
mod core;
mod data_connection;
mod datagrams;
mod mail;
mod open;
mod ports;
mod queue;
mod rendezvous;
mod rules;
mod shared;
mod start;
mod stream;
mod system;
mod tcp_relay;
mod worker;

pub use start::{Endpoint, Relay, StartError};
