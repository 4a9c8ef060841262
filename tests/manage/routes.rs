//! Who may ask for what.

use crate::common::{Server, client::TurnClient};
use crate::web::{Answer, TOKEN, address, ask, ask_locally, connect, managed, with_token};
use std::io::Write;
use std::net::TcpStream;
use turnserver::stun::{AttributeType as A, Message, Method};

const OPEN: [&str; 2] = ["/live", "/ready"];
const WATCHERS: [&str; 3] = ["/metrics", "/status", "/openapi.json"];
const OPERATORS: [(&str, &str); 9] = [
    ("GET", "/v1/sessions"),
    ("GET", "/v1/sessions/0000000000000001"),
    ("DELETE", "/v1/sessions/0000000000000001"),
    ("DELETE", "/v1/sessions?user=alice"),
    ("GET", "/v1/users"),
    ("GET", "/v1/configuration"),
    ("GET", "/v1/log-level"),
    ("DELETE", "/v1/drain"),
    ("PUT", "/v1/log-level"),
];

#[test]
fn what_names_users_or_changes_anything_needs_the_token() {
    let server = Server::start(&with_token(""));
    for path in OPEN.into_iter().chain(WATCHERS) {
        assert_eq!(ask(&server, "GET", path, &[], "").status, 200, "{path}");
    }
    let right = format!("Bearer {TOKEN}");
    let wrong =
        [format!("Bearer {TOKEN}0"), format!("Bearer {}", &TOKEN[1..]), format!("Basic {TOKEN}"), TOKEN.to_owned()];
    for (method, target) in OPERATORS {
        let answer = ask(&server, method, target, &[], "");
        assert_eq!(answer.status, 401, "{method} {target}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
        for shown in &wrong {
            let answer = ask(&server, method, target, &[("Authorization", shown)], "");
            assert_eq!(answer.status, 401, "{method} {target} with {shown}");
        }
        let answer = ask(&server, method, target, &[("Authorization", &right)], "");
        assert!(
            ![401, 403, 404, 405].contains(&answer.status) || target.contains("/0000"),
            "{method} {target} {answer:?}"
        );
    }
    let log = server.stop();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn without_a_token_only_the_unix_socket_leads_to_sessions() {
    let server = Server::start(&managed(""));
    for (method, target) in OPERATORS {
        let answer = ask(&server, method, target, &[("Authorization", "Bearer ")], "");
        assert_eq!(answer.status, 403, "{method} {target}");
        assert!(answer.json()["error"].as_str().is_some_and(|why| why.contains("management.token-file")));
    }
    assert_eq!(ask_locally(&server, "GET", "/v1/sessions", "").status, 200);
    assert_eq!(ask_locally(&server, "GET", "/v1/configuration", "").status, 200);
}

#[test]
fn beyond_loopback_watching_needs_the_token_unless_it_is_public() {
    for (public, expected) in [(false, 401), (true, 200)] {
        let listen = format!("listen = \"0.0.0.0:0\"\ntoken = \"{TOKEN}\"\npublic-metrics = {public}");
        let server = Server::start(&managed("").replace("listen = \"127.0.0.1:0\"", &listen));
        let port = address(&server).port();
        let status = |path: &str, headers: &[(&str, &str)]| {
            let mut stream = connect(([127, 0, 0, 1], port).into());
            stream.write_all(crate::web::request("GET", path, headers, "").as_bytes()).expect("to ask");
            crate::web::Answer::read(stream).status
        };
        for path in WATCHERS {
            assert_eq!(status(path, &[]), expected, "{path}");
            assert_eq!(status(path, &[("Authorization", &format!("bearer {TOKEN}"))]), 200, "{path}");
        }
        assert_eq!(OPEN.map(|path| status(path, &[])), [200, 200]);
        assert_eq!(status("/v1/sessions", &[]), 401);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let server = Server::start(&managed(""));
    let ask = |method: &str, target: &str, body: &str| ask_locally(&server, method, target, body);
    assert_eq!(ask("GET", "/nothing", "").status, 404);
    assert_eq!(ask("GET", "/v1/sessions/a/b", "").status, 404);
    let answer = ask("POST", "/metrics", "");
    assert!(answer.status == 405 && answer.head.contains("allow: get"), "{answer:?}");
    let head = ask("HEAD", "/status", "");
    assert!(head.status == 200 && head.body.is_empty(), "{head:?}");
    for (method, target, body) in [
        ("GET", "/v1/sessions?limit=0", ""),
        ("GET", "/v1/sessions?usr=alice", ""),
        ("GET", "/v1/sessions?client=alice", ""),
        ("GET", "/v1/sessions?cursor=here", ""),
        ("GET", "/v1/sessions?user=%zz", ""),
        ("GET", "/v1/sessions/xyz", ""),
        ("GET", "/v1/users?after=a&before=b", ""),
        ("DELETE", "/v1/sessions", ""),
        ("PUT", "/v1/log-level", ""),
        ("PUT", "/v1/log-level", "{\"level\": \"loud\"}"),
        ("POST", "/v1/drain", "{\"timeout\": -1}"),
        ("POST", "/v1/drain", "{\"timeout\": 1, \"stay\": true}"),
        ("POST", "/v1/drain", "{\"time\": 1}"),
        ("POST", "/v1/drain", "now"),
    ] {
        let answer = ask(method, target, body);
        assert!(answer.status == 400 && answer.json()["error"].is_string(), "{method} {target} {body}: {answer:?}");
    }
    assert_eq!(ask("GET", "/v1/sessions/00", "").status, 404);
    assert_eq!(ask("GET", "/ready", "").json()["ready"], true);
}

#[test]
fn browsers_do_not_ask_for_foreign_sites() {
    let server = Server::start(&with_token("host-names = [\"turn.example.org\"]"));
    let token = format!("Bearer {TOKEN}");
    let host = address(&server).to_string();
    let status = |method: &str, target: &str, host: &str, more: &[(&str, &str)]| {
        let fields: String = more.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = connect(address(&server));
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\nConnection: close\r\n{fields}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("to ask");
        Answer::read(stream).status
    };
    let own = format!("http://{host}");
    // Even with the token.
    for (method, target) in [("DELETE", "/v1/drain"), ("GET", "/v1/sessions"), ("GET", "/status"), ("GET", "/metrics")]
    {
        assert_eq!(status(method, target, &host, &[]), 200, "{method} {target}");
        assert_eq!(status(method, target, &host, &[("Origin", &own)]), 200, "{method} {target}");
        assert_eq!(status(method, target, &host, &[("Origin", "https://turn.example.org")]), 200, "{method} {target}");
        assert_eq!(status(method, target, &host, &[("Sec-Fetch-Site", "same-origin")]), 200, "{method} {target}");
        for foreign in ["http://evil.example", "https://evil.example:9641", "null", "http://127.0.0.1"] {
            assert_eq!(status(method, target, &host, &[("Origin", foreign)]), 403, "{method} {target} {foreign}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(status(method, target, &host, &[("Sec-Fetch-Site", site)]), 403, "{method} {target} {site}");
        }
        // A site that lets its own name lead here.
        for (name, expected) in
            [("evil.example", 421), ("evil.example:9641", 421), ("localhost", 200), ("turn.example.org:9641", 200)]
        {
            assert_eq!(status(method, target, name, &[]), expected, "{method} {target} as {name}");
        }
    }
    // Balancers ask by names of their own, and show nothing of it to anybody else.
    assert_eq!(status("GET", "/ready", "evil.example", &[]), 200);
    let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    assert_eq!(status("GET", "/", &host, &link), 200);
}

#[test]
fn the_page_is_whole_keeps_foreign_things_out_and_can_be_left_out() {
    let server = Server::start(&with_token(""));
    let page = ask(&server, "GET", "/", &[], "");
    assert!(page.status == 200 && page.head.contains("content-type: text/html"), "{page:?}");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
    ] {
        assert!(page.head.contains(header), "{header}: {}", page.head);
    }
    let script = ask(&server, "GET", "/web/main.js", &[], "");
    assert!(script.status == 200 && script.head.contains("content-type: text/javascript"), "{script:?}");
    let style = ask(&server, "HEAD", "/web/page.css", &[], "");
    assert!(style.status == 200 && style.body.is_empty(), "{style:?}");
    let post = ask(&server, "POST", "/", &[], "");
    assert!(post.status == 405 && post.head.contains("allow: get"), "{post:?}");
    assert_eq!(ask(&server, "GET", "/web/../web/main.js", &[], "").status, 404);
    let server = Server::start(&with_token("web-page = false"));
    for path in ["/", "/web/main.js"] {
        assert_eq!(ask(&server, "GET", path, &[], "").status, 404, "{path}");
    }
    assert_eq!(ask(&server, "GET", "/status", &[], "").status, 200);
}

#[test]
fn no_client_reaches_it_as_a_peer() {
    let server = Server::start(&managed("").replace("[relay]", "[relay]\ntcp-relaying = true"));
    let management = address(&server);
    let error = |response: &[u8]| {
        let value = Message::parse(response).expect("a response").get(A::ERROR_CODE).map(<[u8]>::to_vec);
        value.map(|value| u16::from(value[2]) * 100 + u16::from(value[3]))
    };
    let stream = TcpStream::connect(server.ipv4("tcp")).expect("a connection");
    let mut client = TurnClient::new(stream, server.ipv4("tcp"));
    client.learn_nonce();
    client.succeed(Method::Allocate, |writer| {
        writer.attribute(A::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    });
    let response = client.request(Method::Connect, |writer| {
        writer.xor_address(A::XOR_PEER_ADDRESS, management);
    });
    assert_eq!(error(&response), Some(403));

    let mut client = TurnClient::new(crate::common::client::loopback_socket(), server.ipv4("udp"));
    client.allocate();
    let response = client.request(Method::ChannelBind, |writer| {
        writer.attribute(A::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        writer.xor_address(A::XOR_PEER_ADDRESS, management);
    });
    assert_eq!(error(&response), Some(403));
}

/// A second server on one host does without what is there by default only, and not without what was asked for.
#[test]
fn what_was_asked_for_must_be_had() {
    let server = Server::start(&managed(""));
    let taken = managed("").replace("127.0.0.1:0", &address(&server).to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, taken).expect("writing");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_turnserver")).arg("-c").arg(&file).output();
    let output = output.expect("running");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("cannot listen on 127.0.0.1:") && log.contains("management.listen"), "{log}");
}
