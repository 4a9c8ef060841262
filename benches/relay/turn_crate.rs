//! A peer to compare with: the server of the `turn` crate, as its own example sets it up.

use std::error::Error;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_range::RelayAddressGeneratorRanges;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

use crate::job::{PASSWORD, REALM, USER};
use crate::servers::{LISTENER_BUFFER, RELAY_PORTS};
use crate::system;

struct OneUser;

impl AuthHandler for OneUser {
    fn auth_handle(&self, username: &str, realm: &str, _source: SocketAddr) -> Result<Vec<u8>, turn::Error> {
        // The crate caches nothing; a real handler would not hash, so neither does its measurement count that for much.
        if username == USER { Ok(generate_auth_key(USER, realm, PASSWORD)) } else { Err(turn::Error::ErrNoSuchUser) }
    }
}

/// Serves until it is killed.
pub(crate) fn main(listen: SocketAddrV4, namespace: Option<&str>, workers: usize) -> Result<(), Box<dyn Error>> {
    if let Some(namespace) = namespace {
        system::enter_namespace(namespace)?;
    }
    let mut builder = if workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.worker_threads(workers).enable_all().build()?.block_on(serve(listen))
}

async fn serve(listen: SocketAddrV4) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(listen)?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(LISTENER_BUFFER)?;
    let relay_addresses = RelayAddressGeneratorRanges {
        relay_address: IpAddr::V4(*listen.ip()),
        min_port: *RELAY_PORTS.start(),
        max_port: *RELAY_PORTS.end(),
        max_retries: 100,
        address: listen.ip().to_string(),
        net: Arc::new(Net::new(None)),
    };
    let listener = ConnConfig {
        conn: Arc::new(tokio::net::UdpSocket::from_std(socket)?),
        relay_addr_generator: Box::new(relay_addresses),
    };
    let _server = Server::new(ServerConfig {
        conn_configs: vec![listener],
        realm: REALM.to_owned(),
        auth_handler: Arc::new(OneUser),
        channel_bind_timeout: Duration::ZERO,
        alloc_close_notify: None,
    })
    .await?;
    std::future::pending().await
}
