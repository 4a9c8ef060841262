//! Allocate (RFC 8656 §7): the checks, the question for relay sockets, and what follows from its answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    AllocationId, Client, Effect, Families, Family, Handle, History, RelayId, Server, Step, Subject, Time, Traffic,
    allocation::{Allocation, Relayed},
    authentication::Requester,
    channel::Channels,
    permission::Permissions,
    reply::{Reject, ReplyContext, Words},
    time::whole_seconds,
};
use crate::stun::{AttributeType, ErrorCode, Message, Method, TransactionId};

/// The answer to whoever asks for UDP where it is not relayed (RFC 6062 §5.1).
const UDP_FORBIDDEN: Reject = Reject { error: ErrorCode::Forbidden, words: Words::And("UDP is not relayed here") };

/// What is relayed: REQUESTED-TRANSPORT, an IANA protocol number (RFC 8656 §18.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RelayProtocol {
    /// Connections (RFC 6062).
    Tcp = 6,
    /// Datagrams.
    Udp = 17,
}

impl RelayProtocol {
    /// The protocol that a request asks for.
    fn of(message: &Message<'_>) -> Result<Self, ErrorCode> {
        match message.get(AttributeType::REQUESTED_TRANSPORT) {
            Some(&[17, _, _, _]) => Ok(Self::Udp),
            Some(&[6, _, _, _]) => Ok(Self::Tcp),
            Some(&[_, _, _, _]) => Err(ErrorCode::UnsupportedTransportProtocol),
            _ => Err(ErrorCode::BadRequest),
        }
    }
}

/// The relayed transport addresses that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRequest {
    /// One address.
    One {
        /// Of this family.
        family: Family,
        /// EVEN-PORT: `None` any port, `Some(false)` an even one, `Some(true)` an even one with the next higher reserved.
        even: Option<bool>,
    },
    /// One of each family, if possible (ADDITIONAL-ADDRESS-FAMILY).
    Both {
        /// EVEN-PORT: both ports are to be even.
        even: bool,
    },
    /// The one reserved under this token.
    Reserved([u8; 8]),
}

/// An Allocate that has passed all checks and waits for relay sockets.
#[derive(Debug)]
pub struct PendingAllocate {
    /// Who asks.
    pub client: Client,
    /// For whom, for quotas; the user is empty for an anonymous client.
    pub subject: Arc<Subject>,
    /// What is to be relayed.
    pub protocol: RelayProtocol,
    /// What is asked for; one address without EVEN-PORT where TCP is to be relayed.
    pub addresses: AddressRequest,
    context: ReplyContext,
    requester: Requester,
    transaction_id: TransactionId,
    lifetime: Duration,
    mobile: bool,
}

/// The relay sockets that were opened for a [`PendingAllocate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Grant {
    /// By family: the socket, and the address that clients and peers see. At least one.
    pub relays: [Option<(RelayId, SocketAddr)>; 2],
    /// The family that could not be had, when both were asked for.
    pub refused: Option<(Family, Refusal)>,
    /// Token of the reserved next higher port.
    pub token: Option<[u8; 8]>,
}

/// Why no relay sockets were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A limit of allocations is reached.
    Quota {
        /// Which one, in words for the client.
        words: &'static str,
        /// Its key in the configuration.
        key: &'static str,
    },
    /// No port, descriptor or reservation is left that would do.
    Capacity,
    /// The family is not relayed here.
    Family,
}

impl Refusal {
    const fn reject(self) -> Reject {
        match self {
            Self::Quota { words, .. } => Reject { error: self.error(), words: Words::And(words) },
            Self::Capacity | Self::Family => Reject { error: self.error(), words: Words::Usual },
        }
    }

    const fn error(self) -> ErrorCode {
        match self {
            Self::Quota { .. } => ErrorCode::AllocationQuotaReached,
            Self::Capacity => ErrorCode::InsufficientCapacity,
            Self::Family => ErrorCode::AddressFamilyNotSupported,
        }
    }
}

impl Server {
    #[allow(clippy::too_many_arguments)] // the parts of one request, each used once
    pub(super) fn allocate<'m>(
        &mut self,
        client: &Client,
        message: &Message<'_>,
        context: ReplyContext,
        requester: Requester,
        owned: Option<Handle>,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        if let Some(handle) = owned {
            let len = self.allocate_again(handle, message.transaction_id(), &requester, &context, reply, now);
            return self.replied(reply, len);
        }
        let protocol = match RelayProtocol::of(message) {
            Ok(RelayProtocol::Tcp) if !self.rules.tcp_relaying => Err(ErrorCode::UnsupportedTransportProtocol.into()),
            Ok(RelayProtocol::Udp) if !self.rules.udp_relaying => Err(UDP_FORBIDDEN),
            of => of.map_err(Reject::from),
        };
        if message.has(AttributeType::DONT_FRAGMENT) && !self.rules.dont_fragment && protocol != Ok(RelayProtocol::Tcp)
        {
            return self.unknown_attributes(&context, [AttributeType::DONT_FRAGMENT].into_iter(), reply);
        }
        let checked = protocol.and_then(|protocol| {
            if protocol == RelayProtocol::Tcp {
                check_tcp(client, message)?;
            }
            let (addresses, lifetime) = self.check_allocate(client, message)?;
            Ok((protocol, addresses, requester.lifetime(lifetime, now)))
        });
        let (protocol, addresses, lifetime) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.error(&context, error, reply),
        };
        let mobile = match self.wants_ticket(message, protocol) {
            Ok(mobile) => mobile,
            Err(error) => return self.error(&context, error, reply),
        };
        let closed = self.policy.refuses_allocations();
        if self.redirects(client, message.transaction_id(), closed.is_some()) {
            // A 300 must be protected; without credentials it is a 400 (RFC 8489 §14.8).
            return match (requester.key, closed) {
                (Some(_), _) => self.redirect(client, &context, reply),
                (None, closed) => self.error(&context, closed.unwrap_or(ErrorCode::BadRequest), reply),
            };
        }
        if let Some(error) = closed {
            return self.error(&context, error, reply);
        }
        Step::Allocate(Box::new(PendingAllocate {
            client: *client,
            subject: Arc::clone(&requester.subject),
            protocol,
            addresses,
            context,
            requester,
            transaction_id: message.transaction_id(),
            lifetime,
            mobile,
        }))
    }

    /// The answer to an Allocate on a 5-tuple in use: the same success if it is a retransmission, 437 otherwise
    /// (RFC 8656 §7.2).
    fn allocate_again(
        &self,
        handle: Handle,
        transaction_id: TransactionId,
        requester: &Requester,
        context: &ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> usize {
        let allocation = &self.table[handle];
        if allocation.transaction_id == transaction_id && allocation.owner.is(requester) {
            self.allocate_success(handle, context, reply, now)
        } else {
            context.error(&self.rules, reply, ErrorCode::AllocationMismatch, |_| {})
        }
    }

    /// Checks 4 to 9 of RFC 8656 §7.2.
    fn check_allocate(&self, client: &Client, message: &Message<'_>) -> Result<(AddressRequest, Duration), ErrorCode> {
        let lifetime = match message.get_u32(AttributeType::LIFETIME) {
            None => self.rules.lifetime(None),
            Some(Ok(seconds)) => self.rules.lifetime(Some(seconds)),
            Some(Err(_)) => return Err(ErrorCode::BadRequest),
        };
        let requested = family_code(message, AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let additional = family_code(message, AttributeType::ADDITIONAL_ADDRESS_FAMILY)?;
        let even = match message.get(AttributeType::EVEN_PORT) {
            None => None,
            Some(&[bits]) => Some(bits & 0x80 != 0),
            Some(_) => return Err(ErrorCode::BadRequest),
        };
        if let Some(token) = message.get(AttributeType::RESERVATION_TOKEN) {
            if even.is_some() || requested.is_some() || additional.is_some() {
                return Err(ErrorCode::BadRequest);
            }
            let token = token.try_into().map_err(|_| ErrorCode::BadRequest)?;
            return Ok((AddressRequest::Reserved(token), lifetime));
        }
        if additional.is_some() {
            let only_ipv6 = additional == Some(Family::V6.code());
            if requested.is_some() || even == Some(true) || !only_ipv6 {
                return Err(ErrorCode::BadRequest);
            }
            return Ok((AddressRequest::Both { even: even.is_some() }, lifetime));
        }
        let family = match requested {
            Some(code) => Family::from_code(code).ok_or(ErrorCode::AddressFamilyNotSupported)?,
            None => self.rules.default_family.unwrap_or_else(|| Family::of(client.tuple.client.ip())),
        };
        if !self.rules.families.contains(&family) {
            return Err(ErrorCode::AddressFamilyNotSupported);
        }
        Ok((AddressRequest::One { family, even }, lifetime))
    }

    /// Ends what [`Step::Allocate`] began. Returns the length of the reply, and the new allocation's handle and id if there is one.
    ///
    /// While the relay sockets were being opened, another request of the client may have got its allocation: then there is
    /// no second one, and the granted sockets are closed by [`Effect::CloseRelay`].
    pub fn complete_allocate(
        &mut self,
        pending: PendingAllocate,
        outcome: Result<Grant, Refusal>,
        reply: &mut [u8],
        now: Time,
    ) -> (usize, Option<(Handle, AllocationId)>) {
        let PendingAllocate { client, protocol, context, requester, transaction_id, lifetime, mobile, .. } = pending;
        if let Some(handle) = self.live(&client, now) {
            let granted = outcome.iter().flat_map(|grant| grant.relays.iter().flatten());
            self.effects.extend(granted.map(|(relay, _)| Effect::CloseRelay(*relay)));
            let len = self.allocate_again(handle, transaction_id, &requester, &context, reply, now);
            self.count_response(reply, len);
            return (len, None);
        }
        let grant = match outcome {
            Ok(grant) => grant,
            Err(refusal) => {
                let len = context.error(&self.rules, reply, refusal.reject(), |_| {});
                self.count_response(reply, len);
                let user = &requester.subject.user;
                match refusal {
                    Refusal::Quota { key, .. } => self.note_limit(&client, user, key, now),
                    _ => self.note_response(&client, user, Method::Allocate, reply, now),
                }
                return (len, None);
            }
        };
        let expires = (now + lifetime).min(requester.until);
        let id = AllocationId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let handle = self.table.insert(Allocation {
            id,
            client,
            owner: requester,
            relayed: grant.relays.map(|relay| relay.map(|(relay, address)| Relayed { relay, address, expires })),
            permissions: Permissions::default(),
            channels: Channels::default(),
            connections: (protocol == RelayProtocol::Tcp).then(Box::default),
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            created: now,
            history: History::default(),
            transaction_id,
            token: grant.token,
            refused: grant.refused,
            away: false,
            mobile: mobile.then(Box::default),
            meter: None,
            armed: Time(u64::MAX),
        });
        self.totals.begun.add_one(client.tuple.transport, Families::of(&self.table[handle].relayed));
        let len = self.allocate_success(handle, &context, reply, now);
        self.count_response(reply, len);
        (len, Some((handle, id)))
    }

    /// The success response (RFC 8656 §7.2); also for a retransmitted request.
    fn allocate_success(&self, handle: Handle, context: &ReplyContext, reply: &mut [u8], now: Time) -> usize {
        let ticket = self.ticket(handle);
        let allocation = &self.table[handle];
        context.success(&self.rules, reply, |writer| {
            for relayed in allocation.relayed.iter().flatten() {
                writer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, relayed.address);
            }
            if let Some((family, refusal)) = allocation.refused {
                writer.address_error_code(family.code(), refusal.error());
            }
            writer.u32(AttributeType::LIFETIME, whole_seconds(allocation.time_left(None, now)));
            if let Some(token) = &allocation.token {
                writer.attribute(AttributeType::RESERVATION_TOKEN, token);
            }
            if let Some(ticket) = &ticket {
                writer.attribute(AttributeType::MOBILITY_TICKET, ticket);
            }
            writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, allocation.client.tuple.client);
        })
    }
}

/// What makes no sense with a TCP relayed address (RFC 6062 §5.1), and needs a client on a stream. One address is one
/// connection's way to the client, so there is no second one either.
fn check_tcp(client: &Client, message: &Message<'_>) -> Result<(), ErrorCode> {
    const UDP_ONLY: [AttributeType; 4] = [
        AttributeType::DONT_FRAGMENT,
        AttributeType::EVEN_PORT,
        AttributeType::RESERVATION_TOKEN,
        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
    ];
    if client.tuple.transport.is_stream() && !UDP_ONLY.into_iter().any(|attribute| message.has(attribute)) {
        Ok(())
    } else {
        Err(ErrorCode::BadRequest)
    }
}

/// The family code of an address-family attribute (RFC 8656 §18.6), whose other 24 bits are ignored.
pub(super) fn family_code(message: &Message<'_>, attribute: AttributeType) -> Result<Option<u8>, ErrorCode> {
    match message.get(attribute) {
        None => Ok(None),
        Some(&[family, _, _, _]) => Ok(Some(family)),
        Some(_) => Err(ErrorCode::BadRequest),
    }
}
