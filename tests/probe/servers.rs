//! `turnserver probe` against our server and broken ones.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    thread,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};

use super::{
    assert_found,
    common::{
        LOOPBACK, PASSWORD, Server, TLS, USER,
        ports::free_port_pair,
        tls::{Authority, HOST},
    },
    fakes, first_path, json, turnserver,
};

/// UDP, TCP and DTLS on one port, TLS on another.
fn all_transports() -> String {
    let three = LOOPBACK.replace(r#"["udp", "tcp"]"#, r#"["udp", "tcp", "dtls"]"#);
    assert_ne!(three, LOOPBACK);
    format!("{three}{TLS}")
}

/// As the usual user.
const ALICE: [&str; 4] = ["--user", USER, "--password-env", "PROBE_PASSWORD"];

#[test]
fn every_step_works_over_all_four_transports() {
    let server = Server::start(&all_transports());
    let [udp, tcp, tls, dtls] = ["udp", "tcp", "tls", "dtls"].map(|transport| server.ipv4(transport));
    let uris = [
        format!("turn:{udp}"),
        format!("turn:{tcp}?transport=tcp"),
        format!("turns:{tls}"),
        format!("turns:{dtls}?transport=udp"),
    ];
    let ca = server.folder().join("ca.pem");
    let mut arguments = vec!["probe", "--ca", ca.to_str().unwrap()];
    arguments.extend(uris.iter().map(String::as_str).chain(ALICE));
    let (status, probed) = json(&arguments, "");
    // Certificates of the tests are for 127.0.0.1, too, and good for very long.
    assert_eq!((status, &probed["level"]), (0, &"ok".into()), "{probed:#}");
    for (target, transport) in probed["targets"].as_array().unwrap().iter().zip(["udp", "tcp", "tls", "dtls"]) {
        let path = &target["paths"][0];
        assert_eq!(path["transport"], transport);
        assert_eq!(path["realm"], "example.org");
        assert!(path["mapped"].as_str().unwrap().starts_with("127.0.0.1:"), "{path:#}");
        let relayed = path["relayed"].as_array().unwrap();
        assert!(relayed.len() == 2 && relayed[1].as_str().unwrap().starts_with("[::1]:"), "{path:#}");
        let times = &path["milliseconds"];
        assert!(["binding", "allocate", "relay", "peer"].iter().all(|time| times[time].is_f64()), "{path:#}");
        assert_eq!(times["connect"].is_f64(), ["tcp", "tls"].contains(&transport));
        let secure = ["tls", "dtls"].contains(&transport);
        assert_eq!(times["handshake"].is_f64(), secure);
        for about in ["binding", "challenge", "allocate", "relayed IPv6", "relay", "peer", "refresh", "delete"] {
            assert_found(&path["findings"], ("ok", about, ""));
        }
        if secure {
            assert_eq!(path["certificate"]["names"], serde_json::json!([HOST, "127.0.0.1"]));
            assert_found(&path["findings"], ("ok", "certificate", "is for 127.0.0.1"));
            assert_found(&path["findings"], ("ok", "certificate", "leads to who is trusted"));
        }
    }
    let log = server.stop();
    assert_eq!(log.matches("session ends").count(), 12, "three for each, each deleted:\n{log}");
    assert_eq!(log.matches("\"reason\":\"deleted\"").count(), 12, "{log}");
}

#[test]
fn ipv6_is_probed_as_ipv4_is_and_lines_are_for_people() {
    let server = Server::start(LOOPBACK);
    let uri = format!("turn:{}", server.ipv6("udp"));
    let output = turnserver(&[&["probe", uri.as_str()][..], &ALICE].concat(), "");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.starts_with(&format!("{uri}?transport=udp\nok       resolve: ::1 is ::1\n")), "{printed}");
    assert!(
        printed.contains(&format!("\nok       udp {} delete: the allocation is gone\n", server.ipv6("udp"))),
        "{printed}"
    );
}

#[test]
fn stun_alone_asks_for_no_more() {
    let server = Server::start(LOOPBACK);
    let (status, probed) = json(&["probe", &format!("stun:{}", server.ipv4("udp"))], "");
    assert_eq!((status, first_path(&probed).as_array().unwrap().len()), (0, 1), "{probed:#}");
    let (status, probed) = json(&["probe", &format!("turn:{}", server.ipv4("udp"))], "");
    assert_eq!(status, 0);
    assert_found(first_path(&probed), ("skipped", "allocate", "no credentials were given"));
    server.stop();
}

/// From a pipe, a file, the environment; a credential minted from a secret; each wrong one with its words.
#[test]
fn credentials_come_by_many_ways_and_never_on_the_command_line() {
    let secret = "a secret of the tests";
    let server =
        Server::start(&LOOPBACK.replace("[[auth.user]]", &format!("static-auth-secret = \"{secret}\"\n[[auth.user]]")));
    let uri = format!("turn:{}", server.ipv4("udp"));
    let (password, wrong, key) =
        (server.folder().join("password"), server.folder().join("wrong"), server.folder().join("secret"));
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    std::fs::write(&wrong, "something else\n").unwrap();
    std::fs::write(&key, secret).unwrap();
    let [password, wrong, key] = [&password, &wrong, &key].map(|path| path.to_str().unwrap());
    let alice = ["probe", &uri, "--user", USER];
    assert_eq!(json(&alice, &format!("{PASSWORD}\n")).0, 0);
    assert_eq!(json(&[&alice[..], &["--password-file", password]].concat(), "").0, 0);
    assert_eq!(json(&["probe", &uri, "--secret-file", key], "").0, 0);
    assert_eq!(json(&["probe", &uri, "--secret-file", key, "--user", "bob"], "").0, 0);

    let refused = |arguments: &[&str], input: &str, what: &str| {
        let (status, probed) = json(&[&["probe", &uri][..], arguments].concat(), input);
        assert_eq!(status, 1, "{probed:#}");
        assert_found(first_path(&probed), ("error", "allocate", what));
        assert!(!probed.to_string().contains("something else"), "{probed:#}");
    };
    refused(
        &["--user", USER, "--password-file", wrong],
        "",
        "401 Unauthenticated: the user does not exist, or the password is wrong",
    );
    refused(&["--user", "mallory"], "secret\n", "the user does not exist");
    refused(&["--secret-file", wrong], "", "the password is wrong");
    refused(&["--user", "1700000000:alice"], "whatever\n", "the credential has expired");

    // A password on the command line is no option, and what cannot be read is said.
    assert_eq!(turnserver(&["probe", &uri, "--user", USER, "--password", PASSWORD], "").status.code(), Some(2));
    let output = turnserver(&["probe", &uri, "--user", USER, "--password-file", "/nonexistent/file"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("error: --password-file: cannot read /nonexistent/file")
    );
    assert_eq!(turnserver(&["probe", "http://example.org"], "").status.code(), Some(2));
}

#[test]
fn a_port_where_nobody_listens_is_called_so() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    for (uri, about, kind) in [
        (format!("turn:127.0.0.1:{port}"), "binding", "UDP"),
        (format!("turn:127.0.0.1:{port}?transport=tcp"), "connect", "TCP"),
        (format!("turns:127.0.0.1:{port}"), "connect", "TCP"),
        (format!("turns:127.0.0.1:{port}?transport=udp"), "connect", "UDP"),
    ] {
        let (status, probed) = json(&["probe", &uri], "");
        assert_eq!(status, 1);
        assert_found(first_path(&probed), ("error", about, &format!("nobody listens on this {kind} port")));
    }
    let (status, probed) = json(&["probe", "turn:nothing.invalid"], "");
    assert_eq!((status, &probed["targets"][0]["resolve"]["level"]), (1, &"error".into()));
}

#[test]
fn who_does_not_answer_or_speaks_something_else_is_called_so() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap();
    let timed = |uri: &str| json(&["probe", uri, "--timeout", "700ms"], "");
    let (status, probed) = timed(&format!("turn:{place}"));
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("warning", "binding", "was not answered"));
    assert_found(first_path(&probed), ("error", "challenge", "was not answered"));
    let (_, probed) = timed(&format!("stun:{place}"));
    assert_found(first_path(&probed), ("error", "binding", "was not answered"));
    let (_, probed) = timed(&format!("turns:{place}?transport=udp"));
    assert_found(first_path(&probed), ("error", "connect", "nothing answers over DTLS"));

    // A server that greets, as those of mail do.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example.org ESMTP at your service\r\n");
            open.push(stream);
        }
    });
    let (_, probed) = timed(&format!("turn:{place}?transport=tcp"));
    assert_found(first_path(&probed), ("error", "binding", "no STUN/TURN server"));
    let (_, probed) = timed(&format!("turns:{place}"));
    assert_found(first_path(&probed), ("error", "handshake", "does not speak TLS"));

    // One that takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, probed) = timed(&format!("turns:{}", listener.local_addr().unwrap()));
    assert_found(first_path(&probed), ("error", "handshake", "TLS is begun and never finished"));
}

#[test]
fn a_server_for_everybody_and_one_without_a_realm_are_noticed() {
    // Among its relay ports are none that the system gives to the probe.
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let range = format!("min-port = {port}\nmax-port = {}\n[auth]\nanonymous = true\n", port + 9);
    let open = LOOPBACK.split("[auth]").next().unwrap().to_owned() + &range;
    let server = Server::start(&open);
    let uri = format!("turn:{}", server.ipv4("udp"));
    let (status, probed) = json(&["probe", &uri], "");
    assert_eq!((status, &probed["level"]), (0, &"warning".into()), "{probed:#}");
    assert_found(first_path(&probed), ("warning", "challenge", "relays for everybody"));
    assert_found(first_path(&probed), ("ok", "relay", "and back"));
    assert_found(first_path(&probed), ("skipped", "peer", "whose address 127.0.0.1 is the server's own"));
    assert_eq!(json(&["probe", &uri, "--strict"], "").0, 1);

    let bare = fakes::bare_challenge();
    let (status, probed) = json(&[&["probe", &format!("turn:{bare}")][..], &ALICE].concat(), "");
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("error", "challenge", "without a realm and a nonce"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.write(folder.path(), "cert", authority.issue(&["other.example.org"]));
    let server = Server::start_with(&all_transports(), folder);
    let ca = server.folder().join("ca.pem");
    for (transport, query) in [("tls", ""), ("dtls", "?transport=udp")] {
        let uri = format!("turns:{}{query}", server.ipv4(transport));
        let (status, probed) = json(&["probe", &uri, "--ca", ca.to_str().unwrap()], "");
        assert_eq!(status, 1);
        assert_found(
            first_path(&probed),
            ("error", "certificate", "is not for 127.0.0.1; its names: other.example.org"),
        );
        // Under its name all is well, but for those who do not know the authority.
        let named = ["probe", &uri, "--server-name", "other.example.org"];
        let (status, probed) = json(&[&named[..], &["--ca", ca.to_str().unwrap()]].concat(), "");
        assert_eq!((status, &probed["level"]), (0, &"skipped".into()), "{probed:#}");
        let strange = server.folder().join("strange.pem");
        std::fs::write(&strange, Authority::new().pem()).unwrap();
        let (status, probed) = json(&[&named[..], &["--ca", strange.to_str().unwrap()]].concat(), "");
        assert_eq!((status, &probed["level"]), (0, &"warning".into()));
        assert_found(first_path(&probed), ("warning", "certificate", "signed with another key than that of"));
    }
    server.stop();
}

#[test]
fn an_expired_certificate_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - 90 * day).into();
    params.not_after = (SystemTime::now() - 2 * day - Duration::from_secs(60)).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    Authority::new().write(folder.path(), "cert", (certificate, key.serialize_pem()));
    let server = Server::start_with(&all_transports(), folder);
    let (status, probed) = json(&["probe", &format!("turns:{}", server.ipv4("tls"))], "");
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("error", "certificate", "has expired 2 days ago"));
    assert_found(first_path(&probed), ("warning", "certificate", "has signed itself"));
    // It is tried all the same.
    assert_found(first_path(&probed), ("ok", "binding", "answered"));
    server.stop();
}

#[test]
fn a_relayed_address_that_nobody_reaches_is_an_error() {
    let private = LOOPBACK.replace("[relay]", "[relay]\nexternal-ip = \"10.1.2.3\"");
    assert_ne!(private, LOOPBACK);
    let server = Server::start(&private);
    let (status, probed) = json(&[&["probe", &format!("turn:{}", server.ipv4("udp"))][..], &ALICE].concat(), "");
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("error", "allocate", "which nobody elsewhere reaches (private use, RFC 1918)"));
    assert_found(first_path(&probed), ("ok", "relay", "from 10.1.2.3:"));
    assert_found(first_path(&probed), ("skipped", "peer", "10.1.2.3 is none that this host reaches"));
    server.stop();
}

#[test]
fn quotas_and_redirections_have_words() {
    let server = Server::start(&format!("{LOOPBACK}[limits]\nuser-quota = 1\n"));
    let (status, probed) = json(&[&["probe", &format!("turn:{}", server.ipv4("udp"))][..], &ALICE].concat(), "");
    assert_eq!(status, 0, "{probed:#}");
    assert_found(first_path(&probed), ("skipped", "relay", "486"));
    assert_found(first_path(&probed), ("ok", "peer", "from this host"));
    server.stop();
    let server = Server::start(&format!("{LOOPBACK}[redirect]\nalternate-server = \"192.0.2.7:3478\"\n"));
    let (status, probed) = json(&[&["probe", &format!("turn:{}", server.ipv4("udp"))][..], &ALICE].concat(), "");
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("error", "allocate", "the server sends clients elsewhere, to 192.0.2.7:3478"));
}
