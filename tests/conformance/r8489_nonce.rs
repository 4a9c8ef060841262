//! RFC 8489 §9.2, §9.2.4: nonces.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::client::Client;
use crate::setup::{ALICE, REALM_NAME, Session, server};
use crate::wire::{Msg, NONCE, PASSWORD_ALGORITHMS, REALM, REFRESH, Reply, USERHASH, USERNAME, allocate};

fn assert_stale(reply: &Reply) {
    assert_eq!(reply.error(), Some(438), "{reply:02x?}");
    assert_eq!(reply.get(REALM), Some(REALM_NAME.as_bytes()));
    assert!(reply.has(NONCE) && reply.has(PASSWORD_ALGORITHMS));
    assert!(!reply.has(USERNAME) && !reply.has(USERHASH));
}

#[test]
fn r8489_9_2_01_9_2_4_05_06_the_nonce_begins_with_the_cookie_and_the_feature_bits() {
    let server = server(&[]);
    let session = Session::udp(&server);
    assert!(session.nonce.starts_with(b"obMatJos2"));
    let bits = STANDARD.decode(&session.nonce[9..13]).expect("4 base64 characters");
    // Bit 0 (password algorithms: PASSWORD-ALGORITHMS are sent) and bit 1 (USERHASH is accepted), nothing else.
    assert_eq!(bits, [0b1100_0000, 0, 0]);
}

#[test]
fn r8489_14_10_01_14_9_01_nonce_and_realm_are_of_allowed_characters() {
    let server = server(&[]);
    let session = Session::udp(&server);
    assert!(session.nonce.len() < 128);
    assert!(session.nonce.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte)));
}

#[test]
fn r8489_9_2_4_04_r8656_5_02_no_two_requests_get_the_same_nonce() {
    let server = server(&[]);
    let mut nonces = HashSet::new();
    for _ in 0..20 {
        let mut session = Session::udp(&server);
        assert!(nonces.insert(session.nonce.clone()));
        session.draw_nonce();
        assert!(nonces.insert(session.nonce.clone()));
    }
}

#[test]
fn r8489_9_2_4_04_h_07_a_nonce_or_captured_request_is_of_no_use_on_another_5_tuple() {
    let server = server(&[]);
    let mut victim = Session::udp(&server);
    let captured = victim.sign(allocate());
    victim.call_signed(&captured);
    let delete = victim.sign(Msg::new(REFRESH).u32(crate::wire::LIFETIME, 0));
    for mut thief in [Client::udp(server.ipv4("udp")), Client::tcp(server.ipv4("tcp")), Client::udp(server.ipv6("udp"))]
    {
        assert_stale(&thief.request(&captured));
        let reply = thief.request(&delete);
        assert_eq!(reply.error(), Some(438));
    }
    victim.succeed(Msg::new(REFRESH));
}

#[test]
fn r8489_9_2_4_23_24_26_an_invented_or_altered_nonce_is_stale() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let good = session.nonce.clone();
        let mut bad =
            vec![b"x".to_vec(), b"obMatJos2AAAA".to_vec(), b"obMatJos2wAAA".to_vec(), good[..good.len() - 1].to_vec()];
        bad.push([&good[..], b"A"].concat());
        for place in [0, 5, 13, 20, good.len() - 1] {
            let mut altered = good.clone();
            altered[place] = if altered[place] == b'B' { b'C' } else { b'B' };
            bad.push(altered);
        }
        for nonce in bad {
            session.nonce = nonce;
            let request = session.sign(allocate());
            assert_stale(&session.client.request(&request));
        }
    }
}

#[test]
fn r8489_9_2_4_25_the_nonce_of_a_438_is_valid() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.nonce = b"obMatJos2wAAAinvented".to_vec();
        let request = session.sign(allocate());
        let stale = session.client.request(&request);
        assert_stale(&stale);
        session.take_challenge(&stale);
        session.allocate();
    }
}

#[test]
fn r8489_9_2_4_31_altered_feature_bits_make_a_nonce_stale() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let good = session.nonce.clone();
    for bits in ["AAAA", "gAAA", "QAAA", "4AAA", "wAAB", "////"] {
        session.nonce = [b"obMatJos2", bits.as_bytes(), &good[13..]].concat();
        let request = session.sign(allocate());
        assert_stale(&session.client.request(&request));
    }
}

#[test]
fn r8489_9_2_4_23_32_r8656_5_03_a_nonce_expires() {
    let server = server(&[("auth.stale-nonce", "\"2s\"")]);
    for mut session in Session::each(&server) {
        session.draw_nonce();
        session.allocate();
        sleep(Duration::from_millis(3100));
        let request = session.sign(Msg::new(REFRESH));
        let stale = session.client.request(&request);
        assert_stale(&stale);
        session.take_challenge(&stale);
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn r8489_9_2_4_30_an_expired_nonce_with_a_wrong_password_is_a_401() {
    let server = server(&[("auth.stale-nonce", "\"2s\"")]);
    let mut session = Session::over(Client::udp(server.ipv4("udp")), (ALICE.0, "guess"));
    sleep(Duration::from_millis(3100));
    let request = session.sign(allocate());
    assert_eq!(session.client.request(&request).error(), Some(401));
}

#[test]
fn a_nonce_may_be_used_many_times_while_it_is_valid() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    for _ in 0..20 {
        session.succeed(Msg::new(REFRESH));
    }
}
