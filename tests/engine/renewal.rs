//! Going on by other rules and another policy, as after a reload.

use std::net::{IpAddr, SocketAddr};

use turnserver::{
    auth::credential::Proof,
    stun::PasswordAlgorithm,
    turn::{Basis, Mechanism, Policy, RealmId, Revocation, Rules, Time, Unauthenticated},
};

use crate::support::{Credentials, Out, Request, TestClient, World, rules, socket, udp};

const GOOD: &str = "198.51.100.1:1";
const BAD: &str = "198.51.100.2:2";
const PORT: &str = "198.51.100.1:99";

/// Denies one address, and one port of another.
struct Stricter;

impl Policy for Stricter {
    fn permits(&self, realm: RealmId, peer: SocketAddr) -> bool {
        peer != socket(PORT) && self.permits_ip(realm, peer.ip())
    }

    fn permits_connection(&self, realm: RealmId, peer: SocketAddr) -> bool {
        self.permits(realm, peer)
    }

    fn permits_ip(&self, _: RealmId, peer: IpAddr) -> bool {
        peer != socket(BAD).ip()
    }

    fn admits(&mut self, _: Unauthenticated, _: IpAddr, _: Time) -> bool {
        true
    }
}

fn reaches(world: &mut World, client: &TestClient, number: u16) -> bool {
    matches!(client.channel_data(world, number, b"data"), Out::Peer { .. })
}

#[test]
fn what_another_policy_denies_ends_and_nothing_else() {
    let mut world = World::new();
    let alice = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let channels = [(0x4000, GOOD), (0x4001, BAD), (0x4002, PORT)];
    for (number, peer) in channels {
        assert_eq!(alice.code(&mut world, Request::bind(number, peer)), 0);
    }
    world.server.set_policy(Box::new(Stricter));
    world.server.forget_denied();
    world.settle();
    assert_eq!(channels.map(|(number, _)| reaches(&mut world, &alice, number)), [true, false, false]);
    let relayed = world.relays.values().next().unwrap().address;
    let relay = world.relay_at(relayed).unwrap();
    assert!(world.receive_peer(relay, socket(GOOD), b"data").is_some());
    assert!(world.receive_peer(relay, socket(BAD), b"data").is_none());
    assert_eq!(alice.code(&mut world, Request::bind(0x4001, BAD)), 403);
    // The number is free for another peer.
    assert_eq!(alice.code(&mut world, Request::bind(0x4001, "198.51.100.3:3")), 0);
    assert!(world.ended.is_empty());
}

fn offering(algorithms: &[PasswordAlgorithm]) -> Rules {
    let mut rules = rules();
    rules.realms[0].password_algorithms = algorithms.to_vec();
    rules
}

/// A client that has been told another list echoes it, which is a 400 otherwise (8489-9.2.4): it would have to give up.
#[test]
fn what_is_offered_changes_and_clients_are_told_anew() {
    let mut world = World::new();
    let mut new = Credentials::new("alice", "wonderland");
    let mut client = TestClient::with(&mut world, udp("192.0.2.1:1000"), new.clone());
    assert_eq!(client.code(&mut world, Request::allocate()), 0);
    // The same again changes nothing.
    world.server.renew(rules());
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);

    world.server.renew(offering(&[PasswordAlgorithm::Md5]));
    let stale = world.ask(&client.client, &client.sign(Request::refresh(600)).build());
    assert_eq!(stale.code(), 438);
    client.learn(&stale);
    new.algorithm = Some(PasswordAlgorithm::Md5);
    client.credentials = new;
    assert_eq!(client.code(&mut world, Request::refresh(600)), 0);

    // Who echoes what was never offered is still refused.
    client.offered = PasswordAlgorithm::Sha256.encode().to_vec();
    let refused = world.ask(&client.client, &client.sign(Request::refresh(600)).build());
    assert_eq!(refused.code(), 400);
}

#[test]
fn lifetimes_hold_when_they_are_asked_for_anew() {
    let mut world = World::new();
    let alice = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let mut shorter = rules();
    shorter.max_lifetime = std::time::Duration::from_secs(700);
    world.server.renew(shorter);
    world.pass(599_000);
    world.expire();
    assert!(world.ended.is_empty());
    assert_eq!(alice.request(&mut world, Request::refresh(3600)).lifetime(), 700);
}

/// Accounts and anonymous clients, apart from who has the same name by a secret.
#[test]
fn whoever_is_gone_is_told_from_namesakes() {
    let mut world = World::new();
    let _alice = TestClient::allocated(&mut world, udp("192.0.2.1:1000"));
    let account = |user: &str| {
        let proof = Proof::Password(user.into(), 0);
        Revocation::Basis(Basis { mechanism: Mechanism::Password, realm: "example.org".into(), proof })
    };
    let stored =
        Basis { mechanism: Mechanism::Store, realm: "example.org".into(), proof: Proof::Password("alice".into(), 0) };
    assert_eq!(world.server.revoke(&Revocation::Anonymous, world.now), 0);
    assert_eq!(world.server.revoke(&Revocation::Realm("south.gov".into()), world.now), 0);
    assert_eq!(world.server.revoke(&account("bob"), world.now), 0);
    assert_eq!(world.server.revoke(&Revocation::Basis(stored), world.now), 0);
    assert_eq!(world.server.revoke(&Revocation::Any(vec![account("bob"), account("alice")]), world.now), 1);
    world.settle();

    let mut open = rules();
    open.anonymous = true;
    world.server.renew(open);
    let anybody = udp("192.0.2.1:1001");
    assert_eq!(world.ask(&anybody, &Request::allocate().build()).code(), 0);
    assert_eq!(world.server.revoke(&account(""), world.now), 0);
    assert_eq!(world.server.revoke(&Revocation::Anonymous, world.now), 1);
    world.settle();
}
