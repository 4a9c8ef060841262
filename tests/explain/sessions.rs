//! Sessions whose data do not pass.

use std::net::{SocketAddr, UdpSocket};

use turnserver::stun::{AttributeType, ChannelNumber};

use crate::{
    client::Client,
    common::{
        PASSWORD, Server, USER,
        client::{channel_data, loopback_peer, loopback_socket},
    },
    support::{HERE, alice, await_finding, reasons, says},
    web::{get, managed},
};

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("an address")
}

#[test]
fn data_without_a_permission_either_way() {
    let server = Server::start(&managed(""));
    let (mut client, peer) = (alice(&server), loopback_peer());
    let relayed = client.allocate().expect("an allocation");
    says(&server, HERE, "client-never-sent", &["has never named a peer", "signalling"]);
    client.send(address(&peer), b"hello");
    client.send(address(&peer), b"hello");
    let words = ["The client has sent 2 packets to peers that it has no permission for, the last one 127.0.0.1"];
    says(&server, HERE, "permission-missing", &words);
    peer.send_to(b"hello", relayed).expect("to send");
    let words =
        ["1 packet came from peers that the client has given no permission, the last one 127.0.0.1", "candidates"];
    says(&server, USER, "permission-missing", &words);
    client.transmit(&channel_data(ChannelNumber(0x4005), b"hello"));
    says(&server, USER, "channel-not-bound", &["1 packet on channels that are not bound"]);
}

#[test]
fn a_client_that_never_sends_and_a_peer_that_never_answers() {
    let server = Server::start(&managed(""));
    let (mut client, peer) = (alice(&server), loopback_peer());
    let relayed = client.allocate().expect("an allocation");
    client.permit(address(&peer)).expect("a permission");
    says(&server, HERE, "client-never-sent", &["has named peers, and has never sent anything", "microphone"]);
    client.send(address(&peer), b"hello");
    peer.recv(&mut [0; 10]).expect("data");
    let words = ["has sent 5 bytes in 1 packet", "no peer has ever answered", "min-port to max-port"];
    says(&server, HERE, "peer-never-answered", &words);
    // Where nothing listens, an error comes back.
    let gone = address(&loopback_peer());
    client.send(gone, b"hello");
    says(&server, HERE, "peer-never-answered", &["1 error came back instead", "127.0.0.1"]);
    // From here on all is well; that somebody else has tried is no trouble.
    UdpSocket::bind("127.0.0.3:0").expect("a socket").send_to(b"hello", relayed).expect("to send");
    peer.send_to(b"there", relayed).expect("to send");
    assert_eq!(client.receive(), b"there");
    says(
        &server,
        HERE,
        "in-order",
        &["The session is in order: 10 bytes in 2 packets to peers, 5 bytes in 1 packet back"],
    );
    let found = reasons(&server, HERE);
    assert!(found.iter().all(|reason| ["in-order", "permission-missing"].contains(&&**reason)), "{found:?}");
}

#[test]
fn a_peer_over_tcp_that_does_not_take_a_connection() {
    let server = Server::start(&managed("").replace("[relay]", "[relay]\ntcp-relaying = true"));
    let mut client = Client::new("tcp", server.ipv4("tcp"), Some((USER, PASSWORD)));
    client.allocate_tcp().expect("an allocation");
    let gone = crate::common::ports::peer_listener([127, 0, 0, 1].into()).local_addr().expect("an address");
    assert_eq!(client.connect(gone), Err(crate::client::Refused(447)));
    says(&server, HERE, "peer-never-answered", &["cannot be reached: 1 error came back, the last one 127.0.0.1"]);
}

#[test]
fn data_beyond_a_limit() {
    let server = Server::start(&managed("").replace("[process]", "[limits]\nmax-bps = \"8kbit/s\"\n[process]"));
    let (mut client, peer) = (alice(&server), loopback_peer());
    client.allocate().expect("an allocation");
    client.permit(address(&peer)).expect("a permission");
    (0..50).for_each(|_| client.send(address(&peer), &[7; 1000]));
    says(&server, HERE, "limited", &["beyond a limit of bandwidth", "max-bps"]);
}

#[test]
fn a_session_that_has_ended_is_told_of_by_address_user_and_id() {
    let server = Server::start(&managed(""));
    let (mut client, peer) = (alice(&server), loopback_peer());
    client.allocate().expect("an allocation");
    client.permit(address(&peer)).expect("a permission");
    client.send(address(&peer), b"hello");
    peer.recv(&mut [0; 10]).expect("data");
    let id = get(&server, "/v1/sessions")["sessions"][0]["id"].as_str().expect("an id").to_owned();
    client.delete().expect("deleting it");
    for of in [HERE, USER, &id] {
        let words =
            [&id, "was ended by the client", "5 bytes in 1 packet to peers, 0 bytes back", "no peer has ever answered"];
        let found = says(&server, of, "session-ended", &words);
        assert_eq!((&found["session"], &found["user"]), (&id.as_str().into(), &USER.into()));
    }
}

#[test]
fn a_client_that_sends_without_a_session() {
    let server = Server::start(&managed(""));
    let socket = loopback_socket();
    socket.send_to(&channel_data(ChannelNumber(0x4000), b"hello"), server.ipv4("udp")).expect("to send");
    says(&server, HERE, "no-session", &["has no session (any more)", "restart of the server", "allocate again"]);
}

#[test]
fn a_client_that_is_away_with_its_ticket() {
    let server = Server::start(&managed("").replace("[relay]", "[relay]\nmobility = true"));
    let mut client = Client::new("tcp", server.ipv4("tcp"), Some((USER, PASSWORD)));
    let ticket = |writer: &mut turnserver::stun::MessageWriter<'_>| {
        writer.attribute(AttributeType::MOBILITY_TICKET, &[]);
    };
    client.allocate_with(&ticket).expect("an allocation");
    drop(client);
    let found = await_finding(&server, USER, "client-away", |_| true);
    assert_eq!(found["transport"], "tcp");
    says(&server, HERE, "client-away", &["connection is gone", "ticket"]);
}
