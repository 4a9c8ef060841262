//! What somebody who writes another's address on a datagram can have sent there: bytes out for bytes in, of every exchange that needs
//! no proof of the address, and how many answers one prefix gets (conformance H-10).
//!
//! TCP and TLS begin with a handshake of the system's: nobody else's address stands there. After the first answer so does DTLS.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use turnserver::stun::{AttributeType, IntegrityKey, MacAlgorithm, Method};

use crate::{
    common::{
        LOOPBACK, PATIENCE, Server,
        client::{channel_data, key},
        loopback_with_dtls,
    },
    strangers::{junk, login, message, udp},
};

/// Headers of IP and UDP of an exchange.
fn headers(what: &str) -> usize {
    if what.ends_with("IPv6") { 48 } else { 28 }
}

/// One question, and the longest answer that it may get.
struct Exchange {
    what: &'static str,
    request: Vec<u8>,
    at_most: usize,
}

fn exchange(what: &'static str, request: Vec<u8>, at_most: usize) -> Exchange {
    Exchange { what, request, at_most }
}

/// A message of the wire, without the reader's help: a type, no cookie check, attributes as they are.
fn raw(kind: u16, cookie: [u8; 4], attributes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(attributes.len()).expect("a short message");
    [&kind.to_be_bytes(), &len.to_be_bytes(), &cookie[..], &[7; 12], attributes].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("a short value");
    let mut bytes = [&kind.to_be_bytes(), &len.to_be_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const REFRESH: u16 = 0x004;
const CONNECT: u16 = 0x00A;
const CHANGE_REQUEST: u16 = 0x0003;
const PADDING: u16 = 0x0026;

fn bare(method: Method) -> Vec<u8> {
    message(method, 0, |_| {})
}

/// Attributes that nobody knows and everybody would have to.
fn unknown(count: u16) -> Vec<u8> {
    (0..count).flat_map(|number| attribute(0x7000 + number, &[])).collect()
}

/// Everywhere.
fn usual(hello: Vec<u8>) -> Vec<Exchange> {
    let wrong = IntegrityKey::new(MacAlgorithm::Sha1, b"wrong");
    let unsigned = message(Method::Allocate, 0, |writer| {
        writer.integrity(&wrong);
    });
    let token = message(Method::Allocate, 0, |writer| {
        writer.attribute(AttributeType::USERNAME, b"a");
        writer.attribute(AttributeType::REALM, b"");
        writer.attribute(AttributeType::NONCE, b"");
        writer.attribute(AttributeType::ACCESS_TOKEN, b"");
        writer.integrity(&wrong);
    });
    let checked = message(Method::Binding, 0, |writer| {
        writer.fingerprint();
    });
    vec![
        exchange("Binding", bare(Method::Binding), 32),
        exchange("Binding with FINGERPRINT", checked, 40),
        exchange("Binding with one unknown attribute (420)", raw(1, COOKIE, &unknown(1)), 56),
        exchange("Binding with 20 unknown attributes (420)", raw(1, COOKIE, &unknown(20)), 92),
        exchange("Binding with 300 unknown attributes (420)", raw(1, COOKIE, &unknown(300)), 452),
        exchange("Binding of RFC 3489", raw(1, [1; 4], &[]), 0),
        exchange("Allocate, nothing in it (401)", bare(Method::Allocate), 96),
        exchange("Allocate as clients begin (401)", message(Method::Allocate, 0, udp), 96),
        exchange("Allocate with unknown attributes (401)", raw(3, COOKIE, &unknown(20)), 96),
        exchange("Refresh, CreatePermission, ChannelBind (401)", raw(REFRESH, COOKIE, &[]), 96),
        exchange("Connect, ConnectionBind without tcp-relaying", raw(CONNECT, COOKIE, &[]), 0),
        exchange("an unknown method", raw(0x02F, COOKIE, &[]), 0),
        exchange("signed, without a user (400)", unsigned, 40),
        exchange("an access token where there are none (420)", token, 56),
        exchange("a wrong password (401)", login(0, b"", &wrong), 108),
        exchange("the right password, another's nonce (438)", login(0, b"", &key()), 104),
        exchange("a response, or an indication", raw(0x0101, COOKIE, &[]), 0),
        exchange("ChannelData, Send indications", channel_data(turnserver::stun::ChannelNumber(0x4000), b"data"), 0),
        exchange("a wrong length", [&raw(1, COOKIE, &[])[..], &[0; 8]].concat(), 0),
        exchange("a wrong cookie", raw(3, [1; 4], &[]), 0),
        exchange("junk", junk(1, 100), 0),
        exchange("a ClientHello of DTLS (HelloVerifyRequest)", hello, 44),
    ]
}

/// What this server is asked, with what is configured, and what is answered.
type Row = (String, usize, usize);

/// Asks each question from an address of its own; checks the answers.
fn ask_all(configured: &str, server: SocketAddr, exchanges: &[Exchange]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, Exchange { what, request, at_most }) in exchanges.iter().enumerate() {
        let source = match server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 7, 1 + at as u8)),
            same @ IpAddr::V6(_) => same,
        };
        let answered = answer(source, server, request, *at_most > 0);
        assert!(answered <= *at_most, "{what}: {answered} bytes for {}, at most {at_most}", request.len());
        rows.push((format!("{what}{configured}"), request.len(), answered));
    }
    rows
}

/// Bytes of all answers to a request; a second one, whose answer comes after them, tells their end. Only what is sent from another
/// address may come later than that.
fn answer(source: IpAddr, server: SocketAddr, request: &[u8], is_answered: bool) -> usize {
    let socket = UdpSocket::bind((source, 0)).expect("an address of this host");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket.send_to(request, server).expect("sending");
    let fence = message(Method::Binding, u32::MAX, |_| {});
    socket.send_to(&fence, server).expect("sending");
    let (mut sum, mut buffer, mut is_over) = (0, [0; 2048], false);
    while !is_over || is_answered && sum == 0 {
        let len = socket.recv(&mut buffer).expect("an answer");
        if buffer[..len].get(8..20) == Some(&fence[8..20]) {
            is_over = true;
        } else {
            sum += len;
        }
    }
    sum
}

/// Every exchange on servers configured in each way that makes a difference.
fn measured() -> Vec<Row> {
    let server = Server::start(&loopback_with_dtls());
    let target = server.ipv4("udp");
    let hello = crate::strangers::hello(server.folder(), target);
    let mut rows = ask_all("", target, &usual(hello));
    let binding = [exchange("Binding", bare(Method::Binding), 44)];
    rows.extend(ask_all(", IPv6", server.ipv6("udp"), &binding));
    drop(server);

    let first = |at_most| [exchange("Allocate, nothing in it (401)", bare(Method::Allocate), at_most)];
    let with = |more: &str| Server::start(&format!("{LOOPBACK}{more}"));
    let software = with("software-attribute = true\nfingerprint = true\n");
    rows.extend(ask_all(", `software-attribute`, `fingerprint`", software.ipv4("udp"), &first(96 + 20 + 8)));
    let redirect = with("[redirect]\nalternate-server = [\"192.0.2.2:3478\"]\n");
    rows.extend(ask_all(", `[redirect]`", redirect.ipv4("udp"), &first(96)));

    let classic = Server::start(&LOOPBACK.replace("[compatibility]", "[compatibility]\nrfc3489 = true"));
    let request = [exchange("Binding of RFC 3489", raw(1, [1; 4], &[]), 32)];
    rows.extend(ask_all(", `rfc3489`", classic.ipv4("udp"), &request));
    let tcp = Server::start(&LOOPBACK.replace("[relay]", "[relay]\ntcp-relaying = true"));
    let request = [exchange("Connect, ConnectionBind (401)", raw(CONNECT, COOKIE, &[]), 96)];
    rows.extend(ask_all(", `tcp-relaying`", tcp.ipv4("udp"), &request));

    let port = crate::common::ports::free_port_pair(&[Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()]);
    let discovery = with(&format!(
        "[nat-discovery]\nprimary-ip = \"127.0.0.1\"\nalternate-ip = \"127.0.0.2\"\nprimary-port = {port}\n\
         alternate-port = {}\n",
        port + 1
    ));
    let asked = [
        exchange("Binding", bare(Method::Binding), 68),
        exchange("Binding with CHANGE-REQUEST", raw(1, COOKIE, &attribute(CHANGE_REQUEST, &[0, 0, 0, 6])), 68),
        exchange("Binding with 1000 bytes of PADDING", raw(1, COOKIE, &attribute(PADDING, &[0; 1000])), 1072),
    ];
    rows.extend(ask_all(", `[nat-discovery]`", (Ipv4Addr::LOCALHOST, port).into(), &asked));
    drop(discovery);
    rows
}

/// As a table in Markdown: the largest factor first.
pub(crate) fn table() -> String {
    let mut table = String::from(
        "| exchange | bytes in | bytes out | factor | with the headers of IP and UDP |\n|---|---:|---:|---:|---:|\n",
    );
    let mut rows = measured();
    let factor = |(_, asked, answered): &Row| *answered as f64 / *asked as f64;
    rows.sort_by(|one, other| factor(other).total_cmp(&factor(one)));
    for row in &rows {
        let (what, asked, answered) = row;
        let headers = headers(what);
        let whole = if *answered == 0 { 0.0 } else { (answered + headers) as f64 / (asked + headers) as f64 };
        let _ = writeln!(table, "| {what} | {asked} | {answered} | {:.2} | {whole:.2} |", factor(row));
    }
    table
}

/// H-10
#[test]
fn an_answer_to_nobody_in_particular_is_little_longer_than_its_question() {
    let rows = measured();
    for (what, asked, answered) in &rows {
        // What the operator adds to every answer comes on top.
        if what.contains("software-attribute") {
            continue;
        }
        assert!(answered * 10 <= asked * 48, "{what}: {answered} bytes for {asked}");
        let headers = headers(what);
        let (out, back) = (asked + headers, if *answered == 0 { 0 } else { answered + headers });
        assert!(back * 10 <= out * 27, "{what}: {back} bytes for {out}");
    }
    assert_eq!(rows.iter().filter(|(.., answered)| *answered == 0).count(), 8, "{rows:?}");
}

/// How many of 400 requests are answered that come from these addresses in turn.
fn answered(server: SocketAddr, sources: impl Iterator<Item = Ipv4Addr>, request: &[u8]) -> usize {
    let bind = |source| UdpSocket::bind((source, 0)).expect("an address of 127.0.0.0/8");
    let sockets: Vec<UdpSocket> = sources.map(bind).collect();
    for at in 0..400 {
        sockets[at % sockets.len()].send_to(request, server).expect("sending");
    }
    let deadline = Instant::now() + Duration::from_millis(500);
    let mut count = 0;
    for socket in sockets {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left)).expect("a time limit");
            if socket.recv(&mut [0; 1500]).is_err() {
                break;
            }
            count += 1;
        }
    }
    count
}

/// 400 requests come in less than a few seconds, in which 10 each second are answered by each of two workers, and 20 at once.
const BOUND: usize = 120;

const RATES: &str = "[limits]\nbinding-rate = 20\nunauthorized-rate = 20\nsource-prefix-ipv4 = 24\n\
     [management]\nlisten = \"127.0.0.1:0\"\n";

/// Whatever a forged source can draw is limited for its prefix: 438, which takes a password, like the rest.
#[test]
fn answers_to_one_prefix_are_limited_whatever_they_are() {
    let server = Server::start(&format!("{LOOPBACK}{RATES}"));
    let target = server.ipv4("udp");
    let wrong = IntegrityKey::new(MacAlgorithm::Sha1, b"wrong");
    let kinds = [
        bare(Method::Binding),
        bare(Method::Allocate),
        login(0, b"", &wrong),
        login(0, b"invented", &key()),
        raw(REFRESH, COOKIE, &[]),
    ];
    for (at, request) in kinds.iter().enumerate() {
        // Each kind from a network of its own: from one address, and from many of a prefix.
        let network = 20 + 2 * at as u8;
        let one = answered(target, std::iter::once(Ipv4Addr::new(127, 9, network, 1)), request);
        assert!((1..=BOUND).contains(&one), "{one} of 400 are answered: {request:x?}");
        let many = answered(target, (1..=100).map(|last| Ipv4Addr::new(127, 9, network + 1, last)), request);
        assert!((1..=BOUND).contains(&many), "{many} of 400 are answered: {request:x?}");
    }
    let held_back = rate_limited(&server);
    assert!(held_back >= 10 * (400 - BOUND as u64), "{held_back} are counted");
}

/// What the metrics say was left unanswered.
fn rate_limited(server: &Server) -> u64 {
    let management = server.await_logged("management")["address"].as_str().expect("an address").to_owned();
    let mut stream = TcpStream::connect(management).expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("to ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix("turn_drops_total{reason=\"rate-limited\"} "));
    line.expect("the counter").parse().expect("a number")
}
