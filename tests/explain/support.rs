//! Asking, and requests that a well-behaved client does not send.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use turnserver::{
    auth::key::md5_key,
    stun::{AttributeType, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId},
};

use crate::{
    client::Client,
    common::{PASSWORD, PATIENCE, REALM, Server, USER, client::loopback_socket},
    web::{get, socket},
};

/// A client's address as all of these tests have it.
pub(crate) const HERE: &str = "127.0.0.1";

/// A client of alice's over UDP, with her password.
pub(crate) fn alice(server: &Server) -> Client {
    client(server, USER, PASSWORD)
}

pub(crate) fn client(server: &Server, user: &str, password: &str) -> Client {
    Client::new("udp", server.ipv4("udp"), Some((user, password)))
}

/// What `turnserver explain` prints.
pub(crate) fn explain(server: &Server, of: &str, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("explain").arg(of).arg("--socket").arg(socket(server)).args(more).env_remove("TURNSERVER_CONFIG");
    let output = command.output().expect("to run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "explain {of}: {:?} {error}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// What the server knows of somebody.
pub(crate) fn findings(server: &Server, of: &str) -> Vec<Value> {
    let encoded = of.replace('[', "%5B").replace(']', "%5D");
    let answer = get(server, &format!("/v1/explain?of={encoded}"));
    answer["findings"].as_array().expect("findings").clone()
}

pub(crate) fn reasons(server: &Server, of: &str) -> Vec<String> {
    findings(server, of).iter().map(|finding| finding["reason"].as_str().expect("a reason").to_owned()).collect()
}

/// The first finding with this reason of which `wanted` is true; waits for it.
pub(crate) fn await_finding(server: &Server, of: &str, reason: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = findings(server, of);
        if let Some(finding) = found.iter().find(|finding| finding["reason"] == reason && wanted(finding)) {
            return finding.clone();
        }
        assert!(Instant::now() < deadline, "no {reason} among {found:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The finding with this reason, in whose words there are all of these; and they are what `turnserver explain` prints.
pub(crate) fn says(server: &Server, of: &str, reason: &str, parts: &[&str]) -> Value {
    let finding = await_finding(server, of, reason, |finding| {
        let words = format!("{} {}", finding["text"], finding["remedy"]).replace("\\\"", "\"");
        parts.iter().all(|part| words.contains(part))
    });
    let printed = explain(server, of, &[]);
    let said = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in\n{printed}");
    }
    assert!(printed.contains(reason) && printed.contains("\n  -> "), "{printed}");
    finding
}

/// A request, signed if a nonce is given.
pub(crate) fn request(method: Method, nonce: Option<&[u8]>, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let key = md5_key(USER, REALM, PASSWORD).expect("plain ASCII");
    let mut buffer = vec![0; 1024];
    let mut writer = MessageWriter::new(&mut buffer, method, Class::Request, TransactionId([7; 12]));
    attributes(&mut writer);
    if let Some(nonce) = nonce {
        writer.attribute(AttributeType::USERNAME, USER.as_bytes()).attribute(AttributeType::REALM, REALM.as_bytes());
        writer.attribute(AttributeType::NONCE, nonce);
        writer.integrity(&IntegrityKey::new(MacAlgorithm::Sha1, key.as_bytes()));
    }
    let len = writer.finish().expect("room");
    buffer.truncate(len);
    buffer
}

/// Sends a request over UDP; its response.
pub(crate) fn exchange(socket: &UdpSocket, server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 2048];
    for _ in 0..20 {
        socket.send_to(request, server).expect("to send");
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            return buffer[..len].to_vec();
        }
    }
    panic!("no answer");
}

/// The error of a response.
pub(crate) fn code(response: &[u8]) -> Option<u16> {
    match Message::parse(response).expect("a message").get(AttributeType::ERROR_CODE) {
        Some(&[_, _, class, number, ..]) => Some(u16::from(class) * 100 + u16::from(number)),
        _ => None,
    }
}

/// A socket with the nonce that it was told.
pub(crate) fn challenged(server: &Server) -> (UdpSocket, Vec<u8>) {
    let socket = loopback_socket();
    let response = exchange(&socket, server.ipv4("udp"), &request(Method::Allocate, None, |_| {}));
    let nonce = Message::parse(&response).expect("a message").get(AttributeType::NONCE).expect("a nonce").to_vec();
    (socket, nonce)
}
