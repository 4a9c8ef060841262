//! What workers do for each other when a client has moved (RFC 8016) to a 5-tuple that another worker serves than the one that
//! has its allocation: that one is its *host*, who hands over what the client sends, and what is for a client on a stream or over
//! DTLS. Each worker has a list of errands, bounded but for those that carry no bytes of a client, which come once per move. With
//! them come notices: what stores have answered, and revocations.

use std::{
    mem,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    core::{Core, Outcome},
    inquiries::Found,
    outbox::{Outbox, Payload},
    route::Way,
    shared::Shared,
};
use crate::turn::{Client, Drop, EndReason, FiveTuple, Revocation, Time};

/// Bytes that wait at most, if there is a message among them.
const LIMIT: usize = 1 << 20;
/// Memory that an empty list keeps.
const KEPT: usize = 64 << 10;
/// Errands after which what goes to peers leaves.
const AT_ONCE: usize = 256;

/// What a worker is to do. Routes are those of the worker that is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// Handle what a client of yours has sent, with this traffic class.
    Handle(Client, u8),
    /// This client has no allocation with me: handle yourself what it has sent, with this traffic class.
    Return(Client, u8),
    /// Send your client data, with this traffic class.
    Data(Client, u8),
    /// Send your client a response.
    Response(Client),
    /// The worker of this number has your client's allocation from now on.
    Admit(Client, u16),
    /// The worker of this number no longer has an allocation of your client's.
    Dismiss(Client, u16),
    /// The connection of a client of yours is gone.
    Gone(Client),
}

/// What a worker is told that is no client's doing.
#[derive(Debug)]
pub(super) enum Notice {
    /// What a store has said about the request that waits under this number.
    Answer(u64, Found),
    /// End the sessions that this concerns, and tell how many they were.
    Revoke(Arc<Revocation>, mpsc::UnboundedSender<usize>),
    /// There are other peer rules: end what they do not permit.
    Peers,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With the length of the message of each.
    errands: Vec<(Errand, usize)>,
    /// The messages, one after the other.
    bytes: Vec<u8>,
    /// Of each kind no more than somebody waits for.
    notices: Vec<Notice>,
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

    /// Adds one, with a message in parts; `None` if there is no room, or else whether the worker is to be woken.
    fn add(&self, errand: Errand, message: [&[u8]; 3]) -> Option<bool> {
        let len = message.iter().map(|part| part.len()).sum();
        let mut waiting = self.lock();
        let size = waiting.bytes.len() + len + (waiting.errands.len() + 1) * size_of::<(Errand, usize)>();
        if len > 0 && size > LIMIT {
            return None;
        }
        message.into_iter().for_each(|part| waiting.bytes.extend_from_slice(part));
        waiting.errands.push((errand, len));
        Some(!mem::replace(&mut waiting.announced, true))
    }

    /// Adds a notice. Whether the worker is to be woken.
    pub(super) fn tell(&self, notice: Notice) -> bool {
        let mut waiting = self.lock();
        waiting.notices.push(notice);
        !mem::replace(&mut waiting.announced, true)
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
        into.notices = mem::take(&mut waiting.notices);
        waiting.announced = false;
    }

    /// Forgets what was meant for an earlier life of the worker.
    pub(super) fn clear(&self) {
        *self.lock() = Waiting::default();
    }
}

/// No message.
pub(super) const NOTHING: [&[u8]; 3] = [&[]; 3];

/// Asks a worker for something and notes in `to_wake` if it is to be woken. The message comes in parts; false if there is no room
/// for it.
pub(super) fn ask(shared: &Shared, to_wake: &mut Vec<u16>, worker: u16, errand: Errand, message: [&[u8]; 3]) -> bool {
    let Some(errands) = shared.errands.get(usize::from(worker)) else { return false };
    let added = errands.add(errand, message);
    if added == Some(true) {
        to_wake.push(worker);
    }
    added.is_some()
}

/// What has been taken from the list.
#[derive(Debug, Default)]
pub(super) struct Taken {
    errands: Vec<(Errand, usize)>,
    bytes: Vec<u8>,
    notices: Vec<Notice>,
}

impl Taken {
    /// Does what other workers have asked for. What goes to peers leaves together; `out` must be empty.
    pub(super) fn run(&mut self, core: &mut Core, out: &mut Outbox, now: Time) {
        core.shared.errands[usize::from(core.worker)].take(self);
        let mut end = 0;
        for errands in self.errands.chunks(AT_ONCE) {
            for (errand, len) in errands {
                let place = end..end + len;
                end = place.end;
                Message { bytes: &self.bytes, place }.run(*errand, core, out, now);
            }
            out.send(core, &self.bytes);
        }
        for notice in mem::take(&mut self.notices) {
            match notice {
                Notice::Answer(number, found) => core.answered(number, &found, now),
                Notice::Revoke(revocation, ended) => {
                    let count = core.server.revoke(&revocation, now);
                    core.apply_effects();
                    // Nobody may want to know any more.
                    let _ = ended.send(count);
                }
                Notice::Peers => {
                    core.server.forget_denied();
                    core.apply_effects();
                }
            }
        }
        core.wake_workers();
    }
}

/// The message of an errand.
struct Message<'t> {
    /// Those of all errands.
    bytes: &'t [u8],
    place: Range<usize>,
}

impl Message<'_> {
    fn get(&self) -> &[u8] {
        &self.bytes[self.place.clone()]
    }

    fn run(&self, errand: Errand, core: &mut Core, out: &mut Outbox, now: Time) {
        match errand {
            Errand::Handle(client, tos) => self.handle_guest(&client, tos, core, out, now),
            Errand::Return(client, tos) => {
                // It was the host of a client who has left meanwhile.
                if let Some(home) = core.server.home(&client) {
                    core.server.dismiss(&client, home);
                }
                if core.is_connected(&client) {
                    let outcome = core.client_message(&client, self.get(), now);
                    self.finish(&client, outcome, tos, core, out, now);
                }
            }
            Errand::Data(client, tos) if core.is_connected(&client) => {
                let parts = [self.get(), &[], &[]];
                match Way::of(client.route) {
                    Way::Stream(at) => core.queue_data(at, parts, now),
                    Way::Dtls(at) => core.send_dtls(at, parts, tos),
                    Way::Listener(_) | Way::Abroad => {}
                }
            }
            Errand::Response(client) if core.is_connected(&client) => {
                // All workers' buffers have the same length.
                if let Some(reply) = core.reply.get_mut(..self.place.len()) {
                    reply.copy_from_slice(self.get());
                    core.send_reply(&client, self.place.len());
                }
            }
            Errand::Data(..) | Errand::Response(_) => {}
            Errand::Admit(client, home) => {
                if !core.is_connected(&client) || !core.server.admit(&client, home) {
                    let guest = Client { route: Way::abroad(core.worker, client.route), ..client };
                    core.ask(home, Errand::Gone(guest), NOTHING);
                }
            }
            Errand::Dismiss(client, home) => core.server.dismiss(&client, home),
            Errand::Gone(client) => {
                // What is queued leaves before its relay socket is closed.
                out.send(core, self.bytes);
                core.server.end_client(&client, EndReason::ConnectionClosed, now);
                core.apply_effects();
            }
        }
    }

    /// Handles what a client of another worker's has sent for an allocation of this one.
    fn handle_guest(&self, client: &Client, tos: u8, core: &mut Core, out: &mut Outbox, now: Time) {
        let Some((host, route)) = Way::host(client.route) else { return };
        let there = Client { route, ..*client };
        let outcome = core.client_message(client, self.get(), now);
        if let Outcome::Allocate(_) = &outcome {
            // It had an allocation when this was handed over, and is to get a new one from its own worker.
            return core.ask(host, Errand::Return(there, tos), [self.get(), &[], &[]]);
        }
        self.finish(client, outcome, tos, core, out, now);
        if !core.server.owns_allocation(client) {
            core.ask(host, Errand::Dismiss(there, core.worker), NOTHING);
        }
    }

    /// Does what is to be done about it.
    fn finish(&self, client: &Client, outcome: Outcome, tos: u8, core: &mut Core, out: &mut Outbox, now: Time) {
        match outcome {
            Outcome::ToPeer(to_peer) => {
                let start = self.place.start;
                let place = start + to_peer.payload.start..start + to_peer.payload.end;
                out.pass_on(core, self.bytes, &to_peer, Payload { place, tos }, now);
            }
            Outcome::Nothing if !core.server.has_effects() => {}
            outcome => {
                // A request may close the relay socket that earlier messages are to leave from.
                out.send(core, self.bytes);
                if let Some(len) = core.settle(client, outcome, now) {
                    core.send_reply(client, len);
                }
            }
        }
    }
}

impl Core {
    /// Hands a client's message over to the worker that has its allocation.
    pub(super) fn forward(&mut self, client: &Client, message: &[u8], home: u16) {
        let guest = Client { route: Way::abroad(self.worker, client.route), ..*client };
        let tos = if guest.tuple.transport.is_stream() { 0 } else { self.tos };
        self.ask(home, Errand::Handle(guest, tos), [message, &[], &[]]);
    }

    /// Sends a client of another worker's a message, in parts.
    pub(super) fn send_abroad(&mut self, client: &Client, message: [&[u8]; 3], tos: u8) {
        if let Some((host, route)) = Way::host(client.route) {
            self.ask(host, Errand::Data(Client { route, ..*client }, tos), message);
        }
    }

    /// Sends so much of [`Core::reply`] to a client of another worker's.
    pub(super) fn reply_abroad(&mut self, client: &Client, len: usize) {
        let Some((host, route)) = Way::host(client.route) else { return };
        let errand = Errand::Response(Client { route, ..*client });
        if !ask(&self.shared, &mut self.to_wake, host, errand, [&self.reply[..len], &[], &[]]) {
            self.server.count_drop(Drop::WorkerBusy);
        }
    }

    fn ask(&mut self, worker: u16, errand: Errand, message: [&[u8]; 3]) {
        if !ask(&self.shared, &mut self.to_wake, worker, errand, message) {
            self.server.count_drop(Drop::WorkerBusy);
        }
    }

    /// Whether the client's route still leads to it.
    pub(super) fn is_connected(&self, client: &Client) -> bool {
        match Way::of(client.route) {
            Way::Stream(at) => self.outlets.is_of(at, &client.tuple),
            Way::Dtls(at) => self.has_dtls(at, &client.tuple),
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
    use crate::turn::{RealmId, Transport};

    #[test]
    fn what_waits_is_bounded_but_for_what_has_no_message() {
        let address = "127.0.0.1:1".parse().unwrap();
        let tuple = FiveTuple { client: address, server: address, transport: Transport::Udp };
        let client = Client { tuple, route: Way::Stream(7).route(), realm: RealmId::DEFAULT };
        let errands = Errands::default();
        let mut taken = Taken::default();
        for _ in 0..3 {
            assert_eq!(errands.add(Errand::Data(client, 0), [&[1; 2], &[], &[1; 2]]), Some(true));
            let added =
                (0..1_000_000).filter(|_| errands.add(Errand::Data(client, 0), [&[2; 4], &[], &[]]).is_some()).count();
            assert!((1_000..LIMIT / size_of::<(Errand, usize)>()).contains(&added), "{added}");
            assert_eq!(errands.add(Errand::Gone(client), NOTHING), Some(false));
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
        for way in [Way::Listener(3), Way::Stream(70_000), Way::Dtls((1 << 21) - 1)] {
            let abroad = Way::abroad(255, way.route());
            assert_eq!(Way::host(abroad), Some((255, way.route())));
            assert_eq!(Way::of(abroad), if way == Way::Listener(3) { way } else { Way::Abroad });
            assert_eq!((Way::host(way.route()), Way::of(way.route())), (None, way));
        }
    }
}
