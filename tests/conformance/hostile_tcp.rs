//! H-03, H-11, H-15, H-18: connections that are slow, idle, endless, or never read.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::client::{Client, Event, PATIENCE};
use crate::common::tls;
use crate::hostile_flood::resources;
use crate::setup::{ALICE, Server, Session, connected, server};
use crate::wire::{BINDING, Msg, SUCCESS, padded_channel_data};

const MANY: &[(&str, &str)] = &[("tcp.max-connections-per-ip", "2000")];

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, PATIENCE).expect("connecting")
}

#[test]
fn h_03_idle_and_slow_connections_do_not_block_others() {
    let server = server(MANY);
    let message = Msg::new(BINDING).attr(0xFFF0, &[7; 100]).0;
    let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(server.ipv4("tcp"))).collect();
    for (count, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&message[..count % 30]).unwrap();
    }
    let start = Instant::now();
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    session.round_trip(&peer, relayed);
    assert!(start.elapsed() < Duration::from_secs(2), "service takes {:?}", start.elapsed());
    // And each of them is served as soon as it is done.
    let (length, stream) = (29, streams.swap_remove(29));
    let mut client = Client::of_stream(stream);
    client.send(&message[length..]);
    assert!(client.response(message[8..20].try_into().unwrap(), PATIENCE).is_some());
}

#[test]
fn h_03_a_connection_that_does_nothing_is_closed() {
    let server = server(&[("tcp.idle-timeout", "\"1s\"")]);
    let mut silent = Client::tcp(server.ipv4("tcp"));
    let mut client = Client::tcp(server.ipv4("tcp"));
    assert_eq!(client.request(&Msg::new(BINDING)).kind, BINDING | SUCCESS);
    silent.expect_close(Duration::from_secs(10));
    client.expect_close(Duration::from_secs(10));
}

#[test]
fn h_03_a_connection_with_an_allocation_may_be_idle() {
    let server = server(&[("tcp.idle-timeout", "\"1s\"")]);
    let (mut session, peer, relayed) = connected(Session::tcp(&server));
    std::thread::sleep(Duration::from_millis(2500));
    session.round_trip(&peer, relayed);
}

#[test]
fn h_03_a_message_that_is_never_completed_ends_its_connection() {
    let server = server(&[("tcp.message-timeout", "\"1s\"")]);
    let message = Msg::new(BINDING).attr(0xFFF0, &[7; 400]).0;
    let mut stuck = Client::tcp(server.ipv4("tcp"));
    stuck.send(&message[..9]);
    // One that keeps sending a byte now and then is no better.
    let dripping = connect(server.ipv4("tcp"));
    let mut writer = dripping.try_clone().unwrap();
    let start = Instant::now();
    let drip = std::thread::spawn(move || {
        message
            .iter()
            .find(|byte| {
                std::thread::sleep(Duration::from_millis(100));
                writer.write_all(&[**byte]).is_err()
            })
            .is_some()
    });
    stuck.expect_close(Duration::from_secs(10));
    Client::of_stream(dripping).expect_close(Duration::from_secs(10));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(drip.join().unwrap());
}

#[test]
fn h_18_a_connection_whose_framing_is_lost_is_closed() {
    let server = server(&[]);
    let wrong_length = [0, 1, 0, 3, 0x21, 0x12, 0xA4, 0x42];
    let wrong_cookie = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43];
    let junk: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC],
        &[0x50, 0, 0, 0],
        &[0xFF; 40],
        &wrong_length,
        &wrong_cookie,
        &[0x80; 4],
    ];
    for bytes in junk {
        let mut fresh = Client::tcp(server.ipv4("tcp"));
        fresh.send(bytes);
        fresh.expect_close(Duration::from_secs(10));
        let mut session = Session::tcp(&server);
        session.allocate();
        session.send(bytes);
        session.expect_close(Duration::from_secs(10));
    }
}

#[test]
fn h_03_connections_are_limited_per_address() {
    let server = server(&[("tcp.max-connections-per-ip", "3")]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::tcp(server.ipv4("tcp"))).collect();
    for client in &mut clients {
        client.request(&Msg::new(BINDING));
    }
    Client::tcp(server.ipv4("tcp")).expect_close(Duration::from_secs(10));
    // Another address is served, and so is this one when a connection has ended.
    let elsewhere = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    elsewhere.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    elsewhere.connect(&server.ipv4("tcp").into()).unwrap();
    Client::of_stream(elsewhere.into()).request(&Msg::new(BINDING));
    clients.pop();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = Msg::new(BINDING);
        let mut stream = connect(server.ipv4("tcp"));
        if stream.write_all(&request.0).is_ok() && answers(&stream) {
            break;
        }
        assert!(Instant::now() < deadline, "the place of the ended connection stays taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answers(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    std::io::Read::read(&mut stream, &mut [0; 100]).is_ok_and(|length| length > 0)
}

#[test]
fn h_11_huge_lengths_on_streams_allocate_nothing() {
    let server = server(MANY);
    let mut header = Msg::new(BINDING).0;
    header[2..4].copy_from_slice(&0xFFFCu16.to_be_bytes());
    let starts: [&[u8]; 2] = [&header, &[0x40, 0, 0xFF, 0xFF]];
    let open = |count: usize| -> Vec<TcpStream> {
        let streams = (0..count).map(|at| {
            let mut stream = connect(server.ipv4("tcp"));
            stream.write_all(starts[at % 2]).unwrap();
            stream
        });
        let streams = streams.collect();
        Client::tcp(server.ipv4("tcp")).request(&Msg::new(BINDING));
        streams
    };
    drop(open(50));
    let before = resources(&server);
    let streams = open(400);
    let after = resources(&server);
    // 64 KiB each would be 25 MiB.
    assert!(after.memory < before.memory + (8 << 20), "{before:?} {after:?}");
    drop(streams);
}

#[test]
fn h_15_a_reader_that_does_not_read_loses_data_but_no_response() {
    let server = server(&[]);
    let client = Client::of_stream(small(server.ipv4("tcp")));
    loses_data_but_no_response(&server, client);
}

#[test]
fn h_15_a_reader_of_tls_that_does_not_read_loses_data_but_no_response() {
    let server = server(&[]);
    let stream = tls::handshake(tls::client(server.folder()), small(server.ipv4("tls")));
    loses_data_but_no_response(&server, Client::of_tls(stream));
}

/// A connection with little room for what comes.
fn small(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn loses_data_but_no_response(server: &Server, client: Client) {
    const FLOOD: u32 = 40_000;
    let (mut session, peer, relayed) = connected(Session::over(client, ALICE));
    session.bind(0x4000, peer.address);
    let (mut other, other_peer, other_relayed) = connected(Session::udp(server));
    let before = resources(server);
    let mut requests = Vec::new();
    let mut most = before;
    for count in 0..FLOOD {
        let mut data = vec![7; 1000];
        data[..4].copy_from_slice(&count.to_be_bytes());
        peer.send(&data, relayed);
        if count % 1000 == 999 {
            let request = Msg::new(BINDING);
            session.send(&request.0);
            requests.push(request.id());
            most = most.max(resources(server));
            // Meanwhile others are served.
            other.round_trip(&other_peer, other_relayed);
        }
    }
    // 256 KiB may be queued; 40 MB were sent.
    assert!(most.memory < before.memory + (4 << 20), "{before:?} {most:?}");
    for id in requests {
        assert!(session.response(id, PATIENCE).is_some(), "a response was dropped");
    }
    let data: Vec<u32> = session
        .fence()
        .iter()
        .map(|event| match event {
            Event::Channel(0x4000, data) if data.len() == 1000 => u32::from_be_bytes(*data.first_chunk().unwrap()),
            event => panic!("{event:02x?}"),
        })
        .collect();
    assert!(data.windows(2).all(|pair| pair[0] < pair[1]), "data are out of order");
    assert!(data.len() < FLOOD as usize, "nothing was dropped");
    session.send(&padded_channel_data(0x4000, b"alive"));
    assert_eq!(peer.receive().0, b"alive");
}
