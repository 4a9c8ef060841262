//! The engine under whatever may happen to it: requests by users, strangers and forgers, data, peers, ICMP errors, connections, time,
//! answers of stores, revocations and reloads, in any order. `shadow` knows from the messages alone what must hold, and says so after
//! each step; `play` turns bytes into what happens. The world around it is the one of `tests/engine`.

mod play;
mod shadow;
#[allow(dead_code, unused_imports, reason = "the tests of the engine use more of it")]
#[path = "../../../engine/support/mod.rs"]
pub(crate) mod support;

use super::bytes::Bytes;

/// Bytes are what happens.
pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut play = play::Play::new(&mut bytes);
    while !bytes.is_empty() {
        play.step(&mut bytes);
    }
    play.finish();
}
