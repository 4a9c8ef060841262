//! One datagram as a message, and a stream cut into frames. What is checked stands in `tests/stun/exercise.rs`.

use std::sync::LazyLock;

use turnserver::stun::IntegrityKey;

#[path = "../../stun/mod.rs"]
pub(crate) mod stun;

static KEYS: LazyLock<[IntegrityKey; 2]> = LazyLock::new(stun::samples::keys);

/// Bytes are a datagram: STUN of today or of RFC 3489, or ChannelData.
pub(crate) fn message(bytes: &[u8]) {
    stun::exercise::everything(bytes, &*KEYS);
}

/// The first byte is how many of the next bytes are sizes of segments; the rest is a stream, of which the same frames come,
/// whatever segments it arrives in.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let sizes: Vec<usize> = sizes.iter().copied().map(usize::from).collect();
    let whole = stun::exercise::cut(stream, &[]);
    assert_eq!(stun::exercise::cut(stream, &sizes), whole);
    assert_eq!(stun::exercise::cut(stream, &[1]), whole);
}
