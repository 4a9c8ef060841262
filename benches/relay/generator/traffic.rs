//! The packets of flows: what is in them, and the account of which of them have come.
//!
//! ```text
//!   0       4       6    7    8       12       16       24 ...
//!   | crc32 | run   | way| 0  | flow  | number | time   | random bytes, the same in every packet
//! ```
//! The checksum covers everything behind it.

use crate::options::Direction;

/// Bytes before the random ones.
const HEADER: usize = 24;

/// Numbers that are remembered behind the newest one of a flow.
const WINDOW: u32 = 64;

/// One way of one flow.
#[derive(Clone, Copy, Default)]
struct Track {
    sent: u32,
    /// One more than the highest number that has come.
    next: u32,
    /// Which of the numbers before `next` have come; bit 0 is `next - 1`.
    seen: u64,
}

/// What is in a packet's header.
pub(crate) struct Packet {
    pub(crate) flow: usize,
    /// 0 is up, 1 is down.
    pub(crate) way: usize,
    run: u16,
    number: u32,
    time: u64,
}

/// What was counted in one run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
}

/// All flows.
pub(crate) struct Traffic {
    tracks: Vec<[Track; 2]>,
    packet: Vec<u8>,
    run: u16,
    pub(crate) counters: Counters,
    /// Packets of whichever run that have come.
    pub(crate) arrivals: u64,
    /// Nanoseconds under way, where they are asked for.
    pub(crate) latencies: Vec<u32>,
}

impl Traffic {
    pub(crate) fn new(flows: usize, payload: u16) -> Self {
        // A linear congruential generator: bytes that nothing can compress or mistake for a header.
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let packet = (0..usize::from(payload).max(HEADER)).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        let (packet, tracks) = (packet.collect(), vec![[Track::default(); 2]; flows]);
        Self { tracks, packet, run: 0, counters: Counters::default(), arrivals: 0, latencies: Vec::new() }
    }

    /// Begins to count anew. What is still under way from before is no longer counted as sent or received.
    pub(crate) fn begin(&mut self) {
        self.run = self.run.wrapping_add(1);
        self.tracks.fill([Track::default(); 2]);
        self.counters = Counters::default();
        self.latencies.clear();
    }

    pub(crate) fn payload(&self) -> usize {
        self.packet.len()
    }

    /// Appends the next packet of a flow.
    pub(crate) fn put(&mut self, buffer: &mut Vec<u8>, flow: usize, way: usize, time: u64) {
        let track = &mut self.tracks[flow][way];
        let number = track.sent;
        track.sent += 1;
        self.counters.sent += 1;
        self.packet[4..6].copy_from_slice(&self.run.to_be_bytes());
        self.packet[6..8].copy_from_slice(&[way as u8, 0]);
        self.packet[8..12].copy_from_slice(&(flow as u32).to_be_bytes());
        self.packet[12..16].copy_from_slice(&number.to_be_bytes());
        self.packet[16..24].copy_from_slice(&time.to_be_bytes());
        let sum = crc32fast::hash(&self.packet[4..]);
        self.packet[..4].copy_from_slice(&sum.to_be_bytes());
        buffer.extend_from_slice(&self.packet);
    }

    /// Reads a packet; `None` if it is not one that was sent.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Option<Packet> {
        let sum = u32::from_be_bytes(*bytes.first_chunk()?);
        if bytes.len() != self.packet.len() || crc32fast::hash(&bytes[4..]) != sum {
            return None;
        }
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
        let (flow, way) = (word(8)? as usize, usize::from(bytes[6]));
        let time = u64::from(word(16)?) << 32 | u64::from(word(20)?);
        let run = u16::from_be_bytes([bytes[4], bytes[5]]);
        (flow < self.tracks.len() && way < 2).then_some(Packet { flow, way, run, number: word(12)?, time })
    }

    /// Counts a packet that came where it was to come, at `now` if latency is asked for.
    pub(crate) fn count(&mut self, packet: &Packet, now: Option<u64>) {
        self.arrivals += 1;
        if packet.run != self.run {
            return;
        }
        let track = &mut self.tracks[packet.flow][packet.way];
        if packet.number >= track.next {
            let step = packet.number - track.next + 1;
            track.seen = if step >= WINDOW { 1 } else { track.seen << step | 1 };
            track.next = packet.number + 1;
        } else {
            let behind = track.next - 1 - packet.number;
            if behind < WINDOW && track.seen >> behind & 1 == 1 {
                self.counters.duplicated += 1;
                return;
            }
            // Later than the window can tell duplicates from: counted as late, since servers that delay are commoner than
            // servers that repeat.
            track.seen |= if behind < WINDOW { 1 << behind } else { 0 };
            self.counters.reordered += 1;
        }
        self.counters.received += 1;
        if let Some(now) = now {
            self.latencies.push(u32::try_from(now.saturating_sub(packet.time)).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn corrupt(&mut self) {
        self.counters.corrupt += 1;
    }

    /// Two percentiles of the latencies in microseconds.
    pub(crate) fn latency(&mut self) -> Option<(f64, f64)> {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(index.min(self.latencies.len().checked_sub(1)?)).map(|ns| f64::from(*ns) / 1000.0)
        };
        Some((at(0.5)?, at(0.99)?))
    }
}

/// The way of the `turn`-th unit that is sent.
pub(crate) fn way(direction: Direction, turn: usize) -> usize {
    match direction {
        Direction::Up => 0,
        Direction::Down => 1,
        Direction::Both => turn % 2,
    }
}
