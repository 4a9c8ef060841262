//! NAT discovery (RFC 5780, RFC 3489 §8.1).

use std::net::SocketAddr;

use turnserver::{
    stun::{AttributeType as A, Message, Method},
    turn::{Answer, Client, Discovery, DiscoveryAddress, Elsewhere, FiveTuple, RealmId, Route, Rules, Step, Transport},
};

use crate::support::{Out, Request, Response, TestClient, World, ip, rules, socket, udp};

const MTU: usize = 1402;

/// Primary and alternate address and port: here, and as the world sees them.
const IPV4: ([&str; 2], [&str; 2]) = (["192.0.2.200", "192.0.2.201"], ["203.0.113.1", "203.0.113.2"]);
const IPV6: ([&str; 2], [&str; 2]) = (["2001:db8::200", "2001:db8::201"], ["2001:db8::200", "2001:db8::201"]);
const PORTS: [u16; 2] = [3478, 3479];

fn discovery() -> Rules {
    let pair = |(local, external): ([&str; 2], [&str; 2])| Discovery {
        addresses: [0, 1].map(|at| DiscoveryAddress { local: ip(local[at]), external: ip(external[at]), mtu: MTU }),
        ports: PORTS,
        tcp: true,
    };
    Rules { discovery: vec![pair(IPV4), pair(IPV6)], rfc3489: true, ..rules() }
}

fn client(server: SocketAddr, transport: Transport) -> Client {
    let client = if server.is_ipv4() { "198.51.100.7:4000" } else { "[2001:db8:7::7]:4000" };
    Client { tuple: FiveTuple { client: socket(client), server, transport }, route: Route(1), realm: RealmId::DEFAULT }
}

fn binding() -> Request {
    Request::new(Method::Binding)
}

fn change(flags: u8) -> Request {
    binding().raw(A::CHANGE_REQUEST, [0, 0, 0, flags])
}

/// The response, where it comes from and where it goes.
fn answer(world: &mut World, client: &Client, request: &Request) -> (Response, SocketAddr, SocketAddr) {
    match world.send(client, &request.build()) {
        Out::Reply(response) => (response, client.tuple.server, client.tuple.client),
        Out::Elsewhere { response, from, to } => {
            assert!(from != client.tuple.server || to != client.tuple.client);
            (response, from, to)
        }
        other => panic!("no answer: {other:?}"),
    }
}

/// 5780-6.1-01 to -08, -14, 5780-10-01: each combination of flags at each of the four places, in both families.
#[test]
fn the_answer_leaves_from_the_address_and_port_that_are_asked_for() {
    let mut world = World::with(discovery());
    for (local, external) in [IPV4, IPV6] {
        let place = |ips: [&str; 2], address: usize, port: usize| SocketAddr::new(ip(ips[address]), PORTS[port]);
        for (address, port, flags) in (0..32).map(|n| (n & 1, n >> 1 & 1, n >> 2)) {
            let client = client(place(local, address, port), Transport::Udp);
            // Bits without a meaning have none.
            let (response, from, to) = answer(&mut world, &client, &change(u8::try_from(flags).unwrap()));
            let (there, then) = (address ^ usize::from(flags & 4 != 0), port ^ usize::from(flags & 2 != 0));
            assert_eq!(from, place(local, there, then));
            assert_eq!(to, client.tuple.client);
            assert_eq!(response.addresses(A::XOR_MAPPED_ADDRESS), [client.tuple.client]);
            assert_eq!(response.plain_addresses(A::MAPPED_ADDRESS), [client.tuple.client]);
            assert_eq!(response.plain_addresses(A::RESPONSE_ORIGIN), [place(external, there, then)]);
            assert_eq!(response.plain_addresses(A::OTHER_ADDRESS), [place(external, 1 - address, 1 - port)]);
            assert_eq!(response.message().attributes().count(), 4);
        }
    }
}

/// 5780-6-04, -05, 5780-7.4-01: at any other listening address there is nothing of it.
#[test]
fn elsewhere_on_the_server_binding_is_as_ever() {
    let mut world = World::with(discovery());
    for server in ["192.0.2.202:3478", "192.0.2.200:3480", "[2001:db8::202]:3478"] {
        let client = client(socket(server), Transport::Udp);
        let response = world.ask(&client, &binding().build());
        assert_eq!(response.message().attributes().count(), 1);
        for request in [change(6), change(0), binding().raw(A::PADDING, []), binding().raw(A::RESPONSE_PORT, [1; 4])] {
            assert_eq!(world.ask(&client, &request.build()).code(), 420);
        }
    }
}

/// Everything that goes another way is about UDP (RFC 5780 §3.2, §3.3, §3.5).
#[test]
fn over_tcp_there_are_two_addresses_and_nothing_to_change() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.200:3479"), Transport::Tcp);
    let response = world.ask(&client, &binding().build());
    assert_eq!(response.plain_addresses(A::RESPONSE_ORIGIN), [socket("203.0.113.1:3479")]);
    assert_eq!(response.plain_addresses(A::OTHER_ADDRESS), [socket("203.0.113.2:3478")]);
    for request in [change(0), change(6), binding().raw(A::PADDING, []), binding().raw(A::RESPONSE_PORT, [1; 4])] {
        assert_eq!(world.ask(&client, &request.build()).code(), 420);
    }
    let no_tcp = discovery().discovery.into_iter().map(|it| Discovery { tcp: false, ..it }).collect();
    let mut world = World::with(Rules { discovery: no_tcp, ..rules() });
    assert_eq!(world.ask(&client, &binding().build()).message().attributes().count(), 1);
}

/// 5780-7.5-01, 5780-10-01, and together with CHANGE-REQUEST: the IP address is always that of the source.
#[test]
fn response_port_changes_the_port_and_nothing_else() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.200:3478"), Transport::Udp);
    for (request, from) in
        [(binding(), "192.0.2.200:3478"), (change(2), "192.0.2.200:3479"), (change(6), "192.0.2.201:3479")]
    {
        for value in [&[0x12, 0x34][..], &[0x12, 0x34, 0, 0], &[0x12, 0x34, 0xFF, 0xFF]] {
            let (response, origin, to) = answer(&mut world, &client, &request.clone().raw(A::RESPONSE_PORT, value));
            assert_eq!((origin, to), (socket(from), socket("198.51.100.7:4660")));
            assert_eq!(response.addresses(A::XOR_MAPPED_ADDRESS), [client.tuple.client]);
        }
    }
    // The port that it came from anyway.
    let same = binding().raw(A::RESPONSE_PORT, [0x0F, 0xA0, 0, 0]);
    assert!(matches!(world.send(&client, &same.build()), Out::Reply(_)));
}

/// A 400 goes back as the request came. 5780-6.1-11, 5780-7.5-02
#[test]
fn what_is_malformed_or_forbidden_together_is_a_bad_request() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.200:3478"), Transport::Udp);
    for bad in [
        binding().raw(A::CHANGE_REQUEST, []),
        binding().raw(A::CHANGE_REQUEST, [0; 3]),
        binding().raw(A::CHANGE_REQUEST, [0; 8]),
        change(6).raw(A::RESPONSE_PORT, [0, 0, 0, 0]),
        change(6).raw(A::RESPONSE_PORT, [1]),
        change(6).raw(A::RESPONSE_PORT, [1; 8]),
        change(6).raw(A::RESPONSE_PORT, [1, 1, 0, 0]).raw(A::PADDING, [0; 8]),
        binding().raw(A::PADDING, []).raw(A::RESPONSE_PORT, [1, 1, 0, 0]),
    ] {
        assert_eq!(world.ask(&client, &bad.build()).code(), 400, "{bad:?}");
    }
    // 420 names what nobody knows, and only that.
    let unknown = change(6).raw(A(0x0002), [0; 8]).raw(A::RESPONSE_PORT, [1; 8]);
    let response = world.ask(&client, &unknown.build());
    assert_eq!((response.code(), response.get(A::UNKNOWN_ATTRIBUTES)), (420, Some(&[0, 2][..])));
}

/// 5780-6.1-09, -10, 5780-7.6-01, 5780-10-02
#[test]
fn padding_is_what_was_sent_up_to_the_mtu() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.200:3478"), Transport::Udp);
    for (sent, expected) in
        [(0, 0), (1, 4), (4, 4), (1399, 1400), (1400, 1400), (1401, 1404), (1402, 1404), (1500, 1404), (65_000, 1404)]
    {
        for request in [binding(), change(6)] {
            let request = request.raw(A::PADDING, vec![7; sent]).fingerprint();
            let (response, ..) = answer(&mut world, &client, &request);
            let padding =
                response.message().attributes().find(|(found, _)| *found == A::PADDING).map(|(_, value)| value);
            assert_eq!(padding, Some(&vec![0; expected][..]));
            assert!(response.bytes.len() <= request.build().len() + 4 * 12 + 3);
        }
    }
    // On an interface without a limit worth the name, the datagram has one.
    let mut loopback = discovery();
    loopback.discovery[0].addresses[0].mtu = 65_536;
    loopback.software = Some("x".repeat(120));
    let mut world = World::with(loopback);
    let (response, ..) = answer(&mut world, &client, &binding().raw(A::PADDING, vec![7; 65_487]).fingerprint());
    assert!((60_000..=65_535 - 48).contains(&response.bytes.len()), "{}", response.bytes.len());
}

/// 5780-7.2-01: no other method has these attributes.
#[test]
fn other_methods_do_not_know_them() {
    let mut world = World::with(discovery());
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for attribute in [A::CHANGE_REQUEST, A::PADDING, A::RESPONSE_PORT] {
        assert_eq!(client.code(&mut world, Request::refresh(600).raw(attribute, [0; 4])), 420);
    }
}

/// Answers are counted, and rationed as those to any Binding request are.
#[test]
fn a_source_gets_no_more_answers_by_asking_for_them_from_elsewhere() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.200:3478"), Transport::Udp);
    world.answers.set(2);
    answer(&mut world, &client, &change(6));
    answer(&mut world, &client, &binding().raw(A::RESPONSE_PORT, [1, 1, 0, 0]));
    assert_eq!(world.send(&client, &change(6).build()), Out::Nothing);
    assert_eq!(world.server.totals().successes(), 2);
}

/// 3489-8.1-01, -02, -04
#[test]
fn classic_clients_are_told_changed_and_source_address() {
    let mut world = World::with(discovery());
    let client = client(socket("192.0.2.201:3479"), Transport::Udp);
    let mut reply = vec![0; world.server.reply_len()];
    let mut ask = |request: &Request| {
        let mut bytes = request.build();
        bytes[4..8].copy_from_slice(b"3489");
        let step = world.server.from_client(&client, &bytes, Answer::Unasked, &mut reply, world.now);
        let (len, from) = match step {
            Step::Reply(len) => (len, client.tuple.server),
            Step::ReplyElsewhere(Elsewhere { len, from, to }) => {
                assert_eq!(to, client.tuple.client);
                (len, from)
            }
            other => panic!("no answer: {other:?}"),
        };
        assert_eq!(reply[4..20], bytes[4..20], "the 128-bit transaction id");
        (reply[..len].to_vec(), from)
    };
    for (flags, address, port) in [(0, 1, 1), (2, 1, 0), (4, 0, 1), (6, 0, 0)] {
        let (bytes, from) = ask(&change(u8::try_from(flags).unwrap()));
        assert_eq!(from, SocketAddr::new(ip(IPV4.0[address]), PORTS[port]));
        let message = Message::parse_classic(&bytes).unwrap();
        let found: Vec<(A, SocketAddr)> = message
            .attributes()
            .map(|(attribute, value)| (attribute, turnserver::stun::address::decode(value).unwrap()))
            .collect();
        let source = SocketAddr::new(ip(IPV4.1[address]), PORTS[port]);
        assert_eq!(
            found,
            [
                (A::MAPPED_ADDRESS, client.tuple.client),
                (A::SOURCE_ADDRESS, source),
                (A::CHANGED_ADDRESS, socket("203.0.113.1:3478"))
            ]
        );
    }
    // RESPONSE-ADDRESS, and what came after RFC 3489.
    for attribute in [A(0x0002), A::PADDING, A::RESPONSE_PORT] {
        let (bytes, from) = ask(&change(6).raw(attribute, [0, 1, 0, 0]));
        let message = Message::parse_classic(&bytes).unwrap();
        assert_eq!(message.get(A::UNKNOWN_ATTRIBUTES), Some(&attribute.0.to_be_bytes()[..]));
        assert_eq!(from, client.tuple.server);
    }
}
