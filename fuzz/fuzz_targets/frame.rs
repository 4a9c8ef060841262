//! A stream: the same frames, whatever segments it arrives in.
//!
//! The input's first byte is how many of the next bytes are sizes of segments; the rest is the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/stun/mod.rs"]
mod stun;

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let sizes: Vec<usize> = sizes.iter().copied().map(usize::from).collect();
    let whole = stun::exercise::cut(stream, &[]);
    assert_eq!(stun::exercise::cut(stream, &sizes), whole);
    assert_eq!(stun::exercise::cut(stream, &[1]), whole);
});
