//! Sessions: listed, shown, ended.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{Client, Refused};
use crate::common::{PASSWORD, Server, USER, ports::peer_socket};
use crate::web::{ask_locally, client, get, managed};

/// Two users.
fn start() -> Server {
    let bob = "[[auth.user]]\nname = \"bob & co\"\npassword = \"secret\"\n[peers]";
    Server::start(&managed("").replace("[peers]", bob))
}

fn bob(server: &Server, transport: &str) -> Client {
    Client::new(transport, server.ipv4(transport), Some(("bob & co", PASSWORD)))
}

fn ids(page: &Value) -> BTreeSet<String> {
    page["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn they_are_listed_by_filters_and_page_by_page() {
    let server = start();
    assert_eq!(get(&server, "/v1/sessions"), json!({ "sessions": [], "next": null }));
    let mut clients: Vec<Client> = (0..5).map(|_| client(&server)).collect();
    clients.push(bob(&server, "udp"));
    clients.push(bob(&server, "tcp"));
    let relayed: Vec<_> = clients.iter_mut().map(|client| client.allocate().expect("an allocation")).collect();
    let all = get(&server, "/v1/sessions");
    assert_eq!((ids(&all).len(), &all["next"]), (7, &Value::Null));
    let shown: BTreeSet<&str> = all["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|session| session["relayed"][0].as_str())
        .collect();
    assert!(relayed.iter().all(|address| shown.contains(address.to_string().as_str())));

    let (mut paged, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = get(&server, &format!("/v1/sessions?limit=3{cursor}"));
        let found = ids(&page);
        assert!(found.len() <= 3 && paged.is_disjoint(&found));
        paged.extend(found);
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, ids(&all));
    assert!(pages >= 3);

    let count = |query: &str| ids(&get(&server, &format!("/v1/sessions?{query}"))).len();
    assert_eq!(count("user=alice"), 5);
    assert_eq!(count("user=bob+%26+co"), 2);
    assert_eq!(count("user=bob"), 0);
    assert_eq!(count("user=alice&realm=example.org"), 5);
    assert_eq!(count("realm=example.net"), 0);
    assert_eq!(count("transport=tcp"), 1);
    assert_eq!(count("transport=udp&user=bob%20%26%20co"), 1);
    assert_eq!(count("client=127.0.0.1"), 7);
    assert_eq!(count("client=127.0.0.2"), 0);
    assert_eq!(count("relayed=127.0.0.1"), 7);
    for (text, expected) in [("BOB", 2), ("ob+%26", 2), ("127.0.0", 7), ("org", 7), ("nobody", 0)] {
        assert_eq!(count(&format!("search={text}")), expected, "{text}");
    }
    assert_eq!(count(&format!("search={}", relayed[3])), 1);
    assert_eq!(count("search=bob&transport=tcp"), 1);

    let users = get(&server, "/v1/users?limit=1");
    assert_eq!((&users["users"][0]["user"], &users["next"]), (&USER.into(), &USER.into()));
    let users = get(&server, "/v1/users?limit=1&after=alice");
    assert_eq!((&users["users"][0]["user"], &users["users"][0]["sessions"]), (&"bob & co".into(), &2.into()));
    assert_eq!(users["next"], Value::Null);
}

#[test]
fn one_is_shown_with_its_peers_and_ended() {
    let server = start();
    let peer = peer_socket([127, 0, 0, 1].into()).local_addr().expect("an address");
    let mut client = client(&server);
    client.allocate().expect("an allocation");
    client.permit(peer).expect("a permission");
    let id = ids(&get(&server, "/v1/sessions")).pop_first().expect("a session");
    let shown = get(&server, &format!("/v1/sessions/{id}"));
    assert_eq!(shown["peers"], json!({ "permissions": ["127.0.0.1"], "channels": [], "connections": [] }));
    assert_eq!((&shown["user"], &shown["permissions"], &shown["away"]), (&USER.into(), &1.into(), &false.into()));
    assert!(shown["expires_in"].as_f64().is_some_and(|seconds| (500.0..=600.0).contains(&seconds)), "{shown}");

    let ended = ask_locally(&server, "DELETE", &format!("/v1/sessions/{id}"), "");
    assert_eq!((ended.status, ended.json()), (200, json!({ "disconnected": 1 })));
    assert_eq!(ask_locally(&server, "DELETE", &format!("/v1/sessions/{id}"), "").status, 404);
    assert_eq!(ask_locally(&server, "GET", &format!("/v1/sessions/{id}"), "").status, 404);
    assert_eq!(server.await_logged("session ends")["reason"], "disconnected");
    assert_eq!(client.permit(peer), Err(Refused(437)));
    client.allocate().expect("another allocation");
}

#[test]
fn all_of_a_user_are_ended_and_nobody_elses() {
    let server = start();
    let mut clients = [client(&server), client(&server), bob(&server, "udp"), bob(&server, "tcp")];
    for client in &mut clients {
        client.allocate().expect("an allocation");
    }
    let ended = ask_locally(&server, "DELETE", "/v1/sessions?user=alice", "");
    assert_eq!(ended.json(), json!({ "disconnected": 2 }));
    let left = get(&server, "/v1/sessions");
    assert!(left["sessions"].as_array().expect("a list").iter().all(|session| session["user"] == "bob & co"));
    assert_eq!(ids(&left).len(), 2);
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let server = Server::start(&crate::web::with_token(""));
    let shown = get(&server, "/v1/configuration");
    assert_eq!(
        (&shown["auth"]["realm"], &shown["auth"]["user"][0]["password"]),
        (&"example.org".into(), &"****".into())
    );
    assert_eq!(shown["process"]["workers"], 2);
    let text = shown.to_string();
    assert!(!text.contains(crate::web::TOKEN) && !text.contains("secret"), "{text}");
}
