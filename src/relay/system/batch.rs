//! Datagrams in memory: received into slots, sent as a header and a payload that stands where it was received.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

#[cfg(target_os = "linux")]
use super::linux;
use super::{Io, UdpSocket, portable};
use crate::turn::HEADROOM;

/// Datagrams, or merged runs of them, taken per call.
pub(crate) const BATCH: usize = 32;
/// Longest UDP payload that any family can carry.
pub(super) const MAX_DATAGRAM: usize = 65_535;
/// Bytes of a slot. Not a power of two, so that the first bytes of all slots do not compete for the same cache lines.
const SLOT_LEN: usize = MAX_DATAGRAM + 1 + 64;

/// How a datagram is to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SendOptions {
    /// Local address to send from; `None` leaves it to the socket.
    pub(crate) from: Option<IpAddr>,
    /// Traffic class: DSCP and ECN.
    pub(crate) tos: u8,
    /// Set the DF bit (IPv4) or refuse to fragment (IPv6).
    pub(crate) dont_fragment: bool,
}

/// What is known of a received datagram besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Where it came from.
    pub(crate) source: SocketAddr,
    /// The local address that it was sent to; `None` unless the listener is on a wildcard address.
    pub(crate) local: Option<IpAddr>,
    /// Traffic class: DSCP and ECN.
    pub(crate) tos: u8,
    /// Where its payload begins in the batch.
    pub(super) start: usize,
    /// Bytes of payload.
    pub(crate) len: usize,
}

/// Received datagrams of one socket or of several. A slot holds one datagram, or several that the kernel has merged.
pub(crate) struct Batch {
    slots: Box<[u8]>,
    /// Slots filled.
    used: usize,
    received: Vec<Received>,
    #[cfg(target_os = "linux")]
    calls: Option<linux::ReceiveCalls>,
}

impl Batch {
    /// A batch for this kind of input/output. Memory is only touched where datagrams are received.
    pub(crate) fn new(io: Io) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = io;
        Self {
            slots: vec![0; BATCH * SLOT_LEN].into_boxed_slice(),
            used: 0,
            received: Vec::with_capacity(BATCH),
            #[cfg(target_os = "linux")]
            calls: io.is_full().then(linux::ReceiveCalls::new),
        }
    }

    /// Forgets what was received.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.received.clear();
    }

    /// Whether there is no slot left to receive into.
    pub(crate) const fn is_full(&self) -> bool {
        self.used == BATCH
    }

    /// Takes what is there, as far as there are slots, and adds it; returns the new datagrams' places. If the batch is full
    /// then, there may be more.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<Range<usize>> {
        let before = self.received.len();
        match socket {
            #[cfg(target_os = "linux")]
            UdpSocket::Batched(socket) => {
                if let Some(calls) = &mut self.calls {
                    self.used += calls.receive(socket, &mut self.slots, self.used, &mut self.received)?;
                }
            }
            UdpSocket::Portable(socket) => {
                self.used += portable::receive(socket, &mut self.slots, self.used, &mut self.received)?;
            }
            UdpSocket::Closed => {}
        }
        Ok(before..self.received.len())
    }

    pub(crate) fn received(&self, at: usize) -> Received {
        self.received[at]
    }

    pub(crate) fn payload(&self, at: usize) -> &[u8] {
        &self.slots[self.place(at)]
    }

    /// For what is decrypted where it stands.
    pub(crate) fn payload_mut(&mut self, at: usize) -> &mut [u8] {
        let place = self.place(at);
        &mut self.slots[place]
    }

    /// What payloads stand in.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.slots
    }

    /// Where the payload of a received datagram stands.
    pub(crate) fn place(&self, at: usize) -> Range<usize> {
        let Received { start, len, .. } = self.received[at];
        start..start + len
    }

    /// Where a part of the payload stands.
    pub(crate) fn part(&self, at: usize, part: &Range<usize>) -> Range<usize> {
        let start = self.received[at].start;
        start + part.start..start + part.end
    }
}

pub(super) const fn payload_start(slot: usize) -> usize {
    slot * SLOT_LEN
}

/// A datagram to be sent: a header of its own, a payload that stands elsewhere, and padding.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// How.
    pub(crate) options: SendOptions,
    /// The header is in the last bytes of this.
    pub(crate) head: [u8; HEADROOM],
    /// Bytes of header.
    pub(crate) header_len: usize,
    /// Where the payload stands in a [`Batch`] or in what another worker has sent.
    pub(crate) payload: Range<usize>,
    /// Zero bytes after the payload, at most 3.
    pub(crate) padding: usize,
}

impl Outgoing {
    /// A payload by itself.
    pub(crate) const fn bare(to: SocketAddr, options: SendOptions, payload: Range<usize>) -> Self {
        Self { to, options, head: [0; HEADROOM], header_len: 0, payload, padding: 0 }
    }

    /// Bytes on the wire.
    #[cfg(target_os = "linux")]
    pub(crate) fn len(&self) -> usize {
        self.header_len + self.payload.len() + self.padding
    }

    /// Header, payload, padding; any of them may be empty. The payload stands in `bytes`.
    pub(crate) fn parts<'p>(&'p self, bytes: &'p [u8]) -> [&'p [u8]; 3] {
        let header = &self.head[HEADROOM - self.header_len..];
        [header, &bytes[self.payload.clone()], &[0; 3][..self.padding]]
    }

    /// How many of the parts are not empty.
    #[cfg(target_os = "linux")]
    pub(super) fn slices(&self) -> usize {
        [self.header_len, self.payload.len(), self.padding].into_iter().filter(|len| *len > 0).count()
    }
}

/// Datagrams that leave from one socket, in this order.
#[derive(Clone, Copy)]
pub(crate) struct Run<'r> {
    outgoing: &'r [Outgoing],
    order: &'r [u32],
}

impl<'r> Run<'r> {
    /// `order` holds places in `outgoing`.
    pub(crate) const fn new(outgoing: &'r [Outgoing], order: &'r [u32]) -> Self {
        Self { outgoing, order }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = &'r Outgoing> {
        self.order.iter().map(move |at| &self.outgoing[*at as usize])
    }

    #[cfg(target_os = "linux")]
    pub(super) fn get(self, at: usize) -> &'r Outgoing {
        &self.outgoing[self.order[at] as usize]
    }

    #[cfg(target_os = "linux")]
    pub(super) const fn len(self) -> usize {
        self.order.len()
    }

    /// What is left after so many.
    #[cfg(target_os = "linux")]
    pub(super) fn after(self, count: usize) -> Self {
        Self { order: &self.order[count..], ..self }
    }
}

/// Sends runs of datagrams from one socket.
pub(crate) struct Sender {
    #[cfg(target_os = "linux")]
    calls: linux::SendCalls,
    /// Where a datagram is put together for systems that take it in one piece.
    whole: Vec<u8>,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            calls: linux::SendCalls::new(),
            whole: Vec::new(),
        }
    }

    /// Sends all of `run`, whose payloads stand in `bytes`; returns how many the system refused.
    pub(crate) fn send(&mut self, socket: &UdpSocket, run: Run<'_>, bytes: &[u8]) -> usize {
        match socket {
            #[cfg(target_os = "linux")]
            UdpSocket::Batched(socket) => self.calls.send(socket, run, bytes),
            UdpSocket::Portable(_) => {
                let mut refused = 0;
                for out in run.iter() {
                    self.whole.clear();
                    out.parts(bytes).into_iter().for_each(|part| self.whole.extend_from_slice(part));
                    refused += usize::from(socket.send(&self.whole, out.to, out.options).is_err());
                }
                refused
            }
            UdpSocket::Closed => run.iter().count(),
        }
    }
}
