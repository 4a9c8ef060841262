//! A client: remembers its nonce, signs its requests, checks what comes back.

use sha2::{Digest, Sha256};
use turnserver::{
    stun::{AttributeType, IntegrityKey, MacAlgorithm, PasswordAlgorithm},
    turn::Client,
};

use super::{Out, REALM, Request, Response, World, long_term_key};

/// Who a client says it is, and how it says so.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
    /// PASSWORD-ALGORITHM, and PASSWORD-ALGORITHMS with it.
    pub(crate) algorithm: Option<PasswordAlgorithm>,
    /// The integrity attribute of the request.
    pub(crate) mac: MacAlgorithm,
    /// USERHASH in place of USERNAME.
    pub(crate) anonymous: bool,
}

impl Credentials {
    /// As RFC 5389 clients do it: MD5, MESSAGE-INTEGRITY.
    pub(crate) fn old(user: &str, password: &str) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        Self { user, password, algorithm: None, mac: MacAlgorithm::Sha1, anonymous: false }
    }

    /// As RFC 8489 clients do it: SHA-256, MESSAGE-INTEGRITY-SHA256.
    pub(crate) fn new(user: &str, password: &str) -> Self {
        let algorithm = Some(PasswordAlgorithm::Sha256);
        Self { algorithm, mac: MacAlgorithm::Sha256, ..Self::old(user, password) }
    }

    pub(crate) fn long_term_key(&self) -> Vec<u8> {
        long_term_key(&self.user, &self.password, self.algorithm.unwrap_or(PasswordAlgorithm::Md5))
    }

    pub(crate) fn key(&self) -> IntegrityKey {
        IntegrityKey::new(self.mac, &self.long_term_key())
    }

    /// Adds all that authenticates, except the integrity attribute.
    pub(crate) fn identify(&self, request: Request, nonce: &[u8], offered: &[u8]) -> Request {
        let request = if self.anonymous {
            request.raw(AttributeType::USERHASH, Sha256::digest(format!("{}:{REALM}", self.user)))
        } else {
            request.raw(AttributeType::USERNAME, &self.user)
        };
        let request = request.raw(AttributeType::REALM, REALM).raw(AttributeType::NONCE, nonce);
        match self.algorithm {
            None => request,
            Some(algorithm) => request
                .raw(AttributeType::PASSWORD_ALGORITHMS, offered)
                .raw(AttributeType::PASSWORD_ALGORITHM, algorithm.encode()),
        }
    }

    /// The response's integrity attribute: SHA-256, unless processed as default MD5 (8489-9.2.4-27, -28).
    pub(crate) fn reply_mac(&self) -> MacAlgorithm {
        if self.algorithm.is_some() { MacAlgorithm::Sha256 } else { MacAlgorithm::Sha1 }
    }
}

/// A client of the engine.
#[derive(Debug, Clone)]
pub(crate) struct TestClient {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as the server sent them.
    pub(crate) offered: Vec<u8>,
}

impl TestClient {
    /// A client of user "alice" that has drawn its first 401.
    pub(crate) fn new(world: &mut World, client: Client) -> Self {
        Self::with(world, client, Credentials::old("alice", "wonderland"))
    }

    pub(crate) fn with(world: &mut World, client: Client, credentials: Credentials) -> Self {
        let mut new = Self { client, credentials, nonce: Vec::new(), offered: Vec::new() };
        let response = world.ask(&client, &Request::allocate().build());
        assert_eq!(response.code(), 401);
        new.learn(&response);
        new
    }

    /// A client with an allocation and its relayed addresses.
    pub(crate) fn allocated(world: &mut World, client: Client) -> Self {
        let new = Self::new(world, client);
        assert_eq!(new.request(world, Request::allocate()).code(), 0);
        new
    }

    /// Takes nonce and algorithms from a 401 or 438.
    pub(crate) fn learn(&mut self, response: &Response) {
        self.nonce = response.get(AttributeType::NONCE).expect("NONCE").to_vec();
        self.offered = response.get(AttributeType::PASSWORD_ALGORITHMS).expect("PASSWORD-ALGORITHMS").to_vec();
    }

    /// Adds all that authenticates, except the integrity attribute.
    pub(crate) fn identify(&self, request: Request) -> Request {
        self.credentials.identify(request, &self.nonce, &self.offered)
    }

    pub(crate) fn sign(&self, request: Request) -> Request {
        self.identify(request).integrity(self.credentials.key())
    }

    /// Sends a signed request; the response to it is signed as it should be.
    pub(crate) fn request(&self, world: &mut World, request: Request) -> Response {
        let response = world.ask(&self.client, &self.sign(request).build());
        if !matches!(response.code(), 401 | 438) {
            let (algorithm, key) = (self.credentials.reply_mac(), self.credentials.long_term_key());
            assert!(response.is_signed(algorithm, &key), "{response:?}");
        }
        response
    }

    /// Sends a signed request and returns the code of the response; 0 for success.
    pub(crate) fn code(&self, world: &mut World, request: Request) -> u16 {
        self.request(world, request).code()
    }

    /// Sends something unsigned.
    pub(crate) fn say(&self, world: &mut World, request: &Request) -> Out {
        world.send(&self.client, &request.build())
    }

    /// Sends ChannelData, padded on a stream.
    pub(crate) fn channel_data(&self, world: &mut World, number: u16, data: &[u8]) -> Out {
        let len = u16::try_from(data.len()).unwrap();
        let mut bytes = [number.to_be_bytes(), len.to_be_bytes()].concat();
        bytes.extend_from_slice(data);
        if self.client.tuple.transport.is_stream() {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        world.send(&self.client, &bytes)
    }
}
