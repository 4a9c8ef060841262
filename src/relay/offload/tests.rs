//! The program against the codec of user space: random packets and tables, run by the kernel itself (BPF_PROG_TEST_RUN). Needs root
//! and iproute2.

#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{
    kernel::{Kernel, Relayed},
    layout::{Channel, Count, Door, DoorKey, Interface, PORT_LISTENER, PORT_RELAY, Ports},
    privileges,
};
use crate::stun::{ChannelData, ChannelNumber};

const PASS: u32 = 2;
const REDIRECT: u32 = 4;

/// The address of the interface that packets come in by, and of those that they leave by; of the next hops.
const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUT: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
const HOP: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// The VLAN that the second interface stands for.
const VLAN: u16 = 77;
/// The VLAN in which packets may come in, besides those without a tag.
const VLAN_IN: u16 = 5;

/// Where clients and peers live: behind the first and the second interface.
const NETS: [[&str; 2]; 2] = [["198.51.100.", "203.0.113."], ["2001:db8:a::", "2001:db8:b::"]];

const LISTENER: u16 = 3478;
const RELAY_PORTS: std::ops::Range<u16> = 50_000..50_020;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip of iproute2");
    assert!(status.success(), "ip {arguments}: {status}");
}

/// Runs `test` where there are two interfaces, and hosts behind them whose addresses are known.
fn in_network(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: no pointers are passed; only the namespace of the calling thread changes.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace (needs root): {}", std::io::Error::last_os_error());
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        ip("link set lo up");
        for (at, out) in OUT.into_iter().enumerate() {
            ip(&format!("link add out{at} address {} type veth peer name far{at}", mac(out)));
            ip(&format!("link set far{at} up"));
            ip(&format!("link set out{at} up"));
            for [prefix, len] in [[NETS[0][at], "24"], [NETS[1][at], "64"]] {
                let nodad = if len == "64" { " nodad" } else { "" };
                ip(&format!("address add {prefix}1/{len} dev out{at}{nodad}"));
                for host in 2..8 {
                    ip(&format!("neighbour add {prefix}{host} lladdr {} dev out{at} nud permanent", mac(HOP)));
                }
            }
        }
        for family in ["ipv4", "ipv6"] {
            fs::write(format!("/proc/sys/net/{family}/conf/lo/forwarding"), "1").unwrap();
        }
        test();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn index(name: &str) -> u32 {
    crate::relay::system::interface_index(name).unwrap()
}

/// The program, ready to run.
fn program(channels: u32) -> (Kernel, OwnedFd) {
    let mut kernel = Kernel::load(channels).unwrap();
    let mut ports = Box::new(Ports([0; 65_536]));
    ports.0[usize::from(LISTENER)] = PORT_LISTENER;
    for port in RELAY_PORTS {
        ports.0[usize::from(port)] |= PORT_RELAY;
    }
    // One that is both.
    ports.0[usize::from(RELAY_PORTS.start)] |= PORT_LISTENER;
    kernel.set_ports(&ports).unwrap();
    for vlan in [0, VLAN_IN] {
        let key = DoorKey { device: 1, vlan, reserved: 0 };
        kernel.set_door(&key, &Door { mac: HERE, mode: 0, reserved: 0 }).unwrap();
    }
    for (name, vlan) in [("out0", 0), ("out1", VLAN)] {
        let device = index(name);
        kernel.set_interface(device, &Interface { device, vlan, mode: 0, reserved: 0 }).unwrap();
    }
    let descriptor = kernel.descriptor();
    (kernel, descriptor)
}

/// What the program makes of a frame.
fn run(program: &OwnedFd, frame: &[u8]) -> (u32, Vec<u8>) {
    run_behind(program, 0, frame)
}

/// What the program makes of a frame whose first bytes are what another program has put before it.
fn run_behind(program: &OwnedFd, before: u32, frame: &[u8]) -> (u32, Vec<u8>) {
    /// bpf_attr of BPF_PROG_TEST_RUN.
    #[repr(C)]
    #[derive(Default)]
    struct Test {
        program: u32,
        verdict: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_in: u32,
        context_out: u32,
        context: [u64; 2],
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    const BPF_PROG_TEST_RUN: libc::c_long = 10;

    let mut out = vec![0; frame.len() + 256];
    // struct xdp_md: where the packet begins and ends, and what is before it.
    let context = [before, u32::try_from(frame.len()).unwrap(), 0, 0, 0, 0];
    let mut test = Test {
        context_in: size_of_val(&context) as u32,
        context: [context.as_ptr() as u64, 0],
        program: u32::try_from(program.as_raw_fd()).unwrap(),
        size_in: u32::try_from(frame.len()).unwrap(),
        size_out: u32::try_from(out.len()).unwrap(),
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..Test::default()
    };
    // SAFETY: the structure is what the kernel takes for this command; it and the buffers, whose sizes it says, outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut test, size_of::<Test>()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    out.truncate(test.size_out as usize);
    (test.verdict, out)
}

/// A datagram with its headers.
#[derive(Debug, Clone)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
    class: u8,
    hops: u8,
    checksum: Checksum,
    oddity: Oddity,
    /// With the priority of its frame.
    vlan: Option<u16>,
    /// Bytes behind the packet in the frame.
    trailer: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Right,
    None,
    /// Left to hardware.
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oddity {
    None,
    Options,
    FirstFragment,
    LaterFragment,
    ShortUdp,
    LongIp,
    /// The frame ends before the packet.
    CutShort,
    /// Of IPv4's header.
    WrongChecksum,
    OtherHost,
    Multicast,
    Tcp,
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Packet {
    /// All of it, from the addresses of Ethernet on.
    fn frame(&self, dest: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let mut len = u16::try_from(8 + self.payload.len()).unwrap();
        if self.oddity == Oddity::ShortUdp {
            len -= 1;
        }
        let head = |check: u16| {
            [self.from.port().to_be_bytes(), self.to.port().to_be_bytes(), len.to_be_bytes(), check.to_be_bytes()]
                .concat()
        };
        let addresses = [octets(self.from.ip()), octets(self.to.ip())].concat();
        let pseudo = [&addresses[..], &[0, 17], &len.to_be_bytes()].concat();
        let check = match self.checksum {
            Checksum::Right => match checksum(&[&pseudo, &head(0), &self.payload]) {
                0 => 0xFFFF,
                check => check,
            },
            Checksum::None => 0,
            Checksum::Partial => !checksum(&[&pseudo]),
        };
        let datagram = [head(check), self.payload.clone()].concat();
        let protocol = if self.oddity == Oddity::Tcp { 6 } else { 17 };
        let mut claimed = u16::try_from(datagram.len()).unwrap();
        if self.oddity == Oddity::LongIp {
            claimed += 1;
        }
        let (kind, header): (u16, Vec<u8>) = if self.from.is_ipv4() {
            let options = if self.oddity == Oddity::Options { &[1u8; 4][..] } else { &[] };
            let total = claimed + 20 + options.len() as u16;
            let fragment: [u8; 2] = match self.oddity {
                Oddity::FirstFragment => [0x20, 0],
                Oddity::LaterFragment => [0, 1],
                _ => [0x40, 0],
            };
            let mut header = vec![0x45 + options.len() as u8 / 4, self.class];
            header.extend(total.to_be_bytes());
            header.extend([0xAB, 0xCD]);
            header.extend(fragment);
            header.extend([self.hops, protocol, 0, 0]);
            header.extend(&addresses);
            header.extend(options);
            let check = checksum(&[&header]);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            if self.oddity == Oddity::WrongChecksum {
                header[11] ^= 1 << (self.class % 8);
            }
            (0x0800, header)
        } else {
            let mut header = (6 << 28 | u32::from(self.class) << 20 | 0x5_4321).to_be_bytes().to_vec();
            let fragment = matches!(self.oddity, Oddity::FirstFragment | Oddity::LaterFragment | Oddity::Options);
            let more: &[u8] = if fragment { &[protocol, 0, 0, 1, 0, 0, 0, 9] } else { &[] };
            header.extend((claimed + more.len() as u16).to_be_bytes());
            header.extend([if fragment { 44 } else { protocol }, self.hops]);
            header.extend(&addresses);
            header.extend(more);
            (0x86DD, header)
        };
        let dest = match self.oddity {
            Oddity::OtherHost => [2, 9, 9, 9, 9, 9],
            Oddity::Multicast => [0x33, 0x33, 0, 0, 0, 1],
            _ => dest,
        };
        let tag = self.vlan.map(|vlan| [0x8100u16.to_be_bytes(), vlan.to_be_bytes()].concat()).unwrap_or_default();
        let parts = [&dest[..], &source, &tag, &kind.to_be_bytes(), &header, &datagram, &vec![0xEE; self.trailer]];
        let mut frame = parts.concat();
        frame.truncate(frame.len() - usize::from(self.oddity == Oddity::CutShort));
        frame
    }
}

/// A channel in the table, and whether it has ended.
#[derive(Debug, Clone, Copy)]
struct Entry {
    channel: Channel,
    alive: bool,
}

impl Entry {
    /// By the wire comes nothing that is from a relayed address of this server: the stack would not take it.
    fn is_from_peer(&self, packet: &Packet) -> bool {
        self.alive && !self.channel.hairpin && (self.channel.peer, self.channel.relay) == (packet.from, packet.to)
    }
}

/// What user space does with a packet, if nothing but ChannelData and peers' data in channels comes: by the codec, and by looking
/// through all channels.
fn served(table: &[Entry], packet: &Packet) -> Option<Packet> {
    let inside = |from, to| table.iter().find(|e| e.alive && (e.channel.peer, e.channel.relay) == (from, to));
    let to_client = |entry: &Entry, data: &[u8]| {
        let Channel { number, server, client, .. } = entry.channel;
        let header = ChannelData { number, len: u16::try_from(data.len()).unwrap() }.header();
        (server, client, [&header, data].concat())
    };
    let (from, to, payload) = if let Some(entry) = table.iter().find(|entry| entry.is_from_peer(packet)) {
        to_client(entry, &packet.payload)
    } else {
        let message = ChannelData::parse(&packet.payload)?;
        let way = |e: &&Entry| {
            e.alive
                && (e.channel.client, e.channel.server, e.channel.number) == (packet.from, packet.to, message.number)
        };
        let Channel { relay, peer, hairpin, .. } = table.iter().find(way)?.channel;
        let data = &packet.payload[4..4 + usize::from(message.len)];
        if hairpin { to_client(inside(relay, peer)?, data) } else { (relay, peer, data.to_vec()) }
    };
    Some(Packet { from, to, payload, hops: packet.hops - 1, ..packet.clone() })
}

/// What the program should do: pass it up where it is unusual, and serve it as user space does otherwise.
fn expected(table: &[Entry], packet: &Packet) -> Option<Packet> {
    let exact =
        ChannelData::parse(&packet.payload).is_none_or(|message| 4 + usize::from(message.len) == packet.payload.len());
    let to_listener = packet.to.port() == LISTENER || packet.to.port() == RELAY_PORTS.start;
    let from_peer = table.iter().any(|entry| entry.is_from_peer(packet));
    let enters = [0, VLAN_IN].contains(&(packet.vlan.unwrap_or(0) & 0xFFF));
    if packet.oddity != Oddity::None || !enters || packet.hops <= 1 || to_listener && !from_peer && !exact {
        return None;
    }
    let out = served(table, packet)?;
    let summed = match packet.checksum {
        Checksum::Right => true,
        Checksum::None => packet.from.is_ipv4() && out.from.is_ipv4(),
        Checksum::Partial => false,
    };
    let header = if out.to.is_ipv4() { 28 } else { 48 };
    (summed && header + out.payload.len() <= 1500).then_some(out)
}

/// The frame with which a packet should leave. IPv4's identification and the sum over it are left out.
fn leaving(packet: &Packet) -> Vec<u8> {
    let at = usize::from(NETS.iter().any(|nets| packet.to.ip().to_string().starts_with(nets[1])));
    let out = Packet { vlan: (at == 1).then_some(VLAN), ..packet.clone() };
    let mut frame = out.frame(HOP, OUT[at]);
    let network = if at == 1 { 18 } else { 14 };
    if packet.from.is_ipv4() {
        frame[network + 6] = 0;
        frame[network + 4..network + 6].fill(0);
        frame[network + 10..network + 12].fill(0);
    } else {
        frame[network + 1] &= 0xF0;
        frame[network + 2..network + 4].fill(0);
    }
    frame
}

/// The same of what has come out, whose header must be summed up right.
fn without_identification(mut frame: Vec<u8>) -> Vec<u8> {
    let network = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    if frame[network] == 0x45 {
        assert_eq!(checksum(&[&frame[network..network + 20]]), 0, "the sum over the header");
        frame[network + 4..network + 6].fill(0);
        frame[network + 10..network + 12].fill(0);
    }
    frame
}

fn host(rng: &mut StdRng) -> IpAddr {
    let net = NETS[rng.random_range(0..2)][rng.random_range(0..2)];
    format!("{net}{}", rng.random_range(2..5)).parse().unwrap()
}

fn here(rng: &mut StdRng, ipv4: bool) -> IpAddr {
    format!("{}1", NETS[usize::from(!ipv4)][rng.random_range(0..2)]).parse().unwrap()
}

fn relayed(rng: &mut StdRng, ipv4: bool) -> SocketAddr {
    SocketAddr::new(here(rng, ipv4), rng.random_range(RELAY_PORTS))
}

/// A table in which addresses and numbers recur as far as they may.
fn table(rng: &mut StdRng) -> Vec<Entry> {
    let (mut up, mut down) = (BTreeSet::new(), BTreeSet::new());
    let mut table = Vec::new();
    for _ in 0..rng.random_range(0..12) {
        let client = SocketAddr::new(host(rng), rng.random_range(4_000..4_003));
        let port = if rng.random_ratio(1, 8) { RELAY_PORTS.start } else { LISTENER };
        let server = SocketAddr::new(here(rng, client.is_ipv4()), port);
        let ipv4 = rng.random();
        let relay = relayed(rng, ipv4);
        let hairpin = rng.random_ratio(1, 3);
        let mut peer =
            if hairpin { relayed(rng, ipv4) } else { SocketAddr::new(host(rng), rng.random_range(6_000..6_003)) };
        if peer.is_ipv4() != ipv4 {
            peer = relayed(rng, ipv4);
        }
        let hairpin = RELAY_PORTS.contains(&peer.port());
        let number = ChannelNumber(rng.random_range(0x4000..0x4003));
        let channel = Channel { number, client, server, relay, peer, hairpin };
        if up.insert((client, server, number)) && down.insert((peer, relay)) {
            table.push(Entry { channel, alive: rng.random_ratio(7, 8) });
            // The other half of a call.
            let back = Channel { client: SocketAddr::new(host(rng), 4_010), relay: peer, peer: relay, ..channel };
            let back = Channel { server: SocketAddr::new(here(rng, back.client.is_ipv4()), LISTENER), ..back };
            if hairpin && up.insert((back.client, back.server, number)) && down.insert((back.peer, back.relay)) {
                table.push(Entry { channel: back, alive: rng.random_ratio(7, 8) });
            }
        }
    }
    table
}

/// A packet, mostly one that belongs to the table and mostly an ordinary one.
fn packet(rng: &mut StdRng, table: &[Entry]) -> Packet {
    let mut data =
        vec![
            0;
            *[0, 1, 2, 7, 160, 1_199, 1_440, 1_451, 1_452, 1_464, 1_468, 1_472].get(rng.random_range(0..12)).unwrap()
        ];
    rng.fill_bytes(&mut data);
    let number = ChannelNumber(rng.random_range(0x4000..0x4004));
    let (mut from, mut to) = (SocketAddr::new(host(rng), 4_000), SocketAddr::new(here(rng, true), LISTENER));
    if from.is_ipv4() != to.is_ipv4() {
        to.set_ip(here(rng, from.is_ipv4()));
    }
    let mut header = Some(ChannelData { number, len: data.len() as u16 }.header());
    if !table.is_empty() && rng.random_ratio(9, 10) {
        let channel = table[rng.random_range(0..table.len())].channel;
        if rng.random() {
            (from, to) = (channel.client, channel.server);
            header = Some(ChannelData { number: channel.number, len: data.len() as u16 }.header());
        } else {
            (from, to) = (channel.peer, channel.relay);
            header = None;
        }
    }
    if rng.random_ratio(1, 12) {
        // A length that is not the data's, or no ChannelData at all.
        header = header.map(|mut header| {
            header[rng.random_range(0..4)] ^= 1 << rng.random_range(0..8);
            header
        });
    }
    if header.is_some() {
        data.truncate(1_468);
        let len = data.len() as u16;
        if let Some(header) = header.as_mut().filter(|header| header[2..4] > len.to_be_bytes()[..] && header[2] < 8) {
            header[2..4].copy_from_slice(&len.to_be_bytes());
        }
    }
    if !from.is_ipv4() {
        data.truncate(1_448);
        if let Some(header) = &mut header {
            header[2..4].copy_from_slice(&(data.len() as u16).to_be_bytes());
        }
    }
    let oddities: [Oddity; 10] = [
        Oddity::Options,
        Oddity::FirstFragment,
        Oddity::LaterFragment,
        Oddity::ShortUdp,
        Oddity::LongIp,
        Oddity::CutShort,
        if from.is_ipv4() { Oddity::WrongChecksum } else { Oddity::CutShort },
        Oddity::OtherHost,
        Oddity::Multicast,
        Oddity::Tcp,
    ];
    let checksum = match rng.random_range(0..12) {
        0 | 1 => Checksum::None,
        2 => Checksum::Partial,
        _ => Checksum::Right,
    };
    let oddity = if rng.random_ratio(1, 12) { oddities[rng.random_range(0..10)] } else { Oddity::None };
    let vlan = rng.random_ratio(1, 4).then(|| {
        let number = [0, VLAN_IN, VLAN, rng.random_range(1..4_095)][rng.random_range(0..4)];
        number | rng.random_range(0..16) << 12
    });
    Packet {
        from,
        to,
        payload: [header.as_ref().map_or(&[][..], |header| &header[..]), &data].concat(),
        class: rng.random(),
        hops: if rng.random_ratio(1, 16) { rng.random_range(0..2) } else { rng.random_range(2..=255) },
        checksum,
        oddity,
        vlan,
        trailer: if oddity == Oddity::None && rng.random_ratio(1, 4) { rng.random_range(0..20) } else { 0 },
    }
}

/// 8656-12.4-01, -12.5-01, -12.6-03, -12.6-04, -12.6-06, -12.6-07, 8656-13-01, 8656-14-01, -02, -04
#[test]
fn what_the_program_does_is_what_user_space_does_or_nothing() {
    in_network(|| {
        let (kernel, program) = program(16_384);
        let mut rng = StdRng::seed_from_u64(8656);
        let (mut relayed, mut passed, mut hairpins, mut translated) = (0, 0, 0, 0);
        for _ in 0..400 {
            let table = table(&mut rng);
            let now = privileges::monotonic();
            let (later, ago) = (now + Duration::from_secs(60), now.checked_sub(Duration::from_millis(50)).unwrap());
            let deadline = |entry: &Entry| if entry.alive { later } else { ago };
            let mut put: Vec<Relayed> =
                table.iter().map(|entry| kernel.put(&entry.channel, deadline(entry)).unwrap().0).collect();
            let mut sums = vec![[Count::default(); 2]; table.len()];
            for _ in 0..60 {
                let packet = packet(&mut rng, &table);
                let frame = packet.frame(HERE, HOP);
                let (verdict, out) = run(&program, &frame);
                let Some(expected) = expected(&table, &packet) else {
                    assert_eq!(verdict, PASS, "{packet:?}\n{table:#?}");
                    assert_eq!(out, frame, "changed, though passed up");
                    passed += 1;
                    continue;
                };
                assert_eq!(verdict, REDIRECT, "{packet:?}\n{table:#?}\n{:?}", kernel.events());
                let (got, wanted) = (without_identification(out), leaving(&expected));
                assert_eq!(got, wanted, "\n{packet:?}\n{expected:?}");
                relayed += 1;
                translated += u64::from(packet.from.is_ipv4() != expected.from.is_ipv4());
                hairpins += u64::from(count(&table, &packet, &mut sums));
            }
            for (relayed, sum) in put.iter_mut().zip(&sums) {
                assert_eq!(kernel.read(relayed), *sum, "what was counted");
            }
            put.into_iter().for_each(|relayed| kernel.abandon(relayed));
        }
        assert!(
            relayed > 4_500 && passed > 4_000 && hairpins > 500 && translated > 1_000,
            "{relayed} relayed, {passed} passed up, {hairpins} hairpins, {translated} between families"
        );
        assert_eq!(kernel.events().lost, 0);
        eprintln!("{relayed} relayed, {passed} passed up, {hairpins} hairpins, {translated} between families");
    });
}

/// Counts a packet where it should have been counted; whether it was for two channels.
fn count(table: &[Entry], packet: &Packet, sums: &mut [[Count; 2]]) -> bool {
    let received = table.iter().any(|entry| entry.is_from_peer(packet));
    let header = if received { 0 } else { 4 };
    let bytes = (packet.payload.len() - header) as u64;
    let mut add = |at: usize, direction: usize| {
        sums[at][direction].packets += 1;
        sums[at][direction].bytes += bytes;
    };
    let Some(at) = table.iter().position(|e| {
        let sent = e.channel.client == packet.from && e.channel.server == packet.to;
        if received {
            e.is_from_peer(packet)
        } else {
            e.alive && sent && packet.payload.starts_with(&e.channel.number.0.to_be_bytes())
        }
    }) else {
        panic!("nobody's: {packet:?}")
    };
    add(at, usize::from(received));
    let Channel { relay, peer, hairpin: crosses, .. } = table[at].channel;
    if !received && crosses {
        let other = table.iter().position(|e| e.alive && (e.channel.peer, e.channel.relay) == (relay, peer));
        add(other.expect("the other half"), 1);
    }
    !received && crosses
}

#[test]
fn a_deadline_ends_a_channel_without_anybody_doing_anything() {
    in_network(|| {
        let (kernel, program) = program(4);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let channel = Channel {
            number: ChannelNumber(0x4000),
            client: address("198.51.100.2:4000"),
            server: address("198.51.100.1:3478"),
            relay: address("203.0.113.1:50001"),
            peer: address("203.0.113.2:6000"),
            hairpin: false,
        };
        let packet = Packet {
            from: channel.client,
            to: channel.server,
            payload: b"\x40\x00\x00\x04data".to_vec(),
            class: 0,
            hops: 64,
            checksum: Checksum::Right,
            oddity: Oddity::None,
            vlan: None,
            trailer: 0,
        };
        let frame = packet.frame(HERE, HOP);
        let end = privileges::monotonic() + Duration::from_millis(300);
        let (mut relayed, _) = kernel.put(&channel, end).unwrap();
        let mut sent = 0;
        while run(&program, &frame).0 == REDIRECT {
            sent += 1;
            assert!(privileges::monotonic() < end + Duration::from_millis(50), "it has outlived its end");
        }
        assert!(privileges::monotonic() >= end, "it has ended early");
        assert_eq!(kernel.read(&mut relayed)[0], Count { packets: sent, bytes: 4 * sent });

        // A new deadline revives it, and its end is at once.
        kernel.set_deadline(&mut relayed, end + Duration::from_secs(60));
        assert_eq!(run(&program, &frame).0, REDIRECT);
        // What stands before it would be lost, or worse.
        let behind = [&[0xDA; 32][..], &frame].concat();
        assert_eq!(run_behind(&program, 32, &behind), (PASS, behind));
        assert_eq!(kernel.end(relayed)[0], Count { packets: 1, bytes: 4 });
        assert_eq!(run(&program, &frame), (PASS, frame));
    });
}

#[test]
fn two_capabilities_are_enough_to_load_it() {
    let thread = std::thread::spawn(|| {
        privileges::keep_nothing_else();
        Kernel::load(4).map(drop)
    });
    assert_eq!(thread.join().unwrap(), Ok(()));
}

#[test]
fn a_full_table_says_so_and_names_that_moved_on_are_not_taken_away() {
    in_network(|| {
        let (kernel, program) = program(2);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let channel = |number, peer| Channel {
            number: ChannelNumber(number),
            client: address("198.51.100.2:4000"),
            server: address("198.51.100.1:3478"),
            relay: address("203.0.113.1:50001"),
            peer: address(peer),
            hairpin: false,
        };
        let end = privileges::monotonic() + Duration::from_secs(60);
        let (old, _) = kernel.put(&channel(0x4000, "203.0.113.2:6000"), end).unwrap();
        // The same peer in another channel: what it sends now belongs to that one.
        let (new, _) = kernel.put(&channel(0x4001, "203.0.113.2:6000"), end).unwrap();
        assert!(kernel.put(&channel(0x4002, "203.0.113.3:6000"), end).is_none());
        kernel.abandon(old);
        let packet = Packet {
            from: address("203.0.113.2:6000"),
            to: address("203.0.113.1:50001"),
            payload: b"data".to_vec(),
            class: 0,
            hops: 64,
            checksum: Checksum::Right,
            oddity: Oddity::None,
            vlan: None,
            trailer: 0,
        };
        let (verdict, out) = run(&program, &packet.frame(HERE, HOP));
        assert_eq!((verdict, &out[42..]), (REDIRECT, &b"\x40\x01\x00\x04data"[..]));
        kernel.abandon(new);
    });
}
