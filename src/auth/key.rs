//! Long-term keys (RFC 8489 §9.2.2, §18.5.1) and user hashes (§14.4).
//!
//! Every input goes through OpaqueString here, so that no caller can hash an unprepared string. (For printable ASCII
//! that changes nothing, hence keys are those of every other server and of SIP's H(A1).) Comparing MACs is
//! `stun`'s business; storing keys is [`super::users`]'.

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::prepare::{PrepareError, prepare};

/// The key of a credential: what the MAC of a request is computed with. Wiped when dropped.
#[derive(Clone)]
pub enum LongTermKey {
    /// MD5(username ":" realm ":" password), 16 bytes.
    Md5([u8; 16]),
    /// SHA-256(username ":" realm ":" password), 32 bytes.
    Sha256([u8; 32]),
    /// The mac_key of an access token, of any length (RFC 7635 §6.2).
    Token(Box<[u8]>),
}

impl LongTermKey {
    /// The key as the MAC takes it.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Md5(key) => key,
            Self::Sha256(key) => key,
            Self::Token(key) => key,
        }
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5(_) => "Md5(****)",
            Self::Sha256(_) => "Sha256(****)",
            Self::Token(_) => "Token(****)",
        })
    }
}

impl Drop for LongTermKey {
    fn drop(&mut self) {
        match self {
            Self::Md5(key) => key.zeroize(),
            Self::Sha256(key) => key.zeroize(),
            Self::Token(key) => key.zeroize(),
        }
    }
}

/// The key without PASSWORD-ALGORITHM or with MD5 (RFC 8489 §9.2.2, §18.5.1.1).
pub fn md5_key(user: &str, realm: &str, password: &str) -> Result<LongTermKey, PrepareError> {
    Ok(LongTermKey::Md5(joined::<Md5>(&[user, realm, password])?.finalize().into()))
}

/// The key with PASSWORD-ALGORITHM SHA-256 (RFC 8489 §18.5.1.2).
pub fn sha256_key(user: &str, realm: &str, password: &str) -> Result<LongTermKey, PrepareError> {
    Ok(LongTermKey::Sha256(joined::<Sha256>(&[user, realm, password])?.finalize().into()))
}

/// The value of USERHASH: SHA-256(username ":" realm) (RFC 8489 §14.4).
pub fn userhash(user: &str, realm: &str) -> Result<[u8; 32], PrepareError> {
    Ok(joined::<Sha256>(&[user, realm])?.finalize().into())
}

/// A hash fed with the prepared parts and a colon between each two.
fn joined<D: Digest>(parts: &[&str]) -> Result<D, PrepareError> {
    let mut digest = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            digest.update(b":");
        }
        digest.update(prepare(part)?.as_bytes());
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use sha1::Sha1;

    /// The user of RFC 5769 §2.4 and RFC 8489 Appendix B.1.
    const MATRIX: &str = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn rfc8489_9_2_2_example_and_coturn_keys() {
        for (user, realm, password, key) in [
            ("user", "realm", "pass", "8493fbc53ba582fb4c044c456bdc40eb"),
            ("ninefingers", "north.gov", "youhavetoberealistic", "bc807ee29df3c9ffa736523fb2c4e8ee"),
            ("gorst", "north.gov", "hero", "7da2270ccfa49786e0115366d3a3d14d"),
        ] {
            assert_eq!(md5_key(user, realm, password).unwrap().as_bytes(), bytes(key));
        }
    }

    #[test]
    fn rfc8489_18_5_1_2_sha256_of_the_same_string() {
        let expected: [u8; 32] = Sha256::digest(b"user:realm:pass").into();
        assert_eq!(sha256_key("user", "realm", "pass").unwrap().as_bytes(), expected);
    }

    #[test]
    fn rfc5769_2_4_the_key_verifies_the_sample_request() {
        let message = bytes(
            "00010060 2112a442 78ad3433 c6ad72c0 29da412e 00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
             0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341 0014000b 6578616d 706c652e
             6f726700 00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666",
        );
        let key = md5_key(MATRIX, "example.org", "TheMatrIX").unwrap();
        let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(&message[..message.len() - 24]);
        mac.verify_slice(&message[message.len() - 20..]).unwrap();
    }

    #[test]
    fn rfc8489_b_1_user_hash_and_key_verify_the_sample_request() {
        let message = bytes(
            "0001009c 2112a442 78ad3433 c6ad72c0 29da412e 001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415
             569e60b2 05c46e41 407f1704 00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33
             346f4c39 46535476 79363473 41000000 0014000b 6578616d 706c652e 6f726700 001c0020 e4686c8f 0edeb590
             13e07090 010a93ef ccbccc54 4c0a45d9 f830aa6d 6f735a01",
        );
        assert_eq!(userhash(MATRIX, "example.org").unwrap(), message[24..56]);
        // As printed, the length field says 156 where 136 bytes follow, and the MAC holds for just that and for the
        // SHA-256 key. The appendix also says that OpaqueString makes "TheMatrIX" of
        // "The<U+00AD>M<U+00AA>tr<U+2168>"; that was SASLprep, OpaqueString refuses U+00AD.
        let key = sha256_key(MATRIX, "example.org", "TheMatrIX").unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(&message[..message.len() - 36]);
        mac.verify_slice(&message[message.len() - 32..]).unwrap();
    }

    #[test]
    fn every_part_is_prepared() {
        let plain = md5_key("\u{e9} b", "r\u{e9}", "p\u{e9}").unwrap();
        let decomposed = md5_key("e\u{301}\u{a0}b", "re\u{301}", "pe\u{301}").unwrap();
        assert_eq!(plain.as_bytes(), decomposed.as_bytes());
        assert_eq!(userhash("e\u{301}", "re\u{301}"), userhash("\u{e9}", "r\u{e9}"));
        assert_eq!(md5_key("user", "realm", "").unwrap_err(), PrepareError::Empty);
        assert_eq!(sha256_key("a\nb", "realm", "x").unwrap_err(), PrepareError::Character(1));
    }

    #[test]
    fn keys_are_masked() {
        assert_eq!(format!("{:?}", md5_key("u", "r", "p").unwrap()), "Md5(****)");
        assert_eq!(format!("{:?}", sha256_key("u", "r", "p").unwrap()), "Sha256(****)");
    }
}
