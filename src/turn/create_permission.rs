//! CreatePermission (RFC 8656 §10): all of the request or nothing.

use std::net::{IpAddr, SocketAddr};

use super::{
    Effect, Family, Handle, Server, Time,
    reply::{Reject, ReplyContext, Words},
};
use crate::stun::{AttributeType, ErrorCode, Message};

/// The answer about a peer that the policy refuses.
pub(super) const PEER_FORBIDDEN: Reject =
    Reject { error: ErrorCode::Forbidden, words: Words::And("this peer address is not allowed") };

impl Server {
    pub(super) fn create_permission(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        context: &ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> Result<usize, Reject> {
        let peers: Vec<IpAddr> = message
            .xor_addresses(AttributeType::XOR_PEER_ADDRESS)
            .map(|peer| peer.map(|peer| peer.ip()).map_err(|_| ErrorCode::BadRequest))
            .collect::<Result<_, _>>()?;
        if peers.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        for peer in &peers {
            self.check_peer_family(handle, *peer, now)?;
        }
        let realm = self.table[handle].owner.realm;
        if let Some(refused) = peers.iter().find(|peer| !self.policy.permits_ip(realm, **peer)) {
            self.note_peer(handle, SocketAddr::new(*refused, 0), now);
            return Err(PEER_FORBIDDEN);
        }
        let expires = now + self.rules.permission_lifetime;
        let allocation = &self.table[handle];
        if !allocation.permissions.has_room(&peers, self.rules.max_permissions, now) {
            return Err(ErrorCode::InsufficientCapacity.into());
        }
        let new = allocation.permissions.count_new(&peers, now);
        self.add_peers(handle, new, now)?;
        let allocation = &mut self.table[handle];
        allocation.history.peers = allocation.history.peers.saturating_add(1);
        for peer in peers {
            allocation.permissions.install(peer, expires);
        }
        self.table.arm(handle);
        self.effects.push(Effect::Permitted(handle));
        Ok(context.success(&self.rules, reply, |_| {}))
    }

    /// A peer must be of the family of a relayed address (RFC 8656 §10.2, §12.2).
    pub(super) fn check_peer_family(&self, handle: Handle, peer: IpAddr, now: Time) -> Result<(), ErrorCode> {
        self.table[handle].relayed(Family::of(peer), now).map(|_| ()).ok_or(ErrorCode::PeerAddressFamilyMismatch)
    }
}
