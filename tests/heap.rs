//! A relayed packet costs no heap allocation: measured with a counting allocator over a whole server in this process.
//!
//! One test only in this file: the count is the process's.

#![allow(unsafe_code)] // an allocator cannot be written without

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
};

use common::client::{TurnClient, channel_data, loopback_socket};
use turnserver::{
    config::{self, Host},
    relay::Relay,
    stun::ChannelNumber,
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

/// Design §4: user-space heap allocations per relayed packet: 0.
#[test]
fn relayed_packets_allocate_nothing() {
    let loaded = config::parse(common::LOOPBACK, "heap.toml", &Host::detect().unwrap()).unwrap();
    let relay = Relay::start(loaded.settings).unwrap();
    let is_udp =
        |endpoint: &&turnserver::relay::Endpoint| endpoint.transport == Transport::Udp && endpoint.address.is_ipv4();
    let server = relay.endpoints().iter().find(is_udp).unwrap().address;
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

    let totals = relay.stop().totals;
    assert_eq!(totals.to_peers.packets, 6 * PACKETS as u64);
    assert_eq!(totals.to_clients.packets, 6 * PACKETS as u64);
}
