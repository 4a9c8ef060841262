//! The cookie exchange (RFC 6347 §4.2.1): a ClientHello without our cookie is answered by a HelloVerifyRequest, which is shorter,
//! and forgotten. Bytes to bytes; nothing is kept for anybody.
//!
//! A cookie is a keyed MAC over the time, both ends of the 5-tuple and the client's random bytes: it is good for the ClientHello
//! that it was made for, from the address that it was sent to, for one to two minutes.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::turn::{FiveTuple, Time};

/// Bytes of a cookie.
const COOKIE_LEN: usize = 16;
/// A cookie is good in the minute that it was made in, and in the next.
const WINDOW_MS: u64 = 60_000;
/// Bytes before the body of a handshake message: a record's header and the message's.
const HEADERS: usize = 13 + 12;
/// Bytes of a HelloVerifyRequest. Any ClientHello is longer: its random bytes alone make up for all that differs.
pub const VERIFY_LEN: usize = HEADERS + 3 + COOKIE_LEN;
/// Bytes that the client has drawn.
const RANDOM_LEN: usize = 32;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// DTLS 1.0, which a HelloVerifyRequest has whatever is agreed on later (RFC 6347 §4.2.1).
const VERSION: [u8; 2] = [0xFE, 0xFF];

/// What the client has drawn to tell its handshakes apart.
pub type Random = [u8; RANDOM_LEN];

/// What matters in a ClientHello at this point. Everything in it is yet to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'d> {
    pub random: Random,
    cookie: &'d [u8],
    /// Number of the record, which the answer repeats.
    record: [u8; 6],
}

/// The ClientHello that a datagram begins with: a first fragment, if it is fragmented, must reach beyond the cookie.
pub fn parse(datagram: &[u8]) -> Option<Hello<'_>> {
    let (&[kind, major, _, e0, e1, r0, r1, r2, r3, r4, r5, l0, l1], rest) = datagram.split_first_chunk::<13>()?;
    if (kind, major, [e0, e1]) != (HANDSHAKE, VERSION[0], [0, 0]) {
        return None;
    }
    let record = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
    let (&[kind, _, _, _, _, _, o0, o1, o2, f0, f1, f2], body) = record.split_first_chunk::<12>()?;
    let fragment = body.get(..u32::from_be_bytes([0, f0, f1, f2]) as usize)?;
    if kind != CLIENT_HELLO || [o0, o1, o2] != [0; 3] {
        return None;
    }
    let (_version, rest) = fragment.split_first_chunk::<2>()?;
    let (random, rest) = rest.split_first_chunk::<RANDOM_LEN>()?;
    let (_session, rest) = split_counted(rest)?;
    let (cookie, _suites) = split_counted(rest)?;
    Some(Hello { random: *random, cookie, record: [r0, r1, r2, r3, r4, r5] })
}

/// Splits off what a byte of length stands before.
fn split_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

/// Makes and checks cookies.
pub struct Cookies(Hmac<Sha256>);

impl Cookies {
    pub fn new(secret: &[u8; 32]) -> Self {
        // HMAC takes keys of any length (RFC 2104 §2).
        Self(Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!()))
    }

    /// Whether the ClientHello has a cookie that was made for it.
    pub fn has_proved(&self, hello: &Hello<'_>, tuple: &FiveTuple, now: Time) -> bool {
        let window = now.0 / WINDOW_MS;
        hello.cookie.len() == COOKIE_LEN
            && [window, window.wrapping_sub(1)]
                .into_iter()
                .any(|window| self.tag(hello, tuple, window).verify_truncated_left(hello.cookie).is_ok())
    }

    /// The HelloVerifyRequest that answers a ClientHello.
    pub fn challenge(&self, hello: &Hello<'_>, tuple: &FiveTuple, now: Time) -> [u8; VERIFY_LEN] {
        #[allow(clippy::cast_possible_truncation)] // 47 bytes in all
        const fn low(len: usize) -> u8 {
            len as u8
        }
        const BODY: u8 = low(3 + COOKIE_LEN);
        let mut verify = [0; VERIFY_LEN];
        let (record, message) = verify.split_at_mut(13);
        record[0] = HANDSHAKE;
        record[1..3].copy_from_slice(&VERSION);
        record[5..11].copy_from_slice(&hello.record);
        record[12] = 12 + BODY;
        // Message 0, in one fragment.
        (message[0], message[3], message[11]) = (HELLO_VERIFY_REQUEST, BODY, BODY);
        message[12..14].copy_from_slice(&VERSION);
        message[14] = low(COOKIE_LEN);
        let tag = self.tag(hello, tuple, now.0 / WINDOW_MS).finalize().into_bytes();
        message[15..].copy_from_slice(&tag[..COOKIE_LEN]);
        verify
    }

    fn tag(&self, hello: &Hello<'_>, tuple: &FiveTuple, window: u64) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&window.to_be_bytes());
        for address in [tuple.client, tuple.server] {
            update_address(&mut mac, address);
        }
        mac.update(&hello.random);
        mac
    }
}

fn update_address(mac: &mut Hmac<Sha256>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Transport;
    use proptest::prelude::*;

    const NOW: Time = Time(1_000 * WINDOW_MS);

    fn tuple(client: &str) -> FiveTuple {
        FiveTuple {
            client: client.parse().unwrap(),
            server: "192.0.2.1:5349".parse().unwrap(),
            transport: Transport::Dtls,
        }
    }

    /// The shortest ClientHello that there is: one suite, no extension.
    fn hello(random: u8, cookie: &[u8]) -> Vec<u8> {
        let cookie_len = u8::try_from(cookie.len()).unwrap();
        let mut body = vec![0xFE, 0xFD];
        body.extend([random; RANDOM_LEN]);
        body.extend([0, cookie_len]);
        body.extend(cookie);
        body.extend([0, 2, 0xC0, 0x2F, 1, 0]);
        let len = u8::try_from(body.len()).unwrap();
        let mut datagram = vec![HANDSHAKE, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 7, 0, len + 12];
        datagram.extend([CLIENT_HELLO, 0, 0, len, 0, 0, 0, 0, 0, 0, 0, len]);
        datagram.extend(body);
        datagram
    }

    /// The cookie in a HelloVerifyRequest.
    fn cookie(verify: &[u8; VERIFY_LEN]) -> &[u8] {
        &verify[VERIFY_LEN - COOKIE_LEN..]
    }

    /// 7350-4.6-01
    #[test]
    fn a_cookie_is_good_for_its_client_and_its_hello_and_for_a_while() {
        let cookies = Cookies::new(&[1; 32]);
        let first = hello(5, &[]);
        let first = parse(&first).unwrap();
        let (client, stranger) = (tuple("198.51.100.1:4000"), tuple("198.51.100.2:4000"));
        assert!(!cookies.has_proved(&first, &client, NOW));
        let verify = cookies.challenge(&first, &client, NOW);
        let second = hello(5, cookie(&verify));
        let second = parse(&second).unwrap();
        let later = |ms: u64| Time(NOW.0 + ms);
        for (hello, tuple, now, expected) in [
            (&second, &client, NOW, true),
            (&second, &client, later(2 * WINDOW_MS - 1), true),
            (&second, &client, later(2 * WINDOW_MS), false),
            (&second, &stranger, NOW, false),
            (&second, &tuple("198.51.100.1:4001"), NOW, false),
            (&Hello { random: [6; RANDOM_LEN], ..second }, &client, NOW, false),
            (&Hello { cookie: &second.cookie[1..], ..second }, &client, NOW, false),
        ] {
            assert_eq!(cookies.has_proved(hello, tuple, now), expected, "{hello:?} {tuple:?}");
        }
        assert!(!Cookies::new(&[2; 32]).has_proved(&second, &client, NOW));
    }

    /// 7350-4.6-01
    #[test]
    fn the_answer_is_a_hello_verify_request_and_shorter_than_any_hello() {
        let first = hello(5, &[]);
        let verify = Cookies::new(&[1; 32]).challenge(&parse(&first).unwrap(), &tuple("198.51.100.1:4000"), NOW);
        assert!(verify.len() < first.len());
        // Header of the record with the number of the ClientHello's, header of the message, version, length of the cookie.
        let expected = [
            &[22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 7, 0, 31][..],
            &[3, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 19],
            &[0xFE, 0xFF, 16],
        ];
        assert_eq!(verify[..VERIFY_LEN - COOKIE_LEN], expected.concat());
    }

    #[test]
    fn what_is_no_client_hello_is_none() {
        let whole = hello(5, &[9; COOKIE_LEN]);
        assert_eq!(parse(&whole).unwrap().cookie, [9; COOKIE_LEN]);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), None, "{len}");
        }
        // Another kind of record, another epoch, another message, a later fragment.
        for (at, value) in [(0, 23), (1, 3), (4, 1), (13, 2), (21, 1)] {
            let mut changed = whole.clone();
            changed[at] = value;
            assert_eq!(parse(&changed), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
            if like {
                let whole = hello(1, &[]);
                let len = bytes.len().min(28);
                bytes[..len].copy_from_slice(&whole[..len]);
            }
            if let Some(hello) = parse(&bytes) {
                prop_assert!(bytes.len() > VERIFY_LEN);
                prop_assert!(!Cookies::new(&[1; 32]).has_proved(&hello, &tuple("198.51.100.1:4000"), NOW));
            }
        }
    }
}
