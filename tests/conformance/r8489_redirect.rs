//! RFC 8489 §10, RFC 8656 §7.2: redirection to another server (300).

use std::net::SocketAddr;

use crate::client::Client;
use crate::setup::{ALICE, Scheme, Server, Session, server};
use crate::wire::{ALTERNATE_DOMAIN, ALTERNATE_SERVER, Msg, REFRESH, Reply, allocate, decode_plain};

fn redirecting() -> Server {
    server(&[
        ("redirect.alternate-server", r#"["192.0.2.1:3478", "[2001:db8::1]:3478"]"#),
        ("redirect.alternate-domain", r#""other.example.org""#),
    ])
}

fn alternates(reply: &Reply) -> Vec<SocketAddr> {
    let found = reply.attributes.iter().filter(|(kind, _)| *kind == ALTERNATE_SERVER);
    found.map(|(_, value)| decode_plain(value)).collect()
}

#[test]
fn r8489_10_01_02_03_r8656_7_2_23_the_first_alternate_is_of_the_family_of_the_client() {
    let server = redirecting();
    let (v4, v6) = ("192.0.2.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap());
    for transport in ["udp", "tcp"] {
        for (address, expected) in [(server.ipv4(transport), [v4, v6]), (server.ipv6(transport), [v6, v4])] {
            let client = if transport == "udp" { Client::udp(address) } else { Client::tcp(address) };
            let reply = Session::over(client, ALICE).fail(allocate(), 300);
            assert_eq!(alternates(&reply), expected);
        }
    }
}

/// Clients stay with their transport, whose port is another one.
#[test]
fn r8489_10_01_02_03_over_tls_the_alternate_is_one_for_tls() {
    let chosen =
        [("redirect.alternate-server", r#""192.0.2.1""#), ("redirect.tls-alternate-server", r#""192.0.2.3:443""#)];
    for (settings, expected) in [(&chosen[..1], "192.0.2.1:5349"), (&chosen, "192.0.2.3:443")] {
        let server = server(settings);
        for mut session in [Session::tls(&server), Session::dtls(&server)] {
            assert_eq!(alternates(&session.fail(allocate(), 300)), [expected.parse().unwrap()]);
        }
        for mut session in [Session::udp(&server), Session::tcp(&server)] {
            assert_eq!(alternates(&session.fail(allocate(), 300)), ["192.0.2.1:3478".parse().unwrap()]);
        }
    }
}

#[test]
fn r8489_10_04_14_16_01_the_alternate_domain_comes_with_sha256_integrity() {
    let server = redirecting();
    for transport in [Session::tls, Session::dtls] {
        let reply = transport(&server).scheme(Scheme::Sha256).fail(allocate(), 300);
        assert_eq!(reply.get(ALTERNATE_DOMAIN), Some(&b"other.example.org"[..]), "names the certificate");
        let reply = transport(&server).fail(allocate(), 300);
        assert!(!reply.has(ALTERNATE_DOMAIN), "only with MESSAGE-INTEGRITY-SHA256");
    }
    for session in [Session::udp(&server), Session::tcp(&server)] {
        let reply = session.scheme(Scheme::Sha256).fail(allocate(), 300);
        assert!(!reply.has(ALTERNATE_DOMAIN), "only where there is a certificate");
    }
}

/// Draining is redirecting all: a server that redirects no client of UDP serves its UDP sessions on.
#[test]
fn servers_are_named_for_transports_and_a_drained_server_keeps_its_sessions() {
    let server = server(&[(
        "redirect.server",
        r#"[
            { address = "192.0.2.1:3478", transports = ["tcp"], weight = 3 },
            { address = "192.0.2.2:3478", transports = ["tcp", "tls"] },
            { address = "192.0.2.3:5349", transports = ["tls"], weight = 0 },
        ]"#,
    )]);
    let mut counts = std::collections::BTreeMap::new();
    for transport in [Session::tcp, Session::tls] {
        for _ in 0..8 {
            for server in alternates(&transport(&server).fail(allocate(), 300)) {
                *counts.entry(server.to_string()).or_insert(0) += 1;
            }
        }
    }
    // Each worker has its own turns.
    assert_eq!(counts.values().sum::<i32>(), 16);
    assert!(counts["192.0.2.1:3478"] >= 5 && counts["192.0.2.2:3478"] >= 8 && !counts.contains_key("192.0.2.3:5349"));
    let mut session = Session::udp(&server);
    session.allocate();
    session.succeed(Msg::new(REFRESH));
}

#[test]
fn r8489_14_8_02_only_authenticated_requests_are_redirected_and_the_answer_is_signed() {
    // Session::fail checks the signature.
    let server = redirecting();
    for mut session in Session::each(&server) {
        assert_eq!(session.client.request(&allocate()).error(), Some(401));
        assert_eq!(session.client.request(&allocate().mi(b"key")).error(), Some(400));
        session.password = "guess".to_owned();
        let request = session.sign(allocate());
        assert_eq!(session.client.request(&request).error(), Some(401));
        session.password = ALICE.1.to_owned();
        session.fail(allocate(), 300);
    }
}
