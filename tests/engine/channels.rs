//! Channels: ChannelBind and ChannelData (RFC 8656 §12).

use turnserver::{
    stun::{AttributeType as A, Method},
    turn::{Rules, Traffic},
};

use crate::support::{Out, Request, TestClient, World, rules, socket, tcp, udp};

const PEER: &str = "198.51.100.1:1";
const OTHER: &str = "198.51.100.2:1";

fn bound(world: &mut World) -> TestClient {
    let client = TestClient::allocated(world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(world, Request::bind(0x4000, PEER)), 0);
    client
}

fn peer_of(out: &Out) -> Option<std::net::SocketAddr> {
    match out {
        Out::Peer { peer, .. } => Some(*peer),
        _ => None,
    }
}

/// 8656-12.2-09, -10, -11, 8656-18-02
#[test]
fn binding_makes_channel_and_permission() {
    let mut world = World::new();
    let client = bound(&mut world);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0, "a refresh");
    let reserved_bits = Request::bind(0, OTHER).with(A::CHANNEL_NUMBER, [0x4F, 0xFF, 0xFF, 0xFF]);
    assert_eq!(client.code(&mut world, reserved_bits), 0);
    assert_eq!(peer_of(&client.channel_data(&mut world, 0x4000, b"x")), Some(socket(PEER)));
    assert_eq!(peer_of(&client.channel_data(&mut world, 0x4FFF, b"x")), Some(socket(OTHER)));
    assert_eq!(
        peer_of(&client.say(&mut world, &Request::send("198.51.100.1:77", b"x"))),
        Some(socket("198.51.100.1:77"))
    );
}

/// 8656-12.2-01, -02, -03, -04, -05, -06, -07, 5766-11-01: in this order, and nothing is installed.
#[test]
fn what_cannot_be_bound() {
    let mut world = World::new();
    let client = bound(&mut world);
    let number = |value: &[u8]| Request::bind(0, OTHER).with(A::CHANNEL_NUMBER, value);
    let mut cases = vec![
        (400, Request::new(Method::ChannelBind).peer(socket(OTHER))),
        (400, Request::new(Method::ChannelBind).channel(0x4001)),
        (400, number(&[])),
        (400, number(&[0x40, 0x01])),
        (400, Request::new(Method::ChannelBind).channel(0x4001).raw(A::XOR_PEER_ADDRESS, [0, 1, 0])),
        (400, Request::bind(0x4000, OTHER)),
        (400, Request::bind(0x4001, PEER)),
        (443, Request::bind(0x4001, "[2001:db8:1::1]:1")),
        (403, Request::bind(0x4001, "10.0.0.1:1")),
        (403, Request::bind(0x4001, "198.51.100.2:25")),
        (403, Request::bind(0x4001, "198.51.100.2:0")),
        // A conflict comes before the peer is looked at.
        (400, Request::bind(0x4000, "[2001:db8:1::1]:1")),
        (400, Request::bind(0x4000, "10.0.0.1:1")),
    ];
    cases.extend([0, 0x3FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFF].map(|number| (400, Request::bind(number, OTHER))));
    for (code, request) in cases {
        assert_eq!(client.code(&mut world, request.clone()), code, "{request:?}");
    }
    assert_eq!(client.say(&mut world, &Request::send(OTHER, b"x")), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, OTHER)), 0);
}

/// 8656-12.2-08, H-06
#[test]
fn channels_are_limited_and_a_refused_one_gives_no_permission() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for (number, peer) in [(0x4000, "198.51.100.1:1"), (0x4001, "198.51.100.1:2"), (0x4002, "198.51.100.1:3")] {
        assert_eq!(client.code(&mut world, Request::bind(number, peer)), 0);
    }
    assert_eq!(client.code(&mut world, Request::bind(0x4003, OTHER)), 508);
    assert_eq!(client.say(&mut world, &Request::send(OTHER, b"x")), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::bind(0x4002, "198.51.100.1:3")), 0);
}

/// 8656-12-02
#[test]
fn allocations_do_not_share_channels() {
    let mut world = World::new();
    let client = bound(&mut world);
    let other = TestClient::allocated(&mut world, udp("192.0.2.1:1001"));
    assert_eq!(other.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(other.code(&mut world, Request::bind(0x4000, OTHER)), 0);
    assert_eq!(peer_of(&client.channel_data(&mut world, 0x4000, b"x")), Some(socket(PEER)));
    assert_eq!(peer_of(&other.channel_data(&mut world, 0x4000, b"x")), Some(socket(OTHER)));
}

/// 8656-12.4-01, 8656-12.5-02, -03, 8656-12.6-02, -04, -06, -07
#[test]
fn channel_data_to_the_peer() {
    for client in [udp("192.0.2.1:1000"), tcp("192.0.2.1:1000")] {
        let mut world = World::new();
        let client = TestClient::allocated(&mut world, client);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
        for len in (0..9).chain([1200, 65_535]) {
            let data = vec![7; len];
            let relay = *world.relays.keys().next().unwrap();
            let expected = Out::Peer { relay, peer: socket(PEER), data: data.clone(), dont_fragment: false };
            assert_eq!(client.channel_data(&mut world, 0x4000, &data), expected);
        }
        assert_eq!(client.channel_data(&mut world, 0x4001, b"x"), Out::Nothing);
        for bytes in [&[0x40, 0, 0, 2, 9][..], &[0x40, 0, 0xFF, 0xFF], &[0x40, 0, 0], &[0x40]] {
            assert_eq!(world.send(&client.client, bytes), Out::Nothing);
        }
    }
    let mut world = World::new();
    let client = bound(&mut world);
    let padded = world.send(&client.client, &[0x40, 0, 0, 1, b'x', 0, 0, 0]);
    assert!(matches!(padded, Out::Peer { data, .. } if data == b"x"));
    assert_eq!(world.server.totals().to_peers, Traffic { packets: 1, bytes: 1 });
}

/// 8656-12-01, 8656-12.6-01: first bytes of no protocol that is served, and numbers that are not channels.
#[test]
fn other_first_bytes_are_dropped() {
    let mut world = World::new();
    let client = bound(&mut world);
    for first in (4..64).chain(80..=255) {
        assert_eq!(world.send(&client.client, &[first, 0, 0, 1, b'x', 0, 0, 0]), Out::Nothing);
    }
    assert_eq!(world.send(&client.client, &[]), Out::Nothing);
}

/// RFC 5766 clients, where they are let in: 0x4000 to 0x7FFF and no further.
#[test]
fn wide_channels_by_switch() {
    let mut world = World::with(Rules { wide_channels: true, ..rules() });
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for number in [0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(client.code(&mut world, Request::bind(number, PEER)), 400);
    }
    for (number, peer) in [(0x5000, PEER), (0x7FFF, OTHER)] {
        assert_eq!(client.code(&mut world, Request::bind(number, peer)), 0);
        assert_eq!(peer_of(&client.channel_data(&mut world, number, b"x")), Some(socket(peer)));
        let relay = *world.relays.keys().next().unwrap();
        let (_, bytes) = world.receive_peer(relay, socket(peer), b"y").unwrap();
        assert_eq!(bytes, [&number.to_be_bytes()[..], &[0, 1, b'y']].concat());
    }
}
