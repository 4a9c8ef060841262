//! Realms and their mechanisms together, from configuration texts.

use super::*;
use crate::{
    auth::{
        credential::Term,
        key::{md5_key, userhash},
    },
    config::{self, Host},
};

const NOW: u64 = 1_700_000_000;

fn now() -> Duration {
    Duration::from_secs(NOW)
}

fn directory(text: &str) -> Directory {
    let host = Host::detect().unwrap();
    let loaded = config::parse(text, "t.toml", &host).unwrap_or_else(|errors| panic!("{errors}"));
    Directory::new(&loaded.settings, false).unwrap()
}

/// Three realms: the default one, one with a listener of its own, and one without.
const REALMS: &str = r#"
[[listener]]
listening-ip = "127.0.0.1"
[[listener]]
listening-ip = "127.0.0.1"
listening-port = 3479
realm = "west.gov"
[auth]
realm = "north.gov"
[[auth.user]]
name = "gorst"
password = "hero"
[[auth.secret]]
name = "second"
secret = "the newer secret of the north"
algorithm = "sha256"
[[auth.secret]]
name = "first"
secret = "the older secret of the north"
[[realm]]
name = "west.gov"
static-auth-secret = "the secret of the west"
[[realm.user]]
name = "gorst"
password = "villain"
[[realm]]
name = "south.gov"
static-auth-secret = "the secret of the south"
[[realm.user]]
name = "gorst"
password = "stranger"
"#;

const NORTH: RealmId = RealmId(0);
const WEST: RealmId = RealmId(1);
const SOUTH: RealmId = RealmId(2);

fn named(realm: RealmId, name: &str) -> Query<'_> {
    Query { realm, identity: Identity::Name(name), algorithm: PasswordAlgorithm::Md5, token: None }
}

/// The credential of those found whose key is made of this password, for this REALM.
fn proved(directory: &Directory, realm: RealmId, told: &str, name: &str, password: &str) -> Option<Credential> {
    let key = md5_key(name, told, password).unwrap();
    let found = directory.find(&named(realm, name), now());
    found.iter().find(|credential| credential.key.as_bytes() == key.as_bytes()).cloned()
}

/// Who that is: user, realm, name of the secret.
fn who(credential: Option<Credential>) -> Option<(String, String, Option<String>)> {
    let Credential { subject, secret, .. } = credential?;
    Some((subject.user.to_string(), subject.realm.to_string(), secret.map(|secret| secret.to_string())))
}

fn is(user: &str, realm: &str, secret: Option<&str>) -> Option<(String, String, Option<String>)> {
    Some((user.to_owned(), realm.to_owned(), secret.map(str::to_owned)))
}

fn secret(key: &str, algorithm: crate::auth::rest::RestAlgorithm) -> RestSecret {
    RestSecret { name: "x".into(), tenant: None, algorithm, key: key.as_bytes().to_vec().into() }
}

fn password(key: &str, name: &str) -> String {
    secret(key, crate::auth::rest::RestAlgorithm::Sha1).password(name).to_string()
}

#[test]
fn accounts_are_those_of_the_realm_that_was_told() {
    let directory = directory(REALMS);
    let found = |realm, told, name, password| who(proved(&directory, realm, told, name, password));
    assert_eq!(found(NORTH, "north.gov", "gorst", "hero"), is("gorst", "north.gov", None));
    assert_eq!(found(WEST, "west.gov", "gorst", "villain"), is("gorst", "west.gov", None));
    assert_eq!(found(WEST, "west.gov", "gorst", "hero"), None);
    assert_eq!(found(NORTH, "north.gov", "gorst", "villain"), None);
}

#[test]
fn a_realm_without_a_listener_is_chosen_by_the_users_name() {
    let directory = directory(REALMS);
    let found = |realm, told, name, password| who(proved(&directory, realm, told, name, password));
    assert_eq!(found(NORTH, "north.gov", "gorst@south.gov", "stranger"), is("gorst", "south.gov", None));
    // Not from where another realm is told, nor a realm that has listeners of its own.
    assert_eq!(found(WEST, "west.gov", "gorst@south.gov", "stranger"), None);
    assert_eq!(found(NORTH, "north.gov", "gorst@west.gov", "villain"), None);
    let hash = userhash("gorst@south.gov", "north.gov").unwrap();
    let query = Query { identity: Identity::Hash(&hash), ..named(NORTH, "") };
    assert_eq!(directory.find(&query, now())[0].realm, SOUTH);
}

/// REST-2.2-01, REST-3-01, -02, -03, -04
#[test]
fn a_realm_is_chosen_by_the_secret_that_proves_the_request() {
    let directory = directory(REALMS);
    let name = format!("{}:alice", NOW + 60);
    let by = |realm, told, key: &str| who(proved(&directory, realm, told, &name, &password(key, &name)));
    let older = "the older secret of the north";
    assert_eq!(by(NORTH, "north.gov", older), is("alice", "north.gov", Some("first")));
    assert_eq!(by(NORTH, "north.gov", "the secret of the south"), is("alice", "south.gov", Some("static-auth-secret")));
    assert_eq!(by(WEST, "west.gov", "the secret of the west"), is("alice", "west.gov", Some("static-auth-secret")));
    assert_eq!(by(WEST, "west.gov", older), None);
    assert_eq!(by(NORTH, "north.gov", "the secret of the west"), None);
    assert_eq!(by(NORTH, "north.gov", "nobody's secret"), None);
    // The newer secret is for another MAC.
    let newer = secret("the newer secret of the north", crate::auth::rest::RestAlgorithm::Sha256).password(&name);
    let found = who(proved(&directory, NORTH, "north.gov", &name, &newer));
    assert_eq!(found, is("alice", "north.gov", Some("second")));
    for (name, made_for) in [
        (format!("{}:alice", NOW), format!("{}:alice", NOW)),
        (format!("{}:alice", NOW + 61), name.clone()),
        (format!("{}:mallory", NOW + 60), name.clone()),
        ("alice".to_owned(), "alice".to_owned()),
    ] {
        let password = password(older, &made_for);
        assert_eq!(who(proved(&directory, NORTH, "north.gov", &name, &password)), None, "{name}");
    }
}

/// A name that says another realm is for that realm's secrets to prove.
#[test]
fn a_realm_in_a_time_limited_name_is_the_secrets_own() {
    let directory = directory(REALMS);
    let by = |user: &str, key: &str| {
        let name = format!("{}:{user}", NOW + 60);
        who(proved(&directory, NORTH, "north.gov", &name, &password(key, &name)))
    };
    let (north, south) = ("the older secret of the north", "the secret of the south");
    assert_eq!(by("alice@south.gov", south), is("alice", "south.gov", Some("static-auth-secret")));
    assert_eq!(by("alice@south.gov", north), None);
    assert_eq!(by("alice@north.gov", north), is("alice", "north.gov", Some("first")));
    assert_eq!(by("alice@north.gov", south), None);
    assert_eq!(by("alice@example.com", north), is("alice@example.com", "north.gov", Some("first")));
}

#[test]
fn a_tenant_in_the_name_selects_the_secret() {
    let directory = directory(
        "[auth]\nrealm = \"north.gov\"\nrest-api-username = \"expiry:tenant:user\"\n\
         [[auth.secret]]\nname = \"one\"\ntenant = \"acme\"\nsecret = \"the secret of acme ltd\"\n\
         [[auth.secret]]\nname = \"two\"\ntenant = \"umbrella\"\nsecret = \"the secret of umbrella\"\n",
    );
    let name = format!("{}:acme:alice", NOW + 60);
    let found = directory.find(&named(NORTH, &name), now());
    assert_eq!(found.len(), 1);
    let right = proved(&directory, NORTH, "north.gov", &name, &password("the secret of acme ltd", &name)).unwrap();
    assert_eq!((&*right.subject.user, right.subject.tenant.as_deref()), ("alice", Some("acme")));
    let other = password("the secret of umbrella", &name);
    assert!(proved(&directory, NORTH, "north.gov", &name, &other).is_none());
    assert!(directory.find(&named(NORTH, &format!("{}:nobody:alice", NOW + 60)), now()).is_empty());
    assert!(directory.find(&named(NORTH, &format!("{}", NOW + 60)), now()).is_empty());
}

#[test]
fn a_term_includes_the_configured_grace() {
    let text =
        "[auth]\nrealm = \"north.gov\"\nexpiry-grace = \"30s\"\nstatic-auth-secret = \"the secret of the north\"\n";
    let directory = directory(text);
    let term = |expires: u64| directory.find(&named(NORTH, &format!("{expires}:alice")), now()).first()?.term;
    let seconds = Duration::from_secs;
    assert_eq!(term(NOW + 60), Some(Term { left: seconds(60), grace: seconds(30) }));
    assert_eq!(term(NOW - 10), Some(Term { left: seconds(0), grace: seconds(20) }));
    assert_eq!(term(NOW - 30), None);
}

/// An account may have a name that looks like a time-limited one; both are tried.
#[test]
fn mechanisms_are_tried_in_order() {
    let name = format!("{}:alice", NOW + 60);
    let directory = directory(&format!(
        "[auth]\nrealm = \"north.gov\"\nstatic-auth-secret = \"the secret of the north\"\n\
         [[auth.user]]\nname = \"{name}\"\npassword = \"hero\"\n"
    ));
    let found = directory.find(&named(NORTH, &name), now());
    assert_eq!(found.iter().map(|credential| credential.term.is_some()).collect::<Vec<_>>(), [false, true]);
    assert!(matches!(directory.find(&named(NORTH, "nobody"), now()), Cow::Owned(found) if found.is_empty()));
}

#[test]
fn what_is_offered_serves_everybody_who_is_let_in() {
    use PasswordAlgorithm::{Md5, Sha256};
    let realms = directory(REALMS);
    assert!(!realms.takes_hashes(NORTH) && !realms.takes_hashes(WEST), "secrets need names");
    assert_eq!((realms.offered(NORTH), realms.third_party(NORTH)), (vec![Sha256, Md5], None));
    let key = "00".repeat(16);
    let mixed = directory(&format!(
        "[auth]\nrealm = \"north.gov\"\n[[auth.user]]\nname = \"gorst\"\npassword = \"hero\"\n[[realm]]\n\
         name = \"south.gov\"\n[[realm.user]]\nname = \"gorst\"\nkey = \"{key}\"\n"
    ));
    assert_eq!((mixed.offered(NORTH), mixed.takes_hashes(NORTH)), (vec![Md5], true));
    assert_eq!((mixed.realm("south.gov"), mixed.realm("east.gov")), (Some(RealmId(1)), None));
}

/// A store may have users with nothing but an MD5 key, whom it does not find by a hash, and token keys.
#[test]
fn what_is_offered_serves_everybody_who_may_be_in_a_store() {
    let text = "[auth]\nrealm = \"north.gov\"\nserver-name = \"turn.north.gov\"\n[store]\ntype = \"http\"\n\
                url = \"http://127.0.0.1:1/\"\nsecret = \"0123456789abcdef\"\n[[realm]]\nname = \"south.gov\"\n";
    let loaded = config::parse(text, "t.toml", &Host::detect().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let offers = |has_store| {
        let directory = Directory::new(&loaded.settings, has_store).unwrap();
        let third_party = directory.third_party(NORTH).is_some();
        (directory.offered(NORTH).len(), directory.takes_hashes(NORTH), third_party)
    };
    assert_eq!((offers(true), offers(false)), ((1, false, true), (2, true, false)));
    let directory = Directory::new(&loaded.settings, true).unwrap();
    assert_eq!(directory.offered(NORTH), [PasswordAlgorithm::Md5]);
    // Tokens serve where the server's name for them is configured.
    assert_eq!((directory.third_party(NORTH), directory.third_party(WEST)), (Some("turn.north.gov"), None));
}

/// 7635-7-01: by the key's id; and the token names no user.
#[test]
fn tokens_are_opened_by_the_key_of_their_id() {
    let key = "SEdrajMyS0pHaXV5MDk4c2RmYXFiTmpPaWF6NzE5MjM=";
    let text = format!(
        "[auth]\nrealm = \"north.gov\"\nserver-name = \"blackdow.carleon.gov\"\n\
         [[auth.token-key]]\nkid = \"oldempire\"\nkey = \"{key}\"\n"
    );
    let directory = directory(&text);
    assert_eq!(directory.third_party(NORTH), Some("blackdow.carleon.gov"));
    assert!(directory.takes_hashes(NORTH));
    // The first sample of RFC 7635, Appendix A, made on 2014-09-18.
    let sample = "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50\
                  499359f0c2e26f76";
    let digits: Vec<u8> = sample.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    let token: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let find = |kid, now| {
        let query = Query { token: Some(&token), ..named(NORTH, kid) };
        directory.find(&query, Duration::from_secs(now)).into_owned()
    };
    let made = 1_410_984_813;
    let found = find("oldempire", made + 600);
    let keys: Vec<&[u8]> = found.iter().map(|credential| credential.key.as_bytes()).collect();
    // The second one is for coturn's clients.
    assert_eq!(keys, [&b"ZksjpweoixXmvn67534m"[..], b"ZksjpweoixXmvn67"]);
    assert_eq!(found[0].term, Some(Term { left: Duration::from_secs(3000), grace: Duration::ZERO }));
    assert!(found[0].bearer && found[0].subject.user.starts_with("oldempire#"), "{found:?}");
    assert_eq!(
        (found[0].secret.as_deref(), found[0].subject.tenant.as_deref()),
        (Some("oldempire"), Some("oldempire"))
    );
    assert!(find("newempire", made).is_empty());
    assert!(find("oldempire", made + 3605).is_empty());
}

#[test]
fn debug_output_holds_no_secret() {
    let text = format!("{:?}", directory(REALMS));
    assert!(!text.contains("the secret of") && !text.contains("hero") && text.contains("****"), "{text}");
}
