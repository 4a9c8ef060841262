//! A client's end: tries a STUN or TURN server, ours or any other, as a client does, and says in words what works, what does
//! not, and what to do about it.
//!
//! * `target`: what is tried, as a URI (RFC 7064, RFC 7065). `finding`: what is said. `words`: what errors of servers mean.
//! * `link`: one way to the server, over UDP, TCP, TLS or DTLS (`tls`, `dtls`). `certificate`: what is thought of a chain.
//! * `client`: requests, answers and credentials on a link. `session`: the steps of a probe of one path. `echo`: data through
//!   relayed addresses.
//! * `binding`: a question to a STUN server, and nothing more.
//!
//! Messages are those of [`crate::stun`]; nothing here knows about the server's own rooms.

pub mod binding;
pub mod certificate;
mod client;
#[cfg(feature = "dtls")]
mod dtls;
#[cfg(not(feature = "dtls"))]
#[path = "no_dtls.rs"]
mod dtls;
mod echo;
pub mod finding;
mod link;
mod session;
pub mod target;
mod tls;
mod words;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use rustls::RootCertStore;
use zeroize::Zeroizing;

pub use self::{
    certificate::Roots,
    finding::{Finding, Level},
    session::{PathReport, probe_path, resolve},
    target::Target,
};
use crate::policy::special::{SPECIAL, SpecialRange};

/// Who the probe says that it is.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody: what needs credentials is not tried.
    #[default]
    None,
    /// A user with a password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A user whose key MD5(user:realm:password) is known.
    Key {
        /// The user's name.
        user: String,
        /// The key.
        md5: Zeroizing<[u8; 16]>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, .. } | Self::Key { user, .. } => write!(f, "{user:?} ****"),
        }
    }
}

/// How a probe is held.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who it says that it is.
    pub credentials: Credentials,
    /// How long each step may take.
    pub timeout: Duration,
    /// The name that a certificate must be for; the target's host if `None`.
    pub server_name: Option<String>,
    /// Who vouches for certificates.
    pub roots: Arc<Roots>,
    /// As a client from elsewhere does it: what is thought of certificates and of private relayed addresses is said, and data go
    /// through the relay to a socket of this host, too, and not only from one relayed address to another.
    pub from_elsewhere: bool,
}

impl Options {
    /// With what the system trusts, and time enough for the other end of the world.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            timeout: Duration::from_secs(5),
            server_name: None,
            roots: Arc::new(Roots { store: RootCertStore::empty(), origin: String::new() }),
            from_elsewhere: true,
        }
    }
}

/// What kind of special address this is; `None` for ordinary public ones.
#[must_use]
pub fn special(ip: IpAddr) -> Option<&'static SpecialRange> {
    SPECIAL.iter().filter(|range| range.net.contains(&ip)).max_by_key(|range| range.net.prefix_len())
}
