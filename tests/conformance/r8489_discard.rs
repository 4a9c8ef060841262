//! RFC 8489 §6.3, §6.3.2, §9: what is discarded in silence. "Silence" is proven by the order of answers: a Binding request
//! sent after the message is answered, and nothing else comes.

use crate::client::Client;
use crate::setup::{AUTHENTICATED, Session, connected, server};
use crate::wire::{
    ALLOCATE, BINDING, CHANGE_REQUEST, CHANNEL_BIND, CREATE_PERMISSION, DATA, DATA_METHOD, ERROR, INDICATION, LIFETIME,
    Msg, REFRESH, SEND, SUCCESS, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, allocate, send,
};

#[test]
fn r8489_6_3_01_first_bits_that_are_not_zero() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    for bits in [0x40, 0x80, 0xC0] {
        for message in [Msg::new(BINDING), allocate()] {
            let mut bytes = message.0;
            bytes[0] |= bits;
            client.silent(&bytes);
        }
    }
}

#[test]
fn r8489_6_3_02_r8656_5_08_a_wrong_cookie() {
    let default = server(&[]);
    let classic = server(&[("compatibility.rfc3489", "true")]);
    for server in [&default, &classic] {
        let mut client = Client::udp(server.ipv4("udp"));
        for kind in AUTHENTICATED {
            let mut bytes = Msg::new(kind).0;
            bytes[4] ^= 1;
            client.silent(&bytes);
        }
    }
    let mut bytes = Msg::new(BINDING).0;
    bytes[7] ^= 1;
    Client::udp(default.ipv4("udp")).silent(&bytes);
}

#[test]
fn r8489_6_3_03_a_length_that_makes_no_sense() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    let message = Msg::new(BINDING).u32(0xFFF0, 7).0;
    for length in [0u16, 1, 2, 3, 4, 5, 6, 7, 9, 12, 0xFFFC, 0xFFFF] {
        let mut bytes = message.clone();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        client.silent(&bytes);
    }
    // An attribute that claims more than there is.
    for length in [5u16, 8, 0xFFF0, 0xFFFF] {
        let mut bytes = message.clone();
        bytes[22..24].copy_from_slice(&length.to_be_bytes());
        client.silent(&bytes);
    }
    // Cut short at every byte, and followed by more.
    for length in 0..message.len() {
        client.silent(&message[..length]);
    }
    for extra in 1..9 {
        client.silent(&[&message[..], &vec![0; extra]].concat());
    }
}

#[test]
fn r8489_6_3_04_methods_that_are_not_supported() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    // 0x000, 0x002 (reserved), 0x005, 0x00A (Connect of RFC 6062), 0x07F, 0xFFF with their bits in place.
    for kind in [0x0000, 0x0002, 0x0005, 0x000A, 0x00EF, 0x3EEF] {
        for class in [0, INDICATION, SUCCESS, ERROR] {
            client.silent(&Msg::new(kind | class).0);
        }
    }
}

#[test]
fn r7983_9_01_reserved_methods() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    for method in [0x100u16, 0x101, 0x103, 0x200, 0x801, 0xF03] {
        let kind = method & 0xF | (method & 0x70) << 1 | (method & 0xF80) << 2;
        client.silent(&Msg::new(kind).0);
    }
}

#[test]
fn r8489_6_3_05_r8656_17_01_classes_that_a_method_does_not_have() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.allocate();
        for method in [SEND, DATA_METHOD] {
            let request = Msg::new(method).peer(([127, 0, 0, 1], 9)).attr(DATA, b"x");
            let signed = session.sign(request.clone());
            session.silent(&request.0);
            session.silent(&signed.0);
        }
        for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
            let signed = session.sign(Msg::new(method | INDICATION).u32(LIFETIME, 0));
            session.silent(&signed.0);
        }
        session.silent(&Msg::new(DATA_METHOD | INDICATION).peer(([127, 0, 0, 1], 9)).attr(DATA, b"x").0);
        // The Refresh indication with LIFETIME 0 has deleted nothing.
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn r8656_11_2_11_a_send_request_is_not_relayed() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    let request = session.sign(Msg::new(SEND).peer(peer.address).attr(DATA, b"x"));
    session.relays_nothing(&peer, &request.0);
}

#[test]
fn r8489_6_3_06_responses() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    for method in [BINDING, ALLOCATE, REFRESH, SEND, DATA_METHOD, CREATE_PERMISSION, CHANNEL_BIND] {
        client.silent(&Msg::new(method | SUCCESS).xor(XOR_MAPPED_ADDRESS, ([127, 0, 0, 1], 9)).0);
        client.silent(&Msg::new(method | ERROR).attr(9, &[0, 0, 4, 1]).0);
    }
}

#[test]
fn r8489_6_3_07_a_wrong_fingerprint() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for message in
            [Msg::new(BINDING).fingerprint(), allocate().fingerprint(), session.sign(allocate()).fingerprint()]
        {
            let last = message.0.len() - 1;
            let mut bytes = message.0;
            bytes[last] ^= 1;
            session.silent(&bytes);
        }
        let (right, wrong_place) =
            (session.sign(allocate()).fingerprint(), Msg::new(BINDING).fingerprint().u32(0xFFF0, 1));
        assert_eq!(session.client.request(&right).error(), None);
        session.send(&wrong_place.0);
        // FINGERPRINT must come last (8489-14.7-01); whether such a message is dropped or its tail ignored, it does no harm.
        session.fence();
    }
}

#[test]
fn r8489_6_3_08_authentication_comes_before_unknown_attributes() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    for method in AUTHENTICATED {
        assert_eq!(session.client.request(&Msg::new(method).attr(0x7FF0, b"x")).error(), Some(401));
        session.fail(Msg::new(method).attr(0x7FF0, b"x"), 420);
    }
}

#[test]
fn r8489_6_3_11_nothing_comes_back_for_what_is_discarded() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    for bytes in [&b""[..], b"\0", b"GET / HTTP/1.1\r\n\r\n", &[0; 20], &[0xFF; 100], &[0; 1400], &[0x16, 3, 1, 0, 0]] {
        client.silent(bytes);
    }
}

#[test]
fn r8489_6_3_2_01_indications_with_unknown_required_attributes() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let (mut session, peer, _) = connected(session);
        session.relays_nothing(&peer, &send(peer.address, b"x").attr(0x7FF0, b"y").0);
        session.send(&send(peer.address, b"optional").attr(0xFFF0, b"y").0);
        assert_eq!(peer.receive().0, b"optional");
    }
}

#[test]
fn r8489_6_3_2_02_an_indication_draws_no_response() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.silent(&Msg::new(BINDING | INDICATION).0);
        session.silent(&Msg::new(BINDING | INDICATION).attr(0x7FF0, b"x").0);
        session.silent(&send(([127, 0, 0, 1], 9).into(), b"x").0);
    }
}

#[test]
fn r8489_9_01_what_follows_message_integrity_has_no_effect() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let request =
            session.sign(allocate().u32(LIFETIME, 900)).attr(CHANGE_REQUEST, &[0, 0, 0, 6]).attr(0x7FF0, b"x");
        let reply = session.call_signed(&request);
        assert_eq!((reply.error(), reply.u32(LIFETIME)), (None, Some(900)));
        let request = session.sign(Msg::new(REFRESH)).u32(LIFETIME, 0).fingerprint();
        assert_eq!(session.call_signed(&request).u32(LIFETIME), Some(600));
        session.succeed(Msg::new(REFRESH));
        // MESSAGE-INTEGRITY-SHA256 may follow, and vouches for nothing that stands between the two.
        let (key, request) = (session.key(), session.identify(Msg::new(REFRESH)));
        let request = request.mi(&key).u32(LIFETIME, 0).attr(0x7FF0, b"x").mi256(&key);
        assert_eq!(session.call_signed(&request).u32(LIFETIME), Some(600));
        session.succeed(Msg::new(REFRESH));
    }
}

#[test]
fn r8489_9_02_what_follows_message_integrity_sha256_has_no_effect() {
    let server = server(&[]);
    for session in Session::each(&server) {
        let mut session = session.scheme(crate::setup::Scheme::Sha256);
        let request = session.sign(allocate()).attr(0x7FF0, b"x");
        assert!(session.call_signed(&request).has(XOR_RELAYED_ADDRESS));
        let request = session.sign(Msg::new(REFRESH)).u32(LIFETIME, 0).fingerprint();
        assert_eq!(session.call_signed(&request).u32(LIFETIME), Some(600));
        // Not even MESSAGE-INTEGRITY, which has its place before it.
        let request = session.sign(Msg::new(REFRESH)).attr(crate::wire::MESSAGE_INTEGRITY, &[0; 20]);
        assert_eq!(session.call_signed(&request).error(), None);
    }
}

#[test]
fn r7983_7_01_02_r8656_12_01_first_bytes_of_nothing_that_is_served() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::udp(&server));
    session.bind(0x4000, peer.address);
    for first in (4..64).chain(80..=255u8) {
        let mut channel = crate::wire::channel_data(0x4000, b"data");
        channel[0] = first;
        session.client.send(&channel);
        let mut binding = Msg::new(BINDING).0;
        binding[0] = first;
        session.client.send(&binding);
    }
    assert!(session.fence().is_empty());
    session.relays_nothing(&peer, &[0xFF]);
}
