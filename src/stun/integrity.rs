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

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};

    use super::super::vectors::{self, attribute, message};
    use super::*;

    const KEY: &[u8] = b"a key";

    fn short_term() -> IntegrityKey {
        IntegrityKey::new(MacAlgorithm::Sha1, vectors::PASSWORD)
    }

    fn long_term_md5() -> IntegrityKey {
        IntegrityKey::new(MacAlgorithm::Sha1, &Md5::digest(vectors::LONG_TERM))
    }

    fn long_term_sha256() -> IntegrityKey {
        IntegrityKey::new(MacAlgorithm::Sha256, &Sha256::digest(vectors::LONG_TERM))
    }

    /// A message without integrity, then `key`'s attribute with this value, then `behind`.
    fn protected(algorithm: MacAlgorithm, tag: &[u8], behind: &[Vec<u8>]) -> Vec<u8> {
        let front = [attribute(AttributeType::USERNAME.0, b"user"), attribute(algorithm.attribute().0, tag)];
        message(0x0003, &[&front, behind].concat())
    }

    fn verifies(key: &IntegrityKey, bytes: &[u8]) -> bool {
        key.verifies(&Message::parse(bytes).unwrap())
    }

    /// 5769-2-01, 8489-14.5-01
    #[test]
    fn the_samples_of_rfc_5769() {
        for vector in [vectors::REQUEST, vectors::RESPONSE_IPV4, vectors::RESPONSE_IPV6] {
            assert!(verifies(&short_term(), vector));
            assert!(!verifies(&long_term_md5(), vector));
        }
        assert!(verifies(&long_term_md5(), vectors::LONG_TERM_REQUEST));
        assert!(!verifies(&short_term(), vectors::LONG_TERM_REQUEST));
    }

    /// 5769-2-01: the same MAC comes out, whatever the header's length field says before the attribute is there.
    #[test]
    fn the_macs_of_rfc_5769() {
        for (vector, key, behind) in [
            (vectors::REQUEST, short_term(), 8),
            (vectors::RESPONSE_IPV4, short_term(), 8),
            (vectors::RESPONSE_IPV6, short_term(), 8),
            (vectors::LONG_TERM_REQUEST, long_term_md5(), 0),
        ] {
            let end = vector.len() - behind;
            let mut before = vector[..end - 24].to_vec();
            for length in [[0, 0], [0xFF, 0xFF]] {
                before[2..4].copy_from_slice(&length);
                assert_eq!(key.tag(&before).unwrap()[..20], vector[end - 20..end]);
            }
        }
    }

    /// 8489-B-01, 8489-18.5-01: the printed MAC covers the printed length of 156, so it is wrong for the 136 bytes that follow;
    /// with the length put right, the rest of the sample verifies.
    #[test]
    fn the_sample_of_rfc_8489() {
        let printed = vectors::USERHASH_REQUEST;
        let (before, integrity) = printed.split_at(printed.len() - 36);
        let key = Sha256::digest(vectors::LONG_TERM);
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(before);
        assert!(mac.verify_slice(&integrity[4..]).is_ok());

        let mut bytes = printed.to_vec();
        bytes[3] = 136;
        assert!(!verifies(&long_term_sha256(), &bytes));
        let tag = long_term_sha256().tag(before).unwrap();
        bytes[printed.len() - 32..].copy_from_slice(&tag);
        assert!(verifies(&long_term_sha256(), &bytes));
    }

    /// 8489-14.4-01: USERHASH of the sample.
    #[test]
    fn the_userhash_of_rfc_8489() {
        let (name_and_realm, _) = vectors::LONG_TERM.rsplit_once(':').unwrap();
        assert_eq!(Sha256::digest(name_and_realm)[..], vectors::USERHASH_REQUEST[24..56]);
    }

    /// 8489-14.5-01
    #[test]
    fn every_bit_is_covered() {
        for bit in 0..vectors::LONG_TERM_REQUEST.len() * 8 {
            let mut bytes = vectors::LONG_TERM_REQUEST.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Message::parse(&bytes).is_ok_and(|message| long_term_md5().verifies(&message)), "bit {bit}");
        }
    }

    /// 8489-14.5-01, 8489-14.6-02: the length that is covered ends at the attribute, not at the message.
    #[test]
    fn attributes_behind_are_not_covered() {
        for algorithm in [MacAlgorithm::Sha1, MacAlgorithm::Sha256] {
            let key = IntegrityKey::new(algorithm, KEY);
            let bare = protected(algorithm, &[0; 32][..algorithm.tag_len()], &[]);
            let tag = key.tag(&bare[..28]).unwrap();
            let tag = &tag[..algorithm.tag_len()];
            assert!(verifies(&key, &protected(algorithm, tag, &[])));
            assert!(verifies(&key, &protected(algorithm, tag, &[attribute(AttributeType::REALM.0, b"behind")])));
            assert!(!verifies(&IntegrityKey::new(algorithm, b"another key"), &protected(algorithm, tag, &[])));
        }
    }

    /// 8489-14.6-01
    #[test]
    fn a_mac_of_another_length_never_verifies() {
        for algorithm in [MacAlgorithm::Sha1, MacAlgorithm::Sha256] {
            let key = IntegrityKey::new(algorithm, KEY);
            for len in (0..=64).filter(|len| *len != algorithm.tag_len()) {
                // Right for every length field that a careless reader could put in: its own, the full one, the message's.
                for covered in [super::super::padded(len), algorithm.tag_len()] {
                    let length = u16::try_from(8 + 4 + covered).unwrap().to_be_bytes();
                    let before = &protected(algorithm, &[], &[])[..28];
                    let before = [&before[..2], &length, &before[4..]].concat();
                    let mut tag = raw_mac(algorithm, &before);
                    tag.resize(len, 0);
                    assert!(!verifies(&key, &protected(algorithm, &tag, &[])), "{len}");
                }
            }
        }
    }

    fn raw_mac(algorithm: MacAlgorithm, bytes: &[u8]) -> Vec<u8> {
        match algorithm {
            MacAlgorithm::Sha1 => {
                Hmac::<Sha1>::new_from_slice(KEY).unwrap().chain_update(bytes).finalize().into_bytes().to_vec()
            }
            MacAlgorithm::Sha256 => {
                Hmac::<Sha256>::new_from_slice(KEY).unwrap().chain_update(bytes).finalize().into_bytes().to_vec()
            }
        }
    }

    /// 8489-9.2.4-20: each key looks at its own attribute only.
    #[test]
    fn the_other_attribute_does_not_help() {
        let sha1 = IntegrityKey::new(MacAlgorithm::Sha1, KEY);
        let sha256 = IntegrityKey::new(MacAlgorithm::Sha256, KEY);
        let tag = sha1.tag(&protected(MacAlgorithm::Sha1, &[], &[])[..28]).unwrap();
        let wrong = attribute(AttributeType::MESSAGE_INTEGRITY_SHA256.0, &[0; 32]);
        let both = protected(MacAlgorithm::Sha1, &tag[..20], &[wrong]);
        assert!(verifies(&sha1, &both));
        assert!(!verifies(&sha256, &both));

        let tag = sha256.tag(&both[..52]).unwrap();
        let right = attribute(AttributeType::MESSAGE_INTEGRITY_SHA256.0, &tag);
        assert!(verifies(&sha256, &protected(MacAlgorithm::Sha1, &both[32..52], &[right])));

        let neither = message(0x0003, &[attribute(AttributeType::USERNAME.0, b"user")]);
        assert!(!verifies(&sha1, &neither) && !verifies(&sha256, &neither));
    }

    #[test]
    fn what_is_no_message_has_no_mac() {
        let key = IntegrityKey::new(MacAlgorithm::Sha1, KEY);
        assert_eq!(key.tag(&[0; 19]), None);
        assert!(key.tag(&[0; 20]).is_some());
        assert!(key.tag(&vec![0; 65_531]).is_some());
        assert_eq!(key.tag(&vec![0; 65_532]), None);
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", IntegrityKey::new(MacAlgorithm::Sha1, KEY)), "IntegrityKey(Sha1)");
    }
}
