//! The `turn` room.
