//! Responses: what all of them have in common.

use super::Rules;
use crate::stun::{AttributeType, Class, ErrorCode, IntegrityKey, Message, MessageWriter, message::RequestHead};

/// An error, and in what words a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) error: ErrorCode,
    pub(super) words: Words,
}

/// A reason phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// That which the RFCs recommend.
    Usual,
    /// More behind that.
    And(&'static str),
    /// A short one, for whoever may not have asked.
    Short,
}

impl From<ErrorCode> for Reject {
    fn from(error: ErrorCode) -> Self {
        Self { error, words: Words::Usual }
    }
}

/// What a response needs to know of its request.
#[derive(Debug, Clone)]
pub(super) struct ReplyContext {
    head: RequestHead,
    fingerprint: bool,
    /// Signs the response; `None` before authentication and for anonymous clients.
    key: Option<IntegrityKey>,
}

impl ReplyContext {
    pub(super) fn new(request: &Message<'_>, key: Option<IntegrityKey>) -> Self {
        Self { head: request.head(), fingerprint: request.has(AttributeType::FINGERPRINT), key }
    }

    /// Whether the response will be protected with MESSAGE-INTEGRITY-SHA256.
    pub(super) fn signs_with_sha256(&self) -> bool {
        matches!(self.key, Some(IntegrityKey::Sha256(_)))
    }

    /// Writes a success response; `attributes` adds what is particular to it. Returns its length.
    pub(super) fn success(
        &self,
        rules: &Rules,
        reply: &mut [u8],
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) -> usize {
        let mut writer = MessageWriter::response(reply, self.head, Class::Success);
        attributes(&mut writer);
        self.seal(rules, writer)
    }

    /// Writes an error response; `attributes` adds what is particular to it. Returns its length.
    pub(super) fn error(
        &self,
        rules: &Rules,
        reply: &mut [u8],
        error: impl Into<Reject>,
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) -> usize {
        let Reject { error, words } = error.into();
        let mut writer = MessageWriter::response(reply, self.head, Class::Error);
        match words {
            Words::Usual => writer.error_code(error),
            Words::And(words) => writer.error_code_with(error, words),
            Words::Short => writer.error_code_in_short(error),
        };
        attributes(&mut writer);
        self.seal(rules, writer)
    }

    /// SOFTWARE, integrity, FINGERPRINT, in this order. A response that does not fit its buffer has length 0: nothing is
    /// sent. [`super::REPLY_LEN`] is large enough for all of them.
    fn seal(&self, rules: &Rules, mut writer: MessageWriter<'_>) -> usize {
        if let Some(software) = &rules.software {
            writer.attribute(AttributeType::SOFTWARE, software.as_bytes());
        }
        if let Some(key) = &self.key {
            writer.integrity(key);
        }
        if self.fingerprint || rules.always_fingerprint {
            writer.fingerprint();
        }
        writer.finish().unwrap_or(0)
    }
}
