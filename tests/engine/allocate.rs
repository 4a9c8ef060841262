//! Allocate (RFC 8656 §7.2): one relayed address. Two of them are in `dual`.

use turnserver::{
    stun::{AttributeType as A, Class, Method},
    turn::{AddressRequest, Family, Rules},
};

use crate::support::{Credentials, Out, Request, TestClient, World, rules, socket, tcp, udp};

const BOTH_SIDES: [&str; 2] = ["192.0.2.1:1000", "[2001:db8::1]:1000"];

/// 8656-7.2-24, -36, -37, -38, -39, 8656-6-03, 8489-14.2-01
#[test]
fn a_new_allocation() {
    let mut world = World::new();
    for address in BOTH_SIDES {
        let client = TestClient::new(&mut world, udp(address));
        let response = client.request(&mut world, Request::allocate());
        assert_eq!(response.code(), 0);
        assert_eq!(response.addresses(A::XOR_MAPPED_ADDRESS), [socket(address)]);
        assert_eq!(response.lifetime(), 600);
        assert!(!response.has_any(&[A::RESERVATION_TOKEN, A::ADDRESS_ERROR_CODE]));
        let relay = world.relay_at(response.relayed()[0]).unwrap();
        assert_eq!(world.receive_peer(relay, socket("198.51.100.1:1"), b"x"), None);
        assert_eq!(client.say(&mut world, &Request::send("198.51.100.1:1", b"x")), Out::Nothing);
        assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    }
    assert_eq!((world.server.allocations(), world.server.totals().allocations()), (2, 2));
}

/// 8656-7.2-02: whatever the request holds, and also for the next user.
#[test]
fn a_five_tuple_in_use_is_a_mismatch() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for request in [Request::allocate(), Request::new(Method::Allocate), Request::allocate().family(3)] {
        assert_eq!(client.code(&mut world, request), 437);
    }
    for other in [udp("192.0.2.1:1001"), udp("192.0.2.2:1000"), tcp("192.0.2.1:1000")] {
        let _ = TestClient::allocated(&mut world, other);
    }
    assert_eq!(world.server.allocations(), 4);
}

/// 8656-7.2-03, -04, -05, 8656-18-05, 8656-18-08, 8656-18-03
#[test]
fn malformed_and_unsupported_values() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let allocate = Request::allocate;
    let cases = [
        (400, Request::new(Method::Allocate)),
        (400, allocate().with(A::REQUESTED_TRANSPORT, [])),
        (400, allocate().with(A::REQUESTED_TRANSPORT, [17])),
        (400, allocate().with(A::REQUESTED_TRANSPORT, [17, 0, 0, 0, 0, 0, 0, 0])),
        (442, allocate().with(A::REQUESTED_TRANSPORT, [132, 0, 0, 0])),
        (442, allocate().with(A::REQUESTED_TRANSPORT, [1, 0, 0, 0])),
        (400, allocate().raw(A::LIFETIME, [])),
        (400, allocate().raw(A::LIFETIME, [0, 9])),
        (400, allocate().raw(A::LIFETIME, [0, 0, 0, 0, 0, 0, 2, 88])),
        (400, allocate().raw(A::REQUESTED_ADDRESS_FAMILY, [1])),
        (400, allocate().raw(A::ADDITIONAL_ADDRESS_FAMILY, [2, 0])),
        (400, allocate().raw(A::EVEN_PORT, [])),
        (400, allocate().raw(A::EVEN_PORT, [0, 0])),
        (400, allocate().raw(A::RESERVATION_TOKEN, [1; 7])),
        (400, allocate().raw(A::RESERVATION_TOKEN, [1; 9])),
        (440, allocate().family(0)),
        (440, allocate().family(3)),
    ];
    for (code, request) in cases {
        assert_eq!(client.code(&mut world, request.clone()), code, "{request:?}");
    }
    assert_eq!((world.server.allocations(), world.asked), (0, None));
    let reserved_bits = allocate()
        .with(A::REQUESTED_TRANSPORT, [17, 0xFF, 0xFF, 0xFF])
        .raw(A::REQUESTED_ADDRESS_FAMILY, [2, 0xFF, 0xFF, 0xFF]);
    assert_eq!(client.code(&mut world, reserved_bits), 0);
}

/// 8656-7.2-07, -08, -09, -11, -15, -17
#[test]
fn attributes_that_exclude_each_other() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let token = || Request::allocate().raw(A::RESERVATION_TOKEN, [1; 8]);
    let even = |request: Request, bits: u8| request.raw(A::EVEN_PORT, [bits]);
    for request in [
        even(token(), 0),
        even(token(), 0x80),
        token().family(1),
        token().additional(2),
        Request::allocate().family(1).additional(2),
        Request::allocate().family(2).additional(2),
        even(Request::allocate(), 0x80).additional(2),
        Request::allocate().additional(1),
    ] {
        assert_eq!(client.code(&mut world, request.clone()), 400, "{request:?}");
    }
    assert_eq!(world.asked, None);
}

/// 8656-7.2-06: DONT-FRAGMENT is understood.
#[test]
fn dont_fragment_is_supported() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::allocate().raw(A::DONT_FRAGMENT, [])), 0);
}

/// 8656-7.2-12, -13, -14
#[test]
fn the_family_is_the_one_requested_or_ipv4() {
    for (families, codes) in [
        (&[Family::V4, Family::V6][..], [0, 0, 0]),
        (&[Family::V4][..], [0, 0, 440]),
        (&[Family::V6][..], [440, 440, 0]),
    ] {
        let mut world = World::with(Rules { families: families.to_vec(), ..rules() });
        for address in BOTH_SIDES {
            let client = TestClient::new(&mut world, tcp(address));
            for ((request, is_ipv4), code) in [
                (Request::allocate(), true),
                (Request::allocate().family(1), true),
                (Request::allocate().family(2), false),
            ]
            .into_iter()
            .zip(codes)
            {
                let response = client.request(&mut world, request);
                assert_eq!(response.code(), code);
                if code == 0 {
                    assert_eq!(response.relayed()[0].is_ipv4(), is_ipv4);
                    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
                }
            }
        }
    }
}

/// The compatibility setting: the client's own family where it asks for none.
#[test]
fn the_default_family_can_be_the_clients() {
    let mut world = World::with(Rules { default_family: None, ..rules() });
    for address in BOTH_SIDES {
        let client = TestClient::new(&mut world, udp(address));
        let response = client.request(&mut world, Request::allocate());
        assert_eq!(response.relayed()[0].is_ipv4(), socket(address).is_ipv4());
    }
}

/// 8656-7.2-34, -35
#[test]
fn lifetimes_are_between_default_and_maximum() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for (asked, granted) in
        [(0, 600), (1, 600), (599, 600), (600, 600), (601, 601), (3600, 3600), (3601, 3600), (u32::MAX, 3600)]
    {
        let response = client.request(&mut world, Request::allocate().lifetime(asked));
        assert_eq!((response.code(), response.lifetime()), (0, granted));
        assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    }
}

/// 8656-7.2-21, -22, 8656-5-14, H-05
#[test]
fn quotas_are_counted_by_user() {
    let mut world = World::new();
    world.quota = 2;
    let first = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let _ = TestClient::allocated(&mut world, udp("192.0.2.2:1000"));
    let third = TestClient::new(&mut world, udp("192.0.2.3:1000"));
    assert_eq!(third.code(&mut world, Request::allocate()), 486);
    let bob = TestClient::with(&mut world, udp("192.0.2.3:1001"), Credentials::new("bob", "builder"));
    assert_eq!(bob.code(&mut world, Request::allocate()), 0);
    assert_eq!(first.code(&mut world, Request::refresh(0)), 0);
    assert_eq!(third.code(&mut world, Request::allocate()), 0);
}

/// 8656-7.2-16, -10
#[test]
fn what_cannot_be_had_is_a_lack_of_capacity() {
    let mut world = World::new();
    world.max_relays = 0;
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for request in [
        Request::allocate(),
        Request::allocate().raw(A::EVEN_PORT, [0]),
        Request::allocate().raw(A::EVEN_PORT, [0x80]),
        Request::allocate().raw(A::RESERVATION_TOKEN, [0x33; 8]),
    ] {
        assert_eq!(client.code(&mut world, request), 508);
    }
    assert_eq!((world.server.allocations(), world.server.totals().allocations()), (0, 0));
}

/// 8656-7.2-27, -28, 8656-18-04
#[test]
fn even_ports() {
    let mut world = World::new();
    for (bits, reserve) in [(0x00, false), (0x7F, false), (0x80, true), (0xFF, true)] {
        let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
        let response = client.request(&mut world, Request::allocate().raw(A::EVEN_PORT, [bits]));
        assert_eq!(world.asked, Some(AddressRequest::One { family: Family::V4, even: Some(reserve) }));
        assert_eq!(response.relayed()[0].port() % 2, 0);
        assert_eq!(response.get(A::RESERVATION_TOKEN).map(<[u8]>::len), reserve.then_some(8));
        assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    }
}

/// 8656-7.2-25, -26, -30
#[test]
fn a_reservation_token_works_once_from_any_five_tuple() {
    let mut world = World::new();
    let first = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let response = first.request(&mut world, Request::allocate().raw(A::EVEN_PORT, [0x80]));
    let token = response.get(A::RESERVATION_TOKEN).unwrap().to_vec();
    let claim = || Request::allocate().raw(A::RESERVATION_TOKEN, &token);

    let second = TestClient::new(&mut world, tcp("[2001:db8::7]:2000"));
    let claimed = second.request(&mut world, claim());
    assert_eq!(claimed.relayed()[0].ip(), response.relayed()[0].ip());
    assert_eq!(claimed.relayed()[0].port(), response.relayed()[0].port() + 1);
    assert!(!claimed.has(A::RESERVATION_TOKEN));

    let third = TestClient::new(&mut world, udp("192.0.2.3:1000"));
    assert_eq!(third.code(&mut world, claim()), 508);
}

/// 8656-5-13, 8656-7.2-41, 8489-6.3.1-02, -03
#[test]
fn a_retransmitted_allocate_gets_the_same_answer() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let bytes = client.sign(Request::allocate().lifetime(1000).raw(A::EVEN_PORT, [0x80])).build();
    let first = world.ask(&client.client, &bytes);
    assert_eq!(world.ask(&client.client, &bytes), first);
    world.pass(1_500);
    let later = world.ask(&client.client, &bytes);
    assert_eq!((later.relayed(), later.get(A::RESERVATION_TOKEN)), (first.relayed(), first.get(A::RESERVATION_TOKEN)));
    assert_eq!(later.lifetime(), 999, "the time left, rounded up");
    assert_eq!((world.server.allocations(), world.relays.len()), (1, 1));
    // The same transaction id on another 5-tuple is another transaction.
    let other = udp("192.0.2.1:1001");
    assert_eq!(world.ask(&other, &bytes).code(), 438);
}

/// A retransmission that overtakes its own relay sockets makes no second allocation, and what was opened for it is closed.
#[test]
fn an_allocate_that_is_completed_twice_makes_one_allocation() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let bytes = client.sign(Request::allocate()).build();
    let other = client.sign(Request::allocate()).build();
    let [first, again, another] = [&bytes, &bytes, &other].map(|bytes| world.pending(&client.client, bytes));
    let made = world.complete(first);
    let repeated = world.complete(again);
    assert_eq!((made.code(), repeated.code()), (0, 0));
    assert_eq!(repeated.relayed(), made.relayed());
    assert_eq!(world.complete(another).code(), 437);
    assert_eq!((world.server.allocations(), world.relays.len(), world.closed.len()), (1, 1, 2));
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
}

/// 8656-17-01
#[test]
fn an_allocate_indication_makes_nothing() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for class in [Class::Indication, Class::Success, Class::Error] {
        let request = client.sign(Request::allocate().class(class));
        assert_eq!(client.say(&mut world, &request), Out::Nothing);
    }
    assert_eq!(world.server.allocations(), 0);
}

/// 8656-5-07, 8489-6.3.1.1-05, 8489-14.14-01, 8489-16.1.2-01, 8489-7-01, 8489-14.7-01
#[test]
fn software_and_fingerprint_by_rule() {
    let software = Some("turnserver".to_owned());
    let mut world = World::with(Rules { software, always_fingerprint: true, ..rules() });
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for request in [Request::allocate(), Request::refresh(600), Request::refresh(0), Request::refresh(0)] {
        let response = client.request(&mut world, request);
        assert_eq!(response.get(A::SOFTWARE), Some(&b"turnserver"[..]));
        assert!(response.has(A::FINGERPRINT));
    }
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let response = client.request(&mut world, Request::allocate());
    assert!(!response.has_any(&[A::SOFTWARE, A::FINGERPRINT]));
}

/// 8489-6.1-01, 8489-16.1.2-02: fits an unknown path MTU.
#[test]
fn responses_are_small() {
    let mut world = World::with(Rules { software: Some("turnserver".to_owned()), ..rules() });
    let mut client = TestClient::with(&mut world, udp("[2001:db8::1]:1000"), Credentials::new("alice", "wonderland"));
    let challenge = world.ask(&client.client, &Request::allocate().build());
    client.learn(&challenge);
    let response = client.request(&mut world, Request::allocate().additional(2));
    assert_eq!(response.relayed().len(), 2);
    assert!(challenge.bytes.len() <= 548 && response.bytes.len() <= 548);
}
