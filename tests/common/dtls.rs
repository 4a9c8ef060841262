//! A client's end of DTLS, by OpenSSL, over a socket that can lose datagrams and tells how long they were.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, SslConnector, SslMethod, SslOptions, SslStream, SslVersion};

use super::PATIENCE;
use super::tls::HOST;

/// The client's datagrams.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) socket: UdpSocket,
    /// Lengths of what has come, in order.
    pub(crate) received: Vec<usize>,
    /// What was sent, in order.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Which of the datagrams that come are lost, by their place in `received`.
    pub(crate) lose: Range<usize>,
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            // An ICMP error about something sent before is reported here, and is no reason to give up.
            let len = self.socket.recv(into).map_err(|_| std::io::ErrorKind::WouldBlock)?;
            let lost = self.lose.contains(&self.received.len());
            self.received.push(len);
            if !lost {
                return Ok(len);
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, datagram: &[u8]) -> std::io::Result<usize> {
        self.sent.push(datagram.to_vec());
        // What the system will not take is lost, as datagrams may be.
        let _ = self.socket.send(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The end of a client.
pub(crate) type Stream = SslStream<Socket>;

/// A socket for a client of `server` on the same host.
pub(crate) fn socket(server: SocketAddr) -> UdpSocket {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).expect("a socket");
    socket.connect(server).expect("connecting a socket");
    socket
}

/// A client that trusts `ca.pem` of this folder, and wants [`HOST`], before its handshake.
pub(crate) fn prepare(folder: &Path, socket: UdpSocket) -> Stream {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
    let mut connector = SslConnector::builder(SslMethod::dtls_client()).expect("a client");
    connector.set_ca_file(folder.join("ca.pem")).expect("ca.pem");
    connector.set_min_proto_version(Some(SslVersion::DTLS1_2)).expect("DTLS 1.2");
    connector.set_options(SslOptions::NO_QUERY_MTU);
    let mut ssl = connector.build().configure().expect("a client").into_ssl(HOST).expect("a client");
    ssl.set_mtu(1200).expect("an MTU");
    ssl.set_connect_state();
    let socket = Socket { socket, received: Vec::new(), sent: Vec::new(), lose: 0..0 };
    SslStream::new(ssl, socket).expect("a client")
}

/// Holds the handshake, with retransmissions; false if it is refused or not finished in time.
pub(crate) fn handshake(stream: &mut Stream, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        // OpenSSL looks at its timer whenever there is nothing to read.
        match stream.do_handshake() {
            Ok(()) => return true,
            Err(error) if error.code() == ErrorCode::WANT_READ => {}
            Err(_) => return false,
        }
    }
    false
}

/// A client after its handshake.
pub(crate) fn connect(folder: &Path, server: SocketAddr) -> Stream {
    let mut stream = prepare(folder, socket(server));
    assert!(handshake(&mut stream, PATIENCE), "no handshake with the server");
    stream
}

/// Sends one message.
pub(crate) fn send(stream: &mut Stream, message: &[u8]) {
    assert_eq!(stream.ssl_write(message).expect("a record"), message.len());
}

/// What has come of waiting for a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Message(usize),
    Nothing,
    /// close_notify, or an alert.
    End,
}

/// The next message within this time.
pub(crate) fn receive(stream: &mut Stream, into: &mut [u8], limit: Duration) -> Received {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.get_ref().socket.set_read_timeout(Some(left)).expect("a time limit");
        // What dropped datagrams have left there would be taken for the error of this call.
        drop(ErrorStack::get());
        match stream.ssl_read(into) {
            Ok(len) => return Received::Message(len),
            Err(error) if error.code() == ErrorCode::WANT_READ => {}
            Err(error) => {
                eprintln!("the session has ended: {error:?}");
                return Received::End;
            }
        }
        if Instant::now() >= deadline {
            return Received::Nothing;
        }
    }
}
