//! The datagram path: from a batch of received datagrams to runs of sent ones.

use super::{
    complaint,
    core::{Core, Outcome},
    errands::Taken,
    mail::Inbox,
    monitor::Batches,
    outbox::{Outbox, Payload},
    route::Way,
    system::{Batch, Received},
    tls,
};
use crate::turn::{Client, Drop, FiveTuple, RelayId, Time, ToPeer, Transport};

/// Letters taken from other workers before listeners and relay sockets have their turn.
const LETTERS: usize = 256;

/// The buffers of the datagram path, one set per worker.
pub(super) struct Datagrams {
    batch: Batch,
    inbox: Inbox,
    errands: Taken,
    out: Outbox,
    /// Datagrams received since they were last asked for.
    handled: usize,
    batches: Batches,
}

impl Datagrams {
    pub(super) fn new(batch: Batch) -> Self {
        Self {
            batch,
            inbox: Inbox::default(),
            errands: Taken::default(),
            out: Outbox::new(),
            handled: 0,
            batches: Batches::default(),
        }
    }

    /// Handles one batch from a listener.
    pub(super) fn receive_from_clients(&mut self, core: &mut Core, listener: usize, now: Time) {
        let new = match self.batch.receive(&core.listeners[listener].socket) {
            Ok(new) => new,
            Err(error) => {
                // What has come is there still, and nothing more need come that would have it looked for.
                core.listeners[listener].busy = true;
                return complaint::about_receiving(&error);
            }
        };
        core.listeners[listener].busy = self.batch.is_full();
        self.note(new.len());
        for at in new {
            let received = self.batch.received(at);
            core.tos = received.tos;
            let tuple = tuple(core, listener, &received);
            if self.batch.payload(at).first().is_some_and(|first| tls::is_record(*first))
                && (core.listeners[listener].dtls || core.knows_dtls(&tuple))
            {
                self.open(core, listener, at, tuple, now);
                continue;
            }
            let realm = core.listeners[listener].realm;
            let client = Client { tuple, route: Way::Listener(listener).route(), realm };
            // Who has a session keeps it when the listener serves bare datagrams no longer.
            if !core.listeners[listener].plain && !core.server.has_allocation(&client) {
                core.server.count_drop(Drop::NotServed);
                core.server.note_not_served(&tuple, self.batch.payload(at), now);
                continue;
            }
            match core.client_message(&client, self.batch.payload(at), now) {
                Outcome::ToPeer(to_peer) => self.pass_on(core, at, &to_peer, now),
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    // A request may close the relay socket that earlier datagrams of this batch are to leave from.
                    self.out.send(core, self.batch.bytes());
                    if let Some(len) = core.settle(&client, outcome, now) {
                        core.send_reply(&client, len);
                    }
                }
            }
        }
        self.flush(core);
    }

    /// Notes a batch of so many datagrams.
    fn note(&mut self, datagrams: usize) {
        self.handled += datagrams;
        self.batches.count(datagrams);
    }

    /// What was received at once so far.
    pub(super) const fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Takes a datagram of DTLS. The messages in it come to stand where it stood, one after the other: they are shorter.
    fn open(&mut self, core: &mut Core, listener: usize, at: usize, tuple: FiveTuple, now: Time) {
        let tuple = FiveTuple { transport: Transport::Dtls, ..tuple };
        let client = core.dtls_datagram(listener, tuple, self.batch.payload(at), now);
        self.end_gone(core, now);
        let Some(client) = client else { return };
        let mut start = 0;
        while let Some(len) = core.read_dtls(&client, &mut self.batch.payload_mut(at)[start..]) {
            let end = start + len;
            match core.client_message(&client, &self.batch.payload(at)[start..end], now) {
                Outcome::ToPeer(mut to_peer) => {
                    to_peer.payload = start + to_peer.payload.start..start + to_peer.payload.end;
                    self.pass_on(core, at, &to_peer, now);
                    core.dtls_was_useful(&client, now);
                }
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    self.out.send(core, self.batch.bytes());
                    if let Some(len) = core.settle(&client, outcome, now) {
                        core.send_reply(&client, len);
                        core.dtls_was_useful(&client, now);
                    }
                }
            }
            start = end;
        }
        self.end_gone(core, now);
    }

    /// Ends the allocations of sessions that have ended.
    fn end_gone(&mut self, core: &mut Core, now: Time) {
        if core.has_gone() {
            self.out.send(core, self.batch.bytes());
            core.end_gone(now);
        }
    }

    /// Passes part of a received datagram on to a peer.
    fn pass_on(&mut self, core: &mut Core, at: usize, to_peer: &ToPeer, now: Time) {
        let Self { batch, out, .. } = self;
        let payload = Payload { place: batch.part(at, &to_peer.payload), tos: batch.received(at).tos };
        out.pass_on(core, batch.bytes(), to_peer, payload, now);
    }

    /// Takes what a relay socket has received. What goes to clients is only queued, so that datagrams from many relay sockets
    /// leave together: [`Datagrams::flush`] is to be called after the last one. Returns whether the socket was left empty.
    pub(super) fn receive_from_peers(&mut self, core: &mut Core, relay: RelayId, now: Time) -> bool {
        let Some(socket) = core.relays.get(relay.0 as usize) else { return true };
        if socket.handle.is_none() {
            // Left behind by a fault while it was being granted.
            core.relays.remove(relay.0 as usize);
            return true;
        }
        let new = match self.batch.receive(&socket.socket) {
            Ok(new) => new,
            Err(error) => {
                complaint::about_receiving(&error);
                return false;
            }
        };
        let drained = !self.batch.is_full();
        self.note(new.len());
        for at in new {
            let received = self.batch.received(at);
            let peer = core.spaces.outward(received.source);
            let payload = Payload { place: self.batch.place(at), tos: received.tos };
            if !self.out.peer_datagram(core, self.batch.bytes(), &payload, (relay, peer), now) {
                break;
            }
        }
        if !drained {
            self.flush(core);
        }
        drained
    }

    /// Takes what clients of other workers have sent to relayed addresses of this one. Returns whether there is more. Nothing may
    /// be queued from before.
    pub(super) fn receive_from_workers(&mut self, core: &mut Core, now: Time) -> bool {
        let Self { inbox, out, .. } = self;
        inbox.refill(&core.shared.mailboxes[usize::from(core.worker)], now);
        for _ in 0..LETTERS {
            let Some((letter, place)) = inbox.next() else { break };
            if core.has_address(letter.relay, letter.to)
                && let Some(peer) = core.external_of(letter.from)
            {
                out.peer_datagram(core, inbox.bytes(), &Payload { place, tos: letter.tos }, (letter.relay, peer), now);
            } else {
                // It has ended meanwhile.
                core.server.count_drop(Drop::NoAllocation);
            }
        }
        out.send(core, inbox.bytes());
        !inbox.is_empty()
    }

    /// Does what other workers have asked for. Nothing may be queued from before.
    pub(super) fn run_errands(&mut self, core: &mut Core, now: Time) {
        self.errands.run(core, &mut self.out, now);
    }

    /// Sends what is queued and makes room for the next batch.
    pub(super) fn flush(&mut self, core: &mut Core) {
        self.out.send(core, self.batch.bytes());
        self.batch.clear();
        core.wake_workers();
    }

    /// How many datagrams were received since the last call.
    pub(super) const fn take_handled(&mut self) -> usize {
        std::mem::replace(&mut self.handled, 0)
    }

    /// When [`Datagrams::give_back`] may have something to do.
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        self.inbox.next_deadline()
    }

    /// Gives memory back that was not needed for a while.
    pub(super) fn give_back(&mut self, core: &Core, now: Time) {
        self.inbox.give_back(&core.shared.mailboxes[usize::from(core.worker)], now);
    }

    /// Forgets everything, after a fault.
    pub(super) fn give_up(&mut self, core: &mut Core) {
        self.out.clear();
        self.batch.clear();
        self.inbox.clear();
        core.wake_workers();
    }
}

/// Between whom a datagram travels, by UDP alone.
fn tuple(core: &Core, listener: usize, received: &Received) -> FiveTuple {
    let mut server = core.listeners[listener].local;
    if let Some(local) = received.local {
        server.set_ip(local);
    }
    FiveTuple { client: received.source, server, transport: Transport::Udp }
}
