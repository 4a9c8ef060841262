//! Buffers for what connections have read and not handled, so that steady traffic allocates nothing and idle connections hold
//! nothing: one set per worker.

use std::mem;

/// Room for the start of an unfinished message of ordinary length.
pub(super) const SHORT: usize = 4096;
/// Room for whole messages as well, for which a turn was too short.
const LONG: usize = 16_384 + SHORT;
/// Unused buffers that a worker keeps of each length.
const UNUSED: usize = 16;

/// Unused buffers of the two usual lengths.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    short: Vec<Vec<u8>>,
    long: Vec<Vec<u8>>,
}

/// The capacity of a buffer for so many bytes.
const fn room(len: usize) -> usize {
    if len == 0 {
        0
    } else if len <= SHORT {
        SHORT
    } else if len <= LONG {
        LONG
    } else {
        len.next_power_of_two()
    }
}

impl Buffers {
    fn take(&mut self, room: usize) -> Vec<u8> {
        let unused = match room {
            SHORT => self.short.pop(),
            LONG => self.long.pop(),
            _ => None,
        };
        unused.unwrap_or_else(|| Vec::with_capacity(room))
    }

    /// Takes a buffer back; other lengths than the usual ones are not kept.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        let unused = match buffer.capacity() {
            SHORT => &mut self.short,
            LONG => &mut self.long,
            _ => return,
        };
        if unused.len() < UNUSED {
            buffer.clear();
            unused.push(buffer);
        }
    }

    /// Replaces what a buffer holds by `bytes`, of which it may hold the first `held` already. It is replaced by one of another
    /// length where that fits better.
    pub(super) fn replace(&mut self, buffer: &mut Vec<u8>, bytes: &[u8], held: usize) {
        let room = room(bytes.len());
        let held = if buffer.capacity() == room {
            held
        } else {
            let other = self.take(room);
            self.give(mem::replace(buffer, other));
            0
        };
        buffer.truncate(held);
        buffer.extend_from_slice(&bytes[held..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_of_the_length_that_is_needed_and_come_back() {
        let (mut buffers, mut kept) = (Buffers::default(), Vec::new());
        let bytes: Vec<u8> = (0..70_000u32).map(|at| at as u8).collect();
        for len in [1, SHORT, SHORT + 1, LONG, LONG + 1, 70_000, 5000, 3, 0] {
            buffers.replace(&mut kept, &bytes[..len], 0);
            assert_eq!(kept, bytes[..len]);
            assert_eq!(kept.capacity(), room(len));
        }
        assert_eq!((kept.capacity(), buffers.short.len(), buffers.long.len()), (0, 1, 1));
        let places = [buffers.short[0].as_ptr(), buffers.long[0].as_ptr()];
        for (len, place) in [100, 5000].into_iter().zip(places) {
            buffers.replace(&mut kept, &bytes[..len], 0);
            assert_eq!(kept.as_ptr(), place);
        }
    }

    #[test]
    fn what_a_buffer_holds_is_not_copied_again() {
        let (mut buffers, mut kept) = (Buffers::default(), Vec::new());
        buffers.replace(&mut kept, b"begin", 0);
        buffers.replace(&mut kept, b".....ning", 5);
        assert_eq!(kept, b"beginning");
        // It has to move.
        buffers.replace(&mut kept, &[7; SHORT + 1], 9);
        assert_eq!(kept, [7; SHORT + 1]);
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut buffers = Buffers::default();
        for _ in 0..3 * UNUSED {
            buffers.give(Vec::with_capacity(SHORT));
            buffers.give(Vec::with_capacity(LONG));
            buffers.give(vec![0; 1 << 20]);
        }
        assert_eq!((buffers.short.len(), buffers.long.len()), (UNUSED, UNUSED));
    }
}
