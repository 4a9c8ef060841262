//! The heart of a worker: the protocol's state and the sockets that belong to it. Synchronous; whoever drives it (datagrams,
//! streams, timers) borrows it for one message at a time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use rand::rngs::StdRng;
use slab::Slab;

use super::{
    clock::Clock,
    complaint,
    dtls::Dtls,
    errands::{self, Errand, NOTHING},
    events::{Event, Refusals},
    inquiries::Inquiries,
    mail::{LONGEST, Letter, Posted},
    offload::{self, Mirror},
    outlets::Outlets,
    ports::{Owner, Place, PortLease},
    route::Way,
    sessions::{Session, log_end},
    shared::Shared,
    spaces::Spaces,
    system::{self, Io, Poller, SendOptions, UdpSocket},
    tcp_relay::TcpRelays,
};
use crate::{
    auth::directory::Directory,
    stun::{AttributeType, ErrorCode, Message, Method},
    turn::{
        Answer, Bound, Client, ConnectRequest, Drop, Effect, Elsewhere, EndReason, HEADROOM, Handle, IcmpError, Peak,
        PendingAllocate, PendingBind, RealmId, RelayId, Server, Step, Time, ToClient, ToPeer, Transport,
    },
};

/// A UDP listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: UdpSocket,
    /// Its address; the IP may be unspecified.
    pub(super) local: SocketAddr,
    /// Serves bare datagrams.
    pub(super) plain: bool,
    /// Serves DTLS; with `plain`, told apart by the first byte.
    pub(super) dtls: bool,
    /// The realm that clients are told here.
    pub(super) realm: RealmId,
    /// Whether the last batch was full, so that there is probably more.
    pub(super) busy: bool,
}

impl Listener {
    /// A place without a listener.
    pub(super) fn closed() -> Self {
        let local = SocketAddr::from(([0; 4], 0));
        let (plain, dtls, realm) = (false, false, RealmId::DEFAULT);
        Self { socket: UdpSocket::Closed, local, plain, dtls, realm, busy: false }
    }

    /// Leaves its place empty.
    pub(super) fn close(&mut self) {
        *self = Self::closed();
    }
}

/// A relay socket and the allocation that it belongs to.
#[derive(Debug)]
pub(super) struct RelaySocket {
    pub(super) socket: UdpSocket,
    /// The allocation; `None` only between opening and granting.
    pub(super) handle: Option<Handle>,
    /// Keeps the port from being leased again as long as the socket lives, and tells who serves it.
    pub(super) lease: PortLease,
}

/// What to do about a client's message.
#[derive(Debug)]
pub(super) enum Outcome {
    Nothing,
    /// Send so much of [`Core::reply`] back.
    Reply(usize),
    /// Open relay sockets ([`Core::allocate`]).
    Allocate(Box<PendingAllocate>),
    /// Connect to a peer ([`Core::connect`]).
    Connect(ConnectRequest),
    /// Bind the client's connection to a peer's ([`Core::bind`]).
    Bind(Box<PendingBind>),
    /// Send part of the message to a peer.
    ToPeer(ToPeer),
}

/// Which way a datagram to a peer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The system's, to this address.
    Outside(SocketAddr),
    /// To a relay socket of this worker.
    Here(RelayId),
    /// To a relay socket of another worker, which has this address.
    There(Owner, Place),
}

/// The state of one worker.
pub(super) struct Core {
    /// This worker's number.
    pub(super) worker: u16,
    pub(super) server: Server,
    pub(super) listeners: Vec<Listener>,
    /// There if the kernel relays, too. It ends before the sockets and ports that it relays for.
    pub(super) mirror: Option<Mirror>,
    pub(super) relays: Slab<RelaySocket>,
    /// The outgoing sides of clients' connections.
    pub(super) outlets: Outlets,
    pub(super) tcp: TcpRelays,
    /// There if a listener serves DTLS.
    pub(super) dtls: Option<Dtls>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) reply: Box<[u8]>,
    /// The traffic class of the datagram that is being handled.
    pub(super) tos: u8,
    pub(super) directory: Arc<Directory>,
    /// The addresses that are relayed from, as this worker knows them.
    pub(super) spaces: Arc<Spaces>,
    /// Requests that wait until a store has answered.
    pub(super) inquiries: Inquiries,
    /// Rates or bytes of the month are limited: streams may have to wait.
    pub(super) limits_data: bool,
    /// Allocations are to have meters.
    pub(super) has_meters: bool,
    pub(super) poller: Rc<Poller>,
    pub(super) sessions: HashMap<Handle, Session>,
    refusals: Refusals,
    /// When reservations that this worker made expire.
    pub(super) reservation_deadline: Option<Time>,
    /// Decides when the table of relay sockets gives memory back.
    pub(super) relay_peak: Peak,
    pub(super) rng: StdRng,
    pub(super) io: Io,
    /// Workers to be woken for what they have been sent.
    pub(super) to_wake: Vec<u16>,
}

impl Core {
    #[allow(clippy::too_many_arguments)] // the parts of a worker, put together once
    pub(super) fn new(
        worker: u16,
        server: Server,
        directory: Arc<Directory>,
        inquiries: Inquiries,
        shared: Arc<Shared>,
        connect_timeout: std::time::Duration,
        clock: Clock,
        poller: Rc<Poller>,
        rng: StdRng,
        io: Io,
    ) -> Self {
        let limits_data = shared.limiter.limits_data();
        let has_meters = limits_data || shared.limiter.limits_peers();
        Self {
            worker,
            reply: vec![0; server.reply_len()].into(),
            server,
            listeners: Vec::new(),
            relays: Slab::new(),
            outlets: Outlets::default(),
            tcp: TcpRelays::new(connect_timeout),
            dtls: None,
            spaces: shared.spaces(),
            shared,
            clock,
            tos: 0,
            directory,
            inquiries,
            mirror: None,
            limits_data,
            has_meters,
            poller,
            sessions: HashMap::new(),
            refusals: Refusals::default(),
            reservation_deadline: None,
            relay_peak: Peak::default(),
            rng,
            io,
            to_wake: Vec::new(),
        }
    }

    /// Takes a message from a client. A panic costs this client its allocation, and nobody else anything.
    pub(super) fn client_message(&mut self, client: &Client, bytes: &[u8], now: Time) -> Outcome {
        self.guarded(client, |core| core.handle(client, bytes, now), now)
    }

    /// Goes on with a message that a store was asked about.
    pub(super) fn answered_message(&mut self, client: &Client, bytes: &[u8], answer: Answer<'_>, now: Time) -> Outcome {
        let handle = |core: &mut Self| {
            let step = core.server.from_client(client, bytes, answer, &mut core.reply, now);
            core.follow(client, bytes, step)
        };
        self.guarded(client, handle, now)
    }

    fn guarded(&mut self, client: &Client, handle: impl FnOnce(&mut Self) -> Outcome, now: Time) -> Outcome {
        let handled = catch_unwind(AssertUnwindSafe(|| handle(self)));
        let outcome = handled.unwrap_or_else(|_| {
            complaint::about_panic(client.tuple.client);
            self.server.end_client(client, EndReason::Fault, now);
            Outcome::Nothing
        });
        if matches!(outcome, Outcome::ToPeer(_)) && self.server.has_effects() {
            // An allocation has moved to where these data come from; that closes nothing.
            self.apply_effects();
        }
        outcome
    }

    /// Ends what [`Core::client_message`] began, unless that was to send something to a peer: does what else has come up, and
    /// returns how much of [`Core::reply`] is to be sent back. Relay sockets may be closed and their numbers used again: datagrams
    /// that are to leave from them must have left.
    pub(super) fn settle(&mut self, client: &Client, outcome: Outcome, now: Time) -> Option<usize> {
        // Before anything new begins: an allocation that has ended just now gives back its place in the quotas, and its handle.
        self.apply_effects();
        let len = match outcome {
            Outcome::Reply(len) => len,
            Outcome::Allocate(pending) => {
                let len = self.allocate(*pending, now);
                self.apply_effects();
                len
            }
            // Mostly answered later.
            Outcome::Connect(request) => self.connect(&request)?,
            Outcome::Bind(pending) => self.bind(client, &pending),
            Outcome::Nothing | Outcome::ToPeer(_) => return None,
        };
        self.note_refusal(client, len, now);
        Some(len)
    }

    fn handle(&mut self, client: &Client, bytes: &[u8], now: Time) -> Outcome {
        let mut step = self.server.from_client(client, bytes, Answer::Unasked, &mut self.reply, now);
        if let Step::Authenticate(query) = step {
            let credentials = self.directory.find(&query, Clock::wall());
            let answer = Answer::Known { credentials: &credentials, more: self.inquiries.can_ask() };
            step = self.server.from_client(client, bytes, answer, &mut self.reply, now);
        }
        if let Step::Authenticate(query) = step {
            let message = (bytes, self.tos);
            if self.inquiries.ask(client, message, &query, now) {
                return Outcome::Nothing;
            }
            step = self.server.from_client(client, bytes, Answer::Unavailable, &mut self.reply, now);
        }
        self.follow(client, bytes, step)
    }

    /// What is to be done after a step.
    fn follow(&mut self, client: &Client, bytes: &[u8], step: Step<'_>) -> Outcome {
        match step {
            Step::ToPeer(to_peer) => Outcome::ToPeer(to_peer),
            Step::Reply(len) => Outcome::Reply(len),
            Step::Allocate(pending) => Outcome::Allocate(pending),
            Step::ReplyElsewhere(elsewhere) => {
                self.reply_elsewhere(&elsewhere);
                Outcome::Nothing
            }
            Step::Connect(request) => Outcome::Connect(request),
            Step::Bind(pending) => Outcome::Bind(pending),
            Step::Forward(home) => {
                // What has been handed over once is not handed over again.
                if Way::host(client.route).is_none() {
                    self.forward(client, bytes, home);
                }
                Outcome::Nothing
            }
            // A question that has been answered is not asked again.
            Step::Dropped | Step::Authenticate(_) => Outcome::Nothing,
        }
    }

    /// Sends a reply from the listener that it is to come from. Every worker has a socket of its own for each of them.
    fn reply_elsewhere(&mut self, &Elsewhere { len, from, to }: &Elsewhere) {
        let serves = |listener: &&Listener| {
            let (ip, port) = (listener.local.ip(), listener.local.port());
            port == from.port() && (ip == from.ip() || ip.is_unspecified() && ip.is_ipv4() == from.is_ipv4())
        };
        let sent = self.listeners.iter().find(serves).map(|listener| {
            let source = listener.local.ip().is_unspecified().then_some(from.ip());
            listener.socket.send(&self.reply[..len], to, SendOptions { from: source, ..SendOptions::default() })
        });
        if !matches!(sent, Some(Ok(()))) {
            self.server.count_drop(Drop::SendFailed);
        }
    }

    /// Which way a datagram to a peer takes: a peer that is a relayed address of this server is reached without the system.
    /// What is longer than a datagram can be is left to the system, which refuses it.
    pub(super) fn destination(&self, to_peer: &ToPeer) -> Destination {
        let address = self.spaces.inward(to_peer.peer);
        match self.spaces.owner(address) {
            Some((place, owner)) if to_peer.payload.len() <= LONGEST => {
                if owner.worker == self.worker {
                    Destination::Here(owner.relay)
                } else {
                    Destination::There(owner, place)
                }
            }
            _ => Destination::Outside(address),
        }
    }

    /// Sends one datagram by the system now.
    pub(super) fn send_outside(&mut self, to_peer: &ToPeer, address: SocketAddr, bytes: &[u8], tos: u8) {
        let Some(relay) = self.relays.get(to_peer.relay.0 as usize) else { return };
        let options = SendOptions { from: None, tos, dont_fragment: to_peer.dont_fragment };
        if relay.socket.send(bytes, address, options).is_err() {
            self.server.count_drop(Drop::SendFailed);
        }
    }

    /// Hands a datagram to the worker that serves its destination. [`Core::wake_workers`] is to be called after the last
    /// one.
    pub(super) fn post(&mut self, from: RelayId, to: Owner, place: Place, bytes: &[u8], tos: u8) {
        let Some(sender) = self.relays.get(from.0 as usize) else { return };
        let letter = Letter { relay: to.relay, to: place, from: sender.lease.place(), tos };
        match self.shared.mailboxes[usize::from(to.worker)].post(&letter, bytes) {
            Posted::Announced => {}
            Posted::Unannounced => self.to_wake.push(to.worker),
            Posted::Full => self.server.count_drop(Drop::WorkerBusy),
        }
    }

    /// Wakes the workers that have been sent something.
    pub(super) fn wake_workers(&mut self) {
        for worker in self.to_wake.drain(..) {
            self.shared.mailboxes[usize::from(worker)].notify.notify_one();
        }
    }

    /// The relayed address of a relay socket, as clients know it.
    pub(super) fn external(&self, relay: RelayId) -> Option<SocketAddr> {
        self.relays.get(relay.0 as usize).and_then(|relay| self.spaces.external(relay.lease.place()))
    }

    /// A relayed address of any worker, as clients know it. The other worker may know newer ones than this.
    pub(super) fn external_of(&mut self, place: Place) -> Option<SocketAddr> {
        if self.spaces.external(place).is_none() {
            self.spaces = self.shared.spaces();
        }
        self.spaces.external(place)
    }

    /// Whether a relay socket (still) has this address.
    pub(super) fn has_address(&self, relay: RelayId, place: Place) -> bool {
        self.relays.get(relay.0 as usize).is_some_and(|relay| relay.lease.place() == place)
    }

    /// Takes a datagram of so many bytes from a peer to a relay socket: what to send to the client, whose header is written to
    /// the end of `head`. A panic costs the client its allocation: then there are effects to apply, after what is to leave
    /// from its relay socket has left.
    pub(super) fn peer_datagram(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        len: usize,
        head: &mut [u8; HEADROOM],
        now: Time,
    ) -> Option<ToClient> {
        let handle = self.relays.get(relay.0 as usize)?.handle?;
        let handled = catch_unwind(AssertUnwindSafe(|| self.server.from_peer(handle, peer, len, head, now)));
        handled.unwrap_or_else(|_| {
            complaint::about_panic(peer);
            self.server.end_handle(handle, EndReason::Fault, now);
            None
        })
    }

    /// Sends a STUN message that answers nothing to a client, over whatever it uses. Like data, it gives way to what comes
    /// later.
    fn send_to_client(&mut self, client: &Client, bytes: &[u8], now: Time) {
        match Way::of(client.route) {
            Way::Listener(at) => {
                let options = SendOptions { from: self.source_for(at, client), ..SendOptions::default() };
                let sent = self.listeners[at].socket.send(bytes, client.tuple.client, options);
                if sent.is_err() {
                    self.server.count_drop(Drop::SendFailed);
                }
            }
            Way::Stream(at) => self.queue_data(at, [bytes, &[], &[]], now),
            Way::Dtls(at) => self.send_dtls(at, [bytes, &[], &[]], 0),
            Way::Abroad => self.send_abroad(client, [bytes, &[], &[]], 0),
        }
    }

    /// Sends so much of [`Core::reply`] to a client, over whatever it uses; unlike data, it never gives way. What is for a
    /// guest always leaves from its host, who by then knows what has come before: a client that has been told that it may
    /// send is known there.
    pub(super) fn send_reply(&mut self, client: &Client, len: usize) {
        if Way::host(client.route).is_some() {
            return self.reply_abroad(client, len);
        }
        match Way::of(client.route) {
            Way::Listener(at) => {
                let options = SendOptions { from: self.source_for(at, client), ..SendOptions::default() };
                if self.listeners[at].socket.send(&self.reply[..len], client.tuple.client, options).is_err() {
                    self.server.count_drop(Drop::SendFailed);
                }
            }
            Way::Stream(at) => self.outlets.push_control(at, &self.reply[..len], self.clock.now()),
            Way::Dtls(at) => self.reply_dtls(at, len),
            Way::Abroad => {}
        }
    }

    /// The local address to answer from: needed only where the listener's own is unspecified.
    pub(super) fn source_for(&self, listener: usize, client: &Client) -> Option<std::net::IpAddr> {
        self.listeners[listener].local.ip().is_unspecified().then_some(client.tuple.server.ip())
    }

    /// Queues one message of data, given in parts, for a client's connection.
    pub(super) fn queue_data(&mut self, stream: usize, parts: [&[u8]; 3], now: Time) {
        for _ in 0..self.outlets.push_data(stream, parts, now) {
            self.server.count_drop(Drop::QueueFull);
        }
    }

    /// Forwards the ICMP errors that a relay socket has received; returns whether none are left.
    pub(super) fn icmp_errors(&mut self, relay: RelayId, now: Time) -> bool {
        /// Taken per turn; the rest comes again.
        const LIMIT: usize = 32;
        for _ in 0..LIMIT {
            let Some(relay) = self.relays.get(relay.0 as usize) else { return true };
            let Some(handle) = relay.handle else { return true };
            let Some((peer, error)) = relay.socket.take_icmp_error() else { return true };
            self.icmp_error(handle, self.spaces.outward(peer), error, now);
        }
        false
    }

    /// Tells the client of a relay socket about an error that came back from a peer.
    pub(super) fn icmp_error(&mut self, handle: Handle, peer: SocketAddr, error: IcmpError, now: Time) {
        let mut message = [0; 128];
        if let Some((client, len)) = self.server.from_icmp(handle, peer, error, &mut message, now) {
            self.send_to_client(&client, &message[..len], now);
        }
    }

    /// Notes that the first so many bytes of [`Core::reply`] go back to a client, if they are an error.
    pub(super) fn note_refusal(&mut self, client: &Client, len: usize, now: Time) {
        let is_logged = tracing::enabled!(tracing::Level::DEBUG);
        if !is_logged && !self.shared.events.are_heard() {
            return;
        }
        let Ok(message) = Message::parse(&self.reply[..len]) else { return };
        let Some(&[_, _, class, number, ref reason @ ..]) = message.get(AttributeType::ERROR_CODE) else { return };
        let method = Method::from_code(message.method()).map_or("unknown", Method::name);
        let code = u16::from(class) * 100 + u16::from(number);
        // Operators read the usual words where the client was told in short.
        let in_short = ErrorCode::Unauthenticated.short_reason().as_bytes();
        let reason = if reason == in_short { ErrorCode::Unauthenticated.reason().as_bytes() } else { reason };
        let reason = String::from_utf8_lossy(reason);
        // Errors are ordinary, the first 401 above all: nothing to read about unless somebody looks for one.
        tracing::debug!(
            client = %client.tuple.client,
            transport = client.tuple.transport.name(),
            request = method,
            code,
            %reason,
            "refused"
        );
        if self.shared.events.are_heard()
            && let Some(untold) = self.refusals.admit(now)
        {
            let reason = reason.into_owned();
            self.shared.events.tell(|| Event::Refused { client: client.tuple, method, code, reason, untold });
        }
    }

    /// When [`Core::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let sessions = self.dtls.as_ref().and_then(Dtls::next_deadline);
        let inquiries = self.inquiries.next_deadline();
        let mirror = self.mirror.as_ref().and_then(Mirror::next_look);
        let all = [self.server.next_deadline(), self.reservation_deadline, sessions, inquiries, mirror];
        all.into_iter().flatten().min()
    }

    /// Ends what has expired.
    pub(super) fn expire(&mut self, now: Time) {
        self.server.expire(now);
        if self.reservation_deadline.is_some_and(|deadline| deadline <= now) {
            self.reservation_deadline = self.shared.expire_reservations(now);
        }
        self.apply_effects();
        self.expire_dtls(now);
        self.expire_inquiries(now);
        let Self { mirror, server, relays, sessions, spaces, .. } = self;
        if let Some(mirror) = mirror {
            mirror.look(server, &|handle, bound| place((relays, sessions), spaces, handle, bound), now);
        }
    }

    /// Does what the protocol has reported: closes sockets, gives back quotas, logs the ends of sessions.
    pub(super) fn apply_effects(&mut self) {
        // Before anything closes: what is revoked is revoked in the kernel first.
        let Self { mirror, server, relays, sessions, spaces, .. } = self;
        if let Some(mirror) = mirror.as_mut().filter(|_| server.has_effects()) {
            let now = self.clock.now();
            mirror.follow(server, &|handle, bound| place((relays, sessions), spaces, handle, bound), now);
        }
        for effect in self.server.drain_effects() {
            match effect {
                Effect::CloseRelay(relay) => {
                    if !self.tcp.close_relay(relay) {
                        self.relays.try_remove(relay.0 as usize);
                    }
                }
                Effect::ClosePeer(id) => self.tcp.close_peer(id, &self.shared.rendezvous),
                Effect::Joined(client) => {
                    if let Some((host, route)) = Way::host(client.route) {
                        let errand = Errand::Admit(Client { route, ..client }, self.worker);
                        errands::ask(&self.shared, &mut self.to_wake, host, errand, NOTHING);
                    }
                }
                Effect::Left(client) => {
                    if let Some((host, route)) = Way::host(client.route) {
                        let errand = Errand::Dismiss(Client { route, ..client }, self.worker);
                        errands::ask(&self.shared, &mut self.to_wake, host, errand, NOTHING);
                    }
                }
                Effect::GuestGone { client, home } => {
                    let guest = Client { route: Way::abroad(self.worker, client.route), ..client };
                    errands::ask(&self.shared, &mut self.to_wake, home, Errand::Gone(guest), NOTHING);
                }
                Effect::Bound(..) | Effect::Permitted(_) | Effect::Refreshed(_) => {}
                Effect::Moved { id, from, to, .. } => {
                    errands::log_move(id, &from, &to);
                    self.shared.events.tell(|| Event::Moves { id, from, to });
                }
                Effect::Ended(handle, summary) => {
                    let relayed = self.sessions.remove(&handle).map(|session| session.relayed).unwrap_or_default();
                    log_end(&summary, &relayed);
                    self.shared.events.tell(|| Event::Ends { summary, relayed: relayed.0 });
                }
            }
        }
        self.wake_workers();
        if self.relay_peak.has_fallen(self.relays.len()) {
            self.sessions.shrink_to_fit();
            self.relays.shrink_to_fit();
            system::release_freed_memory();
        }
    }

    /// Ends everything.
    pub(super) fn stop(&mut self, reason: EndReason, now: Time) {
        self.close_dtls();
        self.server.end_all(reason, now);
        self.apply_effects();
    }
}

/// Where the kernel may relay data in this channel; `None` if they are to pass through user space, as all do that are not carried
/// in plain datagrams, and those that are held to limits.
fn place(
    (relays, sessions): (&Slab<RelaySocket>, &HashMap<Handle, Session>),
    spaces: &Spaces,
    handle: Handle,
    bound: &Bound,
) -> Option<offload::Place> {
    let Client { tuple, route, .. } = bound.client;
    let plain = tuple.transport == Transport::Udp && matches!(Way::of(route), Way::Listener(_));
    let unlimited = sessions.get(&handle).is_some_and(|session| session.allowance.is_none());
    // Routes to link-local addresses need an interface besides, and loopback has no part in this.
    let routable = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let relay = spaces.local(relays.get(bound.relay.0 as usize)?.lease.place())?;
    let peer = spaces.inward(bound.peer);
    let hairpin = spaces.has_local(peer.ip());
    let may = plain && unlimited && routable(tuple.client) && routable(peer);
    may.then_some(offload::Place { relay, peer, hairpin })
}
