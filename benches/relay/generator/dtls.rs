//! Clients over DTLS 1.2, by OpenSSL: each has a socket and a session.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{ErrorCode, SslConnector, SslMethod, SslOptions, SslStream, SslVersion};

use crate::job::REALM;
use crate::system::Poll;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server's flight or its loss is waited for so long before OpenSSL looks at its timer.
const WAIT: Duration = Duration::from_millis(50);
/// More than any packet of a workload, sealed.
const MTU: u32 = 1472;
/// Messages that are taken from one client before the next has its turn.
const TURN: usize = 64;

/// All clients of one server.
pub(crate) struct DtlsClients {
    poll: Poll,
    sessions: Vec<SslStream<Datagrams>>,
    ready: Vec<usize>,
    buffer: Vec<u8>,
    /// What a client sends, before it is encrypted.
    plain: Vec<u8>,
}

impl DtlsClients {
    /// Clients that trust one certificate, after their handshakes, one after the other.
    pub(crate) fn connect(
        server: SocketAddrV4,
        clients: impl Iterator<Item = Ipv4Addr>,
        certificate: &Path,
    ) -> io::Result<Self> {
        let mut connector = SslConnector::builder(SslMethod::dtls_client())?;
        connector.set_ca_file(certificate)?;
        connector.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        connector.set_options(SslOptions::NO_QUERY_MTU);
        let connector = connector.build();
        let poll = Poll::new()?;
        let mut sessions = Vec::new();
        for (number, address) in clients.enumerate() {
            let socket = UdpSocket::bind((address, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(WAIT))?;
            let mut ssl = connector.configure()?.into_ssl(REALM)?;
            ssl.set_mtu(MTU)?;
            ssl.set_connect_state();
            let mut session = SslStream::new(ssl, Datagrams(socket))?;
            handshake(&mut session)?;
            session.get_ref().0.set_nonblocking(true)?;
            poll.add(&session.get_ref().0, number)?;
            sessions.push(session);
        }
        Ok(Self { poll, sessions, ready: Vec::new(), buffer: vec![0; 16 << 10], plain: Vec::new() })
    }

    /// Version and cipher suite of the first.
    pub(crate) fn security(&self) -> Option<String> {
        let ssl = self.sessions.first()?.ssl();
        Some(format!("{} {}", ssl.version_str(), ssl.current_cipher()?.name()))
    }

    /// Sends what `fill` appends to a buffer, in records of `segment` bytes each.
    pub(crate) fn send(&mut self, client: usize, segment: Option<u16>, fill: impl FnOnce(&mut Vec<u8>)) {
        self.plain.clear();
        fill(&mut self.plain);
        let each = segment.map_or(self.plain.len(), usize::from).max(1);
        for message in self.plain.chunks(each) {
            // What is not sent is lost, as datagrams may be.
            let _ = self.sessions[client].ssl_write(message);
        }
    }

    /// Reads from every client for whom something has come, and shows each message with its client; returns how many.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8], u64)) -> usize {
        self.ready.clear();
        self.ready.extend(self.poll.ready());
        let mut messages = 0;
        for &client in &self.ready {
            for _ in 0..TURN {
                // What other sessions have left there would be taken for the error of this call.
                drop(ErrorStack::get());
                let Ok(length) = self.sessions[client].ssl_read(&mut self.buffer) else { break };
                messages += 1;
                each(client, &self.buffer[..length], 0);
            }
        }
        messages
    }
}

fn handshake(session: &mut SslStream<Datagrams>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match session.do_handshake() {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == ErrorCode::WANT_READ && Instant::now() < deadline => {}
            Err(error) => return Err(io::Error::other(format!("DTLS handshake: {error}"))),
        }
    }
}

/// A connected socket as OpenSSL wants one.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv(into).map_err(|_| ErrorKind::WouldBlock.into())
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
