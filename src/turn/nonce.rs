//! Nonces that prove themselves (RFC 8489 §9.2, RFC 7616 §5.4): nothing is stored for a client that has not shown that it
//! receives at its address.
//!
//! `obMatJos2` + 4 base64 characters of security-feature bits + base64 of (seconds, salt, MAC). The MAC is keyed with a
//! secret of this process and covers the time, the salt, the feature bits and both ends of the 5-tuple, so a nonce is good for one
//! client address, for its lifetime, with the features that it was issued with.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;

use super::{FiveTuple, Time};

/// The nonce cookie (RFC 8489 §9.2).
const COOKIE: &str = "obMatJos2";
/// Characters of security-feature bits after the cookie.
const FEATURES_LEN: usize = 4;
/// Raw bytes of the opaque part: 4 of time, 2 of salt, 12 of MAC.
const OPAQUE_LEN: usize = 18;
/// Characters of a nonce.
pub(super) const NONCE_LEN: usize = COOKIE.len() + FEATURES_LEN + OPAQUE_LEN / 3 * 4;

/// Security-feature bit 0: password algorithms (RFC 8489 §18.1).
pub(super) const PASSWORD_ALGORITHMS: u32 = 1 << 23;
/// Security-feature bit 1: user name anonymity (RFC 8489 §18.1).
pub(super) const USERNAME_ANONYMITY: u32 = 1 << 22;

/// Security-feature bits as they stand in a nonce.
pub(super) type Features = [u8; FEATURES_LEN];

/// Encodes 24 security-feature bits, bit 0 of the RFC being the most significant.
pub(super) fn features(bits: u32) -> Features {
    let [_, bits @ ..] = bits.to_be_bytes();
    let mut encoded = [0; FEATURES_LEN];
    // Three bytes always make four characters.
    let _ = STANDARD.encode_slice(bits, &mut encoded);
    encoded
}

/// Issues and checks nonces.
#[derive(Clone)]
pub(super) struct Nonces {
    mac: Hmac<Sha256>,
    lifetime: Duration,
}

impl Nonces {
    pub(super) fn new(secret: &[u8; 32], lifetime: Duration) -> Self {
        // HMAC takes keys of any length (RFC 2104 §2).
        let mac = Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!());
        Self { mac, lifetime }
    }

    /// Those that are good only together with what else clients are told.
    pub(super) fn bound_to(&self, told: &[u8]) -> Self {
        let mut bound = self.clone();
        bound.mac.update(&(told.len() as u64).to_be_bytes());
        bound.mac.update(told);
        bound
    }

    /// The same with another lifetime.
    pub(super) fn lasting(&self, lifetime: Duration) -> Self {
        Self { lifetime, ..self.clone() }
    }

    /// A new nonce for this client.
    pub(super) fn issue(
        &self,
        features: Features,
        client: &FiveTuple,
        now: Time,
        rng: &mut impl Rng,
    ) -> [u8; NONCE_LEN] {
        let mut salt = [0; 2];
        rng.fill_bytes(&mut salt);
        let mut opaque = [0; OPAQUE_LEN];
        opaque[..4].copy_from_slice(&seconds(now).to_be_bytes());
        opaque[4..6].copy_from_slice(&salt);
        let tag = self.tag(features, client, &opaque[..6]).finalize().into_bytes();
        opaque[6..].copy_from_slice(&tag[..12]);
        let mut nonce = [0; NONCE_LEN];
        nonce[..COOKIE.len()].copy_from_slice(COOKIE.as_bytes());
        nonce[COOKIE.len()..][..FEATURES_LEN].copy_from_slice(&features);
        // 18 bytes always make 24 characters.
        let _ = STANDARD.encode_slice(opaque, &mut nonce[COOKIE.len() + FEATURES_LEN..]);
        nonce
    }

    /// Whether this nonce was issued to this client, with these features, and has not expired.
    pub(super) fn is_valid(&self, nonce: &[u8], features: Features, client: &FiveTuple, now: Time) -> bool {
        let Some(rest) = nonce.strip_prefix(COOKIE.as_bytes()) else { return false };
        let Some(encoded) = rest.strip_prefix(&features) else { return false };
        let mut opaque = [0; OPAQUE_LEN];
        if encoded.len() != OPAQUE_LEN / 3 * 4 || STANDARD.decode_slice(encoded, &mut opaque) != Ok(OPAQUE_LEN) {
            return false;
        }
        let (stamped, tag) = opaque.split_at(6);
        let issued = u32::from_be_bytes([stamped[0], stamped[1], stamped[2], stamped[3]]);
        let age = u64::from(seconds(now).wrapping_sub(issued));
        age < self.lifetime.as_secs().max(1) && self.tag(features, client, stamped).verify_truncated_left(tag).is_ok()
    }

    fn tag(&self, features: Features, tuple: &FiveTuple, stamped: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(stamped);
        mac.update(&features);
        for address in [tuple.client, tuple.server] {
            update_address(&mut mac, address);
        }
        mac.update(&[tuple.transport as u8]);
        mac
    }
}

fn update_address(mac: &mut Hmac<Sha256>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => mac.update(&v4.ip().octets()),
        SocketAddr::V6(v6) => mac.update(&v6.ip().octets()),
    }
    mac.update(&address.port().to_be_bytes());
}

/// Whole seconds; they wrap after 136 years, and ages are computed wrapping.
#[allow(clippy::cast_possible_truncation)]
const fn seconds(time: Time) -> u32 {
    (time.0 / 1000) as u32
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::turn::Transport;

    fn tuple(port: u16) -> FiveTuple {
        FiveTuple {
            client: SocketAddr::from(([192, 0, 2, 1], port)),
            server: SocketAddr::from(([192, 0, 2, 9], 3478)),
            transport: Transport::Udp,
        }
    }

    const NONE: Features = *b"AAAA";

    fn nonces() -> Nonces {
        Nonces::new(&[7; 32], Duration::from_secs(600))
    }

    /// 8489-9.2-01, 8489-9.2-02, 8489-9.2.4-05, 8489-14.10-01
    #[test]
    fn cookie_and_feature_bits() {
        let mut rng = StdRng::seed_from_u64(1);
        for (features, text) in
            [(0, "AAAA"), (PASSWORD_ALGORITHMS, "gAAA"), (PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, "wAAA")]
        {
            let nonce = nonces().issue(super::features(features), &tuple(1), Time(0), &mut rng);
            let nonce = std::str::from_utf8(&nonce).unwrap();
            assert!(nonce.starts_with("obMatJos2") && &nonce[9..13] == text, "{nonce}");
            assert!(nonce.len() < 128 && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
        }
    }

    /// 8489-9.2.4-04, 8489-9.2.4-23, 8489-9.2.4-31, H-07
    #[test]
    fn good_for_one_client_for_its_lifetime_unaltered() {
        let nonces = nonces();
        let mut rng = StdRng::seed_from_u64(1);
        let nonce = nonces.issue(NONE, &tuple(1), Time(5_000), &mut rng);
        assert!(nonces.is_valid(&nonce, NONE, &tuple(1), Time(5_000)));
        assert!(!nonces.is_valid(&nonce, super::features(PASSWORD_ALGORITHMS), &tuple(1), Time(5_000)));
        assert!(nonces.is_valid(&nonce, NONE, &tuple(1), Time(604_999)));
        assert!(!nonces.is_valid(&nonce, NONE, &tuple(1), Time(605_000)));
        assert!(!nonces.is_valid(&nonce, NONE, &tuple(2), Time(5_000)));
        assert!(!nonces.is_valid(&nonce, NONE, &FiveTuple { transport: Transport::Tcp, ..tuple(1) }, Time(5_000)));
        for at in 0..nonce.len() {
            let mut altered = nonce;
            altered[at] ^= 1;
            assert!(!nonces.is_valid(&altered, NONE, &tuple(1), Time(5_000)), "byte {at}");
        }
        assert!(!nonces.is_valid(b"", NONE, &tuple(1), Time(5_000)));
        assert!(!nonces.is_valid(&nonce[..36], NONE, &tuple(1), Time(5_000)));
    }

    /// 8656-5-02
    #[test]
    fn each_is_new() {
        let nonces = nonces();
        let mut rng = StdRng::seed_from_u64(1);
        let mut issue = || nonces.issue(NONE, &tuple(1), Time(0), &mut rng);
        assert_ne!(issue(), issue());
    }
}
