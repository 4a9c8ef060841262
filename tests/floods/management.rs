//! Abuse of the HTTP listener of management: slow, huge and endless requests, wrong tokens, more connections than may be.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    common::{PATIENCE, Server},
    scene::{Flood, Pace, Scene},
};

pub(crate) fn floods() -> Vec<Flood> {
    let configuration = "[management]\nlisten = \"127.0.0.1:9641\"\ntoken = \"0123456789abcdef0123456789abcdef\"\n";
    vec![Flood {
        configuration,
        ..Flood::new("management: slow, huge, wrong tokens, many connections", 300, abuse)
    }]
}

fn address(server: &Server) -> SocketAddr {
    server.await_logged("management")["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    stream
}

fn abuse(scene: &Scene, pace: &mut Pace) {
    let to = address(&scene.server);
    let huge = format!("GET /v1/sessions?{} HTTP/1.1\r\nX: {}\r\n", "x".repeat(60_000), "y".repeat(1 << 20));
    let wrong =
        "GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nConnection: close\r\n\r\n";
    let mut slow: Vec<TcpStream> = Vec::new();
    while pace.goes_on() {
        for kind in 0..10 {
            let mut stream = connect(to);
            match kind {
                0 => {
                    // What is cut off in the middle is what this is about.
                    let _ = stream.write_all(huge.as_bytes());
                }
                1 | 2 => {
                    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
                    slow.push(stream);
                }
                _ => {
                    let _ = stream.write_all(wrong.as_bytes());
                    let mut answer = [0; 12];
                    // Nothing, where there are too many connections.
                    let read = stream.read(&mut answer).unwrap_or(0);
                    assert!(!answer[..read].ends_with(b"200"), "the token is wrong");
                }
            }
            if slow.len() > 200 {
                slow.clear();
            }
            pace.count(1);
            if !pace.goes_on() {
                return;
            }
        }
    }
}
