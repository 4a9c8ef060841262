//! The wire, written a second time: the tests judge the server by this reading of RFC 8489 and RFC 8656, not by the
//! codec under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;

pub(crate) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const SEND: u16 = 0x006;
pub(crate) const DATA_METHOD: u16 = 0x007;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
pub(crate) const CONNECT: u16 = 0x00A;
pub(crate) const CONNECTION_BIND: u16 = 0x00B;
pub(crate) const CONNECTION_ATTEMPT: u16 = 0x00C;

pub(crate) const INDICATION: u16 = 0x010;
pub(crate) const SUCCESS: u16 = 0x100;
pub(crate) const ERROR: u16 = 0x110;

pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
pub(crate) const RESPONSE_ADDRESS: u16 = 0x0002;
pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
pub(crate) const SOURCE_ADDRESS: u16 = 0x0004;
pub(crate) const CHANGED_ADDRESS: u16 = 0x0005;
pub(crate) const USERNAME: u16 = 0x0006;
pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(crate) const ERROR_CODE: u16 = 0x0009;
pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
pub(crate) const CHANNEL_NUMBER: u16 = 0x000C;
pub(crate) const LIFETIME: u16 = 0x000D;
pub(crate) const XOR_PEER_ADDRESS: u16 = 0x0012;
pub(crate) const DATA: u16 = 0x0013;
pub(crate) const REALM: u16 = 0x0014;
pub(crate) const NONCE: u16 = 0x0015;
pub(crate) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub(crate) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
pub(crate) const EVEN_PORT: u16 = 0x0018;
pub(crate) const REQUESTED_TRANSPORT: u16 = 0x0019;
pub(crate) const ACCESS_TOKEN: u16 = 0x001B;
pub(crate) const DONT_FRAGMENT: u16 = 0x001A;
pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
pub(crate) const PASSWORD_ALGORITHM: u16 = 0x001D;
pub(crate) const USERHASH: u16 = 0x001E;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(crate) const RESERVATION_TOKEN: u16 = 0x0022;
pub(crate) const PADDING: u16 = 0x0026;
pub(crate) const RESPONSE_PORT: u16 = 0x0027;
pub(crate) const CONNECTION_ID: u16 = 0x002A;
pub(crate) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
pub(crate) const ADDRESS_ERROR_CODE: u16 = 0x8001;
pub(crate) const PASSWORD_ALGORITHMS: u16 = 0x8002;
pub(crate) const ALTERNATE_DOMAIN: u16 = 0x8003;
pub(crate) const ICMP: u16 = 0x8004;
pub(crate) const SOFTWARE: u16 = 0x8022;
pub(crate) const ALTERNATE_SERVER: u16 = 0x8023;
pub(crate) const FINGERPRINT: u16 = 0x8028;
pub(crate) const RESPONSE_ORIGIN: u16 = 0x802B;
pub(crate) const OTHER_ADDRESS: u16 = 0x802C;
pub(crate) const THIRD_PARTY_AUTHORIZATION: u16 = 0x802E;
pub(crate) const MOBILITY_TICKET: u16 = 0x8030;

pub(crate) type TransactionId = [u8; 12];

/// A transaction id that no other message of this test run has.
pub(crate) fn fresh_id() -> TransactionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 12];
    id[..4].copy_from_slice(&std::process::id().to_be_bytes());
    id[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    id
}

/// A message being built; its length field is right at any time.
#[derive(Clone)]
pub(crate) struct Msg(pub(crate) Vec<u8>);

impl Msg {
    pub(crate) fn new(kind: u16) -> Self {
        Self::with_id(kind, fresh_id())
    }

    pub(crate) fn with_id(kind: u16, id: TransactionId) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(id);
        Self(bytes)
    }

    pub(crate) fn id(&self) -> TransactionId {
        self.0[8..20].try_into().unwrap()
    }

    fn set_length(&mut self, length: usize) {
        self.0[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    }

    /// Adds an attribute padded with zeros.
    pub(crate) fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.attr_padded_with(kind, value, 0)
    }

    pub(crate) fn attr_padded_with(mut self, kind: u16, value: &[u8], padding: u8) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        self.0.extend(value);
        self.0.extend(std::iter::repeat_n(padding, value.len().next_multiple_of(4) - value.len()));
        self.set_length(self.0.len() - 20);
        self
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn xor(self, kind: u16, address: impl Into<SocketAddr>) -> Self {
        let value = xor_address(address.into(), &self.id());
        self.attr(kind, &value)
    }

    pub(crate) fn peer(self, address: impl Into<SocketAddr>) -> Self {
        self.xor(XOR_PEER_ADDRESS, address)
    }

    pub(crate) fn channel(self, number: u16) -> Self {
        self.u32(CHANNEL_NUMBER, u32::from(number) << 16)
    }

    /// Adds MESSAGE-INTEGRITY.
    pub(crate) fn mi(mut self, key: &[u8]) -> Self {
        self.set_length(self.0.len() - 20 + 24);
        let tag = hmac_sha1(key, &self.0);
        self.attr(MESSAGE_INTEGRITY, &tag)
    }

    /// Adds MESSAGE-INTEGRITY-SHA256.
    pub(crate) fn mi256(mut self, key: &[u8]) -> Self {
        self.set_length(self.0.len() - 20 + 36);
        let tag = hmac_sha256(key, &self.0);
        self.attr(MESSAGE_INTEGRITY_SHA256, &tag)
    }

    /// Adds FINGERPRINT.
    pub(crate) fn fingerprint(mut self) -> Self {
        self.set_length(self.0.len() - 20 + 8);
        let value = crc32(&self.0) ^ 0x5354_554E;
        self.u32(FINGERPRINT, value)
    }
}

/// An Allocate for a UDP relay.
pub(crate) fn allocate() -> Msg {
    Msg::new(ALLOCATE).attr(REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

/// An Allocate for a TCP relay (RFC 6062).
pub(crate) fn allocate_tcp() -> Msg {
    Msg::new(ALLOCATE).attr(REQUESTED_TRANSPORT, &[6, 0, 0, 0])
}

/// A ChannelData message without padding.
pub(crate) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A ChannelData message as streams need it.
pub(crate) fn padded_channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel_data(number, data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A Send indication.
pub(crate) fn send(peer: SocketAddr, data: &[u8]) -> Msg {
    Msg::new(SEND | INDICATION).peer(peer).attr(DATA, data)
}

/// The attribute value of an XOR-coded address (RFC 8489 §14.2).
pub(crate) fn xor_address(address: SocketAddr, id: &TransactionId) -> Vec<u8> {
    let mask: Vec<u8> = COOKIE.iter().chain(id).copied().collect();
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    value.extend(octets.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

/// A message from the server that has passed every check that applies to all of them.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) id: TransactionId,
    pub(crate) attributes: Vec<(u16, Vec<u8>)>,
    pub(crate) raw: Vec<u8>,
}

impl Reply {
    /// Takes a whole message apart. Panics on whatever the RFCs forbid in any message: 8489-5-01, -02, -04, 8489-7-01,
    /// 8489-14-01 to -03, 8489-14.7-01, 8489-14.8-01, 8489-14.9-01, 8489-14.10-01, 8489-14.14-01.
    pub(crate) fn parse(raw: &[u8]) -> Self {
        assert!(raw.len() >= 20, "shorter than a header: {raw:02x?}");
        assert_eq!(raw[0] & 0xC0, 0, "the first two bits are set: {raw:02x?}");
        assert_eq!(raw[4..8], COOKIE, "cookie of {raw:02x?}");
        let length = usize::from(u16::from_be_bytes([raw[2], raw[3]]));
        assert_eq!(length % 4, 0, "length {length} is no multiple of 4");
        assert_eq!(length, raw.len() - 20, "length field of {raw:02x?}");
        let kind = u16::from_be_bytes([raw[0], raw[1]]);
        let reply = Self { kind, id: raw[8..20].try_into().unwrap(), attributes: attributes(raw), raw: raw.to_vec() };
        reply.check_values();
        reply
    }

    fn check_values(&self) {
        let last = self.attributes.len().saturating_sub(1);
        for (place, (kind, value)) in self.attributes.iter().enumerate() {
            let text = || {
                let text =
                    std::str::from_utf8(value).unwrap_or_else(|_| panic!("{kind:#06x} is no UTF-8: {value:02x?}"));
                assert!(text.chars().count() < 128, "{kind:#06x} has 128 characters or more: {text}");
                text.to_owned()
            };
            match *kind {
                FINGERPRINT => {
                    assert_eq!(place, last, "FINGERPRINT is not the last attribute");
                    let expected = crc32(&self.raw[..self.raw.len() - 8]) ^ 0x5354_554E;
                    assert_eq!(value[..], expected.to_be_bytes(), "FINGERPRINT");
                }
                MESSAGE_INTEGRITY => assert_eq!(value.len(), 20, "MESSAGE-INTEGRITY"),
                MESSAGE_INTEGRITY_SHA256 => assert_eq!(value.len(), 32, "MESSAGE-INTEGRITY-SHA256"),
                ERROR_CODE | ADDRESS_ERROR_CODE => check_error_code(*kind, value),
                REALM | NONCE => {
                    let text = text();
                    assert!(!text.is_empty() && !text.starts_with('"'), "{kind:#06x} is empty or quoted: {text}");
                }
                SOFTWARE => drop(text()),
                MAPPED_ADDRESS | XOR_MAPPED_ADDRESS | XOR_RELAYED_ADDRESS | XOR_PEER_ADDRESS | ALTERNATE_SERVER
                | RESPONSE_ORIGIN | OTHER_ADDRESS => {
                    assert!(
                        matches!((value[0], value[1], value.len()), (0, 1, 8) | (0, 2, 20)),
                        "{kind:#06x} {value:?}"
                    );
                }
                _ => {}
            }
        }
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| &value[..])
    }

    pub(crate) fn has(&self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        self.get(kind).map(|value| u32::from_be_bytes(value.try_into().expect("four bytes")))
    }

    /// The first XOR-coded address of this type.
    pub(crate) fn xor(&self, kind: u16) -> Option<SocketAddr> {
        self.all_xor(kind).first().copied()
    }

    /// The address of this type that is not XOR-coded, if it is there once.
    pub(crate) fn plain(&self, kind: u16) -> Option<SocketAddr> {
        let mut found = self.attributes.iter().filter(|(found, _)| *found == kind);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| decode_plain(value))
    }

    /// All XOR-coded addresses of this type.
    pub(crate) fn all_xor(&self, kind: u16) -> Vec<SocketAddr> {
        let found = self.attributes.iter().filter(|(found, _)| *found == kind);
        found.map(|(_, value)| decode_xor(value, &self.id)).collect()
    }

    /// The code of an error response; `None` for anything else.
    pub(crate) fn error(&self) -> Option<u16> {
        let error = self.kind & ERROR == ERROR;
        assert_eq!(error, self.has(ERROR_CODE), "ERROR-CODE is in error responses and only there: {self:02x?}");
        error.then(|| self.get(ERROR_CODE).unwrap()).map(|value| u16::from(value[2]) * 100 + u16::from(value[3]))
    }

    /// Whether the message carries this one integrity attribute, right, and not the other.
    pub(crate) fn is_signed(&self, kind: u16, key: &[u8]) -> bool {
        let other = MESSAGE_INTEGRITY + MESSAGE_INTEGRITY_SHA256 - kind;
        let Some(tag) = self.get(kind).filter(|_| !self.has(other)) else { return false };
        let mut offset = 20;
        for (_, value) in self.attributes.iter().take_while(|(found, _)| *found != kind) {
            offset += 4 + value.len().next_multiple_of(4);
        }
        let mut covered = self.raw[..offset].to_vec();
        covered[2..4].copy_from_slice(&u16::try_from(offset - 20 + 4 + tag.len()).unwrap().to_be_bytes());
        let followed = self.attributes.iter().skip_while(|(found, _)| *found != kind).skip(1);
        assert!(followed.clone().all(|(found, _)| *found == FINGERPRINT), "an attribute follows the integrity");
        if kind == MESSAGE_INTEGRITY { hmac_sha1(key, &covered) == tag } else { hmac_sha256(key, &covered) == tag }
    }

    /// Whether the message carries no integrity attribute.
    pub(crate) fn is_unsigned(&self) -> bool {
        !self.has(MESSAGE_INTEGRITY) && !self.has(MESSAGE_INTEGRITY_SHA256)
    }
}

/// The attributes in order. Panics unless they fill the message exactly and are padded with zeros.
fn attributes(raw: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = &raw[20..];
    while !rest.is_empty() {
        assert!(rest.len() >= 4, "an attribute's header is cut short: {raw:02x?}");
        let (kind, length) =
            (u16::from_be_bytes([rest[0], rest[1]]), usize::from(u16::from_be_bytes([rest[2], rest[3]])));
        let end = 4 + length.next_multiple_of(4);
        assert!(end <= rest.len(), "attribute {kind:#06x} is cut short: {raw:02x?}");
        assert!(rest[4 + length..end].iter().all(|byte| *byte == 0), "padding of {kind:#06x} is not zero: {raw:02x?}");
        found.push((kind, rest[4..4 + length].to_vec()));
        rest = &rest[end..];
    }
    found
}

fn check_error_code(kind: u16, value: &[u8]) {
    assert!(value.len() >= 4, "{kind:#06x} of {} bytes", value.len());
    assert_eq!(value[1], 0, "reserved bits of {kind:#06x}");
    if kind == ERROR_CODE {
        assert_eq!(value[0], 0, "reserved bits of {kind:#06x}");
    }
    assert!((3..=6).contains(&value[2]) && value[3] < 100, "class and number {:?}", &value[2..4]);
    let reason = std::str::from_utf8(&value[4..]).expect("a reason phrase in UTF-8");
    assert!((1..128).contains(&reason.chars().count()), "reason phrase {reason:?}");
}

/// Reads an XOR-coded address.
fn decode_xor(value: &[u8], id: &TransactionId) -> SocketAddr {
    let mask: Vec<u8> = COOKIE.iter().chain(id).copied().collect();
    let plain: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    address(u16::from_be_bytes([value[2], value[3]]) ^ 0x2112, &plain)
}

/// Reads an address that is not XOR-coded.
pub(crate) fn decode_plain(value: &[u8]) -> SocketAddr {
    address(u16::from_be_bytes([value[2], value[3]]), &value[4..])
}

fn address(port: u16, octets: &[u8]) -> SocketAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(octets) => (Ipv4Addr::from(octets), port).into(),
        Err(_) => (Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("4 or 16 octets")), port).into(),
    }
}

pub(crate) fn hmac_sha1(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    Hmac::<sha1::Sha1>::new_from_slice(key).unwrap().chain_update(bytes).finalize().into_bytes().to_vec()
}

pub(crate) fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(bytes).finalize().into_bytes().to_vec()
}

pub(crate) fn md5(text: &str) -> Vec<u8> {
    md5::Md5::digest(text).to_vec()
}

pub(crate) fn sha256(text: &str) -> Vec<u8> {
    sha2::Sha256::digest(text).to_vec()
}

/// CRC-32 as in ITU V.42, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}
