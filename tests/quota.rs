//! Quotas cannot be got around: not at the instant of expiry, not by reserving ports.

mod client;
mod common;

use base64::{Engine, prelude::BASE64_STANDARD};
use client::{Client, Refused};
use common::{
    REALM, Server,
    client::{TurnClient, loopback_socket},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use turnserver::stun::{AttributeType, Class, Message, MessageWriter, Method};

fn server(quota: u32) -> Server {
    Server::start(&format!(
        r#"
[[listener]]
listening-ip = ["127.0.0.1"]
listening-port = 0
transports = ["udp"]
[relay]
relay-ip = "127.0.0.1"
[auth]
realm = "{REALM}"
[[auth.user]]
name = "alice"
password = "secret"
[lifetimes]
default-allocate-lifetime = "1s"
[limits]
user-quota = {quota}
unauthorized-rate = 0
[process]
workers = 1
"#
    ))
}

/// Asks for an allocation; returns the error code, or 0.
fn allocate(client: &mut TurnClient, attributes: impl Fn(&mut MessageWriter<'_>)) -> u16 {
    let response = client.request(Method::Allocate, |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        attributes(writer);
    });
    let message = Message::parse(&response).expect("a STUN message");
    match message.get(AttributeType::ERROR_CODE) {
        Some(&[_, _, class, number, ..]) => u16::from(class) * 100 + u16::from(number),
        _ => {
            assert_eq!(message.class(), Class::Success);
            0
        }
    }
}

/// An Allocate that comes at the very instant at which the client's former allocation expires takes a place in the quota
/// like any other.
#[test]
fn an_allocation_made_at_the_instant_of_expiry_counts() {
    let server = server(2);
    let address = server.ipv4("udp");
    let mut held = 0;
    for _ in 0..6 {
        let mut client = TurnClient::new(loopback_socket(), address);
        client.allocate();
        // The former one lives for a second; asking does not prolong it.
        let code = loop {
            match allocate(&mut client, |writer| {
                writer.u32(AttributeType::LIFETIME, 3600);
            }) {
                437 => {}
                code => break code,
            }
        };
        match code {
            0 => held += 1,
            486 => break,
            code => panic!("error {code}"),
        }
        if held == 2 {
            // Full: whoever comes next is refused at once.
            let mut another = TurnClient::new(loopback_socket(), address);
            another.learn_nonce();
            assert_eq!(allocate(&mut another, |_| {}), 486);
            return;
        }
    }
    panic!("{held} allocations of an hour, and the quota of 2 is not reached");
}

/// A reserved port counts as the allocation that it is for, as long as it is reserved.
#[test]
fn reserved_ports_count() {
    let server = server(3);
    let mut client = TurnClient::new(loopback_socket(), server.ipv4("udp"));
    client.learn_nonce();
    let mut reserve = || {
        let code = allocate(&mut client, |writer| {
            writer.attribute(AttributeType::EVEN_PORT, &[0x80]);
        });
        if code == 0 {
            client.delete();
        }
        code
    };
    // One allocation and one reservation at a time; the reservations stay.
    assert_eq!([reserve(), reserve(), reserve()], [0, 0, 486]);
}

/// A server whose names have tenants, with a realm of its own limits.
fn shared_server() -> Server {
    Server::start(&format!(
        r#"
[[listener]]
listening-ip = ["127.0.0.1"]
listening-port = 0
transports = ["udp"]
[relay]
relay-ip = "127.0.0.1"
[auth]
realm = "{REALM}"
rest-api-username = "tenant:user:expiry"
[[auth.user]]
name = "carol"
password = "secret"
[[auth.secret]]
name = "blue"
tenant = "blue"
secret = "the secret of the blue tenant"
[[auth.secret]]
name = "red"
tenant = "red"
secret = "the secret of the red tenant"
[[realm]]
name = "small.org"
[[realm.user]]
name = "alice"
password = "secret"
[[realm.user]]
name = "bob"
password = "secret"
[realm.limits]
realm-quota = 1
[limits]
tenant-quota = 2
total-quota = 5
unauthorized-rate = 0
[process]
workers = 2
"#
    ))
}

/// A client of this tenant's user, or of a user by a password.
fn allocated(server: &Server, tenant: Option<&str>, user: &str) -> (Client, Result<(), u16>) {
    let (name, password) = match tenant {
        None => (user.to_owned(), "secret".to_owned()),
        Some(tenant) => {
            let name = format!("{tenant}:{user}:4102444800");
            let mut mac =
                Hmac::<Sha1>::new_from_slice(format!("the secret of the {tenant} tenant").as_bytes()).unwrap();
            mac.update(name.as_bytes());
            (name, BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        }
    };
    let mut client = Client::new("udp", server.ipv4("udp"), Some((&name, &password)));
    let made = client.allocate().map(|_| ()).map_err(|Refused(code)| code);
    (client, made)
}

#[test]
fn tenants_realms_and_the_whole_have_quotas_of_their_own() {
    let server = shared_server();
    let mut kept = Vec::new();
    let mut expect = |tenant: Option<&str>, user: &str, expected: Result<(), u16>| {
        let (client, made) = allocated(&server, tenant, user);
        assert_eq!(made, expected, "{tenant:?} {user}");
        kept.push(client);
    };
    // Two of a tenant, whichever users they are of; the other tenant has its own.
    expect(Some("blue"), "u", Ok(()));
    expect(Some("blue"), "v", Ok(()));
    expect(Some("blue"), "w", Err(486));
    expect(Some("red"), "u", Ok(()));
    // One of the small realm, whoever it is.
    expect(None, "alice@small.org", Ok(()));
    expect(None, "bob@small.org", Err(486));
    expect(Some("red"), "v", Ok(()));
    // Five in all.
    expect(None, "carol", Err(486));
    kept.remove(3).delete().expect("its end");
    let (_client, made) = allocated(&server, Some("red"), "w");
    assert_eq!(made, Ok(()));
}
