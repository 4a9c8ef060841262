//! TCP allocations (RFC 6062): Connect, connections that peers open, ConnectionBind, and the ends of all of them.
//!
//! The bytes of bound connections do not come by here: only who may be connected with whom is decided.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::{
    Client, ConnectionId, Drop, Effect, Family, Flow, Handle, RelayId, Server, Step, Subject, Time, Traffic,
    authentication::Requester,
    connection::{Connection, State},
    create_permission::PEER_FORBIDDEN,
    data::random_id,
    reply::{Reject, ReplyContext},
};
use crate::stun::{AttributeType, Class, ErrorCode, Message, MessageWriter, Method};

/// A connection to a peer that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Its id.
    pub id: ConnectionId,
    /// Whose address it is to come from.
    pub relay: RelayId,
    /// The peer.
    pub peer: SocketAddr,
}

/// A connection with a peer that now waits for its ConnectionBind.
#[derive(Debug)]
pub struct PeerConnection {
    /// Its id.
    pub id: ConnectionId,
    /// The only one who may bind it.
    pub subject: Arc<Subject>,
    /// The allocation.
    pub handle: Handle,
    /// Counts what it relays.
    pub flow: Arc<Flow>,
    /// Who is to be told.
    pub client: Client,
    /// Bytes of message to the client.
    pub len: usize,
}

/// A ConnectionBind that has passed all checks but that of its CONNECTION-ID, which another worker may have given out.
#[derive(Debug)]
pub struct PendingBind {
    /// The connection that is asked for.
    pub id: ConnectionId,
    /// Who asks.
    pub subject: Arc<Subject>,
    context: ReplyContext,
}

/// Why a peer connection cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindRefusal {
    /// None of this id waits for a client.
    Unknown,
    /// It is another user's.
    WrongUser,
    /// The system cannot take it.
    Fault,
}

impl Server {
    /// Connect (RFC 6062 §5.2).
    pub(super) fn connect<'m>(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        context: ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        self.expire_connections(handle, now);
        match self.check_connect(handle, message, now) {
            Ok((relay, peer)) => {
                let id = self.add_connection(handle, peer, State::Connecting(Box::new(context)));
                Step::Connect(ConnectRequest { id, relay, peer })
            }
            Err(error) => self.error(&context, error, reply),
        }
    }

    fn check_connect(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        now: Time,
    ) -> Result<(RelayId, SocketAddr), Reject> {
        let allocation = &self.table[handle];
        let Some(connections) = &allocation.connections else { return Err(ErrorCode::AllocationMismatch.into()) };
        let Some(Ok(peer)) = message.get_xor_address(AttributeType::XOR_PEER_ADDRESS) else {
            return Err(ErrorCode::BadRequest.into());
        };
        let relayed = allocation.relayed(Family::of(peer.ip()), now).ok_or(ErrorCode::PeerAddressFamilyMismatch)?;
        if connections.to(peer).is_some() {
            return Err(ErrorCode::ConnectionAlreadyExists.into());
        }
        // Nothing listens on port 0.
        if peer.port() == 0 || !self.policy.permits_connection(allocation.owner.realm, peer) {
            self.note_peer(handle, peer, now);
            return Err(PEER_FORBIDDEN);
        }
        if connections.len() >= self.rules.max_connections {
            return Err(ErrorCode::InsufficientCapacity.into());
        }
        let relay = relayed.relay;
        self.add_peers(handle, 1, now)?;
        Ok((relay, peer))
    }

    /// A Connect has succeeded: writes its response. `None` if nobody waits for one any more.
    pub fn connected(&mut self, id: ConnectionId, reply: &mut [u8], now: Time) -> Option<PeerConnection> {
        let handle = *self.connections.get(&id)?;
        let expires = now + self.rules.bind_timeout;
        let connection = self.table[handle].connections.as_mut()?.get(id).filter(|connection| connection.is_new())?;
        let before = std::mem::replace(&mut connection.state, State::Pending(expires));
        let State::Connecting(context) = before else { return None };
        let flow = Arc::clone(&connection.flow);
        self.table.arm(handle);
        let len = context.success(&self.rules, reply, |writer| {
            writer.u32(AttributeType::CONNECTION_ID, id.0);
        });
        self.count_response(reply, len);
        Some(self.presented(handle, id, flow, len))
    }

    /// A Connect has failed or timed out: writes its response, and returns whom it is for and its length. `None` if nobody waits
    /// for one any more.
    pub fn connect_failed(&mut self, id: ConnectionId, reply: &mut [u8]) -> Option<(Client, usize)> {
        let allocation = &mut self.table[*self.connections.get(&id)?];
        let mut taken = allocation.connections.as_mut()?.take(|connection| connection.id == id && connection.is_new());
        let Connection { peer, state: State::Connecting(context), .. } = taken.pop()? else { return None };
        self.connections.remove(&id);
        allocation.history.dropped_to(Drop::Icmp, peer.ip());
        let client = allocation.client;
        let len = context.error(&self.rules, reply, ErrorCode::ConnectionTimeoutOrFailure, |_| {});
        self.count_response(reply, len);
        Some((client, len))
    }

    /// A peer has connected to the relayed address (RFC 6062 §5.3): writes a ConnectionAttempt indication. `None`: the
    /// connection is to be closed at once, and has been counted.
    ///
    /// If a Connect to this very peer is on its way, the two have met, and no other connection between the same addresses can
    /// be made: it is the one that the client has asked for, and what is written is the response to its Connect.
    pub fn peer_connects(
        &mut self,
        handle: Handle,
        peer: SocketAddr,
        reply: &mut [u8],
        now: Time,
    ) -> Option<PeerConnection> {
        if let Some(id) = self.connecting_to(handle, peer) {
            return self.connected(id, reply, now);
        }
        if let Err(reason) = self.check_peer(handle, peer, now) {
            self.totals.drop(reason);
            if let Some(allocation) = self.table.get_mut(handle) {
                allocation.history.dropped_from(reason, peer.ip());
            }
            return None;
        }
        // Two connections between the same two addresses cannot be: the peer has given the older one up.
        self.close_connections(handle, |connection| connection.peer == peer);
        let id = self.add_connection(handle, peer, State::Pending(now + self.rules.bind_timeout));
        self.table.arm(handle);
        let flow = Arc::clone(&self.table[handle].connections.as_mut()?.get(id)?.flow);
        let transaction = random_id(&mut self.rng);
        let mut writer = MessageWriter::new(reply, Method::ConnectionAttempt, Class::Indication, transaction);
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).u32(AttributeType::CONNECTION_ID, id.0);
        // An indication of two short attributes fits any buffer.
        let len = writer.finish().unwrap_or(0);
        Some(self.presented(handle, id, flow, len))
    }

    /// The connection to this peer that is being made.
    fn connecting_to(&self, handle: Handle, peer: SocketAddr) -> Option<ConnectionId> {
        let connection = self.table.get(handle)?.connections.as_ref()?.to(peer)?;
        connection.is_new().then_some(connection.id)
    }

    fn check_peer(&mut self, handle: Handle, peer: SocketAddr, now: Time) -> Result<(), Drop> {
        let allocation = self.table.get(handle).ok_or(Drop::NoAllocation)?;
        allocation.relayed(Family::of(peer.ip()), now).ok_or(Drop::NoAllocation)?;
        if !allocation.permissions.allow(peer.ip(), now) {
            return Err(Drop::NoPermission);
        }
        if !self.policy.permits(allocation.owner.realm, peer) {
            return Err(Drop::PeerRefused);
        }
        self.expire_connections(handle, now);
        let connections = self.table[handle].connections.as_ref().ok_or(Drop::NoAllocation)?;
        let has_room = connections.len() < self.rules.max_connections || connections.to(peer).is_some();
        if has_room { Ok(()) } else { Err(Drop::TooManyConnections) }
    }

    fn presented(&self, handle: Handle, id: ConnectionId, flow: Arc<Flow>, len: usize) -> PeerConnection {
        let allocation = &self.table[handle];
        let subject = Arc::clone(&allocation.owner.subject);
        PeerConnection { id, subject, handle, flow, client: allocation.client, len }
    }

    /// ConnectionBind (RFC 6062 §5.4), on any connection but one that has an allocation.
    pub(super) fn connection_bind<'m>(
        &mut self,
        client: &Client,
        message: &Message<'_>,
        context: ReplyContext,
        requester: &Requester,
        has_allocation: bool,
        reply: &mut [u8],
    ) -> Step<'m> {
        match message.get_u32(AttributeType::CONNECTION_ID) {
            Some(Ok(id)) if client.tuple.transport.is_stream() && !has_allocation => {
                let subject = Arc::clone(&requester.subject);
                Step::Bind(Box::new(PendingBind { id: ConnectionId(id), subject, context }))
            }
            _ => self.error(&context, ErrorCode::BadRequest, reply),
        }
    }

    /// Ends what [`Step::Bind`] began. Returns the length of the response.
    pub fn complete_bind(
        &mut self,
        pending: &PendingBind,
        outcome: Result<(), BindRefusal>,
        reply: &mut [u8],
    ) -> usize {
        let error = match outcome {
            Ok(()) => {
                let len = pending.context.success(&self.rules, reply, |_| {});
                self.count_response(reply, len);
                return len;
            }
            Err(BindRefusal::Unknown) => ErrorCode::BadRequest,
            Err(BindRefusal::WrongUser) => ErrorCode::WrongCredentials,
            Err(BindRefusal::Fault) => ErrorCode::ServerError,
        };
        let len = pending.context.error(&self.rules, reply, error, |_| {});
        self.count_response(reply, len);
        len
    }

    /// A client data connection has been bound to a peer connection, here or by another worker.
    pub fn bound(&mut self, id: ConnectionId) {
        let Some(handle) = self.connections.get(&id) else { return };
        if let Some(connection) = self.table[*handle].connections.as_mut().and_then(|all| all.get(id)) {
            connection.state = State::Bound;
        }
    }

    /// A peer connection is no more.
    pub fn peer_closed(&mut self, id: ConnectionId) {
        if let Some(handle) = self.connections.get(&id) {
            self.take_connections(*handle, |connection| connection.id == id);
        }
    }

    /// The client whose allocation this is, if it has not ended.
    #[must_use]
    pub fn client(&self, handle: Handle) -> Option<Client> {
        self.table.get(handle).map(|allocation| allocation.client)
    }

    fn add_connection(&mut self, handle: Handle, peer: SocketAddr, state: State) -> ConnectionId {
        let id = loop {
            let id = self.rules.connection_ids.draw(&mut self.rng);
            if !self.connections.contains_key(&id) {
                break id;
            }
        };
        let allocation = &mut self.table[handle];
        if let Some(connections) = &mut allocation.connections {
            allocation.history.peers = allocation.history.peers.saturating_add(1);
            connections.insert(Connection { id, peer, state, flow: Arc::default() });
            self.connections.insert(id, handle);
        }
        id
    }

    /// Closes what has waited too long for its ConnectionBind.
    pub(super) fn expire_connections(&mut self, handle: Handle, now: Time) {
        self.close_connections(handle, |connection| connection.is_expired(now));
    }

    /// Closes those of an allocation's connections that are `due`.
    pub(super) fn close_connections(&mut self, handle: Handle, due: impl FnMut(&Connection) -> bool) {
        let taken = self.take_connections(handle, due);
        self.effects.extend(taken.into_iter().map(Effect::ClosePeer));
    }

    /// Forgets connections, and counts what they have relayed.
    fn take_connections(&mut self, handle: Handle, due: impl FnMut(&Connection) -> bool) -> Vec<ConnectionId> {
        let allocation = &mut self.table[handle];
        let Some(connections) = &mut allocation.connections else { return Vec::new() };
        let taken = connections.take(due);
        for connection in &taken {
            self.connections.remove(&connection.id);
            let [to_peer, to_client]: [Traffic; 2] = connection.flow.traffic();
            allocation.to_peers.add(to_peer);
            allocation.to_client.add(to_client);
            self.totals.to_peers.add(to_peer);
            self.totals.to_clients.add(to_client);
        }
        if self.connections.is_empty() {
            // A peak's memory is given back.
            self.connections = HashMap::new();
        }
        taken.into_iter().map(|connection| connection.id).collect()
    }
}
