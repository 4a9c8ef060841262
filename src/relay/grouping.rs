//! The order in which queued datagrams leave: flow by flow.
//!
//! Datagrams of several clients arrive interleaved. Sent flow by flow, those of one flow are neighbours and can pass the
//! kernel's network stack as one. Each flow keeps its order; between flows there is none to keep.

use crate::turn::RelayId;

/// Data through one relay socket in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow(u64);

impl Flow {
    /// What leaves from a relay socket.
    pub(super) const fn to_peers(relay: RelayId) -> Self {
        Self((relay.0 as u64) << 1)
    }

    /// What came to a relay socket and goes to its client.
    pub(super) const fn to_client(relay: RelayId) -> Self {
        Self((relay.0 as u64) << 1 | 1)
    }

    /// Its place among the tails. Neighbouring relay sockets have different ones.
    #[allow(clippy::cast_possible_truncation)] // reduced first
    const fn place(self) -> usize {
        (self.0 % TAILS as u64) as usize
    }
}

/// Flows that are remembered at once. Two that share a place are only grouped less.
const TAILS: usize = 256;
/// Ends a chain.
const END: u32 = u32::MAX;

/// The end of a chain.
#[derive(Debug, Clone, Copy)]
struct Tail {
    flow: Flow,
    /// The last datagram.
    last: u32,
    /// When it was added; tails of other rounds mean nothing.
    round: u64,
}

/// Chains of datagrams by flow. Datagrams are numbered from 0 in the order in which they are added.
#[derive(Debug)]
pub(super) struct Grouping {
    /// By datagram: the next of its flow, or `END`.
    next: Vec<u32>,
    /// The first datagrams of chains, in the order of arrival.
    heads: Vec<u32>,
    tails: Box<[Tail; TAILS]>,
    /// Counts how often everything was forgotten.
    round: u64,
    /// Datagrams by chain.
    order: Vec<u32>,
}

impl Grouping {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            next: Vec::with_capacity(capacity),
            heads: Vec::with_capacity(capacity),
            tails: Box::new([Tail { flow: Flow(0), last: END, round: 0 }; TAILS]),
            round: 1,
            order: Vec::with_capacity(capacity),
        }
    }

    /// Adds the next datagram.
    pub(super) fn add(&mut self, flow: Flow) {
        #[allow(clippy::cast_possible_truncation)] // far fewer than 2^32 are queued
        let at = self.next.len() as u32;
        self.next.push(END);
        let tail = &mut self.tails[flow.place()];
        if (tail.flow, tail.round) == (flow, self.round) {
            self.next[tail.last as usize] = at;
        } else {
            self.heads.push(at);
        }
        *tail = Tail { flow, last: at, round: self.round };
    }

    /// The numbers of all datagrams, flow by flow.
    pub(super) fn order(&mut self) -> &[u32] {
        self.order.clear();
        for &head in &self.heads {
            let mut at = head;
            while at != END {
                self.order.push(at);
                at = self.next[at as usize];
            }
        }
        &self.order
    }

    /// Forgets all datagrams.
    pub(super) fn clear(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.next.clear();
        self.heads.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn interleaved_flows_leave_one_after_the_other() {
        let mut grouping = Grouping::new(8);
        let (a, b) = (Flow::to_peers(RelayId(1)), Flow::to_peers(RelayId(2)));
        [a, b, a, b, a].into_iter().for_each(|flow| grouping.add(flow));
        assert_eq!(grouping.order(), [0, 2, 4, 1, 3]);
        grouping.clear();
        [b, a].into_iter().for_each(|flow| grouping.add(flow));
        assert_eq!(grouping.order(), [0, 1]);
    }

    #[test]
    fn directions_are_flows_of_their_own() {
        assert_ne!(Flow::to_peers(RelayId(1)), Flow::to_client(RelayId(1)));
        assert_ne!(Flow::to_client(RelayId(1)), Flow::to_peers(RelayId(2)));
    }

    proptest! {
        /// Every datagram leaves once, and the order within a flow is kept, also where flows share a place.
        #[test]
        fn nothing_is_lost_and_flows_keep_their_order(flows in proptest::collection::vec(0u32..600, 0..200)) {
            let mut grouping = Grouping::new(8);
            flows.iter().for_each(|relay| grouping.add(Flow::to_peers(RelayId(*relay))));
            let order = grouping.order().to_vec();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.iter().copied().eq(0..u32::try_from(flows.len()).unwrap()));
            for relay in &flows {
                let of_flow: Vec<_> = order.iter().filter(|at| flows[**at as usize] == *relay).collect();
                prop_assert!(of_flow.is_sorted());
            }
        }
    }
}
