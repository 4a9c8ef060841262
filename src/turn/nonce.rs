//! Nonces that prove themselves (RFC 8489 §9.2, RFC 7616 §5.4): nothing is stored for a client that has not shown that it
//! receives at its address.
//!
//! `obMatJos2` + 4 base64 characters of security-feature bits + base64 of (seconds, serial number, MAC). The MAC is keyed with a
//! secret of this process and covers the time, the number, the feature bits and both ends of the 5-tuple, so a nonce is good for
//! one client address, for its lifetime, with the features that it was issued with. Its 32 characters go without padding, as a
//! 401 may be sent to somebody who has not asked for it, and is to be short.

use std::{net::SocketAddr, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{FiveTuple, Time};

/// The nonce cookie (RFC 8489 §9.2).
const COOKIE: &str = "obMatJos2";
/// Characters of security-feature bits after the cookie.
const FEATURES_LEN: usize = 4;
/// Raw bytes of the opaque part: 3 of time, 1 of the number, 10 of MAC (RFC 2104 §5 wants no fewer).
const OPAQUE_LEN: usize = 14;
/// Its bytes before the MAC.
const STAMP_LEN: usize = 4;
/// Its characters.
const ENCODED_LEN: usize = (OPAQUE_LEN * 4).div_ceil(3);
/// Characters of a nonce.
pub(super) const NONCE_LEN: usize = COOKIE.len() + FEATURES_LEN + ENCODED_LEN;
/// Seconds wrap after 194 days.
const SECONDS: u32 = 1 << 24;
/// No nonce lives longer, so that its age is never mistaken for that of a younger one.
const LONGEST: Duration = Duration::from_secs(SECONDS as u64 / 2);

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
        Self { mac, lifetime: lifetime.min(LONGEST) }
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
        Self { lifetime: lifetime.min(LONGEST), ..self.clone() }
    }

    /// A new nonce for this client. `number` tells it from others of the same second.
    pub(super) fn issue(&self, features: Features, client: &FiveTuple, now: Time, number: u8) -> [u8; NONCE_LEN] {
        let mut opaque = [0; OPAQUE_LEN];
        opaque[..STAMP_LEN].copy_from_slice(&(seconds(now) << 8 | u32::from(number)).to_be_bytes());
        let tag = self.tag(features, client, &opaque[..STAMP_LEN]).finalize().into_bytes();
        opaque[STAMP_LEN..].copy_from_slice(&tag[..OPAQUE_LEN - STAMP_LEN]);
        let mut nonce = [0; NONCE_LEN];
        nonce[..COOKIE.len()].copy_from_slice(COOKIE.as_bytes());
        nonce[COOKIE.len()..][..FEATURES_LEN].copy_from_slice(&features);
        // 14 bytes always make 19 characters.
        let _ = STANDARD_NO_PAD.encode_slice(opaque, &mut nonce[COOKIE.len() + FEATURES_LEN..]);
        nonce
    }

    /// Whether this nonce was issued to this client, with these features, and has not expired.
    pub(super) fn is_valid(&self, nonce: &[u8], features: Features, client: &FiveTuple, now: Time) -> bool {
        let Some(rest) = nonce.strip_prefix(COOKIE.as_bytes()) else { return false };
        let Some(encoded) = rest.strip_prefix(&features) else { return false };
        let mut opaque = [0; OPAQUE_LEN];
        if encoded.len() != ENCODED_LEN || STANDARD_NO_PAD.decode_slice(encoded, &mut opaque) != Ok(OPAQUE_LEN) {
            return false;
        }
        let (stamp, tag) = opaque.split_at(STAMP_LEN);
        let issued = u32::from_be_bytes([0, stamp[0], stamp[1], stamp[2]]);
        let age = u64::from(seconds(now).wrapping_sub(issued) % SECONDS);
        age < self.lifetime.as_secs().max(1) && self.tag(features, client, stamp).verify_truncated_left(tag).is_ok()
    }

    fn tag(&self, features: Features, tuple: &FiveTuple, stamp: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(stamp);
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

/// Whole seconds; they wrap, and ages are computed wrapping.
#[allow(clippy::cast_possible_truncation)]
const fn seconds(time: Time) -> u32 {
    (time.0 / 1000) as u32 % SECONDS
}

#[cfg(test)]
mod tests {
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
        for (features, text) in
            [(0, "AAAA"), (PASSWORD_ALGORITHMS, "gAAA"), (PASSWORD_ALGORITHMS | USERNAME_ANONYMITY, "wAAA")]
        {
            let nonce = nonces().issue(super::features(features), &tuple(1), Time(0), 0);
            let nonce = std::str::from_utf8(&nonce).unwrap();
            assert!(nonce.starts_with("obMatJos2") && &nonce[9..13] == text, "{nonce}");
            assert!(nonce.len() < 128 && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
        }
    }

    /// 8489-9.2.4-04, 8489-9.2.4-23, 8489-9.2.4-31, H-07
    #[test]
    fn good_for_one_client_for_its_lifetime_unaltered() {
        let nonces = nonces();
        let nonce = nonces.issue(NONE, &tuple(1), Time(5_000), 7);
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
        assert!(!nonces.is_valid(&nonce[..NONCE_LEN - 1], NONE, &tuple(1), Time(5_000)));
    }

    /// 8656-5-02
    #[test]
    fn each_is_new() {
        let nonces = nonces();
        let issue = |number| nonces.issue(NONE, &tuple(1), Time(0), number);
        assert_ne!(issue(1)[..], issue(2)[..]);
    }

    /// As many bytes as fit without padding (RFC 8489 §14), and time that wraps.
    #[test]
    fn short_and_good_across_the_wrap_of_its_seconds() {
        assert_eq!(NONCE_LEN, 32);
        let (nonces, last) = (nonces(), Time((u64::from(SECONDS) * 7 - 1) * 1000));
        let nonce = nonces.issue(NONE, &tuple(1), last, 255);
        assert!(nonces.is_valid(&nonce, NONE, &tuple(1), Time(last.0 + 599_000)));
        assert!(!nonces.is_valid(&nonce, NONE, &tuple(1), Time(last.0 + 600_000)));
        let lasting = nonces.lasting(Duration::MAX);
        assert!(lasting.is_valid(&nonce, NONE, &tuple(1), Time(last.0 + 86_400_000)));
        assert!(!lasting.is_valid(&nonce, NONE, &tuple(1), Time(last.0 - 1_000)), "from the future");
    }
}
