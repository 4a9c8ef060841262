//! RFC 8489 §5, §6.1, §6.3.1, §12, §14, §16: what requests draw and how it is encoded.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use crate::client::Client;
use crate::setup::{AUTHENTICATED, Peer, Session, V4, V6, connected, portable, server};
use crate::wire::{
    ALLOCATE, BINDING, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, ERROR, ERROR_CODE, LIFETIME, Msg, REFRESH,
    Reply, SOFTWARE, SUCCESS, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, allocate,
    channel_data,
};

fn clients(server: &crate::setup::Server) -> [Client; 6] {
    [
        Client::udp(server.ipv4("udp")),
        Client::udp(server.ipv6("udp")),
        Client::tcp(server.ipv4("tcp")),
        Client::tcp(server.ipv6("tcp")),
        Client::tls(server, server.ipv4("tls")),
        Client::tls(server, server.ipv6("tls")),
    ]
}

/// One response of every kind, each having passed the checks of [`Reply::parse`].
fn one_of_each(session: &mut Session) -> Vec<Reply> {
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    vec![
        session.client.request(&Msg::new(BINDING)),
        session.client.request(&Msg::new(BINDING).attr(0x7FF0, b"x").attr(0x7FF1, b"xyz").attr(0x7FF2, b"")),
        session.client.request(&allocate()),
        session.call(Msg::new(ALLOCATE)),
        session.call(Msg::new(REFRESH)),
        session.succeed(allocate()),
        session.fail(allocate(), 437),
        session.succeed(Msg::new(REFRESH)),
        session.succeed(Msg::new(CREATE_PERMISSION).peer(peer)),
        session.fail(Msg::new(CREATE_PERMISSION), 400),
        session.succeed(Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer)),
        session.fail(Msg::new(CHANNEL_BIND).channel(0x5000).peer(peer), 400),
    ]
}

#[test]
fn r8489_5_01_to_5_05_every_response_is_a_well_formed_message_of_its_request() {
    // Reply::parse checks the first bits, the cookie and the length; request() matches the id and the method.
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let kinds: Vec<u16> = one_of_each(&mut session).iter().map(|reply| reply.kind).collect();
        let expected = [0x0101, 0x0111, 0x0113, 0x0113, 0x0114, 0x0103, 0x0113, 0x0104, 0x0108, 0x0118, 0x0109, 0x0119];
        assert_eq!(kinds, expected);
    }
}

#[test]
fn r8489_14_01_02_03_14_8_01_14_14_01_every_attribute_is_well_formed() {
    // Reply::parse takes each response apart: lengths, zero padding, error codes, texts.
    let server = server(&[("process.software-attribute", "true"), ("process.fingerprint", "true")]);
    for mut session in Session::each(&server) {
        let replies = one_of_each(&mut session);
        assert!(
            replies.iter().any(|reply| reply.attributes.iter().any(|(_, value)| value.len() % 4 != 0)),
            "no padding"
        );
    }
}

#[test]
fn r8489_8_01_r8656_4_1_01_7_2_29_9_02_12_04_the_defaults_are_those_of_the_rfcs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnserver.toml");
    let text = "[[listener]]\nlistening-ip = [\"127.0.0.1\"]\n[auth]\nrealm = \"example.org\"\n\
                [[auth.user]]\nname = \"alice\"\npassword = \"secret\"\n";
    std::fs::write(&file, text).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_turnserver"));
    let output = check.args(["check", "--syntax-only", "-c"]).arg(&file).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for (key, value) in [
        ("listening-port", "3478"),
        ("min-port", "49152"),
        ("max-port", "65535"),
        ("default-allocate-lifetime", "\"10m\""),
        ("max-allocate-lifetime", "\"1h\""),
        ("permission-lifetime", "\"5m\""),
        ("channel-lifetime", "\"10m\""),
        ("reservation-lifetime", "\"30s\""),
    ] {
        assert!(printed.lines().any(|line| line == format!("{key} = {value}")), "{key} = {value} in {printed}");
    }
}

#[test]
fn r8489_5_03_the_transaction_id_is_copied() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    for id in [[0; 12], [0xFF; 12], [0x21; 12]] {
        assert_eq!(client.request(&Msg::with_id(BINDING, id)).id, id);
        let reply = client.request(&Msg::with_id(ALLOCATE, id));
        assert_eq!((reply.id, reply.error()), (id, Some(401)));
    }
}

#[test]
fn r8489_5_06_transaction_ids_of_indications_are_unpredictable() {
    let server = server(&[]);
    let (mut session, peer, relayed) = connected(Session::udp(&server));
    let mut ids = HashSet::new();
    let mut ones = [0u32; 96];
    for _ in 0..200 {
        peer.send(b"x", relayed);
        let id = session.data_indication().id;
        for (bit, count) in ones.iter_mut().enumerate() {
            *count += u32::from(id[bit / 8] >> (bit % 8) & 1);
        }
        ids.insert(id);
    }
    assert_eq!(ids.len(), 200);
    // 200 fair coins show heads between 60 and 140 times but for one case in 10^8.
    assert!(ones.iter().all(|count| (60..=140).contains(count)), "{ones:?}");
}

#[test]
fn r8489_6_1_01_responses_fit_an_unknown_path_mtu() {
    let server = server(&[("process.software-attribute", "true"), ("process.fingerprint", "true")]);
    let mut session = Session::udp(&server);
    let mut replies = one_of_each(&mut session);
    // As many unknown attributes as a request can list.
    let many = (0..300).fold(Msg::new(BINDING), |message, kind| message.attr(0x7000 + kind, &[]));
    replies.push(session.client.request(&many));
    for reply in replies {
        assert!(reply.raw.len() <= 548, "{} bytes: {reply:02x?}", reply.raw.len());
    }
}

#[test]
fn r8489_6_3_09_unknown_comprehension_optional_attributes_are_ignored() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let reply = session.client.request(&Msg::new(BINDING).attr(0xFFF0, b"whatever"));
        assert_eq!(reply.kind, BINDING | SUCCESS);
        session.succeed(allocate().attr(0xFFF0, b"whatever"));
    }
}

#[test]
fn r8489_6_3_10_known_attributes_out_of_place_are_ignored() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let request = Msg::new(BINDING).u32(LIFETIME, 0).attr(CHANNEL_NUMBER, &[]).u32(XOR_MAPPED_ADDRESS, 1);
    assert_eq!(session.client.request(&request).kind, BINDING | SUCCESS);
    session.succeed(allocate().channel(0x4000).peer(([127, 0, 0, 1], 9)));
    assert_eq!(session.succeed(Msg::new(REFRESH).channel(0xFFFF).u32(LIFETIME, 700)).u32(LIFETIME), Some(700));
}

#[test]
fn r8489_6_3_1_01_all_unknown_required_attributes_are_listed() {
    let server = server(&[]);
    let list = |reply: &Reply| {
        assert_eq!(reply.error(), Some(420));
        let value = reply.get(UNKNOWN_ATTRIBUTES).expect("UNKNOWN-ATTRIBUTES").to_vec();
        value.chunks(2).map(|kind| u16::from_be_bytes([kind[0], kind[1]])).collect::<Vec<_>>()
    };
    for mut session in Session::each(&server) {
        let unknown =
            |message: Msg| message.attr(0x7FF0, b"a").attr(0x8FFF, b"b").attr(0x0002, b"").attr(0x7FFF, b"abcd");
        let reply = session.client.request(&unknown(Msg::new(BINDING)));
        assert_eq!(list(&reply), [0x7FF0, 0x0002, 0x7FFF]);
        for method in AUTHENTICATED {
            let reply = session.fail(unknown(Msg::new(method)), 420);
            assert_eq!(list(&reply), [0x7FF0, 0x0002, 0x7FFF]);
        }
    }
}

#[test]
fn r8489_14_13_01_an_odd_number_of_unknown_types_is_padded_with_zeros() {
    // Reply::parse checks that padding is zero; the length excludes it (8489-14-02).
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    let reply = client.request(&Msg::new(BINDING).attr(0x7FF0, b""));
    assert_eq!(reply.get(UNKNOWN_ATTRIBUTES), Some(&[0x7F, 0xF0][..]));
    for reply in one_of_each(&mut Session::udp(&server)) {
        assert_eq!(reply.error() == Some(420), reply.has(UNKNOWN_ATTRIBUTES), "only with 420");
    }
}

#[test]
fn r8489_6_3_1_02_retransmitted_requests_leave_the_state_of_one() {
    // There is room for what one request of each kind makes, and no more.
    let server = server(&[
        ("limits.user-quota", "1"),
        ("limits.permissions-per-allocation", "1"),
        ("limits.channels-per-allocation", "1"),
    ]);
    for open in [Session::udp, Session::dtls] {
        let mut session = open(&server);
        let peer = Peer::new(V4);
        let requests = [
            allocate(),
            Msg::new(REFRESH).u32(LIFETIME, 900),
            Msg::new(CREATE_PERMISSION).peer(peer.address),
            Msg::new(CHANNEL_BIND).channel(0x4000).peer(peer.address),
        ];
        let mut relayed = None;
        for request in requests {
            let request = session.sign(request);
            let first = session.call_signed(&request);
            let second = session.call_signed(&request);
            assert_eq!((first.error(), second.error()), (None, None));
            assert_eq!(first.xor(XOR_RELAYED_ADDRESS), second.xor(XOR_RELAYED_ADDRESS));
            assert_eq!(first.u32(LIFETIME), second.u32(LIFETIME));
            relayed = relayed.or(first.xor(XOR_RELAYED_ADDRESS));
        }
        session.send(&channel_data(0x4000, b"once"));
        assert_eq!(peer.receive(), (b"once".to_vec(), relayed.expect("a relayed address")));
        peer.send(b"back", relayed.expect("a relayed address"));
        assert_eq!(session.channel(), (0x4000, b"back".to_vec()));
        session.delete();
    }
}

#[test]
fn r8489_6_3_1_03_a_retransmitted_allocate_makes_no_second_allocation() {
    let server = server(&[("limits.user-quota", "2")]);
    let mut session = Session::udp(&server);
    let request = session.sign(allocate());
    let relayed = session.call_signed(&request).xor(XOR_RELAYED_ADDRESS);
    for _ in 0..5 {
        assert_eq!(session.call_signed(&request).xor(XOR_RELAYED_ADDRESS), relayed);
    }
    Session::udp(&server).allocate();
    Session::udp(&server).fail(allocate(), 486);
}

#[test]
fn r8489_6_3_1_1_01_02_03_errors_carry_a_code_a_reason_and_what_belongs_to_them() {
    // Reply::parse checks class, number and reason; Reply::error checks that errors and only they have ERROR-CODE.
    let server = server(&[]);
    for mut session in Session::each(&server) {
        for reply in one_of_each(&mut session) {
            assert_eq!(reply.kind & ERROR == ERROR, reply.error().is_some());
            if reply.error().is_some() {
                assert!(reply.get(ERROR_CODE).unwrap().len() > 4, "a reason phrase");
            }
        }
    }
}

#[test]
fn r8489_6_3_1_1_04_responses_to_authenticated_requests_are_signed() {
    // Session::call checks the signature, of success and error.
    let server = server(&[]);
    for mut session in Session::each(&server) {
        session.fail(Msg::new(ALLOCATE), 400);
        session.fail(Msg::new(REFRESH), 437);
        session.succeed(allocate());
        session.fail(Msg::new(CHANNEL_BIND), 400);
    }
}

#[test]
fn r8489_6_3_1_1_05_software_is_in_all_responses_when_switched_on() {
    let server = server(&[("process.software-attribute", "true")]);
    for reply in one_of_each(&mut Session::udp(&server)) {
        assert!(reply.get(SOFTWARE).is_some_and(|software| !software.is_empty()), "{reply:02x?}");
    }
}

#[test]
fn r8489_16_1_2_01_software_can_be_switched_off_and_is_off() {
    let default = server(&[]);
    let off = server(&[("process.software-attribute", "false")]);
    for server in [default, off] {
        assert!(one_of_each(&mut Session::udp(&server)).iter().all(|reply| !reply.has(SOFTWARE)));
    }
}

#[test]
fn r8489_6_3_1_1_06_07_xor_mapped_address_is_where_the_request_came_from() {
    let server = server(&[]);
    for mut client in clients(&server) {
        let reply = client.request(&Msg::new(BINDING));
        assert_eq!(reply.kind, BINDING | SUCCESS);
        assert_eq!(reply.all_xor(XOR_MAPPED_ADDRESS), [client.local]);
    }
}

#[test]
fn r8489_14_1_01_14_2_01_addresses_of_both_families_are_xor_coded() {
    let server = server(&[]);
    for mut client in clients(&server) {
        let reply = client.request(&Msg::new(BINDING));
        let value = reply.get(XOR_MAPPED_ADDRESS).unwrap();
        assert_eq!(value[..2], [0, if client.local.is_ipv4() { 1 } else { 2 }]);
        assert_eq!(u16::from_be_bytes([value[2], value[3]]), client.local.port() ^ 0x2112);
        let mask = [&[0x21, 0x12, 0xA4, 0x42][..], &reply.id].concat();
        let octets: Vec<u8> = match client.local.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        assert_eq!(value[4..], octets.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>());
    }
}

#[test]
fn r8489_14_1_02_the_first_byte_of_an_address_is_ignored() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    session.allocate();
    let request = Msg::new(CREATE_PERMISSION);
    let mut value = crate::wire::xor_address(([127, 0, 0, 1], 9).into(), &request.id());
    value[0] = 0xFF;
    session.succeed(request.attr(XOR_PEER_ADDRESS, &value));
}

#[test]
fn r8489_6_3_1_2_01_03_the_answer_comes_by_the_way_of_the_request() {
    // A connected socket takes only what comes from the address that it sent to.
    let server = server(&[]);
    for mut client in clients(&server) {
        let ids: Vec<_> = (0..3).map(|_| Msg::new(BINDING)).map(|request| client.request(&request).id).collect();
        assert_eq!(ids.len(), 3);
        assert!(client.fence().is_empty());
    }
}

#[test]
fn r8489_6_3_1_2_02_a_wildcard_listener_answers_from_the_address_that_was_asked() {
    if portable() {
        return;
    }
    let server = server(&[("listener.listening-ip", r#"["0.0.0.0", "::"]"#), ("listener.transports", r#"["udp"]"#)]);
    let port = server.ipv4("udp").port();
    for last in 1..20u8 {
        // Connected sockets: an answer from another address or port would not arrive.
        let mut client = Client::udp(SocketAddr::from(([127, 0, last, 1], port)));
        assert_eq!(client.request(&Msg::new(BINDING)).xor(XOR_MAPPED_ADDRESS), Some(client.local));
    }
    let mut client = Client::udp((V6, server.ipv6("udp").port()).into());
    assert_eq!(client.request(&Msg::new(BINDING)).xor(XOR_MAPPED_ADDRESS), Some(client.local));
}

#[test]
fn r8489_6_3_1_2_02_a_wildcard_listener_sends_data_from_the_address_of_the_allocation() {
    if portable() {
        return;
    }
    let server = server(&[("listener.listening-ip", r#"["0.0.0.0"]"#), ("listener.transports", r#"["udp"]"#)]);
    let client = Client::udp(SocketAddr::from(([127, 0, 7, 7], server.ipv4("udp").port())));
    let (mut session, peer, relayed) = connected(Session::over(client, crate::setup::ALICE));
    session.round_trip(&peer, relayed);
}

#[test]
fn r8489_6_3_1_2_02_over_dtls_and_tcp_a_wildcard_listener_answers_from_the_address_that_was_asked() {
    if portable() {
        return;
    }
    let transports = ("listener.transports", r#"["udp", "dtls", "tcp"]"#);
    let server = server(&[("listener.listening-ip", r#"["0.0.0.0"]"#), transports]);
    let address = |transport: &str, last: u8| {
        let all = server.addresses(transport);
        let port = all.iter().find(|address| address.ip().is_unspecified()).expect("a wildcard listener").port();
        SocketAddr::from(([127, 0, last, 1], port))
    };
    for last in 1..6u8 {
        for mut client in [Client::tcp(address("tcp", last)), Client::dtls(&server, address("dtls", last))] {
            assert_eq!(client.request(&Msg::new(BINDING)).xor(XOR_MAPPED_ADDRESS), Some(client.local));
            let (mut session, peer, relayed) = connected(Session::over(client, crate::setup::ALICE));
            session.round_trip(&peer, relayed);
        }
    }
}

#[test]
fn r8489_12_01_to_05_binding_over_udp_and_tcp_needs_neither_credentials_nor_fingerprint() {
    let server = server(&[]);
    for mut client in clients(&server) {
        assert_eq!(client.request(&Msg::new(BINDING)).error(), None);
        assert_eq!(client.request(&Msg::new(BINDING).fingerprint()).error(), None);
    }
}

#[test]
fn r8489_12_03_binding_is_not_redirected() {
    let server = server(&[("redirect.alternate-server", r#"["192.0.2.1:3478", "[2001:db8::1]:3478"]"#)]);
    for mut client in clients(&server) {
        assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
    }
}

#[test]
fn r8489_7_01_14_7_01_fingerprint_is_answered_with_a_right_one() {
    // Reply::parse checks its place and value.
    let default = server(&[]);
    let always = server(&[("process.fingerprint", "true")]);
    let (mut asked, mut unasked) = (Client::udp(default.ipv4("udp")), Client::udp(always.ipv4("udp")));
    assert!(asked.request(&Msg::new(BINDING).fingerprint()).has(crate::wire::FINGERPRINT));
    assert!(asked.request(&allocate().fingerprint()).has(crate::wire::FINGERPRINT));
    assert!(unasked.request(&Msg::new(BINDING)).has(crate::wire::FINGERPRINT));
    for reply in one_of_each(&mut Session::udp(&always)) {
        assert!(reply.has(crate::wire::FINGERPRINT));
    }
}

#[test]
fn r8489_14_04_the_value_of_padding_is_ignored() {
    let server = server(&[]);
    for mut session in Session::each(&server) {
        let padded = Msg::new(BINDING).attr_padded_with(0xFFF0, b"a", 0x20);
        assert_eq!(session.client.request(&padded).kind, BINDING | SUCCESS);
        let request = allocate().attr_padded_with(0xFFF1, b"abc", 0x20);
        session.succeed(request);
    }
}

#[test]
fn r8489_14_05_the_first_of_repeated_attributes_counts() {
    let server = server(&[]);
    let mut session = Session::udp(&server);
    let reply = session.succeed(allocate().u32(LIFETIME, 700).u32(LIFETIME, 800));
    assert_eq!(reply.u32(LIFETIME), Some(700));
    let reply = session.succeed(Msg::new(REFRESH).u32(LIFETIME, 900).u32(LIFETIME, 0));
    assert_eq!(reply.u32(LIFETIME), Some(900));
}

#[test]
fn r8489_16_1_2_02_h_10_a_response_is_little_larger_than_its_request() {
    let server = server(&[("process.software-attribute", "true")]);
    let mut client = Client::udp(server.ipv4("udp"));
    let binding = Msg::new(BINDING);
    let reply = client.request(&binding);
    assert!(reply.raw.len() <= 4 * binding.0.len(), "{} bytes for {}", reply.raw.len(), binding.0.len());
    // A 401 carries REALM, NONCE and PASSWORD-ALGORITHMS; with IP and UDP headers it stays below five times its request.
    let request = allocate();
    let reply = client.request(&request);
    assert!(reply.raw.len() + 28 <= 5 * (request.0.len() + 28), "{} bytes for {}", reply.raw.len(), request.0.len());
    let many = (0..20).fold(Msg::new(BINDING), |message, kind| message.attr(0x7000 + kind, &[]));
    assert!(client.request(&many).raw.len() <= many.0.len() * 2);
    assert!(client.fence().is_empty(), "one answer for each request");
}
