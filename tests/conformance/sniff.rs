//! IP headers: a tap on the loopback interface, and datagrams with a header of one's own making.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::client::PATIENCE;

/// Shows the IP packets that arrive on this host's interfaces.
pub(crate) struct Tap(Socket);

/// A UDP packet with what its IP header says.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// TOS or traffic class.
    pub(crate) class: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// DF; `false` for IPv6.
    pub(crate) dont_fragment: bool,
    pub(crate) flow_label: u32,
    pub(crate) has_options: bool,
    from_port: u16,
    to_port: u16,
    data: Vec<u8>,
}

impl Packet {
    pub(crate) const fn ecn(&self) -> u8 {
        self.class & 3
    }

    pub(crate) const fn dscp(&self) -> u8 {
        self.class >> 2
    }
}

impl Tap {
    pub(crate) fn new(ipv4: bool) -> Self {
        let ethernet_type: u16 = if ipv4 { 0x0800 } else { 0x86DD };
        let protocol = Protocol::from(i32::from(ethernet_type.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket (needs root)");
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self(socket)
    }

    /// The next UDP packet to this port whose data end with `mark`.
    pub(crate) fn packet(&self, to_port: u16, mark: &[u8]) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < deadline {
            let Ok(length) = (&self.0).read(&mut buffer) else { continue };
            if let Some(packet) = parse(&buffer[..length]).filter(|packet| packet.to_port == to_port)
                && packet.data.ends_with(mark)
            {
                assert_ne!(packet.from_port, 0);
                return packet;
            }
        }
        panic!("no packet to port {to_port}");
    }
}

fn parse(bytes: &[u8]) -> Option<Packet> {
    let (header, class, ttl, dont_fragment, flow_label) = match bytes.first()? >> 4 {
        4 => (usize::from(bytes[0] & 15) * 4, bytes[1], *bytes.get(8)?, bytes[6] & 0x40 != 0, 0),
        6 => {
            let first = u32::from_be_bytes(*bytes.first_chunk()?);
            (40, (first >> 20) as u8, *bytes.get(7)?, false, first & 0xF_FFFF)
        }
        _ => return None,
    };
    let protocol = if header == 40 { bytes[6] } else { *bytes.get(9)? };
    let udp = bytes.get(header..).filter(|udp| protocol == 17 && udp.len() >= 8)?;
    Some(Packet {
        class,
        ttl,
        dont_fragment,
        flow_label,
        has_options: bytes[0] >> 4 == 4 && header > 20,
        from_port: u16::from_be_bytes([udp[0], udp[1]]),
        to_port: u16::from_be_bytes([udp[2], udp[3]]),
        data: udp[8..].to_vec(),
    })
}

/// Sends a UDP datagram over IPv4 with these header fields.
pub(crate) fn forge(from: SocketAddr, to: SocketAddr, data: &[u8], class: u8, ttl: u8, dont_fragment: bool) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let udp = udp_datagram(from.port(), to.port(), data);
    let mut packet = ipv4_header(*from.ip(), *to.ip(), udp.len(), 17);
    (packet[1], packet[8]) = (class, ttl);
    packet[6] = if dont_fragment { 0x40 } else { 0 };
    packet.extend(udp);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("a raw socket (needs root)");
    socket.set_header_included_v4(true).unwrap();
    socket.send_to(&packet, &SocketAddr::V4(SocketAddrV4::new(*to.ip(), 0)).into()).unwrap();
}

/// A UDP datagram without a checksum, which IPv4 allows.
pub(crate) fn udp_datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 8).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], data].concat()
}

/// An IPv4 header; the system fills in the checksum and the identification of what it sends.
pub(crate) fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, payload: usize, protocol: u8) -> Vec<u8> {
    let length = u16::try_from(20 + payload).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}
