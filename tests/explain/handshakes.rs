//! Handshakes of TLS and DTLS that fail, and the alert.

use std::{io::Write, net::TcpStream, process::Command, time::Duration};

use turnserver::stun::Method;

use crate::{
    common::{PATIENCE, Server, dtls, loopback_with_dtls, loopback_with_tls, process::Process},
    support::{HERE, request, says},
    web::managed,
};

fn start(configuration: &str) -> Server {
    let management = managed("");
    let management = management.split("[management]").nth(1).expect("the table");
    Server::start(&format!("{configuration}[management]{management}"))
}

/// `openssl s_client`, to its end.
fn openssl(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.ipv4("tls").to_string()]).args(options);
    let mut client = Process::start(command);
    assert!(client.wait(PATIENCE).is_some(), "{}", client.output());
    client.output()
}

#[test]
fn a_client_that_does_not_trust_the_certificate() {
    let server = start(&loopback_with_tls());
    let said = openssl(&server, &["-verify_return_error"]);
    assert!(said.contains("verify error"), "{said}");
    let words =
        ["TLS handshake failed", "alert 48 (unknown_ca)", "does not trust the server's certificate", "fullchain.pem"];
    let found = says(&server, HERE, "handshake", &words);
    assert_eq!((&found["transport"], &found["user"]), (&"tls".into(), &serde_json::Value::Null));
}

#[test]
fn a_client_with_nothing_in_common() {
    let server = start(&loopback_with_tls().replace("[tls]", "[tls]\nmin-version = \"1.3\""));
    openssl(&server, &["-tls1_2"]);
    says(&server, HERE, "handshake", &["TLS handshake failed: peer is incompatible", "versions"]);
    // And one that asks for another protocol.
    openssl(&server, &["-alpn", "h2"]);
    says(&server, HERE, "handshake", &["peer doesn't support any known protocol"]);
}

#[test]
fn plain_messages_and_silence_at_a_door_for_tls() {
    let server = start(&loopback_with_tls().replace("[tls]", "[tls]\nhandshake-timeout = \"1s\""));
    let connect = || TcpStream::connect(server.ipv4("tls")).expect("a connection");
    connect().write_all(&request(Method::Allocate, None, |_| {})).expect("to write");
    says(&server, HERE, "handshake", &["What came is no TLS", "turn: for a port that takes TLS only"]);
    drop(connect());
    says(&server, HERE, "handshake", &["eof", "has gone or fallen silent"]);
    let _silent = connect();
    says(&server, HERE, "handshake", &["TLS handshake failed: not finished in time", "has gone or fallen silent"]);
}

#[test]
fn a_client_of_dtls_that_does_not_trust_the_certificate() {
    let server = start(&loopback_with_dtls());
    let folder = tempfile::tempdir().expect("a folder");
    let other = rcgen::generate_simple_self_signed(["another authority".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("ca.pem"), other.cert.pem()).expect("a file");
    // It trusts somebody else.
    let mut client = dtls::prepare(folder.path(), dtls::socket(server.ipv4("udp")));
    assert!(!dtls::handshake(&mut client, PATIENCE));
    let words = ["DTLS handshake failed", "alert 48 (unknown_ca)", "does not trust"];
    assert_eq!(says(&server, HERE, "handshake", &words)["transport"], "dtls");
}

/// It has shown that it receives at its address, and then nothing more comes.
#[test]
fn a_client_of_dtls_that_falls_silent() {
    let server = start(&loopback_with_dtls().replace("[tls]", "[tls]\nhandshake-timeout = \"1s\""));
    let mut client = dtls::prepare(server.folder(), dtls::socket(server.ipv4("udp")));
    client.get_mut().lose = 1..1_000;
    assert!(!dtls::handshake(&mut client, Duration::from_millis(300)));
    says(&server, HERE, "handshake", &["DTLS handshake failed: not finished in time"]);
}
