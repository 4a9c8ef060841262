//! Who has which place in the tables. A place is given to another channel only when the program cannot be reading it any more for
//! the one before.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::layout::Count;

/// How long a place rests. A run of the program takes microseconds.
const REST: Duration = Duration::from_secs(1);

/// A place: for two flows, to the peer and to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    /// Where the two flows stand in the tables.
    pub(super) const fn places(self) -> [u32; 2] {
        [2 * self.0, 2 * self.0 + 1]
    }
}

/// A place that rests, with what was counted there when it was last looked at.
pub(super) type Resting = (Slot, [Count; 2]);

/// The places that nobody has.
#[derive(Debug)]
pub(super) struct Slots {
    /// Below this all have been given out at least once.
    fresh: u32,
    all: u32,
    resting: VecDeque<(Instant, Resting)>,
}

impl Slots {
    pub(super) const fn new(all: u32) -> Self {
        Self { fresh: 0, all, resting: VecDeque::new() }
    }

    /// Takes a place, with what was counted there before.
    pub(super) fn take(&mut self, now: Instant) -> Option<Resting> {
        if let Some((since, _)) = self.resting.front()
            && now.saturating_duration_since(*since) >= REST
        {
            return self.resting.pop_front().map(|(_, rested)| rested);
        }
        if self.fresh == self.all {
            return None;
        }
        self.fresh += 1;
        Some((Slot(self.fresh - 1), [Count::default(); 2]))
    }

    pub(super) fn give_back(&mut self, resting: Resting, now: Instant) {
        self.resting.push_back((now, resting));
    }

    /// All places that rest.
    pub(super) fn resting(&self) -> impl Iterator<Item = Resting> + use<'_> {
        self.resting.iter().map(|(_, resting)| *resting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_rests_before_it_is_given_again() {
        let (mut slots, start) = (Slots::new(2), Instant::now());
        let [one, other] = [(); 2].map(|()| slots.take(start).unwrap().0);
        assert_eq!((one.places(), other.places()), ([0, 1], [2, 3]));
        assert_eq!(slots.take(start), None);
        let counted = [Count { packets: 1, bytes: 2 }, Count::default()];
        slots.give_back((other, counted), start);
        assert_eq!(slots.resting().count(), 1);
        assert_eq!(slots.take(start + REST - Duration::from_nanos(1)), None);
        assert_eq!(slots.take(start + REST), Some((other, counted)));
        assert_eq!(slots.take(start + REST), None);
    }
}
