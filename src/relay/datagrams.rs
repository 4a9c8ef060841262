//! The datagram path: from a batch of received datagrams to runs of sent ones.

use super::{
    complaint,
    core::{Core, Destination, Outcome, Way},
    mail::Inbox,
    outbox::{Outbox, Payload},
    system::{Batch, Outgoing, Received, SendOptions},
};
use crate::turn::{Client, Drop, FiveTuple, RelayId, Time, ToPeer, Transport};

/// Letters taken from other workers before listeners and relay sockets have their turn.
const LETTERS: usize = 256;

/// The buffers of the datagram path, one set per worker.
pub(super) struct Datagrams {
    batch: Batch,
    inbox: Inbox,
    out: Outbox,
    /// Datagrams received since they were last asked for.
    handled: usize,
}

impl Datagrams {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, inbox: Inbox::default(), out: Outbox::new(), handled: 0 }
    }

    /// Handles one batch from a listener.
    pub(super) fn receive_from_clients(&mut self, core: &mut Core, listener: usize, now: Time) {
        core.listeners[listener].busy = false;
        let new = match self.batch.receive(&core.listeners[listener].socket) {
            Ok(new) => new,
            Err(error) => return complaint::about_receiving(&error),
        };
        core.listeners[listener].busy = self.batch.is_full();
        self.handled += new.len();
        for at in new {
            let received = self.batch.received(at);
            let client = client(core, listener, &received);
            core.tos = received.tos;
            match core.client_message(&client, self.batch.payload(at), now) {
                Outcome::ToPeer(to_peer) => self.pass_on(core, at, &to_peer, now),
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    // A request may close the relay socket that earlier datagrams of this batch are to leave from.
                    self.out.send(core, self.batch.bytes());
                    if let Some(len) = core.settle(&client, outcome, now) {
                        self.reply(core, &client, len);
                    }
                }
            }
        }
        self.flush(core);
    }

    /// Passes part of a received datagram on to a peer.
    fn pass_on(&mut self, core: &mut Core, at: usize, to_peer: &ToPeer, now: Time) {
        let Self { batch, out, .. } = self;
        let (tos, relay) = (batch.received(at).tos, to_peer.relay);
        let place = batch.part(at, &to_peer.payload);
        match core.destination(to_peer) {
            Destination::Outside(address) if to_peer.dont_fragment => {
                out.send(core, batch.bytes());
                core.send_outside(to_peer, address, &batch.bytes()[place], tos);
            }
            Destination::Outside(address) => {
                let options = SendOptions { from: None, tos, dont_fragment: false };
                out.queue_to_peer(relay, Outgoing::bare(address, options, place));
            }
            Destination::Here(other) => {
                if let Some(peer) = core.external(relay) {
                    out.peer_datagram(core, batch.bytes(), &Payload { place, tos }, (other, peer), now);
                }
            }
            Destination::There(owner, address) => core.post(relay, owner, address, &batch.bytes()[place], tos),
        }
    }

    fn reply(&self, core: &mut Core, client: &Client, len: usize) {
        let Way::Listener(listener) = Way::of(client.route) else { return };
        let options = SendOptions { from: core.source_for(listener, client), ..SendOptions::default() };
        if core.listeners[listener].socket.send(&core.reply[..len], client.tuple.client, options).is_err() {
            core.server.count_drop(Drop::SendFailed);
        }
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
        self.handled += new.len();
        for at in new {
            let received = self.batch.received(at);
            let peer = core.shared.outward(received.source);
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
        inbox.refill(&core.shared.mailboxes[usize::from(core.worker)]);
        for _ in 0..LETTERS {
            let Some((letter, place)) = inbox.next() else { break };
            if core.has_address(letter.relay, letter.to) {
                let peer = core.shared.external(letter.from);
                out.peer_datagram(core, inbox.bytes(), &Payload { place, tos: letter.tos }, (letter.relay, peer), now);
            } else {
                // It has ended meanwhile.
                core.server.count_drop(Drop::NoAllocation);
            }
        }
        out.send(core, inbox.bytes());
        !inbox.is_empty()
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

    /// Forgets everything, after a fault.
    pub(super) fn give_up(&mut self, core: &mut Core) {
        self.out.clear();
        self.batch.clear();
        self.inbox.clear();
        core.wake_workers();
    }
}

fn client(core: &Core, listener: usize, received: &Received) -> Client {
    let mut server = core.listeners[listener].local;
    if let Some(local) = received.local {
        server.set_ip(local);
    }
    let tuple = FiveTuple { client: received.source, server, transport: Transport::Udp };
    Client { tuple, route: Way::Listener(listener).route() }
}
