//! The protocol: allocations, permissions, channels, nonces (RFC 8656, RFC 8489 §9), peer connections (RFC 6062).
//!
//! A [`Server`] is a value without sockets, clocks or threads. It is told the time, who sent which bytes, and answers what
//! to do: where to send which range of those bytes, or a reply, or a question ([`Step`]). What it needs from outside while
//! it works on one request (who the user is, relay sockets) it asks for by returning, and the caller calls again with the
//! answer: no state hides in closures or tasks. What ends by itself is reported as [`Effect`]s. Who a user is, and what proves
//! it, are plain values of [`crate::auth`]; how they are found is none of this room's business.
//!
//! * Hot: [`Server::from_client`] for ChannelData and Send, [`Server::from_peer`]. No allocation, no copy.
//! * Cold: everything that is answered.
//!
//! One `Server` belongs to one worker and holds whole clients, never parts of one.

mod allocate;
mod allocation;
mod authentication;
mod binding;
mod bound;
mod challenge;
mod channel;
mod channel_bind;
mod client;
mod connect;
mod connection;
mod counters;
mod create_permission;
mod data;
mod discovery;
mod meter;
mod mobility;
mod nonce;
mod notes;
mod overview;
mod peak;
mod permission;
mod reason;
mod records;
mod redirect;
mod refresh;
mod renew;
mod reply;
mod revoke;
mod rules;
mod server;
mod table;
mod time;

pub use allocate::{AddressRequest, Grant, PendingAllocate, Refusal, RelayProtocol};
pub use allocation::{AllocationId, EndReason, SessionSummary};
pub use authentication::{Answer, Credential, Identity, Query, RealmId, Subject, Term};
pub use bound::Bound;
pub use client::{Client, Family, FiveTuple, RelayId, Route, Transport};
pub use connect::{BindRefusal, ConnectRequest, PeerConnection, PendingBind};
pub use connection::{ConnectionId, ConnectionIds, Flow};
pub use counters::{Census, Drop, Families, Mechanism, Responses, Totals, Traffic, Verdict};
pub use data::{HEADROOM, IcmpError, ToClient, ToPeer};
pub use discovery::{Discovery, DiscoveryAddress};
pub use meter::Meter;
pub use mobility::Mobility;
pub use overview::{Detail, SessionView};
pub use peak::Peak;
pub use reason::{Ended, History, Incident, Reason, Text, Tried};
pub use records::{Arrival, Recollection, Whom};
pub use revoke::{Basis, Revocation};
pub use rules::{Alternate, Policy, Realm, Redirect, Rules, Unauthenticated};
pub use server::{Effect, Elsewhere, Server, Step};
pub use table::Handle;
pub use time::Time;

/// Bytes that a reply buffer must have: enough for the longest response this server makes, whatever the realm, except for the
/// PADDING of NAT discovery ([`Server::reply_len`]).
///
/// A response to an unknown path MTU should stay within 548 bytes on IPv4 (RFC 8489 §6.1); with realms of ordinary length
/// all of them do.
pub const REPLY_LEN: usize = 2048;
