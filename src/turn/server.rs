//! The server: takes what a client sent and says what to do.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    AllocationId, Answer, Census, Client, ConnectRequest, ConnectionId, Drop, EndReason, Family, FiveTuple, Handle,
    PendingAllocate, PendingBind, Policy, Query, Reason, RelayId, Rules, SessionSummary, Subject, Time, ToPeer, Totals,
    Transport, Unauthenticated,
    authentication::{Authenticator, Failure, Outcome, Proof, Requester, SHORTEST_TERM},
    challenge, discovery,
    mobility::{Guests, Tickets},
    nonce::Nonces,
    notes,
    records::Records,
    reply::{Reject, ReplyContext, Words},
    table::Table,
};
use crate::stun::{AttributeType, ChannelNumber, Class, ErrorCode, Message, Method, ParseError, demultiplex::Protocol};

/// What to do about a message from a client.
#[derive(Debug)]
pub enum Step<'m> {
    /// Nothing; it has been counted.
    Dropped,
    /// Send the first so many bytes of the reply buffer back to the client.
    Reply(usize),
    /// Send a reply by UDP from another address than the request was sent to, or to another port than it came from.
    ReplyElsewhere(Elsewhere),
    /// Send part of the message to a peer.
    ToPeer(ToPeer),
    /// Find the user and call again with the answer. If none of what was found has served, and there was said to be more, it is
    /// asked for in the same way: then the client has shown that it receives at its address.
    Authenticate(Query<'m>),
    /// Open relay sockets and call [`Server::complete_allocate`].
    Allocate(Box<PendingAllocate>),
    /// The worker with this number has this client's allocation: hand the message over to it.
    Forward(u16),
    /// Connect to a peer and call [`Server::connected`] or [`Server::connect_failed`], whenever that is known.
    Connect(ConnectRequest),
    /// Find the peer connection and call [`Server::complete_bind`].
    Bind(Box<PendingBind>),
}

/// A reply that does not go back as the request came (RFC 5780 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elsewhere {
    /// So many bytes of the reply buffer.
    pub len: usize,
    /// The server's own address to send from: one of those that NAT discovery is offered on.
    pub from: SocketAddr,
    /// The client's IP address, and the port that it wishes.
    pub to: SocketAddr,
}

/// Something that ended by itself or as the consequence of a request.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Close this relay socket and give its port back.
    CloseRelay(RelayId),
    /// A channel of an allocation has been bound, or its binding prolonged ([`Server::bound_channel`] says to what). Comes before the
    /// client is told.
    Bound(Handle, ChannelNumber),
    /// Permissions of an allocation have been installed or prolonged: what is bound in it may live longer than before.
    Permitted(Handle),
    /// The lifetime of an allocation has changed, or one of its relayed addresses has ended: what is bound in it may live longer
    /// or shorter than before.
    Refreshed(Handle),
    /// An allocation that came to be on another 5-tuple may be used on this one, too (RFC 8016).
    Joined(Client),
    /// This 5-tuple, one of those of an allocation with a ticket, no longer belongs to it.
    Left(Client),
    /// An allocation has another client now.
    Moved {
        /// Its handle.
        handle: Handle,
        /// Its id.
        id: AllocationId,
        /// The 5-tuple before.
        from: FiveTuple,
        /// The 5-tuple from now on.
        to: FiveTuple,
    },
    /// The connection of a client whose allocation the worker `home` has is gone.
    GuestGone {
        /// The client.
        client: Client,
        /// The worker.
        home: u16,
    },
    /// Close this peer connection, with the client's side of it, or give up making it.
    ClosePeer(ConnectionId),
    /// An allocation has ended; its handle is no longer valid.
    Ended(Handle, SessionSummary),
}

/// The protocol state of all clients of one worker.
pub struct Server {
    pub(super) rules: Rules,
    pub(super) policy: Box<dyn Policy>,
    pub(super) authenticator: Authenticator,
    pub(super) rng: StdRng,
    pub(super) table: Table,
    /// Whose each peer connection is.
    pub(super) connections: HashMap<ConnectionId, Handle>,
    pub(super) effects: Vec<Effect>,
    pub(super) totals: Totals,
    pub(super) next_id: u64,
    pub(super) next_redirect: usize,
    /// Tells nonces of the same second apart.
    pub(super) next_nonce: u8,
    pub(super) nobody: Arc<Subject>,
    pub(super) tickets: Option<Tickets>,
    pub(super) guests: Guests,
    pub(super) records: Records,
}

impl Server {
    /// `seed` must be unpredictable: transaction ids and hash keys come from it. `nonce_secret` keys the nonces and is the same in all workers. Ids of
    /// allocations start above `first_id`.
    #[must_use]
    pub fn new(rules: Rules, policy: Box<dyn Policy>, nonce_secret: &[u8; 32], seed: [u8; 32], first_id: u64) -> Self {
        let nonces = Nonces::new(nonce_secret, rules.nonce_lifetime);
        let mut rng = StdRng::from_seed(seed);
        let authenticator = Authenticator::new(nonces, &rules, &seed, rand::Rng::next_u64(&mut rng));
        let nobody = Arc::new(Subject::new("", rules.realms.first().map_or("", |realm| realm.name.as_str())));
        let tickets = rules.mobility.as_ref().map(Tickets::new);
        let table = Table::new(rand::Rng::next_u64(&mut rng));
        let records = Records::new(rand::Rng::next_u64(&mut rng));
        Self {
            rules,
            policy,
            authenticator,
            rng,
            table,
            connections: HashMap::new(),
            effects: Vec::new(),
            totals: Totals::default(),
            next_id: first_id,
            next_redirect: 0,
            next_nonce: 0,
            nobody,
            tickets,
            guests: Guests::default(),
            records,
        }
    }

    /// Bytes that a reply buffer should have: [`super::REPLY_LEN`], and more where NAT discovery is offered, whose responses are
    /// padded on request.
    #[must_use]
    pub const fn reply_len(&self) -> usize {
        if self.rules.discovery.is_empty() { super::REPLY_LEN } else { discovery::LONGEST_REPLY }
    }

    /// Takes one datagram or stream frame. `reply` must have [`super::REPLY_LEN`] bytes. Call with [`Answer::Unasked`] first, and again with the
    /// answer if the step is [`Step::Authenticate`].
    pub fn from_client<'m>(
        &mut self,
        client: &Client,
        bytes: &'m [u8],
        answer: Answer<'_>,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        let Some(&first) = bytes.first() else { return self.drop(Drop::NotServed) };
        match Protocol::of(first, self.rules.wide_channels) {
            Protocol::ChannelData => self.channel_data(client, bytes, now),
            Protocol::Stun => self.stun(client, bytes, answer, reply, now),
            Protocol::Other => self.not_served(client, bytes, Drop::NotServed, now),
        }
    }

    fn stun<'m>(
        &mut self,
        client: &Client,
        bytes: &'m [u8],
        answer: Answer<'_>,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(ParseError::Cookie) if client.tuple.transport == Transport::Dtls => {
                return self.cookieless(bytes, reply);
            }
            Err(ParseError::Cookie) if self.rules.rfc3489 => return self.classic(client, bytes, reply, now),
            Err(_) => return self.not_served(client, bytes, Drop::Malformed, now),
        };
        match (message.class(), Method::from_code(message.method())) {
            (Class::Indication, Some(Method::Send)) => self.send_indication(client, &message, now),
            (Class::Request, Some(Method::Binding)) => self.binding(&message, client, reply, now),
            (Class::Request, Some(method @ (Method::Allocate | Method::Refresh)))
            | (Class::Request, Some(method @ (Method::CreatePermission | Method::ChannelBind))) => {
                self.request(client, method, &message, answer, reply, now)
            }
            (Class::Request, Some(method @ (Method::Connect | Method::ConnectionBind))) if self.rules.tcp_relaying => {
                self.request(client, method, &message, answer, reply, now)
            }
            _ => self.drop(Drop::Unexpected),
        }
    }

    /// A message without the cookie: only a Binding request of RFC 3489 is served (RFC 8656 §5).
    fn classic<'m>(&mut self, client: &Client, bytes: &[u8], reply: &mut [u8], now: Time) -> Step<'m> {
        match Message::parse_classic(bytes) {
            Ok(message) if (message.method(), message.class()) == (Method::Binding.code(), Class::Request) => {
                self.binding(&message, client, reply, now)
            }
            _ => self.not_served(client, bytes, Drop::Malformed, now),
        }
    }

    /// Drops what is no message of a protocol that is served.
    fn not_served<'m>(&mut self, client: &Client, bytes: &[u8], reason: Drop, now: Time) -> Step<'m> {
        self.note_not_served(&client.tuple, bytes, now);
        self.drop(reason)
    }

    /// A message without the cookie over DTLS, where RFC 3489 has no place (RFC 8489 §11).
    fn cookieless<'m>(&mut self, bytes: &[u8], reply: &mut [u8]) -> Step<'m> {
        match Message::parse_classic(bytes) {
            Ok(message) if message.class() == Class::Request => {
                self.error(&ReplyContext::new(&message, None), ErrorCode::ServerError, reply)
            }
            _ => self.drop(Drop::Malformed),
        }
    }

    /// A request that needs credentials: authentication, then unknown attributes, then the method (RFC 8489 §6.3).
    fn request<'m>(
        &mut self,
        client: &Client,
        method: Method,
        message: &Message<'m>,
        answer: Answer<'_>,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        let owned = self.live(client, now);
        if owned.is_none()
            && let Some(worker) = self.elsewhere(client, method, message)
        {
            return Step::Forward(worker);
        }
        let requester = if self.rules.anonymous {
            // Nobody is authenticated here, so whoever has nothing yet is a stranger.
            if owned.is_none() && !self.policy.admits(Unauthenticated::Challenge, client.tuple.client.ip(), now) {
                self.note_rate(client, now);
                return self.drop(Drop::RateLimited);
            }
            Requester::anonymous(Arc::clone(&self.nobody))
        } else {
            let owner = owned.map(|handle| &self.table[handle].owner);
            let outcome = self.authenticator.check(message, client, owner, answer, now);
            if let Some((mechanism, verdict)) = challenge::judge(message, owner, answer, &outcome) {
                self.totals.checked(mechanism, verdict);
            }
            match outcome {
                Outcome::Passed(_, Proof::Over) if method == Method::Allocate && owned.is_none() => {
                    return self.refuse(client, message, (Failure::Challenge, Reason::Expired), reply, now);
                }
                Outcome::Passed(requester, _) => requester,
                Outcome::Ask(query) => return Step::Authenticate(query),
                Outcome::AskFurther(query) => {
                    return if self.policy.admits(Unauthenticated::Challenge, client.tuple.client.ip(), now) {
                        Step::Authenticate(query)
                    } else {
                        self.note_rate(client, now);
                        self.drop(Drop::RateLimited)
                    };
                }
                Outcome::Failed(failure) => {
                    let reason = notes::reason(message, client, owner, answer, failure, now);
                    return self.refuse(client, message, (failure, reason), reply, now);
                }
            }
        };
        self.note_passed(client, &requester, now);
        let subject = Arc::clone(&requester.subject);
        let step = self.serve(client, method, message, (requester, owned), reply, now);
        if let Step::Reply(len) = step {
            self.note_response(client, &subject.user, method, reply.get(..len).unwrap_or_default(), now);
        }
        step
    }

    /// A request whose maker is known.
    fn serve<'m>(
        &mut self,
        client: &Client,
        method: Method,
        message: &Message<'m>,
        (requester, owned): (Requester, Option<Handle>),
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        let context = ReplyContext::new(message, requester.signing_key());
        if message.has_unknown_required() {
            let takes_tokens = !self.rules.anonymous && self.authenticator.takes_tokens(client.realm);
            let is_known = |found: &AttributeType| takes_tokens && *found == AttributeType::ACCESS_TOKEN;
            let mut unknown = message.unknown_required().filter(|found| !is_known(found)).peekable();
            if unknown.peek().is_some() {
                return self.unknown_attributes(&context, unknown, reply);
            }
        }
        let outcome = match (method, owned) {
            (Method::Allocate, owned) => return self.allocate(client, message, context, requester, owned, reply, now),
            (Method::ConnectionBind, owned) => {
                let has_allocation = owned.is_some() || self.guests.home(&client.tuple).is_some();
                return self.connection_bind(client, message, context, &requester, has_allocation, reply);
            }
            (Method::Refresh, owned) if message.has(AttributeType::MOBILITY_TICKET) => {
                self.refresh_with_ticket(client, owned, message, &requester, &context, reply, now).map_err(Reject::from)
            }
            (_, None) => Err(ErrorCode::AllocationMismatch.into()),
            (_, Some(handle)) if !self.table[handle].owner.is(&requester) => Err(ErrorCode::WrongCredentials.into()),
            (Method::Refresh, Some(handle)) => {
                self.refresh(handle, message, &requester, &context, reply, now).map_err(Reject::from)
            }
            (Method::Connect, Some(handle)) => return self.connect(handle, message, context, reply, now),
            (Method::CreatePermission, Some(handle)) => self.create_permission(handle, message, &context, reply, now),
            (_, Some(handle)) => self.channel_bind(handle, message, &context, reply, now),
        };
        match outcome {
            Ok(len) => self.replied(reply, len),
            Err(error) => self.error(&context, error, reply),
        }
    }

    pub(super) fn error<'m>(&mut self, context: &ReplyContext, error: impl Into<Reject>, reply: &mut [u8]) -> Step<'m> {
        let len = context.error(&self.rules, reply, error, |_| {});
        self.replied(reply, len)
    }

    /// Counts the response in the first so many bytes of `reply`.
    pub(super) fn count_response(&mut self, reply: &[u8], len: usize) {
        self.totals.responses.count(reply.get(..len).unwrap_or_default());
    }

    /// Counts a response and has it sent.
    pub(super) fn replied<'m>(&mut self, reply: &[u8], len: usize) -> Step<'m> {
        self.count_response(reply, len);
        Step::Reply(len)
    }

    /// Counts a response that takes another way than back.
    pub(super) fn replied_elsewhere<'m>(&mut self, reply: &[u8], elsewhere: Elsewhere) -> Step<'m> {
        self.count_response(reply, elsewhere.len);
        Step::ReplyElsewhere(elsewhere)
    }

    pub(super) const fn drop<'m>(&mut self, reason: Drop) -> Step<'m> {
        self.totals.drop(reason);
        Step::Dropped
    }

    /// The allocation on this client's 5-tuple. What of it has expired but was not yet looked at is ended, so that no
    /// request can prolong it.
    pub(super) fn live(&mut self, client: &Client, now: Time) -> Option<Handle> {
        let handle = self.table.find(&client.tuple).or_else(|| self.table.arriving(&client.tuple))?;
        self.expire_relayed(handle, now).then_some(handle)
    }

    /// Ends the relayed addresses of an allocation that have expired; whether any is left.
    pub(super) fn expire_relayed(&mut self, handle: Handle, now: Time) -> bool {
        let allocation = &self.table[handle];
        if !allocation.is_live(now) {
            let until = allocation.owner.until;
            // Lifetimes are cut to whole seconds of what is left of the credential.
            let over = allocation.relayed.iter().flatten().any(|relayed| relayed.expires + SHORTEST_TERM > until);
            self.end(handle, if over { EndReason::CredentialExpired } else { EndReason::Expired }, now);
            return false;
        }
        for family in Family::ALL {
            if self.table[handle].relayed[family as usize].is_some_and(|relayed| relayed.expires <= now) {
                self.end_family(handle, family, EndReason::Expired, now);
            }
        }
        true
    }

    /// Ends an allocation, whatever the reason.
    pub(super) fn end(&mut self, handle: Handle, reason: EndReason, now: Time) {
        self.close_connections(handle, |_| true);
        let allocation = self.table.remove(handle);
        self.note_end(&allocation, reason, now);
        self.totals.end(reason);
        self.effects.extend(allocation.relayed.iter().flatten().map(|relayed| Effect::CloseRelay(relayed.relay)));
        self.effects.push(Effect::Ended(handle, allocation.summary(reason, now)));
        if let Some(mobile) = &allocation.mobile {
            let client = (!allocation.away).then_some(allocation.client);
            self.effects.extend([client, mobile.arriving].into_iter().flatten().map(Effect::Left));
        }
    }

    /// Takes a relayed address from an allocation, and ends the allocation if it was the last.
    pub(super) fn end_family(&mut self, handle: Handle, family: Family, reason: EndReason, now: Time) {
        let last = self.table[handle].relayed[family.other() as usize].is_none();
        if last {
            self.end(handle, reason, now);
        } else if let Some(relay) = self.table.take_relayed(handle, family) {
            self.effects.push(Effect::Refreshed(handle));
            self.effects.push(Effect::CloseRelay(relay));
        }
    }

    /// When [`Server::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.table.next_deadline()
    }

    /// Ends and forgets all that has expired.
    pub fn expire(&mut self, now: Time) {
        while let Some(handle) = self.table.due(now) {
            if !self.expire_relayed(handle, now) {
                continue;
            }
            let allocation = &mut self.table[handle];
            allocation.permissions.expire(now);
            allocation.channels.expire(now);
            self.expire_connections(handle, now);
            self.table.arm(handle);
        }
    }

    /// Ends the allocation of a client whose connection is gone, or with which something else went wrong.
    pub fn end_client(&mut self, client: &Client, reason: EndReason, now: Time) {
        if reason == EndReason::ConnectionClosed && self.let_go(client) {
            return;
        }
        if let Some(handle) = self.table.find(&client.tuple).or_else(|| self.table.arriving(&client.tuple)) {
            self.end(handle, reason, now);
        }
    }

    /// Ends this allocation, if it has not ended yet.
    pub fn end_handle(&mut self, handle: Handle, reason: EndReason, now: Time) {
        if self.table.get(handle).is_some() {
            self.end(handle, reason, now);
        }
    }

    /// Ends all allocations.
    pub fn end_all(&mut self, reason: EndReason, now: Time) {
        let handles: Vec<Handle> = self.table.iter().map(|(handle, _)| handle).collect();
        for handle in handles {
            self.end(handle, reason, now);
        }
    }

    /// Takes the effects that have come up since the last call. To be drained after every call that takes `&mut self`.
    pub fn drain_effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// Whether there is anything to drain.
    #[must_use]
    pub const fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// How many allocations there are.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.table.len()
    }

    /// Those that there are, by transport and family.
    #[must_use]
    pub const fn census(&self) -> &Census {
        self.table.census()
    }

    /// Whether this client has an allocation, here or with another worker.
    #[must_use]
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.owns_allocation(client) || self.guests.home(&client.tuple).is_some()
    }

    /// Whether this client has an allocation here.
    #[must_use]
    pub fn owns_allocation(&self, client: &Client) -> bool {
        self.table.find(&client.tuple).or_else(|| self.table.arriving(&client.tuple)).is_some()
    }

    /// Asks the allocation's meter for new peers.
    pub(super) fn add_peers(&mut self, handle: Handle, peers: usize, now: Time) -> Result<(), Reject> {
        let Some(meter) = &mut self.table[handle].meter else { return Ok(()) };
        let refused = |words| Reject { error: ErrorCode::InsufficientCapacity, words: Words::And(words) };
        if peers > 0 { meter.add_peers(peers, now).map_err(refused) } else { Ok(()) }
    }

    /// What has been counted so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// For what the input/output drops itself.
    pub const fn count_drop(&mut self, reason: Drop) {
        self.totals.drop(reason);
    }
}
