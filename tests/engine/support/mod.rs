//! What the tests share: a client that speaks TURN in values, and the world around the engine.

mod client;
mod request;
mod response;
mod world;

pub(crate) use client::{Credentials, TestClient};
pub(crate) use request::Request;
pub(crate) use response::Response;
pub(crate) use world::{Out, World, credential, long_term_key, realm, rules};

use std::net::{IpAddr, SocketAddr};

use turnserver::turn::{Client, FiveTuple, RealmId, Route, Transport};

pub(crate) const REALM: &str = "example.org";

/// A client at this address, over UDP.
pub(crate) fn udp(address: &str) -> Client {
    over(Transport::Udp, address)
}

/// A client at this address, over TCP.
pub(crate) fn tcp(address: &str) -> Client {
    over(Transport::Tcp, address)
}

fn over(transport: Transport, address: &str) -> Client {
    let client = socket(address);
    let server = if client.is_ipv4() { "192.0.2.200:3478" } else { "[2001:db8::200]:3478" };
    Client {
        tuple: FiveTuple { client, server: socket(server), transport },
        route: Route(u32::from(client.port())),
        realm: RealmId::DEFAULT,
    }
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
