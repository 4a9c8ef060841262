//! H-14, H-16 and the request rates: what floods and many clients leave behind.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE};
use crate::setup::{Server, Session, V4, connected, server};
use crate::wire::{BINDING, EVEN_PORT, Msg, allocate};

/// What a server process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resources {
    /// Resident bytes.
    pub(crate) memory: usize,
    /// Open descriptors.
    pub(crate) descriptors: usize,
}

/// What a server holds when it has answered over both transports and has no client left.
fn idle_resources(server: &Server) -> Resources {
    Client::udp(server.ipv4("udp")).request(&Msg::new(BINDING));
    Client::tcp(server.ipv4("tcp")).request(&Msg::new(BINDING));
    let (mut last, mut steady) = (resources(server), 0);
    while steady < 5 {
        std::thread::sleep(Duration::from_millis(20));
        let now = resources(server);
        steady = if now.descriptors == last.descriptors { steady + 1 } else { 0 };
        last = now;
    }
    last
}

pub(crate) fn resources(server: &Server) -> Resources {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server's descriptors").count();
    Resources { memory: kibibytes << 10, descriptors }
}

/// Sends one datagram from each of `count` addresses, and lets the server take them all in.
fn from_many_sources(server: &Server, second: u8, count: usize, message: impl Fn(usize) -> Vec<u8>) {
    let mut client = Client::udp(server.ipv4("udp"));
    for at in 0..count {
        let source = SocketAddr::from(([127, second, (at >> 8) as u8, at as u8], 0));
        let socket = UdpSocket::bind(source).expect("any address of 127.0.0.0/8");
        socket.send_to(&message(at), server.ipv4("udp")).unwrap();
        if at % 64 == 63 {
            client.fence();
        }
    }
    client.fence();
}

const MEBIBYTE: usize = 1 << 20;

fn leaves_memory_alone(settings: &[(&str, &str)], message: impl Fn(usize) -> Vec<u8>) {
    let server = server(settings);
    from_many_sources(&server, 100, 2_000, &message);
    let before = resources(&server);
    from_many_sources(&server, 101, 10_000, &message);
    let after = resources(&server);
    assert!(after.memory <= before.memory + MEBIBYTE, "{before:?} {after:?}");
    assert_eq!(after.descriptors, before.descriptors);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    session.round_trip(&peer, relayed);
}

/// The limits as they are when the operator sets none.
const DEFAULT_RATES: &[(&str, &str)] = &[("limits.unauthorized-rate", "")];

#[test]
fn h_16_garbage_from_ten_thousand_sources_leaves_no_trace() {
    leaves_memory_alone(DEFAULT_RATES, |at| (0..40 + at % 60).map(|place| (place * at) as u8).collect());
}

#[test]
fn h_16_allocates_without_credentials_from_ten_thousand_sources_leave_no_trace() {
    leaves_memory_alone(DEFAULT_RATES, |_| allocate().0);
    leaves_memory_alone(&[], |_| allocate().0);
}

#[test]
fn h_16_binding_requests_from_ten_thousand_sources_leave_no_trace() {
    leaves_memory_alone(&[], |_| Msg::new(BINDING).0);
}

#[test]
fn h_16_channel_data_and_indications_from_ten_thousand_sources_leave_no_trace() {
    leaves_memory_alone(&[], |at| match at % 2 {
        0 => crate::wire::send(([127, 0, 0, 1], 9).into(), b"data").0,
        _ => crate::wire::channel_data(0x4000, b"data"),
    });
}

/// Waits for the server to hold this many descriptors again.
fn await_descriptors(server: &Server, expected: usize) -> Resources {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = resources(server);
        if now.descriptors <= expected {
            return now;
        }
        assert!(Instant::now() < deadline, "{now:?}, expected {expected} descriptors");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn h_14_after_many_allocations_sockets_ports_and_memory_are_as_before() {
    const SESSIONS: usize = 300;
    let port = crate::common::ports::free_port_pair(&[V4]);
    // Ports for two rounds at most: leaked ones would be missed in the next rounds.
    let (min, max) = (port.to_string(), (port as usize + 2 * SESSIONS).to_string());
    let server = server(&[
        ("relay.min-port", &min),
        ("relay.max-port", &max),
        ("lifetimes.default-allocate-lifetime", "\"2s\""),
        ("lifetimes.reservation-lifetime", "\"1s\""),
    ]);
    let idle = idle_resources(&server);
    let round = |how: usize| {
        let mut sessions: Vec<Session> = (0..SESSIONS)
            .map(|at| match at % 10 {
                0 => Session::tcp(&server),
                _ => Session::udp(&server),
            })
            .collect();
        for (at, session) in sessions.iter_mut().enumerate() {
            let request = if at % 7 == 0 { allocate().attr(EVEN_PORT, &[0x80]) } else { allocate() };
            session.allocate_with(request);
            session.permit(([127, 0, 0, 1], 9).into());
            session.bind(0x4000, ([127, 0, 0, 1], 9).into());
        }
        match how {
            // Deleted, expired, or left with their connections.
            0 => sessions.iter_mut().for_each(Session::delete),
            1 => std::thread::sleep(Duration::from_millis(3000)),
            _ => {}
        }
        drop(sessions);
        await_descriptors(&server, idle.descriptors)
    };
    round(0);
    let first = round(1);
    round(2);
    round(0);
    let last = round(1);
    assert!(last.memory <= first.memory + MEBIBYTE, "{first:?} {last:?}");
    assert_eq!(last.descriptors, idle.descriptors);
}

#[test]
fn h_14_after_many_connections_descriptors_and_memory_are_as_before() {
    let server = server(&[("tcp.max-connections-per-ip", "2000")]);
    let idle = idle_resources(&server);
    let round = || {
        let mut clients: Vec<Client> = (0..300).map(|_| Client::tcp(server.ipv4("tcp"))).collect();
        for client in &mut clients {
            client.request(&Msg::new(BINDING));
        }
        drop(clients);
        await_descriptors(&server, idle.descriptors)
    };
    round();
    let first = round();
    round();
    let last = round();
    assert!(last.memory <= first.memory + MEBIBYTE, "{first:?} {last:?}");
}

/// How many of `count` requests from one client are answered.
fn answered(server: &Server, client: &Client, count: usize, request: impl Fn() -> Msg) -> usize {
    let socket = client.udp_socket();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..count {
        socket.send_to(&request().0, server.ipv4("udp")).or_else(|_| socket.send(&request().0)).unwrap();
    }
    let mut buffer = [0; 600];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

#[test]
fn answers_to_anybody_are_limited_per_source() {
    let server = server(&[("limits.binding-rate", "20"), ("limits.unauthorized-rate", "20")]);
    let source = |last: u8| Client::udp_from(([127, 0, 3, last], 0).into(), server.ipv4("udp"));
    for request in [|| Msg::new(BINDING), allocate] {
        let flooded = answered(&server, &source(1), 400, request);
        assert!((20..=100).contains(&flooded), "{flooded} of 400 requests are answered");
        assert_eq!(answered(&server, &source(2), 10, request), 10, "another source is served");
    }
}

#[test]
fn authenticated_requests_are_not_held_back_by_the_rate_of_challenges() {
    let server = server(&[("limits.unauthorized-rate", "20"), ("limits.binding-rate", "20")]);
    let mut session = Session::udp(&server);
    session.allocate();
    for _ in 0..200 {
        session.succeed(Msg::new(crate::wire::REFRESH));
    }
}
