//! Datagrams by portable calls, one each, on tokio's readiness. For systems without batched calls, and for comparison.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use tokio::net::UdpSocket;

use super::{BATCH, MAX_DATAGRAM, Ready, Received, payload_start};

/// Receives into the slots from `first` on; returns how many of them were filled.
pub(super) fn receive(
    socket: &UdpSocket,
    slots: &mut [u8],
    first: usize,
    received: &mut Vec<Received>,
) -> io::Result<usize> {
    let mut slot = first;
    while slot < BATCH {
        let start = payload_start(slot);
        match socket.try_recv_from(&mut slots[start..start + MAX_DATAGRAM]) {
            Ok((len, source)) => {
                received.push(Received { source, local: None, tos: 0, start, len });
                slot += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The report of an ICMP error about an earlier datagram, on systems that give it here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) if slot == first => return Err(error),
            Err(_) => break,
        }
    }
    Ok(slot - first)
}

/// Watches sockets by asking each of them, which is linear in their number.
#[derive(Default)]
pub(crate) struct Poller {
    watched: RefCell<Vec<(Weak<UdpSocket>, u64)>>,
    waiting: RefCell<Option<Waker>>,
}

impl Poller {
    pub(super) fn add(&self, socket: &Rc<UdpSocket>, token: u64) {
        self.watched.borrow_mut().push((Rc::downgrade(socket), token));
        // The wait under way does not know the new socket yet.
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) async fn wait(&self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        // Unconstrained: the budget that tokio gives each turn would always end before the same, later sockets.
        tokio::task::unconstrained(poll_fn(|context| {
            self.watched.borrow_mut().retain(|(socket, token)| {
                let Some(socket) = socket.upgrade() else { return false };
                if socket.poll_recv_ready(context).is_ready() {
                    ready.push(Ready { token: *token, readable: true, error: false });
                }
                true
            });
            if ready.is_empty() {
                *self.waiting.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }))
        .await
    }
}
