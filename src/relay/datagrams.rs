//! The datagram path: from a batch of received datagrams to runs of sent ones.

use std::{net::SocketAddr, ops::Range};

use super::{
    complaint,
    core::{Core, Destination, Outcome, Way},
    mail::Inbox,
    system::{BATCH, Batch, Outgoing, Received, SendOptions, Sender},
};
use crate::turn::{Client, Drop, FiveTuple, HEADROOM, RelayId, Time, ToClient, ToPeer, Transport};

/// The socket that a queued datagram leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Listener(usize),
    Relay(RelayId),
}

/// Letters taken from other workers before listeners and relay sockets have their turn.
const LETTERS: usize = 256;

/// What is to be sent, in order. All payloads in it stand in the same place: a batch, or another worker's mail.
struct Outbox {
    sender: Sender,
    outgoing: Vec<Outgoing>,
    /// By entry of `outgoing`: where it leaves from.
    from: Vec<From>,
    /// Where a message to a stream is put together.
    message: Vec<u8>,
}

impl Outbox {
    fn queue(&mut self, from: From, out: Outgoing) {
        self.outgoing.push(out);
        self.from.push(from);
    }

    /// Queues data for a client: a header, a payload in `bytes`, padding.
    fn queue_to_client(
        &mut self,
        core: &mut Core,
        bytes: &[u8],
        payload: &Payload,
        to_client: &ToClient,
        head: [u8; HEADROOM],
        now: Time,
    ) {
        let &ToClient { client, header_len, padding } = to_client;
        let mut out = Outgoing::bare(client.tuple.client, SendOptions::default(), payload.place.clone());
        (out.head, out.header_len, out.padding) = (head, header_len, padding);
        match Way::of(client.route) {
            Way::Listener(listener) => {
                out.options = SendOptions { from: core.source_for(listener, &client), tos: payload.tos, ..out.options };
                self.queue(From::Listener(listener), out);
            }
            Way::Stream(stream) => {
                self.message.clear();
                out.parts(bytes).into_iter().for_each(|part| self.message.extend_from_slice(part));
                core.queue_data(stream, &self.message, now);
            }
        }
    }

    /// Takes a datagram that a peer has sent to a relay socket. False if that has ended an allocation.
    fn peer_datagram(
        &mut self,
        core: &mut Core,
        bytes: &[u8],
        payload: &Payload,
        (relay, peer): (RelayId, SocketAddr),
        now: Time,
    ) -> bool {
        let mut head = [0; HEADROOM];
        match core.peer_datagram(relay, peer, payload.place.len(), &mut head, now) {
            Some(to_client) => self.queue_to_client(core, bytes, payload, &to_client, head, now),
            None if !core.server.has_effects() => {}
            None => {
                self.send(core, bytes);
                core.apply_effects();
                return false;
            }
        }
        true
    }

    /// Sends what is queued, in runs from one socket each.
    fn send(&mut self, core: &mut Core, bytes: &[u8]) {
        let mut start = 0;
        while let Some(from) = self.from.get(start).copied() {
            let len = self.from[start..].iter().take_while(|next| **next == from).count();
            let run = &self.outgoing[start..start + len];
            let socket = match from {
                From::Listener(at) => Some(&core.listeners[at].socket),
                From::Relay(id) => core.relays.get(id.0 as usize).map(|relay| &relay.socket),
            };
            let refused = socket.map_or(len, |socket| self.sender.send(socket, run, bytes));
            for _ in 0..refused {
                core.server.count_drop(Drop::SendFailed);
            }
            start += len;
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.outgoing.clear();
        self.from.clear();
    }
}

/// A payload to be passed on.
struct Payload {
    /// Where it stands.
    place: Range<usize>,
    /// The traffic class that it came with.
    tos: u8,
}

/// The buffers of the datagram path, one set per worker.
pub(super) struct Datagrams {
    batch: Batch,
    inbox: Inbox,
    out: Outbox,
}

impl Datagrams {
    pub(super) fn new(batch: Batch) -> Self {
        let out = Outbox {
            sender: Sender::new(),
            outgoing: Vec::with_capacity(BATCH),
            from: Vec::with_capacity(BATCH),
            message: Vec::new(),
        };
        Self { batch, inbox: Inbox::default(), out }
    }

    /// Handles one batch from a listener.
    pub(super) fn receive_from_clients(&mut self, core: &mut Core, listener: usize, now: Time) {
        core.listeners[listener].busy = false;
        let new = match self.batch.receive(&core.listeners[listener].socket) {
            Ok(new) => new,
            Err(error) => return complaint::about_receiving(&error),
        };
        core.listeners[listener].busy = self.batch.is_full();
        for at in new {
            let received = self.batch.received(at);
            let client = client(core, listener, &received);
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
                out.queue(From::Relay(relay), Outgoing::bare(address, options, place));
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
        inbox.refill(&core.shared.mailboxes[usize::from(core.worker)], now);
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

fn client(core: &Core, listener: usize, received: &Received) -> Client {
    let mut server = core.listeners[listener].local;
    if let Some(local) = received.local {
        server.set_ip(local);
    }
    let tuple = FiveTuple { client: received.source, server, transport: Transport::Udp };
    Client { tuple, route: Way::Listener(listener).route() }
}
