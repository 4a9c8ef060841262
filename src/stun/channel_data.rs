//! ChannelData messages (RFC 8656 §12.4).

use std::ops::RangeInclusive;

/// Bytes of a ChannelData header.
pub const HEADER_LEN: usize = 4;

/// A channel number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(pub u16);

impl ChannelNumber {
    /// Numbers that may be bound (RFC 8656 §12).
    pub const RANGE: RangeInclusive<u16> = 0x4000..=0x4FFF;
    /// Numbers that RFC 5766 clients bind (RFC 5766 §11).
    pub const WIDE_RANGE: RangeInclusive<u16> = 0x4000..=0x7FFF;
}

/// A ChannelData message, borrowed from a datagram or a stream frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelData {
    /// The channel.
    pub number: ChannelNumber,
    /// Bytes of application data, which begin after the header.
    pub len: u16,
}

impl ChannelData {
    /// Reads the header; `None` if `bytes` is shorter than the header or than the length that it claims (RFC 8656 §12.6).
    /// Bytes after the claimed length (padding) are ignored.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[number_high, number_low, len_high, len_low], data) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let len = u16::from_be_bytes([len_high, len_low]);
        (data.len() >= usize::from(len))
            .then_some(Self { number: ChannelNumber(u16::from_be_bytes([number_high, number_low])), len })
    }

    /// The header as bytes.
    #[must_use]
    pub const fn header(self) -> [u8; HEADER_LEN] {
        let [number_high, number_low] = self.number.0.to_be_bytes();
        let [len_high, len_low] = self.len.to_be_bytes();
        [number_high, number_low, len_high, len_low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8656-12.4-01, 8656-12.5-03, 8656-12.6-02
    #[test]
    fn header_length_and_padding() {
        let message = ChannelData { number: ChannelNumber(0x4001), len: 3 };
        let mut bytes = message.header().to_vec();
        assert_eq!(bytes, [0x40, 0x01, 0, 3]);
        bytes.extend_from_slice(b"ab");
        assert_eq!(ChannelData::parse(&bytes), None);
        bytes.push(b'c');
        assert_eq!(ChannelData::parse(&bytes), Some(message));
        bytes.push(0);
        assert_eq!(ChannelData::parse(&bytes), Some(message));
        assert_eq!(ChannelData::parse(&bytes[..3]), None);
    }
}
