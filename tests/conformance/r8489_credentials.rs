//! RFC 8489 §9.2.4, §14.3 to §14.6, §18.5: the long-term credential mechanism.

use std::time::Duration;

use crate::client::Client;
use crate::setup::{ALICE, AUTHENTICATED, REALM_NAME, Scheme, Session, server};
use crate::wire::{
    MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Msg, NONCE, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, REALM, REFRESH,
    Reply, SUCCESS, USERHASH, USERNAME, XOR_RELAYED_ADDRESS, allocate, hmac_sha256, md5, sha256,
};

/// A refusal that bears a challenge: REALM, NONCE, PASSWORD-ALGORITHMS, and nothing about the user.
fn assert_challenge(reply: &Reply, error: u16) {
    assert_eq!(reply.error(), Some(error), "{reply:02x?}");
    assert_eq!(reply.get(REALM), Some(REALM_NAME.as_bytes()));
    assert!(reply.has(NONCE) && reply.has(PASSWORD_ALGORITHMS));
    assert!(!reply.has(USERNAME) && !reply.has(USERHASH) && reply.is_unsigned(), "{reply:02x?}");
}

/// A 400 that tells nothing.
fn assert_bare_400(reply: &Reply) {
    assert_eq!(reply.error(), Some(400), "{reply:02x?}");
    assert!([USERNAME, USERHASH, NONCE, REALM].iter().all(|kind| !reply.has(*kind)) && reply.is_unsigned());
}

#[test]
fn r8489_9_2_2_01_r8656_5_01_the_key_is_md5_of_user_realm_password() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        assert_eq!(session.key(), md5("alice:example.org:secret"));
        session.allocate();
    }
}

#[test]
fn r8489_9_2_2_01_opaque_string_is_applied_to_configured_names_and_passwords() {
    // An em space and a decomposed letter, which OpaqueString turns into a space and one letter.
    let accounts = "[{ name = \"Zoe\u{0308}\", password = \"pass\u{2003}A\u{030A}\" }]";
    let server = server(&[("auth.user", accounts)]);
    for scheme in [Scheme::Legacy, Scheme::Md5, Scheme::Sha256] {
        let client = Client::udp(server.ipv4("udp"));
        Session::over(client, ("Zo\u{00EB}", "pass \u{00C5}")).scheme(scheme).allocate();
    }
}

#[test]
fn a_configured_key_serves_as_well_as_a_password() {
    let key: String = md5("carol:example.org:hidden").iter().map(|byte| format!("{byte:02x}")).collect();
    let server = server(&[("auth.user", &format!("[{{ name = \"carol\", key = \"0x{key}\" }}]"))]);
    for scheme in [Scheme::Legacy, Scheme::Md5] {
        Session::over(Client::udp(server.ipv4("udp")), ("carol", "hidden")).scheme(scheme).allocate();
    }
}

#[test]
fn r8489_9_2_4_01_02_03_07_r8656_7_2_01_a_request_without_integrity_is_challenged() {
    let server = server(&[]);
    for mut client in [Client::udp(server.ipv4("udp")), Client::tcp(server.ipv4("tcp"))] {
        for method in AUTHENTICATED {
            assert_challenge(&client.request(&Msg::new(method)), 401);
            assert_challenge(&client.request(&Msg::new(method).attr(USERNAME, b"alice")), 401);
        }
    }
}

#[test]
fn r8489_9_2_4_08_09_10_11_integrity_without_user_realm_or_nonce_is_a_bad_request() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let (nonce, key) = (session.nonce.clone(), session.key());
        let parts: [(u16, &[u8]); 3] = [(USERNAME, b"alice"), (REALM, REALM_NAME.as_bytes()), (NONCE, &nonce)];
        for missing in 0..3 {
            let present = parts.iter().enumerate().filter(|(place, _)| *place != missing);
            let request = present.fold(allocate(), |message, (_, (kind, value))| message.attr(*kind, value));
            assert_bare_400(&session.client.request(&request.clone().mi(&key)));
            assert_bare_400(&session.client.request(&request.mi256(&key)));
        }
    }
}

#[test]
fn r8489_9_2_4_12_28_a_client_that_knows_no_password_algorithms_is_served_with_md5_and_sha1() {
    // Session::call checks that the response carries MESSAGE-INTEGRITY and not the other.
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        session.fail(allocate(), 437);
    }
}

#[test]
fn r8489_9_2_4_28_default_md5_is_answered_with_sha1_also_when_the_request_was_signed_with_sha256() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let request = session.identify(allocate()).mi256(&session.key());
    let reply = session.client.request(&request);
    assert_eq!(reply.error(), None);
    assert!(reply.is_signed(MESSAGE_INTEGRITY, &session.key()));
}

#[test]
fn r8489_9_2_4_13_only_one_of_the_password_algorithm_attributes_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let (key, algorithms) = (session.key(), session.algorithms.clone());
    for request in [
        session.identify(allocate()).attr(PASSWORD_ALGORITHMS, &algorithms),
        session.identify(allocate()).attr(PASSWORD_ALGORITHM, &[0, 1, 0, 0]),
    ] {
        assert_bare_400(&session.client.request(&request.clone().mi(&key)));
        assert_bare_400(&session.client.request(&request.mi256(&key)));
    }
}

#[test]
fn r8489_9_2_4_14_a_changed_list_of_password_algorithms_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server).scheme(Scheme::Md5);
    let offered = session.algorithms.clone();
    let (first, second) = offered.split_at(4);
    let changed = [
        [second, first].concat(),
        first.to_vec(),
        second.to_vec(),
        [first, second, first].concat(),
        [first, second, &[0x77, 0x77, 0, 0]].concat(),
        Vec::new(),
    ];
    for list in changed {
        session.algorithms = list;
        let request = session.sign(allocate());
        assert_bare_400(&session.client.request(&request));
    }
}

#[test]
fn r8489_9_2_4_15_a_password_algorithm_that_was_not_offered_is_a_bad_request() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for algorithm in [[0x77, 0x77, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]] {
        let request = session
            .identify(allocate())
            .attr(PASSWORD_ALGORITHMS, &session.algorithms)
            .attr(PASSWORD_ALGORITHM, &algorithm)
            .mi256(&session.key());
        assert_bare_400(&session.client.request(&request));
    }
}

#[test]
fn r8489_9_2_4_15_nor_one_that_this_server_knows_and_has_not_offered() {
    // There is no key for SHA-256.
    let key: String = md5("carol:example.org:hidden").iter().map(|byte| format!("{byte:02x}")).collect();
    let server = server(&[("auth.user", &format!("[{{ name = \"carol\", key = \"0x{key}\" }}]"))]);
    let session = Session::over(Client::udp(server.ipv4("udp")), ("carol", "hidden"));
    assert_eq!(session.algorithms, [0, 1, 0, 0]);
    let mut session = session.scheme(Scheme::Sha256);
    let request = session.sign(allocate());
    assert_bare_400(&session.client.request(&request));
    // Whatever it is signed with.
    let request = session.identify(allocate()).mi256(&md5("carol:example.org:hidden"));
    assert_bare_400(&session.client.request(&request));
    session.scheme(Scheme::Md5).allocate();
}

#[test]
fn r8489_9_2_4_06_where_the_bit_is_not_set_a_userhash_names_nobody() {
    // Whose names are made up as they come, as those of time-limited credentials, cannot be found by a hash.
    let server = server(&[("auth.secret", "[{ name = \"one\", secret = \"a secret of these times\" }]")]);
    for mut session in Session::each(&server) {
        assert_eq!(session.nonce[9..13], *b"gAAA", "password algorithms alone");
        let request = allocate().attr(USERHASH, &sha256("alice:example.org"));
        let request = request.attr(REALM, REALM_NAME.as_bytes()).attr(NONCE, &session.nonce).mi(&session.key());
        let reply = session.client.request(&request);
        assert_eq!(reply.error(), Some(401), "{reply:02x?}");
        session.allocate();
    }
}

#[test]
fn r8489_9_2_4_16_17_18_19_an_unknown_user_is_challenged() {
    let server = server(&[]);
    for scheme in [Scheme::Legacy, Scheme::Md5, Scheme::Sha256] {
        let mut session = Session::udp(&server).scheme(scheme);
        session.user = "mallory".to_owned();
        let request = session.sign(allocate());
        assert_challenge(&session.client.request(&request), 401);
        let hash = Msg::new(REFRESH).attr(USERHASH, &[7; 32]).attr(REALM, REALM_NAME.as_bytes());
        let request = hash.attr(NONCE, &session.nonce).mi(&session.key());
        assert_challenge(&session.client.request(&request), 401);
    }
}

#[test]
fn r8489_9_2_4_20_sha256_integrity_is_the_one_that_counts() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let key = session.key();
    let both = |key256: &[u8]| session.identify(allocate()).mi(&key).mi256(key256);
    let (wrong, right) = (both(b"wrong"), both(&key));
    assert_challenge(&session.client.request(&wrong), 401);
    assert_eq!(session.client.request(&right).error(), None);
    // And a wrong MESSAGE-INTEGRITY does not spoil a right MESSAGE-INTEGRITY-SHA256.
    let mut other = Session::udp(&server);
    let request = other.identify(allocate()).mi(b"wrong").mi256(&key);
    assert_eq!(other.client.request(&request).error(), None);
}

#[test]
fn r8489_9_2_4_21_22_a_wrong_password_is_challenged() {
    let server = server(&[]);
    for scheme in [Scheme::Legacy, Scheme::Md5, Scheme::Sha256] {
        for mut session in Session::each(&server) {
            session.scheme = scheme;
            session.password = "guess".to_owned();
            for method in AUTHENTICATED {
                let request = session.sign(Msg::new(method));
                assert_challenge(&session.client.request(&request), 401);
            }
        }
    }
}

#[test]
fn r8489_9_2_4_27_29_with_password_algorithms_responses_carry_sha256_and_no_credentials() {
    let server = server(&[]);
    for scheme in [Scheme::Md5, Scheme::Sha256] {
        for session in Session::each(&server) {
            let mut session = session.scheme(scheme);
            for reply in [
                session.fail(Msg::new(REFRESH), 437),
                session.succeed(allocate()),
                session.succeed(Msg::new(REFRESH)),
                session.fail(allocate(), 437),
            ] {
                assert!(!reply.has(MESSAGE_INTEGRITY));
                assert!([REALM, NONCE, USERNAME, USERHASH].iter().all(|kind| !reply.has(*kind)));
            }
        }
    }
}

#[test]
fn r8489_9_2_4_27_the_answer_to_sha1_with_password_algorithms_carries_sha256() {
    let server = server(&[]);
    let mut session = Session::udp(&server).scheme(Scheme::Sha256);
    for request in [allocate(), Msg::new(REFRESH), Msg::new(REFRESH)] {
        let request = session.identify(request).mi(&session.key());
        assert_eq!(session.call_signed(&request).error(), None);
    }
}

/// Whatever the allocation was made with: the server keeps a key with it, and a response is signed as its own request asks.
#[test]
fn r8489_9_2_4_27_28_every_request_of_an_allocation_is_answered_in_its_own_kind() {
    let server = server(&[]);
    let schemes = [Scheme::Legacy, Scheme::Md5, Scheme::Sha256];
    for first in schemes {
        let mut session = Session::udp(&server).scheme(first);
        session.allocate();
        for scheme in schemes.into_iter().chain(schemes) {
            session.scheme = scheme;
            for sha256 in [false, true] {
                let (key, request) = (session.key(), session.identify(Msg::new(REFRESH)));
                let request = if sha256 { request.mi256(&key) } else { request.mi(&key) };
                // It is looked at whether the one that belongs there is there, and the other is not.
                let reply = session.call_signed(&request);
                assert_eq!(reply.error(), None, "{first:?}, {scheme:?}, SHA-256: {sha256}");
            }
        }
    }
}

#[test]
fn r8489_9_2_4_29_legacy_responses_carry_no_credentials() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for reply in [session.succeed(allocate()), session.fail(allocate(), 437)] {
        assert!([REALM, NONCE, USERNAME, USERHASH].iter().all(|kind| !reply.has(*kind)));
    }
}

#[test]
fn r8489_9_2_4_30_the_order_of_checks() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let stale = b"obMatJos2wAAAnonsense".to_vec();
    let key = session.key();
    // Presence comes before everything.
    let request = allocate().attr(USERNAME, b"nobody").attr(NONCE, &stale).mi(b"wrong");
    assert_bare_400(&session.client.request(&request));
    // Password algorithms before the user.
    session.nonce = stale;
    session.user = "nobody".to_owned();
    let request = session.identify(allocate()).attr(PASSWORD_ALGORITHM, &[0, 1, 0, 0]).mi(b"wrong");
    assert_bare_400(&session.client.request(&request));
    // The user and the integrity before the nonce.
    let request = session.identify(allocate()).mi(&key);
    assert_challenge(&session.client.request(&request), 401);
    session.user = "alice".to_owned();
    let request = session.identify(allocate()).mi(b"wrong");
    assert_challenge(&session.client.request(&request), 401);
    // The nonce last.
    let request = session.identify(allocate()).attr(0x7FF0, b"unknown").mi(&key);
    assert_eq!(session.client.request(&request).error(), Some(438));
}

#[test]
fn r8489_14_3_01_user_names_of_up_to_763_bytes_are_read() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for length in [128, 508, 509, 762, 763] {
        session.user = "x".repeat(length);
        let request = session.sign(allocate());
        assert_challenge(&session.client.request(&request), 401);
    }
}

#[test]
fn r8489_14_4_01_9_2_4_06_userhash_is_accepted() {
    let server = server(&[]);
    for scheme in [Scheme::Legacy, Scheme::Md5, Scheme::Sha256] {
        let mut session = Session::udp(&server).scheme(scheme);
        let hash = sha256("alice:example.org");
        for request in [allocate(), Msg::new(REFRESH)] {
            let request = request.attr(USERHASH, &hash).attr(REALM, REALM_NAME.as_bytes()).attr(NONCE, &session.nonce);
            let (key, algorithms) = (session.key(), session.algorithms.clone());
            let signed = match scheme {
                Scheme::Legacy => request.mi(&key),
                Scheme::Md5 | Scheme::Sha256 => request
                    .attr(PASSWORD_ALGORITHMS, &algorithms)
                    .attr(PASSWORD_ALGORITHM, &[0, if scheme == Scheme::Md5 { 1 } else { 2 }, 0, 0])
                    .mi256(&key),
            };
            assert_eq!(session.call_signed(&signed).error(), None);
        }
        // It is the same user.
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn r8489_14_5_01_14_6_02_integrity_is_computed_up_to_itself() {
    let server = server(&[]);
    let shapes: [fn(Msg, &[u8]) -> Msg; 4] = [
        |message, key| message.mi(key).fingerprint(),
        |message, key| message.mi256(key).fingerprint(),
        |message, key| message.mi(key).mi256(key),
        |message, key| message.mi(key).mi256(key).fingerprint(),
    ];
    for shape in shapes {
        let mut session = Session::udp(&server);
        let request = shape(session.identify(allocate()), &session.key());
        assert_eq!(session.client.request(&request).error(), None, "{:02x?}", request.0);
    }
}

#[test]
fn r8489_14_6_01_truncated_empty_or_overlong_sha256_integrity_never_authenticates() {
    let server = server(&[]);
    let mut session = Session::udp(&server).scheme(Scheme::Sha256);
    let key = session.key();
    for length in [0usize, 4, 16, 20, 24, 28, 36, 64] {
        // As a sender would compute it that truncates: the length field ends with the truncated attribute.
        let mut message = session.identify(allocate());
        let covered = u16::try_from(message.0.len() - 20 + 4 + length).unwrap();
        message.0[2..4].copy_from_slice(&covered.to_be_bytes());
        let mut tag = hmac_sha256(&key, &message.0);
        tag.resize(length, 0);
        let request = message.attr(MESSAGE_INTEGRITY_SHA256, &tag);
        let reply = session.client.try_request(&request, Duration::from_millis(300));
        assert!(reply.is_none_or(|reply| reply.kind & 0x110 != SUCCESS), "{length} bytes authenticate");
    }
    let request = session.sign(allocate());
    let reply = session.call_signed(&request);
    assert_eq!(reply.get(MESSAGE_INTEGRITY_SHA256).map(<[u8]>::len), Some(32));
}

#[test]
fn message_integrity_of_another_length_never_authenticates() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for length in [0usize, 4, 16, 19, 24, 32] {
        let request = session.identify(allocate()).attr(MESSAGE_INTEGRITY, &vec![0; length]);
        let reply = session.client.try_request(&request, Duration::from_millis(300));
        assert!(reply.is_none_or(|reply| reply.kind & 0x110 != SUCCESS), "{length} bytes authenticate");
    }
}

#[test]
fn r8489_14_11_01_18_5_02_password_algorithms_are_offered_sha256_first() {
    let server = server(&[]);
    let session = Session::udp(&server);
    assert_eq!(session.algorithms, [0, 2, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn r8489_14_12_01_18_5_01_the_algorithm_named_makes_the_key() {
    let server = server(&[]);
    for scheme in [Scheme::Md5, Scheme::Sha256] {
        for session in Session::each(&server) {
            let mut session = session.scheme(scheme);
            assert_eq!(session.key().len(), if scheme == Scheme::Md5 { 16 } else { 32 });
            assert!(session.succeed(allocate()).has(XOR_RELAYED_ADDRESS));
        }
    }
    // The key of the one under the name of the other is a wrong key.
    let mut session = Session::udp(&server).scheme(Scheme::Md5);
    let request = session.identify(allocate()).mi256(&sha256("alice:example.org:secret"));
    assert_challenge(&session.client.request(&request), 401);
}

#[test]
fn h_12_known_and_unknown_users_look_alike() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.password = "guess".to_owned();
    let mut answers = Vec::new();
    for user in ["alice", "mallory", "", "bob"] {
        session.user = user.to_owned();
        let request = session.sign(allocate());
        let reply = session.client.request(&request);
        answers.push((
            reply.error(),
            reply.raw.len(),
            reply.attributes.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        ));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[test]
fn h_12_many_wrong_passwords_lock_nobody_out() {
    let server = server(&[]);
    let mut wrong = Session::over(Client::udp(server.ipv4("udp")), (ALICE.0, "guess"));
    for _ in 0..2000 {
        let request = wrong.sign(allocate());
        assert_eq!(wrong.client.request(&request).error(), Some(401));
    }
    wrong.password = ALICE.1.to_owned();
    wrong.allocate();
    Session::udp(&server).allocate();
}
