//! Bursts: what is merged on the way in or out arrives as it was sent, byte for byte, in order, on the fast path as on the portable
//! one. Random sizes and interleavings; the fast path must really have merged.

#![allow(unsafe_code)] // merged sends and receives have no safe interface

mod common;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use common::{
    LOOPBACK, Server,
    client::{TurnClient, channel_data, loopback_socket},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turnserver::stun::ChannelNumber;

/// Flows of one client socket: peers with a channel each.
const FLOWS: usize = 3;
const CASES: usize = 300;

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Sends datagrams of equal length (the last may be shorter) as one merged datagram.
fn send_merged(socket: &UdpSocket, datagrams: &[Vec<u8>], to: SocketAddr) {
    set(socket, libc::UDP_SEGMENT, datagrams[0].len() as libc::c_int);
    socket.send_to(&datagrams.concat(), to).expect("a merged send");
    set(socket, libc::UDP_SEGMENT, 0);
}

/// Receives one datagram, or several merged ones; returns them with their source.
fn receive(socket: &UdpSocket) -> (SocketAddr, Vec<Vec<u8>>) {
    let mut bytes = vec![0u8; 65_536];
    let mut control = [0u64; 8];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid value of both structures.
    let (mut name, mut header): (libc::sockaddr_in, libc::msghdr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of_val(&name) as u32;
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to locals that outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let len = usize::try_from(len).unwrap_or_else(|_| panic!("nothing came: {}", io::Error::last_os_error()));
    // SAFETY: the kernel has filled the control data that the header points to.
    let each = unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        if message.is_null() || ((*message).cmsg_level, (*message).cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
            len.max(1)
        } else {
            libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() as usize
        }
    };
    let source = SocketAddr::from((name.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.sin_port)));
    let datagrams = if len == 0 { vec![Vec::new()] } else { bytes[..len].chunks(each).map(<[u8]>::to_vec).collect() };
    (source, datagrams)
}

/// Receives until `count` datagrams have come; returns them by source in order, and the longest run that came merged.
fn receive_all(socket: &UdpSocket, count: usize) -> (Vec<(SocketAddr, Vec<u8>)>, usize) {
    let (mut all, mut merged) = (Vec::new(), 0);
    while all.len() < count {
        let (source, datagrams) = receive(socket);
        merged = merged.max(datagrams.len());
        all.extend(datagrams.into_iter().map(|datagram| (source, datagram)));
    }
    assert_eq!(all.len(), count);
    (all, merged)
}

/// A run for one flow: so many datagrams of one size, the last perhaps shorter.
struct Burst {
    flow: usize,
    payloads: Vec<Vec<u8>>,
}

fn bursts(rng: &mut StdRng) -> Vec<Burst> {
    let count = rng.random_range(1..6);
    let burst = |rng: &mut StdRng| {
        let size = *[1usize, 2, 3, 4, 160, 161, 999, 1200, 1400].get(rng.random_range(0..9)).unwrap();
        let datagrams = rng.random_range(1..30);
        let mut payloads: Vec<Vec<u8>> = (0..datagrams).map(|_| vec![rng.random(); size]).collect();
        // Channel data of 4 bytes and more; a shorter last one ends a run.
        if rng.random() {
            payloads.last_mut().unwrap().truncate(rng.random_range(0..=size));
        }
        Burst { flow: rng.random_range(0..FLOWS), payloads }
    };
    (0..count).map(|_| burst(rng)).collect()
}

/// Sends random bursts both ways; returns the longest runs that reached the peers and the client merged.
fn exercise(udp_io: &str) -> (usize, usize) {
    let configuration = LOOPBACK.replace("workers = 2", &format!("workers = 1\nudp-io = \"{udp_io}\""));
    let server = Server::start(&configuration);
    let mut client = TurnClient::new(loopback_socket(), server.ipv4("udp"));
    let relayed = client.allocate();
    let peers: Vec<UdpSocket> = (0..FLOWS).map(|_| loopback_socket()).collect();
    let channel = |flow: usize| ChannelNumber(0x4000 + flow as u16);
    for (flow, peer) in peers.iter().enumerate() {
        client.bind(channel(flow), peer.local_addr().unwrap());
        set(peer, libc::UDP_GRO, 1);
    }
    set(&client.socket, libc::UDP_GRO, 1);

    let mut rng = StdRng::seed_from_u64(7);
    let (mut merged_up, mut merged_down) = (0, 0);
    for case in 0..CASES {
        let bursts = bursts(&mut rng);
        let total: usize = bursts.iter().map(|burst| burst.payloads.len()).sum();
        // Up: merged from the client's socket.
        for burst in &bursts {
            let messages: Vec<_> = burst.payloads.iter().map(|data| channel_data(channel(burst.flow), data)).collect();
            send_merged(&client.socket, &messages, client.server);
        }
        for (flow, peer) in peers.iter().enumerate() {
            let sent: Vec<_> =
                bursts.iter().filter(|burst| burst.flow == flow).flat_map(|burst| burst.payloads.clone()).collect();
            let (got, merged) = receive_all(peer, sent.len());
            merged_up = merged_up.max(merged);
            assert!(got.iter().all(|(source, _)| *source == relayed));
            assert!(got.into_iter().map(|(_, data)| data).eq(sent), "case {case}, flow {flow}, up");
        }
        // Down: merged from the peers' sockets; an empty datagram cannot be part of a merged one.
        for burst in &bursts {
            let whole: Vec<_> = burst.payloads.iter().filter(|data| !data.is_empty()).cloned().collect();
            if !whole.is_empty() {
                send_merged(&peers[burst.flow], &whole, relayed);
            }
            if whole.len() < burst.payloads.len() {
                peers[burst.flow].send_to(&[], relayed).unwrap();
            }
        }
        let (got, merged) = receive_all(&client.socket, total);
        merged_down = merged_down.max(merged);
        for flow in 0..FLOWS {
            let sent = bursts.iter().filter(|burst| burst.flow == flow).flat_map(|burst| &burst.payloads);
            let number = channel(flow).0.to_be_bytes();
            let got = got.iter().filter(|(_, message)| message[..2] == number).map(|(_, message)| message);
            assert!(
                got.eq(&sent.map(|data| channel_data(channel(flow), data)).collect::<Vec<_>>()),
                "case {case}, down"
            );
        }
    }
    (merged_up, merged_down)
}

#[test]
fn bursts_are_merged_and_arrive_as_sent() {
    let (up, down) = exercise("auto");
    eprintln!("longest merged runs: {up} to a peer, {down} to the client");
    assert!(up > 8 && down > 8, "the fast path merges: {up}, {down}");
}

#[test]
fn without_merging_the_same_is_relayed() {
    for udp_io in ["batched", "portable"] {
        assert_eq!(exercise(udp_io), (1, 1), "{udp_io}");
    }
}
