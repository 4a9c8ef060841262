//! A small TURN client for tests that need many allocations rather than a foreign implementation: over UDP, and over TCP.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use turnserver::{
    auth::key::md5_key,
    stun::{
        AttributeType, ChannelData, ChannelNumber, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method,
        TransactionId, padded,
    },
    turn::Family,
};

use super::{PASSWORD, REALM, USER, ports::peer_socket};

/// Sent this often before a request counts as unanswered.
const TRIES: usize = 10;

/// A UDP socket on loopback that does not wait forever.
pub(crate) fn loopback_socket() -> UdpSocket {
    patient(UdpSocket::bind("127.0.0.1:0").expect("a socket"))
}

/// The same over IPv6.
pub(crate) fn loopback_socket_v6() -> UdpSocket {
    patient(UdpSocket::bind("[::1]:0").expect("a socket"))
}

/// A socket for a peer on loopback.
pub(crate) fn loopback_peer() -> UdpSocket {
    patient(peer_socket(Ipv4Addr::LOCALHOST.into()))
}

fn patient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    socket
}

/// Long-term credentials of the usual user.
pub(crate) fn key() -> IntegrityKey {
    key_of(USER)
}

fn key_of(user: &str) -> IntegrityKey {
    let key = md5_key(user, REALM, PASSWORD).expect("plain ASCII");
    IntegrityKey::new(MacAlgorithm::Sha1, key.as_bytes())
}

/// What a client talks to its server through.
pub(crate) trait Link {
    /// Sends a request until it is answered; other messages that come meanwhile are passed over.
    fn exchange(&mut self, server: SocketAddr, request: &[u8]) -> Option<Vec<u8>>;
}

impl Link for UdpSocket {
    fn exchange(&mut self, server: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        for _ in 0..TRIES {
            self.send_to(request, server).expect("to send");
            loop {
                match self.recv_from(&mut buffer) {
                    Ok((len, from)) if from == server && buffer[8..20] == request[8..20] => {
                        return Some(buffer[..len].to_vec());
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("cannot receive: {error}"),
                }
            }
        }
        None
    }
}

impl Link for TcpStream {
    fn exchange(&mut self, _server: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
        self.write_all(request).expect("to send");
        loop {
            let message = read_message(self);
            if message.get(8..20) == Some(&request[8..20]) {
                return Some(message);
            }
        }
    }
}

/// The next message on a stream, without padding.
pub(crate) fn read_message(stream: &mut impl Read) -> Vec<u8> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message).expect("a message");
    let len = usize::from(u16::from_be_bytes([message[2], message[3]])) + if message[0] < 64 { 20 } else { 4 };
    message.resize(padded(len), 0);
    stream.read_exact(&mut message[4..]).expect("a whole message");
    assert!(message[len..].iter().all(|byte| *byte == 0), "padding is of zeros");
    message.truncate(len);
    message
}

/// One 5-tuple of a client.
pub(crate) struct TurnClient<L = UdpSocket> {
    pub(crate) socket: L,
    pub(crate) server: SocketAddr,
    user: String,
    key: IntegrityKey,
    nonce: Vec<u8>,
    next: u32,
}

impl<L: Link> TurnClient<L> {
    pub(crate) fn new(socket: L, server: SocketAddr) -> Self {
        Self::of(USER, socket, server)
    }

    /// A client of another user with the usual password.
    pub(crate) fn of(user: &str, socket: L, server: SocketAddr) -> Self {
        Self { socket, server, user: user.to_owned(), key: key_of(user), nonce: Vec::new(), next: 0 }
    }

    fn id(&mut self) -> TransactionId {
        self.next += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next.to_be_bytes());
        TransactionId(id)
    }

    /// A request as bytes, signed if a nonce is known.
    pub(crate) fn sign(&mut self, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
        let (id, mut buffer) = (self.id(), [0; 2048]);
        let mut writer = MessageWriter::new(&mut buffer, method, Class::Request, id);
        attributes(&mut writer);
        if !self.nonce.is_empty() {
            writer.attribute(AttributeType::USERNAME, self.user.as_bytes());
            writer.attribute(AttributeType::REALM, REALM.as_bytes());
            writer.attribute(AttributeType::NONCE, &self.nonce);
            writer.integrity(&self.key);
        }
        let len = writer.finish().expect("room for a request");
        buffer[..len].to_vec()
    }

    /// Sends a request until it is answered; other messages that come meanwhile are passed over.
    pub(crate) fn request(&mut self, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
        let request = self.sign(method, attributes);
        let answer = self.socket.exchange(self.server, &request);
        answer.unwrap_or_else(|| panic!("{} was not answered", method.name()))
    }

    /// A request that must succeed.
    pub(crate) fn succeed(&mut self, method: Method, attributes: impl Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
        let response = self.request(method, attributes);
        let message = Message::parse(&response).expect("a STUN message");
        let error = message.get(AttributeType::ERROR_CODE);
        assert_eq!(message.class(), Class::Success, "{} failed: {error:?}", method.name());
        response
    }

    /// Gets a nonce from an unauthenticated Allocate.
    pub(crate) fn learn_nonce(&mut self) {
        self.nonce.clear();
        let challenge = self.request(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        let challenge = Message::parse(&challenge).expect("a STUN message");
        self.nonce = challenge.get(AttributeType::NONCE).expect("a nonce").to_vec();
    }

    /// Allocates an IPv4 address; returns it.
    pub(crate) fn allocate(&mut self) -> SocketAddr {
        self.allocate_with(&|_| {})
    }

    /// Allocates an address of one family; returns it.
    pub(crate) fn allocate_of(&mut self, family: Family) -> SocketAddr {
        let number = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        self.allocate_with(&|writer| {
            writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[number, 0, 0, 0]);
        })
    }

    fn allocate_with(&mut self, more: &dyn Fn(&mut MessageWriter<'_>)) -> SocketAddr {
        self.learn_nonce();
        let response = self.succeed(Method::Allocate, |writer| {
            writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            more(writer);
        });
        let response = Message::parse(&response).expect("a STUN message");
        response.get_xor_address(AttributeType::XOR_RELAYED_ADDRESS).and_then(Result::ok).expect("a relayed address")
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        self.succeed(Method::CreatePermission, |writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
    }

    pub(crate) fn bind(&mut self, channel: ChannelNumber, peer: SocketAddr) {
        let [high, low] = channel.0.to_be_bytes();
        self.succeed(Method::ChannelBind, |writer| {
            writer.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0]);
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
    }

    /// Deletes the allocation.
    pub(crate) fn delete(&mut self) {
        self.succeed(Method::Refresh, |writer| {
            writer.u32(AttributeType::LIFETIME, 0);
        });
    }

    /// A Send indication as bytes.
    pub(crate) fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        let (id, mut buffer) = (self.id(), vec![0; data.len() + 64]);
        let mut writer = MessageWriter::new(&mut buffer, Method::Send, Class::Indication, id);
        writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        writer.attribute(AttributeType::DATA, data);
        let len = writer.finish().expect("room for an indication");
        buffer.truncate(len);
        buffer
    }
}

/// ChannelData as bytes.
pub(crate) fn channel_data(number: ChannelNumber, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("data of ordinary length");
    [&ChannelData { number, len }.header(), data].concat()
}
