//! What there is, for whoever watches the server: totals up to now, and sessions, a stretch at a time so that nobody has to
//! wait for it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    AllocationId, Client, FiveTuple, Handle, History, Mechanism, RelayProtocol, Server, Subject, Time, Totals, Traffic,
    allocation::Allocation,
};
use crate::stun::ChannelNumber;

/// An allocation as it is now.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub id: AllocationId,
    /// Who it is of; the user is empty for an anonymous client.
    pub subject: Arc<Subject>,
    /// The name of the secret, or the id of the key, that its credential was made with.
    pub secret: Option<Arc<str>>,
    /// What let its client in.
    pub mechanism: Mechanism,
    /// Tells the key that its credential had from others of the same user, where a store knows it.
    pub mark: u64,
    /// Its client.
    pub client: FiveTuple,
    /// What it relays.
    pub protocol: RelayProtocol,
    /// Its relayed addresses, by family.
    pub relayed: [Option<SocketAddr>; 2],
    /// How long it has lived.
    pub age: Duration,
    /// How long it will live unless it is refreshed.
    pub expires_in: Duration,
    /// Data from the client to peers so far.
    pub to_peers: Traffic,
    /// Data from peers to the client so far.
    pub to_client: Traffic,
    /// How many permissions it has.
    pub permissions: usize,
    /// How many channels it has.
    pub channels: usize,
    /// How many connections with peers it has, where it relays TCP.
    pub connections: usize,
    /// Its client is gone, and may come back with its ticket (RFC 8016).
    pub away: bool,
}

/// With whom an allocation has to do.
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// Addresses with a permission.
    pub permissions: Vec<IpAddr>,
    /// Channels and their peers.
    pub channels: Vec<(ChannelNumber, SocketAddr)>,
    /// Peers that it is connected with, where it relays TCP.
    pub connections: Vec<SocketAddr>,
    /// What its data have met with.
    pub history: History,
}

impl Allocation {
    /// Data to peers and to the client, those of connections that there still are included.
    fn traffic(&self) -> [Traffic; 2] {
        let mut sum = [self.to_peers, self.to_client];
        for connection in self.connections.iter().flat_map(|all| all.iter()) {
            sum.iter_mut().zip(connection.flow.traffic()).for_each(|(sum, more)| sum.add(more));
        }
        sum
    }

    fn view(&self, now: Time) -> SessionView {
        let [to_peers, to_client] = self.traffic();
        SessionView {
            id: self.id,
            subject: Arc::clone(&self.owner.subject),
            secret: self.owner.secret.clone(),
            mechanism: self.owner.mechanism(),
            mark: self.owner.mark,
            client: self.client.tuple,
            protocol: if self.connections.is_some() { RelayProtocol::Tcp } else { RelayProtocol::Udp },
            relayed: self.relayed.map(|relayed| relayed.map(|relayed| relayed.address)),
            age: now.since(self.created),
            expires_in: self.time_left(None, now),
            to_peers,
            to_client,
            permissions: self.permissions.live(now).count(),
            channels: self.channels.live(now).count(),
            connections: self.connections.as_ref().map_or(0, |all| all.len()),
            away: self.away,
        }
    }
}

impl Server {
    /// What has been counted so far, data of TCP connections that there still are included.
    #[must_use]
    pub fn totals_now(&self) -> Totals {
        let mut totals = self.totals.clone();
        let handles: BTreeSet<Handle> = self.connections.values().copied().collect();
        for allocation in handles.into_iter().filter_map(|handle| self.table.get(handle)) {
            for connection in allocation.connections.iter().flat_map(|all| all.iter()) {
                let [to_peer, to_client] = connection.flow.traffic();
                totals.to_peers.add(to_peer);
                totals.to_clients.add(to_client);
            }
        }
        totals
    }

    /// Looks at the allocations in the places from `first` on, up to so many places. Returns whether there are places after
    /// them. An allocation keeps its place as long as it lives.
    pub fn look(&self, first: usize, places: usize, now: Time, mut see: impl FnMut(usize, SessionView)) -> bool {
        let (found, more) = self.table.stretch(first, places);
        for (handle, allocation) in found.filter(|(_, allocation)| allocation.is_live(now)) {
            see(handle.place(), allocation.view(now));
        }
        more
    }

    /// How many allocations have such a client, or are about to move to one.
    pub fn count_clients(&self, is_one: impl Fn(&Client) -> bool) -> usize {
        let has_one = |allocation: &Allocation| {
            let arriving = allocation.mobile.as_ref().and_then(|mobile| mobile.arriving);
            is_one(&allocation.client) || arriving.is_some_and(|client| is_one(&client))
        };
        self.table.iter().filter(|(_, allocation)| has_one(allocation)).count()
    }

    /// The allocation with this id in this place, with whom it has to do.
    #[must_use]
    pub fn detail(&self, place: usize, id: AllocationId, now: Time) -> Option<(SessionView, Detail)> {
        let allocation = &self.table[self.at(place, id)?];
        let detail = Detail {
            permissions: allocation.permissions.live(now).collect(),
            channels: allocation.channels.live(now).collect(),
            connections: allocation.connections.iter().flat_map(|all| all.iter().map(|entry| entry.peer)).collect(),
            history: allocation.history,
        };
        Some((allocation.view(now), detail))
    }

    /// The allocation with this id, if it is in this place.
    #[must_use]
    pub fn at(&self, place: usize, id: AllocationId) -> Option<Handle> {
        let (mut found, _) = self.table.stretch(place, 1);
        found.find(|(_, allocation)| allocation.id == id).map(|(handle, _)| handle)
    }
}
