//! A real headless Chromium against the server: gathering as the trickle-ICE page does it, and 1v1 calls that may use
//! nothing but the relay.
//!
//! `browser/run.mjs` (Node, playwright-core) drives the browser and prints one JSON object; what it must say is
//! asserted here. Needs `chromium` (elsewhere than at /usr/bin/chromium: set `CHROMIUM`), Node 20 or later, and npm.

mod common;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use common::{LOOPBACK, PASSWORD, Server, USER, loopback_with_tls};

/// The relay address in [`LOOPBACK`] for a client over IPv4.
const RELAY: &str = "127.0.0.1";

/// Runs `run.mjs` in one of its modes with one `iceServers` entry and returns what it prints. The browser trusts `authority`, a
/// certificate in PEM, besides those that it came with.
fn browse(mode: &str, ice_server: &Value, authority: Option<&Path>) -> Value {
    common::browser::browse("run.mjs", mode, ice_server, authority)
}

/// A server for a transport, and the authority that vouches for it.
fn start(transport: &str) -> (Server, Option<PathBuf>) {
    match transport {
        "tls" => {
            let server = Server::start(&loopback_with_tls());
            let authority = server.folder().join("ca.pem");
            (server, Some(authority))
        }
        _ => (Server::start(LOOPBACK), None),
    }
}

/// The `iceServers` entry for a server.
fn ice_server(server: &Server, transport: &str, credential: &str) -> Value {
    let address = server.ipv4(transport);
    let url = match transport {
        "tls" => format!("turns:{address}?transport=tcp"),
        _ => format!("turn:{address}?transport={transport}"),
    };
    json!({"urls": url, "username": USER, "credential": credential})
}

fn gathers_a_relay_candidate(transport: &str) {
    let (server, authority) = start(transport);
    let ice_server = ice_server(&server, transport, PASSWORD);
    let result = browse("gather", &ice_server, authority.as_deref());
    eprintln!("{result:#}");

    let candidates = result["candidates"].as_array().expect("candidates");
    let relayed = candidates.iter().find(|candidate| candidate["type"] == "relay");
    let relayed = relayed.unwrap_or_else(|| panic!("no relay candidate: {result:#}"));
    assert_eq!(relayed["address"], RELAY, "{result:#}");
    assert_eq!(relayed["protocol"], "udp", "{result:#}");
    assert_eq!(relayed["url"], ice_server["urls"], "{result:#}");
    assert!(relayed["port"].as_u64().is_some_and(|port| port > 1023), "{result:#}");
    server.stop();
}

#[test]
fn gathers_a_relay_candidate_over_udp() {
    gathers_a_relay_candidate("udp");
}

#[test]
fn gathers_a_relay_candidate_over_tcp() {
    gathers_a_relay_candidate("tcp");
}

#[test]
fn gathers_a_relay_candidate_over_tls() {
    gathers_a_relay_candidate("tls");
}

/// Chromium checks the certificate: from an authority that it does not know there is no relay candidate.
#[test]
fn gathers_nothing_over_tls_from_a_stranger() {
    let (server, _) = start("tls");
    let result = browse("gather", &ice_server(&server, "tls", PASSWORD), None);
    let candidates = result["candidates"].as_array().expect("candidates");
    assert!(candidates.iter().all(|candidate| candidate["type"] != "relay"), "{result:#}");
    let errors = result["errors"].as_array().expect("errors");
    assert!(errors.iter().any(|error| error["errorCode"] == 701), "{result:#}");
    server.stop();
}

/// The page's other column: with a wrong password there is an error 401 and no relay candidate.
#[test]
fn gathers_an_error_with_a_wrong_password() {
    let server = Server::start(LOOPBACK);
    let result = browse("gather", &ice_server(&server, "udp", "wrong"), None);
    let candidates = result["candidates"].as_array().expect("candidates");
    assert!(candidates.iter().all(|candidate| candidate["type"] != "relay"), "{result:#}");
    let errors = result["errors"].as_array().expect("errors");
    assert!(errors.iter().any(|error| error["errorCode"] == 401), "{result:#}");
    server.stop();
}

/// A call with fake audio and video and a file each way, `iceTransportPolicy: "relay"` on both sides.
fn holds_a_call(transport: &str) {
    let (server, authority) = start(transport);
    let ice_server = ice_server(&server, transport, PASSWORD);
    let result = browse("call", &ice_server, authority.as_deref());
    eprintln!("{result:#}");

    let files = result["files"].as_array().expect("files");
    assert_eq!(files.len(), 2, "one file each way: {result:#}");
    for file in files {
        assert_eq!(file["bytes"], 5 * 1024 * 1024, "{result:#}");
        assert_eq!(file["sent"].as_str().map(str::len), Some(64), "a SHA-256 in hexadecimal: {result:#}");
        assert_eq!(file["sent"], file["received"], "the file has arrived as it was sent: {result:#}");
    }
    assert_ne!(files[0]["sent"], files[1]["sent"], "{result:#}");

    let ends = result["ends"].as_array().expect("ends");
    assert_eq!(ends.len(), 2, "{result:#}");
    for (end, other) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        let (pair, frames) = (&end["pair"], end["framesDecoded"].as_array().expect("frames"));
        let frames = frames.iter().map(|count| count.as_u64().expect("a number")).collect::<Vec<_>>();
        assert!(frames[0] > 0 && frames[0] < frames[1] && frames[1] <= frames[2], "{result:#}");

        assert_eq!(pair["state"], "succeeded", "{result:#}");
        assert_eq!((&pair["local"]["type"], &pair["remote"]["type"]), (&json!("relay"), &json!("relay")), "{result:#}");
        assert_eq!(pair["local"]["address"], RELAY, "{result:#}");
        assert_eq!(pair["local"]["relayProtocol"], transport, "{result:#}");
        assert_eq!(pair["local"]["url"], ice_server["urls"], "{result:#}");
        for key in ["address", "port"] {
            assert_eq!(pair["remote"][key], other["pair"]["local"][key], "each talks to the other's relay: {result:#}");
        }
        // On a busy machine the browser may have changed to another pair after the file; all of them are relayed.
        let received = pair["bytesReceivedByAllPairs"].as_u64().expect("a number");
        assert!(received > 5 * 1024 * 1024, "the file has come by the relay: {result:#}");
    }
    server.stop();
}

#[test]
fn holds_a_call_over_udp() {
    holds_a_call("udp");
}

#[test]
fn holds_a_call_over_tcp() {
    holds_a_call("tcp");
}

#[test]
fn holds_a_call_over_tls() {
    holds_a_call("tls");
}
