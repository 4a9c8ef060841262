//! RFC 7350, RFC 8489 §6.2.3 and §11, RFC 7443, RFC 7983 and RFC 8155 over DTLS: the cookie exchange, versions, suites, names of
//! the protocol, what shares a port, and what RFC 3489 has no place in. That requests and data pass over DTLS as over UDP is
//! shown with all transports in the other files.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::{Client, PATIENCE};
use crate::common::dtls;
use crate::common::process::Process;
use crate::common::tls::{Authority, HOST};
use crate::setup::{ALICE, Server, Session, connected, server};
use crate::wire::{BINDING, INDICATION, Msg, SUCCESS, allocate};

/// What `openssl s_client` says about a handshake with a server whose certificate has an RSA key.
fn openssl(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.ipv4("dtls").to_string(), "-servername", HOST, "-CAfile"]);
    command.arg(server.folder().join("ca.pem")).args(options).stdin(Stdio::null());
    let mut client = Process::start(command);
    assert!(client.wait(PATIENCE).is_some(), "{}", client.output());
    client.output()
}

fn rsa_server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue_rsa(&[HOST]));
    Server::start_with(&crate::common::loopback_with_dtls(), directory)
}

/// The suite with finite-field DHE that RFC 8489 names is left out, as over TLS.
#[test]
fn r7350_3_01_r8489_6_2_3_01_07_versions_suites_and_no_compression() {
    let server = rsa_server();
    for suite in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"] {
        let said = openssl(&server, &["-dtls1_2", "-cipher", suite]);
        assert!(said.contains(&format!("Cipher is {suite}")) && said.contains("Verify return code: 0"), "{said}");
        assert!(said.contains("Compression: NONE"), "{said}");
    }
    // Without forward secrecy, CBC, NULL, anonymous, finite-field DHE.
    for suite in ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "eNULL", "aNULL", "DHE-RSA-AES128-GCM-SHA256"] {
        let said = openssl(&server, &["-dtls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]);
        assert!(said.contains("alert handshake failure") && said.contains("Cipher is (NONE)"), "{suite}: {said}");
    }
    let said = openssl(&server, &["-dtls1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(said.contains("alert protocol version"), "{said}");
}

#[test]
fn r7443_1_01_02_03_the_protocol_by_name_or_without_over_dtls() {
    let server = server(&[]);
    for (offered, selected) in [
        (&["-alpn", "stun.turn"][..], "ALPN protocol: stun.turn"),
        (&["-alpn", "stun.nat-discovery"], "ALPN protocol: stun.nat-discovery"),
        (&["-alpn", "http/1.1"], "alert no application protocol"),
        (&[], "No ALPN negotiated"),
    ] {
        let said = openssl(&server, &[&["-dtls1_2"], offered].concat());
        assert!(said.contains(selected), "{said}");
    }
}

/// The first ClientHello of a client.
fn first_hello(server: &Server) -> Vec<u8> {
    let mut stream = dtls::prepare(server.folder(), dtls::socket(server.ipv4("dtls")));
    stream.get_mut().lose = 0..usize::MAX;
    assert!(stream.do_handshake().is_err());
    stream.get_ref().sent[0].clone()
}

#[test]
fn r7350_4_6_01_a_hello_without_a_cookie_draws_a_hello_verify_request() {
    let server = server(&[]);
    let hello = first_hello(&server);
    let socket = dtls::socket(server.ipv4("dtls"));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&hello).unwrap();
    let mut answer = [0; 2000];
    let length = socket.recv(&mut answer).unwrap();
    // Handshake, DTLS 1.0, epoch 0, the number of the record that it answers; HelloVerifyRequest, message 0, in one fragment.
    assert_eq!(answer[..11], [&[22, 0xFE, 0xFF], &hello[3..11]].concat());
    assert_eq!((answer[13], &answer[17..22]), (3, &[0, 0, 0, 0, 0][..]));
    assert_eq!(usize::from(answer[27]), length - 28, "length of the cookie");
    assert!(answer[27] > 0 && length < hello.len());
}

#[test]
fn r7350_4_6_03_r8656_5_12_a_relay_over_dtls() {
    let server = server(&[]);
    for address in [server.ipv4("dtls"), server.ipv6("dtls")] {
        let (mut session, peer, relayed) = connected(Session::over(Client::dtls(&server, address), ALICE));
        session.round_trip(&peer, relayed);
    }
}

/// What RFC 3489 has instead of the cookie.
fn classic(kind: u16) -> Vec<u8> {
    let mut message = Msg::new(kind).0;
    message[4..8].copy_from_slice(&[9, 8, 7, 6]);
    message
}

#[test]
fn r8489_11_01_r7350_3_03_without_the_cookie_500_for_requests_and_nothing_for_indications() {
    for settings in [&[][..], &[("compatibility.rfc3489", "true")]] {
        let server = server(settings);
        let mut stream = dtls::connect(server.folder(), server.ipv4("dtls"));
        let mut answer = [0; 500];
        for request in [BINDING, 0x0003, 0x0004, 0x0008, 0x0009, 0x00EF] {
            let message = classic(request);
            dtls::send(&mut stream, &message);
            let dtls::Received::Message(length) = dtls::receive(&mut stream, &mut answer, PATIENCE) else {
                panic!("no answer to {request:04x}")
            };
            assert_eq!(answer[..2], (request | 0x0110).to_be_bytes(), "{:02x?}", &answer[..length]);
            assert_eq!(answer[4..20], message[4..20], "its id is 128 bits");
            // ERROR-CODE, class 5, number 0.
            assert_eq!((&answer[20..22], &answer[26..28]), (&[0, 9][..], &[5, 0][..]));
        }
        let mut client = Client::of_dtls(stream);
        for kind in [BINDING | INDICATION, 0x0016, BINDING | SUCCESS, BINDING | 0x0110] {
            client.silent(&classic(kind));
        }
    }
}

#[test]
fn r7983_7_01_02_dtls_and_udp_share_a_port() {
    let server = server(&[("listener.transports", r#"["udp", "dtls"]"#)]);
    let shared = server.addresses("udp")[0];
    assert!(server.addresses("dtls").contains(&shared));
    let secured = Session::over(Client::dtls(&server, shared), ALICE);
    let plain = Session::over(Client::udp(shared), ALICE);
    for session in [secured, plain] {
        let (mut session, peer, relayed) = connected(session);
        session.round_trip(&peer, relayed);
    }
    let mut client = Client::udp(shared);
    for first in 0..=255 {
        client.silent(&[first; 40]);
    }
    // Inside DTLS a record of DTLS is nothing either.
    let mut inside = Client::dtls(&server, shared);
    for first in (4..64).chain(80..=255) {
        inside.silent(&[first; 40]);
    }
    // And what comes bare does not count as what came by DTLS from the same port.
    let stream = dtls::connect(server.folder(), shared);
    let socket: UdpSocket = stream.get_ref().socket.try_clone().unwrap();
    let mut session = Session::over(Client::of_dtls(stream), ALICE);
    session.allocate();
    let peer = crate::setup::Peer::new(crate::setup::V4);
    session.permit(peer.address);
    socket.send(&crate::wire::send(peer.address, b"bare").0).unwrap();
    session.send_to(peer.address, b"secured");
    assert_eq!(peer.receive().0, b"secured");
}

/// RFC 8155 §9
#[test]
fn r8155_9_01_a_server_without_authentication_serves_dtls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue(&[HOST]));
    let listener = crate::common::TLS.replace("[\"tls\"]", "[\"dtls\"]");
    let text = format!("{listener}[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n");
    let server = Server::start_with(&text, directory);
    let mut client = Client::dtls(&server, server.ipv4("dtls"));
    assert_eq!(client.request(&allocate()).error(), None);
}

#[test]
fn h_02_datagrams_that_are_nearly_dtls_and_dtls_that_is_no_stun() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::dtls(&server));
    let stream = dtls::connect(server.folder(), server.ipv4("dtls"));
    let sent = stream.get_ref().sent.clone();
    // From the same port in the middle of a session, and from others, with and without the cookie.
    let same = stream.get_ref().socket.try_clone().unwrap();
    let other = dtls::socket(server.ipv4("dtls"));
    for datagram in &sent {
        for at in 0..datagram.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut changed = datagram.clone();
                changed[at] ^= flip;
                for socket in [&same, &other] {
                    socket.send(&changed).unwrap();
                }
            }
        }
        for length in 0..datagram.len() {
            same.send(&datagram[..length]).unwrap();
        }
    }
    let mut client = Client::of_dtls(stream);
    for junk in [&[0xFF; 100][..], &[0x00, 0x01, 0x00, 0x01, 0, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n", &[0x40], &[0]] {
        client.silent(junk);
    }
    session.round_trip(&peer, relayed);
    assert!(client.try_request(&Msg::new(BINDING), Duration::from_secs(5)).is_some(), "nobody has ended the session");
}

/// Data of a peer that make a message longer than a record may be (RFC 6347 §4.1: 2^14 bytes) are dropped, and nothing else.
#[test]
fn messages_that_fit_no_record_are_dropped() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::dtls(&server));
    session.bind(0x4000, peer.address);
    for length in [16_380, 16_381, 40_000, 65_000] {
        peer.send(&vec![5; length], relayed);
        peer.send(b"fence", relayed);
        let (_, data) = session.channel();
        assert_eq!(data.len(), if length == 16_380 { length } else { 5 });
        if length == 16_380 {
            session.channel();
        }
    }
}
