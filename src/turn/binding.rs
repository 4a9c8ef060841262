//! Binding (RFC 8489 §12): answered from the stack, no state, no credentials. Where NAT discovery is offered, it answers
//! from the address and to the port that the request asks for (RFC 5780 §6.1).

use super::{
    Client, Drop, Elsewhere, Server, Step, Time, Unauthenticated,
    discovery::{self, Corner, Wishes},
    reply::ReplyContext,
};
use crate::stun::{AttributeType, ErrorCode, Message};

impl Server {
    pub(super) fn binding<'m>(
        &mut self,
        message: &Message<'_>,
        client: &Client,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        let mapped = client.tuple.client;
        if !self.policy.admits(Unauthenticated::Binding, mapped.ip(), now) {
            self.note_rate(client, now);
            return self.drop(Drop::RateLimited);
        }
        let context = ReplyContext::new(message, None);
        let classic = message.is_classic();
        let corner = Corner::of(&client.tuple, &self.rules.discovery);
        if message.has_unknown_required() {
            let understood = discovery::understood(corner.as_ref(), client.tuple.transport, classic);
            let mut unknown = message.unknown_required().filter(|found| !understood.contains(found)).peekable();
            if unknown.peek().is_some() {
                return self.unknown_attributes(&context, unknown, reply);
            }
        }
        let Some(corner) = corner else {
            let len = context.success(&self.rules, reply, |writer| {
                if classic {
                    writer.address(AttributeType::MAPPED_ADDRESS, mapped);
                } else {
                    writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
                }
            });
            return self.replied(reply, len);
        };
        let Ok(wishes) = Wishes::read(message) else { return self.error(&context, ErrorCode::BadRequest, reply) };
        let origin = corner.changed(wishes.change_address, wishes.change_port);
        let reply_len = reply.len();
        let len = context.success(&self.rules, reply, |writer| {
            if !classic {
                writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
            }
            writer.address(AttributeType::MAPPED_ADDRESS, mapped);
            wishes.write(writer, (&corner, &origin), classic, reply_len);
        });
        let mut to = mapped;
        to.set_port(wishes.response_port.unwrap_or(mapped.port()));
        if origin.local() == client.tuple.server && to == mapped {
            return self.replied(reply, len);
        }
        self.replied_elsewhere(reply, Elsewhere { len, from: origin.local(), to })
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
        self.replied(reply, len)
    }
}
