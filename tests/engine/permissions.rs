//! Permissions and CreatePermission (RFC 8656 §9, §10).

use turnserver::stun::{AttributeType as A, Class, Method};

use crate::support::{Out, Request, TestClient, World, socket, udp};

const PEER: &str = "198.51.100.1:1";

fn may_send(world: &mut World, client: &TestClient, peer: &str) -> bool {
    client.say(world, &Request::send(peer, b"x")) != Out::Nothing
}

/// 8656-9-01, 8656-10.2-02, -07, -08, 8489-14.1-02
#[test]
fn a_permission_is_for_an_address_not_for_a_port() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::permission(&["198.51.100.1:0", "198.51.100.2:5"])), 0);
    for (peer, allowed) in [(PEER, true), ("198.51.100.1:9", true), ("198.51.100.2:6", true), ("198.51.100.3:1", false)]
    {
        assert_eq!(may_send(&mut world, &client, peer), allowed);
        let relay = *world.relays.keys().next().unwrap();
        assert_eq!(world.receive_peer(relay, socket(peer), b"x").is_some(), allowed);
    }
}

/// 8656-10.2-01, -03, -05, -06, -09, 8656-21.4-01 as far as the policy is asked
#[test]
fn a_refused_request_installs_nothing() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let bad = |value: &[u8]| Request::permission(&[PEER]).raw(A::XOR_PEER_ADDRESS, value);
    for (code, request) in [
        (400, Request::permission(&[])),
        (400, bad(&[])),
        (400, bad(&[0, 3, 0, 1, 1, 2, 3, 4])),
        (400, bad(&[0, 1, 0, 1, 1, 2, 3])),
        (400, bad(&[0, 2, 0, 1, 1, 2, 3, 4])),
        (443, Request::permission(&[PEER, "[2001:db8:1::1]:1"])),
        (403, Request::permission(&[PEER, "10.0.0.1:1"])),
    ] {
        assert_eq!(client.code(&mut world, request), code);
        assert!(!may_send(&mut world, &client, PEER));
    }
}

/// 8656-10.2-04, H-06
#[test]
fn permissions_are_limited_and_their_refresh_is_not() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let five = ["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1", "198.51.100.4:1", "198.51.100.5:1"];
    assert_eq!(client.code(&mut world, Request::permission(&five)), 0);
    for one_more in ["198.51.100.6:1", "198.51.100.7:1"] {
        assert_eq!(client.code(&mut world, Request::permission(&[PEER, one_more])), 508);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, one_more)), 508);
        assert!(!may_send(&mut world, &client, one_more));
    }
    assert_eq!(client.code(&mut world, Request::permission(&five)), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    world.pass(300_000);
    assert_eq!(client.code(&mut world, Request::permission(&["198.51.100.6:1"])), 0, "the others have expired");
}

/// 8656-9-05
#[test]
fn allocations_do_not_share_permissions() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let other = TestClient::allocated(&mut world, udp("192.0.2.1:1001"));
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert!(may_send(&mut world, &client, PEER));
    assert!(!may_send(&mut world, &other, PEER));
}

/// 8656-17-01, 8489-6.3-05
#[test]
fn create_permission_is_a_request_only() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for method in [Method::CreatePermission, Method::ChannelBind, Method::Refresh] {
        for class in [Class::Indication, Class::Success, Class::Error] {
            let request = Request::new(method).class(class).channel(0x4000).lifetime(0).peer(socket(PEER));
            assert_eq!(client.say(&mut world, &client.sign(request)), Out::Nothing);
        }
    }
    assert_eq!(world.server.allocations(), 1);
    assert!(!may_send(&mut world, &client, PEER));
}
