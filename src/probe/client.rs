//! Requests and their answers on a link, with credentials as browsers have them: MESSAGE-INTEGRITY with the MD5 key.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use rand::RngExt;
use tokio::time::Instant;

use super::{Credentials, link::Link};
use crate::{
    auth::key::md5_key,
    stun::{
        AttributeType, ChannelData, ChannelNumber, Class, IntegrityKey, MacAlgorithm, Message, MessageWriter, Method,
        TransactionId,
    },
};

/// Time until a datagram is sent again for the first time (RFC 8489 §6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);
/// Room for any request.
const ROOM: usize = 2048;

/// The server's answer to a request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    /// From the last time that the request was sent.
    pub(super) round_trip: Duration,
    /// Times that it had to be sent again.
    pub(super) lost: u32,
    /// It carries a good MAC; `None` if there was nothing to check it with.
    pub(super) signed: Option<bool>,
}

impl Reply {
    /// What it says. It was parsed when it came, so that there is always a message.
    pub(super) fn message(&self) -> Option<Message<'_>> {
        Message::parse(&self.bytes).ok()
    }

    /// An attribute as text.
    pub(super) fn text(&self, attribute: AttributeType) -> Option<String> {
        let message = self.message()?;
        message.get(attribute).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// An attribute as bytes.
    pub(super) fn bytes(&self, attribute: AttributeType) -> Option<Vec<u8>> {
        self.message()?.get(attribute).map(<[u8]>::to_vec)
    }

    /// An address.
    pub(super) fn address(&self, attribute: AttributeType) -> Option<SocketAddr> {
        self.message()?.get_xor_address(attribute)?.ok()
    }

    /// A number.
    pub(super) fn number(&self, attribute: AttributeType) -> Option<u32> {
        self.message()?.get_u32(attribute)?.ok()
    }

    /// Code and reason, if it is an error.
    pub(super) fn error(&self) -> Option<(u16, String)> {
        let message = self.message()?;
        if message.class() != Class::Error {
            return None;
        }
        let value = message.get(AttributeType::ERROR_CODE).unwrap_or_default();
        let code = match value {
            [_, _, class, number, ..] => u16::from(class & 7) * 100 + u16::from(*number),
            _ => 0,
        };
        Some((code, String::from_utf8_lossy(value.get(4..).unwrap_or_default()).into_owned()))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// None came in time.
    Silence,
    /// The link is broken.
    Broken(io::Error),
    /// The credentials cannot be hashed.
    Credentials(String),
}

/// What requests are signed with.
struct Signature {
    user: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: IntegrityKey,
}

/// A client on one link.
pub(super) struct Client {
    pub(super) link: Link,
    timeout: Duration,
    signature: Option<Signature>,
}

impl Client {
    pub(super) const fn new(link: Link, timeout: Duration) -> Self {
        Self { link, timeout, signature: None }
    }

    /// Signs from now on, in the realm and with the nonce of the server's challenge.
    pub(super) fn sign_in(&mut self, credentials: &Credentials, realm: &[u8], nonce: &[u8]) -> Result<(), Failure> {
        let shown = String::from_utf8_lossy(realm);
        let (user, key) = match credentials {
            Credentials::None => return Ok(()),
            Credentials::Password { user, password } => {
                let key = md5_key(user, &shown, password);
                let key = key.map_err(|error| Failure::Credentials(error.to_string()))?;
                (user, IntegrityKey::new(MacAlgorithm::Sha1, key.as_bytes()))
            }
            Credentials::Key { user, md5 } => (user, IntegrityKey::new(MacAlgorithm::Sha1, &md5[..])),
        };
        self.signature = Some(Signature { user: user.clone(), realm: realm.to_vec(), nonce: nonce.to_vec(), key });
        Ok(())
    }

    /// Sends a request until it is answered, once more with a new nonce if the server wants one (438).
    pub(super) async fn request(
        &mut self,
        method: Method,
        attributes: impl Fn(&mut MessageWriter<'_>),
    ) -> Result<Reply, Failure> {
        let reply = self.exchange(method, &attributes).await?;
        let (Some((438, _)), Some(nonce), Some(signature)) =
            (reply.error(), reply.bytes(AttributeType::NONCE), &mut self.signature)
        else {
            return Ok(reply);
        };
        signature.nonce = nonce;
        self.exchange(method, &attributes).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        attributes: &impl Fn(&mut MessageWriter<'_>),
    ) -> Result<Reply, Failure> {
        let id = transaction_id();
        let request = self.write(method, Class::Request, id, attributes)?;
        let deadline = Instant::now() + self.timeout;
        let (mut pause, mut lost) = (RETRANSMIT, 0);
        loop {
            let sent = Instant::now();
            self.link.send(&request).await.map_err(Failure::Broken)?;
            let until = if self.link.is_datagrams() { deadline.min(sent + pause) } else { deadline };
            let answers = |message: &[u8]| {
                let parsed = Message::parse(message);
                parsed.is_ok_and(|message| {
                    message.transaction_id() == id && matches!(message.class(), Class::Success | Class::Error)
                })
            };
            if let Some(bytes) = self.link.receive_wanted(until, answers).await.map_err(Failure::Broken)? {
                let round_trip = sent.elapsed();
                let key = self.signature.as_ref().map(|signature| &signature.key);
                let signed = key.and_then(|key| Message::parse(&bytes).ok().map(|message| key.verifies(&message)));
                return Ok(Reply { bytes, round_trip, lost, signed });
            }
            if Instant::now() >= deadline {
                return Err(Failure::Silence);
            }
            pause *= 2;
            lost += 1;
        }
    }

    fn write(
        &self,
        method: Method,
        class: Class,
        id: TransactionId,
        attributes: &impl Fn(&mut MessageWriter<'_>),
    ) -> Result<Vec<u8>, Failure> {
        let mut buffer = vec![0; ROOM];
        let mut writer = MessageWriter::new(&mut buffer, method, class, id);
        attributes(&mut writer);
        if let Some(Signature { user, realm, nonce, key }) = self.signature.as_ref().filter(|_| class == Class::Request)
        {
            writer.attribute(AttributeType::USERNAME, user.as_bytes());
            writer.attribute(AttributeType::REALM, realm);
            writer.attribute(AttributeType::NONCE, nonce);
            writer.integrity(key);
        }
        let too_long = |_| Failure::Broken(io::Error::new(ErrorKind::InvalidInput, "the request is too long"));
        let len = writer.finish().map_err(too_long)?;
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Sends data to a peer in an indication.
    pub(super) async fn send_to(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Failure> {
        let indication = self.write(Method::Send, Class::Indication, transaction_id(), &|writer| {
            writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            writer.attribute(AttributeType::DATA, data);
        })?;
        self.link.send(&indication).await.map_err(Failure::Broken)
    }

    /// Sends data on a channel.
    pub(super) async fn send_on(&mut self, number: ChannelNumber, data: &[u8]) -> Result<(), Failure> {
        // What a probe sends is short.
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let message = [&ChannelData { number, len }.header(), data].concat();
        self.link.send(&message).await.map_err(Failure::Broken)
    }

    /// Waits for these data; returns whom they are from: a peer, if they came in an indication, or a channel.
    pub(super) async fn await_data(&mut self, data: &[u8], deadline: Instant) -> Result<Option<Source>, Failure> {
        while let Some(message) = self.link.receive(deadline).await.map_err(Failure::Broken)? {
            match received(&message) {
                Some((source, payload)) if payload == data => return Ok(Some(source)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Whom data are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This peer, in a Data indication.
    Peer(SocketAddr),
    /// The peer of this channel.
    Channel(ChannelNumber),
}

fn received(message: &[u8]) -> Option<(Source, &[u8])> {
    if let Ok(parsed) = Message::parse(message) {
        let peer = parsed.get_xor_address(AttributeType::XOR_PEER_ADDRESS)?.ok()?;
        return Some((Source::Peer(peer), parsed.get(AttributeType::DATA)?));
    }
    let channel = ChannelData::parse(message)?;
    Some((Source::Channel(channel.number), message.get(4..4 + usize::from(channel.len))?))
}

pub(super) fn transaction_id() -> TransactionId {
    TransactionId(rand::rng().random())
}
