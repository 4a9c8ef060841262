//! How it is asked, and what is said when nothing is wrong or nothing is known.

use serde_json::Value;

use crate::{
    client::Refused,
    common::{Server, USER},
    support::{HERE, alice, client, explain, findings, reasons, says},
    web::{ask_locally, get, managed},
};

#[test]
fn who_never_reached_this_server_is_told_apart() {
    let server = Server::start(&managed(""));
    let port = server.ipv4("udp").port().to_string();
    says(&server, "192.0.2.7", "nothing-known", &["has ever reached this server", "DNS", "firewall", &port]);
    says(&server, "2001:db8::7", "nothing-known", &["Nothing is known of 2001:db8::7"]);
    says(&server, "zoe", "nothing-known", &["\"zoe\"", "IP address"]);
    says(&server, "00000000000000ff", "nothing-known", &["There is no session 00000000000000ff"]);
    // A request that asks for no relay leaves no trace, and says so.
    let mut somebody = client(&server, USER, "whatever");
    somebody.binding();
    says(&server, HERE, "nothing-known", &["Plain STUN", "leave no trace"]);
}

#[test]
fn people_and_programs_ask_by_address_port_user_and_session() {
    let server = Server::start(&managed(""));
    let mut wrong = client(&server, USER, "wrong");
    assert_eq!(wrong.allocate(), Err(Refused(401)));
    let mut right = alice(&server);
    right.allocate().expect("an allocation");
    let port = |client: &crate::client::Client| format!("{HERE}:{}", client.local().port());
    let of_wrong = reasons(&server, &port(&wrong));
    assert_eq!(of_wrong, ["wrong-password"]);
    assert_eq!(reasons(&server, &port(&right)), ["client-never-sent"]);
    assert_eq!(reasons(&server, HERE), ["wrong-password", "client-never-sent"]);
    assert_eq!(reasons(&server, USER), ["wrong-password", "client-never-sent"]);
    let id = get(&server, "/v1/sessions")["sessions"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(reasons(&server, &id), ["client-never-sent"]);
    assert_eq!(findings(&server, &id)[0]["session"], id.as_str());

    let printed = explain(&server, HERE, &["--json"]);
    let answer: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&answer["of"], &answer["kind"]), (&HERE.into(), &"address".into()));
    let of_wrong = &answer["findings"][0];
    assert_eq!((&of_wrong["user"], &of_wrong["transport"]), (&USER.into(), &"udp".into()));
    assert!(of_wrong["last"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{of_wrong}");
    assert!(printed.contains(&port(&wrong)) && !printed.contains("secret\""), "{printed}");

    for wrong in ["/v1/explain", "/v1/explain?of=", "/v1/explain?of=a&to=b"] {
        assert_eq!(ask_locally(&server, "GET", wrong, "").status, 400, "{wrong}");
    }
}

#[test]
fn sessions_that_have_the_same_trouble_are_told_of_once_and_after_what_is_worse() {
    let server = Server::start(&managed(""));
    let mut clients: Vec<_> = (0..5).map(|_| alice(&server)).collect();
    clients.iter_mut().for_each(|client| _ = client.allocate().expect("an allocation"));
    let found = says(&server, HERE, "client-never-sent", &["keeps this one in reserve"]);
    assert!(explain(&server, HERE, &[]).contains("5 sessions alike, one of them"));
    assert_eq!(found["count"], 5);
    assert_eq!(clients[0].permit("10.0.0.1:9".parse().expect("an address")), Err(Refused(403)));
    assert_eq!(reasons(&server, HERE), ["peer-refused", "client-never-sent"]);
}

#[test]
fn who_has_come_in_and_has_no_trouble_is_in_order() {
    let server = Server::start(&managed(""));
    let mut alice = alice(&server);
    assert_eq!(alice.delete(), Err(Refused(437)));
    says(&server, HERE, "refused", &["Refresh was refused with 437"]);
    // One who is only known to have come in.
    let mut bob = client(&server, USER, crate::common::PASSWORD);
    bob.allocate().expect("an allocation");
    let port = bob.local().port();
    bob.delete().expect("deleting it");
    says(&server, &format!("{HERE}:{port}"), "session-ended", &["was ended by the client"]);
}
