//! Error codes and their reason phrases (RFC 8489 §14.8, RFC 8656 §19, RFC 6062 §6.3).

/// An error that a response can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The client should try another server.
    TryAlternate = 300,
    /// The request was malformed.
    BadRequest = 400,
    /// The request lacked credentials, or the right ones.
    Unauthenticated = 401,
    /// The request was valid but may not be performed.
    Forbidden = 403,
    /// Mobility is not offered here (RFC 8016 §3.4).
    MobilityForbidden = 405,
    /// A comprehension-required attribute was not understood.
    UnknownAttribute = 420,
    /// There is no allocation on this 5-tuple, or there is one already.
    AllocationMismatch = 437,
    /// The nonce is no longer valid.
    StaleNonce = 438,
    /// The address family is not supported.
    AddressFamilyNotSupported = 440,
    /// The credentials differ from those that made the allocation.
    WrongCredentials = 441,
    /// The transport protocol is not supported.
    UnsupportedTransportProtocol = 442,
    /// A peer address is of another family than the relayed transport address.
    PeerAddressFamilyMismatch = 443,
    /// The allocation has a connection to this peer, or is making one.
    ConnectionAlreadyExists = 446,
    /// The peer did not take the connection.
    ConnectionTimeoutOrFailure = 447,
    /// The user has too many allocations.
    AllocationQuotaReached = 486,
    /// A passing fault of the server.
    ServerError = 500,
    /// The server is out of relay ports, permissions, channels or peer connections.
    InsufficientCapacity = 508,
}

impl ErrorCode {
    /// Every one, by number.
    pub const ALL: &[Self] = &[
        Self::TryAlternate,
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::MobilityForbidden,
        Self::UnknownAttribute,
        Self::AllocationMismatch,
        Self::StaleNonce,
        Self::AddressFamilyNotSupported,
        Self::WrongCredentials,
        Self::UnsupportedTransportProtocol,
        Self::PeerAddressFamilyMismatch,
        Self::ConnectionAlreadyExists,
        Self::ConnectionTimeoutOrFailure,
        Self::AllocationQuotaReached,
        Self::ServerError,
        Self::InsufficientCapacity,
    ];

    /// The three-digit code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The reason phrase that the RFCs recommend.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TryAlternate => "Try Alternate",
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::MobilityForbidden => "Mobility Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::AddressFamilyNotSupported => "Address Family not Supported",
            Self::WrongCredentials => "Wrong Credentials",
            Self::UnsupportedTransportProtocol => "Unsupported Transport Protocol",
            Self::PeerAddressFamilyMismatch => "Peer Address Family Mismatch",
            Self::ConnectionAlreadyExists => "Connection Already Exists",
            Self::ConnectionTimeoutOrFailure => "Connection Timeout or Failure",
            Self::AllocationQuotaReached => "Allocation Quota Reached",
            Self::ServerError => "Server Error",
            Self::InsufficientCapacity => "Insufficient Capacity",
        }
    }

    /// A reason phrase of no more than four bytes where a short one matters, which is with the answer to a first request.
    #[must_use]
    pub const fn short_reason(self) -> &'static str {
        match self {
            Self::Unauthenticated => "Auth",
            _ => self.reason(),
        }
    }

    /// The class and number bytes of ERROR-CODE and ADDRESS-ERROR-CODE.
    #[must_use]
    pub const fn class_and_number(self) -> [u8; 2] {
        let code = self as u16;
        // Both quotients are below 256 for every code above.
        #[allow(clippy::cast_possible_truncation)]
        [(code / 100) as u8, (code % 100) as u8]
    }
}
