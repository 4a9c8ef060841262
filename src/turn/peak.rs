//! When a container has shrunk enough to give memory back.

/// The most entries that a container has held since it last gave memory back.
///
/// Giving back may cost time proportional to the container; asked for at a quarter of the peak, it costs a constant per removal.
#[derive(Debug, Default)]
pub struct Peak(usize);

impl Peak {
    /// Below this, memory is not worth the effort.
    const SMALL: usize = 256;

    /// Notes that there are now so many entries.
    pub fn rise(&mut self, entries: usize) {
        self.0 = self.0.max(entries);
    }

    /// Whether memory should be given back now that there are only so many entries; a new peak begins then.
    pub fn has_fallen(&mut self, entries: usize) -> bool {
        let fallen = self.0 > Self::SMALL && entries < self.0 / 4;
        if fallen {
            self.0 = entries;
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_per_fall() {
        let mut peak = Peak::default();
        peak.rise(1000);
        peak.rise(10);
        assert!(!peak.has_fallen(250));
        assert!(peak.has_fallen(249));
        assert!(!peak.has_fallen(1));
        peak.rise(256);
        assert!(!peak.has_fallen(0));
    }
}
