//! Time-limited credentials (draft-uberti-behave-turn-rest-00).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::client::Client;
use crate::setup::{Peer, Scheme, Server, Session, V4, server};
use crate::wire::{LIFETIME, Msg, REFRESH, allocate, hmac_sha1, hmac_sha256};

const OLD: &str = "a secret of former times";
const NEW: &str = "a secret of these times";

/// Two secrets, as while the one gives way to the other; the newer one is for HMAC-SHA256.
const SECRETS: (&str, &str) = (
    "auth.secret",
    "[{ name = \"old\", secret = \"a secret of former times\" }, \
      { name = \"new\", secret = \"a secret of these times\", algorithm = \"sha256\" }]",
);

fn in_seconds(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    now.checked_add_signed(seconds).unwrap()
}

fn sha1(secret: &str, name: &str) -> String {
    STANDARD.encode(hmac_sha1(secret.as_bytes(), name.as_bytes()))
}

fn session(server: &Server, name: &str, password: &str) -> Session {
    Session::over(Client::udp(server.ipv4("udp")), (name, password))
}

/// The code of an Allocate; `None` for success.
fn code(server: &Server, name: &str, password: &str) -> Option<u16> {
    let mut session = session(server, name, password);
    let request = session.sign(allocate());
    session.client.request(&request).error()
}

#[test]
fn rest_2_2_01_02_expiry_and_user_with_a_password_made_of_both() {
    let server = server(&[SECRETS]);
    let soon = in_seconds(600);
    for name in [format!("{soon}:zoe"), format!("{soon}:"), format!("{soon}"), format!("{soon}:a:b@c")] {
        let password = sha1(OLD, &name);
        for scheme in [Scheme::Legacy, Scheme::Md5, Scheme::Sha256] {
            session(&server, &name, &password).scheme(scheme).allocate();
        }
    }
    // Users with passwords are there as well.
    Session::udp(&server).allocate();
}

#[test]
fn rest_3_01_02_03_07_what_is_over_forged_or_no_time_is_refused() {
    let server = server(&[SECRETS]);
    let name = format!("{}:zoe", in_seconds(600));
    let password = sha1(OLD, &name);
    let over = format!("{}:zoe", in_seconds(-1));
    assert_eq!(code(&server, &over, &sha1(OLD, &over)), Some(401));
    assert_eq!(code(&server, &name, &sha1("another secret", &name)), Some(401));
    assert_eq!(code(&server, &name.replace("zoe", "mallory"), &password), Some(401));
    assert_eq!(code(&server, &format!("{}:zoe", in_seconds(6000)), &password), Some(401));
    let digits = "9".repeat(30);
    for unusable in ["abc", "-1:x", ":x", "0x7fffffff:x", "zoe:9999999999", digits.as_str()] {
        assert_eq!(code(&server, unusable, &sha1(OLD, unusable)), Some(401), "{unusable}");
    }
    assert_eq!(code(&server, &name, &password), None);
}

#[test]
fn rest_3_04_several_secrets_serve_at_once() {
    let server = server(&[SECRETS]);
    let name = format!("{}:zoe", in_seconds(600));
    let new = STANDARD.encode(hmac_sha256(NEW.as_bytes(), name.as_bytes()));
    assert_eq!(code(&server, &name, &sha1(OLD, &name)), None);
    assert_eq!(code(&server, &name, &new), None);
    // Each with its own MAC.
    assert_eq!(code(&server, &name, &sha1(NEW, &name)), Some(401));
}

#[test]
fn rest_3_05_data_flow_until_the_credential_ends_and_not_longer() {
    let server = server(&[SECRETS]);
    let name = format!("{}:zoe", in_seconds(4));
    let mut zoe = session(&server, &name, &sha1(OLD, &name));
    let reply = zoe.succeed(allocate().u32(LIFETIME, 3600));
    assert!((1..=4).contains(&reply.u32(LIFETIME).unwrap()), "{reply:02x?}");
    let relayed = reply.xor(crate::wire::XOR_RELAYED_ADDRESS).unwrap();
    let peer = Peer::new(V4);
    zoe.permit(peer.address);
    zoe.round_trip(&peer, relayed);
    let ended = server.await_logged("session ends");
    assert_eq!((&ended["reason"], &ended["user"]), (&"credential-expired".into(), &"zoe".into()));
    let request = zoe.sign(Msg::new(REFRESH));
    assert_eq!(zoe.client.request(&request).error(), Some(401));
}

#[test]
fn rest_3_05_an_allocation_may_outlive_its_credential_by_a_configured_grace() {
    let server = server(&[SECRETS, ("auth.expiry-grace", "\"1h\"")]);
    let name = format!("{}:zoe", in_seconds(4));
    let mut zoe = session(&server, &name, &sha1(OLD, &name));
    zoe.allocate();
    while in_seconds(0) <= expiry(&name) {
        // The client's own requests pass the time.
        zoe.succeed(Msg::new(REFRESH));
        std::thread::yield_now();
    }
    assert_eq!(zoe.succeed(Msg::new(REFRESH).u32(LIFETIME, 600)).u32(LIFETIME), Some(600));
    assert_eq!(code(&server, &name, &sha1(OLD, &name)), Some(401), "nothing new");
}

fn expiry(name: &str) -> u64 {
    name.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn rest_3_06_quotas_count_by_the_users_own_name() {
    let server = server(&[SECRETS, ("limits.user-quota", "1")]);
    let of = |seconds: i64, user: &str| {
        let name = format!("{}:{user}", in_seconds(seconds));
        let password = sha1(OLD, &name);
        session(&server, &name, &password)
    };
    let mut first = of(600, "zoe");
    first.allocate();
    of(900, "zoe").fail(allocate(), 486);
    of(900, "ada").allocate();
    first.delete();
    of(900, "zoe").allocate();
}

/// The form is the operator's decision: what would be a name in the other form is none.
#[test]
fn the_form_of_names_is_configured() {
    let form = ("auth.rest-api-username", "\"user:expiry\"");
    let server = server(&[SECRETS, form, ("auth.rest-api-separator", "\"|\"")]);
    let soon = in_seconds(600);
    let name = format!("zoe|{soon}");
    assert_eq!(code(&server, &name, &sha1(OLD, &name)), None);
    for name in [format!("{soon}|zoe"), format!("zoe:{soon}"), format!("{soon}")] {
        assert_eq!(code(&server, &name, &sha1(OLD, &name)), Some(401), "{name}");
    }
}

#[test]
fn a_tenant_in_the_name_selects_the_secret() {
    let secrets = "[{ name = \"a\", tenant = \"acme\", secret = \"a secret of former times\" }, \
                    { name = \"b\", tenant = \"umbrella\", secret = \"a secret of these times\" }]";
    let server = server(&[("auth.secret", secrets), ("auth.rest-api-username", "\"expiry:tenant:user\"")]);
    let name = format!("{}:acme:zoe", in_seconds(600));
    assert_eq!(code(&server, &name, &sha1(NEW, &name)), Some(401));
    assert_eq!(code(&server, &name, &sha1(OLD, &name)), None);
    let begun = server.await_logged("session begins");
    assert_eq!([&begun["user"], &begun["tenant"], &begun["realm"]], ["zoe", "acme", "example.org"]);
}
