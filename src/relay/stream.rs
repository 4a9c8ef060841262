//! Clients on streams: one small task per connection that reads frames, asks the core, and writes what is queued.
//!
//! The task holds no buffer while the connection is idle: it reads into the worker's, and only keeps what its turn does not
//! reach and the start of an unfinished message. Nothing here knows which kind of stream it is.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io::{self, IoSlice},
    mem,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep},
};

use super::{
    complaint,
    core::{Core, Outcome},
    data_connection::{self, ClientStream},
    fault::outlive,
    kept::{self, Buffers},
    outbox::{Outbox, Payload},
    queue::Queue,
    route::Way,
    shared::ConnectionLease,
};
use crate::{
    config::settings::Tcp,
    stun::frame::{self, Frame},
    turn::{Client, Drop, EndReason, FiveTuple, RealmId, Time, Transport},
};

/// More than the longest message, 64 KiB and a header.
const LONGEST: usize = 65_536 + 32;
/// The longest message without an allocation, so that nobody stores more here than a request takes: at most 763 bytes
/// each of USERNAME, REALM, NONCE and SOFTWARE (RFC 8489 §14), and less than 1 KiB of all the rest.
const LONGEST_WITHOUT_ALLOCATION: usize = kept::SHORT;
/// Bytes per read.
const READ: usize = 16_384;
/// Bytes per read of a busy connection with an allocation: whole runs of long messages, which leave together.
const LONG_READ: usize = 65_536;
/// Slices written per call. Messages stand behind each other: data alone are two slices at the most.
const SLICES: usize = 16;
/// Reads per turn before other clients have theirs.
const READS: usize = 4;
/// Messages per turn before other clients have theirs.
const MESSAGES: usize = 64;

/// What all connections of a worker use.
pub(super) struct Streams {
    pub(super) core: Rc<RefCell<Core>>,
    /// Where bytes are read to, behind what was kept; borrowed for one read and the handling of its messages.
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// What the messages of one read make.
    out: RefCell<Outbox>,
    /// For what connections keep.
    buffers: RefCell<Buffers>,
    limits: RefCell<Rc<Tcp>>,
    wide_channels: Cell<bool>,
    /// Tells the worker that deadlines may have changed.
    changed: Rc<tokio::sync::Notify>,
}

impl Streams {
    pub(super) fn new(
        core: Rc<RefCell<Core>>,
        limits: Tcp,
        wide_channels: bool,
        changed: Rc<tokio::sync::Notify>,
    ) -> Self {
        Self {
            core,
            buffer: RefCell::new(vec![0; LONGEST + LONG_READ].into_boxed_slice()),
            out: RefCell::new(Outbox::new()),
            buffers: RefCell::default(),
            limits: RefCell::new(Rc::new(limits)),
            wide_channels: Cell::new(wide_channels),
            changed,
        }
    }

    /// What connections are held to.
    pub(super) fn limits(&self) -> Rc<Tcp> {
        Rc::clone(&self.limits.borrow())
    }

    /// Goes on with other limits; what a queue may hold is for new connections.
    pub(super) fn renew(&self, limits: Tcp, wide_channels: bool) {
        self.limits.replace(Rc::new(limits));
        self.wide_channels.set(wide_channels);
    }
}

/// One client's connection.
struct Connection<S> {
    stream: S,
    client: Client,
    at: usize,
    shared: Rc<Streams>,
    /// What has been read and not handled: whole messages for the next turn, and the start of an unfinished one.
    kept: Vec<u8>,
    /// So much of what is kept has been handled after all.
    handled: usize,
    /// Bytes to read next.
    room: usize,
    /// When the unfinished message began that is next.
    begun: Option<Instant>,
    /// When a message was last of use: answered or relayed.
    active: Instant,
    /// When what is kept may be handled, if it has to wait for that.
    resume: Option<Instant>,
    /// The client has closed its side: what is queued is written, then the connection ends.
    finished: bool,
}

/// Why no more messages are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// There are none.
    NoMore,
    /// Others have their turn.
    Turn,
    /// The client is to read its responses first.
    Stuffed,
    /// What comes next exceeds a limit until then.
    Limited(Time),
    /// It is a client data connection from here on: what follows is not messages (RFC 6062 §5.4).
    Bound,
}

/// Serves one connection until it ends.
pub(super) async fn serve<S>(shared: Rc<Streams>, stream: S, tuple: FiveTuple, realm: RealmId, _lease: ConnectionLease)
where
    S: ClientStream,
{
    let limits = shared.limits();
    let mut queue = Queue::new(limits.queue_bytes, limits.queue_age);
    if tuple.transport == Transport::Tls {
        queue = queue.apart();
    }
    let at = shared.core.borrow_mut().outlets.add(queue, tuple);
    let client = Client { tuple, route: Way::Stream(at).route(), realm };
    let shared_too = Rc::clone(&shared);
    let mut connection = Connection::new(shared, stream, client, at);
    let mut timer = pin!(tokio::time::sleep_until(connection.deadline()));
    // Every way out of `turn` is an end of the connection; which one it was matters to nobody.
    if outlive(poll_fn(|context| connection.turn(context, timer.as_mut()))).await.is_none() {
        complaint::about_panic(tuple.client);
    }
    let bound = {
        let mut core = shared_too.core.borrow_mut();
        let now = core.clock.now();
        core.wake_workers();
        core.server.end_client(&client, EndReason::ConnectionClosed, now);
        core.apply_effects();
        core.outlets.remove(at)
    };
    let Connection { mut stream, mut kept, handled, .. } = connection;
    if let Some((bound, responses)) = bound {
        kept.drain(..handled);
        // Boxed, or every connection's task would have room for it.
        Box::pin(data_connection::relay(&shared_too, stream, *bound, kept, responses)).await;
    } else {
        // A client of TLS is told that nothing was cut off; nobody waits until it can be told.
        let _ = poll_fn(|context| Poll::Ready(Pin::new(&mut stream).poll_shutdown(context))).await;
    }
}

impl<S: ClientStream> Connection<S> {
    fn new(shared: Rc<Streams>, stream: S, client: Client, at: usize) -> Self {
        let active = Instant::now();
        Self {
            stream,
            client,
            at,
            shared,
            kept: Vec::new(),
            handled: 0,
            room: READ,
            begun: None,
            active,
            resume: None,
            finished: false,
        }
    }

    /// Reads and writes as far as possible without waiting, within one turn. Ready when the connection is over.
    fn turn(&mut self, context: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<io::Result<()>> {
        if self.core(|core, at| core.outlets.is_bound(at)) {
            // A ConnectionBind that had to wait has been answered.
            return Poll::Ready(Ok(()));
        }
        let pause = if self.finished || self.is_held_up() { Pause::NoMore } else { self.receive(context)? };
        if pause == Pause::Bound {
            return Poll::Ready(Ok(()));
        }
        let wrote_all = self.write(context)?.is_ready();
        if self.finished && wrote_all {
            return Poll::Ready(Ok(()));
        }
        if let Pause::Limited(time) = pause {
            self.resume = Some(self.core(|core, _| Instant::from_std(core.clock.instant(time))));
        }
        // If writing has made room, nothing else will tell that there is more to read.
        if pause == Pause::Turn || pause == Pause::Stuffed && !self.is_stuffed() {
            // The others' turn includes the sockets: the wake-up comes after the runtime has looked at them.
            let _ = pin!(tokio::task::yield_now()).poll(context);
        }
        if self.is_late(context, timer) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether a deadline has passed. The timer is only set when it fires or is late; a deadline that moves away costs
    /// nothing. A connection with an allocation may be silent as long as that lives.
    fn is_late(&mut self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> bool {
        let deadline = self.deadline();
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if self.resume.is_some() && !self.is_held_up() {
                context.waker().wake_by_ref();
            }
            if self.begun.is_some_and(|begun| begun + self.shared.limits().message_timeout <= now) {
                return true;
            }
            if self.active + self.shared.limits().idle_timeout <= now {
                if !self.core(|core, _| core.server.has_allocation(&self.client)) {
                    return true;
                }
                self.active = now;
            }
            timer.as_mut().reset(self.deadline());
        }
        false
    }

    /// Whether what is kept has to wait for a limit.
    fn is_held_up(&mut self) -> bool {
        if self.resume.is_some_and(|time| time <= Instant::now()) {
            self.resume = None;
        }
        self.resume.is_some()
    }

    /// When the connection may have to end if nothing more comes.
    fn deadline(&self) -> Instant {
        let limits = self.shared.limits();
        let idle = self.active + limits.idle_timeout;
        let late = self.begun.map_or(idle, |begun| idle.min(begun + limits.message_timeout));
        self.resume.map_or(late, |time| late.min(time))
    }

    fn is_stuffed(&self) -> bool {
        self.core(|core, at| core.outlets.is_stuffed(at))
    }

    fn core<T>(&self, ask: impl FnOnce(&mut Core, usize) -> T) -> T {
        ask(&mut self.shared.core.borrow_mut(), self.at)
    }

    /// Writes what is queued. Ready when nothing is left.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut core = self.shared.core.borrow_mut();
        let now = core.clock.now();
        let core = &mut *core;
        let (queue, spare) = core.outlets.queue(self.at);
        for _ in 0..queue.drop_old(now, spare) {
            core.server.count_drop(Drop::QueueFull);
        }
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = queue.gather(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = match &slices[..count] {
                // A short count tells that the stream is full; otherwise it takes another call.
                [only] => stream.poll_write(context, only),
                several => stream.poll_write_vectored(context, several),
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => queue.advance(written?, spare),
                Poll::Pending => {
                    core.outlets.stay_awake(self.at);
                    return Ok(Poll::Pending);
                }
            }
        }
        core.outlets.sleep(self.at, context.waker());
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Handles what is kept, then reads and handles what comes. An error ends the connection.
    fn receive(&mut self, context: &mut Context<'_>) -> io::Result<Pause> {
        let mut left = MESSAGES;
        if self.begun.is_none() && !self.kept.is_empty() {
            let kept = mem::take(&mut self.kept);
            let (handled, pause) = self.messages(&kept[self.handled..], &mut left)?;
            self.handled += handled;
            if pause != Pause::NoMore {
                self.kept = kept;
                return Ok(pause);
            }
            let mut buffers = self.shared.buffers.borrow_mut();
            buffers.replace(&mut self.kept, &kept[self.handled..], 0);
            buffers.give(kept);
            self.handled = 0;
        }
        for _ in 0..READS {
            // What a read brings is handled in the same turn, if possible.
            if left < MESSAGES / 2 {
                return Ok(Pause::Turn);
            }
            // Nothing is read for a client that does not read its responses.
            if self.is_stuffed() {
                return Ok(Pause::Stuffed);
            }
            match self.read(context, &mut left)? {
                Poll::Ready(Pause::NoMore) if !self.finished => {}
                Poll::Ready(pause) => return Ok(pause),
                Poll::Pending => return Ok(Pause::NoMore),
            }
        }
        Ok(Pause::Turn)
    }

    /// Reads once and handles the messages that are whole. Nothing whole may be kept.
    fn read(&mut self, context: &mut Context<'_>, left: &mut usize) -> io::Result<Poll<Pause>> {
        let shared = Rc::clone(&self.shared);
        let mut buffer = shared.buffer.borrow_mut();
        let kept = self.kept.len();
        let mut into = ReadBuf::new(&mut buffer[kept..kept + self.room]);
        let read = match Pin::new(&mut self.stream).poll_read(context, &mut into) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(result) => {
                result?;
                into.filled().len()
            }
        };
        if read == 0 {
            self.finished = true;
            self.begun = Some(Instant::now());
            self.kept = Vec::new();
            return Ok(Poll::Ready(Pause::NoMore));
        }
        buffer[..kept].copy_from_slice(&self.kept);
        let bytes = &buffer[..kept + read];
        let (handled, pause) = self.messages(bytes, left)?;
        let held = if handled == 0 { kept } else { 0 };
        shared.buffers.borrow_mut().replace(&mut self.kept, &bytes[handled..], held);
        // Not if most messages are so short that they are too many for a turn.
        let is_busy = read >= READ && handled >= bytes.len() / 4 * 3;
        let may_read_more = is_busy && self.core(|core, _| core.server.has_allocation(&self.client));
        self.room = if may_read_more { LONG_READ } else { READ };
        Ok(Poll::Ready(pause))
    }

    /// Handles whole messages, at most so many as are `left`. Returns how many bytes they are, and why it stopped. An error
    /// ends the connection. What goes to peers leaves together.
    fn messages(&mut self, bytes: &[u8], left: &mut usize) -> io::Result<(usize, Pause)> {
        let (mut core, mut out) = (self.shared.core.borrow_mut(), self.shared.out.borrow_mut());
        // A panic may have left something whose bytes are gone.
        out.clear();
        let now = core.clock.now();
        let (mut at, mut useful) = (0, false);
        let stopped = loop {
            let rest = &bytes[at..];
            let (len, whole) = match frame::front(rest, self.shared.wide_channels.get()) {
                Frame::Stun(len) | Frame::ChannelData(len) => (len, true),
                Frame::Partial(len) => (len, false),
                Frame::Lost => {
                    core.server.note_not_served(&self.client.tuple, rest, now);
                    break Err(io::ErrorKind::InvalidData);
                }
            };
            if len > LONGEST_WITHOUT_ALLOCATION && !core.server.has_allocation(&self.client) {
                core.server.note_not_served(&self.client.tuple, rest, now);
                break Err(io::ErrorKind::InvalidData);
            }
            match (whole, *left) {
                (false, _) => break Ok(Pause::NoMore),
                (true, 0) => break Ok(Pause::Turn),
                (true, _) if core.outlets.is_stuffed(self.at) => break Ok(Pause::Stuffed),
                (true, _) => *left -= 1,
            }
            if core.limits_data
                && is_data(rest)
                && let Some(time) = core.server.wait(&self.client, len, now)
            {
                break Ok(Pause::Limited(time));
            }
            match core.client_message(&self.client, &rest[..len], now) {
                Outcome::ToPeer(to_peer) => {
                    let place = at + to_peer.payload.start..at + to_peer.payload.end;
                    out.pass_on(&mut core, bytes, &to_peer, Payload { place, tos: 0 }, now);
                    useful = true;
                }
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    // A request may close the relay socket that earlier messages are to leave from.
                    out.send(&mut core, bytes);
                    if let Some(len) = core.settle(&self.client, outcome, now) {
                        let core = &mut *core;
                        let (queue, spare) = core.outlets.queue(self.at);
                        queue.push_control(&core.reply[..len], now, spare);
                        self.shared.changed.notify_one();
                        useful = true;
                    }
                }
            }
            at += len;
            if core.outlets.is_bound(self.at) {
                break Ok(Pause::Bound);
            }
        };
        out.send(&mut core, bytes);
        core.wake_workers();
        let pause = stopped?;
        let now = Instant::now();
        if useful {
            self.active = now;
        }
        self.begun = match pause {
            Pause::NoMore if at == bytes.len() => None,
            Pause::NoMore if at == 0 => self.begun.or(Some(now)),
            Pause::NoMore => Some(now),
            Pause::Turn | Pause::Stuffed | Pause::Limited(_) | Pause::Bound => None,
        };
        Ok((at, pause))
    }
}

/// Whether a message is for a peer: ChannelData, or a Send indication (RFC 8656 §11.2). Requests never wait for limits.
const fn is_data(message: &[u8]) -> bool {
    matches!(message, [0x40..=0x7F, ..] | [0x00, 0x16, ..])
}

#[cfg(test)]
mod tests;
