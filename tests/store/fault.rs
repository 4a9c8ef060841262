//! While a database is stopped, hangs or is slow, questions fail fast; when it is back, they are answered again by themselves.

use std::time::{Duration, Instant};

use turnserver::auth::store::{Stores, Unavailable};

use crate::{
    servers::{Mariadb, Postgresql, Redis, Server},
    store_settings, wait_until,
};

/// The time limit of a question.
const LIMIT: Duration = Duration::from_secs(1);

/// What a question may take beyond the limit on a machine that has much else to do.
const SLACK: Duration = Duration::from_secs(3);

/// Asks for a user until the store is left alone, and then once more, which costs nothing.
async fn fails_fast(stores: &Stores, expected: &[Unavailable]) {
    let before = stores.counts();
    for attempt in 0_u32.. {
        let start = Instant::now();
        let outcome = stores.user("north.gov", &format!("user-{attempt}")).await;
        assert!(start.elapsed() < LIMIT + SLACK, "{outcome:?} after {:?}", start.elapsed());
        match outcome.expect_err("an answer of a dead store") {
            Unavailable::Resting => break,
            other => assert!(expected.contains(&other), "{other:?}"),
        }
    }
    let start = Instant::now();
    assert_eq!(stores.user("north.gov", "gorst").await.expect_err("an answer"), Unavailable::Resting);
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    let counts = stores.counts();
    assert!(counts.resting && counts.waiting == 0);
    let failures = (counts.failed + counts.timed_out) - (before.failed + before.timed_out);
    assert!((1..=3).contains(&failures), "{failures}");
}

/// Nobody asks, and it is well again; then it answers whoever does.
async fn recovers(stores: &Stores) {
    wait_until("the store is well again", async || !stores.counts().resting).await;
    wait_until("a user is found", async || matches!(stores.user("north.gov", "gorst").await, Ok(Some(_)))).await;
}

async fn survives<S: Server>() {
    let mut server = S::install();
    server.fill();
    let limits = "timeout = \"1s\"\ncache-entries = 0\nmax-pause = \"1s\"\n";
    let stores = Stores::open(&store_settings(&format!("{}{limits}", server.store()))).expect("a store");
    recovers(&stores).await;
    assert_eq!(stores.counts().outages, 0);

    // Stopped and started again.
    server.stop();
    fails_fast(&stores, &[Unavailable::Failed, Unavailable::TimedOut]).await;
    server.start();
    recovers(&stores).await;

    // Restarted between two questions: the next one is answered.
    server.stop();
    server.start();
    assert!(stores.user("north.gov", "gorst").await.expect("an answer").is_some());

    // Hanging, with connections that it has accepted.
    server.hang(true);
    fails_fast(&stores, &[Unavailable::TimedOut]).await;
    server.hang(false);
    recovers(&stores).await;

    // Slow, but in time.
    let slow = server.slow_down(LIMIT / 4);
    assert!(stores.user("north.gov", "gorst").await.expect("an answer in time").is_some());
    drop(slow);

    // Too slow.
    let slow = server.slow_down(LIMIT * 6);
    fails_fast(&stores, &[Unavailable::TimedOut]).await;
    recovers(&stores).await;
    drop(slow);

    // Under load, with many asking at once: whoever asks has an answer or a refusal in time.
    server.hang(true);
    let start = Instant::now();
    let asked: Vec<_> = (0..200)
        .map(|number| {
            let stores = stores.clone();
            tokio::spawn(async move { stores.user("north.gov", &format!("load-{number}")).await.is_err() })
        })
        .collect();
    for asked in asked {
        assert!(asked.await.expect("a task"));
    }
    assert!(start.elapsed() < LIMIT + SLACK, "{:?}", start.elapsed());
    server.hang(false);
    recovers(&stores).await;
}

#[tokio::test]
async fn postgresql_may_fail() {
    survives::<Postgresql>().await;
}

#[tokio::test]
async fn mariadb_may_fail() {
    survives::<Mariadb>().await;
}

#[tokio::test]
async fn redis_may_fail() {
    survives::<Redis>().await;
}

/// Nothing listens from the start: that is said at once, not with the first login, and without the password.
#[tokio::test]
async fn a_database_that_is_not_there_at_the_start_is_an_outage_at_once() {
    let port = crate::servers::free_port();
    for url in ["postgresql://turn:hunter2@127.0.0.1", "mysql://turn:hunter2@127.0.0.1", "redis://:hunter2@127.0.0.1"] {
        let kind = url.split(':').next().expect("a scheme");
        let settings = store_settings(&format!("type = \"{kind}\"\nurl = \"{url}:{port}/1\"\n"));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let stores = Stores::open(&settings).expect("a store");
        wait_until("an outage", async || stores.counts().outages == 1).await;
        assert_eq!(stores.user("r", "u").await.expect_err("no answer"), Unavailable::Resting);
        let registry = crate::registry(&format!("type = \"{kind}\"\nurl = \"{url}:{port}/1\"\n"));
        let error = registry.user("r", "u").await.expect_err("no answer").to_string();
        assert!(error.starts_with("cannot be reached: ") && !error.contains("hunter2"), "{error}");
    }
}
