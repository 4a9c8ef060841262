//! The external address changes, as it does behind a router that gets a new one.

use std::net::Ipv4Addr;

use crate::{
    common::{PASSWORD, Server, USER},
    support::{client, peer_at, reload, round_trip, strings},
    web::managed,
};

/// Not an address that is relayed from: peers there are seen under that address, whatever is in front of it.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn external(address: &str) -> String {
    managed("").replace("[relay]\n", &format!("[relay]\nexternal-ip = \"{address}/127.0.0.1\"\n"))
}

#[test]
fn new_sessions_get_the_new_external_address_and_old_ones_keep_theirs() {
    let server = Server::start(&external("198.51.100.1"));
    let (mut old, peer) = (client(&server, USER, PASSWORD), peer_at(ELSEWHERE));
    let old_relayed = old.allocate().expect("an allocation");
    assert_eq!(old_relayed.ip().to_string(), "198.51.100.1");
    old.permit(peer.1).expect("a permission");

    let answer = reload(&server, &external("198.51.100.2"));
    assert_eq!(
        (strings(&answer["changed"]), &answer["sessions_ended"]),
        (vec!["relay.external-ip".to_owned()], &0.into())
    );
    let mut new = client(&server, USER, PASSWORD);
    let new_relayed = new.allocate().expect("an allocation");
    assert_eq!(new_relayed.ip().to_string(), "198.51.100.2");
    round_trip(&mut old, &peer);
    new.permit(peer.1).expect("a permission");
    round_trip(&mut new, &peer);

    // The two reach each other by the addresses that they were told.
    old.permit(new_relayed).expect("a permission");
    new.permit(old_relayed).expect("a permission");
    old.send(new_relayed, b"from the old");
    assert_eq!(new.receive(), b"from the old");
    new.send(old_relayed, b"from the new");
    assert_eq!(old.receive(), b"from the new");
}

#[test]
fn relay_addresses_come_and_go() {
    let relay = |addresses: &str| {
        managed("").replace("relay-ip = [\"127.0.0.1\", \"::1\"]", &format!("relay-ip = [{addresses}]"))
    };
    let server = Server::start(&relay("\"127.0.0.1\""));
    let (mut old, peer) = (client(&server, USER, PASSWORD), peer_at(ELSEWHERE));
    old.allocate().expect("an allocation");
    old.permit(peer.1).expect("a permission");
    reload(&server, &relay("\"127.0.0.3\""));
    let mut new = client(&server, USER, PASSWORD);
    assert_eq!(new.allocate().expect("an allocation").ip().to_string(), "127.0.0.3");
    new.permit(peer.1).expect("a permission");
    round_trip(&mut new, &peer);
    round_trip(&mut old, &peer);
}
