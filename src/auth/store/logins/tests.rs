//! Who is let in by what a store has.

use tokio::runtime::Handle;

use super::*;
use crate::{
    auth::{
        credential::RealmId,
        key::md5_key,
        store::{Answer, PeerRules, RealmOptions, Record, Store, StoreError, TokenKey},
    },
    config::{self, Host},
};

const NOW: u64 = 1_700_000_000;
const NORTH: RealmId = RealmId(0);
const WEST: RealmId = RealmId(1);

/// gorst of every realm by the password `hero`, a secret of the realm's name, and a token key; or failures.
#[derive(Default)]
struct Fake {
    users_fail: bool,
    secrets_fail: bool,
    secret_name: Option<&'static str>,
    token_key: Option<TokenKey>,
}

impl Fake {
    fn answer<'a, T: Send + 'a>(fails: bool, answer: T) -> Answer<'a, T> {
        let failure = StoreError::Refused("in this test".to_owned());
        Box::pin(async move { if fails { Err(failure) } else { Ok(answer) } })
    }
}

impl Store for Fake {
    fn user<'a>(&'a self, realm: &'a str, name: &'a str) -> Answer<'a, Option<Record>> {
        let record = Record { md5: md5_key(name, realm, "hero").ok(), ..Record::default() };
        Self::answer(self.users_fail, (name == "gorst").then_some(record))
    }

    fn secrets<'a>(&'a self, realm: &'a str) -> Answer<'a, Vec<NamedSecret>> {
        let secret = NamedSecret { name: self.secret_name.map(str::to_owned), value: realm.to_owned().into() };
        Self::answer(self.secrets_fail, vec![secret])
    }

    fn token_key<'a>(&'a self, kid: &'a str) -> Answer<'a, Option<TokenKey>> {
        Self::answer(false, self.token_key.clone().filter(|key| key.kid == kid))
    }

    fn realms(&self) -> Answer<'_, Vec<RealmOptions>> {
        Self::answer(false, Vec::new())
    }

    fn peer_rules<'a>(&'a self, _: &'a str) -> Answer<'a, PeerRules> {
        Self::answer(false, PeerRules::default())
    }

    fn probe(&self) -> Answer<'_, ()> {
        Self::answer(false, ())
    }
}

/// The default realm, one with a listener, and one without; `auth` goes into `[auth]`.
fn logins(fake: Fake, auth: &str) -> Logins {
    let text = format!(
        "[[listener]]\nlistening-ip = \"127.0.0.1\"\n\
         [[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = 3479\nrealm = \"west.gov\"\n\
         [auth]\nrealm = \"north.gov\"\n{auth}\n[store]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\n\
         secret = \"0123456789abcdef\"\n[[realm]]\nname = \"west.gov\"\n[[realm]]\nname = \"south.gov\"\n"
    );
    let loaded = config::parse(&text, "t.toml", &Host::detect().unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    let limits = loaded.settings.store.clone().unwrap().limits;
    Logins::new(&loaded.settings, Stores::new("fake", Arc::new(fake), limits, Handle::current())).unwrap()
}

fn question(realm: RealmId, name: &str) -> Question {
    Question { realm, name: Name::Plain(name.into()), algorithm: PasswordAlgorithm::Md5, token: None }
}

async fn find(logins: &Logins, question: &Question) -> Result<Vec<Credential>, Unavailable> {
    logins.look_up(question, Duration::from_secs(NOW)).await
}

fn rest_password(secret: &str, name: &str) -> Zeroizing<String> {
    let key = secret.as_bytes().to_vec().into();
    RestSecret { name: "x".into(), tenant: None, algorithm: RestAlgorithm::Sha1, key }.password(name)
}

#[tokio::test]
async fn a_user_is_found_under_the_realm_that_was_told() {
    let logins = logins(Fake::default(), "");
    for (realm, told) in [(NORTH, "north.gov"), (WEST, "west.gov")] {
        let found = find(&logins, &question(realm, "gorst")).await.unwrap();
        let [credential] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*credential.subject, Subject::new("gorst", told));
        assert_eq!((credential.realm, credential.term), (realm, None));
        assert_eq!(credential.key.as_bytes(), md5_key("gorst", told, "hero").unwrap().as_bytes());
    }
    for name in ["nobody", "", "gorst@south.gov", "\u{ad}"] {
        assert!(find(&logins, &question(NORTH, name)).await.unwrap().is_empty(), "{name:?}");
    }
    let sha256 = Question { algorithm: PasswordAlgorithm::Sha256, ..question(NORTH, "gorst") };
    assert!(find(&logins, &sha256).await.unwrap().is_empty());
    let hash = Question { name: Name::Hash([0; 32]), ..question(NORTH, "") };
    assert!(find(&logins, &hash).await.unwrap().is_empty());
}

#[tokio::test]
async fn secrets_of_all_realms_that_serve_there_are_tried() {
    let logins = logins(Fake::default(), "");
    let name = format!("{}:alice", NOW + 60);
    let found = find(&logins, &question(NORTH, &name)).await.unwrap();
    let who: Vec<&str> = found.iter().map(|credential| &*credential.subject.realm).collect();
    assert_eq!(who, ["north.gov", "south.gov"]);
    for (credential, secret) in found.iter().zip(["north.gov", "south.gov"]) {
        let key = md5_key(&name, "north.gov", &rest_password(secret, &name)).unwrap();
        assert_eq!(credential.key.as_bytes(), key.as_bytes());
        assert_eq!((&*credential.subject.user, credential.term.unwrap().left.as_secs()), ("alice", 60));
    }
    let found_west = find(&logins, &question(WEST, &name)).await.unwrap();
    assert_eq!(found_west.len(), 1);
    // A name of a secret that does not show it, and does not change.
    let secret = found[0].secret.clone().unwrap();
    assert!(secret.starts_with("store-") && secret.len() == 18, "{secret}");
    let again = find(&logins, &question(NORTH, &format!("{}:bob", NOW + 60))).await.unwrap();
    assert_eq!((again[0].secret.as_ref(), again[1].secret == again[0].secret), (Some(&secret), false));
    assert!(find(&logins, &question(NORTH, &format!("{}:alice", NOW - 1))).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_secret_with_a_name_is_for_the_tenant_of_that_name() {
    let form = "rest-api-username = \"expiry:tenant:user\"";
    for (secret_name, tenant, is_found) in
        [(None, "acme", true), (Some("acme"), "acme", true), (Some("acme"), "umbrella", false)]
    {
        let logins = logins(Fake { secret_name, ..Fake::default() }, form);
        let found = find(&logins, &question(NORTH, &format!("{}:{tenant}:alice", NOW + 60))).await.unwrap();
        let tenants: Vec<_> =
            found.iter().filter(|found| found.realm == NORTH).map(|found| &found.subject.tenant).collect();
        let expected: &[Option<Arc<str>>] = if is_found { &[Some(tenant.into())] } else { &[] };
        assert_eq!(tenants, expected.iter().collect::<Vec<_>>(), "{secret_name:?} {tenant}");
    }
}

/// A part of the store that fails keeps nobody out whom the other part lets in; but it is never taken for "nobody".
#[tokio::test]
async fn what_is_not_known_is_not_refused() {
    let rest = format!("{}:alice", NOW + 60);
    let users_fail = logins(Fake { users_fail: true, ..Fake::default() }, "");
    assert_eq!(find(&users_fail, &question(NORTH, "gorst")).await.unwrap_err(), Unavailable);
    assert_eq!(find(&users_fail, &question(NORTH, &rest)).await.unwrap().len(), 2);
    let secrets_fail = logins(Fake { secrets_fail: true, ..Fake::default() }, "");
    assert_eq!(find(&secrets_fail, &question(NORTH, "gorst")).await.unwrap().len(), 1);
    assert_eq!(find(&secrets_fail, &question(NORTH, &rest)).await.unwrap_err(), Unavailable);
}

#[tokio::test]
async fn a_token_key_serves_in_its_realm_until_its_end() {
    // The first sample of RFC 7635, Appendix A.
    let sample = "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50\
                  499359f0c2e26f76";
    let digits: Vec<u8> = sample.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    let token: Box<[u8]> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let made = 1_410_984_813;
    let key = |lifetime: Option<u64>, realm: Option<&str>| TokenKey {
        kid: "oldempire".to_owned(),
        key: b"HGkj32KJGiuy098sdfaqbNjOiaz71923".to_vec().into(),
        algorithm: TokenAlgorithm::A256Gcm,
        from: made,
        lifetime: lifetime.map(Duration::from_secs),
        realm: realm.map(str::to_owned),
    };
    for (kept, kid, expected) in [
        (key(None, None), "oldempire", Some("north.gov")),
        (key(None, Some("south.gov")), "oldempire", Some("south.gov")),
        (key(None, Some("west.gov")), "oldempire", None),
        (key(None, Some("elsewhere")), "oldempire", None),
        (key(None, None), "newempire", None),
        (key(Some(600), None), "oldempire", Some("north.gov")),
        (key(Some(595), None), "oldempire", None),
    ] {
        let shown = format!("{kept:?} {kid}");
        let fake = Fake { token_key: Some(kept), ..Fake::default() };
        let logins = logins(fake, "server-name = \"blackdow.carleon.gov\"");
        let question = Question { token: Some(token.clone()), ..question(NORTH, kid) };
        let found = logins.look_up(&question, Duration::from_secs(made + 600)).await.unwrap();
        assert_eq!(found.first().map(|found| &*found.subject.realm), expected, "{shown}");
        assert!(found.iter().all(|found| found.bearer && found.secret.as_deref() == Some("oldempire")));
    }
}
