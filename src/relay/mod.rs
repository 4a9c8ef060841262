//! The data path and its input/output: workers, batched UDP, TCP streams, relay sockets, TCP relaying.
//!
//! A [`Relay`] is a set of workers. Each worker is one thread with a runtime of its own that owns everything of its clients:
//! listeners (shared with the other workers by the kernel, which pins a client to one of them), relay sockets, the
//! protocol's state, buffers. What workers share is in `shared.rs`.
//!
//! The protocol itself is in [`crate::turn`]; here it is only asked what to do, and done.

mod accept;
mod clock;
mod complaint;
mod core;
mod current;
mod data_connection;
mod datagrams;
mod departed;
mod desk;
#[doc(hidden)]
pub mod dtls;
mod errands;
mod events;
mod fault;
mod grouping;
mod inquiries;
mod kept;
mod limits;
mod listeners;
mod mail;
mod monitor;
mod offload;
mod open;
mod outbox;
mod outlets;
mod pace;
mod passed;
mod peers;
mod ports;
#[doc(hidden)]
pub mod proxy;
mod queue;
mod reload;
mod rendezvous;
mod route;
mod rules;
mod sessions;
mod shared;
mod spaces;
mod start;
mod stream;
mod supervise;
mod system;
mod tcp_relay;
mod tls;
mod worker;

pub use complaint::log_panics;
pub use events::{Event, Heard, Listener, Stamped};
pub use limits::StateError;
pub use listeners::{Endpoint, KernelDrops};
pub use monitor::{BATCH_BOUNDS, Batches, Filter, Monitor, PortUse, Recalled, Report, Stretch, Told};
pub use offload::{FORWARDING_OFF, OffloadCounts, OffloadReport, Privileges};
pub use passed::PassedSockets;
pub use reload::Reloaded;
pub use start::{Counts, Relay, StartError};
pub use system::DatagramPath;
