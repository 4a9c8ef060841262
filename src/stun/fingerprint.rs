//! FINGERPRINT (RFC 8489 §14.7): CRC-32 of the message before it, XORed with a constant.

/// The constant (RFC 8489 §14.7): ASCII "STUN".
const XOR: u32 = 0x5354_554e;

/// The fingerprint of the bytes before the attribute, whose header length already counts the attribute.
#[must_use]
pub fn of(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ XOR
}

#[cfg(test)]
mod tests {
    use super::super::vectors;
    use super::*;

    /// 5769-2-01, 8489-14.7-01
    #[test]
    fn the_fingerprints_of_rfc_5769() {
        for vector in [vectors::REQUEST, vectors::RESPONSE_IPV4, vectors::RESPONSE_IPV6] {
            let (before, attribute) = vector.split_at(vector.len() - 8);
            assert_eq!(attribute[..4], [0x80, 0x28, 0, 4]);
            assert_eq!(of(before).to_be_bytes(), attribute[4..]);
        }
    }
}
