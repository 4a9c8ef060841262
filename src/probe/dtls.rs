//! A client's end of DTLS, by OpenSSL over datagrams in memory. Like that of TLS it takes any certificate.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    time::Duration,
};

use openssl::{
    error::ErrorStack,
    ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::link::{OpenError, Security};

/// What every path takes.
const MTU: u32 = 1200;
/// OpenSSL looks at its timer of retransmission when it is asked to go on.
const TICK: Duration = Duration::from_millis(100);

/// Datagrams on their way from and to OpenSSL.
#[derive(Debug, Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl io::Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(ErrorKind::WouldBlock)?;
        let len = datagram.len().min(into.len());
        into[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl io::Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An association with a server.
pub(super) struct Dtls {
    stream: SslStream<Wire>,
    socket: UdpSocket,
}

impl Dtls {
    /// Holds a handshake.
    pub(super) async fn connect(
        socket: UdpSocket,
        host: &str,
        deadline: Instant,
    ) -> Result<(Self, Security), OpenError> {
        let cannot = |error: ErrorStack| OpenError::Handshake(error.to_string());
        let stream = prepare(host).map_err(cannot)?;
        let mut dtls = Self { stream, socket };
        let mut answered = false;
        loop {
            forget_errors();
            match dtls.stream.do_handshake() {
                Ok(()) => break,
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => {
                    let words = error.ssl_error().map_or_else(|| error.to_string(), reason);
                    return Err(OpenError::Handshake(words));
                }
            }
            dtls.flush().await.map_err(OpenError::Connect)?;
            match dtls.load(deadline.min(Instant::now() + TICK)).await {
                Ok(more) => answered |= more,
                // A server that closes its port has answered nothing, and the system tells of it here.
                Err(error) => return Err(OpenError::Connect(error)),
            }
            if Instant::now() >= deadline {
                return Err(if answered { OpenError::SilentHandshake } else { OpenError::Silent });
            }
        }
        dtls.flush().await.map_err(OpenError::Connect)?;
        let ssl = dtls.stream.ssl();
        let chain = ssl.peer_cert_chain().into_iter().flatten();
        let security = Security {
            what: format!("{}, {}", ssl.version_str(), ssl.current_cipher().map_or("", |cipher| cipher.name())),
            chain: chain.filter_map(|one| one.to_der().ok()).map(CertificateDer::from).collect(),
        };
        Ok((dtls, security))
    }

    /// Sends what OpenSSL has written.
    async fn flush(&mut self) -> io::Result<()> {
        while let Some(datagram) = self.stream.get_mut().outgoing.pop_front() {
            self.socket.send(&datagram).await?;
        }
        Ok(())
    }

    /// Takes a datagram, if one comes before the deadline.
    async fn load(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut buffer = vec![0; 65_536];
        match timeout_at(deadline, self.socket.recv(&mut buffer)).await {
            Err(_) => Ok(false),
            Ok(received) => {
                buffer.truncate(received?);
                self.stream.get_mut().incoming = Some(buffer);
                Ok(true)
            }
        }
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        forget_errors();
        self.stream.ssl_write(message).map_err(|error| io::Error::other(error.to_string()))?;
        self.flush().await
    }

    /// The next message; `None` if none comes before the deadline.
    pub(super) async fn receive(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65_536];
        loop {
            forget_errors();
            match self.stream.ssl_read(&mut buffer) {
                Ok(len) => {
                    buffer.truncate(len);
                    return Ok(Some(buffer));
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) => {
                    let words = error.ssl_error().map_or_else(|| error.to_string(), reason);
                    return Err(io::Error::other(words));
                }
            }
            self.flush().await?;
            if !self.load(deadline).await? {
                return Ok(None);
            }
        }
    }
}

fn prepare(host: &str) -> Result<SslStream<Wire>, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls_client())?;
    context.set_verify(SslVerifyMode::NONE);
    context.set_options(SslOptions::NO_QUERY_MTU);
    let mut ssl = Ssl::new(&context.build())?;
    ssl.set_mtu(MTU)?;
    if host.parse::<std::net::IpAddr>().is_err() {
        ssl.set_hostname(host)?;
    }
    ssl.set_connect_state();
    SslStream::new(ssl, Wire::default())
}

/// What OpenSSL gives as the reason.
fn reason(errors: &ErrorStack) -> String {
    let first = errors.errors().first().and_then(openssl::error::Error::reason);
    first.map_or_else(|| errors.to_string(), |reason| format!("the handshake has failed ({reason})"))
}

/// OpenSSL takes what an earlier call has left in the thread's queue for the error of this one.
fn forget_errors() {
    drop(ErrorStack::get());
}
