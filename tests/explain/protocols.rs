//! What is no TURN, or TURN at the wrong door.

use std::{io::Write, net::TcpStream, process::Command};

use turnserver::stun::Method;

use crate::{
    common::{Server, client::loopback_socket, loopback_with_dtls, process::Process},
    support::{HERE, request, says},
    web::managed,
};

/// `openssl s_client` against this port, which does not answer in kind.
fn openssl(options: &[&str], port: u16) -> Process {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("{HERE}:{port}")]).args(options);
    Process::start(command)
}

#[test]
fn tls_and_dtls_at_doors_for_plain_messages() {
    let server = Server::start(&managed(""));
    let (tcp, udp) = (server.ipv4("tcp").port(), server.ipv4("udp").port());
    let _tls = openssl(&[], tcp);
    let words = [&format!("spoke TLS to tcp port {tcp}"), "plain messages only", "turns:", "TLS is on no port here"];
    says(&server, HERE, "not-served", &words);
    let _dtls = openssl(&["-dtls"], udp);
    says(&server, HERE, "not-served", &[&format!("spoke DTLS to udp port {udp}"), "transport=udp"]);
}

#[test]
fn what_is_not_stun_is_told_by_how_it_begins() {
    let server = Server::start(&managed(""));
    let (tcp, udp) = (server.ipv4("tcp"), server.ipv4("udp"));
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(tcp).expect("a connection");
        stream.write_all(bytes).expect("to write");
    };
    say(b"GET / HTTP/1.1\r\nHost: turn.example.org\r\n\r\n");
    says(&server, HERE, "not-served", &[&format!("tcp port {} is HTTP, not STUN", tcp.port()), "/live and /ready"]);
    say(b"SSH-2.0-OpenSSH_9.2\r\n");
    says(&server, HERE, "not-served", &["is not STUN: it begins with 53 53 48 2d"]);
    let send = |bytes: &[u8]| _ = loopback_socket().send_to(bytes, udp).expect("to send");
    send(&[0x80, 0x60, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
    says(&server, HERE, "not-served", &[&format!("udp port {} looks like media (RTP)", udp.port()), "candidate"]);
    send(&[0, 3, 0, 9, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3]);
    says(&server, HERE, "not-served", &["begins like STUN and is not well-formed", "ALG"]);
}

#[test]
fn plain_messages_at_a_door_for_dtls() {
    let management = managed("");
    let management = management.split("[management]").nth(1).expect("the table");
    let only = loopback_with_dtls().replace("\"udp\", \"dtls\"", "\"dtls\"");
    let server = Server::start(&format!("{only}[management]{management}"));
    let dtls = server.ipv4("dtls");
    loopback_socket().send_to(&request(Method::Allocate, None, |_| {}), dtls).expect("to send");
    says(&server, HERE, "not-served", &[&format!("plain STUN to udp port {}, which takes DTLS only", dtls.port())]);
}
