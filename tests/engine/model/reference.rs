//! The reference: what a TURN server is, as plain maps with deadlines.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use turnserver::{
    stun::TransactionId,
    turn::{EndReason, Traffic},
};

use super::operations::Action;

pub(super) const PEERS: [&str; 12] = [
    "198.51.100.1:1000",
    "198.51.100.1:2000",
    "198.51.100.2:1000",
    "[2001:db8:1::1]:1000",
    "[2001:db8:1::1]:2000",
    "[2001:db8:1::2]:1000",
    "10.0.0.1:1000",
    "198.51.100.3:25",
    "198.51.100.4:0",
    "198.51.100.5:7",
    "198.51.100.6:7",
    "198.51.100.7:7",
];

pub(super) const MAX_PERMISSIONS: usize = 3;
pub(super) const MAX_CHANNELS: usize = 2;
pub(super) const QUOTA: usize = 3;
pub(super) const MAX_RELAYS: usize = 7;
pub(super) const NONCE_SECONDS: u64 = 1800;

pub(super) fn peer(index: usize) -> SocketAddr {
    PEERS[index].parse().unwrap()
}

fn refused_ip(ip: IpAddr) -> bool {
    ip.to_string().starts_with("10.")
}

pub(super) fn refused(peer: SocketAddr) -> bool {
    refused_ip(peer.ip()) || peer.port() == 25
}

/// Milliseconds of life for what a client asked, in seconds.
fn lifetime(asked: Option<u32>) -> u64 {
    u64::from(asked.unwrap_or(600).clamp(600, 3600)) * 1000
}

/// An allocation.
#[derive(Debug, Clone)]
pub(super) struct Allocation {
    pub(super) user: &'static str,
    pub(super) transaction_id: TransactionId,
    /// Relayed addresses with their deadlines.
    pub(super) relayed: Vec<(SocketAddr, u64)>,
    pub(super) permissions: HashMap<IpAddr, u64>,
    pub(super) channels: HashMap<u16, (SocketAddr, u64)>,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
    pub(super) created: u64,
}

impl Allocation {
    pub(super) fn relayed_to(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relayed.iter().map(|(address, _)| *address).find(|address| address.is_ipv4() == peer.is_ipv4())
    }

    pub(super) fn permits(&self, peer: SocketAddr) -> bool {
        self.permissions.contains_key(&peer.ip())
    }

    pub(super) fn channel_of(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.iter().find(|(_, (bound, _))| *bound == peer).map(|(number, _)| *number)
    }

    fn deadlines(&self) -> impl Iterator<Item = u64> {
        let relayed = self.relayed.iter().map(|(_, deadline)| *deadline);
        relayed.chain(self.permissions.values().copied()).chain(self.channels.values().map(|(_, deadline)| *deadline))
    }
}

/// An allocation that has ended but was perhaps not reported yet.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) client: usize,
    pub(super) allocation: Allocation,
    pub(super) reason: EndReason,
}

/// All allocations.
#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) now: u64,
    pub(super) allocations: HashMap<usize, Allocation>,
    /// Relayed addresses that are to be closed, with their clients.
    pub(super) closing: Vec<(usize, SocketAddr)>,
    pub(super) ended: Vec<Ended>,
}

impl Reference {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let open = self.closing.iter().map(|_| self.now);
        self.allocations.values().flat_map(Allocation::deadlines).chain(open).min()
    }

    /// Sets the clock and takes away all that has expired.
    pub(super) fn set_time(&mut self, now: u64) {
        self.now = now;
        for (client, allocation) in &mut self.allocations {
            allocation.permissions.retain(|_, deadline| *deadline > now);
            allocation.channels.retain(|_, (_, deadline)| *deadline > now);
            let expired = allocation.relayed.iter().filter(|(_, deadline)| *deadline <= now);
            self.closing.extend(expired.map(|(address, _)| (*client, *address)));
            allocation.relayed.retain(|(_, deadline)| *deadline > now);
        }
        self.bury(EndReason::Expired);
    }

    /// Ends the allocations without an address.
    fn bury(&mut self, reason: EndReason) {
        for (client, allocation) in self.allocations.extract_if(|_, allocation| allocation.relayed.is_empty()) {
            self.ended.push(Ended { client, allocation, reason });
        }
    }

    /// Takes a client's addresses of one family, or of all.
    pub(super) fn close(&mut self, client: usize, family: Option<u8>, reason: EndReason) {
        let Some(allocation) = self.allocations.get_mut(&client) else { return };
        let chosen = |address: SocketAddr| family.is_none_or(|family| (family == 1) == address.is_ipv4());
        let closing = allocation.relayed.extract_if(.., |(address, _)| chosen(*address));
        self.closing.extend(closing.map(|(address, _)| (client, address)));
        self.bury(reason);
    }

    /// Allocations that count for a user while this client asks for one: its own dead one does not.
    fn used(&self, user: &str, client: usize) -> usize {
        let ended = self.ended.iter().filter(|ended| ended.client != client && ended.allocation.user == user);
        self.allocations.values().filter(|allocation| allocation.user == user).count() + ended.count()
    }

    fn free_relays(&self, client: usize) -> usize {
        let live: usize = self.allocations.values().map(|allocation| allocation.relayed.len()).sum();
        MAX_RELAYS - live - self.closing.iter().filter(|(closing, _)| *closing != client).count()
    }

    /// The code that answers an authenticated request; 0 for success. `token_is_good` as the ports' keeper sees it.
    pub(super) fn judge(&self, client: usize, user: &str, action: &Action, token_is_good: bool) -> u16 {
        let allocation = self.allocations.get(&client);
        match (action, allocation) {
            (Action::Allocate { .. }, Some(_)) => 437,
            (Action::Allocate { family, additional, even, token, .. }, None) => {
                let excluded = match (token.is_some(), *additional) {
                    (true, additional) => even.is_some() || family.is_some() || additional,
                    (false, true) => family.is_some() || *even == Some(true),
                    (false, false) => false,
                };
                match () {
                    () if excluded => 400,
                    () if *family == Some(3) => 440,
                    () if self.used(user, client) >= QUOTA => 486,
                    () if self.free_relays(client) == 0 || (token.is_some() && !token_is_good) => 508,
                    () => 0,
                }
            }
            (_, None) => 437,
            (_, Some(allocation)) if allocation.user != user => 441,
            (Action::Refresh { family, .. }, Some(allocation)) => {
                let has = |family: u8| allocation.relayed.iter().any(|(address, _)| address.is_ipv4() == (family == 1));
                if family.is_none_or(|family| family < 3 && has(family)) { 0 } else { 443 }
            }
            (Action::Permit { peers, malformed }, Some(allocation)) => {
                let peers: Vec<SocketAddr> = peers.iter().map(|index| peer(*index)).collect();
                let mut all: Vec<IpAddr> = allocation.permissions.keys().copied().collect();
                all.extend(peers.iter().map(SocketAddr::ip));
                all.sort();
                all.dedup();
                match () {
                    () if *malformed || peers.is_empty() => 400,
                    () if peers.iter().any(|peer| allocation.relayed_to(*peer).is_none()) => 443,
                    () if peers.iter().any(|peer| refused_ip(peer.ip())) => 403,
                    () if all.len() > MAX_PERMISSIONS => 508,
                    () => 0,
                }
            }
            (Action::Bind { number, peer: index }, Some(allocation)) => {
                let peer = peer(*index);
                let other_peer = allocation.channels.get(number).is_some_and(|(bound, _)| *bound != peer);
                let other_number = allocation.channel_of(peer).is_some_and(|bound| bound != *number);
                let no_permission_left = !allocation.permits(peer) && allocation.permissions.len() >= MAX_PERMISSIONS;
                let no_channel_left =
                    !allocation.channels.contains_key(number) && allocation.channels.len() >= MAX_CHANNELS;
                match () {
                    () if !(0x4000..0x5000).contains(number) || other_peer || other_number => 400,
                    () if allocation.relayed_to(peer).is_none() => 443,
                    () if refused(peer) || peer.port() == 0 => 403,
                    () if no_permission_left || no_channel_left => 508,
                    () => 0,
                }
            }
        }
    }

    /// How many relayed addresses a request gets that has been judged good.
    pub(super) fn addresses_for(&self, client: usize, additional: bool) -> usize {
        if additional { self.free_relays(client).min(2) } else { 1 }
    }

    /// A successful Allocate.
    pub(super) fn allocated(
        &mut self,
        client: usize,
        user: &'static str,
        transaction_id: TransactionId,
        relayed: &[SocketAddr],
        asked: Option<u32>,
    ) {
        let deadline = self.now + lifetime(asked);
        let allocation = Allocation {
            user,
            transaction_id,
            relayed: relayed.iter().map(|address| (*address, deadline)).collect(),
            permissions: HashMap::new(),
            channels: HashMap::new(),
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            created: self.now,
        };
        assert!(self.allocations.insert(client, allocation).is_none());
    }

    /// A request other than Allocate has succeeded. The LIFETIME of the response to a Refresh.
    pub(super) fn carry_out(&mut self, client: usize, action: &Action) -> Option<u32> {
        let now = self.now;
        if let Action::Refresh { lifetime: Some(0), family } = action {
            self.close(client, *family, EndReason::Deleted);
            return Some(0);
        }
        let allocation = self.allocations.get_mut(&client).unwrap();
        match action {
            Action::Allocate { .. } => unreachable!("has its own method"),
            Action::Refresh { lifetime: asked, family } => {
                let granted = lifetime(*asked);
                for (address, deadline) in &mut allocation.relayed {
                    if family.is_none_or(|family| address.is_ipv4() == (family == 1)) {
                        *deadline = now + granted;
                    }
                }
                return u32::try_from(granted / 1000).ok();
            }
            Action::Permit { peers, .. } => {
                allocation.permissions.extend(peers.iter().map(|index| (peer(*index).ip(), now + 300_000)));
            }
            Action::Bind { number, peer: index } => {
                allocation.channels.insert(*number, (peer(*index), now + 600_000));
                allocation.permissions.insert(peer(*index).ip(), now + 300_000);
            }
        }
        None
    }
}
