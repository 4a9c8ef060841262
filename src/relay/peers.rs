//! The peer rules of every realm, which may change while the server runs: what a store says is added to what the configuration says.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    config::settings::{Peers, RelayAddress, Settings},
    policy::peer::PeerRules,
};

/// The rules of every realm.
pub(super) type RealmRules = Arc<[Arc<PeerRules>]>;

/// What the rules are made of.
#[derive(Debug)]
struct Sources {
    /// Of the configuration, by realm.
    configured: Vec<Peers>,
    /// In addition, by realm.
    added: Vec<Peers>,
    relay: Vec<RelayAddress>,
    ports: RangeInclusive<u16>,
    /// Listening addresses of this server, and those that it answers from.
    own: Vec<SocketAddr>,
    host: Vec<IpAddr>,
}

/// The rules that are in force, for all workers, and what they are made of.
#[derive(Debug)]
pub(super) struct PeerBook {
    /// How often the rules have changed: all that is looked at for a packet.
    edition: AtomicU64,
    sources: Mutex<Sources>,
    rules: Mutex<RealmRules>,
}

/// This server's own addresses.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// Those that it listens on and answers from.
    pub(super) sockets: Vec<SocketAddr>,
    /// Those that it relays from.
    pub(super) relay: Vec<RelayAddress>,
    /// All of this host.
    pub(super) host: Vec<IpAddr>,
}

impl Sources {
    fn new(settings: &Settings, own: Own, added: Vec<Peers>) -> Self {
        let others = settings.realms.iter().map(|realm| realm.peers.as_ref().unwrap_or(&settings.peers));
        Self {
            configured: [&settings.peers].into_iter().chain(others).cloned().collect(),
            added,
            relay: own.relay,
            ports: settings.relay.min_port..=settings.relay.max_port,
            own: own.sockets,
            host: own.host,
        }
    }

    /// Rules with what is added. Realms with the same peers share them.
    fn rules(&self) -> RealmRules {
        let nothing = Peers::default();
        let mut made: Vec<(Peers, Arc<PeerRules>)> = Vec::new();
        let added = self.added.iter().chain(std::iter::repeat(&nothing));
        let rules = self.configured.iter().zip(added).map(|(configured, added)| {
            let peers = Peers {
                allowed: [&configured.allowed[..], &added.allowed].concat(),
                denied: [&configured.denied[..], &added.denied].concat(),
            };
            if let Some((_, rules)) = made.iter().find(|(other, _)| *other == peers) {
                return Arc::clone(rules);
            }
            let rules = PeerRules::new(&peers, &self.relay, self.ports.clone(), &self.own, &self.host);
            let rules = Arc::new(rules);
            made.push((peers, Arc::clone(&rules)));
            rules
        });
        rules.collect()
    }
}

impl PeerBook {
    pub(super) fn new(settings: &Settings, own: Own) -> Self {
        let sources = Sources::new(settings, own, Vec::new());
        let rules = sources.rules();
        Self { edition: AtomicU64::new(0), sources: Mutex::new(sources), rules: Mutex::new(rules) }
    }

    /// Puts what is added, by realm, in place of what was before.
    pub(super) fn add(&self, added: &[Peers]) {
        self.change(|sources| sources.added = added.to_vec());
    }

    /// Goes on with other settings, and what is added to them by realm.
    pub(super) fn renew(&self, settings: &Settings, own: Own, added: &[Peers]) {
        self.change(|sources| *sources = Sources::new(settings, own, added.to_vec()));
    }

    /// Goes on with these addresses of this host; whether they are others than before.
    pub(super) fn set_host(&self, host: Vec<IpAddr>) -> bool {
        let mut sources = lock(&self.sources);
        let differs = sources.host != host;
        if differs {
            sources.host = host;
            self.make(&sources);
        }
        differs
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = lock(&self.sources);
        change(&mut sources);
        self.make(&sources);
    }

    fn make(&self, sources: &Sources) {
        // Before the rules in force are locked: whoever handles a packet waits for a move at most.
        let made = sources.rules();
        let mut rules = lock(&self.rules);
        *rules = made;
        // Under the lock: whoever sees the new number finds the new rules.
        self.edition.fetch_add(1, Relaxed);
    }

    /// How often the rules have changed.
    pub(super) fn edition(&self) -> u64 {
        self.edition.load(Relaxed)
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> RealmRules {
        Arc::clone(&lock(&self.rules))
    }
}

/// What is locked is changed by moves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};

    #[test]
    fn what_is_added_holds_until_the_next_change() {
        let text = "[auth]\nrealm = \"north.gov\"\nstatic-auth-secret = \"the secret of the north\"\n\
                    [peers]\ndenied-peer-ip = \"198.51.100.0/24\"\n[[realm]]\nname = \"south.gov\"\n\
                    static-auth-secret = \"the secret of the south\"\n";
        let settings = config::parse(text, "t.toml", &Host::detect().unwrap()).unwrap().settings;
        let book = PeerBook::new(
            &settings,
            Own { sockets: Vec::new(), relay: settings.relay.addresses.clone(), host: Vec::new() },
        );
        let permitted =
            |realm: usize, peer: &str| book.rules()[realm].permits(SocketAddr::new(peer.parse().unwrap(), 9));
        let [configured, added, private] = ["198.51.100.1", "203.0.112.1", "10.0.0.1"];
        assert!(permitted(0, configured).is_err() && permitted(0, added).is_ok() && permitted(0, private).is_err());
        assert!(Arc::ptr_eq(&book.rules()[0], &book.rules()[1]));
        let net = |text: &str| vec![text.parse().unwrap()];
        book.add(&[Peers::default(), Peers { allowed: net("10.0.0.0/8"), denied: net("203.0.112.0/24") }]);
        assert_eq!(book.edition(), 1);
        assert!(permitted(0, added).is_ok() && permitted(0, private).is_err());
        assert!(permitted(1, configured).is_err() && permitted(1, added).is_err() && permitted(1, private).is_ok());
        book.add(&[]);
        assert!(permitted(1, configured).is_err() && permitted(1, added).is_ok() && permitted(1, private).is_err());
    }
}
