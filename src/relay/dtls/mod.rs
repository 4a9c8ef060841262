//! DTLS over UDP (RFC 7350, RFC 8489 §6.2.3): clients of a listener whose datagrams begin with a byte from 20 to 63 (RFC 7983).
//!
//! Nothing is kept for an address before it has shown that it receives there (`hello.rs`). From then on the client has a
//! [`Session`], of which there are as many as there may be connections; unfinished handshakes are limited besides, and the
//! oldest give way. A session's messages take the same way through the core as bare datagrams do: one record is one message.
//!
//! A client that has lost its state begins anew from the same port. Its old session goes on until the new handshake is
//! finished (RFC 6347 §4.2.8), so that nobody else can end it by repeating an old ClientHello.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;
use rand::{Rng, rngs::StdRng};
use slab::Slab;

mod clients;
#[doc(hidden)]
pub mod hello;
#[cfg(not(feature = "dtls"))]
#[path = "none.rs"]
mod library;
#[cfg(feature = "dtls")]
#[path = "openssl.rs"]
mod library;
#[doc(hidden)]
pub mod records;
mod wire;

pub(super) use library::Context;

use self::{
    hello::{Cookies, Hello, Random},
    library::Association,
    wire::Wire,
};
use super::{
    complaint,
    core::Listener,
    route::Way,
    shared::{ConnectionLease, Shared},
    system::SendOptions,
    tls,
};
use crate::{
    config::Settings,
    turn::{Client, FiveTuple, RealmId, Time},
};

/// The shortest encrypted record before a handshake is finished: a Finished is longer with any suite.
const SHORTEST_OF_HANDSHAKE: usize = 24;

/// Whether a datagram of a client with two sessions is for the open one: messages, and a goodbye, which is encrypted. All else is
/// about the handshake.
fn is_of_open(datagram: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    match *datagram {
        [APPLICATION_DATA, ..] => true,
        [ALERT, _, _, e0, e1, ..] => [e0, e1] != [0, 0],
        _ => false,
    }
}

/// What came of a step of a handshake.
#[derive(Debug)]
#[cfg_attr(not(feature = "dtls"), expect(dead_code, reason = "nothing makes one there"))]
enum Handshake {
    Done,
    Unfinished,
    Failed(Broken),
}

/// Why a handshake has failed.
#[derive(Debug)]
struct Broken {
    /// The alert that the client has sent, if it has sent one.
    alert: Option<u8>,
    /// What the library says.
    error: String,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "dtls"), expect(dead_code, reason = "nothing makes one there"))]
enum Read {
    /// A message of so many bytes.
    Message(usize),
    /// There is no more.
    Nothing,
    /// The client has said goodbye, or something that ends its association.
    Closed,
}

/// One client that has proved its address.
struct Session {
    association: Association,
    client: Client,
    listener: usize,
    /// The local address to answer from, where the listener's own is unspecified.
    from: Option<IpAddr>,
    /// What its ClientHello was told apart by.
    random: Random,
    state: State,
    /// When it is filed for.
    due: Time,
    /// Its place in the limits.
    _lease: ConnectionLease,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Handshake {
        /// The smaller, the older.
        number: u64,
        deadline: Time,
    },
    Open {
        /// When a message was last of use: answered or relayed.
        active: Time,
    },
}

/// The sessions of one 5-tuple.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    open: Option<usize>,
    /// Not yet: its handshake is unfinished.
    next: Option<usize>,
}

/// DTLS on one worker.
pub(super) struct Dtls {
    context: Arc<Context>,
    cookies: Cookies,
    wire: Wire,
    sessions: Slab<Session>,
    by_tuple: HashMap<FiveTuple, Pair, FixedState>,
    /// What has to be looked at when: every session once.
    timers: BTreeSet<(Time, usize)>,
    /// Unfinished handshakes.
    begun: BTreeMap<u64, usize>,
    next_number: u64,
    max_handshakes: usize,
    handshake_timeout: Duration,
    idle_timeout: Duration,
    /// Whose sessions have ended, and their allocations are yet to.
    gone: Vec<Client>,
    /// Handshakes that have failed, `None` for lack of room, and that are yet to be noted.
    failed: Vec<(FiveTuple, Option<Broken>)>,
    /// Where a message is put together.
    message: Vec<u8>,
}

impl Dtls {
    /// `settings` have `[tls]`. `secret` is this worker's own, as clients stay with it.
    fn new(context: Arc<Context>, settings: &Settings, secret: &[u8; 32], seed: u64) -> Self {
        let mut dtls = Self {
            context: Arc::clone(&context),
            cookies: Cookies::new(secret),
            wire: Wire::default(),
            sessions: Slab::new(),
            by_tuple: HashMap::with_hasher(FixedState::with_seed(seed)),
            timers: BTreeSet::new(),
            begun: BTreeMap::new(),
            next_number: 0,
            max_handshakes: 1,
            handshake_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            gone: Vec::new(),
            failed: Vec::new(),
            message: Vec::new(),
        };
        dtls.renew(context, settings);
        dtls
    }

    /// The same with a secret drawn.
    pub(super) fn drawn(context: &Arc<Context>, settings: &Settings, rng: &mut StdRng) -> Self {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self::new(Arc::clone(context), settings, &secret, rng.next_u64())
    }

    /// New handshakes are held with this; those that have begun go on as they have.
    pub(super) fn renew(&mut self, context: Arc<Context>, settings: &Settings) {
        let (max_handshakes, handshake_timeout) =
            settings.tls.as_ref().map_or((0, Duration::ZERO), |tls| (tls.max_handshakes, tls.handshake_timeout));
        self.context = context;
        self.max_handshakes = max_handshakes.div_ceil(settings.process.workers.max(1)).max(1);
        self.handshake_timeout = handshake_timeout;
        self.idle_timeout = settings.tcp.idle_timeout;
    }

    /// Takes a datagram. The session is returned whose messages are to be read now, if there may be any.
    fn datagram(
        &mut self,
        at: usize,
        tuple: FiveTuple,
        datagram: &[u8],
        listeners: &[Listener],
        shared: &Arc<Shared>,
        now: Time,
    ) -> Option<usize> {
        let pair = self.by_tuple.get(&tuple).copied().unwrap_or_default();
        let hello = hello::parse(datagram).filter(|hello| !self.knows(pair, hello));
        if let Some(hello) = hello {
            let from = listeners[at].local.ip().is_unspecified().then_some(tuple.server.ip());
            if !self.cookies.has_proved(&hello, &tuple, now) {
                let verify = self.cookies.challenge(&hello, &tuple, now);
                // What the system will not take is lost, as datagrams may be; the client asks again.
                let options = SendOptions { from, ..SendOptions::default() };
                let _ = listeners[at].socket.send(&verify, tuple.client, options);
                return None;
            }
            let id = self.begin((at, from, listeners[at].realm), tuple, &hello, datagram, shared, now)?;
            return self.shake_hands(id, listeners, now);
        }
        let id = if is_of_open(datagram) { pair.open.or(pair.next) } else { pair.next.or(pair.open) }?;
        let session = &self.sessions[id];
        match session.state {
            State::Open { .. } => {
                let records = records::protected(datagram)?;
                records::are_long_enough(records, session.association.shortest_record()).then(|| {
                    self.wire.load(records);
                    id
                })
            }
            State::Handshake { .. } if records::are_long_enough(datagram, SHORTEST_OF_HANDSHAKE) => {
                self.wire.load(datagram);
                self.shake_hands(id, listeners, now)
            }
            State::Handshake { .. } => None,
        }
    }

    /// Whether a ClientHello has begun one of these sessions. Then it comes late, or twice.
    fn knows(&self, pair: Pair, hello: &Hello<'_>) -> bool {
        let known = |id: usize| self.sessions.get(id).is_some_and(|session| session.random == hello.random);
        [pair.open, pair.next].into_iter().flatten().any(known)
    }

    /// Begins a session with a client that has proved its address.
    fn begin(
        &mut self,
        (listener, from, realm): (usize, Option<IpAddr>, RealmId),
        tuple: FiveTuple,
        hello: &Hello<'_>,
        datagram: &[u8],
        shared: &Arc<Shared>,
        now: Time,
    ) -> Option<usize> {
        if let Some(next) = self.by_tuple.get(&tuple).and_then(|pair| pair.next) {
            self.remove(next);
        }
        while self.begun.len() >= self.max_handshakes
            && let Some((_, oldest)) = self.begun.first_key_value()
        {
            complaint::about_handshakes();
            self.remove(*oldest);
        }
        // Over the limit: nobody is answered.
        let Some(lease) = shared.take_connection(Some(tuple.client.ip())) else {
            self.failed.push((tuple, None));
            return None;
        };
        let association = match self.context.begin(&self.wire, datagram) {
            Ok(association) => association,
            Err(error) => {
                tracing::debug!(client = %tuple.client, %error, "DTLS handshake failed");
                self.failed.push((tuple, Some(Broken { alert: None, error })));
                // Whatever it had to say would be taken for the next one's.
                self.wire.drain(|_| {});
                return None;
            }
        };
        let entry = self.sessions.vacant_entry();
        let id = entry.key();
        let client = Client { tuple, route: Way::Dtls(id).route(), realm };
        let (number, deadline) = (self.next_number, now + self.handshake_timeout);
        let state = State::Handshake { number, deadline };
        let random = hello.random;
        entry.insert(Session { association, client, listener, from, random, state, due: deadline, _lease: lease });
        self.next_number += 1;
        self.begun.insert(number, id);
        self.timers.insert((deadline, id));
        self.by_tuple.entry(tuple).or_default().next = Some(id);
        Some(id)
    }

    /// Goes on with a handshake. The session is returned if it is finished.
    fn shake_hands(&mut self, id: usize, listeners: &[Listener], now: Time) -> Option<usize> {
        let session = &mut self.sessions[id];
        let done = session.association.handshake();
        self.flush(id, 0, listeners);
        match done {
            Handshake::Done => {
                self.open(id, now);
                Some(id)
            }
            Handshake::Unfinished => {
                self.file_handshake(id, now);
                None
            }
            Handshake::Failed(broken) => {
                let tuple = self.sessions[id].client.tuple;
                tracing::debug!(client = %tuple.client, error = %broken.error, "DTLS handshake failed");
                self.failed.push((tuple, Some(broken)));
                self.remove(id);
                None
            }
        }
    }

    /// A handshake is finished: what was there before it is over.
    fn open(&mut self, id: usize, now: Time) {
        let session = &mut self.sessions[id];
        if let State::Handshake { number, .. } = session.state {
            self.begun.remove(&number);
        }
        session.state = State::Open { active: now };
        let tuple = session.client.tuple;
        if let Some(old) = self.by_tuple.get(&tuple).and_then(|pair| pair.open) {
            self.remove(old);
        }
        self.by_tuple.insert(tuple, Pair { open: Some(id), next: None });
        self.file(id, now + self.idle_timeout);
    }

    /// Files an unfinished handshake for its next retransmission, or for its end.
    fn file_handshake(&mut self, id: usize, now: Time) {
        let session = &self.sessions[id];
        if let State::Handshake { deadline, .. } = session.state {
            let again = session.association.timeout().map_or(deadline, |timeout| now + timeout);
            // At least a millisecond from now, however the library rounds: its clock is not ours.
            let due = again.clamp(Time(now.0 + 1), deadline.max(Time(now.0 + 1)));
            self.file(id, due);
        }
    }

    fn file(&mut self, id: usize, due: Time) {
        let session = &mut self.sessions[id];
        let before = std::mem::replace(&mut session.due, due);
        self.timers.remove(&(before, id));
        self.timers.insert((due, id));
    }

    /// Sends what a session has put on the wire; how many datagrams the system refused.
    fn flush(&self, id: usize, tos: u8, listeners: &[Listener]) -> usize {
        let session = &self.sessions[id];
        let options = SendOptions { from: session.from, tos, ..SendOptions::default() };
        let (socket, to) = (&listeners[session.listener].socket, session.client.tuple.client);
        let mut refused = 0;
        self.wire.drain(|datagram| refused += usize::from(socket.send(datagram, to, options).is_err()));
        refused
    }

    /// Sends one message; how many datagrams were refused, by the library or the system.
    fn send(&mut self, id: usize, parts: [&[u8]; 3], tos: u8, listeners: &[Listener]) -> usize {
        let Some(session) = self.sessions.get_mut(id) else { return 0 };
        let written = if let [message, [], []] = parts {
            session.association.write(message)
        } else {
            self.message.clear();
            parts.into_iter().for_each(|part| self.message.extend_from_slice(part));
            session.association.write(&self.message)
        };
        if written { self.flush(id, tos, listeners) } else { 1 }
    }

    /// Says goodbye, if there is anybody to say it to.
    fn close(&mut self, id: usize, listeners: &[Listener]) {
        let session = &mut self.sessions[id];
        if matches!(session.state, State::Open { .. }) {
            session.association.close();
            self.flush(id, 0, listeners);
        }
    }

    /// Forgets a session. If it was open, the client's allocation is to be ended (`Core::end_gone`).
    fn remove(&mut self, id: usize) {
        let Some(session) = self.sessions.try_remove(id) else { return };
        self.timers.remove(&(session.due, id));
        let tuple = session.client.tuple;
        match session.state {
            State::Handshake { number, .. } => _ = self.begun.remove(&number),
            State::Open { .. } => self.gone.push(session.client),
        }
        if let Some(pair) = self.by_tuple.get_mut(&tuple) {
            for place in [&mut pair.open, &mut pair.next] {
                *place = place.filter(|other| *other != id);
            }
            if pair.open.is_none() && pair.next.is_none() {
                self.by_tuple.remove(&tuple);
            }
        }
        if self.sessions.is_empty() {
            // A crowd has left.
            self.sessions.shrink_to_fit();
            self.by_tuple.shrink_to_fit();
        }
    }

    /// When [`Dtls::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Looks after what is due. An open session lives as long as it is of use, or `has_allocation` says so.
    fn expire(&mut self, listeners: &[Listener], now: Time, has_allocation: impl Fn(&Client) -> bool) {
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            let session = &mut self.sessions[id];
            match session.state {
                State::Handshake { deadline, .. } => {
                    if deadline <= now || !session.association.retransmit() {
                        let tuple = session.client.tuple;
                        tracing::debug!(client = %tuple.client, "DTLS handshake not finished in time");
                        self.failed.push((tuple, Some(Broken { alert: None, error: tls::NOT_FINISHED.to_owned() })));
                        self.remove(id);
                    } else {
                        self.flush(id, 0, listeners);
                        self.file_handshake(id, now);
                    }
                }
                State::Open { active } => {
                    let idle = active + self.idle_timeout;
                    if idle > now {
                        self.file(id, idle);
                    } else if has_allocation(&session.client) {
                        self.file(id, now + self.idle_timeout);
                    } else {
                        self.close(id, listeners);
                        self.remove(id);
                    }
                }
            }
        }
    }
}
