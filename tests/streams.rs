//! Clients on TCP that ask for more than their share: others are served all the same.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use common::{LOOPBACK, PATIENCE, Server, client::loopback_socket};

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
