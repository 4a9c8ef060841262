//! When a socket should receive merged datagrams and send them merged.
//!
//! Merging pays where bursts of one flow come and costs where nothing can be merged, so each socket decides for itself by what
//! it sees: it starts unmerged, and every [`WINDOW`] datagrams it looks back.

use std::{cell::Cell, os::fd::AsRawFd};

use super::{
    super::{Received, path::Merges},
    LinuxSocket, set_int,
};

/// Datagrams between two decisions.
const WINDOW: u32 = 32;
/// Longest datagram that is sent merged: what every path can be expected to carry. A merged datagram that does not fit the link is
/// refused as a whole.
const LONGEST: u16 = 1472;

/// What one socket has seen, and what it does about it.
#[derive(Debug)]
pub(super) struct Merging {
    /// UDP_GRO may be on.
    may_receive: bool,
    /// UDP_GRO is on.
    receives: Cell<bool>,
    /// Datagrams seen since the last decision.
    seen: Cell<u32>,
    /// Of those: how many came right behind another of the same source and length, merged or not.
    followers: Cell<u32>,
    /// Longest datagram that may be sent merged; 0 if none may.
    longest_sent: Cell<u16>,
}

impl Merging {
    /// What the kernel cannot do is never tried.
    pub(super) fn new(merges: Merges) -> Self {
        Self {
            may_receive: merges.receive,
            receives: Cell::new(false),
            seen: Cell::new(0),
            followers: Cell::new(0),
            longest_sent: Cell::new(if merges.send { LONGEST } else { 0 }),
        }
    }

    /// Looks at what was received in `calls` filled slots, and switches merging on or off when it is time.
    pub(super) fn note(&self, socket: &LinuxSocket, slots: usize, received: &[Received]) {
        if slots == 0 || !self.may_receive {
            return;
        }
        let pairs = received.windows(2).filter(|pair| pair[0].source == pair[1].source && pair[0].len >= pair[1].len);
        // Both counts are bounded by a batch, and by a window that is restarted.
        #[allow(clippy::cast_possible_truncation)]
        let (seen, followers) = (
            self.seen.get().saturating_add(received.len() as u32),
            self.followers.get().saturating_add(pairs.count() as u32),
        );
        if seen < WINDOW {
            self.seen.set(seen);
            self.followers.set(followers);
            return;
        }
        self.seen.set(0);
        self.followers.set(0);
        // On at a half, off below a quarter: a flow that wavers does not make the socket waver.
        let wanted = if self.receives.get() { followers >= seen / 4 } else { followers >= seen / 2 };
        if wanted != self.receives.get()
            && set_int(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, i32::from(wanted)).is_ok()
        {
            self.receives.set(wanted);
        }
    }

    /// Whether datagrams of this length may be sent merged.
    pub(super) fn may_send(&self, len: usize) -> bool {
        len > 0 && len <= usize::from(self.longest_sent.get())
    }

    /// A merged datagram of this segment length was refused: shorter ones may still pass, unless the device cannot merge at all.
    pub(super) fn refused(&self, len: usize, error: &std::io::Error) {
        let left = match error.raw_os_error() {
            Some(libc::EINVAL | libc::EMSGSIZE) => u16::try_from(len.saturating_sub(1)).unwrap_or(0),
            Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => 0,
            // Full buffers and the like say nothing about merging.
            _ => return,
        };
        self.longest_sent.set(left.min(self.longest_sent.get()));
    }
}
