//! `turnserver ctl`, every verb, for people and as JSON.

use std::process::{Command, Output};

use serde_json::Value;

use crate::client::Refused;
use crate::common::{Server, USER, ports::peer_socket};
use crate::web::{client, managed, socket};

/// Runs it with the server's socket.
fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("ctl").arg("--socket").arg(socket(server)).args(arguments).env_remove("TURNSERVER_CONFIG");
    command.output().expect("to run")
}

/// What it prints when it succeeds.
fn ctl(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{arguments:?}: {:?} {error}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    let text = ctl(server, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// Why it fails, on one line.
fn fails(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn it_tells_how_the_server_is() {
    let server = Server::start(&managed(""));
    let mut alice = client(&server);
    alice.allocate().expect("an allocation");
    let info = ctl(&server, &["info"]);
    let version = env!("CARGO_PKG_VERSION");
    for part in [
        &format!("version            {version}"),
        "state              serving; sessions: 1",
        "readiness          ready",
        "allocations        1 now, 1 since the start",
        "  udp ipv4         1 now, 1 since the start",
        "worker 1           load",
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&info).contains(&words(part)), "{part:?} is not in\n{info}");
    }
    assert_eq!(json(&server, &["info"])["allocations"]["active"], 1);
    assert_eq!(ctl(&server, &["version"]), format!("{version}\n"));
    assert_eq!(json(&server, &["version"])["version"], version);
    assert_eq!(ctl(&server, &["status"]), "ready\n");
    assert_eq!(json(&server, &["status"])["ready"], true);
}

#[test]
fn it_lists_shows_and_ends_sessions() {
    let server = Server::start(&managed(""));
    let mut clients = [client(&server), client(&server), client(&server)];
    let relayed = clients.each_mut().map(|client| client.allocate().expect("an allocation"));
    let peer = peer_socket([127, 0, 0, 1].into()).local_addr().expect("an address");
    clients.iter_mut().for_each(|client| client.permit(peer).expect("a permission"));

    let table = ctl(&server, &["sessions"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines.len() == 4, "{table}");
    assert!(relayed.iter().all(|address| table.contains(&address.to_string())) && table.contains(USER), "{table}");
    let all = json(&server, &["sessions", USER]);
    assert_eq!((all["sessions"].as_array().map(Vec::len), &all["more"]), (Some(3), &false.into()));
    assert_eq!(json(&server, &["sessions", "bob"])["sessions"], serde_json::json!([]));
    assert_eq!(json(&server, &["sessions", "--transport", "tcp"])["sessions"], serde_json::json!([]));
    let some = json(&server, &["sessions", "--client", "127.0.0.1", "--limit", "2"]);
    assert_eq!((some["sessions"].as_array().map(Vec::len), &some["more"]), (Some(2), &true.into()));

    let id = all["sessions"][0]["id"].as_str().expect("an id");
    let shown = ctl(&server, &["sessions", "--id", id]);
    assert!(
        shown.contains(id) && shown.lines().any(|line| line.starts_with("permissions ") && line.contains("127.0.0.1"))
    );
    assert_eq!(json(&server, &["sessions", "--id", id])["id"], id);
    assert_eq!(ctl(&server, &["disconnect", id]), "sessions ended: 1\n");
    assert!(fails(&server, &["disconnect", id]).contains("there is no such session"));
    assert_eq!(json(&server, &["disconnect", "--user", USER])["disconnected"], 2);
    for client in &mut clients {
        assert_eq!(client.permit(peer), Err(Refused(437)));
    }
}

#[test]
fn it_drains_undrains_and_stops() {
    let server = Server::start(&managed(""));
    let mut alice = client(&server);
    alice.allocate().expect("an allocation");
    let text = ctl(&server, &["drain", "--timeout", "10m"]);
    assert!(text.starts_with("draining; sessions: 1; stops in ") && text.ends_with(" at the latest\n"), "{text}");
    let status = run(&server, &["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&status.stdout), "not ready: draining\n");
    assert_eq!(client(&server).allocate(), Err(Refused(508)));
    assert_eq!(ctl(&server, &["undrain"]), "serving; sessions: 1\n");
    assert_eq!(ctl(&server, &["status"]), "ready\n");
    assert_eq!(json(&server, &["drain", "--stay"])["drain"]["stay"], true);
    assert_eq!(json(&server, &["undrain"])["state"], "serving");
    assert_eq!(json(&server, &["stop"])["state"], "stopping");
    let log = server.ended();
    assert!(log.contains("told to stop"), "{log}");
}

#[test]
fn it_changes_the_log_level() {
    let server = Server::start(&managed(""));
    assert_eq!(ctl(&server, &["loglevel"]), "info\n");
    client(&server).allocate().expect("an allocation");
    assert!(!server.log().contains("\"refused\""));
    assert_eq!(ctl(&server, &["loglevel", "info,turnserver=debug"]), "info,turnserver=debug\n");
    client(&server).allocate().expect("an allocation");
    server.await_logged("refused");
    assert_eq!(json(&server, &["loglevel", "info"])["level"], "info");
    assert_eq!(ctl(&server, &["loglevel"]), "info\n");
    let wrong = run(&server, &["loglevel", "loud"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn it_finds_the_socket_by_the_configuration_and_says_when_nobody_is_there() {
    let server = Server::start(&managed(""));
    let file = server.folder().join("turnserver.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_turnserver")).args(["ctl", "status", "-c"]).arg(&file).output();
    let output = output.expect("to run");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\n");
    let socket = socket(&server);
    let command = |socket: &std::path::Path| {
        Command::new(env!("CARGO_BIN_EXE_turnserver")).args(["ctl", "info", "--socket"]).arg(socket).output()
    };
    server.stop();
    assert!(!socket.exists(), "it removes its socket");
    let output = command(&socket).expect("to run");
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(why.contains("cannot reach the server at") && why.contains("--socket"), "{why}");
}
