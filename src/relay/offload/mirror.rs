//! One worker's channels in the kernel's tables: written by it alone, as the protocol reports what has changed.
//!
//! A deadline that has moved on is written only when the one before is about to pass, so that however often a client refreshes, the
//! kernel is told once per lifetime; one that comes earlier is written at once. On the same occasions, and every [`PERIOD`], what
//! the kernel has counted is added to the session's counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    Place,
    kernel::Relayed,
    layout::{Channel, Count},
    start::Offload,
};
use crate::{
    stun::ChannelNumber,
    turn::{Bound, Effect, Handle, Server, Time, Traffic},
};

/// Between two looks at what the kernel has counted for a channel.
const PERIOD: Duration = Duration::from_secs(10);
/// A deadline is written anew so long before it passes, or in the second half of a shorter time.
const MARGIN: Duration = Duration::from_secs(2);
/// Looks that are due within this are made together, in milliseconds.
const TOGETHER: u64 = 100;

/// A channel that the kernel relays.
struct Mirrored {
    channel: Channel,
    relayed: Relayed,
    /// When it ends, as written.
    until: Time,
    /// When it is looked at next.
    look: Time,
}

/// The channels of an allocation.
#[derive(Default)]
struct Session {
    channels: BTreeMap<ChannelNumber, Mirrored>,
    /// Some channel is not relayed that may come to be when permissions or the lifetime are renewed, or when there is room.
    lapsed: bool,
    /// Channels for which there was no room when it was last tried.
    refused: BTreeSet<ChannelNumber>,
}

/// One worker's channels in the kernel.
pub(in super::super) struct Mirror {
    offload: Arc<Offload>,
    sessions: HashMap<Handle, Session>,
    looks: BinaryHeap<Reverse<(Time, Handle, ChannelNumber)>>,
}

/// What the mirror asks while it works.
struct Now<'n> {
    server: &'n mut Server,
    /// Where a channel's data pass, if the kernel may relay them.
    place: &'n dyn Fn(Handle, &Bound) -> Option<Place>,
    time: Time,
}

impl Mirror {
    pub(in super::super) fn new(offload: Arc<Offload>) -> Self {
        Self { offload, sessions: HashMap::new(), looks: BinaryHeap::new() }
    }

    /// Follows what has come up, before anybody else hears of it.
    pub(in super::super) fn follow(
        &mut self,
        server: &mut Server,
        place: &dyn Fn(Handle, &Bound) -> Option<Place>,
        time: Time,
    ) {
        let mut now = Now { server, place, time };
        for at in 0..now.server.effects().len() {
            match now.server.effects()[at] {
                Effect::Bound(handle, number) => {
                    self.update(handle, number, &mut now);
                    // The permission that this renews is other channels', too.
                    self.shorten(handle, &mut now);
                }
                Effect::Permitted(handle) if !self.has_lapsed(handle) => self.shorten(handle, &mut now),
                Effect::Permitted(handle) | Effect::Refreshed(handle) => self.update_all(handle, &mut now),
                Effect::Moved { handle, .. } => {
                    // A client that could not be relayed for may come to be one that can.
                    self.sessions.entry(handle).or_default();
                    self.update_all(handle, &mut now);
                }
                Effect::Ended(handle, _) => {
                    for (_, mirrored) in self.sessions.remove(&handle).unwrap_or_default().channels {
                        self.end(handle, mirrored, &mut now);
                    }
                }
                _ => {}
            }
        }
    }

    fn has_lapsed(&self, handle: Handle) -> bool {
        self.sessions.get(&handle).is_some_and(|session| session.lapsed)
    }

    /// When [`Mirror::look`] has something to do.
    pub(in super::super) fn next_look(&self) -> Option<Time> {
        self.looks.peek().map(|Reverse((time, ..))| *time)
    }

    /// Looks at the channels whose time has come.
    pub(in super::super) fn look(
        &mut self,
        server: &mut Server,
        place: &dyn Fn(Handle, &Bound) -> Option<Place>,
        time: Time,
    ) {
        let mut now = Now { server, place, time };
        while let Some(&Reverse((due, handle, number))) = self.looks.peek()
            && due <= time
        {
            self.looks.pop();
            let session = self.sessions.get_mut(&handle);
            let Some(mirrored) = session.and_then(|session| session.channels.get_mut(&number)) else { continue };
            if mirrored.look != due {
                continue;
            }
            let counted = self.offload.kernel.read(&mut mirrored.relayed);
            count(handle, counted, &mut now);
            // Ended or near its end as written: what holds now is written.
            mirrored.look = Time(0);
            self.update(handle, number, &mut now);
        }
    }

    fn update_all(&mut self, handle: Handle, now: &mut Now<'_>) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.lapsed = false;
        let mut numbers: Vec<ChannelNumber> = session.channels.keys().copied().collect();
        numbers.extend(now.server.channels(handle));
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            self.update(handle, number, now);
        }
    }

    /// Writes what ends earlier than written; what ends later has time.
    fn shorten(&mut self, handle: Handle, now: &mut Now<'_>) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let earlier = |(number, mirrored): (&ChannelNumber, &Mirrored)| {
            let bound = now.server.bound_channel(handle, *number, now.time);
            bound.is_none_or(|bound| bound.until < mirrored.until).then_some(*number)
        };
        let earlier: Vec<ChannelNumber> = session.channels.iter().filter_map(earlier).collect();
        for number in earlier {
            self.update(handle, number, now);
        }
    }

    /// Makes the kernel's tables say of one channel what the protocol says.
    fn update(&mut self, handle: Handle, number: ChannelNumber, now: &mut Now<'_>) {
        let bound = now.server.bound_channel(handle, number, now.time);
        let channel = bound.as_ref().and_then(|bound| {
            let Place { relay, peer, hairpin } = (now.place)(handle, bound)?;
            let tuple = &bound.client.tuple;
            let channel = Channel { number, client: tuple.client, server: tuple.server, relay, peer, hairpin };
            Some((channel, bound.until))
        });
        if let Some(session) = self.sessions.get_mut(&handle)
            && let Some(mirrored) = session.channels.get_mut(&number)
        {
            if let Some((channel, until)) = channel
                && channel == mirrored.channel
            {
                let looked = mirrored.look == Time(0);
                let ending = mirrored.until <= now.time + MARGIN;
                if until < mirrored.until || until > mirrored.until && (looked || ending) {
                    self.offload.kernel.set_deadline(&mut mirrored.relayed, self.offload.instant(until));
                    mirrored.until = until;
                }
                let look = next_look(now.time, mirrored.until);
                if looked || look < mirrored.look {
                    mirrored.look = look;
                    self.looks.push(Reverse((look, handle, number)));
                }
                return;
            }
            if let Some(mirrored) = session.channels.remove(&number) {
                session.lapsed = true;
                self.end(handle, mirrored, now);
            }
        }
        if let Some((channel, until)) = channel {
            self.begin(handle, channel, until, now);
        } else if let Some(session) = self.sessions.get_mut(&handle) {
            session.lapsed |= bound.is_none();
            session.refused.remove(&number);
        }
    }

    fn begin(&mut self, handle: Handle, channel: Channel, until: Time, now: &mut Now<'_>) {
        let put = self.offload.kernel.put(&channel, self.offload.instant(until));
        let session = self.sessions.entry(handle).or_default();
        let Some((relayed, late)) = put else {
            session.lapsed = true;
            // Those that have ended meanwhile are forgotten, so that there are never more than channels.
            session.refused.retain(|number| now.server.bound_channel(handle, *number, now.time).is_some());
            if session.refused.insert(channel.number) {
                self.offload.kernel.count_refused();
            }
            return;
        };
        session.refused.remove(&channel.number);
        let [to_peers, to_clients] = late.map(traffic);
        now.server.count_kernel_late(to_peers, to_clients);
        let look = next_look(now.time, until);
        session.channels.insert(channel.number, Mirrored { channel, relayed, until, look });
        self.looks.push(Reverse((look, handle, channel.number)));
    }

    fn end(&self, handle: Handle, mirrored: Mirrored, now: &mut Now<'_>) {
        let counted = self.offload.kernel.end(mirrored.relayed);
        count(handle, counted, now);
    }
}

impl Drop for Mirror {
    /// A worker that fails leaves nothing behind that relays.
    fn drop(&mut self) {
        for mirrored in self.sessions.drain().flat_map(|(_, session)| session.channels.into_values()) {
            self.offload.kernel.abandon(mirrored.relayed);
        }
    }
}

fn count(handle: Handle, counted: [Count; 2], now: &mut Now<'_>) {
    if counted != [Count::default(); 2] {
        let [to_peers, to_client] = counted.map(traffic);
        now.server.count_kernel(handle, to_peers, to_client);
    }
}

pub(super) const fn traffic(count: Count) -> Traffic {
    Traffic { packets: count.packets, bytes: count.bytes }
}

/// When to look at a channel that ends at `until`, as written.
fn next_look(now: Time, until: Time) -> Time {
    let left = until.since(now);
    let Time(look) = now + PERIOD.min(left - MARGIN.min(left / 2));
    // Never at once again, and never 0.
    Time((look + 1).next_multiple_of(TOGETHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_looked_at_before_it_ends_and_every_few_seconds() {
        assert_eq!(next_look(Time(1_000), Time(600_000)), Time(11_100));
        assert_eq!(next_look(Time(1_000), Time(9_000)), Time(7_100));
        assert_eq!(next_look(Time(1_000), Time(2_000)), Time(1_600));
        assert_eq!(next_look(Time(1_000), Time(1_000)), Time(1_100));
    }
}
