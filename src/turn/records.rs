//! What went wrong for whom: the last reasons of the last sources, in tables of fixed size.
//!
//! All memory is taken when the worker starts, and nothing that anybody sends changes its amount: a source has one line of a
//! table with room for a few reasons, texts are cut, and a new source takes the line of the one that was silent for longest
//! among the few where it may stand (found by a keyed hash, so that nobody can choose whose line that is). Sources that have
//! not shown that they receive at their address, as anybody can write any address on a datagram, have a table of their
//! own: a flood of them makes each other forgotten, but none of those who have shown it. Noting something costs one hash
//! and a look at eight lines; nothing is noted for data that are relayed, nor for answered Binding requests.

use std::{collections::VecDeque, hash::BuildHasher, net::IpAddr};

use foldhash::fast::FixedState;

use super::{AllocationId, Ended, FiveTuple, Incident, Reason, Text, Time, Transport};

/// Lines that a source may stand on.
const WAYS: usize = 8;
/// Lines for sources that have shown that they receive at their address.
const PROVED: usize = 512;
/// Lines for all others.
const STRANGERS: usize = 256;
/// Reasons of one source.
const INCIDENTS: usize = 5;
/// Sessions that have ended.
const ENDED: usize = 256;

/// Whom a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Clients with this IP address, or only the one with this port.
    Client(IpAddr, Option<u16>),
    /// A user; also by a part of the name that credentials carry (`1700000000:alice`).
    User(String),
    /// A session.
    Session(AllocationId),
}

/// Somebody who has come in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The client's port.
    pub port: u16,
    /// Whose credential it was; empty for an anonymous client.
    pub user: Text,
    /// When.
    pub at: Time,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Recollection {
    /// What was refused, and to whom.
    pub incidents: Vec<(IpAddr, Incident)>,
    /// Who has come in last, by source.
    pub arrivals: Vec<(IpAddr, Arrival)>,
    /// Sessions that have ended.
    pub ended: Vec<Ended>,
}

/// What is known of one source.
#[derive(Debug, Clone, Copy)]
struct Line {
    arrival: Option<Arrival>,
    incidents: [Option<Incident>; INCIDENTS],
}

impl Line {
    const EMPTY: Self = Self { arrival: None, incidents: [None; INCIDENTS] };

    fn note(&mut self, new: Incident) {
        let like = |old: &&mut Option<Incident>| {
            old.as_ref().is_some_and(|old| {
                old.reason.is_like(&new.reason) && old.text == new.text && old.transport == new.transport
            })
        };
        if let Some(Some(old)) = self.incidents.iter_mut().find(like) {
            let reason = match (old.reason, new.reason) {
                (Reason::Challenged(ports), Reason::Challenged(_)) => Reason::Challenged(waiting(ports, new.port)),
                (_, reason) => reason,
            };
            *old = Incident { reason, count: old.count.saturating_add(1), first: old.first, ..new };
            return;
        }
        // A free place, or else the oldest.
        let place = self.incidents.iter_mut().min_by_key(|place| place.map(|old| old.last));
        if let Some(place) = place {
            *place = Some(new);
        }
    }

    /// Somebody has come back with credentials.
    fn returned(&mut self, port: u16) {
        for place in &mut self.incidents {
            if let Some(Incident { reason: Reason::Challenged(ports), .. }) = place {
                ports.iter_mut().filter(|waiting| **waiting == port).for_each(|waiting| *waiting = 0);
                if *ports == [0; 4] {
                    *place = None;
                }
            }
        }
    }

    /// Somebody has come in.
    fn passed(&mut self, port: u16) {
        self.returned(port);
        for place in &mut self.incidents {
            if place.is_some_and(|incident| incident.reason.is_passing() && incident.port == port) {
                *place = None;
            }
        }
    }
}

/// The ports that are waited for, with one more; the one that waits longest gives way.
fn waiting(mut ports: [u16; 4], port: u16) -> [u16; 4] {
    if !ports.contains(&port) {
        let free = ports.iter().position(|port| *port == 0).unwrap_or(0);
        ports[free..].rotate_left(1);
        ports[3] = port;
    }
    ports
}

/// Lines by source.
#[derive(Debug)]
struct Lines {
    /// Whose each line is, and when it was written to; apart, so that a look at eight of them is short.
    keys: Box<[Option<(IpAddr, Time)>]>,
    lines: Box<[Line]>,
    hasher: FixedState,
}

impl Lines {
    fn new(size: usize, seed: u64) -> Self {
        let (keys, lines) = (vec![None; size].into(), vec![Line::EMPTY; size].into());
        Self { keys, lines, hasher: FixedState::with_seed(seed) }
    }

    /// The first of the lines that a source may stand on.
    #[allow(clippy::cast_possible_truncation)] // any bits of the hash will do
    fn first(&self, ip: IpAddr) -> usize {
        self.hasher.hash_one(ip) as usize % (self.keys.len() / WAYS) * WAYS
    }

    fn find(&mut self, ip: IpAddr) -> Option<&mut Line> {
        let first = self.first(ip);
        let at = self.keys[first..first + WAYS].iter().position(|key| key.is_some_and(|(of, _)| of == ip))?;
        Some(&mut self.lines[first + at])
    }

    /// The line of a source, which is made if there is none.
    fn line(&mut self, ip: IpAddr, now: Time) -> &mut Line {
        let first = self.first(ip);
        let keys = &mut self.keys[first..first + WAYS];
        let known = keys.iter().position(|key| key.is_some_and(|(of, _)| of == ip));
        // An empty one, or else the one that was silent for longest.
        let oldest =
            || keys.iter().enumerate().min_by_key(|(_, key)| key.map(|(_, last)| last)).map_or(0, |(at, _)| at);
        let at = known.unwrap_or_else(oldest);
        keys[at] = Some((ip, now));
        let line = &mut self.lines[first + at];
        if known.is_none() {
            *line = Line::EMPTY;
        }
        line
    }

    fn iter(&self) -> impl Iterator<Item = (IpAddr, &Line)> {
        self.keys.iter().zip(&self.lines).filter_map(|(key, line)| Some((key.as_ref()?.0, line)))
    }
}

/// The records of one worker.
#[derive(Debug)]
pub(super) struct Records {
    proved: Lines,
    strangers: Lines,
    /// The oldest first.
    ended: VecDeque<Ended>,
}

impl Records {
    /// `seed` keys the hashes: addresses are chosen by strangers.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            proved: Lines::new(PROVED, seed),
            strangers: Lines::new(STRANGERS, seed),
            ended: VecDeque::with_capacity(ENDED),
        }
    }

    /// Notes something. `proved`: the source has shown that it receives at its address; over anything but UDP it has.
    pub(super) fn note(&mut self, client: &FiveTuple, proved: bool, reason: Reason, text: Text, now: Time) {
        let (ip, port, transport) = (client.client.ip().to_canonical(), client.client.port(), client.transport);
        let server = client.server.port();
        let lines = if proved || transport != Transport::Udp { &mut self.proved } else { &mut self.strangers };
        let incident = Incident { reason, text, transport, port, server, count: 1, first: now, last: now };
        lines.line(ip, now).note(incident);
    }

    /// A client has come back with credentials, right or wrong.
    pub(super) fn returned(&mut self, client: &FiveTuple) {
        let (ip, port) = (client.client.ip().to_canonical(), client.client.port());
        for line in [self.strangers.find(ip), self.proved.find(ip)].into_iter().flatten() {
            line.returned(port);
        }
    }

    /// A client has come in.
    pub(super) fn passed(&mut self, client: &FiveTuple, user: Text, now: Time) {
        let (ip, port) = (client.client.ip().to_canonical(), client.client.port());
        if let Some(line) = self.strangers.find(ip) {
            line.passed(port);
        }
        let line = self.proved.line(ip, now);
        line.passed(port);
        line.arrival = Some(Arrival { port, user, at: now });
    }

    /// A session has ended.
    pub(super) fn end(&mut self, ended: Ended) {
        if self.ended.len() >= ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// What is known of somebody.
    pub(super) fn recall(&self, whom: &Whom) -> Recollection {
        let mut found = Recollection::default();
        for (ip, line) in self.proved.iter().chain(self.strangers.iter()) {
            let concerned = |incident: &&Incident| match whom {
                Whom::Client(of, port) => *of == ip && port.is_none_or(|port| is_from(incident, port)),
                Whom::User(user) => is_named(&incident.text, user),
                Whom::Session(_) => false,
            };
            let arrived = |arrival: &&Arrival| match whom {
                Whom::Client(of, port) => *of == ip && port.is_none_or(|port| arrival.port == port),
                Whom::User(user) => is_named(&arrival.user, user),
                Whom::Session(_) => false,
            };
            let incidents = line.incidents.iter().flatten().filter(concerned);
            found.incidents.extend(incidents.map(|incident| (ip, *incident)));
            found.arrivals.extend(line.arrival.iter().filter(arrived).map(|arrival| (ip, *arrival)));
        }
        let concerned = |ended: &&Ended| match whom {
            Whom::Client(of, port) => {
                let client = ended.client.client;
                *of == client.ip().to_canonical() && port.is_none_or(|port| client.port() == port)
            }
            Whom::User(user) => is_named(&ended.user, user),
            Whom::Session(id) => ended.id == *id,
        };
        found.ended.extend(self.ended.iter().filter(concerned));
        found
    }
}

/// Whether an incident has to do with this port of its client.
fn is_from(incident: &Incident, port: u16) -> bool {
    match incident.reason {
        Reason::Challenged(ports) => ports.contains(&port),
        _ => incident.port == port,
    }
}

/// Whether a name is this user's, by itself or by one of its parts.
fn is_named(name: &Text, user: &str) -> bool {
    let name = name.as_str();
    !name.is_empty() && (name == user || name.split([':', '@', '|']).any(|part| part == user))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::turn::Tried;

    fn client(ip: u32, port: u16, transport: Transport) -> FiveTuple {
        let server = SocketAddr::from(([192, 0, 2, 9], 3478));
        FiveTuple { client: SocketAddr::new(Ipv4Addr::from_bits(ip).into(), port), server, transport }
    }

    fn reasons(records: &Records, ip: u32) -> Vec<(&'static str, u32)> {
        let whom = Whom::Client(Ipv4Addr::from_bits(ip).into(), None);
        records.recall(&whom).incidents.iter().map(|(_, incident)| (incident.reason.name(), incident.count)).collect()
    }

    const WRONG: Reason =
        Reason::WrongPassword(Tried { password: true, secrets: 0, token: false, store: false, session: false });

    #[test]
    fn a_challenge_is_over_when_the_client_comes_back_from_that_port() {
        let mut records = Records::new(1);
        let challenged = Reason::Challenged([0, 0, 0, 5]);
        records.note(&client(1, 5, Transport::Udp), false, challenged, Text::EMPTY, Time(1));
        records.note(&client(1, 6, Transport::Udp), false, Reason::Challenged([0, 0, 0, 6]), Text::EMPTY, Time(2));
        records.note(&client(1, 6, Transport::Udp), false, Reason::Challenged([0, 0, 0, 6]), Text::EMPTY, Time(3));
        assert_eq!(reasons(&records, 1), [("no-credentials", 3)]);
        records.returned(&client(1, 6, Transport::Udp));
        let found = records.recall(&Whom::Client(Ipv4Addr::from_bits(1).into(), Some(5)));
        assert_eq!((found.incidents.len(), found.incidents[0].1.first), (1, Time(1)));
        assert!(records.recall(&Whom::Client(Ipv4Addr::from_bits(1).into(), Some(6))).incidents.is_empty());
        // Another one's coming in leaves it as it is.
        records.passed(&client(1, 6, Transport::Udp), Text::EMPTY, Time(4));
        assert_eq!(reasons(&records, 1), [("no-credentials", 3)]);
        records.passed(&client(1, 5, Transport::Udp), Text::EMPTY, Time(5));
        assert_eq!(reasons(&records, 1), []);
    }

    #[test]
    fn users_are_found_by_the_names_in_their_credentials() {
        let mut records = Records::new(1);
        records.note(&client(1, 5, Transport::Udp), true, WRONG, Text::new(b"1700000000:alice"), Time(1));
        records.passed(&client(1, 5, Transport::Udp), Text::new(b"alice"), Time(2));
        let of = |user: &str| records.recall(&Whom::User(user.to_owned()));
        assert_eq!((of("alice").incidents.len(), of("alice").arrivals.len()), (1, 1));
        assert_eq!(
            (of("1700000000:alice").incidents.len(), of("lice").incidents.len(), of("").incidents.len()),
            (1, 0, 0)
        );
    }

    #[test]
    fn a_source_keeps_its_last_reasons_and_what_passes_goes_when_it_comes_in() {
        let mut records = Records::new(1);
        let tuple = client(1, 5, Transport::Udp);
        for (at, method) in (0..).zip([(400, 1), (437, 1), (440, 2), (441, 1), (442, 1), (443, 1)]) {
            for _ in 0..method.1 {
                records.note(
                    &tuple,
                    true,
                    Reason::Refused(crate::stun::Method::Allocate, method.0),
                    Text::EMPTY,
                    Time(at),
                );
            }
        }
        let mut counts: Vec<u32> = reasons(&records, 1).iter().map(|(_, count)| *count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 1, 1, 2]);
        records.note(&tuple, true, Reason::StaleNonce, Text::EMPTY, Time(9));
        records.note(&tuple, true, WRONG, Text::EMPTY, Time(9));
        records.passed(&tuple, Text::EMPTY, Time(10));
        let left: Vec<_> = reasons(&records, 1);
        assert!(
            left.contains(&("wrong-password", 1)) && !left.iter().any(|(name, _)| *name == "stale-nonce"),
            "{left:?}"
        );
    }

    /// Floods change neither the amount of memory nor what is known of those who have proved their address.
    #[test]
    fn a_flood_takes_no_memory_and_nobodys_place_but_strangers() {
        let mut records = Records::new(7);
        let size = |records: &Records| {
            let lines = [&records.proved, &records.strangers].map(|lines| (lines.keys.len(), lines.lines.len()));
            (lines, records.ended.capacity())
        };
        let before = size(&records);
        records.note(&client(1, 5, Transport::Udp), true, WRONG, Text::new(b"alice"), Time(0));
        records.note(&client(2, 5, Transport::Tcp), false, WRONG, Text::new(b"bob"), Time(0));
        for source in 10..200_010 {
            let long = Text::new(&[b'x'; 500]);
            records.note(
                &client(source, 5, Transport::Udp),
                false,
                Reason::NotServed([0; 4]),
                long,
                Time(u64::from(source)),
            );
        }
        assert_eq!(size(&records), before);
        assert_eq!(records.strangers.iter().count(), STRANGERS);
        assert_eq!((reasons(&records, 1).len(), reasons(&records, 2).len()), (1, 1));
        assert_eq!(reasons(&records, 200_009), [("not-served", 1)]);
        let lines = std::mem::size_of::<Line>() * (PROVED + STRANGERS) + std::mem::size_of::<Ended>() * ENDED;
        assert!(lines < 1 << 20, "{lines} bytes a worker");
    }
}
