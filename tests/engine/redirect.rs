//! Redirection of new allocations (RFC 8489 §10).

use turnserver::{
    stun::{AttributeType as A, ErrorCode, Method},
    turn::{Alternate, Client, Redirect, Rules, Transport},
};

use crate::support::{Credentials, Request, TestClient, World, rules, socket, udp};

fn redirecting(servers: &[&str]) -> Rules {
    let servers = servers.iter().map(|server| alternate(server)).collect();
    Rules { redirect: Some(Redirect { servers, share: 100 }), ..rules() }
}

fn alternate(server: &str) -> Alternate {
    let transports = vec![Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls];
    Alternate { address: socket(server), transports, weight: 1, domain: Some("turn.example.net".to_owned()) }
}

fn over(transport: Transport, client: &str) -> Client {
    let mut client = udp(client);
    client.tuple.transport = transport;
    client
}

/// 8489-10-01, -02, -03, -04, 8489-14.8-02, 8489-14.16-01, 8656-7.2-23
#[test]
fn an_allocate_is_sent_to_the_next_server_in_turn() {
    let (a, b, c) = ("192.0.2.50:3478", "192.0.2.51:3478", "[2001:db8::50]:3478");
    let mut world = World::with(redirecting(&[a, c, b]));
    let old = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let new = || Credentials::new("alice", "wonderland");
    let plain = TestClient::with(&mut world, udp("[2001:db8::1]:1000"), new());
    let secured = TestClient::with(&mut world, over(Transport::Tls, "192.0.2.1:1001"), new());
    let old_secured = TestClient::new(&mut world, over(Transport::Dtls, "[2001:db8::1]:1001"));
    for (client, servers, domain) in [
        (&old, [a, c], None),
        (&old, [b, c], None),
        (&plain, [c, a], None),
        (&secured, [b, c], Some(&b"turn.example.net"[..])),
        (&old_secured, [c, a], None),
    ] {
        let response = client.request(&mut world, Request::allocate());
        assert_eq!(response.code(), 300);
        assert_eq!(response.plain_addresses(A::ALTERNATE_SERVER), servers.map(socket));
        assert_eq!(response.get(A::ALTERNATE_DOMAIN), domain);
    }
    assert_eq!(old.code(&mut world, Request::new(Method::Allocate)), 400);
    assert_eq!(old.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(world.asked, None);
}

/// Servers have their turns by weight, among those for the client's transport; other transports are served here.
#[test]
fn weights_and_transports() {
    let only = |server: &str, weight, transports: &[Transport]| Alternate {
        weight,
        transports: transports.to_vec(),
        domain: None,
        ..alternate(server)
    };
    let [a, b, c] = ["192.0.2.50:3478", "192.0.2.51:3478", "192.0.2.52:5349"];
    let servers = vec![
        only(a, 3, &[Transport::Udp]),
        only(b, 1, &[Transport::Udp, Transport::Tls]),
        only(c, 0, &[Transport::Tls]),
    ];
    let mut world = World::with(Rules { redirect: Some(Redirect { servers, share: 100 }), ..rules() });
    let mut count = |transport, client: &str| {
        let client = TestClient::new(&mut world, over(transport, client));
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..8 {
            for server in client.request(&mut world, Request::allocate()).plain_addresses(A::ALTERNATE_SERVER) {
                *counts.entry(server).or_insert(0) += 1;
            }
        }
        counts
    };
    assert_eq!(count(Transport::Udp, "192.0.2.1:1000"), [(socket(a), 6), (socket(b), 2)].into());
    assert_eq!(count(Transport::Tls, "192.0.2.1:1000"), [(socket(b), 8)].into());
    assert_eq!(count(Transport::Tcp, "192.0.2.1:1000"), [].into());
    assert_eq!(world.server.allocations(), 1);
}

/// A share is sent away, a retransmission with the first; who has an allocation keeps it.
#[test]
fn a_share_is_redirected_and_sessions_live_on() {
    let redirect = |share| Some(Redirect { servers: vec![alternate("192.0.2.50:3478")], share });
    let mut world = World::with(Rules { redirect: redirect(25), ..rules() });
    let (mut redirected, mut kept) = (0, Vec::new());
    world.quota = 1000;
    world.max_relays = 1000;
    for port in 1..=400 {
        let client = TestClient::new(&mut world, udp(&format!("192.0.2.1:{port}")));
        let request = client.sign(Request::allocate()).build();
        let code = world.ask(&client.client, &request).code();
        assert_eq!(world.ask(&client.client, &request).code(), code, "the retransmission");
        match code {
            0 => kept.push(client),
            300 => redirected += 1,
            code => panic!("{code}"),
        }
    }
    assert!((60..140).contains(&redirected), "{redirected} of 400");
    for client in &kept {
        assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
        assert_eq!(client.code(&mut world, Request::permission(&["198.51.100.1:1"])), 0);
    }
}

/// 8489-10-02: there is no 300 without a server of the client's family.
#[test]
fn no_redirection_across_families() {
    let mut world = World::with(redirecting(&["192.0.2.50:3478"]));
    let client = TestClient::new(&mut world, udp("[2001:db8::1]:1000"));
    assert_eq!(client.code(&mut world, Request::allocate()), 508);
}

/// 8489-14.8-02: a 300 is for requests with credentials.
#[test]
fn a_request_without_credentials_is_never_redirected() {
    let client = udp("192.0.2.1:1000");
    let rules = redirecting(&["192.0.2.50:3478"]);
    let mut world = World::with(rules.clone());
    assert_eq!(world.ask(&client, &Request::allocate().build()).code(), 401);
    let mut world = World::with(Rules { anonymous: true, ..rules });
    assert_eq!(world.ask(&client, &Request::allocate().build()).code(), 400);
}

/// While there are to be no new allocations, all are sent to the other servers, whatever their share, or refused where there is
/// none; who has an allocation keeps it.
#[test]
fn a_server_that_drains_takes_no_new_allocations() {
    let servers = vec![Alternate { transports: vec![Transport::Udp], ..alternate("192.0.2.50:3478") }];
    let redirect = Some(Redirect { servers, share: 0 });
    let mut world = World::with(Rules { redirect: redirect.clone(), ..rules() });
    let kept = TestClient::new(&mut world, udp("192.0.2.1:1"));
    let request = kept.sign(Request::allocate()).build();
    assert_eq!(world.ask(&kept.client, &request).code(), 0);
    let redirected = TestClient::new(&mut world, udp("192.0.2.1:2"));
    let refused = TestClient::new(&mut world, over(Transport::Tcp, "192.0.2.1:3"));
    for error in [ErrorCode::AllocationQuotaReached, ErrorCode::InsufficientCapacity] {
        world.refusal.set(Some(error));
        assert_eq!(redirected.code(&mut world, Request::allocate()), 300);
        assert_eq!(refused.code(&mut world, Request::allocate()), error.code());
        assert_eq!(world.ask(&kept.client, &request).code(), 0, "the retransmission");
        assert_eq!(kept.code(&mut world, Request::refresh(600)), 0);
    }
    assert_eq!(world.server.allocations(), 1);
    world.refusal.set(None);
    assert_eq!(redirected.code(&mut world, Request::allocate()), 0);

    let mut world = World::with(Rules { anonymous: true, redirect, ..rules() });
    world.refusal.set(Some(ErrorCode::InsufficientCapacity));
    assert_eq!(world.ask(&udp("192.0.2.1:4"), &Request::allocate().build()).code(), 508);
}

/// 8489-12-03
#[test]
fn binding_is_not_redirected() {
    let mut world = World::with(redirecting(&["192.0.2.50:3478"]));
    assert_eq!(world.ask(&udp("192.0.2.1:1000"), &Request::new(Method::Binding).build()).code(), 0);
}
