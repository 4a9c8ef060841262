//! Time-limited credentials from the management interface, whose users get in with them; and secrets that are revoked.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, Refused};
use crate::common::Server;
use crate::metrics::samples;
use crate::web::{TOKEN, ask, ask_locally, get, managed, socket};

/// Two secrets of the default realm, one of another realm.
fn start() -> Server {
    let secrets = r#"uris = ["stun:192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp"]
[[auth.secret]]
name = "first"
secret = "the secret of the north"
[[auth.secret]]
name = "second"
secret = "the secret of the south"
[[realm]]
name = "example.net"
[[realm.secret]]
name = "first"
secret = "the secret of the east"
[peers]"#;
    let users = "[[auth.user]]\nname = \"alice\"\npassword = \"secret\"\n[peers]";
    let more = format!("token = \"{TOKEN}\"");
    Server::start(&managed(&more).replace(users, secrets))
}

/// A client with a credential in the draft's shape.
fn client(server: &Server, made: &Value) -> Client {
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    Client::new("udp", server.ipv4("udp"), Some((&text("username"), &text("password"))))
}

/// What `turnserver ctl` prints when it succeeds, as JSON.
fn ctl(server: &Server, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("ctl").arg("--socket").arg(socket(server)).args(arguments).arg("--json");
    let output = command.env_remove("TURNSERVER_CONFIG").output().expect("to run");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn they_let_their_users_in_and_come_in_three_shapes() {
    let server = start();
    let made = get(&server, "/v1/credentials?service=turn&username=bob&ttl=600");
    assert_eq!((&made["ttl"], &made["uris"]), (&600.into(), &json!(["turn:192.0.2.1:3478?transport=udp"])));
    assert!(made["username"].as_str().is_some_and(|name| name.ends_with(":bob")), "{made}");
    client(&server, &made).allocate().expect("an allocation");
    let sessions = get(&server, "/v1/sessions?user=bob");
    let session = &sessions["sessions"][0];
    assert_eq!((&session["realm"], &session["secret"]), (&"example.org".into(), &"first".into()));

    let stranger = Client::new("udp", server.ipv4("udp"), Some(("nobody", "secret"))).allocate();
    assert_eq!(stranger, Err(Refused(401)));
    let now = samples(&server);
    for (name, is_right) in [
        ("mechanism=\"rest\",result=\"passed\"", true),
        ("mechanism=\"unknown\",result=\"unauthenticated\"", true),
        ("mechanism=\"password\",result=\"passed\"", false),
    ] {
        assert_eq!(now[&format!("turn_authentications_total{{{name}}}")] >= 1.0, is_right, "{name}");
    }

    let ice = get(&server, "/v1/credentials?shape=ice-servers");
    assert_eq!(ice["iceServers"][0]["urls"], json!(["stun:192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp"]));
    let answer = ask_locally(&server, "POST", "/v1/credentials", "{\"ttl\": 60, \"shape\": \"cloudflare\"}");
    assert_eq!(answer.status, 201, "{answer:?}");
    let cloudflare = answer.json();
    let entries = &cloudflare["iceServers"];
    assert_eq!(entries[0], json!({ "urls": ["stun:192.0.2.1:3478"] }));
    let named = json!({ "username": entries[1]["username"], "password": entries[1]["credential"] });
    client(&server, &named).allocate().expect("an allocation");
    assert!(answer.head.contains("cache-control: no-store"), "{answer:?}");
}

#[test]
fn they_are_for_whoever_has_the_token_alone() {
    let server = start();
    assert_eq!(ask(&server, "GET", "/v1/credentials", &[], "").status, 401);
    let wrong = [("Authorization", "Bearer 0123456789abcdef0123456789abcdee")];
    assert_eq!(ask(&server, "POST", "/v1/credentials", &wrong, "").status, 401);
    let bearer = format!("Bearer {TOKEN}");
    let answer = ask(&server, "POST", "/v1/credentials", &[("Authorization", &bearer)], "");
    assert_eq!((answer.status, &answer.json()["ttl"]), (201, &86_400.into()));
}

#[test]
fn what_cannot_be_made_is_refused_with_the_reason() {
    let server = start();
    for (target, why) in [
        ("?ttl=0", "`ttl` is not a number"),
        ("?ttl=99999999", "`ttl` is not a number"),
        ("?realm=nowhere", "there is no realm \"nowhere\""),
        ("?secret=third", "there is no secret \"third\"; there are: first, second"),
        ("?shape=round", "`shape` is not one of"),
        ("?service=stun", "`service` is not turn"),
        ("?usr=bob", "`usr` is not known"),
        ("?user=a%0ab", "the user's name cannot stand"),
    ] {
        let answer = ask_locally(&server, "GET", &format!("/v1/credentials{target}"), "");
        let error = answer.json()["error"].as_str().expect("a reason").to_owned();
        assert!(answer.status == 400 && error.contains(why), "{target}: {answer:?}");
    }
    for body in ["{", "[]", "{\"ttl\": 0}", "{\"ttl\": -1}", "{\"usr\": \"bob\"}", "{\"shape\": \"round\"}"] {
        assert_eq!(ask_locally(&server, "POST", "/v1/credentials", body).status, 400, "{body}");
    }
}

#[test]
fn a_secret_is_revoked_with_all_its_sessions_and_no_others() {
    let server = start();
    let mut clients = Vec::new();
    for wish in ["?user=a", "?user=b", "?user=c&secret=second", "?user=d&realm=example.net"] {
        let made = get(&server, &format!("/v1/credentials{wish}"));
        let mut client = client(&server, &made);
        client.allocate().unwrap_or_else(|refused| panic!("{wish}: {refused:?}"));
        clients.push(client);
    }
    let ended = ask_locally(&server, "DELETE", "/v1/sessions?secret=first&realm=example.org", "");
    assert_eq!((ended.status, ended.json()), (200, json!({ "disconnected": 2 })));
    assert_eq!(server.await_logged("session ends")["reason"], "revoked");
    let left = get(&server, "/v1/sessions");
    let users = left["sessions"].as_array().expect("a list").iter().map(|one| one["user"].as_str().expect("a name"));
    let mut users: Vec<&str> = users.collect();
    users.sort_unstable();
    assert_eq!(users, ["c", "d"]);
    for wrong in ["", "?realm=example.org", "?secret=a&user=b", "?secret=first&realm=nowhere"] {
        assert_eq!(ask_locally(&server, "DELETE", &format!("/v1/sessions{wrong}"), "").status, 400, "{wrong}");
    }
    assert_eq!(ctl(&server, &["disconnect", "--secret", "first"])["disconnected"], 1);
    assert_eq!(ctl(&server, &["disconnect", "--user", "c", "--realm", "example.net"])["disconnected"], 0);
    assert_eq!(ctl(&server, &["disconnect", "--user", "c", "--realm", "example.org"])["disconnected"], 1);
}

#[test]
fn ctl_makes_them() {
    let server = start();
    let made = ctl(&server, &["credentials", "bob", "--ttl", "10m", "--secret-name", "second"]);
    assert_eq!(made["ttl"], 600);
    client(&server, &made).allocate().expect("an allocation");
    assert_eq!(get(&server, "/v1/sessions?secret=second")["sessions"][0]["user"], "bob");
    let made = ctl(&server, &["credentials", "--shape", "ice-servers"]);
    assert!(made["iceServers"][0]["credential"].is_string(), "{made}");
}
