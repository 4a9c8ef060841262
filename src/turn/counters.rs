//! What is counted: per allocation, and in total per worker.

use super::{Credential, EndReason, Family, Transport};
use crate::stun::{AttributeType, Class, ErrorCode, Method, kind};

/// Application data relayed in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Datagrams; data of TCP allocations have none.
    pub packets: u64,
    /// Bytes of application data, without STUN or ChannelData headers.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one datagram.
    pub(super) const fn count(&mut self, bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Bytes of a stream.
    pub(super) const fn stream(bytes: u64) -> Self {
        Self { packets: 0, bytes }
    }

    /// Adds another count.
    pub const fn add(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Declares the drop reasons with their names.
macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why something was dropped in silence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Drop { $($(#[$doc])* $name,)* }

        impl Drop {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A short name, as in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drops! {
    /// The first byte belongs to no protocol that is served (RFC 7983).
    NotServed => "not-served",
    /// A STUN message that does not parse (RFC 8489 §6.3).
    Malformed => "malformed",
    /// A method, class or indication that a server does not take.
    Unexpected => "unexpected",
    /// An indication or ChannelData on a 5-tuple without an allocation.
    NoAllocation => "no-allocation",
    /// A peer's datagram for a client whose connection is gone and that has not come back with its ticket.
    ClientAway => "client-away",
    /// ChannelData on a channel that is not bound.
    NoChannel => "no-channel",
    /// A Send indication, or a peer's datagram or connection, without a permission.
    NoPermission => "no-permission",
    /// A peer that the policy refuses.
    PeerRefused => "peer-refused",
    /// A Send indication without a peer or data, or with a peer that cannot be reached from this allocation.
    BadIndication => "bad-indication",
    /// An unauthenticated answer that the source's rate limit held back.
    RateLimited => "rate-limited",
    /// A datagram beyond a limit of bandwidth.
    Bandwidth => "bandwidth",
    /// A datagram beyond a limit of datagrams per second.
    PacketRate => "packet-rate",
    /// Data after the bytes of the month were used up.
    MonthUsedUp => "month-used-up",
    /// A datagram larger than can be relayed in a message.
    TooLong => "too-long",
    /// The system refused to send the datagram.
    SendFailed => "send-failed",
    /// A slow TCP client's queue was full, or the data in it too old.
    QueueFull => "queue-full",
    /// A peer's connection when its allocation has as many as it may, or its client does not read.
    TooManyConnections => "too-many-connections",
    /// Data for another worker's client while too much waited for that worker.
    WorkerBusy => "worker-busy",
    /// An ICMP error that is not forwarded (RFC 8656 §11.5).
    Icmp => "icmp",
}

/// The methods whose requests are answered; requests of others are answered by one error at most, and counted together.
const METHODS: [Method; 7] = [
    Method::Binding,
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Connect,
    Method::ConnectionBind,
];

/// Places by method: each of [`METHODS`], then all others.
const BY_METHOD: usize = METHODS.len() + 1;
/// Places by outcome: success, each of [`ErrorCode::ALL`], then all other errors.
const BY_OUTCOME: usize = ErrorCode::ALL.len() + 2;

/// Responses by method and outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Responses([[u64; BY_OUTCOME]; BY_METHOD]);

impl Default for Responses {
    fn default() -> Self {
        Self([[0; BY_OUTCOME]; BY_METHOD])
    }
}

impl Responses {
    /// Counts a response as it is sent: what it answers stands in its type, and an error's code in its first attribute.
    pub(super) fn count(&mut self, response: &[u8]) {
        let Some(&[high, low]) = response.first_chunk() else { return };
        let (method, class) = kind::split(u16::from_be_bytes([high, low]));
        let row = METHODS.iter().position(|known| known.code() == method).unwrap_or(METHODS.len());
        let column = match class {
            Class::Success => 0,
            _ => error_place(response),
        };
        self.0[row][column] = self.0[row][column].wrapping_add(1);
    }

    /// Every place: the method's name (or "other"), the error's code (`None` for successes, 0 for all other errors), how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<u16>, u64)> + '_ {
        let names = METHODS.iter().map(|method| method.name()).chain(["other"]);
        let codes = || {
            let errors = ErrorCode::ALL.iter().map(|error| Some(error.code()));
            [None].into_iter().chain(errors).chain([Some(0)])
        };
        names.zip(&self.0).flat_map(move |(name, row)| codes().zip(row).map(move |(code, count)| (name, code, *count)))
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().flatten().zip(other.0.iter().flatten()).for_each(|(sum, more)| *sum += more);
    }
}

/// Where an error response is counted.
fn error_place(response: &[u8]) -> usize {
    const OTHER: usize = BY_OUTCOME - 1;
    let place = |code| ErrorCode::ALL.iter().position(|error| error.code() == code);
    error_code(response).and_then(place).map_or(OTHER, |at| at + 1)
}

/// The code of an error response, which stands in its first attribute.
pub(super) fn error_code(response: &[u8]) -> Option<u16> {
    let [high, low] = AttributeType::ERROR_CODE.0.to_be_bytes();
    match response.get(20..28) {
        Some(&[kind_high, kind_low, _, _, _, _, class, number]) if [kind_high, kind_low] == [high, low] => {
            Some(u16::from(class) * 100 + u16::from(number))
        }
        _ => None,
    }
}

/// What a request that needs credentials was made with: what let it in, or what was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Mechanism {
    /// Nothing: a client's first request.
    None,
    /// The password of a user in the configuration.
    Password,
    /// A secret of the configuration: a time-limited credential.
    Rest,
    /// An access token (RFC 7635).
    Token,
    /// What a store knows.
    Store,
    /// No mechanism knows the user.
    Unknown,
}

impl Mechanism {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::None, Self::Password, Self::Rest, Self::Token, Self::Store, Self::Unknown];

    /// Of what a credential of the configuration is.
    pub(super) const fn of(credential: &Credential) -> Self {
        match credential.secret {
            _ if credential.bearer => Self::Token,
            Some(_) => Self::Rest,
            None => Self::Password,
        }
    }

    /// A short name, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Rest => "rest",
            Self::Token => "token",
            Self::Store => "store",
            Self::Unknown => "unknown",
        }
    }
}

/// What the check of credentials came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Verdict {
    /// The request may go on.
    Passed,
    /// Asked for credentials, or refused with the ones given (401): without credentials the ordinary beginning.
    Unauthenticated,
    /// The nonce was too old (438).
    StaleNonce,
    /// Attributes were missing or contradicted each other (400).
    BadRequest,
    /// Right, but over: it serves what it has made, within its grace, and nothing new.
    Expired,
    /// The client was to show first that it receives at its address, before a store is asked (438).
    UnprovedAddress,
    /// An access token where none was asked for (420).
    UnexpectedToken,
    /// The store cannot be asked (500).
    Unavailable,
}

impl Verdict {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Passed,
        Self::Unauthenticated,
        Self::StaleNonce,
        Self::BadRequest,
        Self::Expired,
        Self::UnprovedAddress,
        Self::UnexpectedToken,
        Self::Unavailable,
    ];

    /// A short name, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unauthenticated => "unauthenticated",
            Self::StaleNonce => "stale-nonce",
            Self::BadRequest => "bad-request",
            Self::Expired => "expired",
            Self::UnprovedAddress => "unproved-address",
            Self::UnexpectedToken => "unexpected-token",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The relayed addresses of an allocation, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Families {
    /// One, of IPv4.
    V4,
    /// One, of IPv6.
    V6,
    /// One of each.
    Both,
}

impl Families {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Both];

    /// A short name, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
            Self::Both => "both",
        }
    }

    pub(super) const fn of<T>(relayed: &[Option<T>; 2]) -> Self {
        match (&relayed[Family::V4 as usize], &relayed[Family::V6 as usize]) {
            (Some(_), Some(_)) => Self::Both,
            (None, Some(_)) => Self::V6,
            (_, None) => Self::V4,
        }
    }
}

/// Allocations by the transport of their client and the families of their relayed addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census([[u64; Families::ALL.len()]; Transport::ALL.len()]);

impl Census {
    pub(super) const fn add_one(&mut self, transport: Transport, families: Families) {
        let place = &mut self.0[transport as usize][families as usize];
        *place = place.wrapping_add(1);
    }

    pub(super) const fn take_one(&mut self, transport: Transport, families: Families) {
        let place = &mut self.0[transport as usize][families as usize];
        *place = place.wrapping_sub(1);
    }

    /// How many there are.
    #[must_use]
    pub const fn get(&self, transport: Transport, families: Families) -> u64 {
        self.0[transport as usize][families as usize]
    }

    /// In all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().flatten().zip(other.0.iter().flatten()).for_each(|(sum, more)| *sum += more);
    }
}

/// What one worker has done since it started.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Allocations made.
    pub begun: Census,
    ended: [u64; EndReason::ALL.len()],
    /// Data from clients to peers, of ended allocations and of living ones; of TCP, what ended connections have relayed.
    pub to_peers: Traffic,
    /// Data from peers to clients.
    pub to_clients: Traffic,
    /// What of the data to peers the kernel has relayed by itself, as far as it has been asked.
    pub kernel_to_peers: Traffic,
    /// What of the data to clients the kernel has relayed by itself.
    pub kernel_to_clients: Traffic,
    /// Requests answered, by method and outcome.
    pub responses: Responses,
    credentials: [[u64; Verdict::ALL.len()]; Mechanism::ALL.len()],
    drops: [u64; Drop::ALL.len()],
}

impl Totals {
    /// Counts one drop.
    pub const fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] = self.drops[reason as usize].wrapping_add(1);
    }

    /// How much was dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// Counts what the kernel has relayed.
    pub const fn count_kernel(&mut self, to_peers: Traffic, to_clients: Traffic) {
        self.to_peers.add(to_peers);
        self.to_clients.add(to_clients);
        self.kernel_to_peers.add(to_peers);
        self.kernel_to_clients.add(to_clients);
    }

    /// Counts one end of an allocation.
    pub(super) const fn end(&mut self, reason: EndReason) {
        self.ended[reason as usize] = self.ended[reason as usize].wrapping_add(1);
    }

    /// How many allocations have ended for this reason.
    #[must_use]
    pub const fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize]
    }

    /// Counts one check of credentials.
    pub(super) const fn checked(&mut self, mechanism: Mechanism, verdict: Verdict) {
        let place = &mut self.credentials[mechanism as usize][verdict as usize];
        *place = place.wrapping_add(1);
    }

    /// How often checking what protects a request came to this.
    #[must_use]
    pub const fn credentials(&self, mechanism: Mechanism, verdict: Verdict) -> u64 {
        self.credentials[mechanism as usize][verdict as usize]
    }

    /// Allocations made.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.begun.sum()
    }

    /// Requests answered with success.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.responses.iter().filter(|(_, code, _)| code.is_none()).map(|(.., count)| count).sum()
    }

    /// Requests answered with an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.responses.iter().filter(|(_, code, _)| code.is_some()).map(|(.., count)| count).sum()
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.begun.add(&other.begun);
        self.ended.iter_mut().zip(other.ended).for_each(|(sum, more)| *sum += more);
        self.to_peers.add(other.to_peers);
        self.to_clients.add(other.to_clients);
        self.kernel_to_peers.add(other.kernel_to_peers);
        self.kernel_to_clients.add(other.kernel_to_clients);
        self.responses.add(&other.responses);
        let credentials = self.credentials.iter_mut().flatten().zip(other.credentials.iter().flatten());
        credentials.for_each(|(sum, more)| *sum += more);
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, more)| *sum += more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{MessageWriter, TransactionId};

    #[test]
    fn responses_are_counted_by_what_they_say() {
        let mut responses = Responses::default();
        let mut buffer = [0; 256];
        for (method, error) in [
            (Method::Allocate, None),
            (Method::Allocate, Some(ErrorCode::Unauthenticated)),
            (Method::Allocate, Some(ErrorCode::Unauthenticated)),
            (Method::ConnectionBind, Some(ErrorCode::InsufficientCapacity)),
            (Method::Send, Some(ErrorCode::ServerError)),
        ] {
            let class = if error.is_some() { Class::Error } else { Class::Success };
            let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId([7; 12]));
            if let Some(error) = error {
                writer.error_code(error);
            }
            let len = writer.finish().unwrap();
            responses.count(&buffer[..len]);
        }
        responses.count(&[]);
        let counted: Vec<_> = responses.iter().filter(|(.., count)| *count > 0).collect();
        let expected = [
            ("Allocate", None, 1),
            ("Allocate", Some(401), 2),
            ("ConnectionBind", Some(508), 1),
            ("other", Some(500), 1),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn every_error_has_its_place() {
        let codes: Vec<u16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
        assert!(codes.is_sorted() && codes.contains(&300) && codes.contains(&508));
    }
}
