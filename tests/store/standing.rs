//! What a store no longer has ends the sessions that it has let in: at once where the commands take it out, and soon where
//! somebody else does. Everybody else's go on.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::{
    client::{Client, Refused},
    common::{LOOPBACK, PATIENCE, Server, process::run},
    logins::log_in,
};

/// A server with users of its configuration, whose store is a file and empty; what it knows is good for so long.
fn server(cache_time: &str) -> Server {
    Server::start(&format!(
        r#"{LOOPBACK}[management]
listen = "off"
socket = "control.sock"
[store]
type = "sqlite"
path = "turndb"
cache-time = "{cache_time}"
negative-cache-time = "{cache_time}"
"#
    ))
}

/// Runs a command on the server's store; returns what it says on standard error.
fn command(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.args(arguments).arg("-c").arg(server.folder().join("turnserver.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("to write");
    let output = child.wait_with_output().expect("an end");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// A client with an allocation.
fn session(server: &Server, user: &str, password: &str) -> Client {
    let mut client = Client::new("udp", server.ipv4("udp"), Some((user, password)));
    client.allocate().expect("an allocation");
    client
}

/// Whether the client's allocation is still there, with whose key it is let in; without, whoever is known to nobody is refused
/// with 401, and anybody else with 437.
fn goes_on(client: &mut Client) -> bool {
    match client.permit(([127, 0, 0, 1], 9).into()) {
        Ok(()) => true,
        Err(refused) => {
            assert!([Refused(401), Refused(437)].contains(&refused), "{refused:?}");
            false
        }
    }
}

/// A time-limited credential of this secret.
pub(crate) fn minted(secret: &str) -> (&'static str, String) {
    let name = "4102444800:zoe";
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(name.as_bytes());
    (name, BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[test]
fn commands_count_at_once() {
    // Far longer than the test: nothing here is found by looking.
    let server = server("1h");
    assert_eq!(log_in(&server, "udp", "carol", "tape"), Err(Refused(401)));
    assert_eq!(command(&server, &["user", "add", "carol"], "tape\n"), "");
    command(&server, &["user", "add", "bob"], "sword\n");
    let mut sessions = [("alice", "secret"), ("carol", "tape"), ("carol", "tape"), ("bob", "sword")]
        .map(|(user, password)| session(&server, user, password));
    // Whoever knows the old password is not bob any more.
    assert_eq!(command(&server, &["user", "password", "bob"], "axe\n"), "sessions ended: 1\n");
    assert_eq!(sessions.each_mut().map(goes_on), [true, true, true, false]);
    assert_eq!(log_in(&server, "udp", "bob", "sword"), Err(Refused(401)));
    assert_eq!(log_in(&server, "udp", "bob", "axe"), Ok(()));
    assert_eq!(command(&server, &["user", "remove", "carol"], ""), "sessions ended: 2\n");
    assert_eq!(sessions.each_mut().map(goes_on), [true, false, false, false]);
    assert_eq!(log_in(&server, "udp", "carol", "tape"), Err(Refused(401)));

    let (name, password) = minted("the-first-secret");
    assert_eq!(log_in(&server, "udp", name, &password), Err(Refused(401)));
    command(&server, &["secret", "add"], "the-first-secret\n");
    command(&server, &["secret", "add"], "the-second-secret\n");
    let mut first = session(&server, name, &password);
    let mut second = session(&server, name, &minted("the-second-secret").1);
    assert_eq!(command(&server, &["secret", "remove"], "the-first-secret\n"), "sessions ended: 1\n");
    assert_eq!([&mut first, &mut second].map(goes_on), [false, true]);
    assert_eq!(log_in(&server, "udp", name, &password), Err(Refused(401)));
    // Nobody has taken out what the configuration has.
    assert_eq!(sessions.each_mut().map(goes_on), [true, false, false, false]);
}

#[test]
fn what_others_take_out_is_found_soon() {
    let server = server("1s");
    command(&server, &["user", "add", "carol"], "tape\n");
    command(&server, &["secret", "add"], "the-first-secret\n");
    let (name, password) = minted("the-first-secret");
    let mut sessions = [("alice", "secret"), ("carol", "tape"), (name, password.as_str())]
        .map(|(user, password)| session(&server, user, password));
    let mut sqlite3 = Command::new("sqlite3");
    sqlite3.arg(server.folder().join("turndb")).arg("DELETE FROM turnusers_lt; DELETE FROM turn_secret;");
    run(sqlite3, PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    while sessions.each_mut().map(goes_on) != [true, false, false] {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    server.await_logged("ended: the store no longer has what let them in");
}

#[test]
fn credentials_are_made_with_a_secret_of_the_store() {
    let server = server("1h");
    let file = server.folder().join("turnserver.toml");
    let turnserver = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        let output = command.args(arguments).arg("-c").arg(&file).output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, said) = turnserver(&["credentials", "--user", "zoe"]);
    assert!(code == Some(1) && said.contains("this realm has no secret"), "{said}");
    command(&server, &["secret", "add"], "the-first-secret\n");
    for arguments in
        [&["credentials", "--user", "zoe", "--json", "--shape", "rest"][..], &["ctl", "--json", "credentials", "zoe"]]
    {
        let (code, made, said) = turnserver(arguments);
        assert_eq!(code, Some(0), "{said}");
        let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
        let text = |key: &str| made[key].as_str().expect("text").to_owned();
        assert_eq!(log_in(&server, "udp", &text("username"), &text("password")), Ok(()));
    }
    // A file with a mistake in it still tells where the server is asked.
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("type = \"sqlite\"", "type = \"slate\"")).expect("to write");
    let (code, _, said) = turnserver(&["ctl", "reload"]);
    assert!(code == Some(1) && said.contains("nothing has changed") && said.contains("slate"), "{code:?} {said}");
}

/// What the server has counted of its store.
fn metric(server: &Server, name: &str) -> f64 {
    let mut socket = std::os::unix::net::UnixStream::connect(server.folder().join("control.sock")).expect("the socket");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("to write");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{store=\"sqlite\"}} ")));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().expect("a number")
}

/// Tells the server over its socket that the store has changed; returns the status and the answer.
fn say_that_it_changed(server: &Server, body: &str) -> String {
    let mut socket = std::os::unix::net::UnixStream::connect(server.folder().join("control.sock")).expect("the socket");
    let head = format!(
        "POST /v1/store/changes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).expect("to write");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn a_change_that_others_tell_of_counts_at_once() {
    let server = server("1h");
    for user in ["bob", "carol"] {
        command(&server, &["user", "add", user], "tape\n");
        assert_eq!(log_in(&server, "udp", user, "tape"), Ok(()));
    }
    let mut carol = session(&server, "carol", "tape");
    let mut sqlite3 = Command::new("sqlite3");
    sqlite3.arg(server.folder().join("turndb")).arg("DELETE FROM turnusers_lt;");
    run(sqlite3, PATIENCE);
    // Both are in the cache, and will be for long.
    assert_eq!(log_in(&server, "udp", "bob", "tape"), Ok(()));
    let answer = say_that_it_changed(&server, "{}");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"disconnected\":1"), "{answer}");
    assert!(!goes_on(&mut carol));
    // Also of whoever has no session.
    assert_eq!(log_in(&server, "udp", "bob", "tape"), Err(Refused(401)));
    let wrong = say_that_it_changed(&server, "{\"user\": \"bob\"}");
    assert!(wrong.starts_with("HTTP/1.1 400 "), "{wrong}");
}

#[test]
fn a_store_that_fails_shows_in_the_metrics() {
    let server = server("1s");
    command(&server, &["user", "add", "carol"], "tape\n");
    assert_eq!(log_in(&server, "udp", "carol", "tape"), Ok(()));
    assert_eq!([metric(&server, "turn_store_up"), metric(&server, "turn_store_outages_total")], [1.0, 0.0]);
    // A file that is no database.
    let database = server.folder().join("turndb");
    for file in ["turndb", "turndb-wal", "turndb-shm"] {
        let path = server.folder().join(file);
        if path.exists() {
            std::fs::write(path, "x".repeat(8192)).expect("to write");
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while [metric(&server, "turn_store_up"), metric(&server, "turn_store_outages_total")] != [0.0, 1.0] {
        assert_eq!(log_in(&server, "udp", "alice", "secret"), Ok(()));
        let _ = log_in(&server, "udp", "carol", "tape");
        assert!(Instant::now() < deadline, "{} {}", database.display(), server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_command_says_so_where_the_server_cannot_be_told() {
    let server = server("1h");
    let folder = server.folder();
    // Somebody listens who never answers as this server does.
    let elsewhere = folder.join("elsewhere.sock");
    let listener = std::os::unix::net::UnixListener::bind(&elsewhere).expect("a socket");
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let file = folder.join("turnserver.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("control.sock", "elsewhere.sock")).expect("to write");
    let said = command(&server, &["user", "add", "carol"], "tape\n");
    assert!(said.starts_with("warning: a running server may know this only after 3600s: "), "{said}");
}
