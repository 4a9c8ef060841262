//! When a container has shrunk enough to give memory back.

/// How many entries a container has held, which says when it should try to give memory back.
///
/// Trying may cost time proportional to the container; at each fall to a quarter, and when it is empty, it costs a constant per
/// removal. A container whose last entries stay in use cannot give back much at first: so there is another try, and another,
/// until it is empty.
#[derive(Debug, Default)]
pub struct Peak {
    /// The most entries since it was empty.
    highest: usize,
    /// The most entries since the last try.
    recent: usize,
}

impl Peak {
    /// Below this, memory is not worth the effort.
    const SMALL: usize = 256;

    /// Notes that there are now so many entries.
    pub fn rise(&mut self, entries: usize) {
        self.highest = self.highest.max(entries);
        self.recent = self.recent.max(entries);
    }

    /// Whether memory should be given back now that there are only so many entries.
    pub fn has_fallen(&mut self, entries: usize) -> bool {
        let fallen = self.highest > Self::SMALL && (entries < self.recent / 4 || entries == 0);
        if fallen {
            self.recent = entries;
        }
        if entries == 0 {
            *self = Self::default();
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_per_fall_until_empty() {
        let mut peak = Peak::default();
        peak.rise(1000);
        peak.rise(10);
        let tries: Vec<usize> = (0..1000).rev().filter(|entries| peak.has_fallen(*entries)).collect();
        assert_eq!(tries, [249, 61, 14, 2, 0]);
        assert!(!peak.has_fallen(0));
    }

    #[test]
    fn never_where_there_was_no_peak() {
        let mut peak = Peak::default();
        for _ in 0..3 {
            peak.rise(256);
            assert!((0..256).rev().all(|entries| !peak.has_fallen(entries)));
        }
    }
}
