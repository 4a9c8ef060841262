//! One question to a STUN server: what address does it see? (RFC 8489, a Binding request)

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout, timeout_at},
};

use super::client::transaction_id;
use crate::stun::{AttributeType, Class, Message, MessageWriter, Method, TransactionId};

/// Time until the request is sent again for the first time.
const RETRANSMIT: Duration = Duration::from_millis(250);

/// What a STUN server sees of whoever asks from the address `from`.
///
/// # Errors
/// The server cannot be reached, or does not answer within the time.
pub async fn seen_by(server: SocketAddr, from: IpAddr, limit: Duration) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).await?;
    socket.connect(server).await?;
    let (id, deadline, mut pause) = (transaction_id(), Instant::now() + limit, RETRANSMIT);
    let mut request = [0; 64];
    let writer = MessageWriter::new(&mut request, Method::Binding, Class::Request, id);
    let len = writer.finish().map_err(|_| io::Error::other("the request is too long"))?;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        socket.send(&request[..len]).await?;
        let until = deadline.min(Instant::now() + pause);
        pause *= 2;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            if let Some(seen) = answer(&buffer[..received?], id) {
                return seen.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the answer has no address"));
            }
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// The address in an answer to this request; `None` if it is none.
fn answer(bytes: &[u8], id: TransactionId) -> Option<Option<SocketAddr>> {
    let message = Message::parse(bytes).ok().filter(|message| message.transaction_id() == id)?;
    if message.class() != Class::Success {
        return Some(None);
    }
    Some(message.get_xor_address(AttributeType::XOR_MAPPED_ADDRESS).and_then(Result::ok))
}

/// The addresses of a host, of the family of `like`, within the time.
///
/// # Errors
/// It has none, or they are not found.
pub async fn resolve_like(host: &str, port: u16, like: IpAddr, limit: Duration) -> io::Result<SocketAddr> {
    let found = timeout(limit, tokio::net::lookup_host((host, port))).await.map_err(|_| ErrorKind::TimedOut)??;
    let mut found = found.filter(|address| address.is_ipv4() == like.is_ipv4());
    found.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "it has no address of this family"))
}
