//! What a datagram is, told by its first byte (RFC 7983 §7, RFC 8656 §12).

/// The protocols that share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// First byte 0–3.
    Stun,
    /// First byte 64–79; up to 127 when RFC 5766 channel numbers are accepted.
    ChannelData,
    /// Anything that this server does not serve: dropped.
    Other,
}

impl Protocol {
    /// Classifies by first byte. `wide_channels` admits the channel numbers of RFC 5766 (0x4000–0x7FFF).
    #[must_use]
    pub const fn of(first: u8, wide_channels: bool) -> Self {
        match first {
            0..=3 => Self::Stun,
            64..=79 => Self::ChannelData,
            80..=127 if wide_channels => Self::ChannelData,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7983-7-01, 7983-7-02, 8656-12-01
    #[test]
    fn every_first_byte() {
        for first in 0..=u8::MAX {
            let expected = match first {
                0..=3 => Protocol::Stun,
                64..=79 => Protocol::ChannelData,
                _ => Protocol::Other,
            };
            assert_eq!(Protocol::of(first, false), expected);
            let wide = if (64..=127).contains(&first) { Protocol::ChannelData } else { expected };
            assert_eq!(Protocol::of(first, true), wide);
        }
    }
}
