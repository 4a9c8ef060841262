//! A client with credentials, whose nonce may grow old.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    client::Client,
    setup::Session,
    wire::{CHANNEL_BIND, CREATE_PERMISSION, LIFETIME, Msg, REFRESH, Reply, XOR_RELAYED_ADDRESS, allocate, hmac_sha1},
    world::{Way, World},
};

/// Who somebody is.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Account {
    /// A user of the configuration.
    pub(crate) fn of(user: &str) -> Self {
        Self { user: user.to_owned(), password: "secret".to_owned() }
    }

    /// A time-limited credential.
    pub(crate) fn lasting(secret: &str, time: Duration, name: &str) -> Self {
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970") + time;
        let user = format!("{}:{name}", expiry.as_secs());
        Self { password: STANDARD.encode(hmac_sha1(secret.as_bytes(), user.as_bytes())), user }
    }
}

pub(crate) struct Caller(pub(crate) Session);

impl Caller {
    pub(crate) fn open(world: &World, way: Way, account: &Account) -> Self {
        Self::over(world.connect(way), account)
    }

    pub(crate) fn over(client: Client, account: &Account) -> Self {
        Self(Session::over(client, (&account.user, &account.password)))
    }

    /// Sends a request, which is made anew if the nonce has grown old.
    pub(crate) fn call(&mut self, message: &dyn Fn() -> Msg) -> Reply {
        for _ in 0..3 {
            let request = self.0.sign(message());
            let reply = self.0.client.request(&request);
            if reply.error() != Some(438) {
                return reply;
            }
            self.0.take_challenge(&reply);
        }
        panic!("one nonce after the other is stale");
    }

    pub(crate) fn succeed(&mut self, message: &dyn Fn() -> Msg) -> Reply {
        let reply = self.call(message);
        assert_eq!(reply.error(), None, "{reply:02x?}");
        assert!(self.0.has_signed(&reply), "not signed: {reply:02x?}");
        reply
    }

    pub(crate) fn fail(&mut self, message: &dyn Fn() -> Msg, error: u16) {
        let reply = self.call(message);
        assert_eq!(reply.error(), Some(error), "{reply:02x?}");
    }

    pub(crate) fn allocate(&mut self) -> SocketAddr {
        self.succeed(&allocate).xor(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS")
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        self.succeed(&|| Msg::new(CREATE_PERMISSION).peer(peer));
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) {
        self.succeed(&|| Msg::new(CHANNEL_BIND).channel(number).peer(peer));
    }

    pub(crate) fn refresh(&mut self) {
        self.succeed(&|| Msg::new(REFRESH));
    }

    pub(crate) fn delete(&mut self) {
        self.succeed(&|| Msg::new(REFRESH).u32(LIFETIME, 0));
    }
}
