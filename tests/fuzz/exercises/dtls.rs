//! What is looked at of DTLS before the library is shown anything.

use turnserver::{
    relay::dtls::{
        hello::{self, Cookies, VERIFY_LEN},
        records,
    },
    turn::{FiveTuple, Time, Transport},
};

use super::bytes::Bytes;

/// Bytes are a datagram: nobody is taken to have proved an address, unless with the cookie that was sent there.
pub(crate) fn run(bytes: &[u8]) {
    let protected = records::protected(bytes);
    assert!(protected.is_none_or(|rest| bytes.ends_with(rest) && rest.len() >= 13));
    assert!(records::are_long_enough(bytes, 0));
    if records::are_long_enough(bytes, 24) {
        assert!(records::are_long_enough(bytes, 23));
    }

    let Some(hello) = hello::parse(bytes) else { return };
    assert!(bytes.len() > VERIFY_LEN, "an answer that is longer than what it answers");
    let tuple = |port| FiveTuple {
        client: ([198, 51, 100, 1], port).into(),
        server: ([192, 0, 2, 1], 5349).into(),
        transport: Transport::Dtls,
    };
    let (cookies, now) = (Cookies::new(&[1; 32]), Time(60_000_000));
    assert!(!cookies.has_proved(&hello, &tuple(4000), now), "a guessed cookie");
    // The same with the cookie, as a client repeats it.
    let verify = cookies.challenge(&hello, &tuple(4000), now);
    let Some(second) = with_cookie(bytes, &verify[VERIFY_LEN - 16..]) else { return };
    let Some(second) = hello::parse(&second) else { panic!("the hello is no longer one with its cookie") };
    assert!(cookies.has_proved(&second, &tuple(4000), now));
    assert!(!cookies.has_proved(&second, &tuple(4001), now));
    assert!(!cookies.has_proved(&second, &tuple(4000), Time(now.0 + 120_000)));
}

/// The ClientHello with this cookie in the place of its own, if all lengths leave room for it.
fn with_cookie(bytes: &[u8], cookie: &[u8]) -> Option<Vec<u8>> {
    let mut left = Bytes::new(bytes);
    let (mut record, mut message) = (left.take(13).to_vec(), left.take(12).to_vec());
    let before = left.take(34).to_vec();
    let session_len = left.u8();
    let session = left.take(session_len.into());
    let old = left.u8();
    left.take(old.into());
    // What else is in the fragment is not looked at.
    let body = [&before[..], &[session_len], session, &[16], cookie].concat();
    let len = u16::try_from(body.len()).ok()?.to_be_bytes();
    (message[9], message[10], message[11]) = (0, len[0], len[1]);
    record[11..13].copy_from_slice(&u16::try_from(body.len() + 12).ok()?.to_be_bytes());
    Some([record, message, body].concat())
}
