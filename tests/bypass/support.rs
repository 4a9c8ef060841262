//! Servers and clients of these tests.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use crate::{
    common::namespace::{add_address, in_new_network, ip},
    setup::{Server, Session, server},
    wire::{CHANNEL_BIND, CONNECT, CREATE_PERMISSION, Msg, REQUESTED_ADDRESS_FAMILY, allocate, allocate_tcp},
};

/// Addresses of [`on_a_host`] besides loopback.
pub(crate) const V4: &str = "9.9.9.9";
pub(crate) const V6: &str = "2a00::9";
const RELAYS: &str = "[\"9.9.9.9\", \"2a00::9\"]";

/// Runs a test on a host that has nothing but loopback and these addresses, so that none of the table's is its own by chance.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    in_new_network(|| {
        ip("link set lo up");
        [V4, V6].into_iter().for_each(add_address);
        test();
    });
}

/// A server on loopback that also relays TCP, with management, and these settings besides.
pub(crate) fn start(settings: &[(&str, &str)]) -> Server {
    let common = [("relay.tcp-relaying", "true"), ("relay.relay-ip", RELAYS), ("management.listen", "\"127.0.0.1:0\"")];
    server(&[&common, settings].concat())
}

/// One whose operator has opened nothing.
pub(crate) fn with_default_rules() -> Server {
    start(&[("peers.allowed-peer-ip", "")])
}

/// A client with allocations for UDP and for TCP to peers of one family.
pub(crate) struct Client {
    pub(crate) udp: Session,
    pub(crate) tcp: Session,
    next: u16,
}

impl Client {
    pub(crate) fn new(server: &Server, ipv4: bool) -> Self {
        let (mut udp, mut tcp) = (Session::udp(server), Session::tcp(server));
        let family = [if ipv4 { 1 } else { 2 }, 0, 0, 0];
        udp.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &family));
        tcp.allocate_with(allocate_tcp().attr(REQUESTED_ADDRESS_FAMILY, &family));
        Self { udp, tcp, next: 0x4000 }
    }

    /// The errors of all requests that name a peer: CreatePermission, ChannelBind, Connect.
    pub(crate) fn requests(&mut self, peer: SocketAddr) -> [Option<u16>; 3] {
        let channel = self.next;
        self.next += 1;
        [
            self.udp.call(Msg::new(CREATE_PERMISSION).peer(peer)).error(),
            self.udp.call(Msg::new(CHANNEL_BIND).channel(channel).peer(peer)).error(),
            self.tcp.call(Msg::new(CONNECT).peer(peer)).error(),
        ]
    }

    /// The peer is refused on all paths but that of data.
    pub(crate) fn is_refused(&mut self, peer: SocketAddr, why: &str) {
        assert_eq!(self.requests(peer), [Some(403); 3], "{peer}: {why}");
    }

    /// The peer is served, as far as rules go: where there is no route, connecting fails for that.
    pub(crate) fn is_served(&mut self, peer: SocketAddr, why: &str) {
        let [permission, channel, connect] = self.requests(peer);
        assert_eq!((permission, channel), (None, None), "{peer}: {why}");
        assert_ne!(connect, Some(403), "{peer}: {why}");
    }
}

/// A client for each family.
pub(crate) struct Clients([Client; 2]);

impl Clients {
    pub(crate) fn new(server: &Server) -> Self {
        Self([true, false].map(|ipv4| Client::new(server, ipv4)))
    }

    pub(crate) fn of(&mut self, ip: IpAddr) -> &mut Client {
        &mut self.0[usize::from(ip.is_ipv6())]
    }
}

/// Where the server is asked what it has counted.
pub(crate) fn management(server: &Server) -> SocketAddr {
    server.await_logged("management")["address"].as_str().unwrap().parse().unwrap()
}

/// A number that the server counts, by its name with labels.
pub(crate) fn metric(server: &Server, name: &str) -> u64 {
    metric_at(management(server), name)
}

fn metric_at(address: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).expect("management");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// Datagrams and pieces of data dropped because of who the peer is.
pub(crate) fn refused(server: &Server) -> u64 {
    refused_at(management(server))
}

/// The same, of the server with this management.
pub(crate) fn refused_at(address: SocketAddr) -> u64 {
    let count = |reason| metric_at(address, &format!("turn_drops_total{{reason=\"{reason}\"}}"));
    count("no-permission") + count("peer-refused")
}

/// Datagrams relayed to peers.
pub(crate) fn relayed(server: &Server) -> u64 {
    metric(server, "turn_relay_packets_total{direction=\"to-peers\"}")
}
