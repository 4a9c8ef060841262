//! Data for a relayed address that another worker serves: each worker has a mailbox, bounded, emptied in one go.
//!
//! What is in it was checked by the sender's worker on behalf of the sender; the receiver's worker checks the rest when it takes
//! it out, as it would have done with a datagram on the relay socket.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::ports::Place;
use crate::turn::{RelayId, Time};

/// Bytes that wait at most, headers included.
const LIMIT: usize = 1 << 20;
/// Bytes that a buffer begins with, so that ordinary traffic does not make it grow.
const FIRST: usize = 16 << 10;
/// Bytes that a buffer keeps, however little comes.
const KEPT: usize = 64 << 10;
/// How long what is held above that must not have been needed before it is given back.
const UNUSED: Duration = Duration::from_secs(10);
/// Bytes of a header.
const HEADER: usize = 16;
/// The longest payload that a UDP datagram can carry in either family.
pub(super) const LONGEST: usize = 65_535 - 20 - 8;

/// What is written on a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Letter {
    /// The relay socket that it is for, and the address which that must still have.
    pub(super) relay: RelayId,
    pub(super) to: Place,
    /// The sender's relayed address.
    pub(super) from: Place,
    /// Traffic class: DSCP and ECN.
    pub(super) tos: u8,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Somebody has undertaken to wake the owner.
    announced: bool,
}

/// What waits for one worker.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    /// Wakes the owner.
    pub(super) notify: Notify,
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posted {
    /// It waits, and somebody will wake the owner.
    Announced,
    /// It waits, and whoever posted it has to wake the owner.
    Unannounced,
    /// There is no room.
    Full,
}

impl Mailbox {
    /// A panic cannot leave half a letter: the last step of writing one makes it whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a datagram of at most [`LONGEST`] bytes.
    pub(super) fn post(&self, letter: &Letter, payload: &[u8]) -> Posted {
        let mut waiting = self.lock();
        if waiting.bytes.len() + HEADER + payload.len() > LIMIT {
            return Posted::Full;
        }
        let Ok(len) = u16::try_from(payload.len()) else { return Posted::Full };
        let least = if waiting.bytes.capacity() == 0 { FIRST } else { 0 };
        waiting.bytes.reserve(least.max(HEADER + payload.len()));
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&letter.relay.0.to_ne_bytes());
        let shorts = [letter.to.space, letter.to.port, letter.from.space, letter.from.port, len];
        for (place, short) in header[4..].chunks_exact_mut(2).zip(shorts) {
            place.copy_from_slice(&short.to_ne_bytes());
        }
        header[14] = letter.tos;
        waiting.bytes.extend_from_slice(&header);
        waiting.bytes.extend_from_slice(payload);
        if mem::replace(&mut waiting.announced, true) { Posted::Announced } else { Posted::Unannounced }
    }

    /// Takes everything; `into` must be empty, and serves as the next buffer.
    fn take(&self, into: &mut Vec<u8>) {
        let mut waiting = self.lock();
        // Only where there is something, so that both buffers are in use from the second time on, and none grows later.
        if !waiting.bytes.is_empty() {
            mem::swap(&mut waiting.bytes, into);
        }
        waiting.announced = false;
    }

    /// Gives memory back beyond so many bytes; returns how many the buffer still holds.
    fn shrink_to(&self, bytes: usize) -> usize {
        let mut waiting = self.lock();
        waiting.bytes.shrink_to(bytes);
        waiting.bytes.capacity()
    }
}

/// What a worker has taken out of its mailbox.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Where the next letter begins.
    next: usize,
    /// The most bytes taken at once since memory was last looked at.
    most: usize,
    /// When to look at it; `None` as long as neither buffer holds more than it may keep.
    deadline: Option<Time>,
}

impl Inbox {
    /// Takes what is in the mailbox if nothing is left of what was taken before.
    pub(super) fn refill(&mut self, mailbox: &Mailbox, now: Time) {
        if self.is_empty() {
            self.clear();
            mailbox.take(&mut self.bytes);
            self.most = self.most.max(self.bytes.len());
            // A buffer that has grown comes by here with what made it grow.
            if self.deadline.is_none() && self.bytes.capacity() > KEPT {
                self.deadline = Some(now + UNUSED);
            }
        }
    }

    /// When [`Inbox::give_back`] may have something to do.
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Gives memory back that was not needed for a while, from the mailbox, too: so not while traffic comes in bursts.
    pub(super) fn give_back(&mut self, mailbox: &Mailbox, now: Time) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.is_empty() {
            self.clear();
        }
        let enough = KEPT.max(2 * mem::take(&mut self.most));
        self.bytes.shrink_to(enough);
        let held = mailbox.shrink_to(enough).max(self.bytes.capacity());
        self.deadline = (held > KEPT).then_some(now + UNUSED);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.next == self.bytes.len()
    }

    /// What payloads stand in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what is left.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.next = 0;
    }

    /// The next letter and where its payload stands.
    pub(super) fn next(&mut self) -> Option<(Letter, std::ops::Range<usize>)> {
        let header = self.bytes.get(self.next..)?.first_chunk::<HEADER>()?;
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let letter = Letter {
            relay: RelayId(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])),
            to: Place { space: short(4), port: short(6) },
            from: Place { space: short(8), port: short(10) },
            tos: header[14],
        };
        let start = self.next + HEADER;
        self.next = start + usize::from(short(12));
        Some((letter, start..self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: Letter = Letter {
        relay: RelayId(70_000),
        to: Place { space: 1, port: 50_000 },
        from: Place { space: 2, port: 60_001 },
        tos: 0xB8,
    };

    #[test]
    fn letters_come_out_as_they_went_in() {
        let (mailbox, mut inbox) = (Mailbox::default(), Inbox::default());
        for round in 0..3 {
            assert_eq!(mailbox.post(&LETTER, &[7; 1200]), Posted::Unannounced);
            assert_eq!(mailbox.post(&Letter { tos: round, ..LETTER }, &[]), Posted::Announced);
            inbox.refill(&mailbox, Time(0));
            let (letter, place) = inbox.next().unwrap();
            assert_eq!((letter, &inbox.bytes()[place]), (LETTER, &[7; 1200][..]));
            assert!(!inbox.is_empty());
            let (letter, place) = inbox.next().unwrap();
            assert_eq!((letter.tos, place.len()), (round, 0));
            assert!(inbox.is_empty() && inbox.next().is_none());
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mailbox = Mailbox::default();
        let posted = (0..1000).filter(|_| mailbox.post(&LETTER, &[0; 8176]) != Posted::Full).count();
        assert_eq!(posted, LIMIT / 8192);
    }

    fn read(inbox: &mut Inbox, mailbox: &Mailbox, now: Time) {
        inbox.refill(mailbox, now);
        while inbox.next().is_some() {}
    }

    /// Bytes that the buffers of both hold.
    fn held(inbox: &Inbox, mailbox: &Mailbox) -> [usize; 2] {
        [inbox.bytes.capacity(), mailbox.lock().bytes.capacity()]
    }

    /// A peak in both buffers.
    fn peak() -> (Mailbox, Inbox) {
        let (mailbox, mut inbox) = (Mailbox::default(), Inbox::default());
        for _ in 0..2 {
            while mailbox.post(&LETTER, &[0; 8176]) != Posted::Full {}
            read(&mut inbox, &mailbox, Time(0));
        }
        assert!(held(&inbox, &mailbox).iter().all(|bytes| *bytes >= LIMIT));
        (mailbox, inbox)
    }

    #[test]
    fn memory_is_given_back_after_a_peak_even_if_nothing_comes_any_more() {
        let (mailbox, mut inbox) = peak();
        let mut now = Time(0);
        for _ in 0..2 {
            now = inbox.next_deadline().expect("something to give back");
            inbox.give_back(&mailbox, now);
        }
        assert_eq!((inbox.next_deadline(), now.since(Time(0))), (None, 2 * UNUSED));
        assert!(held(&inbox, &mailbox).iter().all(|bytes| *bytes <= KEPT));
        assert_ne!(mailbox.post(&LETTER, &[7; 100]), Posted::Full);
        inbox.refill(&mailbox, now);
        assert_eq!(inbox.next().map(|(letter, place)| (letter, place.len())), Some((LETTER, 100)));
        assert_eq!(inbox.next_deadline(), None);
    }

    #[test]
    fn what_is_needed_or_unread_is_kept() {
        let (mailbox, mut inbox) = peak();
        let steady = held(&inbox, &mailbox);
        for _ in 0..5 {
            while mailbox.post(&LETTER, &[0; 8176]) != Posted::Full {}
            let now = inbox.next_deadline().expect("much is held");
            read(&mut inbox, &mailbox, now);
            inbox.give_back(&mailbox, now);
            assert!(held(&inbox, &mailbox).iter().all(|bytes| steady.contains(bytes)));
        }
        // Taken, and not read for so long that it counts as unused.
        while mailbox.post(&LETTER, &[1; 8176]) != Posted::Full {}
        inbox.refill(&mailbox, Time(0));
        for _ in 0..3 {
            inbox.give_back(&mailbox, inbox.next_deadline().expect("much is held"));
        }
        let unread = std::iter::from_fn(|| inbox.next().map(|(_, place)| place)).collect::<Vec<_>>();
        assert_eq!(unread.len(), LIMIT / 8192);
        assert!(unread.into_iter().all(|place| inbox.bytes()[place] == [1; 8176]));
    }
}
