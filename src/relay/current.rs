//! What a reload replaces: the settings and everything that is made of them. Whoever prepares it, on the main thread, puts a new
//! [`Current`] in place of the old one; each worker takes it up as a whole between two turns, and each later life of it
//! begins with it. So nothing of it is locked or looked up for a packet.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{
    accept::{self, Reception},
    core::{Core, Listener},
    dtls::{self, Dtls},
    fault::survive,
    listeners::{Gate, Sockets},
    route::Token,
    rules::{self, WorkerPolicy},
    stream::Streams,
    system::{Poller, UdpSocket},
    tls::Tls,
    worker::Plan,
};
use crate::{
    auth::directory::Directory,
    config::Settings,
    turn::{ConnectionIds, Mobility, Rules},
};

/// Everything that a worker is told again.
#[derive(Debug)]
pub(super) struct Current {
    /// Realms stand where they stood in all settings before.
    pub(super) settings: Arc<Settings>,
    pub(super) directory: Arc<Directory>,
    pub(super) sockets: Arc<Sockets>,
    /// There if any listener serves TLS.
    pub(super) tls: Option<Arc<Tls>>,
    /// There if any listener serves DTLS.
    pub(super) dtls: Option<Arc<dtls::Context>>,
    /// How often the limits of sessions have changed.
    pub(super) limits: u64,
    pub(super) taken_up: TakenUp,
}

impl Current {
    /// What the protocol is told, on this worker.
    pub(super) fn rules(&self, plan: &Plan) -> Rules {
        let Self { settings, directory, .. } = self;
        // There are no more workers than 256, which the configuration sees to.
        let number = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let ids = ConnectionIds { worker: number(plan.index), workers: number(settings.process.workers) };
        let mut rules = rules::rules(settings, directory, plan.io, ids);
        // A ticket alone proves nobody: without credentials there is no mobility (RFC 8016 §5).
        let worker = u8::try_from(plan.index).ok().filter(|_| settings.relay.mobility && !settings.auth.anonymous);
        rules.mobility = worker.map(|worker| Mobility { worker, key: plan.ticket_key });
        rules
    }

    /// What the protocol asks, on this worker.
    pub(super) fn policy(&self, plan: &Plan, seeds: [u64; 2]) -> WorkerPolicy {
        let (peers, shared) = (Arc::clone(&plan.peers), Arc::clone(&plan.shared));
        WorkerPolicy::new(peers, shared, &self.settings.limits, self.settings.process.workers, seeds)
    }
}

/// How many workers have taken something up.
#[derive(Debug, Default)]
pub(super) struct TakenUp {
    count: AtomicUsize,
    changed: Notify,
}

impl TakenUp {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits until so many have, or this time is over; whether they have.
    pub(super) async fn by(&self, workers: usize, patience: Duration) -> bool {
        let all = async {
            while self.count.load(Ordering::Relaxed) < workers {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

/// What a worker changes when it takes something up.
pub(super) struct Hands {
    plan: Plan,
    core: Rc<RefCell<Core>>,
    poller: Rc<Poller>,
    streams: Rc<Streams>,
    reception: Rc<Reception>,
    /// Tells the worker that deadlines may have changed.
    changed: Rc<Notify>,
    /// What it goes by.
    current: Arc<Current>,
    doors: Vec<(Gate, AbortHandle)>,
}

impl Hands {
    /// Opens the doors.
    pub(super) fn new(
        plan: Plan,
        current: Arc<Current>,
        (core, poller, streams, changed): (Rc<RefCell<Core>>, Rc<Poller>, Rc<Streams>, Rc<Notify>),
    ) -> std::io::Result<Self> {
        let workers = current.settings.process.workers;
        let reception = Rc::new(Reception::new(Rc::clone(&streams), current.tls.clone(), workers));
        let mut hands = Self { plan, core, poller, streams, reception, changed, current, doors: Vec::new() };
        let sockets = Arc::clone(&hands.current.sockets);
        for gate in &sockets.gates {
            hands.open(gate)?;
        }
        Ok(hands)
    }

    fn open(&mut self, gate: &Gate) -> std::io::Result<()> {
        let door = accept::open(gate.door(self.plan.index)?, Rc::clone(&self.reception))?;
        self.doors.push((gate.clone(), tokio::task::spawn_local(door).abort_handle()));
        Ok(())
    }

    /// Takes up whatever comes, as long as the worker lives.
    pub(super) async fn follow(mut self, mut news: watch::Receiver<Arc<Current>>) {
        loop {
            let new = Arc::clone(&news.borrow_and_update());
            if !Arc::ptr_eq(&new, &self.current) {
                if survive(|| self.take_up(&new)).is_none() {
                    tracing::error!(worker = self.plan.index, "a bug: a worker has taken up a reload in part only");
                }
                self.current = Arc::clone(&new);
            }
            new.taken_up.add();
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    fn take_up(&mut self, new: &Arc<Current>) {
        let (old, settings) = (Arc::clone(&self.current), &new.settings);
        self.streams.renew(settings.tcp.clone(), settings.compatibility.rfc5766_channel_numbers);
        self.reception.renew(new.tls.clone(), settings.process.workers);
        self.change_doors(&new.sockets);
        let core = Rc::clone(&self.core);
        let mut core = core.borrow_mut();
        let core = &mut *core;
        core.spaces = core.shared.spaces();
        core.tcp.connect_timeout = settings.lifetimes.connect;
        core.directory = Arc::clone(&new.directory);
        core.server.renew(new.rules(&self.plan));
        if core.reply.len() < core.server.reply_len() {
            core.reply = vec![0; core.server.reply_len()].into();
        }
        let rates = |settings: &Settings| {
            let limits = &settings.limits;
            (limits.binding_rate, limits.unauthorized_rate, limits.ipv4_prefix, limits.ipv6_prefix)
        };
        if rates(&old.settings) != rates(settings) {
            let seeds = [(); 2].map(|()| rand::Rng::next_u64(&mut core.rng));
            core.server.set_policy(Box::new(new.policy(&self.plan, seeds)));
        }
        if let Some(context) = &new.dtls {
            match &mut core.dtls {
                Some(dtls) => dtls.renew(Arc::clone(context), settings),
                none => *none = Some(Dtls::drawn(context, settings, &mut core.rng)),
            }
        }
        if old.limits != new.limits {
            core.renew_limits();
        }
        self.change_windows(core, &new.sockets);
        core.server.forget_denied();
        core.apply_effects();
        self.changed.notify_one();
    }

    fn change_doors(&mut self, sockets: &Sockets) {
        let is_wanted = |gate: &Gate| sockets.gates.iter().any(|wanted| wanted.is(gate));
        self.doors.retain(|(gate, task)| {
            let stays = is_wanted(gate);
            if !stays {
                task.abort();
            }
            stays
        });
        for gate in &sockets.gates {
            if !self.doors.iter().any(|(open, _)| open.is(gate))
                && let Err(error) = self.open(gate)
            {
                tracing::error!(worker = self.plan.index, %error, "a worker cannot accept on a new listener");
            }
        }
    }

    /// Opens the windows that are new, and closes those that are there no longer.
    fn change_windows(&self, core: &mut Core, sockets: &Sockets) {
        let before = &self.current.sockets.windows;
        for (at, window) in sockets.windows.iter().enumerate() {
            let old = before.get(at).and_then(Option::as_ref);
            match window {
                None => {
                    if let Some(listener) = core.listeners.get_mut(at) {
                        listener.close();
                    }
                }
                Some(window) if old.is_some_and(|old| Arc::ptr_eq(&old.sockets, &window.sockets)) => {
                    if let Some(listener) = core.listeners.get_mut(at) {
                        (listener.plain, listener.dtls, listener.realm) = (window.plain, window.dtls, window.realm);
                    }
                }
                Some(_) => {
                    if let Err(error) = open_window(core, &self.poller, &self.plan, sockets, at) {
                        tracing::error!(worker = self.plan.index, %error, "a worker cannot receive on a new listener");
                    }
                }
            }
        }
    }
}

/// Opens a worker's window, or keeps its place if there is none.
pub(super) fn open_window(
    core: &mut Core,
    poller: &Poller,
    plan: &Plan,
    sockets: &Sockets,
    at: usize,
) -> std::io::Result<()> {
    while core.listeners.len() <= at {
        core.listeners.push(Listener::closed());
    }
    let Some(window) = sockets.windows.get(at).and_then(Option::as_ref) else { return Ok(()) };
    let pane = window.sockets.get(plan.index).ok_or(std::io::ErrorKind::NotFound)?;
    let (local, socket) = (window.address, UdpSocket::new(pane.socket.try_clone()?, plan.io)?);
    if pane.receives {
        poller.add(&socket, Token::Listener(at).encode())?;
    }
    let (plain, dtls, realm) = (window.plain, window.dtls, window.realm);
    core.listeners[at] = Listener { socket, local, plain, dtls, realm, busy: false };
    Ok(())
}
