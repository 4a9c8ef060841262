//! How many users a second are looked up in each kind of database, by 64 at a time and one after the other; a measurement, not
//! a test: `cargo test --release --test store -- --ignored --nocapture --test-threads 1 rate`.

use std::time::{Duration, Instant};

use turnserver::auth::store::Stores;

use crate::{
    servers::{Mariadb, Postgresql, Redis, Server},
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
