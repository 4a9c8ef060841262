//! Allocation quotas: per user and in total (RFC 8656 §7.2, 486; §21.3.1).
//!
//! Pure counting. Who calls it holds a lock around it, since a user's allocations may live on several workers. The
//! invariant: the total is the sum of all users' counts, and a user without allocations takes no memory.

use hashbrown::HashMap;

/// Which quota is used up (486 Allocation Quota Reached for a user's, 508 Insufficient Capacity for the server's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// The user holds as many allocations as a user may (`user-quota`).
    #[error("user quota reached")]
    User,
    /// The server holds as many allocations as it may (`total-quota`).
    #[error("total quota reached")]
    Total,
}

/// Counts allocations against the quotas.
#[derive(Debug)]
pub struct Quotas {
    per_user: Option<u32>,
    in_total: Option<u32>,
    users: HashMap<Box<str>, u32>,
    total: u32,
}

impl Quotas {
    /// Quotas per user and in total; `None` is unlimited.
    pub fn new(per_user: Option<u32>, in_total: Option<u32>) -> Self {
        Self { per_user, in_total, users: HashMap::new(), total: 0 }
    }

    /// Counts one allocation for `user`, unless that exceeds a quota; then nothing changes.
    pub fn try_take(&mut self, user: &str) -> Result<(), QuotaExceeded> {
        if self.total >= self.in_total.unwrap_or(u32::MAX) {
            return Err(QuotaExceeded::Total);
        }
        let held = self.held_by(user);
        if held >= self.per_user.unwrap_or(u32::MAX) {
            return Err(QuotaExceeded::User);
        }
        // Neither addition overflows: both are below a limit of at most u32::MAX.
        match self.users.get_mut(user) {
            Some(count) => *count = held + 1,
            None => drop(self.users.insert(user.into(), 1)),
        }
        self.total += 1;
        Ok(())
    }

    /// Gives one allocation of `user` back. Without one, nothing changes.
    pub fn give_back(&mut self, user: &str) {
        let Some(held) = self.users.get_mut(user) else { return };
        // Neither subtraction underflows: entries are never 0, and the total is their sum.
        *held -= 1;
        self.total -= 1;
        if *held == 0 {
            self.users.remove(user);
            if self.users.len() <= self.users.capacity() / 8 {
                self.users.shrink_to(self.users.len() * 2);
            }
        }
    }

    /// Allocations of `user`.
    pub fn held_by(&self, user: &str) -> u32 {
        self.users.get(user).copied().unwrap_or(0)
    }

    /// Allocations of all users.
    pub fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn h05_a_user_stops_at_the_quota_and_others_do_not() {
        let mut quotas = Quotas::new(Some(2), Some(3));
        assert_eq!(quotas.try_take("a"), Ok(()));
        assert_eq!(quotas.try_take("a"), Ok(()));
        assert_eq!(quotas.try_take("a"), Err(QuotaExceeded::User));
        assert_eq!(quotas.try_take("b"), Ok(()));
        assert_eq!(quotas.try_take("c"), Err(QuotaExceeded::Total));
        quotas.give_back("a");
        assert_eq!(quotas.try_take("c"), Ok(()));
        assert_eq!((quotas.held_by("a"), quotas.total()), (1, 3));
    }

    #[test]
    fn a_quota_of_nothing_serves_nobody() {
        assert_eq!(Quotas::new(Some(0), None).try_take("a"), Err(QuotaExceeded::User));
        assert_eq!(Quotas::new(None, Some(0)).try_take("a"), Err(QuotaExceeded::Total));
    }

    #[test]
    fn memory_returns_with_the_last_allocation() {
        let mut quotas = Quotas::new(None, None);
        for user in 0..1000 {
            quotas.try_take(&user.to_string()).unwrap();
        }
        for user in 0..1000 {
            quotas.give_back(&user.to_string());
        }
        assert_eq!((quotas.total(), quotas.users.len(), quotas.users.capacity()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_the_books(
            per_user in proptest::option::of(0u32..4),
            in_total in proptest::option::of(0u32..8),
            steps in proptest::collection::vec((any::<bool>(), 0usize..5), 0..200),
        ) {
            let mut quotas = Quotas::new(per_user, in_total);
            let mut model = [0u32; 5];
            for (take, user) in steps {
                let name = user.to_string();
                if take {
                    let expected = if in_total.is_some_and(|limit| model.iter().sum::<u32>() >= limit) {
                        Err(QuotaExceeded::Total)
                    } else if per_user.is_some_and(|limit| model[user] >= limit) {
                        Err(QuotaExceeded::User)
                    } else {
                        model[user] += 1;
                        Ok(())
                    };
                    prop_assert_eq!(quotas.try_take(&name), expected);
                } else {
                    quotas.give_back(&name);
                    model[user] = model[user].saturating_sub(1);
                }
                prop_assert_eq!(quotas.total(), model.iter().sum::<u32>());
                prop_assert_eq!(quotas.held_by(&name), model[user]);
                prop_assert_eq!(quotas.users.len(), model.iter().filter(|held| **held > 0).count());
            }
        }
    }
}
