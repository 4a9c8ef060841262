//! The datagram path: from a batch of received datagrams to runs of sent ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    complaint,
    core::{Core, Outcome, Way},
    system::{BATCH, Batch, Outgoing, Received, SendOptions, Sender},
};
use crate::turn::{Client, Drop, EndReason, FiveTuple, HEADROOM, RelayId, Time, ToClient, Transport};

/// The socket that a queued datagram leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Listener(usize),
    Relay(RelayId),
}

/// The buffers of the datagram path, one set per worker.
pub(super) struct Datagrams {
    batch: Batch,
    sender: Sender,
    /// Datagrams of this batch to be sent, in order.
    outgoing: Vec<Outgoing>,
    /// By entry of `outgoing`: where it leaves from.
    from: Vec<From>,
    /// Where a message to a stream is put together.
    message: Vec<u8>,
}

impl Datagrams {
    pub(super) fn new(batch: Batch) -> Self {
        Self {
            batch,
            sender: Sender::new(),
            outgoing: Vec::with_capacity(BATCH),
            from: Vec::with_capacity(BATCH),
            message: Vec::new(),
        }
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
                Outcome::ToPeer(to_peer) if to_peer.dont_fragment => {
                    self.send_queued(core);
                    core.send_to_peer(&to_peer, &self.batch.payload(at)[to_peer.payload.clone()], received.tos);
                }
                Outcome::ToPeer(to_peer) => {
                    let options = SendOptions { from: None, tos: received.tos, dont_fragment: false };
                    let payload = self.batch.part(at, &to_peer.payload);
                    self.outgoing.push(Outgoing::bare(core.shared.inward(to_peer.peer), options, payload));
                    self.from.push(From::Relay(to_peer.relay));
                }
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    // A request may close the relay socket that earlier datagrams of this batch are to leave from.
                    self.send_queued(core);
                    if let Some(len) = core.settle(&client, outcome, now) {
                        self.reply(core, &client, len);
                    }
                }
            }
        }
        self.flush(core);
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
        let Some(handle) = socket.handle else {
            // Left behind by a fault while it was being granted.
            core.relays.remove(relay.0 as usize);
            return true;
        };
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
            let mut head = [0; HEADROOM];
            let handled =
                catch_unwind(AssertUnwindSafe(|| core.server.from_peer(handle, peer, received.len, &mut head, now)));
            match handled {
                Ok(Some(to_client)) => self.queue_to_client(core, at, &to_client, head, now),
                Ok(None) => {}
                Err(_) => {
                    complaint::about_panic(peer);
                    self.send_queued(core);
                    core.server.end_handle(handle, EndReason::Fault, now);
                    core.apply_effects();
                    break;
                }
            }
        }
        if !drained {
            self.flush(core);
        }
        drained
    }

    fn queue_to_client(&mut self, core: &mut Core, at: usize, to_client: &ToClient, head: [u8; HEADROOM], now: Time) {
        let &ToClient { client, header_len, padding } = to_client;
        let received = self.batch.received(at);
        let mut out = Outgoing::bare(client.tuple.client, SendOptions::default(), self.batch.place(at));
        (out.head, out.header_len, out.padding) = (head, header_len, padding);
        match Way::of(client.route) {
            Way::Listener(listener) => {
                out.options =
                    SendOptions { from: core.source_for(listener, &client), tos: received.tos, ..out.options };
                self.outgoing.push(out);
                self.from.push(From::Listener(listener));
            }
            Way::Stream(stream) => {
                self.message.clear();
                out.parts(&self.batch).into_iter().for_each(|part| self.message.extend_from_slice(part));
                core.queue_data(stream, &self.message, now);
            }
        }
    }

    /// Sends what is queued and makes room for the next batch.
    pub(super) fn flush(&mut self, core: &mut Core) {
        self.send_queued(core);
        self.batch.clear();
    }

    /// Sends what is queued, in runs from one socket each.
    fn send_queued(&mut self, core: &mut Core) {
        let mut start = 0;
        while let Some(from) = self.from.get(start).copied() {
            let len = self.from[start..].iter().take_while(|next| **next == from).count();
            let run = &self.outgoing[start..start + len];
            let socket = match from {
                From::Listener(at) => Some(&core.listeners[at].socket),
                From::Relay(id) => core.relays.get(id.0 as usize).map(|relay| &relay.socket),
            };
            let refused = socket.map_or(len, |socket| self.sender.send(socket, run, &self.batch));
            for _ in 0..refused {
                core.server.count_drop(Drop::SendFailed);
            }
            start += len;
        }
        self.outgoing.clear();
        self.from.clear();
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
