//! Redirection of new allocations (RFC 8489 §10): whether, and to which server. Existing allocations are never touched, so a
//! server that redirects all is drained.

use super::{Client, Family, Server, Step, Transport, reply::ReplyContext, rules::Alternate};
use crate::stun::{AttributeType, ErrorCode, TransactionId};

impl Server {
    /// Whether this Allocate is redirected: one of the share, or any if `all` are to be, on a transport that another server is
    /// named for. A retransmission, which has the same transaction id, fares like the first.
    pub(super) fn redirects(&self, client: &Client, id: TransactionId, all: bool) -> bool {
        let Some(redirect) = &self.rules.redirect else { return false };
        let drawn = id.0.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            // FNV-1a: a client that chooses its ids chooses for itself alone.
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        (all || (drawn >> 32) % 100 < u64::from(redirect.share))
            && redirect.servers.iter().any(|server| server.transports.contains(&client.tuple.transport))
    }

    /// 300 with the next alternate server in turn; the first has the family of the request's source.
    pub(super) fn redirect<'m>(&mut self, client: &Client, context: &ReplyContext, reply: &mut [u8]) -> Step<'m> {
        let Some(redirect) = &self.rules.redirect else { return Step::Dropped };
        let transport = client.tuple.transport;
        let turn = self.next_redirect;
        self.next_redirect = turn.wrapping_add(1);
        let family = Family::of(client.tuple.client.ip());
        let pick = |family, domain| next(&redirect.servers, turn, transport, family, domain);
        let Some(first) = pick(family, None) else {
            return self.error(context, ErrorCode::InsufficientCapacity, reply);
        };
        // Both addresses come with one name, if any.
        let second = pick(family.other(), Some(&first.domain));
        let secured = transport.is_secure() && context.signs_with_sha256();
        let domain = first.domain.as_deref().filter(|_| secured);
        let len = context.error(&self.rules, reply, ErrorCode::TryAlternate, |writer| {
            for server in [Some(first), second].into_iter().flatten() {
                writer.address(AttributeType::ALTERNATE_SERVER, server.address);
            }
            if let Some(domain) = domain {
                writer.attribute(AttributeType::ALTERNATE_DOMAIN, domain.as_bytes());
            }
        });
        self.replied(reply, len)
    }
}

/// The server whose turn it is, by weight, of those for a transport and a family, and with this domain if one is given.
fn next<'s>(
    servers: &'s [Alternate],
    turn: usize,
    transport: Transport,
    family: Family,
    domain: Option<&Option<String>>,
) -> Option<&'s Alternate> {
    let fitting = || {
        servers.iter().filter(|server| {
            server.transports.contains(&transport)
                && Family::of(server.address.ip()) == family
                && domain.is_none_or(|domain| server.domain == *domain)
        })
    };
    let sum: u64 = fitting().map(|server| u64::from(server.weight)).sum();
    let mut left = (turn as u64).checked_rem(sum)?;
    fitting().find(|server| {
        let weight = u64::from(server.weight);
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen
    })
}
