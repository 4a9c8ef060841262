//! RFC 3489 and RFC 5389 clients, RFC 5766 channel numbers.

use std::net::SocketAddr;

use crate::client::Client;
use crate::setup::{Session, server};
use crate::wire::{
    BINDING, CHANGE_REQUEST, CHANNEL_BIND, ERROR, MAPPED_ADDRESS, Msg, SUCCESS, XOR_MAPPED_ADDRESS, decode_plain,
};

const CLASSIC: &[(&str, &str)] = &[("compatibility.rfc3489", "true")];

/// Types and values.
type Attributes = Vec<(u16, Vec<u8>)>;

/// Sends a request with 128 bits of transaction id and returns kind, id and attributes of the answer.
fn classic(client: &Client, attributes: &[u8]) -> (u16, Vec<u8>, Attributes) {
    let socket = client.udp_socket();
    socket.set_read_timeout(Some(crate::client::PATIENCE)).unwrap();
    let mut request = vec![0, 1, 0, attributes.len() as u8];
    request.extend(0x11..0x21);
    request.extend(attributes);
    socket.send(&request).unwrap();
    let mut answer = [0; 600];
    let length = socket.recv(&mut answer).expect("an answer to a classic request");
    let mut found = Vec::new();
    let mut rest = &answer[20..length];
    while let [k0, k1, l0, l1, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        found.push((u16::from_be_bytes([*k0, *k1]), tail[..length].to_vec()));
        rest = &tail[length.next_multiple_of(4)..];
    }
    assert!(rest.is_empty());
    assert_eq!(usize::from(u16::from_be_bytes([answer[2], answer[3]])), length - 20);
    (u16::from_be_bytes([answer[0], answer[1]]), answer[4..20].to_vec(), found)
}

#[test]
fn r5389_12_2_01_r8489_12_06_a_classic_request_gets_its_128_bit_id_back() {
    let server = server(CLASSIC);
    let client = Client::udp(server.ipv4("udp"));
    let (kind, id, _) = classic(&client, &[]);
    assert_eq!((kind, id), (BINDING | SUCCESS, (0x11..0x21).collect()));
}

#[test]
fn r5389_12_2_02_a_classic_request_is_answered_with_mapped_address() {
    let server = server(CLASSIC);
    let client = Client::udp(server.ipv4("udp"));
    let (_, _, attributes) = classic(&client, &[]);
    let mapped = attributes.iter().find(|(kind, _)| *kind == MAPPED_ADDRESS).expect("MAPPED-ADDRESS");
    assert_eq!(decode_plain(&mapped.1), client.local);
    assert!(attributes.iter().all(|(kind, _)| *kind != XOR_MAPPED_ADDRESS));
}

#[test]
fn r5389_12_2_03_r3489_8_1_04_classic_attributes_that_aim_the_answer_elsewhere_are_refused() {
    let server = server(CLASSIC);
    let victim = crate::setup::Peer::new(crate::setup::V4);
    let client = Client::udp(server.ipv4("udp"));
    let mut response_address = vec![0, 2, 0, 8, 0, 1];
    response_address.extend(victim.address.port().to_be_bytes());
    response_address.extend([127, 0, 0, 1]);
    for attributes in [&response_address[..], &[0, 3, 0, 4, 0, 0, 0, 6]] {
        let (kind, _, found) = classic(&client, attributes);
        assert_eq!(kind, BINDING | ERROR);
        let code = &found.iter().find(|(kind, _)| *kind == 9).expect("ERROR-CODE").1;
        assert_eq!(code[2..4], [4, 20]);
    }
    victim.socket.set_nonblocking(true).unwrap();
    assert!(victim.socket.recv(&mut [0; 10]).is_err(), "an answer went to RESPONSE-ADDRESS");
}

#[test]
fn r3489_8_1_03_responses_are_not_retransmitted() {
    let server = server(CLASSIC);
    let client = Client::udp(server.ipv4("udp"));
    classic(&client, &[]);
    client.udp_socket().set_read_timeout(Some(std::time::Duration::from_millis(700))).unwrap();
    assert!(client.udp_socket().recv(&mut [0; 600]).is_err(), "a second response");
}

#[test]
fn r8489_12_06_classic_requests_are_dropped_unless_switched_on() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    let mut request = vec![0, 1, 0, 0];
    request.extend(0x11..0x21u8);
    client.silent(&request);
}

#[test]
fn change_request_is_unknown_to_a_server_with_one_address() {
    let server = server(&[]);
    let mut client = Client::udp(server.ipv4("udp"));
    assert_eq!(client.request(&Msg::new(BINDING).attr(CHANGE_REQUEST, &[0, 0, 0, 6])).error(), Some(420));
}

#[test]
fn r5766_11_01_channel_numbers_of_rfc_5766_work_only_when_switched_on() {
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let strict = server(&[]);
    let mut session = Session::udp(&strict);
    session.allocate();
    session.fail(Msg::new(CHANNEL_BIND).channel(0x5000).peer(peer), 400);
    session.fail(Msg::new(CHANNEL_BIND).channel(0x7FFF).peer(peer), 400);

    let wide = server(&[("compatibility.rfc5766-channel-numbers", "true")]);
    for session in Session::each(&wide) {
        let (mut session, peer, relayed) = crate::setup::connected(session);
        session.bind(0x7FFF, peer.address);
        session.send(&crate::wire::padded_channel_data(0x7FFF, b"wide"));
        assert_eq!(peer.receive(), (b"wide".to_vec(), relayed));
        peer.send(b"back", relayed);
        assert_eq!(session.channel(), (0x7FFF, b"back".to_vec()));
        session.fail(Msg::new(CHANNEL_BIND).channel(0x8000).peer(([127, 0, 0, 1], 7)), 400);
    }
}
