//! What must hold, kept up to date from the messages that go in and out and from nothing that the engine says of itself.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use turnserver::{
    stun::{AttributeType as A, Class, ErrorCode, IntegrityKey, MacAlgorithm, Message, Method},
    turn::{AllocationId, Client, Drop, Effect, FiveTuple, Handle, Policy, RealmId, Rules, Time, Unauthenticated},
};

use super::support::{Out, Response, World};

/// The id of the world's first allocation.
const FIRST_ID: u64 = 100;

/// Longest answer to whoever has not shown who they are: with the headers of IPv4 and UDP, 300 bytes.
pub(super) const UNSIGNED: usize = 272;

/// Peers that nobody may reach: a network, and a port of every address; from level 1 on another address, too.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) level: Rc<Cell<u8>>,
    /// Answers that strangers may still draw.
    pub(super) budget: Rc<Cell<u64>>,
    /// What new allocations get while there are to be none.
    pub(super) refusal: Rc<Cell<Option<ErrorCode>>>,
}

impl Gate {
    pub(super) fn lets(&self, peer: IpAddr) -> bool {
        let IpAddr::V4(v4) = peer.to_canonical() else {
            return peer != IpAddr::from([0x2001, 0xDB8, 2, 0, 0, 0, 0, 1]);
        };
        v4.octets()[0] != 10 && (self.level.get() == 0 || v4.octets()[3] != 2)
    }

    pub(super) fn lets_socket(&self, peer: SocketAddr) -> bool {
        peer.port() != 25 && self.lets(peer.ip())
    }
}

impl Policy for Gate {
    fn permits(&self, _: RealmId, peer: SocketAddr) -> bool {
        self.lets_socket(peer)
    }

    fn permits_connection(&self, _: RealmId, peer: SocketAddr) -> bool {
        peer.port() != 26 && self.lets_socket(peer)
    }

    fn permits_ip(&self, _: RealmId, peer: IpAddr) -> bool {
        self.lets(peer)
    }

    fn refuses_allocations(&self) -> Option<ErrorCode> {
        self.refusal.get()
    }

    fn admits(&mut self, _: Unauthenticated, _: IpAddr, _: Time) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }
}

/// A key that requests may be signed with, and for whom it stands.
pub(super) struct Known {
    pub(super) user: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) bearer: bool,
}

/// An allocation.
struct Session {
    handle: Handle,
    id: AllocationId,
    user: &'static str,
    bearer: bool,
    /// Where its client may speak from.
    tuples: Vec<FiveTuple>,
    tickets: BTreeSet<Vec<u8>>,
    /// By family: when its lifetime, as granted, is over.
    expires: [u64; 2],
    permissions: HashMap<IpAddr, u64>,
    channels: HashMap<u16, (SocketAddr, u64)>,
}

/// What the engine should have counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    dropped: u64,
    answered: u64,
    to_peers: [u64; 2],
    to_clients: [u64; 2],
}

/// What is known from outside.
pub(super) struct Shadow {
    pub(super) gate: Gate,
    pub(super) known: Vec<Known>,
    pub(super) rules: Rules,
    sessions: Vec<Session>,
    /// Those that have ended just now.
    ended: Vec<Session>,
    /// What has moved just now, and where.
    moved: Vec<(AllocationId, FiveTuple)>,
    /// How many allocations there have been.
    made: u64,
    /// Nonces, to whom they were sent, and when.
    nonces: Vec<(FiveTuple, Vec<u8>, u64)>,
    counts: Counts,
    summed: [u64; 2],
}

impl Shadow {
    pub(super) fn new(gate: Gate, known: Vec<Known>, rules: Rules) -> Self {
        let (sessions, ended, nonces) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            gate,
            known,
            rules,
            sessions,
            ended,
            moved: Vec::new(),
            made: 0,
            nonces,
            counts: Counts::default(),
            summed: [0; 2],
        }
    }

    /// How many sessions this user has.
    pub(super) fn sessions_of(&self, user: &str) -> usize {
        self.sessions.iter().filter(|session| session.user == user).count()
    }

    /// Tickets that were given to anybody.
    pub(super) fn tickets(&self) -> Vec<Vec<u8>> {
        self.sessions.iter().flat_map(|session| session.tickets.iter().cloned()).collect()
    }

    /// Who has signed this.
    fn signer(&self, message: &Message<'_>) -> Option<&Known> {
        let algorithm =
            if message.has(A::MESSAGE_INTEGRITY_SHA256) { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 };
        self.known.iter().find(|known| IntegrityKey::new(algorithm, &known.key).verifies(message))
    }

    fn session_on(&mut self, tuple: FiveTuple) -> Option<&mut Session> {
        let mut on = self.sessions.iter_mut().filter(|session| session.tuples.contains(&tuple));
        let first = on.next();
        assert!(on.next().is_none(), "two allocations on one 5-tuple");
        first
    }

    /// What came of something that a client sent. `spent` is by how much the budget of strangers went down.
    pub(super) fn client_sent(&mut self, world: &mut World, client: &Client, bytes: &[u8], out: &Out, spent: u64) {
        self.bury(world);
        match out {
            Out::Nothing => self.counts.dropped += 1,
            Out::Reply(response) => self.answered(world, client, bytes, response, spent),
            Out::Elsewhere { response, from, to } => {
                let own = |address: &turnserver::turn::DiscoveryAddress| address.local == from.ip();
                let own = self
                    .rules
                    .discovery
                    .iter()
                    .any(|offered| offered.addresses.iter().any(own) && offered.ports.contains(&from.port()));
                assert!(own, "an answer from {from}");
                assert_eq!(to.ip(), client.tuple.client.ip(), "an answer to somebody else");
                self.answered(world, client, bytes, response, spent);
            }
            Out::Peer { relay, peer, data, .. } => {
                let now = world.now.0;
                assert!(self.gate.lets_socket(*peer) && peer.port() != 0, "data for {peer}, which is denied");
                let handle = world.relays[relay].handle;
                let session = self.session_on(client.tuple).expect("an allocation");
                assert_eq!(handle, Some(session.handle), "data from another's relay socket");
                let at = world.relays[relay].address;
                assert_eq!(at.is_ipv4(), peer.is_ipv4());
                assert!(now < session.expires[usize::from(at.is_ipv6())], "data after the end of an allocation");
                let permitted = match Message::parse(bytes) {
                    Ok(_) => session.permissions.get(&peer.ip()).is_some_and(|until| now < *until),
                    Err(_) => {
                        let bound = session.channels.get(&u16::from_be_bytes([bytes[0], bytes[1]]));
                        bound.is_some_and(|(to, until)| to == peer && now < *until)
                    }
                };
                assert!(permitted, "data for {peer} without a permission or channel");
                count(&mut self.counts.to_peers, data.len());
                // What was sent stands in what was received.
                assert!(data.is_empty() || bytes.windows(data.len()).any(|part| part == data));
            }
            Out::Connect(request) => {
                assert!(self.gate.lets_socket(request.peer) && !matches!(request.peer.port(), 0 | 26));
                let handle = world.relays[&request.relay].handle;
                assert_eq!(handle, self.session_on(client.tuple).map(|session| session.handle));
            }
            Out::Forward(_) => panic!("no other worker has issued a ticket"),
        }
    }

    /// A response that was awaited: to a Connect.
    pub(super) fn answered_later(&mut self) {
        self.counts.answered += 1;
    }

    pub(super) fn dropped(&mut self) {
        self.counts.dropped += 1;
    }

    fn answered(&mut self, world: &World, client: &Client, bytes: &[u8], response: &Response, spent: u64) {
        self.counts.answered += 1;
        let (now, tuple) = (world.now.0, client.tuple);
        let request = Message::parse(bytes).expect("a request");
        assert_eq!(request.class(), Class::Request);
        let code = response.code();
        let signed = response.has_any(&[A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256]);
        if let (401 | 438, Some(nonce)) = (code, response.get(A::NONCE)) {
            assert!(!signed);
            self.nonces.push((tuple, nonce.to_vec(), now));
        }
        if !signed {
            // Padding is not more than what came, and the addresses that go with it are no more than 120 bytes.
            let padded = if request.attributes().any(|(found, _)| found == A::PADDING) { bytes.len() + 120 } else { 0 };
            assert!(response.bytes.len() <= UNSIGNED.max(padded), "{} for {}", response.bytes.len(), bytes.len());
            let limited = code != 438 && code != 500 && !self.rules.anonymous;
            assert!(!limited || spent > 0, "an answer that no limit holds back");
            if !self.rules.anonymous {
                let harmless = code != 0 || request.method() == Method::Binding.code();
                assert!(harmless, "success for nobody");
                return;
            }
        }
        let (user, bearer) = match self.signer(&request).filter(|_| signed) {
            Some(signer) => (signer.user, signer.bearer),
            None => {
                assert!(self.rules.anonymous || !signed, "an answer to a forger is signed");
                ("", false)
            }
        };
        if signed {
            let nonce = request.get(A::NONCE).expect("a nonce");
            let lifetime = u64::try_from(self.rules.nonce_lifetime.as_millis()).unwrap() + 1000;
            let issued =
                self.nonces.iter().any(|(to, issued, at)| *to == tuple && issued == nonce && now - at < lifetime);
            assert!(issued, "a nonce that was not issued to {tuple:?}, or long ago");
        }
        if code == 0 {
            self.succeeded(world, client, &request, response, (user, bearer));
        }
    }

    fn succeeded(
        &mut self,
        world: &World,
        client: &Client,
        request: &Message<'_>,
        response: &Response,
        (user, bearer): (&'static str, bool),
    ) {
        let (now, tuple) = (world.now.0, client.tuple);
        let lifetime =
            || response.message().get_u32(A::LIFETIME).and_then(Result::ok).map(|lifetime| u64::from(lifetime) * 1000);
        let ticket = response.get(A::MOBILITY_TICKET).map(<[u8]>::to_vec);
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap();
        let (permitted, bound) =
            (now + millis(self.rules.permission_lifetime), now + millis(self.rules.channel_lifetime));
        let (max_permissions, max_channels) = (self.rules.max_permissions, self.rules.max_channels);
        let is_known = |sessions: &[Session], handle| sessions.iter().any(|session| session.handle == handle);
        match Method::from_code(request.method()) {
            Some(Method::Allocate) => {
                let mut new = world.relays.values().filter_map(|relay| relay.handle);
                if let Some(handle) = new.find(|handle| !is_known(&self.sessions, *handle)) {
                    assert!(self.session_on(tuple).is_none(), "a second allocation");
                    let expires = [now + lifetime().expect("LIFETIME"); 2];
                    let tuples = vec![tuple];
                    self.made += 1;
                    let (permissions, channels) = (HashMap::new(), HashMap::new());
                    let tickets = ticket.into_iter().collect();
                    self.sessions.push(Session {
                        handle,
                        id: AllocationId(FIRST_ID + self.made - 1),
                        user,
                        bearer,
                        tuples,
                        tickets,
                        expires,
                        permissions,
                        channels,
                    });
                    return;
                }
                // The same request again.
                let session = self.session_on(tuple).expect("the allocation that was made before");
                assert_eq!(session.user, user);
            }
            Some(Method::Refresh) => {
                if let Some(shown) = request.get(A::MOBILITY_TICKET) {
                    let mut all = self.sessions.iter_mut().chain(&mut self.ended);
                    let owner = all.find(|session| session.tickets.contains(shown));
                    let owner = owner.expect("a ticket that was issued");
                    assert!(owner.user == user || owner.bearer && bearer, "somebody else's ticket");
                    if !owner.tuples.contains(&tuple) {
                        owner.tuples.push(tuple);
                    }
                }
                let lifetime = lifetime().expect("LIFETIME");
                let ended = self.ended.iter_mut().find(|session| session.tuples.contains(&tuple));
                let session = match (self.sessions.iter_mut().find(|session| session.tuples.contains(&tuple)), ended) {
                    (Some(session), _) => session,
                    (None, Some(ended)) if lifetime == 0 => ended,
                    (None, _) => panic!("no allocation to refresh"),
                };
                assert!(session.user == user || session.bearer && bearer, "{user} refreshes what {} has", session.user);
                session.tickets.extend(ticket);
                match request.get(A::REQUESTED_ADDRESS_FAMILY) {
                    Some([family @ (1 | 2), ..]) => session.expires[usize::from(*family) - 1] = now + lifetime,
                    _ => session.expires = [now + lifetime; 2],
                }
            }
            Some(Method::CreatePermission) => {
                let peers: Vec<IpAddr> =
                    request.xor_addresses(A::XOR_PEER_ADDRESS).map(|peer| peer.expect("an address").ip()).collect();
                assert!(
                    !peers.is_empty() && peers.iter().all(|peer| self.gate.lets(*peer)),
                    "a permission for {peers:?}"
                );
                let session = self.session_on(tuple).expect("an allocation");
                assert!(session.user == user || session.bearer && bearer);
                session.permissions.extend(peers.iter().map(|peer| (*peer, permitted)));
                let live = session.permissions.values().filter(|until| now < **until).count();
                assert!(live <= max_permissions, "{live} permissions");
            }
            Some(Method::ChannelBind) => {
                let peer = request.get_xor_address(A::XOR_PEER_ADDRESS).expect("a peer").expect("an address");
                assert!(self.gate.lets_socket(peer) && peer.port() != 0, "a channel to {peer}");
                let number = request.get(A::CHANNEL_NUMBER).expect("a number");
                let number = u16::from_be_bytes([number[0], number[1]]);
                assert!((0x4000..0x8000).contains(&number));
                let session = self.session_on(tuple).expect("an allocation");
                assert!(session.user == user || session.bearer && bearer);
                session.permissions.insert(peer.ip(), permitted);
                session.channels.retain(|_, (_, until)| now < *until);
                let before = session.channels.insert(number, (peer, bound));
                assert!(before.is_none_or(|(before, _)| before == peer), "a channel that leads elsewhere");
                let to_peer = session.channels.values().filter(|(to, _)| *to == peer).count();
                assert_eq!(to_peer, 1, "two channels to one peer");
                assert!(session.channels.len() <= max_channels);
                let live = session.permissions.values().filter(|until| now < **until).count();
                assert!(live <= max_permissions, "{live} permissions");
            }
            Some(Method::ConnectionBind) => {
                assert!(self.session_on(tuple).is_none() && tuple.transport.is_stream());
            }
            Some(Method::Binding) => {}
            other => panic!("success for {other:?}"),
        }
    }

    /// What came of a peer's datagram.
    pub(super) fn peer_sent(
        &mut self,
        world: &World,
        handle: Handle,
        peer: SocketAddr,
        len: usize,
        to: Option<&Client>,
    ) {
        let Some(to) = to else {
            self.counts.dropped += 1;
            return;
        };
        let now = world.now.0;
        self.for_client(handle, peer, now, to);
        assert!(self.gate.lets_socket(peer), "data from {peer}, which is denied");
        count(&mut self.counts.to_clients, len);
    }

    /// What came of an ICMP error, or of a peer that connects: something for this client, of this handle, about that peer.
    pub(super) fn for_client(&self, handle: Handle, peer: SocketAddr, now: u64, to: &Client) {
        let session = self.sessions.iter().find(|session| session.handle == handle).expect("an allocation");
        assert!(session.tuples.contains(&to.tuple), "data for another client");
        let permission = session.permissions.get(&peer.ip()).is_some_and(|until| now < *until);
        assert!(permission, "data from {peer} without a permission");
        assert!(now < session.expires[usize::from(peer.is_ipv6())]);
    }

    /// After another policy: what it denies has been forgotten.
    pub(super) fn forget_denied(&mut self) {
        let gate = &self.gate;
        for session in &mut self.sessions {
            session.permissions.retain(|peer, _| gate.lets(*peer));
            session.channels.retain(|_, (peer, _)| gate.lets_socket(*peer));
        }
    }

    /// Forgets the sessions whose end has been reported, and 5-tuples that no longer belong to one.
    fn bury(&mut self, world: &mut World) {
        for summary in world.ended.drain(..) {
            let place = self.sessions.iter().position(|session| session.id == summary.id);
            let session = self.sessions.swap_remove(place.expect("an allocation that was made"));
            assert_eq!(session.user, &*summary.subject.user);
            self.summed[0] += summary.to_peers.packets;
            self.summed[1] += summary.to_client.packets;
            self.ended.push(session);
        }
        for moved in world.moves.drain(..) {
            match moved {
                Effect::Joined(_) => {}
                Effect::Left(client) => {
                    self.sessions.iter_mut().for_each(|session| session.tuples.retain(|tuple| *tuple != client.tuple));
                }
                Effect::Moved { id, to, .. } => self.moved.push((id, to)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What must hold after everything.
    pub(super) fn check(&mut self, world: &mut World) {
        world.bindings.clear();
        self.bury(world);
        self.ended.clear();
        for (id, to) in self.moved.drain(..) {
            let mut moved = self.sessions.iter().filter(|session| session.id == id);
            assert!(moved.all(|session| session.tuples.contains(&to)), "moved to {to:?} without a ticket");
        }
        assert_eq!(world.server.allocations(), self.sessions.len());
        assert_eq!(world.server.census().sum(), self.sessions.len() as u64);
        assert!(world.used.values().all(|used| *used <= world.quota), "more than the quota");
        assert!(world.relays.len() <= world.max_relays);
        assert!(world.peers.len() <= self.sessions.len() * self.rules.max_connections);
        assert!(world.relays.values().all(|relay| relay.handle.is_some()), "a relay socket of nobody");
        let totals = world.server.totals();
        let counted = Counts {
            dropped: Drop::ALL.iter().map(|reason| totals.dropped(*reason)).sum(),
            answered: totals.successes() + totals.errors(),
            to_peers: [totals.to_peers.packets, totals.to_peers.bytes],
            to_clients: [totals.to_clients.packets, totals.to_clients.bytes],
        };
        assert_eq!(counted, self.counts, "what came in is not what went out or was dropped");
    }

    /// All is over: whatever was counted of sessions adds up to what was counted in all.
    pub(super) fn finish(&self) {
        assert!(self.sessions.is_empty());
        assert_eq!(self.summed, [self.counts.to_peers[0], self.counts.to_clients[0]]);
    }
}

/// Counts one datagram.
const fn count(traffic: &mut [u64; 2], len: usize) {
    traffic[0] += 1;
    traffic[1] += len as u64;
}
