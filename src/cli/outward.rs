//! `external-ip = "auto"`: what the world sees of the relay addresses is found before the server starts, and looked for again while
//! it runs.

use std::{future::pending, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use crate::{
    config::settings::{Relay, RelayAddress},
    external,
};

/// Puts the external addresses into settings that leave them to be found: those that are `known`, and what is found of the others.
pub(super) async fn find(relay: &mut Relay, known: &[RelayAddress]) {
    if !relay.find_external.auto {
        return;
    }
    put(&mut relay.addresses, known);
    let unknown: Vec<_> = relay
        .addresses
        .iter()
        .filter(|address| known.iter().all(|known| known.local != address.local))
        .copied()
        .collect();
    if !unknown.is_empty() {
        let found = external::look(&relay.find_external, &unknown).await;
        put(&mut relay.addresses, &found);
    }
}

/// Puts external addresses in place of those before.
pub(super) fn put(addresses: &mut [RelayAddress], found: &[RelayAddress]) {
    for address in addresses {
        if let Some(found) = found.iter().find(|found| found.local == address.local) {
            address.external = found.external;
        }
    }
}

/// Looks for other external addresses from time to time.
pub(super) struct Outlook {
    time: Interval,
    /// Somebody is being asked.
    asked: Option<JoinHandle<Vec<RelayAddress>>>,
}

impl Outlook {
    /// Looks every so often, first after that time.
    pub(super) fn new(relay: &Relay) -> Self {
        // Without anything to find there is no interval.
        let every = relay.find_external.interval.max(Duration::from_secs(1));
        let mut time = interval_at(Instant::now() + every, every);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { time, asked: None }
    }

    /// Waits until external addresses are others than those of these settings; returns them. Whoever stops waiting misses nothing.
    pub(super) async fn change(&mut self, relay: &Relay) -> Vec<RelayAddress> {
        if !relay.find_external.auto {
            return pending().await;
        }
        loop {
            if self.asked.is_none() {
                self.time.tick().await;
            }
            let asked = self.asked.get_or_insert_with(|| {
                let (find, addresses) = (relay.find_external.clone(), relay.addresses.clone());
                tokio::spawn(async move { external::look(&find, &addresses).await })
            });
            let found = asked.await;
            self.asked = None;
            match found {
                Ok(found) if !found.is_empty() => return found,
                _ => {}
            }
        }
    }
}
