//! Looking up users in a store: from the cache, and from an SQLite file behind the guard and without it.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::{runtime::Runtime, time::Instant};
use turnserver::{
    auth::{
        key::LongTermKey,
        store::{Registry, Stores, cache::Cache, sqlite::SqliteStore},
    },
    config::settings::StoreLimits,
};

const USERS: usize = 10_000;

fn name(number: usize) -> String {
    format!("user-{}", number % USERS)
}

fn limits(cache_entries: usize) -> StoreLimits {
    StoreLimits {
        timeout: Duration::from_secs(2),
        max_questions: 1_000,
        cache_entries,
        cache_time: Duration::from_secs(3_600),
        negative_cache_time: Duration::from_secs(10),
        max_failures: 3,
        max_pause: Duration::from_secs(30),
    }
}

fn cache(criterion: &mut Criterion) {
    let now = Instant::now();
    let key = |number| (Arc::<str>::from("example.org"), Arc::<str>::from(name(number)));
    let mut cache = Cache::new(USERS, Duration::from_secs(3_600));
    let keys: Vec<_> = (0..USERS).map(key).collect();
    for key in &keys {
        cache.insert(key.clone(), Arc::new([0_u8; 16]), now);
    }
    let mut group = criterion.benchmark_group("store/cache");
    let mut at = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            at = (at + 7_919) % USERS;
            black_box(cache.get(&keys[at], now))
        });
    });
    let mut number = USERS;
    group.bench_function("insert, one goes", |bencher| {
        bencher.iter(|| {
            number += 1;
            cache.insert((Arc::from("example.org"), Arc::from(number.to_string())), Arc::new([0_u8; 16]), now);
        });
    });
}

fn sqlite(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("turndb");
    let store = Arc::new(SqliteStore::open(&path, 4, Duration::from_secs(10)).expect("a store"));
    runtime.block_on(async {
        store.prepare().await.expect("tables");
        for number in 0..USERS {
            let key = LongTermKey::Md5([7; 16]);
            store.put_user("example.org", &name(number), &key).await.expect("a user");
        }
    });
    let mut group = criterion.benchmark_group("store/sqlite");
    let guarded = |entries| Stores::new("sqlite", store.clone(), limits(entries), runtime.handle().clone());
    for (what, stores) in [("kept", guarded(USERS)), ("not kept", guarded(0))] {
        let look_up = async |number: usize| stores.user("example.org", &name(number)).await.expect("an answer");
        runtime.block_on(async {
            for number in 0..USERS {
                assert!(look_up(number).await.is_some());
            }
        });
        let mut number = 0;
        group.bench_function(format!("a user, one after the other, {what}"), |bencher| {
            bencher.iter(|| {
                number += 7_919;
                runtime.block_on(look_up(number))
            });
        });
    }
    let stores = guarded(0);
    let mut number = 0;
    group.bench_function("a hundred users at once, not kept", |bencher| {
        bencher.iter(|| {
            number += 100;
            runtime.block_on(async {
                let asked: Vec<_> = (number..number + 100)
                    .map(|number| {
                        let stores = stores.clone();
                        tokio::spawn(async move { stores.user("example.org", &name(number)).await })
                    })
                    .collect();
                for asked in asked {
                    assert!(asked.await.expect("a task").expect("an answer").is_some());
                }
            });
        });
    });
}

criterion_group!(benches, cache, sqlite);
criterion_main!(benches);
