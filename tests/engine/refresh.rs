//! Refresh (RFC 8656 §8.2).

use turnserver::{
    stun::{AttributeType as A, Method},
    turn::EndReason,
};

use crate::support::{Out, Request, TestClient, World, socket, udp};

/// 8656-5-05
#[test]
fn without_an_allocation_every_request_but_allocate_is_a_mismatch() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for request in [
        Request::refresh(600),
        Request::refresh(0),
        Request::permission(&["198.51.100.1:1"]),
        Request::bind(0x4000, "198.51.100.1:1"),
        Request::new(Method::ChannelBind),
    ] {
        assert_eq!(client.code(&mut world, request), 437);
    }
}

/// 8656-8.2-03, -04, -05
#[test]
fn lifetimes_are_those_of_allocate() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for (asked, granted) in [(1, 600), (600, 600), (700, 700), (3600, 3600), (3601, 3600), (u32::MAX, 3600)] {
        let response = client.request(&mut world, Request::refresh(asked));
        assert_eq!((response.code(), response.lifetime()), (0, granted));
    }
    assert_eq!(client.request(&mut world, Request::new(Method::Refresh)).lifetime(), 600);
    // A shorter lifetime than before counts.
    world.pass(600_000);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 437);
}

/// 8656-18-08, 8489-14-05
#[test]
fn malformed_and_repeated_lifetimes() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for value in [&[][..], &[0, 0], &[0; 8]] {
        assert_eq!(client.code(&mut world, Request::new(Method::Refresh).raw(A::LIFETIME, value)), 400);
    }
    let response = client.request(&mut world, Request::refresh(900).lifetime(0));
    assert_eq!(response.lifetime(), 900);
    assert_eq!(world.server.allocations(), 1);
}

/// 8656-8.2-01, 8656-18-03
#[test]
fn the_family_must_be_that_of_the_allocation() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for family in [0, 2, 3, 255] {
        assert_eq!(client.code(&mut world, Request::refresh(0).family(family)), 443);
    }
    let malformed = Request::refresh(0).raw(A::REQUESTED_ADDRESS_FAMILY, [1]);
    assert_eq!(client.code(&mut world, malformed), 400);
    assert_eq!(world.server.allocations(), 1);
    let reserved_bits = Request::refresh(600).raw(A::REQUESTED_ADDRESS_FAMILY, [1, 9, 9, 9]);
    assert_eq!(client.code(&mut world, reserved_bits), 0);
    assert_eq!(client.code(&mut world, Request::refresh(0).family(1)), 0);
    assert_eq!(world.server.allocations(), 0);
}

/// 8656-8.2-02, -04, -08, -09, 8656-9-06, 8656-12-03
#[test]
fn lifetime_zero_deletes() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::bind(0x4000, "198.51.100.1:1")), 0);
    let delete = client.sign(Request::refresh(0)).build();
    let response = world.ask(&client.client, &delete);
    assert_eq!((response.code(), response.lifetime()), (0, 0));
    assert_eq!((world.relays.len(), world.closed.len(), world.server.allocations()), (0, 1, 0));
    assert_eq!(world.ended.iter().map(|ended| ended.reason).collect::<Vec<_>>(), [EndReason::Deleted]);
    assert_eq!(world.ask(&client.client, &delete).code(), 437, "the retransmission");

    let response = client.request(&mut world, Request::allocate());
    let relay = world.relay_at(response.relayed()[0]).unwrap();
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(client.say(&mut world, &Request::send("198.51.100.1:1", b"x")), Out::Nothing);
    assert_eq!(world.receive_peer(relay, socket("198.51.100.1:1"), b"x"), None);
}
