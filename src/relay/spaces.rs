//! The addresses that are relayed from, with their ports. Each worker has the list that held when it looked last, so that nothing
//! is locked for a packet; a reload makes a new list.
//!
//! A *space* is a local address together with what the world sees of it, and has a number of its own for as long as any of
//! its ports is in use: a session keeps the external address that its client was told, whatever a reload says. Spaces of the same
//! local address share its ports.

use std::net::{IpAddr, SocketAddr};

use super::ports::{Owner, Place, PortPool};
use crate::{
    config::settings::{Relay, RelayAddress},
    policy::peer::{Denied, PeerRules},
};

/// A relay address with its free ports.
#[derive(Debug)]
pub(super) struct RelaySpace {
    number: u16,
    pub(super) address: RelayAddress,
    /// New allocations come from here.
    is_current: bool,
    /// Its UDP ports.
    pub(super) ports: PortPool,
    /// Its TCP ports, if TCP is relayed.
    pub(super) tcp_ports: Option<PortPool>,
}

/// All of them, those in force first.
#[derive(Debug, Default)]
pub(super) struct Spaces(Vec<RelaySpace>);

impl Spaces {
    /// The spaces of these settings, and those `before` that are still in use. `peers` knows this server's own sockets: nobody
    /// could reach a relayed address with the port of one of them, as that is refused as a peer.
    pub(super) fn new(relay: &Relay, peers: &PeerRules, before: &Self) -> Self {
        let mut spaces: Vec<RelaySpace> = Vec::new();
        for address in &relay.addresses {
            let same = before.0.iter().find(|space| space.address == *address);
            let number = same.map(|space| space.number).or_else(|| {
                let is_free = |number: &u16| before.0.iter().chain(&spaces).all(|space| space.number != *number);
                (0..PortPool::MOST_SPACES).find(is_free)
            });
            // There are never as many: each that is kept from before has a socket open.
            let Some(number) = number else { continue };
            let serves = |port| peers.permits(SocketAddr::new(address.external, port)) != Err(Denied::OwnSocket);
            let make = || PortPool::new(number, relay.min_port..=relay.max_port, serves);
            let twins = || before.0.iter().filter(|space| space.address.local == address.local);
            let own = same.map(|same| same.ports.clone());
            let shared = || twins().map(|twin| twin.ports.of_space(number)).next();
            let ports = own.or_else(shared).unwrap_or_else(make);
            let own = same.and_then(|same| same.tcp_ports.clone());
            let shared = || twins().filter_map(|twin| twin.tcp_ports.as_ref()).map(|twin| twin.of_space(number)).next();
            let tcp_ports = relay.tcp.then(|| own.or_else(shared).unwrap_or_else(make));
            spaces.push(RelaySpace { number, address: *address, is_current: true, ports, tcp_ports });
        }
        for space in before.0.iter().filter(|space| relay.addresses.iter().all(|address| *address != space.address)) {
            let is_used = space.ports.serves() || space.tcp_ports.as_ref().is_some_and(PortPool::serves);
            if is_used {
                spaces.push(space.retired());
            }
        }
        Self(spaces)
    }

    /// Those that new allocations come from.
    pub(super) fn current(&self) -> impl Iterator<Item = &RelaySpace> {
        self.0.iter().filter(|space| space.is_current)
    }

    /// The addresses of all.
    pub(super) fn addresses(&self) -> Vec<RelayAddress> {
        self.0.iter().map(|space| space.address).collect()
    }

    /// Where a datagram to `peer` goes: one to this server's own external address goes to the local address behind it,
    /// since the NAT in front need not send it back (both ends of a call on this server).
    pub(super) fn inward(&self, peer: SocketAddr) -> SocketAddr {
        self.translate(peer, |address| (address.external, address.local))
    }

    /// Who a datagram from `source` is from, in the addresses that clients know: the inverse of [`Spaces::inward`].
    pub(super) fn outward(&self, source: SocketAddr) -> SocketAddr {
        self.translate(source, |address| (address.local, address.external))
    }

    /// Who serves a local address, if it is a relayed address in use.
    pub(super) fn owner(&self, local: SocketAddr) -> Option<(Place, Owner)> {
        let space = self.0.iter().find(|space| space.address.local == local.ip())?;
        space.ports.owner(local.port())
    }

    /// Whether this is a TCP relayed address in use, in either spelling.
    pub(super) fn relays_tcp_at(&self, peer: SocketAddr) -> bool {
        let local = self.inward(peer);
        let of_local = self.0.iter().filter(|space| space.address.local == local.ip());
        let mut ports = of_local.filter_map(|space| space.tcp_ports.as_ref());
        ports.any(|ports| ports.owner(local.port()).is_some())
    }

    /// A relayed address as clients know it; `None` if this list does not have it.
    pub(super) fn external(&self, place: Place) -> Option<SocketAddr> {
        let space = self.0.iter().find(|space| space.number == place.space)?;
        Some(SocketAddr::new(space.address.external, place.port))
    }

    /// A relayed address as this host has it; `None` if this list does not have it.
    pub(super) fn local(&self, place: Place) -> Option<SocketAddr> {
        let space = self.0.iter().find(|space| space.number == place.space)?;
        Some(SocketAddr::new(space.address.local, place.port))
    }

    /// Whether this is one of the local addresses.
    pub(super) fn has_local(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|space| space.address.local == ip)
    }

    fn translate(&self, address: SocketAddr, pair: impl Fn(&RelayAddress) -> (IpAddr, IpAddr)) -> SocketAddr {
        for space in &self.0 {
            let (from, to) = pair(&space.address);
            if from == address.ip() && from != to {
                return SocketAddr::new(to, address.port());
            }
        }
        address
    }
}

impl RelaySpace {
    /// The same for those who are there.
    fn retired(&self) -> Self {
        let (ports, tcp_ports) = (self.ports.clone(), self.tcp_ports.clone());
        Self { number: self.number, address: self.address, is_current: false, ports, tcp_ports }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{
        config::settings::{DefaultFamily, FindExternal},
        turn::RelayId,
    };

    fn spaces(pairs: &[[&str; 2]], before: &Spaces) -> Spaces {
        let address = |[local, external]: &[&str; 2]| RelayAddress {
            local: local.parse().unwrap(),
            external: external.parse().unwrap(),
        };
        let relay = Relay {
            addresses: pairs.iter().map(address).collect(),
            find_external: FindExternal::default(),
            min_port: 50_000,
            max_port: 50_009,
            socket_buffer: None,
            default_family: DefaultFamily::Ipv4,
            udp: true,
            tcp: true,
            mobility: false,
        };
        Spaces::new(&relay, &PeerRules::new(&crate::config::settings::Peers::default(), &[], 0..=0, &[], &[]), before)
    }

    #[test]
    fn a_session_keeps_the_address_that_its_client_was_told() {
        let mut rng = StdRng::seed_from_u64(1);
        let first = spaces(&[["192.0.2.1", "198.51.100.1"]], &Spaces::default());
        let lease = first.current().next().unwrap().ports.take(false, &mut rng).unwrap();
        lease.set_owner(Owner { worker: 1, relay: RelayId(2) });
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), lease.port());
        let second = spaces(&[["192.0.2.1", "198.51.100.2"]], &first);
        assert_eq!(second.external(lease.place()), Some(at("198.51.100.1")));
        assert_eq!(second.owner(at("192.0.2.1")).map(|(place, _)| place), Some(lease.place()));
        for external in ["198.51.100.1", "198.51.100.2"] {
            assert_eq!(second.inward(at(external)), at("192.0.2.1"));
        }
        assert_eq!(second.outward(at("192.0.2.1")), at("198.51.100.2"));
        let newer = second.current().next().unwrap().ports.take(false, &mut rng).unwrap();
        assert_ne!(newer.port(), lease.port());
        assert_eq!(second.external(newer.place()).map(|address| address.ip().to_string()), Some("198.51.100.2".into()));
        // Back again: the first space is the first once more.
        let third = spaces(&[["192.0.2.1", "198.51.100.1"]], &second);
        assert_eq!(third.current().next().unwrap().number, lease.place().space);
        drop((lease, newer));
        let last = spaces(&[["192.0.2.9", "192.0.2.9"]], &third);
        assert_eq!(last.addresses().len(), 1, "what nobody uses is forgotten");
    }
}
