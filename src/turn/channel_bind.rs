//! ChannelBind (RFC 8656 §12).

use super::{
    Effect, Handle, Server, Time,
    channel::BindError,
    create_permission::PEER_FORBIDDEN,
    reply::{Reject, ReplyContext},
};
use crate::stun::{AttributeType, ChannelNumber, ErrorCode, Message};

impl Server {
    pub(super) fn channel_bind(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        context: &ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> Result<usize, Reject> {
        // There are no datagrams to carry in channels (RFC 6062 §3).
        if self.table[handle].connections.is_some() {
            return Err(ErrorCode::BadRequest.into());
        }
        // Two bytes of number, two reserved ones that are ignored (RFC 8656 §18.1).
        let Some(&[high, low, _, _]) = message.get(AttributeType::CHANNEL_NUMBER) else {
            return Err(ErrorCode::BadRequest.into());
        };
        let number = u16::from_be_bytes([high, low]);
        let range = self.rules.channels();
        let Some(Ok(peer)) = message.get_xor_address(AttributeType::XOR_PEER_ADDRESS) else {
            return Err(ErrorCode::BadRequest.into());
        };
        let number = ChannelNumber(number);
        if !range.contains(&number.0) || self.table[handle].channels.conflict(number, peer, now) {
            return Err(ErrorCode::BadRequest.into());
        }
        self.check_peer_family(handle, peer.ip(), now)?;
        // Nothing can be sent to port 0.
        if peer.port() == 0 || !self.policy.permits(self.table[handle].owner.realm, peer) {
            self.note_peer(handle, peer, now);
            return Err(PEER_FORBIDDEN);
        }
        let allocation = &self.table[handle];
        if !allocation.permissions.has_room(&[peer.ip()], self.rules.max_permissions, now) {
            return Err(ErrorCode::InsufficientCapacity.into());
        }
        let is_new = allocation.channels.number(peer, now).is_none();
        self.add_peers(handle, usize::from(is_new), now)?;
        let rules = &self.rules;
        let allocation = &mut self.table[handle];
        allocation.channels.bind(number, peer, now + rules.channel_lifetime, rules.max_channels, now).map_err(
            |error| match error {
                BindError::Conflict => ErrorCode::BadRequest,
                BindError::Full => ErrorCode::InsufficientCapacity,
            },
        )?;
        allocation.history.peers = allocation.history.peers.saturating_add(1);
        allocation.permissions.install(peer.ip(), now + rules.permission_lifetime);
        self.table.arm(handle);
        self.effects.push(Effect::Bound(handle, number));
        Ok(context.success(&self.rules, reply, |_| {}))
    }
}
