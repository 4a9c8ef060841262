//! The `stun` room.
