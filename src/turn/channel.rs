//! Channel bindings of one allocation (RFC 8656 §12): a number and a peer, one to one, with an expiry.

use std::net::SocketAddr;

use super::Time;
use crate::stun::ChannelNumber;

/// One binding.
#[derive(Debug, Clone, Copy)]
struct Channel {
    number: ChannelNumber,
    peer: SocketAddr,
    expires: Time,
}

/// Bindings, sorted by number, with an index sorted by peer. An expired one is as good as absent.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: Vec<Channel>,
    by_peer: Vec<(SocketAddr, ChannelNumber)>,
}

/// Why a binding is refused (RFC 8656 §12.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindError {
    /// The number is bound to another peer, or the peer to another number.
    Conflict,
    /// The allocation has as many channels as it may.
    Full,
}

impl Channels {
    /// The peer that a number is bound to.
    pub(super) fn peer(&self, number: ChannelNumber, now: Time) -> Option<SocketAddr> {
        self.find(number)
            .map(|at| self.by_number[at])
            .filter(|channel| channel.expires > now)
            .map(|channel| channel.peer)
    }

    /// The peer that a number is or was bound to, and until when.
    pub(super) fn binding(&self, number: ChannelNumber) -> Option<(SocketAddr, Time)> {
        self.find(number).map(|at| (self.by_number[at].peer, self.by_number[at].expires))
    }

    /// The numbers that are or were bound, in order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = ChannelNumber> + use<'_> {
        self.by_number.iter().map(|channel| channel.number)
    }

    /// The number that a peer is bound to.
    pub(super) fn number(&self, peer: SocketAddr, now: Time) -> Option<ChannelNumber> {
        let at = self.by_peer.binary_search_by(|(entry, _)| entry.cmp(&peer)).ok()?;
        let number = self.by_peer[at].1;
        self.peer(number, now).map(|_| number)
    }

    /// Whether the number is bound to another peer, or the peer to another number.
    pub(super) fn conflict(&self, number: ChannelNumber, peer: SocketAddr, now: Time) -> bool {
        self.peer(number, now).is_some_and(|bound| bound != peer)
            || self.number(peer, now).is_some_and(|bound| bound != number)
    }

    /// Binds a number to a peer, or refreshes the binding.
    pub(super) fn bind(
        &mut self,
        number: ChannelNumber,
        peer: SocketAddr,
        expires: Time,
        limit: usize,
        now: Time,
    ) -> Result<(), BindError> {
        if self.conflict(number, peer, now) {
            return Err(BindError::Conflict);
        }
        self.expire(now);
        if let Some(at) = self.find(number) {
            self.by_number[at].expires = expires;
            return Ok(());
        }
        if self.by_number.len() >= limit {
            return Err(BindError::Full);
        }
        let at = self.by_number.partition_point(|channel| channel.number < number);
        self.by_number.insert(at, Channel { number, peer, expires });
        let at = self.by_peer.partition_point(|(entry, _)| *entry < peer);
        self.by_peer.insert(at, (peer, number));
        Ok(())
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Time) {
        self.retain(|channel| channel.expires > now);
    }

    /// Forgets all but those with peers that are to be kept.
    pub(super) fn keep(&mut self, mut keeps: impl FnMut(SocketAddr) -> bool) {
        self.retain(|channel| keeps(channel.peer));
    }

    fn retain(&mut self, keeps: impl FnMut(&Channel) -> bool) {
        let before = self.by_number.len();
        self.by_number.retain(keeps);
        if self.by_number.len() < before {
            let by_number = &self.by_number;
            self.by_peer.retain(|(_, number)| by_number.binary_search_by(|channel| channel.number.cmp(number)).is_ok());
        }
    }

    /// Those that there are.
    pub(super) fn live(&self, now: Time) -> impl Iterator<Item = (ChannelNumber, SocketAddr)> + '_ {
        let live = self.by_number.iter().filter(move |channel| channel.expires > now);
        live.map(|channel| (channel.number, channel.peer))
    }

    /// The earliest expiry.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.by_number.iter().map(|channel| channel.expires).min()
    }

    fn find(&self, number: ChannelNumber) -> Option<usize> {
        self.by_number.binary_search_by(|channel| channel.number.cmp(&number)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    const A: ChannelNumber = ChannelNumber(0x4000);
    const B: ChannelNumber = ChannelNumber(0x4FFF);

    /// 8656-12.2-04, -05, -08, -10
    #[test]
    fn one_number_one_peer() {
        let mut channels = Channels::default();
        assert_eq!(channels.bind(A, peer(1), Time(600), 2, Time(0)), Ok(()));
        assert_eq!(channels.bind(A, peer(2), Time(600), 2, Time(0)), Err(BindError::Conflict));
        assert_eq!(channels.bind(B, peer(1), Time(600), 2, Time(0)), Err(BindError::Conflict));
        assert_eq!(channels.bind(A, peer(1), Time(700), 2, Time(100)), Ok(()));
        assert_eq!(channels.peer(A, Time(699)), Some(peer(1)));
        assert_eq!(channels.bind(B, peer(2), Time(600), 1, Time(0)), Err(BindError::Full));
        assert_eq!(channels.bind(B, peer(2), Time(600), 2, Time(0)), Ok(()));
        assert_eq!(channels.number(peer(2), Time(0)), Some(B));
    }

    /// 8656-12-04, 8656-12-05
    #[test]
    fn an_expired_number_or_peer_can_be_bound_anew() {
        let mut channels = Channels::default();
        assert_eq!(channels.bind(A, peer(1), Time(600), 1, Time(0)), Ok(()));
        assert_eq!(channels.peer(A, Time(600)), None);
        assert_eq!(channels.number(peer(1), Time(600)), None);
        assert_eq!(channels.bind(A, peer(2), Time(1200), 1, Time(600)), Ok(()));
        assert_eq!(channels.bind(B, peer(1), Time(1800), 1, Time(1200)), Ok(()));
        assert_eq!(channels.next_expiry(), Some(Time(1800)));
        assert_eq!(channels.number(peer(2), Time(1200)), None);
    }
}
