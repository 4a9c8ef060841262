//! A bounded cache of answers, each good for a time. Time is passed in.

use std::{collections::VecDeque, hash::Hash, time::Duration};

use hashbrown::HashMap;
use tokio::time::Instant;

/// Answers of one kind that are good for equally long. Where there is no room, the oldest answer goes.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Every entry's key, oldest first; all live equally long, so the oldest expire first.
    order: VecDeque<(u64, K)>,
    next: u64,
    capacity: usize,
    time: Duration,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    number: u64,
    expires: Instant,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache of at most `capacity` answers, each good for `time`.
    pub fn new(capacity: usize, time: Duration) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), next: 0, capacity, time }
    }

    /// The answer, if it is there and still good.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|entry| now < entry.expires).map(|entry| entry.value.clone())
    }

    /// Keeps an answer in place of any earlier one.
    pub fn insert(&mut self, key: K, value: V, now: Instant) {
        self.remove(&key);
        self.expire(now);
        while self.entries.len() >= self.capacity {
            let Some((number, oldest)) = self.order.pop_front() else { return };
            self.remove_number(&oldest, number);
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((number, key.clone()));
        self.entries.insert(key, Entry { value, number, expires: now + self.time });
    }

    /// Forgets an answer.
    pub fn remove(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            // What was removed before its time leaves a key behind; they must not pile up.
            if self.order.len() > 2 * self.entries.len() + 16 {
                let entries = &self.entries;
                self.order.retain(|(number, key)| entries.get(key).is_some_and(|entry| entry.number == *number));
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// Answers held, good or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((number, key)) = self.order.front() {
            match self.entries.get(key).filter(|entry| entry.number == *number) {
                Some(entry) if now < entry.expires => return,
                Some(_) => {
                    self.entries.remove(key);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    fn remove_number(&mut self, key: &K, number: u64) {
        if self.entries.get(key).is_some_and(|entry| entry.number == number) {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_is_good_for_its_time_and_no_longer() {
        let start = Instant::now();
        let mut cache = Cache::new(4, TIME);
        cache.insert("a", 1, start);
        assert_eq!(cache.get(&"a", start + TIME - Duration::from_nanos(1)), Some(1));
        assert_eq!(cache.get(&"a", start + TIME), None);
        assert_eq!(cache.get(&"b", start), None);
    }

    #[test]
    fn the_oldest_goes_where_there_is_no_room() {
        let start = Instant::now();
        let mut cache = Cache::new(2, TIME);
        for (at, key) in ["a", "b", "c"].into_iter().enumerate() {
            cache.insert(key, at, start);
        }
        assert_eq!([cache.get(&"a", start), cache.get(&"b", start), cache.get(&"c", start)], [None, Some(1), Some(2)]);
        cache.insert("b", 7, start);
        cache.insert("d", 8, start);
        assert_eq!([cache.get(&"b", start), cache.get(&"c", start), cache.get(&"d", start)], [Some(7), None, Some(8)]);
    }

    #[test]
    fn one_without_room_holds_nothing() {
        let mut cache = Cache::new(0, TIME);
        cache.insert("a", 1, Instant::now());
        assert!(cache.is_empty());
    }

    proptest! {
        /// Against a plain list of what was inserted when.
        #[test]
        fn it_never_gives_an_old_answer_and_never_grows(
            capacity in 1_usize..6, steps in proptest::collection::vec((0_u8..8, 0_u64..6, any::<bool>()), 1..200),
        ) {
            let mut cache = Cache::new(capacity, TIME);
            let mut model: Vec<(u8, usize, Instant)> = Vec::new();
            let mut now = Instant::now();
            for (step, (key, pause, insert)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(pause);
                if insert {
                    cache.insert(key, step, now);
                    model.retain(|(other, _, at)| *other != key && now < *at + TIME);
                    model.push((key, step, now));
                    if model.len() > capacity {
                        model.remove(0);
                    }
                } else {
                    let expected = model.iter().find(|(other, _, at)| *other == key && now < *at + TIME);
                    prop_assert_eq!(cache.get(&key, now), expected.map(|(_, value, _)| *value));
                }
                prop_assert!(cache.len() <= capacity);
                prop_assert!(cache.order.len() <= 2 * capacity + 17);
            }
        }
    }
}
