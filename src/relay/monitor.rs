//! The running server as management sees it: what it has counted, its sessions, whether it takes new ones. Whatever needs a
//! worker is asked of it and waited for; a worker that does not answer in time is passed over.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Clock,
    core::Core,
    datagrams::Datagrams,
    errands::Notice,
    events::Listener,
    listeners::{Endpoint, KernelDrops, Listeners},
    offload::{Offload, OffloadCounts, OffloadReport},
    shared::Shared,
    system,
};
use crate::{
    policy::{limiter::LimitCounts, quota::Held},
    turn::{
        AllocationId, Arrival, Census, Detail, EndReason, Ended, Incident, Reason, Revocation, SessionView, Time,
        Totals, Whom,
    },
};

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Places of a worker's table that are looked at in one go.
const STRETCH: usize = 512;

/// Bounds of the classes that batches are counted in, inclusive; a last class has all that are larger.
pub const BATCH_BOUNDS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// How many datagrams were received at once, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batches {
    /// By class; the last has what is above all bounds.
    pub counts: [u64; BATCH_BOUNDS.len() + 1],
    /// Datagrams in all.
    pub datagrams: u64,
}

impl Batches {
    /// Counts one; an empty one is none.
    pub(super) fn count(&mut self, datagrams: usize) {
        if datagrams > 0 {
            let class = BATCH_BOUNDS.partition_point(|bound| *bound < datagrams);
            self.counts[class] = self.counts[class].wrapping_add(1);
            self.datagrams = self.datagrams.wrapping_add(datagrams as u64);
        }
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, more)| *sum += more);
        self.datagrams += other.datagrams;
    }
}

/// What a worker tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What it has counted since the start of the server.
    pub totals: Totals,
    /// Its allocations.
    pub census: Census,
    /// What it has received at once, since it last began anew.
    pub batches: Batches,
    /// Requests that wait for a store of users.
    pub inquiries: usize,
    /// How long it has had a processor, where the system tells.
    pub processor_time: Option<Duration>,
}

/// The ports of one relay address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUse {
    /// The address that clients are told.
    pub address: IpAddr,
    /// "udp" or "tcp".
    pub protocol: &'static str,
    /// Ports in use, reserved ones included.
    pub used: usize,
    /// Ports there are.
    pub size: usize,
}

/// Some of a worker's sessions.
#[derive(Debug, Default)]
pub struct Stretch {
    /// Those that were asked for, each with its place.
    pub sessions: Vec<(usize, SessionView)>,
    /// Where to go on, if there is more.
    pub next: Option<usize>,
}

/// Something that was refused, with what only the running server knows of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Whom it was refused to.
    pub source: IpAddr,
    /// What it was.
    pub incident: Incident,
    /// The rule that refuses the peer that it is about, in words; `None` if none does now.
    pub rule: Option<String>,
    /// When the user's time-limited name ended, or will, in seconds since the UNIX epoch.
    pub expires: Option<u64>,
}

/// What the workers know of somebody.
#[derive(Debug, Clone, Default)]
pub struct Recalled {
    /// What was refused.
    pub told: Vec<Told>,
    /// Who has come in last, by source.
    pub arrivals: Vec<(IpAddr, Arrival)>,
    /// Sessions that have ended.
    pub ended: Vec<Ended>,
}

/// Which sessions are asked for.
pub type Filter = Arc<dyn Fn(&SessionView) -> bool + Send + Sync>;

/// A view of a running server. Outlives it: then nobody answers.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) clock: Clock,
    /// The kernel's part of the relay, if it has one, and why.
    pub(super) offload: (Option<Arc<Offload>>, OffloadReport),
    /// By worker: what it told last.
    pub(super) last: Arc<Mutex<Vec<Report>>>,
}

impl Monitor {
    pub(super) fn new(
        shared: Arc<Shared>,
        listeners: Arc<Listeners>,
        clock: Clock,
        offload: (Option<Arc<Offload>>, OffloadReport),
    ) -> Self {
        let last = vec![Report::default(); listeners.workers];
        Self { shared, listeners, clock, offload, last: Arc::new(Mutex::new(last)) }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.listeners.workers
    }

    /// How often each worker has failed by a bug, and lost its sessions.
    #[must_use]
    pub fn failures(&self) -> Vec<u64> {
        self.shared.desks.iter().map(super::desk::Desk::failures).collect()
    }

    /// Asks a worker; `None` if it does not answer in time.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        question: impl FnOnce(&mut Core, &Datagrams, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let asked = self.shared.desks.get(worker)?.ask(Box::new(move |core, datagrams, now| {
            // Who does not wait any more needs no answer.
            let _ = sender.send(question(core, datagrams, now));
        }));
        if !asked {
            return None;
        }
        self.shared.mailboxes.get(worker)?.notify.notify_one();
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// What each worker tells of itself, and whether all have answered; for one that has not, it is what it told last.
    pub async fn reports(&self) -> (Vec<Report>, bool) {
        let tasks: Vec<_> = (0..self.workers())
            .map(|worker| {
                let monitor = self.clone();
                tokio::spawn(async move { monitor.ask(worker, |core, datagrams, _| report(core, datagrams)).await })
            })
            .collect();
        let mut complete = true;
        for (worker, task) in tasks.into_iter().enumerate() {
            let answer = task.await.ok().flatten();
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match (answer, last.get_mut(worker)) {
                (Some(report), Some(place)) => *place = report,
                _ => complete = false,
            }
        }
        (self.last.lock().unwrap_or_else(PoisonError::into_inner).clone(), complete)
    }

    /// Sessions of a worker that pass the filter, from this place on, as many as can be looked at in one go.
    pub async fn look(&self, worker: usize, first: usize, filter: Filter) -> Option<Stretch> {
        self.ask(worker, move |core, _, now| {
            let mut sessions = Vec::new();
            let more = core.server.look(first, STRETCH, now, |place, session| {
                if filter(&session) {
                    sessions.push((place, session));
                }
            });
            Stretch { sessions, next: more.then_some(first + STRETCH) }
        })
        .await
    }

    /// What is known of somebody; `None` if a worker does not answer.
    pub async fn recall(&self, whom: &Whom) -> Option<Recalled> {
        let mut all = Recalled::default();
        for worker in 0..self.workers() {
            let whom = whom.clone();
            let found = self.ask(worker, move |core, _, _| {
                let found = core.server.recall(&whom);
                let tell = |(source, incident)| tell(core, source, incident);
                let told = found.incidents.into_iter().map(tell).collect();
                Recalled { told, arrivals: found.arrivals, ended: found.ended }
            });
            let found = found.await?;
            all.told.extend(found.told);
            all.arrivals.extend(found.arrivals);
            all.ended.extend(found.ended);
        }
        Some(all)
    }

    /// Where a session is: its worker and its place there.
    pub async fn find(&self, id: AllocationId) -> Option<(usize, usize)> {
        let worker = usize::try_from(id.0 >> 48).ok()?;
        let mut first = Some(0);
        while let Some(from) = first {
            let stretch = self.look(worker, from, Arc::new(move |session: &SessionView| session.id == id)).await?;
            if let Some((place, _)) = stretch.sessions.first() {
                return Some((worker, *place));
            }
            first = stretch.next;
        }
        None
    }

    /// A session with whom it has to do.
    pub async fn detail(&self, (worker, place): (usize, usize), id: AllocationId) -> Option<(SessionView, Detail)> {
        self.ask(worker, move |core, _, now| core.server.detail(place, id, now)).await.flatten()
    }

    /// Ends a session; false if it has ended.
    pub async fn disconnect(&self, (worker, place): (usize, usize), id: AllocationId) -> bool {
        let ended = self.ask(worker, move |core, _, now| {
            let handle = core.server.at(place, id);
            if let Some(handle) = handle {
                core.server.end_handle(handle, EndReason::Disconnected, now);
                core.apply_effects();
            }
            handle.is_some()
        });
        ended.await == Some(true)
    }

    /// The ports of each relay address.
    #[must_use]
    pub fn ports(&self) -> Vec<PortUse> {
        let of = |space: &super::spaces::RelaySpace| {
            let address = space.address.external;
            let udp = std::iter::once(("udp", &space.ports));
            let pools = udp.chain(space.tcp_ports.iter().map(|ports| ("tcp", ports)));
            let used = |(protocol, pool): (_, &super::ports::PortPool)| {
                let (used, size) = pool.usage();
                PortUse { address, protocol, used, size }
            };
            pools.map(used).collect::<Vec<_>>()
        };
        self.shared.spaces().current().flat_map(of).collect()
    }

    /// Ends the sessions that this concerns, of all workers; returns how many they were, or `None` if a worker does not answer in
    /// time.
    pub async fn revoke(&self, revocation: Revocation) -> Option<usize> {
        let monitor = self.clone();
        // It goes on, whoever waits for it: until it is done the kernel relays for nobody.
        let revoking = tokio::spawn(async move { monitor.revoke_all(revocation).await });
        tokio::time::timeout(PATIENCE, revoking).await.ok()?.ok()
    }

    /// The same, however long it takes. A worker that fails meanwhile has lost its sessions, and counts none.
    pub(super) async fn revoke_all(&self, revocation: Revocation) -> usize {
        let _hold = self.offload.0.as_ref().map(Offload::hold);
        let (revocation, (sender, mut ended)) = (Arc::new(revocation), mpsc::unbounded_channel());
        for worker in (0..).take(self.workers()) {
            self.shared.notify(worker, Notice::Revoke(Arc::clone(&revocation), sender.clone()));
        }
        drop(sender);
        let mut count = 0;
        while let Some(more) = ended.recv().await {
            count += more;
        }
        count
    }

    /// What the limits have done so far.
    #[must_use]
    pub fn limits(&self) -> LimitCounts {
        self.shared.limiter.counts()
    }

    /// What the kernel has dropped on each UDP listener; empty on systems that do not tell.
    #[must_use]
    pub fn kernel_drops(&self) -> Vec<KernelDrops> {
        self.listeners.kernel_drops()
    }

    /// Whether and how the kernel relays, and why.
    #[must_use]
    pub const fn offload(&self) -> &OffloadReport {
        &self.offload.1
    }

    /// What the kernel's program has not relayed so far; `None` if there is none.
    #[must_use]
    pub fn offload_counts(&self) -> Option<OffloadCounts> {
        self.offload.0.as_ref().map(|offload| offload.counts())
    }

    /// Where clients are served.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.listeners.sockets().endpoints.clone()
    }

    /// Connections of clients over TCP and TLS, and sessions of DTLS.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Allocations and ports reserved for some, as quotas count them.
    #[must_use]
    pub fn held(&self) -> Held {
        self.shared.held()
    }

    /// All of them.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let Held { used, unused } = self.held();
        used + unused
    }

    /// Refuses new allocations, or takes them again.
    pub fn close(&self, closed: bool) {
        self.shared.close(closed);
    }

    /// Listens to what happens from now on; `None` if as many listen as may.
    #[must_use]
    pub fn listen(&self) -> Option<Listener> {
        self.shared.events.listen()
    }

    /// Milliseconds since 1970, as sessions reckon.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }
}

fn tell(core: &Core, source: IpAddr, incident: Incident) -> Told {
    let rule = match incident.reason {
        Reason::PeerRefused { peer, realm } => core.server.rule(realm, peer),
        _ => None,
    };
    let expires = match incident.reason {
        Reason::UnknownUser { .. } | Reason::Expired => core.directory.expiry(incident.text.as_str()),
        _ => None,
    };
    Told { source, incident, rule, expires }
}

fn report(core: &Core, datagrams: &Datagrams) -> Report {
    let mut totals = core.shared.desks[usize::from(core.worker)].before();
    totals.add(&core.server.totals_now());
    Report {
        totals,
        census: *core.server.census(),
        batches: *datagrams.batches(),
        inquiries: core.inquiries.len(),
        processor_time: system::thread_time(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fall_into_classes() {
        let mut batches = Batches::default();
        [0, 1, 2, 3, 4, 128, 129, 1000].into_iter().for_each(|datagrams| batches.count(datagrams));
        assert_eq!(batches.counts, [1, 1, 2, 0, 0, 0, 0, 1, 2]);
        assert_eq!(batches.datagrams, 1267);
    }
}
