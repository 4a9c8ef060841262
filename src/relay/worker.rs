//! A worker: one thread, one runtime, all of its clients.

use std::{
    cell::{OnceCell, RefCell},
    io,
    pin::pin,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    clock::Clock,
    complaint,
    core::Core,
    current::{self, Current, Hands},
    datagrams::Datagrams,
    desk,
    dtls::Dtls,
    fault::{outlive, survive},
    inquiries::{Desk, Inquiries},
    offload::{Mirror, Offload},
    pace::Pace,
    peers::PeerBook,
    route::Token,
    shared::Shared,
    stream::Streams,
    system::{self, Batch, Io, Poller, Ready},
    tcp_relay,
};
use crate::turn::{EndReason, Server, Totals};

/// What a worker is, prepared on the main thread; the same in all its lives.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) index: usize,
    /// What a reload replaces.
    pub(super) current: watch::Receiver<Arc<Current>>,
    /// Where users are asked for who are kept elsewhere.
    pub(super) desk: Option<Desk>,
    /// By realm.
    pub(super) peers: Arc<PeerBook>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) io: Io,
    pub(super) nonce_secret: [u8; 32],
    /// Encrypts tickets (RFC 8016).
    pub(super) ticket_key: [u8; 32],
    /// There if the kernel relays, too.
    pub(super) offload: Option<Arc<Offload>>,
    /// Where it is pinned to, if it is.
    pub(super) processor: Option<usize>,
}

/// What one life of a worker is made of.
pub(super) struct Parts {
    pub(super) plan: Plan,
    /// Unpredictable, different for each worker and life.
    pub(super) seed: [u8; 32],
    /// The id of its first session.
    pub(super) first_id: u64,
}

/// What a life came to.
pub(super) struct Life {
    pub(super) totals: Totals,
    /// It was told to stop; otherwise it has failed.
    pub(super) stopped: bool,
}

/// Runs a worker until `stop` says so, or a bug ends it; its sessions end in either case. Tells `started` as soon as it serves.
/// Should a bug end even this, what it owned is in `kept`, to be [ended](end).
pub(super) async fn work(
    parts: Parts,
    started: &SyncSender<()>,
    stop: watch::Receiver<bool>,
    kept: &OnceCell<Rc<RefCell<Core>>>,
) -> io::Result<Life> {
    let news = parts.plan.current.clone();
    let current = Arc::clone(&news.borrow());
    let settings = &current.settings;
    let wide_channels = settings.compatibility.rfc5766_channel_numbers;
    let datagrams = Datagrams::new(Batch::new(parts.plan.io));
    let gather = settings.process.gather.filter(|_| system::sleeps_exactly());
    let pace = Pace::new(gather, std::time::Instant::now());
    let (core, poller) = assemble(&parts, &current)?;
    let core = Rc::clone(kept.get_or_init(|| Rc::new(RefCell::new(core))));
    let changed = Rc::new(Notify::new());
    tcp_relay::start(&core, &changed);
    let streams = Rc::new(Streams::new(Rc::clone(&core), settings.tcp.clone(), wide_channels, Rc::clone(&changed)));
    let hands = (Rc::clone(&core), Rc::clone(&poller), streams, Rc::clone(&changed));
    tokio::task::spawn_local(Hands::new(parts.plan, current, hands)?.follow(news));

    // Nobody waits for it if this is not the first life, or if the start was given up, which `stop` tells.
    let _ = started.try_send(());
    let stopped = outlive(serve(&core, &poller, datagrams, pace, &changed, stop)).await.is_some();
    let totals = end(&core, if stopped { EndReason::Stopped } else { EndReason::Lost });
    Ok(Life { totals, stopped })
}

/// Ends everything that a worker owned; returns what it has counted.
pub(super) fn end(core: &RefCell<Core>, reason: EndReason) -> Totals {
    let mut core = core.borrow_mut();
    let now = core.clock.now();
    survive(|| core.stop(reason, now));
    core.server.totals().clone()
}

/// Serves until `stop` says so.
async fn serve(
    core: &RefCell<Core>,
    poller: &Poller,
    mut datagrams: Datagrams,
    mut pace: Pace,
    changed: &Notify,
    mut stop: watch::Receiver<bool>,
) {
    let shared = Arc::clone(&core.borrow().shared);
    let mailbox = &shared.mailboxes[usize::from(core.borrow().worker)];
    let mut ready = Vec::new();
    // An error means that the main thread is gone, which is a reason to stop, too.
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut timer = pin!(tokio::time::sleep_until(Instant::now()));
    loop {
        #[cfg(test)]
        shared.strike(core.borrow().worker);
        let deadline = {
            let core = core.borrow();
            let first = [core.next_deadline(), datagrams.next_deadline()].into_iter().flatten().min();
            first.map(|time| Instant::from_std(core.clock.instant(time)))
        };
        if let Some(deadline) = deadline
            && timer.deadline() != deadline
        {
            timer.as_mut().reset(deadline);
        }
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            () = &mut timer, if deadline.is_some() => {
                survive(|| {
                    let mut core = core.borrow_mut();
                    let now = core.clock.now();
                    core.expire(now);
                    datagrams.give_back(&core, now);
                });
            }
            () = changed.notified() => {}
            result = poller.wait(&mut ready) => {
                let idle = match result {
                    Ok(turn) => {
                        let drained = survive(|| handle(&ready, &mut core.borrow_mut(), &mut datagrams));
                        if drained.is_none() {
                            datagrams.give_up(&mut core.borrow_mut());
                        }
                        let drained = drained == Some(true);
                        let idle = turn.end(drained);
                        if let Some(rest) = pace.rest(datagrams.take_handled(), drained, std::time::Instant::now()) {
                            // The thread sleeps, as the runtime's timers are too coarse for this; it is short.
                            std::thread::sleep(rest);
                        }
                        idle
                    }
                    Err(error) => {
                        complaint::about_receiving(&error);
                        false
                    }
                };
                if !idle {
                    // Streams and the timer have their turn, however busy the sockets are.
                    tokio::task::yield_now().await;
                }
            }
            // Where sockets are ready, too, mail had its turn with them.
            () = mailbox.notify.notified() => {
                if survive(|| mail(&mut core.borrow_mut(), &mut datagrams)).is_none() {
                    datagrams.give_up(&mut core.borrow_mut());
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Relay sockets served between two turns of the listeners.
const RELAYS_PER_TURN: usize = 16;

/// Gives every ready socket its turn of one batch. A listener carries what all clients send, and their requests: as long
/// as its batches are full it has another turn after every few relay sockets, so that peers cannot starve clients. Returns whether
/// all of them were left empty.
fn handle(ready: &[Ready], core: &mut Core, datagrams: &mut Datagrams) -> bool {
    let now = core.clock.now();
    let mut drained = true;
    let listeners = || {
        ready.iter().filter_map(|event| match Token::decode(event.token) {
            Token::Listener(at) => Some(at),
            Token::Relay(_) => None,
        })
    };
    for at in listeners() {
        datagrams.receive_from_clients(core, at, now);
    }
    let mut served = 0;
    for event in ready {
        let Token::Relay(id) = Token::decode(event.token) else { continue };
        if event.error {
            drained &= core.icmp_errors(id, now);
        }
        if event.readable {
            drained &= datagrams.receive_from_peers(core, id, now);
        }
        served += 1;
        if served % RELAYS_PER_TURN == 0 && listeners().any(|at| core.listeners[at].busy) {
            datagrams.flush(core);
            for at in listeners() {
                if core.listeners[at].busy {
                    datagrams.receive_from_clients(core, at, now);
                }
            }
        }
    }
    datagrams.flush(core);
    mail(core, datagrams);
    drained && !listeners().any(|at| core.listeners[at].busy)
}

/// Gives what other workers have sent its turn.
fn mail(core: &mut Core, datagrams: &mut Datagrams) {
    let now = core.clock.now();
    datagrams.run_errands(core, now);
    if datagrams.receive_from_workers(core, now) {
        core.shared.mailboxes[usize::from(core.worker)].notify.notify_one();
    }
    desk::answer(core, datagrams, now);
    core.wake_workers();
}

fn assemble(Parts { plan, seed, first_id }: &Parts, current: &Current) -> io::Result<(Core, Rc<Poller>)> {
    let mut rng = StdRng::from_seed(*seed);
    let mut draw = || rand::Rng::next_u64(&mut rng);
    let policy = current.policy(plan, [draw(), draw()]);
    let mut server_seed = [0; 32];
    rand::Rng::fill_bytes(&mut rng, &mut server_seed);
    let dtls = current.dtls.as_ref().map(|context| Dtls::drawn(context, &current.settings, &mut rng));
    let worker = u16::try_from(plan.index).map_err(io::Error::other)?;
    let server = Server::new(current.rules(plan), Box::new(policy), &plan.nonce_secret, server_seed, *first_id);
    let (io, shared) = (plan.io, Arc::clone(&plan.shared));
    let poller = Rc::new(Poller::new(io)?);
    let inquiries = Inquiries::new(worker, plan.desk.clone(), *first_id);
    let (directory, clock) = (Arc::clone(&current.directory), plan.clock);
    let connect_timeout = current.settings.lifetimes.connect;
    let watch = Rc::clone(&poller);
    let mut core = Core::new(worker, server, directory, inquiries, shared, connect_timeout, clock, watch, rng, io);
    core.dtls = dtls;
    core.mirror = plan.offload.clone().map(Mirror::new);
    // What an earlier life has left behind.
    let now = core.clock.now();
    core.reservation_deadline = core.shared.expire_reservations(now);
    core.shared.errands[plan.index].clear();
    core.shared.desks[plan.index].clear();
    core.shared.mailboxes[plan.index].notify.notify_one();
    for at in 0..current.sockets.windows.len() {
        current::open_window(&mut core, &poller, plan, &current.sockets, at)?;
    }
    Ok((core, poller))
}
