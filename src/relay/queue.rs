//! What waits to be written to one client's connection (bounded), and what gives way when the client is slow.
//!
//! Responses are never dropped: a client that does not read gets no more of its requests read ([`Queue::is_stuffed`]). Data are
//! dropped oldest first when they are too many or too old, as a network would.
//!
//! Messages are copied once, behind each other, so that one call writes many. An empty queue holds no memory: what it needs
//! while it is not empty comes from the worker's [`Spare`] and goes back there.

use std::{collections::VecDeque, io::IoSlice, mem, ops::Range, time::Duration};

use crate::turn::Time;

/// Bytes and messages that storage has room for at first.
const FIRST: (usize, usize) = (4096, 32);
/// Memory of unused storage that a worker keeps.
const KEPT: usize = 512 << 10;
/// What a message takes besides its bytes, counted against the limit: its entry, and as much again because the list of them
/// doubles when it grows.
const OVERHEAD: usize = 2 * size_of::<Message>();

#[derive(Debug)]
struct Message {
    len: usize,
    /// Its place among all messages.
    place: u64,
    /// When it was queued.
    queued: Time,
}

/// Messages and their bytes, in order.
#[derive(Debug, Default)]
struct Storage {
    bytes: VecDeque<u8>,
    messages: VecDeque<Message>,
}

impl Storage {
    fn memory(&self) -> usize {
        self.bytes.capacity() + self.messages.capacity() * size_of::<Message>()
    }

    /// Makes room for one more message of so many bytes. What one part no longer needs goes before both together take more
    /// than the limit.
    fn make_room(&mut self, len: usize, limit: usize) {
        let bytes = self.bytes.len() + len;
        // A quarter more, so that growing costs a constant per byte.
        let enough = (bytes + bytes / 4).max(FIRST.0);
        if bytes > self.bytes.capacity() {
            self.bytes.reserve_exact(enough - self.bytes.len());
            if self.memory() > limit {
                self.messages.shrink_to(2 * self.messages.len());
            }
        }
        if self.messages.len() == self.messages.capacity() {
            self.messages.reserve(1);
            if self.memory() > limit {
                self.bytes.shrink_to(enough);
            }
        }
    }
}

/// Storage that no queue needs now, so that steady traffic allocates nothing: one set per worker.
#[derive(Debug, Default)]
pub(super) struct Spare {
    unused: Vec<Storage>,
    memory: usize,
}

impl Spare {
    fn take(&mut self) -> Storage {
        match self.unused.pop() {
            Some(storage) => {
                self.memory -= storage.memory();
                storage
            }
            None => Storage { bytes: VecDeque::with_capacity(FIRST.0), messages: VecDeque::with_capacity(FIRST.1) },
        }
    }

    fn give(&mut self, mut storage: Storage) {
        let memory = storage.memory();
        if memory > 0 && self.memory + memory <= KEPT {
            storage.bytes.clear();
            storage.messages.clear();
            self.memory += memory;
            self.unused.push(storage);
            // The larger of the two that are next: so all that are in use become large enough for steady traffic.
            if let [.., before, last] = &mut self.unused[..]
                && last.memory() < before.memory()
            {
                mem::swap(before, last);
            }
        }
    }
}

/// Messages of one kind, in order.
#[derive(Debug, Default)]
struct Lane {
    storage: Storage,
    /// Memory that they take, one that is partly written included.
    size: usize,
}

impl Lane {
    fn push(&mut self, parts: [&[u8]; 3], message: Message, limit: usize, spare: &mut Spare) {
        if self.storage.messages.capacity() == 0 {
            self.storage = spare.take();
        }
        self.storage.make_room(message.len, limit);
        parts.into_iter().for_each(|part| self.storage.bytes.extend(part));
        self.size += OVERHEAD + message.len;
        self.storage.messages.push_back(message);
    }

    /// Removes the first message.
    fn pop(&mut self) {
        if let Some(message) = self.storage.messages.pop_front() {
            self.storage.bytes.drain(..message.len);
            self.size -= OVERHEAD + message.len;
        }
    }
}

/// A message that is partly written. Nothing may come between its parts, and it does not give way any more.
#[derive(Debug, Default)]
struct Begun {
    /// The bytes that are not written.
    storage: Storage,
    is_data: bool,
    /// What is counted for it until it is written.
    size: usize,
}

/// Messages in order.
///
/// Data and responses have a lane each, so that the oldest data are found at once; their places say how to merge them.
#[derive(Debug)]
pub(super) struct Queue {
    begun: Begun,
    data: Lane,
    control: Lane,
    /// The place of the next message.
    place: u64,
    limit: usize,
    age: Duration,
    /// Every message is written as a piece of its own.
    apart: bool,
}

/// Goes through a lane.
struct Cursor<'q> {
    storage: &'q Storage,
    message: usize,
    byte: usize,
}

impl<'q> Cursor<'q> {
    const fn new(lane: &'q Lane) -> Self {
        Self { storage: &lane.storage, message: 0, byte: 0 }
    }

    /// The place of the next message; none is behind the last.
    fn place(&self) -> u64 {
        self.storage.messages.get(self.message).map_or(u64::MAX, |message| message.place)
    }

    /// Takes the messages before a place: their bytes, in one piece or two.
    fn take(&mut self, before: u64) -> [&'q [u8]; 2] {
        let start = self.byte;
        if before == u64::MAX {
            (self.message, self.byte) = (self.storage.messages.len(), self.storage.bytes.len());
        }
        while self.place() < before {
            self.byte += self.storage.messages[self.message].len;
            self.message += 1;
        }
        pieces(&self.storage.bytes, start..self.byte)
    }
}

/// A range of bytes, in one piece or two.
fn pieces(bytes: &VecDeque<u8>, range: Range<usize>) -> [&[u8]; 2] {
    let (front, back) = bytes.as_slices();
    let cut = front.len();
    let in_back = range.start.saturating_sub(cut)..range.end.saturating_sub(cut);
    [&front[range.start.min(cut)..range.end.min(cut)], &back[in_back]]
}

impl Queue {
    pub(super) fn new(limit: usize, age: Duration) -> Self {
        Self {
            begun: Begun::default(),
            data: Lane::default(),
            control: Lane::default(),
            place: 0,
            limit,
            age,
            apart: false,
        }
    }

    /// The same, with every message written as a piece of its own.
    pub(super) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begun.storage.bytes.is_empty()
            && self.data.storage.messages.is_empty()
            && self.control.storage.messages.is_empty()
    }

    /// Whether so many responses wait that no more requests should be read.
    pub(super) const fn is_stuffed(&self) -> bool {
        self.control.size > self.limit
    }

    /// Queues a response.
    pub(super) fn push_control(&mut self, bytes: &[u8], now: Time, spare: &mut Spare) {
        let message = self.message(bytes.len(), now);
        self.control.push([bytes, &[], &[]], message, self.limit, spare);
    }

    /// Queues data, given in parts; returns how many data messages were dropped for it, itself perhaps among them.
    pub(super) fn push_data(&mut self, parts: [&[u8]; 3], now: Time, spare: &mut Spare) -> usize {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut dropped = self.drop_old(now, spare);
        while self.data.size + OVERHEAD + len > self.limit {
            if !self.drop_oldest(|_| true) {
                self.give_back(spare);
                return dropped + 1;
            }
            dropped += 1;
        }
        let message = self.message(len, now);
        self.data.push(parts, message, self.limit, spare);
        dropped
    }

    const fn message(&mut self, len: usize, queued: Time) -> Message {
        self.place += 1;
        Message { len, place: self.place, queued }
    }

    /// Drops data that have waited too long; returns how many messages.
    pub(super) fn drop_old(&mut self, now: Time, spare: &mut Spare) -> usize {
        let age = self.age;
        let mut dropped = 0;
        while self.drop_oldest(|queued| now.since(queued) > age) {
            dropped += 1;
        }
        if dropped > 0 {
            self.give_back(spare);
        }
        dropped
    }

    /// Drops the oldest data message that is not partly written, if it is `due`.
    fn drop_oldest(&mut self, due: impl Fn(Time) -> bool) -> bool {
        let is_due = self.data.storage.messages.front().is_some_and(|message| due(message.queued));
        if is_due {
            self.data.pop();
        }
        is_due
    }

    /// What is to be written next, as far as there are slices for it; returns how many.
    pub(super) fn gather<'q>(&'q mut self, slices: &mut [IoSlice<'q>]) -> usize {
        if self.apart {
            for lane in [&mut self.data, &mut self.control] {
                lane.storage.bytes.make_contiguous();
            }
            self.begun.storage.bytes.make_contiguous();
        }
        let mut count = 0;
        let mut add = |piece: &'q [u8]| {
            if !piece.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(piece);
                count += 1;
            }
            count < slices.len()
        };
        let (first, second) = self.begun.storage.bytes.as_slices();
        let mut more = add(first) && add(second);
        let (mut data, mut control) = (Cursor::new(&self.data), Cursor::new(&self.control));
        while more && data.place() != control.place() {
            let (next, other) =
                if data.place() < control.place() { (&mut data, &control) } else { (&mut control, &data) };
            let before = if self.apart { next.place() + 1 } else { other.place() };
            let [first, second] = next.take(before);
            more = add(first) && add(second);
        }
        count
    }

    /// Takes all that is to be written.
    pub(super) fn drain(&mut self, spare: &mut Spare) -> Vec<u8> {
        let mut all = Vec::new();
        while !self.is_empty() {
            let before = all.len();
            let mut slices = [IoSlice::new(&[]); 8];
            let count = self.gather(&mut slices);
            slices[..count].iter().for_each(|slice| all.extend_from_slice(slice));
            self.advance(all.len() - before, spare);
        }
        all
    }

    /// Notes that so many bytes were written.
    pub(super) fn advance(&mut self, bytes: usize, spare: &mut Spare) {
        let mut left = bytes - self.go_on(bytes);
        while left > 0 {
            let (is_data, is_one_lane) = (self.is_data_next(), self.is_one_lane());
            let lane = if is_data { &mut self.data } else { &mut self.control };
            if is_one_lane && left == lane.storage.bytes.len() {
                // The usual case: everything.
                self.clear(is_data);
                break;
            }
            match lane.storage.messages.front() {
                Some(message) if message.len <= left => {
                    left -= message.len;
                    lane.pop();
                }
                Some(_) => {
                    self.begin(is_data, left, spare);
                    break;
                }
                None => break,
            }
        }
        self.give_back(spare);
    }

    /// Notes that more of the message that is partly written was written; returns how many of so many bytes belong to it.
    fn go_on(&mut self, bytes: usize) -> usize {
        let part = bytes.min(self.begun.storage.bytes.len());
        self.begun.storage.bytes.drain(..part);
        if part > 0 && self.begun.storage.bytes.is_empty() {
            let lane = if self.begun.is_data { &mut self.data } else { &mut self.control };
            lane.size -= self.begun.size;
        }
        part
    }

    /// Notes that so many bytes of the first message of a lane were written, and no more.
    fn begin(&mut self, is_data: bool, written: usize, spare: &mut Spare) {
        let lane = if is_data { &mut self.data } else { &mut self.control };
        let Some(message) = lane.storage.messages.pop_front() else { return };
        if self.begun.storage.bytes.capacity() == 0 {
            self.begun.storage = spare.take();
        }
        for piece in pieces(&lane.storage.bytes, written..message.len) {
            self.begun.storage.bytes.extend(piece);
        }
        lane.storage.bytes.drain(..message.len);
        (self.begun.is_data, self.begun.size) = (is_data, OVERHEAD + message.len);
    }

    /// Removes all messages of a lane; none may be partly written.
    fn clear(&mut self, is_data: bool) {
        let lane = if is_data { &mut self.data } else { &mut self.control };
        lane.storage.bytes.clear();
        lane.storage.messages.clear();
        lane.size = 0;
    }

    fn is_data_next(&self) -> bool {
        Cursor::new(&self.data).place() < Cursor::new(&self.control).place()
    }

    /// Whether one of the lanes is empty.
    fn is_one_lane(&self) -> bool {
        self.data.storage.messages.is_empty() || self.control.storage.messages.is_empty()
    }

    /// Gives back the memory of what is empty.
    fn give_back(&mut self, spare: &mut Spare) {
        for lane in [&mut self.data, &mut self.control] {
            if lane.storage.messages.is_empty() {
                spare.give(mem::take(&mut lane.storage));
            }
        }
        if self.begun.storage.bytes.is_empty() {
            spare.give(mem::take(&mut self.begun.storage));
        }
    }
}

#[cfg(test)]
mod tests;
