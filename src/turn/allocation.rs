//! One allocation (RFC 8656 §3.2): plain data, so that it can be listed, measured and one day handed to another process.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Client, Family, FiveTuple, History, Refusal, RelayId, Subject, Time, Traffic, authentication::Requester,
    channel::Channels, connection::Connections, meter::Meter, mobility::Mobile, permission::Permissions,
};
use crate::stun::TransactionId;

/// Identifies an allocation for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A relayed transport address of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relayed {
    /// The socket behind it.
    pub(super) relay: RelayId,
    /// The address that clients and peers see.
    pub(super) address: SocketAddr,
    /// When it ends; both addresses of a dual allocation have their own (RFC 8656 §8.2).
    pub(super) expires: Time,
}

/// An allocation with all that belongs to it.
pub(super) struct Allocation {
    pub(super) id: AllocationId,
    pub(super) client: Client,
    /// Who made it, with the key of the Allocate.
    pub(super) owner: Requester,
    /// Relayed addresses by family; at least one as long as the allocation is in the table.
    pub(super) relayed: [Option<Relayed>; 2],
    pub(super) permissions: Permissions,
    pub(super) channels: Channels,
    /// Peer connections; only a TCP allocation (RFC 6062) has any.
    pub(super) connections: Option<Box<Connections>>,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
    pub(super) created: Time,
    /// What its data have met with.
    pub(super) history: History,
    /// Transaction id of the Allocate, by which its retransmissions are known (RFC 8656 §7.2).
    pub(super) transaction_id: TransactionId,
    /// Token of the port that was reserved with it.
    pub(super) token: Option<[u8; 8]>,
    /// The family that could not be had, when both were asked for.
    pub(super) refused: Option<(Family, Refusal)>,
    /// The client's connection is gone, and the allocation waits for its ticket (RFC 8016).
    pub(super) away: bool,
    /// There if the client has asked for a ticket.
    pub(super) mobile: Option<Box<Mobile>>,
    /// There if it is held to limits of rates or peers.
    pub(super) meter: Option<Box<dyn Meter>>,
    /// When the table will look at it next; never later than [`Allocation::next_deadline`].
    pub(super) armed: Time,
}

impl Allocation {
    /// The relayed address of this family, unless it has expired.
    pub(super) fn relayed(&self, family: Family, now: Time) -> Option<&Relayed> {
        self.relayed[family as usize].as_ref().filter(|relayed| relayed.expires > now)
    }

    /// Whether any relayed address is left.
    pub(super) fn is_live(&self, now: Time) -> bool {
        Family::ALL.into_iter().any(|family| self.relayed(family, now).is_some())
    }

    /// Time left of the relayed addresses chosen by `family` (all if `None`); of the longest-lived one.
    pub(super) fn time_left(&self, family: Option<Family>, now: Time) -> Duration {
        Family::ALL
            .into_iter()
            .filter(|candidate| family.is_none_or(|family| family == *candidate))
            .filter_map(|family| self.relayed(family, now))
            .map(|relayed| relayed.expires.since(now))
            .max()
            .unwrap_or_default()
    }

    /// The earliest time at which something of it expires.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let relayed = self.relayed.iter().flatten().map(|relayed| relayed.expires).min();
        let connections = self.connections.as_ref().and_then(|connections| connections.next_expiry());
        [relayed, self.permissions.next_expiry(), self.channels.next_expiry(), connections].into_iter().flatten().min()
    }

    pub(super) fn summary(&self, reason: EndReason, now: Time) -> SessionSummary {
        SessionSummary {
            id: self.id,
            subject: Arc::clone(&self.owner.subject),
            client: self.client.tuple,
            duration: now.since(self.created),
            to_peers: self.to_peers,
            to_client: self.to_client,
            reason,
        }
    }
}

/// Why an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// It was not refreshed in time.
    Expired,
    /// The client asked for it (Refresh with lifetime 0).
    Deleted,
    /// The credential that it was made with is over.
    CredentialExpired,
    /// Its user, the secret behind its credential, or it alone was revoked.
    Revoked,
    /// The client's TCP connection is gone.
    ConnectionClosed,
    /// The server stops.
    Stopped,
    /// Handling it failed in a way that is a bug of this server; it alone was given up.
    Fault,
    /// The worker that served it failed in a way that is a bug of this server.
    Lost,
    /// An operator ended it.
    Disconnected,
}

// They are counted by place.
const _: () = assert!(EndReason::ALL.len() == EndReason::Disconnected as usize + 1);

impl EndReason {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Expired,
        Self::Deleted,
        Self::CredentialExpired,
        Self::Revoked,
        Self::ConnectionClosed,
        Self::Stopped,
        Self::Fault,
        Self::Lost,
        Self::Disconnected,
    ];

    /// A short name, as in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::CredentialExpired => "credential-expired",
            Self::Revoked => "revoked",
            Self::ConnectionClosed => "connection-closed",
            Self::Stopped => "stopped",
            Self::Fault => "fault",
            Self::Lost => "lost",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What is left to say of an allocation that has ended.
#[derive(Debug, Clone)]
pub struct SessionSummary {
    /// Its id.
    pub id: AllocationId,
    /// Whose it was; the user is empty for an anonymous client.
    pub subject: Arc<Subject>,
    /// Its 5-tuple.
    pub client: FiveTuple,
    /// How long it lived.
    pub duration: Duration,
    /// Data from the client to peers.
    pub to_peers: Traffic,
    /// Data from peers to the client.
    pub to_client: Traffic,
    /// Why it ended.
    pub reason: EndReason,
}
