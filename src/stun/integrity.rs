//! MESSAGE-INTEGRITY (HMAC-SHA1, RFC 8489 §14.5) and MESSAGE-INTEGRITY-SHA256 (§14.6).

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::{AttributeType, HEADER_LEN, Message};

/// Which of the two integrity attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MacAlgorithm {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl MacAlgorithm {
    /// The attribute that carries this MAC.
    #[must_use]
    pub const fn attribute(self) -> AttributeType {
        match self {
            Self::Sha1 => AttributeType::MESSAGE_INTEGRITY,
            Self::Sha256 => AttributeType::MESSAGE_INTEGRITY_SHA256,
        }
    }

    /// Bytes of the MAC. TURN does not allow truncation (RFC 8489 §14.6).
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A key with its HMAC state computed, ready for many messages.
#[derive(Clone)]
pub enum IntegrityKey {
    /// For MESSAGE-INTEGRITY.
    Sha1(Hmac<Sha1>),
    /// For MESSAGE-INTEGRITY-SHA256.
    Sha256(Hmac<Sha256>),
}

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntegrityKey({:?})", self.algorithm())
    }
}

impl IntegrityKey {
    /// Prepares a key of any length.
    #[must_use]
    pub fn new(algorithm: MacAlgorithm, key: &[u8]) -> Self {
        // HMAC takes keys of any length (RFC 2104 §2), so neither constructor can fail.
        match algorithm {
            MacAlgorithm::Sha1 => Self::Sha1(Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!())),
            MacAlgorithm::Sha256 => Self::Sha256(Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!())),
        }
    }

    /// The attribute that this key makes and checks.
    #[must_use]
    pub const fn algorithm(&self) -> MacAlgorithm {
        match self {
            Self::Sha1(_) => MacAlgorithm::Sha1,
            Self::Sha256(_) => MacAlgorithm::Sha256,
        }
    }

    /// Whether the message carries this key's integrity attribute, whole and right. Compares in constant time.
    #[must_use]
    pub fn verifies(&self, message: &Message<'_>) -> bool {
        let attribute = self.algorithm().attribute();
        let (Some(tag), Some(before)) = (message.get(attribute), message.before(attribute)) else { return false };
        let Some((len, parts)) = covered(before, self.algorithm()) else { return false };
        match self {
            Self::Sha1(mac) => update(mac.clone(), parts, len).verify_slice(tag).is_ok(),
            Self::Sha256(mac) => update(mac.clone(), parts, len).verify_slice(tag).is_ok(),
        }
    }

    /// The MAC over `before`, the message up to the integrity attribute, in the first [`MacAlgorithm::tag_len`] bytes.
    ///
    /// `None` if `before` is no message: shorter than a header, or longer than its length field can say.
    #[must_use]
    pub fn tag(&self, before: &[u8]) -> Option<[u8; 32]> {
        let (len, parts) = covered(before, self.algorithm())?;
        let mut out = [0; 32];
        match self {
            Self::Sha1(mac) => {
                let tag = update(mac.clone(), parts, len).finalize().into_bytes();
                out.iter_mut().zip(tag).for_each(|(to, from)| *to = from);
            }
            Self::Sha256(mac) => out = update(mac.clone(), parts, len).finalize().into_bytes().into(),
        }
        Some(out)
    }
}

/// What is hashed: the first two bytes, a length field that ends with the integrity attribute, and the rest
/// (RFC 8489 §14.5). Returns the length field and the two parts around it.
fn covered(before: &[u8], algorithm: MacAlgorithm) -> Option<([u8; 2], [&[u8]; 2])> {
    let body = before.len().checked_sub(HEADER_LEN)?;
    let len = u16::try_from(body.checked_add(4)?.checked_add(algorithm.tag_len())?).ok()?;
    Some((len.to_be_bytes(), [before.get(..2)?, before.get(4..)?]))
}

fn update<M: Mac>(mac: M, [kind, rest]: [&[u8]; 2], len: [u8; 2]) -> M {
    mac.chain_update(kind).chain_update(len).chain_update(rest)
}
