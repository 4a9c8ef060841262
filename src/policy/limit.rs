//! The limits by name, and how often each has refused or dropped something.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::{ALLOCATION_KEYS, HolderKeys, REALM_KEYS, TENANT_KEYS, TOTAL_KEYS, USER_KEYS};

/// Who is held to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Scope {
    /// One allocation.
    Allocation,
    /// All allocations of a user.
    User,
    /// All allocations of a tenant.
    Tenant,
    /// All allocations of a realm.
    Realm,
    /// All allocations.
    Total,
}

impl Scope {
    /// All of them, from the narrowest.
    pub const ALL: [Self; 5] = [Self::Allocation, Self::User, Self::Tenant, Self::Realm, Self::Total];

    const fn keys(self) -> &'static HolderKeys {
        match self {
            Self::Allocation => &ALLOCATION_KEYS,
            Self::User => &USER_KEYS,
            Self::Tenant => &TENANT_KEYS,
            Self::Realm => &REALM_KEYS,
            Self::Total => &TOTAL_KEYS,
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Kind {
    /// Allocations.
    Allocations,
    /// Allocations that are not used.
    Unused,
    /// Bits per second.
    Bandwidth,
    /// Datagrams per second.
    Packets,
    /// New peers per second.
    NewPeers,
    /// Bytes per month.
    Month,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Allocations, Self::Unused, Self::Bandwidth, Self::Packets, Self::NewPeers, Self::Month];
}

/// One limit: of what, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit(pub Kind, pub Scope);

impl Limit {
    /// Every limit that there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let all = Kind::ALL.into_iter().flat_map(|kind| Scope::ALL.into_iter().map(move |scope| Self(kind, scope)));
        all.filter(|limit| !limit.key().is_empty())
    }

    /// Its key in the configuration, which is its name in metrics, too.
    pub const fn key(self) -> &'static str {
        let Self(kind, scope) = self;
        let keys = scope.keys();
        match kind {
            Kind::Allocations => keys.allocations,
            Kind::Unused => keys.unused,
            Kind::Bandwidth => keys.bits_per_second,
            Kind::Packets => keys.packets_per_second,
            Kind::NewPeers => keys.new_peers_per_second,
            Kind::Month => keys.bytes_per_month,
        }
    }

    /// What a client is told that a request is refused for.
    pub const fn words(self) -> &'static str {
        match self {
            Self(Kind::Unused, Scope::User) => "too many unused allocations of this user",
            Self(Kind::Unused, _) => "too many unused allocations",
            Self(Kind::Allocations, Scope::User) => "this user has as many as allowed",
            Self(Kind::Allocations, _) => "no more are allowed now",
            Self(Kind::Month, Scope::User) => "this user's bytes of the month are used up",
            Self(Kind::Month, _) => "the bytes of the month are used up",
            Self(Kind::NewPeers, _) => "too many new peers, try again later",
            Self(Kind::Bandwidth | Kind::Packets, _) => "too fast",
        }
    }

    const fn place(self) -> usize {
        self.0 as usize * Scope::ALL.len() + self.1 as usize
    }
}

/// What a limit has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Deed {
    /// Refused a request, or dropped a datagram.
    Refused,
    /// Made a stream wait.
    HeldUp,
}

/// How often each limit has done what; written by one worker.
#[derive(Debug)]
#[repr(align(64))]
pub struct Tally([[AtomicU64; Kind::ALL.len() * Scope::ALL.len()]; 2]);

impl Default for Tally {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(0) }; Kind::ALL.len() * Scope::ALL.len()] }; 2])
    }
}

impl Tally {
    /// Counts one.
    pub fn count(&self, limit: Limit, deed: Deed) {
        let count = &self.0[deed as usize][limit.place()];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// How often it was.
    pub fn get(&self, limit: Limit, deed: Deed) -> u64 {
        self.0[deed as usize][limit.place()].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_name_and_a_place_of_its_own() {
        let mut names: Vec<&str> = Limit::all().map(Limit::key).collect();
        assert_eq!(names.len(), 5 * 6 - 3);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5 * 6 - 3);
        let tally = Tally::default();
        Limit::all().for_each(|limit| tally.count(limit, Deed::Refused));
        assert!(Limit::all().all(|limit| tally.get(limit, Deed::Refused) == 1 && tally.get(limit, Deed::HeldUp) == 0));
    }
}
