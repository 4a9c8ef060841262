//! RFC 8489 §6.2.2: connections.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::client::{Client, PATIENCE};
use crate::setup::{Server, Session, connected, server};
use crate::wire::{BINDING, CREATE_PERMISSION, Msg, SUCCESS, XOR_MAPPED_ADDRESS, allocate, padded_channel_data, send};

#[test]
fn r8489_6_2_2_01_the_connection_stays_open_after_a_response() {
    let server = server(&[]);
    let mut client = Client::tcp(server.ipv4("tcp"));
    for _ in 0..3 {
        assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Sends all at once, half-closes, and expects an answer to each and then the end.
fn pipeline(server: &Server, count: usize) {
    let mut client = Client::tcp(server.ipv4("tcp"));
    let requests: Vec<Msg> = (0..count).map(|_| Msg::new(BINDING)).collect();
    client.send(&requests.iter().flat_map(|request| request.0.clone()).collect::<Vec<u8>>());
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    for request in &requests {
        assert!(client.response(request.id(), PATIENCE).is_some());
    }
    client.expect_close(PATIENCE);
}

#[test]
fn r8489_6_2_2_02_requests_are_answered_before_the_connection_closes() {
    pipeline(&server(&[]), 200);
}

#[test]
fn r8489_6_2_2_03_the_server_opens_no_connection_to_the_client() {
    let server = server(&[]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.connect(&server.ipv4("tcp").into()).unwrap();
    let stream: TcpStream = socket.into();
    let local = stream.local_addr().unwrap();
    // Reset, so that the port is free at once.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    std::io::Write::write_all(&mut &stream, &allocate().0).unwrap();
    drop(stream);
    let listener = TcpListener::bind(local).expect("listening where the client was");
    listener.set_nonblocking(true).unwrap();
    // The server is alive and has had the time to try.
    let mut other = Client::tcp(server.ipv4("tcp"));
    for _ in 0..5 {
        other.request(&Msg::new(BINDING));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn r8489_6_2_2_04_many_transactions_are_outstanding_at_once() {
    let server = server(&[]);
    let mut session = Session::tcp(&server);
    session.allocate();
    let requests: Vec<Msg> = (0..50)
        .map(|count| match count % 2 {
            0 => Msg::new(BINDING),
            _ => session.sign(Msg::new(CREATE_PERMISSION).peer(([127, 0, 0, count], 1))),
        })
        .collect();
    session.client.send(&requests.iter().flat_map(|request| request.0.clone()).collect::<Vec<u8>>());
    let answered: HashSet<_> =
        requests.iter().map(|request| session.client.response(request.id(), PATIENCE).expect("an answer").id).collect();
    assert_eq!(answered.len(), 50);
}

#[test]
fn r8489_6_2_2_05_messages_in_any_segmentation() {
    let server = server(&[]);
    let mut client = Client::tcp(server.ipv4("tcp"));
    let request = Msg::new(BINDING).attr(0xFFF0, b"some more bytes");
    for byte in &request.0 {
        client.send(&[*byte]);
        std::thread::yield_now();
    }
    assert_eq!(client.response(request.id(), PATIENCE).expect("an answer").xor(XOR_MAPPED_ADDRESS), Some(client.local));

    // Two and a half messages, then the rest and one more.
    let requests: Vec<Msg> = (0..4).map(|_| Msg::new(BINDING).attr(0xFFF0, b"more")).collect();
    let stream: Vec<u8> = requests.iter().flat_map(|request| request.0.clone()).collect();
    let (first, second) = stream.split_at(requests[0].0.len() * 5 / 2);
    client.send(first);
    for request in &requests[..2] {
        assert!(client.response(request.id(), PATIENCE).is_some());
    }
    client.send(second);
    for request in &requests[2..] {
        assert!(client.response(request.id(), PATIENCE).is_some());
    }
}

#[test]
fn r8489_6_2_2_05_stun_and_channel_data_in_any_segmentation() {
    let server = server(&[]);
    let (mut session, peer, _) = connected(Session::tcp(&server));
    session.bind(0x4001, peer.address);
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    for length in 0..20usize {
        let data = vec![length as u8; length];
        stream.extend(padded_channel_data(0x4001, &data));
        stream.extend(send(peer.address, &data).0);
        expected.extend([data.clone(), data]);
    }
    for size in [1, 2, 3, 5, 7, 61, 4096] {
        for segment in stream.chunks(size) {
            session.client.send(segment);
        }
        for data in &expected {
            assert_eq!(peer.receive().0, *data, "in segments of {size}");
        }
    }
}
