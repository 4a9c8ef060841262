//! Clients on streams: one small task per connection that reads frames, asks the core, and writes what is queued.
//!
//! The task holds no buffer while the connection is idle: it reads into the worker's, and only keeps the start of an
//! unfinished message. Nothing here knows which kind of stream it is.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    core::{Core, Outcome, Stream, Way},
    queue::Queue,
    shared::ConnectionLease,
};
use crate::{
    config::settings::Tcp,
    stun::frame::{self, Frame},
    turn::{Client, Drop, EndReason, FiveTuple, Transport},
};

/// Holds a whole message (64 KiB and a header) however it is cut.
pub(super) const READ_BUFFER: usize = 2 * 65_536;
/// Slices written per call.
const SLICES: usize = 64;
/// Reads per turn before other clients have theirs.
const READS: usize = 4;

/// What all connections of a worker use.
pub(super) struct Streams {
    pub(super) core: Rc<RefCell<Core>>,
    /// Where bytes are read to; borrowed for one read and the handling of its messages.
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) limits: Tcp,
    pub(super) wide_channels: bool,
    /// Tells the worker that deadlines may have changed.
    pub(super) changed: Rc<tokio::sync::Notify>,
}

/// One client's connection.
struct Connection<S> {
    stream: S,
    client: Client,
    at: usize,
    shared: Rc<Streams>,
    /// The start of an unfinished message.
    partial: Vec<u8>,
    /// When the unfinished message began, or else when the last one ended.
    since: Instant,
    /// The client has closed its side: what is queued is written, then the connection ends.
    finished: bool,
}

/// Serves one connection until it ends.
pub(super) async fn serve<S>(
    shared: Rc<Streams>,
    stream: S,
    client: SocketAddr,
    server: SocketAddr,
    _lease: ConnectionLease,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &shared.limits;
    let queue = Queue::new(limits.queue_bytes, limits.queue_age);
    let at = shared.core.borrow_mut().streams.insert(Stream { queue, waker: None });
    let tuple = FiveTuple { client, server, transport: Transport::Tcp };
    let client = Client { tuple, route: Way::Stream(at).route() };
    let since = Instant::now();
    let shared_too = Rc::clone(&shared);
    let mut connection = Connection { stream, client, at, shared, partial: Vec::new(), since, finished: false };
    let mut timer = pin!(tokio::time::sleep_until(connection.deadline()));
    // Every way out of `turn` is an end of the connection; which one it was matters to nobody.
    let _ = poll_fn(|context| connection.turn(context, timer.as_mut())).await;
    let mut core = shared_too.core.borrow_mut();
    let now = core.clock.now();
    core.streams.remove(at);
    core.server.end_client(&client, EndReason::ConnectionClosed, now);
    core.apply_effects();
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Writes and reads as far as possible without waiting. Ready when the connection is over.
    fn turn(&mut self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<io::Result<()>> {
        let wrote_all = self.write(context)?.is_ready();
        if self.finished {
            return if wrote_all || self.is_late(context, timer) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        for turn in 0..READS {
            // Nothing is read for a client that does not read its responses.
            if self.core(|core, at| core.streams[at].queue.is_stuffed()) {
                break;
            }
            match self.read(context)? {
                Poll::Pending => break,
                Poll::Ready(()) if self.finished => {
                    context.waker().wake_by_ref();
                    break;
                }
                Poll::Ready(()) if turn + 1 == READS => context.waker().wake_by_ref(),
                Poll::Ready(()) => {}
            }
        }
        let _ = self.write(context)?;
        timer.as_mut().reset(self.deadline());
        if self.is_late(context, timer) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether the deadline has passed. A connection with an allocation may be silent as long as that lives.
    fn is_late(&self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> bool {
        while timer.as_mut().poll(context).is_ready() {
            let waits = self.partial.is_empty() && !self.finished;
            if !waits || !self.core(|core, _| core.server.has_allocation(&self.client)) {
                return true;
            }
            timer.as_mut().reset(Instant::now() + self.shared.limits.idle_timeout);
        }
        false
    }

    /// When the connection ends if nothing more comes.
    fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let waits = self.partial.is_empty() && !self.finished;
        self.since + if waits { limits.idle_timeout } else { limits.message_timeout }
    }

    fn core<T>(&self, ask: impl FnOnce(&mut Core, usize) -> T) -> T {
        ask(&mut self.shared.core.borrow_mut(), self.at)
    }

    /// Writes what is queued. Ready when nothing is left.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut core = self.shared.core.borrow_mut();
        let now = core.clock.now();
        let core = &mut *core;
        let entry = &mut core.streams[self.at];
        for _ in 0..entry.queue.drop_old(now) {
            core.server.count_drop(Drop::QueueFull);
        }
        while !entry.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = entry.queue.gather(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => entry.queue.advance(written?),
                Poll::Pending => {
                    entry.waker = Some(context.waker().clone());
                    return Ok(Poll::Pending);
                }
            }
        }
        entry.waker = Some(context.waker().clone());
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Reads once and handles the messages that are whole. Ready if there may be more.
    fn read(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        let shared = Rc::clone(&self.shared);
        let mut buffer = shared.buffer.borrow_mut();
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let mut into = ReadBuf::new(&mut buffer[kept..]);
        let read = match Pin::new(&mut self.stream).poll_read(context, &mut into) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(result) => {
                result?;
                into.filled().len()
            }
        };
        if read == 0 {
            self.finished = true;
            self.since = Instant::now();
            return Ok(Poll::Ready(()));
        }
        let handled = self.messages(&buffer[..kept + read])?;
        let rest = &buffer[handled..kept + read];
        if handled > 0 || kept == 0 {
            self.since = Instant::now();
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        if rest.is_empty() {
            // An idle connection holds no memory.
            self.partial = Vec::new();
        }
        Ok(Poll::Ready(()))
    }

    /// Handles all whole messages; returns how many bytes they are. An error ends the connection.
    fn messages(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut core = self.shared.core.borrow_mut();
        let now = core.clock.now();
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let len = match frame::front(rest, self.shared.wide_channels) {
                Frame::Stun(len) | Frame::ChannelData(len) => len,
                Frame::Partial(_) => break,
                Frame::Lost => return Err(io::ErrorKind::InvalidData.into()),
            };
            let message = &rest[..len];
            match core.client_message(&self.client, message, now) {
                Outcome::ToPeer(to_peer) => core.send_to_peer(&to_peer, &message[to_peer.payload.clone()], 0),
                Outcome::Nothing if !core.server.has_effects() => {}
                outcome => {
                    if let Some(len) = core.settle(&self.client, outcome, now) {
                        let core = &mut *core;
                        core.streams[self.at].queue.push_control(&core.reply[..len]);
                        self.shared.changed.notify_one();
                    }
                }
            }
            at += len;
        }
        Ok(at)
    }
}
