//! Everything ends at its millisecond, whether or not a timer has come by.

use turnserver::turn::{EndReason, IcmpError, RelayId, Time};

use crate::support::{Out, Request, TestClient, World, socket, udp};

const PEER: &str = "198.51.100.1:1";
const OTHER: &str = "198.51.100.1:2";
const ERROR: IcmpError = IcmpError { kind: 3, code: 3, mtu: 0 };

fn allocated(world: &mut World) -> (TestClient, RelayId) {
    let client = TestClient::allocated(world, udp("192.0.2.1:1000"));
    let relay = *world.relays.keys().next_back().unwrap();
    (client, relay)
}

fn sends(world: &mut World, client: &TestClient) -> bool {
    client.say(world, &Request::send(PEER, b"x")) != Out::Nothing
}

/// 8656-9-02, -03, 8656-11.2-06, 8656-12.6-05: neither Send nor a peer's data prolong a permission.
#[test]
fn a_permission_lasts_300_seconds_from_its_last_request() {
    let mut world = World::new();
    let (client, relay) = allocated(&mut world);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    world.pass(200_000);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert_eq!(world.server.next_deadline().map(|at| at <= Time(world.now.0 + 300_000)), Some(true));
    world.pass(299_999);
    assert!(sends(&mut world, &client));
    assert!(world.receive_peer(relay, socket(PEER), b"x").is_some());
    assert!(world.receive_icmp(relay, socket(PEER), ERROR).is_some());
    world.pass(1);
    assert!(!sends(&mut world, &client));
    assert_eq!(world.receive_peer(relay, socket(PEER), b"x"), None);
    assert_eq!(world.receive_icmp(relay, socket(PEER), ERROR), None);
}

/// 8656-12-04, -05, 8656-9-03, 8656-12.6-05: a channel outlives its permission, its number and peer are free afterwards.
#[test]
fn a_channel_lasts_600_seconds_from_its_last_bind() {
    let mut world = World::new();
    let (client, relay) = allocated(&mut world);
    assert_eq!(client.code(&mut world, Request::refresh(3600)), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    world.pass(299_999);
    assert!(world.receive_peer(relay, socket(PEER), b"x").is_some());
    world.pass(1);
    assert_eq!(world.receive_peer(relay, socket(PEER), b"x"), None, "the permission has expired");
    assert_ne!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    world.pass(299_999);
    assert_ne!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, PEER)), 400);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, OTHER)), 400);
    world.pass(1);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, OTHER)), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, PEER)), 0);
    world.pass(299_999);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, PEER)), 0);
    world.pass(300_001);
    assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_ne!(client.channel_data(&mut world, 0x4001, b"x"), Out::Nothing);
}

/// 8656-6-04, -05, 8656-9-06: data do not prolong an allocation; nothing passes from its last millisecond on.
#[test]
fn an_allocation_ends_with_its_lifetime() {
    for timer in [false, true] {
        let mut world = World::new();
        let (client, relay) = allocated(&mut world);
        world.pass(599_999);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
        assert!(sends(&mut world, &client));
        world.expire();
        assert_eq!(world.server.allocations(), 1);
        assert_eq!(world.server.next_deadline(), Some(Time(world.now.0 + 1)));
        world.pass(1);
        if timer {
            world.expire();
        } else {
            assert_eq!(world.receive_peer(relay, socket(PEER), b"x"), None);
            assert_eq!(world.receive_icmp(relay, socket(PEER), ERROR), None);
        }
        assert!(!sends(&mut world, &client));
        assert_eq!(client.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
        assert_eq!(client.code(&mut world, Request::refresh(600)), 437);
        assert_eq!(world.ended.iter().map(|ended| ended.reason).collect::<Vec<_>>(), [EndReason::Expired]);
        assert_eq!((world.relays.len(), world.server.allocations()), (0, 0));
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
        assert!(!sends(&mut world, &client));
    }
}

/// A refreshed allocation is looked at when it is due, and not every time that it might have been.
#[test]
fn refreshing_moves_the_deadline() {
    let mut world = World::new();
    let (client, _) = allocated(&mut world);
    for _ in 0..5 {
        world.pass(500_000);
        world.expire();
        assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
    }
    world.pass(599_999);
    world.expire();
    assert_eq!(world.server.allocations(), 1);
    world.pass(1);
    world.expire();
    assert_eq!((world.server.allocations(), world.server.next_deadline()), (0, None));
}

/// H-14: connections that close, and a server that stops.
#[test]
fn ends_from_outside_close_everything() {
    let mut world = World::new();
    let (client, _) = allocated(&mut world);
    let _ = TestClient::allocated(&mut world, udp("192.0.2.2:1000"));
    let _ = TestClient::allocated(&mut world, udp("192.0.2.3:1000"));
    for _ in 0..2 {
        world.server.end_client(&client.client, EndReason::ConnectionClosed, world.now);
        world.settle();
        assert_eq!(world.server.allocations(), 2);
    }
    world.server.end_all(EndReason::Stopped, world.now);
    world.settle();
    assert_eq!((world.relays.len(), world.closed.len(), world.used["alice"]), (0, 3, 0));
    let reasons: Vec<EndReason> = world.ended.iter().map(|ended| ended.reason).collect();
    assert_eq!(reasons, [EndReason::ConnectionClosed, EndReason::Stopped, EndReason::Stopped]);
}
