//! Refresh (RFC 8656 §8).

use std::time::Duration;

use super::{
    Effect, EndReason, Family, Handle, Server, Time, allocate::family_code, authentication::Requester,
    reply::ReplyContext, time::whole_seconds,
};
use crate::stun::{AttributeType, ErrorCode, Message};

impl Server {
    pub(super) fn refresh(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        requester: &Requester,
        context: &ReplyContext,
        reply: &mut [u8],
        now: Time,
    ) -> Result<usize, ErrorCode> {
        let lifetime = self.prolong(handle, message, requester, now)?;
        Ok(context.success(&self.rules, reply, |writer| {
            writer.u32(AttributeType::LIFETIME, whole_seconds(lifetime));
        }))
    }

    /// Gives an allocation, or the address of one family, its new lifetime and returns it; 0 is its end. From then on it is
    /// made with the credential of this request, and ends no later than that.
    pub(super) fn prolong(
        &mut self,
        handle: Handle,
        message: &Message<'_>,
        requester: &Requester,
        now: Time,
    ) -> Result<Duration, ErrorCode> {
        let requested = match message.get_u32(AttributeType::LIFETIME) {
            None => None,
            Some(Ok(seconds)) => Some(seconds),
            Some(Err(_)) => return Err(ErrorCode::BadRequest),
        };
        let chosen = match family_code(message, AttributeType::REQUESTED_ADDRESS_FAMILY)? {
            None => None,
            Some(code) => {
                let family = Family::from_code(code).ok_or(ErrorCode::PeerAddressFamilyMismatch)?;
                if self.table[handle].relayed(family, now).is_none() {
                    return Err(ErrorCode::PeerAddressFamilyMismatch);
                }
                Some(family)
            }
        };
        if requested == Some(0) {
            match chosen {
                Some(family) => self.end_family(handle, family, EndReason::Deleted, now),
                None => self.end(handle, EndReason::Deleted, now),
            }
            Ok(Duration::ZERO)
        } else {
            let lifetime = requester.lifetime(self.rules.lifetime(requested), now);
            let allocation = &mut self.table[handle];
            allocation.owner.renew(requester);
            for family in Family::ALL {
                if chosen.is_none_or(|chosen| chosen == family)
                    && let Some(relayed) = &mut allocation.relayed[family as usize]
                {
                    relayed.expires = now + lifetime;
                }
            }
            // The other family's, too, does not outlive the credential.
            for relayed in allocation.relayed.iter_mut().flatten() {
                relayed.expires = relayed.expires.min(requester.until);
            }
            // A shorter lifetime than before may come up earlier than what is filed.
            self.table.arm(handle);
            self.effects.push(Effect::Refreshed(handle));
            Ok(lifetime)
        }
    }
}
