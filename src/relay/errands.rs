//! What workers do for each other when a client has moved (RFC 8016) to a 5-tuple that another worker serves than the one that
//! has its allocation: that one is its *host*, who hands over what the client sends, and what is for a client on
//! a stream. Each worker has a list of errands, bounded but for those that carry no bytes of a client, which come once per
//! move.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    core::{Core, Outcome, Way},
    shared::Shared,
};
use crate::turn::{Client, Drop, EndReason, FiveTuple, Time};

/// Bytes that wait at most, if there is a message among them.
const LIMIT: usize = 1 << 20;
/// Memory that an empty list keeps.
const KEPT: usize = 64 << 10;

/// What a worker is to do. Routes are those of the worker that is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// Handle what a client of yours has sent, with this traffic class.
    Handle(Client, u8),
    /// This client has no allocation with me: handle yourself what it has sent.
    Return(Client),
    /// Send your client data.
    Data(Client),
    /// Send your client a response.
    Response(Client),
    /// The worker of this number has your client's allocation from now on.
    Admit(Client, u16),
    /// The worker of this number no longer has an allocation of your client's.
    Dismiss(Client, u16),
    /// The connection of a client of yours is gone.
    Gone(Client),
}

#[derive(Debug, Default)]
struct Waiting {
    /// With the length of the message of each.
    errands: Vec<(Errand, usize)>,
    /// The messages, one after the other.
    bytes: Vec<u8>,
    /// Somebody has undertaken to wake the worker.
    announced: bool,
}

/// The errands for one worker.
#[derive(Debug, Default)]
pub(super) struct Errands(Mutex<Waiting>);

impl Errands {
    /// Every change is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; `None` if there is no room, or else whether the worker is to be woken.
    fn add(&self, errand: Errand, message: &[u8]) -> Option<bool> {
        let mut waiting = self.lock();
        let size = waiting.bytes.len() + message.len() + (waiting.errands.len() + 1) * size_of::<(Errand, usize)>();
        if !message.is_empty() && size > LIMIT {
            return None;
        }
        waiting.bytes.extend_from_slice(message);
        waiting.errands.push((errand, message.len()));
        Some(!mem::replace(&mut waiting.announced, true))
    }

    /// Takes all; what was in `into` is forgotten.
    fn take(&self, into: &mut Taken) {
        into.errands.clear();
        into.bytes.clear();
        into.errands.shrink_to(KEPT / size_of::<(Errand, usize)>());
        into.bytes.shrink_to(KEPT);
        let mut waiting = self.lock();
        if !waiting.errands.is_empty() {
            mem::swap(&mut waiting.errands, &mut into.errands);
            mem::swap(&mut waiting.bytes, &mut into.bytes);
        }
        waiting.announced = false;
    }

    /// Forgets what was meant for an earlier life of the worker.
    pub(super) fn clear(&self) {
        *self.lock() = Waiting::default();
    }
}

/// What has been taken from the list.
#[derive(Debug, Default)]
pub(super) struct Taken {
    errands: Vec<(Errand, usize)>,
    bytes: Vec<u8>,
}

/// Asks a worker for something and notes in `to_wake` if it is to be woken. False if there is no room for the message.
pub(super) fn ask(shared: &Shared, to_wake: &mut Vec<u16>, worker: u16, errand: Errand, message: &[u8]) -> bool {
    let Some(errands) = shared.errands.get(usize::from(worker)) else { return false };
    let added = errands.add(errand, message);
    if added == Some(true) {
        to_wake.push(worker);
    }
    added.is_some()
}

impl Core {
    /// Hands a client's message over to the worker that has its allocation.
    pub(super) fn forward(&mut self, client: &Client, message: &[u8], home: u16) {
        let guest = Client { route: Way::abroad(self.worker, client.route), ..*client };
        let tos = if guest.tuple.transport.is_stream() { 0 } else { self.tos };
        self.ask(home, Errand::Handle(guest, tos), message);
    }

    /// Sends a client of another worker's a message.
    pub(super) fn send_abroad(&mut self, client: &Client, message: &[u8], is_response: bool) {
        let Some((host, route)) = Way::host(client.route) else { return };
        let client = Client { route, ..*client };
        self.ask(host, if is_response { Errand::Response(client) } else { Errand::Data(client) }, message);
    }

    fn ask(&mut self, worker: u16, errand: Errand, message: &[u8]) {
        if !ask(&self.shared, &mut self.to_wake, worker, errand, message) {
            self.server.count_drop(Drop::WorkerBusy);
        }
    }

    /// Does what other workers have asked for.
    pub(super) fn run_errands(&mut self, now: Time) {
        let mut taken = mem::take(&mut self.errands);
        self.shared.errands[usize::from(self.worker)].take(&mut taken);
        let mut bytes = &taken.bytes[..];
        for (errand, len) in &taken.errands {
            let (message, rest) = bytes.split_at(*len);
            bytes = rest;
            self.run_errand(*errand, message, now);
        }
        self.errands = taken;
        self.wake_workers();
    }

    fn run_errand(&mut self, errand: Errand, message: &[u8], now: Time) {
        match errand {
            Errand::Handle(client, tos) => self.handle_guest(&client, message, tos, now),
            Errand::Return(client) => {
                // It was the host of a client who has left meanwhile.
                if let Some(home) = self.server.home(&client) {
                    self.server.dismiss(&client, home);
                }
                if self.is_connected(&client) {
                    let outcome = self.client_message(&client, message, now);
                    self.finish(&client, outcome, message, 0, now);
                }
            }
            Errand::Data(client) => {
                if let (true, Way::Stream(at)) = (self.is_connected(&client), Way::of(client.route)) {
                    self.queue_data(at, message, now);
                }
            }
            Errand::Response(client) => {
                if self.is_connected(&client) {
                    self.respond(&client, message);
                }
            }
            Errand::Admit(client, home) => {
                if !self.is_connected(&client) || !self.server.admit(&client, home) {
                    let guest = Client { route: Way::abroad(self.worker, client.route), ..client };
                    self.ask(home, Errand::Gone(guest), &[]);
                }
            }
            Errand::Dismiss(client, home) => self.server.dismiss(&client, home),
            Errand::Gone(client) => {
                self.server.end_client(&client, EndReason::ConnectionClosed, now);
                self.apply_effects();
            }
        }
    }

    /// Handles what a client of another worker's has sent for an allocation of this one.
    fn handle_guest(&mut self, client: &Client, message: &[u8], tos: u8, now: Time) {
        let Some((host, route)) = Way::host(client.route) else { return };
        let there = Client { route, ..*client };
        let outcome = self.client_message(client, message, now);
        if let Outcome::Allocate(_) = &outcome {
            // It had an allocation when this was handed over, and is to get a new one from its own worker.
            return self.ask(host, Errand::Return(there), message);
        }
        self.finish(client, outcome, message, tos, now);
        if !self.server.owns_allocation(client) {
            self.ask(host, Errand::Dismiss(there, self.worker), &[]);
        }
    }

    /// Does what is to be done about a message.
    fn finish(&mut self, client: &Client, outcome: Outcome, message: &[u8], tos: u8, now: Time) {
        match outcome {
            Outcome::ToPeer(to_peer) => self.send_to_peer(&to_peer, &message[to_peer.payload.clone()], tos, now),
            Outcome::Nothing if !self.server.has_effects() => {}
            outcome => {
                if let Some(len) = self.settle(client, outcome, now) {
                    let reply = mem::take(&mut self.reply);
                    self.respond(client, &reply[..len]);
                    self.reply = reply;
                }
            }
        }
    }

    /// Sends a response. One to a guest always leaves from its host, who by then knows what has come before: a client that has
    /// been told that it may send is known there.
    fn respond(&mut self, client: &Client, response: &[u8]) {
        match Way::of(client.route) {
            _ if Way::host(client.route).is_some() => self.send_abroad(client, response, true),
            Way::Stream(at) => self.queue_response(at, response),
            Way::Listener(at) => self.send_datagram(at, client, response),
            Way::Abroad => {}
        }
    }

    /// Whether the client's route still leads to it.
    fn is_connected(&self, client: &Client) -> bool {
        match Way::of(client.route) {
            Way::Stream(at) => self.streams.get(at).is_some_and(|stream| stream.tuple == client.tuple),
            Way::Listener(_) | Way::Abroad => true,
        }
    }
}

/// The log's line about an allocation that has moved.
pub(super) fn log_move(id: crate::turn::AllocationId, from: &FiveTuple, to: &FiveTuple) {
    tracing::info!(
        %id,
        from = %from.client,
        from_transport = from.transport.name(),
        to = %to.client,
        to_transport = to.transport.name(),
        "session moves"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Transport;

    #[test]
    fn what_waits_is_bounded_but_for_what_has_no_message() {
        let address = "127.0.0.1:1".parse().unwrap();
        let tuple = FiveTuple { client: address, server: address, transport: Transport::Udp };
        let client = Client { tuple, route: Way::Stream(7).route() };
        let errands = Errands::default();
        let mut taken = Taken::default();
        for _ in 0..3 {
            assert_eq!(errands.add(Errand::Data(client), &[1; 4]), Some(true));
            let added = (0..1_000_000).filter(|_| errands.add(Errand::Data(client), &[2; 4]).is_some()).count();
            assert!((1_000..LIMIT / size_of::<(Errand, usize)>()).contains(&added), "{added}");
            assert_eq!(errands.add(Errand::Gone(client), &[]), Some(false));
            errands.take(&mut taken);
            assert_eq!((taken.errands.len(), taken.bytes.len()), (added + 2, 4 * (added + 1)));
            assert!(matches!(taken.errands[added + 1], (Errand::Gone(_), 0)));
        }
        errands.take(&mut taken);
        errands.take(&mut taken);
        assert!(taken.errands.is_empty() && taken.bytes.capacity() <= KEPT);
    }

    #[test]
    fn a_route_through_another_worker_leads_back() {
        for way in [Way::Listener(3), Way::Stream(70_000)] {
            let abroad = Way::abroad(255, way.route());
            assert_eq!(Way::host(abroad), Some((255, way.route())));
            assert_eq!(Way::of(abroad), if way == Way::Listener(3) { way } else { Way::Abroad });
            assert_eq!((Way::host(way.route()), Way::of(way.route())), (None, way));
        }
    }
}
