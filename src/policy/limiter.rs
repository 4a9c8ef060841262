//! All limits together: the quotas, the accounts of those who hold allocations, and what an allocation may take of them.
//!
//! A [`Limiter`] is shared by all workers. Its locks are taken when an allocation begins, is used first, and ends, and when
//! counts are read; never for a packet. An [`Allowance`] is what an allocation passes its data by: the accounts of all its holders
//! that are limited, from the narrowest. Data pass if every account lets them, and then count in each.
//!
//! Accounts are kept for as long as a new one would be different: nobody gets a full bucket by deleting an allocation and making
//! another. What they have counted of the month stays, at most for [`MOST_RESTING`] holders; of more, those with the
//! fewest bytes are forgotten.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashMap;

use super::{
    account::{Account, Direction},
    limit::{Deed, Kind, Limit, Scope, Tally},
    month::Month,
    quota::{Apart, Held, Holder, Quotas},
};
use crate::{
    auth::subject::Subject,
    config::settings::{HolderLimits, Limits, RealmLimits},
};

/// Accounts that are there before those at rest are looked for.
const FEW: usize = 1024;

/// Holders whose bytes of the month are remembered while they have no account.
const MOST_RESTING: usize = 1_000_000;

/// Streams that may not go on wait for at least so long, so that many that wait for the same bucket do not wake for
/// every bit of it.
const SHORTEST_WAIT_MS: u64 = 10;

/// A stretch of a stream that is read at once holds no more than flows in within this time.
const STRETCH: Duration = Duration::from_millis(20);

/// The limits of a server.
#[derive(Debug)]
pub struct Limiter {
    /// Replaced as a whole by a reload.
    bounds: RwLock<Arc<Bounds>>,
    workers: usize,
    quotas: Mutex<Quotas>,
    accounts: Mutex<Accounts>,
    /// By worker.
    tallies: Box<[Tally]>,
    /// Allocations refused because their source asks for too many.
    by_rate: AtomicU64,
}

/// What the configuration says.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    total: HolderLimits,
    realms: HashMap<Arc<str>, RealmLimits>,
    /// Of realms that are not among them.
    other: RealmLimits,
    burst: Duration,
}

impl Bounds {
    fn new(limits: &Limits, realms: impl IntoIterator<Item = (Arc<str>, RealmLimits)>) -> Self {
        let realms = realms.into_iter().collect();
        Self { total: limits.total, realms, other: limits.realm, burst: limits.burst }
    }

    fn realm(&self, name: &str) -> &RealmLimits {
        self.realms.get(name).unwrap_or(&self.other)
    }

    fn of(&self, holder: &Holder) -> &HolderLimits {
        let realm = match holder {
            Holder::User { realm, .. } | Holder::Tenant { realm, .. } | Holder::Realm(realm) => self.realm(realm),
            Holder::Total => &self.other,
        };
        holder.limits(realm, &self.total)
    }

    /// Whether anybody is held to what `is_limited` looks for.
    fn any(&self, is_limited: impl Fn(&HolderLimits) -> bool) -> bool {
        let of_realm = |limits: &RealmLimits| {
            [&limits.realm, &limits.tenant, &limits.user, &limits.allocation].into_iter().any(&is_limited)
        };
        is_limited(&self.total) || of_realm(&self.other) || self.realms.values().any(of_realm)
    }
}

#[derive(Debug, Default)]
struct Accounts {
    active: HashMap<Holder, Arc<Account>>,
    /// Bytes of [`Accounts::month`] of holders who have no account.
    resting: HashMap<Holder, u64>,
    month: Option<Month>,
    /// So many accounts may be there before those at rest are looked for.
    room: usize,
}

/// No change is left half-made by a panic: each is made by calls that do not call out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limiter {
    /// The limits of a server with so many workers. Realms that are not named have those of the settings.
    pub fn new(limits: &Limits, realms: impl IntoIterator<Item = (Arc<str>, RealmLimits)>, workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            bounds: RwLock::new(Arc::new(Bounds::new(limits, realms))),
            workers,
            quotas: Mutex::default(),
            accounts: Mutex::default(),
            tallies: (0..workers).map(|_| Tally::default()).collect(),
            by_rate: AtomicU64::new(0),
        }
    }

    fn bounds(&self) -> Arc<Bounds> {
        Arc::clone(&self.bounds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with other limits; false if they are the same. Whoever is held to others than before has a new account, with what it has
    /// counted of the month, which is found by asking for an [`Limiter::renewed_allowance`].
    pub fn renew(
        &self,
        limits: &Limits,
        realms: impl IntoIterator<Item = (Arc<str>, RealmLimits)>,
        now_ms: u64,
    ) -> bool {
        let (before, bounds) = (self.bounds(), Arc::new(Bounds::new(limits, realms)));
        if before == bounds {
            return false;
        }
        // Under the lock of the accounts: none is opened by the old ones after this.
        let mut accounts = lock(&self.accounts);
        *self.bounds.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&bounds);
        accounts.turn_to(Month::of(now_ms));
        let Accounts { active, resting, .. } = &mut *accounts;
        active.retain(|holder, account| {
            let stays = before.burst == bounds.burst && before.of(holder) == bounds.of(holder);
            if !stays && account.month_bytes(now_ms) > 0 {
                resting.insert(holder.clone(), account.month_bytes(now_ms));
            }
            stays
        });
        true
    }

    /// Whether data could be made to wait or dropped: nobody needs to ask otherwise.
    pub fn limits_data(&self) -> bool {
        self.bounds().any(|limits| {
            limits.bits_per_second.is_some() || limits.packets_per_second.is_some() || limits.bytes_per_month.is_some()
        })
    }

    /// Whether first use and new peers have to be asked for.
    pub fn limits_peers(&self) -> bool {
        self.bounds().any(|limits| limits.unused.is_some() || limits.new_peers_per_second.is_some())
    }

    /// Whether bytes of the month are counted.
    pub fn counts_months(&self) -> bool {
        self.bounds().any(|limits| limits.bytes_per_month.is_some())
    }

    /// Counts one new allocation of `subject`; returns who counts it as unused.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(&self, subject: &Subject) -> Result<Apart, Limit> {
        let bounds = self.bounds();
        lock(&self.quotas).try_take(subject, bounds.realm(&subject.realm), &bounds.total)
    }

    /// Counts an allocation as used from now on, also by those who have counted it `apart`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn begin_use(&self, subject: &Subject, apart: Apart) -> Result<(), Limit> {
        let bounds = self.bounds();
        lock(&self.quotas).try_use(subject, apart, bounds.realm(&subject.realm), &bounds.total)
    }

    /// Gives an allocation back, that is still counted `apart` by some.
    pub fn give_back(&self, subject: &Subject, apart: Apart) {
        lock(&self.quotas).give_back(subject, apart);
    }

    /// Allocations of a holder.
    pub fn held_by(&self, holder: &Holder) -> Held {
        lock(&self.quotas).held_by(holder)
    }

    /// What an allocation of `subject` may take. `streams`: its data may pass by any worker, not by one alone.
    ///
    /// # Errors
    /// The bytes of the month are used up.
    pub fn allowance(
        self: &Arc<Self>,
        subject: &Subject,
        streams: bool,
        now_ms: u64,
    ) -> Result<Option<Arc<Allowance>>, Limit> {
        let allowance = self.renewed_allowance(subject, streams, now_ms);
        allowance
            .iter()
            .flat_map(|allowance| &allowance.accounts)
            .try_for_each(|account| account.check_month(now_ms))?;
        Ok(allowance)
    }

    /// What an allocation of `subject` may take that there is already, whatever is left of the month.
    pub fn renewed_allowance(
        self: &Arc<Self>,
        subject: &Subject,
        streams: bool,
        now_ms: u64,
    ) -> Option<Arc<Allowance>> {
        let bounds = self.bounds();
        let realm = bounds.realm(&subject.realm);
        let slots = if streams { self.workers } else { 1 };
        let own = Account::new(Scope::Allocation, &realm.allocation, bounds.burst, slots, 0, now_ms).map(Arc::new);
        let others = Holder::of(subject).filter_map(|holder| self.account(holder, now_ms));
        let accounts: Box<[_]> = own.into_iter().chain(others).collect();
        (!accounts.is_empty()).then(|| Arc::new(Allowance { accounts, limiter: Arc::clone(self) }))
    }

    fn account(&self, holder: Holder, now_ms: u64) -> Option<Arc<Account>> {
        let mut accounts = lock(&self.accounts);
        let bounds = self.bounds();
        let limits = bounds.of(&holder);
        accounts.turn_to(Month::of(now_ms));
        if let Some(account) = accounts.active.get(&holder) {
            return Some(Arc::clone(account));
        }
        let before = accounts.resting.get(&holder).copied().unwrap_or(0);
        let account = Account::new(holder.scope(), limits, bounds.burst, self.workers, before, now_ms).map(Arc::new)?;
        accounts.resting.remove(&holder);
        accounts.make_room(now_ms);
        accounts.active.insert(holder, Arc::clone(&account));
        Some(account)
    }

    /// Takes over what an earlier process has counted of this month; before anything is relayed.
    pub fn restore(&self, counts: Vec<(Holder, u64)>, now_ms: u64) {
        let mut accounts = lock(&self.accounts);
        accounts.turn_to(Month::of(now_ms));
        accounts.resting = counts.into_iter().collect();
        accounts.forget_the_least();
    }

    /// What has been counted of the month, by all who have anything, in a fixed order.
    pub fn month(&self, now_ms: u64) -> (Month, Vec<(Holder, u64)>) {
        let month = Month::of(now_ms);
        let mut accounts = lock(&self.accounts);
        accounts.turn_to(month);
        let active = accounts.active.iter().map(|(holder, account)| (holder.clone(), account.month_bytes(now_ms)));
        let resting = accounts.resting.iter().map(|(holder, bytes)| (holder.clone(), *bytes));
        let mut counts: Vec<_> = active.chain(resting).filter(|(_, bytes)| *bytes > 0).collect();
        drop(accounts);
        counts.sort_unstable();
        (month, counts)
    }

    /// Counts what a limit has refused.
    pub fn refused(&self, worker: usize, limit: Limit) {
        self.count(worker, limit, Deed::Refused);
    }

    fn count(&self, worker: usize, limit: Limit, deed: Deed) {
        // There is one at least.
        self.tallies[worker.min(self.tallies.len() - 1)].count(limit, deed);
    }

    /// Counts an allocation that `allocation-rate` has refused.
    pub fn refused_by_rate(&self) {
        self.by_rate.fetch_add(1, Relaxed);
    }

    /// What there is to see of the limits.
    pub fn counts(&self) -> LimitCounts {
        let all = |deed| {
            let sum = |limit| self.tallies.iter().map(|tally| tally.get(limit, deed)).sum();
            Limit::all().map(|limit| (limit, sum(limit))).collect()
        };
        let accounts = lock(&self.accounts);
        let spare = accounts.active.values().map(|account| account.spare());
        LimitCounts {
            refused: all(Deed::Refused),
            held_up: all(Deed::HeldUp),
            refused_by_rate: self.by_rate.load(Relaxed),
            allocations: lock(&self.quotas).held_by(&Holder::Total),
            spare: spare.fold([0; 2], |[bits, packets], [more_bits, more]| [bits + more_bits, packets + more]),
            accounts: accounts.active.len(),
        }
    }
}

impl Accounts {
    /// What is remembered of other months is forgotten.
    fn turn_to(&mut self, month: Month) {
        if self.month != Some(month) {
            self.month = Some(month);
            self.resting = HashMap::new();
        }
    }

    /// Before another account is added: lets go of those that nobody uses and that a new one would equal.
    fn make_room(&mut self, now_ms: u64) {
        if self.active.len() < self.room.max(FEW) {
            return;
        }
        let resting = &mut self.resting;
        self.active.retain(|holder, account| {
            let stays = Arc::strong_count(account) > 1 || !account.is_at_rest(now_ms);
            if !stays && account.month_bytes(now_ms) > 0 {
                resting.insert(holder.clone(), account.month_bytes(now_ms));
            }
            stays
        });
        self.room = 2 * self.active.len();
        self.active.shrink_to(self.room.max(FEW));
        self.forget_the_least();
    }

    fn forget_the_least(&mut self) {
        let excess = self.resting.len().saturating_sub(MOST_RESTING);
        if excess == 0 {
            return;
        }
        let mut counts: Vec<u64> = self.resting.values().copied().collect();
        let (_, least, _) = counts.select_nth_unstable(excess - 1);
        let (least, mut left) = (*least, excess);
        self.resting.retain(|_, bytes| {
            let goes = *bytes <= least && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }
}

/// What there is to see of the limits.
#[derive(Debug, Clone)]
pub struct LimitCounts {
    /// Requests refused and datagrams dropped, by limit.
    pub refused: Vec<(Limit, u64)>,
    /// Times that a stream was made to wait, by limit.
    pub held_up: Vec<(Limit, u64)>,
    /// Allocations refused by `allocation-rate`.
    pub refused_by_rate: u64,
    /// Allocations in all.
    pub allocations: Held,
    /// Bits, and datagrams, that workers have taken from buckets of users, tenants, realms and the server, and not used.
    pub spare: [u64; 2],
    /// Users, tenants, realms and the server, as far as accounts are kept of them.
    pub accounts: usize,
}

/// What one allocation may take.
#[derive(Debug)]
pub struct Allowance {
    accounts: Box<[Arc<Account>]>,
    limiter: Arc<Limiter>,
}

/// How much of a stream may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// So many bytes at most.
    Bytes(usize),
    /// Nothing before this time, in milliseconds.
    NotBefore(u64),
    /// Nothing any more.
    Over,
}

impl Allowance {
    /// Passes one datagram of `bytes`, or says which limit it exceeds; then nothing is counted but that.
    ///
    /// # Errors
    /// The limit.
    pub fn pass(&self, worker: usize, direction: Direction, bytes: usize, now_ms: u64) -> Result<(), Limit> {
        for account in &self.accounts {
            if let Err(limit) = account.may_pass(worker, direction, bytes, now_ms) {
                self.limiter.refused(worker, limit);
                return Err(limit);
            }
        }
        for account in &self.accounts {
            account.pass(worker, direction, bytes, 1, now_ms);
        }
        Ok(())
    }

    /// When a datagram of so many bytes may pass that has to wait for a rate; `None` if there is nothing to wait for.
    pub fn wait_ms(&self, worker: usize, direction: Direction, bytes: usize, now_ms: u64) -> Option<u64> {
        let waits = |account: &Account| account.may_pass(worker, direction, bytes, now_ms).err();
        self.wait_for(worker, direction, now_ms, waits).ok().flatten()
    }

    /// How much of a stream may be read now.
    pub fn stretch(&self, worker: usize, direction: Direction, most: usize, now_ms: u64) -> Stretch {
        /// Less is not worth a system call.
        const LEAST: u64 = 1_500;
        let within = self.accounts.iter().filter_map(|account| account.within(direction, STRETCH)).min();
        // It is a `usize` at the most.
        let bytes = within.map_or(most, |within| within.max(LEAST).min(most as u64) as usize);
        let waits = |account: &Account| account.may_stream(worker, direction, bytes, now_ms).err();
        match self.wait_for(worker, direction, now_ms, waits) {
            Ok(None) => Stretch::Bytes(bytes),
            Ok(Some(time)) => Stretch::NotBefore(time),
            Err(limit) => {
                self.limiter.refused(worker, limit);
                Stretch::Over
            }
        }
    }

    /// Counts what of a stream has passed.
    pub fn pass_stream(&self, worker: usize, direction: Direction, bytes: usize, now_ms: u64) {
        for account in &self.accounts {
            account.pass(worker, direction, bytes, 0, now_ms);
        }
    }

    /// When to go on, if an account says to wait; an error if waiting does not help.
    fn wait_for(
        &self,
        worker: usize,
        direction: Direction,
        now_ms: u64,
        waits: impl Fn(&Account) -> Option<Limit>,
    ) -> Result<Option<u64>, Limit> {
        let mut time = None;
        for account in &self.accounts {
            let Some(limit) = waits(account) else { continue };
            if limit.0 == Kind::Month {
                return Err(limit);
            }
            self.limiter.count(worker, limit, Deed::HeldUp);
            time = time.max(Some(account.next_ms(direction).max(now_ms.saturating_add(SHORTEST_WAIT_MS))));
        }
        Ok(time)
    }

    /// Adds new peers.
    ///
    /// # Errors
    /// The limit that they exceed; then nothing is counted but that.
    pub fn add_peers(&self, worker: usize, peers: usize, now_ms: u64) -> Result<(), Limit> {
        for account in &self.accounts {
            if let Err(limit) = account.may_add_peer(now_ms) {
                self.limiter.refused(worker, limit);
                return Err(limit);
            }
        }
        self.accounts.iter().for_each(|account| account.add_peers(peers, now_ms));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
