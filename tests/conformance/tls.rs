//! RFC 8489 §6.2.3, RFC 7443, RFC 7983 and RFC 8155 over TLS: versions, suites, names of the protocol, and what shares a port.
//! That requests and data pass over TLS as over TCP is shown with all transports in the other files.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE};
use crate::common::process::Process;
use crate::common::tls::{self, Authority, HOST};
use crate::hostile_flood::resources;
use crate::setup::{Server, Session, V4, connected, server};
use crate::wire::{BINDING, Msg, SUCCESS};

/// A server whose certificate has an RSA key, which the suites of RFC 8489 are for.
fn rsa_server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue_rsa(&[HOST]));
    let configuration = crate::common::loopback_with_tls();
    Server::start_with(&configuration, directory)
}

/// What `openssl s_client` says about a handshake.
fn openssl(server: &Server, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.ipv4("tls").to_string(), "-servername", HOST, "-CAfile"]);
    command.arg(server.folder().join("ca.pem")).args(options);
    let mut client = Process::start(command);
    assert!(client.wait(PATIENCE).is_some(), "{}", client.output());
    client.output()
}

/// A ClientHello of TLS 1.2 in its record.
fn client_hello(suites: &[u16], compressions: &[u8]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &with_length(content)].concat();
    let extensions = [
        // supported_groups: x25519, secp256r1. signature_algorithms: of RSA and ECDSA with SHA-256.
        extension(10, &with_length(&[0, 29, 0, 23])),
        extension(13, &with_length(&[8, 4, 4, 1, 4, 3])),
    ];
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let compressions = [&[compressions.len() as u8][..], compressions].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &with_length(&suites), &compressions, &with_length(&extensions.concat())]
        .concat();
    let handshake = [&[1, 0][..], &with_length(&body)].concat();
    [&[22, 3, 1][..], &with_length(&handshake)].concat()
}

/// The first record that the server answers with.
fn answer(server: &Server, hello: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.ipv4("tls")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(hello).unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).expect("a record");
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut content).expect("its content");
    [&header[..], &content].concat()
}

/// Suite and compression of a ServerHello with an empty session id.
fn chosen(record: &[u8]) -> (u16, u8) {
    assert!(record[0] == 22 && record[5] == 2 && record[9..11] == [3, 3], "no ServerHello of TLS 1.2: {record:02x?}");
    let rest = &record[44 + usize::from(record[43])..];
    (u16::from_be_bytes([rest[0], rest[1]]), rest[2])
}

/// A fatal alert handshake_failure.
fn refuses(record: &[u8]) -> bool {
    record[0] == 21 && record[5..] == [2, 40]
}

#[test]
fn r8489_6_2_3_02_06_07_versions_and_suites() {
    let server = rsa_server();
    let suite = openssl(&server, &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]);
    assert!(suite.contains("New, TLSv1.2, Cipher is ECDHE-RSA-AES128-GCM-SHA256"), "{suite}");
    // RFC 8446 §9.1
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        let said = openssl(&server, &["-tls1_3", "-ciphersuites", suite]);
        assert!(said.contains(&format!("New, TLSv1.3, Cipher is {suite}")), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = openssl(&server, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        let refused = said.contains("alert protocol version") || said.contains("alert handshake failure");
        assert!(refused && said.contains("Cipher is (NONE)"), "{said}");
    }
    // SSL 3.0, TLS 1.0 and 1.1, with a suite that this server has: no version of the client's is spoken.
    for minor in 0..=2 {
        let mut hello = client_hello(&[0xC02F, 0xC013], &[0]);
        (hello[2], hello[10]) = (minor, minor);
        let record = answer(&server, &hello);
        assert!(record[0] == 21 && record[5] == 2, "3.{minor}: {record:02x?}");
    }
}

/// The suite with finite-field DHE that RFC 8489 names is left out: RFC 9325 §4.1, the best current practice that RFC 8489
/// refers to, advises against it.
#[test]
fn r8489_6_2_3_01_03_04_suites_that_are_refused() {
    let server = rsa_server();
    const ECDHE_RSA_WITH_AES_128_GCM_SHA256: u16 = 0xC02F;
    let refused: [u16; 14] = [
        // NULL, EXPORT, RC4, DES, 3DES, anonymous.
        0x0002, 0x0003, 0x0005, 0x0009, 0x000A, 0xC012, 0xC016, 0x0034, 0x00A6,
        // Without forward secrecy; CBC; finite-field DHE.
        0x009C, 0x003C, 0xC013, 0xC027, 0x009E,
    ];
    for suite in refused {
        let record = answer(&server, &client_hello(&[suite], &[0]));
        assert!(refuses(&record), "{suite:04x}: {record:02x?}");
    }
    let all: Vec<u16> = refused.into_iter().chain([ECDHE_RSA_WITH_AES_128_GCM_SHA256]).collect();
    assert_eq!(chosen(&answer(&server, &client_hello(&all, &[0]))), (ECDHE_RSA_WITH_AES_128_GCM_SHA256, 0));
}

#[test]
fn r8489_6_2_3_05_nothing_is_compressed() {
    const DEFLATE: u8 = 1;
    let record = answer(&rsa_server(), &client_hello(&[0xC02F], &[DEFLATE, 0]));
    assert_eq!(chosen(&record), (0xC02F, 0));
}

#[test]
fn r7443_1_01_02_03_the_protocol_by_name_or_without() {
    let server = server(&[]);
    for (offered, selected) in [
        ("stun.turn", "ALPN protocol: stun.turn"),
        ("stun.nat-discovery", "ALPN protocol: stun.nat-discovery"),
        ("http/1.1,stun.turn", "ALPN protocol: stun.turn"),
    ] {
        let said = openssl(&server, &["-alpn", offered]);
        assert!(said.contains(selected), "{said}");
    }
    // RFC 7301 §3.2
    let said = openssl(&server, &["-alpn", "http/1.1"]);
    assert!(said.contains("alert no application protocol"), "{said}");

    for protocols in [&["stun.turn"][..], &["stun.nat-discovery"], &[]] {
        let mut config = tls::client(server.folder());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = tls::connect(config, server.ipv4("tls"));
        assert_eq!(stream.conn.alpn_protocol(), protocols.first().map(|name| name.as_bytes()));
        assert_eq!(Client::of_tls(stream).request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
    }
}

#[test]
fn r8489_6_2_2_01_02_r8656_5_11_a_connection_stays_until_the_client_ends_it() {
    let server = server(&[]);
    let mut client = Client::tls(&server, server.ipv6("tls"));
    assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
    std::thread::sleep(Duration::from_millis(500));
    let mut stream = tls::connect(tls::client(server.folder()), server.ipv4("tls"));
    let requests: Vec<Msg> = (0..50).map(|_| Msg::new(BINDING)).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.0.clone()).collect();
    stream.write_all(&bytes).unwrap();
    // The client has nothing more to say, and still reads.
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut answered = Client::of_tls(stream);
    for request in requests {
        assert!(answered.response(request.id(), PATIENCE).is_some());
    }
    answered.expect_close(PATIENCE);
    assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
}

#[test]
fn r7983_7_01_02_tls_and_tcp_share_a_port() {
    let server = server(&[("listener.transports", r#"["tcp", "tls"]"#), ("tcp.message-timeout", "\"1s\"")]);
    let shared = server.addresses("tcp")[0];
    assert!(server.addresses("tls").contains(&shared));
    let secured = Session::over(Client::tls(&server, shared), crate::setup::ALICE);
    let plain = Session::over(Client::tcp(shared), crate::setup::ALICE);
    for session in [secured, plain] {
        let (mut session, peer, relayed) = connected(session);
        session.round_trip(&peer, relayed);
    }
    // ChannelData before anything else is TCP, too: not answered, and not refused as TLS would be.
    let mut client = Client::tcp(shared);
    client.send(&[0x40, 0, 0, 0]);
    assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
    for first in 0..=255 {
        let mut stream = TcpStream::connect(shared).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[first; 40]).unwrap();
        let mut answer = Vec::new();
        // Closed with data unread: a reset is an end like any other.
        let _ = stream.read_to_end(&mut answer);
        let is_alert = answer.first() == Some(&21);
        assert_eq!(is_alert, (20..64).contains(&first), "{first}: {answer:02x?}");
        assert!(is_alert || answer.is_empty(), "{first}: {answer:02x?}");
    }
}

/// RFC 8155 §9
#[test]
fn r8155_9_01_a_server_without_authentication_serves_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "cert", authority.issue(&[HOST]));
    let text = format!("{}[relay]\nrelay-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n", crate::common::TLS);
    let server = Server::start_with(&text, directory);
    let mut client = Client::tls(&server, server.ipv4("tls"));
    assert_eq!(client.request(&crate::wire::allocate()).error(), None);
}

fn hang(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connecting");
    stream.write_all(bytes).unwrap();
    stream
}

#[test]
fn h_04_handshakes_that_stop_halfway_do_not_block_others_and_end() {
    let limits = [("tls.handshake-timeout", "\"2s\""), ("tls.max-handshakes", "40")];
    let server = server(&limits);
    let hello = client_hello(&[0xC02B, 0xC02F], &[0]);
    // Up to a whole ClientHello, whose answer is never acknowledged.
    let halfway = |at: usize| &hello[..at % (hello.len() + 1)];
    drop((0..100).map(|at| hang(server.ipv4("tls"), halfway(at))).collect::<Vec<_>>());
    let (mut session, peer, relayed) = connected(Session::tls(&server));
    let before = resources(&server);
    let begun = Instant::now();
    let mut streams: Vec<TcpStream> = (0..600).map(|at| hang(server.ipv4("tls"), halfway(at))).collect();
    session.round_trip(&peer, relayed);
    let start = Instant::now();
    connected(Session::tls(&server));
    assert!(start.elapsed() < Duration::from_secs(2), "service takes {:?}", start.elapsed());
    let during = resources(&server);
    assert!(during.memory < before.memory + (8 << 20), "{before:?} {during:?}");
    assert!(during.descriptors < before.descriptors + 60, "{before:?} {during:?}");
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // What the server has answered before it gave up, and then the end.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "they ended after {:?}", begun.elapsed());
    session.round_trip(&peer, relayed);
}

#[test]
fn h_02_streams_that_are_no_tls_and_tls_that_is_no_stun() {
    let server = server(&[]);
    let hello = client_hello(&[0xC02B, 0xC02F], &[0]);
    for at in 0..hello.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = hello.clone();
            bytes[at] ^= flip;
            bytes.extend([0x17; 50]);
            // The server may refuse at any byte.
            let _ = TcpStream::connect(server.ipv4("tls")).unwrap().write_all(&bytes);
        }
    }
    for junk in [&[0xFF; 100][..], &[0x00, 0x01, 0x00, 0x01, 0, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = tls::connect(tls::client(server.folder()), server.ipv4("tls"));
        stream.write_all(junk).unwrap();
        assert!(tls::has_ended(&mut stream), "{junk:02x?}");
    }
    let (mut session, peer, relayed) = connected(Session::tls(&server));
    session.round_trip(&peer, relayed);
}

/// The same data as one record for each message, several messages in one, and records of one byte.
#[test]
fn r8489_6_2_2_05_messages_in_any_segmentation_of_records() {
    let server = server(&[]);
    let mut stream = tls::connect(tls::client(server.folder()), server.ipv4("tls"));
    let requests: Vec<Msg> = (0..40).map(|_| Msg::new(BINDING)).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.0.clone()).collect();
    let (small, rest) = bytes.split_at(35);
    for byte in small {
        tls::send(&mut stream, &[*byte]);
    }
    for part in rest.chunks(77) {
        tls::send(&mut stream, part);
    }
    let mut client = Client::of_tls(stream);
    for request in &requests {
        let reply = client.response(request.id(), PATIENCE).expect("a response");
        assert_eq!(reply.xor(crate::wire::XOR_MAPPED_ADDRESS), Some(client.local));
    }
    assert_eq!(client.local.ip(), V4);
}
