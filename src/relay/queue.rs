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
/// What a message takes besides its bytes, counted against the limit: its entry, as much again because the lane doubles
/// when it grows, and the least that an allocator gives for a buffer.
const OVERHEAD: usize = 2 * size_of::<Entry>() + 32;

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// Its place among all messages.
    place: u64,
    /// When it was queued, if it gives way when it is old.
    queued: Option<Time>,
}

/// Messages of one kind, in order.
#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    /// Memory that they take.
    size: usize,
}

impl Lane {
    const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0 }
    }

    fn push(&mut self, entry: Entry) {
        self.size += OVERHEAD + entry.bytes.len();
        self.entries.push_back(entry);
    }

    /// The memory of an entry just removed is free.
    const fn removed(&mut self, entry: &Entry) {
        self.size -= OVERHEAD + entry.bytes.len();
    }
}

/// Messages in order; the first may be partly written.
///
/// Data and responses have a lane each, so that the oldest data are found at once; their places say how to merge them.
#[derive(Debug)]
pub(super) struct Queue {
    data: Lane,
    control: Lane,
    spare: Vec<Vec<u8>>,
    /// The place of the next message.
    place: u64,
    /// Bytes of the first message that are written already.
    written: usize,
    limit: usize,
    age: Duration,
}

/// Whether data are next, given the first of each lane.
const fn is_data_next(data: Option<&Entry>, control: Option<&Entry>) -> bool {
    match (data, control) {
        (Some(data), Some(control)) => data.place < control.place,
        (data, _) => data.is_some(),
    }
}

impl Queue {
    pub(super) const fn new(limit: usize, age: Duration) -> Self {
        Self { data: Lane::new(), control: Lane::new(), spare: Vec::new(), place: 0, written: 0, limit, age }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.entries.is_empty() && self.control.entries.is_empty()
    }

    /// Whether so many responses wait that no more requests should be read.
    pub(super) const fn is_stuffed(&self) -> bool {
        self.control.size > self.limit
    }

    /// Queues a response.
    pub(super) fn push_control(&mut self, bytes: &[u8]) {
        let entry = self.entry(bytes, None);
        self.control.push(entry);
    }

    /// Queues data; returns how many data messages were dropped for it, itself perhaps among them.
    pub(super) fn push_data(&mut self, bytes: &[u8], now: Time) -> usize {
        let mut dropped = self.drop_old(now);
        while self.data.size + OVERHEAD + bytes.len() > self.limit {
            if !self.drop_oldest(|_| true) {
                return dropped + 1;
            }
            dropped += 1;
        }
        let entry = self.entry(bytes, Some(now));
        self.data.push(entry);
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
        let oldest = usize::from(self.written > 0 && self.is_data_next());
        let queued = self.data.entries.get(oldest).and_then(|entry| entry.queued);
        if !queued.is_some_and(due) {
            return false;
        }
        if let Some(entry) = self.data.entries.remove(oldest) {
            self.data.removed(&entry);
            self.recycle(entry.bytes);
        }
        true
    }

    fn is_data_next(&self) -> bool {
        is_data_next(self.data.entries.front(), self.control.entries.front())
    }

    fn entry(&mut self, bytes: &[u8], queued: Option<Time>) -> Entry {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        self.place += 1;
        Entry { bytes: buffer, place: self.place, queued }
    }

    /// What is to be written next, at most as many slices as there is room for; returns how many.
    pub(super) fn gather<'q>(&'q self, slices: &mut [IoSlice<'q>]) -> usize {
        let mut data = self.data.entries.iter().peekable();
        let mut control = self.control.entries.iter().peekable();
        let mut count = 0;
        for slice in slices {
            let is_data = is_data_next(data.peek().copied(), control.peek().copied());
            let Some(entry) = (if is_data { data.next() } else { control.next() }) else { break };
            let from = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&entry.bytes[from..]);
            count += 1;
        }
        count
    }

    /// Notes that so many bytes were written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        loop {
            let lane = if self.is_data_next() { &mut self.data } else { &mut self.control };
            let Some(entry) = lane.entries.pop_front_if(|first| first.bytes.len() <= self.written) else { break };
            lane.removed(&entry);
            self.written -= entry.bytes.len();
            self.recycle(entry.bytes);
        }
        for lane in [&mut self.data, &mut self.control] {
            if lane.entries.is_empty() {
                // A peak's memory is given back.
                lane.entries.shrink_to(SPARE);
            }
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE && buffer.capacity() <= SPARE_BYTES {
            buffer.clear();
            self.spare.push(buffer);
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

    /// A limit for this many messages of so many bytes together.
    const fn room(messages: usize, bytes: usize) -> usize {
        messages * OVERHEAD + bytes
    }

    #[test]
    fn the_oldest_data_give_way_and_responses_never() {
        let mut queue = Queue::new(room(3, 6), Duration::from_secs(1));
        assert_eq!(queue.push_data(b"aa", Time(0)), 0);
        queue.push_control(b"RR");
        assert_eq!(queue.push_data(b"bb", Time(0)), 0);
        assert_eq!(queue.push_data(b"cc", Time(0)), 0);
        assert_eq!(contents(&queue), b"aaRRbbcc");
        assert_eq!(queue.push_data(b"dddd", Time(0)), 2);
        assert_eq!(contents(&queue), b"RRccdddd");
        let too_long = [0; room(3, 6)];
        assert_eq!(queue.push_data(&too_long, Time(0)), 3);
        assert_eq!(contents(&queue), b"RR");
    }

    #[test]
    fn a_message_begun_is_finished() {
        let mut queue = Queue::new(room(1, 4), Duration::from_secs(1));
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
    fn data_behind_a_response_begun_give_way() {
        let mut queue = Queue::new(room(1, 4), Duration::from_secs(1));
        queue.push_control(b"RR");
        assert_eq!(queue.push_data(b"abcd", Time(0)), 0);
        queue.advance(1);
        assert_eq!(queue.push_data(b"efgh", Time(0)), 1);
        assert_eq!(contents(&queue), b"Refgh");
        queue.advance(2);
        assert_eq!(contents(&queue), b"fgh");
        queue.push_control(b"SS");
        assert_eq!(queue.push_data(b"ijkl", Time(0)), 1);
        assert_eq!(contents(&queue), b"fghSS");
        queue.advance(5);
        assert!(queue.is_empty());
        assert_eq!((queue.data.size, queue.control.size), (0, 0));
    }

    #[test]
    fn old_data_are_dropped() {
        let mut queue = Queue::new(1000, Duration::from_secs(1));
        queue.push_data(b"a", Time(0));
        queue.push_data(b"b", Time(500));
        assert_eq!(queue.drop_old(Time(1000)), 0);
        assert_eq!(queue.drop_old(Time(1001)), 1);
        assert_eq!(contents(&queue), b"b");
    }

    #[test]
    fn unread_responses_stop_reading() {
        let mut queue = Queue::new(room(1, 4), Duration::from_secs(1));
        queue.push_control(b"RRRR");
        assert!(!queue.is_stuffed());
        queue.push_control(b"R");
        assert!(queue.is_stuffed());
        queue.advance(4);
        assert!(!queue.is_stuffed());
    }

    /// What the lane and the buffers take, as far as it can be seen: an allocation is at least 32 bytes.
    #[test]
    fn many_small_messages_take_no_more_memory_than_the_limit() {
        const LIMIT: usize = 256 << 10;
        let mut queue = Queue::new(LIMIT, Duration::from_secs(1));
        for _ in 0..100_000 {
            queue.push_data(b"abcd", Time(0));
        }
        let entries = &queue.data.entries;
        let memory = entries.capacity() * size_of::<Entry>() + entries.len() * 32;
        assert!(memory <= LIMIT, "{memory}");
        while !queue.is_stuffed() {
            queue.push_control(b"abcd");
        }
        let entries = &queue.control.entries;
        let memory = entries.capacity() * size_of::<Entry>() + entries.len() * 32;
        assert!(memory <= LIMIT + 1000, "{memory}");
    }

    /// 100,000 drops behind 50,000 responses: milliseconds, unless each looks at all of them.
    #[test]
    fn data_are_dropped_without_looking_at_responses() {
        let mut queue = Queue::new(room(10, 40), Duration::from_secs(1));
        for _ in 0..50_000 {
            queue.push_control(b"RRRR");
        }
        let start = std::time::Instant::now();
        let dropped: usize = (0..100_000).map(|_| queue.push_data(b"data", Time(0))).sum();
        assert_eq!(dropped, 100_000 - 10);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
