//! Why a client could not connect, or was not heard: plain values of fixed size, kept by [`super::records`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{AllocationId, Drop, EndReason, FiveTuple, RealmId, Time, Traffic, Transport};
use crate::stun::Method;

/// Bytes that are kept of a name, or of what a library says.
const TEXT: usize = 64;

/// The beginning of a text that a stranger may have written: its size does not depend on that of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    len: u8,
    cut: bool,
    bytes: [u8; TEXT],
}

impl Text {
    /// Nothing.
    pub const EMPTY: Self = Self { len: 0, cut: false, bytes: [0; TEXT] };

    /// The beginning of what is UTF-8 of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let start = &bytes[..bytes.len().min(TEXT)];
        let valid = match std::str::from_utf8(start) {
            Ok(_) => start.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut text = Self { cut: valid < bytes.len(), ..Self::EMPTY };
        text.bytes[..valid].copy_from_slice(&start[..valid]);
        // At most TEXT, which fits a byte.
        text.len = u8::try_from(valid).unwrap_or(0);
        text
    }

    /// What is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // `new` has kept nothing that is not UTF-8.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Whether there was more.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        if self.cut { f.write_str("…") } else { Ok(()) }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// What a request's password was compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried {
    /// The password of a user in the configuration.
    pub password: bool,
    /// So many secrets of time-limited credentials in the configuration.
    pub secrets: u8,
    /// The keys of an access token.
    pub token: bool,
    /// What a store knows.
    pub store: bool,
    /// The key that the session was made with.
    pub session: bool,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Asked for credentials (401), and from these ports nobody has come back yet; 0 is none.
    Challenged([u16; 4]),
    /// The user is known, the password is not theirs.
    WrongPassword(Tried),
    /// Nobody knows the user. Time-limited names that are over are not known, either.
    UnknownUser {
        /// A store was asked, too.
        store: bool,
    },
    /// No key opens the access token, or it is over.
    BadToken,
    /// The credential was right, and is over.
    Expired,
    /// The nonce was too old, or another client's (438).
    StaleNonce,
    /// Attributes of credentials were missing or contradicted each other (400).
    BadCredentials,
    /// An access token where none is asked for (420).
    UnexpectedToken,
    /// The store of users cannot be asked (500).
    StoreUnavailable,
    /// The source draws too many answers without credentials; nothing is sent.
    RateLimited,
    /// The source has as many connections as it may.
    TooManyConnections,
    /// A peer that the rules refuse (403).
    PeerRefused {
        /// The peer; port 0 where only its IP address was asked for.
        peer: SocketAddr,
        /// Whose rules.
        realm: RealmId,
    },
    /// New sessions are sent to another server (300).
    Redirected,
    /// No new sessions for now.
    Draining(u16),
    /// A limit of the configuration: its key.
    Limit(&'static str),
    /// Any other error.
    Refused(Method, u16),
    /// A message that begins with these bytes, and is of no protocol that is served there.
    NotServed([u8; 4]),
    /// Data for a peer without a session.
    NoSession,
    /// A handshake of TLS or DTLS has failed.
    Handshake {
        /// The alert that the client has sent, if it has sent one.
        alert: Option<u8>,
    },
}

impl Reason {
    /// A short name, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Challenged(_) => "no-credentials",
            Self::WrongPassword(_) => "wrong-password",
            Self::UnknownUser { .. } => "unknown-user",
            Self::BadToken => "bad-token",
            Self::Expired => "expired",
            Self::StaleNonce => "stale-nonce",
            Self::BadCredentials => "bad-credentials",
            Self::UnexpectedToken => "unexpected-token",
            Self::StoreUnavailable => "store-unavailable",
            Self::RateLimited => "rate-limited",
            Self::TooManyConnections => "too-many-connections",
            Self::PeerRefused { .. } => "peer-refused",
            Self::Redirected => "redirected",
            Self::Draining(_) => "draining",
            Self::Limit(_) => "limit",
            Self::Refused(..) => "refused",
            Self::NotServed(_) => "not-served",
            Self::NoSession => "no-session",
            Self::Handshake { .. } => "handshake",
        }
    }

    /// Whether it is over when somebody comes in from the same port. Challenges know of their ports themselves.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::StaleNonce | Self::StoreUnavailable | Self::RateLimited)
    }

    /// Whether another is the same once more. Those of one kind are one, but for the errors and limits by name.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(..), Self::Refused(..)) | (Self::Limit(_), Self::Limit(_)) => self == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Something that was refused, how often, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    /// Why; the last time.
    pub reason: Reason,
    /// The user that the request has named, if it has; of a failed handshake, what the library says.
    pub text: Text,
    /// How the client has come.
    pub transport: Transport,
    /// The client's port, the last time.
    pub port: u16,
    /// The server's port, the last time.
    pub server: u16,
    /// How often.
    pub count: u32,
    /// When first.
    pub first: Time,
    /// When last.
    pub last: Time,
}

/// What an allocation's data have met with. Counted where they are dropped: one addition, no look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Permissions and channels that were granted.
    pub peers: u32,
    /// Send indications to peers without a permission.
    pub unpermitted_to: u32,
    /// Datagrams from peers without a permission.
    pub unpermitted_from: u32,
    /// ChannelData on channels that are not bound.
    pub unbound: u32,
    /// Data to or from peers that the rules refuse.
    pub refused: u32,
    /// Data beyond a limit of rates or of the month.
    pub limited: u32,
    /// Errors that came back from peers, or on the way there (ICMP).
    pub unreachable: u32,
    /// The last peer that data were sent to without a permission.
    pub last_unpermitted_to: Option<IpAddr>,
    /// The last peer that sent without a permission.
    pub last_unpermitted_from: Option<IpAddr>,
    /// The last peer that was refused.
    pub last_refused: Option<IpAddr>,
    /// The last peer that an error was about.
    pub last_unreachable: Option<IpAddr>,
}

impl History {
    /// Counts data to a peer that were dropped.
    pub(super) const fn dropped_to(&mut self, reason: Drop, peer: IpAddr) {
        match reason {
            Drop::NoPermission => {
                self.unpermitted_to = self.unpermitted_to.saturating_add(1);
                self.last_unpermitted_to = Some(peer);
            }
            _ => self.either(reason, peer),
        }
    }

    /// Counts data from a peer that were dropped.
    pub(super) const fn dropped_from(&mut self, reason: Drop, peer: IpAddr) {
        match reason {
            Drop::NoPermission => {
                self.unpermitted_from = self.unpermitted_from.saturating_add(1);
                self.last_unpermitted_from = Some(peer);
            }
            _ => self.either(reason, peer),
        }
    }

    const fn either(&mut self, reason: Drop, peer: IpAddr) {
        match reason {
            Drop::PeerRefused => {
                self.refused = self.refused.saturating_add(1);
                self.last_refused = Some(peer);
            }
            Drop::Bandwidth | Drop::PacketRate | Drop::MonthUsedUp => self.limited = self.limited.saturating_add(1),
            Drop::Icmp => {
                self.unreachable = self.unreachable.saturating_add(1);
                self.last_unreachable = Some(peer);
            }
            _ => {}
        }
    }
}

/// A session that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its id.
    pub id: AllocationId,
    /// Whose it was; empty for an anonymous client.
    pub user: Text,
    /// Its 5-tuple.
    pub client: FiveTuple,
    /// When it began.
    pub begun: Time,
    /// When it ended.
    pub at: Time,
    /// Why.
    pub reason: EndReason,
    /// Data to peers.
    pub to_peers: Traffic,
    /// Data to the client.
    pub to_client: Traffic,
    /// What its data have met with.
    pub history: History,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(Text::new(b"alice").to_string(), "alice");
        assert_eq!(Text::new("ä".repeat(40).as_bytes()).to_string(), format!("{}…", "ä".repeat(32)));
        let odd = Text::new(format!("x{}", "ä".repeat(40)).as_bytes());
        assert_eq!((odd.as_str().len(), odd.is_cut()), (63, true));
        assert_eq!(Text::new(b"a\xff b").to_string(), "a…");
    }
}
