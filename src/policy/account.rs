//! What one holder has taken of its rates and of its bytes per month, counted by many workers at once.
//!
//! Every worker has a [`Slot`] of each account, on a cache line of its own that nobody else writes. What it counts there is
//! exact; what must not exceed a limit it takes from the account in small parts ([`super::bucket`]). So the path of a packet
//! allocates nothing and hardly ever touches what another worker writes. The one lock is for the turn of a month.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::{
    bucket::{Bucket, Spare},
    limit::{Kind, Limit, Scope},
    month::Month,
};
use crate::config::settings::HolderLimits;

/// Which way data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Direction {
    /// From the client to a peer.
    ToPeer,
    /// From a peer to the client.
    ToClient,
}

/// A bucket of new peers holds what flows in within this time: calls begin with many candidates at once.
const PEER_BURST: Duration = Duration::from_secs(10);

/// Bytes of a month that a worker may relay before it looks again at what is left, at most.
const MONTH_PART: u64 = 1 << 20;

/// How long a worker takes it that nothing is left of a month, before it looks again.
const MONTH_PAUSE_MS: u64 = 1_000;

/// What one worker has of an account.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    /// By direction.
    bits: [Spare; 2],
    packets: [Spare; 2],
    /// Bytes relayed in both directions, ever.
    bytes: AtomicU64,
    /// Bytes that may be relayed before what is left of the month is looked at.
    month_part: AtomicU64,
    /// When that may be done again, after nothing was left.
    month_pause: AtomicU64,
}

/// Bytes of a month, and how many there may be.
#[derive(Debug)]
struct Monthly {
    limit: u64,
    /// What the slots had in sum when the month began; less what was counted before the account was made.
    mark: AtomicU64,
    /// When the month ends. Stored after the mark.
    ends_ms: AtomicU64,
    /// Held by who turns to the next month.
    turn: Mutex<()>,
}

/// The account of a holder.
#[derive(Debug)]
pub struct Account {
    scope: Scope,
    /// By direction.
    bits: Option<[Bucket; 2]>,
    packets: Option<[Bucket; 2]>,
    peers: Option<Bucket>,
    monthly: Option<Monthly>,
    slots: Box<[Slot]>,
}

impl Account {
    /// An account, if there is anything to be held to. One worker needs one slot; `before` are the bytes that the month has
    /// already seen.
    pub fn new(
        scope: Scope,
        limits: &HolderLimits,
        burst: Duration,
        slots: usize,
        before: u64,
        now_ms: u64,
    ) -> Option<Self> {
        let rates = |rate: Option<u64>| rate.map(|rate| [(); 2].map(|()| Bucket::new(rate, burst)));
        let counted = |limit| Monthly {
            limit,
            mark: AtomicU64::new(0u64.wrapping_sub(before)),
            ends_ms: AtomicU64::new(Month::of(now_ms).end_ms()),
            turn: Mutex::default(),
        };
        let account = Self {
            scope,
            bits: rates(limits.bits_per_second),
            packets: rates(limits.packets_per_second.map(u64::from)),
            peers: limits.new_peers_per_second.map(|rate| Bucket::new(rate.into(), PEER_BURST)),
            monthly: limits.bytes_per_month.map(counted),
            slots: (0..slots.max(1)).map(|_| Slot::default()).collect(),
        };
        let is_limited =
            account.bits.is_some() || account.packets.is_some() || account.peers.is_some() || account.monthly.is_some();
        is_limited.then_some(account)
    }

    fn slot(&self, worker: usize) -> &Slot {
        // There is at least one.
        &self.slots[worker.min(self.slots.len() - 1)]
    }

    /// Whether one datagram of `bytes` may pass now.
    pub fn may_pass(&self, worker: usize, direction: Direction, bytes: usize, now_ms: u64) -> Result<(), Limit> {
        let (slot, at) = (self.slot(worker), direction as usize);
        if let Some(packets) = &self.packets
            && !slot.packets[at].may_spend(1, &packets[at], now_ms)
        {
            return Err(Limit(Kind::Packets, self.scope));
        }
        self.may_stream(worker, direction, bytes, now_ms)
    }

    /// Whether `bytes` of a stream may pass now.
    pub fn may_stream(&self, worker: usize, direction: Direction, bytes: usize, now_ms: u64) -> Result<(), Limit> {
        let (slot, at) = (self.slot(worker), direction as usize);
        if let Some(bits) = &self.bits
            && !slot.bits[at].may_spend(bytes as u64 * 8, &bits[at], now_ms)
        {
            return Err(Limit(Kind::Bandwidth, self.scope));
        }
        if self.has_month_left(worker, now_ms) { Ok(()) } else { Err(Limit(Kind::Month, self.scope)) }
    }

    /// Counts what passes: `bytes` in so many datagrams.
    pub fn pass(&self, worker: usize, direction: Direction, bytes: usize, packets: u64, now_ms: u64) {
        let (slot, at) = (self.slot(worker), direction as usize);
        if let Some(bits) = &self.bits {
            slot.bits[at].spend(bytes as u64 * 8, &bits[at], now_ms);
        }
        if packets > 0
            && let Some(buckets) = &self.packets
        {
            slot.packets[at].spend(packets, &buckets[at], now_ms);
        }
        if self.monthly.is_some() {
            let (bytes, part) = (bytes as u64, slot.month_part.load(Relaxed));
            slot.bytes.store(slot.bytes.load(Relaxed).wrapping_add(bytes), Relaxed);
            slot.month_part.store(part.saturating_sub(bytes), Relaxed);
        }
    }

    /// When something may pass in this direction that cannot now, as far as rates go.
    pub fn next_ms(&self, direction: Direction) -> u64 {
        let at = direction as usize;
        let buckets = [&self.bits, &self.packets];
        buckets.into_iter().flatten().map(|buckets| buckets[at].next_ms()).max().unwrap_or(0)
    }

    /// Bytes that flow in within this time in this direction; `None` if bandwidth is not limited.
    pub fn within(&self, direction: Direction, time: Duration) -> Option<u64> {
        self.bits.as_ref().map(|bits| bits[direction as usize].within(time) / 8)
    }

    /// Whether a new peer may be added now.
    pub fn may_add_peer(&self, now_ms: u64) -> Result<(), Limit> {
        let has_room = self.peers.as_ref().is_none_or(|bucket| bucket.has_some(now_ms));
        if has_room { Ok(()) } else { Err(Limit(Kind::NewPeers, self.scope)) }
    }

    /// Counts new peers.
    pub fn add_peers(&self, peers: usize, now_ms: u64) {
        if let Some(bucket) = &self.peers {
            // Nobody keeps any of them: requests are rare.
            Spare::default().spend(peers as u64, bucket, now_ms);
        }
    }

    /// Whether a worker may relay more in this month: a part of what is left, small enough that all workers together exceed
    /// it by no more than a datagram each.
    fn has_month_left(&self, worker: usize, now_ms: u64) -> bool {
        let Some(monthly) = &self.monthly else { return true };
        let slot = self.slot(worker);
        if slot.month_part.load(Relaxed) > 0 {
            return true;
        }
        if now_ms < slot.month_pause.load(Relaxed) {
            return false;
        }
        let left = monthly.limit.saturating_sub(self.month_bytes(now_ms));
        if left == 0 {
            slot.month_pause.store(now_ms.saturating_add(MONTH_PAUSE_MS), Relaxed);
            return false;
        }
        slot.month_part.store((left / (2 * self.slots.len() as u64)).clamp(1, MONTH_PART), Relaxed);
        true
    }

    /// Whether anything is left of the month's bytes.
    pub fn check_month(&self, now_ms: u64) -> Result<(), Limit> {
        let is_left = self.monthly.as_ref().is_none_or(|monthly| self.month_bytes(now_ms) < monthly.limit);
        if is_left { Ok(()) } else { Err(Limit(Kind::Month, self.scope)) }
    }

    /// Bytes relayed in this month; 0 if they are not counted.
    pub fn month_bytes(&self, now_ms: u64) -> u64 {
        let Some(monthly) = &self.monthly else { return 0 };
        // Time that goes backwards begins no month anew.
        if now_ms >= monthly.ends_ms.load(Acquire) {
            let _turn = monthly.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if now_ms >= monthly.ends_ms.load(Relaxed) {
                monthly.mark.store(self.bytes(), Relaxed);
                monthly.ends_ms.store(Month::of(now_ms).end_ms(), Release);
            }
        }
        // Whoever is a moment behind the turn may have summed up before it was marked.
        self.bytes().wrapping_sub(monthly.mark.load(Relaxed)).cast_signed().max(0).cast_unsigned()
    }

    /// Bytes relayed ever.
    fn bytes(&self) -> u64 {
        self.slots.iter().fold(0, |sum, slot| sum.wrapping_add(slot.bytes.load(Relaxed)))
    }

    /// Tokens that workers have taken and not used: bits and datagrams, in both directions.
    pub fn spare(&self) -> [u64; 2] {
        let sum = |of: fn(&Slot) -> &[Spare; 2]| self.slots.iter().flat_map(of).map(Spare::held).sum();
        [sum(|slot| &slot.bits), sum(|slot| &slot.packets)]
    }

    /// Whether a new account would be no different, but for what it has counted of the month.
    pub fn is_at_rest(&self, now_ms: u64) -> bool {
        let both = [&self.bits, &self.packets].into_iter().flatten().flatten();
        both.chain(&self.peers).all(|bucket| bucket.is_full(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30, a minute before midnight UTC.
    const START: u64 = 1_796_083_140_000;
    const BURST: Duration = Duration::from_millis(200);

    fn account(limits: HolderLimits, slots: usize) -> Account {
        Account::new(Scope::User, &limits, BURST, slots, 0, START).expect("limits")
    }

    /// Offers datagrams of `bytes` each millisecond; what has passed, and the last reason why not.
    fn offer(account: &Account, bytes: usize, ms: u64, workers: usize) -> (u64, Option<Limit>) {
        let (mut passed, mut refused) = (0, None);
        for now in START..START + ms {
            for worker in 0..workers {
                match account.may_pass(worker, Direction::ToPeer, bytes, now) {
                    Ok(()) => {
                        account.pass(worker, Direction::ToPeer, bytes, 1, now);
                        passed += bytes as u64;
                    }
                    Err(limit) => refused = Some(limit),
                }
            }
        }
        (passed, refused)
    }

    #[test]
    fn nothing_limited_is_no_account() {
        assert!(Account::new(Scope::User, &HolderLimits::default(), BURST, 1, 0, START).is_none());
        let quotas = HolderLimits { allocations: Some(1), unused: Some(1), ..HolderLimits::default() };
        assert!(Account::new(Scope::User, &quotas, BURST, 1, 0, START).is_none());
    }

    #[test]
    fn bandwidth_and_packets_hold_each_direction() {
        let bandwidth = HolderLimits { bits_per_second: Some(800_000), ..HolderLimits::default() };
        let (passed, refused) = offer(&account(bandwidth, 2), 1_000, 10_000, 2);
        assert_eq!(refused, Some(Limit(Kind::Bandwidth, Scope::User)));
        // 100,000 bytes per second, and a burst of 20,000.
        assert!((1_017_000..=1_022_000).contains(&passed), "{passed}");
        let packets = HolderLimits { packets_per_second: Some(100), ..HolderLimits::default() };
        let limited = account(packets, 2);
        let (passed, refused) = offer(&limited, 10, 10_000, 2);
        assert_eq!(refused, Some(Limit(Kind::Packets, Scope::User)));
        assert!((10_170..=10_220).contains(&passed), "{passed}");
        assert_eq!(limited.may_pass(0, Direction::ToClient, 10, START + 9_999), Ok(()));
        // Streams have no packets.
        assert_eq!(limited.may_stream(0, Direction::ToPeer, 10, START + 9_999), Ok(()));
    }

    #[test]
    fn a_month_ends_at_its_limit_and_another_begins() {
        let limits = HolderLimits { bytes_per_month: Some(5_000_000), ..HolderLimits::default() };
        for workers in [1, 3] {
            let account = account(limits, workers);
            let (passed, refused) = offer(&account, 1_000, 20_000, workers);
            assert_eq!(refused, Some(Limit(Kind::Month, Scope::User)));
            assert!((5_000_000..5_000_000 + 1_000 * workers as u64).contains(&passed), "{passed}");
            assert_eq!(account.month_bytes(START + 30_000), passed);
            assert_eq!(account.check_month(START + 59_999), refused.map_or(Ok(()), Err));
            assert_eq!(account.check_month(START + 60_000), Ok(()));
            assert_eq!(account.month_bytes(START + 60_000), 0);
            assert_eq!(account.may_pass(0, Direction::ToClient, 1, START + 60_000), Ok(()));
            account.pass(0, Direction::ToClient, 77, 1, START + 60_000);
            assert_eq!(account.month_bytes(START + 61_000), 77);
        }
    }

    #[test]
    fn what_the_month_has_seen_before_counts() {
        let limits = HolderLimits { bytes_per_month: Some(1_000), ..HolderLimits::default() };
        let account = Account::new(Scope::Realm, &limits, BURST, 1, 999, START).unwrap();
        assert_eq!((account.month_bytes(START), account.check_month(START)), (999, Ok(())));
        account.pass(0, Direction::ToPeer, 1, 1, START);
        assert_eq!(account.check_month(START), Err(Limit(Kind::Month, Scope::Realm)));
        assert_eq!(account.may_pass(0, Direction::ToPeer, 1, START), Err(Limit(Kind::Month, Scope::Realm)));
    }

    #[test]
    fn new_peers_come_in_bursts_at_first() {
        let limits = HolderLimits { new_peers_per_second: Some(5), ..HolderLimits::default() };
        let account = account(limits, 1);
        let add = |now| {
            let add_one = |_: &i32| account.may_add_peer(now).map(|()| account.add_peers(1, now)).is_ok();
            (0..1_000).take_while(add_one).count()
        };
        assert_eq!(add(START), 50);
        assert_eq!(add(START + 1_000), 5);
        assert!(!account.is_at_rest(START + 10_000) && account.is_at_rest(START + 11_000));
    }

    #[test]
    fn a_slot_is_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }
}
