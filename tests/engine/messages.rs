//! Messages as such: Binding, unknown attributes, what is dropped (RFC 8489 §6.3, §9, §12).

use turnserver::{
    stun::{AttributeType as A, Class, Method, PasswordAlgorithm},
    turn::{Answer, REPLY_LEN, Rules, Step},
};

use crate::support::{Credentials, Out, Request, TestClient, World, rules, socket, tcp, udp};

/// 8489-6.3.1.1-06, -07, 8489-12-01, -02, -05, 8489-6.3-10
#[test]
fn binding_tells_the_clients_address() {
    let mut world = World::new();
    for client in [udp("192.0.2.1:1000"), tcp("192.0.2.1:1000"), udp("[2001:db8::1]:1000")] {
        let unexpected = Request::new(Method::Binding).lifetime(0).channel(0x4000).raw(A(0xFFF0), b"odd");
        for request in [Request::new(Method::Binding), Request::new(Method::Binding).fingerprint(), unexpected] {
            let response = world.ask(&client, &request.build());
            assert_eq!(response.addresses(A::XOR_MAPPED_ADDRESS), [client.tuple.client]);
            assert_eq!(response.message().attributes().count(), 1);
        }
        for class in [Class::Indication, Class::Success, Class::Error] {
            assert_eq!(world.send(&client, &Request::new(Method::Binding).class(class).build()), Out::Nothing);
        }
    }
}

/// 8489-6.3.1-01, 8489-6.3.1.1-03, 8489-14.13-01, 8489-6.3-09
#[test]
fn unknown_required_attributes_are_all_named() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let unknown =
        |method| Request::new(method).raw(A(0x7FF0), [1]).raw(A(0xFFF0), [2]).raw(A(0x0003), [0; 4]).raw(A(0x7FFF), []);
    let expected = Some(&[0x7F, 0xF0, 0x00, 0x03, 0x7F, 0xFF][..]);
    let binding = world.ask(&client.client, &unknown(Method::Binding).build());
    assert_eq!((binding.code(), binding.get(A::UNKNOWN_ATTRIBUTES)), (420, expected));
    for method in [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind] {
        let response = client.request(&mut world, unknown(method));
        assert_eq!((response.code(), response.get(A::UNKNOWN_ATTRIBUTES)), (420, expected));
    }
    assert_eq!(client.code(&mut world, Request::refresh(600).raw(A(0xFFF0), [])), 0);
}

/// 8489-6.3-08
#[test]
fn authentication_comes_before_unknown_attributes() {
    let mut world = World::new();
    let client = udp("192.0.2.1:1000");
    let request = Request::allocate().raw(A(0x7FF0), []);
    assert_eq!(world.ask(&client, &request.build()).code(), 401);
}

/// 8489-9-01, -02
#[test]
fn attributes_after_the_integrity_attribute_have_no_effect() {
    for credentials in [
        Credentials::old("alice", "wonderland"),
        Credentials { algorithm: Some(PasswordAlgorithm::Sha256), ..Credentials::new("alice", "wonderland") },
    ] {
        let mut world = World::new();
        let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
        let request = client.sign(Request::new(Method::Refresh)).lifetime(0).family(2).raw(A(0x7FF0), []);
        let response = world.ask(&client.client, &request.build());
        assert_eq!((response.code(), response.lifetime()), (0, 600));
        // Credentials after it are none.
        let late = client.identify(Request::refresh(0)).without(A::REALM).integrity(client.credentials.key());
        let late = late.raw(A::REALM, "example.org");
        assert_eq!(world.ask(&client.client, &late.build()).code(), 400);
        let fenced = client.sign(Request::refresh(900)).fingerprint();
        assert_eq!(world.ask(&client.client, &fenced.build()).lifetime(), 900);
    }
}

/// 8489-6.3-02, -03, -04, -06, -07, -11, 8656-5-08
#[test]
fn what_is_no_message_for_a_server_is_dropped() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let good = client.sign(Request::refresh(0)).fingerprint().build();
    let altered = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let mut bad: Vec<Vec<u8>> = vec![
        altered(&|bytes| bytes[4] ^= 1),
        altered(&|bytes| bytes[3] ^= 1),
        altered(&|bytes| bytes[3] ^= 4),
        altered(&|bytes| bytes.truncate(bytes.len() - 4)),
        altered(&|bytes| bytes.push(0)),
        altered(&|bytes| *bytes.last_mut().unwrap() ^= 1),
        altered(&|bytes| bytes[23] = 0xFF),
        good[..19].to_vec(),
    ];
    for method in [0x000u16, 0x005, 0x07F, 0xFFF] {
        let spread = (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2;
        let mut bytes = Request::new(Method::Binding).build();
        bytes[..2].copy_from_slice(&spread.to_be_bytes());
        bad.push(bytes);
    }
    for bytes in bad {
        assert_eq!(world.send(&client.client, &bytes), Out::Nothing);
    }
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.ask(&client.client, &good).code(), 0);
}

/// 8489-14-04: what stands in the padding is not looked at.
#[test]
fn padding_may_hold_anything() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let mut bytes = client.identify(Request::allocate().raw(A(0xFFF0), [1])).build();
    let odd = bytes.windows(5).position(|window| window == [0xFF, 0xF0, 0, 1, 1]).unwrap();
    bytes[odd + 5..odd + 8].fill(0x20);
    let tag = client.credentials.key().tag(&bytes).unwrap();
    bytes.extend_from_slice(&[0, 8, 0, 20]);
    bytes.extend_from_slice(&tag[..20]);
    let len = u16::try_from(bytes.len() - 20).unwrap();
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(world.ask(&client.client, &bytes).code(), 0);
}

/// 8489-12-06, 8656-5-08: RFC 3489 clients, where they are let in, get MAPPED-ADDRESS, and nothing but Binding.
#[test]
fn classic_binding_by_switch() {
    let client = udp("192.0.2.1:1000");
    let classic = |method: Method| {
        let mut bytes = Request::new(method).build();
        bytes[4..8].copy_from_slice(b"3489");
        bytes
    };
    let mut world = World::new();
    assert_eq!(world.send(&client, &classic(Method::Binding)), Out::Nothing);
    let mut world = World::with(Rules { rfc3489: true, ..rules() });
    assert_eq!(world.send(&client, &classic(Method::Allocate)), Out::Nothing);
    assert_eq!(world.ask(&client, &Request::new(Method::Binding).build()).code(), 0);

    let (request, mut reply) = (classic(Method::Binding), [0; REPLY_LEN]);
    let step = world.server.from_client(&client, &request, Answer::Unasked, &mut reply, world.now);
    let Step::Reply(len) = step else { panic!("no reply: {step:?}") };
    assert_eq!(reply[4..20], request[4..20], "the 128-bit transaction id");
    assert_eq!(reply[..len], [&[1, 1, 0, 12][..], &request[4..20], &[0, 1, 0, 8, 0, 1, 3, 232, 192, 0, 2, 1]].concat());
    assert_eq!(client.tuple.client, socket("192.0.2.1:1000"));
}
