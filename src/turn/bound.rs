//! Channel bindings for whoever relays beside this server (the kernel): what is bound between whom and until when, told of by
//! [`Effect::Bound`], [`Effect::Permitted`], [`Effect::Refreshed`], [`Effect::Moved`] and [`Effect::Ended`]; and what was relayed
//! there.

use std::net::SocketAddr;

use super::{Client, Effect, Family, Handle, RelayId, Server, Time, Traffic};
use crate::stun::ChannelNumber;

/// A channel in which data may be relayed both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The client.
    pub client: Client,
    /// The relay socket.
    pub relay: RelayId,
    /// The peer, as the client knows it.
    pub peer: SocketAddr,
    /// The end of the first to expire: binding, permission for the peer, relayed address.
    pub until: Time,
}

impl Server {
    /// What a channel of this allocation is bound to, as long as data are relayed in it both ways.
    #[must_use]
    pub fn bound_channel(&self, handle: Handle, number: ChannelNumber, now: Time) -> Option<Bound> {
        if !self.rules.channels().contains(&number.0) {
            return None;
        }
        let allocation = self.table.get(handle).filter(|allocation| !allocation.away)?;
        let (peer, bound) = allocation.channels.binding(number)?;
        let permitted = allocation.permissions.expiry(peer.ip())?;
        let relayed = allocation.relayed(Family::of(peer.ip()), now)?;
        let until = bound.min(permitted).min(relayed.expires);
        let bound = Bound { client: allocation.client, relay: relayed.relay, peer, until };
        (until > now).then_some(bound)
    }

    /// The channels of this allocation, expired ones among them.
    #[must_use]
    pub fn channels(&self, handle: Handle) -> Vec<ChannelNumber> {
        self.table.get(handle).map(|allocation| allocation.channels.numbers().collect()).unwrap_or_default()
    }

    /// The effects that have come up since they were last drained.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Counts what the kernel has relayed for an allocation; also for one whose end has not been drained yet.
    pub fn count_kernel(&mut self, handle: Handle, to_peers: Traffic, to_client: Traffic) {
        self.count_kernel_late(to_peers, to_client);
        if let Some(allocation) = self.table.get_mut(handle) {
            allocation.to_peers.add(to_peers);
            allocation.to_client.add(to_client);
            return;
        }
        let summary = self.effects.iter_mut().rev().find_map(|effect| match effect {
            Effect::Ended(ended, summary) if *ended == handle => Some(summary),
            _ => None,
        });
        if let Some(summary) = summary {
            summary.to_peers.add(to_peers);
            summary.to_client.add(to_client);
        }
    }

    /// Counts what the kernel has relayed for an allocation that is forgotten already.
    pub const fn count_kernel_late(&mut self, to_peers: Traffic, to_clients: Traffic) {
        self.totals.count_kernel(to_peers, to_clients);
    }
}
