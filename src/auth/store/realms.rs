//! What a store says about realms beside who is in them: limits (`turn_realm_option`) and peers (`allowed_peer_ip`, `denied_peer_ip`).
//!
//! Limits are read at the start, and stand in place of those of the configuration. Peers are added to those of the configuration,
//! and read again while the server runs. What cannot be read changes nothing.

use std::sync::Arc;

use super::{PeerRules, RealmOptions, Stores, Unavailable};
use crate::{
    auth::prepare::prepare,
    config::settings::{Peers, RealmLimits, Settings},
};

/// The realms of a configuration, as a store knows them.
#[derive(Debug)]
pub struct KnownRealms {
    stores: Stores,
    /// In OpaqueString form; the default realm first.
    names: Vec<String>,
    /// What was read last of each.
    peers: Vec<Arc<PeerRules>>,
}

impl KnownRealms {
    /// The realms of these settings; nothing is read yet.
    #[must_use]
    pub fn new(settings: &Settings, stores: Stores) -> Self {
        let names = [&settings.auth.realm].into_iter().chain(settings.realms.iter().map(|realm| &realm.name));
        // A realm without such a form is refused at the start.
        let prepared = names.map(|name| prepare(name).map_or_else(|_| name.clone(), |name| name.into_owned()));
        let names: Vec<String> = prepared.collect();
        Self { stores, peers: vec![Arc::default(); names.len()], names }
    }

    /// The realms of other settings, with what was read of those that are among both.
    #[must_use]
    pub fn of(&self, settings: &Settings) -> Self {
        let mut other = Self::new(settings, self.stores.clone());
        for (name, peers) in other.names.iter().zip(&mut other.peers) {
            if let Some(known) = self.names.iter().position(|known| known == name) {
                *peers = Arc::clone(&self.peers[known]);
            }
        }
        other
    }

    /// Puts the limits that the store has in place of those of the settings.
    ///
    /// # Errors
    /// The store has not said; the settings are as they were.
    pub async fn limit(&self, settings: &mut Settings) -> Result<(), Unavailable> {
        let options = self.stores.realms().await?;
        let Settings { auth, realms, limits, .. } = settings;
        let places = [&mut auth.limits].into_iter().chain(realms.iter_mut().map(|realm| &mut realm.limits));
        for (name, place) in self.names.iter().zip(places) {
            if let Some(options) = options.iter().find(|options| options.realm == *name) {
                *place = Some(limited(place.unwrap_or(limits.realm), options));
            }
        }
        Ok(())
    }

    /// Reads the peers of every realm; true if any have changed.
    ///
    /// # Errors
    /// None has changed, and those of some realm could not be read.
    pub async fn read_peers(&mut self) -> Result<bool, Unavailable> {
        let (mut read, mut outcome) = (self.peers.clone(), Ok(()));
        for (name, peers) in self.names.iter().zip(&mut read) {
            match self.stores.peer_rules(name).await {
                Ok(rules) => *peers = rules,
                Err(error) => outcome = Err(error),
            }
        }
        // Kept at once: whoever stops waiting before has changed nothing.
        if read != self.peers {
            self.peers = read;
            return Ok(true);
        }
        outcome.map(|()| false)
    }

    /// The peers that were read last, by realm.
    #[must_use]
    pub fn peers(&self) -> Vec<Peers> {
        let peers = |rules: &Arc<PeerRules>| Peers { allowed: rules.allowed.clone(), denied: rules.denied.clone() };
        self.peers.iter().map(peers).collect()
    }
}

/// More bits per second than any host relays, and no more than can be counted with.
const MOST_BITS: u64 = 1_000_000_000_000;

/// A realm's limits with what a store says in place of some. `max-bps` of coturn's counts bytes.
fn limited(mut limits: RealmLimits, options: &RealmOptions) -> RealmLimits {
    let RealmOptions { realm: _, max_bytes_per_second, total_quota, user_quota } = options;
    limits.realm.allocations = total_quota.or(limits.realm.allocations);
    limits.user.allocations = user_quota.or(limits.user.allocations);
    let bits = max_bytes_per_second.map(|bytes| bytes.saturating_mul(8).min(MOST_BITS));
    limits.allocation.bits_per_second = bits.or(limits.allocation.bits_per_second);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_in_place_of_limits_of_the_configuration() {
        let mut own = RealmLimits::default();
        own.user.allocations = Some(7);
        own.allocation.packets_per_second = Some(9);
        let options = RealmOptions {
            realm: "r".to_owned(),
            max_bytes_per_second: Some(1_000),
            total_quota: Some(5),
            user_quota: None,
        };
        let limits = limited(own, &options);
        assert_eq!((limits.realm.allocations, limits.user.allocations), (Some(5), Some(7)));
        let allocation = limits.allocation;
        assert_eq!((allocation.bits_per_second, allocation.packets_per_second), (Some(8_000), Some(9)));
        let endless = RealmOptions { max_bytes_per_second: Some(u64::MAX), ..options };
        assert_eq!(limited(own, &endless).allocation.bits_per_second, Some(MOST_BITS));
        assert_eq!(limited(own, &RealmOptions::default()), own);
    }
}
