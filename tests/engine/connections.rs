//! TCP allocations (RFC 6062): Connect, connections of peers, ConnectionBind, and what becomes of them.

use std::{collections::BTreeSet, time::Duration};

use proptest::{prelude::*, sample::Index};
use turnserver::{
    stun::{AttributeType as A, Class, Method},
    turn::{Client, ConnectRequest, ConnectionId, Drop, RelayId, Rules, Time, Traffic},
};

use crate::support::{Credentials, Out, Request, Response, TestClient, World, rules, socket, tcp, udp};

const PEER: &str = "198.51.100.1:1";
const OTHER: &str = "198.51.100.2:2";

fn allocate() -> Request {
    Request::allocate().with(A::REQUESTED_TRANSPORT, [6, 0, 0, 0])
}

fn connect(peer: &str) -> Request {
    Request::new(Method::Connect).peer(socket(peer))
}

fn bind(id: ConnectionId) -> Request {
    Request::new(Method::ConnectionBind).raw(A::CONNECTION_ID, id.0.to_be_bytes())
}

/// A client with a TCP allocation and the relay behind it.
fn allocated(world: &mut World) -> (TestClient, RelayId) {
    let client = TestClient::new(world, tcp("192.0.2.1:1000"));
    let response = client.request(world, allocate());
    assert_eq!((response.code(), response.has(A::RESERVATION_TOKEN)), (0, false));
    let relay = world.relay_at(response.relayed()[0]).unwrap();
    (client, relay)
}

/// Sends a Connect that is not refused.
fn ask(world: &mut World, client: &TestClient, peer: &str) -> ConnectRequest {
    match client.say(world, &client.sign(connect(peer))) {
        Out::Connect(request) => request,
        other => panic!("nothing to connect: {other:?}"),
    }
}

/// A connection that waits for its ConnectionBind.
fn connected(world: &mut World, client: &TestClient, peer: &str) -> ConnectionId {
    let id = ask(world, client, peer).id;
    let (to, response) = world.connected(id).unwrap();
    assert_eq!((to, response.code()), (client.client, 0));
    assert_eq!(response.get(A::CONNECTION_ID), Some(&id.0.to_be_bytes()[..]));
    id
}

/// 6062-5.1-04 to -07, and nothing of UDP besides
#[test]
fn what_does_not_go_with_tcp() {
    let mut world = World::new();
    let over_udp = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(over_udp.code(&mut world, allocate()), 400);
    let client = TestClient::new(&mut world, tcp("192.0.2.1:1000"));
    for request in [
        allocate().raw(A::DONT_FRAGMENT, []),
        allocate().raw(A::EVEN_PORT, [0]),
        allocate().raw(A::RESERVATION_TOKEN, [1; 8]),
        allocate().additional(2),
    ] {
        assert_eq!(client.code(&mut world, request), 400);
    }
    assert_eq!(client.code(&mut world, allocate().family(2)), 0);
    assert_eq!(client.code(&mut world, connect(PEER)), 443);
    assert_eq!(client.code(&mut world, Request::permission(&["[2001:db8:1::1]:1"])), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, "[2001:db8:1::1]:1")), 400);
    assert_eq!(client.say(&mut world, &Request::send("[2001:db8:1::1]:1", b"x")), Out::Nothing);
}

/// 6062-5.1-03; without RFC 6062 its protocol and its methods are unknown
#[test]
fn either_protocol_can_be_switched_off() {
    let mut world = World::with(Rules { udp_relaying: false, ..rules() });
    let client = TestClient::new(&mut world, tcp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::allocate()), 403);
    assert_eq!(client.code(&mut world, allocate()), 0);
    let mut world = World::with(Rules { tcp_relaying: false, ..rules() });
    let client = TestClient::allocated(&mut world, tcp("192.0.2.1:1000"));
    assert_eq!(client.say(&mut world, &client.sign(connect(PEER))), Out::Nothing);
    let another = TestClient::new(&mut world, tcp("192.0.2.1:1001"));
    assert_eq!(another.code(&mut world, allocate()), 442);
}

/// 6062-5.2-01 to -05, -07
#[test]
fn the_errors_of_connect() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, tcp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, connect(PEER)), 437);
    let of_udp = TestClient::allocated(&mut world, tcp("192.0.2.1:2000"));
    assert_eq!(of_udp.code(&mut world, connect(PEER)), 437);
    let (client, relay) = allocated(&mut world);
    assert_eq!(client.code(&mut world, Request::new(Method::Connect)), 400);
    assert_eq!(client.code(&mut world, Request::new(Method::Connect).raw(A::XOR_PEER_ADDRESS, [0, 1, 0])), 400);
    for refused in ["10.0.0.1:1", "198.51.100.1:25", "198.51.100.1:26", "198.51.100.1:0"] {
        assert_eq!(client.code(&mut world, connect(refused)), 403);
    }
    let request = ask(&mut world, &client, PEER);
    assert_eq!((request.relay, request.peer), (relay, socket(PEER)));
    assert_eq!(client.code(&mut world, connect(PEER)), 446);
    let (to, response) = world.connect_failed(request.id).unwrap();
    assert_eq!((to, response.code()), (client.client, 447));
    // What has failed is no more, and may be tried again.
    assert!(world.connected(request.id).is_none());
    let id = connected(&mut world, &client, PEER);
    assert_eq!(client.code(&mut world, connect(PEER)), 446);
    let data = TestClient::new(&mut world, tcp("192.0.2.1:3000"));
    assert_eq!(data.code(&mut world, bind(id)), 0);
    assert_eq!(client.code(&mut world, connect(PEER)), 446);
    world.server.peer_closed(id);
    world.peers.remove(&id);
    connected(&mut world, &client, PEER);
}

/// The response to a Connect is signed with the key that its request was signed with.
#[test]
fn late_responses_are_signed() {
    let mut world = World::new();
    for (port, credentials) in [(1, Credentials::old("alice", "wonderland")), (2, Credentials::new("bob", "builder"))] {
        let client = TestClient::with(&mut world, tcp(&format!("192.0.2.1:{port}")), credentials);
        assert_eq!(client.code(&mut world, allocate()), 0);
        let (good, bad) = (ask(&mut world, &client, PEER).id, ask(&mut world, &client, OTHER).id);
        let (algorithm, key) = (client.credentials.reply_mac(), client.credentials.long_term_key());
        assert!(world.connect_failed(bad).unwrap().1.is_signed(algorithm, &key));
        assert!(world.connected(good).unwrap().1.is_signed(algorithm, &key));
    }
}

/// 6062-5.3-03, -04
#[test]
fn peers_are_announced_if_they_have_a_permission() {
    let mut world = World::new();
    let (client, relay) = allocated(&mut world);
    assert!(world.peer_connects(relay, socket(PEER)).is_none());
    assert_eq!(world.server.totals().dropped(Drop::NoPermission), 1);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert!(world.peer_connects(relay, socket("198.51.100.1:25")).is_none());
    assert_eq!(world.server.totals().dropped(Drop::PeerRefused), 1);
    let (to, indication) = world.peer_connects(relay, socket(PEER)).unwrap();
    assert_eq!(to, client.client);
    let message = indication.message();
    assert_eq!((message.method(), message.class()), (Method::ConnectionAttempt.code(), Class::Indication));
    assert_eq!(indication.addresses(A::XOR_PEER_ADDRESS), [socket(PEER)]);
    let id = message.get_u32(A::CONNECTION_ID).unwrap().unwrap();
    assert!(world.peers.contains_key(&ConnectionId(id)));
    // A connection with the same ends replaces it.
    let (_, again) = world.peer_connects(relay, socket(PEER)).unwrap();
    assert_ne!(again.message().get_u32(A::CONNECTION_ID).unwrap().unwrap(), id);
    assert_eq!(world.peers.len(), 1);
    // A permission ends for connections as it does for datagrams.
    world.now = world.now + Duration::from_secs(300);
    assert!(world.peer_connects(relay, socket(OTHER)).is_none());
}

/// Both sides connect at the same time: one connection comes of it, the one that the client has asked for.
#[test]
fn a_peer_that_comes_while_it_is_connected_to() {
    let mut world = World::new();
    let (client, relay) = allocated(&mut world);
    let asked = ask(&mut world, &client, PEER).id;
    // It takes no permission, as a Connect does not.
    let (to, response) = world.peer_connects(relay, socket(PEER)).unwrap();
    assert_eq!((to, response.code()), (client.client, 0));
    assert_eq!(response.get(A::CONNECTION_ID), Some(&asked.0.to_be_bytes()[..]));
    assert!(world.connect_failed(asked).is_none());
    assert_eq!(world.peers.len(), 1);
    let data = TestClient::new(&mut world, tcp("192.0.2.1:3000"));
    assert_eq!(data.code(&mut world, bind(asked)), 0);
}

/// 6062-5.4-01 to -03, -06
#[test]
fn the_errors_of_connection_bind() {
    let mut world = World::new();
    let (client, _) = allocated(&mut world);
    let id = connected(&mut world, &client, PEER);
    let over_udp = TestClient::new(&mut world, udp("192.0.2.1:3000"));
    assert_eq!(over_udp.code(&mut world, bind(id)), 400);
    assert_eq!(client.code(&mut world, bind(id)), 400);
    let data = TestClient::new(&mut world, tcp("192.0.2.1:3000"));
    assert_eq!(data.code(&mut world, Request::new(Method::ConnectionBind)), 400);
    assert_eq!(data.code(&mut world, Request::new(Method::ConnectionBind).raw(A::CONNECTION_ID, [0; 3])), 400);
    assert_eq!(data.code(&mut world, bind(ConnectionId(!id.0))), 400);
    assert_eq!(world.ask(&data.client, &bind(id).build()).code(), 401);
    let bob = TestClient::with(&mut world, tcp("192.0.2.1:4000"), Credentials::old("bob", "builder"));
    assert_eq!(bob.code(&mut world, bind(id)), 441);
    assert_eq!(data.code(&mut world, bind(id)), 0);
    assert_eq!(data.code(&mut world, bind(id)), 400);
}

/// 6062-5.2-12, 6062-5.3-05
#[test]
fn unbound_connections_are_closed_after_half_a_minute_exactly() {
    let mut world = World::new();
    let (client, relay) = allocated(&mut world);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    let asked = ask(&mut world, &client, OTHER).id;
    let first = connected(&mut world, &client, "198.51.100.3:3");
    let begun = world.now;
    assert_eq!(world.server.next_deadline(), Some(begun + Duration::from_secs(30)));
    world.now = begun + Duration::from_secs(10);
    world.peer_connects(relay, socket(PEER)).unwrap();
    let kept: Vec<_> = world.peers.keys().copied().collect();
    world.now = Time((begun + Duration::from_secs(30)).0 - 1);
    world.expire();
    assert_eq!(world.peers.keys().copied().collect::<Vec<_>>(), kept);
    world.now = begun + Duration::from_secs(30);
    // What is due is gone even if nobody has looked yet.
    connected(&mut world, &client, "198.51.100.3:3");
    assert!(!world.peers.contains_key(&first));
    world.now = begun + Duration::from_secs(40);
    world.expire();
    assert_eq!(world.peers.len(), 2);
    // A Connect that is on its way waits for the input/output alone, and for 30 seconds more from its success on.
    assert!(world.connected(asked).is_some());
    world.now = begun + Duration::from_secs(69);
    world.expire();
    assert_eq!(world.peers.keys().copied().collect::<Vec<_>>(), [asked]);
}

/// 6062-5.2-11
#[test]
fn ids_are_of_this_worker_and_unlike_each_other() {
    let mut world = World::with(Rules { max_connections: 2_000, ..rules() });
    let (client, _) = allocated(&mut world);
    let ids: BTreeSet<u32> =
        (1..1_000).map(|port| ask(&mut world, &client, &format!("198.51.100.1:{}", port + 100)).id.0).collect();
    assert_eq!(ids.len(), 999);
    // As the rules of these tests have it.
    assert!(ids.iter().all(|id| id % 4 == 1));
}

#[derive(Debug, Clone)]
enum Operation {
    Connect { client: usize, peer: usize },
    Succeed(Index),
    Fail(Index),
    Arrive { client: usize, peer: usize },
    Bind { client: usize, which: Index },
    Relay(Index, u16, u16),
    Close(Index),
    Pass(u64),
    Delete { client: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let pair = || (0..2usize, 0..5usize);
    prop_oneof![
        5 => pair().prop_map(|(client, peer)| Operation::Connect { client, peer }),
        4 => any::<Index>().prop_map(Operation::Succeed),
        2 => any::<Index>().prop_map(Operation::Fail),
        5 => pair().prop_map(|(client, peer)| Operation::Arrive { client, peer }),
        5 => (0..2usize, any::<Index>()).prop_map(|(client, which)| Operation::Bind { client, which }),
        3 => any::<(Index, u16, u16)>().prop_map(|(which, up, down)| Operation::Relay(which, up, down)),
        2 => any::<Index>().prop_map(Operation::Close),
        3 => (1..20_000u64).prop_map(Operation::Pass),
        1 => (0..2usize).prop_map(|client| Operation::Delete { client }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Pending(Time),
    Bound,
}

/// What the model knows of a connection.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: ConnectionId,
    client: usize,
    peer: usize,
    state: State,
}

const USERS: [(&str, &str); 2] = [("alice", "wonderland"), ("bob", "builder")];

struct Model {
    world: World,
    clients: Vec<TestClient>,
    relays: Vec<RelayId>,
    known: Vec<Known>,
    /// Bytes relayed for each client since it allocated, to peers and to the client.
    relayed: [[u64; 2]; 2],
    total: [u64; 2],
}

fn peer(index: usize) -> String {
    format!("198.51.100.{index}:7")
}

impl Model {
    fn new() -> Self {
        let mut world = World::new();
        let clients: Vec<TestClient> = USERS
            .iter()
            .zip(0..)
            .map(|((user, password), port)| {
                let address = format!("192.0.2.1:{}", 1000 + port);
                TestClient::with(&mut world, tcp(&address), Credentials::old(user, password))
            })
            .collect();
        let (known, relays) = (Vec::new(), vec![RelayId(0); 2]);
        let mut new = Self { world, clients, relays, known, relayed: [[0; 2]; 2], total: [0; 2] };
        (0..2).for_each(|client| new.allocate(client));
        new
    }

    fn allocate(&mut self, client: usize) {
        let response = self.clients[client].request(&mut self.world, allocate());
        self.relays[client] = self.world.relay_at(response.relayed()[0]).unwrap();
        self.relayed[client] = [0; 2];
    }

    fn of(&self, client: usize, peer: usize) -> Option<Known> {
        self.known.iter().find(|known| (known.client, known.peer) == (client, peer)).copied()
    }

    fn room(&self, client: usize) -> bool {
        self.known.iter().filter(|known| known.client == client).count() < rules().max_connections
    }

    fn pick(&self, which: &Index, wanted: impl Fn(&Known) -> bool) -> Option<Known> {
        let found: Vec<Known> = self.known.iter().filter(|known| wanted(known)).copied().collect();
        (!found.is_empty()).then(|| *which.get(&found))
    }

    fn set(&mut self, id: ConnectionId, state: Option<State>) {
        match state {
            Some(state) => self.known.iter_mut().find(|known| known.id == id).unwrap().state = state,
            None => self.known.retain(|known| known.id != id),
        }
    }

    fn step(&mut self, operation: &Operation) {
        let expires = self.world.now + rules().bind_timeout;
        match operation {
            Operation::Connect { client, peer: index } => {
                let signed = self.clients[*client].sign(connect(&peer(*index)));
                let out = self.clients[*client].say(&mut self.world, &signed);
                let code = match (self.of(*client, *index), self.room(*client)) {
                    (Some(_), _) => 446,
                    (None, false) => 508,
                    (None, true) => 0,
                };
                match out {
                    Out::Connect(ConnectRequest { id, relay, .. }) => {
                        assert_eq!((code, relay), (0, self.relays[*client]));
                        let state = State::Connecting;
                        self.known.push(Known { id, client: *client, peer: *index, state });
                    }
                    Out::Reply(response) => assert_eq!(response.code(), code),
                    other => panic!("{other:?}"),
                }
            }
            Operation::Succeed(which) => {
                let Some(known) = self.pick(which, |known| known.state == State::Connecting) else { return };
                let (to, response) = self.world.connected(known.id).unwrap();
                self.answers(known, to, &response, 0);
                self.set(known.id, Some(State::Pending(expires)));
            }
            Operation::Fail(which) => {
                let Some(known) = self.pick(which, |known| known.state == State::Connecting) else { return };
                let (to, response) = self.world.connect_failed(known.id).unwrap();
                self.answers(known, to, &response, 447);
                self.set(known.id, None);
            }
            Operation::Arrive { client, peer: index } => {
                let permit = Request::permission(&[&peer(*index)]);
                assert_eq!(self.clients[*client].code(&mut self.world, permit), 0);
                let older = self.of(*client, *index);
                let taken = older.is_some() || self.room(*client);
                let arrived = self.world.peer_connects(self.relays[*client], socket(&peer(*index)));
                assert_eq!(arrived.is_some(), taken);
                let Some((to, indication)) = arrived else { return };
                assert_eq!(to, self.clients[*client].client);
                match older {
                    Some(asked) if asked.state == State::Connecting => {
                        self.answers(asked, to, &indication, 0);
                        self.set(asked.id, Some(State::Pending(expires)));
                        return;
                    }
                    Some(older) => self.set(older.id, None),
                    None => {}
                }
                let id = ConnectionId(indication.message().get_u32(A::CONNECTION_ID).unwrap().unwrap());
                self.known.push(Known { id, client: *client, peer: *index, state: State::Pending(expires) });
            }
            Operation::Bind { client, which } => {
                let Some(known) = self.pick(which, |_| true) else { return };
                let (user, password) = USERS[*client];
                let data = tcp(&format!("192.0.2.7:{}", 1000 + client));
                let data = TestClient::with(&mut self.world, data, Credentials::old(user, password));
                let code = match known.state {
                    State::Pending(_) if known.client == *client => 0,
                    State::Pending(_) => 441,
                    _ => 400,
                };
                assert_eq!(data.code(&mut self.world, bind(known.id)), code);
                if code == 0 {
                    self.set(known.id, Some(State::Bound));
                }
            }
            Operation::Relay(which, up, down) => {
                // Before the bind the world keeps the counter for whoever binds it.
                let Some(known) = self.pick(which, |known| matches!(known.state, State::Pending(_))) else { return };
                let flow = self.world.flow(known.id);
                flow.count_to_peer(usize::from(*up));
                flow.count_to_client(usize::from(*down));
                for (at, bytes) in [up, down].into_iter().enumerate() {
                    self.relayed[known.client][at] += u64::from(*bytes);
                }
            }
            Operation::Close(which) => {
                let Some(known) = self.pick(which, |known| known.state == State::Bound) else { return };
                self.world.server.peer_closed(known.id);
                self.world.peers.remove(&known.id);
                self.set(known.id, None);
            }
            Operation::Pass(milliseconds) => {
                self.world.now = self.world.now + Duration::from_millis(*milliseconds);
                self.world.expire();
                let now = self.world.now;
                self.known.retain(|known| !matches!(known.state, State::Pending(expires) if expires <= now));
                for client in 0..2 {
                    assert_eq!(self.clients[client].code(&mut self.world, Request::new(Method::Refresh)), 0);
                }
            }
            Operation::Delete { client } => {
                assert_eq!(self.clients[*client].code(&mut self.world, Request::refresh(0)), 0);
                self.known.retain(|known| known.client != *client);
                let summary = self.world.ended.pop().unwrap();
                let [up, down] = self.relayed[*client].map(|bytes| Traffic { packets: 0, bytes });
                assert_eq!((summary.to_peers, summary.to_client), (up, down));
                self.allocate(*client);
                for (at, bytes) in [up.bytes, down.bytes].into_iter().enumerate() {
                    self.total[at] += bytes;
                }
            }
        }
    }

    fn answers(&self, known: Known, to: Client, response: &Response, code: u16) {
        assert_eq!((to, response.code()), (self.clients[known.client].client, code));
        assert_eq!(response.has(A::CONNECTION_ID), code == 0);
    }

    fn check(&self) {
        let known: BTreeSet<ConnectionId> = self.known.iter().map(|known| known.id).collect();
        assert_eq!(self.world.peers.keys().copied().collect::<BTreeSet<_>>(), known);
        let earliest = self.known.iter().filter_map(|known| match known.state {
            State::Pending(expires) => Some(expires),
            State::Connecting | State::Bound => None,
        });
        if let Some(earliest) = earliest.min() {
            assert!(
                self.world.server.next_deadline().is_some_and(|next| next <= earliest),
                "a deadline would be missed"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of events leaves exactly the connections that should be there, and their bytes counted once.
    #[test]
    fn connections_agree_with_a_model(operations in prop::collection::vec(operation(), 1..120)) {
        let mut model = Model::new();
        for operation in &operations {
            model.step(operation);
            model.check();
        }
        (0..2).for_each(|client| model.step(&Operation::Delete { client }));
        prop_assert!(model.known.is_empty());
        model.check();
        let totals = model.world.server.totals();
        prop_assert_eq!([totals.to_peers.bytes, totals.to_clients.bytes], model.total);
    }
}
