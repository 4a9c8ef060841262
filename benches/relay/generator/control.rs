//! What clients ask for before and after they send data: allocations and channels, with long-term credentials.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use turnserver::stun::{
    AttributeType as A, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method, TransactionId,
};

use super::clients::Clients;
use crate::job::{PASSWORD, REALM, USER};

/// The channel that every client binds.
pub(crate) const CHANNEL: u16 = 0x4000;

/// Clients that take turns in coming and going.
pub(crate) const CHURN_CLIENTS: usize = 60_000;

/// RFC 8489 §6.2.1.
const RETRANSMIT: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 10;

/// REQUESTED-TRANSPORT: UDP.
const UDP: u32 = 17 << 24;

/// How far clients are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Allocate,
    Bind,
    /// Allocate, bind, and end the allocation.
    Cycle,
}

/// The request that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Allocate without credentials.
    Ask,
    Allocate,
    Bind,
    Release,
}

impl Step {
    const fn method(self) -> Method {
        match self {
            Self::Ask | Self::Allocate => Method::Allocate,
            Self::Bind => Method::ChannelBind,
            Self::Release => Method::Refresh,
        }
    }
}

#[derive(Clone)]
struct Session {
    nonce: Vec<u8>,
    relayed: SocketAddrV4,
    peer: SocketAddrV4,
}

/// A request and when it is to be sent again.
struct Pending {
    step: Step,
    serial: u32,
    due: Instant,
    attempts: u32,
}

/// What a churn came to.
pub(crate) struct Churned {
    pub(crate) cycles: u64,
    pub(crate) retransmissions: u64,
    pub(crate) elapsed: Duration,
    pub(crate) idle: Duration,
}

/// All clients' sessions.
pub(crate) struct Control {
    key: IntegrityKey,
    sessions: Vec<Session>,
    serial: u32,
    next_churn: usize,
}

impl Control {
    pub(crate) fn new(clients: usize) -> Self {
        let key = Md5::digest(format!("{USER}:{REALM}:{PASSWORD}"));
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let session = Session { nonce: Vec::new(), relayed: nowhere, peer: nowhere };
        let sessions = vec![session; clients];
        Self { key: IntegrityKey::new(MacAlgorithm::Sha1, &key), sessions, serial: 0, next_churn: 0 }
    }

    pub(crate) fn relayed(&self, client: usize) -> SocketAddrV4 {
        self.sessions[client].relayed
    }

    pub(crate) fn set_peer(&mut self, client: usize, peer: SocketAddrV4) {
        self.sessions[client].peer = peer;
    }

    /// Takes all of `range` to `goal`.
    pub(crate) fn perform(
        &mut self,
        clients: &mut Clients,
        mut range: Range<usize>,
        goal: Goal,
        in_flight: usize,
    ) -> io::Result<()> {
        let mut pending = HashMap::with_capacity(in_flight);
        self.pump(clients, &mut pending, goal, in_flight, || range.next()).map(|_| ())
    }

    /// Lets clients come and go for a while, always `in_flight` of them.
    pub(crate) fn churn(&mut self, clients: &mut Clients, length: Duration, in_flight: usize) -> io::Result<Churned> {
        let end = Instant::now() + length;
        let mut next = self.next_churn;
        let counted = self.pump(clients, &mut HashMap::with_capacity(in_flight), Goal::Cycle, in_flight, || {
            next = (next + 1) % CHURN_CLIENTS;
            (Instant::now() < end).then_some(next)
        });
        self.next_churn = next;
        counted
    }

    /// Starts clients from `next` until there are no more, `in_flight` at a time, and drives them until all are done.
    fn pump(
        &mut self,
        clients: &mut Clients,
        pending: &mut HashMap<usize, Pending>,
        goal: Goal,
        in_flight: usize,
        mut next: impl FnMut() -> Option<usize>,
    ) -> io::Result<Churned> {
        let first = if goal == Goal::Bind { Step::Bind } else { Step::Ask };
        let start = Instant::now();
        let mut counted = Churned { cycles: 0, retransmissions: 0, elapsed: start.elapsed(), idle: Duration::ZERO };
        let (mut more, mut seen, mut check) = (true, start, start);
        let mut failure = None;
        while more || !pending.is_empty() {
            let mut busy = false;
            while more && pending.len() < in_flight {
                match next() {
                    Some(client) => self.request(clients, pending, client, first),
                    None => more = false,
                }
                busy = true;
            }
            clients.flush();
            let mut answers = Vec::new();
            clients.receive(|client, message, _| {
                if pending.contains_key(&client) {
                    answers.push((client, message.to_vec()));
                }
            });
            for (client, message) in answers {
                busy = true;
                match self.answer(clients, pending, goal, client, &message) {
                    Ok(done) => counted.cycles += u64::from(done),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            let now = Instant::now();
            if now - check > Duration::from_millis(20) {
                check = now;
                counted.retransmissions += self.retransmit(clients, pending, now)?;
            }
            counted.idle += if busy { Duration::ZERO } else { now - seen };
            seen = now;
        }
        counted.elapsed = start.elapsed();
        Ok(counted)
    }

    fn retransmit(
        &mut self,
        clients: &mut Clients,
        pending: &mut HashMap<usize, Pending>,
        now: Instant,
    ) -> io::Result<u64> {
        let late =
            pending.iter().filter(|(_, one)| one.due <= now).map(|(client, one)| (*client, one.step, one.serial));
        let late: Vec<_> = late.collect();
        for &(client, step, serial) in &late {
            let attempts = pending[&client].attempts + 1;
            if attempts > ATTEMPTS {
                return Err(io::Error::other(format!("no answer to {step:?} of client {client}")));
            }
            self.send(clients, client, step, serial);
            pending.insert(client, Pending { step, serial, due: now + RETRANSMIT, attempts });
        }
        Ok(late.len() as u64)
    }

    /// Sends a new request.
    fn request(&mut self, clients: &mut Clients, pending: &mut HashMap<usize, Pending>, client: usize, step: Step) {
        self.serial = self.serial.wrapping_add(1);
        self.send(clients, client, step, self.serial);
        pending.insert(client, Pending { step, serial: self.serial, due: Instant::now() + RETRANSMIT, attempts: 1 });
    }

    fn send(&self, clients: &mut Clients, client: usize, step: Step, serial: u32) {
        let session = &self.sessions[client];
        let mut buffer = [0; 512];
        let id = transaction(client, serial);
        let mut writer = MessageWriter::new(&mut buffer, step.method(), Class::Request, id);
        match step {
            Step::Ask | Step::Allocate => {
                writer.u32(A::REQUESTED_TRANSPORT, UDP);
            }
            Step::Bind => {
                writer.u32(A::CHANNEL_NUMBER, u32::from(CHANNEL) << 16);
                writer.xor_address(A::XOR_PEER_ADDRESS, SocketAddr::V4(session.peer));
            }
            Step::Release => {
                writer.u32(A::LIFETIME, 0);
            }
        }
        if step != Step::Ask {
            writer.attribute(A::USERNAME, USER.as_bytes()).attribute(A::REALM, REALM.as_bytes());
            writer.attribute(A::NONCE, &session.nonce).integrity(&self.key);
        }
        if let Ok(length) = writer.finish() {
            clients.send(client, &buffer[..length]);
        }
    }

    /// Takes an answer and sends the next request; true when the client has reached the goal.
    fn answer(
        &mut self,
        clients: &mut Clients,
        pending: &mut HashMap<usize, Pending>,
        goal: Goal,
        client: usize,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let (Ok(message), Some(waiting)) = (Message::parse(bytes), pending.get(&client)) else { return Ok(false) };
        let step = waiting.step;
        if message.transaction_id() != transaction(client, waiting.serial) {
            return Ok(false);
        }
        if message.class() == Class::Error {
            let error = message.get(A::ERROR_CODE).unwrap_or_default();
            let code = error.get(2..4).map_or(0, |code| u16::from(code[0]) * 100 + u16::from(code[1]));
            let nonce = message.get(A::NONCE);
            return match (code, step, nonce) {
                (401, Step::Ask, Some(nonce)) => {
                    self.sessions[client].nonce = nonce.to_vec();
                    self.request(clients, pending, client, Step::Allocate);
                    Ok(false)
                }
                (438, _, Some(nonce)) => {
                    self.sessions[client].nonce = nonce.to_vec();
                    self.request(clients, pending, client, step);
                    Ok(false)
                }
                // The first of two Refresh requests arrived, its answer did not.
                (437, Step::Release, _) => Ok(pending.remove(&client).is_some()),
                _ => Err(io::Error::other(format!("client {client}: {step:?} answered with {code}"))),
            };
        }
        if message.class() != Class::Success {
            return Ok(false);
        }
        match step {
            Step::Ask | Step::Allocate => match message.get_xor_address(A::XOR_RELAYED_ADDRESS) {
                Some(Ok(SocketAddr::V4(relayed))) => self.sessions[client].relayed = relayed,
                _ => return Err(io::Error::other("an Allocate response without relayed address")),
            },
            Step::Bind | Step::Release => {}
        }
        let next = match (step, goal) {
            (Step::Ask | Step::Allocate, Goal::Cycle) => Some(Step::Bind),
            (Step::Bind, Goal::Cycle) => Some(Step::Release),
            _ => None,
        };
        match next {
            Some(next) => {
                self.request(clients, pending, client, next);
                Ok(false)
            }
            None => Ok(pending.remove(&client).is_some()),
        }
    }
}

/// A Binding request.
pub(crate) fn binding_request() -> Vec<u8> {
    let mut buffer = [0; 20];
    let id = TransactionId([0x42; 12]);
    let length = MessageWriter::new(&mut buffer, Method::Binding, Class::Request, id).finish().unwrap_or(0);
    buffer[..length].to_vec()
}

fn transaction(client: usize, serial: u32) -> TransactionId {
    let mut id = [0x5A; 12];
    id[..4].copy_from_slice(&(client as u32).to_be_bytes());
    id[4..8].copy_from_slice(&serial.to_be_bytes());
    TransactionId(id)
}
