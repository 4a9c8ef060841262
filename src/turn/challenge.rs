//! The answers to requests that are not authenticated (RFC 8489 §9.2.4), and what checks of credentials count as.

use super::{
    Answer, Client, Drop, Mechanism, Reason, Server, Step, Time, Transport, Unauthenticated, Verdict,
    authentication::{Failure, Outcome, Proof, Requester, access_token},
    notes,
    reply::{Reject, ReplyContext, Words},
};
use crate::stun::{AttributeType, ErrorCode, Message, MessageWriter};

/// What a check of a request's credentials counts as; `None` if there is more to ask first. `owner` is who made the allocation
/// on its 5-tuple.
pub(super) fn judge(
    message: &Message<'_>,
    owner: Option<&Requester>,
    answer: Answer<'_>,
    outcome: &Outcome<'_>,
) -> Option<(Mechanism, Verdict)> {
    let verdict = match outcome {
        Outcome::Ask(_) | Outcome::AskFurther(_) => return None,
        Outcome::Passed(requester, Proof::Good) => return Some((requester.mechanism(), Verdict::Passed)),
        Outcome::Passed(requester, Proof::Over) => return Some((requester.mechanism(), Verdict::Expired)),
        Outcome::Failed(Failure::Challenge) => Verdict::Unauthenticated,
        Outcome::Failed(Failure::StaleNonce { .. }) => Verdict::StaleNonce,
        Outcome::Failed(Failure::UnprovedAddress) => Verdict::UnprovedAddress,
        Outcome::Failed(Failure::BadRequest) => Verdict::BadRequest,
        Outcome::Failed(Failure::UnexpectedToken) => Verdict::UnexpectedToken,
        Outcome::Failed(Failure::Unavailable) => Verdict::Unavailable,
    };
    let mechanism = match answer {
        _ if !notes::is_protected(message) => Mechanism::None,
        _ if access_token(message).is_some() => Mechanism::Token,
        Answer::Stored(_) | Answer::Unavailable => Mechanism::Store,
        Answer::Known { credentials: [first, ..], .. } => Mechanism::of(first),
        Answer::Known { credentials: [], .. } => Mechanism::Unknown,
        Answer::Unasked => owner.map_or(Mechanism::Unknown, Requester::mechanism),
    };
    Some((mechanism, verdict))
}

impl Server {
    /// The answer to a request that is not authenticated (RFC 8489 §9.2.4), for this reason.
    pub(super) fn refuse<'m>(
        &mut self,
        client: &Client,
        message: &Message<'_>,
        (failure, reason): (Failure, Reason),
        reply: &mut [u8],
        now: Time,
    ) -> Step<'m> {
        // Whoever is told that a store is out of reach was admitted before it was asked. Everything else anybody can have sent to
        // somebody else, the 438 to right credentials as any user can.
        let is_free = match failure {
            Failure::StaleNonce { proved } => proved || client.tuple.transport != Transport::Udp,
            Failure::Unavailable => true,
            _ => false,
        };
        if !is_free && !self.policy.admits(Unauthenticated::Challenge, client.tuple.client.ip(), now) {
            self.note_rate(client, now);
            return self.drop(Drop::RateLimited);
        }
        self.note_failure(client, message, reason, now);
        let context = ReplyContext::new(message, None);
        let error = match failure {
            Failure::Challenge => ErrorCode::Unauthenticated,
            Failure::StaleNonce { .. } | Failure::UnprovedAddress => ErrorCode::StaleNonce,
            Failure::BadRequest => return self.error(&context, ErrorCode::BadRequest, reply),
            Failure::Unavailable => return self.error(&context, ErrorCode::ServerError, reply),
            Failure::UnexpectedToken => return self.unknown_attributes(&context, message.unknown_required(), reply),
        };
        // A client whose realm there is not has got a 400.
        let Some(realm) = self.rules.realms.get(client.realm.index()) else { return self.drop(Drop::NotServed) };
        let (offered, features, nonces) = self.authenticator.challenge(client.realm);
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let nonce = nonces.issue(features, &client.tuple, now, self.next_nonce);
        // Whoever this goes to may not have asked for it; a request with credentials is long itself.
        let is_first = client.tuple.transport == Transport::Udp && !notes::is_protected(message);
        let words = if is_first { Words::Short } else { Words::Usual };
        let len = context.error(&self.rules, reply, Reject { error, words }, |writer: &mut MessageWriter<'_>| {
            writer.attribute(AttributeType::REALM, realm.name.as_bytes());
            writer.attribute(AttributeType::NONCE, &nonce);
            writer.attribute(AttributeType::PASSWORD_ALGORITHMS, offered);
            if let (ErrorCode::Unauthenticated, Some(server_name)) = (error, &realm.third_party) {
                writer.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION, server_name.as_bytes());
            }
        });
        self.replied(reply, len)
    }
}
