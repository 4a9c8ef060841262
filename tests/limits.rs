//! Limits of allocations, bandwidth, packets, peers and bytes per month: what passes is measured where it arrives.

mod common;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, REALM, Server,
    client::{TurnClient, channel_data, loopback_peer, loopback_socket},
    ports::peer_listener,
};
use turnserver::stun::{AttributeType, ChannelNumber, Class, Message, MessageWriter, Method};

const CHANNEL: ChannelNumber = ChannelNumber(0x4000);
/// Application data of a datagram.
const DATA: [u8; 1000] = [7; 1000];
/// Before measuring, so that the burst is over.
const WARM_UP: Duration = Duration::from_secs(1);
/// Measured.
const WINDOW: Duration = Duration::from_secs(10);
/// Between two datagrams of a client, or of a peer to it.
const TICK: Duration = Duration::from_millis(5);

/// A server with four workers, four users, and these limits.
fn server(limits: &str) -> Server {
    server_in(limits, None)
}

fn server_in(limits: &str, state: Option<&Path>) -> Server {
    let users: String =
        (0..4).map(|user| format!("[[auth.user]]\nname = \"user{user}\"\npassword = \"secret\"\n")).collect();
    let state = state.map(|path| format!("state-directory = {:?}\n", path.display().to_string())).unwrap_or_default();
    Server::start(&format!(
        r#"
[[listener]]
listening-ip = ["127.0.0.1"]
listening-port = 0
transports = ["udp", "tcp"]
[relay]
relay-ip = "127.0.0.1"
tcp-relaying = true
[auth]
realm = "{REALM}"
{users}
[peers]
allowed-peer-ip = ["127.0.0.0/8"]
[limits]
unauthorized-rate = 0
burst = "500ms"
{limits}
{state}
[process]
workers = 4
"#
    ))
}

fn user(number: usize) -> String {
    format!("user{number}")
}

/// Whether a measured number of bytes is what a limit in bits per second allows in the window.
fn is_exact(bytes: u64, bits_per_second: u64) -> bool {
    let expected = bits_per_second / 8 * WINDOW.as_secs();
    bytes.abs_diff(expected) * 100 <= expected * 3
}

/// A number in the last line of the log.
fn stopped(log: &str, field: &str) -> serde_json::Value {
    let fields = |line: &str| Some(serde_json::from_str::<serde_json::Value>(line).ok()?["fields"].take());
    let stopped = log.lines().filter_map(fields).find(|fields| fields["message"] == "stopped");
    stopped.expect("a last line")[field].take()
}

/// The count of one thing in a field like `a=1 b=2`.
fn count(field: &serde_json::Value, name: &str) -> u64 {
    let pairs = field.as_str().expect("text").split(' ').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(of, _)| *of == name).map(|(_, count)| count.parse::<u64>().expect("a number")).sum()
}

/// An allocation of UDP, with a channel to a peer.
struct Call {
    client: TurnClient,
    relayed: SocketAddr,
}

impl Call {
    fn new(server: &Server, user: &str, peer: &UdpSocket) -> Self {
        let mut client = TurnClient::of(user, loopback_socket(), server.ipv4("udp"));
        let relayed = client.allocate();
        client.bind(CHANNEL, peer.local_addr().unwrap());
        client.socket.set_nonblocking(true).unwrap();
        Self { client, relayed }
    }

    fn send(&self, data: &[u8]) {
        self.client.socket.send_to(&channel_data(CHANNEL, data), self.client.server).unwrap();
    }
}

/// Everything that waits in a socket that does not wait: bytes and datagrams, less `header` of each.
fn drain(socket: &UdpSocket, header: usize) -> (u64, u64) {
    let (mut buffer, mut bytes, mut datagrams) = ([0; 2048], 0, 0);
    while let Ok(len) = socket.recv(&mut buffer) {
        bytes += (len - header) as u64;
        datagrams += 1;
    }
    (bytes, datagrams)
}

/// Calls of several users, each user with a peer, and what has arrived.
struct Calls {
    peers: Vec<UdpSocket>,
    /// By user.
    calls: Vec<Vec<Call>>,
    /// By user: at the peer, at the clients.
    arrived: Vec<[u64; 2]>,
    sent: u64,
}

impl Calls {
    fn new(server: &Server, users: usize, each: usize) -> Self {
        let peers: Vec<UdpSocket> = (0..users).map(|_| loopback_peer()).collect();
        let calls =
            (0..users).map(|of| (0..each).map(|_| Call::new(server, &user(of), &peers[of])).collect()).collect();
        peers.iter().for_each(|peer| peer.set_nonblocking(true).unwrap());
        Self { peers, calls, arrived: vec![[0; 2]; users], sent: 0 }
    }

    /// Takes in what has arrived.
    fn collect(&mut self) {
        for ((peer, calls), arrived) in self.peers.iter().zip(&self.calls).zip(&mut self.arrived) {
            arrived[0] += drain(peer, 0).0;
            arrived[1] += calls.iter().map(|call| drain(&call.client.socket, 4).0).sum::<u64>();
        }
    }

    /// One datagram per user and direction in each tick, through the user's calls in turn; what has arrived in the window.
    fn flood(&mut self, both_ways: bool) -> Vec<[u64; 2]> {
        let start = Instant::now();
        let mut before = None;
        for tick in 0.. {
            let due = start + TICK * tick;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if before.is_none() && start.elapsed() >= WARM_UP {
                self.collect();
                before = Some((Instant::now(), self.arrived.clone()));
            }
            if let Some((begun, before)) = &before
                && begun.elapsed() >= WINDOW
            {
                let before = before.clone();
                self.collect();
                let pairs = self.arrived.iter().zip(before);
                return pairs.map(|(now, before)| [now[0] - before[0], now[1] - before[1]]).collect();
            }
            for (peer, calls) in self.peers.iter().zip(&self.calls) {
                let call = &calls[tick as usize % calls.len()];
                call.send(&DATA);
                self.sent += 1;
                if both_ways {
                    peer.send_to(&DATA, call.relayed).unwrap();
                    self.sent += 1;
                }
            }
            self.collect();
        }
        unreachable!("time goes on")
    }

    /// Waits until nothing more arrives; all that has, at the peers and at the clients.
    fn finish(&mut self) -> [u64; 2] {
        loop {
            let before = self.arrived.clone();
            thread::sleep(Duration::from_millis(200));
            self.collect();
            if self.arrived == before {
                return [0, 1].map(|at| self.arrived.iter().map(|arrived| arrived[at]).sum());
            }
        }
    }
}

/// Each user has two calls on any of four workers, which share the user's bandwidth; every other user has none of it.
#[test]
fn users_on_udp_get_their_bandwidth_in_each_direction() {
    let server = server("user-max-bps = \"800kbit/s\"");
    let mut calls = Calls::new(&server, 4, 3);
    let measured = calls.flood(true);
    eprintln!("bytes by user and direction: {measured:?}");
    assert!(measured.iter().flatten().all(|bytes| is_exact(*bytes, 800_000)));

    let [at_peers, at_clients] = calls.finish();
    let sent = calls.sent;
    let log = server.stop();
    assert_eq!(stopped(&log, "to_peer_bytes"), at_peers);
    assert_eq!(stopped(&log, "to_client_bytes"), at_clients);
    let dropped = sent - (at_peers + at_clients) / DATA.len() as u64;
    assert_eq!(count(&stopped(&log, "drops"), "bandwidth"), dropped);
    assert_eq!(count(&stopped(&log, "limited"), "user-max-bps"), dropped);
}

/// The bandwidth of the server is shared by users on UDP, who lose what exceeds it.
#[test]
fn all_users_together_get_the_bandwidth_of_the_server() {
    let server = server("bps-capacity = \"1600kbit/s\"\nmax-bps = \"1Mbit/s\"");
    let mut calls = Calls::new(&server, 4, 2);
    let measured = calls.flood(false);
    let sum = measured.iter().map(|[at_peer, _]| at_peer).sum();
    eprintln!("bytes by user and direction: {measured:?}, in all {sum}");
    assert!(is_exact(sum, 1_600_000));
    let [at_peers, _] = calls.finish();
    assert_eq!(stopped(&server.stop(), "to_peer_bytes"), at_peers);
}

/// What is measured of bytes that come in at any time: those within the window.
struct Meter {
    start: Instant,
    bytes: u64,
}

impl Meter {
    fn new() -> Self {
        Self { start: Instant::now(), bytes: 0 }
    }

    fn add(&mut self, bytes: usize) {
        if (WARM_UP..WARM_UP + WINDOW).contains(&self.start.elapsed()) {
            self.bytes += bytes as u64;
        }
    }
}

/// A stream with what is still to be written to it.
fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Clients on TCP send more than they may: they have to wait, and their peers get all of it in order.
#[test]
fn clients_on_tcp_are_held_up_and_lose_nothing() {
    let server = server("user-max-bps = \"800kbit/s\"");
    let address = server.ipv4("tcp");
    let measured: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|of| {
                scope.spawn(move || {
                    let peer = loopback_peer();
                    peer.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut client = TurnClient::of(&user(of), connect(address), address);
                    client.allocate();
                    client.bind(CHANNEL, peer.local_addr().unwrap());
                    // Some 12 s of data.
                    const FRAMES: u32 = 1_200;
                    let mut writer = client.socket.try_clone().unwrap();
                    let written = thread::spawn(move || {
                        for number in 0..FRAMES {
                            let mut data = DATA;
                            data[..4].copy_from_slice(&number.to_be_bytes());
                            writer.write_all(&channel_data(CHANNEL, &data)).unwrap();
                        }
                    });
                    let (mut meter, mut buffer) = (Meter::new(), [0; 2048]);
                    for number in 0..FRAMES {
                        let len = peer.recv(&mut buffer).unwrap();
                        assert_eq!((len, &buffer[..4]), (DATA.len(), &number.to_be_bytes()[..]));
                        meter.add(len);
                    }
                    written.join().unwrap();
                    // A request is answered at once all the same.
                    client.succeed(Method::Refresh, |_| {});
                    meter.bytes
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    eprintln!("bytes by user: {measured:?}");
    assert!(measured.iter().all(|bytes| is_exact(*bytes, 800_000)));
    let log = server.stop();
    assert_eq!(stopped(&log, "to_peer_bytes"), 4 * 1_200_000);
    assert_eq!(stopped(&log, "drops"), "");
    assert!(count(&stopped(&log, "held_up"), "user-max-bps") > 0);
    assert_eq!(stopped(&log, "limited"), "");
}

/// A connection with a peer (RFC 6062): the control connection, and the two ends.
fn peer_connection(server: SocketAddr, user: &str) -> (TurnClient<TcpStream>, TcpStream, TcpStream) {
    let mut control = TurnClient::of(user, connect(server), server);
    control.learn_nonce();
    control.succeed(Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    });
    let listener = peer_listener(Ipv4Addr::LOCALHOST.into());
    let address = listener.local_addr().unwrap();
    let connected = control.succeed(Method::Connect, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, address);
    });
    let id = Message::parse(&connected).unwrap().get_u32(AttributeType::CONNECTION_ID).unwrap().unwrap();
    let mut data = TurnClient::of(user, connect(server), server);
    data.learn_nonce();
    data.succeed(Method::ConnectionBind, |writer| {
        writer.u32(AttributeType::CONNECTION_ID, id);
    });
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (control, data.socket, peer)
}

/// Bytes of which no two stretches are alike.
fn pattern(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32 / 4).flat_map(|word| (word ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Two connections of each of two users, both ways at once, wherever their workers are.
#[test]
fn connections_of_users_are_held_up_and_lose_nothing() {
    const LENGTH: usize = 1_200_000 * 4 / 2;
    let server = server("user-max-bps = \"1600kbit/s\"");
    let address = server.ipv4("tcp");
    let send = |mut to: TcpStream, seed| {
        thread::spawn(move || {
            to.write_all(&pattern(seed, LENGTH / 2)).unwrap();
            to.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let measure = |mut from: TcpStream, seed| {
        thread::spawn(move || {
            let (mut meter, mut all, mut buffer) = (Meter::new(), Vec::new(), [0; 16_384]);
            loop {
                match from.read(&mut buffer).unwrap() {
                    0 => break,
                    len => {
                        meter.add(len);
                        all.extend_from_slice(&buffer[..len]);
                    }
                }
            }
            assert!(all == pattern(seed, LENGTH / 2), "what has arrived is not what was sent");
            meter.bytes
        })
    };
    let mut controls = Vec::new();
    let running: Vec<_> = (0..4u32)
        .map(|number| {
            let (control, client, peer) = peer_connection(address, &user(number as usize % 2));
            controls.push(control);
            let senders = [send(client.try_clone().unwrap(), number), send(peer.try_clone().unwrap(), !number)];
            (senders, [measure(peer, number), measure(client, !number)])
        })
        .collect();
    let mut measured = [[0; 2]; 2];
    for (number, (senders, receivers)) in running.into_iter().enumerate() {
        senders.into_iter().for_each(|thread| thread.join().unwrap());
        for (direction, receiver) in receivers.into_iter().enumerate() {
            measured[number % 2][direction] += receiver.join().unwrap();
        }
    }
    eprintln!("bytes by user and direction: {measured:?}");
    assert!(measured.iter().flatten().all(|bytes| is_exact(*bytes, 1_600_000)));
    drop(controls);
    let log = server.stop();
    assert_eq!(stopped(&log, "to_peer_bytes"), 2 * LENGTH);
    assert_eq!(stopped(&log, "to_client_bytes"), 2 * LENGTH);
}

#[test]
fn an_allocation_gets_its_packets_per_second() {
    let server = server("max-pps = 50");
    let mut calls = Calls::new(&server, 2, 1);
    let measured = calls.flood(true);
    // 50 datagrams of 1000 bytes.
    eprintln!("bytes by user and direction: {measured:?}");
    assert!(measured.iter().flatten().all(|bytes| is_exact(*bytes, 400_000)));
    let [at_peers, at_clients] = calls.finish();
    let dropped = calls.sent - (at_peers + at_clients) / DATA.len() as u64;
    let log = server.stop();
    assert_eq!(count(&stopped(&log, "drops"), "packet-rate"), dropped);
    assert_eq!(count(&stopped(&log, "limited"), "max-pps"), dropped);
}

/// What an Allocate, or another request, is answered: 0 or the error code, and its words.
fn ask(client: &mut TurnClient, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> (u16, String) {
    let response = client.request(method, attributes);
    let message = Message::parse(&response).expect("a STUN message");
    match message.get(AttributeType::ERROR_CODE) {
        Some([_, _, class, number, words @ ..]) => {
            (u16::from(*class) * 100 + u16::from(*number), String::from_utf8_lossy(words).into_owned())
        }
        _ => {
            assert_eq!(message.class(), Class::Success);
            (0, String::new())
        }
    }
}

fn allocate(server: &Server, user: &str) -> Result<TurnClient, (u16, String)> {
    let mut client = TurnClient::of(user, loopback_socket(), server.ipv4("udp"));
    client.learn_nonce();
    let (code, words) = ask(&mut client, Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    if code == 0 { Ok(client) } else { Err((code, words)) }
}

fn permit(client: &mut TurnClient, last: u8) -> (u16, String) {
    ask(client, Method::CreatePermission, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, SocketAddr::from(([127, 0, 0, last], 4000)));
    })
}

fn refusal(code: u16, words: &str) -> (u16, String) {
    (code, words.to_owned())
}

/// Sends so many datagrams, a few at a time; how many arrive.
fn pass(call: &Call, peer: &UdpSocket, datagrams: u64) -> u64 {
    peer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut buffer, mut arrived) = ([0; 2048], 0);
    for at in 0..datagrams {
        call.send(&DATA);
        if at % 10 == 9 {
            let awaited = (0..10).take_while(|_| peer.recv(&mut buffer).is_ok()).count() as u64;
            arrived += awaited;
            if awaited == 0 {
                break;
            }
        }
    }
    arrived
}

#[test]
fn the_bytes_of_a_month_are_counted_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "user-bytes-per-month = \"1MB\"\ntotal-bytes-per-month = \"1GB\"";
    let usage = || std::fs::read_to_string(folder.path().join("usage")).unwrap();
    let peer = loopback_peer();
    {
        let server = server_in(limits, Some(folder.path()));
        let call = Call::new(&server, "user0", &peer);
        assert_eq!(pass(&call, &peer, 600), 600);
        server.stop();
        assert!(usage().contains(&format!("\tuser\t{REALM}\tuser0\t600000\n")), "{}", usage());
    }
    {
        let server = server_in(limits, Some(folder.path()));
        let (call, other) = (Call::new(&server, "user0", &peer), Call::new(&server, "user1", &loopback_peer()));
        assert_eq!(pass(&call, &peer, 600), 400);
        let refused = allocate(&server, "user0").err();
        let words = "Allocation Quota Reached: this user's bytes of the month are used up";
        assert_eq!(refused, Some(refusal(486, words)));
        assert!(allocate(&server, "user1").is_ok());
        drop(other);
        let log = server.stop();
        assert!(count(&stopped(&log, "drops"), "month-used-up") > 0);
        assert!(usage().contains(&format!("\tuser\t{REALM}\tuser0\t1000000\n")), "{}", usage());
        assert!(usage().contains("\ttotal\t\t\t1000000\n"), "{}", usage());
    }
    // What was counted in another month is no more.
    let november = usage();
    let month = november.lines().nth(1).unwrap().split('\t').next().unwrap();
    std::fs::write(folder.path().join("usage"), november.replace(month, "2025-01")).unwrap();
    let server = server_in(limits, Some(folder.path()));
    assert_eq!(pass(&Call::new(&server, "user0", &peer), &peer, 10), 10);
}

/// A client gathers as many allocations as it has ways to the server, and uses one of them.
#[test]
fn allocations_that_are_not_used_are_counted_apart() {
    let server = server("user-quota = 2\nuser-unused-quota = 6");
    let gather = || -> Vec<TurnClient> { (0..6).map(|_| allocate(&server, "user0").unwrap()).collect() };
    let too_many = refusal(486, "Allocation Quota Reached: too many unused allocations of this user");
    let used_up = refusal(486, "Allocation Quota Reached: this user has as many as allowed");

    let mut first = gather();
    assert_eq!(allocate(&server, "user0").err(), Some(too_many.clone()));
    let _other = allocate(&server, "user1").unwrap();
    // The others are let go, as soon as one works.
    assert_eq!(permit(&mut first[0], 1).0, 0);
    first.drain(1..).for_each(|mut client| client.delete());

    let mut second = gather();
    second[0].bind(CHANNEL, loopback_peer().local_addr().unwrap());
    let mut waiting = second.split_off(1);
    // Two are used, five are not: one more could not be used.
    assert_eq!(allocate(&server, "user0").err(), Some(used_up.clone()));
    let refused = permit(&mut waiting[0], 1);
    assert_eq!(refused, refusal(508, "Insufficient Capacity: this user has as many as allowed"));
    // The used ones go on.
    assert_eq!((permit(&mut first[0], 2).0, permit(&mut second[0], 2).0), (0, 0));
    first[0].delete();
    assert_eq!(permit(&mut waiting[0], 1).0, 0);
    assert_eq!(allocate(&server, "user0").err(), Some(used_up));
    second[0].delete();
    assert!(allocate(&server, "user0").is_ok());
    assert!(allocate(&server, "user0").is_ok());
    assert_eq!(allocate(&server, "user0").err(), Some(too_many));
    let log = server.stop();
    assert_eq!(count(&stopped(&log, "limited"), "user-unused-quota"), 2);
    assert_eq!(count(&stopped(&log, "limited"), "user-quota"), 3);
}

#[test]
fn one_address_gets_no_more_allocations_than_its_rate_on_all_workers() {
    let server = server("allocation-rate = 1");
    let mut made = Vec::new();
    let refused = loop {
        match allocate(&server, &user(made.len() % 4)) {
            Ok(client) => made.push(client),
            Err(refused) => break refused,
        }
        assert!(made.len() < 100, "no limit");
    };
    // 10 at once, and one more for each second that this has taken.
    assert!((10..20).contains(&made.len()), "{}", made.len());
    assert_eq!(refused, refusal(486, "Allocation Quota Reached: too many from this address, try again later"));
    assert!(count(&stopped(&server.stop(), "limited"), "allocation-rate") == 1);
}

#[test]
fn new_peers_come_at_their_rate_and_old_ones_at_any() {
    let server = server("user-new-peer-rate = 1");
    let (mut one, mut other) = (allocate(&server, "user0").unwrap(), allocate(&server, "user0").unwrap());
    let (mut added, mut last) = (0, 0);
    let refused = loop {
        last += 1;
        let client = if last % 2 == 0 { &mut one } else { &mut other };
        match permit(client, last) {
            (0, _) => added += 1,
            refused => break refused,
        }
        assert!(added < 100, "no limit");
    };
    assert!((10..20).contains(&added), "{added}");
    assert_eq!(refused, refusal(508, "Insufficient Capacity: too many new peers, try again later"));
    for _ in 0..20 {
        assert_eq!((permit(&mut one, 2).0, permit(&mut other, 1).0), (0, 0));
    }
    let mut stranger = allocate(&server, "user1").unwrap();
    assert_eq!(permit(&mut stranger, 1).0, 0);
    // A peer that is refused for what it is says so.
    let refused = ask(&mut stranger, Method::CreatePermission, |writer| {
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, SocketAddr::from(([10, 0, 0, 1], 4000)));
    });
    assert_eq!(refused, refusal(403, "Forbidden: this peer address is not allowed"));
}
