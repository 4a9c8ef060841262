//! What the tests, benches and fuzz targets of the codec share.

#![allow(dead_code, reason = "each of them uses another part")]

pub(crate) mod exercise;
pub(crate) mod samples;
#[path = "../../src/stun/vectors.rs"]
pub(crate) mod vectors;
