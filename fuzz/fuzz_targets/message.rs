//! One datagram: parse, every accessor, integrity, ChannelData, framing.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use turnserver::stun::IntegrityKey;

#[path = "../../tests/stun/mod.rs"]
mod stun;

static KEYS: LazyLock<[IntegrityKey; 2]> = LazyLock::new(stun::samples::keys);

fuzz_target!(|bytes: &[u8]| {
    stun::exercise::everything(bytes, &*KEYS);
});
