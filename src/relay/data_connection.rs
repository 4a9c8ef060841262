//! Client data connections (RFC 6062 §5.4): from the ConnectionBind on, bytes as they are, between the client's stream and
//! the peer's.
//!
//! What is read from one side is written to the other at once, out of the worker's buffer. What the other does not take is
//! kept, and until it has been taken nothing more is read from this side: flow control goes from end to end, nothing is ever
//! dropped, and a connection never holds more than one read in each direction. The end of one direction is passed on and leaves
//! the other one open.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::{limits::Tap, stream::Streams, system, tcp_relay::Bound};
use crate::{
    policy::{account::Direction as Towards, limiter::Stretch},
    turn::Time,
};

/// Bytes per turn and direction before other clients have theirs. With four times as many, datagrams beside connections at
/// full speed waited three times as long, and these were hardly faster.
const TURN: usize = 64 << 10;

/// What clients come by: a TCP connection, or what runs over one.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// Makes the end of the connection a reset, so that the client does not take what it has got for all there was.
    fn reset_on_close(&self);
}

impl ClientStream for TcpStream {
    fn reset_on_close(&self) {
        system::reset_on_close(self);
    }
}

/// One direction of a connection.
struct Direction {
    /// What has been read and not been taken.
    kept: Vec<u8>,
    /// So much of what is kept has been taken after all.
    taken: usize,
    /// Something was written that may not have been sent off.
    unflushed: bool,
    /// Something was read or taken in this turn.
    moved: bool,
    /// A limit lets nothing be read before then, in milliseconds.
    resume: Option<u64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The one side has closed; the other is to be told when it has taken everything.
    Ending,
    /// And it has been told.
    Ended,
}

/// Which end of a direction has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Source,
    Sink,
}

impl Direction {
    const fn new(kept: Vec<u8>) -> Self {
        Self { kept, taken: 0, unflushed: false, moved: false, resume: None, state: State::Open }
    }

    fn has_kept(&self) -> bool {
        self.taken < self.kept.len()
    }

    /// Passes on what there is, as far as possible without waiting and within one turn. Ready when this direction has ended.
    /// `tap` says how much may be read, and is told of what was, before anybody can have received it.
    fn poll_pass<R, W>(
        &mut self,
        context: &mut Context<'_>,
        (from, to): (&mut R, &mut W),
        buffer: &mut [u8],
        (tap, towards): (&Tap<'_>, Towards),
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut left = TURN;
        let mut resume = self.resume.take();
        loop {
            while self.has_kept() {
                let taken = ready!(poll_write(context, to, &self.kept[self.taken..]))?;
                self.taken += taken;
                (self.unflushed, self.moved) = (true, true);
            }
            self.kept.clear();
            self.taken = 0;
            match self.state {
                State::Open => {}
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(|_| Fault::Sink)?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
            if left == 0 {
                // The others' turn includes the sockets: the wake-up comes after the runtime has looked at them.
                let _ = pin!(tokio::task::yield_now()).poll(context);
                return Poll::Pending;
            }
            let most = match tap.stretch(towards, buffer.len(), resume.take()) {
                Stretch::Bytes(most) => most,
                Stretch::NotBefore(time) => {
                    self.resume = Some(time);
                    return self.rest(context, to);
                }
                Stretch::Over => return Poll::Ready(Err(Fault::Source)),
            };
            let mut into = ReadBuf::new(&mut buffer[..most]);
            let read = match Pin::new(&mut *from).poll_read(context, &mut into) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    // TLS that ends without saying so, as many clients do: all that was sent has come.
                    self.state = State::Ending;
                    continue;
                }
                read => read.map_err(|_| Fault::Source)?,
            };
            if read.is_pending() {
                return self.rest(context, to);
            }
            let read = into.filled();
            if read.is_empty() {
                self.state = State::Ending;
                continue;
            }
            left = left.saturating_sub(read.len());
            tap.count(towards, read.len());
            (self.unflushed, self.moved) = (true, true);
            let taken = match poll_write(context, to, read) {
                Poll::Ready(taken) => taken?,
                Poll::Pending => 0,
            };
            self.kept.extend_from_slice(&read[taken..]);
        }
    }

    /// Nothing more is read for now, and nothing is kept.
    fn rest<W>(&mut self, context: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Fault>>
    where
        W: AsyncWrite + Unpin,
    {
        // An idle connection holds no memory.
        self.kept = Vec::new();
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(context)).map_err(|_| Fault::Sink)?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

fn poll_write<W: AsyncWrite + Unpin>(
    context: &mut Context<'_>,
    to: &mut W,
    bytes: &[u8],
) -> Poll<Result<usize, Fault>> {
    match ready!(Pin::new(to).poll_write(context, bytes)) {
        Ok(0) | Err(_) => Poll::Ready(Err(Fault::Sink)),
        Ok(taken) => Poll::Ready(Ok(taken)),
    }
}

/// A client's connection and a peer's, bound to each other.
struct Pair<S> {
    client: S,
    peer: TcpStream,
    to_peer: Direction,
    to_client: Direction,
    /// One side takes nothing any more, but what it has sent is still passed on.
    failed: bool,
    /// Since when nothing has moved, if one direction has ended.
    quiet: Option<Instant>,
}

/// How a pair has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything that either side has sent has reached the other.
    Whole,
    /// Data are lost.
    Broken,
}

impl<S: ClientStream> Pair<S> {
    /// Passes on what there is in both directions. Ready when the pair is over.
    fn poll(&mut self, context: &mut Context<'_>, buffer: &mut [u8], tap: &Tap<'_>) -> Poll<End> {
        let Self { client, peer, to_peer, to_client, .. } = self;
        let up = to_peer.poll_pass(context, (client, peer), buffer, (tap, Towards::ToPeer));
        let down = to_client.poll_pass(context, (peer, client), buffer, (tap, Towards::ToClient));
        for (direction, outcome) in [(to_peer, up), (to_client, down)] {
            match outcome {
                // Who has reset its connection is told nothing and tells nothing any more.
                Poll::Ready(Err(Fault::Source)) => return Poll::Ready(End::Broken),
                Poll::Ready(Err(Fault::Sink)) => {
                    *direction = Direction { state: State::Ended, ..Direction::new(Vec::new()) };
                    self.failed = true;
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        let states = [self.to_peer.state, self.to_client.state];
        if states == [State::Ended; 2] {
            return Poll::Ready(if self.failed { End::Broken } else { End::Whole });
        }
        let moved = mem::take(&mut self.to_peer.moved) | mem::take(&mut self.to_client.moved);
        if states != [State::Open; 2] && (moved || self.quiet.is_none()) {
            self.quiet = Some(Instant::now());
        }
        Poll::Pending
    }

    /// When a limit lets something be read that it does not now.
    fn resume(&self) -> Option<Time> {
        [self.to_peer.resume, self.to_client.resume].into_iter().flatten().min().map(Time)
    }

    /// Whether one direction has ended and nothing moves in the other: nobody would notice if its source were gone.
    fn is_deserted(&self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>, limit: Duration) -> bool {
        let Some(quiet) = self.quiet else { return false };
        if timer.deadline() != quiet + limit {
            timer.as_mut().reset(quiet + limit);
        }
        timer.poll(context).is_ready()
    }
}

/// Relays between a client's connection and the peer's that it has been bound to, until it ends. `data` are what came after
/// the ConnectionBind, `responses` come before what the peer sends.
pub(super) async fn relay<S: ClientStream>(
    streams: &Streams,
    client: S,
    bound: Bound,
    data: Vec<u8>,
    responses: Vec<u8>,
) {
    let Bound { peer, bond } = bound;
    let (clock, worker) = {
        let core = streams.core.borrow();
        (core.clock, core.worker.into())
    };
    let limits = bond.link.allowance.as_deref().map(|allowance| (allowance, clock));
    let tap = Tap { flow: &bond.link.flow, limits, worker };
    tap.count(Towards::ToPeer, data.len());
    let (to_peer, to_client) = (Direction::new(data), Direction::new(responses));
    let mut pair = Pair { client, peer, to_peer, to_client, failed: false, quiet: None };
    let limit = streams.limits().idle_timeout;
    let mut timer = pin!(tokio::time::sleep(limit));
    // Made for those who are limited.
    let mut pause: Option<Pin<Box<Sleep>>> = None;
    let mut close = pin!(bond.link.close.notified());
    let end = poll_fn(|context| {
        if close.as_mut().poll(context).is_ready() {
            let is_whole = !pair.to_peer.has_kept() && !pair.to_client.has_kept();
            return Poll::Ready(if is_whole { End::Whole } else { End::Broken });
        }
        if let Poll::Ready(end) = pair.poll(context, &mut streams.buffer.borrow_mut()[..TURN], &tap) {
            return Poll::Ready(end);
        }
        if let Some(time) = pair.resume() {
            let time = Instant::from_std(clock.instant(time));
            let pause = pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(time)));
            if pause.deadline() != time {
                pause.as_mut().reset(time);
            }
            if pause.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        if pair.is_deserted(context, timer.as_mut(), limit) { Poll::Ready(End::Broken) } else { Poll::Pending }
    });
    if end.await == End::Broken {
        pair.client.reset_on_close();
        system::reset_on_close(&pair.peer);
    }
}

#[cfg(test)]
mod tests;
