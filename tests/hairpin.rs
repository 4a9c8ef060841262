//! Data between two allocations of this server: delivered in the process, with every check and count of the way through the
//! system, between clients of one worker and of two, on UDP and TCP, IPv4 and IPv6.

mod common;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use common::{
    LOOPBACK, Server,
    client::{TurnClient, channel_data, loopback_socket, loopback_socket_v6},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turnserver::{
    stun::{AttributeType, ChannelNumber, Class, Message, Method, padded},
    turn::Family,
};

/// A client with its relayed address.
struct End {
    client: TurnClient,
    relayed: SocketAddr,
    /// Has channels to all others.
    bound: bool,
    /// Datagrams and bytes sent and received.
    counts: [u64; 4],
}

impl End {
    /// An IPv4 client with an IPv4 address.
    fn new(server: &Server, transport: &str) -> Self {
        Self::of(server, transport, Family::V4, Family::V4)
    }

    fn of(server: &Server, transport: &str, own: Family, relayed: Family) -> Self {
        let address = if own == Family::V4 { server.ipv4(transport) } else { server.ipv6(transport) };
        let address = if transport == "tcp" { bridge(address) } else { address };
        let socket = if address.is_ipv4() { loopback_socket() } else { loopback_socket_v6() };
        let mut client = TurnClient::new(socket, address);
        let relayed = client.allocate_of(relayed);
        Self { client, relayed, bound: false, counts: [0; 4] }
    }

    fn send(&mut self, message: &[u8], len: usize) {
        self.client.socket.send_to(message, self.client.server).expect("to send");
        self.counts[0] += 1;
        self.counts[1] += len as u64;
    }

    fn next(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let (len, from) = self.client.socket.recv_from(&mut buffer).expect("what the other sent");
        assert_eq!(from, self.client.server);
        buffer[..len].to_vec()
    }

    /// Receives data, in the form that this end's bindings ask for.
    fn expect(&mut self, peer: SocketAddr, channel: ChannelNumber, data: &[u8]) {
        let message = self.next();
        self.counts[2] += 1;
        self.counts[3] += data.len() as u64;
        if self.bound {
            assert_eq!(message, channel_data(channel, data));
        } else {
            assert_eq!(received(&message), (peer, data.to_vec()));
        }
    }

    /// Nothing comes for a while.
    fn expect_nothing(&self) {
        self.client.socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        let error = self.client.socket.recv(&mut [0; 2048]).expect_err("nothing comes");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        self.client.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    }
}

/// The peer and the data of a Data indication.
fn received(message: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(message).expect("a STUN message");
    assert_eq!((Method::from_code(message.method()), message.class()), (Some(Method::Data), Class::Indication));
    let peer = message.get_xor_address(AttributeType::XOR_PEER_ADDRESS).and_then(Result::ok).expect("a peer");
    (peer, message.get(AttributeType::DATA).expect("data").to_vec())
}

/// Lets a client on UDP talk to a server on TCP: returns where it is to send.
fn bridge(server: SocketAddr) -> SocketAddr {
    let socket = loopback_socket();
    socket.set_read_timeout(None).expect("no time limit");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (mut len, client) = socket.recv_from(&mut buffer).expect("a first message");
        socket.connect(client).expect("to connect");
        let mut stream = TcpStream::connect(server).expect("a connection");
        let (back, from_server) = (socket.try_clone().expect("a socket"), stream.try_clone().expect("a stream"));
        thread::spawn(move || frames(from_server, &back));
        loop {
            buffer[len..len + 3].fill(0);
            if stream.write_all(&buffer[..padded(len)]).is_err() {
                return;
            }
            let Ok(next) = socket.recv(&mut buffer[..2000]) else { return };
            len = next;
        }
    });
    address
}

/// Hands each message from the server on as one datagram, without padding.
fn frames(mut stream: TcpStream, back: &UdpSocket) {
    let mut buffer = [0; 4096];
    while stream.read_exact(&mut buffer[..4]).is_ok() {
        let len = usize::from(u16::from_be_bytes([buffer[2], buffer[3]])) + if buffer[0] < 64 { 20 } else { 4 };
        stream.read_exact(&mut buffer[4..padded(len)]).expect("a whole message");
        assert!(buffer[len..padded(len)].iter().all(|byte| *byte == 0));
        let _ = back.send(&buffer[..len]);
    }
}

fn configuration(workers: usize, udp_io: &str) -> String {
    // The relay sockets' buffers hold hardly more than one datagram: a burst through the system would not arrive.
    LOOPBACK
        .replace("workers = 2", &format!("workers = {workers}\nudp-io = \"{udp_io}\""))
        .replace("[relay]", "[relay]\nsocket-buffer = \"4KiB\"")
}

const fn channel_to(end: usize) -> ChannelNumber {
    ChannelNumber(0x4000 + end as u16)
}

fn bind_all(ends: &mut [End], at: usize) {
    let addresses: Vec<_> = ends.iter().map(|end| end.relayed).collect();
    for (other, address) in addresses.into_iter().enumerate() {
        ends[at].client.bind(channel_to(other), address);
    }
    ends[at].bound = true;
}

/// Every end sends to every end, itself included, in every form that it can.
fn everybody_to_everybody(ends: &mut [End], rng: &mut StdRng) {
    let count = ends.len();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        let (peer, source) = (ends[to].relayed, ends[from].relayed);
        for len in [0, 1, 2, 3, 160, 1200] {
            let data: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            let indication = ends[from].client.send_indication(peer, &data);
            ends[from].send(&indication, len);
            ends[to].expect(source, channel_to(from), &data);
            if ends[from].bound {
                ends[from].send(&channel_data(channel_to(to), &data), len);
                ends[to].expect(source, channel_to(from), &data);
            }
        }
    }
}

/// By relayed address: the counts of the sessions that have ended.
fn sessions(log: &str) -> BTreeMap<SocketAddr, [u64; 4]> {
    log.lines()
        .filter(|line| line.contains("session ends"))
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let fields = &entry["fields"];
            let count = |key: &str| fields[key].as_u64().expect(key);
            let relayed = fields["relayed"].as_str().expect("an address").parse().expect("an address");
            let keys = ["to_peer_packets", "to_peer_bytes", "to_client_packets", "to_client_bytes"];
            (relayed, keys.map(count))
        })
        .collect()
}

fn totals(log: &str) -> &str {
    log.lines().find(|line| line.contains("\"message\":\"stopped\"")).expect("totals")
}

/// Clients of both families and transports whose relayed addresses are of one family.
fn every_form(workers: usize, udp_io: &str, family: Family) {
    use Family::{V4, V6};
    let server = Server::start(&configuration(workers, udp_io));
    let mut ends: Vec<_> = [("udp", V4), ("tcp", V4), ("udp", V6), ("tcp", V6), ("udp", V4), ("udp", V6)]
        .iter()
        .map(|(transport, own)| End::of(&server, transport, *own, family))
        .collect();
    let mut rng = StdRng::seed_from_u64(5);
    let any = ends[0].relayed;
    ends.iter_mut().for_each(|end| end.client.permit(any));
    everybody_to_everybody(&mut ends, &mut rng);
    for at in [0, 1, 4] {
        bind_all(&mut ends, at);
    }
    everybody_to_everybody(&mut ends, &mut rng);
    for at in [2, 3, 5] {
        bind_all(&mut ends, at);
    }
    everybody_to_everybody(&mut ends, &mut rng);

    let log = server.stop();
    let counted = sessions(&log);
    for end in &ends {
        assert_eq!(counted[&end.relayed], end.counts, "{}", end.relayed);
    }
    assert!(totals(&log).contains("\"drops\":\"\""), "{}", totals(&log));
}

#[test]
fn every_form_in_one_worker() {
    Family::ALL.into_iter().for_each(|family| every_form(1, "auto", family));
}

#[test]
fn every_form_between_workers() {
    Family::ALL.into_iter().for_each(|family| every_form(3, "auto", family));
}

#[test]
fn every_form_on_the_portable_path() {
    Family::ALL.into_iter().for_each(|family| every_form(2, "portable", family));
}

/// Both sides need a permission (RFC 8656 §9).
#[test]
fn nothing_without_permission_on_either_side() {
    for (workers, family) in [(1, Family::V4), (3, Family::V4), (1, Family::V6), (3, Family::V6)] {
        let server = Server::start(&configuration(workers, "auto"));
        let (mut dropped, mut ends) = (0, Vec::new());
        for (one, other) in [("udp", "udp"), ("udp", "tcp"), ("tcp", "udp"), ("udp", "udp")] {
            let (mut sender, mut receiver) =
                (End::of(&server, one, Family::V4, family), End::of(&server, other, family, family));
            // Refused at the sender.
            let indication = sender.client.send_indication(receiver.relayed, b"first");
            sender.client.socket.send_to(&indication, sender.client.server).expect("to send");
            sender.client.permit(receiver.relayed);
            // Refused at the receiver.
            let indication = sender.client.send_indication(receiver.relayed, b"second");
            sender.send(&indication, 6);
            receiver.expect_nothing();
            receiver.client.permit(sender.relayed);
            let indication = sender.client.send_indication(receiver.relayed, b"third");
            sender.send(&indication, 5);
            receiver.expect(sender.relayed, channel_to(0), b"third");
            sender.expect_nothing();
            dropped += 2;
            ends.extend([sender, receiver]);
        }
        let log = server.stop();
        // What the receiver's side refuses was relayed by the sender's.
        let counted = sessions(&log);
        for pair in ends.chunks(2) {
            assert_eq!((counted[&pair[0].relayed], pair[0].counts), ([2, 11, 0, 0], [2, 11, 0, 0]));
            assert_eq!((counted[&pair[1].relayed], pair[1].counts), ([0, 0, 1, 5], [0, 0, 1, 5]));
        }
        assert!(totals(&log).contains(&format!("\"drops\":\"no-permission={dropped}\"")), "{}", totals(&log));
    }
}

/// DSCP and ECN go along as they do through the system (RFC 8656 §13), whatever the families of the clients.
#[cfg(target_os = "linux")]
#[test]
fn the_traffic_class_goes_along() {
    use common::datagram::{receive, receive_tos, send};
    for (workers, family) in [(1, Family::V4), (3, Family::V4), (1, Family::V6), (3, Family::V6)] {
        let server = Server::start(&configuration(workers, "auto"));
        let owns = Family::ALL.into_iter().cycle().take(6);
        let mut ends: Vec<_> = owns.map(|own| End::of(&server, "udp", own, family)).collect();
        (0..6).for_each(|at| bind_all(&mut ends, at));
        ends.iter().for_each(|end| receive_tos(&end.client.socket));
        for (from, to) in (0..6).flat_map(|from| (0..6).map(move |to| (from, to))) {
            let (sender, receiver) = (&ends[from].client, &ends[to].client);
            // EF, AF41, default; not ECN-capable, both forms of ECN-capable, congestion experienced.
            for tos in [0xB8, 0x88 | 2, 1, 0xB8 | 3, 0] {
                send(&sender.socket, &[channel_data(channel_to(to), &[tos; 160])], sender.server, tos);
                let received = receive(&receiver.socket).expect("what the other sent");
                assert_eq!(received.datagrams, [channel_data(channel_to(from), &[tos; 160])]);
                assert_eq!(received.tos, tos, "{from} to {to}");
            }
        }
    }
}

/// Behind a NAT clients know each other by the external address.
#[test]
fn by_the_external_address() {
    for workers in [1, 3] {
        let configuration = configuration(workers, "auto")
            .replace("relay-ip = [\"127.0.0.1\", \"::1\"]", "relay-ip = \"127.0.0.1\"\nexternal-ip = \"203.0.113.9\"");
        let server = Server::start(&configuration);
        let mut ends: Vec<_> = (0..4).map(|_| End::new(&server, "udp")).collect();
        let any = ends[0].relayed;
        assert_eq!(any.ip().to_string(), "203.0.113.9");
        ends.iter_mut().for_each(|end| end.client.permit(any));
        let mut rng = StdRng::seed_from_u64(6);
        everybody_to_everybody(&mut ends, &mut rng);
        (0..4).for_each(|at| bind_all(&mut ends, at));
        everybody_to_everybody(&mut ends, &mut rng);
        assert!(totals(&server.stop()).contains("\"drops\":\"\""));
    }
}

/// As with any port that nobody has: at most an ICMP error comes back (RFC 8656 §11.5).
#[test]
fn no_data_after_the_end_of_the_receiver() {
    for workers in [1, 3] {
        let server = Server::start(&configuration(workers, "auto"));
        for _ in 0..4 {
            let (mut sender, mut receiver) = (End::new(&server, "udp"), End::new(&server, "udp"));
            sender.client.bind(channel_to(1), receiver.relayed);
            receiver.client.permit(sender.relayed);
            sender.send(&channel_data(channel_to(1), b"data"), 4);
            receiver.expect(sender.relayed, channel_to(0), b"data");
            receiver.client.delete();
            sender.send(&channel_data(channel_to(1), b"late"), 4);
            receiver.expect_nothing();
            let answer = sender.next();
            let message = Message::parse(&answer).expect("a STUN message");
            assert_eq!(message.get(AttributeType::ICMP), Some(&[0, 0, 3 << 1, 3, 0, 0, 0, 0][..]));
        }
        let log = server.stop();
        assert!(totals(&log).contains("\"drops\":\"\""), "{}", totals(&log));
    }
}

/// Order and content, in bursts that the relay sockets' own buffers could not hold.
#[test]
fn bursts_arrive_whole_and_in_order() {
    /// Datagrams of one burst.
    const BURST: usize = 40;
    for workers in [1, 3] {
        let server = Server::start(&configuration(workers, "auto"));
        let mut ends: Vec<_> = (0..4).map(|_| End::new(&server, "udp")).collect();
        (0..4).for_each(|at| bind_all(&mut ends, at));
        let mut rng = StdRng::seed_from_u64(8);
        for _ in 0..200 {
            let sent: Vec<_> = (0..BURST)
                .map(|_| {
                    let (from, to) = (rng.random_range(0..4usize), rng.random_range(0..4usize));
                    let len = *[1usize, 160, 160, 161, 1200].get(rng.random_range(0..5)).expect("a length");
                    (from, to, vec![rng.random::<u8>(); len])
                })
                .collect();
            for (from, to, data) in &sent {
                ends[*from].send(&channel_data(channel_to(*to), data), data.len());
            }
            for (at, end) in ends.iter_mut().enumerate() {
                let to_this = sent.iter().filter(|(_, to, _)| *to == at).count();
                let got: Vec<_> = (0..to_this).map(|_| end.next()).collect();
                for from in 0..4 {
                    let number = channel_to(from).0.to_be_bytes();
                    let got = got.iter().filter(|message| message[..2] == number);
                    let sent = sent.iter().filter(|(of, to, _)| (*of, *to) == (from, at));
                    assert!(got.eq(&sent.map(|(_, _, data)| channel_data(channel_to(from), data)).collect::<Vec<_>>()));
                }
            }
        }
        let log = server.stop();
        assert!(totals(&log).contains("\"drops\":\"\""), "{}", totals(&log));
    }
}
