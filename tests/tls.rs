//! TLS and the PROXY protocol as operators use them: certificates by host name, client certificates, resumption, the command
//! that makes a certificate, balancers, and handshakes that never end. Needs `openssl` and coturn's `turnutils_uclient`.

mod client;
mod common;

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Refused};
use common::process::{Process, run};
use common::tls::{self, Authority, HOST};
use common::{LOOPBACK, PASSWORD, PATIENCE, Server, TLS, USER, loopback_with_tls};
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CREDENTIALS: Option<(&str, &str)> = Some((USER, PASSWORD));

/// What `openssl s_client` says about a handshake.
fn openssl(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.ipv4("tls").to_string(), "-CAfile", "ca.pem"]);
    command.args(options).current_dir(server.folder());
    let mut client = Process::start(command);
    assert!(client.wait(PATIENCE).is_some(), "{}", client.output());
    client.output()
}

fn subject(said: &str) -> &str {
    said.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_else(|| panic!("no subject: {said}"))
}

/// Binding, and an allocation with the right password only.
fn serves(server: &Server) {
    let connect = || tls::connect(tls::client(server.folder()), server.ipv4("tls"));
    let mut client = Client::over_tls(connect(), CREDENTIALS);
    assert_eq!(client.binding(), client.local());
    client.allocate().expect("an allocation");
    client.delete().expect("deleting it");
    let mut stranger = Client::over_tls(connect(), Some((USER, "wrong")));
    assert_eq!(stranger.allocate(), Err(Refused(401)));
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue(&[HOST]));
    authority.write(directory.path(), "other", authority.issue(&["other.example.net"]));
    authority.write(directory.path(), "wild", authority.issue(&["*.example.com"]));
    authority.write(directory.path(), "rsa", authority.issue_rsa(&[HOST, "only-rsa.example.net"]));
    let more: String = ["other", "wild", "rsa"]
        .iter()
        .map(|name| format!("[[tls.certificate]]\ncert = \"{name}.pem\"\npkey = \"{name}.key\"\n"))
        .collect();
    let server = Server::start_with(&format!("{}{more}", loopback_with_tls()), directory);
    let first = "CN = turn.example.org";
    for (asked, shown) in [
        (&["-servername", HOST][..], first),
        (&["-servername", "TURN.example.ORG"], first),
        (&["-noservername"], first),
        (&["-servername", "unknown.example.org"], first),
        (&["-servername", "other.example.net"], "CN = other.example.net"),
        (&["-servername", "a.example.com"], "CN = *.example.com"),
        (&["-servername", "a.b.example.com"], first),
        (&["-servername", "only-rsa.example.net"], first),
    ] {
        let said = openssl(&server, asked);
        assert_eq!(subject(&said), shown, "{asked:?}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    // One host with two kinds of keys: each client gets what it can check.
    for (algorithms, shown) in [("ECDSA+SHA256", "id-ecPublicKey"), ("RSA-PSS+SHA256", "rsaEncryption")] {
        let said = openssl(&server, &["-servername", HOST, "-sigalgs", algorithms, "-showcerts"]);
        assert_eq!(subject(&said), first, "{algorithms}");
        assert!(said.contains(&format!("PKEY: {shown}")), "{algorithms}: {said}");
    }
    server.stop();
}

#[test]
fn clients_show_certificates_where_they_must() {
    let clients = Authority::new();
    let start = |wanted: &str| {
        let directory = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        clients.write(directory.path(), "client", clients.issue(&["somebody"]));
        std::fs::rename(directory.path().join("ca.pem"), directory.path().join("clients.pem")).expect("renaming");
        authority.write(directory.path(), "cert", authority.issue(&[HOST]));
        authority.write(directory.path(), "stranger", authority.issue(&["stranger"]));
        let more = format!("client-ca = \"clients.pem\"\nclient-certificate = \"{wanted}\"\n");
        Server::start_with(&format!("{}{more}", loopback_with_tls()), directory)
    };
    let show = |server: &Server, name: Option<&str>| {
        let folder = server.folder();
        let mut config = tls::client(folder);
        if let Some(name) = name {
            let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let key = rustls::sign::CertifiedKey::from_der(vec![certificate], key, &provider).expect("a pair");
            config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
        }
        let mut stream = tls::connect(config, server.ipv4("tls"));
        // With TLS 1.3 the client is done before the server has looked at its certificate.
        stream.write_all(&BINDING).is_ok() && stream.read(&mut [0; 200]).is_ok_and(|length| length > 0)
    };
    let required = start("required");
    assert!(show(&required, Some("client")));
    assert!(!show(&required, Some("stranger")));
    assert!(!show(&required, None));
    let optional = start("optional");
    assert!(show(&optional, Some("client")));
    assert!(!show(&optional, Some("stranger")));
    assert!(show(&optional, None));
}

/// A Binding request.
const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// Tickets are good on every worker, for both versions.
#[test]
fn sessions_are_resumed() {
    let server = Server::start(&loopback_with_tls());
    let config = tls::client(server.folder());
    for at in 0..8 {
        let mut stream = tls::connect(config.clone(), server.ipv4("tls"));
        let kind = stream.conn.handshake_kind().expect("after the handshake");
        assert_eq!(matches!(kind, HandshakeKind::Resumed), at > 0, "connection {at}: {kind:?}");
        // The tickets come with the first answer.
        tls::send(&mut stream, &BINDING);
        assert!(stream.read(&mut [0; 200]).expect("an answer") > 0);
    }
    let said = openssl(&server, &["-tls1_2", "-reconnect"]);
    assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    server.stop();
}

#[test]
fn only_the_newest_version_where_that_is_configured() {
    let server = Server::start(&format!("{}min-version = \"1.3\"\n", loopback_with_tls()));
    assert!(openssl(&server, &["-tls1_3"]).contains("New, TLSv1.3"));
    let said = openssl(&server, &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    server.stop();
}

/// A client's connection ends in order: close_notify, so that nothing can have been cut off.
#[test]
fn the_end_of_a_connection_is_told() {
    let server = Server::start(&format!("{}[tcp]\nidle-timeout = \"1s\"\n", loopback_with_tls()));
    let mut stream = tls::connect(tls::client(server.folder()), server.ipv4("tls"));
    assert_eq!(stream.read(&mut [0; 10]).expect("no error but an end"), 0);
    server.stop();
}

/// Whole messages, each in a record of its own, since some clients take a record for a message.
#[test]
fn every_message_has_a_record_of_its_own() {
    const COUNT: usize = 3000;
    let server = Server::start(&format!("{}[limits]\nbinding-rate = 0\n", loopback_with_tls()));
    let mut stream = tls::connect(tls::client(server.folder()), server.ipv4("tls"));
    tls::send(&mut stream, &BINDING.repeat(COUNT));
    for _ in 0..COUNT {
        let record = stream.fill_buf().expect("a record");
        let len = 20 + usize::from(u16::from_be_bytes([record[2], record[3]]));
        assert_eq!(record.len(), len, "{record:02x?}");
        stream.consume(len);
    }
    server.stop();
}

fn certificate(folder: &Path, options: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.args(["certificate", "--self-signed", "--out-cert", "cert.pem", "--out-key", "cert.key"]);
    command.args(options).current_dir(folder);
    let mut process = Process::start(command);
    (process.wait(PATIENCE).and_then(|status| status.code()), process.output())
}

#[test]
fn the_command_makes_a_certificate_that_serves() {
    let directory = tempfile::tempdir().expect("a folder");
    let folder = directory.path();
    let made = certificate(folder, &["--name", HOST, "--name", "127.0.0.1", "--days", "7"]);
    assert_eq!(made, (Some(0), String::new()));
    let mode = |file: &str| std::fs::metadata(folder.join(file)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode("cert.key"), 0o600);
    let key = std::fs::read(folder.join("cert.key")).expect("the key");
    let (status, said) = certificate(folder, &["--name", HOST]);
    assert!(status == Some(1) && said.contains("cannot write cert.key") && said.contains("remove it"), "{said}");
    assert_eq!(std::fs::read(folder.join("cert.key")).expect("the key"), key, "it was overwritten");
    std::fs::remove_file(folder.join("cert.key")).expect("removing");
    assert_eq!(certificate(folder, &["--name", HOST]).0, Some(1), "the certificate is still there");
    assert!(!folder.join("cert.key").exists(), "a key alone is of no use");
    std::fs::write(folder.join("cert.key"), key).expect("writing");

    std::fs::copy(folder.join("cert.pem"), folder.join("ca.pem")).expect("copying");
    let server = Server::start_with(&loopback_with_tls(), directory);
    for host in [&["-verify_hostname", HOST], &["-verify_ip", "127.0.0.1"]] {
        let said = openssl(&server, host);
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    server.stop();
}

/// Every mistake ends the start with the file and the reason, and `check` says the same.
#[test]
fn a_certificate_that_cannot_be_used_is_an_error_at_start() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("turnserver.toml");
    std::fs::write(&file, loopback_with_tls()).expect("writing");
    for command in [&["-c"][..], &["check", "-c"]] {
        let mut server = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        server.args(command).arg(&file);
        let mut server = Process::start(server);
        let status = server.wait(PATIENCE).and_then(|status| status.code());
        let said = server.output();
        assert_eq!(status, Some(78), "{said}");
        for file in ["cert.pem", "cert.key"] {
            let path = directory.path().join(file);
            assert!(said.contains(&format!("cannot read {}: No such file", path.display())), "{said}");
        }
    }
}

/// 10,000 connections that never finish their handshake: memory and descriptors stay bounded, and others are served.
#[test]
fn handshakes_that_never_end_leave_room_for_others() {
    const FLOOD: usize = 10_000;
    let limits = "max-handshakes = 200\n[tcp]\nmax-connections-per-ip = 10000\n";
    let server = Server::start(&format!("{}{limits}", loopback_with_tls()));
    let address = server.ipv4("tls");
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number")
    };
    let mut hung = std::collections::VecDeque::new();
    // The beginning of a ClientHello, of 1 KiB.
    let start = [&[22, 3, 1, 4, 0, 1, 0, 3, 252, 3, 3][..], &[7; 500]].concat();
    let mut flood = |count: usize| {
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).expect("a connection");
            // It may have been given up already.
            let _ = stream.write_all(&start);
            hung.push_back(stream);
            // Descriptors of this process are limited, too: those are given up by the server since long.
            if hung.len() > 800 {
                hung.pop_front();
            }
        }
    };
    flood(1000);
    serves(&server);
    let before = memory();
    for part in 0..10 {
        flood((FLOOD - 1000) / 10);
        let begun = Instant::now();
        serves(&server);
        assert!(begun.elapsed() < Duration::from_secs(2), "part {part}: served after {:?}", begun.elapsed());
    }
    let after = memory();
    eprintln!("{before} kB before, {after} kB after {FLOOD} handshakes");
    assert!(after < before + 4096, "{before} kB before, {after} kB after");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("descriptors").count();
    assert!(descriptors < 300, "{descriptors} descriptors");
    assert!(server.stop().contains("max-handshakes"), "the operator is told");
}

/// [`LOOPBACK`] whose TCP port also takes TLS and believes this network.
fn behind(network: &str) -> Server {
    let text = loopback_with_tls();
    let shared = "transports = [\"tcp\", \"tls\"]\nproxy-protocol = [\"NETWORK\"]".replace("NETWORK", network);
    Server::start(&text.replace("transports = [\"udp\", \"tcp\"]", &shared))
}

/// A header of version 2.
fn version_2(command: u8, client: SocketAddr, server: SocketAddr, more: &[u8]) -> Vec<u8> {
    let mut addresses = Vec::new();
    for address in [client, server] {
        let IpAddr::V4(ip) = address.ip() else { panic!("IPv4 only") };
        addresses.extend(ip.octets());
    }
    addresses.extend([client.port().to_be_bytes(), server.port().to_be_bytes()].concat());
    addresses.extend(more);
    let len = u16::try_from(addresses.len()).expect("a length").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, 0x11][..], &len, &addresses].concat()
}

fn proxied(address: SocketAddr, segments: &[&[u8]]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    for segment in segments {
        stream.write_all(segment).expect("writing");
        std::thread::sleep(Duration::from_millis(5));
    }
    stream
}

#[test]
fn balancers_tell_whose_connection_it_is() {
    let server = behind("127.0.0.0/8");
    let shared = server.ipv4("tcp");
    let client: SocketAddr = "198.51.100.7:40000".parse().expect("an address");
    let line = format!("PROXY TCP4 198.51.100.7 192.0.2.1 40000 {}\r\n", shared.port());
    let binary = version_2(1, client, shared, &[0xEA, 0, 2, 1, 2]);
    let whole = |header: &[u8]| proxied(shared, &[header]);
    for stream in
        [whole(line.as_bytes()), whole(&binary), proxied(shared, &[&binary[..7], &binary[7..20], &binary[20..]])]
    {
        let mut over_tcp = Client::over_tcp(stream, CREDENTIALS);
        assert_eq!(over_tcp.binding(), client);
        over_tcp.allocate().expect("an allocation");
        over_tcp.delete().expect("deleting it");
    }
    for header in [line.as_bytes(), &binary] {
        let stream = tls::handshake(tls::client(server.folder()), whole(header));
        let mut over_tls = Client::over_tls(stream, CREDENTIALS);
        assert_eq!(over_tls.binding(), client);
        over_tls.allocate().expect("an allocation");
    }
    // Header and request in one segment; and the balancer's own health checks.
    let mut at_once = proxied(shared, &[&[line.as_bytes(), &BINDING].concat()]);
    at_once.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    assert!(at_once.read(&mut [0; 200]).expect("an answer") > 0);
    for own in [version_2(0, client, shared, &[]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut checking = Client::over_tcp(whole(&own), CREDENTIALS);
        assert_eq!(checking.binding(), checking.local());
    }
    let log = server.stop();
    assert!(log.contains("\"client\":\"198.51.100.7:40000\""), "{log}");
}

/// Whether a connection that begins like this is ended without an answer.
fn is_refused(server: &Server, start: &[u8]) -> bool {
    let mut stream = proxied(server.ipv4("tcp"), &[start]);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut answer = Vec::new();
    // A reset is an end like any other.
    let _ = stream.read_to_end(&mut answer);
    answer.is_empty()
}

#[test]
fn a_header_is_needed_from_balancers_and_refused_from_others() {
    let line = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 3478\r\n";
    let binary = version_2(1, "198.51.100.7:1".parse().expect("it"), "192.0.2.1:2".parse().expect("it"), &[]);
    let believing = behind("127.0.0.0/8");
    for start in
        [&BINDING[..], b"GET / HTTP/1.1\r\n", b"PROXY TCP4 not an address\r\n", &[&binary[..13], &[0xFF; 30]].concat()]
    {
        assert!(is_refused(&believing, start), "{start:02x?}");
    }
    assert!(believing.stop().contains("without a PROXY protocol header"));
    let other = behind("192.0.2.0/24");
    let mut plain = Client::new("tcp", other.ipv4("tcp"), CREDENTIALS);
    assert_eq!(plain.binding(), plain.local());
    for start in [&line[..], &binary] {
        assert!(is_refused(&other, start), "{start:02x?}");
    }
    other.stop();
}

/// The limits are those of the clients, not of their balancer.
#[test]
fn connections_by_a_balancer_are_counted_for_their_clients() {
    let text = loopback_with_tls()
        .replace("transports = [\"udp\", \"tcp\"]", "transports = [\"tcp\"]\nproxy-protocol = \"127.0.0.1\"");
    let server = Server::start(&format!("{text}[tcp]\nmax-connections-per-ip = 2\n"));
    let connect = |ip: &str, port: u16| {
        let line = format!("PROXY TCP4 {ip} 192.0.2.1 {port} 3478\r\n");
        let mut stream = proxied(server.ipv4("tcp"), &[line.as_bytes()]);
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let served = stream.write_all(&BINDING).is_ok() && stream.read(&mut [0; 200]).is_ok_and(|length| length > 0);
        served.then_some(stream)
    };
    let first = [connect("198.51.100.1", 1), connect("198.51.100.1", 2)];
    assert!(first.iter().all(Option::is_some));
    assert!(connect("198.51.100.1", 3).is_none(), "a third of one client");
    let others: Vec<_> = (1..=10).map(|at| connect(&format!("198.51.100.{}", 1 + at), 1)).collect();
    assert!(others.iter().all(Option::is_some), "others behind the same balancer");
    drop((first, others));
    server.stop();
}

/// A header that does not come is not waited for longer than for any other message.
#[test]
fn a_header_that_never_comes_ends_the_connection() {
    let text =
        LOOPBACK.replace("transports = [\"udp\", \"tcp\"]", "transports = [\"tcp\"]\nproxy-protocol = \"127.0.0.1\"");
    let server = Server::start(&format!("{text}[tcp]\nmessage-timeout = \"1s\"\n"));
    let begun = Instant::now();
    assert!(is_refused(&server, b"PROXY TCP4 198.51.100.7"));
    assert!(begun.elapsed() >= Duration::from_millis(900), "after {:?}", begun.elapsed());
    server.stop();
}

/// Chromium and coturn's tools do not care, but systems do: what `openssl` makes is taken as well.
#[test]
fn keys_and_certificates_made_by_openssl_serve() {
    for key in ["rsa:2048", "ec"] {
        let directory = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", key, "-noenc", "-days", "2", "-subj", "/CN=turn.example.org"]);
        command.args(["-addext", "subjectAltName=DNS:turn.example.org", "-keyout", "cert.key", "-out", "cert.pem"]);
        if key == "ec" {
            command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        }
        command.current_dir(directory.path());
        run(command, PATIENCE);
        std::fs::copy(directory.path().join("cert.pem"), directory.path().join("ca.pem")).expect("copying");
        let server = Server::start_with(&format!("{LOOPBACK}{TLS}"), directory);
        let said = openssl(&server, &["-servername", HOST]);
        assert!(said.contains("Verify return code: 0 (ok)"), "{key}: {said}");
        server.stop();
    }
}
