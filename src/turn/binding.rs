//! Binding (RFC 8489 §12): answered from the stack, no state, no credentials.

use super::{Client, Drop, Server, Step, Time, Unauthenticated, reply::ReplyContext};
use crate::stun::{AttributeType, ErrorCode, Message};

impl Server {
    pub(super) fn binding<'m>(
        &mut self,
        message: &Message<'_>,
        client: &Client,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        if !self.policy.admits(Unauthenticated::Binding, client.tuple.client.ip(), now) {
            return self.drop(Drop::RateLimited);
        }
        let context = ReplyContext::new(message, None);
        if message.has_unknown_required() {
            return self.unknown_attributes(&context, message.unknown_required(), reply);
        }
        let mapped = client.tuple.client;
        let len = context.success(&self.rules, reply, |writer| {
            if message.is_classic() {
                writer.address(AttributeType::MAPPED_ADDRESS, mapped);
            } else {
                writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
            }
        });
        self.replied(Ok(len))
    }

    /// 420 with all that was not understood (RFC 8489 §6.3.1).
    pub(super) fn unknown_attributes<'m>(
        &mut self,
        context: &ReplyContext,
        unknown: impl Iterator<Item = AttributeType>,
        reply: &mut [u8],
    ) -> Step<'m> {
        /// Keeps the response within the size for an unknown path MTU (RFC 8489 §6.1) whatever it is asked.
        const LIMIT: usize = 400;
        let len = context.error(&self.rules, reply, ErrorCode::UnknownAttribute, |writer| {
            writer.unknown_attributes(unknown, LIMIT);
        });
        self.replied(Err(len))
    }
}
