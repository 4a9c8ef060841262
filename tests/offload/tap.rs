//! A tap on what arrives at a host: IP packets with their headers, and whether their checksums are right.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::PATIENCE;

/// Shows the IP packets of one family that arrive in the network of the thread that has made it.
pub(crate) struct Tap {
    socket: Socket,
    ipv4: bool,
}

/// A UDP packet.
#[derive(Debug)]
pub(crate) struct Packet {
    /// TOS or traffic class.
    pub(crate) class: u8,
    /// TTL or hop limit.
    pub(crate) hops: u8,
    pub(crate) flow_label: u32,
    pub(crate) dont_fragment: bool,
    /// All checksums are.
    pub(crate) is_right: bool,
}

impl Tap {
    pub(crate) fn new(ipv4: bool) -> Self {
        let kind: u16 = if ipv4 { 0x0800 } else { 0x86DD };
        let protocol = Protocol::from(i32::from(kind.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket (needs root)");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        Self { socket, ipv4 }
    }

    /// The next packet to this port whose data end with `mark`.
    pub(crate) fn packet(&self, port: u16, mark: &[u8]) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < deadline {
            let Ok(len) = (&self.socket).read(&mut buffer) else { continue };
            let (header, addresses) = if self.ipv4 { (20, 12..20) } else { (40, 8..40) };
            let bytes = &buffer[..len];
            let protocol = if self.ipv4 { 9 } else { 6 };
            if len < header + 8 || bytes[protocol] != 17 || bytes[header + 2..header + 4] != port.to_be_bytes() {
                continue;
            }
            let datagram =
                &bytes[header..header + usize::from(u16::from_be_bytes([bytes[header + 4], bytes[header + 5]]))];
            if !datagram.ends_with(mark) {
                continue;
            }
            let pseudo = [&bytes[addresses], &[0, 17], &datagram[4..6]].concat();
            let first = u32::from_be_bytes(*bytes.first_chunk().expect("a header"));
            let is_right = sum(&[&pseudo, datagram]) == 0xFFFF && (!self.ipv4 || sum(&[&bytes[..20]]) == 0xFFFF);
            return Packet {
                class: (first >> if self.ipv4 { 16 } else { 20 }) as u8,
                hops: if self.ipv4 { bytes[8] } else { bytes[7] },
                flow_label: if self.ipv4 { 0 } else { first & 0xF_FFFF },
                dont_fragment: self.ipv4 && bytes[6] & 0x40 != 0,
                is_right,
            };
        }
        panic!("no packet to port {port}");
    }
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}
