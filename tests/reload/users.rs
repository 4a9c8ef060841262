//! Users, secrets and realms come and go; sessions of those who are gone end at once.

use serde_json::Value;

use crate::{
    client::{Client, Refused},
    common::{PASSWORD, REALM, Server, USER},
    support::{client, metric, peer, reload, round_trip, sessions, strings},
    web::{ask_locally, managed},
};

fn user(name: &str, password: &str) -> String {
    format!("[[auth.user]]\nname = \"{name}\"\npassword = \"{password}\"\n")
}

fn without_users(more: &str) -> String {
    managed(more).replace(&user(USER, PASSWORD), "")
}

#[test]
fn users_are_added_and_removed_and_change_their_passwords() {
    let with = |users: &[(&str, &str)]| -> String {
        without_users(&users.iter().map(|(name, password)| user(name, password)).collect::<String>())
    };
    let server = Server::start(&with(&[("a", "one"), ("b", "two"), ("c", "three")]));
    let [mut a, mut b, mut c] = [("a", "one"), ("b", "two"), ("c", "three")].map(|(name, password)| {
        let mut client = client(&server, name, password);
        client.allocate().expect("an allocation");
        client
    });
    let peer = peer();
    c.permit(peer.1).expect("a permission");

    let answer = reload(&server, &with(&[("b", "another"), ("c", "three"), ("d", "four")]));
    assert_eq!((strings(&answer["changed"]), &answer["sessions_ended"]), (vec!["auth.user".to_owned()], &2.into()));
    assert_eq!(sessions(&server), 1);
    assert_eq!(metric(&server, "turn_allocations_ended_total{reason=\"revoked\"}"), 2.0);
    assert_eq!(a.permit(peer.1), Err(Refused(401)));
    assert_eq!(b.permit(peer.1), Err(Refused(401)));
    round_trip(&mut c, &peer);
    c.permit(peer.1).expect("its nonce and its key are still good");
    assert_eq!(client(&server, "b", "two").allocate(), Err(Refused(401)));
    for (name, password) in [("b", "another"), ("c", "three"), ("d", "four")] {
        client(&server, name, password).allocate().expect("an allocation");
    }
}

/// Users with keys alone, and secrets, change what clients are offered: a nonce from before is stale, and nothing worse.
#[test]
fn sessions_go_on_when_clients_are_offered_something_else() {
    let server = Server::start(&managed(""));
    let (mut alice, peer) = (client(&server, USER, PASSWORD), peer());
    alice.allocate().expect("an allocation");
    let key = "[[auth.user]]\nname = \"old\"\nkey = \"0123456789abcdef0123456789abcdef\"\n";
    let secret = "[[auth.secret]]\nname = \"s\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    for more in [key, secret, ""] {
        assert_eq!(reload(&server, &managed(more))["sessions_ended"], 0);
        alice.permit(peer.1).expect("a permission");
        round_trip(&mut alice, &peer);
    }
}

/// A client with a time-limited credential that the server has made.
fn minted(server: &Server, secret: &str) -> Client {
    let answer =
        ask_locally(server, "POST", "/v1/credentials", &format!("{{\"user\": \"u\", \"secret\": \"{secret}\"}}"));
    let made: Value = answer.json();
    let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key}: {made}")).to_owned();
    client(server, &text("username"), &text("password"))
}

#[test]
fn secrets_are_changed_one_by_one() {
    let with = |secrets: &[[&str; 2]]| -> String {
        let secret = |[name, secret]: &[&str; 2]| {
            format!("[[auth.secret]]\nname = \"{name}\"\nsecret = \"{secret}{secret}{secret}{secret}\"\n")
        };
        without_users(&secrets.iter().map(secret).collect::<String>())
    };
    let server = Server::start(&with(&[["old", "sesame"], ["new", "simsim"]]));
    let mut clients = ["old", "new"].map(|secret| minted(&server, secret));
    clients.iter_mut().for_each(|client| assert!(client.allocate().is_ok()));
    let peer = peer();
    assert_eq!(reload(&server, &with(&[["new", "simsim"], ["newest", "azimes"]]))["sessions_ended"], 1);
    let [old, new] = &mut clients;
    assert_eq!(old.permit(peer.1), Err(Refused(401)));
    new.permit(peer.1).expect("a permission");
    round_trip(new, &peer);
    minted(&server, "newest").allocate().expect("an allocation");
    assert_eq!(ask_locally(&server, "POST", "/v1/credentials", "{\"secret\": \"old\"}").status, 400);
    // The same secret by another name is another one.
    assert_eq!(reload(&server, &with(&[["renamed", "simsim"]]))["sessions_ended"], 2);
    assert_eq!(new.permit(peer.1), Err(Refused(437)));
}

#[test]
fn realms_come_and_go_and_change_their_order() {
    let realm =
        |name: &str| format!("[[realm]]\nname = \"{name}\"\n[[realm.user]]\nname = \"u\"\npassword = \"of {name}\"\n");
    let with = |names: &[&str]| managed(&names.iter().map(|name| realm(name)).collect::<String>());
    let of = |server: &Server, name: &str| {
        let mut client = client(server, &format!("u@{name}"), &format!("of {name}"));
        let made = client.allocate();
        made.map(|_| client)
    };
    let server = Server::start(&with(&["south.gov", "west.gov"]));
    let (mut south, mut west, peer) =
        (of(&server, "south.gov").expect("a session"), of(&server, "west.gov").expect("a session"), peer());
    assert_eq!(reload(&server, &with(&["east.gov", "west.gov"]))["sessions_ended"], 1);
    assert_eq!(south.permit(peer.1), Err(Refused(401)));
    west.permit(peer.1).expect("a permission");
    round_trip(&mut west, &peer);
    of(&server, "east.gov").expect("a session");
    assert_eq!(of(&server, "south.gov").err(), Some(Refused(401)));
    // Back again, and sessions are told apart as before.
    assert_eq!(reload(&server, &with(&["west.gov", "south.gov", "east.gov"]))["sessions_ended"], 0);
    of(&server, "south.gov").expect("a session");
    west.permit(peer.1).expect("a permission");
    // Another name for the default realm makes other keys of everybody's passwords.
    let renamed = with(&["west.gov"]).replace(REALM, "example.net");
    reload(&server, &renamed);
    client(&server, USER, PASSWORD).allocate().expect("an allocation");
}
