//! DTLS as clients and attackers meet it: the cookie exchange, certificates, fragments and loss, handshakes that never end,
//! floods, idle ends, and plain UDP beside it. Needs root, `openssl`, iproute2 and nftables.

#![cfg(target_os = "linux")]

mod client;
mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Refused};
use common::dtls::{self, Received, Stream, handshake, prepare, receive, send, socket};
use common::namespace::with_loopback_of_mtu;
use common::ports::peer_socket;
use common::process::Process;
use common::tls::{Authority, HOST};
use common::{LOOPBACK, PASSWORD, PATIENCE, Server, USER, loopback_with_dtls};

const CREDENTIALS: Option<(&str, &str)> = Some((USER, PASSWORD));
/// How long a test waits for something that must not come.
const SILENCE: Duration = Duration::from_millis(300);
/// A Binding request.
const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// Kinds of records and of messages of a handshake.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;

fn connect(server: &Server) -> Client {
    Client::over_dtls(dtls::connect(server.folder(), server.ipv4("dtls")), CREDENTIALS)
}

/// Binding, an allocation with the right password only, and data both ways.
fn serves(server: &Server) {
    let mut client = connect(server);
    assert_eq!(client.binding(), client.local());
    relays(&mut client);
    let stranger = dtls::connect(server.folder(), server.ipv4("dtls"));
    assert_eq!(Client::over_dtls(stranger, Some((USER, "wrong"))).allocate(), Err(Refused(401)));
}

fn relays(client: &mut Client) {
    let relayed = client.allocate().expect("an allocation");
    let peer = peer_socket(Ipv4Addr::LOCALHOST.into());
    peer.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let address = peer.local_addr().expect("its address");
    client.permit(address).expect("a permission");
    client.send(address, b"there");
    let mut buffer = [0; 100];
    let (len, from) = peer.recv_from(&mut buffer).expect("data at the peer");
    assert_eq!((&buffer[..len], from), (&b"there"[..], relayed));
    peer.send_to(b"and back", relayed).expect("sending");
    assert_eq!(client.receive(), b"and back");
    client.delete().expect("deleting it");
}

/// Whether the client gets an answer over DTLS.
fn answers(stream: &mut Stream) -> bool {
    send(stream, &BINDING);
    matches!(receive(stream, &mut [0; 200], PATIENCE), Received::Message(_))
}

/// What `openssl s_client` says about a handshake.
fn openssl(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.ipv4("dtls").to_string(), "-CAfile", "ca.pem"]);
    command.args(if options.contains(&"-dtls1") { &[][..] } else { &["-dtls1_2"] });
    command.args(options).current_dir(server.folder()).stdin(Stdio::null());
    let mut client = Process::start(command);
    assert!(client.wait(PATIENCE).is_some(), "{}", client.output());
    client.output()
}

/// The first ClientHello of a client.
fn first_hello(stream: &mut Stream) -> Vec<u8> {
    stream.get_mut().lose = 0..usize::MAX;
    assert!(stream.do_handshake().is_err());
    stream.get_mut().sent[0].clone()
}

/// Sends a datagram and returns the answer, if there is one.
fn ask(socket: &UdpSocket, datagram: &[u8], limit: Duration) -> Option<Vec<u8>> {
    let mut answer = vec![0; 2000];
    socket.set_read_timeout(Some(limit)).expect("a time limit");
    socket.send(datagram).expect("sending");
    let len = socket.recv(&mut answer).ok()?;
    answer.truncate(len);
    Some(answer)
}

/// The kind of the message of a handshake that a datagram begins with.
fn message(datagram: &[u8]) -> u8 {
    assert_eq!(datagram[0], HANDSHAKE, "{datagram:02x?}");
    datagram[13]
}

/// Adds the cookie of a HelloVerifyRequest to a ClientHello.
fn with_cookie(hello: &[u8], verify: &[u8]) -> Vec<u8> {
    let cookie = &verify[28..];
    assert_eq!(usize::from(verify[27]), cookie.len());
    let place = 13 + 12 + 2 + 32 + 1 + usize::from(hello[59]);
    let mut with = [&hello[..place], &[verify[27]], cookie, &hello[place + 1..]].concat();
    let body = u16::try_from(with.len() - 25).expect("a length").to_be_bytes();
    let record = u16::try_from(with.len() - 13).expect("a length").to_be_bytes();
    // The next record, the next message, and three lengths.
    (with[10], with[18]) = (with[10] + 1, 1);
    with[11..13].copy_from_slice(&record);
    with[15..17].copy_from_slice(&body);
    with[23..25].copy_from_slice(&body);
    with
}

/// A ClientHello, and a socket to send it from.
fn hello_of(server: &Server) -> (Vec<u8>, UdpSocket) {
    let mut stream = prepare(server.folder(), socket(server.ipv4("dtls")));
    let hello = first_hello(&mut stream);
    (hello, socket(server.ipv4("dtls")))
}

/// The first answer is a cookie, shorter than the question; the same question draws it again, since nothing was kept; with it
/// the handshake goes on, but not from another address, nor for another ClientHello.
#[test]
fn nothing_begins_without_a_cookie() {
    let server = Server::start(&loopback_with_dtls());
    let (hello, client) = hello_of(&server);
    let verify = ask(&client, &hello, PATIENCE).expect("an answer");
    assert_eq!(message(&verify), HELLO_VERIFY_REQUEST);
    assert!(verify.len() < hello.len(), "{} bytes for {}", verify.len(), hello.len());
    assert_eq!(ask(&client, &hello, PATIENCE).expect("an answer"), verify);

    let second = with_cookie(&hello, &verify);
    let stranger = socket(server.ipv4("dtls"));
    let other = ask(&stranger, &second, PATIENCE).expect("an answer");
    assert_eq!(message(&other), HELLO_VERIFY_REQUEST, "a cookie of another address");
    assert_ne!(other[28..], verify[28..]);
    let mut changed = second.clone();
    changed[30] ^= 1;
    assert_eq!(message(&ask(&client, &changed, PATIENCE).expect("an answer")), HELLO_VERIFY_REQUEST);
    let mut forged = second.clone();
    let cookie = 13 + 12 + 2 + 32 + 1 + usize::from(hello[59]) + 1;
    forged[cookie] ^= 1;
    assert_eq!(message(&ask(&client, &forged, PATIENCE).expect("an answer")), HELLO_VERIFY_REQUEST);
    assert_eq!(message(&ask(&client, &second, PATIENCE).expect("an answer")), SERVER_HELLO);
    server.stop();
}

/// Records of DTLS that are no ClientHello draw nothing from where nobody is known.
#[test]
fn strangers_get_no_answer_but_to_a_hello() {
    let server = Server::start(&loopback_with_dtls());
    let (hello, client) = hello_of(&server);
    let verify = ask(&client, &hello, PATIENCE).expect("an answer");
    for first in 20..=63 {
        for (at, value) in [(0, first), (3, 1), (13, 11)] {
            let mut changed = hello.clone();
            changed[at] = value;
            if changed != hello {
                client.send(&changed).expect("sending");
            }
        }
    }
    for len in (0..hello.len()).step_by(7) {
        client.send(&hello[..len]).expect("sending");
    }
    // The answer to the last is the next that comes.
    assert_eq!(ask(&client, &hello, PATIENCE).expect("an answer"), verify);
    assert_eq!(ask(&client, &BINDING, PATIENCE).expect("an answer")[..2], [1, 1]);
    client.set_read_timeout(Some(SILENCE)).expect("a time limit");
    assert!(client.recv(&mut [0; 100]).is_err());
    server.stop();
}

#[test]
fn versions_suites_names_and_certificates() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue(&[HOST]));
    authority.write(directory.path(), "other", authority.issue(&["other.example.net"]));
    authority.write(directory.path(), "rsa", authority.issue_rsa(&[HOST, "only-rsa.example.net"]));
    let more: String = ["other", "rsa"]
        .iter()
        .map(|name| format!("[[tls.certificate]]\ncert = \"{name}.pem\"\npkey = \"{name}.key\"\n"))
        .collect();
    let server = Server::start_with(&format!("{}{more}", loopback_with_dtls()), directory);
    let subject = |said: &str| said.lines().find_map(|line| line.strip_prefix("subject=")).map(str::to_owned);
    for (asked, shown) in [
        (&["-servername", HOST][..], "CN = turn.example.org"),
        (&["-servername", "TURN.example.ORG"], "CN = turn.example.org"),
        (&["-noservername"], "CN = turn.example.org"),
        (&["-servername", "unknown.example.org"], "CN = turn.example.org"),
        (&["-servername", "other.example.net"], "CN = other.example.net"),
    ] {
        let said = openssl(&server, asked);
        assert_eq!(subject(&said).as_deref(), Some(shown), "{asked:?}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains("Protocol  : DTLSv1.2"), "{said}");
        assert!(said.contains("Compression: NONE"), "{said}");
    }
    // One host with two kinds of keys: each client gets what it can check.
    for (suite, shown) in
        [("ECDHE-ECDSA-AES128-GCM-SHA256", "id-ecPublicKey"), ("ECDHE-RSA-AES128-GCM-SHA256", "rsaEncryption")]
    {
        let said = openssl(&server, &["-servername", HOST, "-cipher", suite]);
        assert!(said.contains(&format!("PKEY: {shown}")) && said.contains(&format!("Cipher is {suite}")), "{said}");
    }
    for suite in ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "aNULL"] {
        let said = openssl(&server, &["-cipher", &format!("{suite}:@SECLEVEL=0")]);
        assert!(said.contains("alert handshake failure"), "{suite}: {said}");
    }
    let said = openssl(&server, &["-dtls1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(said.contains("alert protocol version"), "{said}");
    for (offered, selected) in [
        (&["-alpn", "stun.turn"][..], "ALPN protocol: stun.turn"),
        (&["-alpn", "stun.nat-discovery"], "ALPN protocol: stun.nat-discovery"),
        (&["-alpn", "http/1.1,stun.turn"], "ALPN protocol: stun.turn"),
        (&[], "No ALPN negotiated"),
        (&["-alpn", "http/1.1"], "alert no application protocol"),
    ] {
        let said = openssl(&server, offered);
        assert!(said.contains(selected), "{offered:?}: {said}");
    }
    serves(&server);
    server.stop();
}

#[test]
fn clients_show_certificates_where_they_must() {
    let directory = tempfile::tempdir().expect("a folder");
    let clients = Authority::new();
    clients.write(directory.path(), "client", clients.issue(&["somebody"]));
    std::fs::rename(directory.path().join("ca.pem"), directory.path().join("clients.pem")).expect("renaming");
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue(&[HOST]));
    authority.write(directory.path(), "stranger", authority.issue(&["stranger"]));
    let server = Server::start_with(&format!("{}client-ca = \"clients.pem\"\n", loopback_with_dtls()), directory);
    let shows = |name: &str| {
        let options = ["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")];
        let said = openssl(&server, &options);
        (said.contains("Cipher is ECDHE") && !said.contains("alert"), said)
    };
    let (served, said) = shows("client");
    assert!(served, "{said}");
    let (served, said) = shows("stranger");
    assert!(!served, "{said}");
    assert!(!handshake(&mut prepare(server.folder(), socket(server.ipv4("dtls"))), PATIENCE), "without any");
    server.stop();
}

#[test]
fn sessions_are_resumed_on_every_worker() {
    let server = Server::start(&loopback_with_dtls());
    let session = server.folder().join("session");
    let session = session.to_str().expect("a path");
    assert!(openssl(&server, &["-sess_out", session]).contains("New, TLSv1.2"), "a first one");
    // Each from a port of its own, so that both workers have some.
    for _ in 0..8 {
        let said = openssl(&server, &["-sess_in", session]);
        assert!(said.contains("Reused, TLSv1.2"), "{said}");
    }
    server.stop();
}

/// A chain of several KiB: no datagram of the handshake is longer than any path takes, and it passes where no datagram may be.
#[test]
fn long_chains_come_in_fragments() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (certificate, key) = authority.issue_rsa(&[HOST]);
    let intermediates: String = (0..8).map(|_| authority.issue_rsa(&[HOST]).0).collect();
    authority.write(directory.path(), "cert", (format!("{certificate}{intermediates}{}", authority.pem()), key));
    let folder = directory.path().to_owned();
    with_loopback_of_mtu(1280, move || {
        let server = Server::start_with(&loopback_with_dtls(), directory);
        for address in [server.ipv4("dtls"), server.ipv6("dtls")] {
            let mut stream = prepare(&folder, socket(address));
            assert!(handshake(&mut stream, PATIENCE));
            let lengths = stream.get_ref().received.clone();
            assert!(lengths.iter().sum::<usize>() > 5000 && lengths.iter().all(|len| *len <= 1200), "{lengths:?}");
            assert!(answers(&mut stream));
        }
        serves(&server);
        server.stop();
    });
}

/// Every message of a handshake may be lost once: the server sends its own again.
#[test]
fn what_is_lost_is_sent_again() {
    let server = Server::start(&loopback_with_dtls());
    // The cookie, then each datagram of the flight with the certificate.
    for before in 0..3 {
        let mut stream = prepare(server.folder(), socket(server.ipv4("dtls")));
        stream.get_mut().lose = before..before + 1;
        let begun = Instant::now();
        assert!(handshake(&mut stream, PATIENCE), "without datagram {before}");
        assert!(begun.elapsed() > Duration::from_millis(500), "it came after all");
        assert!(answers(&mut stream));
    }
    server.stop();
}

/// Makes the network of this thread lose so many per cent of all datagrams.
fn lose(percent: u8) {
    let mut command = Command::new("nft");
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    let rules = format!(
        "table inet loss {{\nchain input {{\ntype filter hook input priority 0\nmeta l4proto udp numgen random mod 100 < \
         {percent} drop\n}}\n}}\n"
    );
    nft.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("writing");
    assert!(nft.wait().expect("nft").success(), "{rules}");
}

/// Handshakes and requests survive the loss of every fifth datagram, in either direction.
#[test]
fn clients_are_served_under_loss() {
    with_loopback_of_mtu(1500, || {
        let server = Server::start(&loopback_with_dtls().replace("workers = 2", "workers = 1"));
        lose(20);
        for at in 0..8 {
            let begun = Instant::now();
            // Timers start with a second and double: the server gives up after ten, and clients begin anew.
            let attempt = || {
                let mut stream = prepare(server.folder(), socket(server.ipv4("dtls")));
                handshake(&mut stream, Duration::from_secs(10)).then_some(stream)
            };
            let stream = (0..5).find_map(|_| attempt()).unwrap_or_else(|| panic!("client {at} is not served"));
            eprintln!("client {at}: handshake after {:?}", begun.elapsed());
            let mut client = Client::over_dtls(stream, CREDENTIALS);
            client.allocate().expect("an allocation");
            let peer = peer_socket(Ipv4Addr::LOCALHOST.into());
            let address = peer.local_addr().expect("its address");
            client.permit(address).expect("a permission");
            peer.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
            let mut arrived = 0;
            for _ in 0..100 {
                client.send(address, b"some data");
                arrived += usize::from(peer.recv(&mut [0; 100]).is_ok());
            }
            // Two crossings with a fifth lost each leave 64 of 100.
            assert!((35..=90).contains(&arrived), "{arrived} of 100 arrive");
            // The answer to the first attempt may have been lost.
            assert!(matches!(client.delete(), Ok(()) | Err(Refused(437))));
        }
        server.stop();
    });
}

fn memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// 100,000 ClientHellos from as many addresses leave nothing behind, and others are served meanwhile.
#[test]
fn hellos_without_a_cookie_leave_no_trace() {
    let server = Server::start(&loopback_with_dtls());
    let (hello, _) = hello_of(&server);
    let target = server.ipv4("dtls");
    let mut number = 0_u32;
    let mut flood = |count: u32| {
        for _ in 0..count / 50 {
            // To the server each is the first of somebody, since it remembers none.
            let [_, a, b, c] = number.to_be_bytes();
            let source =
                UdpSocket::bind(SocketAddr::from(([127, 16 + a, b, c], 0))).expect("an address of 127.0.0.0/8");
            for _ in 0..50 {
                let mut hello = hello.clone();
                hello[27..31].copy_from_slice(&number.to_be_bytes());
                source.send_to(&hello, target).expect("sending");
                number += 1;
            }
        }
    };
    // What the allocator keeps in reserve is settled first.
    for _ in 0..5 {
        flood(5_000);
        serves(&server);
    }
    let before = memory(&server);
    for _ in 0..10 {
        flood(10_000);
        let begun = Instant::now();
        serves(&server);
        assert!(begun.elapsed() < Duration::from_secs(2), "served after {:?}", begun.elapsed());
    }
    let after = memory(&server);
    eprintln!("{before} kB before, {after} kB after 100,000 ClientHellos");
    // Tables of fixed size (rates and what is told of sources) fill up; 100 bytes for each would be five times as much.
    assert!(after <= before + 2048, "{before} kB before, {after} kB after");
    server.stop();
}

/// Clients that prove their address and then say nothing: the oldest give way, memory is bounded, and all of it comes back.
#[test]
fn handshakes_that_never_end_leave_room_for_others() {
    let limits = "max-handshakes = 100\nhandshake-timeout = \"2s\"\n[tcp]\nmax-connections-per-ip = 10000\n";
    let server = Server::start(&format!("{}{limits}", loopback_with_dtls()));
    let (hello, _) = hello_of(&server);
    let mut number = 0_u16;
    let mut flood = |count: usize| {
        for _ in 0..count {
            // An address of its own, so that nothing comes that is for another.
            let [high, low] = number.to_be_bytes();
            number += 1;
            let client = UdpSocket::bind(SocketAddr::from(([127, 9, high, low], 0))).expect("an address");
            client.connect(server.ipv4("dtls")).expect("connecting");
            let verify = ask(&client, &hello, PATIENCE).expect("a cookie");
            let answer = ask(&client, &with_cookie(&hello, &verify), PATIENCE).expect("an answer");
            assert_eq!(message(&answer), SERVER_HELLO);
        }
    };
    flood(300);
    serves(&server);
    let before = memory(&server);
    for _ in 0..5 {
        flood(300);
        let begun = Instant::now();
        serves(&server);
        assert!(begun.elapsed() < Duration::from_secs(2), "served after {:?}", begun.elapsed());
    }
    let after = memory(&server);
    eprintln!("{before} kB before, {after} kB after 1500 half-open handshakes");
    assert!(after <= before + 4096, "{before} kB before, {after} kB after");
    assert!(server.stop().contains("max-handshakes"), "the operator is told");
}

/// Sessions count as connections.
#[test]
fn sessions_are_limited_per_source() {
    let server = Server::start(&format!("{}[tcp]\nmax-connections-per-ip = 3\n", loopback_with_dtls()));
    let folder = server.folder().to_owned();
    let from = |ip: [u8; 4]| {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).expect("an address of 127.0.0.0/8");
        socket.connect(server.ipv4("dtls")).expect("connecting");
        let mut stream = prepare(&folder, socket);
        handshake(&mut stream, Duration::from_millis(1500)).then_some(stream)
    };
    let mut first: Vec<_> = (0..3).map(|_| from([127, 0, 0, 1]).expect("within the limit")).collect();
    assert!(from([127, 0, 0, 1]).is_none(), "a fourth of one source");
    let mut other = from([127, 0, 0, 2]).expect("another source");
    assert!(first.iter_mut().all(answers) && answers(&mut other));
    // One that says goodbye makes room.
    let mut gone = first.pop().expect("one of three");
    gone.shutdown().expect("close_notify");
    assert_eq!(receive(&mut gone, &mut [0; 100], PATIENCE), Received::End, "goodbye is answered");
    assert!(from([127, 0, 0, 1]).is_some());
    server.stop();
}

/// A session without an allocation ends when it is idle, and says so; one with an allocation lives as long as that.
#[test]
fn idle_sessions_end() {
    let server = Server::start(&format!(
        "{}[tcp]\nidle-timeout = \"1s\"\n[lifetimes]\ndefault-allocate-lifetime = \"4s\"\n",
        loopback_with_dtls()
    ));
    let mut idle = dtls::connect(server.folder(), server.ipv4("dtls"));
    let mut busy = connect(&server);
    let begun = Instant::now();
    busy.allocate().expect("an allocation");
    assert!(answers(&mut idle));
    assert_eq!(receive(&mut idle, &mut [0; 100], PATIENCE), Received::End);
    let ended = begun.elapsed();
    assert!((900..2500).contains(&ended.as_millis()), "after {ended:?}");
    while begun.elapsed() < Duration::from_millis(2500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(busy.binding(), busy.local(), "it has an allocation");
    server.stop();
}

/// The end of a session is the end of its allocation.
#[test]
fn goodbye_ends_the_allocation() {
    let server = Server::start(&loopback_with_dtls());
    let stream = dtls::connect(server.folder(), server.ipv4("dtls"));
    let socket = stream.get_ref().socket.try_clone().expect("the same socket");
    let mut client = Client::over_dtls(stream, CREDENTIALS);
    client.allocate().expect("an allocation");
    client.shut_down();
    assert_eq!(server.await_logged("session ends")["reason"], "connection-closed");
    // The same port may begin anew.
    let mut stream = prepare(server.folder(), socket);
    assert!(handshake(&mut stream, PATIENCE) && answers(&mut stream));
    server.stop();
}

/// A client that has lost its state begins anew from the same port (RFC 6347 §4.2.8): only a finished handshake ends the old
/// session, and its allocation.
#[test]
fn a_client_may_begin_anew_and_nobody_else_in_its_place() {
    let server = Server::start(&loopback_with_dtls());
    let stream = dtls::connect(server.folder(), server.ipv4("dtls"));
    let hellos = stream.get_ref().sent.clone();
    let socket = stream.get_ref().socket.try_clone().expect("the same socket");
    let mut client = Client::over_dtls(stream, CREDENTIALS);
    client.allocate().expect("an allocation");
    // Repeated by somebody who has listened: the first ClientHello, the one with the cookie, all that the client has sent.
    for datagram in hellos.iter().chain(&hellos) {
        socket.send(datagram).expect("sending");
    }
    assert_eq!(client.binding(), client.local());
    assert_eq!(client.allocate(), Err(Refused(437)), "the allocation is still there");
    // Another handshake begins, up to its ServerHello, and stops: the session goes on.
    let mut other = prepare(server.folder(), socket.try_clone().expect("the same socket"));
    other.get_mut().lose = 1..usize::MAX;
    assert!(other.do_handshake().is_err());
    assert!(other.get_ref().sent.len() >= 2, "a cookie came");
    assert_eq!(client.binding(), client.local());
    assert_eq!(client.allocate(), Err(Refused(437)), "the allocation is still there");
    let mut anew = prepare(server.folder(), socket);
    assert!(handshake(&mut anew, PATIENCE));
    assert_eq!(server.await_logged("session ends")["reason"], "connection-closed");
    Client::over_dtls(anew, CREDENTIALS).allocate().expect("an allocation of its own");
    server.stop();
}

/// On one port, and in both families, each client gets the protocol that it speaks.
#[test]
fn plain_udp_and_dtls_share_a_port() {
    let server = Server::start(&loopback_with_dtls());
    for (plain, secured) in [(server.ipv4("udp"), server.ipv4("dtls")), (server.ipv6("udp"), server.ipv6("dtls"))] {
        assert_eq!(plain, secured);
        let mut over_dtls = Client::over_dtls(dtls::connect(server.folder(), secured), CREDENTIALS);
        let mut over_udp = Client::new("udp", plain, CREDENTIALS);
        for client in [&mut over_dtls, &mut over_udp] {
            assert_eq!(client.binding().port(), client.local().port());
            relays(client);
        }
    }
    // One socket that speaks both: two clients.
    let stream = dtls::connect(server.folder(), server.ipv4("dtls"));
    let socket = stream.get_ref().socket.try_clone().expect("the same socket");
    let mut client = Client::over_dtls(stream, CREDENTIALS);
    client.allocate().expect("an allocation");
    assert_eq!(ask(&socket, &BINDING, PATIENCE).expect("an answer")[..2], [1, 1]);
    client.delete().expect("deleting it");
    server.stop();
}

/// Where only DTLS is served, bare datagrams draw nothing.
#[test]
fn a_port_for_dtls_alone() {
    let text = loopback_with_dtls().replace("[\"udp\", \"dtls\"]", "[\"dtls\"]");
    let server = Server::start(&text);
    let plain = socket(server.ipv4("dtls"));
    for bare in [&BINDING[..], &[0x40, 0, 0, 0]] {
        assert_eq!(ask(&plain, bare, SILENCE), None);
    }
    serves(&server);
    server.stop();
}

/// Several records in one datagram are several messages; what is damaged or repeated is dropped and harms nobody.
#[test]
fn records_are_messages() {
    let server = Server::start(&loopback_with_dtls());
    let mut stream = dtls::connect(server.folder(), server.ipv4("dtls"));
    let records: Vec<Vec<u8>> = (0..3)
        .map(|number| {
            let mut request = BINDING;
            request[19] = number;
            // Kept back, to be sent otherwise.
            let before = stream.get_ref().sent.len();
            send(&mut stream, &request);
            stream.get_ref().sent[before].clone()
        })
        .collect();
    let mut answer = [0; 200];
    for number in 0..3 {
        assert!(matches!(receive(&mut stream, &mut answer, PATIENCE), Received::Message(_)));
        assert_eq!(answer[19], number);
    }
    let socket = stream.get_ref().socket.try_clone().expect("the same socket");
    let mut damaged = records[0].clone();
    damaged[20] ^= 1;
    for datagram in [&records.concat()[..], &damaged, &records[1], &[23], &[23; 13], &[22; 2000], &[ALERT; 15]] {
        socket.send(datagram).expect("sending");
    }
    assert_eq!(receive(&mut stream, &mut answer, SILENCE), Received::Nothing, "repeated or damaged");
    // Three requests in one datagram.
    let before = stream.get_ref().sent.len();
    stream.get_mut().socket = UdpSocket::bind("127.0.0.1:0").expect("a socket to nowhere");
    for number in 10..13 {
        let mut request = BINDING;
        request[19] = number;
        send(&mut stream, &request);
    }
    let together = stream.get_ref().sent[before..].concat();
    stream.get_mut().socket = socket;
    stream.get_ref().socket.send(&together).expect("sending");
    for number in 10..13 {
        assert!(matches!(receive(&mut stream, &mut answer, PATIENCE), Received::Message(_)));
        assert_eq!(answer[19], number);
    }
    server.stop();
}

/// DTLS needs a certificate as TLS does, and says so.
#[test]
fn a_missing_certificate_is_an_error_at_start() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("turnserver.toml");
    let start = |text: &str| {
        std::fs::write(&file, text).expect("writing");
        let mut server = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        server.arg("-c").arg(&file);
        let mut server = Process::start(server);
        (server.wait(PATIENCE).and_then(|status| status.code()), server.output())
    };
    let text = loopback_with_dtls();
    let (status, said) = start(&text);
    assert!(status == Some(78) && said.contains("cannot read") && said.contains("cert.pem"), "{said}");
    let (status, said) = start(&LOOPBACK.replace("\"udp\", \"tcp\"", "\"dtls\""));
    assert!(status == Some(78) && said.contains("tls.cert: is missing"), "{said}");
}
