//! Rules, limits, log level, and what needs a restart.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::json;

use crate::{
    client::Refused,
    common::{PASSWORD, PATIENCE, Server, USER},
    support::{client, ctl, is_silent, peer, peer_at, reload, rewrite, round_trip, strings},
    web::{TOKEN, ask, get, managed, with_token},
};

#[test]
fn peers_that_are_denied_are_reached_no_longer() {
    let server = Server::start(&managed(""));
    let mut alice = client(&server, USER, PASSWORD);
    alice.allocate().expect("an allocation");
    let (good, bad) = (peer(), peer_at(Ipv4Addr::new(127, 0, 0, 2)));
    for peer in [&good, &bad] {
        alice.permit(peer.1).expect("a permission");
        round_trip(&mut alice, peer);
    }
    let narrower = managed("").replace("[peers]\n", "[peers]\ndenied-peer-ip = \"127.0.0.2\"\n");
    let answer = reload(&server, &narrower);
    assert_eq!(strings(&answer["changed"]), ["peers.denied-peer-ip"]);
    let id = get(&server, "/v1/sessions")["sessions"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(get(&server, &format!("/v1/sessions/{id}"))["peers"]["permissions"], json!(["127.0.0.1"]));
    alice.send(bad.1, b"to nobody");
    assert!(is_silent(&bad.0));
    assert_eq!(alice.permit(bad.1), Err(Refused(403)));
    round_trip(&mut alice, &good);
    // What is allowed again needs a new permission.
    reload(&server, &managed(""));
    alice.send(bad.1, b"to nobody");
    assert!(is_silent(&bad.0));
    alice.permit(bad.1).expect("a permission");
    round_trip(&mut alice, &bad);
}

/// Of so many datagrams sent at once, how many come to the peer.
fn arrived(
    client: &mut crate::client::Client,
    (socket, address): &(std::net::UdpSocket, std::net::SocketAddr),
) -> usize {
    const SENT: usize = 40;
    (0..SENT).for_each(|_| client.send(*address, &[7; 1000]));
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
    let arrived = (0..SENT).take_while(|_| socket.recv(&mut [0; 2000]).is_ok()).count();
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    arrived
}

#[test]
fn limits_hold_for_new_sessions_and_for_those_there_are() {
    let limited = |limits: &str| managed(&format!("[limits]\n{limits}"));
    let server = Server::start(&limited(""));
    let (mut first, peer) = (client(&server, USER, PASSWORD), peer());
    first.allocate().expect("an allocation");
    first.permit(peer.1).expect("a permission");
    assert_eq!(arrived(&mut first, &peer), 40);

    let answer = reload(&server, &limited("user-quota = 1\nuser-max-bps = \"80kbit/s\"\nburst = \"50ms\"\n"));
    assert_eq!(strings(&answer["changed"]), ["limits.burst", "limits.user-max-bps", "limits.user-quota"]);
    assert_eq!(client(&server, USER, PASSWORD).allocate(), Err(Refused(486)));
    let some = arrived(&mut first, &peer);
    assert!((1..20).contains(&some), "{some}");

    reload(&server, &limited("user-quota = 2\nuser-unused-quota = 1\n"));
    assert_eq!(arrived(&mut first, &peer), 40);
    let mut second = client(&server, USER, PASSWORD);
    second.allocate().expect("an allocation");
    assert_eq!(client(&server, USER, PASSWORD).allocate(), Err(Refused(486)));

    // What is held is given back as it was counted.
    reload(&server, &limited("user-quota = 1\n"));
    first.delete().expect("to let go");
    second.delete().expect("to let go");
    client(&server, USER, PASSWORD).allocate().expect("an allocation");
}

#[test]
fn log_level_lifetimes_and_redirection_change() {
    let server = Server::start(&managed(""));
    let mut alice = client(&server, USER, PASSWORD);
    alice.allocate().expect("an allocation");
    let more = "[log]\nlevel = \"debug\"\n[redirect]\nalternate-server = \"192.0.2.7:3478\"\n\
                [lifetimes]\nmax-allocate-lifetime = \"700s\"\n";
    let answer = reload(&server, &managed(more));
    let changed = strings(&answer["changed"]);
    for key in ["log.level", "lifetimes.max-allocate-lifetime", "redirect.server"] {
        assert!(changed.iter().any(|changed| changed == key), "{key} is not in {changed:?}");
    }
    assert_eq!(get(&server, "/v1/log-level"), json!({ "level": "debug" }));
    assert_eq!(client(&server, USER, PASSWORD).allocate(), Err(Refused(300)));
    server.await_log(|log| log.contains("\"message\":\"refused\"").then_some(()));
    assert_eq!(get(&server, "/v1/configuration")["lifetimes"]["max-allocate-lifetime"], "700s");
    // A level that an operator has set stays until the configuration names another one.
    crate::web::ask_locally(&server, "PUT", "/v1/log-level", "{\"level\": \"warn\"}");
    reload(&server, &managed("[log]\nlevel = \"debug\"\n"));
    assert_eq!(get(&server, "/v1/log-level"), json!({ "level": "warn" }));
    client(&server, USER, PASSWORD).allocate().expect("an allocation");
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let server = Server::start(&managed(""));
    let before = get(&server, "/v1/configuration");
    let other = managed("[limits]\nuser-quota = 9\n[log]\nformat = \"text\"\n")
        .replace("workers = 2", "workers = 3\nudp-io = \"portable\"")
        .replace("[auth]\n", "min-port = 50000\n[auth]\n");
    rewrite(&server, &other);
    let output = ctl(&server);
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{told}");
    let expected = "reloaded; changed: limits.user-quota\n\
                    not applied until a restart: relay.min-port, process.workers, process.udp-io\nwarning: ";
    assert!(told.starts_with(expected), "{told}");
    server.await_logged("not applied until a restart");
    let after = get(&server, "/v1/configuration");
    assert_eq!(after["limits"]["user-quota"], 9);
    for (table, key) in [("process", "workers"), ("process", "udp-io"), ("relay", "min-port"), ("log", "format")] {
        assert_eq!(after[table][key], before[table][key], "{table}.{key}");
    }
    // It is still so the next time, and nothing else has changed.
    let again = reload(&server, &other);
    assert_eq!((strings(&again["changed"]).len(), strings(&again["needs_restart"]).len()), (0, 3));
}

#[test]
fn the_token_of_management_changes() {
    let server = Server::start(&with_token(""));
    let asks =
        |token: &str| ask(&server, "GET", "/v1/sessions", &[("Authorization", &format!("Bearer {token}"))], "").status;
    assert_eq!(asks(TOKEN), 200);
    let other = "fedcba9876543210fedcba9876543210";
    let answer = reload(&server, &with_token("").replace(TOKEN, other));
    assert_eq!(strings(&answer["changed"]), ["management.token"]);
    assert_eq!((asks(TOKEN), asks(other)), (401, 200));
}
