//! A worker: one thread, one runtime, all of its clients.

use std::{
    cell::RefCell,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, mpsc::UnboundedSender, watch},
    task::LocalSet,
    time::Instant,
};

use super::{
    clock::Clock,
    complaint,
    core::{Core, Listener, Token},
    datagrams::Datagrams,
    rules::{self, WorkerPolicy},
    shared::Shared,
    stream::{self, READ_BUFFER, Streams},
    system::{Batch, Io, Poller, Ready, UdpSocket},
    tcp_relay,
};
use crate::{
    auth::users::StaticUsers,
    config::Settings,
    policy::peer::PeerRules,
    turn::{ConnectionIds, Server, Totals},
};

/// What a worker is made of, prepared on the main thread.
pub(super) struct Parts {
    pub(super) index: usize,
    pub(super) settings: Arc<Settings>,
    pub(super) users: Arc<StaticUsers>,
    pub(super) peers: Arc<PeerRules>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) io: Io,
    pub(super) nonce_secret: [u8; 32],
    /// Unpredictable, different for each worker.
    pub(super) seed: [u8; 32],
    pub(super) udp: Vec<std::net::UdpSocket>,
    pub(super) tcp: Vec<std::net::TcpListener>,
}

/// Tells that a worker is gone, however it went.
pub(super) struct LastWord(pub(super) UnboundedSender<()>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // Nobody listens any more once the server stops.
        let _ = self.0.send(());
    }
}

/// Runs a worker until `stop` says so; returns what it has counted. Tells `started` as soon as it serves.
pub(super) fn run(parts: Parts, started: &SyncSender<()>, stop: watch::Receiver<bool>) -> io::Result<Totals> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, work(parts, started, stop))
}

async fn work(parts: Parts, started: &SyncSender<()>, mut stop: watch::Receiver<bool>) -> io::Result<Totals> {
    let limits = parts.settings.tcp.clone();
    let wide_channels = parts.settings.compatibility.rfc5766_channel_numbers;
    let io = parts.io;
    let (core, poller, listeners) = assemble(parts)?;
    let core = Rc::new(RefCell::new(core));
    let changed = Rc::new(Notify::new());
    tcp_relay::start(&core, &changed);
    let streams = Rc::new(Streams {
        core: Rc::clone(&core),
        buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
        limits,
        wide_channels,
        changed: Rc::clone(&changed),
    });
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept(listener, Rc::clone(&streams)));
    }

    // Nobody waits for it only if the start was given up, which `stop` tells.
    let _ = started.send(());
    let shared = Arc::clone(&core.borrow().shared);
    let mailbox = &shared.mailboxes[usize::from(core.borrow().worker)];
    let mut datagrams = Datagrams::new(Batch::new(io));
    let mut ready = Vec::new();
    // An error means that the main thread is gone, which is a reason to stop, too.
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut timer = pin!(tokio::time::sleep_until(Instant::now()));
    loop {
        let deadline = {
            let core = core.borrow();
            core.next_deadline().map(|time| Instant::from_std(core.clock.instant(time)))
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
                        turn.end(drained == Some(true))
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
    let mut core = core.borrow_mut();
    let now = core.clock.now();
    core.stop(now);
    Ok(core.server.totals().clone())
}

/// Runs a step of the worker; a panic in it costs that step, not the worker. `None` after a panic.
fn survive<T>(step: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(step)).ok();
    if done.is_none() {
        complaint::about_fault();
    }
    done
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
    if datagrams.receive_from_workers(core, now) {
        core.shared.mailboxes[usize::from(core.worker)].notify.notify_one();
    }
}

fn assemble(parts: Parts) -> io::Result<(Core, Rc<Poller>, Vec<std::net::TcpListener>)> {
    let Parts { index, settings, users, peers, shared, clock, io, nonce_secret, seed, udp, tcp } = parts;
    let mut rng = StdRng::from_seed(seed);
    let mut draw = || rand::Rng::next_u64(&mut rng);
    let policy =
        WorkerPolicy::new(peers, Arc::clone(&shared), &settings.limits, settings.process.workers, [draw(), draw()]);
    let mut server_seed = [0; 32];
    rand::Rng::fill_bytes(&mut rng, &mut server_seed);
    // Workers number their sessions in ranges of their own.
    let first_id = (index as u64) << 48 | 1;
    let worker = u16::try_from(index).map_err(io::Error::other)?;
    let workers = u16::try_from(settings.process.workers).map_err(io::Error::other)?;
    let rules = rules::rules(&settings, &users, io, ConnectionIds { worker, workers });
    let server = Server::new(rules, Box::new(policy), &nonce_secret, server_seed, first_id);
    let poller = Rc::new(Poller::new(io)?);
    let mut core = Core::new(worker, server, users, shared, clock, Rc::clone(&poller), rng, io);
    for (at, socket) in udp.into_iter().enumerate() {
        let local = socket.local_addr()?;
        let socket = UdpSocket::new(socket, io)?;
        poller.add(&socket, Token::Listener(at).encode())?;
        core.listeners.push(Listener { socket, local, busy: false });
    }
    Ok((core, poller, tcp))
}

/// Accepts connections as long as the worker runs.
async fn accept(listener: tokio::net::TcpListener, streams: Rc<Streams>) {
    loop {
        match listener.accept().await {
            Ok((connection, client)) => {
                let lease = streams.core.borrow().shared.take_connection(client.ip());
                // Over the limit: closed at once. The same for a connection that is gone already.
                let (Some(lease), Ok(server)) = (lease, connection.local_addr()) else { continue };
                // A datagram that waits for its neighbours is late. Where it cannot be set, service is slower, not wrong.
                let _ = connection.set_nodelay(true);
                tokio::task::spawn_local(stream::serve(Rc::clone(&streams), connection, client, server, lease));
            }
            Err(error) => {
                complaint::about_accept(&error);
                // Most likely descriptors have run out: pausing lets others finish instead of spinning.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
