//! The datagram path: from a batch of received datagrams to runs of sent ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    complaint,
    core::{Core, Outcome, Way},
    system::{BATCH, Batch, Outgoing, Received, SendOptions, Sender},
};
use crate::turn::{Client, Drop, EndReason, FiveTuple, RelayId, Time, ToClient, Transport};

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
}

impl Datagrams {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, sender: Sender::new(), outgoing: Vec::with_capacity(BATCH), from: Vec::with_capacity(BATCH) }
    }

    /// Handles one batch from a listener.
    pub(super) fn receive_from_clients(&mut self, core: &mut Core, listener: usize, now: Time) {
        let count = match self.batch.receive(&core.listeners[listener].socket) {
            Ok(count) => count,
            Err(error) => return complaint::about_receiving(&error),
        };
        core.listeners[listener].busy = count == BATCH;
        for slot in 0..count {
            let received = self.batch.received(slot);
            let client = client(core, listener, &received);
            match core.client_message(&client, self.batch.payload(slot), now) {
                Outcome::ToPeer(to_peer) if to_peer.dont_fragment => {
                    self.flush(core);
                    core.send_to_peer(&to_peer, &self.batch.payload(slot)[to_peer.payload.clone()], received.tos);
                }
                Outcome::ToPeer(to_peer) => {
                    let options = SendOptions { from: None, tos: received.tos, dont_fragment: false };
                    let range = self.batch.part(slot, &to_peer.payload);
                    self.outgoing.push(Outgoing { to: core.shared.inward(to_peer.peer), options, range });
                    self.from.push(From::Relay(to_peer.relay));
                }
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    self.flush(core);
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

    /// Handles one batch from a relay socket.
    pub(super) fn receive_from_peers(&mut self, core: &mut Core, relay: RelayId, now: Time) {
        let Some(socket) = core.relays.get(relay.0 as usize) else { return };
        let Some(handle) = socket.handle else {
            // Left behind by a fault while it was being granted.
            core.relays.remove(relay.0 as usize);
            return;
        };
        let count = match self.batch.receive(&socket.socket) {
            Ok(count) => count,
            Err(error) => return complaint::about_receiving(&error),
        };
        for slot in 0..count {
            let received = self.batch.received(slot);
            let peer = core.shared.outward(received.source);
            let headroom = self.batch.headroom(slot);
            let handled =
                catch_unwind(AssertUnwindSafe(|| core.server.from_peer(handle, peer, received.len, headroom, now)));
            match handled {
                Ok(Some(to_client)) => self.queue_to_client(core, slot, &to_client, received.tos, now),
                Ok(None) => {}
                Err(_) => {
                    complaint::about_panic(peer);
                    self.flush(core);
                    core.server.end_handle(handle, EndReason::Fault, now);
                    core.apply_effects();
                    return;
                }
            }
        }
        self.flush(core);
    }

    fn queue_to_client(&mut self, core: &mut Core, slot: usize, to_client: &ToClient, tos: u8, now: Time) {
        let range = self.batch.framed(slot, to_client.header_len, to_client.padding);
        match Way::of(to_client.client.route) {
            Way::Listener(listener) => {
                let from = core.source_for(listener, &to_client.client);
                let options = SendOptions { from, tos, dont_fragment: false };
                self.outgoing.push(Outgoing { to: to_client.client.tuple.client, options, range });
                self.from.push(From::Listener(listener));
            }
            Way::Stream(stream) => core.queue_data(stream, self.batch.bytes(range), now),
        }
    }

    /// Sends what is queued, in runs from one socket each.
    fn flush(&mut self, core: &mut Core) {
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
