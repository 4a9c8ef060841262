//! A relayed packet, or a stretch of relayed TCP, costs no heap allocation: measured with a counting allocator over a whole server in this process.
//!
//! One test only in this file: the count is the process's.

#![allow(unsafe_code)] // an allocator cannot be written without

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, REALM, USER,
    client::{TurnClient, channel_data, key, loopback_peer, loopback_socket},
};
use turnserver::{
    config::{self, Host},
    relay::Relay,
    stun::{AttributeType as A, ChannelNumber, Class, Message, MessageWriter, Method, TransactionId},
    turn::{Drop, Transport},
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes allocated and not freed.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        IN_USE.fetch_add(size, Ordering::Relaxed);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CHANNEL: ChannelNumber = ChannelNumber(0x4000);
/// Packets in each direction and form, warmed up and counted.
const PACKETS: usize = 2000;
const DATA: [u8; 160] = [7; 160];

/// Sends `PACKETS` datagrams from the client to the peer and as many back, each awaited before the next.
fn traffic(client: &TurnClient, message: &[u8], peer: &UdpSocket, relayed: SocketAddr, expected: usize) {
    let mut buffer = [0; 1500];
    for _ in 0..PACKETS {
        client.socket.send_to(message, client.server).unwrap();
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((len, from), (DATA.len(), relayed));
        peer.send_to(&DATA, relayed).unwrap();
        assert_eq!(client.socket.recv(&mut buffer).unwrap(), expected);
    }
}

/// A client's connection, with the nonce of its first request.
fn connection(server: SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let challenge = ask(&mut stream, &[], Method::Refresh, |_| {});
    let nonce = Message::parse(&challenge).unwrap().get(A::NONCE).expect("a nonce").to_vec();
    (stream, nonce)
}

/// Sends a request over a stream; the response to it.
fn ask(stream: &mut TcpStream, nonce: &[u8], method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let mut writer = MessageWriter::new(&mut buffer, method, Class::Request, TransactionId([9; 12]));
    attributes(&mut writer);
    if !nonce.is_empty() {
        writer.attribute(A::USERNAME, USER.as_bytes()).attribute(A::REALM, REALM.as_bytes());
        writer.attribute(A::NONCE, nonce).integrity(&key());
    }
    let len = writer.finish().unwrap();
    stream.write_all(&buffer[..len]).unwrap();
    stream.read_exact(&mut buffer[..20]).unwrap();
    let len = 20 + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
    stream.read_exact(&mut buffer[20..len]).unwrap();
    assert_eq!(Message::parse(&buffer[..len]).unwrap().class() == Class::Success, !nonce.is_empty());
    buffer[..len].to_vec()
}

/// Opens a TCP allocation with one connection (RFC 6062): the control connection, and the two ends.
fn tcp_connection(server: SocketAddr) -> (TcpStream, TcpStream, TcpStream) {
    let (mut control, nonce) = connection(server);
    ask(&mut control, &nonce, Method::Allocate, |writer| {
        writer.attribute(A::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    let connected = ask(&mut control, &nonce, Method::Connect, |writer| {
        writer.xor_address(A::XOR_PEER_ADDRESS, peer);
    });
    let id = Message::parse(&connected).unwrap().get_u32(A::CONNECTION_ID).unwrap().unwrap();
    let (mut data, nonce) = connection(server);
    ask(&mut data, &nonce, Method::ConnectionBind, |writer| {
        writer.u32(A::CONNECTION_ID, id);
    });
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (control, data, peer)
}

/// Sends `PACKETS` stretches each way, each awaited before the next.
fn stretches(client: &mut TcpStream, peer: &mut TcpStream) {
    let mut buffer = [0; 30_000];
    for at in 0..PACKETS {
        let len = 1 + at * 29_999 / PACKETS;
        client.write_all(&buffer[..len]).unwrap();
        peer.read_exact(&mut buffer[..len]).unwrap();
        peer.write_all(&buffer[..len]).unwrap();
        client.read_exact(&mut buffer[..len]).unwrap();
    }
}

/// Starts a server in this process; returns where it serves this transport.
fn start(configuration: &str, transport: Transport) -> (Relay, SocketAddr) {
    let loaded = config::parse(configuration, "heap.toml", &Host::detect().unwrap()).unwrap();
    let relay = Relay::start(loaded.settings, None, &[]).unwrap();
    let server =
        relay.endpoints().into_iter().find(|endpoint| endpoint.transport == transport && endpoint.address.is_ipv4());
    let address = server.unwrap().address;
    (relay, address)
}

/// Design §4: user-space heap allocations per relayed packet: 0. Memory that a peak took is given back.
#[test]
fn packets_allocate_nothing_and_peaks_leave_nothing() {
    for limits in ["", &every_limit()] {
        datagrams_allocate_nothing(limits);
        frames_on_streams_allocate_nothing(limits);
        tcp_relaying_allocates_nothing(limits);
    }
    what_waits_or_is_dropped_allocates_nothing();
    what_is_refused_allocates_nothing();
    counting_a_month_allocates_nothing();
    slow_streams_give_memory_back();
}

/// All limits of rates, wide enough for what is done here.
fn every_limit() -> String {
    let rates = ["max", "user-max", "tenant-max", "realm-max"]
        .map(|of| format!("{of}-bps = \"90Gbit/s\"\n{of}-pps = 90000000\n"));
    let peers = ["", "user-", "tenant-", "realm-", "total-"].map(|of| format!("{of}new-peer-rate = 1000\n"));
    let unused = "user-unused-quota = 100\ntotal-unused-quota = 100\n";
    format!(
        "[limits]\nbps-capacity = \"90Gbit/s\"\npps-capacity = 90000000\n{unused}{}{}",
        rates.concat(),
        peers.concat()
    )
}

/// Bytes of the month. Every 10 seconds a thread writes them to a file, which does allocate: of three tries, two at least are
/// undisturbed.
fn counting_a_month_allocates_nothing() {
    let state = tempfile::tempdir().unwrap();
    let months = ["user", "tenant", "realm", "total"].map(|of| format!("{of}-bytes-per-month = \"900TB\"\n")).concat();
    let limits = format!("[limits]\n{months}state-directory = {:?}\n", state.path().display().to_string());
    let (relay, server) = start(&format!("{}{limits}", common::LOOPBACK), Transport::Udp);
    let (mut client, peer) = (TurnClient::new(loopback_socket(), server), loopback_peer());
    let relayed = client.allocate();
    client.bind(CHANNEL, peer.local_addr().unwrap());
    let allocated = [(); 4].map(|()| {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        traffic(&client, &channel_data(CHANNEL, &DATA), &peer, relayed, DATA.len() + 4);
        ALLOCATIONS.load(Ordering::SeqCst) - before
    });
    // The message is one.
    assert!(allocated[1..].iter().filter(|allocated| **allocated == 1).count() >= 2, "{allocated:?}");
    let _ = relay.stop();
}

/// Beyond limits: datagrams that are dropped, messages and stretches of TCP that have to wait.
fn what_waits_or_is_dropped_allocates_nothing() {
    let limits = "[limits]\nuser-max-bps = \"4Mbit/s\"\nbps-capacity = \"8Mbit/s\"\n";
    let configuration = common::LOOPBACK.replace("[relay]", "[relay]\ntcp-relaying = true") + limits;
    let (relay, server) = start(&configuration, Transport::Tcp);
    let (_control, mut data, mut far) = tcp_connection(server);
    let mut connection = || {
        let mut buffer = [7; 20_000];
        for _ in 0..10 {
            data.write_all(&buffer).unwrap();
            far.read_exact(&mut buffer).unwrap();
        }
    };
    connection();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    connection();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "of connections that wait");

    let mut client = connect(server);
    let peer_socket = loopback_peer();
    client.allocate();
    client.bind(CHANNEL, peer_socket.local_addr().unwrap());
    let frames = channel_data(CHANNEL, &[7; 1200]).repeat(10);
    let mut messages = || {
        let mut buffer = [0; 1500];
        for _ in 0..20 {
            client.socket.write_all(&frames).unwrap();
            for _ in 0..10 {
                assert_eq!(peer_socket.recv(&mut buffer).unwrap(), 1200);
            }
        }
    };
    messages();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    messages();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "of messages that wait");

    let udp = relay
        .endpoints()
        .into_iter()
        .find(|endpoint| endpoint.transport == Transport::Udp && endpoint.address.is_ipv4());
    let udp = udp.unwrap().address;
    let mut client = TurnClient::new(loopback_socket(), udp);
    let relayed = client.allocate();
    client.bind(CHANNEL, peer_socket.local_addr().unwrap());
    let datagram = channel_data(CHANNEL, &[7; 1200]);
    let flood = || {
        for _ in 0..PACKETS {
            client.socket.send_to(&datagram, udp).unwrap();
            peer_socket.send_to(&datagram, relayed).unwrap();
        }
    };
    flood();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    flood();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "of datagrams that are dropped");
    let counts = relay.stop();
    assert!(counts.totals.dropped(Drop::Bandwidth) > 0);
    assert!(counts.limits.refused.iter().any(|(limit, count)| limit.key() == "user-max-bps" && *count > 0));
}

/// What is noted of what is refused, of clients with a session and without.
fn what_is_refused_allocates_nothing() {
    let (relay, server) = start(common::LOOPBACK, Transport::Udp);
    let (mut client, stranger, peer) = (TurnClient::new(loopback_socket(), server), loopback_socket(), loopback_peer());
    let relayed = client.allocate();
    let unpermitted = client.send_indication(peer.local_addr().unwrap(), &DATA);
    let unbound = channel_data(CHANNEL, &DATA);
    let flood = || {
        for _ in 0..PACKETS {
            client.socket.send_to(&unpermitted, server).unwrap();
            client.socket.send_to(&unbound, server).unwrap();
            stranger.send_to(&unbound, server).unwrap();
            stranger.send_to(&[0xC0; 20], server).unwrap();
            peer.send_to(&DATA, relayed).unwrap();
        }
    };
    flood();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    flood();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "of datagrams that are refused");
    let totals = relay.stop().totals;
    for reason in [Drop::NoPermission, Drop::NoChannel, Drop::NoAllocation, Drop::NotServed] {
        assert!(totals.dropped(reason) > 0, "{reason:?}");
    }
}

/// Over connections of RFC 6062; a few, as their two ends are on one worker or on two.
fn tcp_relaying_allocates_nothing(limits: &str) {
    let configuration = common::LOOPBACK.replace("[relay]", "[relay]\ntcp-relaying = true") + limits;
    let (relay, server) = start(&configuration, Transport::Tcp);
    for _ in 0..4 {
        let (_control, mut data, mut peer) = tcp_connection(server);
        stretches(&mut data, &mut peer);
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        stretches(&mut data, &mut peer);
        assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "over TCP");
    }
    let _ = relay.stop();
}

fn datagrams_allocate_nothing(limits: &str) {
    let (relay, server) = start(&format!("{}{limits}", common::LOOPBACK), Transport::Udp);
    let (mut client, peer_socket) = (TurnClient::new(loopback_socket(), server), loopback_peer());
    let peer = peer_socket.local_addr().unwrap();
    let relayed = client.allocate();
    client.permit(peer);

    let indication = client.send_indication(peer, &DATA);
    let bound = channel_data(CHANNEL, &DATA);
    // A Data indication has a header of 20 bytes, a peer of 12, and 4 before the data.
    for (message, expected) in [(&indication, DATA.len() + 36), (&bound, DATA.len() + 4)] {
        if *message == bound {
            client.bind(CHANNEL, peer);
        }
        traffic(&client, message, &peer_socket, relayed, expected);
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        traffic(&client, message, &peer_socket, relayed, expected);
        let allocated = ALLOCATIONS.load(Ordering::SeqCst) - before;
        assert_eq!(allocated, 0, "for {} packets that reach the client as {expected} bytes", 2 * PACKETS);
    }
    // Between two allocations of this server, in one worker and between two, as it happens.
    let mut ends: Vec<_> = (0..6)
        .map(|_| {
            let mut client = TurnClient::new(loopback_socket(), server);
            let relayed = client.allocate();
            (client, relayed)
        })
        .collect();
    for at in 0..ends.len() {
        let next = ends[(at + 1) % ends.len()].1;
        let last = ends[(at + ends.len() - 1) % ends.len()].1;
        ends[at].0.bind(CHANNEL, next);
        ends[at].0.bind(ChannelNumber(CHANNEL.0 + 1), last);
    }
    let around = || {
        let mut buffer = [0; 1500];
        for at in (0..ends.len()).cycle().take(PACKETS) {
            ends[at].0.socket.send_to(&bound, server).unwrap();
            assert_eq!(ends[(at + 1) % ends.len()].0.socket.recv(&mut buffer).unwrap(), DATA.len() + 4);
        }
    };
    around();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    around();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "between allocations of this server");

    let totals = relay.stop().totals;
    assert_eq!(totals.to_peers.packets, 6 * PACKETS as u64);
    assert_eq!(totals.to_clients.packets, 6 * PACKETS as u64);
}

/// A client on TCP.
fn connect(server: SocketAddr) -> TurnClient<TcpStream> {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    TurnClient::new(stream, server)
}

/// Writes `frames` in two writes, the cut being at `cut`, and awaits what the peer gets from them; sends as many datagrams back
/// and awaits those, each with a header.
fn burst(
    client: &mut TurnClient<TcpStream>,
    frames: &[u8],
    cut: usize,
    peer: &UdpSocket,
    relayed: SocketAddr,
    (header, back): (usize, &mut [u8]),
) {
    let mut buffer = [0; 1500];
    client.socket.write_all(&frames[..cut]).unwrap();
    let first = peer.recv(&mut buffer).unwrap();
    let count = back.len() / (first + header);
    client.socket.write_all(&frames[cut..]).unwrap();
    for _ in 1..count {
        assert_eq!(peer.recv(&mut buffer).unwrap(), first);
    }
    for _ in 0..count {
        peer.send_to(&buffer[..first], relayed).unwrap();
    }
    client.socket.read_exact(back).unwrap();
}

fn in_use() -> usize {
    IN_USE.load(Ordering::SeqCst)
}

/// Sends to clients that do not read until so much memory is in use.
fn flood(peer: &UdpSocket, relayed: &[SocketAddr], until: usize) {
    let start = Instant::now();
    while in_use() < until {
        assert!(start.elapsed() < PATIENCE, "{} bytes more are not queued", until - in_use());
        for relayed in relayed {
            peer.send_to(&[7; 1200], relayed).unwrap();
        }
    }
}

/// Reads until nothing more comes.
fn read_all(client: &mut TurnClient<TcpStream>) {
    let mut buffer = [0; 1 << 16];
    client.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.socket.read(&mut buffer).is_ok_and(|len| len > 0) {}
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn frames_on_streams_allocate_nothing(limits: &str) {
    let (relay, server) = start(&format!("{}{limits}", common::LOOPBACK), Transport::Tcp);
    let mut client = connect(server);
    let peer_socket = loopback_peer();
    let peer = peer_socket.local_addr().unwrap();
    let relayed = client.allocate();
    client.permit(peer);
    // Warmed up by more messages than a turn takes, and by more data than the connection takes at
    // once, so that messages are written in parts.
    client.socket.write_all(&channel_data(ChannelNumber(CHANNEL.0 + 9), &DATA).repeat(99)).unwrap();
    let full = in_use() + (200 << 10);
    flood(&peer_socket, &[relayed], full);
    read_all(&mut client);
    // As many as the peer's buffer holds, and of the short ones twice as many as a turn takes.
    for (bound, header, len, count) in [(false, 36, 160, 200), (true, 4, 160, 200), (true, 4, 1200, 80)] {
        let data = vec![7; len];
        let frame = if bound {
            client.bind(CHANNEL, peer);
            channel_data(CHANNEL, &data)
        } else {
            client.send_indication(peer, &data)
        };
        let frames = frame.repeat(count);
        let mut back = vec![0; (header + len) * count];
        // More messages than a turn takes, the last of the first write unfinished; and one by one.
        let mut traffic = || {
            for round in 0..30 {
                burst(&mut client, &frames, frames.len() / 2 - round, &peer_socket, relayed, (header, &mut back));
            }
            for _ in 0..count {
                client.socket.write_all(&frame).unwrap();
                let received = peer_socket.recv(&mut back).unwrap();
                assert_eq!(received, len);
                peer_socket.send_to(&data, relayed).unwrap();
                client.socket.read_exact(&mut back[..header + len]).unwrap();
            }
        };
        traffic();
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        traffic();
        assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "{len} bytes, channel: {bound}");
    }
    // Between two clients on streams, in one worker or between two, as it happens.
    let mut ends: Vec<_> = (0..4).map(|_| connect(server)).collect();
    let relayed: Vec<_> = ends.iter_mut().map(TurnClient::allocate).collect();
    for (at, end) in ends.iter_mut().enumerate() {
        end.bind(CHANNEL, relayed[(at + 1) % 4]);
        end.bind(ChannelNumber(CHANNEL.0 + 1), relayed[(at + 3) % 4]);
    }
    let frames = channel_data(CHANNEL, &DATA).repeat(10);
    let mut back = frames.clone();
    let mut around = || {
        for at in (0..4).cycle().take(PACKETS) {
            ends[at].socket.write_all(&frames).unwrap();
            ends[(at + 1) % 4].socket.read_exact(&mut back).unwrap();
        }
    };
    around();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    around();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "between streams of this server");
    drop(relay.stop());
}

fn slow_streams_give_memory_back() {
    /// Queued for each client.
    const QUEUED: usize = 3 << 20;
    const CLIENTS: usize = 4;
    /// What two workers may keep for queues to come, and what the runtime, the system's names and the like may take.
    const KEPT: usize = 2 * (512 << 10) + (64 << 10);
    let configuration = format!("{}[tcp]\nqueue-bytes = \"4MiB\"\nqueue-age = \"1h\"\n", common::LOOPBACK);
    let (relay, server) = start(&configuration, Transport::Tcp);
    let peer_socket = loopback_peer();
    let peer = peer_socket.local_addr().unwrap();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(server)).collect();
    let relayed: Vec<_> = clients.iter_mut().map(TurnClient::allocate).collect();
    clients.iter_mut().for_each(|client| client.bind(CHANNEL, peer));

    let before = in_use();
    flood(&peer_socket, &relayed, before + CLIENTS * QUEUED);
    clients.iter_mut().for_each(read_all);
    let start = Instant::now();
    while in_use() > before + KEPT {
        assert!(start.elapsed() < PATIENCE, "{} bytes are kept", in_use().saturating_sub(before));
        std::thread::yield_now();
    }
    drop(relay.stop());
}
