//! What a worker keeps of its allocations besides what the protocol does: how they come to be, what they may take, what is said of
//! their ends.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{
    complaint,
    core::{Core, RelaySocket},
    events::Event,
    limits::{AllocationMeter, QuotaLease},
    open,
    ports::Owner,
    route::Token,
    system::UdpSocket,
};
use crate::{
    auth::subject::Subject,
    policy::limiter::Allowance,
    turn::{Grant, Handle, Meter, PendingAllocate, Refusal, RelayId, RelayProtocol, SessionSummary, Time},
};

/// What the worker keeps of an allocation, besides what the protocol does.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) relayed: Addresses,
    /// Its place in the quotas, given back with it.
    pub(super) quota: Arc<QuotaLease>,
    /// It relays TCP.
    pub(super) streams: bool,
    /// What it may take, if that is limited.
    pub(super) allowance: Option<Arc<Allowance>>,
}

/// The relayed addresses that an allocation began with, by family.
#[derive(Debug, Default)]
pub(super) struct Addresses(pub(super) [Option<SocketAddr>; 2]);

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().flatten().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{address}")?;
        }
        Ok(())
    }
}

impl Core {
    /// Opens relay sockets and grants the allocation; returns the length of the reply.
    pub(super) fn allocate(&mut self, pending: PendingAllocate, now: Time) -> usize {
        let client = pending.client.tuple;
        let (subject, streams) = (Arc::clone(&pending.subject), pending.protocol == RelayProtocol::Tcp);
        let opened = self.admit(&pending, &subject, now);
        match opened {
            Err(refusal) => self.server.complete_allocate(pending, Err(refusal), &mut self.reply, now).0,
            Ok((grant, quota, allowance)) => {
                let (len, made) = self.server.complete_allocate(pending, Ok(grant), &mut self.reply, now);
                if let Some((handle, id)) = made {
                    for (relay, _) in grant.relays.into_iter().flatten() {
                        if !self.tcp.belongs_to(relay, handle) {
                            self.relays[relay.0 as usize].handle = Some(handle);
                        }
                    }
                    let relayed = Addresses(grant.relays.map(|relay| relay.map(|(_, address)| address)));
                    tracing::info!(
                        %id, user = %subject.user, realm = %subject.realm, tenant = subject.tenant.as_deref(),
                        client = %client.client, transport = client.transport.name(), %relayed,
                        "session begins"
                    );
                    self.shared.events.tell(|| Event::Begins { id, subject, client, relayed: relayed.0 });
                    let quota = Arc::new(quota);
                    if self.has_meters {
                        let (limiter, quota) = (Arc::clone(&self.shared.limiter), Arc::clone(&quota));
                        let (allowance, worker) = (allowance.clone(), self.worker.into());
                        let meter = AllocationMeter { limiter, quota, allowance, worker };
                        self.server.set_meter(handle, Some(Box::new(meter)));
                    }
                    self.sessions.insert(handle, Session { relayed, quota, streams, allowance });
                }
                len
            }
        }
    }

    /// Opens the relay sockets of whoever may have an allocation now, with what that may take.
    fn admit(
        &mut self,
        pending: &PendingAllocate,
        subject: &Subject,
        now: Time,
    ) -> Result<(Grant, QuotaLease, Option<Arc<Allowance>>), Refusal> {
        let (source, streams) = (pending.client.tuple.client.ip(), pending.protocol == RelayProtocol::Tcp);
        let allowance = self.shared.admit(subject, source, streams, self.worker, now)?;
        let (grant, quota) = match pending.protocol {
            RelayProtocol::Udp => self.open_relays(pending, subject, now)?,
            RelayProtocol::Tcp => self.open_tcp_relay(pending, subject)?,
        };
        Ok((grant, quota, allowance))
    }

    /// Holds every session to the limits that there are now.
    pub(super) fn renew_limits(&mut self) {
        let limiter = Arc::clone(&self.shared.limiter);
        self.limits_data = limiter.limits_data();
        self.has_meters = self.limits_data || limiter.limits_peers();
        let now = self.clock.now();
        for (handle, session) in &mut self.sessions {
            session.allowance = limiter.renewed_allowance(session.quota.subject(), session.streams, now.0);
            let meter = self.has_meters.then(|| -> Box<dyn Meter> {
                Box::new(AllocationMeter {
                    limiter: Arc::clone(&limiter),
                    quota: Arc::clone(&session.quota),
                    allowance: session.allowance.clone(),
                    worker: self.worker.into(),
                })
            });
            self.server.set_meter(*handle, meter);
        }
    }

    /// What an allocation may take, if that is limited.
    pub(super) fn allowance(&self, handle: Handle) -> Option<Arc<Allowance>> {
        self.sessions.get(&handle)?.allowance.clone()
    }

    fn open_relays(
        &mut self,
        pending: &PendingAllocate,
        subject: &Subject,
        now: Time,
    ) -> Result<(Grant, QuotaLease), Refusal> {
        let near = pending.client.tuple.server.ip();
        let whose = (subject, self.worker);
        let opened = open::open(&self.shared, pending.addresses, whose, near, self.io, now, &mut self.rng)?;
        let mut grant = Grant { refused: opened.refused, ..Grant::default() };
        if let Some((token, expires)) = opened.reserved {
            grant.token = Some(token);
            self.reservation_deadline = Some(self.reservation_deadline.map_or(expires, |first| first.min(expires)));
        }
        for (place, opened) in grant.relays.iter_mut().zip(opened.relays) {
            let Some(opened) = opened else { continue };
            let watched = UdpSocket::new(opened.socket, self.io).and_then(|socket| {
                #[allow(clippy::cast_possible_truncation)] // far fewer sockets than 2^32
                let id = RelayId(self.relays.vacant_key() as u32);
                self.poller.add(&socket, Token::Relay(id).encode())?;
                opened.lease.set_owner(Owner { worker: self.worker, relay: id });
                self.relays.insert(RelaySocket { socket, handle: None, lease: opened.lease });
                self.relay_peak.rise(self.relays.len());
                Ok(id)
            });
            match watched {
                Ok(id) => *place = Some((id, opened.external)),
                Err(error) => {
                    complaint::about_relay_socket(opened.external, &error);
                    for (id, _) in grant.relays.into_iter().flatten() {
                        self.relays.remove(id.0 as usize);
                    }
                    if let Some(token) = grant.token {
                        self.shared.cancel(token);
                    }
                    return Err(Refusal::Capacity);
                }
            }
        }
        Ok((grant, opened.quota))
    }
}

pub(super) fn log_end(summary: &SessionSummary, relayed: &Addresses) {
    tracing::info!(
        id = %summary.id,
        user = %summary.subject.user,
        realm = %summary.subject.realm,
        tenant = summary.subject.tenant.as_deref(),
        client = %summary.client.client,
        transport = summary.client.transport.name(),
        %relayed,
        seconds = summary.duration.as_secs_f64(),
        to_peer_packets = summary.to_peers.packets,
        to_peer_bytes = summary.to_peers.bytes,
        to_client_packets = summary.to_client.packets,
        to_client_bytes = summary.to_client.bytes,
        reason = summary.reason.name(),
        "session ends"
    );
}
