//! SQLite: made on first use, read as coturn's turndb, locked by others.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use sqlx::{Connection, SqliteConnection};
use turnserver::auth::store::{Stores, Unavailable};

use crate::{
    client::{Client, Refused},
    common::{PATIENCE, process::run},
    coturn::{fill_and_read, turnadmin},
    logins::{lets_clients_in, server},
    registry, store_settings, text, wait_until,
};

fn table(path: &Path) -> String {
    format!("type = \"sqlite\"\npath = {:?}\n", text(path))
}

fn turnadmin_of(path: &Path) -> [String; 2] {
    ["-b".to_owned(), text(path).to_owned()]
}

fn sqlite3(path: &Path, statements: &str) {
    let mut command = Command::new("sqlite3");
    command.arg(path).arg(statements);
    run(command, PATIENCE);
}

#[tokio::test]
async fn a_turndb_of_coturn_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    // coturn makes the file.
    turnadmin(&turnadmin_of(&path), &["-l"]);
    sqlite3(&path, ".read /usr/share/coturn/testsqldbsetup.sql");
    fill_and_read(&turnadmin_of(&path), &table(&path)).await;
}

#[tokio::test]
async fn a_file_that_we_make_is_one_for_coturn_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    let ours = registry(&table(&path));
    ours.probe().await.expect("it answers");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    sqlite3(&path, ".read /usr/share/coturn/testsqldbsetup.sql");
    fill_and_read(&turnadmin_of(&path), &table(&path)).await;
}

#[tokio::test]
async fn a_file_cannot_be_made_where_there_is_no_folder() {
    let Err(error) = Stores::open(&store_settings("type = \"sqlite\"\npath = \"/nonexistent/turndb\"\n")) else {
        panic!("was opened");
    };
    let said = error.to_string();
    assert!(said.starts_with("the store cannot be reached: cannot make /nonexistent/turndb: "), "{said}");
}

/// A file with other tables is not touched.
#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    sqlite3(&path, "CREATE TABLE cookies (name)");
    let ours = registry(&table(&path));
    let error = ours.user("r", "u").await.unwrap_err().to_string();
    assert_eq!(error, "refuses: no such table: turnusers_lt");
    // Tables that some versions of coturn do not make are empty.
    assert!(ours.token_key("kid").await.unwrap().is_none());
    assert!(ours.realms().await.unwrap().is_empty());
}

#[tokio::test]
async fn while_another_process_holds_the_file_questions_fail_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    turnadmin(&turnadmin_of(&path), &["-a", "-u", "gorst", "-r", "north.gov", "-p", "hero"]);
    let limits = "timeout = \"500ms\"\ncache-entries = 0\nmax-failures = 1\nmax-pause = \"1s\"\n";
    let stores = Stores::open(&store_settings(&format!("{}{limits}", table(&path)))).unwrap();
    wait_until("a user", async || matches!(stores.user("north.gov", "gorst").await, Ok(Some(_)))).await;

    let mut other = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let outcome = stores.user("north.gov", "gorst").await;
    assert!(matches!(outcome, Err(Unavailable::TimedOut | Unavailable::Failed)), "{outcome:?}");
    assert_eq!(stores.user("north.gov", "gorst").await.unwrap_err(), Unavailable::Resting);
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    wait_until("the store is well again", async || !stores.counts().resting).await;
    assert!(stores.user("north.gov", "gorst").await.unwrap().is_some());
}

/// Rows that make no sense concern nobody else.
#[tokio::test]
async fn what_cannot_be_used_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    let ours = registry(&table(&path));
    ours.prepare().await.unwrap();
    sqlite3(
        &path,
        "INSERT INTO turnusers_lt VALUES ('r', 'plain', 'hunter2'), ('r', 'empty', NULL), ('r', 'good', \
         'BC807EE29DF3C9FFA736523FB2C4E8EE'); INSERT INTO denied_peer_ip VALUES ('r', '10.0.0.0/8'), ('s', 'everything'); \
         INSERT INTO oauth_key (kid, ikm_key) VALUES ('k', 'hunter2!'); INSERT INTO turn_secret VALUES ('r', '')",
    );
    let stores = Stores::open(&store_settings(&table(&path))).unwrap();
    assert!(stores.user("r", "good").await.unwrap().is_some());
    assert_eq!(stores.user("r", "plain").await.unwrap_err(), Unavailable::Malformed);
    assert!(stores.user("r", "empty").await.unwrap().is_none());
    assert_eq!(stores.peer_rules("r").await.unwrap().denied.len(), 1);
    assert_eq!(stores.peer_rules("s").await.unwrap_err(), Unavailable::Malformed);
    assert_eq!(stores.token_key("k").await.unwrap_err(), Unavailable::Malformed);
    assert!(stores.secrets("r").await.unwrap().is_empty());
    assert_eq!((stores.counts().outages, stores.counts().malformed), (0, 3));
}

/// What was changed is seen when the answer that was kept has grown too old.
#[tokio::test]
async fn a_change_is_seen_after_the_cache_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    let times = "cache-time = \"100ms\"\nnegative-cache-time = \"100ms\"\n";
    let stores = Stores::open(&store_settings(&format!("{}{times}", table(&path)))).unwrap();
    assert!(stores.user("north.gov", "late").await.unwrap().is_none());
    // turnadmin writes nothing if it meets with a reader, and does not say so.
    let (add, delete) = (["-a", "-u", "late", "-r", "north.gov", "-p", "x"], ["-d", "-u", "late", "-r", "north.gov"]);
    wait_until("the user", async || {
        turnadmin(&turnadmin_of(&path), &add);
        stores.user("north.gov", "late").await.unwrap().is_some()
    })
    .await;
    wait_until("no user", async || {
        turnadmin(&turnadmin_of(&path), &delete);
        stores.user("north.gov", "late").await.unwrap().is_none()
    })
    .await;
}

#[test]
fn users_of_sqlite_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    turnadmin(&turnadmin_of(&path), &["-l"]);
    sqlite3(&path, ".read /usr/share/coturn/testsqldbsetup.sql");
    sqlite3(&path, "UPDATE oauth_key SET realm = 'north.gov' WHERE kid = 'north'");
    lets_clients_in(&turnadmin_of(&path), &table(&path));
}

/// Limits of a realm are those of the file from the start on; peers, as they are there from time to time.
#[test]
fn limits_and_peers_of_a_realm_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    turnadmin(&turnadmin_of(&path), &["-a", "-u", "gorst", "-r", "north.gov", "-p", "hero"]);
    sqlite3(
        &path,
        "INSERT INTO turn_realm_option VALUES ('north.gov', 'user-quota', '1'); \
         INSERT INTO denied_peer_ip VALUES ('north.gov', '127.0.0.9')",
    );
    let server = server(&format!("{}cache-time = \"100ms\"\n", table(&path)));
    let client = || Client::new("udp", server.ipv4("udp"), Some(("gorst", "hero")));
    let (mut first, mut second) = (client(), client());
    first.allocate().unwrap();
    assert_eq!(second.allocate().unwrap_err(), Refused(486));
    let [before, later] = ["127.0.0.9:9", "127.0.0.8:9"].map(|peer| peer.parse().unwrap());
    assert_eq!((first.permit(before), first.permit(later)), (Err(Refused(403)), Ok(())));
    sqlite3(&path, "DELETE FROM denied_peer_ip; INSERT INTO denied_peer_ip VALUES ('', '127.0.0.8')");
    server.await_logged("the store has other peer rules: they hold from now on");
    assert_eq!((first.permit(before), first.permit(later)), (Ok(()), Err(Refused(403))));
    first.delete().unwrap();
    server.stop();
}
