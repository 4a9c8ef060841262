//! What is told over the socket that NOTIFY_SOCKET names.

use std::{
    os::{linux::net::SocketAddrExt, unix::net::SocketAddr, unix::net::UnixDatagram},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::client::Client;
use crate::common::{LOOPBACK, PASSWORD, PATIENCE, Server, USER};
use crate::tracee::Held;

/// Where a service manager listens.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, _folder: folder, path }
    }

    fn start(&self, configuration: &str, watchdog: Option<Duration>) -> Server {
        Server::start_as(None, configuration, |command| {
            command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_PID");
            match watchdog {
                Some(limit) => command.env("WATCHDOG_USEC", limit.as_micros().to_string()),
                None => command.env_remove("WATCHDOG_USEC"),
            };
        })
    }

    /// The next message, unless none comes in time.
    fn message(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).expect("a time limit");
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).expect("text"))
    }

    /// The first message still to come that has this line.
    fn await_line(&self, line: &str) -> String {
        let (deadline, mut seen) = (Instant::now() + PATIENCE, String::new());
        while let Some(message) = self.message(deadline.saturating_duration_since(Instant::now())) {
            if message.lines().any(|has| has == line) {
                return message;
            }
            seen.push_str(&message);
        }
        panic!("{line} was not told; only:\n{seen}");
    }
}

#[test]
fn it_tells_that_it_is_ready_how_it_does_and_that_it_stops() {
    let manager = Manager::new();
    let server = manager.start(LOOPBACK, None);
    assert!(manager.await_line("READY=1").contains("STATUS=serving"));
    manager.await_line("STATUS=serving, sessions: 0");
    let mut client = Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)));
    client.allocate().expect("an allocation");
    let told = manager.await_line("STATUS=serving, sessions: 1");
    assert!(!told.contains("WATCHDOG"), "nobody asked for that: {told}");
    let log = server.stop();
    manager.await_line("STOPPING=1");
    assert!(!log.contains("cannot tell systemd"), "{log}");
}

/// What `systemctl reload` waits for: that it has begun, when, and that it is over, well or badly.
#[test]
fn it_tells_that_it_reloads() {
    let manager = Manager::new();
    let mut server = manager.start(LOOPBACK, None);
    manager.await_line("READY=1");
    let file = server.folder().join("turnserver.toml");
    for configuration in [LOOPBACK.replace("\"secret\"", "\"another\""), "nonsense".to_owned()] {
        std::fs::write(&file, configuration).expect("to write");
        server.signal("HUP");
        let told = manager.await_line("RELOADING=1");
        let since = told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok());
        assert!(since.is_some_and(|since| since > 0), "{told}");
        manager.await_line("READY=1");
    }
    Client::new("udp", server.ipv4("udp"), Some((USER, "another"))).allocate().expect("an allocation");
}

/// It must not be ready before clients are served, nor when it does not start.
#[test]
fn a_server_that_cannot_start_is_never_ready() {
    let manager = Manager::new();
    let taken = crate::common::ports::peer_socket("127.0.0.1".parse().expect("an address"));
    let port = taken.local_addr().expect("an address").port();
    let configuration = LOOPBACK.replacen("listening-port = 0", &format!("listening-port = {port}"), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, configuration).expect("to write");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnserver"));
    let output = command.arg("-c").arg(&file).env("NOTIFY_SOCKET", &manager.path).output().expect("to run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(manager.message(Duration::from_millis(1)), None);
}

/// The names of sockets may begin with `@`, for the abstract ones.
#[test]
fn the_manager_may_listen_on_an_abstract_socket() {
    let name = format!("turnserver-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let manager = Manager { socket, _folder: tempfile::tempdir().expect("a folder"), path: format!("@{name}").into() };
    let _server = manager.start(LOOPBACK, None);
    manager.await_line("READY=1");
}

/// A hung worker serves nobody: the server must not say that it is alive, so that the watchdog ends it.
#[test]
fn it_is_alive_as_long_as_all_workers_answer() {
    let (manager, limit) = (Manager::new(), Duration::from_millis(900));
    let server = manager.start(LOOPBACK, Some(limit));
    manager.await_line("READY=1");
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    let held = Held::thread(server.pid(), "worker-1");
    manager.await_line("STATUS=not all workers answer");
    let end = Instant::now() + 3 * limit;
    while let Some(message) = manager.message(end.saturating_duration_since(Instant::now())) {
        assert!(!message.contains("WATCHDOG"), "{message}");
        if Instant::now() >= end {
            break;
        }
    }
    drop(held);
    manager.await_line("WATCHDOG=1");
}

/// A watchdog that is meant for another process is not ours.
#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    let manager = Manager::new();
    let server = Server::start_as(None, LOOPBACK, |command| {
        command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_PID", "1").env("WATCHDOG_USEC", "300000");
    });
    let told = manager.await_line("READY=1") + &manager.await_line("STATUS=serving, sessions: 0");
    drop(server);
    let told = told + &manager.await_line("STOPPING=1");
    assert!(!told.contains("WATCHDOG"), "{told}");
}

/// While sessions are waited for it asks for time again and again, and is still alive; the end is told when it comes, since
/// draining can be undone.
#[test]
fn while_it_drains_it_asks_for_time() {
    let (manager, limit) = (Manager::new(), Duration::from_millis(600));
    let drains = LOOPBACK.replacen("[process]", "[process]\ndrain-timeout = \"10m\"", 1);
    let mut server = manager.start(&drains, Some(limit));
    let mut client = Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)));
    client.allocate().expect("an allocation");
    server.signal("TERM");
    assert!(manager.await_line("STATUS=draining").contains("EXTEND_TIMEOUT_USEC=30000000"));
    for _ in 0..3 {
        let message = manager.await_line("WATCHDOG=1");
        assert!(!message.contains("STOPPING"), "{message}");
    }
    manager.await_line("EXTEND_TIMEOUT_USEC=30000000");
    client.delete().expect("to delete");
    manager.await_line("STOPPING=1");
    assert!(server.ended().contains("drained"));
}
