//! Opening relay sockets: from what an Allocate asks for to bound sockets with leased ports.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use rand::rngs::StdRng;

use super::{
    complaint,
    limits::QuotaLease,
    ports::PortLease,
    shared::{Opened, Reservation, Shared},
    spaces::{RelaySpace, Spaces},
    system::{self, Io, Use},
};
use crate::{
    auth::subject::Subject,
    turn::{AddressRequest, Family, Refusal, Time},
};

/// How many ports are tried before giving up, when other processes hold some of the range.
const ATTEMPTS: usize = 32;

/// The relay sockets of one allocation.
#[derive(Debug)]
pub(super) struct OpenedRelays {
    /// By family.
    pub(super) relays: [Option<Opened>; 2],
    /// The family that could not be had, when both were asked for.
    pub(super) refused: Option<(Family, Refusal)>,
    /// Token of the reserved next higher port, and when it expires.
    pub(super) reserved: Option<([u8; 8], Time)>,
    /// The allocation's place in the quotas.
    pub(super) quota: QuotaLease,
}

impl OpenedRelays {
    fn one(relay: Opened, quota: QuotaLease) -> Self {
        let family = Family::of(relay.external.ip());
        let mut relays = [None, None];
        relays[family as usize] = Some(relay);
        Self { relays, refused: None, reserved: None, quota }
    }
}

/// Opens what is asked for, within the quotas of the subject. `near` is the server address that the client reached; its relay
/// address is preferred.
pub(super) fn open(
    shared: &Shared,
    request: AddressRequest,
    (subject, worker): (&Subject, u16),
    near: IpAddr,
    io: Io,
    now: Time,
    rng: &mut StdRng,
) -> Result<OpenedRelays, Refusal> {
    let quota = || shared.take_quota(subject, worker);
    match request {
        AddressRequest::One { family, even: Some(true) } => {
            let (quota, next_quota) = (quota()?, quota()?);
            let (relay, next) = open_pair(shared, family, near, io, rng)?;
            let mut opened = OpenedRelays::one(relay, quota);
            opened.reserved = Some(shared.reserve(next, next_quota, now, rng));
            Ok(opened)
        }
        AddressRequest::One { family, even } => {
            let quota = quota()?;
            Ok(OpenedRelays::one(open_one(shared, family, even.is_some(), near, io, rng)?, quota))
        }
        AddressRequest::Both { even } => {
            let mut opened = OpenedRelays { relays: [None, None], refused: None, reserved: None, quota: quota()? };
            for family in Family::ALL {
                match open_one(shared, family, even, near, io, rng) {
                    Ok(relay) => opened.relays[family as usize] = Some(relay),
                    // Not even one of the two (RFC 8656 §7.2, check 9).
                    Err(_) if opened.refused.is_some() => return Err(Refusal::Capacity),
                    Err(refusal) => opened.refused = Some((family, refusal)),
                }
            }
            Ok(opened)
        }
        AddressRequest::Reserved(token) => {
            let Reservation { opened, quota: held, .. } = shared.redeem(token, now).ok_or(Refusal::Capacity)?;
            // A reservation's place in the quotas serves if it is of the same subject.
            let quota = if held.is_of(subject) { held } else { quota()? };
            Ok(OpenedRelays::one(opened, quota))
        }
    }
}

/// A TCP relayed address that nobody accepts from yet.
#[derive(Debug)]
pub(super) struct OpenedTcp {
    pub(super) listener: TcpListener,
    pub(super) local: SocketAddr,
    /// The address that clients are told.
    pub(super) external: SocketAddr,
    pub(super) lease: PortLease,
}

/// Opens a TCP relayed address (RFC 6062 §5.1). Its ports are apart from those of UDP.
pub(super) fn open_tcp(shared: &Shared, family: Family, near: IpAddr, rng: &mut StdRng) -> Result<OpenedTcp, Refusal> {
    let all = shared.spaces();
    for space in spaces(&all, family, near)? {
        let Some(ports) = &space.tcp_ports else { continue };
        let mut occupied = Vec::new();
        while let Some(lease) = ports.take(false, rng) {
            let local = SocketAddr::new(space.address.local, lease.port());
            match system::listen_for_peers(local) {
                Ok(listener) => {
                    let external = SocketAddr::new(space.address.external, lease.port());
                    return Ok(OpenedTcp { listener, local, external, lease });
                }
                Err(error) if is_taken(&error) => occupied.push(lease),
                Err(error) => {
                    complaint::about_relay_socket(local, &error);
                    return Err(Refusal::Capacity);
                }
            }
            if occupied.len() == ATTEMPTS {
                break;
            }
        }
    }
    complaint::about_ports();
    Err(Refusal::Capacity)
}

/// Whether another port may do: this one somebody else has, or keeps from us.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// The relay addresses of a family, the one that the client reached first.
fn spaces(all: &Spaces, family: Family, near: IpAddr) -> Result<Vec<&RelaySpace>, Refusal> {
    let mut spaces: Vec<_> = all.current().filter(|space| Family::of(space.address.local) == family).collect();
    spaces.sort_by_key(|space| space.address.local != near);
    if spaces.is_empty() { Err(Refusal::Family) } else { Ok(spaces) }
}

fn open_one(
    shared: &Shared,
    family: Family,
    even: bool,
    near: IpAddr,
    io: Io,
    rng: &mut StdRng,
) -> Result<Opened, Refusal> {
    let all = shared.spaces();
    for space in spaces(&all, family, near)? {
        // Ports that somebody else holds stay leased until one is found, so that none is tried twice.
        let mut occupied = Vec::new();
        while let Some(lease) = space.ports.take(even, rng) {
            match bind(shared, space, lease, io)? {
                Ok(opened) => return Ok(opened),
                Err(lease) => occupied.push(lease),
            }
            if occupied.len() == ATTEMPTS {
                break;
            }
        }
    }
    complaint::about_ports();
    Err(Refusal::Capacity)
}

fn open_pair(
    shared: &Shared,
    family: Family,
    near: IpAddr,
    io: Io,
    rng: &mut StdRng,
) -> Result<(Opened, Opened), Refusal> {
    let all = shared.spaces();
    for space in spaces(&all, family, near)? {
        let mut occupied = Vec::new();
        while let Some((low, high)) = space.ports.take_pair(rng) {
            match bind(shared, space, low, io)? {
                Ok(low) => match bind(shared, space, high, io)? {
                    Ok(high) => return Ok((low, high)),
                    Err(high) => occupied.extend([low.lease, high]),
                },
                Err(low) => occupied.extend([low, high]),
            }
            if occupied.len() >= 2 * ATTEMPTS {
                break;
            }
        }
    }
    complaint::about_ports();
    Err(Refusal::Capacity)
}

/// Binds a leased port. The lease comes back if another process holds the port.
fn bind(shared: &Shared, space: &RelaySpace, lease: PortLease, io: Io) -> Result<Result<Opened, PortLease>, Refusal> {
    let local = SocketAddr::new(space.address.local, lease.port());
    match system::bind_udp(local, Use::Relay, io, shared.terms().relay_buffer) {
        Ok(socket) => {
            let external = SocketAddr::new(space.address.external, lease.port());
            Ok(Ok(Opened { socket, lease, external }))
        }
        Err(error) if is_taken(&error) => Ok(Err(lease)),
        Err(error) => {
            // Descriptors or memory have run out, or the address is gone: no other port would help.
            complaint::about_relay_socket(local, &error);
            Err(Refusal::Capacity)
        }
    }
}
