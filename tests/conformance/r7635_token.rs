//! RFC 7635: access tokens in place of user and password. The tokens are made with OpenSSL, as an authorization server would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::symm::{Cipher, encrypt_aead};

use crate::client::Client;
use crate::setup::{ALICE, REALM_NAME, Server, Session, server};
use crate::wire::{
    ACCESS_TOKEN, CREATE_PERMISSION, LIFETIME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Msg, NONCE, REALM, REFRESH,
    Reply, THIRD_PARTY_AUTHORIZATION, UNKNOWN_ATTRIBUTES, USERNAME, allocate,
};

const SERVER_NAME: &str = "turn.example.org";
/// 160 bits.
const MAC_KEY: &[u8; 20] = b"ZksjpweoixXmvn67534m";
/// The keys of the configuration: id, bytes, algorithm.
const NORTH: (&str, &[u8], &str) = ("north", b"01234567890123456789012345678901", "A256GCM");
const UNION: (&str, &[u8], &str) = ("union", b"1234567890123456", "A128GCM");

fn server_with_tokens() -> Server {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let keys = [NORTH, UNION].map(|(kid, key, algorithm)| {
        format!("{{ kid = \"{kid}\", key = \"{}\", algorithm = \"{algorithm}\" }}", STANDARD.encode(key))
    });
    let name = format!("\"{SERVER_NAME}\"");
    server(&[("auth.token-key", &format!("[{}]", keys.join(", "))), ("auth.server-name", &name)])
}

/// What an authorization server puts into a token.
#[derive(Clone, Copy)]
struct Token<'t> {
    key: (&'t str, &'t [u8], &'t str),
    server_name: &'t str,
    mac_key: &'t [u8],
    /// Seconds since it was made; negative if that is still to come.
    age: i64,
    lifetime: u32,
}

const TOKEN: Token<'_> = Token { key: NORTH, server_name: SERVER_NAME, mac_key: MAC_KEY, age: 0, lifetime: 600 };

impl Token<'_> {
    fn kid(&self) -> &[u8] {
        self.key.0.as_bytes()
    }

    fn seal(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let timestamp = now.checked_add_signed(-self.age).unwrap() << 16;
        let len = u16::try_from(self.mac_key.len()).unwrap().to_be_bytes();
        let block = [&len, self.mac_key, &timestamp.to_be_bytes(), &self.lifetime.to_be_bytes()].concat();
        let (nonce, mut tag) = (*b"h4j3k2l2n4b5", [0; 16]);
        let cipher = if self.key.2 == "A256GCM" { Cipher::aes_256_gcm() } else { Cipher::aes_128_gcm() };
        let aad = self.server_name.as_bytes();
        let sealed = encrypt_aead(cipher, self.key.1, Some(&nonce), aad, &block, &mut tag).unwrap();
        [&[0, 12], &nonce[..], &sealed, &tag].concat()
    }
}

/// A client that has drawn a nonce.
struct Holder {
    client: Client,
    nonce: Vec<u8>,
    challenge: Reply,
}

impl Holder {
    fn new(mut client: Client) -> Self {
        let challenge = client.request(&allocate());
        assert_eq!(challenge.error(), Some(401));
        Self { client, nonce: challenge.get(NONCE).unwrap().to_vec(), challenge }
    }

    fn udp(server: &Server) -> Self {
        Self::new(Client::udp(server.ipv4("udp")))
    }

    fn identify(&self, message: Msg, kid: &[u8]) -> Msg {
        message.attr(USERNAME, kid).attr(REALM, REALM_NAME.as_bytes()).attr(NONCE, &self.nonce)
    }

    fn ask(&mut self, message: Msg, token: &Token<'_>) -> Reply {
        self.ask_with(message, token.kid(), &token.seal(), token.mac_key)
    }

    fn ask_with(&mut self, message: Msg, kid: &[u8], sealed: &[u8], mac_key: &[u8]) -> Reply {
        let request = self.identify(message, kid).attr(ACCESS_TOKEN, sealed).mi(mac_key);
        self.client.request(&request)
    }
}

#[test]
fn r7635_4_01_a_challenge_names_the_server() {
    let server = server_with_tokens();
    let clients =
        [Client::udp(server.ipv4("udp")), Client::tcp(server.ipv4("tcp")), Client::tls(&server, server.ipv4("tls"))];
    for client in clients {
        let challenge = Holder::new(client).challenge;
        assert_eq!(challenge.get(THIRD_PARTY_AUTHORIZATION), Some(SERVER_NAME.as_bytes()));
    }
    // First-party credentials serve beside them.
    Session::udp(&server).allocate();
}

#[test]
fn r7635_6_2_01_7_05_tokens_of_both_algorithms_are_served_and_answered_with_their_key() {
    let server = server_with_tokens();
    for key in [NORTH, UNION] {
        let mut holder = Holder::udp(&server);
        let token = Token { key, ..TOKEN };
        let refresh = Msg::new(REFRESH);
        for message in [allocate(), refresh] {
            let reply = holder.ask(message, &token);
            assert_eq!(reply.error(), None, "{reply:02x?}");
            assert!(reply.is_signed(MESSAGE_INTEGRITY, MAC_KEY));
        }
        // Requests other than Allocate and Refresh carry no token; errors are signed, too.
        let request = holder.identify(Msg::new(CREATE_PERMISSION), key.0.as_bytes()).mi(MAC_KEY);
        let reply = holder.client.request(&request);
        assert_eq!(reply.error(), Some(400));
        assert!(reply.is_signed(MESSAGE_INTEGRITY, MAC_KEY));
    }
}

#[test]
fn r7635_6_2_01_a_token_for_another_server_is_refused() {
    let server = server_with_tokens();
    let token = Token { server_name: "other.example.org", ..TOKEN };
    assert_eq!(Holder::udp(&server).ask(allocate(), &token).error(), Some(401));
}

#[test]
fn r7635_7_01_02_the_key_is_chosen_by_the_username_and_altered_tokens_are_refused() {
    let server = server_with_tokens();
    let mut holder = Holder::udp(&server);
    let sealed = TOKEN.seal();
    for kid in [&b"union"[..], b"south", b"", b"alice", &[0xFF]] {
        assert_eq!(holder.ask_with(allocate(), kid, &sealed, MAC_KEY).error(), Some(401), "{kid:?}");
    }
    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[at] ^= 0x80;
        assert_eq!(holder.ask_with(allocate(), b"north", &altered, MAC_KEY).error(), Some(401), "byte {at}");
    }
    for len in [0, 1, 2, 14, 30, sealed.len() - 1] {
        assert_eq!(holder.ask_with(allocate(), b"north", &sealed[..len], MAC_KEY).error(), Some(401), "{len} bytes");
    }
    // Lengths that reach beyond the token.
    for len in [[0xFF, 0xFF], [0, 0], [0, 13]] {
        let lying = [&len, &sealed[2..]].concat();
        assert_eq!(holder.ask_with(allocate(), b"north", &lying, MAC_KEY).error(), Some(401));
    }
    let challenge = holder.ask_with(allocate(), b"north", b"", MAC_KEY);
    assert!(challenge.has(REALM) && challenge.has(NONCE) && challenge.is_unsigned());
    assert_eq!(holder.ask_with(allocate(), b"north", &sealed, MAC_KEY).error(), None);
}

#[test]
fn r7635_7_03_a_token_serves_within_its_lifetime_and_five_seconds() {
    let server = server_with_tokens();
    // Some seconds off the edge, as the machine may be slow.
    for (age, code) in [(590, None), (606, Some(401)), (100_000, Some(401)), (-590, None), (-620, Some(401))] {
        let reply = Holder::udp(&server).ask(allocate(), &Token { age, ..TOKEN });
        assert_eq!(reply.error(), code, "made {age} seconds ago");
    }
}

#[test]
fn r7635_7_04_a_request_signed_with_another_key_is_refused() {
    let server = server_with_tokens();
    let mut holder = Holder::udp(&server);
    assert_eq!(holder.ask_with(allocate(), b"north", &TOKEN.seal(), b"a key of 160 bits...").error(), Some(401));
}

#[test]
fn r7635_7_06_a_token_that_was_not_asked_for_is_an_unknown_attribute() {
    let server = server(&[]);
    let mut holder = Holder::udp(&server);
    assert!(!holder.challenge.has(THIRD_PARTY_AUTHORIZATION));
    let reply = holder.ask(allocate(), &TOKEN);
    assert_eq!((reply.error(), reply.get(UNKNOWN_ATTRIBUTES)), (Some(420), Some(&[0x00, 0x1B][..])));
}

#[test]
fn r7635_9_01_no_lifetime_reaches_beyond_the_token() {
    let server = server_with_tokens();
    let mut holder = Holder::udp(&server);
    let token = Token { age: 100, lifetime: 400, ..TOKEN };
    for message in [allocate(), Msg::new(REFRESH)] {
        let lifetime = holder.ask(message.u32(LIFETIME, 3600), &token).u32(LIFETIME).unwrap();
        assert!((270..=300).contains(&lifetime), "{lifetime}");
    }
    // A new token, of another key: the allocation goes on (RFC 7635 §9).
    let token = Token { key: UNION, lifetime: 1000, mac_key: b"a key of 160 bits...", ..TOKEN };
    let reply = holder.ask(Msg::new(REFRESH).u32(LIFETIME, 3600), &token);
    assert!(reply.is_signed(MESSAGE_INTEGRITY, token.mac_key));
    assert!((970..=1000).contains(&reply.u32(LIFETIME).unwrap()), "{reply:02x?}");
}

/// An allocation made with a token ends with it.
#[test]
fn r7635_9_01_the_allocation_ends_with_the_token() {
    let server = server_with_tokens();
    let mut holder = Holder::udp(&server);
    let reply = holder.ask(allocate(), &Token { lifetime: 3, ..TOKEN });
    assert!((1..=3).contains(&reply.u32(LIFETIME).unwrap()), "{reply:02x?}");
    let ended = server.await_logged("session ends");
    assert_eq!(ended["reason"], "credential-expired");
    assert!(ended["seconds"].as_f64().unwrap() < Duration::from_secs(5).as_secs_f64());
    assert_eq!(ended["tenant"], "north");
}

/// 256 bits, for HMAC-SHA256.
#[test]
fn a_longer_key_signs_with_sha256() {
    let server = server_with_tokens();
    let mut holder = Holder::udp(&server);
    let mac_key = [7; 32];
    let token = Token { mac_key: &mac_key, ..TOKEN };
    let request = holder.identify(allocate(), token.kid()).attr(ACCESS_TOKEN, &token.seal()).mi256(&mac_key);
    let reply = holder.client.request(&request);
    assert_eq!(reply.error(), None);
    assert!(reply.is_signed(MESSAGE_INTEGRITY_SHA256, &mac_key));
}

/// The holder of a token and a user with a password may have the same name, and no share in each other's allocations.
#[test]
fn a_token_does_not_serve_for_a_users_allocation() {
    let server = server_with_tokens();
    let mut session = Session::udp(&server);
    session.allocate();
    let (kid, nonce) = (TOKEN.kid().to_vec(), session.nonce.clone());
    let request = Msg::new(REFRESH).attr(USERNAME, &kid).attr(REALM, REALM_NAME.as_bytes()).attr(NONCE, &nonce);
    let reply = session.client.request(&request.attr(ACCESS_TOKEN, &TOKEN.seal()).mi(MAC_KEY));
    assert_eq!(reply.error(), Some(441));
    assert_eq!(session.user, ALICE.0);
    session.delete();
}
