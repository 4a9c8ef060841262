//! What went wrong in another TURN server, against this one: what the table of [SECURITY.md](../SECURITY.md) needs beyond the tests
//! that are there for other reasons.

mod common;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use common::{
    LOOPBACK, PASSWORD, REALM, Server, USER,
    client::{TurnClient, loopback_socket},
    ports::free_port_pair,
};
use turnserver::stun::{AttributeType, Class, Message, MessageWriter, Method};

/// The error code of a response, or 0.
fn code(response: &[u8]) -> u16 {
    let message = Message::parse(response).expect("a STUN message");
    match message.get(AttributeType::ERROR_CODE) {
        Some(&[_, _, class, number, ..]) => u16::from(class) * 100 + u16::from(number),
        _ => {
            assert_eq!(message.class(), Class::Success);
            0
        }
    }
}

fn client(server: &Server) -> TurnClient {
    TurnClient::new(loopback_socket(), server.ipv4("udp"))
}

fn udp(writer: &mut MessageWriter<'_>) {
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

fn attribute(response: &[u8], kind: AttributeType) -> Vec<u8> {
    Message::parse(response).expect("a STUN message").get(kind).unwrap_or_else(|| panic!("no {kind:?}")).to_vec()
}

/// A server with one worker, on IPv4, with `more` keys of `[limits]` and tables after them.
fn small(relay: &str, more: &str) -> Server {
    Server::start(&format!(
        r#"
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 0
transports = ["udp"]
[relay]
relay-ip = "127.0.0.1"
{relay}
[auth]
realm = "{REALM}"
[[auth.user]]
name = "{USER}"
password = "{PASSWORD}"
[process]
workers = 1
[limits]
unauthorized-rate = 0
{more}
"#
    ))
}

/// Two relay ports, of which the first is even.
fn two_ports() -> String {
    let first = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    format!("min-port = {first}\nmax-port = {}", first + 1)
}

/// Ports and nonces of a weak generator that is seeded by the time could be foretold (CVE-2025-69217): two servers that start at the
/// same moment would draw the same.
#[test]
fn two_servers_that_start_together_draw_different_numbers() {
    const DRAWS: usize = 16;
    let start = || {
        let server = small("", "");
        let (mut ports, mut nonces, mut tickets) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..DRAWS {
            let mut client = client(&server);
            let challenge = client.request(Method::Allocate, udp);
            nonces.push(attribute(&challenge, AttributeType::NONCE));
            client.learn_nonce();
            let response = client.succeed(Method::Allocate, |writer| {
                udp(writer);
                writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
            });
            let relayed =
                Message::parse(&response).expect("a message").get_xor_address(AttributeType::XOR_RELAYED_ADDRESS);
            ports.push(relayed.and_then(Result::ok).expect("a relayed address").port());
            tickets.push(attribute(&response, AttributeType::MOBILITY_TICKET));
        }
        (ports, nonces, tickets)
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(start);
        let other = start();
        (one.join().expect("a server"), other)
    });
    let same = one.0.iter().zip(&other.0).filter(|(one, other)| one == other).count();
    assert!(same <= 2, "{:?}\n{:?}", one.0, other.0);
    for (what, one, other) in [("nonce", one.1, other.1), ("ticket", one.2, other.2)] {
        let all: BTreeSet<Vec<u8>> = one.into_iter().chain(other).collect();
        assert_eq!(all.len(), 2 * DRAWS, "a {what} came twice");
    }
}

/// Names went into format strings (GHSA-4g7c-p5wg-j4hp).
#[test]
fn a_name_of_percent_signs_and_braces_is_a_name() {
    const NAME: &str = "%n%s%99999999x{}{0}";
    let server = small("", &format!("[[auth.user]]\nname = \"{NAME}\"\npassword = \"{PASSWORD}\""));
    let mut client = TurnClient::of(NAME, loopback_socket(), server.ipv4("udp"));
    client.allocate();
    client.delete();
    // And one that nobody has, which shows up where refusals do.
    let mut stranger = TurnClient::of("%s%s%s%n", loopback_socket(), server.ipv4("udp"));
    stranger.learn_nonce();
    assert_eq!(code(&stranger.request(Method::Allocate, udp)), 401);
    let log = server.stop();
    assert!(log.contains(&format!("\"user\":\"{NAME}\"")), "{log}");
}

/// EVEN-PORT without a reservation kept the odd port for ever, until there were none.
#[test]
fn even_ports_alone_do_not_use_up_the_range() {
    let server = small(&two_ports(), "");
    for round in 0..64 {
        let mut client = client(&server);
        client.learn_nonce();
        let response = client.succeed(Method::Allocate, |writer| {
            udp(writer);
            writer.attribute(AttributeType::EVEN_PORT, &[0]);
        });
        let relayed = Message::parse(&response).expect("a message").get_xor_address(AttributeType::XOR_RELAYED_ADDRESS);
        let relayed = relayed.and_then(Result::ok).expect("a relayed address");
        assert!(relayed.port().is_multiple_of(2), "round {round}: {relayed}");
        client.delete();
    }
    // Nor as long as it is used: the odd port is for others.
    let mut clients = [client(&server), client(&server)];
    for (at, client) in clients.iter_mut().enumerate() {
        client.learn_nonce();
        let response = client.request(Method::Allocate, |writer| {
            udp(writer);
            if at == 0 {
                writer.attribute(AttributeType::EVEN_PORT, &[0]);
            }
        });
        assert_eq!(code(&response), 0, "allocation {at}");
    }
}

/// Moving left sessions behind without bound, and gave the quota back while the allocation lived.
#[test]
fn an_allocation_that_moves_is_one_in_the_quota_and_leaves_nothing() {
    let server = small(&two_ports(), "user-quota = 1");
    let mut mover = client(&server);
    mover.learn_nonce();
    let response = mover.succeed(Method::Allocate, |writer| {
        udp(writer);
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    let mut ticket = attribute(&response, AttributeType::MOBILITY_TICKET);
    for round in 0..64 {
        let mut next = client(&server);
        next.learn_nonce();
        let response = next.succeed(Method::Refresh, |writer| {
            writer.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        });
        ticket = attribute(&response, AttributeType::MOBILITY_TICKET);
        mover = next;
        // The allocation is there, so the user has no place left.
        let mut second = client(&server);
        second.learn_nonce();
        assert_eq!(code(&second.request(Method::Allocate, udp)), 486, "round {round}");
    }
    mover.delete();
    client(&server).allocate();
    let log = server.stop();
    let began = log.lines().filter(|line| line.contains("\"session begins\"")).count();
    assert_eq!(began, 2, "the one that moved, and the last: {log}");
}

/// Ranges of IPv6 were compared byte by byte, which left holes in those that end inside a byte.
#[test]
fn ranges_of_ipv6_are_denied_from_their_first_to_their_last_address() {
    const RANGES: [(&str, u8); 5] = [
        ("2a00:1450:4000::", 37),
        ("2a00:1450:ffff:fff8::", 61),
        ("2a01:ff::", 33),
        ("2a02::e000:0:0", 83),
        ("2a03::1", 128),
    ];
    let list: Vec<String> = RANGES.iter().map(|(first, len)| format!("\"{first}/{len}\"")).collect();
    let configuration = LOOPBACK.replace("[peers]\n", &format!("[peers]\ndenied-peer-ip = [{}]\n", list.join(", ")));
    assert_ne!(configuration, LOOPBACK);
    let server = Server::start(&configuration);
    let mut client = client(&server);
    client.learn_nonce();
    client.succeed(Method::Allocate, |writer| {
        udp(writer);
        writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let mut permission = |address: u128| {
        let peer = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(address)), 9);
        code(&client.request(Method::CreatePermission, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        }))
    };
    for (first, len) in RANGES {
        let first = first.parse::<Ipv6Addr>().expect("an address").to_bits();
        let last = first | u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        // In the midst of it, each byte with another value than at its ends.
        let midst = first | (last - first) & 0x5A5A_5A5A_5A5A_5A5A_5A5A_5A5A_5A5A_5A5A;
        for inside in [first, midst, last] {
            assert_eq!(permission(inside), 403, "{} of {len} bits", Ipv6Addr::from_bits(inside));
        }
        for outside in [first - 1, last + 1] {
            assert_eq!(permission(outside), 0, "{} beside {len} bits", Ipv6Addr::from_bits(outside));
        }
    }
}
