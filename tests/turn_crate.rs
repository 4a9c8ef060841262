//! The client of the `turn` crate (webrtc-rs) against the server, over UDP.
//!
//! It is a client of RFC 5766's time: SHA-1 only, no address families, Send indications until its channel is bound.
//! It asks for a permission with the first packet to an address, waits for the answer, binds a channel in the
//! background, and then sends ChannelData.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use turn::client::{Client, ClientConfig};
use turnserver::auth::{
    mint::mint,
    rest::{RestAlgorithm, RestNames, RestSecret},
};
use webrtc_util::Conn;

use common::ports::peer_socket;
use common::{LOOPBACK, PASSWORD, PATIENCE, REALM, Server, USER};

/// Sizes to relay: nothing, one byte, each remainder of 4 (padding), and an ordinary media packet.
const SIZES: [usize; 8] = [0, 1, 2, 3, 4, 5, 160, 1200];

/// A first packet that may get lost.
const KNOCK: &[u8] = b"knock";

/// A client with its allocation, on a socket of its own.
struct Relay {
    client: Client,
    connection: Box<dyn Conn + Send + Sync>,
    local: SocketAddr,
}

impl Relay {
    /// Allocates as the configured user.
    async fn allocate(server: SocketAddr) -> Self {
        Self::allocate_as(server, USER, PASSWORD).await.expect("an allocation")
    }

    async fn allocate_as(server: SocketAddr, user: &str, password: &str) -> Result<Self, turn::Error> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let local = socket.local_addr().expect("its address");
        let client = Client::new(ClientConfig {
            stun_serv_addr: server.to_string(),
            turn_serv_addr: server.to_string(),
            username: user.to_owned(),
            password: password.to_owned(),
            realm: REALM.to_owned(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::new(socket),
            vnet: None,
        })
        .await?;
        client.listen().await?;
        let connection = in_time("Allocate", client.allocate()).await?;
        Ok(Self { client, connection: Box::new(connection), local })
    }

    /// The relayed address.
    fn address(&self) -> SocketAddr {
        self.connection.local_addr().expect("the relayed address")
    }

    async fn send(&self, data: &[u8], to: SocketAddr) {
        let sent = in_time("sending", self.connection.send_to(data, to)).await;
        assert_eq!(sent.map_err(|error| error.to_string()).map(|_| ()), Ok(()), "sending to {to}");
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 2048];
        let received = in_time("receiving", self.connection.recv_from(&mut buffer)).await;
        let (length, from) = received.unwrap_or_else(|error| panic!("receiving: {error}"));
        buffer.truncate(length);
        (buffer, from)
    }

    async fn close(self) {
        in_time("Refresh with lifetime 0", self.connection.close()).await.expect("closing the allocation");
        in_time("closing", self.client.close()).await.expect("closing the client");
    }
}

/// A bounded wait.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// A plain UDP socket, no client of the server.
async fn plain_peer(address: [u8; 4]) -> (UdpSocket, SocketAddr) {
    let socket = peer_socket(Ipv4Addr::from(address).into());
    socket.set_nonblocking(true).expect("a socket for tokio");
    let socket = UdpSocket::from_std(socket).expect("a socket of tokio's");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

/// Bytes that differ with their position and with `seed`.
fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + seed * 7) as u8).collect()
}

#[tokio::test]
async fn binding_tells_the_own_address() {
    let server = Server::start(LOOPBACK);
    let relay = Relay::allocate(server.ipv4("udp")).await;
    let mapped = in_time("Binding", relay.client.send_binding_request()).await.expect("a mapped address");
    assert_eq!(mapped, relay.local);
    relay.close().await;
    server.stop();
}

#[tokio::test]
async fn relays_to_a_plain_peer_both_ways() {
    let server = Server::start(LOOPBACK);
    let relay = Relay::allocate(server.ipv4("udp")).await;
    assert_eq!(relay.address().ip(), Ipv4Addr::LOCALHOST, "the relay address");
    let (peer, peer_address) = plain_peer([127, 0, 0, 1]).await;

    // The first rounds go out as Send indications, the later ones, when the channel is bound, as ChannelData.
    let mut buffer = vec![0; 2048];
    for round in 0..20 {
        for size in SIZES {
            let there = content(size, round);
            relay.send(&there, peer_address).await;
            let (length, from) = in_time("at the peer", peer.recv_from(&mut buffer)).await.expect("a packet");
            assert_eq!((&buffer[..length], from), (&there[..], relay.address()), "round {round}, {size} bytes");

            let back = content(size, round + 100);
            peer.send_to(&back, relay.address()).await.expect("sending");
            assert_eq!(relay.receive().await, (back, peer_address), "round {round}, {size} bytes");
        }
    }
    relay.close().await;
    server.stop();
}

#[tokio::test]
async fn relays_between_two_clients() {
    let server = Server::start(LOOPBACK);
    let (left, right) = (Relay::allocate(server.ipv4("udp")).await, Relay::allocate(server.ipv4("udp")).await);
    assert_ne!(left.address(), right.address());

    // Each opens its permission for the other with a packet of its own; the left one's comes to closed doors, or just in
    // time.
    left.send(KNOCK, right.address()).await;
    right.send(b"who is there?", left.address()).await;
    assert_eq!(left.receive().await, (b"who is there?".to_vec(), right.address()));

    for round in 0..20 {
        for size in SIZES {
            let (there, back) = (content(size, round), content(size, round + 100));
            left.send(&there, right.address()).await;
            let mut received = right.receive().await;
            if received.0 == KNOCK {
                received = right.receive().await;
            }
            assert_eq!(received, (there, left.address()), "round {round}, {size} bytes");
            right.send(&back, left.address()).await;
            assert_eq!(left.receive().await, (back, right.address()), "round {round}, {size} bytes");
        }
    }
    left.close().await;
    right.close().await;
    server.stop();
}

/// A permission holds for an address with any port, and for no other address.
#[tokio::test]
async fn lets_in_only_whom_the_client_permits() {
    let server = Server::start(LOOPBACK);
    let relay = Relay::allocate(server.ipv4("udp")).await;
    let (permitted, permitted_address) = plain_peer([127, 0, 0, 1]).await;
    let (other_port, other_port_address) = plain_peer([127, 0, 0, 1]).await;
    let (stranger, _) = plain_peer([127, 0, 0, 2]).await;
    relay.send(b"hello", permitted_address).await;
    let greeting = in_time("at the peer", permitted.recv_from(&mut [0; 16])).await.expect("a packet");
    assert_eq!(greeting.1, relay.address());

    for _ in 0..10 {
        stranger.send_to(b"let me in", relay.address()).await.expect("sending");
        permitted.send_to(b"one", relay.address()).await.expect("sending");
        assert_eq!(relay.receive().await, (b"one".to_vec(), permitted_address));
        other_port.send_to(b"two", relay.address()).await.expect("sending");
        assert_eq!(relay.receive().await, (b"two".to_vec(), other_port_address));
    }
    relay.close().await;
    server.stop();
}

#[tokio::test]
async fn wrong_password_gets_401() {
    let server = Server::start(LOOPBACK);
    let refused = Relay::allocate_as(server.ipv4("udp"), USER, "wrong").await.err().map(|error| error.to_string());
    let refused = refused.expect("no allocation with a wrong password");
    assert!(refused.contains("401"), "{refused}");
    server.stop();
}

/// A credential as an application would make it, good for a minute; and one that is over.
#[tokio::test]
async fn time_limited_credentials() {
    let secret = "static-auth-secret = \"a secret of these times\"\n[[auth.user]]";
    let server = Server::start(&LOOPBACK.replacen("[[auth.user]]", secret, 1));
    let secret = RestSecret {
        name: "theirs".into(),
        tenant: None,
        algorithm: RestAlgorithm::Sha1,
        key: b"a secret of these times".to_vec().into(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let made = |at| mint(&secret, &RestNames::default(), "zoe", Duration::from_secs(60), at).expect("a credential");
    let good = made(now);
    let relay = Relay::allocate_as(server.ipv4("udp"), &good.username, &good.password).await.expect("an allocation");
    relay.close().await;
    let over = made(now - Duration::from_secs(61));
    let refused = Relay::allocate_as(server.ipv4("udp"), &over.username, &over.password).await;
    assert!(refused.err().expect("no allocation").to_string().contains("401"));
    server.stop();
}

/// When the client ends its allocation its relayed address is free again at once.
#[tokio::test]
async fn ending_an_allocation_frees_its_port() {
    let server = Server::start(LOOPBACK);
    let relay = Relay::allocate(server.ipv4("udp")).await;
    let address = relay.address();
    assert!(UdpSocket::bind(address).await.is_err(), "{address} is not in use by the server");
    relay.close().await;

    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = UdpSocket::bind(address).await {
        assert!(Instant::now() < deadline, "{address} is still in use: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop();
}
