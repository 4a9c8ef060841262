//! Peers that come by themselves, from hosts with such addresses.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{
    client::{Client, Event, PATIENCE},
    common::{Server, await_address},
    network::Network,
    setup::{ALICE, Session},
    support::{management, refused_at},
    table::{Expected, expected},
    wire::{
        CHANNEL_BIND, CONNECT, CREATE_PERMISSION, Msg, REQUESTED_ADDRESS_FAMILY, XOR_PEER_ADDRESS, allocate,
        allocate_tcp,
    },
};

/// Listens on the left; relays on the right, from addresses that are none of the table's.
const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = "198.51.100.1"
[relay]
relay-ip = ["9.9.9.1", "2a00:9::1"]
tcp-relaying = true
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[management]
listen = "198.51.100.1:9641"
token = "0123456789abcdef0123456789abcdef"
public-metrics = true
"#;

/// Sources that this system carries from one host to another: it takes no loopback, multicast or mapped addresses from outside.
const SOURCES: &[&str] = &[
    "10.0.0.1",
    "10.255.255.254",
    "100.64.0.1",
    "100.127.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.254",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.200",
    "203.0.113.200",
    "240.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "200::1",
    "2001::5efe:a00:1",
    "2001:1::2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8:ffff::1",
    "2002:a00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fdff::1",
    "fec0::1",
    "2a00:1:2:3:0:5efe:10.0.0.1",
];

/// Ordinary ones: what comes from them arrives, so that what does not was refused.
const ORDINARY: [&str; 2] = ["8.8.8.8", "2606:4700::1"];

/// Gives the right host an address, and the server a route to it.
fn add(network: &Network, ip: IpAddr) {
    let (length, next) = if ip.is_ipv4() { (32, "9.9.9.2") } else { (128, "2a00:9::2") };
    let more = if ip.is_ipv4() { "" } else { " nodad" };
    network.ip("right", &format!("address add {ip}/{length} dev eth0{more}"));
    network.ip("server", &format!("route replace {ip}/{length} via {next}"));
}

/// Clients on the left, over UDP and TCP.
fn sessions(network: &Network) -> (Session, Session) {
    let address: SocketAddr = "198.51.100.1:3478".parse().unwrap();
    let [udp, tcp] =
        network.within("left", || [Client::udp_from("198.51.100.2:0".parse().unwrap(), address), Client::tcp(address)]);
    (Session::over(udp, ALICE), Session::over(tcp, ALICE))
}

fn bound(ip: IpAddr, kind: Type) -> Socket {
    await_address(ip);
    let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), kind, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 4000).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn what_comes_from_refused_addresses_reaches_no_client() {
    let network = Network::build();
    network.ip("server", "address add 9.9.9.1/24 dev eth1");
    network.ip("right", "address add 9.9.9.2/24 dev eth0");
    network.ip("server", "address add 2a00:9::1/64 dev eth1 nodad");
    network.ip("right", "address add 2a00:9::2/64 dev eth0 nodad");
    let server = Server::start_in(Some(&network.namespace("server")), CONFIGURATION);
    let management = management(&server);
    let sources: Vec<IpAddr> = SOURCES.iter().map(|ip| ip.parse().unwrap()).collect();
    let ordinary = ORDINARY.map(|ip| ip.parse::<IpAddr>().unwrap());
    for ip in sources.iter().chain(&ordinary) {
        add(&network, *ip);
    }
    let isatap = *sources.last().unwrap();
    for (at, ipv4) in [true, false].into_iter().enumerate() {
        let (mut udp, mut tcp) = sessions(&network);
        let family = [if ipv4 { 1 } else { 2 }, 0, 0, 0];
        let to = udp.allocate_with(allocate().attr(REQUESTED_ADDRESS_FAMILY, &family));
        let to_tcp = tcp.allocate_with(allocate_tcp().attr(REQUESTED_ADDRESS_FAMILY, &family));
        for session in [&mut udp, &mut tcp] {
            session.permit((ordinary[at], 0).into());
        }
        let before = network.within("left", || refused_at(management));
        let mut sent = 0;
        for ip in sources.iter().copied().filter(|ip| ip.is_ipv4() == ipv4) {
            assert!(expected(ip) != Expected::Open || ip == isatap, "{ip}");
            for session in [&mut udp, &mut tcp] {
                session.fail(Msg::new(CREATE_PERMISSION).peer(SocketAddr::new(ip, 4000)), 403);
            }
            network.within("right", || {
                let socket: UdpSocket = bound(ip, Type::DGRAM).into();
                for _ in 0..3 {
                    socket.send_to(b"data", to).expect("to send");
                    sent += 1;
                }
                // A connection is closed at once, perhaps before it is seen to be made.
                sent += 1;
                let socket = bound(ip, Type::STREAM);
                if socket.connect_timeout(&to_tcp.into(), Duration::from_secs(5)).is_ok() {
                    let mut stream: TcpStream = socket.into();
                    let end = stream.read(&mut [0; 10]);
                    assert!(
                        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
                        "{ip}: {end:?}"
                    );
                }
            });
        }
        // What comes last comes from an ordinary address: it is the first that arrives.
        let _connected = network.within("right", || {
            bound(ordinary[at], Type::DGRAM).send_to(b"data", &to.into()).expect("to send");
            let stream = bound(ordinary[at], Type::STREAM);
            stream.connect(&to_tcp.into()).expect("a connection");
            stream
        });
        assert_eq!(udp.data(), (SocketAddr::new(ordinary[at], 4000), b"data".to_vec()));
        let event = tcp.event();
        let Event::Stun(attempt) = &event else { panic!("{event:02x?}") };
        assert_eq!(attempt.xor(XOR_PEER_ADDRESS), Some(SocketAddr::new(ordinary[at], 4000)));
        assert!(udp.fence().is_empty() && tcp.fence().is_empty());
        // All of it did come.
        assert_eq!(
            network.within("left", || refused_at(management)) - before,
            sent,
            "the system has kept something away"
        );
    }
}

/// Nothing that a client names makes the server listen, or answer, in another's name.
#[test]
fn a_peer_in_the_network_of_the_server_hears_nothing() {
    let network = Network::build();
    let server = Server::start_in(
        Some(&network.namespace("server")),
        &CONFIGURATION.replace("9.9.9.1", "203.0.113.1").replace("2a00:9::1", "2001:db8:b::1"),
    );
    let listener = network.within("right", || TcpListener::bind("203.0.113.2:4000").unwrap());
    let datagrams = network.socket("right", "203.0.113.2:4000".parse().unwrap());
    let (mut udp, mut tcp) = sessions(&network);
    udp.allocate();
    tcp.allocate_with(allocate_tcp());
    let peer: SocketAddr = "203.0.113.2:4000".parse().unwrap();
    udp.fail(Msg::new(CREATE_PERMISSION).peer(peer), 403);
    udp.fail(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer), 403);
    udp.send_to(peer, b"data");
    tcp.fail(Msg::new(CONNECT).peer(peer), 403);
    assert!(udp.fence().is_empty() && tcp.fence().is_empty());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    datagrams.set_nonblocking(true).unwrap();
    assert!(datagrams.recv(&mut [0; 10]).is_err());
    drop(server);
}
