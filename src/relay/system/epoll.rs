//! One epoll set per worker, itself watched by the worker's runtime: no task, no heap, no waker per socket.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

use super::Ready;

/// Events taken per call.
const EVENTS: usize = 128;

pub(crate) struct Epoll {
    set: AsyncFd<OwnedFd>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; a non-negative result is a descriptor that nobody else owns.
        let set = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: an `OwnedFd` is open and the same as long as it lives, and the `AsyncFd` keeps it until it is dropped.
        let set = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE)? };
        Ok(Self { set })
    }

    /// Level-triggered: a socket that is not drained comes again after the others had their turn. The kernel forgets
    /// a socket when it is closed.
    pub(super) fn add(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        #[allow(clippy::cast_sign_loss)] // a bit mask
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLERR) as u32, u64: token };
        // SAFETY: both descriptors are open for the length of the call, and `event` outlives it.
        let result = unsafe {
            libc::epoll_ctl(self.set.get_ref().as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) async fn wait(&self, ready: &mut Vec<Ready>) -> io::Result<Turn<'_>> {
        loop {
            let mut guard = self.set.readable().await?;
            let count = self.take(ready);
            if count > 0 {
                return Ok(Turn { guard, all: count < EVENTS });
            }
            guard.clear_ready();
        }
    }

    fn take(&self, ready: &mut Vec<Ready>) -> usize {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` has room for `EVENTS` entries and outlives the call, which does not wait.
        let count = unsafe {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // 128
            libc::epoll_wait(self.set.get_ref().as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, 0)
        };
        ready.clear();
        // Negative only if interrupted; the next turn looks again.
        let count = usize::try_from(count).unwrap_or(0);
        #[allow(clippy::cast_sign_loss)] // bit masks
        ready.extend(events.iter().take(count).map(|event| Ready {
            token: event.u64,
            // Receiving also clears an error that left nothing in the error queue.
            readable: event.events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0,
            error: event.events & libc::EPOLLERR as u32 != 0,
        }));
        count
    }
}

/// The handling of the sockets that were ready.
pub(crate) struct Turn<'p> {
    guard: AsyncFdReadyGuard<'p, OwnedFd>,
    /// No more sockets were ready than fit one call.
    all: bool,
}

impl Turn<'_> {
    /// Ends the turn. If every ready socket was `drained`, the next wait need not look again: whatever comes to one of them
    /// from now on wakes the runtime anew. Returns whether that is so.
    pub(super) fn end(mut self, drained: bool) -> bool {
        let idle = drained && self.all;
        if idle {
            self.guard.clear_ready();
        }
        idle
    }
}
