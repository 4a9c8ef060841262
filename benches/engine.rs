//! The engine without sockets: what one relayed datagram costs, one request, one look-up, one deadline, in time and heap
//! allocations, with few allocations of clients and with many.
//!
//! The cost must not depend on how many clients' allocations there are: compare `10` with `10000` or `50000` of each group.

use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use criterion::{Criterion, criterion_group};
use support::{bench, bench_prepared};
use turnserver::{
    auth::subject::Subject,
    config::settings::{HolderLimits, Limits, RealmLimits},
    policy::{
        account::Direction,
        limiter::{Allowance, Limiter},
    },
    stun::{AttributeType, ChannelData, ChannelNumber, Class, MessageWriter, Method, TransactionId},
    turn::{
        Answer, Client, ConnectionIds, Drop, Family, FiveTuple, Grant, HEADROOM, Handle, Meter, Policy, REPLY_LEN,
        Realm, RealmId, RelayId, Route, Rules, Server, Step, Time, Transport, Unauthenticated,
    },
};

mod support;

struct Anything;

impl Policy for Anything {
    fn permits(&self, _: RealmId, _: SocketAddr) -> bool {
        true
    }

    fn permits_connection(&self, _: RealmId, _: SocketAddr) -> bool {
        true
    }

    fn permits_ip(&self, _: RealmId, _: IpAddr) -> bool {
        true
    }

    fn admits(&mut self, _: Unauthenticated, _: IpAddr, _: Time) -> bool {
        true
    }
}

const NOW: Time = Time(1_000_000);
const CHANNEL: ChannelNumber = ChannelNumber(0x4000);

fn rules() -> Rules {
    Rules {
        realms: vec![Realm {
            name: "example.org".into(),
            password_algorithms: Vec::new(),
            user_hashes: true,
            third_party: None,
        }],
        anonymous: true,
        nonce_lifetime: Duration::from_secs(3600),
        default_lifetime: Duration::from_secs(600),
        max_lifetime: Duration::from_secs(3600),
        permission_lifetime: Duration::from_secs(300),
        channel_lifetime: Duration::from_secs(600),
        max_permissions: 100,
        max_channels: 100,
        default_family: Some(Family::V4),
        udp_relaying: true,
        tcp_relaying: false,
        max_connections: 100,
        bind_timeout: Duration::from_secs(30),
        connection_ids: ConnectionIds { worker: 0, workers: 1 },
        families: vec![Family::V4],
        software: None,
        always_fingerprint: false,
        dont_fragment: true,
        rfc3489: false,
        wide_channels: false,
        redirect: None,
        discovery: Vec::new(),
        mobility: None,
    }
}

fn address(base: [u8; 2], number: u32, port: u16) -> SocketAddr {
    let [_, _, high, low] = number.to_be_bytes();
    SocketAddr::from(([base[0], base[1], high, low], port))
}

fn peer(number: u32) -> SocketAddr {
    address([198, 18], number, 4000)
}

fn client(number: u32) -> Client {
    let server = SocketAddr::from(([203, 0, 113, 1], 3478));
    let tuple = FiveTuple { client: address([10, 1], number, 5000), server, transport: Transport::Udp };
    Client { tuple, route: Route(0), realm: RealmId::DEFAULT }
}

fn request(method: Method, class: Class, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId([1; 12]));
    attributes(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

fn channel_bind(number: u32) -> Vec<u8> {
    request(Method::ChannelBind, Class::Request, |writer| {
        writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(number));
    })
}

fn allocate_request() -> Vec<u8> {
    request(Method::Allocate, Class::Request, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    })
}

/// A server with clients.
struct Engine {
    server: Server,
    reply: [u8; REPLY_LEN],
    now: Time,
}

impl Engine {
    fn new(rules: Rules) -> Self {
        let server = Server::new(rules, Box::new(Anything), &[1; 32], [2; 32], 1);
        Self { server, reply: [0; REPLY_LEN], now: NOW }
    }

    fn take<'m>(&mut self, client: &Client, message: &'m [u8]) -> Step<'m> {
        self.server.from_client(client, message, Answer::Unasked, &mut self.reply, self.now)
    }

    fn allocate(&mut self, number: u32) -> Handle {
        self.allocate_by(number, &allocate_request())
    }

    fn allocate_by(&mut self, number: u32, message: &[u8]) -> Handle {
        let step = self.take(&client(number), message);
        let Step::Allocate(pending) = step else { panic!("{step:?}") };
        let relay = (RelayId(number), address([203, 0], number, 50_000));
        let grant = Grant { relays: [Some(relay), None], ..Grant::default() };
        let (_, made) = self.server.complete_allocate(*pending, Ok(grant), &mut self.reply, self.now);
        made.unwrap().0
    }

    /// A request that is answered.
    fn ask(&mut self, number: u32, message: &[u8]) {
        let step = self.take(&client(number), message);
        assert!(matches!(step, Step::Reply(_)));
    }

    /// Ends what is due next, at its time.
    fn expire_next(&mut self) {
        self.now = self.server.next_deadline().unwrap();
        self.server.expire(self.now);
    }
}

/// An engine with so many allocations, each with one channel and one permission, made so many milliseconds apart.
fn engine(allocations: u32, apart: u64) -> (Engine, Vec<Handle>) {
    let mut engine = Engine::new(rules());
    let mut make = |number| {
        let handle = engine.allocate(number);
        engine.ask(number, &channel_bind(number));
        engine.now.0 += apart;
        handle
    };
    let handles = (0..allocations).map(&mut make).collect();
    (engine, handles)
}

/// Walks over all allocations in an order that defeats prefetching.
fn next(number: &mut u32, allocations: u32) -> u32 {
    *number = (*number + 7919) % allocations;
    *number
}

fn hot_path(criterion: &mut Criterion) {
    let data = [7u8; 160];
    let channel_data = [&ChannelData { number: CHANNEL, len: 160 }.header(), &data[..]].concat();
    for allocations in [10u32, 10_000] {
        let (mut engine, handles) = engine(allocations, 0);
        let mut at = 0;
        bench(criterion, &format!("look-up of a 5-tuple/{allocations}"), || {
            let found = engine.server.has_allocation(&client(next(&mut at, allocations)));
            assert!(found);
        });
        bench(criterion, &format!("look-up of an unknown 5-tuple/{allocations}"), || {
            let found = engine.server.has_allocation(&client(allocations + next(&mut at, allocations)));
            assert!(!found);
        });
        bench(criterion, &format!("channel-data-up/{allocations}"), || {
            let client = client(next(&mut at, allocations));
            let step = engine.take(&client, black_box(&channel_data));
            assert!(matches!(step, Step::ToPeer(_)));
        });
        let indications: Vec<Vec<u8>> = (0..allocations)
            .map(|number| {
                request(Method::Send, Class::Indication, |writer| {
                    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(number));
                    writer.attribute(AttributeType::DATA, &data);
                })
            })
            .collect();
        bench(criterion, &format!("send-indication-up/{allocations}"), || {
            let number = next(&mut at, allocations);
            let step = engine.take(&client(number), black_box(&indications[number as usize]));
            assert!(matches!(step, Step::ToPeer(_)));
        });
        let mut headroom = [0; HEADROOM];
        for (name, port_offset) in [("channel-data-down", 0), ("data-indication-down", 1)] {
            bench(criterion, &format!("{name}/{allocations}"), || {
                let number = next(&mut at, allocations);
                let mut from = peer(number);
                from.set_port(from.port() + port_offset);
                let sent = engine.server.from_peer(handles[number as usize], from, 160, black_box(&mut headroom), NOW);
                assert!(sent.is_some());
            });
        }
    }
}

/// Holds an allocation to limits, as the relay does.
struct Limited(Arc<Allowance>);

impl Meter for Limited {
    fn to_peer(&mut self, bytes: usize, now: Time) -> Result<(), Drop> {
        self.0.pass(0, Direction::ToPeer, bytes, now.0).map_err(|_| Drop::Bandwidth)
    }

    fn to_client(&mut self, bytes: usize, now: Time) -> Result<(), Drop> {
        self.0.pass(0, Direction::ToClient, bytes, now.0).map_err(|_| Drop::Bandwidth)
    }

    fn wait(&mut self, bytes: usize, now: Time) -> Option<Time> {
        self.0.wait_ms(0, Direction::ToPeer, bytes, now.0).map(Time)
    }

    fn add_peers(&mut self, _: usize, _: Time) -> Result<(), &'static str> {
        Ok(())
    }
}

/// The same data, held to limits that are not reached: of bandwidth per user and in total, or of everything at every level.
/// Without limits it is `channel-data-up` and `channel-data-down`.
fn limited(criterion: &mut Criterion) {
    const WIDE: HolderLimits = HolderLimits {
        allocations: None,
        unused: None,
        bits_per_second: Some(90_000_000_000),
        packets_per_second: None,
        new_peers_per_second: None,
        bytes_per_month: None,
    };
    const EVERYTHING: HolderLimits =
        HolderLimits { packets_per_second: Some(900_000_000), bytes_per_month: Some(1 << 60), ..WIDE };
    let none = RealmLimits::default();
    let few = RealmLimits { user: WIDE, ..none };
    let all = RealmLimits { realm: EVERYTHING, tenant: EVERYTHING, user: EVERYTHING, allocation: EVERYTHING };
    let channel_data = [&ChannelData { number: CHANNEL, len: 160 }.header(), &[7u8; 160][..]].concat();
    for (name, realm, total) in [("bandwidth of user and total", few, WIDE), ("all limits", all, EVERYTHING)] {
        let limits = Limits {
            total,
            realm,
            burst: Duration::from_millis(200),
            allocation_rate: None,
            state_directory: None,
            permissions_per_allocation: 100,
            channels_per_allocation: 100,
            connections_per_allocation: 100,
            unauthorized_rate: None,
            binding_rate: None,
            ipv4_prefix: 32,
            ipv6_prefix: 56,
        };
        for allocations in [10u32, 10_000] {
            let limiter = Arc::new(Limiter::new(&limits, [], 1));
            let (mut engine, handles) = engine(allocations, 0);
            for (user, handle) in handles.iter().enumerate() {
                let (user, tenant) = (user.to_string().into(), Some(Arc::from("tenant")));
                let subject = Subject { user, realm: "example.org".into(), tenant };
                let allowance = limiter.allowance(&subject, false, NOW.0).unwrap().unwrap();
                engine.server.set_meter(*handle, Some(Box::new(Limited(allowance))));
            }
            let (mut at, mut turn, mut headroom) = (0, 0u32, [0; HEADROOM]);
            // A million datagrams per second, in a worker's steps of time.
            let mut advance = |now: &mut Time| {
                turn += 1;
                now.0 += u64::from(turn.is_multiple_of(1000));
            };
            bench(criterion, &format!("channel-data-up, {name}/{allocations}"), || {
                advance(&mut engine.now);
                let client = client(next(&mut at, allocations));
                let step = engine.take(&client, black_box(&channel_data));
                assert!(matches!(step, Step::ToPeer(_)));
            });
            bench(criterion, &format!("channel-data-down, {name}/{allocations}"), || {
                advance(&mut engine.now);
                let number = next(&mut at, allocations);
                let handle = handles[number as usize];
                let now = engine.now;
                let sent = engine.server.from_peer(handle, peer(number), 160, black_box(&mut headroom), now);
                assert!(sent.is_some());
            });
        }
    }
}

/// What a client that has proved nothing can make the server do.
fn unauthenticated(criterion: &mut Criterion) {
    let mut engine = Engine::new(Rules { anonymous: false, ..rules() });
    let client = client(1);
    let binding = request(Method::Binding, Class::Request, |_| {});
    let allocate = allocate_request();
    for (name, message) in [("binding", &binding), ("challenge-401", &allocate)] {
        bench(criterion, name, || {
            let answer = Answer::Known { credentials: &[], more: false };
            let step = engine.server.from_client(&client, black_box(message), answer, &mut engine.reply, NOW);
            assert!(matches!(step, Step::Reply(_)));
        });
    }
}

/// A client's whole life, in protocol: what is made for it is all that is allocated.
fn life(criterion: &mut Criterion) {
    let (mut engine, _) = engine(10_000, 0);
    let (bind, end) = (
        channel_bind(10_000),
        request(Method::Refresh, Class::Request, |writer| {
            writer.u32(AttributeType::LIFETIME, 0);
        }),
    );
    let allocate = allocate_request();
    bench(criterion, "allocate, bind a channel, delete", || {
        engine.allocate_by(10_000, &allocate);
        engine.ask(10_000, &bind);
        engine.ask(10_000, &end);
        assert_eq!(engine.server.drain_effects().count(), 2);
    });
}

/// Milliseconds for which a permission, and an allocation, last that are not refreshed.
const PERMISSION: u64 = 300_000;
const ALLOCATION: u64 = 600_000;

/// The time between the making of so many, all of which are gone over within less than `lifetime`.
fn apart(count: u32, lifetime: u64) -> u64 {
    (lifetime - 10_000) / u64::from(count)
}

/// Clients that are served in turn, each a little later than the one before, while their deadlines come up in the same turn.
struct Turns {
    engine: Engine,
    next: u32,
    /// When the next one is served.
    clock: Time,
    apart: u64,
}

impl Turns {
    fn serve(&mut self, act: impl FnOnce(&mut Engine, u32)) {
        self.engine.now = self.clock;
        act(&mut self.engine, self.next);
        self.clock.0 += self.apart;
        self.next += 1;
    }
}

/// Requests that prolong, and deadlines.
fn timers(criterion: &mut Criterion) {
    let refresh = request(Method::Refresh, Class::Request, |_| {});
    for allocations in [10u32, 50_000] {
        let (mut engine, _) = engine(allocations, apart(allocations, PERMISSION));
        let mut at = 0;
        bench(criterion, &format!("refresh/{allocations}"), || {
            engine.ask(next(&mut at, allocations), black_box(&refresh));
        });
        bench(criterion, &format!("expire, nothing due/{allocations}"), || {
            let now = black_box(engine.now);
            engine.server.expire(now);
        });
        assert_eq!(engine.server.allocations(), allocations as usize);
    }
    for allocations in [500u32, 50_000] {
        let apart = apart(allocations, PERMISSION);
        let binds: Vec<_> = (0..allocations).map(channel_bind).collect();
        let (engine, _) = engine(allocations, apart);
        let mut turns = Turns { clock: engine.now, engine, next: 0, apart };
        let name = format!("expire, one due that was refreshed/{allocations}");
        let prolong = |turns: &mut Turns| {
            turns.serve(|engine, number| {
                let number = number % allocations;
                engine.ask(number, &binds[number as usize]);
                engine.ask(number, &refresh);
            });
        };
        bench_prepared(criterion, &name, &mut turns, prolong, |turns| turns.engine.expire_next());
        assert_eq!(turns.engine.server.allocations(), allocations as usize);
    }
    for allocations in [500u32, 50_000] {
        let apart = apart(allocations, ALLOCATION);
        let mut turns = Turns { engine: Engine::new(rules()), next: 0, clock: NOW, apart };
        let add = |turns: &mut Turns| {
            turns.serve(|engine, number| {
                engine.allocate(number);
            });
        };
        (0..allocations).for_each(|_| add(&mut turns));
        bench_prepared(criterion, &format!("expire, one ends/{allocations}"), &mut turns, add, |turns| {
            turns.engine.expire_next();
            // A socket to close, and a session to report.
            assert_eq!(turns.engine.server.drain_effects().count(), 2);
        });
        assert_eq!(turns.engine.server.allocations(), allocations as usize);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = hot_path, limited, unauthenticated, life, timers
}

fn main() {
    support::run(benches);
}
