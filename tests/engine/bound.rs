//! What is told to whoever relays beside this server (the kernel), and what is counted for it.

use turnserver::{
    stun::ChannelNumber,
    turn::{Effect, Handle, RelayId, Time, Traffic},
};

use crate::support::{Request, TestClient, World, socket, udp};

const PEER: &str = "198.51.100.1:1";
const NUMBER: ChannelNumber = ChannelNumber(0x4000);

fn bound(world: &mut World) -> (TestClient, RelayId, Handle) {
    let client = TestClient::allocated(world, udp("192.0.2.1:1000"));
    let (relay, handle) = world.relays.iter().next_back().map(|(id, relay)| (*id, relay.handle.unwrap())).unwrap();
    assert_eq!(client.code(world, Request::bind(NUMBER.0, PEER)), 0);
    (client, relay, handle)
}

/// The time until which data are relayed in the channel both ways, in milliseconds from now.
fn left(world: &World, handle: Handle) -> Option<u64> {
    world.server.bound_channel(handle, NUMBER, world.now).map(|bound| bound.until.0 - world.now.0)
}

#[test]
fn a_channel_is_told_with_the_end_of_the_first_to_expire() {
    let mut world = World::new();
    let (client, relay, handle) = bound(&mut world);
    assert!(matches!(world.bindings[..], [Effect::Bound(told, NUMBER)] if told == handle));
    let told = world.server.bound_channel(handle, NUMBER, world.now).unwrap();
    assert_eq!((told.peer, told.relay, told.client), (socket(PEER), relay, udp("192.0.2.1:1000")));
    assert_eq!(world.server.channels(handle), [NUMBER]);
    assert_eq!(left(&world, handle), Some(300_000), "the permission");
    world.pass(200_000);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert!(matches!(world.bindings[1..], [Effect::Permitted(told)] if told == handle));
    assert_eq!(left(&world, handle), Some(300_000));
    world.pass(200_000);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert_eq!(left(&world, handle), Some(200_000), "the binding, and the allocation");
    assert_eq!(client.code(&mut world, Request::bind(NUMBER.0, PEER)), 0);
    assert_eq!(left(&world, handle), Some(200_000), "the allocation");
    assert_eq!(client.code(&mut world, Request::refresh(3600)), 0);
    assert!(matches!(world.bindings.last(), Some(Effect::Refreshed(told)) if *told == handle));
    assert_eq!(left(&world, handle), Some(300_000));
    world.pass(299_999);
    assert_eq!(left(&world, handle), Some(1));
    world.pass(1);
    assert_eq!(left(&world, handle), None, "the permission has expired");
    assert_eq!(world.server.bound_channel(handle, ChannelNumber(0x4001), world.now), None);
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    assert_eq!(left(&world, handle), None);
}

#[test]
fn an_address_that_ends_takes_its_channels_along() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.request(&mut world, Request::allocate().additional(2)).relayed().len(), 2);
    let handle = world.relays.values().next().unwrap().handle.unwrap();
    for (number, peer) in [(0x4000, PEER), (0x4001, "[2001:db8:1::1]:1")] {
        assert_eq!(client.code(&mut world, Request::bind(number, peer)), 0);
    }
    world.bindings.clear();
    assert_eq!(client.code(&mut world, Request::refresh(0).family(1)), 0);
    assert!(world.bindings.iter().any(|effect| matches!(effect, Effect::Refreshed(told) if *told == handle)));
    assert_eq!(left(&world, handle), None);
    assert!(world.server.bound_channel(handle, ChannelNumber(0x4001), world.now).is_some());
}

#[test]
fn what_the_kernel_has_relayed_counts_like_everything_else() {
    let mut world = World::new();
    let (client, relay, handle) = bound(&mut world);
    let traffic = |packets, bytes| Traffic { packets, bytes };
    client.channel_data(&mut world, NUMBER.0, b"four");
    world.receive_peer(relay, socket(PEER), b"sixsix").unwrap();
    world.server.count_kernel(handle, traffic(10, 1000), traffic(20, 2000));
    let totals = world.server.totals();
    assert_eq!((totals.to_peers, totals.to_clients), (traffic(11, 1004), traffic(21, 2006)));
    assert_eq!((totals.kernel_to_peers, totals.kernel_to_clients), (traffic(10, 1000), traffic(20, 2000)));

    // An end that has been reported and not yet acted on.
    world.server.end_handle(handle, turnserver::turn::EndReason::Stopped, Time(world.now.0 + 1));
    world.server.count_kernel(handle, traffic(1, 1), traffic(2, 2));
    world.settle();
    let ended = world.ended.last().unwrap();
    assert_eq!((ended.to_peers, ended.to_client), (traffic(12, 1005), traffic(23, 2008)));
    world.server.count_kernel_late(traffic(1, 1), traffic(0, 0));
    assert_eq!(world.server.totals().kernel_to_peers, traffic(12, 1002));
}
