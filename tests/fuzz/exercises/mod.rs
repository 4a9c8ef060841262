//! What is done with bytes: one exercise for each thing that takes them from outside, none of which they may break.
//!
//! An exercise panics if something does not hold. The fuzz targets (`fuzz/`) and `cargo test` run the same ones.

mod answers;
mod bytes;
mod dtls;
mod engine;
mod management;
mod names;
mod proxy;
mod settings;
#[allow(dead_code, reason = "each of those who run exercises needs another part")]
pub(crate) mod wire;

/// An exercise: its name, which is that of its fuzz target and corpus, and what it does with bytes.
pub(crate) type Exercise = (&'static str, fn(&[u8]));

/// Every one.
pub(crate) const ALL: &[Exercise] = &[
    ("message", wire::message),
    ("frame", wire::frame),
    ("proxy", proxy::run),
    ("dtls", dtls::run),
    ("rest", names::rest),
    ("token", names::token),
    ("toml", settings::toml),
    ("coturn", settings::coturn),
    ("answers", answers::run),
    ("management", management::run),
    ("engine", engine::run),
];
