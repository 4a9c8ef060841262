//! Quotas cannot be got around: not at the instant of expiry, not by reserving ports.

mod common;

use common::{
    REALM, Server,
    client::{TurnClient, loopback_socket},
};
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
