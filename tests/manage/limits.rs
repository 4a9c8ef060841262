//! What management is bounded by.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::common::{PATIENCE, Server};
use crate::web::{Answer, TOKEN, address, ask, ask_locally, connect, managed, request, with_token};

#[test]
fn long_requests_are_refused() {
    let server = Server::start(&with_token(""));
    let long = "x".repeat(64 << 10);
    let answer = ask(&server, "GET", "/live", &[("X-Long", &long)], "");
    assert_eq!(answer.status, 431);
    let many: Vec<(String, &str)> = (0..200).map(|at| (format!("X-{at}"), "y")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(ask(&server, "GET", "/live", &many, "").status, 431);
    let target = format!("/live?{long}");
    assert!([414, 431].contains(&ask(&server, "GET", &target, &[], "").status));
    let authorization = format!("Bearer {TOKEN}");
    let answer = ask(&server, "PUT", "/v1/log-level", &[("Authorization", &authorization)], &long);
    assert_eq!(answer.status, 413);
    assert_eq!(ask(&server, "GET", "/live", &[], "").status, 200);
}

/// Slow ones are closed, and those that are too many, and the Unix socket is not affected.
#[test]
fn slow_and_many_connections_keep_nobody_else_out() {
    let server = Server::start(&managed(""));
    let began = Instant::now();
    let slow: Vec<TcpStream> = (0..64)
        .map(|at| {
            let mut stream = connect(address(&server));
            // The others say nothing at all.
            if at % 2 == 0 {
                stream.write_all(b"GET /live HTTP/1.1\r\nX-Slow: ").expect("to begin");
            }
            stream
        })
        .collect();
    // They are served in order: this one is closed at once, as there are as many as may be.
    let mut one_more = connect(address(&server));
    let refused = one_more.read(&mut [0; 1]);
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "it was not closed at once");
    assert_eq!(ask_locally(&server, "GET", "/live", "").status, 200);
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
    assert!(began.elapsed() >= Duration::from_secs(5), "they were given no time at all");
    assert!(began.elapsed() < PATIENCE * 2, "they were given too much time");
    assert_eq!(ask(&server, "GET", "/live", &[], "").status, 200);
}

#[test]
fn a_connection_serves_several_requests() {
    let server = Server::start(&managed(""));
    let mut stream = connect(address(&server));
    let first = request("GET", "/live", &[], "").replace("Connection: close\r\n", "");
    for _ in 0..3 {
        stream.write_all(first.as_bytes()).expect("to ask");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    stream.write_all(request("GET", "/live", &[], "").as_bytes()).expect("to ask");
    assert_eq!(Answer::read(stream).status, 200);
}
