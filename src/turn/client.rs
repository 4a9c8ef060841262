//! Who is spoken to: clients by their 5-tuple, relay sockets by their number.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use super::RealmId;
use crate::stun::address::{FAMILY_IPV4, FAMILY_IPV6};

/// Transport between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP: datagrams.
    Udp,
    /// TCP: a stream.
    Tcp,
    /// TLS over TCP: a stream.
    Tls,
    /// DTLS over UDP: datagrams.
    Dtls,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// Whether messages travel in a stream, where ChannelData must be padded (RFC 8656 §12.5).
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether it protects what it carries.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }

    /// Lower-case name, as in the configuration and in log lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

/// The 5-tuple that identifies an allocation (RFC 8656 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiveTuple {
    /// The client's address as the server sees it.
    pub client: SocketAddr,
    /// The server's address that the client sent to.
    pub server: SocketAddr,
    /// The transport.
    pub transport: Transport,
}

impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Two words for the commonest case instead of the eight calls that a derived implementation makes per address.
        let mut address = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(address.port())),
            IpAddr::V6(ip) => {
                state.write_u128(ip.to_bits());
                state.write_u64(u64::from(address.port()));
            }
        };
        address(self.client);
        address(self.server);
        state.write_u8(self.transport as u8);
    }
}

/// How the input/output reaches a client; opaque to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route(pub u32);

/// A client: who it is and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The 5-tuple.
    pub tuple: FiveTuple,
    /// The way back.
    pub route: Route,
    /// The realm that clients are told where this one has come in.
    pub realm: RealmId,
}

/// A relay socket's number, given by the input/output that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The code in REQUESTED-ADDRESS-FAMILY and its kin (RFC 8656 §18.6).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::V4 => FAMILY_IPV4,
            Self::V6 => FAMILY_IPV6,
        }
    }

    /// The family with this code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            FAMILY_IPV4 => Some(Self::V4),
            FAMILY_IPV6 => Some(Self::V6),
            _ => None,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}
