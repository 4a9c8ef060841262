//! Load at a fixed rate, and what the server spent under it.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use turnserver::stun::{channel_data, padded};

use super::clients::Clients;
use super::control::CHANNEL;
use super::traffic::{Traffic, way};
use crate::job::{Job, LoadResult, Workload};
use crate::measure::{Reading, Spent, Subject};
use crate::options::Path;
use crate::system::{self, BATCH, Receiver, Sender};

/// Load before the clocks are read.
const WARM_UP: Duration = Duration::from_millis(500);

/// A generator that is later than this does not catch up: a burst of everything that was missed would be lost by any
/// server, and be none of its fault.
const LATEST: Duration = Duration::from_millis(5);

/// The share of packets that may stay unsent.
const UNSENT: f64 = 0.001;

/// The least headroom of a valid run.
const HEADROOM: f64 = 0.03;

/// Other work on the server's processors that makes a run worthless.
const BACKGROUND: f64 = 0.10;

/// The same while the load runs: the server had to wait for its processor for this share of the time.
const WAITED: f64 = 0.05;

/// The far end of flows whose peers are no clients: one socket, as an SFU has.
pub(crate) struct Peer {
    pub(crate) socket: UdpSocket,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

/// Flows that are ready for data.
pub(crate) struct Load {
    subject: Subject,
    workload: Workload,
    gso: bool,
    tick: Duration,
    clients: Clients,
    peer: Peer,
    /// The relayed address of each client.
    relayed: Vec<SocketAddrV4>,
    stamps: bool,
    traffic: Traffic,
    turn: usize,
    background: f64,
}

impl Load {
    pub(crate) fn new(
        subject: Subject,
        workload: Workload,
        job: &Job,
        clients: Clients,
        peer: Peer,
        relayed: Vec<SocketAddrV4>,
        stamps: bool,
    ) -> Self {
        let traffic = Traffic::new(workload.flows, workload.payload);
        let (gso, tick) = (job.gso, Duration::from_micros(job.tick));
        Self { subject, workload, gso, tick, clients, peer, relayed, stamps, traffic, turn: 0, background: 0.0 }
    }

    /// Offers `rate` packets per second for `seconds`, after a warm-up.
    pub(crate) fn run(&mut self, rate: u64, seconds: f64) -> io::Result<LoadResult> {
        self.background = self.background()?;
        let mut pace = Pace::new(rate, self.workload.burst, self.tick);
        self.traffic.begin();
        self.drive(&mut pace, WARM_UP);

        self.traffic.begin();
        let faults = self.faults();
        pace.forget();
        let (before, arrivals): (Reading, u64) = (self.subject.read()?, self.traffic.arrivals);
        let measured = Instant::now();
        let idle = self.drive(&mut pace, Duration::from_secs_f64(seconds));
        let elapsed = measured.elapsed();
        let (after, relayed) = (self.subject.read()?, self.traffic.arrivals - arrivals);
        self.drain();

        let spent = self.subject.spent(before, after);
        let counters = self.traffic.counters;
        let headroom = idle.as_secs_f64() / elapsed.as_secs_f64();
        let unsent = 1.0 - counters.sent as f64 / (rate as f64 * elapsed.as_secs_f64());
        let faults = self.faults() - faults;
        let latency = if self.stamps { self.traffic.latency() } else { None };
        Ok(LoadResult {
            rate,
            seconds: elapsed.as_secs_f64(),
            sent: counters.sent,
            received: counters.received,
            duplicated: counters.duplicated,
            reordered: counters.reordered,
            corrupt: counters.corrupt,
            relayed,
            process_ns_per_packet: spent.process_ns as f64 / relayed.max(1) as f64,
            core_ns_per_packet: spent.busy_ns as f64 / relayed.max(1) as f64,
            headroom,
            background: self.background,
            waited: spent.waited,
            invalid: self.invalid(headroom, unsent, faults, &spent),
            security: self.clients.security(),
            latency_p50: latency.map(|both| both.0),
            latency_p99: latency.map(|both| both.1),
        })
    }

    fn invalid(&self, headroom: f64, unsent: f64, faults: u64, spent: &Spent) -> Option<String> {
        if faults > 0 {
            Some(format!("the generator dropped {faults} datagrams"))
        } else if unsent > UNSENT {
            Some(format!("the generator sent {:.1} % too few", unsent * 100.0))
        } else if headroom < HEADROOM {
            Some(format!("the generator had {:.1} % headroom", headroom * 100.0))
        } else if self.background > BACKGROUND {
            Some(format!("the server's processor was {:.0} % busy before the load", self.background * 100.0))
        } else if spent.waited > WAITED {
            Some(format!("the server had to wait for its processor {:.0} % of the time", spent.waited * 100.0))
        } else {
            None
        }
    }

    /// Busy share of the server's processors while nothing is sent.
    fn background(&self) -> io::Result<f64> {
        let before = self.subject.read()?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(self.subject.spent(before, self.subject.read()?).busy)
    }

    fn faults(&self) -> u64 {
        let peer = u64::from(system::dropped(&self.peer.socket)) + self.peer.sender.refused();
        peer + self.clients.faults()
    }

    /// Sends what is due and takes what comes, for `length`; returns how long there was nothing to do.
    fn drive(&mut self, pace: &mut Pace, length: Duration) -> Duration {
        let start = Instant::now();
        let (mut seen, mut idle) = (start, Duration::ZERO);
        while seen - start < length {
            let due = pace.due(seen);
            if due > 0 {
                let time = if self.stamps { system::realtime_ns() } else { 0 };
                for _ in 0..due {
                    self.send_unit(time);
                }
                self.flush();
            }
            let received = self.receive();
            let now = Instant::now();
            if due == 0 && received == 0 {
                idle += now - seen;
            }
            seen = now;
        }
        idle
    }

    /// Waits for what is still under way.
    fn drain(&mut self) {
        let start = Instant::now();
        let mut last = start;
        let expected = |traffic: &Traffic| traffic.counters.received < traffic.counters.sent;
        while expected(&self.traffic) && last.elapsed() < Duration::from_millis(200) && start.elapsed().as_secs() < 2 {
            if self.receive() > 0 {
                last = Instant::now();
            }
        }
    }

    fn flush(&mut self) {
        self.clients.flush();
        self.peer.sender.flush(&self.peer.socket);
    }

    /// Sends the next flow's burst.
    fn send_unit(&mut self, time: u64) {
        let flows = self.workload.flows;
        let both_ways_of = self.turn / if self.workload.direction == crate::options::Direction::Both { 2 } else { 1 };
        let (flow, way) = (both_ways_of % flows, way(self.workload.direction, self.turn));
        self.turn = self.turn.wrapping_add(1);
        let burst = usize::from(self.workload.burst);
        let train = if self.gso || self.clients.are_streams() { burst } else { 1 };
        for _ in 0..burst / train {
            self.send_train(flow, way, train, time);
        }
    }

    fn send_train(&mut self, flow: usize, way: usize, count: usize, time: u64) {
        let Self { traffic, clients, peer, relayed, .. } = self;
        let relay_to_relay = self.workload.path == Path::RelayToRelay;
        let payload = traffic.payload();
        if way == 1 && !relay_to_relay {
            for _ in 0..count {
                traffic.put(peer.sender.buffer(), flow, way, time);
            }
            peer.sender.commit(relayed[flow], None, (count > 1).then_some(payload as u16));
            if peer.sender.is_full() {
                peer.sender.flush(&peer.socket);
            }
            return;
        }
        let client = if relay_to_relay { 2 * flow + way } else { flow };
        let padding = if clients.are_streams() { padded(payload) - payload } else { 0 };
        let segment = (count > 1).then_some((channel_data::HEADER_LEN + payload) as u16);
        clients.send_with(client, segment, |buffer| {
            for _ in 0..count {
                buffer.extend_from_slice(&CHANNEL.to_be_bytes());
                buffer.extend_from_slice(&(payload as u16).to_be_bytes());
                traffic.put(buffer, flow, way, time);
                buffer.extend_from_slice(&[0; 3][..padding]);
            }
        });
    }

    /// Takes one batch at each end; returns how many packets came.
    fn receive(&mut self) -> usize {
        let Self { traffic, clients, peer, relayed, .. } = self;
        let relay_to_relay = self.workload.path == Path::RelayToRelay;
        let payload = traffic.payload();
        let stamps = self.stamps;
        let [[a, b], [c, d]] = [CHANNEL.to_be_bytes(), (payload as u16).to_be_bytes()];
        let header = [a, b, c, d];
        // A stream has no stamps: the time of reading.
        let arrival = |stamp: u64| stamps.then(|| if stamp == 0 { system::realtime_ns() } else { stamp });

        let at_clients = clients.receive(|client, message, stamp| {
            let packet = message.strip_prefix(&header[..]).and_then(|data| traffic.parse(data.get(..payload)?));
            match packet {
                Some(packet) if relay_to_relay && client == 2 * packet.flow + (1 - packet.way) => {
                    traffic.count(&packet, arrival(stamp));
                }
                Some(packet) if !relay_to_relay && client == packet.flow && packet.way == 1 => {
                    traffic.count(&packet, arrival(stamp));
                }
                _ => traffic.corrupt(),
            }
        });
        let at_peer = peer.receiver.receive(&peer.socket, |datagram| match traffic.parse(datagram.bytes) {
            Some(packet) if packet.way == 0 && relayed[packet.flow] == datagram.source => {
                traffic.count(&packet, arrival(datagram.stamp));
            }
            _ => traffic.corrupt(),
        });
        at_clients + at_peer
    }
}

/// Says how many bursts are due.
struct Pace {
    start: Instant,
    /// Seconds between two sendings, or 0.
    tick: f64,
    bursts_per_second: f64,
    done: u64,
    missed: u64,
}

impl Pace {
    fn new(rate: u64, burst: u8, tick: Duration) -> Self {
        let bursts_per_second = rate as f64 / f64::from(burst);
        Self { start: Instant::now(), tick: tick.as_secs_f64(), bursts_per_second, done: 0, missed: 0 }
    }

    /// Begins to count anew, without catching up with the past.
    fn forget(&mut self) {
        (self.start, self.done, self.missed) = (Instant::now(), 0, 0);
    }

    /// Bursts to send now, a batch at most.
    fn due(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        let elapsed = if self.tick > 0.0 { (elapsed / self.tick).floor() * self.tick } else { elapsed };
        let planned = (elapsed * self.bursts_per_second) as u64;
        let latest = (LATEST.as_secs_f64() * self.bursts_per_second) as u64 + 1;
        let late = planned.saturating_sub(self.done + self.missed);
        if late > latest {
            self.missed += late - latest;
        }
        let due = late.min(latest).min(BATCH as u64);
        self.done += due;
        due
    }
}
