//! Mobility (RFC 8016): tickets, moves, and what becomes of the 5-tuples.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};
use turnserver::{
    stun::{AttributeType as A, Method},
    turn::{Client, Effect, EndReason, Mobility, Rules, Traffic},
};

use crate::support::{Credentials, Out, Request, Response, TestClient, World, rules, socket, tcp, udp};

const PEER: &str = "198.51.100.1:1000";

fn world(worker: u8) -> World {
    World::with(Rules { mobility: Some(Mobility { worker, key: [5; 32] }), ..rules() })
}

fn asking() -> Request {
    Request::allocate().raw(A::MOBILITY_TICKET, [])
}

fn showing(ticket: &[u8]) -> Request {
    Request::refresh(600).raw(A::MOBILITY_TICKET, ticket)
}

fn ticket(response: &Response) -> Vec<u8> {
    response.get(A::MOBILITY_TICKET).expect("a ticket").to_vec()
}

/// A client with an allocation, a permission for [`PEER`], a channel to it, and its ticket.
fn mobile(world: &mut World, client: Client) -> (TestClient, Vec<u8>) {
    let client = TestClient::new(world, client);
    let response = client.request(world, asking());
    assert_eq!(response.code(), 0);
    assert_eq!(client.code(world, Request::bind(0x4000, PEER)), 0);
    (client, ticket(&response))
}

/// Where a peer's datagram to the only relay socket goes.
fn goes_to(world: &mut World) -> Option<Client> {
    let relay = *world.relays.keys().next().expect("a relay socket");
    let (client, message) = world.receive_peer(relay, socket(PEER), b"data")?;
    assert_eq!(message, [0x40, 0, 0, 4, b'd', b'a', b't', b'a'], "over the channel");
    Some(client)
}

/// 8016-3.1.2-01, -02, -03, -04, -05, -06, 8016-3.2.2-01
#[test]
fn a_ticket_for_who_asks_for_it() {
    let mut forbidden = World::new();
    let client = TestClient::new(&mut forbidden, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut forbidden, asking()), 405);
    assert_eq!(client.code(&mut forbidden, Request::allocate().raw(A::MOBILITY_TICKET, [1])), 400);
    assert_eq!(client.code(&mut forbidden, showing(&[1; 42])), 405);

    let mut world = world(0);
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(client.code(&mut world, Request::allocate().raw(A::MOBILITY_TICKET, [1])), 400);
    let request = client.sign(asking()).build();
    let [first, again] = [(); 2].map(|()| world.ask(&client.client, &request));
    assert!(!ticket(&first).is_empty() && first.bytes.len() < 548);
    assert_eq!((again.code(), again.relayed()), (0, first.relayed()));
    let other = TestClient::new(&mut world, udp("192.0.2.1:1001"));
    assert!(!other.request(&mut world, Request::allocate()).has(A::MOBILITY_TICKET));
}

/// Connections with peers end with the client's (RFC 6062 §5.5).
#[test]
fn there_is_no_ticket_for_tcp() {
    let mut world = world(0);
    let client = TestClient::new(&mut world, tcp("192.0.2.1:1000"));
    let tcp_allocation = || Request::new(Method::Allocate).raw(A::REQUESTED_TRANSPORT, [6, 0, 0, 0]);
    assert_eq!(client.code(&mut world, tcp_allocation().raw(A::MOBILITY_TICKET, [1])), 400);
    assert_eq!(client.code(&mut world, tcp_allocation().raw(A::MOBILITY_TICKET, [])), 405);
    let response = client.request(&mut world, tcp_allocation());
    assert_eq!((response.code(), response.has(A::MOBILITY_TICKET)), (0, false));
    world.server.end_client(&client.client, EndReason::ConnectionClosed, world.now);
    assert_eq!(world.server.allocations(), 0);
}

/// 8016-3.2.2-02, -07, -08, -09, -10, -11
#[test]
fn both_5_tuples_serve_until_data_come_from_the_new_one() {
    let mut world = world(0);
    let (old, first) = mobile(&mut world, udp("192.0.2.1:1000"));
    let new = TestClient::new(&mut world, tcp("[2001:db8::7]:2000"));
    assert_eq!(new.channel_data(&mut world, 0x4000, b"early"), Out::Nothing);
    let response = new.request(&mut world, showing(&first));
    assert_eq!((response.code(), response.lifetime()), (0, 600));
    let second = ticket(&response);
    assert_ne!(first, second);

    for _ in 0..2 {
        assert_eq!(goes_to(&mut world), Some(old.client));
        assert!(matches!(old.channel_data(&mut world, 0x4000, b"x"), Out::Peer { .. }));
        // Requests are no data.
        assert_eq!(new.code(&mut world, Request::permission(&["198.51.100.2:1"])), 0);
        assert_eq!(new.code(&mut world, Request::refresh(600)), 0);
        assert_eq!(new.code(&mut world, asking()), 437);
    }
    assert!(world.moves.iter().all(|effect| matches!(effect, Effect::Joined(_))));
    assert!(matches!(new.channel_data(&mut world, 0x4000, b"x"), Out::Peer { .. }));
    assert!(matches!(
        world.moves[1..],
        [Effect::Moved { from, to, .. }, Effect::Left(left)]
            if (from, to, left) == (old.client.tuple, new.client.tuple, old.client)
    ));
    assert_eq!(goes_to(&mut world), Some(new.client));
    assert_eq!(old.channel_data(&mut world, 0x4000, b"late"), Out::Nothing);
    assert_eq!(old.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(old.request(&mut world, Request::allocate()).code(), 0, "the old 5-tuple is free");

    assert_eq!(new.code(&mut world, Request::refresh(0)), 0);
    let ended = &world.ended[0];
    assert_eq!((ended.to_peers.packets, ended.to_client.packets, ended.client), (3, 3, new.client.tuple));
}

/// 8016-3.2.2-03, -04, -05, -06, 8016-5-03
#[test]
fn what_is_wrong_with_a_ticket() {
    let mut world = world(0);
    let (old, ticket) = mobile(&mut world, udp("192.0.2.1:1000"));
    let new = TestClient::new(&mut world, udp("192.0.2.1:2000"));
    assert_eq!(old.code(&mut world, showing(&ticket)), 400, "the same 5-tuple");
    let mut altered = ticket.clone();
    altered[20] ^= 4;
    for bad in [&[][..], &[0; 42], &altered, &ticket[1..]] {
        assert_eq!(new.code(&mut world, showing(bad)), 400);
    }
    assert_eq!(world.ask(&new.client, &showing(&ticket).build()).code(), 401);
    let thief = TestClient::with(&mut world, udp("192.0.2.1:3000"), Credentials::old("bob", "builder"));
    assert_eq!(thief.code(&mut world, showing(&ticket)), 441);
    let busy = TestClient::allocated(&mut world, udp("192.0.2.1:4000"));
    assert_eq!(busy.code(&mut world, showing(&ticket)), 437, "one allocation per 5-tuple");
    assert_eq!(new.code(&mut world, showing(&ticket).with(A::LIFETIME, [1])), 400);
    assert_eq!(goes_to(&mut world), Some(old.client));
    assert!(world.moves.is_empty());
    assert_eq!(old.code(&mut world, Request::refresh(0)), 0);
    assert_eq!(new.code(&mut world, showing(&ticket)), 437, "the allocation is gone");
}

/// 8016-3.2.2-12, -13
#[test]
fn an_old_ticket_serves_retransmissions_alone() {
    let mut world = world(0);
    let (_, first) = mobile(&mut world, udp("192.0.2.1:1000"));
    let new = TestClient::new(&mut world, udp("192.0.2.1:2000"));
    let third = TestClient::new(&mut world, udp("192.0.2.1:3000"));
    let request = new.sign(showing(&first)).build();
    let second = ticket(&world.ask(&new.client, &request));
    world.pass(15_000);
    assert_eq!(world.ask(&new.client, &request).code(), 0);
    assert_eq!(third.code(&mut world, showing(&first)), 400);
    assert_eq!(new.code(&mut world, showing(&second)), 400, "the same 5-tuple");
    assert!(matches!(new.channel_data(&mut world, 0x4000, b"x"), Out::Peer { .. }));
    assert_eq!(third.code(&mut world, showing(&first)), 400);
    world.pass(15_000);
    let again = world.ask(&new.client, &request);
    assert_eq!(again.code(), 0);
    world.pass(15_000);
    assert_eq!(world.ask(&new.client, &request).code(), 400, "this is no retransmission any more");
    // Every answer had a ticket that is good.
    assert_eq!(third.code(&mut world, showing(&ticket(&again))), 0);
    assert_eq!(new.code(&mut world, Request::refresh(600)), 0);
}

/// A client that changes its mind: the 5-tuple in between belongs to nobody any more.
#[test]
fn a_third_5_tuple_takes_the_place_of_the_second() {
    let mut world = world(0);
    let (old, first) = mobile(&mut world, udp("192.0.2.1:1000"));
    let [second, third] = ["192.0.2.1:2000", "192.0.2.1:3000"].map(|at| TestClient::new(&mut world, udp(at)));
    let next = ticket(&second.request(&mut world, showing(&first)));
    assert_eq!(third.code(&mut world, showing(&next)), 0);
    assert_eq!(second.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(second.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(goes_to(&mut world), Some(old.client));
    assert!(matches!(third.channel_data(&mut world, 0x4000, b"x"), Out::Peer { .. }));
    assert_eq!(goes_to(&mut world), Some(third.client));
}

/// 8016-3.2.2-15: break before make. The connection ends, the allocation waits for its ticket.
#[test]
fn an_allocation_with_a_ticket_outlives_its_connection() {
    let mut world = world(0);
    let (old, first) = mobile(&mut world, tcp("192.0.2.1:1000"));
    world.server.end_client(&old.client, EndReason::ConnectionClosed, world.now);
    world.settle();
    assert_eq!(goes_to(&mut world), None);
    // Another connection of the same 5-tuple is another client.
    assert_eq!(old.channel_data(&mut world, 0x4000, b"x"), Out::Nothing);
    assert_eq!(old.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(old.code(&mut world, showing(&first)), 0);
    assert_eq!(goes_to(&mut world), Some(old.client), "there is no other path");
    world.server.end_client(&old.client, EndReason::ConnectionClosed, world.now);
    world.pass(600_000);
    world.expire();
    assert_eq!((world.ended[0].reason, world.relays.len()), (EndReason::Expired, 0));
}

/// 8016-3.2.2-09: a closed connection is as good as data on the new 5-tuple, and a closed new one changes nothing.
#[test]
fn closed_connections_on_the_way() {
    let mut world = world(0);
    let (old, first) = mobile(&mut world, tcp("192.0.2.1:1000"));
    let new = TestClient::new(&mut world, tcp("192.0.2.1:2000"));
    let second = ticket(&new.request(&mut world, showing(&first)));
    world.server.end_client(&new.client, EndReason::ConnectionClosed, world.now);
    assert_eq!(goes_to(&mut world), Some(old.client));
    let third = ticket(&new.request(&mut world, showing(&second)));
    world.server.end_client(&old.client, EndReason::ConnectionClosed, world.now);
    assert_eq!(goes_to(&mut world), Some(new.client));
    assert_eq!(old.code(&mut world, showing(&third)), 0);
    // Without a ticket an allocation ends with its connection.
    let plain = TestClient::allocated(&mut world, tcp("192.0.2.1:4000"));
    world.server.end_client(&plain.client, EndReason::ConnectionClosed, world.now);
    world.settle();
    assert_eq!(world.ended[0].client, plain.client.tuple);
}

/// LIFETIME 0 with a ticket ends the allocation from anywhere.
#[test]
fn a_ticket_deletes() {
    let mut world = world(0);
    let (_, first) = mobile(&mut world, udp("192.0.2.1:1000"));
    let new = TestClient::new(&mut world, udp("192.0.2.1:2000"));
    let response = new.request(&mut world, showing(&first).with(A::LIFETIME, [0; 4]));
    assert_eq!((response.code(), response.lifetime(), response.has(A::MOBILITY_TICKET)), (0, 0, false));
    assert_eq!(world.server.allocations(), 0);
}

/// A client whose allocation another worker has: known by its ticket at first, then as a guest.
#[test]
fn what_is_for_another_worker_is_handed_over() {
    let (mut home, mut host) = (world(3), world(1));
    let (_, first) = mobile(&mut home, udp("192.0.2.1:1000"));
    let guest = TestClient::new(&mut host, tcp("192.0.2.1:2000"));
    let request = guest.sign(showing(&first)).build();
    assert_eq!(host.send(&guest.client, &request), Out::Forward(3));
    assert_eq!(home.ask(&guest.client, &request).code(), 0, "nonces are good for all workers");
    assert_eq!(host.send(&guest.client, &[0x40, 0, 0, 0]), Out::Nothing, "it is not known yet");
    // Without a ticket that opens nothing is handed over.
    assert_eq!(host.ask(&guest.client, &guest.sign(showing(&[0; 42])).build()).code(), 400);

    assert!(host.server.admit(&guest.client, 3));
    for message in [
        vec![0x40, 0, 0, 0],
        Request::send(PEER, b"x").build(),
        guest.sign(Request::refresh(600)).build(),
        guest.sign(Request::allocate()).build(),
    ] {
        assert_eq!(host.send(&guest.client, &message), Out::Forward(3));
        let _ = home.send(&guest.client, &message);
    }
    assert_eq!(goes_to(&mut home), Some(guest.client));
    assert!(matches!(host.send(&guest.client, &Request::new(Method::Binding).build()), Out::Reply(_)));
    // A connection that an allocation may move to becomes no client data connection (RFC 6062 §5.4).
    let bind = guest.sign(Request::new(Method::ConnectionBind).raw(A::CONNECTION_ID, [0, 0, 0, 1])).build();
    assert_eq!(host.ask(&guest.client, &bind).code(), 400);
    host.server.dismiss(&guest.client, 2);
    assert!(host.server.has_allocation(&guest.client) && !host.server.owns_allocation(&guest.client));
    host.server.end_client(&guest.client, EndReason::ConnectionClosed, host.now);
    host.settle();
    assert!(matches!(host.moves[..], [Effect::GuestGone { client, home: 3 }] if client == guest.client));
    assert!(!host.server.has_allocation(&guest.client));

    let owner = TestClient::allocated(&mut host, udp("192.0.2.1:3000"));
    assert!(!host.server.admit(&owner.client, 3), "it has an allocation here");
    assert_eq!(owner.code(&mut host, showing(&first)), 437);
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    /// A Refresh with this ticket, counted from the newest.
    Show {
        client: usize,
        age: usize,
    },
    Data {
        client: usize,
    },
    FromPeer,
    Close {
        client: usize,
    },
    Pass {
        milliseconds: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let client = || 0..5usize;
    prop_oneof![
        6 => (client(), prop_oneof![5 => Just(0usize), 1 => 1..3usize])
            .prop_map(|(client, age)| Operation::Show { client, age }),
        5 => client().prop_map(|client| Operation::Data { client }),
        4 => Just(Operation::FromPeer),
        2 => (2..5usize).prop_map(|client| Operation::Close { client }),
        2 => prop_oneof![0..2_000u64, 30_000..50_000u64].prop_map(|milliseconds| Operation::Pass { milliseconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: one 5-tuple gets the data, at most two may send, the counts, the permission and
    /// the channel stay, and a bystander's allocation is left alone.
    #[test]
    fn an_allocation_is_where_its_tickets_and_data_say(operations in vec(operation(), 40)) {
        let mut world = world(0);
        let addresses = [udp("192.0.2.1:1000"), udp("192.0.2.1:2000"), tcp("192.0.2.1:3000"), tcp("192.0.2.1:4000")];
        let (first, ticket_0) = mobile(&mut world, addresses[0]);
        let mut clients = vec![first];
        clients.extend(addresses[1..].iter().map(|at| TestClient::new(&mut world, *at)));
        clients.push(TestClient::allocated(&mut world, tcp("192.0.2.1:5000")));
        let bystander = 4;

        let (mut at, mut arriving, mut used) = (Some(0), None, HashMap::new());
        let mut tickets = vec![ticket_0];
        let (mut to_peers, mut to_client) = (Traffic::default(), Traffic::default());
        let (mut bystander_lives, mut now) = (true, 0);
        for operation in operations {
            // Nothing expires in this test.
            for client in [at, arriving].into_iter().flatten() {
                prop_assert_eq!(clients[client].code(&mut world, Request::bind(0x4000, PEER)), 0);
                prop_assert_eq!(clients[client].code(&mut world, Request::refresh(3600)), 0);
            }
            match operation {
                Operation::Show { client, age } => {
                    let Some(newest) = tickets.len().checked_sub(1 + age) else { continue };
                    let response = clients[client].request(&mut world, showing(&tickets[newest]).lifetime(3600));
                    let belongs = at == Some(client) || arriving == Some(client);
                    let again = age == 1 && belongs && used.get(&newest).is_some_and(|(by, until)| *by == client && now < *until);
                    let expected = match () {
                        () if again => 0,
                        () if belongs || age > 0 => 400,
                        () if client == bystander && bystander_lives => 437,
                        () => 0,
                    };
                    prop_assert_eq!(response.code(), expected);
                    if expected == 0 && !again {
                        tickets.push(ticket(&response));
                        used.insert(newest, (client, now + 40_000));
                        if at.is_none() { at = Some(client) } else { arriving = Some(client) }
                    }
                }
                Operation::Data { client } => {
                    let out = clients[client].channel_data(&mut world, 0x4000, b"abc");
                    let belongs = at == Some(client) || arriving == Some(client);
                    prop_assert_eq!(matches!(out, Out::Peer { .. }), belongs);
                    if belongs {
                        to_peers.packets += 1;
                        to_peers.bytes += 3;
                    }
                    if arriving == Some(client) {
                        (at, arriving) = (arriving, None);
                    }
                }
                Operation::FromPeer => {
                    prop_assert_eq!(goes_to(&mut world), at.map(|at: usize| clients[at].client));
                    if at.is_some() {
                        to_client.packets += 1;
                        to_client.bytes += 4;
                    }
                }
                Operation::Close { client } => {
                    world.server.end_client(&clients[client].client, EndReason::ConnectionClosed, world.now);
                    world.settle();
                    if arriving == Some(client) {
                        arriving = None;
                    } else if at == Some(client) {
                        at = arriving.take();
                    } else if client == bystander {
                        bystander_lives = false;
                    }
                }
                Operation::Pass { milliseconds } => {
                    world.pass(milliseconds);
                    now += milliseconds;
                }
            }
            prop_assert_eq!(world.server.allocations(), 1 + usize::from(bystander_lives));
        }
        world.server.end_all(EndReason::Stopped, world.now);
        world.settle();
        let mine = world.ended.iter().find(|ended| ended.reason == EndReason::Stopped && ended.id.0 == 100).unwrap();
        prop_assert_eq!((mine.to_peers, mine.to_client), (to_peers, to_client));
        prop_assert_eq!(world.relays.len(), 0);
        // As many joined as left, the one that never joined aside.
        let balance: i32 = world.moves.iter().map(|effect| match effect {
            Effect::Joined(_) => 1,
            Effect::Left(_) => -1,
            _ => 0,
        }).sum();
        prop_assert_eq!(balance, -1);
    }
}
