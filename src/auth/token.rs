//! Access tokens (RFC 7635 §6.2): what an authorization server has encrypted for this server, by a key that both have. A token
//! holds the key that its client signs with, and how long it is good for.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{credential::Term, key::LongTermKey};

/// How far the clocks of the two servers may be apart (RFC 7635 §7).
const DELTA: Duration = Duration::from_secs(5);
/// Bytes of a mac_key: 160 bits must be supported (RFC 7635 §6.2); none is longer than the block of the longest hash.
const MAC_KEY_LEN: std::ops::RangeInclusive<usize> = 20..=128;

/// Bytes of it that coturn's clients sign with.
const COTURN_KEY_LEN: usize = 16;

/// What tokens are encrypted with (RFC 7635 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenAlgorithm {
    /// AES with 256 bits in Galois/counter mode.
    #[default]
    A256Gcm,
    /// The same with 128 bits.
    A128Gcm,
}

impl TokenAlgorithm {
    /// Each with how it is written in the configuration.
    pub const ALL: [(&'static str, Self); 2] = [("A256GCM", Self::A256Gcm), ("A128GCM", Self::A128Gcm)];

    /// Bytes of a key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::A256Gcm => 32,
            Self::A128Gcm => 16,
        }
    }

    /// As it is written in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(text, _)| text)
    }
}

/// A key shared with an authorization server.
pub struct TokenKey {
    kid: Arc<str>,
    key: LessSafeKey,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?}, ****)", self.kid)
    }
}

/// What is in a token.
#[derive(Debug)]
pub struct Token {
    /// What the client signs with.
    pub mac_key: LongTermKey,
    /// When it was made, in milliseconds since the UNIX epoch.
    timestamp_ms: u64,
    /// How long it is good for since then.
    lifetime: Duration,
}

impl TokenKey {
    /// The key of this id. Of more bytes than the algorithm takes the first count, as coturn does it. `None` if there are fewer.
    #[must_use]
    pub fn new(kid: &str, algorithm: TokenAlgorithm, key: &[u8]) -> Option<Self> {
        let cipher = match algorithm {
            TokenAlgorithm::A256Gcm => &AES_256_GCM,
            TokenAlgorithm::A128Gcm => &AES_128_GCM,
        };
        let key = UnboundKey::new(cipher, key.get(..algorithm.key_len())?).ok()?;
        Some(Self { kid: kid.into(), key: LessSafeKey::new(key) })
    }

    /// Its id, which clients send as USERNAME.
    #[must_use]
    pub const fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// Decrypts a token that was made for the server of this name; `None` if it was not, or not with this key.
    #[must_use]
    pub fn open(&self, token: &[u8], server_name: &str) -> Option<Token> {
        let (nonce_len, rest) = token.split_first_chunk()?;
        if usize::from(u16::from_be_bytes(*nonce_len)) != NONCE_LEN {
            return None;
        }
        let (nonce, sealed) = rest.split_first_chunk()?;
        let mut block = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let block = self.key.open_in_place(nonce, Aad::from(server_name.as_bytes()), &mut block).ok()?;
        let (key_len, rest) = block.split_first_chunk()?;
        let (mac_key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
        let (timestamp, rest) = rest.split_first_chunk()?;
        let lifetime = rest.try_into().ok()?;
        if !MAC_KEY_LEN.contains(&mac_key.len()) {
            return None;
        }
        // 48 bits of seconds and 16 of 64000ths.
        let timestamp = u64::from_be_bytes(*timestamp);
        Some(Token {
            mac_key: LongTermKey::Token(mac_key.into()),
            timestamp_ms: (timestamp >> 16) * 1000 + (timestamp & 0xFFFF) / 64,
            lifetime: Duration::from_secs(u32::from_be_bytes(lifetime).into()),
        })
    }
}

impl Token {
    /// The keys that its client may have signed with. Of a key of 160 bits coturn's clients use the first 128 only, as many as
    /// an MD5 key has.
    pub fn keys(self) -> impl Iterator<Item = LongTermKey> {
        let bytes = self.mac_key.as_bytes();
        let short = bytes.get(..COTURN_KEY_LEN).filter(|_| bytes.len() == *MAC_KEY_LEN.start());
        let short = short.map(|short| LongTermKey::Token(short.into()));
        [self.mac_key].into_iter().chain(short)
    }

    /// How long it is good for, `now` being the time since the UNIX epoch; `None` if it is not (RFC 7635 §7).
    ///
    /// Allocations never outlive it (§9), so there is no grace; in the seconds that clocks may be apart it still serves.
    #[must_use]
    pub fn term(&self, now: Duration) -> Option<Term> {
        let made = Duration::from_millis(self.timestamp_ms);
        let apart = now.abs_diff(made);
        let left = (self.lifetime + DELTA).checked_sub(apart).filter(|left| !left.is_zero())?;
        let own = (made + self.lifetime).saturating_sub(now).min(self.lifetime);
        Some(Term { left: if own.is_zero() { left } else { own }, grace: Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7635, Appendix A.
    const SERVER_NAME: &str = "blackdow.carleon.gov";
    const KEY: &[u8; 32] = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
    const MAC_KEY: &[u8; 20] = b"ZksjpweoixXmvn67534m";
    const TIMESTAMP: u64 = 92_470_300_704_768;
    const LIFETIME: u32 = 3600;
    const NONCE: &[u8; 12] = b"h4j3k2l2n4b5";
    const SAMPLES: [(TokenAlgorithm, &str); 2] = [
        (
            TokenAlgorithm::A256Gcm,
            "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d\
             293a5c50499359f0c2e26f76",
        ),
        (
            TokenAlgorithm::A128Gcm,
            "000c68346a336b326c326e3462357fb9e99f0827be3df1e1bd651493d3031d36df57079784aee5eacb65fad4f27fab1a3f97974b69\
             f851b24bf5af09eda357e0",
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn key(algorithm: TokenAlgorithm) -> TokenKey {
        TokenKey::new("kid", algorithm, KEY).unwrap()
    }

    fn block(mac_key: &[u8], timestamp: u64, lifetime: u32) -> Vec<u8> {
        let len = u16::try_from(mac_key.len()).unwrap().to_be_bytes();
        [&len, mac_key, &timestamp.to_be_bytes(), &lifetime.to_be_bytes()].concat()
    }

    /// A token with this content.
    fn seal(algorithm: TokenAlgorithm, nonce: &[u8], mut block: Vec<u8>) -> Vec<u8> {
        let mut head = u16::try_from(nonce.len()).unwrap().to_be_bytes().to_vec();
        head.extend_from_slice(nonce);
        let nonce = Nonce::assume_unique_for_key(nonce.try_into().unwrap_or([0; 12]));
        key(algorithm).key.seal_in_place_append_tag(nonce, Aad::from(SERVER_NAME), &mut block).unwrap();
        head.extend_from_slice(&block);
        head
    }

    /// 7635-6.2-01
    #[test]
    fn the_samples_of_the_rfc() {
        for (algorithm, sample) in SAMPLES {
            let sample = bytes(sample);
            assert_eq!(seal(algorithm, NONCE, block(MAC_KEY, TIMESTAMP, LIFETIME)), sample, "{algorithm:?}");
            let token = key(algorithm).open(&sample, SERVER_NAME).unwrap();
            assert_eq!((token.mac_key.as_bytes(), token.lifetime.as_secs()), (&MAC_KEY[..], 3600));
            assert_eq!(token.timestamp_ms, (TIMESTAMP >> 16) * 1000);
        }
    }

    /// 7635-7-01, 7635-7-02
    #[test]
    fn what_was_altered_or_made_for_others_does_not_open() {
        for (algorithm, sample) in SAMPLES {
            let sample = bytes(sample);
            for at in 0..sample.len() {
                let mut altered = sample.clone();
                altered[at] ^= 1;
                assert!(key(algorithm).open(&altered, SERVER_NAME).is_none(), "byte {at}");
            }
            for len in 0..sample.len() {
                assert!(key(algorithm).open(&sample[..len], SERVER_NAME).is_none(), "{len} bytes");
            }
            assert!(key(algorithm).open(&sample, "blackdow.carleon.org").is_none());
            let other = TokenKey::new("kid", algorithm, &[7; 32]).unwrap();
            assert!(other.open(&sample, SERVER_NAME).is_none());
        }
        assert!(TokenKey::new("kid", TokenAlgorithm::A256Gcm, &[0; 31]).is_none());
        assert!(TokenKey::new("kid", TokenAlgorithm::A128Gcm, &[0; 16]).is_some());
    }

    #[test]
    fn a_block_that_lies_about_itself_is_no_token() {
        let open = |nonce: &[u8], block: Vec<u8>| {
            key(TokenAlgorithm::A256Gcm).open(&seal(TokenAlgorithm::A256Gcm, nonce, block), SERVER_NAME)
        };
        assert!(open(NONCE, block(MAC_KEY, 1, 1)).is_some());
        assert!(open(NONCE, block(&[1; 32], 1, 1)).is_some());
        for mac_key in [&[][..], &[1; 19], &[1; 129]] {
            assert!(open(NONCE, block(mac_key, 1, 1)).is_none());
        }
        let mut long = block(MAC_KEY, 1, 1);
        long[1] = 200;
        assert!(open(NONCE, long).is_none());
        assert!(open(NONCE, [block(MAC_KEY, 1, 1), vec![0]].concat()).is_none());
        for nonce in [&[][..], &[1; 11], &[1; 13], &[1; 300]] {
            assert!(open(nonce, block(MAC_KEY, 1, 1)).is_none());
        }
    }

    /// 7635-7-03, 7635-9-01
    #[test]
    fn a_token_serves_for_its_lifetime_and_five_seconds() {
        let token = Token {
            mac_key: LongTermKey::Token([0; 20].into()),
            timestamp_ms: 100_500,
            lifetime: Duration::from_secs(60),
        };
        let left = |now| token.term(Duration::from_millis(now)).map(|term| term.left.as_millis());
        assert_eq!(left(100_500), Some(60_000));
        assert_eq!(left(130_500), Some(30_000));
        assert_eq!(left(160_400), Some(100));
        assert_eq!(left(160_500), Some(5_000));
        assert_eq!(left(165_499), Some(1));
        assert_eq!(left(165_500), None);
        // A clock that is behind.
        assert_eq!(left(40_500), Some(60_000));
        assert_eq!(left(35_501), Some(60_000));
        assert_eq!(left(35_500), None);
    }

    #[test]
    fn debug_output_holds_no_key() {
        assert_eq!(format!("{:?}", key(TokenAlgorithm::A256Gcm)), "TokenKey(\"kid\", ****)");
        let token = key(TokenAlgorithm::A256Gcm).open(&bytes(SAMPLES[0].1), SERVER_NAME).unwrap();
        assert!(format!("{token:?}").contains("Token(****)"));
    }
}
