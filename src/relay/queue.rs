//! What waits to be written to one client's connection (bounded), and what gives way when the client is slow.
//!
//! Responses are never dropped: a client that does not read gets no more of its requests read ([`Queue::is_stuffed`]). Data are
//! dropped oldest first when they are too many or too old, as a network would.

use std::{collections::VecDeque, io::IoSlice, time::Duration};

use crate::turn::Time;

/// Buffers kept for the next message, so that steady traffic allocates nothing.
const SPARE: usize = 16;
/// Largest buffer kept.
const SPARE_BYTES: usize = 4096;

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// When data were queued; `None` for responses, which never give way.
    queued: Option<Time>,
}

/// Messages in order; the first may be partly written.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    spare: Vec<Vec<u8>>,
    /// Bytes of data queued.
    data_bytes: usize,
    /// Bytes of responses queued.
    control_bytes: usize,
    /// Bytes of the first message that are written already.
    written: usize,
    limit: usize,
    age: Duration,
}

impl Queue {
    pub(super) const fn new(limit: usize, age: Duration) -> Self {
        Self { entries: VecDeque::new(), spare: Vec::new(), data_bytes: 0, control_bytes: 0, written: 0, limit, age }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so many responses wait that no more requests should be read.
    pub(super) const fn is_stuffed(&self) -> bool {
        self.control_bytes > self.limit
    }

    /// Queues a response.
    pub(super) fn push_control(&mut self, bytes: &[u8]) {
        self.control_bytes += bytes.len();
        self.push(bytes, None);
    }

    /// Queues data; returns how many data messages were dropped for it, itself perhaps among them.
    pub(super) fn push_data(&mut self, bytes: &[u8], now: Time) -> usize {
        let mut dropped = self.drop_old(now);
        while self.data_bytes + bytes.len() > self.limit {
            if !self.drop_oldest(|_| true) {
                return dropped + 1;
            }
            dropped += 1;
        }
        self.data_bytes += bytes.len();
        self.push(bytes, Some(now));
        dropped
    }

    /// Drops data that have waited too long; returns how many messages.
    pub(super) fn drop_old(&mut self, now: Time) -> usize {
        let age = self.age;
        let mut dropped = 0;
        while self.drop_oldest(|queued| now.since(queued) > age) {
            dropped += 1;
        }
        dropped
    }

    /// Drops the oldest data message that is not partly written, if it is `due`.
    fn drop_oldest(&mut self, due: impl Fn(Time) -> bool) -> bool {
        let first = usize::from(self.written > 0);
        let oldest = (first..self.entries.len()).find_map(|at| Some((at, self.entries[at].queued?)));
        match oldest {
            Some((at, queued)) if due(queued) => {
                if let Some(entry) = self.entries.remove(at) {
                    self.forget(entry);
                }
                true
            }
            _ => false,
        }
    }

    fn push(&mut self, bytes: &[u8], queued: Option<Time>) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        self.entries.push_back(Entry { bytes: buffer, queued });
    }

    /// What is to be written next, at most as many slices as there is room for; returns how many.
    pub(super) fn gather<'q>(&'q self, slices: &mut [IoSlice<'q>]) -> usize {
        let mut count = 0;
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            let from = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&entry.bytes[from..]);
            count += 1;
        }
        count
    }

    /// Notes that so many bytes were written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        while let Some(entry) = self.entries.pop_front_if(|first| first.bytes.len() <= self.written) {
            self.written -= entry.bytes.len();
            self.forget(entry);
        }
        if self.entries.is_empty() {
            // A peak's memory is given back.
            self.entries.shrink_to(SPARE);
        }
    }

    fn forget(&mut self, mut entry: Entry) {
        let counter = if entry.queued.is_some() { &mut self.data_bytes } else { &mut self.control_bytes };
        *counter -= entry.bytes.len();
        if self.spare.len() < SPARE && entry.bytes.capacity() <= SPARE_BYTES {
            entry.bytes.clear();
            self.spare.push(entry.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(queue: &Queue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = queue.gather(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn the_oldest_data_give_way_and_responses_never() {
        let mut queue = Queue::new(6, Duration::from_secs(1));
        assert_eq!(queue.push_data(b"aa", Time(0)), 0);
        queue.push_control(b"RR");
        assert_eq!(queue.push_data(b"bb", Time(0)), 0);
        assert_eq!(queue.push_data(b"cc", Time(0)), 0);
        assert_eq!(queue.push_data(b"dddd", Time(0)), 2);
        assert_eq!(contents(&queue), b"RRccdddd");
        assert_eq!(queue.push_data(b"too long", Time(0)), 3);
        assert_eq!(contents(&queue), b"RR");
    }

    #[test]
    fn a_message_begun_is_finished() {
        let mut queue = Queue::new(4, Duration::from_secs(1));
        assert_eq!(queue.push_data(b"abcd", Time(0)), 0);
        queue.advance(1);
        assert_eq!(queue.push_data(b"e", Time(0)), 1);
        assert_eq!(queue.drop_old(Time(5000)), 0);
        assert_eq!(contents(&queue), b"bcd");
        queue.advance(3);
        assert!(queue.is_empty());
        assert_eq!(queue.push_data(b"efgh", Time(0)), 0);
    }

    #[test]
    fn old_data_are_dropped() {
        let mut queue = Queue::new(100, Duration::from_secs(1));
        queue.push_data(b"a", Time(0));
        queue.push_data(b"b", Time(500));
        assert_eq!(queue.drop_old(Time(1000)), 0);
        assert_eq!(queue.drop_old(Time(1001)), 1);
        assert_eq!(contents(&queue), b"b");
    }

    #[test]
    fn unread_responses_stop_reading() {
        let mut queue = Queue::new(4, Duration::from_secs(1));
        queue.push_control(b"RRRR");
        assert!(!queue.is_stuffed());
        queue.push_control(b"R");
        assert!(queue.is_stuffed());
        queue.advance(4);
        assert!(!queue.is_stuffed());
    }
}
