//! The data path (RFC 8656 §11, §12): from a message to "this range, from this socket, to that address".
//!
//! Nothing here allocates or copies a payload. Lookups are one hash for the client's 5-tuple, or none for a relay socket
//! (which knows its allocation), then a binary search among the channels or permissions of that one allocation.

use std::{net::SocketAddr, ops::Range};

use rand::Rng;

use super::{Client, Drop, Family, Handle, RelayId, Server, Step, Time};
use crate::stun::{
    AttributeType, ChannelData, ChannelNumber, Class, Message, MessageWriter, Method, TransactionId, channel_data,
    padded,
};

/// Bytes that a message header to the client may need before the payload: a STUN header, XOR-PEER-ADDRESS of IPv6, the
/// header of DATA.
pub const HEADROOM: usize = 20 + 24 + 4;

/// A datagram to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPeer {
    /// The relay socket.
    pub relay: RelayId,
    /// The peer.
    pub peer: SocketAddr,
    /// Where the application data lie in the client's message.
    pub payload: Range<usize>,
    /// DONT-FRAGMENT was asked for and applies (RFC 8656 §14; not between families, §13).
    pub dont_fragment: bool,
}

/// A message to a client, whose payload stands where the peer's datagram was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToClient {
    /// The client.
    pub client: Client,
    /// Bytes of header, written to the end of the headroom.
    pub header_len: usize,
    /// Zero bytes to send after the payload, at most 3.
    pub padding: usize,
}

/// An ICMP error about a datagram that a relay socket sent (RFC 8656 §11.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMPv4 or ICMPv6 type, by the peer's family.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Next-hop MTU for "too big" errors.
    pub mtu: u32,
}

impl IcmpError {
    /// The ICMP attribute's value: 16 reserved bits, 7 of type, 9 of code, 32 of data (RFC 8656 §18.13). `None` for a type
    /// that is not forwarded (§11.5).
    fn encode(self, family: Family) -> Option<[u8; 8]> {
        let too_big = match (family, self.kind) {
            (Family::V4, 3) => self.code == 4,
            (Family::V6, 2) => true,
            (Family::V4, 11) | (Family::V6, 1 | 3) => false,
            _ => return None,
        };
        let kind_and_code = u16::from(self.kind) << 9 | u16::from(self.code);
        let data = if too_big { self.mtu } else { 0 };
        let mut value = [0; 8];
        value[2..4].copy_from_slice(&kind_and_code.to_be_bytes());
        value[4..].copy_from_slice(&data.to_be_bytes());
        Some(value)
    }
}

impl Server {
    /// ChannelData from a client (RFC 8656 §12.6).
    pub(super) fn channel_data<'m>(&mut self, client: &Client, bytes: &[u8], now: Time) -> Step<'m> {
        let Some(message) = ChannelData::parse(bytes) else { return self.drop(Drop::Malformed) };
        let Some(handle) = self.table.find(&client.tuple).or_else(|| self.arrive(client)) else {
            return self.stranger(client, now);
        };
        let allocation = &mut self.table[handle];
        let Some(peer) = allocation.channels.peer(message.number, now) else {
            allocation.history.unbound = allocation.history.unbound.saturating_add(1);
            return self.drop(Drop::NoChannel);
        };
        let Some(relayed) = allocation.relayed(Family::of(peer.ip()), now) else {
            return self.drop(Drop::NoAllocation);
        };
        let relay = relayed.relay;
        let len = usize::from(message.len);
        if let Some(meter) = &mut allocation.meter
            && let Err(reason) = meter.to_peer(len, now)
        {
            allocation.history.dropped_to(reason, peer.ip());
            return self.drop(reason);
        }
        allocation.to_peers.count(len);
        self.totals.to_peers.count(len);
        let payload = channel_data::HEADER_LEN..channel_data::HEADER_LEN + len;
        Step::ToPeer(ToPeer { relay, peer, payload, dont_fragment: false })
    }

    /// A Send indication (RFC 8656 §11.2). Every fault is silent.
    pub(super) fn send_indication<'m>(&mut self, client: &Client, message: &Message<'_>, now: Time) -> Step<'m> {
        let Some(handle) = self.table.find(&client.tuple).or_else(|| self.arrive(client)) else {
            return self.stranger(client, now);
        };
        let (Some(Ok(peer)), Some(data), Some(start), false) = (
            message.get_xor_address(AttributeType::XOR_PEER_ADDRESS),
            message.get(AttributeType::DATA),
            message.value_offset(AttributeType::DATA),
            message.has_unknown_required(),
        ) else {
            return self.drop(Drop::BadIndication);
        };
        let dont_fragment = message.has(AttributeType::DONT_FRAGMENT);
        if dont_fragment && !self.rules.dont_fragment {
            return self.drop(Drop::BadIndication);
        }
        let allocation = &mut self.table[handle];
        let family = Family::of(peer.ip());
        let Some(relayed) = allocation.relayed(family, now).filter(|_| allocation.connections.is_none()) else {
            return self.drop(Drop::BadIndication);
        };
        if !allocation.permissions.allow(peer.ip(), now) {
            allocation.history.dropped_to(Drop::NoPermission, peer.ip());
            return self.drop(Drop::NoPermission);
        }
        if peer.port() == 0 || !self.policy.permits(allocation.owner.realm, peer) {
            allocation.history.dropped_to(Drop::PeerRefused, peer.ip());
            return self.drop(Drop::PeerRefused);
        }
        let relay = relayed.relay;
        if let Some(meter) = &mut allocation.meter
            && let Err(reason) = meter.to_peer(data.len(), now)
        {
            allocation.history.dropped_to(reason, peer.ip());
            return self.drop(reason);
        }
        allocation.to_peers.count(data.len());
        self.totals.to_peers.count(data.len());
        let translated = !client.tuple.transport.is_stream() && family != Family::of(client.tuple.client.ip());
        let payload = start..start + data.len();
        Step::ToPeer(ToPeer { relay, peer, payload, dont_fragment: dont_fragment && !translated })
    }

    /// A datagram of `len` bytes from a peer to a relay socket of this allocation (RFC 8656 §11.3, §12.7). The header for the client is
    /// written to the end of `headroom`, just before where the payload stands. `None`: dropped and counted.
    pub fn from_peer(
        &mut self,
        handle: Handle,
        peer: SocketAddr,
        len: usize,
        headroom: &mut [u8; HEADROOM],
        now: Time,
    ) -> Option<ToClient> {
        let channel = match self.check_from_peer(handle, peer, len, now) {
            Ok(channel) => channel,
            Err(reason) => {
                self.totals.drop(reason);
                if let Some(allocation) = self.table.get_mut(handle) {
                    allocation.history.dropped_from(reason, peer.ip());
                }
                return None;
            }
        };
        let allocation = &mut self.table[handle];
        let client = allocation.client;
        let (header_len, padding) = match channel {
            Some(number) => {
                // `check_from_peer` has seen that the length fits 16 bits.
                let header = ChannelData { number, len: u16::try_from(len).unwrap_or(u16::MAX) }.header();
                headroom[HEADROOM - header.len()..].copy_from_slice(&header);
                (header.len(), if client.tuple.transport.is_stream() { padded(len) - len } else { 0 })
            }
            None => (data_header(&mut self.rng, peer, len, headroom)?, padded(len) - len),
        };
        allocation.to_client.count(len);
        self.totals.to_clients.count(len);
        Some(ToClient { client, header_len, padding })
    }

    /// The channel to use, if one is bound.
    fn check_from_peer(
        &mut self,
        handle: Handle,
        peer: SocketAddr,
        len: usize,
        now: Time,
    ) -> Result<Option<ChannelNumber>, Drop> {
        /// What a Data indication can hold beside XOR-PEER-ADDRESS, so that its length field does not overflow.
        const MAX_DATA: [usize; 2] = [65_535 - 3 - 12 - 4, 65_535 - 3 - 24 - 4];
        let allocation = self.table.get(handle).ok_or(Drop::NoAllocation)?;
        let family = Family::of(peer.ip());
        allocation.relayed(family, now).ok_or(Drop::NoAllocation)?;
        if allocation.away {
            return Err(Drop::ClientAway);
        }
        if !allocation.permissions.allow(peer.ip(), now) {
            return Err(Drop::NoPermission);
        }
        if !self.policy.permits(allocation.owner.realm, peer) {
            return Err(Drop::PeerRefused);
        }
        let channel = allocation.channels.number(peer, now);
        let limit = if channel.is_some() { usize::from(u16::MAX) } else { MAX_DATA[family as usize] };
        if len > limit {
            return Err(Drop::TooLong);
        }
        if allocation.meter.is_some()
            && let Some(meter) = &mut self.table[handle].meter
        {
            meter.to_client(len, now)?;
        }
        Ok(channel)
    }

    /// An ICMP error about a datagram to `peer` (RFC 8656 §11.5): writes a Data indication. `None`: dropped and counted.
    pub fn from_icmp(
        &mut self,
        handle: Handle,
        peer: SocketAddr,
        error: IcmpError,
        reply: &mut [u8],
        now: Time,
    ) -> Option<(Client, usize)> {
        if let Some(allocation) = self.table.get_mut(handle) {
            allocation.history.dropped_to(Drop::Icmp, peer.ip());
        }
        let client = self
            .table
            .get(handle)
            .filter(|allocation| !allocation.away && allocation.relayed(Family::of(peer.ip()), now).is_some())
            .filter(|allocation| allocation.permissions.allow(peer.ip(), now))
            .map(|allocation| allocation.client);
        let value = error.encode(Family::of(peer.ip()));
        let (Some(client), Some(value)) = (client, value) else {
            self.totals.drop(Drop::Icmp);
            return None;
        };
        let mut writer = MessageWriter::new(reply, Method::Data, Class::Indication, random_id(&mut self.rng));
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).attribute(AttributeType::ICMP, &value);
        writer.finish().ok().map(|len| (client, len))
    }
}

/// Writes everything of a Data indication that comes before the payload to the end of `headroom`; returns its length.
fn data_header(rng: &mut impl Rng, peer: SocketAddr, len: usize, headroom: &mut [u8; HEADROOM]) -> Option<usize> {
    let header_len = if peer.is_ipv4() { HEADROOM - 12 } else { HEADROOM };
    let place = &mut headroom[HEADROOM - header_len..];
    let mut writer = MessageWriter::new(place, Method::Data, Class::Indication, random_id(rng));
    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    writer.finish_before_value(AttributeType::DATA, len).ok()
}

/// An unpredictable transaction id (RFC 8489 §5).
pub(super) fn random_id(rng: &mut impl Rng) -> TransactionId {
    let mut id = TransactionId::default();
    rng.fill_bytes(&mut id.0);
    id
}
