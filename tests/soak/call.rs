//! Calls that relay numbered datagrams steadily in both directions, and keep all that they need alive.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    caller::{Account, Caller},
    client::Event,
    plan::PERMISSION,
    setup::{Peer, V4, V6},
    wire::{
        DATA, MOBILITY_TICKET, Msg, REFRESH, REQUESTED_ADDRESS_FAMILY, XOR_RELAYED_ADDRESS, allocate,
        padded_channel_data, send,
    },
    world::{CallRecord, Way, World},
};

/// A kind of call.
pub(crate) struct Kind {
    name: &'static str,
    way: Way,
    /// With a channel, or with indications.
    channel: bool,
    far: Far,
    /// Moves on from time to time (RFC 8016).
    moves: bool,
}

#[derive(Clone, Copy)]
enum Far {
    Peer4,
    Peer6,
    /// A client of the same server.
    Client(Way),
}

const fn kind(name: &'static str, way: Way, channel: bool, far: Far) -> Kind {
    Kind { name, way, channel, far, moves: false }
}

pub(crate) const KINDS: [Kind; 8] = [
    kind("UDP, channel", Way::Udp4, true, Far::Peer4),
    kind("TLS, channel", Way::Tls4, true, Far::Peer4),
    kind("UDP over IPv6 to IPv6, indications", Way::Udp6, false, Far::Peer6),
    kind("DTLS, channel", Way::Dtls4, true, Far::Peer4),
    kind("TCP, indications", Way::Tcp4, false, Far::Peer4),
    Kind { name: "moving between transports, channel", way: Way::Udp4, channel: true, far: Far::Peer4, moves: true },
    kind("UDP to a client over TCP, channels", Way::Udp4, true, Far::Client(Way::Tcp6)),
    kind("DTLS over IPv6 to IPv6, channel", Way::Dtls6, true, Far::Peer6),
];

const NUMBER: u16 = 0x4ABC;
/// Between two datagrams of one direction: that of audio.
const TICK: Duration = Duration::from_millis(40);
/// How often all is refreshed.
const REFRESHED: Duration = Duration::from_secs(PERMISSION.as_secs() / 3);
/// How often a call moves that does.
const MOVED: Duration = Duration::from_secs(7);
/// What is under way at the end of a call arrives within this time, or is lost.
const LATE: Duration = Duration::from_secs(3);

/// One call after the other; every other one is as long as the whole run.
pub(crate) fn calls(world: &World, number: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ (number as u64) << 32);
    let kind = &KINDS[number % KINDS.len()];
    while !world.is_over() {
        let limit =
            if number.is_multiple_of(2) { Duration::MAX } else { Duration::from_secs(rng.random_range(20..120)) };
        let record = world.call(kind.name);
        world.attempt("calls ended", || Call::begin(world, kind, &record).go_on(world, limit, &mut rng));
        record.pardoned.store(world.paused_since(record.began), Ordering::Relaxed);
    }
}

/// Numbered datagrams of one direction that have come.
#[derive(Default)]
struct Arrived {
    /// Below this, all have.
    all_below: u64,
    beyond: BTreeSet<u64>,
}

impl Arrived {
    /// Notes one; panics if it has come already.
    fn note(&mut self, number: u64) {
        assert!(number >= self.all_below && self.beyond.insert(number), "datagram {number} comes twice");
        while self.beyond.remove(&self.all_below) {
            self.all_below += 1;
        }
    }
}

enum End {
    Peer(Peer),
    Client(Box<Caller>),
}

struct Call {
    kind: &'static Kind,
    near: Caller,
    /// Where the far end sends to, and where this end does.
    relayed: SocketAddr,
    far_address: SocketAddr,
    far: End,
    account: Account,
    ticket: Vec<u8>,
    record: Arc<CallRecord>,
    sent: u64,
    arrived: [Arrived; 2],
}

impl Call {
    fn begin(world: &World, kind: &'static Kind, record: &Arc<CallRecord>) -> Self {
        let account = Account::of("alice");
        let mut near = Caller::open(world, kind.way, &account);
        let reply = near.succeed(&|| match (kind.moves, kind.far) {
            (true, _) => allocate().attr(MOBILITY_TICKET, &[]),
            (_, Far::Peer6) => allocate().attr(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
            _ => allocate(),
        });
        let relayed = reply.xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS");
        let ticket = reply.get(MOBILITY_TICKET).unwrap_or_default().to_vec();
        let (far, far_address) = match kind.far {
            Far::Peer4 => Self::peer(Peer::new(V4)),
            Far::Peer6 => Self::peer(Peer::new(V6)),
            Far::Client(way) => {
                let mut caller = Caller::open(world, way, &account);
                let address = caller.allocate();
                (End::Client(Box::new(caller)), address)
            }
        };
        let (record, sent, arrived) = (Arc::clone(record), 0, Default::default());
        let mut call = Self { kind, near, relayed, far_address, far, account, ticket, record, sent, arrived };
        call.keep_alive();
        call
    }

    fn peer(peer: Peer) -> (End, SocketAddr) {
        peer.socket.set_nonblocking(true).expect("a mode");
        let address = peer.address;
        (End::Peer(peer), address)
    }

    /// Permissions, channels and allocations.
    fn keep_alive(&mut self) {
        let mut ends = vec![(&mut self.near, self.far_address)];
        if let End::Client(caller) = &mut self.far {
            ends.push((caller, self.relayed));
        }
        for (caller, other) in ends {
            caller.permit(other);
            if self.kind.channel {
                caller.bind(NUMBER, other);
            }
            caller.refresh();
        }
    }

    fn go_on(mut self, world: &World, limit: Duration, rng: &mut StdRng) {
        let began = Instant::now();
        let (mut next, mut refresh, mut moving) = (began, began + REFRESHED, began + MOVED);
        while !world.is_over() && began.elapsed() < limit {
            let data = self.datagram(rng);
            self.send_forth(&data);
            self.send_back(&data);
            next = (next + TICK).max(Instant::now());
            self.receive_until(next);
            if next >= refresh {
                self.keep_alive();
                refresh = next + REFRESHED;
            }
            if self.kind.moves && next >= moving {
                self.move_on(world, rng);
                moving = next + MOVED;
            }
        }
        self.receive_all(LATE);
        self.near.delete();
        if let End::Client(caller) = &mut self.far {
            caller.delete();
        }
    }

    /// A datagram that is sent in each direction; now and then as large as of video.
    fn datagram(&mut self, rng: &mut StdRng) -> Vec<u8> {
        let mut data = vec![0xA5; if rng.random_bool(0.1) { 1100 } else { 160 }];
        data[..8].copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        data
    }

    fn send_forth(&mut self, data: &[u8]) {
        self.record.sent[0].fetch_add(1, Ordering::Relaxed);
        transmit(self.kind.channel, &mut self.near, self.far_address, data);
    }

    fn send_back(&mut self, data: &[u8]) {
        self.record.sent[1].fetch_add(1, Ordering::Relaxed);
        match &mut self.far {
            End::Peer(peer) => peer.send(data, self.relayed),
            End::Client(caller) => transmit(self.kind.channel, caller, self.relayed, data),
        }
    }

    /// Takes what comes until then.
    fn receive_until(&mut self, until: Instant) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.near.0.client.next_event(left.max(Duration::from_millis(1)));
            let waited = event.is_none();
            self.note(1, event);
            while self.take_at_far_end() {}
            if waited && Instant::now() >= until {
                return;
            }
        }
    }

    fn take_at_far_end(&mut self) -> bool {
        match &mut self.far {
            End::Peer(peer) => {
                let mut buffer = [0; 2000];
                match peer.socket.recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        assert_eq!(from, self.relayed);
                        self.take(0, &buffer[..len]);
                        true
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("receiving at the peer: {error}"),
                }
            }
            End::Client(caller) => {
                let event = caller.0.client.next_event(Duration::from_millis(1));
                let is_some = event.is_some();
                self.note(0, event);
                is_some
            }
        }
    }

    fn note(&mut self, direction: usize, event: Option<Event>) {
        match event {
            Some(Event::Channel(number, data)) => {
                assert_eq!((number, self.kind.channel), (NUMBER, true));
                self.take(direction, &data);
            }
            // One without data tells of an ICMP error.
            Some(Event::Stun(reply)) => {
                if let Some(data) = reply.get(DATA) {
                    self.take(direction, data);
                }
            }
            None => {}
        }
    }

    fn take(&mut self, direction: usize, data: &[u8]) {
        let number = u64::from_be_bytes(*data.first_chunk().expect("a number"));
        assert!(number < self.sent && data[8..].iter().all(|byte| *byte == 0xA5), "altered: {data:02x?}");
        assert!(matches!(data.len(), 160 | 1100), "{} bytes", data.len());
        self.arrived[direction].note(number);
        self.record.received[direction].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what is under way, for so long at most.
    fn receive_all(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.record.sent_and_missing().1 > 0 && Instant::now() < deadline {
            self.receive_until(Instant::now() + Duration::from_millis(20));
        }
    }

    /// Goes on from another address, over whatever transport.
    fn move_on(&mut self, world: &World, rng: &mut StdRng) {
        // What is under way to the old address would be lost by nobody's fault when that is closed.
        self.receive_all(LATE);
        let mut new = Caller::open(world, Way::any(rng), &self.account);
        let ticket = self.ticket.clone();
        let reply = new.succeed(&|| Msg::new(REFRESH).attr(MOBILITY_TICKET, &ticket));
        self.ticket = reply.get(MOBILITY_TICKET).expect("a ticket").to_vec();
        // The first data make the new address the client's; until then the old one must be there, and gets what comes back.
        let old = std::mem::replace(&mut self.near, new);
        let data = self.datagram(rng);
        self.send_forth(&data);
        self.receive_all(LATE);
        self.send_back(&data);
        world.abandon(old.0.client);
        world.count("moves");
    }
}

fn transmit(channel: bool, from: &mut Caller, to: SocketAddr, data: &[u8]) {
    if channel {
        from.0.client.send(&padded_channel_data(NUMBER, data));
    } else {
        from.0.client.send(&send(to, data).0);
    }
}
