//! Data and ICMP errors on their way (RFC 8656 §11, §12.7).

use turnserver::{
    stun::{AttributeType as A, Class, Method},
    turn::{Drop, IcmpError, RelayId, Traffic},
};

use crate::support::{Out, Request, Response, TestClient, World, socket, tcp, udp};

const V4: &str = "198.51.100.1:1";
const V6: &str = "[2001:db8:1::1]:1";

/// A client of both families with permissions for both peers; its relay sockets by family.
fn permitted(world: &mut World, client: turnserver::turn::Client) -> (TestClient, [RelayId; 2]) {
    let client = TestClient::new(world, client);
    let relayed = client.request(world, Request::allocate().additional(2)).relayed();
    assert_eq!(client.code(world, Request::permission(&[V4, V6])), 0);
    (client, [0, 1].map(|family| world.relay_at(relayed[family]).unwrap()))
}

/// 8656-11.2-03, -08, -09, 8656-5-16
#[test]
fn a_send_indication_becomes_a_datagram() {
    let mut world = World::new();
    for client in [udp("192.0.2.1:1000"), udp("[2001:db8::1]:1000"), tcp("192.0.2.1:1000")] {
        let (client, relays) = permitted(&mut world, client);
        for (relay, peer) in relays.into_iter().zip([V4, V6]) {
            for len in [0, 1, 2, 3, 4, 1200, 65_000] {
                let data = vec![3; len];
                let expected = Out::Peer { relay, peer: socket(peer), data: data.clone(), dont_fragment: false };
                assert_eq!(client.say(&mut world, &Request::send(peer, &data)), expected);
            }
        }
    }
}

/// 8656-11.2-01, -02, -05, -07, -10, -11, 8489-6.3.2-01, 8656-5-06, H-19
#[test]
fn a_faulty_send_indication_is_silently_dropped() {
    let mut world = World::new();
    let (client, _) = permitted(&mut world, udp("192.0.2.1:1000"));
    let good = || Request::send(V4, b"x");
    let without = |attribute| good().without(attribute);
    for request in [
        without(A::XOR_PEER_ADDRESS),
        without(A::DATA),
        without(A::XOR_PEER_ADDRESS).raw(A::XOR_PEER_ADDRESS, [0, 1, 0]),
        without(A::XOR_PEER_ADDRESS).raw(A::XOR_PEER_ADDRESS, [0, 9, 0, 1, 1, 2, 3, 4]),
        good().raw(A(0x7FF0), []),
        good().class(Class::Request),
        good().class(Class::Success),
        Request::send("198.51.100.2:1", b"x"),
        Request::send("198.51.100.1:25", b"x"),
        Request::send("198.51.100.1:0", b"x"),
        Request::new(Method::Data).class(Class::Indication).peer(socket(V4)).raw(A::DATA, b"x"),
        Request::new(Method::Data).peer(socket(V4)),
    ] {
        assert_eq!(client.say(&mut world, &request), Out::Nothing, "{request:?}");
    }
    assert!(matches!(client.say(&mut world, &good()), Out::Peer { .. }));
    let stranger = udp("192.0.2.9:9");
    assert_eq!(world.send(&stranger, &good().build()), Out::Nothing);
    assert_eq!(world.send(&stranger, &[0x40, 0, 0, 1, b'x']), Out::Nothing);
    assert_eq!(world.server.totals().to_peers, Traffic { packets: 1, bytes: 1 });
    assert_eq!(world.server.totals().dropped(Drop::NoAllocation), 2);
}

/// 8656-11.2-04, 8656-13-02, 8656-14-03, 8656-14-04, 8656-15-03
#[test]
fn dont_fragment_is_for_the_same_family_or_a_stream() {
    let mut world = World::new();
    for (client, applies) in [
        (udp("192.0.2.1:1000"), [true, false]),
        (udp("[2001:db8::1]:1000"), [false, true]),
        (tcp("192.0.2.1:1000"), [true, true]),
        (tcp("[2001:db8::1]:1000"), [true, true]),
    ] {
        let (client, _) = permitted(&mut world, client);
        for (peer, applies) in [V4, V6].into_iter().zip(applies) {
            for (request, expected) in
                [(Request::send(peer, b"x").raw(A::DONT_FRAGMENT, []), applies), (Request::send(peer, b"x"), false)]
            {
                let out = client.say(&mut world, &request);
                assert!(matches!(out, Out::Peer { dont_fragment, .. } if dont_fragment == expected), "{out:?}");
            }
        }
        assert_eq!(client.code(&mut world, Request::bind(0x4000, V4)), 0);
        let out = client.channel_data(&mut world, 0x4000, b"x");
        assert!(matches!(out, Out::Peer { dont_fragment: false, .. }));
    }
}

/// 8656-11.3-01, -02, -03, 8489-5-06, 8656-9-04
#[test]
fn a_peers_datagram_becomes_a_data_indication() {
    let mut world = World::new();
    for client in [udp("192.0.2.1:1000"), tcp("192.0.2.1:1000"), udp("[2001:db8::1]:1000")] {
        let (client, relays) = permitted(&mut world, client);
        let mut ids = Vec::new();
        // What the length field of an indication leaves for data beside a peer of this family.
        for (relay, peer, longest) in [(relays[0], V4, 65_516), (relays[1], V6, 65_504)] {
            for len in (0..9).chain([1200, longest]) {
                let data = vec![0xDA; len];
                let (to, bytes) = world.receive_peer(relay, socket(peer), &data).unwrap();
                let indication = Response::new(bytes);
                assert_eq!(to, client.client);
                assert_eq!(indication.message().class(), Class::Indication);
                assert_eq!(indication.message().method(), Method::Data.code());
                assert_eq!(indication.addresses(A::XOR_PEER_ADDRESS), [socket(peer)]);
                assert_eq!(indication.get(A::DATA), Some(&data[..]));
                assert!(!ids.contains(&indication.transaction_id()));
                ids.push(indication.transaction_id());
            }
            assert_eq!(world.receive_peer(relay, socket(peer), &vec![0; longest + 1]), None);
        }
        assert_eq!(world.receive_peer(relays[0], socket("198.51.100.2:1"), b"x"), None);
        assert_eq!(world.receive_peer(relays[0], socket("198.51.100.1:25"), b"x"), None, "refused by the policy");
    }
}

/// 8656-11.3-04, 8656-12.5-01, -02, 8656-12.4-01, H-17
#[test]
fn a_bound_peers_datagram_becomes_channel_data() {
    for (client, stream) in [(udp("192.0.2.1:1000"), false), (tcp("192.0.2.1:1000"), true)] {
        let mut world = World::new();
        let (client, [relay, _]) = permitted(&mut world, client);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, V4)), 0);
        assert!(matches!(client.say(&mut world, &Request::send(V4, b"x")), Out::Peer { .. }));
        for len in (0..9).chain([1200]) {
            let data = vec![0xDA; len];
            let (to, bytes) = world.receive_peer(relay, socket(V4), &data).unwrap();
            let mut expected = [&[0x40, 0x00][..], &u16::try_from(len).unwrap().to_be_bytes(), &data].concat();
            if stream {
                expected.resize(expected.len().next_multiple_of(4), 0);
            }
            assert_eq!((to, bytes), (client.client, expected));
        }
        let (_, bytes) = world.receive_peer(relay, socket("198.51.100.1:2"), b"x").unwrap();
        assert_eq!(Response::new(bytes).get(A::DATA), Some(&b"x"[..]), "another port of the same peer");
    }
}

/// Counts are of application data, in both directions, in total and for each allocation.
#[test]
fn traffic_is_counted() {
    let mut world = World::new();
    let (client, [relay, _]) = permitted(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::bind(0x4000, V4)), 0);
    let _ = client.channel_data(&mut world, 0x4000, b"four");
    let _ = client.say(&mut world, &Request::send(V6, b"three"));
    let _ = client.channel_data(&mut world, 0x4001, b"none");
    let _ = world.receive_peer(relay, socket(V4), b"12");
    let _ = world.receive_peer(relay, socket("198.51.100.1:2"), b"");
    let _ = world.receive_peer(relay, socket("198.51.100.2:2"), b"none");
    world.pass(5_000);
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    let (up, down) = (Traffic { packets: 2, bytes: 9 }, Traffic { packets: 2, bytes: 2 });
    let [ended] = &world.ended[..] else { panic!("one end") };
    assert_eq!(
        (ended.to_peers, ended.to_client, ended.duration.as_secs(), &*ended.subject.user),
        (up, down, 5, "alice")
    );
    let totals = world.server.totals();
    assert_eq!((totals.to_peers, totals.to_clients), (up, down));
}

/// 8656-11.5-01, -02, -04, -05, -06, -07, -08, 8656-18-07
#[test]
fn icmp_errors_that_a_client_is_told() {
    let mut world = World::new();
    let (client, relays) = permitted(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::bind(0x4000, V4)), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, V6)), 0);
    for (relay, peer, kinds) in [(relays[0], "198.51.100.1:0", vec![3, 11]), (relays[1], V6, vec![1, 2, 3])] {
        for kind in 0..=255 {
            let out = world.receive_icmp(relay, socket(peer), IcmpError { kind, code: 4, mtu: 1280 });
            assert_eq!(out.is_some(), kinds.contains(&kind), "type {kind}");
            let Some((to, indication)) = out else { continue };
            assert_eq!(to, client.client);
            assert_eq!(indication.message().method(), Method::Data.code());
            assert_eq!(indication.message().class(), Class::Indication);
            assert_eq!(indication.addresses(A::XOR_PEER_ADDRESS), [socket(peer)]);
            assert!(!indication.has(A::DATA));
            let too_big = if peer == V6 { kind == 2 } else { kind == 3 };
            let data = if too_big { 1280u32 } else { 0 };
            let expected = [&[0, 0, kind << 1, 4][..], &data.to_be_bytes()].concat();
            assert_eq!(indication.get(A::ICMP), Some(&expected[..]));
        }
    }
    let error = IcmpError { kind: 3, code: 1, mtu: 1280 };
    let (_, unreachable) = world.receive_icmp(relays[0], socket(V4), error).unwrap();
    assert_eq!(unreachable.get(A::ICMP), Some(&[0, 0, 6, 1, 0, 0, 0, 0][..]));
    assert_eq!(world.receive_icmp(relays[0], socket("198.51.100.2:1"), error), None, "no permission");
}
