//! `turnserver user` and `turnserver secret` from outside.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use turnserver::auth::key::md5_key;

use crate::{
    coturn::turnadmin,
    registry,
    servers::{Mariadb, PASSWORD, Postgresql, Redis, Server},
    text,
};

/// A configuration with a store.
struct Configured(tempfile::TempDir);

impl Configured {
    fn new(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[management]\nsocket = \"off\"\n[auth]\nrealm = \"north.gov\"\n[store]\n{store}");
        fs::write(folder.path().join("turnserver.toml"), text).unwrap();
        Self(folder)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("turnserver.toml")
    }

    /// Runs a command with `input` on its standard input.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        command.args(arguments).arg("-c").arg(self.file());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that does not read it may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && err.is_empty(), "{arguments:?}: {err}");
        out
    }

    /// The error of a command that fails with this status.
    fn fails(&self, status: i32, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Everything that the commands do, on one store.
async fn commands_work(store: &str) {
    let configured = Configured::new(store);
    assert_eq!(configured.succeeds(&["user", "add", "alice"], "tape\n"), "");
    configured.succeeds(&["user", "add", "bob", "--realm", "crinna.org"], "sword");
    let exists = configured.fails(1, &["user", "add", "alice"], "other\n");
    assert!(exists.starts_with("error: realm \"north.gov\" has a user \"alice\" already; "), "{exists}");
    let registry = registry(store);
    let key = |password| md5_key("alice", "north.gov", password).unwrap();
    let stored = registry.user("north.gov", "alice").await.unwrap().unwrap().md5.unwrap();
    assert_eq!(stored.as_bytes(), key("tape").as_bytes());

    configured.succeeds(&["user", "password", "alice"], "reel\r\n");
    let stored = registry.user("north.gov", "alice").await.unwrap().unwrap().md5.unwrap();
    assert_eq!(stored.as_bytes(), key("reel").as_bytes());
    let unknown = "error: realm \"north.gov\" has no user \"bob\" in the store\n";
    assert_eq!(configured.fails(1, &["user", "password", "bob"], "x\n"), unknown);
    assert_eq!(configured.fails(1, &["user", "remove", "bob"], ""), unknown);
    for (password, what) in [("", "is empty"), ("two\nlines", "is not one line of text"), ("\u{ad}", "has a forbidden")]
    {
        let said = configured.fails(1, &["user", "add", "carol"], password);
        assert!(said.contains(what) && !said.contains("two"), "{said}");
    }

    let listed = configured.succeeds(&["user", "list"], "");
    assert_eq!(listed, "REALM       USER\ncrinna.org  bob\nnorth.gov   alice\n");
    let listed = configured.succeeds(&["user", "list", "--realm", "north.gov", "--json"], "");
    assert_eq!(listed, "[{\"realm\":\"north.gov\",\"user\":\"alice\"}]\n");
    configured.succeeds(&["user", "remove", "alice"], "");
    assert!(registry.user("north.gov", "alice").await.unwrap().is_none());

    configured.succeeds(&["secret", "add"], "logen\n");
    let again = configured.fails(1, &["secret", "add"], "logen\n");
    assert_eq!(again, "error: realm \"north.gov\" has this secret already\n");
    let made = configured.succeeds(&["secret", "add", "--generate"], "");
    assert_eq!(made.trim_end().len(), 43, "{made}");
    let listed = configured.succeeds(&["secret", "list"], "");
    assert!(listed.starts_with("REALM      ID\nnorth.gov  ") && listed.lines().count() == 3, "{listed}");
    assert!(!listed.contains("logen") && !listed.contains(made.trim_end()), "{listed}");
    let revealed = configured.succeeds(&["secret", "list", "--reveal", "--json"], "");
    let revealed: serde_json::Value = serde_json::from_str(&revealed).unwrap();
    let of = |secret: &str| revealed.as_array().unwrap().iter().find(|row| row["secret"] == secret).unwrap().clone();
    // The first digits of SHA-256.
    assert_eq!(of("logen"), serde_json::json!({"realm": "north.gov", "id": "639c38b4", "secret": "logen"}));
    let id = of(made.trim_end())["id"].as_str().unwrap().to_owned();
    configured.succeeds(&["secret", "remove", &id], "");
    configured.succeeds(&["secret", "remove"], "logen\n");
    let gone = configured.fails(1, &["secret", "remove"], "logen\n");
    assert_eq!(gone, "error: realm \"north.gov\" has no such secret in the store\n");
    assert!(configured.fails(1, &["secret", "remove", &id], "").contains("has no secret with the id"));
    assert_eq!(configured.succeeds(&["secret", "list"], ""), "REALM  ID\n");
}

#[tokio::test]
async fn on_sqlite_whose_file_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    commands_work(&format!("type = \"sqlite\"\npath = {:?}\n", text(&path))).await;
    let listed = turnadmin(&["-b".to_owned(), text(&path).to_owned()], &["-l"]);
    assert!(listed.contains("bob"), "{listed}");
}

/// In databases that are empty: `user add` makes the tables.
#[tokio::test]
async fn on_postgresql() {
    let server = Postgresql::install();
    commands_work(&server.store()).await;
}

#[tokio::test]
async fn on_mariadb() {
    let server = Mariadb::install();
    commands_work(&server.store()).await;
    // Another name to us, the same to the database.
    let said = Configured::new(&server.store()).fails(1, &["user", "add", "BOB", "--realm", "crinna.org"], "x\n");
    assert_eq!(said, "error: the store has not kept \"BOB\": it takes it for another user's name\n");
}

#[tokio::test]
async fn on_redis() {
    let server = Redis::install();
    commands_work(&server.store()).await;
}

#[test]
fn a_configuration_without_a_store_and_a_service_are_refused() {
    let without = Configured::new("");
    fs::write(without.file(), "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\npassword = \"p\"\n").unwrap();
    let said = without.fails(78, &["user", "list"], "");
    assert!(said.starts_with("error: the configuration names no store; add the table [store]"), "{said}");
    let service = "type = \"http\"\nurl = \"http://127.0.0.1:9/\"\nsecret = \"0123456789abcdef\"\n";
    let said = Configured::new(service).fails(78, &["secret", "list"], "");
    assert!(said.starts_with("error: the store is a service"), "{said}");
}

/// The password of the database stands in a file, and shows nowhere.
#[test]
fn the_password_of_a_database_never_shows() {
    let port = crate::servers::free_port();
    let url = format!("postgresql://turn:{PASSWORD}@127.0.0.1:{port}/turn");
    let configured = Configured::new("type = \"postgresql\"\nurl-file = \"url\"\n");
    write_private(&configured.0.path().join("url"), &url);
    let said = configured.fails(1, &["user", "list"], "");
    assert!(said.starts_with("error: the store (postgresql) cannot be reached: "), "{said}");
    let printed = configured.succeeds(&["check", "--syntax-only"], "");
    assert!(printed.contains(&format!("url = \"postgresql://turn:****@127.0.0.1:{port}/turn\"\n")), "{printed}");
    assert!(!said.contains(PASSWORD) && !printed.contains(PASSWORD));
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
