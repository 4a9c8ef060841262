//! Messages from the engine. What holds for every one of them is checked for every one of them.

use std::net::SocketAddr;

use turnserver::stun::{
    AttributeType, Class, IntegrityKey, MAGIC_COOKIE, MacAlgorithm, Message, TransactionId, address,
};

/// A STUN message that the engine wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
}

impl Response {
    /// Checks what holds for every message: 8489-5-01, -02, -04, 8489-14-01, -02, -03, 8489-7-01, 8656-18-01, and H-17 as
    /// far as padding goes.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let response = Self { bytes };
        assert_eq!(response.bytes[0] & 0xC0, 0);
        assert_eq!(response.bytes[4..8], MAGIC_COOKIE.to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([response.bytes[2], response.bytes[3]])), response.bytes.len() - 20);
        let _ = response.message();
        let mut at = 20;
        while at < response.bytes.len() {
            let len = usize::from(u16::from_be_bytes([response.bytes[at + 2], response.bytes[at + 3]]));
            let padded = len.next_multiple_of(4);
            assert!(response.bytes[at + 4 + len..at + 4 + padded].iter().all(|byte| *byte == 0));
            at += 4 + padded;
        }
        assert_eq!(at, response.bytes.len());
        if response.message().class() == Class::Error {
            response.check_error_code(AttributeType::ERROR_CODE, 0);
        }
        response
    }

    /// 8489-6.3.1.1-01, -02, 8489-14.8-01, 8656-18-06; `first` is the byte before the reserved one.
    pub(crate) fn check_error_code(&self, attribute: AttributeType, first: u8) -> u16 {
        let value = self.get(attribute).expect("an error code");
        assert_eq!(value[..2], [first, 0]);
        assert!((3..=6).contains(&value[2]) && value[3] < 100);
        let reason = std::str::from_utf8(&value[4..]).unwrap();
        assert!(!reason.is_empty() && reason.chars().count() < 128);
        u16::from(value[2]) * 100 + u16::from(value[3])
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub(crate) fn transaction_id(&self) -> TransactionId {
        self.message().transaction_id()
    }

    /// The error code; 0 for success.
    pub(crate) fn code(&self) -> u16 {
        match self.message().class() {
            Class::Success => 0,
            Class::Error => self.check_error_code(AttributeType::ERROR_CODE, 0),
            other => panic!("no response: {other:?}"),
        }
    }

    pub(crate) fn get(&self, attribute: AttributeType) -> Option<&[u8]> {
        Message::parse(&self.bytes).unwrap().get(attribute)
    }

    pub(crate) fn has(&self, attribute: AttributeType) -> bool {
        self.message().has(attribute)
    }

    pub(crate) fn lifetime(&self) -> u32 {
        self.message().get_u32(AttributeType::LIFETIME).expect("LIFETIME").unwrap()
    }

    /// All addresses of this type, in order.
    pub(crate) fn addresses(&self, attribute: AttributeType) -> Vec<SocketAddr> {
        self.message().xor_addresses(attribute).map(Result::unwrap).collect()
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        self.addresses(AttributeType::XOR_RELAYED_ADDRESS)
    }

    /// All plain addresses of this type, in order.
    pub(crate) fn plain_addresses(&self, attribute: AttributeType) -> Vec<SocketAddr> {
        let of_type = |(found, value)| (found == attribute).then(|| address::decode(value).unwrap());
        self.message().attributes().filter_map(of_type).collect()
    }

    /// Signed with exactly this algorithm and key, and with none of the credentials that a client sends
    /// (8489-9.2.4-29, 8489-6.3.1.1-04).
    pub(crate) fn is_signed(&self, algorithm: MacAlgorithm, key: &[u8]) -> bool {
        let other = match algorithm {
            MacAlgorithm::Sha1 => MacAlgorithm::Sha256,
            MacAlgorithm::Sha256 => MacAlgorithm::Sha1,
        };
        IntegrityKey::new(algorithm, key).verifies(&self.message())
            && !self.has(other.attribute())
            && !self.has_any(&[
                AttributeType::USERNAME,
                AttributeType::USERHASH,
                AttributeType::REALM,
                AttributeType::NONCE,
            ])
    }

    pub(crate) fn has_any(&self, attributes: &[AttributeType]) -> bool {
        attributes.iter().any(|attribute| self.has(*attribute))
    }
}
