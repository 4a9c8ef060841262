//! NAT discovery on two addresses and two ports (RFC 5780, RFC 3489 §8.1): which of the four an answer leaves from, which
//! port it goes to, how long it is.
//!
//! An answer goes to no other IP address than the request came from (no RESPONSE-ADDRESS), and has no more PADDING than the
//! request: who forges a source gains nothing that an ordinary Binding request would not give. RESPONSE-PORT together with
//! CHANGE-REQUEST is served for that reason: whoever can send from an address can have any of its ports answered as it is.

use std::net::{IpAddr, SocketAddr};

use super::{FiveTuple, REPLY_LEN, Transport};
use crate::stun::{AttributeType, Message, MessageWriter, message::Malformed};

/// The longest message that is sent: with the headers of IP and UDP it stays a datagram of less than 64 KiB in both families
/// (RFC 5780 §7.6).
pub(super) const LONGEST_REPLY: usize = u16::MAX as usize - 40 - 8;

/// The two addresses and two ports of one family. Both ports are served on both addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// Primary and alternate address.
    pub addresses: [DiscoveryAddress; 2],
    /// Primary and alternate port.
    pub ports: [u16; 2],
    /// Whether all four are served over TCP, too; they always are over UDP.
    pub tcp: bool,
}

/// One of the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscoveryAddress {
    /// The address of this host.
    pub local: IpAddr,
    /// What the world sees of it.
    pub external: IpAddr,
    /// MTU of its interface in bytes.
    pub mtu: usize,
}

/// One of the four places that a Binding request can be sent to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Corner {
    discovery: Discovery,
    /// Index of the address.
    address: usize,
    /// Index of the port.
    port: usize,
}

impl Corner {
    /// The place that a request was sent to; `None` if NAT discovery is not offered there.
    pub(super) fn of(tuple: &FiveTuple, offered: &[Discovery]) -> Option<Self> {
        let corner = offered.iter().find_map(|discovery| {
            let address = discovery.addresses.iter().position(|address| address.local == tuple.server.ip())?;
            let port = discovery.ports.iter().position(|port| *port == tuple.server.port())?;
            Some(Self { discovery: *discovery, address, port })
        })?;
        (tuple.transport == Transport::Udp || corner.discovery.tcp).then_some(corner)
    }

    /// The place that an answer leaves from (RFC 5780 §6.1, table 1).
    pub(super) const fn changed(self, address: bool, port: bool) -> Self {
        Self { address: self.address ^ address as usize, port: self.port ^ port as usize, ..self }
    }

    const fn ip(&self) -> DiscoveryAddress {
        self.discovery.addresses[self.address]
    }

    /// As the sockets here have it.
    pub(super) const fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip().local, self.discovery.ports[self.port])
    }

    /// As clients have it.
    const fn external(&self) -> SocketAddr {
        SocketAddr::new(self.ip().external, self.discovery.ports[self.port])
    }
}

/// The attributes that a Binding request may have at a place, besides those that it may have everywhere. All of them are about
/// UDP (RFC 5780 §3.2, §3.3, §3.5); RFC 3489 knows one of them.
pub(super) const fn understood(at: Option<&Corner>, transport: Transport, classic: bool) -> &'static [AttributeType] {
    match (at, transport) {
        (Some(_), Transport::Udp) if classic => &[AttributeType::CHANGE_REQUEST],
        (Some(_), Transport::Udp) => {
            &[AttributeType::CHANGE_REQUEST, AttributeType::PADDING, AttributeType::RESPONSE_PORT]
        }
        _ => &[],
    }
}

/// What a Binding request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) change_address: bool,
    pub(super) change_port: bool,
    /// The port to answer to.
    pub(super) response_port: Option<u16>,
    /// Length of the request's PADDING.
    padding: Option<usize>,
}

impl Wishes {
    /// Reads the attributes that are [`understood`]; of each the first counts.
    ///
    /// # Errors
    /// If one is malformed, or if PADDING and RESPONSE-PORT come together (RFC 5780 §6.1): to be answered with 400.
    pub(super) fn read(message: &Message<'_>) -> Result<Self, Malformed> {
        const CHANGE_ADDRESS: u8 = 0b100;
        const CHANGE_PORT: u8 = 0b010;
        if !message.has_unknown_required() {
            // Those attributes are unknown to the reader: there is none.
            return Ok(Self::default());
        }
        let first = |wanted| message.attributes().find(|(found, _)| *found == wanted).map(|(_, value)| value);
        let flags = match first(AttributeType::CHANGE_REQUEST) {
            None => 0,
            Some(&[_, _, _, flags]) => flags,
            Some(_) => return Err(Malformed),
        };
        let response_port = match first(AttributeType::RESPONSE_PORT) {
            None => None,
            // RFC 5780 §7.5 is not clear about whether the length counts the two bytes of padding. Nothing can be sent to
            // port 0, though it allows it.
            Some(&[high, low] | &[high, low, _, _]) if (high, low) != (0, 0) => Some(u16::from_be_bytes([high, low])),
            Some(_) => return Err(Malformed),
        };
        let padding = first(AttributeType::PADDING).map(<[u8]>::len);
        if padding.is_some() && response_port.is_some() {
            return Err(Malformed);
        }
        Ok(Self {
            change_address: flags & CHANGE_ADDRESS != 0,
            change_port: flags & CHANGE_PORT != 0,
            response_port,
            padding,
        })
    }

    /// The length of the response's PADDING: the outgoing MTU rounded up to a multiple of 4 (RFC 5780 §6.1), but no more than
    /// the request has, so that nobody has more bytes sent than he sends; and no more than there is room for.
    fn padding(&self, origin: &Corner, reply_len: usize) -> Option<usize> {
        let room = reply_len.saturating_sub(REPLY_LEN) / 4 * 4;
        self.padding.map(|asked| asked.min(origin.ip().mtu).next_multiple_of(4).min(room))
    }

    /// Adds what tells the client where the answer comes from and where else to ask, and PADDING.
    pub(super) fn write(
        &self,
        writer: &mut MessageWriter<'_>,
        (asked, origin): (&Corner, &Corner),
        classic: bool,
        reply_len: usize,
    ) {
        let other = asked.changed(true, true).external();
        if classic {
            writer.address(AttributeType::SOURCE_ADDRESS, origin.external());
            writer.address(AttributeType::CHANGED_ADDRESS, other);
        } else {
            writer.address(AttributeType::RESPONSE_ORIGIN, origin.external());
            writer.address(AttributeType::OTHER_ADDRESS, other);
        }
        if let Some(len) = self.padding(origin, reply_len) {
            writer.zeros(AttributeType::PADDING, len);
        }
    }
}
