//! The clients' side: many UDP clients on one socket, or one connection or session of DTLS per client.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use super::dtls::DtlsClients;
use super::streams::StreamClients;
use super::tls::Tls;
use crate::job::{Job, Secured};
use crate::system::{self, DatagramOptions, Receiver, Sender};

/// The clients of one server.
pub(crate) enum Clients {
    Udp(Box<UdpClients>),
    Streams(StreamClients),
    Dtls(DtlsClients),
}

pub(crate) struct UdpClients {
    socket: UdpSocket,
    prefix: [u8; 2],
    server: SocketAddrV4,
    sender: Sender,
    receiver: Receiver,
}

impl Clients {
    /// UDP clients, any number.
    pub(crate) fn udp(job: &Job, options: DatagramOptions) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        system::set_options(&socket, options)?;
        let (sender, receiver) = (Sender::new(), Receiver::new(options.gro));
        Ok(Self::Udp(Box::new(UdpClients { socket, prefix: job.clients, server: job.server, sender, receiver })))
    }

    /// `count` TCP connections.
    pub(crate) fn tcp(job: &Job, count: usize) -> io::Result<Self> {
        let clients = (0..count).map(|client| address(job.clients, client));
        StreamClients::connect(job.server, clients, None).map(Self::Streams)
    }

    /// `count` TCP connections with TLS, after their handshakes.
    pub(crate) fn tls(job: &Job, count: usize) -> io::Result<Self> {
        let secured = secured(job)?;
        let clients = (0..count).map(|client| address(job.clients, client));
        StreamClients::connect(secured.server, clients, Some(&Tls::new(&secured.certificate)?)).map(Self::Streams)
    }

    /// `count` sessions of DTLS, after their handshakes.
    pub(crate) fn dtls(job: &Job, count: usize) -> io::Result<Self> {
        let secured = secured(job)?;
        let clients = (0..count).map(|client| address(job.clients, client));
        DtlsClients::connect(secured.server, clients, &secured.certificate).map(Self::Dtls)
    }

    /// Whether what is sent is a stream, in which ChannelData is padded (RFC 8656 §12.5).
    pub(crate) const fn are_streams(&self) -> bool {
        matches!(self, Self::Streams(_))
    }

    /// Version and cipher suite of what secures the first client.
    pub(crate) fn security(&self) -> Option<String> {
        match self {
            Self::Udp(_) => None,
            Self::Streams(streams) => streams.security(),
            Self::Dtls(dtls) => dtls.security(),
        }
    }

    /// Sends one STUN message.
    pub(crate) fn send(&mut self, client: usize, message: &[u8]) {
        self.send_with(client, None, |buffer| buffer.extend_from_slice(message));
    }

    /// Sends what `fill` appends to a buffer: over UDP and DTLS one datagram, or a train of datagrams of
    /// `segment` bytes; over a connection one write.
    pub(crate) fn send_with(&mut self, client: usize, segment: Option<u16>, fill: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Udp(udp) => {
                fill(udp.sender.buffer());
                udp.sender.commit(udp.server, Some(address(udp.prefix, client)), segment);
                if udp.sender.is_full() {
                    udp.sender.flush(&udp.socket);
                }
            }
            Self::Streams(streams) => streams.send(client, fill),
            Self::Dtls(dtls) => dtls.send(client, segment, fill),
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Self::Udp(udp) = self {
            udp.sender.flush(&udp.socket);
        }
    }

    /// Takes what is there and shows each message with its client and its time of arrival; returns how many there were.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(usize, &[u8], u64)) -> usize {
        match self {
            Self::Udp(udp) => {
                let (prefix, server) = (udp.prefix, udp.server);
                udp.receiver.receive(&udp.socket, |datagram| {
                    if let Some(client) = client(prefix, datagram.local)
                        && datagram.source == server
                    {
                        each(client, datagram.bytes, datagram.stamp);
                    }
                })
            }
            Self::Streams(streams) => streams.receive(each),
            Self::Dtls(dtls) => dtls.receive(each),
        }
    }

    /// Datagrams that this end dropped or could not send.
    pub(crate) fn faults(&self) -> u64 {
        match self {
            Self::Udp(udp) => u64::from(system::dropped(&udp.socket)) + udp.sender.refused(),
            Self::Streams(_) | Self::Dtls(_) => 0,
        }
    }
}

fn secured(job: &Job) -> io::Result<&Secured> {
    job.secured.as_ref().ok_or_else(|| io::Error::other("the server has no certificate"))
}

/// The address of a client.
fn address(prefix: [u8; 2], client: usize) -> Ipv4Addr {
    let [high, low] = (client as u16 + 1).to_be_bytes();
    Ipv4Addr::new(prefix[0], prefix[1], high, low)
}

/// The client with an address.
fn client(prefix: [u8; 2], address: Ipv4Addr) -> Option<usize> {
    let [first, second, high, low] = address.octets();
    let number = usize::from(u16::from_be_bytes([high, low]));
    if [first, second] == prefix { number.checked_sub(1) } else { None }
}
