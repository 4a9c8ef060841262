//! What all workers have counted. They are asked for it at each scrape, and not more often than so many times a second,
//! whoever asks.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    relay::{Batches, Monitor, Report},
    turn::{Census, Totals},
};

/// Shortest time between two surveys.
const PAUSE: Duration = Duration::from_millis(20);
/// Time over which load is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// What a survey found.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    pub(super) workers: Vec<Report>,
    /// Every worker has answered.
    pub(super) complete: bool,
}

impl Survey {
    pub(super) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.totals));
        sum
    }

    pub(super) fn census(&self) -> Census {
        let mut sum = Census::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.census));
        sum
    }

    pub(super) fn batches(&self) -> Batches {
        let mut sum = Batches::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.batches));
        sum
    }
}

/// Asks workers, one survey at a time.
pub(super) struct Surveyor {
    monitor: Monitor,
    last: tokio::sync::Mutex<Option<Instant>>,
    /// By worker: the share of a processor that it had lately.
    load: Mutex<Vec<f64>>,
}

impl Surveyor {
    pub(super) fn new(monitor: Monitor) -> Self {
        Self { monitor, last: tokio::sync::Mutex::default(), load: Mutex::default() }
    }

    /// How everything is now.
    pub(super) async fn survey(&self) -> Survey {
        let mut last = self.last.lock().await;
        if let Some(last) = *last {
            // However far apart the clocks of two runtimes are, as where one's time is made to pass.
            sleep((last + PAUSE).saturating_duration_since(Instant::now()).min(PAUSE)).await;
        }
        let (workers, complete) = self.monitor.reports().await;
        *last = Some(Instant::now());
        Survey { workers, complete }
    }

    /// By worker: the share of a processor that it had lately, as far as is known.
    pub(super) fn load(&self) -> Vec<f64> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the load up to date.
    pub(super) async fn watch_load(&self) {
        let mut before: Vec<Option<Duration>> = Vec::new();
        let mut since = Instant::now();
        loop {
            let now = Instant::now();
            let times: Vec<_> = self.survey().await.workers.iter().map(|worker| worker.processor_time).collect();
            let share = |(now_time, before): (&Option<Duration>, &Option<Duration>)| {
                let used = now_time.zip(*before).map(|(now, before)| now.saturating_sub(before));
                used.unwrap_or_default().as_secs_f64() / (now - since).as_secs_f64().max(f64::EPSILON)
            };
            let load = times.iter().zip(&before).map(share).map(|share| share.min(1.0)).collect();
            *self.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
            (before, since) = (times, now);
            sleep(WINDOW).await;
        }
    }
}
