//! The process: signals, exit statuses, what it logs, and what it does when ports, descriptors or permissions run out.
//!
//! Needs root, `ip` (iproute2), and `unshare`, `setpriv`, `prlimit` (util-linux).

mod client;
mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use client::{Client, Refused};
use common::ports::{free_port_pair, peer_socket};
use common::process::{Process, run};
use common::{PASSWORD, PATIENCE, USER};
use serde_json::Value;
use turnserver::stun::AttributeType;

const ALICE: Option<(&str, &str)> = Some((USER, PASSWORD));

/// Nobody, on every Linux.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// What the server logs once at most in this time, however often it happens.
const PAUSE: Duration = Duration::from_secs(10);

/// Everything on loopback, one worker, no rate limit; the port is left to the system.
const BASE: &str = r#"
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 0
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8", "::1"]
[limits]
unauthorized-rate = 0
binding-rate = 0
[process]
workers = 1
"#;

/// A server with JSON logs, its configuration, and where it listens.
struct Running {
    process: Process,
    udp: SocketAddr,
    tcp: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(configuration: &str) -> Self {
        Self::start_with(&[], configuration, &[])
    }

    /// The same through the command `wrapper`, with more `options`.
    fn start_with(wrapper: &[&str], configuration: &str, options: &[&str]) -> Self {
        let (process, directory) = launch(wrapper, configuration, options);
        let [mut udp, mut tcp] = [None; 2];
        process.find_line(PATIENCE, |line| {
            let fields = &line.parse::<Value>().ok()?["fields"];
            let address = || fields["address"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
            match (fields["message"].as_str(), fields["transport"].as_str()) {
                (Some("listening"), Some("udp")) => udp = address(),
                (Some("listening"), Some("tcp")) => tcp = address(),
                (Some("ready"), _) => return Some(()),
                _ => {}
            }
            None
        });
        let [udp, tcp] = [udp, tcp].map(|address| address.expect("a line `listening`"));
        Self { process, udp, tcp, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::new("udp", self.udp, ALICE)
    }

    /// The fields of all log lines so far with this message.
    fn logged(&self, message: &str) -> Vec<Value> {
        logged(&self.process.output(), message)
    }

    /// Waits for the end of a session for this reason.
    fn await_reason(&self, reason: &str) {
        self.await_line(reason, |fields| fields["message"] == "session ends" && fields["reason"] == reason);
    }

    /// Waits for a log line with this message.
    fn await_logged(&self, message: &str) {
        self.await_line(message, |fields| fields["message"] == message);
    }

    fn await_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let log = self.process.output();
            if log.lines().any(|line| line.parse::<Value>().is_ok_and(|line| wanted(&line["fields"]))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("`{what}` is not logged within {PATIENCE:?}:\n{}", self.process.output());
    }

    /// Ends the server with a signal; it must end well. Returns its log.
    fn stop_with(mut self, signal: &str) -> String {
        self.process.signal(signal);
        let status = self.process.wait(PATIENCE).and_then(|status| status.code());
        assert_eq!(status, Some(0), "SIG{signal}:\n{}", self.process.output());
        self.process.output()
    }

    fn stop(self) -> String {
        self.stop_with("TERM")
    }
}

/// Starts the server as another user could: program and configuration are where everybody may read them.
fn launch(wrapper: &[&str], configuration: &str, options: &[&str]) -> (Process, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [file, program] = ["turnserver.toml", "turnserver"].map(|name| directory.path().join(name));
    std::fs::write(&file, configuration).expect("writing the configuration");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let built = env!("CARGO_BIN_EXE_turnserver");
    let program = if wrapper.is_empty() {
        built.into()
    } else {
        // By another process: what this one has open for writing, programs that other tests start at that moment have, too, and
        // the copy is busy then.
        let mut copy = Command::new("cp");
        copy.arg(built).arg(&program);
        run(copy, PATIENCE);
        program
    };
    let (first, rest) = wrapper.split_first().map_or((program.as_os_str(), &[][..]), |(it, rest)| (it.as_ref(), rest));
    let mut command = Command::new(first);
    command.args(rest);
    if !wrapper.is_empty() {
        command.arg(&program);
    }
    command.arg("-c").arg(&file).args(["--log-format", "json"]).args(options);
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    (Process::start(command), directory)
}

fn logged(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| line.parse::<Value>().ok()).map(|line| line["fields"].clone());
    lines.filter(|fields| fields["message"] == message).collect()
}

/// Starts a server that cannot start; returns what it says.
fn fails(wrapper: &[&str], configuration: &str) -> String {
    let (mut process, _directory) = launch(wrapper, configuration, &[]);
    let status = process.wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{status:?}\n{}", process.output());
    let log = process.output();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("\"ERROR\"")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    errors[0].to_owned()
}

/// A socket that is a peer.
fn peer() -> (UdpSocket, SocketAddr) {
    let socket = peer_socket(Ipv4Addr::LOCALHOST.into());
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// Sends `data` to the peer and back.
fn round_trip(client: &mut Client, relayed: SocketAddr, (socket, address): &(UdpSocket, SocketAddr), data: &[u8]) {
    let mut buffer = [0; 2048];
    client.send(*address, data);
    let (length, from) = socket.recv_from(&mut buffer).expect("data from the relay");
    assert_eq!((&buffer[..length], from), (data, relayed));
    socket.send_to(data, relayed).expect("sending to the relay");
    assert_eq!(client.receive(), data);
}

/// How many lines a complaint may take that began at `since`.
fn lines_since(since: Instant) -> usize {
    1 + (since.elapsed().as_secs() / PAUSE.as_secs()) as usize
}

#[test]
fn sigterm_and_sigint_stop_and_report() {
    for signal in ["TERM", "INT"] {
        let server = Running::start(BASE);
        let peer = peer();
        let mut client = server.client();
        let relayed = client.allocate().expect("an allocation");
        client.permit(peer.1).expect("a permission");
        round_trip(&mut client, relayed, &peer, b"hello");
        let mut over_tcp = Client::new("tcp", server.tcp, ALICE);
        over_tcp.allocate().expect("an allocation over TCP");

        let log = server.stop_with(signal);
        assert_eq!(logged(&log, "stopping")[0]["signal"], format!("SIG{signal}"));
        let ends = logged(&log, "session ends");
        assert_eq!(ends.len(), 2, "{log}");
        assert!(ends.iter().all(|end| end["reason"] == "stopped"), "{log}");
        let totals = &logged(&log, "stopped")[0];
        let counted = ["allocations", "to_peer_packets", "to_peer_bytes", "to_client_packets", "to_client_bytes"];
        assert_eq!(counted.map(|key| totals[key].as_u64()), [2, 1, 5, 1, 5].map(Some), "{log}");
        // The relayed address is free again.
        UdpSocket::bind(relayed).expect("binding the relayed address");
    }
}

#[test]
fn a_second_server_on_the_same_port_is_told_which_and_what_to_do() {
    let first = Running::start(BASE);
    for (transport, address) in [("udp", first.udp), ("tcp", first.tcp)] {
        let port = format!("listening-port = {}\ntransports = [\"{transport}\"]", address.port());
        let error = fails(&[], &BASE.replace("listening-port = 0", &port));
        for part in [&format!("cannot listen on {transport} {address}"), "stop it, or change listening-port"] {
            assert!(error.contains(part), "{error}");
        }
    }
    first.client().binding();
    first.stop();
}

#[test]
fn it_runs_without_root() {
    let server = Running::start_with(&AS_NOBODY, BASE, &[]);
    server.client().allocate().expect("an allocation");
    server.stop();
}

/// In a namespace of its own: some containers let everybody bind every port.
#[test]
fn a_port_that_needs_a_capability_is_explained() {
    let with_loopback = ["unshare", "--net", "sh", "-ec", "ip link set lo up; exec \"$@\"", "sh"];
    let wrapper = [&with_loopback[..], &AS_NOBODY[..]].concat();
    let error = fails(&wrapper, &BASE.replace("listening-port = 0", "listening-port = 443"));
    for part in ["cannot listen on udp 127.0.0.1:443", "CAP_NET_BIND_SERVICE"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn without_descriptors_clients_get_508_until_some_are_free_again() {
    let server = Running::start_with(&["prlimit", "--nofile=64:64"], BASE, &[]);
    let began = Instant::now();
    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..100 {
        let mut client = server.client();
        match client.allocate() {
            Ok(relayed) => served.push((client, relayed)),
            Err(error) => {
                assert_eq!(error, Refused(508));
                refused += 1;
            }
        }
    }
    assert!(served.len() >= 20 && refused >= 40, "{} served, {refused} refused", served.len());

    // Who has an allocation is served; a connection waits.
    let peer = peer();
    let (client, relayed) = &mut served[0];
    client.permit(peer.1).expect("a permission");
    round_trip(client, *relayed, &peer, b"still here");
    let address = server.tcp;
    let waiting = std::thread::spawn(move || Client::new("tcp", address, ALICE).binding());
    server.await_logged("cannot accept a connection");
    let complaints = server.logged("cannot open a relay socket; clients get 508");
    assert!((1..=lines_since(began)).contains(&complaints.len()), "{complaints:?}");
    assert!(complaints[0]["remedy"].as_str().is_some_and(|remedy| remedy.contains("LimitNOFILE")), "{complaints:?}");

    for (client, _) in &mut served {
        client.delete().expect("deleting an allocation");
    }
    server.client().allocate().expect("an allocation after the shortage");
    waiting.join().expect("the connection is served after the shortage");
    let log = server.stop();
    assert!(!log.contains("no relay port is left"), "ports did not run out:\n{log}");
    let complaints = logged(&log, "cannot accept a connection").len();
    assert!((1..=lines_since(began)).contains(&complaints), "{log}");
}

/// A limit that does not even do for the start is an error at the start, not a server that serves nobody.
#[test]
fn too_few_descriptors_to_start_are_an_error() {
    let mut started = 0;
    for limit in (8..=32).step_by(2) {
        let limit = format!("--nofile={limit}:{limit}");
        let (mut process, _directory) = launch(&["prlimit", &limit], BASE, &[]);
        let ready = process.find_line(PATIENCE, |line| {
            let udp = line.contains("\"ready\"").then_some(true);
            udp.or_else(|| (line.starts_with("error") || line.contains("\"ERROR\"")).then_some(false))
        });
        if ready {
            started += 1;
            let log = process.output();
            let udp = logged(&log, "listening").into_iter().find(|fields| fields["transport"] == "udp").expect("udp");
            let udp = udp["address"].as_str().and_then(|address| address.parse().ok()).expect("an address");
            Client::new("udp", udp, None).binding();
            process.signal("TERM");
        }
        let status = process.wait(PATIENCE).and_then(|status| status.code());
        let wanted = if ready { vec![0] } else { vec![1, 78] };
        assert!(status.is_some_and(|status| wanted.contains(&status)), "{limit} {status:?}\n{}", process.output());
    }
    assert!(started > 0, "32 descriptors do for one listener");
}

#[test]
fn without_relay_ports_clients_get_508_until_one_is_free_again() {
    let port = free_port_pair(&["127.0.0.1".parse().expect("an address")]);
    let range = format!("[relay]\nmin-port = {port}\nmax-port = {}\n[auth]", port + 1);
    let server = Running::start(&BASE.replace("[auth]", &range));
    let began = Instant::now();
    let [mut first, mut second, mut third] = [server.client(), server.client(), server.client()];
    // A token that nobody was given is no lack of ports.
    let token = third.allocate_with(&|writer| {
        writer.attribute(AttributeType::RESERVATION_TOKEN, b"a token!");
    });
    assert_eq!(token, Err(Refused(508)));
    let mut ports = [&mut first, &mut second].map(|client| client.allocate().expect("an allocation").port());
    ports.sort_unstable();
    assert_eq!(ports, [port, port + 1]);
    assert_eq!(
        server.logged("no relay port is left; clients get 508; widen min-port..max-port or add a relay-ip").len(),
        0
    );
    for _ in 0..50 {
        assert_eq!(third.allocate(), Err(Refused(508)));
    }
    first.delete().expect("deleting the allocation");
    third.allocate().expect("an allocation with the port that is free again");
    let log = server.stop();
    let complaints = log.lines().filter(|line| line.contains("no relay port is left")).count();
    assert!((1..=lines_since(began)).contains(&complaints), "{log}");
}

#[test]
fn a_session_is_one_line_when_it_begins_and_one_when_it_ends() {
    let server = Running::start(&format!("{BASE}[lifetimes]\ndefault-allocate-lifetime = \"1s\"\n"));
    let peer = peer();
    let mut sessions = Vec::new();
    for (transport, reason) in [("udp", "deleted"), ("tcp", "connection-closed"), ("udp", "expired")] {
        let address = if transport == "udp" { server.udp } else { server.tcp };
        let mut client = Client::new(transport, address, ALICE);
        let relayed = client.allocate().expect("an allocation");
        client.permit(peer.1).expect("a permission");
        round_trip(&mut client, relayed, &peer, b"0123456789");
        sessions.push((client.local(), transport, relayed, reason));
        match reason {
            "deleted" => client.delete().expect("deleting the allocation"),
            "connection-closed" => drop(client),
            _ => {}
        }
        server.await_reason(reason);
    }
    let log = server.stop();
    let (begins, ends) = (logged(&log, "session begins"), logged(&log, "session ends"));
    assert_eq!((begins.len(), ends.len()), (3, 3), "{log}");
    for ((begin, end), (client, transport, relayed, reason)) in begins.iter().zip(&ends).zip(sessions) {
        for line in [begin, end] {
            let texts = ["user", "client", "transport", "relayed"].map(|key| line[key].as_str().unwrap_or_default());
            assert_eq!(texts, [USER, &client.to_string(), transport, &relayed.to_string()], "{log}");
        }
        assert!(begin["id"].is_string() && begin["id"] == end["id"], "{log}");
        assert_eq!(end["reason"], reason);
        assert!(end["seconds"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{log}");
        let counted = ["to_peer_packets", "to_peer_bytes", "to_client_packets", "to_client_bytes"];
        assert_eq!(counted.map(|key| end[key].as_u64()), [1, 10, 1, 10].map(Some), "{log}");
    }
    let mut ids: Vec<_> = begins.iter().map(|begin| begin["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{log}");
}

#[test]
fn a_session_with_two_addresses_is_still_one_line() {
    let both = BASE.replace("[auth]\n", "[relay]\nrelay-ip = [\"127.0.0.1\", \"::1\"]\n[auth]\n");
    let server = Running::start(&both);
    server
        .client()
        .allocate_with(&|writer| {
            writer.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        })
        .expect("two addresses");
    let log = server.stop();
    for message in ["session begins", "session ends"] {
        let lines = logged(&log, message);
        assert_eq!(lines.len(), 1, "{log}");
        let relayed = lines[0]["relayed"].as_str().expect("the relayed addresses");
        let addresses: Vec<SocketAddr> = relayed.split(' ').map(|address| address.parse().expect("one")).collect();
        assert!(addresses.len() == 2 && addresses[0].is_ipv4() && addresses[1].is_ipv6(), "{log}");
    }
}

#[test]
fn a_refusal_is_logged_at_debug_only() {
    for (level, expected) in [("info", 0), ("debug", 1)] {
        let server = Running::start_with(&[], BASE, &["--log-level", level]);
        assert_eq!(server.client().knock(), Err(Refused(401)));
        let log = server.stop();
        let refusals = logged(&log, "refused");
        assert_eq!(refusals.len(), expected, "{log}");
        assert!(refusals.iter().all(|fields| fields["code"] == 401 && fields["client"].is_string()), "{log}");
        assert_eq!(log.matches(r#""code":401"#).count(), expected, "{log}");
    }
}

/// Whatever comes, and with every limit off, traffic writes nothing into the log.
#[test]
fn no_line_per_packet() {
    const PACKETS: usize = 1000;
    let server = Running::start_with(&[], BASE, &["--log-level", "info,turnserver=debug"]);
    let [peer, no_peer] = [peer(), peer()];
    let mut client = server.client();
    let relayed = client.allocate().expect("an allocation");
    client.permit(peer.1).expect("a permission");
    let stranger = UdpSocket::bind("127.0.0.2:0").expect("a socket");
    server.await_logged("session begins");
    let before = server.process.output().lines().count();
    for _ in 0..PACKETS {
        round_trip(&mut client, relayed, &peer, b"data");
        // Without a permission, to a peer that is refused, from a stranger, and no message at all.
        client.send("127.0.0.3:9".parse().expect("an address"), b"data");
        client.send("10.0.0.1:9".parse().expect("an address"), b"data");
        stranger.send_to(b"data", relayed).expect("sending");
        no_peer.0.send_to(&[0; 20], server.udp).expect("sending");
        no_peer.0.send_to(&[0x40, 0, 0, 0], server.udp).expect("sending");
        no_peer.0.send_to(b"garbage", server.udp).expect("sending");
    }
    Client::new("udp", server.udp, None).binding();
    let log = server.process.output();
    assert_eq!(log.lines().count(), before, "{log}");
    server.stop();
}

/// The same for requests of strangers, at the level that servers run at.
#[test]
fn no_line_per_stranger() {
    let server = Running::start(BASE);
    let before = server.process.output().lines().count();
    for _ in 0..1000 {
        let mut client = Client::new("udp", server.udp, Some((USER, "wrong")));
        assert_eq!(client.knock(), Err(Refused(401)));
        assert_eq!(client.allocate(), Err(Refused(401)));
        client.binding();
    }
    let log = server.process.output();
    assert_eq!(log.lines().count(), before, "{log}");
    server.stop();
}

#[test]
fn version_and_help_are_no_failure() {
    for option in ["--version", "-V", "--help", "-h"] {
        let output = Command::new(env!("CARGO_BIN_EXE_turnserver")).arg(option).output().expect("running it");
        assert_eq!(output.status.code(), Some(0), "{option}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{option}: {output:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_turnserver")).arg("--nonsense").output().expect("running it");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
