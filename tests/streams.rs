//! Clients on TCP: what they send in one piece arrives as it was sent, and those that ask for more than their share do not keep
//! others from theirs.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use common::{
    LOOPBACK, PATIENCE, Server,
    client::{TurnClient, channel_data, loopback_peer, loopback_socket, read_message},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turnserver::stun::{AttributeType, ChannelNumber, Message, Method, padded};

/// A Binding request.
const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
/// An empty message on a channel that is not bound.
const EMPTY: [u8; 4] = [0x40, 0, 0, 0];

/// [`LOOPBACK`] with one worker and more settings.
fn server(more: &str) -> Server {
    Server::start(&format!("{}{more}", LOOPBACK.replace("workers = 2", "workers = 1")))
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.ipv4("tcp")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// One connection keeps its worker busy with tiny messages as fast as it can; Binding over UDP is answered promptly.
#[test]
fn a_flood_on_one_connection_does_not_delay_others() {
    let server = server("[limits]\nbinding-rate = 0\n");
    let mut stream = connect(&server);
    // Answered once in a while, lest the connection count as idle.
    let flood = [&BINDING[..], &EMPTY.repeat(65_536)].concat();
    let flooding = thread::spawn(move || while stream.write_all(&flood).is_ok() {});
    thread::sleep(Duration::from_millis(500));

    let socket = loopback_socket();
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let start = Instant::now();
            socket.send_to(&BINDING, server.ipv4("udp")).expect("to send");
            socket.recv(&mut [0; 200]).expect("an answer");
            start.elapsed()
        })
        .collect();
    assert!(!flooding.is_finished(), "the flood has ended");
    times.sort();
    eprintln!("median {:?}, longest {:?}", times[20], times[39]);
    assert!(times[20] < Duration::from_millis(20), "{times:?}");
    server.stop();
    flooding.join().expect("the flood ends with the connection");
}

/// Without credentials a place among the connections is not held by messages that nobody wants.
#[test]
fn messages_of_no_use_do_not_keep_a_connection() {
    let server = server("[tcp]\nidle-timeout = \"1s\"\n");
    let (mut useless, mut useful) = (connect(&server), connect(&server));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        // Refused once the connection is closed.
        let _ = useless.write_all(&EMPTY);
        useful.write_all(&BINDING).expect("to send");
        assert!(useful.read(&mut [0; 200]).expect("an answer") > 0);
        thread::sleep(Duration::from_millis(100));
    }
    useless.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    match useless.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("still open: {other:?}"),
    }
    server.stop();
}

/// Far more responses than may wait, read all the time: none is held back until a timer of the connection fires.
#[test]
fn a_burst_of_requests_is_answered_to_the_last() {
    const COUNT: usize = 40_000;
    // Asked for credentials, which makes long responses.
    const ALLOCATE: [u8; 20] = [0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let server = server("[limits]\nunauthorized-rate = 0\n[tcp]\nqueue-bytes = \"16KiB\"\n");
    let stream = connect(&server);
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit below all timeouts");
    let mut writer = stream.try_clone().expect("the other direction");
    let writing = thread::spawn(move || writer.write_all(&ALLOCATE.repeat(COUNT)).expect("to send"));
    let mut reader = std::io::BufReader::new(stream);
    for _ in 0..COUNT {
        let mut header = [0; 20];
        reader.read_exact(&mut header).expect("an answer");
        let mut attributes = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
        reader.read_exact(&mut attributes).expect("its attributes");
    }
    writing.join().expect("all was sent");
    server.stop();
}

/// A message on a channel, padded.
fn frame(number: ChannelNumber, data: &[u8]) -> Vec<u8> {
    let mut frame = channel_data(number, data);
    frame.resize(padded(frame.len()), 0);
    frame
}

/// A client with its relayed address, and peers of its; the first has a channel, the second only a permission.
fn session(server: &Server) -> (TurnClient<TcpStream>, SocketAddr, [UdpSocket; 2]) {
    let mut client = TurnClient::new(connect(server), server.ipv4("tcp"));
    let relayed = client.allocate();
    let peers = [loopback_peer(), loopback_peer()];
    client.bind(CHANNEL, peers[0].local_addr().expect("an address"));
    client.permit(peers[1].local_addr().expect("an address"));
    (client, relayed, peers)
}

const CHANNEL: ChannelNumber = ChannelNumber(0x4000);

/// Mixed lengths and forms to and from two peers, in bursts of more than a turn takes and in pieces of any length.
fn bursts(udp_io: &str) {
    const BURST: usize = 100;
    let configuration = LOOPBACK.replace("workers = 2", &format!("workers = 1\nudp-io = \"{udp_io}\""));
    let server = Server::start(&configuration);
    let (mut client, relayed, peers) = session(&server);
    let addresses = [0, 1].map(|at: usize| peers[at].local_addr().expect("an address"));
    let mut rng = StdRng::seed_from_u64(9);
    for round in 0..40 {
        let mut next = || {
            let len = *[0usize, 1, 2, 3, 160, 160, 160, 1200].get(rng.random_range(0..8)).expect("a length");
            (rng.random_range(0..2usize), (0..len).map(|_| rng.random::<u8>()).collect::<Vec<_>>())
        };
        let sent: Vec<_> = (0..BURST).map(|_| next()).collect();
        let mut bytes = Vec::new();
        for (to, data) in &sent {
            // The first peer in both forms.
            let on_channel = *to == 0 && data.len() != 2;
            let message = if on_channel { frame(CHANNEL, data) } else { client.send_indication(addresses[*to], data) };
            bytes.extend(message);
        }
        // In one piece every other time.
        let longest = if round % 2 == 0 { bytes.len() } else { 3000 };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rng.random_range(1..=longest).max(longest / 2).min(rest.len()));
            client.socket.write_all(piece).expect("to send");
            rest = others;
        }
        let mut buffer = [0; 2000];
        for (to, data) in &sent {
            let (len, from) = peers[*to].recv_from(&mut buffer).expect("what the client sent");
            assert_eq!((&buffer[..len], from), (&data[..], relayed));
        }
        for (from, data) in &sent {
            peers[*from].send_to(data, relayed).expect("to send");
        }
        let got: Vec<_> = (0..BURST).map(|_| read_message(&mut client.socket)).collect();
        let (on_channel, indications): (Vec<_>, Vec<_>) = got.iter().partition(|message| message[0] >= 64);
        let of = |peer: usize| sent.iter().filter(move |(from, _)| *from == peer).map(|(_, data)| data);
        assert!(on_channel.into_iter().eq(&of(0).map(|data| channel_data(CHANNEL, data)).collect::<Vec<_>>()));
        let data = |message: &Vec<u8>| {
            let message = Message::parse(message).expect("a STUN message");
            message.get(AttributeType::DATA).expect("data").to_vec()
        };
        assert!(indications.into_iter().map(data).eq(of(1).cloned()));
    }
    let log = server.stop();
    assert!(log.contains("\"drops\":\"\""), "{log}");
}

#[test]
fn bursts_arrive_whole_and_in_order() {
    bursts("auto");
}

#[test]
fn bursts_arrive_whole_and_in_order_on_the_portable_path() {
    bursts("portable");
}

/// In one piece: data, a request that ends the allocation, more data. What came first leaves before the socket is closed.
#[test]
fn what_is_sent_before_the_end_of_an_allocation_arrives() {
    let server = server("");
    for _ in 0..20 {
        let (mut client, _, [peer, _]) = session(&server);
        let end = client.sign(Method::Refresh, |writer| {
            writer.u32(AttributeType::LIFETIME, 0);
        });
        let data = frame(CHANNEL, b"data").repeat(20);
        client.socket.write_all(&[&data[..], &end, &data].concat()).expect("to send");
        assert_eq!(read_message(&mut client.socket)[8..20], end[8..20]);
        let mut buffer = [0; 100];
        for _ in 0..20 {
            assert_eq!(peer.recv(&mut buffer).expect("what was sent before"), 4);
        }
        peer.set_nonblocking(true).expect("not to wait");
        assert_eq!(peer.recv(&mut buffer).expect_err("nothing after").kind(), ErrorKind::WouldBlock);
    }
    let log = server.stop();
    assert!(log.contains("\"drops\":\"no-allocation=400\""), "{log}");
}

/// Whatever is before bytes that are no message is delivered; then the connection ends.
#[test]
fn what_is_sent_before_framing_is_lost_arrives() {
    let server = server("");
    let (mut client, _, [peer, _]) = session(&server);
    client.socket.write_all(&[&frame(CHANNEL, b"data").repeat(3)[..], b"\xFF\xFF\xFF\xFF"].concat()).expect("to send");
    for _ in 0..3 {
        assert_eq!(peer.recv(&mut [0; 100]).expect("what was sent before"), 4);
    }
    assert_eq!(client.socket.read(&mut [0; 1]).expect("the end"), 0);
    server.stop();
}
