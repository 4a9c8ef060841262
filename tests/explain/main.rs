//! `turnserver explain`: every reason, caused by a client and told in words; what is known when nothing is wrong, and when nothing
//! is known; and that a flood neither takes memory nor makes those forgotten who are in earnest.
//!
//! Needs `openssl` and coturn's `turnutils_uclient`.

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the tests of management use all of it")]
#[path = "../manage/web.rs"]
mod web;

mod asking;
mod bounds;
mod credentials;
mod handshakes;
mod limits;
mod peers;
mod protocols;
mod sessions;
mod support;
