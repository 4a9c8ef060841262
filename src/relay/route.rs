//! What the numbers mean that the system and the protocol know sockets by: tokens of what is ready, and routes to clients.

use crate::turn::{RelayId, Route};

/// Tells the tokens of relay sockets from those of listeners.
const RELAY_TOKEN: u64 = 1 << 32;
/// Tells routes to streams from routes to listeners.
const STREAM_ROUTE: u32 = 1 << 31;
/// Tells routes to sessions of DTLS from both.
const DTLS_ROUTE: u32 = 1 << 30;
/// Tells routes that lead through another worker; the other marks say to what there.
const ABROAD_ROUTE: u32 = 1 << 29;
/// Where the other worker's number stands in such a route: above 21 bits of the route there, below the marks.
const HOST_SHIFT: u32 = 21;
/// What such a route has of the one there.
const THERE: u32 = STREAM_ROUTE | DTLS_ROUTE | ((1 << HOST_SHIFT) - 1);

/// What a ready socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener(usize),
    Relay(RelayId),
}

impl Token {
    #[allow(clippy::cast_possible_truncation)] // both halves were put in by `encode`
    pub(super) const fn decode(token: u64) -> Self {
        if token & RELAY_TOKEN != 0 { Self::Relay(RelayId(token as u32)) } else { Self::Listener(token as usize) }
    }

    pub(super) fn encode(self) -> u64 {
        match self {
            Self::Listener(at) => at as u64,
            Self::Relay(id) => RELAY_TOKEN | u64::from(id.0),
        }
    }
}

/// What a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Listener(usize),
    Stream(usize),
    Dtls(usize),
    /// To a stream or a session of DTLS of another worker's.
    Abroad,
}

impl Way {
    /// Every worker has the same listeners: another worker's datagrams can be sent by one's own.
    pub(super) const fn of(route: Route) -> Self {
        if let Some((_, there)) = Self::host(route) {
            return match Self::of(there) {
                Self::Listener(at) => Self::Listener(at),
                Self::Stream(_) | Self::Dtls(_) | Self::Abroad => Self::Abroad,
            };
        }
        if route.0 & STREAM_ROUTE != 0 {
            Self::Stream((route.0 & !STREAM_ROUTE) as usize)
        } else if route.0 & DTLS_ROUTE != 0 {
            Self::Dtls((route.0 & !DTLS_ROUTE) as usize)
        } else {
            Self::Listener(route.0 as usize)
        }
    }

    /// Whether this is the listener in this place.
    pub(super) fn is_listener(self, at: usize) -> bool {
        self == Self::Listener(at)
    }

    #[allow(clippy::cast_possible_truncation)] // far fewer sockets than 2^21
    pub(super) const fn route(self) -> Route {
        match self {
            Self::Listener(at) => Route(at as u32),
            Self::Stream(at) => Route(at as u32 | STREAM_ROUTE),
            Self::Dtls(at) => Route(at as u32 | DTLS_ROUTE),
            // Only `Way::abroad` knows to where.
            Self::Abroad => Route(ABROAD_ROUTE),
        }
    }

    /// The route of a client whom the worker `host` reaches by `route`.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) const fn abroad(host: u16, route: Route) -> Route {
        Route(route.0 & THERE | ABROAD_ROUTE | (host as u32) << HOST_SHIFT)
    }

    /// The worker that such a route leads through, and the route there.
    #[allow(clippy::cast_possible_truncation)] // 8 bits
    pub(super) const fn host(route: Route) -> Option<(u16, Route)> {
        if route.0 & ABROAD_ROUTE == 0 {
            return None;
        }
        Some((((route.0 & !THERE & !ABROAD_ROUTE) >> HOST_SHIFT) as u16, Route(route.0 & THERE)))
    }
}
