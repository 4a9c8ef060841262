//! The entries of the program's tables, byte for byte as `bpf/relay.bpf.c` has them, and how a channel becomes two of them.

#![allow(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::stun::ChannelNumber;

/// What a port may be: a listener's.
pub(super) const PORT_LISTENER: u8 = 1;
/// A relayed address's.
pub(super) const PORT_RELAY: u8 = 2;

/// The destination is a relayed address of this server.
const FLOW_HAIRPIN: u8 = 1;
/// The source is one: nothing of this comes by the wire.
const FLOW_INSIDE: u8 = 2;

/// UDP's number (RFC 768).
const UDP: u16 = 17;

/// By port: what it may be.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Ports(pub(super) [u8; 65_536]);

/// A packet as it comes in. Numbers are in network order; an IPv4 address stands in the first four bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    src: [u8; 16],
    dst: [u8; 16],
    sport: [u8; 2],
    dport: [u8; 2],
    /// 0 for what peers send.
    channel: [u8; 2],
    version: u16,
}

/// What becomes of it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    /// Nanoseconds of CLOCK_MONOTONIC; 0 if it has ended.
    pub(super) deadline: u64,
    pub(super) key: FlowKey,
    src: [u8; 16],
    dst: [u8; 16],
    sport: [u8; 2],
    dport: [u8; 2],
    channel: [u8; 2],
    version: u8,
    flags: u8,
    pseudo: u16,
    delta: u16,
    reserved: u32,
}

/// What was relayed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// How an interface is reached.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interface {
    /// The index of what the program is attached to.
    pub(super) device: u32,
    /// 0 for none.
    pub(super) vlan: u16,
    pub(super) mode: u8,
    pub(super) reserved: u8,
}

/// Where packets come in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DoorKey {
    /// The index of what the program is attached to.
    pub(super) device: u32,
    /// That the packet's tag says; 0 for none.
    pub(super) vlan: u16,
    pub(super) reserved: u16,
}

/// The interface that stands there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door {
    pub(super) mac: [u8; 6],
    pub(super) mode: u8,
    pub(super) reserved: u8,
}

// SAFETY (of all seven): made of integers without padding, in C's layout: every bytes are a value, and all bytes have one.
unsafe impl aya::Pod for Ports {}
unsafe impl aya::Pod for FlowKey {}
unsafe impl aya::Pod for Flow {}
unsafe impl aya::Pod for Count {}
unsafe impl aya::Pod for Interface {}
unsafe impl aya::Pod for DoorKey {}
unsafe impl aya::Pod for Door {}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Flow>() == 8 + 40 + 32 + 8 + 8);
    assert!(size_of::<Interface>() == 8);
    assert!(size_of::<DoorKey>() == 8);
    assert!(size_of::<Door>() == 8);
};

/// A channel, in addresses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) number: ChannelNumber,
    pub(super) client: SocketAddr,
    /// The listener's address that the client sends to.
    pub(super) server: SocketAddr,
    /// The relay socket's.
    pub(super) relay: SocketAddr,
    pub(super) peer: SocketAddr,
    /// The peer is a relayed address of this server.
    pub(super) hairpin: bool,
}

impl Channel {
    /// What the client sends to the peer, and what the peer sends to the client. `deadline` is in nanoseconds.
    pub(super) fn flows(&self, deadline: u64) -> [Flow; 2] {
        let number = Some(self.number);
        let (outside, inside) = ((self.client, self.server), (self.relay, self.peer));
        let [there, back] = if self.hairpin { [FLOW_HAIRPIN, FLOW_INSIDE] } else { [0; 2] };
        let to_peer = flow(deadline, (outside, number), (inside, None), there);
        let to_client = flow(deadline, ((self.peer, self.relay), None), ((self.server, self.client), number), back);
        [to_peer, to_client]
    }
}

/// A source, a destination and the channel in which they speak, if any.
type Way = ((SocketAddr, SocketAddr), Option<ChannelNumber>);

fn flow(deadline: u64, (incoming, channel): Way, (outgoing, out_channel): Way, flags: u8) -> Flow {
    let version = |(source, _): (SocketAddr, SocketAddr)| if source.is_ipv4() { 4 } else { 6 };
    let number = |channel: Option<ChannelNumber>| channel.map_or([0; 2], |number| number.0.to_be_bytes());
    let (key_channel, channel) = (number(channel), number(out_channel));
    let (before, after) = (words(incoming), words(outgoing));
    let pseudo = addresses(incoming) + u64::from(UDP.to_be());
    // A sum in ones' complement is subtracted by adding its complement.
    let delta = after + sum(&channel) + u64::from(!fold(before + sum(&key_channel)));
    Flow {
        deadline,
        key: FlowKey {
            src: octets(incoming.0.ip()),
            dst: octets(incoming.1.ip()),
            sport: incoming.0.port().to_be_bytes(),
            dport: incoming.1.port().to_be_bytes(),
            channel: key_channel,
            version: version(incoming).into(),
        },
        src: octets(outgoing.0.ip()),
        dst: octets(outgoing.1.ip()),
        sport: outgoing.0.port().to_be_bytes(),
        dport: outgoing.1.port().to_be_bytes(),
        channel,
        version: version(outgoing),
        flags,
        pseudo: fold(pseudo),
        delta: fold(delta),
        reserved: 0,
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            octets
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The sum of addresses.
fn addresses((source, destination): (SocketAddr, SocketAddr)) -> u64 {
    sum(&octets(source.ip())) + sum(&octets(destination.ip()))
}

/// The sum of addresses and ports.
fn words(way: (SocketAddr, SocketAddr)) -> u64 {
    addresses(way) + sum(&way.0.port().to_be_bytes()) + sum(&way.1.port().to_be_bytes())
}

/// The sum of bytes as 16-bit words in the order that they have in memory, which is all the same to ones' complement (RFC 1071
/// §2).
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]]))).sum()
}

#[allow(clippy::cast_possible_truncation)] // after four rounds nothing is left above 16 bits
const fn fold(mut sum: u64) -> u16 {
    let mut round = 0;
    while round < 4 {
        sum = (sum & 0xFFFF) + (sum >> 16);
        round += 1;
    }
    sum as u16
}
