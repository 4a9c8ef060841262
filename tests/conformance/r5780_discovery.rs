//! RFC 5780 and what RFC 3489 has of it: NAT discovery on two addresses and two ports.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE};
use crate::common::namespace::{add_address, with_loopback_of_mtu};
use crate::common::ports::free_port_pair;
use crate::setup::{Peer, Server, Session, V4, server};
use crate::wire::{
    ALTERNATE_SERVER, BINDING, CHANGE_REQUEST, CHANGED_ADDRESS, CREATE_PERMISSION, ERROR, MAPPED_ADDRESS, Msg,
    OTHER_ADDRESS, PADDING, RESPONSE_ADDRESS, RESPONSE_ORIGIN, RESPONSE_PORT, Reply, SOURCE_ADDRESS, SUCCESS,
    UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, allocate, decode_plain,
};

const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;
/// How long to wait for what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A server with NAT discovery on 127.0.0.1 and 127.0.0.2.
struct Discovery {
    server: Server,
    ips: [IpAddr; 2],
    ports: [u16; 2],
}

impl Discovery {
    fn start(settings: &[(&str, &str)]) -> Self {
        let ips: [IpAddr; 2] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let port = free_port_pair(&ips);
        let keys = [
            ("nat-discovery.primary-ip", r#""127.0.0.1""#),
            ("nat-discovery.alternate-ip", r#""127.0.0.2""#),
            ("nat-discovery.primary-port", &port.to_string()),
            ("nat-discovery.alternate-port", &(port + 1).to_string()),
        ];
        Self { server: server(&[&keys, settings].concat()), ips, ports: [port, port + 1] }
    }

    /// One of the four transport addresses.
    fn at(&self, ip: usize, port: usize) -> SocketAddr {
        (self.ips[ip], self.ports[port]).into()
    }

    fn primary(&self) -> SocketAddr {
        self.at(0, 0)
    }
}

/// A client that takes datagrams from everywhere.
struct Prober(UdpSocket);

impl Prober {
    fn new() -> Self {
        Self::on(V4)
    }

    fn on(ip: IpAddr) -> Self {
        Self(UdpSocket::bind((ip, 0)).expect("a UDP socket"))
    }

    fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The answer to a request, and where it comes from.
    fn ask(&self, to: SocketAddr, request: &Msg) -> (Reply, SocketAddr) {
        self.ask_for(to, request, self)
    }

    /// The same where the answer comes to another socket.
    fn ask_for(&self, to: SocketAddr, request: &Msg, receiver: &Self) -> (Reply, SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.0.send_to(&request.0, to).expect("sending a request");
            let Some((bytes, from)) = receiver.receive(Duration::from_millis(500)) else { continue };
            let reply = Reply::parse(&bytes);
            if reply.id == request.id() {
                return (reply, from);
            }
        }
        panic!("no answer to {:02x?}", request.0);
    }

    fn receive(&self, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 70_000];
        self.0.set_read_timeout(Some(limit)).unwrap();
        match self.0.recv_from(&mut buffer) {
            Ok((length, from)) => {
                buffer.truncate(length);
                Some((buffer, from))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("receiving: {error}"),
        }
    }
}

fn binding() -> Msg {
    Msg::new(BINDING)
}

fn change(flags: u8) -> Msg {
    binding().attr(CHANGE_REQUEST, &[0, 0, 0, flags])
}

/// Every combination of flags at each of the four places.
fn check_table_1(ips: [IpAddr; 2], ports: [u16; 2]) {
    let at = |ip: usize, port: usize| SocketAddr::new(ips[ip], ports[port]);
    // From several ports, so that each worker is asked.
    for prober in (0..6).map(|_| Prober::on(ips[0])) {
        for (ip, port, flags) in (0..16_u8).map(|n| (usize::from(n & 1), usize::from(n >> 1 & 1), n >> 1 & 6)) {
            let (reply, from) = prober.ask(at(ip, port), &change(flags));
            let origin = at(ip ^ usize::from(flags & CHANGE_IP != 0), port ^ usize::from(flags & CHANGE_PORT != 0));
            assert_eq!(from, origin, "asked {} with {flags}", at(ip, port));
            assert_eq!(reply.kind, BINDING | SUCCESS);
            assert_eq!(reply.plain(RESPONSE_ORIGIN), Some(from));
            assert_eq!(reply.plain(OTHER_ADDRESS), Some(at(1 - ip, 1 - port)));
            assert_eq!(reply.plain(MAPPED_ADDRESS), Some(prober.local()));
            assert_eq!(reply.xor(XOR_MAPPED_ADDRESS), Some(prober.local()));
        }
    }
}

#[test]
fn r5780_6_1_03_to_08_the_response_comes_from_the_address_and_port_of_table_1() {
    let discovery = Discovery::start(&[]);
    check_table_1(discovery.ips, discovery.ports);
}

#[test]
fn r5780_6_1_03_to_08_the_same_behind_wildcard_listeners_in_both_families() {
    with_loopback_of_mtu(1500, || {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
        addresses.into_iter().for_each(add_address);
        let _server = server(&[
            ("listener.listening-ip", r#"["0.0.0.0", "::"]"#),
            ("listener.listening-port", "3478"),
            ("relay.relay-ip", r#"["192.0.2.1", "2001:db8::1"]"#),
            ("nat-discovery.primary-ip", r#"["192.0.2.1", "2001:db8::1"]"#),
            ("nat-discovery.alternate-ip", r#"["2001:db8::2", "192.0.2.2"]"#),
            ("nat-discovery.alternate-port", "5000"),
        ]);
        for pair in addresses.chunks(2) {
            check_table_1([pair[0].parse().unwrap(), pair[1].parse().unwrap()], [3478, 5000]);
        }
    });
}

#[test]
fn r5780_6_01_02_all_four_places_answer_over_udp_and_tcp() {
    let discovery = Discovery::start(&[]);
    for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (reply, from) = Prober::new().ask(discovery.at(ip, port), &binding());
        assert_eq!(from, discovery.at(ip, port));
        let other = reply.plain(OTHER_ADDRESS).expect("OTHER-ADDRESS");
        assert!(other.ip() != from.ip() && other.port() != from.port());
        let mut client = Client::tcp(discovery.at(ip, port));
        let reply = client.request(&binding());
        assert_eq!(reply.plain(RESPONSE_ORIGIN), Some(discovery.at(ip, port)));
        assert_eq!(reply.plain(OTHER_ADDRESS), Some(discovery.at(1 - ip, 1 - port)));
        // What goes another way than back is for UDP; a connection has one way.
        for (kind, value) in [(CHANGE_REQUEST, &[0, 0, 0, 6][..]), (RESPONSE_PORT, &[9, 9, 0, 0]), (PADDING, &[0; 8])] {
            let refused = client.request(&binding().attr(kind, value));
            assert_eq!((refused.error(), refused.get(UNKNOWN_ATTRIBUTES)), (Some(420), Some(&kind.to_be_bytes()[..])));
        }
    }
}

#[test]
fn r5780_6_04_05_7_4_01_a_server_with_one_address_offers_nothing_of_it() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    let reply = client.request(&binding());
    assert!(!reply.has(OTHER_ADDRESS) && !reply.has(RESPONSE_ORIGIN) && !reply.has(MAPPED_ADDRESS));
    for (kind, value) in [(CHANGE_REQUEST, &[0, 0, 0, 6][..]), (RESPONSE_PORT, &[9, 9, 0, 0]), (PADDING, &[0; 8])] {
        let refused = client.request(&binding().attr(kind, value));
        assert_eq!((refused.error(), refused.get(UNKNOWN_ATTRIBUTES)), (Some(420), Some(&kind.to_be_bytes()[..])));
    }
}

#[test]
fn r5780_6_04_7_4_01_nor_does_another_listener_of_a_server_with_two() {
    let discovery = Discovery::start(&[]);
    for address in discovery.server.addresses("udp") {
        let offered = discovery.ports.contains(&address.port());
        let (reply, _) = Prober::on(if address.is_ipv4() { V4 } else { address.ip() }).ask(address, &binding());
        assert_eq!((reply.has(OTHER_ADDRESS), reply.has(RESPONSE_ORIGIN)), (offered, offered), "{address}");
    }
}

#[test]
fn r5780_6_1_01_02_every_binding_response_has_both_mapped_addresses_origin_and_other_address() {
    let discovery = Discovery::start(&[]);
    let prober = Prober::new();
    let requests = [binding(), binding().fingerprint(), change(0), binding().attr(0xFFF0, b"odd")];
    for request in requests {
        let (reply, from) = prober.ask(discovery.primary(), &request);
        assert_eq!(from, discovery.primary());
        for kind in [MAPPED_ADDRESS, XOR_MAPPED_ADDRESS, RESPONSE_ORIGIN, OTHER_ADDRESS] {
            assert_eq!(reply.attributes.iter().filter(|(found, _)| *found == kind).count(), 1, "{kind:#06x}");
        }
    }
}

#[test]
fn behind_a_nat_that_maps_one_to_one_the_outer_addresses_are_told() {
    let discovery =
        Discovery::start(&[("nat-discovery.external-ip", r#"["203.0.113.1/127.0.0.1", "203.0.113.2/127.0.0.2"]"#)]);
    let outer = |ip: usize, port: usize| SocketAddr::from(([203, 0, 113, 1 + ip as u8], discovery.ports[port]));
    let (reply, from) = Prober::new().ask(discovery.primary(), &change(CHANGE_IP));
    assert_eq!(from, discovery.at(1, 0));
    assert_eq!(reply.plain(RESPONSE_ORIGIN), Some(outer(1, 0)));
    assert_eq!(reply.plain(OTHER_ADDRESS), Some(outer(1, 1)));
    // They are this server's own, and no peers of its clients.
    let mut session = Session::over(Client::udp(discovery.primary()), crate::setup::ALICE);
    session.allocate();
    session.fail(Msg::new(crate::wire::CHANNEL_BIND).channel(0x4000).peer(outer(1, 1)), 403);
}

/// The length of the response's PADDING on an interface of this MTU, for a request with so much of it.
fn padding_of(discovery: &Discovery, request: &Msg) -> (usize, Reply) {
    let (reply, _) = Prober::new().ask(discovery.primary(), request);
    let padding = reply.get(PADDING).expect("PADDING");
    assert!(padding.iter().all(|byte| *byte == 0), "leftovers in PADDING");
    (padding.len(), reply)
}

#[test]
fn r5780_6_1_09_10_padding_has_the_length_of_the_mtu() {
    with_loopback_of_mtu(1402, || {
        let discovery = Discovery::start(&[]);
        for request in [binding(), change(CHANGE_IP), change(CHANGE_IP | CHANGE_PORT)] {
            let (length, _) = padding_of(&discovery, &request.attr(PADDING, &[7; 1500]));
            assert_eq!(length, 1404);
        }
    });
}

#[test]
fn r5780_7_6_01_padding_never_makes_a_datagram_of_more_than_64_kib() {
    let discovery = Discovery::start(&[("process.software-attribute", "true")]);
    let most = 65_507 - 20 - 4 - 8;
    let request = binding().attr(PADDING, &vec![7; most / 4 * 4]).fingerprint();
    let (length, reply) = padding_of(&discovery, &request);
    assert!(length >= 60_000 && reply.raw.len() <= 65_535 - 28, "{length}, {}", reply.raw.len());
}

#[test]
fn r5780_10_02_a_little_padding_draws_a_little_padding() {
    with_loopback_of_mtu(1500, || {
        let discovery = Discovery::start(&[("compatibility.rfc3489", "true")]);
        for sent in [0, 1, 4, 100, 1000] {
            let request = binding().attr(PADDING, &vec![7; sent]);
            let (length, reply) = padding_of(&discovery, &request);
            assert_eq!(length, sent.next_multiple_of(4));
            assert!(reply.raw.len() <= request.0.len() + 4 * 12, "{} for {}", reply.raw.len(), request.0.len());
        }
        // Without any, with the headers of IP and UDP: two bytes for one.
        let (reply, _) = Prober::new().ask(discovery.primary(), &binding());
        assert!(reply.raw.len() + 28 <= 2 * (20 + 28), "{} bytes", reply.raw.len());
    });
}

#[test]
fn r5780_6_1_11_7_5_02_padding_and_response_port_together_are_a_bad_request() {
    let discovery = Discovery::start(&[]);
    let (prober, other) = (Prober::new(), Prober::new());
    let port = other.local().port().to_be_bytes();
    let request = change(CHANGE_IP).attr(RESPONSE_PORT, &[port[0], port[1], 0, 0]).attr(PADDING, &[0; 16]);
    let (reply, from) = prober.ask(discovery.primary(), &request);
    assert_eq!((reply.error(), from), (Some(400), discovery.primary()));
    assert!(other.receive(SILENCE).is_none(), "answered to RESPONSE-PORT");
}

#[test]
fn r5780_6_1_14_7_5_01_response_port_takes_the_answer_to_another_port_of_the_source() {
    let discovery = Discovery::start(&[]);
    let (prober, other) = (Prober::new(), Prober::new());
    let port = other.local().port().to_be_bytes();
    for (request, from) in [(binding(), discovery.at(0, 0)), (change(CHANGE_IP | CHANGE_PORT), discovery.at(1, 1))] {
        let request = request.attr(RESPONSE_PORT, &[port[0], port[1], 0, 0]);
        let (reply, origin) = prober.ask_for(discovery.primary(), &request, &other);
        assert_eq!((origin, reply.plain(RESPONSE_ORIGIN)), (from, Some(from)));
        assert_eq!(reply.xor(XOR_MAPPED_ADDRESS), Some(prober.local()));
    }
    assert!(prober.receive(SILENCE).is_none(), "a second answer to the port of the request");
    // Nothing can be sent to port 0.
    let (reply, _) = prober.ask(discovery.primary(), &binding().attr(RESPONSE_PORT, &[0; 4]));
    assert_eq!(reply.error(), Some(400));
}

#[test]
fn r5780_6_1_13_no_alternate_server_in_a_binding_response() {
    let discovery = Discovery::start(&[("redirect.alternate-server", r#""192.0.2.9:3478""#)]);
    for flags in [0, CHANGE_IP | CHANGE_PORT] {
        let (reply, _) = Prober::new().ask(discovery.primary(), &change(flags));
        assert!(reply.kind == BINDING | SUCCESS && !reply.has(ALTERNATE_SERVER));
    }
}

#[test]
fn r5780_7_2_01_other_methods_have_no_change_request() {
    let discovery = Discovery::start(&[]);
    let mut session = Session::over(Client::udp(discovery.primary()), crate::setup::ALICE);
    session.fail(allocate().attr(CHANGE_REQUEST, &[0, 0, 0, 6]), 420);
    session.allocate();
    session.fail(Msg::new(CREATE_PERMISSION).peer(([127, 0, 0, 1], 9)).attr(RESPONSE_PORT, &[9, 9, 0, 0]), 420);
    // What is no flag says nothing.
    let (_, from) = Prober::new().ask(discovery.primary(), &binding().attr(CHANGE_REQUEST, &[0xFF, 0xFF, 0xFF, 0xF9]));
    assert_eq!(from, discovery.primary());
}

#[test]
fn r5780_10_01_response_address_aims_at_nobody() {
    let discovery = Discovery::start(&[("compatibility.rfc3489", "true")]);
    let (victim, prober) = (Peer::new(V4), Prober::new());
    let mut value = vec![0, 1];
    value.extend(victim.address.port().to_be_bytes());
    value.extend([127, 0, 0, 1]);
    for request in [binding(), change(CHANGE_IP | CHANGE_PORT)] {
        let (reply, from) = prober.ask(discovery.primary(), &request.attr(RESPONSE_ADDRESS, &value));
        assert_eq!((reply.error(), reply.get(UNKNOWN_ATTRIBUTES)), (Some(420), Some(&[0, 2][..])));
        assert_eq!(from, discovery.primary());
    }
    let (kind, ..) =
        classic(&prober, discovery.primary(), &[&[0, 3, 0, 4, 0, 0, 0, 6, 0, 2, 0, 8], &value[..]].concat());
    assert_eq!(kind, BINDING | ERROR);
    victim.socket.set_nonblocking(true).unwrap();
    assert!(victim.socket.recv(&mut [0; 10]).is_err(), "an answer went to RESPONSE-ADDRESS");
}

/// One source gets its rate, whatever it asks for and wherever.
#[test]
fn answers_from_all_four_places_share_the_rate_of_one_source() {
    let discovery = Discovery::start(&[("limits.binding-rate", "10"), ("process.workers", "1")]);
    let prober = Prober::new();
    let begun = Instant::now();
    for n in 0..400_u16 {
        let request = if n % 3 == 0 { binding().attr(PADDING, &[0; 400]) } else { change(n as u8 & 6) };
        let request =
            if n % 5 == 1 { request.attr(RESPONSE_PORT, &prober.local().port().to_be_bytes()) } else { request };
        prober.0.send_to(&request.0, discovery.at(usize::from(n & 1), usize::from(n >> 1 & 1))).unwrap();
    }
    let mut answers = 0;
    while prober.receive(SILENCE).is_some() {
        answers += 1;
    }
    // A burst of two seconds' worth, then the rate.
    let limit = 20 + 10 * (begun.elapsed().as_secs() + 1);
    assert!(answers > 0 && answers <= limit, "{answers} answers, limit {limit}");
}

/// Types and values.
type Attributes = Vec<(u16, Vec<u8>)>;

/// Sends a request of RFC 3489; returns kind and attributes of the answer, and where it comes from.
fn classic(prober: &Prober, to: SocketAddr, attributes: &[u8]) -> (u16, Attributes, SocketAddr) {
    let mut request = vec![0, 1, 0, attributes.len() as u8];
    request.extend(0x11..0x21);
    request.extend(attributes);
    let deadline = Instant::now() + PATIENCE;
    let (answer, from) = loop {
        assert!(Instant::now() < deadline, "no answer to a classic request");
        prober.0.send_to(&request, to).unwrap();
        if let Some(received) = prober.receive(Duration::from_millis(500)) {
            break received;
        }
    };
    assert_eq!(answer[4..20], request[4..20], "the 128-bit transaction id");
    let mut found = Vec::new();
    let mut rest = &answer[20..];
    while let [k0, k1, l0, l1, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        found.push((u16::from_be_bytes([*k0, *k1]), tail[..length].to_vec()));
        rest = &tail[length.next_multiple_of(4)..];
    }
    (u16::from_be_bytes([answer[0], answer[1]]), found, from)
}

#[test]
fn r3489_8_1_01_02_a_classic_client_gets_changed_and_source_address_from_where_it_asks() {
    let discovery = Discovery::start(&[("compatibility.rfc3489", "true")]);
    for (ip, port, flags) in (0..16_u8).map(|n| (usize::from(n & 1), usize::from(n >> 1 & 1), n >> 1 & 6)) {
        let prober = Prober::new();
        let (kind, found, from) = classic(&prober, discovery.at(ip, port), &[0, 3, 0, 4, 0, 0, 0, flags]);
        let origin =
            discovery.at(ip ^ usize::from(flags & CHANGE_IP != 0), port ^ usize::from(flags & CHANGE_PORT != 0));
        assert_eq!((kind, from), (BINDING | SUCCESS, origin));
        let found: Vec<(u16, SocketAddr)> = found.iter().map(|(kind, value)| (*kind, decode_plain(value))).collect();
        let expected = [
            (MAPPED_ADDRESS, prober.local()),
            (SOURCE_ADDRESS, origin),
            (CHANGED_ADDRESS, discovery.at(1 - ip, 1 - port)),
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn classic_clients_are_not_answered_unless_switched_on() {
    let discovery = Discovery::start(&[]);
    let mut client = Client::udp(discovery.primary());
    let mut request = vec![0, 1, 0, 8];
    request.extend(0x11..0x21u8);
    request.extend([0, 3, 0, 4, 0, 0, 0, 0]);
    client.silent(&request);
}
