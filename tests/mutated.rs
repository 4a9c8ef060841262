//! Ten million messages that were valid before something happened to them.
//!
//! Run in the dev profile, which checks for overflow: no message may make the codec panic or contradict itself.

mod stun;

use std::{thread, time::Instant};

use stun::{
    exercise::{self, Outcome},
    samples,
};

const MESSAGES: u64 = 10_000_000;
const THREADS: u64 = 2;
const SEED: u64 = 0x5354_554e;

/// SplitMix64: the same numbers everywhere and for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }
}

/// Bytes 2 and 3 say what really follows the header.
fn repair_length(bytes: &mut [u8]) {
    if let (Ok(len), Some(field)) = (u16::try_from(bytes.len().saturating_sub(20)), bytes.get_mut(2..4)) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// If the message ends as one with a FINGERPRINT does, the fingerprint is made right.
fn repair_fingerprint(bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(8) else { return };
    let (before, attribute) = bytes.split_at_mut(at);
    if attribute[..4] == [0x80, 0x28, 0, 4] {
        attribute[4..].copy_from_slice(&turnserver::stun::fingerprint::of(before).to_be_bytes());
    }
}

/// Does one thing to the message.
fn mutate(bytes: &mut Vec<u8>, samples: &[(&str, Vec<u8>)], random: &mut Random) {
    match random.below(8) {
        0 => {
            let at = random.below(bytes.len());
            let bit = random.below(8);
            if let Some(place) = bytes.get_mut(at) {
                *place ^= 1 << bit;
            }
        }
        1 => {
            let at = random.below(bytes.len());
            let byte = random.byte();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        2 => bytes.truncate(random.below(bytes.len() + 1)),
        // A length field: the header's, or what may be an attribute's.
        3 => {
            let at = if random.below(3) == 0 { 2 } else { 22 + 4 * random.below(bytes.len() / 4) };
            let value = match random.below(4) {
                0 => random.next().to_le_bytes()[..2].to_vec(),
                1 => vec![0xFF, 0xFF - random.byte() % 8],
                _ => vec![0, random.byte() % 64],
            };
            if let Some(field) = bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&value);
            }
        }
        // An attribute's type.
        4 => {
            let at = 20 + 4 * random.below(bytes.len() / 4);
            let codes = turnserver::stun::AttributeType::ALL;
            let code = codes[random.below(codes.len())].0;
            if let Some(field) = bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&code.to_be_bytes());
            }
        }
        // A piece of another message, in place of a piece of this one.
        5 | 6 => {
            let other = &samples[random.below(samples.len())].1;
            let word = |random: &mut Random, len: usize| random.below(len / 4 + 1) * 4;
            let (from, to) = (word(random, other.len()), word(random, other.len()));
            let (start, end) = (word(random, bytes.len()), word(random, bytes.len()));
            bytes.splice(start.min(end)..start.max(end), other[from.min(to)..from.max(to)].iter().copied());
            bytes.truncate(4096);
        }
        _ => {
            let surplus = random.below(9);
            bytes.extend((0..surplus).map(|_| random.byte()));
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    refused: u64,
    accepted: u64,
    verified: u64,
}

fn run(seed: u64, messages: u64) -> Counts {
    let mut random = Random(seed);
    let samples = samples::all();
    let keys = samples::keys();
    let mut counts = Counts::default();
    let mut bytes = Vec::with_capacity(8192);
    for _ in 0..messages {
        bytes.clear();
        bytes.extend_from_slice(&samples[random.below(samples.len())].1);
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &samples, &mut random);
        }
        if random.below(2) == 0 {
            repair_length(&mut bytes);
        }
        if random.below(2) == 0 {
            repair_fingerprint(&mut bytes);
        }
        match exercise::everything(&bytes, &keys) {
            Outcome::Refused => counts.refused += 1,
            Outcome::Accepted => counts.accepted += 1,
            Outcome::Verified => counts.verified += 1,
        }
    }
    counts
}

#[test]
fn ten_million_mutated_messages() {
    let start = Instant::now();
    let threads: Vec<_> = (0..THREADS).map(|n| thread::spawn(move || run(SEED + n, MESSAGES / THREADS))).collect();
    let counts =
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(Counts::default(), |sum, part| {
            Counts {
                refused: sum.refused + part.refused,
                accepted: sum.accepted + part.accepted,
                verified: sum.verified + part.verified,
            }
        });
    eprintln!("{MESSAGES} messages in {:.1?}: {counts:?}", start.elapsed());
    assert_eq!(counts.refused + counts.accepted + counts.verified, MESSAGES);
    // The mutations must leave enough messages whole for the accessors to be tried.
    assert!(counts.accepted > MESSAGES / 10 && counts.refused > MESSAGES / 10);
}
