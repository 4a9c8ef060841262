//! The world around the engine: users, relay sockets, ports, reservations, quotas, a policy and the clock.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use md5::{Digest, Md5};
use sha2::Sha256;
use turnserver::{
    auth::key::LongTermKey,
    stun::{ErrorCode, Message, PasswordAlgorithm},
    turn::{
        AddressRequest, Answer, BindRefusal, Client, ConnectRequest, ConnectionId, ConnectionIds, Credential, Effect,
        Elsewhere, Family, Flow, Grant, HEADROOM, Handle, IcmpError, Identity, PeerConnection, PendingAllocate,
        PendingBind, Policy, Query, REPLY_LEN, Realm, RealmId, Refusal, RelayId, Rules, Server, SessionSummary, Step,
        Subject, Time, Unauthenticated,
    },
};

use super::{REALM, Response, ip};

/// MD5 or SHA-256 of user ":" realm ":" password (RFC 8489 §9.2.2, §18.5.1.2).
pub(crate) fn long_term_key(user: &str, password: &str, algorithm: PasswordAlgorithm) -> Vec<u8> {
    let joined = format!("{user}:{REALM}:{password}");
    match algorithm {
        PasswordAlgorithm::Md5 => Md5::digest(joined).to_vec(),
        PasswordAlgorithm::Sha256 => Sha256::digest(joined).to_vec(),
    }
}

/// A credential for ever, of a user of the default realm.
pub(crate) fn credential(user: &str, key: &[u8]) -> Credential {
    Credential {
        subject: Arc::new(Subject::new(user, REALM)),
        realm: RealmId::DEFAULT,
        key: LongTermKey::Token(key.into()),
        term: None,
        secret: None,
        bearer: false,
        mark: 0,
    }
}

/// The parameters of the RFCs, with both families relayed and IPv4 the default.
pub(crate) fn rules() -> Rules {
    Rules {
        dont_fragment: true,
        realms: vec![realm(REALM)],
        anonymous: false,
        nonce_lifetime: Duration::from_secs(3600),
        default_lifetime: Duration::from_secs(600),
        max_lifetime: Duration::from_secs(3600),
        permission_lifetime: Duration::from_secs(300),
        channel_lifetime: Duration::from_secs(600),
        max_permissions: 5,
        max_channels: 3,
        default_family: Some(Family::V4),
        udp_relaying: true,
        tcp_relaying: true,
        max_connections: 3,
        bind_timeout: Duration::from_secs(30),
        connection_ids: ConnectionIds { worker: 1, workers: 4 },
        families: Family::ALL.to_vec(),
        software: None,
        always_fingerprint: false,
        rfc3489: false,
        wide_channels: false,
        redirect: None,
        mobility: None,
        discovery: Vec::new(),
    }
}

/// A realm whose users have passwords.
pub(crate) fn realm(name: &str) -> Realm {
    let password_algorithms = vec![PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];
    Realm { name: name.to_owned(), password_algorithms, user_hashes: true, third_party: None }
}

/// Refuses 10.0.0.0/8 to users of the default realm, port 25 of anybody, and connections to port 26.
struct TestPolicy {
    /// How many unauthenticated answers may still be drawn.
    answers: Rc<Cell<u64>>,
    /// What new allocations get while there are to be none.
    refusal: Rc<Cell<Option<ErrorCode>>>,
}

impl Policy for TestPolicy {
    fn permits(&self, realm: RealmId, peer: SocketAddr) -> bool {
        peer.port() != 25 && self.permits_ip(realm, peer.ip())
    }

    fn permits_connection(&self, realm: RealmId, peer: SocketAddr) -> bool {
        peer.port() != 26 && self.permits(realm, peer)
    }

    fn permits_ip(&self, realm: RealmId, peer: IpAddr) -> bool {
        realm != RealmId::DEFAULT || !matches!(peer, IpAddr::V4(peer) if peer.octets()[0] == 10)
    }

    fn refuses_allocations(&self) -> Option<ErrorCode> {
        self.refusal.get()
    }

    fn admits(&mut self, _kind: Unauthenticated, _source: IpAddr, _now: Time) -> bool {
        let left = self.answers.get();
        self.answers.set(left.saturating_sub(1));
        left > 0
    }
}

/// What the engine put out for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Out {
    Nothing,
    Reply(Response),
    /// To another worker.
    Forward(u16),
    /// A response from this address of the server to that one of the client.
    Elsewhere {
        response: Response,
        from: SocketAddr,
        to: SocketAddr,
    },
    Peer {
        relay: RelayId,
        peer: SocketAddr,
        data: Vec<u8>,
        dont_fragment: bool,
    },
    Connect(ConnectRequest),
}

/// A connection with a peer.
#[derive(Debug, Clone)]
pub(crate) enum PeerSocket {
    Connecting,
    /// It waits for a client of this one.
    Waiting(Arc<Subject>, Arc<Flow>),
    Bound,
}

/// A relay socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// The allocation that it belongs to; `None` while its Allocate is not completed.
    pub(crate) handle: Option<Handle>,
}

/// The engine and the world around it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Time,
    pub(crate) users: HashMap<String, String>,
    /// Other credentials, by USERNAME and ACCESS-TOKEN.
    pub(crate) others: Vec<(String, Option<Vec<u8>>, Credential)>,
    /// What a store says that is asked after all of these; `None`: there is no store.
    pub(crate) store: Option<Result<Vec<Credential>, ()>>,
    /// How often the store was asked.
    pub(crate) stored_queries: usize,
    /// Answers that the policy still admits without authentication.
    pub(crate) answers: Rc<Cell<u64>>,
    /// What new allocations get while there are to be none.
    pub(crate) refusal: Rc<Cell<Option<ErrorCode>>>,
    /// Relay sockets that are open.
    pub(crate) relays: BTreeMap<RelayId, Relay>,
    pub(crate) closed: BTreeSet<RelayId>,
    /// Peer connections that are open or being made.
    pub(crate) peers: BTreeMap<ConnectionId, PeerSocket>,
    /// Relay sockets at the same time.
    pub(crate) max_relays: usize,
    /// Families that relay sockets can be opened for.
    pub(crate) families: Vec<Family>,
    pub(crate) reservations: BTreeMap<[u8; 8], SocketAddr>,
    pub(crate) quota: usize,
    /// Allocations by user.
    pub(crate) used: HashMap<String, usize>,
    /// Summaries in the order in which allocations ended.
    pub(crate) ended: Vec<SessionSummary>,
    /// What the engine reported about moves.
    pub(crate) moves: Vec<Effect>,
    /// What was reported of bindings: bound, permitted, refreshed.
    pub(crate) bindings: Vec<Effect>,
    /// How often the engine asked for a user.
    pub(crate) queries: usize,
    /// What the engine asked for last.
    pub(crate) asked: Option<AddressRequest>,
    next_relay: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(rules())
    }

    pub(crate) fn with(rules: Rules) -> Self {
        let answers = Rc::new(Cell::new(u64::MAX));
        let refusal = Rc::new(Cell::new(None));
        let policy = Box::new(TestPolicy { answers: Rc::clone(&answers), refusal: Rc::clone(&refusal) });
        Self {
            server: Server::new(rules, policy, &[7; 32], [9; 32], 100),
            now: Time(1_000_000),
            users: [("alice", "wonderland"), ("bob", "builder")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            others: Vec::new(),
            store: None,
            stored_queries: 0,
            answers,
            refusal,
            relays: BTreeMap::new(),
            closed: BTreeSet::new(),
            peers: BTreeMap::new(),
            max_relays: 100,
            families: Family::ALL.to_vec(),
            reservations: BTreeMap::new(),
            quota: 100,
            used: HashMap::new(),
            ended: Vec::new(),
            moves: Vec::new(),
            bindings: Vec::new(),
            queries: 0,
            asked: None,
            next_relay: 0,
        }
    }

    /// Lets time pass; nobody looks at the clock until something happens.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now.0 += milliseconds;
    }

    /// What a timer does.
    pub(crate) fn expire(&mut self) {
        self.server.expire(self.now);
        self.settle();
    }

    /// Sends a message and answers the engine's questions.
    pub(crate) fn send(&mut self, client: &Client, bytes: &[u8]) -> Out {
        let mut reply = vec![0xEE; self.server.reply_len()];
        let mut step = self.server.from_client(client, bytes, Answer::Unasked, &mut reply, self.now);
        if let Step::Authenticate(query) = step {
            self.queries += 1;
            let credentials = self.find(&query);
            let answer = Answer::Known { credentials: &credentials, more: self.store.is_some() };
            step = self.server.from_client(client, bytes, answer, &mut reply, self.now);
        }
        if let (Step::Authenticate(_), Some(store)) = (&step, &self.store) {
            self.stored_queries += 1;
            let answer = match store {
                Ok(credentials) => Answer::Known { credentials, more: false },
                Err(()) => Answer::Unavailable,
            };
            step = self.server.from_client(client, bytes, answer, &mut reply, self.now);
        }
        self.settle();
        let out = match step {
            Step::Dropped => Out::Nothing,
            Step::Reply(len) => Out::Reply(Response::new(reply[..len].to_vec())),
            Step::ReplyElsewhere(Elsewhere { len, from, to }) => {
                Out::Elsewhere { response: Response::new(reply[..len].to_vec()), from, to }
            }
            Step::ToPeer(to) => {
                let data = bytes[to.payload.clone()].to_vec();
                Out::Peer { relay: to.relay, peer: to.peer, data, dont_fragment: to.dont_fragment }
            }
            Step::Allocate(pending) => Out::Reply(self.complete(*pending)),
            Step::Forward(worker) => Out::Forward(worker),
            Step::Connect(request) => {
                assert!(self.peers.insert(request.id, PeerSocket::Connecting).is_none(), "an id twice");
                Out::Connect(request)
            }
            Step::Bind(pending) => Out::Reply(self.bind(&pending)),
            Step::Authenticate(_) => panic!("asked twice"),
        };
        if let Out::Reply(response) | Out::Elsewhere { response, .. } = &out {
            // 8489-5-03, 8489-5-05
            let (request, answer) = (Message::parse(bytes).unwrap(), response.message());
            assert_eq!(answer.transaction_id(), request.transaction_id());
            assert_eq!(answer.method(), request.method());
        }
        self.settle();
        out
    }

    /// Sends a message that must be answered.
    pub(crate) fn ask(&mut self, client: &Client, bytes: &[u8]) -> Response {
        match self.send(client, bytes) {
            Out::Reply(response) => response,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Sends a message up to the point where the engine asks for relay sockets.
    pub(crate) fn pending(&mut self, client: &Client, bytes: &[u8]) -> PendingAllocate {
        let mut reply = [0; REPLY_LEN];
        let key = long_term_key("alice", "wonderland", PasswordAlgorithm::Md5);
        let answer = Answer::Known { credentials: &[credential("alice", &key)], more: false };
        match self.server.from_client(client, bytes, answer, &mut reply, self.now) {
            Step::Allocate(pending) => *pending,
            other => panic!("no question for relay sockets: {other:?}"),
        }
    }

    /// Opens relay sockets for a pending Allocate and completes it.
    pub(crate) fn complete(&mut self, pending: PendingAllocate) -> Response {
        self.asked = Some(pending.addresses);
        let (user, client) = (pending.subject.user.to_string(), pending.client);
        let outcome = self.grant(&user, pending.addresses);
        let relays: Vec<RelayId> =
            outcome.iter().flat_map(|grant| grant.relays.iter().flatten()).map(|(relay, _)| *relay).collect();
        let mut reply = [0; REPLY_LEN];
        let (len, made) = self.server.complete_allocate(pending, outcome, &mut reply, self.now);
        if let Some((handle, _)) = made {
            assert!(self.server.has_allocation(&client));
            *self.used.entry(user).or_default() += 1;
            for relay in relays {
                self.relays.get_mut(&relay).unwrap().handle = Some(handle);
            }
        }
        self.settle();
        Response::new(reply[..len].to_vec())
    }

    /// A Connect has led to a connection: the success, and whom it is for.
    pub(crate) fn connected(&mut self, id: ConnectionId) -> Option<(Client, Response)> {
        let mut reply = [0; REPLY_LEN];
        let connection = self.server.connected(id, &mut reply, self.now)?;
        Some(self.waits(connection, &reply))
    }

    /// A Connect has led to nothing.
    pub(crate) fn connect_failed(&mut self, id: ConnectionId) -> Option<(Client, Response)> {
        let mut reply = [0; REPLY_LEN];
        let (client, len) = self.server.connect_failed(id, &mut reply)?;
        assert!(matches!(self.peers.remove(&id), Some(PeerSocket::Connecting)));
        Some((client, Response::new(reply[..len].to_vec())))
    }

    /// A peer connects to a relayed address: the indication, and whom it is for.
    pub(crate) fn peer_connects(&mut self, relay: RelayId, peer: SocketAddr) -> Option<(Client, Response)> {
        let handle = self.relays[&relay].handle.expect("an allocation");
        let mut reply = [0; REPLY_LEN];
        let connection = self.server.peer_connects(handle, peer, &mut reply, self.now);
        self.settle();
        connection.map(|connection| self.waits(connection, &reply))
    }

    /// The counter of a connection that waits.
    pub(crate) fn flow(&self, id: ConnectionId) -> Arc<Flow> {
        match self.peers.get(&id) {
            Some(PeerSocket::Waiting(_, flow)) => Arc::clone(flow),
            other => panic!("{other:?}"),
        }
    }

    fn waits(&mut self, connection: PeerConnection, reply: &[u8]) -> (Client, Response) {
        let PeerConnection { id, subject, flow, client, len, .. } = connection;
        self.peers.insert(id, PeerSocket::Waiting(subject, flow));
        (client, Response::new(reply[..len].to_vec()))
    }

    fn bind(&mut self, pending: &PendingBind) -> Response {
        let outcome = match self.peers.get_mut(&pending.id) {
            Some(PeerSocket::Waiting(subject, _)) if *subject != pending.subject => Err(BindRefusal::WrongUser),
            Some(peer @ PeerSocket::Waiting(..)) => {
                *peer = PeerSocket::Bound;
                self.server.bound(pending.id);
                Ok(())
            }
            _ => Err(BindRefusal::Unknown),
        };
        let mut reply = [0; REPLY_LEN];
        let len = self.server.complete_bind(pending, outcome, &mut reply);
        Response::new(reply[..len].to_vec())
    }

    fn find(&self, query: &Query<'_>) -> Vec<Credential> {
        let wanted = |user: &str| match query.identity {
            Identity::Name(name) => name == user,
            Identity::Hash(hash) => Sha256::digest(format!("{user}:{REALM}"))[..] == hash[..],
        };
        let users = self.users.iter().filter(|(user, _)| query.token.is_none() && wanted(user));
        let users = users.map(|(user, password)| credential(user, &long_term_key(user, password, query.algorithm)));
        let others = self
            .others
            .iter()
            .filter(|(name, token, _)| query.identity == Identity::Name(name) && query.token == token.as_deref());
        users.chain(others.map(|(_, _, credential)| credential.clone())).collect()
    }

    fn grant(&mut self, user: &str, request: AddressRequest) -> Result<Grant, Refusal> {
        if self.used.get(user).is_some_and(|used| *used >= self.quota) {
            return Err(Refusal::Quota { words: "no more", key: "user-quota" });
        }
        match request {
            AddressRequest::One { family, even } => {
                let (relay, address) = self.open(family, even.is_some())?;
                let token = (even == Some(true)).then(|| {
                    let mut token = [0x70; 8];
                    token[..4].copy_from_slice(&relay.0.to_be_bytes());
                    self.reservations.insert(token, SocketAddr::new(address.ip(), address.port() + 1));
                    token
                });
                Ok(Grant { token, ..grant_of(relay, address) })
            }
            AddressRequest::Both { even } => match (self.open(Family::V4, even), self.open(Family::V6, even)) {
                (Ok(v4), Ok(v6)) => Ok(Grant { relays: [Some(v4), Some(v6)], ..Grant::default() }),
                (Ok((relay, address)), Err(why)) => {
                    Ok(Grant { refused: Some((Family::V6, why)), ..grant_of(relay, address) })
                }
                (Err(why), Ok((relay, address))) => {
                    Ok(Grant { refused: Some((Family::V4, why)), ..grant_of(relay, address) })
                }
                (Err(_), Err(_)) => Err(Refusal::Capacity),
            },
            AddressRequest::Reserved(token) => {
                let address = self.reservations.remove(&token).ok_or(Refusal::Capacity)?;
                self.open_at(address).map(|(relay, address)| grant_of(relay, address))
            }
        }
    }

    fn open(&mut self, family: Family, even: bool) -> Result<(RelayId, SocketAddr), Refusal> {
        if !self.families.contains(&family) {
            return Err(Refusal::Family);
        }
        // Two ports each, so that an even port always has its next higher one free.
        let port = 50_000 + u16::try_from(self.next_relay % 5_000).unwrap() * 2 + u16::from(!even);
        let address = match family {
            Family::V4 => ip("192.0.2.201"),
            Family::V6 => ip("2001:db8::201"),
        };
        self.open_at(SocketAddr::new(address, port))
    }

    fn open_at(&mut self, address: SocketAddr) -> Result<(RelayId, SocketAddr), Refusal> {
        if self.relays.len() >= self.max_relays {
            return Err(Refusal::Capacity);
        }
        let relay = RelayId(self.next_relay);
        self.next_relay += 1;
        self.relays.insert(relay, Relay { address, handle: None });
        Ok((relay, address))
    }

    /// Carries out the effects: each relay socket is closed once, each end gives back what was counted for its user.
    pub(crate) fn settle(&mut self) {
        for effect in self.server.drain_effects().collect::<Vec<_>>() {
            match effect {
                Effect::CloseRelay(relay) => {
                    assert!(self.relays.remove(&relay).is_some(), "{relay:?} is not open");
                    assert!(self.closed.insert(relay), "{relay:?} closed twice");
                }
                Effect::ClosePeer(id) => {
                    assert!(self.peers.remove(&id).is_some(), "{id:?} is not open");
                }
                Effect::Ended(handle, summary) => {
                    assert!(self.relays.values().all(|relay| relay.handle != Some(handle)), "a relay socket is left");
                    let used = self.used.get_mut(&*summary.subject.user).expect("a user with allocations");
                    *used = used.checked_sub(1).expect("an allocation of this user");
                    self.ended.push(summary);
                }
                binding @ (Effect::Bound(..) | Effect::Permitted(_) | Effect::Refreshed(_)) => {
                    self.bindings.push(binding)
                }
                moved => self.moves.push(moved),
            }
        }
    }

    /// The open relay socket with this relayed address.
    pub(crate) fn relay_at(&self, address: SocketAddr) -> Option<RelayId> {
        self.relays.iter().find(|(_, relay)| relay.address == address).map(|(id, _)| *id)
    }

    /// A peer's datagram reaches a relay socket. What goes to which client, header, payload and padding together.
    pub(crate) fn receive_peer(&mut self, relay: RelayId, peer: SocketAddr, data: &[u8]) -> Option<(Client, Vec<u8>)> {
        let handle = self.relays[&relay].handle.expect("an allocation");
        let mut headroom = [0xEE; HEADROOM];
        let to = self.server.from_peer(handle, peer, data.len(), &mut headroom, self.now)?;
        self.settle();
        let header = &headroom[HEADROOM - to.header_len..];
        Some((to.client, [header, data, &[0; 3][..to.padding]].concat()))
    }

    /// An ICMP error about a datagram that a relay socket sent.
    pub(crate) fn receive_icmp(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        error: IcmpError,
    ) -> Option<(Client, Response)> {
        let handle = self.relays[&relay].handle.expect("an allocation");
        let mut reply = [0; REPLY_LEN];
        let (client, len) = self.server.from_icmp(handle, peer, error, &mut reply, self.now)?;
        Some((client, Response::new(reply[..len].to_vec())))
    }
}

/// A grant of one relay socket.
fn grant_of(relay: RelayId, address: SocketAddr) -> Grant {
    let mut grant = Grant::default();
    grant.relays[usize::from(address.is_ipv6())] = Some((relay, address));
    grant
}
