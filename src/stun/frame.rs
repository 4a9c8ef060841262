//! Framing on streams: where one message ends and the next begins (RFC 8489 §6.2.2, RFC 8656 §12.5).

use super::{HEADER_LEN, MAGIC_COOKIE, channel_data, demultiplex::Protocol, padded};

/// What the bytes at the front of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A whole STUN message of this many bytes.
    Stun(usize),
    /// A whole ChannelData message of this many bytes, padding included.
    ChannelData(usize),
    /// The start of a message; it will be whole when there are this many bytes (never more than 64 KiB and a header).
    Partial(usize),
    /// Bytes that can be neither: framing is lost and the stream is of no more use.
    Lost,
}

/// Looks at the front of a stream. `wide_channels` as in [`Protocol::of`].
#[must_use]
pub fn front(bytes: &[u8], wide_channels: bool) -> Frame {
    let Some(&first) = bytes.first() else { return Frame::Partial(channel_data::HEADER_LEN) };
    let protocol = Protocol::of(first, wide_channels);
    if protocol == Protocol::Other {
        return Frame::Lost;
    }
    let Some(&[_, _, len_high, len_low]) = bytes.first_chunk::<4>() else {
        return Frame::Partial(channel_data::HEADER_LEN);
    };
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let (total, whole) = if protocol == Protocol::Stun {
        let cookie = MAGIC_COOKIE.to_be_bytes();
        let cookie_differs = bytes.iter().skip(4).zip(cookie).any(|(have, want)| *have != want);
        if !len.is_multiple_of(4) || cookie_differs {
            return Frame::Lost;
        }
        let total = len.saturating_add(HEADER_LEN);
        (total, Frame::Stun(total))
    } else {
        let total = padded(len.saturating_add(channel_data::HEADER_LEN));
        (total, Frame::ChannelData(total))
    };
    if bytes.len() >= total { whole } else { Frame::Partial(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    /// 8489-6.2.2-05
    #[test]
    fn a_message_in_any_segmentation() {
        for len in 0..4 {
            assert_eq!(front(&BINDING[..len], false), Frame::Partial(4));
        }
        for len in 4..20 {
            assert_eq!(front(&BINDING[..len], false), Frame::Partial(20));
        }
        assert_eq!(front(&BINDING, false), Frame::Stun(20));
        assert_eq!(front(&[BINDING, BINDING].concat(), false), Frame::Stun(20));
    }

    /// 8656-12.6-03
    #[test]
    fn channel_data_is_padded() {
        assert_eq!(front(&[0x40, 0, 0, 0], false), Frame::ChannelData(4));
        assert_eq!(front(&[0x40, 0, 0, 1, 9, 0, 0], false), Frame::Partial(8));
        assert_eq!(front(&[0x40, 0, 0, 1, 9, 0, 0, 0], false), Frame::ChannelData(8));
        assert_eq!(front(&[0x4F, 0xFF, 0xFF, 0xFF], false), Frame::Partial(65540));
    }

    /// The letters of "GET " are a channel number and a length, so only the channel's being unbound tells them apart.
    #[test]
    fn text_can_look_like_channel_data() {
        assert_eq!(front(b"GET / HTTP/1.1", false), Frame::Partial(4 + 0x5420));
    }

    /// H-18
    #[test]
    fn lost_framing() {
        assert_eq!(front(b"POST / HTTP/1.1", false), Frame::Lost);
        assert_eq!(front(&[0x16, 3, 1, 0, 0xF4], false), Frame::Lost);
        assert_eq!(front(&[0x50, 0, 0, 0], false), Frame::Lost);
        assert_eq!(front(&[0x50, 0, 0, 0], true), Frame::ChannelData(4));
        assert_eq!(front(&[0, 1, 0, 3], false), Frame::Lost);
        assert_eq!(front(&[0, 1, 0, 0, 0x21, 0x13], false), Frame::Lost);
    }
}
