//! What is to be sent, until it leaves in runs: datagrams by the socket that they leave from, and data for streams.

use std::{net::SocketAddr, ops::Range};

use super::{
    core::{Core, Destination},
    grouping::{Flow, Grouping},
    route::Way,
    system::{BATCH, Outgoing, Run, SendOptions, Sender},
};
use crate::turn::{Drop, HEADROOM, RelayId, Time, ToClient, ToPeer};

/// The socket that a queued datagram leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Listener(usize),
    Relay(RelayId),
}

/// What is to be sent. All payloads in it stand in the same place: a batch, what a stream's client has sent, or another worker's
/// mail.
pub(super) struct Outbox {
    sender: Sender,
    outgoing: Vec<Outgoing>,
    /// By entry of `outgoing`: where it leaves from.
    from: Vec<From>,
    grouping: Grouping,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            sender: Sender::new(),
            outgoing: Vec::with_capacity(BATCH),
            from: Vec::with_capacity(BATCH),
            grouping: Grouping::new(BATCH),
        }
    }

    /// Passes a part of a client's message on to a peer, whichever way it takes.
    pub(super) fn pass_on(&mut self, core: &mut Core, bytes: &[u8], to_peer: &ToPeer, payload: Payload, now: Time) {
        let Payload { place, tos } = payload;
        let relay = to_peer.relay;
        match core.destination(to_peer) {
            Destination::Outside(address) if to_peer.dont_fragment => {
                self.send(core, bytes);
                core.send_outside(to_peer, address, &bytes[place], tos);
            }
            Destination::Outside(address) => {
                let options = SendOptions { from: None, tos, dont_fragment: false };
                self.queue(Flow::to_peers(relay), From::Relay(relay), Outgoing::bare(address, options, place));
            }
            Destination::Here(other) => {
                if let Some(peer) = core.external(relay) {
                    self.peer_datagram(core, bytes, &Payload { place, tos }, (other, peer), now);
                }
            }
            Destination::There(owner, address) => core.post(relay, owner, address, &bytes[place], tos),
        }
    }

    /// Queues one datagram.
    fn queue(&mut self, flow: Flow, from: From, out: Outgoing) {
        self.outgoing.push(out);
        self.from.push(from);
        self.grouping.add(flow);
    }

    /// Queues data that came to a relay socket for its client: a header, a payload in `bytes`, padding.
    fn queue_to_client(
        &mut self,
        core: &mut Core,
        bytes: &[u8],
        payload: &Payload,
        (relay, to_client): (RelayId, &ToClient),
        head: [u8; HEADROOM],
        now: Time,
    ) {
        let &ToClient { client, header_len, padding } = to_client;
        let mut out = Outgoing::bare(client.tuple.client, SendOptions::default(), payload.place.clone());
        (out.head, out.header_len, out.padding) = (head, header_len, padding);
        match Way::of(client.route) {
            Way::Listener(listener) => {
                out.options = SendOptions { from: core.source_for(listener, &client), tos: payload.tos, ..out.options };
                self.queue(Flow::to_client(relay), From::Listener(listener), out);
            }
            Way::Stream(stream) => core.queue_data(stream, out.parts(bytes), now),
            Way::Dtls(session) => core.send_dtls(session, out.parts(bytes), payload.tos),
            Way::Abroad => core.send_abroad(&client, out.parts(bytes), payload.tos),
        }
    }

    /// Takes a datagram that a peer has sent to a relay socket. False if that has ended an allocation.
    pub(super) fn peer_datagram(
        &mut self,
        core: &mut Core,
        bytes: &[u8],
        payload: &Payload,
        (relay, peer): (RelayId, SocketAddr),
        now: Time,
    ) -> bool {
        let mut head = [0; HEADROOM];
        match core.peer_datagram(relay, peer, payload.place.len(), &mut head, now) {
            Some(to_client) => self.queue_to_client(core, bytes, payload, (relay, &to_client), head, now),
            None if !core.server.has_effects() => {}
            None => {
                self.send(core, bytes);
                core.apply_effects();
                return false;
            }
        }
        true
    }

    /// Sends what is queued, flow by flow, in runs from one socket each.
    pub(super) fn send(&mut self, core: &mut Core, bytes: &[u8]) {
        let mut order = self.grouping.order();
        while let Some(&first) = order.first() {
            let from = self.from[first as usize];
            let len = order.iter().take_while(|next| self.from[**next as usize] == from).count();
            let run = Run::new(&self.outgoing, &order[..len]);
            let socket = match from {
                From::Listener(at) => Some(&core.listeners[at].socket),
                From::Relay(id) => core.relays.get(id.0 as usize).map(|relay| &relay.socket),
            };
            let refused = socket.map_or(len, |socket| self.sender.send(socket, run, bytes));
            for _ in 0..refused {
                core.server.count_drop(Drop::SendFailed);
            }
            order = &order[len..];
        }
        self.clear();
    }

    /// Forgets what is queued.
    pub(super) fn clear(&mut self) {
        self.outgoing.clear();
        self.from.clear();
        self.grouping.clear();
    }
}

/// A payload to be passed on.
pub(super) struct Payload {
    /// Where it stands.
    pub(super) place: Range<usize>,
    /// The traffic class that it came with.
    pub(super) tos: u8,
}
