//! Peer connections of one TCP allocation (RFC 6062): to whom, and how far each has come.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{Rng, RngExt};

use super::{Time, Traffic, reply::ReplyContext};

/// CONNECTION-ID (RFC 6062 §6.2.1): identifies a peer connection among all of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// The ids that one worker gives out: those that leave `worker` when divided by `workers`, so that they are unique without
/// the workers having to agree, and unpredictable all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionIds {
    /// This worker's number.
    pub worker: u16,
    /// How many workers there are; at least 1.
    pub workers: u16,
}

impl ConnectionIds {
    /// Any of them, each equally likely.
    pub(super) fn draw(self, rng: &mut impl Rng) -> ConnectionId {
        let workers = u32::from(self.workers.max(1));
        // One less than the number of whole rounds is never too much, whoever asks.
        let round = rng.random_range(0..u32::MAX / workers);
        ConnectionId(round * workers + u32::from(self.worker))
    }
}

/// Bytes that a peer connection has relayed. Written by whoever copies them, read by whoever has the allocation, which may
/// be another worker.
#[derive(Debug, Default)]
pub struct Flow {
    to_peer: AtomicU64,
    to_client: AtomicU64,
}

impl Flow {
    /// Counts bytes from the client, before the peer can have them.
    pub fn count_to_peer(&self, bytes: usize) {
        self.to_peer.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes from the peer, before the client can have them.
    pub fn count_to_client(&self, bytes: usize) {
        self.to_client.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// To the peer, to the client.
    pub(super) fn traffic(&self) -> [Traffic; 2] {
        [&self.to_peer, &self.to_client].map(|bytes| Traffic::stream(bytes.load(Ordering::Relaxed)))
    }
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum State {
    /// It is being made; this answers the Connect.
    Connecting(Box<ReplyContext>),
    /// It waits for its ConnectionBind until then.
    Pending(Time),
    /// A client data connection is bound to it.
    Bound,
}

/// A connection with a peer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) state: State,
    pub(super) flow: Arc<Flow>,
}

impl Connection {
    /// Whether it is still being made.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.state, State::Connecting(_))
    }

    /// Whether it has waited too long for its ConnectionBind (RFC 6062 §5.2, §5.3).
    pub(super) fn is_expired(&self, now: Time) -> bool {
        matches!(self.state, State::Pending(expires) if expires <= now)
    }
}

/// All connections of an allocation: at most one to each peer, few enough to be searched.
#[derive(Debug, Default)]
pub(super) struct Connections {
    entries: Vec<Connection>,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn to(&self, peer: SocketAddr) -> Option<&Connection> {
        self.entries.iter().find(|connection| connection.peer == peer)
    }

    pub(super) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.entries.iter_mut().find(|connection| connection.id == id)
    }

    pub(super) fn insert(&mut self, connection: Connection) {
        self.entries.push(connection);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.entries.iter()
    }

    /// Takes those that are `due` out.
    pub(super) fn take(&mut self, mut due: impl FnMut(&Connection) -> bool) -> Vec<Connection> {
        let taken = self.entries.extract_if(.., |connection| due(connection)).collect();
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
        taken
    }

    /// The earliest time at which one has waited too long.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let pending = self.entries.iter().filter_map(|connection| match connection.state {
            State::Pending(expires) => Some(expires),
            State::Connecting(_) | State::Bound => None,
        });
        pending.min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// 6062-5.2-11
    #[test]
    fn workers_draw_ids_of_their_own_from_everywhere() {
        let mut rng = StdRng::seed_from_u64(1);
        for workers in [1, 2, 3, 64, u16::MAX] {
            for worker in [0, workers / 2, workers - 1] {
                let ids = ConnectionIds { worker, workers };
                let drawn: BTreeSet<u32> = (0..100).map(|_| ids.draw(&mut rng).0).collect();
                assert!(drawn.iter().all(|id| id % u32::from(workers) == u32::from(worker)));
                assert!(drawn.len() > 95 && drawn.first() < Some(&(1 << 30)) && drawn.last() > Some(&(3 << 30)));
            }
        }
    }
}
