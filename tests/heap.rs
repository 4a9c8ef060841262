//! A relayed packet, or a stretch of relayed TCP, costs no heap allocation: measured with a counting allocator over a whole server in this process.
//!
//! One test only in this file: the count is the process's.

#![allow(unsafe_code)] // an allocator cannot be written without

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
};

use common::{
    PATIENCE, REALM, USER,
    client::{TurnClient, channel_data, key, loopback_socket},
};
use turnserver::{
    config::{self, Host},
    relay::Relay,
    stun::{AttributeType as A, ChannelNumber, Class, Message, MessageWriter, Method, TransactionId},
    turn::Transport,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

/// Design §4: user-space heap allocations per relayed packet: 0.
#[test]
fn relayed_packets_allocate_nothing() {
    let text = common::LOOPBACK.replace("[relay]", "[relay]\ntcp-relaying = true");
    let loaded = config::parse(&text, "heap.toml", &Host::detect().unwrap()).unwrap();
    let relay = Relay::start(loaded.settings).unwrap();
    let endpoint = |transport: Transport| {
        let mut of_ipv4 = relay.endpoints().iter().filter(|endpoint| endpoint.address.is_ipv4());
        of_ipv4.find(|endpoint| endpoint.transport == transport).unwrap().address
    };
    let server = endpoint(Transport::Udp);
    let (mut client, peer_socket) = (TurnClient::new(loopback_socket(), server), loopback_socket());
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

    // Over TCP; a few connections, as their two ends are on one worker or on two.
    for _ in 0..4 {
        let (_control, mut data, mut peer) = tcp_connection(endpoint(Transport::Tcp));
        stretches(&mut data, &mut peer);
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        stretches(&mut data, &mut peer);
        assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "over TCP");
    }

    let totals = relay.stop();
    assert_eq!(totals.to_peers.packets, 6 * PACKETS as u64);
    assert_eq!(totals.to_clients.packets, 6 * PACKETS as u64);
}
