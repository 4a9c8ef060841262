//! Where one message ends and the next begins in what is written to a client: bytes to lengths.

use std::io::IoSlice;

/// Follows the messages of one stream. Bytes are never changed: at worst, boundaries are not where they might be.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Bytes still to come of a message that was begun.
    left: usize,
}

impl Messages {
    /// How many of the bytes that are next belong to one message, or to the rest of one; none if there are none.
    pub(super) fn next(&mut self, bytes: &[IoSlice<'_>]) -> usize {
        let there: usize = bytes.iter().map(|slice| slice.len()).sum();
        if self.left == 0 {
            self.left = length(bytes).unwrap_or(there);
        }
        let len = self.left.min(there);
        self.left -= len;
        len
    }
}

/// The length of the message that begins here, by its header (RFC 8489 §5, RFC 8656 §12.5); `None` for what has none.
fn length(bytes: &[IoSlice<'_>]) -> Option<usize> {
    let mut header = bytes.iter().flat_map(|slice| slice.iter().copied());
    let (first, _) = (header.next()?, header.next()?);
    let len = usize::from(u16::from_be_bytes([header.next()?, header.next()?]));
    match first >> 6 {
        0 => Some(20 + len),
        1 => Some((4 + len).next_multiple_of(4)),
        _ => None,
    }
}

/// The first so many bytes, in as many slices as there is room for; returns how many.
pub(super) fn front<'b>(bytes: &'b [IoSlice<'_>], len: usize, parts: &mut [IoSlice<'b>]) -> usize {
    let (mut count, mut left) = (0, len);
    for (part, slice) in parts.iter_mut().zip(bytes) {
        *part = IoSlice::new(&slice[..slice.len().min(left)]);
        left -= part.len();
        count += 1;
        if left == 0 {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let message = (any::<bool>(), 0..40_usize).prop_map(|(is_stun, len)| {
            let content = if is_stun { len.next_multiple_of(4) } else { len };
            let whole = if is_stun { 20 + content } else { (4 + content).next_multiple_of(4) };
            let mut bytes = vec![0x40; whole];
            bytes[0] = if is_stun { 1 } else { 0x4F };
            bytes[2..4].copy_from_slice(&u16::try_from(content).unwrap().to_be_bytes());
            bytes
        });
        prop::collection::vec(message, 0..20)
    }

    proptest! {
        /// However messages lie in memory, each is cut off by itself.
        #[test]
        fn messages_are_told_apart(messages in messages(), cuts in prop::collection::vec(1..50_usize, 1..50)) {
            let bytes = messages.concat();
            let ends: Vec<usize> = messages.iter().scan(0, |end, message| { *end += message.len(); Some(*end) }).collect();
            let (mut slices, mut at, mut follower, mut found) = (Vec::new(), 0, Messages::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                let len = (*cut).min(bytes.len() - at);
                if len == 0 {
                    break;
                }
                slices.push(IoSlice::new(&bytes[at..at + len]));
                at += len;
            }
            let (mut rest, mut at) = (&mut slices[..], 0);
            loop {
                let len = follower.next(rest);
                if len == 0 {
                    break;
                }
                let mut parts = [IoSlice::new(&[]); 64];
                let count = front(rest, len, &mut parts);
                let cut: Vec<u8> = parts[..count].iter().flat_map(|part| part.to_vec()).collect();
                prop_assert_eq!(&cut, &bytes[at..at + len]);
                at += len;
                found.push(at);
                IoSlice::advance_slices(&mut rest, len);
            }
            prop_assert_eq!(&found, &ends);
        }
    }

    #[test]
    fn the_rest_of_a_message_comes_later() {
        let (mut follower, message) = (Messages::default(), [&[0x40, 0, 0, 9][..], &[7; 12]].concat());
        let two = message.repeat(2);
        assert_eq!(follower.next(&[IoSlice::new(&two[..10])]), 10);
        assert_eq!(follower.next(&[IoSlice::new(&two[10..])]), 6);
        assert_eq!(follower.next(&[IoSlice::new(&two[16..18]), IoSlice::new(&two[18..])]), 16);
    }

    #[test]
    fn what_is_no_message_is_one_piece() {
        assert_eq!(Messages::default().next(&[IoSlice::new(&[0xFF; 9]), IoSlice::new(&[0xFF; 3])]), 12);
        assert_eq!(Messages::default().next(&[IoSlice::new(&[0, 1, 0])]), 3);
        assert_eq!(Messages::default().next(&[]), 0);
    }
}
