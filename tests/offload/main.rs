//! Relaying in the kernel, on veth pairs between network namespaces, in the driver and in front of the stack. Needs root, iproute2
//! setpriv (util-linux) and coturn's tools, and a build with offload (clang).

#[path = "../common/mod.rs"]
mod common;
mod network;
mod tap;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    PASSWORD, PATIENCE, Server, USER,
    client::{TurnClient, channel_data},
    process::{Process, command_in, run},
    uclient,
};
use network::{Network, address};
use serde_json::json;
use socket2::SockRef;
use tap::Tap;
use turnserver::{
    stun::{AttributeType, ChannelNumber, Class, Message, Method},
    turn::Family,
};

const PORT: u16 = 3478;
const CHANNEL: ChannelNumber = ChannelNumber(0x4000);
const MODES: [&str; 2] = ["native", "generic"];

/// Listens on the left, relays on the right.
const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = ["198.51.100.1", "2001:db8:a::1"]
transports = ["udp", "tcp"]
[relay]
relay-ip = ["203.0.113.1", "2001:db8:b::1"]
min-port = 50000
max-port = 50999
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]
[compatibility]
rfc5766-channel-numbers = true
[process]
workers = 2
[offload]
"#;

fn start(network: &Network, mode: &str) -> Server {
    start_with(network, &format!("{CONFIGURATION}mode = \"{mode}\"\n"))
}

fn start_with(network: &Network, configuration: &str) -> Server {
    let server = Server::start_in(Some(&network.namespace("server")), configuration);
    server.await_logged("offload");
    server
}

/// A client on the left.
fn client(network: &Network, ipv4: bool, port: u16) -> TurnClient {
    let socket = network.socket("left", SocketAddr::new(address("left", ipv4, 2), port));
    TurnClient::new(socket, SocketAddr::new(address("left", ipv4, 1), PORT))
}

/// A peer on the right.
fn peer(network: &Network, ipv4: bool, port: u16) -> UdpSocket {
    network.socket("right", SocketAddr::new(address("right", ipv4, 2), port))
}

const fn family(ipv4: bool) -> Family {
    if ipv4 { Family::V4 } else { Family::V6 }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// That nothing comes, or has come.
fn nothing_comes(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    let come = socket.recv_from(&mut [0; 2048]);
    assert!(matches!(&come, Err(error) if error.kind() == io::ErrorKind::WouldBlock), "{come:?}");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
}

/// A client with a channel to a peer, after one datagram in each direction: the server's host knows where both live.
fn connected(network: &Network, client_v4: bool, peer_v4: bool, port: u16) -> (TurnClient, UdpSocket, SocketAddr) {
    let (mut client, peer) = (client(network, client_v4, port), peer(network, peer_v4, port));
    let relayed = client.allocate_of(family(peer_v4));
    client.bind(CHANNEL, peer.local_addr().expect("an address"));
    exchange(&client, &peer, relayed, b"first");
    (client, peer, relayed)
}

/// Sends data both ways, which arrive as they were sent.
fn exchange(client: &TurnClient, peer: &UdpSocket, relayed: SocketAddr, data: &[u8]) {
    client.socket.send_to(&channel_data(CHANNEL, data), client.server).expect("to send");
    assert_eq!(receive(peer), (data.to_vec(), relayed));
    peer.send_to(data, relayed).expect("to send");
    assert_eq!(receive(&client.socket), (channel_data(CHANNEL, data), client.server));
}

/// What the server says at its end of what was relayed: by the kernel, and in all. Packets and bytes to peers, and to clients.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    kernel: [u64; 4],
    all: [u64; 4],
    passed: String,
    no_room: u64,
}

fn stop(server: Server) -> Sums {
    let log = server.stop();
    let line = |message: &str| {
        let fields = |line: &str| Some(serde_json::from_str::<serde_json::Value>(line).ok()?["fields"].take());
        let found = log.lines().filter_map(fields).find(|fields| fields["message"] == message);
        found.unwrap_or_else(|| panic!("no line `{message}` in\n{log}"))
    };
    let counts = |line: &serde_json::Value| {
        ["to_peer_packets", "to_peer_bytes", "to_client_packets", "to_client_bytes"]
            .map(|name| line[name].as_u64().expect("a count"))
    };
    let kernel = line("relayed by the kernel, included in what follows");
    assert_eq!(kernel["lost"], 0);
    let passed = kernel["passed_up"].as_str().expect("text").to_owned();
    let no_room = kernel["no_room"].as_u64().expect("a count");
    Sums { kernel: counts(&kernel), all: counts(&line("stopped")), passed, no_room }
}

#[test]
fn data_arrive_as_they_were_sent_between_all_families_in_the_driver() {
    data_arrive_as_they_were_sent("native");
}

#[test]
fn data_arrive_as_they_were_sent_between_all_families_in_front_of_the_stack() {
    data_arrive_as_they_were_sent("generic");
}

fn data_arrive_as_they_were_sent(mode: &str) {
    const LENGTHS: [usize; 7] = [0, 1, 3, 4, 160, 1200, 1448];
    let network = Network::build();
    let server = start(&network, mode);
    let report = server.await_logged("offload");
    assert_eq!((report["mode"].as_str(), report["on"].as_str()), (Some(mode), Some(&*format!("{mode} on eth0, eth1"))));
    let mut port = 4000;
    for client_v4 in [true, false] {
        for peer_v4 in [true, false] {
            port += 1;
            let (client, peer, relayed) = connected(&network, client_v4, peer_v4, port);
            for len in LENGTHS {
                let data: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
                exchange(&client, &peer, relayed, &data);
            }
        }
    }
    let sums = stop(server);
    let (packets, bytes) = (4 * LENGTHS.len() as u64, 4 * LENGTHS.iter().sum::<usize>() as u64);
    // The first datagram to each of the two addresses of the peer, at least, found nobody who knew where that lives.
    assert_eq!(sums.all, [packets + 4, bytes + 20, packets + 4, bytes + 20], "{sums:?}");
    let [to_peers, to_peer_bytes, to_clients, to_client_bytes] = sums.kernel;
    assert_eq!([to_clients, to_client_bytes], [packets + 4, bytes + 20], "{sums:?}");
    assert!(to_peers >= packets && to_peers < packets + 4, "{sums:?}");
    assert_eq!(to_peer_bytes, bytes + (to_peers - packets) * 5, "{sums:?}");
}

/// 8656-13-01, 8656-14-01, -02, -04
#[test]
fn headers_are_as_rfc_8656_says() {
    let network = Network::build();
    for mode in MODES {
        let server = start(&network, mode);
        let mut port = 4100;
        for client_v4 in [true, false] {
            for peer_v4 in [true, false] {
                port += 1;
                let (client, peer, relayed) = connected(&network, client_v4, peer_v4, port);
                let taps = [("right", peer_v4), ("left", client_v4)]
                    .map(|(host, ipv4)| network.within(host, || Tap::new(ipv4)));
                for (socket, ipv4) in [(&client.socket, client_v4), (&peer, peer_v4)] {
                    let socket = SockRef::from(socket);
                    if ipv4 {
                        socket.set_tos_v4(0xB9).expect("a class");
                        socket.set_ttl_v4(33).expect("a TTL");
                    } else {
                        socket.set_tclass_v6(0xB9).expect("a class");
                        socket.set_unicast_hops_v6(33).expect("a hop limit");
                    }
                }
                exchange(&client, &peer, relayed, b"marked");
                for tap in &taps {
                    let packet = tap.packet(port, b"marked");
                    assert_eq!((packet.class, packet.hops, packet.flow_label), (0xB9, 32, 0), "{packet:?}");
                    assert!(packet.is_right && !packet.dont_fragment, "{packet:?}");
                }
            }
        }
        stop(server);
    }
}

/// 8656-11.5-01, 8656-11.5-08: what comes back about a packet that the kernel has relayed is about the relay's socket.
#[test]
fn an_icmp_error_about_what_the_kernel_has_relayed_reaches_the_client() {
    let network = Network::build();
    for mode in MODES {
        let server = start(&network, mode);
        for (peer_v4, port, expected) in [(true, 4150, (3, 3)), (false, 4151, (1, 4))] {
            let (client, peer, relayed) = connected(&network, true, peer_v4, port);
            exchange(&client, &peer, relayed, b"second");
            let closed = peer.local_addr().expect("an address");
            drop(peer);
            client.socket.send_to(&channel_data(CHANNEL, b"lost"), client.server).expect("to send");
            let (indication, _) = receive(&client.socket);
            let message = Message::parse(&indication).expect("a STUN message");
            assert_eq!((message.method(), message.class()), (Method::Data.code(), Class::Indication));
            assert_eq!(message.get_xor_address(AttributeType::XOR_PEER_ADDRESS), Some(Ok(closed)));
            let icmp = message.attributes().find(|(kind, _)| *kind == AttributeType::ICMP).expect("ICMP").1;
            assert_eq!((icmp[2] >> 1, icmp[3]), expected, "type and code in {icmp:?}");
        }
        // Of three datagrams to each peer, the first at least found nobody who knew where that lives.
        let sums = stop(server);
        assert!(sums.all[0] == 6 && sums.kernel[0] >= 4, "{sums:?}");
    }
}

#[test]
fn two_clients_of_this_server_reach_each_other_in_the_kernel() {
    let network = Network::build();
    for (mode, mapped) in [("native", false), ("generic", false), ("native", true)] {
        let mut configuration = format!("{CONFIGURATION}mode = \"{mode}\"\n");
        if mapped {
            configuration = configuration
                .replace(
                    "min-port",
                    "external-ip = [\"192.0.2.77/203.0.113.1\", \"2001:db8:77::1/2001:db8:b::1\"]\nmin-port",
                )
                .replace("\"203.0.113.0/24\"", "\"203.0.113.0/24\", \"192.0.2.0/24\"");
        }
        let server = start_with(&network, &configuration);
        let mut port = 4200;
        for (left_v4, right_v4, relay_v4) in
            [(true, true, true), (false, true, true), (true, false, false), (false, false, true)]
        {
            port += 2;
            let (mut left, mut right) = (client(&network, left_v4, port), client(&network, right_v4, port + 1));
            let relayed = [&mut left, &mut right].map(|client| client.allocate_of(family(relay_v4)));
            if mapped {
                assert!(relayed.iter().all(|relayed| relayed.to_string().contains("77")), "{relayed:?}");
            }
            left.bind(CHANNEL, relayed[1]);
            right.bind(ChannelNumber(0x4FFF), relayed[0]);
            for len in [0, 1, 160, 1200] {
                let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
                left.socket.send_to(&channel_data(CHANNEL, &data), left.server).expect("to send");
                assert_eq!(receive(&right.socket), (channel_data(ChannelNumber(0x4FFF), &data), right.server));
                right.socket.send_to(&channel_data(ChannelNumber(0x4FFF), &data), right.server).expect("to send");
                assert_eq!(receive(&left.socket), (channel_data(CHANNEL, &data), left.server));
            }
        }
        let sums = stop(server);
        // Both ways are to a peer and to a client.
        assert_eq!(sums.kernel, [32, 8 * 1361, 32, 8 * 1361], "{sums:?}");
        assert_eq!(sums.all, sums.kernel);
    }
}

/// What is said to be from a relayed address of this server, and comes by the wire, is forged. The stack does not take it.
#[test]
fn nobody_speaks_for_a_relayed_address_from_outside() {
    let network = Network::build();
    for mode in MODES {
        let server = start(&network, mode);
        let (mut left, mut right) = (client(&network, true, 4350), client(&network, true, 4351));
        let relayed = [&mut left, &mut right].map(TurnClient::allocate);
        left.bind(CHANNEL, relayed[1]);
        right.bind(CHANNEL, relayed[0]);
        let forger = network.within("left", || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
            socket.set_ip_transparent_v4(true).expect("somebody else's address");
            socket.bind(&relayed[0].into()).expect("to bind");
            UdpSocket::from(socket)
        });
        for _ in 0..3 {
            left.socket.send_to(&channel_data(CHANNEL, b"genuine"), left.server).expect("to send");
            assert_eq!(receive(&right.socket), (channel_data(CHANNEL, b"genuine"), right.server));
            forger.send_to(b"forged", relayed[1]).expect("to send");
        }
        nothing_comes(&right.socket);
        let sums = stop(server);
        assert_eq!((sums.all, sums.kernel), ([3, 21, 3, 21], [3, 21, 3, 21]), "{sums:?}");
        assert!(sums.passed.contains("unbound="), "{sums:?}");
    }
}

#[test]
fn a_client_and_a_peer_on_one_network_are_served_by_one_interface() {
    let network = Network::build();
    for mode in MODES {
        let configuration =
            CONFIGURATION.replace("203.0.113.1", "198.51.100.1").replace("2001:db8:b::1", "2001:db8:a::1");
        let server = start_with(&network, &format!("{configuration}mode = \"{mode}\"\n"));
        assert_eq!(server.await_logged("offload")["on"], format!("{mode} on eth0"));
        let mut client = client(&network, true, 4300);
        let peer = network.socket("left", SocketAddr::new(address("left", true, 3), 4300));
        let relayed = client.allocate();
        client.bind(CHANNEL, peer.local_addr().expect("an address"));
        for _ in 0..10 {
            exchange(&client, &peer, relayed, b"on one link");
        }
        let sums = stop(server);
        assert!(sums.kernel[0] >= 9 && sums.kernel[2] == 10 && sums.all[0] == 10, "{sums:?}");
    }
}

/// What the kernel does not take, user space serves on the same allocation.
#[test]
fn everything_unusual_is_served_by_user_space() {
    let network = Network::build();
    for mode in MODES {
        let server = start(&network, mode);
        let (mut client, peer, relayed) = connected(&network, true, true, 4400);
        let own = peer.local_addr().expect("an address");
        // A Send indication, and what another port of the peer's host sends.
        let indication = client.send_indication(own, b"indicated");
        client.socket.send_to(&indication, client.server).expect("to send");
        assert_eq!(receive(&peer), (b"indicated".to_vec(), relayed));
        let other = network.socket("right", SocketAddr::new(own.ip(), 4401));
        other.send_to(b"permitted", relayed).expect("to send");
        let (indication, _) = receive(&client.socket);
        assert!(indication[0] == 0 && indication.windows(9).any(|part| part == b"permitted"), "{indication:?}");
        // Padding, and a length that is not there.
        let padded = [&channel_data(CHANNEL, b"padded")[..], &[0; 2]].concat();
        client.socket.send_to(&padded, client.server).expect("to send");
        assert_eq!(receive(&peer), (b"padded".to_vec(), relayed));
        client.socket.send_to(&channel_data(CHANNEL, b"cut short")[..8], client.server).expect("to send");
        // The longest that fits a packet with the four bytes of a channel, one more, and many packets.
        for len in [1468, 1469, 1472, 3000] {
            exchange(&client, &peer, relayed, &vec![len as u8; len]);
        }
        // An unbound channel and a stranger.
        client.socket.send_to(&channel_data(ChannelNumber(0x4001), b"unbound"), client.server).expect("to send");
        peer.send_to(b"whose?", SocketAddr::new(relayed.ip(), relayed.port() ^ 1)).expect("to send");
        nothing_comes(&peer);
        nothing_comes(&client.socket);
        client.bind(ChannelNumber(0x4001), other.local_addr().expect("an address"));
        client.socket.send_to(&channel_data(ChannelNumber(0x4001), b"bound"), client.server).expect("to send");
        assert_eq!(receive(&other), (b"bound".to_vec(), relayed));
        let sums = stop(server);
        // Up: the first datagram, "indicated", "padded", what is too long for a packet by itself.
        assert_eq!(sums.all[0], 8, "{sums:?}");
        assert!((sums.all[0] - sums.kernel[0]) <= 6, "{sums:?}");
        // Down: 5 exchanges and "permitted", of which 1,468 and "first" fit.
        assert_eq!((sums.all[2], sums.kernel[2]), (6, 2), "{sums:?}");
        for reason in ["unbound=", "length=", "mtu=2", "fragment="] {
            assert!(sums.passed.contains(reason), "{reason} is not in {sums:?}");
        }
    }
}

/// Neither user space that sleeps nor anything else prolongs what has ended.
#[test]
fn what_expires_expires_in_the_kernel_even_if_user_space_sleeps() {
    let network = Network::build();
    for mode in MODES {
        let lifetimes = "[lifetimes]\npermission-lifetime = \"2s\"\nchannel-lifetime = \"3s\"\n";
        let configuration = CONFIGURATION.replace("[process]", &format!("{lifetimes}[process]"));
        let mut server = start_with(&network, &format!("{configuration}mode = \"{mode}\"\n"));
        let (client, peer, relayed) = connected(&network, true, true, 4500);
        let bound = Instant::now();
        server.signal("STOP");
        exchange(&client, &peer, relayed, b"user space sleeps");
        lives_two_seconds(&client, &peer, bound);
        server.signal("CONT");
        stop(server);
    }
}

/// Asks until no answer comes, because of a permission that lasts so long.
fn lives_two_seconds(client: &TurnClient, peer: &UdpSocket, since: Instant) {
    peer.set_nonblocking(true).expect("no waiting");
    let mut last = Instant::now();
    let mut buffer = [0; 64];
    while last.elapsed() < Duration::from_millis(500) && since.elapsed() < Duration::from_secs(8) {
        client.socket.send_to(&channel_data(CHANNEL, b"still?"), client.server).expect("to send");
        std::thread::sleep(Duration::from_millis(5));
        while peer.recv_from(&mut buffer).is_ok() {
            last = Instant::now();
        }
    }
    let lived = last - since;
    assert!(lived > Duration::from_millis(1500) && lived < Duration::from_millis(2500), "it has lived {lived:?}");
}

/// A permission that is renewed may end earlier than before, if the configuration has changed meanwhile.
#[test]
fn what_is_shortened_ends_in_the_kernel_even_if_user_space_sleeps() {
    let network = Network::build();
    // By a permission for the address, and by another channel to it, which renews that permission.
    for by_channel in [false, true] {
        let mut server = start(&network, "native");
        let (mut client, peer, _) = connected(&network, true, true, 4550 + u16::from(by_channel));
        let shorter = "[lifetimes]\npermission-lifetime = \"2s\"\n";
        let configuration = CONFIGURATION.replace("[process]", &format!("{shorter}[process]"));
        let configuration = format!("{configuration}mode = \"native\"\n");
        std::fs::write(server.folder().join("turnserver.toml"), configuration).expect("a file");
        server.signal("HUP");
        server.await_logged("reloaded");
        let other = SocketAddr::new(address("right", true, 2), 4552);
        let since = Instant::now();
        if by_channel {
            client.bind(ChannelNumber(0x4001), other);
        } else {
            client.permit(other);
        }
        server.signal("STOP");
        lives_two_seconds(&client, &peer, since);
        server.signal("CONT");
        stop(server);
    }
}

#[test]
fn what_is_prolonged_goes_on_in_the_kernel_and_what_lapsed_comes_back() {
    let network = Network::build();
    let lifetimes = "[lifetimes]\npermission-lifetime = \"1500ms\"\nchannel-lifetime = \"60s\"\n";
    let configuration = CONFIGURATION.replace("[process]", &format!("{lifetimes}[process]"));
    let server = start_with(&network, &format!("{configuration}mode = \"native\"\n"));
    let (mut client, peer, relayed) = connected(&network, true, true, 4600);
    let own = peer.local_addr().expect("an address");
    let start = Instant::now();
    let mut exchanges = 1;
    while start.elapsed() < Duration::from_secs(4) {
        client.permit(own);
        exchange(&client, &peer, relayed, b"prolonged");
        exchanges += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    // Now it lapses: the peer is refused.
    std::thread::sleep(Duration::from_millis(1800));
    peer.send_to(b"too late", relayed).expect("to send");
    nothing_comes(&client.socket);
    client.permit(own);
    exchange(&client, &peer, relayed, b"again");
    exchanges += 1;
    let sums = stop(server);
    assert_eq!((sums.all[0], sums.all[2], sums.kernel[2]), (exchanges, exchanges, exchanges), "{sums:?}");
}

#[test]
fn what_is_revoked_ends_before_the_client_is_told() {
    let network = Network::build();
    for mode in MODES {
        let server = start(&network, mode);
        for round in 0..5 {
            let (mut client, peer, relayed) = connected(&network, true, true, 4700 + round);
            client.delete();
            for _ in 0..10 {
                client.socket.send_to(&channel_data(CHANNEL, b"after"), client.server).expect("to send");
                peer.send_to(b"after", relayed).expect("to send");
            }
            nothing_comes(&peer);
            nothing_comes(&client.socket);
        }
        let sums = stop(server);
        assert_eq!((sums.all[0], sums.all[2]), (5, 5), "{sums:?}");
    }
}

#[test]
fn what_has_no_room_in_the_kernel_is_served_by_user_space() {
    let network = Network::build();
    let server = start_with(&network, &format!("{CONFIGURATION}mode = \"native\"\nchannels = 1\n"));
    let (one, one_peer, one_relayed) = connected(&network, true, true, 4800);
    let (mut other, other_peer, other_relayed) = connected(&network, true, true, 4801);
    // Each of these would take the second channel, too. It is still one.
    for _ in 0..3 {
        other.permit(other_peer.local_addr().expect("an address"));
        other.bind(CHANNEL, other_peer.local_addr().expect("an address"));
    }
    for _ in 0..10 {
        exchange(&one, &one_peer, one_relayed, b"kernel");
        exchange(&other, &other_peer, other_relayed, b"user space");
    }
    let sums = stop(server);
    assert_eq!((sums.all[2], sums.kernel[2]), (22, 11), "{sums:?}");
    assert_eq!(sums.no_room, 1, "{sums:?}");
}

#[test]
fn nothing_of_it_is_left_when_the_process_is_killed() {
    let network = Network::build();
    for (mode, mark) in [("native", " xdp "), ("generic", " xdpgeneric ")] {
        let namespace = network.namespace("server");
        let directory = tempfile::tempdir().expect("a folder");
        let file = directory.path().join("turnserver.toml");
        fs::write(&file, format!("{CONFIGURATION}mode = \"{mode}\"\n")).expect("a file");
        let mut command = command_in(Some(&namespace), env!("CARGO_BIN_EXE_turnserver"));
        command.arg("-c").arg(&file);
        let mut process = Process::start(command);
        process.find_line(PATIENCE, |line| line.contains("ready").then_some(()));
        let links = || ["eth0", "eth1"].map(|name| network.ip("server", &format!("link show {name}")));
        assert!(links().iter().all(|link| link.contains(mark)), "{:?}", links());
        process.signal("KILL");
        process.wait(PATIENCE).expect("the end");
        // The kernel takes its time to let go.
        let deadline = Instant::now() + PATIENCE;
        while links().iter().any(|link| link.contains("xdp")) {
            assert!(Instant::now() < deadline, "{:?}", links());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn another_program_at_the_interface_is_left_alone() {
    let network = Network::build();
    let other = network.within("server", || common::veth::let_everything_in("eth1").expect("a program"));
    let namespace = network.namespace("server");
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("turnserver.toml");
    for mode in MODES {
        fs::write(&file, format!("{CONFIGURATION}mode = \"{mode}\"\n")).expect("a file");
        let mut command = command_in(Some(&namespace), env!("CARGO_BIN_EXE_turnserver"));
        command.arg("-c").arg(&file);
        let mut process = Process::start(command);
        assert_eq!(process.wait(PATIENCE).expect("the end").code(), Some(1));
        assert!(process.output().contains("eth1 has another XDP program already"), "{}", process.output());
        assert!(!network.ip("server", "link show eth0").contains("xdp"), "nothing is left at the first interface");
    }
    // What suits the host: nothing, and everything is served all the same.
    let server = Server::start_in(Some(&namespace), &format!("{CONFIGURATION}mode = \"auto\"\n"));
    let report = server.await_logged("no offload: all data pass through user space");
    assert!(report["why"].as_str().expect("text").contains("another XDP program"), "{report}");
    let (client, peer, relayed) = connected(&network, true, true, 4900);
    exchange(&client, &peer, relayed, b"as ever");
    server.stop();
    drop(other);
    let server = start(&network, "auto");
    let report = server.await_logged("offload");
    assert_eq!(
        (report["mode"].as_str(), report["on"].as_str().map(|on| on.contains("veth"))),
        (Some("generic"), Some(true))
    );
    stop(server);
}

#[test]
fn without_its_privileges_the_server_serves_by_itself() {
    let network = Network::build();
    let namespace = network.namespace("server");
    let refused = |mode: &str| {
        let mut command = command_in(Some(&namespace), "setpriv");
        command.args(["--bounding-set=-bpf,-net_admin,-sys_admin", "--inh-caps=-bpf,-net_admin,-sys_admin"]);
        command.arg(env!("CARGO_BIN_EXE_turnserver"));
        Server::launch(command, &format!("{CONFIGURATION}mode = \"{mode}\"\n"))
    };
    let server = refused("auto");
    let report = server.await_logged("no offload: all data pass through user space");
    assert!(report["why"].as_str().expect("text").contains("CAP_BPF and CAP_NET_ADMIN"), "{report}");
    let (client, peer, relayed) = connected(&network, true, true, 5000);
    exchange(&client, &peer, relayed, b"as ever");
    server.stop();
}

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF.
const OF_OFFLOAD: u64 = 1 << 12 | 1 << 38 | 1 << 39;
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
/// Nobody, on every Linux.
const USER_ID: u32 = 65534;

/// A server with users in a database, as the unit with its drop-in starts it: an ordinary user's, with their capabilities alone.
fn start_as_user(network: &Network, configuration: &str) -> Server {
    let units = ["turnserver.service", "offload.conf"]
        .map(|file| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(file)).expect(file));
    let named = units
        .iter()
        .map(|unit| unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=CAP_")).expect("capabilities"));
    let named = named.flat_map(|names| names.split(" CAP_")).map(|name| format!("+{}", name.to_lowercase()));
    let capabilities = named.collect::<Vec<_>>().join(",");
    let directory = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::chown(directory.path(), Some(USER_ID), Some(USER_ID)).expect("to give it away");
    let store = format!("[store]\ntype = \"sqlite\"\npath = \"{}/users.db\"\n", directory.path().display());
    let mut command = command_in(Some(&network.namespace("server")), "setpriv");
    command.args([format!("--reuid={USER_ID}"), format!("--regid={USER_ID}"), "--clear-groups".to_owned()]);
    command.args(["inh-caps=", "ambient-caps=", "bounding-set=-all,"].map(|set| format!("--{set}{capabilities}")));
    command.args(["--no-new-privs", env!("CARGO_BIN_EXE_turnserver")]);
    Server::launch_in(directory, command, &format!("{configuration}{store}"))
}

/// The name of every thread of the server, and the capabilities that it has or can get.
fn capabilities(server: &Server) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc");
    // One that has ended meanwhile has none.
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let read = |status: String| {
        let value =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).expect("a line").trim().to_owned();
        let set = |key: &str| u64::from_str_radix(&value(key), 16).expect("bits");
        (
            value("Name:"),
            ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].map(set).into_iter().fold(0, |all, set| all | set),
        )
    };
    statuses.map(read).collect()
}

#[test]
fn an_ordinary_user_with_the_capabilities_of_the_unit_relays_in_the_kernel_and_keeps_none_of_them() {
    let network = Network::build();
    for mode in MODES {
        let server = start_as_user(&network, &format!("{CONFIGURATION}mode = \"{mode}\"\n"));
        assert_eq!(server.await_logged("offload")["mode"], mode);
        let threads = capabilities(&server);
        for name in ["turnserver", "store", "worker-0", "worker-1"] {
            assert!(threads.iter().any(|(thread, _)| thread == name), "{name} is not in {threads:?}");
        }
        assert!(threads.iter().all(|(_, bits)| *bits == CAP_NET_BIND_SERVICE), "{threads:x?}");
        let (client, peer, relayed) = connected(&network, true, true, 5110);
        exchange(&client, &peer, relayed, b"unprivileged");
        let sums = stop(server);
        assert_eq!(sums.kernel[2], 2, "{sums:?}");
    }
}

#[test]
fn two_capabilities_are_all_that_it_needs() {
    let network = Network::build();
    let mut command = command_in(Some(&network.namespace("server")), "setpriv");
    for set in ["bounding-set", "inh-caps"] {
        command.arg(format!("--{set}=-all,+bpf,+net_admin"));
    }
    command.arg(env!("CARGO_BIN_EXE_turnserver"));
    let server = Server::launch(command, &format!("{CONFIGURATION}mode = \"native\"\n"));
    let (client, peer, relayed) = connected(&network, true, true, 5050);
    exchange(&client, &peer, relayed, b"in the kernel");
    let sums = stop(server);
    assert_eq!(sums.kernel[2], 2, "{sums:?}");
}

#[test]
fn the_privileges_are_gone_when_it_serves() {
    let network = Network::build();
    let server = start(&network, "native");
    let threads = capabilities(&server);
    assert!(threads.iter().all(|(_, bits)| bits & OF_OFFLOAD == 0), "{threads:x?}");
    assert!(threads.iter().all(|(_, bits)| *bits != 0), "the others are not this program's to give up: {threads:x?}");
    let (client, peer, relayed) = connected(&network, true, true, 5100);
    exchange(&client, &peer, relayed, b"unprivileged");
    let sums = stop(server);
    assert_eq!(sums.kernel[2], 2, "{sums:?}");
}

#[test]
fn what_comes_to_nothing_keeps_no_privileges_and_leaves_the_host_as_it_was() {
    const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/conf/lo/forwarding", "/proc/sys/net/ipv6/conf/lo/forwarding"];

    let network = Network::build();
    network.within("server", || FORWARDING.map(|file| fs::write(file, "0").expect("to write")));
    let other = network.within("server", || common::veth::let_everything_in("eth1").expect("a program"));
    let forwarding = || network.within("server", || FORWARDING.map(|file| fs::read_to_string(file).expect("to read")));
    for (mode, message) in [("auto", "no offload: all data pass through user space"), ("off", "ready")] {
        let server = start_as_user(&network, &format!("{CONFIGURATION}mode = \"{mode}\"\n"));
        server.await_logged(message);
        let threads = capabilities(&server);
        assert!(threads.iter().all(|(_, bits)| *bits == CAP_NET_BIND_SERVICE), "{mode}: {threads:x?}");
        assert_eq!(forwarding(), ["0\n"; 2], "{mode}");
        server.stop();
    }
    drop(other);
    let server = start_as_user(&network, &format!("{CONFIGURATION}mode = \"native\"\n"));
    server.await_logged("offload");
    assert_eq!(forwarding(), ["1\n"; 2], "set where it is of use");
    stop(server);
}

/// Nothing of what cargo watches changes when clang is installed: something that is never there has the script run each time.
#[test]
fn a_build_without_clang_looks_for_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    let mut command = Command::new("rustc");
    command.args(["--edition=2024", "-o"]).arg(&script);
    run(
        {
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs"));
            command
        },
        PATIENCE,
    );
    for (clang, is_there) in [("/nowhere/clang", false), ("clang", true)] {
        let mut command = Command::new(&script);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("OUT_DIR", folder.path()).env("CLANG", clang);
        command.env("CARGO_CFG_TARGET_OS", "linux").env("CARGO_FEATURE_OFFLOAD", "1");
        let output = run(command, PATIENCE);
        let watched: Vec<&str> =
            output.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
        let exists = |path: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists();
        assert_eq!(watched.iter().all(exists), is_there, "{output}");
    }
}

#[test]
fn check_tells_beforehand() {
    let network = Network::build();
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("turnserver.toml");
    let check = |mode: &str| {
        fs::write(&file, format!("{CONFIGURATION}mode = \"{mode}\"\n")).expect("a file");
        let mut command = command_in(Some(&network.namespace("server")), env!("CARGO_BIN_EXE_turnserver"));
        command.args(["check", "--syntax-only", "-c"]).arg(&file);
        let output = run(command, PATIENCE);
        output.lines().find(|line| line.contains("offload on this host")).expect("a line").to_owned()
    };
    assert_eq!(check("off"), "# offload on this host: off");
    assert_eq!(check("native"), "# offload on this host: native on eth0 (veth), eth1 (veth)");
    assert!(check("auto").starts_with("# offload on this host: generic on eth0 (veth), eth1 (veth) (eth0 is one end"));
    assert!(!network.ip("server", "link show eth0").contains("xdp"), "nothing is touched");
}

/// Coturn's client with an echo peer: all of what it sends, and nothing else, goes through the kernel.
#[test]
fn uclient_over_the_kernel() {
    let network = Network::build();
    let server = start(&network, "native");
    let mut command = command_in(Some(&network.namespace("right")), "turnutils_peer");
    command.args(["-L", "203.0.113.2", "-L", "2001:db8:b::2", "-p", "3480"]);
    let _peer = Process::start(command);
    let left = network.namespace("left");
    for (ipv4, option) in [(true, "-X"), (false, "-x")] {
        let (server, peer) =
            (SocketAddr::new(address("left", ipv4, 1), PORT), SocketAddr::new(address("right", ipv4, 2), 3480));
        await_echo(&network, peer);
        let options = [option, "-c", "-m", "2"];
        uclient::Run { namespace: Some(&left), server, peer: Some(peer), options: &options, sessions: 2 }.check();
    }
    let sums = stop(server);
    assert!(sums.kernel[0] >= 190 && sums.kernel[2] >= 190, "{sums:?}");
}

/// A call with fake audio and video and a file each way that may use nothing but the relay, on both sides: once the browser has
/// bound its channels, all of it stays in the kernel, from channel to channel.
#[test]
fn a_call_of_chromium_goes_through_the_kernel() {
    for mode in MODES {
        let network = Network::build();
        let server = start(&network, mode);
        let url = format!("turn:{}?transport=udp", SocketAddr::new(address("left", true, 1), PORT));
        let ice_server = json!({"urls": url, "username": USER, "credential": PASSWORD});
        let left = network.namespace("left");
        let result = common::browser::browse_in(Some(&left), "run.mjs", "call", &ice_server, None);

        let files = result["files"].as_array().expect("files");
        assert_eq!(files.len(), 2, "one file each way: {result:#}");
        for file in files {
            assert_eq!(file["bytes"], 5 * 1024 * 1024, "{result:#}");
            assert_eq!(file["sent"], file["received"], "the file has arrived as it was sent: {result:#}");
        }
        for end in result["ends"].as_array().expect("ends") {
            let pair = &end["pair"];
            assert_eq!(
                (&pair["local"]["type"], &pair["remote"]["type"]),
                (&json!("relay"), &json!("relay")),
                "{result:#}"
            );
            let frames = end["framesDecoded"].as_array().expect("frames");
            assert!(frames.iter().all(|count| count.as_u64().is_some_and(|count| count > 0)), "{result:#}");
        }
        let sums = stop(server);
        let [to_peers, _, to_clients, _] = sums.kernel;
        assert!(sums.kernel[1] > 10 << 20 && sums.kernel[3] > 10 << 20, "both files: {sums:?}");
        let all = sums.all[0] + sums.all[2];
        assert!(to_peers + to_clients > all * 9 / 10, "of all packets the kernel relays nine in ten: {sums:?}");
    }
}

/// A reload that takes channel numbers from clients takes them out of the kernel, too; what may go on goes on there. So it is with a
/// user who is disconnected while another calls.
#[test]
fn what_a_reload_or_an_operator_takes_away_ends_in_the_kernel() {
    let network = Network::build();
    let configuration = format!("{CONFIGURATION}mode = \"native\"\n[management]\nsocket = \"control.sock\"\n")
        .replace("[peers]", "[[auth.user]]\nname = \"bob\"\npassword = \"secret\"\n[peers]");
    let mut server = start_with(&network, &configuration);
    let (mut client, peer, relayed) = connected(&network, true, true, 5300);
    let wide = ChannelNumber(0x5000);
    let other = self::peer(&network, true, 5301);
    client.bind(wide, other.local_addr().expect("an address"));
    let in_wide = |data: &[u8]| client.socket.send_to(&channel_data(wide, data), client.server).expect("to send");
    in_wide(b"may");
    assert_eq!(receive(&other).0, b"may");

    let narrow = configuration.replace("rfc5766-channel-numbers = true", "rfc5766-channel-numbers = false");
    std::fs::write(server.folder().join("turnserver.toml"), narrow).expect("a configuration");
    server.signal("HUP");
    server.await_logged("reloaded");
    in_wide(b"may not");
    nothing_comes(&other);
    exchange(&client, &peer, relayed, b"goes on");

    let socket = network.socket("left", SocketAddr::new(address("left", true, 2), 5302));
    let mut bob = TurnClient::of("bob", socket, SocketAddr::new(address("left", true, 1), PORT));
    let theirs = bob.allocate();
    let third = self::peer(&network, true, 5303);
    bob.bind(CHANNEL, third.local_addr().expect("an address"));
    exchange(&bob, &third, theirs, b"in the kernel");
    let ended = common::process::run(
        {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnserver"));
            command.args(["ctl", "--socket"]).arg(server.folder().join("control.sock"));
            command.args(["disconnect", "--user", "bob"]);
            command
        },
        PATIENCE,
    );
    assert!(ended.contains('1'), "{ended}");
    bob.socket.send_to(&channel_data(CHANNEL, b"may not"), bob.server).expect("to send");
    nothing_comes(&third);
    for _ in 0..5 {
        exchange(&client, &peer, relayed, b"and on");
    }
    let sums = stop(server);
    assert!(sums.kernel[0] >= 8 && sums.kernel[2] >= 8, "what may goes through the kernel afterwards: {sums:?}");
}

/// Metrics and the state of the server tell what the kernel has relayed from what user space has, to the packet.
#[test]
fn management_tells_the_two_paths_apart() {
    let network = Network::build();
    let server =
        start_with(&network, &format!("{CONFIGURATION}mode = \"native\"\n[management]\nsocket = \"control.sock\"\n"));
    let (mut client, peer, relayed) = connected(&network, true, true, 5200);
    for _ in 0..20 {
        exchange(&client, &peer, relayed, b"in the kernel");
    }
    let stranger = self::peer(&network, true, 5201);
    client.permit(stranger.local_addr().expect("an address"));
    for _ in 0..7 {
        stranger.send_to(b"by user space", relayed).expect("to send");
        assert!(receive(&client.socket).0.ends_with(b"by user space\0\0\0"), "a Data indication");
    }

    let sample = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse::<f64>().expect("a number")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let text = loop {
        let text = ask(&server, "/metrics");
        // What the kernel has counted is asked for every ten seconds.
        if sample(&text, "turn_relay_packets_total{direction=\"to-clients\"}") >= 28.0 {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let kernel = |direction| sample(&text, &format!("turn_offload_packets_total{{direction=\"{direction}\"}}"));
    let all = |direction| sample(&text, &format!("turn_relay_packets_total{{direction=\"{direction}\"}}"));
    assert_eq!(all("to-peers"), 21.0);
    assert_eq!(all("to-clients"), 28.0);
    // The first each way may be needed to find the next hops.
    assert!((20.0..=21.0).contains(&kernel("to-peers")), "{text}");
    assert!((20.0..=21.0).contains(&kernel("to-clients")), "{text}");
    let bytes = sample(&text, "turn_offload_bytes_total{direction=\"to-clients\"}");
    assert!(bytes == 260.0 || bytes == 265.0, "{text}");
    assert_eq!(sample(&text, "turn_offload_info{mode=\"native\"}"), 1.0);
    assert!(sample(&text, "turn_offload_passed_total{reason=\"unbound\"}") >= 7.0, "{text}");
    assert_eq!(sample(&text, "turn_offload_passed_total{reason=\"fragment\"}"), 0.0);
    assert_eq!(sample(&text, "turn_offload_lost_total"), 0.0);
    assert_eq!(sample(&text, "turn_offload_no_room_total"), 0.0);

    let status: serde_json::Value = serde_json::from_str(&ask(&server, "/status")).expect("JSON");
    assert_eq!(status["offload"]["mode"], "native");
    assert_eq!(status["offload"]["details"], "native on eth0, eth1");
    assert_eq!(status["offload"]["to_peers"]["packets"].as_f64(), Some(kernel("to-peers")));
    stop(server);
}

/// What management says, over its Unix socket.
fn ask(server: &Server, target: &str) -> String {
    let mut stream = UnixStream::connect(server.folder().join("control.sock")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("to ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    body.to_owned()
}

/// Waits until the echo peer answers.
fn await_echo(network: &Network, peer: SocketAddr) {
    let socket = network.socket("right", SocketAddr::new(address("right", peer.is_ipv4(), 3), 0));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        socket.send_to(b"there?", peer).expect("to send");
        if socket.recv_from(&mut [0; 16]).is_ok() {
            return;
        }
    }
    panic!("turnutils_peer does not answer on {peer} within {PATIENCE:?}");
}
