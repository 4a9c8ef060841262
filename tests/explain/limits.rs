//! Limits, drain, redirection, and requests that the server refuses for what it is.

use turnserver::stun::{AttributeType, MessageWriter, Method};

use crate::{
    client::{Client, Refused},
    common::{PASSWORD, Server, USER, client::loopback_socket, ports::free_port_pair},
    support::{HERE, alice, challenged, client, code, exchange, request, says},
    web::{ask_locally, managed},
};

#[test]
fn a_limit_is_named_by_its_key() {
    let server = Server::start(&managed("").replace("[process]", "[limits]\nuser-quota = 1\n[process]"));
    let (mut first, mut second) = (alice(&server), alice(&server));
    first.allocate().expect("an allocation");
    assert_eq!(second.allocate(), Err(Refused(486)));
    let here = format!("{HERE}:{}", second.local().port());
    says(&server, &here, "limit", &["\"alice\" was refused a session by a limit: user-quota", "Raise user-quota"]);
    drop(server);

    let server = Server::start(&managed("").replace("[process]", "[limits]\nallocation-rate = 1\n[process]"));
    let refused = (0..20).any(|_| alice(&server).allocate().is_err());
    assert!(refused);
    says(&server, HERE, "limit", &["allocation-rate"]);
}

#[test]
fn who_draws_too_many_answers() {
    let limits = "[limits]\nunauthorized-rate = 1\nbinding-rate = 1\n[process]";
    for method in [Method::Allocate, Method::Binding] {
        let server = Server::start(&managed("").replace("[process]", limits));
        let socket = loopback_socket();
        for _ in 0..20 {
            socket.send_to(&request(method, None, |_| {}), server.ipv4("udp")).expect("to send");
        }
        says(&server, HERE, "rate-limited", &["more answers without credentials than it may", "unauthorized-rate"]);
    }
}

#[test]
fn too_many_connections_of_one_source() {
    let server = Server::start(&format!("{}[tcp]\nmax-connections-per-ip = 1\n", managed("")));
    let mut first = Client::new("tcp", server.ipv4("tcp"), Some((USER, PASSWORD)));
    first.allocate().expect("an allocation");
    let _second = Client::new("tcp", server.ipv4("tcp"), None);
    let found = says(&server, HERE, "too-many-connections", &["as many connections", "max-connections-per-ip"]);
    assert_eq!(found["transport"], "tcp");
}

#[test]
fn who_is_sent_elsewhere_and_who_comes_while_the_server_is_drained() {
    let redirect = "[redirect]\nalternate-server = \"192.0.2.50:3478\"\nshare = 100\n";
    let server = Server::start(&format!("{}{redirect}", managed("")));
    assert_eq!(alice(&server).allocate(), Err(Refused(300)));
    says(&server, HERE, "redirected", &["another server (300)", "[redirect]"]);
    drop(server);

    let server = Server::start(&managed(""));
    let drained = ask_locally(&server, "POST", "/v1/drain", "{\"stay\": true}");
    assert_eq!(drained.status, 202);
    assert_eq!(alice(&server).allocate(), Err(Refused(508)));
    says(&server, USER, "draining", &["no new sessions, as it is drained (508)", "undrain"]);
}

#[test]
fn requests_for_what_is_not_there() {
    let only_ipv4 = managed("").replace("relay-ip = [\"127.0.0.1\", \"::1\"]", "relay-ip = \"127.0.0.1\"");
    let server = Server::start(&only_ipv4);
    let family = |writer: &mut turnserver::stun::MessageWriter<'_>| {
        writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    };
    assert_eq!(alice(&server).allocate_with(&family), Err(Refused(440)));
    says(&server, HERE, "refused", &["Allocate was refused with 440", "family of addresses", "relay-ip"]);

    let (socket, nonce) = challenged(&server);
    let tcp = request(Method::Allocate, Some(&nonce), |writer| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    });
    assert_eq!(code(&exchange(&socket, server.ipv4("udp"), &tcp)), Some(442));
    says(&server, HERE, "refused", &["Allocate was refused with 442", "tcp-relaying = true"]);

    let mut client = alice(&server);
    client.allocate().expect("an allocation");
    assert_eq!(client.permit("[2001:db8::1]:9".parse().expect("an address")), Err(Refused(443)));
    says(&server, HERE, "refused", &["CreatePermission was refused with 443", "another family"]);
    // As coturn's client does by default.
    let plain = Server::start(&managed("").replace("rfc5766-channel-numbers = true", ""));
    let mut old = alice(&plain);
    old.allocate().expect("an allocation");
    assert_eq!(old.bind(0x7001, "127.0.0.1:9".parse().expect("an address")), Err(Refused(400)));
    says(&plain, HERE, "refused", &["ChannelBind was refused with 400", "rfc5766-channel-numbers = true"]);
    // Another request for a session from the same port.
    assert_eq!(client.allocate(), Err(Refused(437)));
    says(&server, HERE, "refused", &["Allocate was refused with 437", "have a session already"]);
}

#[test]
fn requests_that_the_server_cannot_take() {
    let server = Server::start(&managed("").replace("[relay]", "[relay]\nmobility = false"));
    let (socket, nonce) = challenged(&server);
    let refuses = |expected: u16, write: &dyn Fn(&mut MessageWriter<'_>)| {
        let message = request(Method::Allocate, Some(&nonce), |writer| write(writer));
        assert_eq!(code(&exchange(&socket, server.ipv4("udp"), &message)), Some(expected));
    };
    let udp = |writer: &mut MessageWriter<'_>| {
        writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    };
    // Nobody has defined it, and it may not be passed over.
    refuses(420, &|writer| {
        udp(writer);
        writer.attribute(AttributeType(0x7ffe), &[0; 4]);
    });
    says(&server, HERE, "refused", &["Allocate was refused with 420", "does not know"]);
    refuses(405, &|writer| {
        udp(writer);
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    });
    says(&server, HERE, "refused", &["Allocate was refused with 405", "mobility = true"]);
    // It does not say what is to be relayed.
    refuses(400, &|_| {});
    says(&server, HERE, "refused", &["Allocate was refused with 400", "malformed"]);
}

#[test]
fn refusals_of_a_server_without_room_or_udp() {
    let port = free_port_pair(&[[127, 0, 0, 1].into()]);
    let narrow = format!("relay-ip = \"127.0.0.1\"\nmin-port = {port}\nmax-port = {port}");
    let server = Server::start(&managed("").replace("relay-ip = [\"127.0.0.1\", \"::1\"]", &narrow));
    let mut first = alice(&server);
    first.allocate().expect("an allocation");
    assert_eq!(alice(&server).allocate(), Err(Refused(508)));
    says(&server, HERE, "refused", &["Allocate was refused with 508", "no relay port", "Widen min-port to max-port"]);
    drop(server);

    let server = Server::start(&managed("").replace("[relay]", "[relay]\nudp-relaying = false\ntcp-relaying = true"));
    assert_eq!(alice(&server).allocate(), Err(Refused(403)));
    says(&server, HERE, "refused", &["Allocate was refused with 403", "udp-relaying = true"]);
    drop(server);

    // Two users behind one port.
    let bob = "[[auth.user]]\nname = \"bob\"\npassword = \"secret\"\n[peers]";
    let server = Server::start(&managed("").replace("[peers]", bob));
    let mut shared = client(&server, "bob", PASSWORD);
    shared.allocate().expect("an allocation");
    shared.set_user(USER);
    assert_eq!(shared.delete(), Err(Refused(441)));
    says(&server, USER, "refused", &["Refresh was refused with 441", "other credentials"]);
}
