//! Runs engine and reference side by side.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use turnserver::{
    stun::{AttributeType as A, ChannelData, ChannelNumber, Method, PasswordAlgorithm},
    turn::{Drop, EndReason, IcmpError, RelayId, Rules, Time, Traffic},
};

use super::{
    operations::{Action, Jump, Operation, Who},
    reference::{Ended, MAX_CHANNELS, MAX_PERMISSIONS, MAX_RELAYS, NONCE_SECONDS, QUOTA, Reference, peer, refused},
};
use crate::support::{Credentials, Out, Request, Response, TestClient, World, rules, tcp, udp};

/// Address, whether over TCP, user.
pub(super) const CLIENTS: [(&str, bool, &str); 6] = [
    ("192.0.2.1:1000", false, "alice"),
    ("192.0.2.1:1001", false, "bob"),
    ("192.0.2.1:1000", true, "alice"),
    ("[2001:db8::1]:1000", false, "bob"),
    ("[2001:db8::1]:1000", true, "alice"),
    ("192.0.2.2:1000", false, "alice"),
];

/// Engine and reference.
pub(super) struct Run {
    world: World,
    reference: Reference,
    clients: Vec<TestClient>,
    /// When each client's nonce was issued.
    issued: Vec<u64>,
    last_allocate: Vec<Option<(Vec<u8>, &'static str)>>,
    /// What the engine's counters should say; its drops are in `dropped`.
    totals: Expected,
    dropped: u64,
}

/// What the engine should have counted.
#[derive(Debug, Default)]
struct Expected {
    allocations: u64,
    successes: u64,
    errors: u64,
    to_peers: Traffic,
    to_clients: Traffic,
}

/// Counts one datagram.
fn count(traffic: &mut Traffic, len: usize) {
    traffic.add(Traffic { packets: 1, bytes: len as u64 });
}

impl Run {
    pub(super) fn new() -> Self {
        let mut world = World::with(Rules {
            nonce_lifetime: Duration::from_secs(NONCE_SECONDS),
            max_permissions: MAX_PERMISSIONS,
            max_channels: MAX_CHANNELS,
            ..rules()
        });
        (world.quota, world.max_relays) = (QUOTA, MAX_RELAYS);
        let client = |(address, stream, _)| if stream { tcp(address) } else { udp(address) };
        let clients: Vec<_> = CLIENTS.map(|entry| TestClient::new(&mut world, client(entry))).into();
        let totals = Expected { errors: clients.len() as u64, ..Expected::default() };
        let reference = Reference { now: world.now.0, ..Reference::default() };
        let (issued, last_allocate) = (vec![world.now.0; clients.len()], vec![None; clients.len()]);
        Self { world, reference, clients, issued, last_allocate, totals, dropped: 0 }
    }

    pub(super) fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Request { client, who, style, stale, unknown, action } => {
                self.request(*client, *who, *style, *stale, *unknown, action);
            }
            Operation::Retransmit { client } => self.retransmit(*client),
            Operation::Send { client, peer, len, whole, dont_fragment } => {
                self.send(*client, *peer, *len, *whole, *dont_fragment);
            }
            Operation::ChannelData { client, number, len, whole } => {
                self.channel_data(*client, *number, *len, *whole);
            }
            Operation::FromPeer { relay, peer, len } => {
                if let Some(relay) = self.relay(relay) {
                    self.receive_peer(relay, *peer, *len);
                }
            }
            Operation::FromIcmp { relay, peer, kind } => {
                if let Some(relay) = self.relay(relay) {
                    self.receive_icmp(relay, *peer, *kind);
                }
            }
            Operation::Binding { client } => {
                let client = self.clients[*client].client;
                let response = self.world.ask(&client, &Request::new(Method::Binding).build());
                assert_eq!(response.addresses(A::XOR_MAPPED_ADDRESS), [client.tuple.client]);
                self.totals.successes += 1;
            }
            Operation::Garbage { client, bytes } => {
                let client = self.clients[*client].client;
                // Random bytes may be ChannelData of a bound channel, but not STUN.
                if bytes.first().is_none_or(|first| !(64..80).contains(first)) {
                    assert_eq!(self.world.send(&client, bytes), Out::Nothing);
                    self.dropped += 1;
                }
            }
            Operation::Close { client } => {
                let tuple = self.clients[*client].client;
                self.world.server.end_client(&tuple, EndReason::ConnectionClosed, self.world.now);
                self.world.settle();
                self.reference.close(*client, None, EndReason::ConnectionClosed);
            }
            Operation::Pass { jump, sweep } => self.pass(*jump, *sweep),
        }
        self.check();
    }

    fn pass(&mut self, jump: Jump, sweep: bool) {
        let now = self.reference.now;
        let deadline = self.reference.next_deadline().unwrap_or(now);
        let then = match jump {
            Jump::By(milliseconds) => now + milliseconds,
            Jump::ToDeadline => deadline,
            Jump::BeforeDeadline => deadline - 1,
        };
        self.world.now = Time(then.max(now));
        self.reference.set_time(then.max(now));
        if sweep {
            self.world.expire();
            self.check_ends();
            assert!(self.reference.ended.is_empty() && self.reference.closing.is_empty(), "something did not expire");
            assert!(self.world.server.next_deadline().is_none_or(|deadline| deadline > self.world.now));
        }
    }

    fn request(&mut self, client: usize, who: Who, style: usize, stale: bool, unknown: bool, action: &Action) {
        let own = CLIENTS[client].2;
        let (user, password) = match (who, own) {
            (Who::Stranger, _) => ("mallory", "guess"),
            (Who::WrongPassword, own) => (own, "guess"),
            (Who::OtherUser, "alice") | (Who::Own | Who::Nobody | Who::Incomplete, "bob") => ("bob", "builder"),
            _ => ("alice", "wonderland"),
        };
        let mut signer = self.clients[client].clone();
        signer.credentials = match style {
            0 => Credentials::old(user, password),
            1 => Credentials::new(user, password),
            2 => Credentials { algorithm: Some(PasswordAlgorithm::Md5), ..Credentials::old(user, password) },
            _ => Credentials { anonymous: true, ..Credentials::new(user, password) },
        };
        if stale {
            signer.nonce[20] ^= 1;
        }
        let plain = self.plain(action);
        let plain = if unknown { plain.raw(A(0x7FF0), [1]) } else { plain };
        let id = plain.transaction_id;
        let bytes = match who {
            Who::Nobody => plain,
            Who::Incomplete => signer.identify(plain).without(A::REALM).integrity(signer.credentials.key()),
            _ => signer.sign(plain),
        }
        .build();

        let good_token = match action {
            Action::Allocate { token: Some(token), .. } => self.token(token).is_some(),
            _ => false,
        };
        let expired = self.reference.now / 1000 - self.issued[client] / 1000 >= NONCE_SECONDS;
        let expected = match who {
            Who::Nobody | Who::Stranger | Who::WrongPassword => 401,
            Who::Incomplete => 400,
            Who::Own | Who::OtherUser if stale || expired => 438,
            Who::Own | Who::OtherUser if unknown => 420,
            Who::Own | Who::OtherUser => self.reference.judge(client, user, action, good_token),
        };
        let response = self.world.ask(&signer.client, &bytes);
        assert_eq!(response.code(), expected, "{action:?}");
        let authenticated = !matches!(expected, 401 | 438) && who != Who::Incomplete;
        let (mac, key) = (signer.credentials.reply_mac(), signer.credentials.long_term_key());
        assert_eq!(response.is_signed(mac, &key), authenticated);
        if matches!(expected, 401 | 438) {
            self.clients[client].learn(&response);
            self.issued[client] = self.reference.now;
        }
        if expected != 0 {
            self.totals.errors += 1;
            return;
        }
        self.totals.successes += 1;
        match action {
            Action::Allocate { lifetime, additional, token, .. } => {
                let relayed = response.relayed();
                let wanted = self.reference.addresses_for(client, *additional && token.is_none());
                assert_eq!(relayed.len(), wanted);
                assert_eq!(response.has(A::ADDRESS_ERROR_CODE), *additional && wanted == 1);
                self.reference.allocated(client, user, id, &relayed, *lifetime);
                self.totals.allocations += 1;
                self.last_allocate[client] = Some((bytes, user));
            }
            _ => {
                let lifetime = self.reference.carry_out(client, action);
                assert_eq!(response.message().get_u32(A::LIFETIME).map(Result::unwrap), lifetime);
            }
        }
    }

    fn plain(&self, action: &Action) -> Request {
        let lifetime = |request: Request, lifetime: &Option<u32>| match lifetime {
            Some(lifetime) => request.lifetime(*lifetime),
            None => request,
        };
        let family = |request: Request, family: &Option<u8>| match family {
            Some(family) => request.family(*family),
            None => request,
        };
        match action {
            Action::Allocate { lifetime: asked, family: wanted, additional, even, token } => {
                let mut request = family(lifetime(Request::allocate(), asked), wanted);
                if *additional {
                    request = request.additional(2);
                }
                if let Some(reserve) = even {
                    request = request.raw(A::EVEN_PORT, [u8::from(*reserve) << 7]);
                }
                if let Some(token) = token {
                    request = request.raw(A::RESERVATION_TOKEN, self.token(token).unwrap_or([1; 8]));
                }
                request
            }
            Action::Refresh { lifetime: asked, family: wanted } => {
                family(lifetime(Request::new(Method::Refresh), asked), wanted)
            }
            Action::Permit { peers, malformed } => {
                let all =
                    peers.iter().fold(Request::new(Method::CreatePermission), |all, index| all.peer(peer(*index)));
                if *malformed { all.raw(A::XOR_PEER_ADDRESS, [0, 1, 2]) } else { all }
            }
            Action::Bind { number, peer: index } => {
                Request::new(Method::ChannelBind).channel(*number).peer(peer(*index))
            }
        }
    }

    /// One of the reserved ports' tokens.
    fn token(&self, index: &proptest::sample::Index) -> Option<[u8; 8]> {
        let tokens: Vec<_> = self.world.reservations.keys().collect();
        (!tokens.is_empty()).then(|| **index.get(&tokens))
    }

    /// One of the open relay sockets.
    fn relay(&self, index: &proptest::sample::Index) -> Option<RelayId> {
        let relays: Vec<_> = self.world.relays.keys().collect();
        (!relays.is_empty()).then(|| **index.get(&relays))
    }

    /// The last successful Allocate again: the same answer while its allocation lives.
    fn retransmit(&mut self, client: usize) {
        let Some((bytes, user)) = self.last_allocate[client].clone() else { return };
        let Some(allocation) = self.reference.allocations.get(&client) else { return };
        let response: Response = self.world.ask(&self.clients[client].client, &bytes);
        let expired = response.code() == 438;
        let same = allocation.transaction_id == response.transaction_id() && allocation.user == user;
        if expired {
            self.totals.errors += 1;
            self.clients[client].learn(&response);
            self.issued[client] = self.reference.now;
        } else if same {
            let relayed: Vec<SocketAddr> = allocation.relayed.iter().map(|(address, _)| *address).collect();
            assert_eq!((response.code(), response.relayed()), (0, relayed));
            self.totals.successes += 1;
        } else {
            assert_eq!(response.code(), 437);
            self.totals.errors += 1;
        }
    }

    fn send(&mut self, client: usize, index: usize, len: usize, whole: bool, dont_fragment: bool) {
        let (to, data) = (peer(index), vec![0x5A; len]);
        let mut request = Request::send(super::reference::PEERS[index], &data);
        if dont_fragment {
            request = request.raw(A::DONT_FRAGMENT, []);
        }
        if !whole {
            request = request.without(A::DATA);
        }
        let (_, stream, _) = CLIENTS[client];
        let translated = !stream && self.clients[client].client.tuple.client.is_ipv4() != to.is_ipv4();
        let allocation = self.reference.allocations.get_mut(&client);
        let from = allocation
            .filter(|allocation| whole && allocation.permits(to) && !refused(to) && to.port() != 0)
            .and_then(|allocation| Some((allocation.relayed_to(to)?, &mut allocation.to_peers)));
        let out = self.world.send(&self.clients[client].client, &request.build());
        let Some((from, traffic)) = from else {
            assert_eq!(out, Out::Nothing);
            self.dropped += 1;
            return;
        };
        let relay = self.world.relay_at(from).unwrap();
        assert_eq!(out, Out::Peer { relay, peer: to, data, dont_fragment: dont_fragment && !translated });
        count(traffic, len);
        count(&mut self.totals.to_peers, len);
    }

    fn channel_data(&mut self, client: usize, number: u16, len: usize, whole: bool) {
        let data = vec![0xA5; len];
        let header = ChannelData { number: ChannelNumber(number), len: u16::try_from(len).unwrap() };
        let mut bytes = [&header.header()[..], &data].concat();
        let whole = whole || len == 0;
        if !whole {
            let _ = bytes.pop();
        }
        let out = self.world.send(&self.clients[client].client, &bytes);
        let allocation = self.reference.allocations.get_mut(&client).filter(|_| whole);
        let bound = allocation.and_then(|allocation| {
            let (to, _) = *allocation.channels.get(&number)?;
            Some((allocation.relayed_to(to)?, to, &mut allocation.to_peers))
        });
        let Some((from, to, traffic)) = bound else {
            assert_eq!(out, Out::Nothing);
            self.dropped += 1;
            return;
        };
        let relay = self.world.relay_at(from).unwrap();
        assert_eq!(out, Out::Peer { relay, peer: to, data, dont_fragment: false });
        count(traffic, len);
        count(&mut self.totals.to_peers, len);
    }

    fn receive_peer(&mut self, relay: RelayId, index: usize, len: usize) {
        let (from, at) = (peer(index), self.world.relays[&relay].address);
        if from.is_ipv4() != at.is_ipv4() {
            return;
        }
        let data = vec![0x3C; len];
        let out = self.world.receive_peer(relay, from, &data);
        let owner =
            self.reference.allocations.iter_mut().find(|(_, allocation)| allocation.relayed_to(from) == Some(at));
        let Some((client, allocation)) = owner.filter(|(_, allocation)| allocation.permits(from) && !refused(from))
        else {
            assert_eq!(out, None);
            self.dropped += 1;
            return;
        };
        let (to, bytes) = out.expect("something for the client");
        assert_eq!(to, self.clients[*client].client);
        if let Some(number) = allocation.channel_of(from) {
            let stream = CLIENTS[*client].1;
            assert_eq!(bytes.len(), if stream { (4 + len).next_multiple_of(4) } else { 4 + len });
            assert_eq!(bytes[..4], [number.to_be_bytes(), u16::try_from(len).unwrap().to_be_bytes()].concat());
            assert_eq!(bytes[4..4 + len], data);
        } else {
            let indication = Response::new(bytes);
            assert_eq!(indication.addresses(A::XOR_PEER_ADDRESS), [from]);
            assert_eq!(indication.get(A::DATA), Some(&data[..]));
        }
        count(&mut allocation.to_client, len);
        count(&mut self.totals.to_clients, len);
    }

    fn receive_icmp(&mut self, relay: RelayId, index: usize, kind: u8) {
        let (about, at) = (peer(index), self.world.relays[&relay].address);
        if about.is_ipv4() != at.is_ipv4() {
            return;
        }
        let out = self.world.receive_icmp(relay, about, IcmpError { kind, code: 1, mtu: 1280 });
        let forwarded = if about.is_ipv4() { matches!(kind, 3 | 11) } else { matches!(kind, 1..=3) };
        let owner = self.reference.allocations.iter().find(|(_, allocation)| allocation.relayed_to(about) == Some(at));
        let client = owner.filter(|(_, allocation)| forwarded && allocation.permits(about)).map(|(client, _)| *client);
        assert_eq!(out.as_ref().map(|(to, _)| *to), client.map(|client| self.clients[client].client));
        self.dropped += u64::from(client.is_none());
    }

    /// Each reported end is one that the reference knows of, with the reference's counts.
    fn check_ends(&mut self) {
        let now = self.world.now;
        let ended = &mut self.reference.ended;
        for summary in self.world.ended.drain(..) {
            let same = |ended: &Ended| self.clients[ended.client].client.tuple == summary.client;
            let Ended { allocation, reason, .. } = ended.remove(ended.iter().position(same).expect("an end"));
            let traffic = (summary.to_peers, summary.to_client);
            assert_eq!(
                (&*summary.subject.user, traffic),
                (allocation.user, (allocation.to_peers, allocation.to_client))
            );
            assert_eq!(summary.duration, now.since(Time(allocation.created)));
            let closed_when_already_expired =
                (reason, summary.reason) == (EndReason::Expired, EndReason::ConnectionClosed);
            assert!(reason == summary.reason || closed_when_already_expired);
        }
        self.reference.closing.retain(|(_, address)| self.world.relay_at(*address).is_some());
    }

    /// What must hold at all times.
    fn check(&mut self) {
        self.check_ends();
        let (world, reference) = (&self.world, &self.reference);
        assert!(reference.ended.iter().all(|ended| ended.reason == EndReason::Expired), "an end was not reported");
        let live: BTreeSet<SocketAddr> = reference
            .allocations
            .values()
            .flat_map(|allocation| &allocation.relayed)
            .map(|(relayed, _)| *relayed)
            .collect();
        let closing = reference.closing.iter().map(|(_, address)| *address);
        let open: BTreeSet<SocketAddr> = world.relays.values().map(|relay| relay.address).collect();
        assert_eq!(open, live.into_iter().chain(closing).collect());

        assert_eq!(world.server.allocations(), reference.allocations.len() + reference.ended.len());
        for (at, client) in self.clients.iter().enumerate() {
            let known =
                reference.allocations.contains_key(&at) || reference.ended.iter().any(|ended| ended.client == at);
            assert_eq!(world.server.has_allocation(&client.client), known);
        }
        for user in ["alice", "bob"] {
            let ended = reference.ended.iter().map(|ended| &ended.allocation);
            let used = reference.allocations.values().chain(ended).filter(|allocation| allocation.user == user).count();
            assert_eq!(world.used.get(user).copied().unwrap_or_default(), used);
        }
        if let Some(deadline) = reference.next_deadline() {
            assert!(world.server.next_deadline().is_some_and(|next| next.0 <= deadline), "a deadline would be missed");
        }
        self.check_totals();
    }

    fn check_totals(&self) {
        let (have, want) = (self.world.server.totals(), &self.totals);
        let counted = (have.successes(), have.errors(), have.allocations());
        assert_eq!(counted, (want.successes, want.errors, want.allocations));
        assert_eq!(self.world.server.census().sum(), self.world.server.allocations() as u64);
        assert_eq!((have.to_peers, have.to_clients), (want.to_peers, want.to_clients));
        assert_eq!(Drop::ALL.iter().map(|reason| have.dropped(*reason)).sum::<u64>(), self.dropped);
    }

    /// Everything ends; nothing is left.
    pub(super) fn finish(mut self) {
        self.world.server.end_all(EndReason::Stopped, self.world.now);
        self.world.settle();
        assert_eq!(self.world.server.allocations(), 0);
        assert!(self.world.relays.is_empty() && self.world.used.values().all(|used| *used == 0));
        self.world.expire();
        assert!(self.world.server.next_deadline().is_none_or(|deadline| deadline > self.world.now));
    }
}
