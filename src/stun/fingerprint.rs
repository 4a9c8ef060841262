//! FINGERPRINT (RFC 8489 §14.7): CRC-32 of the message before it, XORed with a constant.

/// The constant (RFC 8489 §14.7): ASCII "STUN".
const XOR: u32 = 0x5354_554e;

/// The fingerprint of the bytes before the attribute, whose header length already counts the attribute.
#[must_use]
pub fn of(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ XOR
}
