//! The header of the PROXY protocol, whatever segments it comes in.

use turnserver::relay::proxy::{LONGEST, Origin, Parsed, parse};

/// Bytes are the beginning of a connection.
pub(crate) fn run(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Parsed::Whole(origin, len) = whole {
        assert!(len <= bytes.len() && len <= LONGEST);
        if let Origin::Client { client, server } = origin {
            assert_eq!([client.ip(), server.ip()].map(|ip| ip.to_canonical()), [client.ip(), server.ip()]);
        }
    }
    assert!(whole != Parsed::Partial || bytes.len() < LONGEST, "a header that never ends");
    // Less of it is the beginning of the same, or is known to be none earlier.
    for len in 0..bytes.len().min(LONGEST) {
        match (parse(&bytes[..len]), whole) {
            (Parsed::Partial, _) => {}
            (Parsed::Malformed, whole) => assert_eq!(whole, Parsed::Malformed, "at {len}"),
            (part @ Parsed::Whole(..), whole) => assert_eq!(part, whole, "at {len}"),
        }
    }
}
