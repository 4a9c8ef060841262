//! How many users a second are looked up in each kind of database, by 64 at a time and one after the other; and what a login of a
//! client costs the server by each mechanism, with what a store has said in the cache and without. Measurements, not tests:
//! `cargo test --release --test store -- --ignored --nocapture --test-threads 1 rate`.

use std::{
    thread,
    time::{Duration, Instant},
};

use turnserver::auth::{key::md5_key, store::Stores};

use crate::{
    client::Client,
    common,
    hook::Service,
    logins, registry,
    servers::{Mariadb, Postgresql, Redis, Server},
    standing::minted,
    store_settings, wait_until,
};

const MEASURED: Duration = Duration::from_secs(3);

async fn measure<S: Server>(name: &str) {
    let server = S::install();
    server.fill();
    let stores = Stores::open(&store_settings(&format!("{}cache-entries = 0\n", server.store()))).expect("a store");
    wait_until("a user", async || matches!(stores.user("north.gov", "gorst").await, Ok(Some(_)))).await;
    for at_a_time in [1, 64] {
        let start = Instant::now();
        let askers: Vec<_> = (0..at_a_time)
            .map(|asker| {
                let stores = stores.clone();
                tokio::spawn(async move {
                    let mut answers = 0_u32;
                    while start.elapsed() < MEASURED {
                        // Names that differ are not joined.
                        stores.user("north.gov", &format!("user-{asker}-{answers}")).await.expect("an answer");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let mut answers = 0;
        for asker in askers {
            answers += asker.await.expect("a task");
        }
        eprintln!(
            "{name}, {at_a_time} at a time: {:.0} look-ups/s",
            f64::from(answers) / start.elapsed().as_secs_f64()
        );
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn rate() {
    measure::<Postgresql>("PostgreSQL").await;
    measure::<Mariadb>("MariaDB").await;
    measure::<Redis>("Redis").await;
}

/// Clients at a time, each a user of its own, so that no question joins another.
const CLIENTS: usize = 8;

/// The processor time that a process has had.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(ticks * 10)
}

/// Logs in and out for a while: Allocate, challenged and authenticated, and Refresh with a lifetime of 0.
fn log_in_and_out(what: &str, server: &common::Server, users: &[(String, String)]) {
    let to = server.ipv4("udp");
    let log_in = |(user, password): &(String, String)| {
        let mut client = Client::new("udp", to, Some((user, password)));
        client.allocate().and_then(|_| client.delete()).expect("a login");
    };
    users.iter().for_each(log_in);
    let (start, before) = (Instant::now(), processor_time(server.pid()));
    let logins: u32 = thread::scope(|scope| {
        let clients: Vec<_> = users
            .iter()
            .map(|user| {
                scope.spawn(move || {
                    let mut logins = 0;
                    while start.elapsed() < MEASURED {
                        log_in(user);
                        logins += 1;
                    }
                    logins
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    let spent = processor_time(server.pid()) - before;
    eprintln!(
        "{what}: {:.0} logins/s, {:.0} µs of the server's processor time each",
        f64::from(logins) / start.elapsed().as_secs_f64(),
        spent.as_secs_f64() * 1e6 / f64::from(logins)
    );
}

async fn measure_logins(name: &str, store: &str) {
    let users: Vec<_> = (0..CLIENTS).map(|user| (format!("measured-{user}"), "tape".to_owned())).collect();
    let registry = registry(store);
    registry.prepare().await.expect("tables");
    for (user, password) in &users {
        let key = md5_key(user, "north.gov", password).expect("plain ASCII");
        registry.put_user("north.gov", user, &key).await.expect("a user");
    }
    for (cache, how) in [("", "cached"), ("cache-entries = 0\n", "not cached")] {
        let server = logins::server(&format!("{store}{cache}"));
        log_in_and_out(&format!("users of {name}, {how}"), &server, &users);
        server.stop();
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn rate_of_logins() {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = format!("type = \"sqlite\"\npath = {:?}\n", folder.path().join("turndb"));
    let server = logins::server(&sqlite);
    let own = ("own".to_owned(), "of the configuration".to_owned());
    log_in_and_out("a user of the configuration", &server, &vec![own; CLIENTS]);
    registry(&sqlite).add_secret("north.gov", "the-first-secret").await.expect("a secret");
    server.stop();
    let (name, password) = minted("the-first-secret");
    for (cache, how) in [("", "cached"), ("cache-entries = 0\n", "not cached")] {
        let server = logins::server(&format!("{sqlite}{cache}"));
        let made = vec![(name.to_owned(), password.clone()); CLIENTS];
        log_in_and_out(&format!("a secret of SQLite, {how}"), &server, &made);
        server.stop();
    }
    measure_logins("SQLite", &sqlite).await;
    // It knows one user alone, so that questions that are not cached join each other.
    let service = Service::start(None);
    for (cache, how) in [("", "cached"), ("cache-entries = 0\n", "not cached")] {
        let server = logins::server(&service.table(cache));
        let gorst = vec![("gorst".to_owned(), "hero".to_owned()); CLIENTS];
        log_in_and_out(&format!("a user of a service, {how}"), &server, &gorst);
        server.stop();
    }
    let (postgresql, mariadb, redis) = (Postgresql::install(), Mariadb::install(), Redis::install());
    postgresql.fill();
    mariadb.fill();
    redis.fill();
    for (name, store) in [("PostgreSQL", postgresql.store()), ("MariaDB", mariadb.store()), ("Redis", redis.store())] {
        measure_logins(name, &store).await;
    }
}
