//! The engine's hot path, without sockets: what one relayed datagram costs, with few allocations and with many.
//!
//! The cost must not depend on how many allocations there are: compare `10` with `10000` of each group.

use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use turnserver::{
    stun::{AttributeType, ChannelData, ChannelNumber, Class, MessageWriter, Method, TransactionId},
    turn::{
        Answer, Client, Family, FiveTuple, Grant, HEADROOM, Handle, Policy, REPLY_LEN, RelayId, Route, Rules, Server,
        Step, Time, Transport, Unauthenticated,
    },
};

struct Anything;

impl Policy for Anything {
    fn permits(&self, _: SocketAddr) -> bool {
        true
    }

    fn permits_ip(&self, _: IpAddr) -> bool {
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
        realm: "example.org".into(),
        anonymous: true,
        password_algorithms: Vec::new(),
        nonce_lifetime: Duration::from_secs(3600),
        default_lifetime: Duration::from_secs(600),
        max_lifetime: Duration::from_secs(3600),
        permission_lifetime: Duration::from_secs(300),
        channel_lifetime: Duration::from_secs(600),
        max_permissions: 100,
        max_channels: 100,
        default_family: Some(Family::V4),
        families: vec![Family::V4],
        software: None,
        always_fingerprint: false,
        dont_fragment: true,
        rfc3489: false,
        wide_channels: false,
        redirect: None,
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
    Client { tuple, route: Route(0) }
}

fn request(method: Method, class: Class, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let mut writer = MessageWriter::new(&mut buffer, method, class, TransactionId([1; 12]));
    attributes(&mut writer);
    let len = writer.finish().unwrap();
    buffer[..len].to_vec()
}

/// A server with so many allocations, each with one channel and one permission.
fn server(allocations: u32) -> (Server, Vec<Handle>) {
    let mut server = Server::new(rules(), Box::new(Anything), &[1; 32], [2; 32], 1);
    let mut reply = [0; REPLY_LEN];
    let allocate = request(Method::Allocate, Class::Request, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let handles = (0..allocations).map(|number| {
        let client = client(number);
        let step = server.from_client(&client, &allocate, Answer::Unasked, &mut reply, NOW);
        let Step::Allocate(pending) = step else { panic!("{step:?}") };
        let relay = (RelayId(number), address([203, 0], number, 50_000));
        let grant = Grant { relays: [Some(relay), None], ..Grant::default() };
        let (_, made) = server.complete_allocate(*pending, Ok(grant), &mut reply, NOW);
        let bind = request(Method::ChannelBind, Class::Request, |writer| {
            writer.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(number));
        });
        let step = server.from_client(&client, &bind, Answer::Unasked, &mut reply, NOW);
        assert!(matches!(step, Step::Reply(_)));
        made.unwrap().0
    });
    let handles = handles.collect();
    (server, handles)
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
        let (mut server, handles) = server(allocations);
        let mut reply = [0; REPLY_LEN];
        let mut at = 0;
        criterion.bench_with_input(BenchmarkId::new("channel-data-up", allocations), &(), |bencher, ()| {
            bencher.iter(|| {
                let client = client(next(&mut at, allocations));
                let step = server.from_client(&client, black_box(&channel_data), Answer::Unasked, &mut reply, NOW);
                assert!(matches!(step, Step::ToPeer(_)));
            });
        });
        criterion.bench_with_input(BenchmarkId::new("send-indication-up", allocations), &(), |bencher, ()| {
            bencher.iter_batched(
                || {
                    let number = next(&mut at, allocations);
                    let message = request(Method::Send, Class::Indication, |writer| {
                        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(number));
                        writer.attribute(AttributeType::DATA, &data);
                    });
                    (client(number), message)
                },
                |(client, message)| {
                    let step = server.from_client(&client, &message, Answer::Unasked, &mut reply, NOW);
                    assert!(matches!(step, Step::ToPeer(_)));
                },
                BatchSize::SmallInput,
            );
        });
        let mut headroom = [0; HEADROOM];
        for (name, port_offset) in [("channel-data-down", 0), ("data-indication-down", 1)] {
            criterion.bench_with_input(BenchmarkId::new(name, allocations), &(), |bencher, ()| {
                bencher.iter(|| {
                    let number = next(&mut at, allocations);
                    let mut from = peer(number);
                    from.set_port(from.port() + port_offset);
                    let sent = server.from_peer(handles[number as usize], from, 160, black_box(&mut headroom), NOW);
                    assert!(sent.is_some());
                });
            });
        }
    }
}

/// What a client that has proved nothing can make the server do.
fn unauthenticated(criterion: &mut Criterion) {
    let mut server = Server::new(Rules { anonymous: false, ..rules() }, Box::new(Anything), &[1; 32], [2; 32], 1);
    let mut reply = [0; REPLY_LEN];
    let client = client(1);
    let binding = request(Method::Binding, Class::Request, |_| {});
    let allocate = request(Method::Allocate, Class::Request, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let user: Arc<str> = Arc::from("nobody");
    for (name, message) in [("binding", &binding), ("challenge-401", &allocate)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let answer = Answer::Known { user: &user, key: b"key" };
                let step = server.from_client(&client, black_box(message), answer, &mut reply, NOW);
                assert!(matches!(step, Step::Reply(_)));
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = hot_path, unauthenticated
}
criterion_main!(benches);
