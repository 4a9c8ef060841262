//! Allocation quotas: per user, tenant, realm and in total (RFC 8656 §5, §7.2, 486).
//!
//! An allocation is *used* from its first permission, channel or peer connection on: before that it can relay nothing in either
//! direction (RFC 8656 §9), and costs no more than a port. Clients gather candidates by making allocations that they never use,
//! one for each of a server's transports and of their interfaces, and let them go within seconds.
//!
//! * Where a holder has a quota of unused allocations, its unused ones count against that one alone, and its used ones against
//!   its ordinary quota. A new allocation needs a place among the unused ones, and the ordinary quota must not be used up, since
//!   otherwise it could never be used. Its first use needs a place among the used ones.
//! * Where a holder has none, all of its allocations count against its ordinary quota from the start.
//!
//! Pure counting. Who calls it holds a lock around it, since a user's allocations may live on several workers. The
//! invariant: what is counted for a holder is what was taken and not given back, and a holder without allocations takes no
//! memory.

use std::sync::Arc;

use hashbrown::HashMap;

use super::limit::{Kind, Limit, Scope};
use crate::{
    auth::subject::Subject,
    config::settings::{HolderLimits, RealmLimits},
};

/// Who holds allocations together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A user of a realm.
    User {
        /// The realm.
        realm: Arc<str>,
        /// The user.
        user: Arc<str>,
    },
    /// A tenant of a realm.
    Tenant {
        /// The realm.
        realm: Arc<str>,
        /// The tenant.
        tenant: Arc<str>,
    },
    /// A realm.
    Realm(Arc<str>),
    /// Everybody.
    Total,
}

impl Holder {
    /// Those who hold the allocations of this subject, from the narrowest.
    pub fn of(subject: &Subject) -> impl Iterator<Item = Self> + use<> {
        let Subject { user, realm, tenant } = subject.clone();
        let tenant = tenant.map(|tenant| Self::Tenant { realm: Arc::clone(&realm), tenant });
        let user = Self::User { realm: Arc::clone(&realm), user };
        [Some(user), tenant, Some(Self::Realm(realm)), Some(Self::Total)].into_iter().flatten()
    }

    /// The kind of holder.
    pub const fn scope(&self) -> Scope {
        match self {
            Self::User { .. } => Scope::User,
            Self::Tenant { .. } => Scope::Tenant,
            Self::Realm(_) => Scope::Realm,
            Self::Total => Scope::Total,
        }
    }

    /// What it may take.
    pub const fn limits<'l>(&self, realm: &'l RealmLimits, total: &'l HolderLimits) -> &'l HolderLimits {
        match self {
            Self::User { .. } => &realm.user,
            Self::Tenant { .. } => &realm.tenant,
            Self::Realm(_) => &realm.realm,
            Self::Total => total,
        }
    }
}

/// Allocations of a holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Those that count against the ordinary quota.
    pub used: u32,
    /// Those that count as unused.
    pub unused: u32,
}

impl Held {
    const fn place(&mut self, counts_apart: bool) -> &mut u32 {
        if counts_apart { &mut self.unused } else { &mut self.used }
    }
}

/// Which holders of an allocation count it as unused. Kept with it: limits may change while it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apart(u8);

impl Apart {
    /// Those who have a quota of unused ones.
    fn new(subject: &Subject, realm: &RealmLimits, total: &HolderLimits) -> Self {
        let apart = Holder::of(subject).filter(|holder| holder.limits(realm, total).unused.is_some());
        Self(apart.fold(0, |bits, holder| bits | Self::bit(&holder)))
    }

    const fn bit(holder: &Holder) -> u8 {
        1 << holder.scope() as u8
    }

    const fn has(self, holder: &Holder) -> bool {
        self.0 & Self::bit(holder) != 0
    }

    /// As it is kept.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What was kept.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// Counts allocations against the quotas.
#[derive(Debug, Default)]
pub struct Quotas {
    holders: HashMap<Holder, Held>,
}

impl Quotas {
    /// Counts one new allocation for `subject`, unless that exceeds a quota; then nothing changes.
    ///
    /// # Errors
    /// The widest limit that is reached.
    pub fn try_take(&mut self, subject: &Subject, realm: &RealmLimits, total: &HolderLimits) -> Result<Apart, Limit> {
        let holders: Vec<Holder> = Holder::of(subject).collect();
        for holder in holders.iter().rev() {
            let (limits, held) = (holder.limits(realm, total), self.held_by(holder));
            if held.used >= limits.allocations.unwrap_or(u32::MAX) {
                return Err(Limit(Kind::Allocations, holder.scope()));
            }
            if limits.unused.is_some_and(|unused| held.unused >= unused) || held.unused == u32::MAX {
                return Err(Limit(Kind::Unused, holder.scope()));
            }
        }
        let apart = Apart::new(subject, realm, total);
        for holder in holders {
            let counts_apart = apart.has(&holder);
            // It is below a limit of at most u32::MAX.
            *self.holders.entry(holder).or_default().place(counts_apart) += 1;
        }
        Ok(apart)
    }

    /// Counts an allocation of `subject` as used from now on by all who have counted it `apart`, unless that exceeds a quota;
    /// then nothing changes.
    ///
    /// # Errors
    /// The widest limit that is reached.
    pub fn try_use(
        &mut self,
        subject: &Subject,
        apart: Apart,
        realm: &RealmLimits,
        total: &HolderLimits,
    ) -> Result<(), Limit> {
        let moved: Vec<Holder> = Holder::of(subject).filter(|holder| apart.has(holder)).collect();
        for holder in moved.iter().rev() {
            let limit = holder.limits(realm, total).allocations.unwrap_or(u32::MAX);
            if self.held_by(holder).used >= limit {
                return Err(Limit(Kind::Allocations, holder.scope()));
            }
        }
        for holder in moved {
            if let Some(held) = self.holders.get_mut(&holder)
                && held.unused > 0
            {
                held.unused -= 1;
                held.used += 1;
            }
        }
        Ok(())
    }

    /// Gives an allocation of `subject` back, that is still counted `apart` by some. Without one, nothing changes.
    pub fn give_back(&mut self, subject: &Subject, apart: Apart) {
        for holder in Holder::of(subject) {
            let counts_apart = apart.has(&holder);
            let Some(held) = self.holders.get_mut(&holder) else { continue };
            let place = held.place(counts_apart);
            *place = place.saturating_sub(1);
            if *held == Held::default() {
                self.holders.remove(&holder);
            }
        }
        if self.holders.len() <= self.holders.capacity() / 8 {
            self.holders.shrink_to(self.holders.len() * 2);
        }
    }

    /// Allocations of a holder.
    pub fn held_by(&self, holder: &Holder) -> Held {
        self.holders.get(holder).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
