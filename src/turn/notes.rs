//! What is noted when: from the outcome of a request to a [`Reason`].

use std::{fmt::Display, net::SocketAddr};

use super::{
    Answer, Client, Ended, FiveTuple, Mechanism, Policy, RealmId, Reason, Recollection, Server, Text, Time, Tried,
    Whom,
    allocation::Allocation,
    allocation::EndReason,
    authentication::{Failure, Requester, SHORTEST_TERM, access_token},
    counters,
};
use crate::stun::{AttributeType, ErrorCode, Message, Method};

/// What a request's credentials were compared with.
fn tried(answer: Answer<'_>) -> Tried {
    let mut tried = Tried::default();
    match answer {
        Answer::Known { credentials, .. } => {
            for credential in credentials {
                match Mechanism::of(credential) {
                    Mechanism::Rest => tried.secrets = tried.secrets.saturating_add(1),
                    Mechanism::Token => tried.token = true,
                    _ => tried.password = true,
                }
            }
        }
        Answer::Stored(_) => tried.store = true,
        Answer::Unasked | Answer::Unavailable => tried.session = true,
    }
    tried
}

/// Why a request was not authenticated. `owner` is who made the allocation on its 5-tuple.
pub(super) fn reason(
    message: &Message<'_>,
    client: &Client,
    owner: Option<&Requester>,
    answer: Answer<'_>,
    failure: Failure,
    now: Time,
) -> Reason {
    match failure {
        Failure::Challenge if !is_protected(message) => Reason::Challenged([0, 0, 0, client.tuple.client.port()]),
        Failure::Challenge => match answer {
            Answer::Unasked if owner.is_some_and(|owner| owner.until.since(now) < SHORTEST_TERM) => Reason::Expired,
            Answer::Known { credentials: [], .. } | Answer::Stored([]) if access_token(message).is_some() => {
                Reason::BadToken
            }
            Answer::Known { credentials: [], .. } => Reason::UnknownUser { store: false },
            // A name that nobody can have: not text, or hidden where that is not offered.
            Answer::Unasked if owner.is_none() => Reason::UnknownUser { store: false },
            Answer::Stored([]) => Reason::UnknownUser { store: true },
            answer => Reason::WrongPassword(tried(answer)),
        },
        Failure::StaleNonce { .. } | Failure::UnprovedAddress => Reason::StaleNonce,
        Failure::BadRequest => Reason::BadCredentials,
        Failure::UnexpectedToken => Reason::UnexpectedToken,
        Failure::Unavailable => Reason::StoreUnavailable,
    }
}

/// Whether it has been signed, by whomever.
pub(super) fn is_protected(message: &Message<'_>) -> bool {
    message.has(AttributeType::MESSAGE_INTEGRITY) || message.has(AttributeType::MESSAGE_INTEGRITY_SHA256)
}

/// The user that a request names.
fn named(message: &Message<'_>) -> Text {
    message.get(AttributeType::USERNAME).map_or(Text::EMPTY, Text::new)
}

impl Server {
    /// Notes why a request is not authenticated.
    pub(super) fn note_failure(&mut self, client: &Client, message: &Message<'_>, reason: Reason, now: Time) {
        // Whoever has a nonce of ours receives at its address.
        let proved = message.get(AttributeType::NONCE).is_some_and(|nonce| {
            let (_, features, nonces) = self.authenticator.challenge(client.realm);
            nonces.is_valid(nonce, features, &client.tuple, now)
        });
        if is_protected(message) {
            self.records.returned(&client.tuple);
        }
        self.records.note(&client.tuple, proved, reason, named(message), now);
    }

    /// Notes that the source draws too much.
    pub(super) fn note_rate(&mut self, client: &Client, now: Time) {
        self.records.note(&client.tuple, false, Reason::RateLimited, Text::EMPTY, now);
    }

    /// Notes that a request was authenticated.
    pub(super) fn note_passed(&mut self, client: &Client, requester: &Requester, now: Time) {
        self.records.passed(&client.tuple, Text::new(requester.subject.user.as_bytes()), now);
    }

    /// Notes the error that a request of this user gets with this response, if it is one.
    pub(super) fn note_response(&mut self, client: &Client, user: &str, method: Method, response: &[u8], now: Time) {
        let Some(code) = counters::error_code(response) else { return };
        let closed = self.policy.refuses_allocations().is_some_and(|error| error.code() == code);
        let reason = match method {
            // The peer was noted where it was refused.
            Method::CreatePermission | Method::ChannelBind | Method::Connect if code == ErrorCode::Forbidden.code() => {
                return;
            }
            Method::Allocate if code == ErrorCode::TryAlternate.code() => Reason::Redirected,
            Method::Allocate if closed => Reason::Draining(code),
            method => Reason::Refused(method, code),
        };
        self.records.note(&client.tuple, true, reason, Text::new(user.as_bytes()), now);
    }

    /// Notes a limit of allocations.
    pub(super) fn note_limit(&mut self, client: &Client, user: &str, key: &'static str, now: Time) {
        self.records.note(&client.tuple, true, Reason::Limit(key), Text::new(user.as_bytes()), now);
    }

    /// Notes a peer that the rules have refused to an allocation; port 0 for any.
    pub(super) fn note_peer(&mut self, allocation: super::Handle, peer: SocketAddr, now: Time) {
        let Allocation { client, owner, .. } = &self.table[allocation];
        let reason = Reason::PeerRefused { peer, realm: owner.realm };
        self.records.note(&client.tuple, true, reason, Text::new(owner.subject.user.as_bytes()), now);
    }

    /// Notes something that is of no protocol that is served where it has come in.
    pub fn note_not_served(&mut self, client: &FiveTuple, bytes: &[u8], now: Time) {
        let mut start = [0; 4];
        start.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.records.note(client, false, Reason::NotServed(start), Text::EMPTY, now);
    }

    /// Notes data for a peer on a 5-tuple without a session.
    pub(super) fn note_no_session(&mut self, client: &FiveTuple, now: Time) {
        self.records.note(client, false, Reason::NoSession, Text::EMPTY, now);
    }

    /// Notes a handshake that has failed, with what the library says of it. Its client has shown that it receives.
    pub fn note_handshake(&mut self, client: &FiveTuple, alert: Option<u8>, error: &dyn Display, now: Time) {
        let text = Text::new(error.to_string().as_bytes());
        self.records.note(client, true, Reason::Handshake { alert }, text, now);
    }

    /// Notes a connection that is one too many.
    pub fn note_too_many_connections(&mut self, client: &FiveTuple, now: Time) {
        self.records.note(client, true, Reason::TooManyConnections, Text::EMPTY, now);
    }

    /// Notes the end of a session.
    pub(super) fn note_end(&mut self, allocation: &Allocation, reason: EndReason, now: Time) {
        self.records.end(Ended {
            id: allocation.id,
            user: Text::new(allocation.owner.subject.user.as_bytes()),
            client: allocation.client.tuple,
            begun: allocation.created,
            at: now,
            reason,
            to_peers: allocation.to_peers,
            to_client: allocation.to_client,
            history: allocation.history,
        });
    }

    /// What is known of somebody: what was refused to them, and their sessions that have ended.
    #[must_use]
    pub fn recall(&self, whom: &Whom) -> Recollection {
        self.records.recall(whom)
    }

    /// The rule that refuses a peer to users of this realm, in words; `None` if it is not refused now.
    #[must_use]
    pub fn rule(&self, realm: RealmId, peer: SocketAddr) -> Option<String> {
        Policy::denial(&*self.policy, realm, peer)
    }
}
