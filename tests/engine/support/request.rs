//! Messages to the engine, part by part, right or deliberately wrong.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use turnserver::stun::{AttributeType, Class, IntegrityKey, MessageWriter, Method, TransactionId};

/// One piece of a message, in the order written.
#[derive(Debug, Clone)]
enum Part {
    Raw(AttributeType, Vec<u8>),
    Xor(AttributeType, SocketAddr),
    Integrity(Box<IntegrityKey>),
    Fingerprint,
}

/// A message to be sent to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    class: Class,
    pub(crate) transaction_id: TransactionId,
    parts: Vec<Part>,
}

impl Request {
    /// A request with a transaction id of its own.
    pub(crate) fn new(method: Method) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut id = [0xA5; 12];
        id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self { method, class: Class::Request, transaction_id: TransactionId(id), parts: Vec::new() }
    }

    /// An Allocate for UDP.
    pub(crate) fn allocate() -> Self {
        Self::new(Method::Allocate).raw(AttributeType::REQUESTED_TRANSPORT, [17, 0, 0, 0])
    }

    /// A Refresh with this lifetime in seconds.
    pub(crate) fn refresh(lifetime: u32) -> Self {
        Self::new(Method::Refresh).lifetime(lifetime)
    }

    /// A CreatePermission for these peers.
    pub(crate) fn permission(peers: &[&str]) -> Self {
        peers.iter().fold(Self::new(Method::CreatePermission), |request, peer| request.peer(super::socket(peer)))
    }

    /// A ChannelBind.
    pub(crate) fn bind(number: u16, peer: &str) -> Self {
        Self::new(Method::ChannelBind).channel(number).peer(super::socket(peer))
    }

    /// A Send indication.
    pub(crate) fn send(peer: &str, data: &[u8]) -> Self {
        Self::new(Method::Send).class(Class::Indication).peer(super::socket(peer)).raw(AttributeType::DATA, data)
    }

    pub(crate) fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    pub(crate) fn raw(mut self, attribute: AttributeType, value: impl AsRef<[u8]>) -> Self {
        self.parts.push(Part::Raw(attribute, value.as_ref().to_vec()));
        self
    }

    pub(crate) fn lifetime(self, seconds: u32) -> Self {
        self.raw(AttributeType::LIFETIME, seconds.to_be_bytes())
    }

    /// REQUESTED-ADDRESS-FAMILY.
    pub(crate) fn family(self, code: u8) -> Self {
        self.raw(AttributeType::REQUESTED_ADDRESS_FAMILY, [code, 0, 0, 0])
    }

    /// ADDITIONAL-ADDRESS-FAMILY.
    pub(crate) fn additional(self, code: u8) -> Self {
        self.raw(AttributeType::ADDITIONAL_ADDRESS_FAMILY, [code, 0, 0, 0])
    }

    pub(crate) fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.raw(AttributeType::CHANNEL_NUMBER, [high, low, 0, 0])
    }

    pub(crate) fn peer(mut self, peer: SocketAddr) -> Self {
        self.parts.push(Part::Xor(AttributeType::XOR_PEER_ADDRESS, peer));
        self
    }

    /// Adds the key's integrity attribute; more may follow it.
    pub(crate) fn integrity(mut self, key: IntegrityKey) -> Self {
        self.parts.push(Part::Integrity(Box::new(key)));
        self
    }

    pub(crate) fn fingerprint(mut self) -> Self {
        self.parts.push(Part::Fingerprint);
        self
    }

    /// Leaves out every attribute of this type.
    pub(crate) fn without(mut self, attribute: AttributeType) -> Self {
        self.parts.retain(|part| !matches!(part, Part::Raw(found, _) | Part::Xor(found, _) if *found == attribute));
        self
    }

    /// Gives the attribute another value.
    pub(crate) fn with(mut self, attribute: AttributeType, value: impl AsRef<[u8]>) -> Self {
        for part in &mut self.parts {
            if let Part::Raw(found, old) = part
                && *found == attribute
            {
                *old = value.as_ref().to_vec();
            }
        }
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let mut writer = MessageWriter::new(&mut buffer, self.method, self.class, self.transaction_id);
        for part in &self.parts {
            match part {
                Part::Raw(attribute, value) => writer.attribute(*attribute, value),
                Part::Xor(attribute, address) => writer.xor_address(*attribute, *address),
                Part::Integrity(key) => writer.integrity(key),
                Part::Fingerprint => writer.fingerprint(),
            };
        }
        let len = writer.finish().unwrap();
        buffer.truncate(len);
        buffer
    }
}
