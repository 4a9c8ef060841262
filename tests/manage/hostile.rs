//! What went wrong in the management of another server: requests that were read beyond their end, and one that overwrote files.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use crate::common::Server;
use crate::web::{TOKEN, address, ask, ask_locally, connect, get, request, with_token};

/// An HTTP server of its own read beyond a request's end, and a POST without what it expects ended the process (CVE-2020-6061,
/// CVE-2020-6062).
#[test]
fn requests_that_are_cut_short_or_garbled_harm_nothing() {
    let server = Server::start(&with_token(""));
    let authorization = format!("Bearer {TOKEN}");
    let body = r#"{"user": "zoe", "ttl": 3600}"#;
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let whole = request("POST", "/v1/credentials", &headers, body).into_bytes();
    let mut requests: Vec<Vec<u8>> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
    for at in 0..whole.len() {
        let mut garbled = whole.clone();
        garbled[at] ^= 0x80;
        requests.push(garbled);
    }
    let text = |text: &str| text.as_bytes().to_vec();
    requests.extend([
        text("POST /v1/credentials HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        text("POST /v1/credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
        text("POST /v1/credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        text("POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n"),
        text("GET /%00%n%s%ff HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        text("GET http://[ HTTP/1.1\r\n\r\n"),
        text("\r\n\r\n\r\n"),
        vec![0; 4096],
        vec![0xFF; 4096],
    ]);
    for bytes in requests {
        let mut stream = connect(address(&server));
        // It may have been refused in the middle.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !answer.starts_with(b"HTTP/1.1 5"),
            "{}: {}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(ask(&server, "GET", "/live", &[], "").status, 200);
    assert_eq!(ask_locally(&server, "GET", "/status", "").status, 200);
    let log = server.stop();
    assert!(!log.contains("panic"), "{log}");
}

/// A command of a telnet service wrote a dump to a file of any name. Here nothing that can be asked for names a file; all that can be
/// asked for is described, which `answers_are_as_described` holds the description to.
#[test]
fn nothing_that_can_be_asked_for_names_a_file() {
    let server = Server::start(&with_token(""));
    let description = get(&server, "/openapi.json");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 10, "{paths:?}");
    let mut names = Vec::new();
    for operation in paths.values().flat_map(|path| path.as_object().expect("operations").values()) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        names.extend(parameters.map(|parameter| parameter["name"].as_str().expect("a name").to_owned()));
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let schema = match schema["$ref"].as_str() {
            Some(named) => description.pointer(named.trim_start_matches('#')).expect("what it refers to"),
            None => schema,
        };
        names.extend(schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys).cloned());
    }
    for known in ["user", "ttl", "level"] {
        assert!(names.iter().any(|name| name == known), "{known}: {names:?}");
    }
    for name in &names {
        let words = ["file", "path", "folder", "directory", "output", "dump", "command"];
        assert!(!words.iter().any(|word| name.to_lowercase().contains(word)), "{name}: {names:?}");
    }
}
