//! Ending sessions from outside.

use std::sync::Arc;

use turnserver::turn::{AllocationId, Credential, EndReason, Revocation, Subject};

use crate::support::{Credentials, Out, Request, TestClient, World, credential, udp};

const PEER: &str = "198.51.100.1:1";

/// A world with a session of alice by password, two by secrets (one of them bob's), and one of a namesake in another realm.
fn world() -> (World, [TestClient; 4]) {
    let mut world = World::new();
    for (name, user, realm, secret) in [
        ("1:alice", "alice", "example.org", "old"),
        ("1:bob", "bob", "example.org", "new"),
        ("1:namesake", "alice", "south.gov", "old"),
    ] {
        let key = Credentials::old(name, "minted").long_term_key();
        let subject = Arc::new(Subject::new(user, realm));
        let credential = Credential { subject, secret: Some(secret.into()), ..credential(user, &key) };
        world.others.push((name.to_owned(), None, credential));
    }
    let all = [("alice", "wonderland"), ("1:alice", "minted"), ("1:bob", "minted"), ("1:namesake", "minted")];
    let mut port = 1000;
    let clients = all.map(|(name, password)| {
        port += 1;
        let client = udp(&format!("192.0.2.1:{port}"));
        let client = TestClient::with(&mut world, client, Credentials::old(name, password));
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
        assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
        client
    });
    (world, clients)
}

/// Which of the sessions are left after a revocation that ends so many.
fn left_after(revocation: &Revocation, count: usize) -> Vec<usize> {
    let (mut world, clients) = world();
    assert_eq!(world.server.revoke(revocation, world.now), count);
    world.settle();
    assert_eq!(world.ended.len(), count);
    assert!(world.ended.iter().all(|ended| ended.reason == EndReason::Revoked));
    let relays = |client: &TestClient, world: &mut World| {
        matches!(client.say(world, &Request::send(PEER, b"data")), Out::Peer { .. })
    };
    let left = clients.iter().enumerate().filter(|(_, client)| relays(client, &mut world)).map(|(at, _)| at);
    left.collect()
}

#[test]
fn all_sessions_of_a_user_end() {
    let user = |realm: &str, user: &str| Revocation::User { realm: realm.into(), user: user.into() };
    assert_eq!(left_after(&user("example.org", "alice"), 2), [2, 3]);
    assert_eq!(left_after(&user("south.gov", "alice"), 1), [0, 1, 2]);
    assert_eq!(left_after(&user("example.org", "1:alice"), 0), [0, 1, 2, 3]);
}

#[test]
fn all_sessions_of_a_secret_end() {
    let secret = |realm: &str, name: &str| Revocation::Secret { realm: realm.into(), name: name.into() };
    assert_eq!(left_after(&secret("example.org", "old"), 1), [0, 2, 3]);
    assert_eq!(left_after(&secret("example.org", "new"), 1), [0, 1, 3]);
    assert_eq!(left_after(&secret("example.org", "unknown"), 0), [0, 1, 2, 3]);
}

#[test]
fn one_session_ends() {
    // The first id that the world's engine gives out.
    assert_eq!(left_after(&Revocation::Session(AllocationId(101)), 1), [0, 2, 3]);
    assert_eq!(left_after(&Revocation::Session(AllocationId(7)), 0), [0, 1, 2, 3]);
}

/// What was revoked is gone at once, and the client may come again: whether it is let in is not decided here.
#[test]
fn a_revoked_client_is_as_new() {
    let (mut world, [alice, ..]) = world();
    world.server.revoke(&Revocation::User { realm: "example.org".into(), user: "alice".into() }, world.now);
    world.settle();
    assert_eq!(alice.code(&mut world, Request::refresh(600)), 437);
    assert_eq!(alice.code(&mut world, Request::allocate()), 0);
}
