//! Events as they happen.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;
use turnserver::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};

use crate::common::{PATIENCE, Server, USER, client::loopback_socket};
use crate::web::{Answer, ask_locally, client, managed, request, socket};

/// A connection on which events come.
struct Listener(BufReader<UnixStream>);

impl Listener {
    fn begin(server: &Server) -> Result<Self, Answer> {
        let mut stream = UnixStream::connect(socket(server)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.write_all(request("GET", "/v1/events", &[], "").as_bytes()).expect("to ask");
        let mut reader = BufReader::new(stream);
        if !reader.fill_buf().expect("an answer").starts_with(b"HTTP/1.1 200") {
            return Err(Answer::read(reader));
        }
        let mut listener = Self(reader);
        let head: Vec<String> = std::iter::from_fn(|| Some(listener.line()).filter(|line| !line.is_empty())).collect();
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")), "{head:?}");
        Ok(listener)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// The next event: its name and its data.
    fn next(&mut self) -> (String, Value) {
        loop {
            // Between them are lengths of chunks and comments.
            if let Some(name) = self.line().strip_prefix("event: ") {
                let data = self.line();
                let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {data}"));
                return (name.to_owned(), serde_json::from_str(data).expect("JSON"));
            }
        }
    }
}

#[test]
fn sessions_and_refusals_are_told_as_they_happen() {
    let server = Server::start(&managed(""));
    let mut listener = Listener::begin(&server).expect("events");
    let mut client = client(&server);
    let relayed = client.allocate().expect("an allocation");
    let (name, refused) = listener.next();
    assert_eq!((name.as_str(), &refused["method"], &refused["code"]), ("refused", &"Allocate".into(), &401.into()));
    assert_eq!((&refused["reason"], &refused["untold"]), (&"Unauthenticated".into(), &0.into()));
    let (name, begins) = listener.next();
    assert_eq!((name.as_str(), &begins["user"], &begins["transport"]), ("session-begins", &USER.into(), &"udp".into()));
    assert_eq!((&begins["realm"], &begins["tenant"]), (&"example.org".into(), &serde_json::Value::Null));
    assert_eq!(begins["relayed"], serde_json::json!([relayed.to_string()]));
    assert_eq!(begins["client"], format!("127.0.0.1:{}", client.local().port()));
    client.delete().expect("to delete");
    let (name, ends) = listener.next();
    assert_eq!((name.as_str(), &ends["id"], &ends["reason"]), ("session-ends", &begins["id"], &"deleted".into()));
    assert!(ends["seconds"].is_number() && ends["at"].as_f64() >= begins["at"].as_f64());
}

#[test]
fn so_many_listen_and_one_that_leaves_makes_room() {
    let server = Server::start(&managed(""));
    let mut listeners: Vec<Listener> = (0..8).map(|_| Listener::begin(&server).expect("events")).collect();
    let refused = Listener::begin(&server).err().expect("no events");
    assert_eq!(refused.status, 503);
    listeners.pop();
    // The server notices when it has something to send, or that the connection is closed.
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(refused) = Listener::begin(&server) {
        assert_eq!(refused.status, 503);
        assert!(std::time::Instant::now() < deadline, "nobody has left");
    }
    assert_eq!(ask_locally(&server, "GET", "/live", "").status, 200);
}

/// A flood of refusals is told in part, and how many were not told.
#[test]
fn a_flood_of_refusals_is_bounded() {
    let limits = "[limits]\nunauthorized-rate = 0\n[compatibility]";
    let server = Server::start(&managed("").replace("[compatibility]", limits));
    let mut listener = Listener::begin(&server).expect("events");
    let mut buffer = [0; 64];
    let mut writer = MessageWriter::new(&mut buffer, Method::Allocate, Class::Request, TransactionId([7; 12]));
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let len = writer.finish().expect("room");
    let request = &buffer[..len];
    let (flood, to, stop) = (loopback_socket(), server.ipv4("udp"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let knock = || drop(flood.send_to(request, to));
            (0..2000).for_each(|_| knock());
            // Later seconds tell what was passed over in earlier ones.
            while !stop.load(Ordering::Relaxed) {
                knock();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let mut told = 0;
        let untold = loop {
            let (name, data) = listener.next();
            assert_eq!(name, "refused");
            told += 1;
            if let Some(untold) = data["untold"].as_u64().filter(|untold| *untold > 0) {
                break untold;
            }
        };
        stop.store(true, Ordering::Relaxed);
        assert!(told < 1000 && untold > 100, "{told} told, {untold} untold");
    });
}
