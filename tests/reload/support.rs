//! A server whose configuration can be written anew.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{
    client::Client,
    common::{PATIENCE, Server, ports::peer_socket},
    web::{ask_locally, get, socket},
};

/// Writes another configuration.
pub(crate) fn rewrite(server: &Server, configuration: &str) {
    std::fs::write(server.folder().join("turnserver.toml"), configuration).expect("writing the configuration");
}

/// Goes on with another configuration; what the server says about it.
pub(crate) fn reload(server: &Server, configuration: &str) -> Value {
    rewrite(server, configuration);
    let answer = ask_locally(server, "POST", "/v1/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Why another configuration is refused.
pub(crate) fn refused(server: &Server, configuration: &str) -> String {
    rewrite(server, configuration);
    let answer = ask_locally(server, "POST", "/v1/reload", "");
    assert_eq!(answer.status, 422, "{answer:?}");
    answer.json()["error"].as_str().expect("why").to_owned()
}

/// `turnserver ctl reload`.
pub(crate) fn ctl(server: &Server) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.args(["ctl", "reload", "--socket"]).arg(socket(server)).env_remove("TURNSERVER_CONFIG");
    command.output().expect("to run")
}

/// A client of a user over UDP.
pub(crate) fn client(server: &Server, user: &str, password: &str) -> Client {
    Client::new("udp", server.ipv4("udp"), Some((user, password)))
}

/// A peer on loopback.
pub(crate) fn peer() -> (UdpSocket, SocketAddr) {
    peer_at(Ipv4Addr::LOCALHOST)
}

pub(crate) fn peer_at(ip: Ipv4Addr) -> (UdpSocket, SocketAddr) {
    let socket = peer_socket(ip.into());
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// Sends something to a peer and back, which needs a permission.
pub(crate) fn round_trip(client: &mut Client, (socket, address): &(UdpSocket, SocketAddr)) {
    let (data, mut buffer) = (rand::random::<[u8; 16]>(), [0; 100]);
    client.send(*address, &data);
    let (len, relayed) = socket.recv_from(&mut buffer).expect("data at the peer");
    assert_eq!(buffer[..len], data);
    socket.send_to(&data, relayed).expect("to answer");
    assert_eq!(client.receive(), data);
}

/// Whether anything comes to a peer in a moment.
pub(crate) fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
    let silent = socket.recv(&mut [0; 100]).is_err();
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    silent
}

/// A number in the metrics.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let text = ask_locally(server, "GET", "/metrics", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// How many sessions there are.
pub(crate) fn sessions(server: &Server) -> usize {
    get(server, "/v1/sessions")["sessions"].as_array().map_or(0, Vec::len)
}

/// The strings of a list.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
