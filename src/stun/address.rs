//! Transport addresses in attributes: plain (RFC 8489 §14.1) and XOR-coded (§14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

/// Family code of IPv4 (RFC 8489 §14.1).
pub const FAMILY_IPV4: u8 = 0x01;
/// Family code of IPv6 (RFC 8489 §14.1).
pub const FAMILY_IPV6: u8 = 0x02;

/// The longest encoded address: IPv6.
pub const MAX_LEN: usize = 20;

/// Encodes an address; returns the bytes and how many of them are used (8 or 20).
#[must_use]
pub fn encode(address: SocketAddr) -> ([u8; MAX_LEN], usize) {
    let mut out = [0; MAX_LEN];
    let [port_high, port_low] = address.port().to_be_bytes();
    let (head, tail) = out.split_at_mut(4);
    let (family, used) = match address.ip() {
        IpAddr::V4(ip) => {
            tail.iter_mut().zip(ip.octets()).for_each(|(to, from)| *to = from);
            (FAMILY_IPV4, 8)
        }
        IpAddr::V6(ip) => {
            tail.iter_mut().zip(ip.octets()).for_each(|(to, from)| *to = from);
            (FAMILY_IPV6, 20)
        }
    };
    head.copy_from_slice(&[0, family, port_high, port_low]);
    (out, used)
}

/// Decodes an address attribute's value. `None` if the family is unknown or does not fit the length.
///
/// The first byte is ignored (RFC 8489 §14.1).
#[must_use]
pub fn decode(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, port_high, port_low], ip) = value.split_first_chunk::<4>()?;
    let ip = match family {
        FAMILY_IPV4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        FAMILY_IPV6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([port_high, port_low])))
}

/// Applies the XOR coding of RFC 8489 §14.2; its own inverse.
#[must_use]
pub fn xor(address: SocketAddr, transaction_id: TransactionId) -> SocketAddr {
    let [cookie_0, cookie_1, ..] = MAGIC_COOKIE.to_be_bytes();
    let port = address.port() ^ u16::from_be_bytes([cookie_0, cookie_1]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            let (cookie, tid) = mask.split_at_mut(4);
            cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            tid.copy_from_slice(&transaction_id.0);
            IpAddr::from(Ipv6Addr::from(ip.to_bits() ^ u128::from_be_bytes(mask)))
        }
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8489-14.2-01, 8489-14.1-01
    #[test]
    fn xor_coding_of_rfc_5769() {
        let tid = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        let v4: SocketAddr = "192.0.2.1:32853".parse().unwrap();
        let (bytes, len) = encode(xor(v4, tid));
        assert_eq!(&bytes[..len], [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(xor(decode(&bytes[..len]).unwrap(), tid), v4);

        let v6: SocketAddr = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        let (bytes, len) = encode(xor(v6, tid));
        assert_eq!(&bytes[..8], [0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa]);
        assert_eq!(xor(decode(&bytes[..len]).unwrap(), tid), v6);
    }

    /// 8489-14.1-02
    #[test]
    fn first_byte_is_ignored() {
        assert_eq!(decode(&[0xff, 1, 0, 80, 192, 0, 2, 1]), Some("192.0.2.1:80".parse().unwrap()));
    }

    #[test]
    fn family_and_length_must_agree() {
        assert_eq!(decode(&[0, 2, 0, 80, 192, 0, 2, 1]), None);
        assert_eq!(decode(&[0, 3, 0, 80, 192, 0, 2, 1]), None);
        assert_eq!(decode(&[0, 1, 0, 80, 192, 0, 2]), None);
        assert_eq!(decode(&[0, 1, 0]), None);
        assert_eq!(decode(&[]), None);
        let mut v6 = [0; 20];
        v6[1] = 1;
        assert_eq!(decode(&v6), None);
    }
}
