//! The limits and peers of realms that a store tells: limits at the start, peers also while the server runs.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::{
    auth::store::{Stores, realms::KnownRealms},
    config::{Settings, settings::Peers},
    relay::Relay,
};

/// What is in a store is not read again more often.
pub(super) const SOONEST: Duration = Duration::from_secs(5);

/// The realms of the store, if there is one, and when to read them again.
pub(super) struct StoredRealms(Option<(KnownRealms, Interval)>);

impl StoredRealms {
    /// Reads what the store says, before anybody is served: its limits stand in the settings afterwards.
    pub(super) async fn begin(stores: Option<Stores>, settings: &mut Settings) -> Self {
        let (Some(stores), Some(store)) = (stores, &settings.store) else { return Self(None) };
        let again = store.limits.cache_time.max(SOONEST);
        let mut realms = KnownRealms::new(settings, stores);
        // A store that does not answer is not waited for again: it is asked for peers later.
        match realms.limit(settings).await {
            Ok(()) => {
                if realms.read_peers().await.is_err() {
                    tracing::warn!(
                        "the store has not told its peer lists: until it does, those of the configuration hold"
                    );
                }
            }
            Err(_) => tracing::warn!(
                "the store has not told the limits and peers of realms: those of the configuration hold, of limits until \
                 the next start, of peers until it tells them"
            ),
        }
        let mut time = tokio::time::interval_at(Instant::now() + again, again);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Some((realms, time)))
    }

    /// Puts the limits that the store has in place of those of settings that are about to be in force, in place of `before`. What the
    /// store does not tell now stays as it was.
    pub(super) async fn limit(&self, settings: &mut Settings, before: &Settings) {
        let Some((realms, _)) = &self.0 else { return };
        if realms.of(settings).limit(settings).await.is_ok() {
            return;
        }
        tracing::warn!("the store has not told the limits of realms: those that hold now go on to hold");
        if settings.auth.realm == before.auth.realm {
            settings.auth.limits = before.auth.limits;
        }
        for realm in &mut settings.realms {
            if let Some(before) = before.realms.iter().find(|before| before.name == realm.name) {
                realm.limits = before.limits;
            }
        }
    }

    /// The realms of settings that are about to be in force, each in its place, with their peers; those that are new are asked about.
    pub(super) async fn of(&self, placed: &Settings) -> Option<KnownRealms> {
        let (realms, _) = self.0.as_ref()?;
        let mut other = realms.of(placed);
        if other.read_peers().await.is_err() {
            tracing::warn!(
                "the store has not told the peer lists of all realms: until it does, what is known of them holds"
            );
        }
        Some(other)
    }

    /// Goes on with these.
    pub(super) fn set(&mut self, realms: Option<KnownRealms>) {
        if let (Some((place, _)), Some(realms)) = (&mut self.0, realms) {
            *place = realms;
        }
    }

    /// The peers that were read last, by realm.
    pub(super) fn peers(&self) -> Vec<Peers> {
        self.0.as_ref().map(|(realms, _)| realms.peers()).unwrap_or_default()
    }

    /// Tells the relay the peers that were read last.
    pub(super) fn tell(&self, relay: &Relay) {
        if self.0.is_some() {
            relay.add_peers(&self.peers());
        }
    }

    /// Reads the peer lists again whenever it is time, until they have changed.
    pub(super) async fn change(&mut self) {
        let Some((realms, time)) = &mut self.0 else { return pending().await };
        loop {
            time.tick().await;
            // What fails is logged where the store is asked.
            if matches!(realms.read_peers().await, Ok(true)) {
                return;
            }
        }
    }
}
