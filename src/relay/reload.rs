//! Going on with another configuration. All that can fail is done before anything changes: whatever is wrong, the server runs on
//! as it was. Then the workers take up what is new, and sessions end whose users or secrets are gone.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    current::{Current, TakenUp},
    departed::departed,
    dtls,
    limits::Bookkeeper,
    listeners::{Sockets, host_addresses},
    offload::{Hold, Offload},
    passed::PassedSockets,
    peers::Own,
    spaces::Spaces,
    start::{Relay, StartError, random_seed},
    system::{self, Use},
    tls::Tls,
};
use crate::{
    auth::directory::Directory,
    config::{
        Settings,
        change::with_realms_in_place,
        settings::{NatDiscovery, Peers},
    },
    policy::peer::PeerRules,
    turn::{Client, Revocation},
};

/// How long workers may take to take up what is new.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a reload has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// Sessions that have ended because their users or secrets are gone.
    pub ended: usize,
    /// Every worker goes by it; otherwise one is busy, and does so later.
    pub complete: bool,
}

impl Relay {
    /// Goes on with other settings, of which nothing may need a restart
    /// ([`keep_until_restart`](crate::config::change::keep_until_restart)). `reserved` as for [`Relay::start`]; `added` are peer
    /// rules in addition, by realm, in the places of [`Relay::settings_in_place`] afterwards.
    ///
    /// # Errors
    /// [`StartError`]; then nothing has changed.
    pub async fn reload(
        &mut self,
        settings: Settings,
        reserved: &[SocketAddr],
        added: &[Peers],
    ) -> Result<Reloaded, StartError> {
        let before = self.current();
        let placed = Arc::new(with_realms_in_place(settings.clone(), &before.settings));
        let directory = Arc::new(Directory::new(&placed, self.has_store)?);
        let same_tls = placed.tls == before.settings.tls;
        let tls = match (&placed.tls, &before.tls) {
            (Some(_), Some(tls)) if same_tls => Some(Arc::clone(tls)),
            (wanted, _) => wanted.as_ref().map(Tls::new).transpose().map_err(StartError::Tls)?.map(Arc::new),
        };
        let serves_dtls = placed.listeners.iter().any(|listener| listener.dtls);
        let dtls = match (placed.tls.as_ref().filter(|_| serves_dtls), &before.dtls) {
            (Some(_), Some(dtls)) if same_tls => Some(Arc::clone(dtls)),
            (wanted, _) => wanted.map(dtls::Context::new).transpose().map_err(StartError::Dtls)?.map(Arc::new),
        };
        let known = self.shared.spaces().addresses();
        let new =
            placed.relay.addresses.iter().filter(|address| known.iter().all(|known| known.local != address.local));
        new.map(|address| address.local).try_for_each(|local| self.check_relay(local))?;
        let seed = random_seed()?;
        let sockets = self.listeners.sockets().renewed(
            &placed,
            self.listeners.workers,
            self.listeners.io,
            &mut PassedSockets::default(),
        )?;
        let bookkeeper = match placed.limits.state_directory.as_deref().filter(|_| self.bookkeeper.is_none()) {
            Some(directory) => Some(Bookkeeper::start(&self.shared.limiter, directory, self.clock)?),
            None => None,
        };

        self.bookkeeper = bookkeeper.or(self.bookkeeper.take());
        let sockets = Arc::new(sockets);
        let (own, host) = (own_sockets(&placed, &sockets, reserved), host_addresses());
        let (addresses, ports) = (&placed.relay.addresses, placed.relay.min_port..=placed.relay.max_port);
        let rules = PeerRules::new(&placed.peers, addresses, ports, &own, &host);
        let spaces = Arc::new(Spaces::new(&placed.relay, &rules, &self.shared.spaces()));
        // What is taken from clients now, workers take out of the kernel's tables later.
        let hold = self.offload.as_ref().map(Offload::hold);
        // Old relay addresses are this server's own as long as anybody has a session there.
        self.peers.renew(&placed, Own { sockets: own, relay: spaces.addresses(), host }, added);
        let has_others = self.shared.renew(&placed, spaces, seed, self.clock.now());
        let limits = before.limits + u64::from(has_others);
        let taken_up = TakenUp::default();
        self.listeners.set(Arc::clone(&sockets));
        self.publish(Current { settings: placed, directory, sockets, tls, dtls, limits, taken_up });
        drop(before);
        let complete = self.current().taken_up.by(self.listeners.workers, PATIENCE).await;
        if !complete && hold.is_some() {
            tokio::spawn(until_taken_up(self.current.subscribe(), self.listeners.workers, hold));
        }
        let gone = departed(&self.settings, &settings);
        self.settings = settings;
        let ended = if gone.is_empty() { Some(0) } else { self.monitor.revoke(Revocation::Any(gone)).await };
        self.close_retired().await;
        Ok(Reloaded { ended: ended.unwrap_or(0), complete: complete && ended.is_some() })
    }

    /// Whether there are UDP listeners that were dropped from the configuration and are open yet.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.listeners.sockets().retired().is_empty()
    }

    /// Closes the UDP listeners that were dropped from the configuration and that nobody has a session on any more. To be called now
    /// and then.
    pub async fn close_retired(&self) {
        let sockets = self.listeners.sockets();
        let mut empty = sockets.retired();
        for worker in 0..self.listeners.workers {
            if empty.is_empty() {
                return;
            }
            let asked = empty.clone();
            let unused = self.monitor.ask(worker, move |core, _, _| {
                let is_on = |at: usize| move |client: &Client| super::route::Way::of(client.route).is_listener(at);
                let is_unused = |at: &usize| core.server.count_clients(is_on(*at)) + core.dtls_on(*at) == 0;
                asked.into_iter().filter(is_unused).collect()
            });
            // A worker that does not answer may have sessions.
            empty = unused.await.unwrap_or_default();
        }
        if empty.is_empty() {
            return;
        }
        for window in empty.iter().filter_map(|at| sockets.windows.get(*at)?.as_ref()) {
            tracing::info!(address = %window.address, "no longer listening: nobody has a session there any more");
        }
        let rest = Arc::new(sockets.without(&empty));
        drop(sockets);
        let before = self.current();
        self.listeners.set(Arc::clone(&rest));
        self.publish(Current {
            settings: Arc::clone(&before.settings),
            directory: Arc::clone(&before.directory),
            sockets: rest,
            tls: before.tls.clone(),
            dtls: before.dtls.clone(),
            limits: before.limits,
            taken_up: TakenUp::default(),
        });
    }

    /// The settings in force, with every realm in the place that it has had since the start.
    #[must_use]
    pub fn settings_in_place(&self) -> Arc<Settings> {
        Arc::clone(&self.current().settings)
    }

    fn check_relay(&self, local: IpAddr) -> Result<(), StartError> {
        let bound = system::bind_udp(SocketAddr::new(local, 0), Use::Relay, self.listeners.io, None);
        bound.map(drop).map_err(|error| StartError::Relay { address: local, error })
    }
}

/// Keeps a hold until the workers have taken up what is in force.
async fn until_taken_up(current: watch::Receiver<Arc<Current>>, workers: usize, _hold: Option<Hold>) {
    // Without a sender the server has stopped.
    while current.has_changed().is_ok() {
        let latest = Arc::clone(&current.borrow());
        if latest.taken_up.by(workers, PATIENCE).await {
            return;
        }
    }
}

/// The addresses that this server listens on and answers from.
pub(super) fn own_sockets(settings: &Settings, sockets: &Sockets, reserved: &[SocketAddr]) -> Vec<SocketAddr> {
    let discovery = settings.nat_discovery.iter().flat_map(NatDiscovery::external);
    // Those that are about to close are still open.
    let windows = sockets.windows.iter().flatten().filter(|window| window.is_retired()).map(|window| window.address);
    let endpoints = sockets.endpoints.iter().map(|endpoint| endpoint.address);
    endpoints.chain(windows).chain(discovery).chain(reserved.iter().copied()).collect()
}
