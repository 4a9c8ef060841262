//! What coturn's `turnadmin` and its example data put into a database is read from it as it is, and the other way round.

use std::{process::Command, time::Duration};

use ipnet::IpNet;
use turnserver::auth::{
    key::md5_key,
    store::{RealmOptions, Registry, TokenAlgorithm, UserName},
};

use crate::{
    common::process::run,
    registry,
    servers::{Mariadb, Postgresql, Redis, Server},
};

/// What to run coturn's `turnadmin` with; the log files that it leaves go with its mount of `/var/log`.
pub(crate) fn turnadmin(database: &[String; 2], arguments: &[&str]) -> String {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /var/log && exec turnadmin \"$@\"", "turnadmin"]);
    command.args(arguments).args(database);
    run(command, Duration::from_secs(60))
}

/// Puts users, secrets and options there, and reads them and coturn's example data.
pub(crate) async fn fill_and_read(database: &[String; 2], store: &str) {
    for [user, realm, password] in [
        ["by-turnadmin", "north.gov", "tape"],
        ["J\u{fc}rgen", "north.gov", "gr\u{fc}n"],
        ["ninefingers", "crinna.org", "another"],
        ["gone", "north.gov", "x"],
    ] {
        turnadmin(database, &["-a", "-u", user, "-r", realm, "-p", password]);
    }
    turnadmin(database, &["-d", "-u", "gone", "-r", "north.gov"]);
    turnadmin(database, &["-s", "rotated-in", "-r", "north.gov"]);
    turnadmin(database, &["-s", "rotated-out", "-r", "north.gov"]);
    turnadmin(database, &["-X", "rotated-out", "-r", "north.gov"]);
    turnadmin(database, &["-g", "-r", "by.turnadmin", "--max-bps=1000", "--user-quota=5"]);
    turnadmin(database, &["-O", "-o", "https://north.gov:443", "-r", "north.gov"]);

    let registry = registry(store);
    registry.probe().await.expect("it answers");
    for (user, realm, password) in [
        ("ninefingers", "north.gov", "youhavetoberealistic"),
        ("gorst", "north.gov", "hero"),
        ("whirrun", "crinna.org", "sword"),
        ("stranger-come-knocking", "crinna.org", "civilization"),
        ("by-turnadmin", "north.gov", "tape"),
        ("J\u{fc}rgen", "north.gov", "gr\u{fc}n"),
        ("ninefingers", "crinna.org", "another"),
    ] {
        let record = registry.user(realm, user).await.expect("an answer");
        let key = record.unwrap_or_else(|| panic!("{user} of {realm} is not there")).md5.expect("a key");
        assert_eq!(key.as_bytes(), md5_key(user, realm, password).expect("a key").as_bytes(), "{user} of {realm}");
    }
    // Hostile names too: they are texts to a database, of whatever characters, and no errors.
    for user in [
        "gone",
        "",
        "nobody",
        "Gorst",
        "gorst ",
        "g\u{f6}rst",
        "\u{1f600}",
        "' OR ''='",
        "*",
        "x/user/y",
        "%n",
        "\u{30de}",
    ] {
        let answer = registry.user("north.gov", user).await;
        assert!(answer.as_ref().is_ok_and(Option::is_none), "{user:?}: {answer:?}");
        let answer = registry.token_key(user).await;
        assert!(answer.as_ref().is_ok_and(Option::is_none), "{user:?}: {answer:?}");
    }

    let secrets = registry.secrets("north.gov").await.expect("secrets");
    let mut secrets: Vec<&str> = secrets.iter().map(|secret| secret.value.as_str()).collect();
    secrets.sort_unstable();
    assert_eq!(secrets, ["bloody9", "logen", "rotated-in"]);
    assert!(registry.secrets("nowhere.example").await.expect("no secrets").is_empty());

    let options = |realm: &str, max_bytes_per_second, total_quota, user_quota| RealmOptions {
        realm: realm.to_owned(),
        max_bytes_per_second,
        total_quota,
        user_quota,
    };
    let expected = [
        options("by.turnadmin", Some(1_000), None, Some(5)),
        options("crinna.org", Some(400_000), Some(10_000), Some(8_000)),
        options("north.gov", Some(500_000), Some(12_000), Some(10_000)),
    ];
    assert_eq!(registry.realms().await.expect("realms"), expected);

    read_token_keys(&*registry).await;
    read_peers(&*registry).await;
    write(database, &*registry).await;
}

async fn read_token_keys(registry: &dyn Registry) {
    for (kid, key, algorithm, realm) in [
        ("north", "01234567890123456789012345678901\n", TokenAlgorithm::A256Gcm, Some("crinna.org")),
        ("union", "1234567890123456\n", TokenAlgorithm::A128Gcm, Some("north.gov")),
        ("oldempire", "12345678901234567890123456789012\n", TokenAlgorithm::A256Gcm, None),
    ] {
        let found = registry.token_key(kid).await.expect("an answer").unwrap_or_else(|| panic!("{kid} is not there"));
        assert_eq!((found.key.as_slice(), found.algorithm, found.realm.as_deref()), (key.as_bytes(), algorithm, realm));
        assert_eq!((found.kid.as_str(), found.from, found.lifetime), (kid, 0, None));
    }
}

async fn read_peers(registry: &dyn Registry) {
    let rules = registry.peer_rules("north.gov").await.expect("peers");
    let covers = |networks: &[IpNet], address: &str| {
        let address: std::net::IpAddr = address.parse().expect("an address");
        networks.iter().any(|network| network.contains(&address))
    };
    assert!(covers(&rules.allowed, "172.17.13.201") && !covers(&rules.allowed, "172.17.13.202"));
    for denied in ["172.17.13.133", "172.17.14.56", "172.17.17.133", "172.17.18.1", "172.17.19.56", "123::45"] {
        assert!(covers(&rules.denied, denied), "{denied}: {:?}", rules.denied);
    }
    for other in ["172.17.13.132", "172.17.14.57", "172.17.19.57", "123::77"] {
        assert!(!covers(&rules.denied, other), "{other}: {:?}", rules.denied);
    }
}

/// What we write is found by `turnadmin`.
async fn write(database: &[String; 2], registry: &dyn Registry) {
    let of = |realm: &str, name: &str| UserName { realm: realm.to_owned(), name: name.to_owned() };
    let all = registry.users(None).await.expect("users");
    assert!(all.contains(&of("crinna.org", "ninefingers")) && all.is_sorted(), "{all:?}");
    let key = |password| md5_key("ours", "north.gov", password).expect("a key");
    for password in ["first", "second"] {
        registry.put_user("north.gov", "ours", &key(password)).await.expect("written");
        let record = registry.user("north.gov", "ours").await.expect("an answer").expect("the user");
        assert_eq!(record.md5.expect("a key").as_bytes(), key(password).as_bytes());
    }
    let listed = turnadmin(database, &["-l"]);
    assert!(listed.contains("ours"), "{listed}");
    registry.add_secret("north.gov", "our-secret").await.expect("written");
    registry.add_secret("north.gov", "our-secret").await.expect("nothing to write");
    let shown = turnadmin(database, &["-S", "-r", "north.gov"]);
    assert!(shown.contains("our-secret"), "{shown}");
    assert!(registry.remove_secret("north.gov", "our-secret").await.expect("an answer"));
    assert!(!registry.remove_secret("north.gov", "our-secret").await.expect("an answer"));
    assert!(registry.remove_user("north.gov", "ours").await.expect("an answer"));
    assert!(!registry.remove_user("north.gov", "ours").await.expect("an answer"));
    let users = registry.users(Some("north.gov")).await.expect("users");
    let users: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["J\u{fc}rgen", "by-turnadmin", "gorst", "ninefingers"]);
    registry.prepare().await.expect("everything is there already");
}

async fn reads_what_coturn_writes<S: Server>() {
    let server = S::install();
    server.fill();
    // Realms of coturn's example have peers without a realm, too; its Redis example has none of them.
    if server.turnadmin()[0] == "-N" {
        server.execute("sadd turn/realm//denied-peer-ip 172.17.13.133-172.17.14.56 123::45");
    }
    fill_and_read(&server.turnadmin(), &server.store()).await;
}

#[tokio::test]
async fn postgresql_is_read_as_coturn_writes_it() {
    reads_what_coturn_writes::<Postgresql>().await;
}

#[tokio::test]
async fn mariadb_is_read_as_coturn_writes_it() {
    reads_what_coturn_writes::<Mariadb>().await;
}

#[tokio::test]
async fn redis_is_read_as_coturn_writes_it() {
    reads_what_coturn_writes::<Redis>().await;
}

/// MariaDB takes `Gorst` for `gorst`: neither is let in by the other's name, nor given the other's key.
#[tokio::test]
async fn names_that_mariadb_takes_for_the_same_are_told_apart() {
    let server = Mariadb::install();
    server.fill();
    let registry = registry(&server.store());
    assert!(registry.user("north.gov", "GORST").await.expect("an answer").is_none());
    assert!(registry.user("NORTH.gov", "gorst").await.expect("an answer").is_none());
    assert!(registry.secrets("North.gov").await.expect("an answer").is_empty());
    let key = md5_key("GORST", "north.gov", "x").expect("a key");
    registry.put_user("north.gov", "GORST", &key).await.expect("an answer");
    let gorst = registry.user("north.gov", "gorst").await.expect("an answer").expect("the user");
    let expected = md5_key("gorst", "north.gov", "hero").expect("a key");
    assert_eq!(gorst.md5.expect("a key").as_bytes(), expected.as_bytes());
    assert!(!registry.remove_user("north.gov", "GORST").await.expect("an answer"));
    assert!(registry.remove_user("north.gov", "gorst").await.expect("an answer"));
}
