//! Two relayed addresses in one allocation (RFC 8656 §7.2, §8).

use turnserver::{
    stun::AttributeType as A,
    turn::{AddressRequest, EndReason, Family, RelayId},
};

use crate::support::{Out, Request, Response, TestClient, World, socket, udp};

const V4: &str = "198.51.100.1:1";
const V6: &str = "[2001:db8:1::1]:1";

fn dual() -> Request {
    Request::allocate().additional(2)
}

/// A client with both addresses, a permission for each family, a channel for each; the relay sockets by family.
fn both(world: &mut World) -> (TestClient, [RelayId; 2]) {
    let client = TestClient::new(world, udp("192.0.2.1:1000"));
    let relayed = client.request(world, dual()).relayed();
    assert_eq!(client.code(world, Request::permission(&[V4, V6])), 0);
    assert_eq!(client.code(world, Request::bind(0x4000, V4)), 0);
    assert_eq!(client.code(world, Request::bind(0x4001, V6)), 0);
    (client, [0, 1].map(|family| world.relay_at(relayed[family]).unwrap()))
}

/// Whether data pass in both directions, by channel and by indication, for the peer of one family.
fn relays(world: &mut World, client: &TestClient, relay: RelayId, peer: &str, number: u16) -> bool {
    let sent = [client.say(world, &Request::send(peer, b"x")), client.channel_data(world, number, b"x")];
    let sent =
        sent.map(|out| matches!(out, Out::Peer { relay: from, peer: to, .. } if from == relay && to == socket(peer)));
    let received = world.relays.contains_key(&relay) && world.receive_peer(relay, socket(peer), b"x").is_some();
    assert_eq!(sent, [received; 2]);
    received
}

fn address_error(response: &Response, family: u8) -> u16 {
    response.check_error_code(A::ADDRESS_ERROR_CODE, family)
}

/// 8656-7.2-18, 8656-10.2-08, 8656-5-16
#[test]
fn one_address_of_each_family() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let response = client.request(&mut world, dual());
    assert_eq!(world.asked, Some(AddressRequest::Both { even: false }));
    assert_eq!(response.relayed().iter().map(|address| address.is_ipv4()).collect::<Vec<_>>(), [true, false]);
    assert!(!response.has(A::ADDRESS_ERROR_CODE));
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);

    let (client, [v4, v6]) = both(&mut world);
    assert!(relays(&mut world, &client, v4, V4, 0x4000) && relays(&mut world, &client, v6, V6, 0x4001));
}

/// 8656-7.2-19, 8656-18-06: and a retransmission is told the same.
#[test]
fn one_of_the_two_is_a_success_with_the_reason() {
    for (available, missing, code) in [(Family::V4, 2, 440), (Family::V6, 1, 440)] {
        let mut world = World::new();
        world.families = vec![available];
        let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
        let bytes = client.sign(dual()).build();
        let response = world.ask(&client.client, &bytes);
        assert_eq!((response.code(), response.relayed().len()), (0, 1));
        assert_eq!(address_error(&response, missing), code);
        assert_eq!(world.ask(&client.client, &bytes), response);
    }
    let mut world = World::new();
    world.max_relays = 1;
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let response = client.request(&mut world, dual());
    assert_eq!((response.code(), response.relayed().len(), address_error(&response, 2)), (0, 1, 508));
}

/// 8656-7.2-20
#[test]
fn none_of_the_two_is_a_lack_of_capacity() {
    let mut world = World::new();
    world.max_relays = 0;
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, dual()), 508);
}

/// 8656-8.1-01, 8656-8.2-07
#[test]
fn deleting_one_family_leaves_the_other_as_it_is() {
    let mut world = World::new();
    let (client, [v4, v6]) = both(&mut world);
    let response = client.request(&mut world, Request::refresh(0).family(2));
    assert_eq!((response.code(), response.lifetime()), (0, 0));
    assert!(world.closed.contains(&v6) && world.ended.is_empty());
    assert!(relays(&mut world, &client, v4, V4, 0x4000));
    assert!(!relays(&mut world, &client, v6, V6, 0x4001));
    for request in [Request::permission(&[V6]), Request::bind(0x4001, V6), Request::refresh(600).family(2)] {
        assert_eq!(client.code(&mut world, request), 443);
    }
    assert_eq!(client.code(&mut world, Request::refresh(0).family(1)), 0);
    assert_eq!((world.server.allocations(), world.closed.len()), (0, 2));
    assert_eq!(world.ended[0].reason, EndReason::Deleted);
}

/// 8656-8.2-06
#[test]
fn a_refresh_without_family_is_for_both() {
    let mut world = World::new();
    let (client, [v4, v6]) = both(&mut world);
    world.pass(500_000);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
    world.pass(599_999);
    world.expire();
    assert_eq!(world.relays.len(), 2);
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    assert!(world.closed.contains(&v4) && world.closed.contains(&v6));
}

/// 8656-8.2-07: each has its own lifetime, and one that has run out cannot be brought back, timer or no timer.
#[test]
fn each_family_expires_by_itself() {
    for timer in [true, false] {
        let mut world = World::new();
        let (client, [v4, v6]) = both(&mut world);
        let response = client.request(&mut world, Request::refresh(900).family(2));
        assert_eq!(response.lifetime(), 900);
        world.pass(599_999);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, V4)), 0);
        assert!(relays(&mut world, &client, v4, V4, 0x4000));
        world.pass(1);
        if timer {
            world.expire();
            assert!(world.closed.contains(&v4));
        }
        assert!(!relays(&mut world, &client, v4, V4, 0x4000));
        assert_eq!(client.code(&mut world, Request::refresh(600).family(1)), 443);
        assert_eq!(client.code(&mut world, Request::refresh(900)), 0);
        assert!(world.closed.contains(&v4) && !world.closed.contains(&v6));
        assert!(!relays(&mut world, &client, v4, V4, 0x4000));
        assert_eq!(client.code(&mut world, Request::bind(0x4001, V6)), 0);
        assert!(relays(&mut world, &client, v6, V6, 0x4001));
        world.pass(900_000);
        world.expire();
        assert_eq!((world.server.allocations(), world.ended[0].reason), (0, EndReason::Expired));
    }
}
