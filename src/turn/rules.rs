//! What the protocol is told once: its parameters, and the policy that it asks.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    ConnectionIds, Discovery, RealmId, Time,
    client::{Family, Transport},
    mobility::Mobility,
};
use crate::stun::{ChannelNumber, ErrorCode, PasswordAlgorithm};

/// Parameters of a [`super::Server`].
#[derive(Debug, Clone)]
pub struct Rules {
    /// What clients are told, by [`RealmId`].
    pub realms: Vec<Realm>,
    /// Serve without credentials.
    pub anonymous: bool,
    /// How long a nonce is valid.
    pub nonce_lifetime: Duration,
    /// Lifetime of an allocation that asks for none or less (RFC 8656 §7.2).
    pub default_lifetime: Duration,
    /// Longest lifetime granted.
    pub max_lifetime: Duration,
    /// Permission lifetime (RFC 8656 §9).
    pub permission_lifetime: Duration,
    /// Channel binding lifetime (RFC 8656 §12).
    pub channel_lifetime: Duration,
    /// Permissions per allocation.
    pub max_permissions: usize,
    /// Channels per allocation.
    pub max_channels: usize,
    /// Family of an allocation that asks for none; `None` is the family that the client uses.
    pub default_family: Option<Family>,
    /// UDP is relayed; otherwise a UDP relayed address is forbidden (RFC 6062 §5.1).
    pub udp_relaying: bool,
    /// TCP is relayed (RFC 6062).
    pub tcp_relaying: bool,
    /// Peer connections per TCP allocation.
    pub max_connections: usize,
    /// How long a peer connection waits for its ConnectionBind (RFC 6062 §5.2).
    pub bind_timeout: Duration,
    /// Which CONNECTION-IDs this server may give out, so that no two workers give out the same.
    pub connection_ids: ConnectionIds,
    /// Families that can be relayed.
    pub families: Vec<Family>,
    /// SOFTWARE, if it is sent.
    pub software: Option<String>,
    /// Add FINGERPRINT to every response; otherwise to responses to requests that have it.
    pub always_fingerprint: bool,
    /// Whether the DF bit can be set per datagram; otherwise DONT-FRAGMENT is an unknown attribute (RFC 8656 §7.2).
    pub dont_fragment: bool,
    /// Answer Binding requests of RFC 3489.
    pub rfc3489: bool,
    /// Accept channel numbers of RFC 5766 (0x4000–0x7FFF).
    pub wide_channels: bool,
    /// Send new allocations elsewhere (RFC 8489 §10).
    pub redirect: Option<Redirect>,
    /// Let allocations move to another 5-tuple (RFC 8016).
    pub mobility: Option<Mobility>,
    /// Where NAT discovery is offered (RFC 5780): at most once per family.
    pub discovery: Vec<Discovery>,
}

/// What clients of one realm are told to authenticate with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// REALM.
    pub name: String,
    /// PASSWORD-ALGORITHMS, in the order sent (RFC 8489 §14.11).
    pub password_algorithms: Vec<PasswordAlgorithm>,
    /// Users may hide their names in USERHASH (RFC 8489 §9.2).
    pub user_hashes: bool,
    /// Access tokens serve: the server's name for THIRD-PARTY-AUTHORIZATION (RFC 7635 §6.1).
    pub third_party: Option<String>,
}

impl Rules {
    /// The granted lifetime for a requested one (RFC 8656 §7.2): `max(default, min(requested, maximum))`.
    pub(super) fn lifetime(&self, requested: Option<u32>) -> Duration {
        let requested = requested.map_or(self.default_lifetime, |seconds| Duration::from_secs(seconds.into()));
        requested.min(self.max_lifetime).max(self.default_lifetime)
    }

    /// The numbers that channels may have.
    pub(super) const fn channels(&self) -> RangeInclusive<u16> {
        if self.wide_channels { ChannelNumber::WIDE_RANGE } else { ChannelNumber::RANGE }
    }
}

/// Where new allocations are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// ALTERNATE-SERVER candidates, taken in turn.
    pub servers: Vec<Alternate>,
    /// How many of 100 Allocate requests are redirected.
    pub share: u8,
}

/// One alternate server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternate {
    /// Its address.
    pub address: SocketAddr,
    /// The transports that it serves.
    pub transports: Vec<Transport>,
    /// How often it has its turn, in relation to the others; 0 never.
    pub weight: u32,
    /// ALTERNATE-DOMAIN: the name in its certificate.
    pub domain: Option<String>,
}

/// The kinds of answers that anybody can draw without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthenticated {
    /// An answer to a Binding request.
    Binding,
    /// A 401, or another error before authentication succeeded; a 438, too, to whoever may not receive at its address.
    Challenge,
}

/// What is decided outside the protocol, asked while a message is worked on.
pub trait Policy {
    /// Whether data of this realm's users may be sent to and taken from this peer.
    fn permits(&self, realm: RealmId, peer: SocketAddr) -> bool;

    /// Whether a connection may be opened to this peer (RFC 6062 §5.2).
    fn permits_connection(&self, realm: RealmId, peer: SocketAddr) -> bool;

    /// Whether a permission for this address may be installed.
    fn permits_ip(&self, realm: RealmId, peer: IpAddr) -> bool;

    /// The rule that refuses a peer, in words; `None` if it is not refused. With port 0, a permission for its IP address.
    fn denial(&self, _realm: RealmId, _peer: SocketAddr) -> Option<String> {
        None
    }

    /// The error that new allocations get while there may be none, unless there is another server to name (300).
    fn refuses_allocations(&self) -> Option<ErrorCode> {
        None
    }

    /// Whether this source may draw one more unauthenticated answer now.
    fn admits(&mut self, kind: Unauthenticated, source: IpAddr, now: Time) -> bool;
}
