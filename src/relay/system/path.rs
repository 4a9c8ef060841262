//! How datagrams cross the border. Decided once, at start, by trying what this system has: a kernel may be old, a sandbox may
//! refuse a call, and an emulated kernel may take an option and do nothing.

use std::{fmt, io};

#[cfg(target_os = "linux")]
use super::linux::probe;
use crate::config::settings::UdpIo;

/// How datagrams cross the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Io {
    /// recvmmsg, sendmmsg, epoll; DSCP/ECN, DF, ICMP errors, the local address of wildcard listeners.
    #[cfg(target_os = "linux")]
    Batched(Merges),
    /// One portable call per datagram, payloads and addresses only.
    Portable,
}

/// Which ways of merging datagrams the kernel has.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Merges {
    /// UDP_GRO.
    pub(crate) receive: bool,
    /// UDP_SEGMENT.
    pub(crate) send: bool,
}

impl Io {
    /// Whether it can set the DF bit per datagram (RFC 8656 §14) and tell the local address of a wildcard listener.
    pub(crate) const fn is_full(self) -> bool {
        !matches!(self, Self::Portable)
    }
}

/// What batches are made with.
const BATCHES: &str = "recvmmsg and sendmmsg";
/// What merges on receipt.
const MERGED_RECEIVING: &str = "UDP_GRO";
/// What merges on sending.
const MERGED_SENDING: &str = "UDP_SEGMENT";

/// How datagrams are received and sent on this system, and what of it is off.
#[derive(Debug, Clone)]
pub struct DatagramPath {
    io: Io,
    on: Vec<&'static str>,
    off: Vec<Lack>,
}

/// Something that is not used.
#[derive(Debug, Clone)]
struct Lack {
    what: &'static str,
    why: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl DatagramPath {
    /// Tries what this system has, as far as the operator wants it used. Sends a few bytes over loopback at most.
    ///
    /// # Errors
    /// No socket can be opened to try it with.
    pub fn probe(wanted: UdpIo) -> io::Result<Self> {
        let mut path = Self { io: Io::Portable, on: Vec::new(), off: Vec::new() };
        #[cfg(target_os = "linux")]
        if path.has(BATCHES, wanted != UdpIo::Portable, probe::batches)? {
            let merge = wanted == UdpIo::Auto;
            let receive = path.has(MERGED_RECEIVING, merge, probe::merged_receiving)?;
            let send = path.has(MERGED_SENDING, merge, probe::merged_sending)?;
            path.io = Io::Batched(Merges { receive, send });
        }
        #[cfg(not(target_os = "linux"))]
        path.off.extend([BATCHES, MERGED_RECEIVING, MERGED_SENDING].map(|what| Lack {
            what,
            why: if wanted == UdpIo::Portable { NOT_WANTED } else { "only Linux has it" }.to_owned(),
        }));
        Ok(path)
    }

    /// Whether something is wanted and works; noted either way.
    #[cfg(target_os = "linux")]
    fn has(
        &mut self,
        what: &'static str,
        wanted: bool,
        attempt: impl FnOnce() -> io::Result<Result<(), io::Error>>,
    ) -> io::Result<bool> {
        let why = if wanted { attempt()?.err().map(|error| error.to_string()) } else { Some(NOT_WANTED.to_owned()) };
        match &why {
            None => self.on.push(what),
            Some(why) => self.off.push(Lack { what, why: why.clone() }),
        }
        Ok(why.is_none())
    }

    pub(crate) const fn io(&self) -> Io {
        self.io
    }

    /// Its name: `batched` or `portable`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(_) => "batched",
            Io::Portable => "portable",
        }
    }

    /// What of the system's means is used; `None` if nothing.
    #[must_use]
    pub fn on(&self) -> Option<String> {
        (!self.on.is_empty()).then(|| self.on.join(", "))
    }

    /// What is not used, each with the reason; `None` if everything is.
    #[must_use]
    pub fn off(&self) -> Option<String> {
        let lacks: Vec<String> = self.off.iter().map(Lack::to_string).collect();
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }
}

/// Why something that may well work is off.
const NOT_WANTED: &str = "udp-io says so";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_way_is_there_everywhere() {
        let path = DatagramPath::probe(UdpIo::Portable).unwrap();
        assert_eq!((path.io(), path.name(), path.on()), (Io::Portable, "portable", None));
        let off = path.off().unwrap();
        assert!(off.contains("recvmmsg and sendmmsg: udp-io says so"), "{off}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_kernel_has_everything_unless_it_is_not_wanted() {
        let path = DatagramPath::probe(UdpIo::Auto).unwrap();
        assert_eq!(path.io(), Io::Batched(Merges { receive: true, send: true }), "{path:?}");
        assert_eq!((path.name(), path.off()), ("batched", None));
        assert_eq!(path.on().unwrap(), "recvmmsg and sendmmsg, UDP_GRO, UDP_SEGMENT");
        let path = DatagramPath::probe(UdpIo::Batched).unwrap();
        assert_eq!(path.io(), Io::Batched(Merges::default()));
        assert_eq!(path.off().unwrap(), "UDP_GRO: udp-io says so, UDP_SEGMENT: udp-io says so");
    }
}
