//! What happens, as bytes say.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use turnserver::{
    auth::key::LongTermKey,
    stun::{AttributeType as A, Class, ErrorCode, IntegrityKey, MacAlgorithm, Message, Method, PasswordAlgorithm},
    turn::{
        Alternate, Answer, Client, ConnectionId, Credential, Discovery, DiscoveryAddress, EndReason, Family, FiveTuple,
        IcmpError, Mobility, Realm, RealmId, Redirect, RelayId, Revocation, Route, Rules, Step, Term, Transport,
    },
};

use super::{
    super::bytes::Bytes,
    shadow::{Gate, Known, Shadow, UNSIGNED},
    support::{Credentials, Out, REALM, Request, World, credential, long_term_key, realm, rules},
};

const CLIENTS: [(&str, Transport); 8] = [
    ("192.0.2.1:1000", Transport::Udp),
    ("192.0.2.1:1001", Transport::Udp),
    ("192.0.2.1:1000", Transport::Tcp),
    ("[2001:db8::1]:1000", Transport::Udp),
    ("[2001:db8::1]:1000", Transport::Tls),
    ("192.0.2.2:1000", Transport::Dtls),
    ("192.0.2.3:1000", Transport::Tcp),
    ("198.51.100.1:1000", Transport::Udp),
];

const PEERS: [&str; 14] = [
    "198.51.100.1:1000",
    "198.51.100.1:2000",
    "198.51.100.2:1000",
    "[2001:db8:1::1]:1000",
    "[2001:db8:1::1]:2000",
    "[2001:db8:2::1]:1000",
    "10.0.0.1:1000",
    "198.51.100.3:25",
    "198.51.100.4:0",
    "198.51.100.5:26",
    "198.51.100.6:7",
    "[::ffff:10.0.0.1]:7",
    "192.0.2.1:1000",
    "192.0.2.201:50001",
];

/// USERNAME, password, for whom it stands.
const USERS: [(&str, &str, &str); 6] = [
    ("alice", "wonderland", "alice"),
    ("bob", "builder", "bob"),
    ("1:alice", "minted", "alice"),
    ("2:carol", "brief", "carol"),
    ("dora", "stored", "dora"),
    ("mallory", "guess", ""),
];

/// The key of an access token, and the token as the world knows it.
const TOKEN: (&[u8], &[u8]) = (b"a key of twenty byte", b"a token");

const METHODS: [Method; 8] = [
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Connect,
    Method::ConnectionBind,
    Method::Binding,
    Method::Send,
];

const LIFETIMES: [u32; 8] = [0, 1, 600, 601, 900, 3600, 5000, u32::MAX];

/// A client and what it remembers.
struct Player {
    client: Client,
    nonce: Vec<u8>,
    offered: Vec<u8>,
    /// What it sent last.
    last: Vec<u8>,
}

/// A world, what must hold there, and who is in it.
pub(super) struct Play {
    world: World,
    shadow: Shadow,
    players: Vec<Player>,
}

/// The rules, as bits say.
fn varied(bits: u16) -> Rules {
    let on = |bit: u16| bits >> bit & 1 == 1;
    let udp: SocketAddr = "192.0.2.250:3478".parse().unwrap();
    let place =
        |last: u8| DiscoveryAddress { local: [192, 0, 2, last].into(), external: [192, 0, 2, last].into(), mtu: 1500 };
    Rules {
        nonce_lifetime: Duration::from_secs(1800),
        max_permissions: 4,
        max_channels: 2,
        mobility: on(0).then_some(Mobility { worker: 1, key: [5; 32] }),
        tcp_relaying: !on(1),
        udp_relaying: !on(2) || on(1),
        rfc3489: on(3),
        wide_channels: on(4),
        always_fingerprint: on(5),
        software: on(6).then(|| "turnserver".to_owned()),
        default_family: on(7).then_some(Family::V4),
        redirect: on(8).then(|| {
            let transports = vec![Transport::Udp, Transport::Tcp];
            let servers =
                vec![Alternate { address: udp, transports, weight: 1, domain: Some("turn.example.org".to_owned()) }];
            Redirect { servers, share: 50 }
        }),
        discovery: if on(9) {
            vec![Discovery { addresses: [place(200), place(202)], ports: [3478, 3479], tcp: on(10) }]
        } else {
            Vec::new()
        },
        dont_fragment: !on(11),
        anonymous: on(13),
        realms: vec![Realm { third_party: on(12).then(|| "turn.example.org".to_owned()), ..realm(REALM) }],
        ..rules()
    }
}

impl Play {
    pub(super) fn new(bytes: &mut Bytes<'_>) -> Self {
        let rules = varied(bytes.u16());
        let mut world = World::with(rules.clone());
        let refusal = Rc::clone(&world.refusal);
        let gate = Gate { level: Rc::new(Cell::new(0)), budget: Rc::new(Cell::new(u64::MAX)), refusal };
        world.server.set_policy(Box::new(gate.clone()));
        (world.quota, world.max_relays) = (3, 8);
        let [.., minted, brief, stored, _] = USERS;
        let term = |left, grace| Some(Term { left: Duration::from_secs(left), grace: Duration::from_secs(grace) });
        let of = |(name, password, user): (&str, &str, &str)| {
            credential(user, &long_term_key(name, password, PasswordAlgorithm::Md5))
        };
        let secret = Some("old".into());
        let others = [
            (minted, Credential { term: term(7200, 60), secret: secret.clone(), ..of(minted) }),
            (brief, Credential { term: term(900, 700), secret, ..of(brief) }),
        ];
        world.others = others.map(|((name, ..), credential)| (name.to_owned(), None, credential)).into();
        let token = Credential {
            key: LongTermKey::Token(TOKEN.0.into()),
            term: term(1800, 0),
            bearer: true,
            ..credential("kid", &[])
        };
        world.others.push(("kid".to_owned(), Some(TOKEN.1.to_vec()), token));
        world.store = bytes.one_in(2).then(|| Ok(vec![of(stored)]));

        let mut known: Vec<Known> = vec![Known { user: "kid", key: TOKEN.0.to_vec(), bearer: true }];
        for (name, password, user) in &USERS[..5] {
            for algorithm in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
                known.push(Known { user, key: long_term_key(name, password, algorithm), bearer: false });
            }
        }
        let players = CLIENTS.map(|(address, transport)| {
            let client: SocketAddr = address.parse().unwrap();
            let server = if client.is_ipv4() { "192.0.2.200:3478" } else { "[2001:db8::200]:3478" };
            let tuple = FiveTuple { client, server: server.parse().unwrap(), transport };
            let client = Client { tuple, route: Route(7), realm: RealmId::DEFAULT };
            Player { client, nonce: Vec::new(), offered: Vec::new(), last: Vec::new() }
        });
        Self { world, shadow: Shadow::new(gate, known, rules), players: players.into() }
    }

    /// One thing that happens.
    pub(super) fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(24) {
            0..8 => self.request(bytes),
            8 | 9 => self.indication(bytes),
            10 | 11 => self.channel_data(bytes),
            12 | 13 => self.peer_sends(bytes),
            14 => self.icmp_arrives(bytes),
            15 | 16 => self.pass(bytes),
            17 => self.anything(bytes),
            18 => self.again(bytes),
            19 => self.connections(bytes),
            20 => self.end(bytes),
            21 => self.reload(bytes),
            22 => self.circumstances(bytes),
            _ => self.first_steps(bytes),
        }
        self.world.settle();
        self.shadow.check(&mut self.world);
    }

    /// What a client sends, whatever it is.
    fn send(&mut self, at: usize, bytes: &[u8]) {
        let client = self.players[at].client;
        let before = self.shadow.gate.budget.get();
        // What is no STUN of today is ChannelData, an old Binding request, or nothing.
        if Message::parse(bytes).is_err() && !matches!(bytes.first(), Some(0x40..=0x7F)) {
            self.old(&client, bytes);
            return;
        }
        let out = self.world.send(&client, bytes);
        if let Out::Reply(response) = &out
            && let (401 | 438, Some(nonce), Some(offered)) =
                (response.code(), response.get(A::NONCE), response.get(A::PASSWORD_ALGORITHMS))
        {
            (self.players[at].nonce, self.players[at].offered) = (nonce.to_vec(), offered.to_vec());
        }
        let spent = before - self.shadow.gate.budget.get();
        self.shadow.client_sent(&mut self.world, &client, bytes, &out, spent);
        bytes.clone_into(&mut self.players[at].last);
    }

    /// A message without the cookie, or none at all.
    fn old(&mut self, client: &Client, bytes: &[u8]) {
        let mut reply = vec![0; self.world.server.reply_len()];
        match self.world.server.from_client(client, bytes, Answer::Unasked, &mut reply, self.world.now) {
            Step::Dropped => self.shadow.dropped(),
            Step::Reply(len) => {
                let (request, response) = (Message::parse_classic(bytes), Message::parse_classic(&reply[..len]));
                let (request, response) = (request.expect("an old request"), response.expect("an old response"));
                assert_eq!(
                    (request.class(), request.head().cookie_and_id),
                    (Class::Request, response.head().cookie_and_id)
                );
                assert!(self.shadow.rules.rfc3489 || client.tuple.transport == Transport::Dtls);
                assert!(len <= UNSIGNED.max(bytes.len() + 120), "{len} for {}", bytes.len());
                self.shadow.answered_later();
            }
            Step::ReplyElsewhere(elsewhere) => {
                assert!(self.shadow.rules.rfc3489 && !self.shadow.rules.discovery.is_empty());
                assert_eq!(elsewhere.to.ip(), client.tuple.client.ip());
                self.shadow.answered_later();
            }
            other => panic!("{other:?} for what is no message"),
        }
    }

    fn peer(bytes: &mut Bytes<'_>) -> SocketAddr {
        if bytes.one_in(32) {
            let port = bytes.u16();
            return SocketAddr::new(<[u8; 4]>::try_from(bytes.take(4)).unwrap_or_default().into(), port);
        }
        bytes.pick(&PEERS).parse().unwrap()
    }

    /// A request with what belongs to it, signed by somebody, and perhaps damaged.
    fn request(&mut self, bytes: &mut Bytes<'_>) {
        let at = bytes.below(CLIENTS.len());
        // Most requests are the first user's.
        let choice = bytes.below(32);
        let (name, password, _) = USERS[choice.checked_sub(26).unwrap_or(at % 2)];
        let method = *bytes.pick(&METHODS);
        let mut request = Request::new(method);
        match method {
            Method::Allocate => {
                request = request.raw(A::REQUESTED_TRANSPORT, [if bytes.one_in(4) { 6 } else { 17 }, 0, 0, 0]);
                match bytes.below(8) {
                    1 => request = request.raw(A::MOBILITY_TICKET, []),
                    2 => request = request.additional(2),
                    3 => request = request.family(bytes.u8() % 4),
                    4 => request = request.raw(A::EVEN_PORT, [bytes.u8()]),
                    5 => {
                        let tokens: Vec<_> = self.world.reservations.keys().copied().collect();
                        let token = tokens.get(bytes.below(4)).copied().unwrap_or([1; 8]);
                        request = request.raw(A::RESERVATION_TOKEN, token);
                    }
                    6 => request = request.lifetime(*bytes.pick(&LIFETIMES)),
                    7 => request = request.additional(bytes.u8() % 4).lifetime(bytes.u32()),
                    _ => {}
                }
            }
            Method::Refresh => {
                if bytes.one_in(2) {
                    request = request.lifetime(*bytes.pick(&LIFETIMES));
                }
                match bytes.below(4) {
                    1 => request = request.family(bytes.u8() % 4),
                    2 => request = request.raw(A::MOBILITY_TICKET, self.ticket(bytes)),
                    _ => {}
                }
            }
            Method::CreatePermission => {
                for _ in 0..bytes.below(6) {
                    request = request.peer(Self::peer(bytes));
                }
            }
            Method::ChannelBind => {
                let number = if bytes.one_in(8) { bytes.u16() } else { 0x4000 + u16::from(bytes.u8() % 4) };
                request = request.channel(number).peer(Self::peer(bytes));
            }
            Method::Connect => request = request.peer(Self::peer(bytes)),
            Method::ConnectionBind => {
                let id = self.connection(bytes).map_or_else(|| bytes.u32(), |id| id.0);
                request = request.raw(A::CONNECTION_ID, id.to_be_bytes());
            }
            Method::Binding => match bytes.below(4) {
                1 => request = request.raw(A::CHANGE_REQUEST, [0, 0, 0, bytes.u8()]),
                2 => request = request.raw(A::RESPONSE_PORT, [bytes.u8(), bytes.u8(), 0, 0]),
                3 => request = request.raw(A::PADDING, vec![0; usize::from(bytes.u16() % 2048)]),
                _ => {}
            },
            _ => {}
        }
        if bytes.one_in(8) {
            let attribute = A(bytes.u16());
            let len = bytes.below(40);
            // Integrity and fingerprint have ways of their own to be wrong.
            if !matches!(attribute, A::MESSAGE_INTEGRITY | A::MESSAGE_INTEGRITY_SHA256 | A::FINGERPRINT) {
                request = request.raw(attribute, bytes.take(len));
            }
        }
        let wrong = bytes.u8();
        let style = bytes.below(6);
        let by_token = style == 5;
        let credentials = match style {
            0 | 1 => Credentials::old(name, password),
            2 => Credentials::new(name, password),
            3 => Credentials { algorithm: Some(PasswordAlgorithm::Md5), ..Credentials::old(name, password) },
            4 => Credentials { anonymous: true, ..Credentials::new(name, password) },
            _ => Credentials::old("kid", ""),
        };
        let player = &self.players[at];
        let nonce = match wrong {
            // Another client's.
            250 => self.players[(at + 1) % CLIENTS.len()].nonce.clone(),
            251 => bytes.take(41).to_vec(),
            252 => player.nonce.iter().zip(bytes.take(41)).map(|(old, change)| old ^ change).collect(),
            _ => player.nonce.clone(),
        };
        let key = if by_token {
            request = request.raw(A::ACCESS_TOKEN, TOKEN.1);
            IntegrityKey::new(MacAlgorithm::Sha1, TOKEN.0)
        } else {
            credentials.key()
        };
        if wrong != 255 {
            request = credentials.identify(request, &nonce, &player.offered);
        }
        if wrong != 254 {
            request = request.integrity(key);
        }
        if bytes.one_in(4) {
            request = request.fingerprint();
        }
        let mut built = request.build();
        if wrong == 253 {
            let place = usize::from(bytes.u16()) % built.len();
            built[place] ^= bytes.u8();
        }
        self.send(at, &built);
    }

    /// A ticket: somebody's, or a damaged one.
    fn ticket(&self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let mut tickets = self.shadow.tickets();
        if tickets.is_empty() {
            return bytes.take(32).to_vec();
        }
        let at = bytes.below(tickets.len());
        let mut ticket = tickets.swap_remove(at);
        if bytes.one_in(8) {
            let place = bytes.below(ticket.len());
            ticket[place] ^= bytes.u8();
        }
        ticket
    }

    /// One of the connections.
    fn connection(&self, bytes: &mut Bytes<'_>) -> Option<ConnectionId> {
        let at = bytes.below(self.world.peers.len() + 1);
        self.world.peers.keys().nth(at).copied()
    }

    /// What clients do as a rule: allocate, get a permission, bind a channel.
    fn first_steps(&mut self, bytes: &mut Bytes<'_>) {
        let at = bytes.below(CLIENTS.len());
        let (name, password, _) = USERS[at % 2];
        let peer = *bytes.pick(&PEERS[..6]);
        let allocate = match bytes.below(4) {
            0 => Request::allocate().raw(A::MOBILITY_TICKET, []),
            1 => Request::allocate().additional(2),
            _ => Request::allocate(),
        };
        self.send(at, &Request::allocate().build());
        for request in [allocate, Request::permission(&[peer]), Request::bind(0x4000, peer)] {
            let player = &self.players[at];
            let credentials = Credentials::old(name, password);
            let signed = credentials.identify(request, &player.nonce, &player.offered).integrity(credentials.key());
            self.send(at, &signed.build());
        }
    }

    fn indication(&mut self, bytes: &mut Bytes<'_>) {
        let at = bytes.below(CLIENTS.len());
        let mut request = Request::new(Method::Send).class(Class::Indication).peer(Self::peer(bytes));
        if bytes.one_in(4) {
            request = request.raw(A::DONT_FRAGMENT, []);
        }
        let len = bytes.below(64);
        self.send(at, &request.raw(A::DATA, vec![0x5A; len]).build());
    }

    fn channel_data(&mut self, bytes: &mut Bytes<'_>) {
        let at = bytes.below(CLIENTS.len());
        let number = if bytes.one_in(8) { 0x4000 | bytes.u16() & 0x3FFF } else { 0x4000 + u16::from(bytes.u8() % 4) };
        let (len, cut) = (bytes.u8(), bytes.one_in(16));
        let mut data = [&number.to_be_bytes()[..], &[0, len]].concat();
        data.resize(4 + usize::from(len), 0xA5);
        if cut {
            data.truncate(data.len() - 1);
        }
        self.send(at, &data);
    }

    /// Any bytes.
    fn anything(&mut self, bytes: &mut Bytes<'_>) {
        let at = bytes.below(CLIENTS.len());
        let len = bytes.u8();
        let sent = bytes.take(len.into()).to_vec();
        self.send(at, &sent);
    }

    /// What was sent before, by the same client or another one, perhaps damaged.
    fn again(&mut self, bytes: &mut Bytes<'_>) {
        let (from, at) = (bytes.below(CLIENTS.len()), bytes.below(CLIENTS.len()));
        let mut sent = self.players[from].last.clone();
        if bytes.one_in(2) && !sent.is_empty() {
            let place = usize::from(bytes.u16()) % sent.len();
            sent[place] ^= bytes.u8();
        }
        self.send(at, &sent);
    }

    fn relay(&self, bytes: &mut Bytes<'_>) -> Option<RelayId> {
        let at = bytes.below(self.world.relays.len().max(1));
        self.world.relays.keys().nth(at).copied()
    }

    /// A peer of the relay socket's family.
    fn peer_of(&self, relay: RelayId, bytes: &mut Bytes<'_>) -> Option<SocketAddr> {
        let at = self.world.relays[&relay].address;
        Some(Self::peer(bytes)).filter(|peer| peer.is_ipv4() == at.is_ipv4())
    }

    fn peer_sends(&mut self, bytes: &mut Bytes<'_>) {
        let Some(relay) = self.relay(bytes) else { return };
        let Some(peer) = self.peer_of(relay, bytes) else { return };
        let len = if bytes.one_in(16) { usize::from(bytes.u16()) } else { usize::from(bytes.u8()) };
        let handle = self.world.relays[&relay].handle.expect("an allocation");
        let out = self.world.receive_peer(relay, peer, &vec![0x3C; len]);
        if let Some((_, message)) = &out {
            assert!(message.len() >= len && message.len() <= len + 51, "{} for {len}", message.len());
        }
        self.shadow.peer_sent(&self.world, handle, peer, len, out.as_ref().map(|(client, _)| client));
    }

    fn icmp_arrives(&mut self, bytes: &mut Bytes<'_>) {
        let Some(relay) = self.relay(bytes) else { return };
        let Some(peer) = self.peer_of(relay, bytes) else { return };
        let handle = self.world.relays[&relay].handle.expect("an allocation");
        let error = IcmpError { kind: bytes.u8() % 14, code: bytes.u8(), mtu: bytes.u32() };
        match self.world.receive_icmp(relay, peer, error) {
            Some((client, _)) => self.shadow.for_client(handle, peer, self.world.now.0, &client),
            None => self.shadow.dropped(),
        }
    }

    /// Time goes on; sometimes to what ends next, and somebody may look at the clock.
    fn pass(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.world.now;
        let next = self.world.server.next_deadline().map_or(0, |next| next.0.saturating_sub(now.0));
        self.world.pass(match bytes.below(4) {
            0 => u64::from(bytes.u16()),
            1 => next,
            2 => next.saturating_sub(1),
            _ => u64::from(bytes.u16()) * 64,
        });
        if bytes.one_in(2) {
            self.world.expire();
            assert!(self.world.server.next_deadline().is_none_or(|next| next > self.world.now));
        }
    }

    /// Connections come about, or do not.
    fn connections(&mut self, bytes: &mut Bytes<'_>) {
        if bytes.one_in(2) {
            let Some(relay) = self.relay(bytes) else { return };
            let Some(peer) = self.peer_of(relay, bytes) else { return };
            let handle = self.world.relays[&relay].handle.expect("an allocation");
            let connecting = self.world.server.totals().successes();
            match self.world.peer_connects(relay, peer) {
                Some((client, message)) => {
                    let is_attempt = message.message().class() == Class::Indication;
                    if is_attempt {
                        self.shadow.for_client(handle, peer, self.world.now.0, &client);
                        assert!(self.shadow.gate.lets_socket(peer));
                    } else {
                        // Both have connected to each other at once.
                        assert_eq!(self.world.server.totals().successes(), connecting + 1);
                        self.shadow.answered_later();
                    }
                }
                None => self.shadow.dropped(),
            }
            return;
        }
        let Some(id) = self.connection(bytes) else { return };
        let answered = if bytes.one_in(2) { self.world.connect_failed(id) } else { self.world.connected(id) };
        if answered.is_some() {
            self.shadow.answered_later();
        }
    }

    /// Something ends from outside.
    fn end(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.world.now;
        match bytes.below(6) {
            0 => {
                let client = self.players[bytes.below(CLIENTS.len())].client;
                self.world.server.end_client(&client, EndReason::ConnectionClosed, now);
            }
            1 => {
                let user = *bytes.pick(&["alice", "bob", "carol", "dora"]);
                let revocation = Revocation::User { realm: REALM.into(), user: user.into() };
                assert_eq!(self.world.server.revoke(&revocation, now), self.shadow.sessions_of(user));
            }
            2 => {
                let secret = Revocation::Secret { realm: REALM.into(), name: "old".into() };
                let ended = self.world.server.revoke(&secret, now);
                assert!(ended <= self.shadow.sessions_of("alice") + self.shadow.sessions_of("carol"));
            }
            3 => {
                let Some(relay) = self.relay(bytes) else { return };
                let handle = self.world.relays[&relay].handle.expect("an allocation");
                self.world.server.end_handle(handle, EndReason::Deleted, now);
            }
            4 => {
                let other = Revocation::Realm("south.gov".into());
                assert_eq!(self.world.server.revoke(&other, now), 0);
            }
            _ => self.world.expire(),
        }
    }

    /// Other rules, and another policy.
    fn reload(&mut self, bytes: &mut Bytes<'_>) {
        let rules = varied(bytes.u16());
        // Tickets and discovery are of the start.
        let rules = Rules { mobility: self.shadow.rules.mobility.clone(), ..rules };
        self.world.server.renew(rules.clone());
        self.shadow.rules = rules;
        self.shadow.gate.level.set(bytes.u8() % 2);
        self.world.server.set_policy(Box::new(self.shadow.gate.clone()));
        self.world.server.forget_denied();
        self.shadow.forget_denied();
    }

    /// What is around the engine changes.
    fn circumstances(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(5) {
            0 => self.shadow.gate.budget.set(u64::from(bytes.u8() % 4)),
            1 => self.shadow.gate.budget.set(u64::MAX),
            2 => {
                self.world.store = match self.world.store.take() {
                    Some(Ok(_)) => Some(Err(())),
                    _ => Some(Ok(Vec::new())),
                };
            }
            3 => {
                self.world.families = [Family::ALL.to_vec(), vec![Family::V4], vec![Family::V6]][bytes.below(3)].clone()
            }
            _ => self.world.refusal.set(bytes.one_in(2).then_some(ErrorCode::InsufficientCapacity)),
        }
    }

    /// Everything that was granted ends by itself; nothing is left.
    pub(super) fn finish(mut self) {
        let longest = self.shadow.rules.max_lifetime.max(Duration::from_secs(7200));
        self.world.pass(u64::try_from(longest.as_millis()).unwrap() + 1000);
        self.world.expire();
        self.shadow.check(&mut self.world);
        assert_eq!(self.world.server.allocations(), 0);
        assert!(self.world.relays.is_empty(), "relay sockets are left");
        assert!(self.world.peers.is_empty(), "connections are left");
        assert!(self.world.used.values().all(|used| *used == 0), "a quota is held by nobody");
        assert_eq!(self.world.server.next_deadline(), None, "a timer is left");
        self.shadow.finish();
    }
}
