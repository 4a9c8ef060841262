//! From settings to what the protocol is told and asks: [`Rules`] and [`Policy`].

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    peers::{PeerBook, RealmRules},
    shared::Shared,
    system::{self, Io},
};
use crate::{
    auth::directory::Directory,
    config::settings::{self, DefaultFamily, Limits, MappedAddress, NatDiscovery, Settings},
    policy::{peer::PeerRules, rate::SourceRate},
    stun::ErrorCode,
    turn::{
        Alternate, ConnectionIds, Discovery, DiscoveryAddress, Family, Policy, Realm, RealmId, Redirect, Rules, Time,
        Transport, Unauthenticated,
    },
};

/// The protocol's parameters.
pub(super) fn rules(settings: &Settings, directory: &Directory, io: Io, connection_ids: ConnectionIds) -> Rules {
    let lifetimes = &settings.lifetimes;
    let has = |family| settings.relay.addresses.iter().any(|address| Family::of(address.local) == family);
    Rules {
        realms: realms(settings, directory),
        anonymous: settings.auth.anonymous,
        nonce_lifetime: settings.auth.stale_nonce,
        default_lifetime: lifetimes.default_allocate,
        max_lifetime: lifetimes.max_allocate,
        permission_lifetime: lifetimes.permission,
        channel_lifetime: lifetimes.channel,
        max_permissions: settings.limits.permissions_per_allocation,
        max_channels: settings.limits.channels_per_allocation,
        default_family: match settings.relay.default_family {
            DefaultFamily::Ipv4 => Some(Family::V4),
            DefaultFamily::Ipv6 => Some(Family::V6),
            DefaultFamily::Keep => None,
        },
        udp_relaying: settings.relay.udp,
        tcp_relaying: settings.relay.tcp,
        max_connections: settings.limits.connections_per_allocation,
        bind_timeout: lifetimes.connection_bind,
        connection_ids,
        families: Family::ALL.into_iter().filter(|family| has(*family)).collect(),
        software: settings.process.software_attribute.then(|| concat!("turnserver ", env!("CARGO_PKG_VERSION")).into()),
        always_fingerprint: settings.process.fingerprint,
        dont_fragment: io.is_full(),
        rfc3489: settings.compatibility.rfc3489,
        wide_channels: settings.compatibility.rfc5766_channel_numbers,
        redirect: settings.redirect.as_ref().map(redirect),
        mobility: None,
        discovery: settings.nat_discovery.as_ref().map(discovery).unwrap_or_default(),
    }
}

/// What clients are told, realm by realm.
fn realms(settings: &Settings, directory: &Directory) -> Vec<Realm> {
    let names = [&settings.auth.realm].into_iter().chain(settings.realms.iter().map(|realm| &realm.name));
    let told = |(name, id): (&String, u16)| Realm {
        name: name.clone(),
        password_algorithms: directory.offered(RealmId(id)),
        user_hashes: directory.takes_hashes(RealmId(id)),
        third_party: directory.third_party(RealmId(id)).map(str::to_owned),
    };
    names.zip(0..).map(told).collect()
}

fn redirect(settings: &settings::Redirect) -> Redirect {
    const TRANSPORTS: [Transport; 4] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls];
    let alternate = |server: &settings::AlternateServer| Alternate {
        address: server.address,
        transports: TRANSPORTS.into_iter().zip(server.transports()).filter(|(_, on)| *on).map(|(of, _)| of).collect(),
        weight: server.weight,
        domain: server.domain.clone(),
    };
    Redirect { servers: settings.servers.iter().map(alternate).collect(), share: settings.share }
}

fn discovery(settings: &NatDiscovery) -> Vec<Discovery> {
    let address = |&MappedAddress { local, external }: &MappedAddress| DiscoveryAddress {
        local,
        external,
        mtu: system::mtu(local),
    };
    let pair = |pair: &[MappedAddress; 2]| Discovery {
        addresses: pair.each_ref().map(address),
        ports: [settings.primary_port, settings.alternate_port],
        tcp: settings.tcp,
    };
    settings.pairs.iter().map(pair).collect()
}

/// What one worker's protocol asks: peer rules, shared by all, and rate limits of its own share of the sources.
pub(super) struct WorkerPolicy {
    book: Arc<PeerBook>,
    /// By realm; what the book had in its edition.
    peers: RefCell<(u64, RealmRules)>,
    shared: Arc<Shared>,
    binding: SourceRate,
    challenge: SourceRate,
}

impl WorkerPolicy {
    /// The kernel spreads one source's ports over the workers, so each worker grants its part of the rate.
    pub(super) fn new(
        book: Arc<PeerBook>,
        shared: Arc<Shared>,
        limits: &Limits,
        workers: usize,
        seeds: [u64; 2],
    ) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let rate = |per_second: Option<u32>, seed| {
            let part = per_second.map(|rate| rate.div_ceil(workers));
            SourceRate::new(part, limits.ipv4_prefix, limits.ipv6_prefix, seed)
        };
        Self {
            peers: RefCell::new((book.edition(), book.rules())),
            book,
            shared,
            binding: rate(limits.binding_rate, seeds[0]),
            challenge: rate(limits.unauthorized_rate, seeds[1]),
        }
    }
}

impl WorkerPolicy {
    /// Asks the rules of a realm. What a realm that there is not may reach: nothing.
    fn ask(&self, realm: RealmId, permits: impl FnOnce(&PeerRules) -> bool) -> bool {
        let edition = self.book.edition();
        if self.peers.borrow().0 != edition {
            // What is newer than this edition is taken once more.
            self.peers.replace((edition, self.book.rules()));
        }
        self.peers.borrow().1.get(realm.index()).is_some_and(|rules| permits(rules))
    }
}

impl Policy for WorkerPolicy {
    fn permits(&self, realm: RealmId, peer: SocketAddr) -> bool {
        self.ask(realm, |rules| rules.permits(peer).is_ok())
    }

    /// Relay to relay is for relayed addresses in use: other services of this host may listen on ports of the relay range.
    fn permits_connection(&self, realm: RealmId, peer: SocketAddr) -> bool {
        self.ask(realm, |rules| {
            rules.permits(peer).is_ok() && (!rules.is_relay_at_most(peer) || self.shared.spaces().relays_tcp_at(peer))
        })
    }

    fn permits_ip(&self, realm: RealmId, peer: IpAddr) -> bool {
        self.ask(realm, |rules| rules.permits_ip(peer).is_ok())
    }

    fn denial(&self, realm: RealmId, peer: SocketAddr) -> Option<String> {
        let mut denial = None;
        self.ask(realm, |rules| {
            let asked = if peer.port() == 0 { rules.permits_ip(peer.ip()) } else { rules.permits(peer) };
            denial = asked.err().map(|denied| denied.to_string());
            denial.is_none()
        });
        denial
    }

    fn refuses_allocations(&self) -> Option<ErrorCode> {
        self.shared.refuses_allocations()
    }

    fn admits(&mut self, kind: Unauthenticated, source: IpAddr, now: Time) -> bool {
        match kind {
            Unauthenticated::Binding => self.binding.allow(source, now.0),
            Unauthenticated::Challenge => self.challenge.allow(source, now.0),
        }
    }
}
