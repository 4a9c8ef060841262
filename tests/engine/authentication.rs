//! The long-term credential mechanism (RFC 8489 §9.2.4).

use std::time::Duration;

use turnserver::{
    stun::{AttributeType as A, IntegrityKey, MacAlgorithm, Method, PasswordAlgorithm},
    turn::{Drop, Realm, Rules},
};

use crate::support::{Credentials, Out, REALM, Request, Response, TestClient, World, realm, rules, tcp, udp};

/// What neither a challenge nor a 400 may carry.
const NEVER: [A; 4] = [A::USERNAME, A::USERHASH, A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256];
const HASH_FIRST: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

fn alice() -> Credentials {
    Credentials::old("alice", "wonderland")
}

/// Every way in which a good client may authenticate.
fn all_styles() -> Vec<Credentials> {
    let mut styles = Vec::new();
    for algorithm in [None, Some(PasswordAlgorithm::Md5), Some(PasswordAlgorithm::Sha256)] {
        for mac in [MacAlgorithm::Sha1, MacAlgorithm::Sha256] {
            for anonymous in [false, true] {
                styles.push(Credentials { algorithm, mac, anonymous, ..alice() });
            }
        }
    }
    styles
}

/// Code and exact attributes of a 401 or 438.
fn assert_challenge(response: &Response, code: u16) {
    assert_eq!(response.code(), code);
    assert_eq!(response.get(A::REALM), Some(REALM.as_bytes()));
    assert_eq!(response.get(A::PASSWORD_ALGORITHMS), Some(&HASH_FIRST[..]));
    let nonce = std::str::from_utf8(response.get(A::NONCE).unwrap()).unwrap();
    assert!(nonce.starts_with("obMatJos2wAAA") && nonce.len() < 128, "{nonce}");
    assert!(!response.has_any(&NEVER));
}

/// Code and exact attributes of a 400 before authentication.
fn assert_bad_request(response: &Response) {
    assert_eq!(response.code(), 400);
    assert!(!response.has_any(&NEVER) && !response.has_any(&[A::NONCE, A::REALM, A::PASSWORD_ALGORITHMS]));
}

/// 8489-9.2.4-01, -02, -03, -05, -06, -07, 8489-9.2-01, 8489-14.9-01, 8489-14.10-01, 8489-18.5-02, 8656-5-01,
/// 8656-7.2-01
#[test]
fn a_request_without_integrity_is_challenged() {
    let mut world = World::new();
    let client = udp("192.0.2.1:1000");
    for method in [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind] {
        assert_challenge(&world.ask(&client, &Request::new(method).build()), 401);
    }
    assert_eq!((world.queries, world.server.allocations()), (0, 0));
}

/// 8489-9.2.4-04, 8656-5-02
#[test]
fn no_two_challenges_have_the_same_nonce() {
    let mut world = World::new();
    let nonces = ["192.0.2.1:1000", "192.0.2.1:1001", "192.0.2.2:1000", "192.0.2.1:1000"]
        .map(|address| TestClient::new(&mut world, udp(address)).nonce);
    for (at, nonce) in nonces.iter().enumerate() {
        assert!(!nonces[at + 1..].contains(nonce));
    }
}

/// 8489-9.2.4-08, -09, -10, -11
#[test]
fn integrity_without_user_realm_or_nonce_is_bad() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    for mac in [MacAlgorithm::Sha1, MacAlgorithm::Sha256] {
        let key = IntegrityKey::new(mac, &client.credentials.long_term_key());
        for missing in [A::USERNAME, A::REALM, A::NONCE] {
            let request = client.identify(Request::allocate()).without(missing).integrity(key.clone());
            assert_bad_request(&world.ask(&client.client, &request.build()));
        }
    }
}

/// 8489-9.2.2-01, 8489-9.2.4-12, -27, -28, -29, 8489-14.4-01, 8489-14.5-01, 8489-14.6-02, 8489-14.12-01, 8489-18.5-01,
/// 8489-6.3.1.1-04
#[test]
fn every_style_is_served_and_answered_in_kind() {
    for credentials in all_styles() {
        let mut world = World::new();
        let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
        // `code` checks the integrity of each response.
        assert_eq!(client.code(&mut world, Request::allocate()), 0, "{client:?}");
        assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
        assert_eq!(client.code(&mut world, Request::permission(&[])), 400);
        let protected = client.sign(Request::refresh(600)).fingerprint();
        let response = world.ask(&client.client, &protected.build());
        assert!(response.has(A::FINGERPRINT));
        assert!(response.is_signed(client.credentials.reply_mac(), &client.credentials.long_term_key()));
    }
}

/// 8489-9.2.4-27, -28: also when the key that is kept with the allocation was made in another style.
#[test]
fn the_response_suits_its_own_request_whatever_came_before() {
    for first in all_styles() {
        for second in all_styles() {
            let mut world = World::new();
            let mut client = TestClient::with(&mut world, udp("192.0.2.1:1000"), first.clone());
            assert_eq!(client.code(&mut world, Request::allocate()), 0);
            client.credentials = second;
            assert_eq!(client.code(&mut world, Request::refresh(600)), 0, "{first:?}, then {client:?}");
        }
    }
}

/// The users are not asked for each request of an allocation that is made in the style of its Allocate.
#[test]
fn the_key_of_an_allocation_is_kept() {
    for algorithm in [None, Some(PasswordAlgorithm::Sha256)] {
        let mut world = World::new();
        let mac = if algorithm.is_some() { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 };
        let credentials = Credentials { algorithm, mac, ..alice() };
        let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
        for request in [Request::allocate(), Request::refresh(600), Request::permission(&["198.51.100.1:1"])] {
            assert_eq!(client.code(&mut world, request), 0);
        }
        assert_eq!(world.queries, 1);
    }
}

/// 8489-9.2.4-13, -14, -15, 8489-14.11-01
#[test]
fn password_algorithms_must_come_back_as_they_went_out() {
    let mut world = World::new();
    let credentials = Credentials::new("alice", "wonderland");
    let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
    assert_eq!(client.offered, HASH_FIRST);
    let good = || client.identify(Request::allocate());
    let lists: [&[u8]; 6] =
        [&[0, 1, 0, 0, 0, 2, 0, 0], &[0, 2, 0, 0], &[0, 1, 0, 0], &[], &[HASH_FIRST, HASH_FIRST].concat(), &[0, 2]];
    let choices: [&[u8]; 6] =
        [&[0x77, 0x77, 0, 0], &[0, 0, 0, 0], &[0, 2], &[], &[0, 2, 0, 9], &[0, 2, 0, 4, 1, 2, 3, 4]];
    let altered = [A::PASSWORD_ALGORITHMS, A::PASSWORD_ALGORITHM].map(|alone| good().without(alone)).into_iter();
    let altered = altered.chain(lists.map(|list| good().with(A::PASSWORD_ALGORITHMS, list)));
    let altered = altered.chain(choices.map(|choice| good().with(A::PASSWORD_ALGORITHM, choice)));
    for request in altered {
        let bytes = request.integrity(client.credentials.key()).build();
        assert_bad_request(&world.ask(&client.client, &bytes));
    }
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
}

/// 8489-9.2.4-15: MD5 is no choice where it is not offered.
#[test]
fn an_algorithm_that_is_not_offered_is_refused() {
    let only_sha256 = Realm { password_algorithms: vec![PasswordAlgorithm::Sha256], ..realm(REALM) };
    let mut world = World::with(Rules { realms: vec![only_sha256], ..rules() });
    let credentials = Credentials { algorithm: Some(PasswordAlgorithm::Md5), ..alice() };
    let mut client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
    let request = client.sign(Request::allocate());
    assert_bad_request(&world.ask(&client.client, &request.build()));
    client.credentials = Credentials::new("alice", "wonderland");
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
}

/// 8489-9.2.4-16, -17, -18, -19, -21, -22, 8489-14.3-01, H-12
#[test]
fn unknown_users_and_wrong_passwords_look_alike() {
    let long_name = "x".repeat(763);
    let strangers = [("mallory", "wonderland"), ("alice", "guess"), ("", "wonderland"), (&long_name, "wonderland")];
    for style in all_styles() {
        let mut world = World::new();
        let mut client = TestClient::with(&mut world, udp("192.0.2.1:1000"), style.clone());
        for (user, password) in strangers {
            let (user, password) = (user.to_owned(), password.to_owned());
            client.credentials = Credentials { user, password, ..style.clone() };
            assert_challenge(&client.request(&mut world, Request::allocate()), 401);
        }
        client.credentials = style;
        assert_eq!(client.code(&mut world, Request::allocate()), 0);
        client.credentials.password = "guess".to_owned();
        assert_challenge(&client.request(&mut world, Request::refresh(0)), 401);
        assert_eq!(world.server.allocations(), 1);
    }
}

/// A name that is no UTF-8, or a hash of the wrong length, is nobody's.
#[test]
fn a_user_that_cannot_exist_is_unknown() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let name = client.identify(Request::allocate()).with(A::USERNAME, [0xFF, 0xFE]);
    let hash = client.identify(Request::allocate()).without(A::USERNAME).raw(A::USERHASH, [1; 31]);
    for request in [name, hash] {
        let bytes = request.integrity(client.credentials.key()).build();
        assert_challenge(&world.ask(&client.client, &bytes), 401);
    }
    assert_eq!(world.queries, 0);
}

/// 8489-9.2.4-20
#[test]
fn the_stronger_of_two_integrity_attributes_counts() {
    let mut world = World::new();
    let client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let right = client.credentials.long_term_key();
    let both = |sha1: &[u8], sha256: &[u8]| {
        client
            .identify(Request::allocate())
            .integrity(IntegrityKey::new(MacAlgorithm::Sha1, sha1))
            .integrity(IntegrityKey::new(MacAlgorithm::Sha256, sha256))
            .build()
    };
    assert_challenge(&world.ask(&client.client, &both(&right, b"wrong")), 401);
    let response = world.ask(&client.client, &both(b"wrong", &right));
    assert!(response.code() == 0 && response.is_signed(MacAlgorithm::Sha1, &right));
}

/// 8489-14.6-01
#[test]
fn a_truncated_or_overlong_integrity_attribute_never_passes() {
    let mut world = World::new();
    let credentials = Credentials { mac: MacAlgorithm::Sha256, ..alice() };
    let client = TestClient::with(&mut world, udp("192.0.2.1:1000"), credentials);
    for len in [0, 4, 16, 20, 28, 36, 64] {
        let unsigned = client.identify(Request::allocate()).build();
        // The MAC over a message whose length field ends with an attribute of this length.
        let mut covered = unsigned.clone();
        let total = u16::try_from(unsigned.len() - 20 + 4 + len).unwrap();
        covered[2..4].copy_from_slice(&total.to_be_bytes());
        let mut tag = client.credentials.key().tag(&unsigned).unwrap().to_vec();
        tag.resize(len, 0);
        covered.extend_from_slice(&[0x00, 0x1C, 0, u8::try_from(len).unwrap()]);
        covered.extend_from_slice(&tag);
        assert_challenge(&world.ask(&client.client, &covered), 401);
    }
}

/// 8489-9.2.4-23, -24, -25, -26, -31, -32, H-07
#[test]
fn a_nonce_that_is_not_this_clients_own_is_stale() {
    let mut world = World::new();
    let mut client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    let genuine = client.nonce.clone();
    let flipped = |at: usize| {
        let mut nonce = genuine.clone();
        nonce[at] ^= 1;
        nonce
    };
    let mut wrong = vec![b"my own".to_vec(), Vec::new(), genuine[..genuine.len() - 1].to_vec()];
    wrong.extend((0..genuine.len()).map(flipped));
    wrong.push(TestClient::new(&mut world, udp("192.0.2.1:1001")).nonce);
    wrong.push(TestClient::new(&mut world, udp("192.0.2.2:1000")).nonce);
    wrong.push(TestClient::new(&mut world, tcp("192.0.2.1:1000")).nonce);
    // The features stripped, so that the client would fall back to what is weaker.
    wrong.push([b"obMatJos2AAAA", &genuine[13..]].concat());
    for nonce in wrong {
        client.nonce = nonce;
        let response = client.request(&mut world, Request::allocate());
        assert_challenge(&response, 438);
        client.learn(&response);
        assert_eq!(client.code(&mut world, Request::refresh(0)), 437, "the new nonce is good");
    }
}

/// 8489-9.2.4-30
#[test]
fn the_checks_come_in_the_order_of_the_rfc() {
    let mut world = World::new();
    let mut client = TestClient::with(&mut world, udp("192.0.2.1:1000"), Credentials::new("mallory", "guess"));
    client.nonce = b"stale".to_vec();
    let key = client.credentials.key();
    let all_wrong = || client.identify(Request::refresh(0)).with(A::PASSWORD_ALGORITHM, [9; 4]);
    let mut code = |request: Request| world.ask(&client.client, &request.build()).code();
    assert_eq!(code(all_wrong().raw(A(0x7FF0), [])), 401, "no integrity");
    assert_eq!(code(all_wrong().without(A::REALM).integrity(key.clone())), 400, "no realm");
    assert_eq!(code(all_wrong().integrity(key.clone())), 400, "unknown algorithm");
    assert_eq!(code(client.sign(Request::refresh(0))), 401, "unknown user");
    client.credentials.user = "alice".to_owned();
    assert_eq!(code(client.sign(Request::refresh(0))), 401, "wrong password");
    client.credentials.password = "wonderland".to_owned();
    assert_eq!(code(client.sign(Request::refresh(0).raw(A(0x7FF0), []))), 438, "stale nonce");
}

/// 8656-5-03, 8489-9.2.4-32: not a second longer than it is meant to live.
#[test]
fn a_nonce_expires() {
    let mut world = World::with(Rules { nonce_lifetime: Duration::from_secs(60), ..rules() });
    let mut client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    world.pass(59_999);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
    world.pass(1);
    let response = client.request(&mut world, Request::refresh(600));
    assert_challenge(&response, 438);
    client.learn(&response);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
}

/// 8656-5-04, 8656-21.3-01
#[test]
fn another_valid_user_may_not_touch_an_allocation() {
    let mut world = World::new();
    let mut client = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let alice = client.credentials.clone();
    for bob in [Credentials::old("bob", "builder"), Credentials::new("bob", "builder")] {
        client.credentials = bob;
        for request in
            [Request::refresh(0), Request::permission(&["198.51.100.1:1"]), Request::bind(0x4000, "198.51.100.1:1")]
        {
            assert_eq!(client.code(&mut world, request), 441);
        }
        assert_eq!(client.code(&mut world, Request::allocate()), 437);
    }
    client.credentials = alice;
    assert_eq!(client.say(&mut world, &Request::send("198.51.100.1:1", b"x")), Out::Nothing);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
}

/// H-10, H-16: answers that need no credentials can be held back; stale nonces come with the right ones and cannot.
#[test]
fn unauthenticated_answers_are_limited() {
    let mut world = World::new();
    let mut client = TestClient::new(&mut world, udp("192.0.2.1:1000"));
    world.answers.set(1);
    let bare = Request::allocate();
    assert!(matches!(client.say(&mut world, &bare), Out::Reply(_)));
    assert_eq!(client.say(&mut world, &bare), Out::Nothing);
    assert_eq!(client.say(&mut world, &Request::new(Method::Binding)), Out::Nothing);
    let no_realm = client.identify(Request::allocate()).without(A::REALM).integrity(client.credentials.key());
    assert_eq!(client.say(&mut world, &no_realm), Out::Nothing);
    assert_eq!(world.server.totals().dropped(Drop::RateLimited), 3);
    // Any user could have a 438 sent to any address that has not shown that it receives.
    let good = client.nonce.clone();
    client.nonce[20] ^= 1;
    let stale = client.sign(Request::allocate());
    assert_eq!(client.say(&mut world, &stale), Out::Nothing);
    client.nonce = good;
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
    // Who has an allocation there has shown it.
    client.nonce[20] ^= 1;
    let response = client.request(&mut world, Request::refresh(600));
    assert_eq!(response.code(), 438);
    client.learn(&response);
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);
}

/// 8656-7.2-01: guests, where the server is run for them.
#[test]
fn an_anonymous_server_asks_for_nothing() {
    let mut world = World::with(Rules { anonymous: true, ..rules() });
    let client = udp("192.0.2.1:1000");
    let response = world.ask(&client, &Request::allocate().build());
    assert_eq!(response.code(), 0);
    assert!(!response.has_any(&[A::MESSAGE_INTEGRITY, A::MESSAGE_INTEGRITY_SHA256]));
    assert_eq!(world.ask(&client, &Request::permission(&["198.51.100.1:1"]).build()).code(), 0);
    assert!(matches!(world.send(&client, &Request::send("198.51.100.1:1", b"x").build()), Out::Peer { .. }));
    assert_eq!(world.ask(&client, &Request::refresh(0).build()).code(), 0);
    assert_eq!((world.queries, world.ended.len()), (0, 1));
}
