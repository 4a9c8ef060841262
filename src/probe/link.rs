//! One way to a server: messages over UDP, TCP, TLS or DTLS.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

use super::{dtls::Dtls, tls};
use crate::{
    stun::{
        frame::{Frame, front},
        padded,
    },
    turn::Transport,
};

/// Longest datagram taken.
const LONGEST: usize = 65_536;

/// A stream of bytes, secured or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Kind {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Vec<u8>),
    Dtls(Box<Dtls>),
}

/// A way to a server.
pub(super) struct Link {
    kind: Kind,
    /// What has come and was not asked for yet.
    arrived: VecDeque<Vec<u8>>,
    /// This end.
    pub(super) local: SocketAddr,
}

/// What was agreed on for security.
#[derive(Debug, Clone, Default)]
pub(super) struct Security {
    /// Version and cipher suite.
    pub(super) what: String,
    /// The server's certificate and what it has sent with it.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// A link, and how it came to be.
pub(super) struct Opened {
    pub(super) link: Link,
    /// How long the TCP connection took.
    pub(super) connect: Option<Duration>,
    /// How long the handshake took.
    pub(super) handshake: Option<Duration>,
    pub(super) security: Option<Security>,
}

/// Why there is no link.
#[derive(Debug)]
pub(super) enum OpenError {
    /// No connection.
    Connect(io::Error),
    /// No answer in time.
    Silent,
    /// The connection is there, its security is not.
    Handshake(String),
    /// The server does not even begin a handshake.
    SilentHandshake,
}

/// Opens a link within this time.
pub(super) async fn open(
    transport: Transport,
    server: SocketAddr,
    host: &str,
    limit: Duration,
) -> Result<Opened, OpenError> {
    let begun = Instant::now();
    let deadline = begun + limit;
    if matches!(transport, Transport::Udp | Transport::Dtls) {
        let socket = udp(server).await.map_err(OpenError::Connect)?;
        let local = socket.local_addr().map_err(OpenError::Connect)?;
        if transport == Transport::Udp {
            let link = Link { kind: Kind::Udp(socket), arrived: VecDeque::new(), local };
            return Ok(Opened { link, connect: None, handshake: None, security: None });
        }
        let (dtls, security) = Dtls::connect(socket, host, deadline).await?;
        let link = Link { kind: Kind::Dtls(Box::new(dtls)), arrived: VecDeque::new(), local };
        return Ok(Opened { link, connect: None, handshake: Some(begun.elapsed()), security: Some(security) });
    }
    let connected = timeout_at(deadline, TcpStream::connect(server)).await;
    let stream = connected.map_err(|_| OpenError::Silent)?.map_err(OpenError::Connect)?;
    stream.set_nodelay(true).map_err(OpenError::Connect)?;
    let (connect, local) = (begun.elapsed(), stream.local_addr().map_err(OpenError::Connect)?);
    let shaking = Instant::now();
    let (stream, security): (Box<dyn Stream>, _) = match transport {
        Transport::Tls => {
            let (stream, security) = timeout(limit, tls::connect(stream, host))
                .await
                .map_err(|_| OpenError::SilentHandshake)?
                .map_err(OpenError::Handshake)?;
            (stream, Some(security))
        }
        _ => (Box::new(stream), None),
    };
    let handshake = security.as_ref().map(|_| shaking.elapsed());
    let link = Link { kind: Kind::Stream(stream, Vec::new()), arrived: VecDeque::new(), local };
    Ok(Opened { link, connect: Some(connect), handshake, security })
}

/// A socket that hears of one server only.
pub(super) async fn udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(unspecified(server)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Any local address of the other's family.
pub(super) fn unspecified(of: SocketAddr) -> SocketAddr {
    if of.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    }
}

impl Link {
    /// Whether what is sent may be lost.
    pub(super) const fn is_datagrams(&self) -> bool {
        !matches!(self.kind, Kind::Stream(..))
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Kind::Udp(socket) => socket.send(message).await.map(drop),
            Kind::Stream(stream, _) => {
                // ChannelData is padded on streams (RFC 8656 §12.5); STUN is of whole words already.
                let mut framed = message.to_vec();
                framed.resize(padded(message.len()), 0);
                stream.write_all(&framed).await?;
                stream.flush().await
            }
            Kind::Dtls(dtls) => dtls.send(message).await,
        }
    }

    /// The next message; `None` if none comes before the deadline.
    pub(super) async fn receive(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        match self.arrived.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.next(deadline).await,
        }
    }

    /// The first message that is wanted; others that come before it stay for later.
    pub(super) async fn receive_wanted(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        if let Some(at) = self.arrived.iter().position(|message| wanted(message)) {
            return Ok(self.arrived.remove(at));
        }
        while let Some(message) = self.next(deadline).await? {
            if wanted(&message) {
                return Ok(Some(message));
            }
            self.arrived.push_back(message);
        }
        Ok(None)
    }

    async fn next(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        match &mut self.kind {
            Kind::Udp(socket) => {
                let mut buffer = vec![0; LONGEST];
                match timeout_at(deadline, socket.recv(&mut buffer)).await {
                    Err(_) => Ok(None),
                    Ok(received) => {
                        buffer.truncate(received?);
                        Ok(Some(buffer))
                    }
                }
            }
            Kind::Stream(stream, buffer) => loop {
                match front(buffer, false) {
                    Frame::Stun(len) | Frame::ChannelData(len) => return Ok(Some(buffer.drain(..len).collect())),
                    Frame::Lost => return Err(io::Error::new(ErrorKind::InvalidData, "what comes is not TURN")),
                    Frame::Partial(_) => {}
                }
                match timeout_at(deadline, stream.read_buf(buffer)).await {
                    Err(_) => return Ok(None),
                    Ok(Ok(0)) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error),
                }
            },
            Kind::Dtls(dtls) => dtls.receive(deadline).await,
        }
    }
}
