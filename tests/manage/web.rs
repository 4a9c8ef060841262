//! A server with management, and requests to it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde_json::Value;

use crate::{
    client::Client,
    common::{LOOPBACK, PASSWORD, PATIENCE, Server, USER},
};

/// The token of [`managed`].
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// [`LOOPBACK`] with management on a port that the system chooses and on `control.sock` next to the configuration; `more` keys of
/// `[management]`, and then what else there is.
pub(crate) fn managed(more: &str) -> String {
    format!("{LOOPBACK}[management]\nlisten = \"127.0.0.1:0\"\nsocket = \"control.sock\"\n{more}\n")
}

/// The same with a token.
pub(crate) fn with_token(more: &str) -> String {
    managed(&format!("token = \"{TOKEN}\"\n{more}"))
}

/// Where management listens.
pub(crate) fn address(server: &Server) -> SocketAddr {
    server.await_logged("management")["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

pub(crate) fn socket(server: &Server) -> PathBuf {
    server.folder().join("control.sock")
}

/// An allocation's client over UDP.
pub(crate) fn client(server: &Server) -> Client {
    Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)))
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Reads an answer to its end.
    pub(crate) fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        // A server that closes with something unread resets the connection after its answer.
        let end = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer ({end:?}): {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

/// A request as text.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Asks over TCP.
pub(crate) fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = connect(address(server));
    stream.write_all(request(method, target, headers, body).as_bytes()).expect("to ask");
    Answer::read(stream)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// Asks over the Unix socket.
pub(crate) fn ask_locally(server: &Server, method: &str, target: &str, body: &str) -> Answer {
    let mut stream = UnixStream::connect(socket(server)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(request(method, target, &[], body).as_bytes()).expect("to ask");
    Answer::read(stream)
}

/// What is at `target`, which there must be.
pub(crate) fn get(server: &Server, target: &str) -> Value {
    let answer = ask_locally(server, "GET", target, "");
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer.json()
}
