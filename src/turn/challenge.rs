//! The answers to requests that are not authenticated (RFC 8489 §9.2.4).

use super::{Client, Drop, Server, Step, Time, Unauthenticated, authentication::Failure, reply::ReplyContext};
use crate::stun::{AttributeType, ErrorCode, Message, MessageWriter};

impl Server {
    /// The answer to a request that is not authenticated (RFC 8489 §9.2.4).
    pub(super) fn refuse<'m>(
        &mut self,
        client: &Client,
        message: &Message<'_>,
        failure: Failure,
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        // A stale nonce comes with the right credentials, and whoever is told that a store is out of reach was admitted before it
        // was asked; everything else anybody can provoke.
        if !matches!(failure, Failure::StaleNonce | Failure::Unavailable)
            && !self.policy.admits(Unauthenticated::Challenge, client.tuple.client.ip(), now)
        {
            return self.drop(Drop::RateLimited);
        }
        let context = ReplyContext::new(message, None);
        let error = match failure {
            Failure::Challenge => ErrorCode::Unauthenticated,
            Failure::StaleNonce | Failure::UnprovedAddress => ErrorCode::StaleNonce,
            Failure::BadRequest => return self.error(&context, ErrorCode::BadRequest, reply),
            Failure::Unavailable => return self.error(&context, ErrorCode::ServerError, reply),
            Failure::UnexpectedToken => return self.unknown_attributes(&context, message.unknown_required(), reply),
        };
        // A client whose realm there is not has got a 400.
        let Some(realm) = self.rules.realms.get(client.realm.index()) else { return self.drop(Drop::NotServed) };
        let (offered, features) = self.authenticator.challenge(client.realm);
        let nonce = self.authenticator.nonces.issue(features, &client.tuple, now, &mut self.rng);
        let len = context.error(&self.rules, reply, error, |writer: &mut MessageWriter<'_>| {
            writer.attribute(AttributeType::REALM, realm.name.as_bytes());
            writer.attribute(AttributeType::NONCE, &nonce);
            writer.attribute(AttributeType::PASSWORD_ALGORITHMS, offered);
            if let (ErrorCode::Unauthenticated, Some(server_name)) = (error, &realm.third_party) {
                writer.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION, server_name.as_bytes());
            }
        });
        self.replied(Err(len))
    }
}
