//! The wire: STUN messages (RFC 8489), TURN attributes (RFC 8656) and ChannelData. Bytes to values and back.
//!
//! One reader ([`Message`]) and one writer ([`MessageWriter`]) serve the hot and the cold path alike. The reader makes one
//! pass and keeps offsets into the caller's bytes; the writer fills the caller's buffer. Neither allocates.
//!
//! Every byte that comes in here is hostile: indexing and unchecked arithmetic are denied in this room, and a message that
//! does not parse is an error value, never a panic. Sockets, clocks, users and allocations do not belong here.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod address;
pub mod attribute;
pub mod channel_data;
pub mod demultiplex;
pub mod error_code;
pub mod fingerprint;
pub mod frame;
pub mod integrity;
pub mod kind;
pub mod message;
pub mod password_algorithm;
#[cfg(test)]
mod vectors;
pub mod writer;

pub use attribute::AttributeType;
pub use channel_data::{ChannelData, ChannelNumber};
pub use error_code::ErrorCode;
pub use integrity::{IntegrityKey, MacAlgorithm};
pub use kind::{Class, Method};
pub use message::{Message, ParseError};
pub use password_algorithm::PasswordAlgorithm;
pub use writer::MessageWriter;

/// Magic cookie (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes of a STUN header (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;

/// A 96-bit transaction id (RFC 8489 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransactionId(pub [u8; 12]);

/// Bytes that `len` occupies when padded to the 32-bit boundary that attributes and stream ChannelData end on.
///
/// Saturates instead of wrapping, so a hostile length can only become a length that nothing satisfies.
#[must_use]
pub const fn padded(len: usize) -> usize {
    len.saturating_add(3) & !3
}
