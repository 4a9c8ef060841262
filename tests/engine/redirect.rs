//! Redirection of new allocations (RFC 8489 §10).

use turnserver::{
    stun::{AttributeType as A, Method},
    turn::{Redirect, Rules},
};

use crate::support::{Credentials, Request, TestClient, World, rules, socket, udp};

fn redirecting(servers: &[&str]) -> Rules {
    let servers = servers.iter().map(|server| socket(server)).collect();
    let secure_servers = vec![socket("192.0.2.60:5349"), socket("[2001:db8::60]:5349")];
    Rules {
        redirect: Some(Redirect { servers, secure_servers, domain: Some("turn.example.net".to_owned()) }),
        ..rules()
    }
}

/// 8489-10-01, -02, -03, -04, 8489-14.8-02, 8489-14.16-01, 8656-7.2-23
#[test]
fn an_allocate_is_sent_to_the_next_server_in_turn() {
    let (a, b, c) = ("192.0.2.50:3478", "192.0.2.51:3478", "[2001:db8::50]:3478");
    let mut world = World::with(redirecting(&[a, c, b]));
    let old = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let new = TestClient::with(&mut world, udp("[2001:db8::1]:1000"), Credentials::new("alice", "wonderland"));
    for (client, servers, domain) in
        [(&old, [a, c], None), (&old, [b, c], None), (&new, [c, a], Some(&b"turn.example.net"[..]))]
    {
        let response = client.request(&mut world, Request::allocate());
        assert_eq!(response.code(), 300);
        assert_eq!(response.plain_addresses(A::ALTERNATE_SERVER), servers.map(socket));
        assert_eq!(response.get(A::ALTERNATE_DOMAIN), domain);
    }
    assert_eq!(old.code(&mut world, Request::new(Method::Allocate)), 400);
    assert_eq!(old.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(world.asked, None);
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

/// 8489-12-03
#[test]
fn binding_is_not_redirected() {
    let mut world = World::with(redirecting(&["192.0.2.50:3478"]));
    assert_eq!(world.ask(&udp("192.0.2.1:1000"), &Request::new(Method::Binding).build()).code(), 0);
}
