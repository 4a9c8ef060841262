//! What is wrong changes nothing, and is told.

use std::net::UdpSocket;

use crate::{
    common::{PASSWORD, Server, USER},
    support::{client, ctl, metric, peer, refused, reload, rewrite, round_trip},
    web::{get, managed},
};

/// Another user, who is in none of the files that are refused.
const BOB: &str = "[[auth.user]]\nname = \"bob\"\npassword = \"builder\"\n";

#[test]
fn a_file_with_mistakes_changes_nothing_and_says_all_of_them() {
    let mut server = Server::start(&managed(""));
    let (mut alice, peer) = (client(&server, USER, PASSWORD), peer());
    alice.allocate().expect("an allocation");
    alice.permit(peer.1).expect("a permission");
    let before = get(&server, "/v1/configuration");
    let bad = managed(&format!("{BOB}[limits]\nuser-qouta = 3\n[lifetimes]\nstale = 1\n"));
    rewrite(&server, &bad);

    let output = ctl(&server);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(told.contains("user-qouta") && told.contains("did you mean") && told.contains("stale"), "{told}");
    assert!(told.contains("nothing has changed"), "{told}");

    server.signal("HUP");
    server.await_log(|log| (log.matches("not reloaded: nothing has changed").count() == 2).then_some(()));
    assert!(server.log().contains("user-qouta") && server.log().contains("\"cause\":\"SIGHUP\""));
    assert_eq!(get(&server, "/v1/configuration"), before);
    assert_eq!(metric(&server, "turn_config_reloads_total{result=\"refused\"}"), 2.0);
    assert_eq!(metric(&server, "turn_config_reloads_total{result=\"applied\"}"), 0.0);
    round_trip(&mut alice, &peer);
    assert!(client(&server, "bob", "builder").allocate().is_err());

    // And when it is right, it is taken.
    rewrite(&server, &managed(BOB));
    server.signal("HUP");
    server.await_logged("reloaded");
    client(&server, "bob", "builder").allocate().expect("an allocation");
    let last = metric(&server, "turn_config_last_success_timestamp_seconds");
    assert!(last > metric(&server, "process_start_time_seconds"));
    round_trip(&mut alice, &peer);
}

#[test]
fn what_is_no_toml_or_not_there_changes_nothing() {
    let server = Server::start(&managed(""));
    assert!(refused(&server, "[[listener\n").contains("turnserver.toml:1"));
    std::fs::remove_file(server.folder().join("turnserver.toml")).expect("to remove it");
    let output = ctl(&server);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read the configuration"));
    client(&server, USER, PASSWORD).allocate().expect("an allocation");
}

/// What only the system knows: a port that another program has.
#[test]
fn a_listener_that_cannot_be_had_changes_nothing() {
    let server = Server::start(&managed(""));
    let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = other.local_addr().expect("an address").port();
    let more = format!("[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\ntransports = [\"udp\"]\n");
    let why = refused(&server, &managed(&format!("{BOB}{more}")));
    assert!(
        why.contains(&format!("cannot listen on udp 127.0.0.1:{port}")) && why.contains("another process"),
        "{why}"
    );
    assert!(client(&server, "bob", "builder").allocate().is_err());
    drop(other);
    let answer = reload(&server, &managed(&format!("{BOB}{more}")));
    assert_eq!(answer["changed"], serde_json::json!(["auth.user", "listener"]));
    client(&server, "bob", "builder").allocate().expect("an allocation");
}
