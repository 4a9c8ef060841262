//! RFC 6062 §5.4, §3, §7: ConnectionBind, and the bytes that follow it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::common::tls;
use crate::hostile_flood::resources;
use crate::r6062_setup::{
    Bytes, Listener, allocated, attempt, bind, bind_session, bind_to, connect, connected, session_on, tcp_server,
};
use crate::setup::{BOB, Server, Session, V4, closed_port};
use crate::wire::{CONNECTION_BIND, CONNECTION_ID, Msg, SUCCESS, allocate_tcp};

const MEBIBYTE: usize = 1 << 20;

/// Bytes that look like nothing, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Length and hash.
fn print_of(bytes: &[u8]) -> (usize, Vec<u8>) {
    (bytes.len(), Sha256::digest(bytes).to_vec())
}

/// Reads up to the end.
fn read_all(mut stream: TcpStream) -> (usize, Vec<u8>) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("reading up to the end");
    print_of(&bytes)
}

/// Sends different bytes both ways at once, to the end, and compares what arrives.
fn transfer(client: Bytes, peer: Bytes, seed: u64, length: usize) {
    let send = |stream: &Bytes, bytes: Vec<u8>| {
        let mut stream = stream.stream.try_clone().unwrap();
        thread::spawn(move || {
            stream.write_all(&bytes).expect("writing");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let (up, down) = (noise(seed, length), noise(seed + 1, length));
    let (sent_up, sent_down) = (print_of(&up), print_of(&down));
    let senders = [send(&client, up), send(&peer, down)];
    let receiver = thread::spawn(move || read_all(peer.stream));
    assert_eq!(read_all(client.stream), sent_down);
    assert_eq!(receiver.join().unwrap(), sent_up);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn r6062_5_4_01_not_over_udp_or_dtls() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    Session::udp(&server).fail(bind_to(id), 400);
    Session::dtls(&server).fail(bind_to(id), 400);
    bind(&server, id).echo_with(&mut listener.accept().0);
}

/// Control and data connections over TLS (RFC 6062 §4.1), and each of the two over TCP with the other over TLS.
#[test]
fn r6062_5_4_04_05_over_tls() {
    let server = tcp_server(&[]);
    for (control, data) in [(Session::tls as fn(&Server) -> Session, true), (Session::tls, false), (Session::tcp, true)]
    {
        let mut control = control(&server);
        control.allocate_with(allocate_tcp());
        let listener = Listener::new();
        let id = connect(&mut control, listener.address);
        let mut peer = listener.accept().0;
        peer.send(b"early");
        if !data {
            let mut client = bind(&server, id);
            assert_eq!(client.receive(5), b"early");
            client.echo_with(&mut peer);
            continue;
        }
        let mut session = Session::tls(&server);
        session.succeed(bind_to(id));
        let (mut stream, mut received) = session.client.into_tls();
        // More than one record each way.
        let (up, down) = (noise(1, 100_000), noise(2, 100_000));
        tls::send(&mut stream, &up);
        assert!(peer.receive(up.len()) == up);
        peer.send(&down);
        let mut rest = vec![0; 5 + down.len() - received.len()];
        stream.read_exact(&mut rest).expect("reading");
        received.extend(rest);
        assert!(received == [b"early", &down[..]].concat());
        // The end of the one is the end of the other (§5.5).
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        peer.expect_end();
    }
}

#[test]
fn r6062_5_4_02_03_ids_that_are_missing_unknown_or_used() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    let mut other = Session::tcp(&server);
    other.fail(Msg::new(CONNECTION_BIND), 400);
    other.fail(Msg::new(CONNECTION_BIND).attr(CONNECTION_ID, &[0; 3]), 400);
    other.fail(bind_to(!id), 400);
    // The control connection is no data connection.
    session.fail(bind_to(id), 400);
    let mut client = bind_session(other, id);
    Session::tcp(&server).fail(bind_to(id), 400);
    client.echo_with(&mut listener.accept().0);
}

#[test]
fn r6062_5_4_06_a_data_connection_is_authenticated_as_its_allocation() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    let mut stranger = Client::tcp(server.ipv4("tcp"));
    assert_eq!(stranger.request(&bind_to(id)).error(), Some(401));
    Session::over(Client::tcp(server.ipv4("tcp")), BOB).fail(bind_to(id), 441);
    // Neither has used it up.
    bind(&server, id).echo_with(&mut listener.accept().0);
}

#[test]
fn r6062_5_4_04_05_megabytes_both_ways_at_once() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let (client, peer) = connected(&server, &mut session);
    transfer(client, peer, 1, 32 * MEBIBYTE);
}

/// Connections land on the workers as the system spreads them: with 4 workers, control and data connections hardly ever on
/// the same one.
#[test]
fn data_connections_on_any_worker() {
    let server = tcp_server(&[("process.workers", "4")]);
    let mut sessions: Vec<_> = (0..4).map(|_| allocated(&server)).collect();
    let mut pairs = Vec::new();
    for (session, relayed) in &mut sessions {
        session.permit(*relayed);
        for _ in 0..3 {
            pairs.push(connected(&server, session));
            let peer = Bytes::from(TcpStream::connect(*relayed).unwrap());
            let (_, id) = attempt(session);
            pairs.push((bind(&server, id), peer));
        }
    }
    let transfers = pairs.into_iter().zip(0..).map(|((client, peer), seed)| {
        thread::spawn(move || transfer(client, peer, 100 + 2 * seed, 2 * MEBIBYTE + seed as usize))
    });
    transfers.collect::<Vec<_>>().into_iter().for_each(|transfer| transfer.join().unwrap());
}

#[test]
fn r6062_5_2_09_5_3_02_5_4_05_what_a_peer_sends_before_the_bind_comes_after_its_response() {
    let server = tcp_server(&[("process.workers", "4")]);
    for round in 0..8 {
        let (mut session, relayed) = allocated(&server);
        let data = noise(round, 100_000);
        let (id, mut peer) = if round % 2 == 0 {
            let listener = Listener::new();
            (connect(&mut session, listener.address), listener.accept().0)
        } else {
            session.permit(closed_port(V4));
            let peer = Bytes::from(TcpStream::connect(relayed).unwrap());
            (attempt(&mut session).1, peer)
        };
        peer.send(&data[..50_000]);
        // The success is the first thing that comes, or this panics.
        let mut client = bind(&server, id);
        peer.send(&data[50_000..]);
        assert!(client.receive(data.len()) == data);
        if round < 4 {
            // Even when the peer has gone meanwhile.
            let listener = Listener::new();
            let id = connect(&mut session, listener.address);
            let mut peer = listener.accept().0;
            peer.send(b"last words");
            drop(peer);
            let mut client = bind(&server, id);
            assert_eq!(client.receive(10), b"last words");
            client.expect_end();
        }
    }
}

#[test]
fn r6062_5_4_07_what_follows_the_bind_at_once_is_data() {
    let server = tcp_server(&[("process.workers", "4")]);
    let (mut session, _) = allocated(&server);
    let samples: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xFF],
        // What would be the start of a message, and a whole one.
        vec![0, 1, 0, 8, 0x21, 0x12],
        Msg::new(1).0,
        noise(5, 300_000),
    ];
    for data in samples {
        let listener = Listener::new();
        let id = connect(&mut session, listener.address);
        let mut other = Session::tcp(&server);
        let request = other.sign(bind_to(id));
        other.client.send(&[request.0.clone(), data.clone()].concat());
        let mut peer = listener.accept().0;
        assert!(peer.receive(data.len()) == data);
        let reply = other.client.response(request.id(), crate::client::PATIENCE).expect("a response");
        assert_eq!(reply.kind, CONNECTION_BIND | SUCCESS);
        let (stream, early) = other.client.into_stream();
        Bytes::new(stream, early).echo_with(&mut peer);
    }
}

/// Responses that were asked for before the bind come before the data.
#[test]
fn requests_before_the_bind_are_answered_first() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    let mut peer = listener.accept().0;
    peer.send(b"data");
    let mut other = Session::tcp(&server);
    let requests: Vec<Msg> = (0..20).map(|_| Msg::new(crate::wire::BINDING)).collect();
    let bind = other.sign(bind_to(id));
    let all = [requests.iter().flat_map(|request| request.0.clone()).collect(), bind.0.clone()].concat();
    other.client.send(&all);
    for id in requests.iter().map(Msg::id).chain([bind.id()]) {
        assert!(other.client.response(id, crate::client::PATIENCE).is_some());
    }
    let (stream, early) = other.client.into_stream();
    assert_eq!(Bytes::new(stream, early).receive(4), b"data");
}

/// Writes until nothing is taken for a while; returns how much was taken.
fn fill(stream: &TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut since) = (0, Instant::now());
    while sent < bytes.len() && since.elapsed() < Duration::from_millis(700) {
        match (&mut &*stream).write(&bytes[sent..bytes.len().min(sent + 65_536)]) {
            Ok(taken) => {
                sent += taken;
                since = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("writing: {error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

/// One side sends and the other does not read for a while: the sender has to wait, the server holds little, and in the end
/// every byte is there.
fn stalls(server: &Server, from: &Bytes, to: Bytes) {
    let data = noise(9, 64 * MEBIBYTE);
    let before = resources(server);
    let sent = fill(&from.stream, &data);
    let after = resources(server);
    assert!(sent < data.len(), "the sender never had to wait");
    assert!(after.memory < before.memory + 2 * MEBIBYTE, "{before:?} {after:?}");
    let (expected, rest) = (print_of(&data), data[sent..].to_vec());
    let mut stream = from.stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        stream.write_all(&rest).expect("writing the rest");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    // Slowly at first.
    let (mut reader, mut received) = (to.stream, Vec::new());
    for _ in 0..50 {
        let mut bytes = [0; 2000];
        let length = reader.read(&mut bytes).unwrap();
        received.extend_from_slice(&bytes[..length]);
        thread::sleep(Duration::from_millis(2));
    }
    reader.read_to_end(&mut received).unwrap();
    assert_eq!(print_of(&received), expected);
    sender.join().unwrap();
    let end = resources(server);
    assert!(end.memory < before.memory + 2 * MEBIBYTE, "{before:?} {end:?}");
}

#[test]
fn r6062_3_01_a_peer_that_reads_slowly_makes_the_client_wait() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let (client, peer) = connected(&server, &mut session);
    stalls(&server, &client, peer);
}

#[test]
fn r6062_3_01_a_client_that_reads_slowly_makes_the_peer_wait() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let listener = Listener::new();
    let id = connect(&mut session, listener.address);
    let small = session_on(&server, |socket| socket.set_recv_buffer_size(8192).unwrap());
    let client = bind_session(small, id);
    stalls(&server, &listener.accept().0, client);
}

/// 6062-7-01, H-15
#[test]
fn r6062_7_01_an_unbound_connection_holds_little() {
    let server = tcp_server(&[]);
    let (mut session, relayed) = allocated(&server);
    session.permit(closed_port(V4));
    let before = resources(&server);
    let mut peer = Bytes::from(TcpStream::connect(relayed).unwrap());
    let (_, id) = attempt(&mut session);
    let data = noise(3, 64 * MEBIBYTE);
    let sent = fill(&peer.stream, &data);
    let after = resources(&server);
    assert!(sent < 16 * MEBIBYTE, "{sent} bytes were taken");
    assert!(after.memory < before.memory + MEBIBYTE, "{before:?} {after:?}");
    // And nothing of it is lost.
    let mut client = bind(&server, id);
    peer.send(b"the end");
    assert!(client.receive(sent) == data[..sent]);
    assert_eq!(client.receive(7), b"the end");
}

#[test]
fn the_memory_of_a_transfer_is_given_back() {
    let server = tcp_server(&[]);
    let (mut session, _) = allocated(&server);
    let round = |session: &mut Session| {
        let (client, peer) = connected(&server, session);
        transfer(client, peer, 7, 4 * MEBIBYTE);
    };
    round(&mut session);
    let before = resources(&server);
    (0..8).for_each(|_| round(&mut session));
    let after = resources(&server);
    assert!(after.memory < before.memory + MEBIBYTE, "{before:?} {after:?}");
}
