//! Draining: who comes is sent away, who is there goes on, until the last has ended or the time is over.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::client::{Client, Refused};
use crate::common::{PATIENCE, Server, ports::peer_socket};
use crate::web::{ask, ask_locally, client, get, managed};

fn draining(timeout: &str, error: u16) -> String {
    let process = format!("[process]\ndrain-timeout = \"{timeout}\"\ndrain-error = {error}");
    managed("").replace("[process]", &process)
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = peer_socket(Ipv4Addr::LOCALHOST.into());
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// A session with a permission for a peer.
fn session(server: &Server, peer: SocketAddr) -> (Client, SocketAddr) {
    let mut client = client(server);
    let relayed = client.allocate().expect("an allocation");
    client.permit(peer).expect("a permission");
    (client, relayed)
}

/// One packet each way; both must come.
fn round_trip((client, relayed): &mut (Client, SocketAddr), (socket, peer): &(UdpSocket, SocketAddr), number: u32) {
    let data = number.to_be_bytes();
    let mut buffer = [0; 16];
    client.send(*peer, &data);
    let len = socket.recv(&mut buffer).expect("a packet from the client");
    assert_eq!(buffer[..len], data);
    socket.send_to(&data, *relayed).expect("to send");
    assert_eq!(client.receive(), data);
}

fn ready(server: &Server) -> u16 {
    ask(server, "GET", "/ready", &[], "").status
}

/// Waits until the server says that it drains.
fn await_draining(server: &Server) {
    server.await_logged("draining: no new sessions");
    let deadline = Instant::now() + PATIENCE;
    while ready(server) != 503 {
        assert!(Instant::now() < deadline, "it is ready while it drains");
    }
}

#[test]
fn on_sigterm_media_go_on_without_loss_and_the_server_stops_with_the_last_session() {
    let mut server = Server::start(&draining("10m", 508));
    let peer = peer();
    let mut media = session(&server, peer.1);
    assert_eq!(ready(&server), 200);
    (0..20).for_each(|number| round_trip(&mut media, &peer, number));
    server.signal("TERM");
    await_draining(&server);
    for number in 0..200 {
        round_trip(&mut media, &peer, number);
        if number % 50 == 0 {
            assert_eq!(client(&server).allocate(), Err(Refused(508)));
        }
    }
    client(&server).binding();
    media.0.permit(peer.1).expect("requests of a session are served");
    let status = get(&server, "/status");
    assert_eq!(
        (&status["state"], &status["ready"], &status["sessions"]),
        (&"draining".into(), &false.into(), &1.into())
    );
    assert_eq!(status["traffic"]["to_peers"]["packets"], 220);
    media.0.delete().expect("to delete");
    let log = server.ended();
    assert!(log.contains("drained") && log.contains("\"reason\":\"deleted\""), "{log}");
}

#[test]
fn the_deadline_ends_what_is_left() {
    let mut server = Server::start(&draining("2s", 486));
    let peer = peer();
    let mut media = session(&server, peer.1);
    let began = Instant::now();
    server.signal("TERM");
    await_draining(&server);
    round_trip(&mut media, &peer, 1);
    assert_eq!(client(&server).allocate(), Err(Refused(486)));
    let log = server.ended();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(log.contains("the time to drain is over") && log.contains("\"reason\":\"stopped\""), "{log}");
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let mut server = Server::start(&draining("10m", 508));
    let peer = peer();
    let _media = session(&server, peer.1);
    server.signal("TERM");
    await_draining(&server);
    server.signal("TERM");
    let log = server.ended();
    assert!(log.contains("\"signal\":\"SIGTERM\""), "{log}");
}

/// Undone after SIGUSR1 and after SIGTERM; then it serves as before.
#[test]
fn draining_can_be_undone() {
    let mut server = Server::start(&draining("10m", 508));
    let peer = peer();
    let mut media = session(&server, peer.1);
    for signal in ["USR1", "TERM"] {
        server.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        while ready(&server) != 503 {
            assert!(Instant::now() < deadline, "SIG{signal} does not drain");
        }
        assert_eq!(client(&server).allocate(), Err(Refused(508)));
        let undone = ask_locally(&server, "DELETE", "/v1/drain", "").json();
        assert_eq!((&undone["state"], &undone["sessions"]), (&"serving".into(), &1.into()));
        assert_eq!(ready(&server), 200);
        let mut another = client(&server);
        another.allocate().expect("an allocation");
        another.delete().expect("to delete");
        round_trip(&mut media, &peer, 7);
    }
    // It is stopped by SIGTERM, which waits for sessions.
    media.0.delete().expect("to delete");
}

#[test]
fn sigusr1_stops_when_no_session_is_left() {
    let mut server = Server::start(&managed(""));
    let peer = peer();
    let mut media = session(&server, peer.1);
    server.signal("USR1");
    await_draining(&server);
    round_trip(&mut media, &peer, 7);
    assert_eq!(get(&server, "/status")["drain"]["left"], serde_json::Value::Null);
    media.0.delete().expect("to delete");
    let log = server.ended();
    assert!(log.contains("drained"), "{log}");
}

#[test]
fn who_comes_is_sent_to_another_server_if_there_is_one() {
    let redirect = "[redirect]\nalternate-server = \"192.0.2.9\"\nshare = 0\n[process]";
    let server = Server::start(&managed("").replace("[process]", redirect));
    let mut first = client(&server);
    first.allocate().expect("with share = 0 clients are served here");
    assert_eq!(ask_locally(&server, "POST", "/v1/drain", "{\"stay\": true}").status, 202);
    assert_eq!(client(&server).allocate(), Err(Refused(300)));
    first.delete().expect("to delete");
    // It stays.
    assert_eq!(ask_locally(&server, "DELETE", "/v1/drain", "").status, 200);
    client(&server).allocate().expect("an allocation");
}

#[test]
fn by_default_sigterm_stops_at_once() {
    let mut server = Server::start(&managed(""));
    let peer = peer();
    let _media = session(&server, peer.1);
    server.signal("TERM");
    let log = server.ended();
    assert!(!log.contains("draining"), "{log}");
}

#[test]
fn readiness_knows_when_ports_run_out() {
    let port =
        crate::common::ports::free_port_pair(&[Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()]);
    let range = format!("[relay]\nmin-port = {port}\nmax-port = {}", port + 1);
    let server = Server::start(&managed("").replace("[relay]", &range));
    let mut clients = [client(&server), client(&server)];
    for client in &mut clients {
        client.allocate().expect("an allocation");
    }
    let answer = ask(&server, "GET", "/ready", &[], "");
    assert_eq!(
        (answer.status, &answer.json()["obstacles"][0]),
        (503, &"no udp relay port is left on 127.0.0.1".into())
    );
    clients[0].delete().expect("to delete");
    assert_eq!(ready(&server), 200);
}
