//! Credentials that end, access tokens (RFC 7635), realms, and users who are looked up elsewhere.

use std::time::Duration;

use sha2::{Digest, Sha256};
use turnserver::{
    auth::key::LongTermKey,
    stun::{AttributeType as A, IntegrityKey, MacAlgorithm, Message, Method},
    turn::{Client, Credential, Drop, EndReason, Realm, RealmId, Rules, Term},
};

use crate::support::{Credentials, REALM, Request, Response, TestClient, World, credential, realm, rules, udp};

const SERVER_NAME: &str = "turn.example.org";
const PEER: &str = "198.51.100.1:1";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A credential of the usual user under another name, as time-limited ones are, good for so many seconds and a grace.
fn limited(world: &mut World, name: &str, left: u64, grace: u64) {
    let key = long_term_key(name);
    let term = Some(Term { left: seconds(left), grace: seconds(grace) });
    world.others.retain(|(other, _, _)| other != name);
    world.others.push((name.to_owned(), None, Credential { term, ..credential("alice", &key) }));
}

fn long_term_key(name: &str) -> Vec<u8> {
    Credentials::old(name, "minted").long_term_key()
}

fn client_with(world: &mut World, name: &str) -> TestClient {
    TestClient::with(world, udp("192.0.2.1:1000"), Credentials::old(name, "minted"))
}

/// No lifetime reaches beyond the credential, whatever is asked for, and no default prolongs it.
#[test]
fn lifetimes_end_with_the_credential() {
    let mut world = World::new();
    limited(&mut world, "100:alice", 100, 0);
    let client = client_with(&mut world, "100:alice");
    let response = client.request(&mut world, Request::allocate().lifetime(3600));
    assert_eq!((response.code(), response.lifetime()), (0, 100));
    world.pass(40_500);
    assert_eq!(client.request(&mut world, Request::refresh(3600)).lifetime(), 59);
    assert_eq!(client.request(&mut world, Request::refresh(1)).lifetime(), 59);
    assert_eq!(world.queries, 1, "the key of the allocation is kept");
    world.pass(58_999);
    world.expire();
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 401, "less than a second is left");
    assert_eq!(world.server.allocations(), 1);
    world.pass(1_000);
    world.expire();
    assert_eq!(world.ended.len(), 1);
    assert_eq!(world.ended[0].reason, EndReason::CredentialExpired);
}

/// An allocation that is not refreshed ends as ever; one whose credential is over says so.
#[test]
fn the_reason_of_an_end_tells_whether_it_was_the_credential() {
    for (asked, reason) in [(600, EndReason::Expired), (3600, EndReason::CredentialExpired)] {
        let mut world = World::new();
        limited(&mut world, "1000:alice", 1000, 0);
        let client = client_with(&mut world, "1000:alice");
        assert_eq!(client.code(&mut world, Request::allocate().lifetime(asked)), 0);
        world.pass(1_000_000);
        world.expire();
        assert_eq!(world.ended[0].reason, reason);
    }
}

#[test]
fn a_newer_credential_of_the_same_user_prolongs_the_allocation() {
    let mut world = World::new();
    limited(&mut world, "100:alice", 100, 0);
    let mut client = client_with(&mut world, "100:alice");
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
    world.pass(50_000);
    limited(&mut world, "900:alice", 850, 0);
    client.credentials = Credentials::old("900:alice", "minted");
    assert_eq!(client.request(&mut world, Request::refresh(3600)).lifetime(), 850);
    let queries = world.queries;
    assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    assert_eq!(world.queries, queries, "the newer key is kept");
    // Another user's does not.
    world.users.insert("mallory".to_owned(), "minted".to_owned());
    client.credentials = Credentials::old("mallory", "minted");
    assert_eq!(client.code(&mut world, Request::refresh(3600)), 441);
}

/// In its grace a credential keeps what it has made, and makes nothing new.
#[test]
fn grace_is_for_what_is_there() {
    let mut world = World::new();
    limited(&mut world, "100:alice", 100, 60);
    let client = client_with(&mut world, "100:alice");
    let response = client.request(&mut world, Request::allocate().lifetime(3600));
    assert_eq!(response.lifetime(), 160);
    world.pass(110_000);
    limited(&mut world, "100:alice", 0, 50);
    assert_eq!(client.request(&mut world, Request::refresh(3600)).lifetime(), 50);
    // By another way of signing, so that it is looked up anew.
    let mut other = client.clone();
    other.credentials.mac = MacAlgorithm::Sha256;
    assert_eq!(other.request(&mut world, Request::refresh(3600)).lifetime(), 50);
    let late = TestClient::with(&mut world, udp("192.0.2.1:1001"), client.credentials.clone());
    assert_eq!(late.code(&mut world, Request::allocate()), 401);
    world.pass(50_000);
    world.expire();
    assert_eq!((world.server.allocations(), world.ended[0].reason), (0, EndReason::CredentialExpired));
}

/// A world that takes access tokens: each with its mac_key, for so many seconds.
fn world_with_tokens(tokens: &[(&str, &[u8], &[u8], u64)]) -> World {
    let third_party = Some(SERVER_NAME.to_owned());
    let mut world = World::with(Rules { realms: vec![Realm { third_party, ..realm(REALM) }], ..rules() });
    for (kid, token, mac_key, left) in tokens {
        let key = LongTermKey::Token((*mac_key).into());
        let term = Some(Term { left: seconds(*left), grace: Duration::ZERO });
        let subject = credential(&format!("{kid}#{token:?}"), mac_key).subject;
        let credential = Credential { subject, key, term, bearer: true, ..credential(kid, mac_key) };
        world.others.push(((*kid).to_owned(), Some(token.to_vec()), credential));
    }
    world
}

const NORTH: (&str, &[u8], &[u8], u64) = ("north", b"a token", b"a key of 160 bits...", 1000);
const SOUTH: (&str, &[u8], &[u8], u64) = ("south", b"another", b"a key of 256 bits, for SHA-256..", 2000);

/// A request with a token, signed with a key.
fn with_token(client: &TestClient, request: Request, kid: &str, token: &[u8], key: &IntegrityKey) -> Request {
    unsigned(client, request, kid).raw(A::ACCESS_TOKEN, token).integrity(key.clone())
}

fn unsigned(client: &TestClient, request: Request, kid: &str) -> Request {
    request.raw(A::USERNAME, kid).raw(A::REALM, REALM).raw(A::NONCE, &client.nonce)
}

fn sha1(key: &[u8]) -> IntegrityKey {
    IntegrityKey::new(MacAlgorithm::Sha1, key)
}

/// THIRD-PARTY-AUTHORIZATION, which only clients look for.
fn third_party(response: &Response) -> Option<&[u8]> {
    let mut attributes = Message::parse(&response.bytes).unwrap().attributes();
    attributes.find(|(found, _)| *found == A::THIRD_PARTY_AUTHORIZATION).map(|(_, value)| value)
}

/// 7635-4-01
#[test]
fn a_challenge_tells_that_tokens_serve() {
    let mut world = world_with_tokens(&[]);
    let response = world.ask(&udp("192.0.2.1:1000"), &Request::allocate().build());
    assert_eq!(third_party(&response), Some(SERVER_NAME.as_bytes()));
    let mut world = World::new();
    let response = world.ask(&udp("192.0.2.1:1000"), &Request::allocate().build());
    assert_eq!(third_party(&response), None);
}

/// 7635-7-01, -02, -04, -05, 7635-9-01
#[test]
fn a_token_takes_the_place_of_user_and_password() {
    let mut world = world_with_tokens(&[NORTH]);
    let client = client_with(&mut world, "unused");
    let (kid, token, mac_key, _) = NORTH;
    let ask = |world: &mut World, request: Request| world.ask(&client.client, &request.build());
    let allocate =
        |kid: &str, token: &[u8], key: &[u8]| with_token(&client, Request::allocate(), kid, token, &sha1(key));
    assert_eq!(ask(&mut world, allocate("other", token, mac_key)).code(), 401);
    assert_eq!(ask(&mut world, allocate(kid, b"altered", mac_key)).code(), 401);
    assert_eq!(ask(&mut world, allocate(kid, token, b"another key of 160 b")).code(), 401);
    assert_eq!(ask(&mut world, allocate(kid, token, mac_key).lifetime(3600)).code(), 0);
    let response = ask(&mut world, with_token(&client, Request::refresh(3600), kid, token, &sha1(mac_key)));
    assert_eq!((response.code(), response.lifetime()), (0, 1000));
    assert!(response.is_signed(MacAlgorithm::Sha1, mac_key));
    // Without the token, as in all but Allocate and Refresh.
    let request = unsigned(&client, Request::permission(&[PEER]), kid).integrity(sha1(mac_key));
    let response = ask(&mut world, request);
    assert!(response.code() == 0 && response.is_signed(MacAlgorithm::Sha1, mac_key));
}

/// A key of 256 bits may sign with SHA-256, without any password algorithm.
#[test]
fn a_token_may_sign_with_sha256() {
    let mut world = world_with_tokens(&[SOUTH]);
    let client = client_with(&mut world, "unused");
    let (kid, token, mac_key, _) = SOUTH;
    let key = IntegrityKey::new(MacAlgorithm::Sha256, mac_key);
    for request in [
        with_token(&client, Request::allocate(), kid, token, &key),
        unsigned(&client, Request::permission(&[PEER]), kid).integrity(key.clone()),
        with_token(&client, Request::refresh(600), kid, token, &key),
    ] {
        let response = world.ask(&client.client, &request.build());
        assert!(response.code() == 0 && response.is_signed(MacAlgorithm::Sha256, mac_key), "{response:?}");
    }
}

/// RFC 7635 §9: a new token refreshes the allocation, also one of another key; from then on its key counts.
#[test]
fn a_new_token_goes_on_with_the_allocation_of_the_old_one() {
    let mut world = world_with_tokens(&[NORTH, SOUTH]);
    let client = client_with(&mut world, "unused");
    let mut request =
        |request: Request, (kid, token, mac_key, _): (&str, &[u8], &[u8], u64), shown: bool| -> Response {
            let request = unsigned(&client, request, kid);
            let request = if shown { request.raw(A::ACCESS_TOKEN, token) } else { request };
            world.ask(&client.client, &request.integrity(sha1(mac_key)).build())
        };
    assert_eq!(request(Request::allocate(), NORTH, true).code(), 0);
    assert_eq!(request(Request::permission(&[PEER]), SOUTH, false).code(), 401, "it has not been shown");
    assert_eq!(request(Request::refresh(3600), SOUTH, true).lifetime(), 2000);
    assert_eq!(request(Request::permission(&[PEER]), SOUTH, false).code(), 0);
    assert_eq!(request(Request::permission(&[PEER]), NORTH, false).code(), 401, "it has been replaced");
    assert_eq!(request(Request::refresh(0), NORTH, true).code(), 0);
    assert!(world.ended[0].subject.user.starts_with("north#"), "whoever made it is whose it was");
}

/// A user with a password has nothing to do with the holder of a token, whatever it calls itself.
#[test]
fn a_token_does_not_serve_for_a_users_allocation() {
    let mut world = world_with_tokens(&[NORTH]);
    let (kid, token, mac_key, _) = NORTH;
    world.users.insert(kid.to_owned(), "minted".to_owned());
    let client = client_with(&mut world, kid);
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
    let refresh = with_token(&client, Request::refresh(0), kid, token, &sha1(mac_key));
    assert_eq!(world.ask(&client.client, &refresh.build()).code(), 441);
}

/// 7635-7-06: before anything else is looked at, so that a client learns that it needs other credentials.
#[test]
fn a_token_that_nobody_asked_for_is_an_unknown_attribute() {
    let mut world = World::new();
    let client = client_with(&mut world, "unused");
    let (kid, token, mac_key, _) = NORTH;
    let request = with_token(&client, Request::allocate(), kid, token, &sha1(mac_key));
    let response = world.ask(&client.client, &request.build());
    assert_eq!((response.code(), response.get(A::UNKNOWN_ATTRIBUTES)), (420, Some(&[0x00, 0x1B][..])));
    assert_eq!(world.queries, 0);
    world.answers.set(0);
    assert!(matches!(client.say(&mut world, &request), crate::support::Out::Nothing));
    let binding = Request::new(Method::Binding).raw(A::ACCESS_TOKEN, token);
    world.answers.set(1);
    assert_eq!(world.ask(&client.client, &binding.build()).code(), 420);
}

fn in_realm(client: Client, realm: u16) -> Client {
    Client { realm: RealmId(realm), ..client }
}

/// Each listener's clients are told its realm, and what serves there.
#[test]
fn clients_are_told_the_realm_of_their_listener() {
    let south = Realm { user_hashes: false, third_party: Some(SERVER_NAME.to_owned()), ..realm("south.gov") };
    let mut world = World::with(Rules { realms: vec![realm(REALM), south], ..rules() });
    let first = world.ask(&udp("192.0.2.1:1000"), &Request::allocate().build());
    let second = world.ask(&in_realm(udp("192.0.2.1:1001"), 1), &Request::allocate().build());
    assert_eq!([&first, &second].map(|response| response.get(A::REALM).unwrap()), [REALM.as_bytes(), b"south.gov"]);
    let features = |response: &Response| response.get(A::NONCE).unwrap()[9..13].to_vec();
    assert_eq!([features(&first), features(&second)], [b"wAAA", b"gAAA"]);
    assert_eq!([&first, &second].map(third_party), [None, Some(SERVER_NAME.as_bytes())]);
}

/// 8489-9.2.4-06: where USERHASH is not offered, it names nobody.
#[test]
fn a_hash_that_was_not_offered_is_nobodys() {
    for (user_hashes, code) in [(true, 0), (false, 401)] {
        let mut world = World::with(Rules { realms: vec![Realm { user_hashes, ..realm(REALM) }], ..rules() });
        let credentials = Credentials { anonymous: true, ..Credentials::old("alice", "wonderland") };
        let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
        assert_eq!(client.code(&mut world, Request::allocate()), code);
    }
}

/// What may be reached is decided by the user's realm, not by the one that the client was told.
#[test]
fn peers_are_those_of_the_users_realm() {
    let mut world = World::with(Rules { realms: vec![realm(REALM), realm("south.gov")], ..rules() });
    let subject = credential("bob", &[]).subject;
    let key = long_term_key("bob@south.gov");
    let south = Credential { subject, realm: RealmId(1), ..credential("bob", &key) };
    world.others.push(("bob@south.gov".to_owned(), None, south));
    for (client, credentials, code) in [
        ("192.0.2.1:1000", Credentials::old("alice", "wonderland"), 403),
        ("192.0.2.1:1001", Credentials::old("bob@south.gov", "minted"), 0),
    ] {
        let client = TestClient::with(&mut world, udp(client), credentials);
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
        assert_eq!(client.code(&mut world, Request::permission(&["10.0.0.1:1"])), code);
        assert_eq!(client.code(&mut world, Request::bind(0x4000, "10.0.0.1:1")), code);
    }
}

/// Several keys may have made a request; the one that did counts.
#[test]
fn the_secret_that_verifies_is_the_one_that_counts() {
    let mut world = World::new();
    for (secret, password) in [("old", "by the old one"), ("new", "by the new one")] {
        let key = Credentials::old("1:alice", password).long_term_key();
        let credential = Credential { secret: Some(secret.into()), ..credential("alice", &key) };
        world.others.push(("1:alice".to_owned(), None, credential));
    }
    for (port, password) in [(1000, "by the old one"), (1001, "by the new one")] {
        let credentials = Credentials::old("1:alice", password);
        let client = TestClient::with(&mut world, udp(&format!("192.0.2.1:{port}")), credentials);
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
    }
    let client = TestClient::with(&mut world, udp("192.0.2.1:1002"), Credentials::old("1:alice", "by neither"));
    assert_eq!(client.code(&mut world, Request::allocate()), 401);
}

/// A world whose store knows bob.
fn world_with_store() -> World {
    let mut world = World::new();
    world.users.remove("bob");
    let key = Credentials::old("bob", "builder").long_term_key();
    world.store = Some(Ok(vec![credential("bob", &key)]));
    world
}

#[test]
fn a_store_is_asked_after_what_is_known_at_once() {
    let mut world = world_with_store();
    let alice = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    assert_eq!(alice.code(&mut world, Request::allocate()), 0);
    assert_eq!(world.stored_queries, 0);
    let bob = TestClient::with(&mut world, udp("192.0.2.1:1001"), Credentials::old("bob", "builder"));
    assert_eq!(bob.code(&mut world, Request::allocate()), 0);
    assert_eq!(bob.code(&mut world, Request::permission(&[PEER])), 0);
    assert_eq!(world.stored_queries, 1);
    let mallory = TestClient::with(&mut world, udp("192.0.2.1:1002"), Credentials::old("mallory", "guess"));
    assert_eq!(mallory.code(&mut world, Request::allocate()), 401);
    assert_eq!(world.stored_queries, 2);
}

/// H-16: nobody is looked up, and nothing is kept, for a client that has not shown that it receives at its address; nor more
/// often than it may draw challenges.
#[test]
fn a_store_is_asked_only_about_clients_with_an_address_and_a_share() {
    let mut world = world_with_store();
    let mut bob = TestClient::with(&mut world, udp("192.0.2.1:1001"), Credentials::old("bob", "builder"));
    let good = bob.nonce.clone();
    bob.nonce = TestClient::new(&mut world, udp("192.0.2.1:1002")).nonce;
    let response = bob.request(&mut world, Request::allocate());
    assert_eq!((response.code(), world.stored_queries), (438, 0));
    world.answers.set(0);
    assert!(matches!(bob.say(&mut world, &bob.sign(Request::allocate())), crate::support::Out::Nothing));
    bob.nonce = good;
    assert!(matches!(bob.say(&mut world, &bob.sign(Request::allocate())), crate::support::Out::Nothing));
    assert_eq!((world.stored_queries, world.server.totals().dropped(Drop::RateLimited)), (0, 2));
    world.answers.set(1);
    assert_eq!(bob.code(&mut world, Request::allocate()), 0);
}

/// A store that is out of reach stops new clients with a 500, and nobody who is there.
#[test]
fn a_dead_store_stops_nobody_who_is_there() {
    let mut world = world_with_store();
    let clients =
        [Credentials::old("bob", "builder"), Credentials { anonymous: true, ..Credentials::old("bob", "builder") }];
    let clients: Vec<TestClient> = clients
        .into_iter()
        .zip(1000..)
        .map(|(credentials, port)| TestClient::with(&mut world, udp(&format!("192.0.2.1:{port}")), credentials))
        .collect();
    for client in &clients {
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
    }
    world.store = Some(Err(()));
    for client in &clients {
        assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
        assert_eq!(client.code(&mut world, Request::permission(&[PEER])), 0);
    }
    let new = TestClient::with(&mut world, udp("192.0.2.1:2000"), Credentials::old("bob", "builder"));
    let response = world.ask(&new.client, &new.sign(Request::allocate()).build());
    assert_eq!(response.code(), 500);
    assert!(!response.has_any(&[A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256]));
    assert_eq!(world.ask(&new.client, &Request::new(Method::Binding).build()).code(), 0);
    let alice = TestClient::new(&mut world, udp("192.0.2.1:2001"));
    assert_eq!(alice.code(&mut world, Request::allocate()), 0);
}

/// The names that clients call themselves are compared by a keyed hash; another name asks anew.
#[test]
fn another_name_with_the_key_of_an_allocation_is_another_user() {
    let mut world = World::new();
    let client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let request = client.identify(Request::refresh(0)).with(A::USERNAME, "mallory");
    let response = world.ask(&client.client, &request.integrity(client.credentials.key()).build());
    assert_eq!(response.code(), 401);
    let hash = Sha256::digest(format!("mallory:{REALM}"));
    let request = client.identify(Request::refresh(0)).without(A::USERNAME).raw(A::USERHASH, hash);
    let response = world.ask(&client.client, &request.integrity(client.credentials.key()).build());
    assert_eq!((response.code(), world.server.allocations()), (401, 1));
}
