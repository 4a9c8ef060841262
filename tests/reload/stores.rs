//! Users of a store, in realms that come and go.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use crate::{
    client::{Client, Refused},
    common::{PASSWORD, Server, USER, ports::free_port_pair},
    support::{client, peer, reload, round_trip, strings},
    web::managed,
};

/// Adds a user to the store of a configuration.
fn add(folder: &std::path::Path, user: &str, realm: &str, password: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.args(["user", "add", user, "--realm", realm, "-c"]).arg(folder.join("turnserver.toml"));
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("to run");
    child.stdin.take().expect("its input").write_all(password.as_bytes()).expect("to write");
    assert!(child.wait().expect("its end").success(), "adding {user}");
}

#[test]
fn users_of_a_store_are_let_into_new_realms_and_stay_in_old_ones() {
    let user = format!("[[auth.user]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n");
    let store = "[store]\ntype = \"sqlite\"\npath = \"users.db\"\n";
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let south = |port: u16| {
        format!(
            "[[realm]]\nname = \"south.gov\"\n\
             [[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\nrealm = \"south.gov\"\n"
        )
    };
    let plain = managed(store).replace(&user, "");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("turnserver.toml"), &plain).expect("a file");
    add(folder.path(), USER, "example.org", PASSWORD);
    add(folder.path(), "gorst", "south.gov", "hero");
    let server = Server::start_with(&plain, folder);
    let (mut alice, peer) = (client(&server, USER, PASSWORD), peer());
    alice.allocate().expect("an allocation");
    alice.permit(peer.1).expect("a permission");

    assert_eq!(reload(&server, &format!("{plain}{}", south(port)))["sessions_ended"], 0);
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let mut gorst = Client::new("udp", at, Some(("gorst", "hero")));
    gorst.allocate().expect("an allocation");
    gorst.permit(peer.1).expect("a permission");
    round_trip(&mut gorst, &peer);

    // The realm is gone, and with it whoever is in it, wherever they are kept.
    let answer = reload(&server, &plain.replace("users.db\"\n", "users.db\"\ncache-time = \"7s\"\n"));
    assert_eq!((&answer["sessions_ended"], strings(&answer["needs_restart"])), (&1.into(), vec!["store".to_owned()]));
    round_trip(&mut alice, &peer);
    client(&server, USER, PASSWORD).allocate().expect("an allocation");
    assert_eq!(client(&server, "gorst", "hero").allocate(), Err(Refused(401)));
}
