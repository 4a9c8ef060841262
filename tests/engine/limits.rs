//! What the engine asks an allocation's meter, and what follows from its answers.

use std::{cell::RefCell, rc::Rc};

use turnserver::{
    stun::{AttributeType as A, Method},
    turn::{Client, Drop, Handle, Meter, RelayId, Time, Traffic},
};

use crate::support::{Out, Request, Response, TestClient, World, socket, tcp, udp};

const PEER: &str = "198.51.100.1:1";
const OTHER: &str = "198.51.100.2:2";

/// What a meter was told, and what it is to say.
#[derive(Debug, Default)]
struct Script {
    bytes: [usize; 2],
    peers: Vec<usize>,
    drops: Option<Drop>,
    refuses: bool,
    wait: Option<Time>,
}

struct TestMeter(Rc<RefCell<Script>>);

impl TestMeter {
    fn pass(&self, at: usize, bytes: usize) -> Result<(), Drop> {
        let mut script = self.0.borrow_mut();
        if let Some(reason) = script.drops {
            return Err(reason);
        }
        script.bytes[at] += bytes;
        Ok(())
    }
}

impl Meter for TestMeter {
    fn to_peer(&mut self, bytes: usize, _: Time) -> Result<(), Drop> {
        self.pass(0, bytes)
    }

    fn to_client(&mut self, bytes: usize, _: Time) -> Result<(), Drop> {
        self.pass(1, bytes)
    }

    fn wait(&mut self, _: usize, _: Time) -> Option<Time> {
        self.0.borrow().wait
    }

    fn add_peers(&mut self, peers: usize, _: Time) -> Result<(), &'static str> {
        let mut script = self.0.borrow_mut();
        if script.refuses {
            return Err("no more");
        }
        script.peers.push(peers);
        Ok(())
    }
}

/// A client whose allocation has a meter.
fn metered(world: &mut World, client: Client, allocate: Request) -> (TestClient, RelayId, Rc<RefCell<Script>>) {
    let client = TestClient::new(world, client);
    let relayed = client.request(world, allocate).relayed();
    let relay = world.relay_at(relayed[0]).unwrap();
    let handle: Handle = world.relays[&relay].handle.unwrap();
    let script = Rc::default();
    world.server.set_meter(handle, Some(Box::new(TestMeter(Rc::clone(&script)))));
    (client, relay, script)
}

fn words(response: &Response) -> (u16, String) {
    let words = response.get(A::ERROR_CODE).map_or(&[][..], |value| &value[4..]);
    (response.code(), String::from_utf8(words.to_vec()).unwrap())
}

#[test]
fn data_are_asked_for_and_dropped_for_the_reason_given() {
    let mut world = World::new();
    let (client, relay, script) = metered(&mut world, udp("192.0.2.1:1000"), Request::allocate());
    assert_eq!(client.code(&mut world, Request::permission(&[PEER, OTHER])), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    let everything = |world: &mut World| {
        let up = [client.say(world, &Request::send(OTHER, b"four")), client.channel_data(world, 0x4000, b"sixsix")];
        let down = [PEER, OTHER].map(|peer| world.receive_peer(relay, socket(peer), b"12345"));
        (up.into_iter().filter(|out| *out != Out::Nothing).count(), down.into_iter().flatten().count())
    };
    assert_eq!(everything(&mut world), (2, 2));
    assert_eq!(script.borrow().bytes, [10, 10]);
    let before = (world.server.totals().to_peers, world.server.totals().to_clients);
    assert_eq!(before, (Traffic { packets: 2, bytes: 10 }, Traffic { packets: 2, bytes: 10 }));
    for reason in [Drop::Bandwidth, Drop::PacketRate, Drop::MonthUsedUp] {
        script.borrow_mut().drops = Some(reason);
        assert_eq!(everything(&mut world), (0, 0));
        assert_eq!(world.server.totals().dropped(reason), 4);
    }
    // What is dropped is not counted, and what would be dropped anyway is not asked for.
    assert_eq!((world.server.totals().to_peers, world.server.totals().to_clients), before);
    script.borrow_mut().drops = None;
    assert_eq!(client.say(&mut world, &Request::send("198.51.100.3:1", b"x")), Out::Nothing);
    assert!(world.receive_peer(relay, socket("198.51.100.3:1"), b"x").is_none());
    assert_eq!(script.borrow().bytes, [10, 10]);
}

#[test]
fn new_peers_are_asked_for_and_old_ones_are_not() {
    let mut world = World::new();
    let (client, _, script) = metered(&mut world, udp("192.0.2.1:1000"), Request::allocate());
    assert_eq!(client.code(&mut world, Request::permission(&[PEER, OTHER, PEER])), 0);
    assert_eq!(client.code(&mut world, Request::permission(&[OTHER])), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    assert_eq!(script.borrow().peers, [2, 1]);
    // What is refused for another reason is not asked for.
    assert_eq!(client.code(&mut world, Request::permission(&["10.0.0.1:1"])), 403);
    assert_eq!(client.code(&mut world, Request::bind(0x4001, PEER)), 400);
    assert_eq!(script.borrow().peers, [2, 1]);

    script.borrow_mut().refuses = true;
    for refused in [Request::permission(&["198.51.100.3:1", PEER]), Request::bind(0x4001, OTHER)] {
        let response = client.request(&mut world, refused);
        assert_eq!(words(&response), (508, "Insufficient Capacity: no more".to_owned()));
    }
    assert_eq!(client.say(&mut world, &Request::send("198.51.100.3:1", b"x")), Out::Nothing);
    assert_eq!(client.channel_data(&mut world, 0x4001, b"x"), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::permission(&[PEER, OTHER])), 0);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
    // Permissions that have expired are new ones.
    world.pass(300_000);
    assert_eq!(client.code(&mut world, Request::permission(&[OTHER])), 508);
    assert_eq!(client.code(&mut world, Request::bind(0x4000, PEER)), 0);
}

#[test]
fn connections_are_new_peers() {
    let mut world = World::new();
    let allocate = || Request::allocate().with(A::REQUESTED_TRANSPORT, [6, 0, 0, 0]);
    let (client, _, script) = metered(&mut world, tcp("192.0.2.1:1000"), allocate());
    let connect = || Request::new(Method::Connect).peer(socket(PEER));
    script.borrow_mut().refuses = true;
    let response = client.request(&mut world, connect());
    assert_eq!(words(&response), (508, "Insufficient Capacity: no more".to_owned()));
    script.borrow_mut().refuses = false;
    assert!(matches!(client.say(&mut world, &client.sign(connect())), Out::Connect(_)));
    assert_eq!(script.borrow().peers, [1]);
}

#[test]
fn only_who_has_an_allocation_waits() {
    let mut world = World::new();
    let (client, _, script) = metered(&mut world, tcp("192.0.2.1:1000"), Request::allocate());
    let now = world.now;
    assert_eq!(world.server.wait(&client.client, 100, now), None);
    script.borrow_mut().wait = Some(Time(now.0 + 20));
    assert_eq!(world.server.wait(&client.client, 100, now), Some(Time(now.0 + 20)));
    assert_eq!(world.server.wait(&tcp("192.0.2.2:1000"), 100, now), None);
    assert_eq!(client.code(&mut world, Request::refresh(0)), 0);
    assert_eq!(world.server.wait(&client.client, 100, now), None);
}

/// 8656-10.2-06, 8656-12.2-07, 6062-5.1-03: 403 and 486 say why.
#[test]
fn refusals_say_why() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    for refused in [Request::permission(&["10.0.0.1:1"]), Request::bind(0x4000, "198.51.100.1:25")] {
        let response = client.request(&mut world, refused);
        assert_eq!(words(&response), (403, "Forbidden: this peer address is not allowed".to_owned()));
    }
    world.quota = 1;
    let other = TestClient::new(&mut world, udp("192.0.2.1:1001"));
    let response = other.request(&mut world, Request::allocate());
    assert_eq!(words(&response), (486, "Allocation Quota Reached: no more".to_owned()));
    let mut world = World::with(turnserver::turn::Rules { udp_relaying: false, ..crate::support::rules() });
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let response = client.request(&mut world, Request::allocate());
    assert_eq!(words(&response), (403, "Forbidden: UDP is not relayed here".to_owned()));
}
