//! Users in databases and behind a service: real PostgreSQL, MariaDB and Redis servers that the tests start on loopback,
//! SQLite in temporary files, filled by coturn's own `turnadmin` and example data, read by our stores; what happens to
//! questions while a server is stopped, hangs, is slow, and is back; clients that log in with what is there; the commands.
//!
//! Runs as root: PostgreSQL and MariaDB refuse to, so their servers are started as the users of their packages.

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod commands;
mod coturn;
mod fault;
mod hook;
mod logins;
mod rate;
mod servers;
mod sqlite;
mod standing;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use turnserver::{
    auth::store::{Registry, open::Opened, open::open},
    config::{Host, Settings, parse, settings},
};

/// The `[store]` of a configuration.
fn store_settings(table: &str) -> settings::Store {
    configuration(table).store.expect("a store")
}

fn configuration(table: &str) -> Settings {
    let text = format!("[auth]\nrealm = \"north.gov\"\n[store]\n{table}");
    let host = Host::detect().expect("this host");
    parse(&text, "store.toml", &host).unwrap_or_else(|errors| panic!("{errors}")).settings
}

/// The store of a configuration, without its guard.
fn registry(table: &str) -> std::sync::Arc<dyn Registry> {
    match open(&store_settings(table)) {
        Ok(Opened::Registry(registry)) => registry,
        Ok(Opened::Store(_)) => panic!("{table} cannot be written to"),
        Err(error) => panic!("{table}: {error}"),
    }
}

/// Waits until `is_so`, looking again and again.
async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + common::PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} within {:?}", common::PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A program's path.
fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
