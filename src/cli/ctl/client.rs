//! One request over the server's Unix socket.

use std::path::Path;

use serde_json::Value;

/// What the server has answered.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: u16,
    pub(in crate::cli) body: Value,
}

impl Answer {
    /// What was asked for, or why not.
    pub(in crate::cli) fn good(self) -> Result<Value, String> {
        match self.status {
            200..=299 => Ok(self.body),
            status => Err(match self.body["error"].as_str() {
                Some(why) => why.to_owned(),
                None => format!("the server has answered with status {status}"),
            }),
        }
    }

    /// Reads an HTTP response that is complete.
    fn parse(response: &[u8]) -> Option<Self> {
        let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&response[..end]).ok()?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let body = serde_json::from_slice(&response[end + 4..]).ok()?;
        Some(Self { status, body })
    }
}

/// Asks the server behind this socket.
#[cfg(unix)]
pub(in crate::cli) fn call(socket: &Path, method: &str, target: &str, body: Option<&Value>) -> Result<Answer, String> {
    use std::{
        io::{ErrorKind, Read, Write},
        os::unix::net::UnixStream,
        time::Duration,
    };

    /// How long the server may take.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Longest answer.
    const LONGEST: u64 = 64 << 20;

    let shown = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "run this as root or as the user that the server runs as",
            _ => "is the server running, with this management.socket? Another one is named with --socket or -c",
        };
        format!("cannot reach the server at {shown}: {error}; {remedy}")
    })?;
    let failed = |error| format!("the server at {shown} does not answer: {error}");
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut response = Vec::new();
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.take(LONGEST).read_to_end(&mut response))
        .map_err(failed)?;
    Answer::parse(&response).ok_or_else(|| format!("what answers at {shown} is not this server"))
}

/// There are no Unix sockets.
#[cfg(not(unix))]
pub(in crate::cli) fn call(_: &Path, _: &str, _: &str, _: Option<&Value>) -> Result<Answer, String> {
    Err("this system has no Unix sockets; use the HTTP interface".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_nonsense_is_not() {
        let parse = |text: &str| Answer::parse(text.as_bytes());
        let good = parse("HTTP/1.1 200 OK\r\nX: y\r\n\r\n{\"a\": 1}\n").unwrap();
        assert_eq!(good.good().unwrap()["a"], 1);
        let bad = parse("HTTP/1.1 404 Not Found\r\n\r\n{\"error\": \"no\"}").unwrap();
        assert_eq!(bad.good().unwrap_err(), "no");
        assert!(parse("HTTP/1.1 503 Busy\r\n\r\n{}").unwrap().good().unwrap_err().contains("503"));
        for wrong in ["", "SSH-2.0\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 2\r\n\r\n{}"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
