//! Interfaces that go down and come back, vanish and are made anew, lose their addresses, or get another MTU, below running calls.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    call::{CHANNEL, Call, allocate_error},
    common::{
        Server,
        client::{TurnClient, channel_data},
    },
    network::{Network, address},
};

/// Listens on the left, relays on the right.
const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = ["198.51.100.1", "2001:db8:a::1"]
[relay]
relay-ip = ["203.0.113.1", "2001:db8:b::1"]
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["203.0.113.0/24", "2001:db8::/32"]
[process]
workers = 2
"#;

/// In what time a call goes on by itself: a second, and something for a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn start(network: &Network, configuration: &str) -> Server {
    Server::start_in(Some(&network.namespace("server")), configuration)
}

fn client(network: &Network, ipv4: bool, port: u16) -> TurnClient {
    let socket = network.socket("left", SocketAddr::new(address("left", ipv4, 2), port));
    TurnClient::new(socket, SocketAddr::new(address("left", ipv4, 1), 3478))
}

/// A call from the left to the right.
fn call(network: &Network, ipv4: bool, port: u16) -> Call {
    let peer = network.socket("right", SocketAddr::new(address("right", ipv4, 2), port));
    let call = Call::between(client(network, ipv4, port), peer);
    call.exchange(b"begins");
    call
}

/// Ends the load, also of a test that has failed.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while another call sends a thousand datagrams a second in each direction.
fn under_load(network: &Network, work: impl FnOnce()) {
    let (load, over) = (call(network, true, 4999), AtomicBool::new(false));
    let data = channel_data(CHANNEL, &[7; 1000]);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // What cannot be sent is lost.
                let _ = load.client.socket.send_to(&data, load.client.server);
                let _ = load.peer.send_to(&[8; 1000], load.relayed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _over = Over(&over);
        work();
    });
}

#[test]
fn a_link_that_was_down_costs_what_was_sent_meanwhile() {
    let network = Network::build();
    let server = start(&network, CONFIGURATION);
    let call = call(&network, true, 4000);
    under_load(&network, || {
        // Of peers, and of clients.
        for interface in ["eth1", "eth0"] {
            network.ip("server", &format!("link set {interface} down"));
            assert!(!call.passes(b"nowhere"), "{interface} is down");
            network.ip("server", &format!("link set {interface} up"));
            let taken = call.resumes();
            eprintln!("{interface} down and up: the call resumes within {taken:?}");
            assert!(taken < SOON, "{interface}: {taken:?}");
        }
    });
    server.stop();
}

#[test]
fn an_address_that_was_gone_is_served_when_it_is_back() {
    let network = Network::build();
    let server = start(&network, CONFIGURATION);
    for (ipv4, prefix, more) in [(true, 24, ""), (false, 64, " nodad")] {
        let call = call(&network, ipv4, 4010);
        for (interface, side) in [("eth1", "right"), ("eth0", "left")] {
            let change = |verb, more| {
                let ip = address(side, ipv4, 1);
                network.ip("server", &format!("address {verb} {ip}/{prefix} dev {interface}{more}"));
            };
            change("del", "");
            assert!(!call.passes(b"nowhere"), "{interface} has no address");
            change("add", more);
            let taken = call.resumes();
            eprintln!("address of {interface} gone and back: the call resumes within {taken:?}");
            assert!(taken < SOON, "{interface}: {taken:?}");
        }
    }
    server.stop();
}

/// Makes the link to the right anew, as it was.
fn remake(network: &Network) {
    let there = network.namespace("right");
    network.ip("server", &format!("link add eth1 type veth peer name eth0 netns {there}"));
    network.ip("server", "link set eth1 up");
    network.ip("right", "link set eth0 up");
    for (host, interface, number) in [("server", "eth1", 1), ("right", "eth0", 2)] {
        network.ip(host, &format!("address add 203.0.113.{number}/24 dev {interface}"));
        network.ip(host, &format!("address add 2001:db8:b::{number}/64 dev {interface} nodad"));
    }
    network.ip("right", "route add default via 203.0.113.1");
    network.ip("right", "route add default via 2001:db8:b::1");
}

#[test]
fn a_relay_interface_that_vanished_is_used_again_when_it_is_back() {
    let network = Network::build();
    let server = start(&network, CONFIGURATION);
    let [v4, v6] = [call(&network, true, 4020), call(&network, false, 4021)];
    under_load(&network, || {
        network.ip("server", "link del eth1");
        assert!(!v4.passes(b"nowhere") && !v6.passes(b"nowhere"));
        let mut newcomer = client(&network, true, 4022);
        assert_eq!(allocate_error(&mut newcomer), Some(508), "there is nothing to relay from");
        remake(&network);
        let taken = [&v4, &v6].map(Call::resumes);
        eprintln!("interface gone and made anew: calls resume within {taken:?}");
        assert!(taken.into_iter().all(|taken| taken < SOON), "{taken:?}");
        assert_eq!(allocate_error(&mut newcomer), None);
    });
    let remedy = server.await_logged("cannot open a relay socket; clients get 508")["remedy"].clone();
    assert_eq!(remedy, "the address has left this host; check relay-ip");
    server.stop();
}

#[test]
fn calls_that_the_kernel_relayed_go_on_without_it_when_its_interface_has_vanished() {
    let network = Network::build();
    let configuration = format!("{CONFIGURATION}[offload]\nmode = \"generic\"\n");
    let server = start(&network, &configuration);
    assert_eq!(server.await_logged("offload")["mode"], "generic");
    let call = call(&network, true, 4030);
    (0..10).for_each(|_| call.exchange(b"in the kernel"));
    network.ip("server", "link del eth1");
    assert!(!call.passes(b"nowhere"));
    remake(&network);
    let taken = call.resumes();
    eprintln!("offloaded interface gone and made anew: the call resumes within {taken:?}");
    assert!(taken < SOON, "{taken:?}");
    (0..10).for_each(|_| call.exchange(b"in user space"));
    // A new call, too.
    let other = Call::between(
        client(&network, true, 4031),
        network.socket("right", SocketAddr::new(address("right", true, 2), 4031)),
    );
    other.exchange(b"in user space");
    let log = server.stop();
    let of_kernel = log.lines().find(|line| line.contains("relayed by the kernel")).expect("a line about the kernel");
    let fields: serde_json::Value = serde_json::from_str(of_kernel).expect("JSON");
    let packets = fields["fields"]["to_client_packets"].as_u64().expect("a count");
    assert!((10..=11).contains(&packets), "what was relayed by the kernel until then is counted: {of_kernel}");
}

#[test]
fn a_smaller_mtu_in_the_middle_of_a_call_loses_nothing_that_can_be_carried() {
    let network = Network::build();
    let mut server = start(&network, CONFIGURATION);
    let calls = [call(&network, true, 4040), call(&network, false, 4041)];
    // The server is held still while a burst comes, so that it is received and sent on at once.
    let mut burst = |call: &Call, len: usize| {
        server.signal("STOP");
        for number in 0..16u8 {
            let data = channel_data(CHANNEL, &vec![number; len]);
            call.client.socket.send_to(&data, call.client.server).expect("to send");
        }
        server.signal("CONT");
        let mut buffer = vec![0; 2000];
        for number in 0..16u8 {
            let got =
                call.peer.recv(&mut buffer).unwrap_or_else(|error| panic!("{len} bytes, number {number}: {error}"));
            assert_eq!(buffer[..got], vec![number; len]);
        }
    };
    for mtu in [1500, 1280, 1400, 1500] {
        for (host, interface) in [("server", "eth1"), ("right", "eth0")] {
            network.ip(host, &format!("link set {interface} mtu {mtu}"));
        }
        for call in &calls {
            for len in [1200, 1350, 1440] {
                burst(call, len);
                call.exchange(&vec![9; len]);
            }
        }
    }
    server.stop();
}
