//! Peers that the rules refuse.

use crate::{
    client::Refused,
    common::Server,
    support::{HERE, alice, says},
    web::managed,
};

#[test]
fn a_refused_peer_and_the_rule_that_refuses_it() {
    let denied = "denied-peer-ip = \"198.51.100.0/24\"\nallowed-peer-ip";
    let server = Server::start(&managed("").replace("allowed-peer-ip", denied));
    let mut client = alice(&server);
    client.allocate().expect("an allocation");
    assert_eq!(client.permit("10.1.2.3:5000".parse().expect("an address")), Err(Refused(403)));
    let words = ["The peer 10.1.2.3 was refused", "(403)", "in 10.0.0.0/8", "allowed-peer-ip"];
    says(&server, HERE, "peer-refused", &words);
    assert_eq!(client.permit("198.51.100.7:5000".parse().expect("an address")), Err(Refused(403)));
    let found = says(&server, "alice", "peer-refused", &["198.51.100.7", "in 198.51.100.0/24 (denied-peer-ip)"]);
    assert_eq!(found["count"], 2);
    // A port of an address that is permitted as such: the server's own.
    let own = server.ipv4("udp");
    client.permit(own).expect("a permission");
    client.send(own, b"hello");
    says(&server, HERE, "peer-refused", &["1 packet to or from peers that the rules refuse", "127.0.0.1"]);
    let channel = client.bind(0x4001, own);
    assert_eq!(channel, Err(Refused(403)));
    says(&server, HERE, "peer-refused", &[&format!("The peer {own} was refused"), "listening or management address"]);
}
