//! All allocations of one worker: one place, indexed by 5-tuple, with their deadlines in order.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::BuildHasher,
    ops::{Index, IndexMut},
};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use super::{
    AllocationId, Census, Client, Families, Family, FiveTuple, RelayId, Time, allocation::Allocation, mobility::Mobile,
    peak::Peak,
};

/// The place of an allocation; valid until the allocation's end is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u32);

impl Handle {
    /// The place in the table.
    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// The allocations.
///
/// Deadlines are filed lazily: an allocation has one entry, at or before its next deadline; prolonging it costs nothing, and
/// when the entry comes up it is filed again. Entries of ended allocations are swept out when they outnumber the living.
pub(super) struct Table {
    allocations: Slab<Allocation>,
    by_tuple: HashTable<Handle>,
    hasher: FixedState,
    deadlines: BinaryHeap<Reverse<(Time, Handle)>>,
    peak: Peak,
    /// Of the allocations that have a ticket (RFC 8016).
    mobile: HashMap<AllocationId, Handle>,
    /// By the 5-tuple that an allocation may move to, as soon as data come from there.
    arriving: HashMap<FiveTuple, Handle>,
    census: Census,
}

impl Table {
    /// `seed` keys the hash: client addresses are chosen by strangers.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            allocations: Slab::new(),
            by_tuple: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            deadlines: BinaryHeap::new(),
            peak: Peak::default(),
            mobile: HashMap::new(),
            arriving: HashMap::new(),
            census: Census::default(),
        }
    }

    pub(super) const fn census(&self) -> &Census {
        &self.census
    }

    /// The allocations in the places from `first` on, up to so many places; and whether there are places after them. An
    /// allocation keeps its place as long as it lives.
    pub(super) fn stretch(&self, first: usize, places: usize) -> (impl Iterator<Item = (Handle, &Allocation)>, bool) {
        let end = first.saturating_add(places).min(self.allocations.capacity());
        #[allow(clippy::cast_possible_truncation)]
        let at = move |place: usize| Some((Handle(place as u32), self.allocations.get(place)?));
        ((first..end).filter_map(at), end < self.allocations.capacity())
    }

    /// Takes one of its two relayed addresses from an allocation.
    pub(super) fn take_relayed(&mut self, handle: Handle, family: Family) -> Option<RelayId> {
        let allocation = &mut self.allocations[handle.0 as usize];
        let transport = allocation.client.tuple.transport;
        self.census.take_one(transport, Families::of(&allocation.relayed));
        let taken = allocation.relayed[family as usize].take();
        self.census.add_one(transport, Families::of(&allocation.relayed));
        taken.map(|relayed| relayed.relay)
    }

    pub(super) fn len(&self) -> usize {
        self.allocations.len()
    }

    pub(super) fn find(&self, tuple: &FiveTuple) -> Option<Handle> {
        self.by_tuple.find(self.hasher.hash_one(tuple), |handle| self[*handle].client.tuple == *tuple).copied()
    }

    pub(super) fn get(&self, handle: Handle) -> Option<&Allocation> {
        self.allocations.get(handle.0 as usize)
    }

    pub(super) fn get_mut(&mut self, handle: Handle) -> Option<&mut Allocation> {
        self.allocations.get_mut(handle.0 as usize)
    }

    /// The allocation that may move to this 5-tuple.
    pub(super) fn arriving(&self, tuple: &FiveTuple) -> Option<Handle> {
        self.arriving.get(tuple).copied()
    }

    /// The allocation with this id, if it has a ticket.
    pub(super) fn mobile(&self, id: AllocationId) -> Option<Handle> {
        self.mobile.get(&id).copied()
    }

    /// Notes where an allocation may move to; returns where it might have moved to before.
    pub(super) fn expect(&mut self, handle: Handle, next: Option<Client>) -> Option<Client> {
        let mobile = self.allocations[handle.0 as usize].mobile.as_mut()?;
        let before = std::mem::replace(&mut mobile.arriving, next);
        if let Some(before) = &before {
            self.arriving.remove(&before.tuple);
        }
        if let Some(next) = next {
            self.arriving.insert(next.tuple, handle);
        }
        before
    }

    /// Gives an allocation another client, which has no other allocation; returns the one before.
    pub(super) fn rehome(&mut self, handle: Handle, client: Client) -> Client {
        self.forget_tuple(handle);
        let allocation = &mut self.allocations[handle.0 as usize];
        allocation.away = false;
        let before = std::mem::replace(&mut allocation.client, client);
        let families = Families::of(&allocation.relayed);
        self.census.take_one(before.tuple.transport, families);
        self.census.add_one(client.tuple.transport, families);
        self.index_tuple(handle);
        before
    }

    /// Lets go of an allocation's 5-tuple: its connection is gone.
    pub(super) fn leave(&mut self, handle: Handle) {
        self.forget_tuple(handle);
        self[handle].away = true;
    }

    fn index_tuple(&mut self, handle: Handle) {
        let Self { allocations, by_tuple, hasher, .. } = self;
        let hash = |handle: &Handle| hasher.hash_one(allocations[handle.0 as usize].client.tuple);
        by_tuple.insert_unique(hash(&handle), handle, hash);
    }

    fn forget_tuple(&mut self, handle: Handle) {
        let hash = self.hasher.hash_one(self[handle].client.tuple);
        if let Ok(entry) = self.by_tuple.find_entry(hash, |candidate| *candidate == handle) {
            entry.remove();
        }
    }

    /// Adds an allocation whose 5-tuple is not in the table.
    pub(super) fn insert(&mut self, allocation: Allocation) -> Handle {
        let id = allocation.mobile.is_some().then_some(allocation.id);
        self.census.add_one(allocation.client.tuple.transport, Families::of(&allocation.relayed));
        // Each allocation holds a socket, and there are fewer of those than 2^32.
        #[allow(clippy::cast_possible_truncation)]
        let handle = Handle(self.allocations.insert(allocation) as u32);
        self.index_tuple(handle);
        if let Some(id) = id {
            self.mobile.insert(id, handle);
        }
        self.peak.rise(self.allocations.len());
        self.arm(handle);
        handle
    }

    pub(super) fn remove(&mut self, handle: Handle) -> Allocation {
        self.forget_tuple(handle);
        let removed = self.allocations.remove(handle.0 as usize);
        self.census.take_one(removed.client.tuple.transport, Families::of(&removed.relayed));
        if let Some(Mobile { arriving, .. }) = removed.mobile.as_deref() {
            self.mobile.remove(&removed.id);
            if let Some(arriving) = arriving {
                self.arriving.remove(&arriving.tuple);
            }
        }
        self.sweep();
        removed
    }

    /// Files the allocation's next deadline if it is earlier than what is filed. To be called after adding anything that
    /// expires.
    pub(super) fn arm(&mut self, handle: Handle) {
        let allocation = &mut self.allocations[handle.0 as usize];
        if let Some(deadline) = allocation.next_deadline()
            && deadline < allocation.armed
        {
            allocation.armed = deadline;
            self.deadlines.push(Reverse((deadline, handle)));
        }
    }

    /// The earliest time at which [`Table::due`] may have something.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes one allocation whose filed deadline has passed; the caller expires what is due and arms it again.
    pub(super) fn due(&mut self, now: Time) -> Option<Handle> {
        while let Some(Reverse((time, handle))) = self.deadlines.peek().copied() {
            if time > now {
                return None;
            }
            self.deadlines.pop();
            if let Some(allocation) = self.allocations.get_mut(handle.0 as usize)
                && allocation.armed == time
            {
                allocation.armed = Time(u64::MAX);
                return Some(handle);
            }
        }
        None
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, &Allocation)> {
        #[allow(clippy::cast_possible_truncation)]
        self.allocations.iter().map(|(place, allocation)| (Handle(place as u32), allocation))
    }

    /// Drops the entries of ended allocations when they are the majority, and returns memory after a peak.
    fn sweep(&mut self) {
        if self.deadlines.len() > 64 && self.deadlines.len() > 2 * self.allocations.len() {
            let allocations = &self.allocations;
            self.deadlines.retain(|Reverse((time, handle))| {
                allocations.get(handle.0 as usize).is_some_and(|allocation| allocation.armed == *time)
            });
            self.deadlines.shrink_to(2 * self.deadlines.len());
        }
        if self.peak.has_fallen(self.allocations.len()) {
            self.allocations.shrink_to_fit();
            let Self { allocations, by_tuple, hasher, .. } = self;
            by_tuple.shrink_to(2 * allocations.len(), |handle| {
                hasher.hash_one(allocations[handle.0 as usize].client.tuple)
            });
        }
    }
}

impl Index<Handle> for Table {
    type Output = Allocation;

    fn index(&self, handle: Handle) -> &Allocation {
        &self.allocations[handle.0 as usize]
    }
}

impl IndexMut<Handle> for Table {
    fn index_mut(&mut self, handle: Handle) -> &mut Allocation {
        &mut self.allocations[handle.0 as usize]
    }
}
