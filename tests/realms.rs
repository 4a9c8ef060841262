//! Several realms on one server: chosen by the listener, by the user's name, or by the secret; with users, secrets and peers of their
//! own. And the commands that make what clients are given.

mod client;
mod common;

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Output, Stdio},
};

use client::{Client, Refused};
use common::{LOOPBACK, Server};
use serde_json::Value;

/// The default realm `example.org`, `west.org` with a listener and peers of its own, `south.org` with neither.
fn configuration() -> String {
    let first = LOOPBACK.replace("[peers]\nallowed-peer-ip = [\"127.0.0.0/8\", \"::1\"]\n", "");
    assert_ne!(first, LOOPBACK);
    format!(
        r#"{first}
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 0
transports = ["udp", "tcp"]
realm = "west.org"
[[realm]]
name = "west.org"
[[realm.user]]
name = "alice"
password = "of the west"
[[realm.secret]]
name = "western"
secret = "the secret of the west"
[realm.peers]
allowed-peer-ip = "127.0.0.0/8"
[[realm]]
name = "south.org"
static-auth-secret = "the secret of the south"
[[realm.user]]
name = "alice"
password = "of the south"
"#
    )
}

/// Names that are good for longer than time goes, where a credential has a grace: refused like any other, and nothing fails.
#[test]
fn a_name_that_never_ends_is_one_like_others() {
    let server = Server::start(
        &configuration().replace("realm = \"example.org\"", "realm = \"example.org\"\nexpiry-grace = \"1h\""),
    );
    for listener in listeners(&server, "udp") {
        for name in ["18446744073709551615:zoe", "18446744073709551614", "18446744073709551616:zoe"] {
            let mut client = Client::new("udp", listener, Some((name, "of nobody")));
            assert_eq!(client.allocate(), Err(Refused(401)), "{name}");
        }
    }
    assert!(!server.stop().contains("a bug"));
}

/// The listener of the default realm, and that of `west.org`.
fn listeners(server: &Server, transport: &str) -> [SocketAddr; 2] {
    let all: Vec<SocketAddr> = server.addresses(transport).into_iter().filter(SocketAddr::is_ipv4).collect();
    all.try_into().expect("two listeners")
}

/// The realm that a session of this user is logged with, or the refusal.
fn realm_of(server: &Server, transport: &str, to: SocketAddr, user: &str, password: &str) -> Result<String, Refused> {
    let mut client = Client::new(transport, to, Some((user, password)));
    client.allocate()?;
    let local = client.local().to_string();
    let realm = server.await_log(|log| {
        log.lines().find_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let fields = &entry["fields"];
            let is_it = fields["message"] == "session begins" && fields["client"] == *local;
            is_it.then(|| format!("{}@{}", fields["user"].as_str().unwrap(), fields["realm"].as_str().unwrap()))
        })
    });
    client.delete()?;
    Ok(realm)
}

#[test]
fn a_realm_is_chosen_by_listener_and_by_the_users_name() {
    let server = Server::start(&configuration());
    for transport in ["udp", "tcp"] {
        let [first, west] = listeners(&server, transport);
        let realm = |to, user, password| realm_of(&server, transport, to, user, password);
        assert_eq!(realm(first, "alice", "secret").as_deref(), Ok("alice@example.org"));
        assert_eq!(realm(west, "alice", "of the west").as_deref(), Ok("alice@west.org"));
        assert_eq!(realm(first, "alice@south.org", "of the south").as_deref(), Ok("alice@south.org"));
        for (to, user, password) in [
            (first, "alice", "of the west"),
            (first, "alice", "of the south"),
            (first, "alice@west.org", "of the west"),
            (west, "alice", "secret"),
            (west, "alice@south.org", "of the south"),
        ] {
            assert_eq!(realm(to, user, password), Err(Refused(401)), "{user} {password}");
        }
    }
    server.stop();
}

/// Runs a command with the server's configuration.
fn turnserver(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The JSON that a command prints.
fn json(arguments: &[&str], input: &str) -> Value {
    let output = turnserver(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The message of a command that fails.
fn failure(arguments: &[&str], input: &str) -> String {
    let output = turnserver(arguments, input);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &[][..]));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_realm_is_chosen_by_the_secret_and_credentials_are_minted_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turnserver.toml");
    std::fs::write(&file, configuration()).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&configuration());
    let [first, west] = listeners(&server, "udp");
    let mint = |realm: &str| {
        let all = ["credentials", "-c", file, "--json", "--shape", "rest", "--user", "zoe", "--realm", realm];
        let minted = json(&all, "");
        assert_eq!(minted["ttl"], 86_400);
        ["username", "password"].map(|key| minted[key].as_str().unwrap().to_owned())
    };
    let [name, password] = mint("south.org");
    let realm = |to, name: &str, password: &str| realm_of(&server, "udp", to, name, password);
    assert_eq!(realm(first, &name, &password).as_deref(), Ok("zoe@south.org"));
    assert_eq!(realm(west, &name, &password), Err(Refused(401)));
    let [name, password] = mint("west.org");
    assert_eq!(realm(west, &name, &password).as_deref(), Ok("zoe@west.org"));
    assert_eq!(realm(first, &name, &password), Err(Refused(401)));
    server.stop();
}

#[test]
fn each_realm_has_peers_of_its_own() {
    let server = Server::start(&configuration());
    let [first, west] = listeners(&server, "udp");
    // Not the relay's own address, where relayed addresses are peers of everybody.
    let peer = SocketAddr::from(([127, 0, 0, 2], 9));
    for (to, user, password, permitted) in [
        (first, "alice", "secret", Err(Refused(403))),
        (first, "alice@south.org", "of the south", Err(Refused(403))),
        (west, "alice", "of the west", Ok(())),
    ] {
        let mut client = Client::new("udp", to, Some((user, password)));
        client.allocate().unwrap();
        assert_eq!(client.permit(peer), permitted, "{user}");
    }
    server.stop();
}

#[test]
fn credentials_come_in_the_shapes_that_applications_take() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turnserver.toml");
    let text = "[[listener]]\nlistening-ip = \"127.0.0.1\"\n[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nrealm = \"example.org\"\n\
                [[auth.secret]]\nname = \"new\"\nsecret = \"a secret of these times\"\nalgorithm = \"sha256\"\n\
                [[auth.secret]]\nname = \"old\"\nsecret = \"a secret of former times\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let urls = ["stun:127.0.0.1:3478", "turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"];
    let servers = json(&["credentials", "-c", file, "--json", "--user", "zoe"], "");
    let entry = &servers["iceServers"][0];
    assert_eq!(entry["urls"], serde_json::json!(urls));
    assert!(entry["username"].as_str().unwrap().ends_with(":zoe"));
    assert_eq!(entry["credential"].as_str().unwrap().len(), 44, "HMAC-SHA256");
    let servers = json(&["credentials", "-c", file, "--json", "--shape", "cloudflare", "--secret-name", "old"], "");
    assert_eq!(servers["iceServers"][0]["urls"], serde_json::json!(urls[..1]));
    assert_eq!(servers["iceServers"][1]["credential"].as_str().unwrap().len(), 28, "HMAC-SHA1");
    let output = turnserver(&["credentials", "-c", file, "--ttl", "90s"], "");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("username  ") && table.contains("\npassword  ") && table.contains("\"iceServers\""));
    assert!(failure(&["credentials", "-c", file, "--secret-name", "x"], "").contains("there are: new, old"));
    assert!(failure(&["credentials", "-c", file, "--realm", "x"], "").contains("there is no realm \"x\""));
    assert!(failure(&["credentials", "-c", file, "--user", "a\nb"], "").contains("--user"));
    assert!(failure(&["credentials"], "").contains("has no secret"));
    assert_eq!(turnserver(&["credentials", "--ttl", "soon"], "").status.code(), Some(2));
}

/// The keys of coturn's documentation; the password comes from standard input.
#[test]
fn keys_are_those_of_other_servers() {
    let all = ["key", "--user", "ninefingers", "--realm", "north.gov"];
    let keys = json(&[&all[..], &["--json"]].concat(), "youhavetoberealistic\n");
    assert_eq!(keys["key"], "bc807ee29df3c9ffa736523fb2c4e8ee");
    assert_eq!(keys["key-sha256"].as_str().unwrap().len(), 64);
    let output = turnserver(&all, "youhavetoberealistic");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("key         bc807ee29df3c9ffa736523fb2c4e8ee\n"), "{table}");
    assert!(!table.contains("youhavetoberealistic"));
    assert!(failure(&all, "\n").contains("the password is empty"));
    assert!(failure(&all, "").contains("the password is empty"));
    // The realm of the configuration; here the built-in one.
    assert_eq!(json(&["key", "--user", "u", "--json"], "p")["realm"], "turnserver");
    assert_eq!(turnserver(&["key", "--user", "u", "--password", "p"], "").status.code(), Some(2));
}
