//! The guard around a store that does what a test says, with time that passes when a test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::auth::{key::LongTermKey, store::Answer};

/// What the store of a test does with questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Answers at once: it has everybody but "nobody".
    Answers,
    /// Answers when it is told to.
    Waits,
    /// Answers never.
    Hangs,
    /// Fails at once.
    Fails,
    /// Answers with nonsense.
    Babbles,
    /// Panics.
    Panics,
}

struct Double {
    manner: Mutex<Manner>,
    questions: AtomicUsize,
    probes: AtomicUsize,
    go: Notify,
}

impl Double {
    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Answers => {}
            Manner::Waits => self.go.notified().await,
            Manner::Hangs => std::future::pending().await,
            Manner::Fails => return Err(StoreError::Unreachable("nobody at home".to_owned())),
            Manner::Babbles => return Err(StoreError::Malformed("bla".to_owned())),
            Manner::Panics => panic!("a bug of the store, as this test wants it"),
        }
        Ok(answer)
    }

    async fn question<T>(&self, answer: T) -> Result<T, StoreError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.answer(answer).await
    }

    fn does(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

impl Store for Double {
    fn user<'a>(&'a self, _: &'a str, name: &'a str) -> Answer<'a, Option<Record>> {
        let record = Record { md5: Some(LongTermKey::Md5([7; 16])), ..Record::default() };
        Box::pin(self.question((name != "nobody").then_some(record)))
    }

    fn secrets<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<NamedSecret>> {
        Box::pin(self.question(Vec::new()))
    }

    fn token_key<'a>(&'a self, _: &'a str) -> Answer<'a, Option<TokenKey>> {
        Box::pin(self.question(None))
    }

    fn realms(&self) -> Answer<'_, Vec<RealmOptions>> {
        Box::pin(self.question(Vec::new()))
    }

    fn peer_rules<'a>(&'a self, _: &'a str) -> Answer<'a, PeerRules> {
        Box::pin(self.question(PeerRules::default()))
    }

    fn probe(&self) -> Answer<'_, ()> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.answer(()))
    }
}

const LIMITS: StoreLimits = StoreLimits {
    timeout: Duration::from_secs(2),
    max_questions: 10,
    cache_entries: 4,
    cache_time: Duration::from_secs(60),
    negative_cache_time: Duration::from_secs(10),
    max_failures: 3,
    max_pause: Duration::from_secs(4),
};

fn guarded(manner: Manner) -> (Arc<Double>, Stores) {
    let double = Double {
        manner: Mutex::new(manner),
        questions: AtomicUsize::new(0),
        probes: AtomicUsize::new(0),
        go: Notify::new(),
    };
    let double = Arc::new(double);
    (double.clone(), Stores::new("test", double, LIMITS, Handle::current()))
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// Questions for different users until the breaker opens.
async fn break_it(stores: &Stores) {
    for name in ["x", "y", "z"] {
        assert_eq!(stores.user("r", name).await.unwrap_err(), Unavailable::Failed);
    }
    assert!(stores.counts().resting);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_time_found_or_not() {
    let (double, stores) = guarded(Manner::Answers);
    for _ in 0..3 {
        assert!(stores.user("r", "alice").await.unwrap().is_some());
        assert!(stores.user("r", "nobody").await.unwrap().is_none());
        assert!(stores.user("other", "alice").await.unwrap().is_some());
    }
    assert_eq!((double.questions(), stores.counts().cached), (3, 6));
    assert_eq!((stores.counts().kept, stores.counts().kept_absent), (2, 1));
    pass(10.0).await;
    stores.user("r", "alice").await.unwrap();
    stores.user("r", "nobody").await.unwrap();
    assert_eq!(double.questions(), 4);
    pass(50.0).await;
    stores.user("r", "alice").await.unwrap();
    assert_eq!(double.questions(), 5);
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_question_is_asked_once_and_kept() {
    let (double, stores) = guarded(Manner::Answers);
    for _ in 0..2 {
        assert!(stores.secrets("r").await.unwrap().is_empty());
        assert!(stores.token_key("kid").await.unwrap().is_none());
        assert!(stores.realms().await.unwrap().is_empty());
        assert_eq!(*stores.peer_rules("r").await.unwrap(), PeerRules::default());
    }
    assert_eq!((double.questions(), stores.counts().cached), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn guessed_names_push_nobody_out() {
    let (double, stores) = guarded(Manner::Answers);
    stores.user("r", "alice").await.unwrap();
    for realm in 0..50 {
        stores.user(&realm.to_string(), "nobody").await.unwrap();
    }
    let asked = double.questions();
    stores.user("r", "alice").await.unwrap();
    assert_eq!(double.questions(), asked);
    assert_eq!((stores.counts().kept, stores.counts().kept_absent), (1, LIMITS.cache_entries));
}

#[tokio::test(start_paused = true)]
async fn names_that_no_store_can_have_are_not_asked_for() {
    let (double, stores) = guarded(Manner::Fails);
    for name in ["", "a\0", "a\nb", "\u{85}", &"x".repeat(509)] {
        assert!(stores.user("r", name).await.unwrap().is_none());
        assert!(stores.token_key(name).await.unwrap().is_none());
    }
    assert_eq!(double.questions(), 0);
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_the_same_are_joined_and_those_that_wait_are_bounded() {
    let (double, stores) = guarded(Manner::Waits);
    let ask = |name: &'static str| {
        let stores = stores.clone();
        tokio::spawn(async move { stores.user("r", name).await.map(|found| found.is_some()) })
    };
    let mut asked: Vec<_> = (0..9).map(|_| ask("alice")).collect();
    asked.push(ask("nobody"));
    pass(0.1).await;
    assert_eq!(double.questions(), 2);
    assert_eq!(stores.user("r", "eleventh").await.unwrap_err(), Unavailable::Busy);
    assert_eq!(stores.user("r", "alice").await.unwrap_err(), Unavailable::Busy);
    assert_eq!(stores.counts().waiting, 10);
    // One goes away; the others are answered all the same.
    asked.remove(0).abort();
    double.go.notify_waiters();
    let nobody = asked.pop().unwrap().await.unwrap();
    assert_eq!(nobody, Ok(false));
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Ok(true));
    }
    let counts = stores.counts();
    assert_eq!((counts.joined, counts.asked, counts.answered, counts.waiting), (8, 2, 2, 0));
    assert_eq!(counts.refused_busy, 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_the_time_limit_and_soon_nothing() {
    let (double, stores) = guarded(Manner::Hangs);
    let start = Instant::now();
    for name in ["a", "b", "c"] {
        assert_eq!(stores.user("r", name).await.unwrap_err(), Unavailable::TimedOut);
    }
    assert_eq!(start.elapsed(), 3 * LIMITS.timeout);
    assert_eq!(stores.user("r", "d").await.unwrap_err(), Unavailable::Resting);
    assert_eq!(start.elapsed(), 3 * LIMITS.timeout);
    let counts = stores.counts();
    assert_eq!((counts.timed_out, counts.outages, counts.refused_resting, counts.resting), (3, 1, 1, true));
    assert_eq!(double.questions(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_left_alone_and_found_again_without_anybody_asking() {
    let (double, stores) = guarded(Manner::Fails);
    break_it(&stores).await;
    // 0.5 + 1 + 2 + 4 + 4 seconds.
    pass(11.6).await;
    assert_eq!(double.probes.load(Ordering::Relaxed), 5);
    assert_eq!(stores.user("r", "alice").await.unwrap_err(), Unavailable::Resting);
    assert_eq!(double.questions(), 3);
    double.does(Manner::Answers);
    pass(4.0).await;
    assert!(!stores.counts().resting);
    assert!(stores.user("r", "alice").await.unwrap().is_some());
    assert_eq!((stores.counts().outages, double.probes.load(Ordering::Relaxed)), (1, 6));
    // Nobody probes a store that answers.
    pass(60.0).await;
    assert_eq!(double.probes.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_answered_while_the_store_fails() {
    let (double, stores) = guarded(Manner::Answers);
    stores.user("r", "alice").await.unwrap();
    double.does(Manner::Fails);
    break_it(&stores).await;
    assert!(stores.user("r", "alice").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_relapse_after_a_probe_is_a_new_outage_with_a_longer_pause() {
    let (double, stores) = guarded(Manner::Fails);
    break_it(&stores).await;
    double.does(Manner::Answers);
    pass(0.6).await;
    assert!(!stores.counts().resting);
    double.does(Manner::Fails);
    assert_eq!(stores.user("r", "x").await.unwrap_err(), Unavailable::Failed);
    assert_eq!((stores.counts().resting, stores.counts().outages), (true, 2));
    double.does(Manner::Answers);
    pass(0.9).await;
    assert!(stores.counts().resting);
    pass(0.2).await;
    assert!(!stores.counts().resting);
}

#[tokio::test(start_paused = true)]
async fn nonsense_concerns_its_own_question_only() {
    let (double, stores) = guarded(Manner::Babbles);
    for _ in 0..10 {
        assert_eq!(stores.user("r", "alice").await.unwrap_err(), Unavailable::Malformed);
    }
    assert_eq!((stores.counts().malformed, stores.counts().outages, double.questions()), (10, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_leaves_nobody_waiting() {
    let (_, stores) = guarded(Manner::Panics);
    assert_eq!(stores.user("r", "alice").await.unwrap_err(), Unavailable::Failed);
    assert_eq!((stores.counts().failed, stores.counts().waiting), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_not_there_at_the_start_is_an_outage_from_the_start() {
    let (double, stores) = guarded(Manner::Fails);
    assert_eq!(stores.probe().await, Err(Unavailable::Failed));
    assert_eq!((stores.counts().resting, stores.counts().outages), (true, 1));
    double.does(Manner::Answers);
    pass(0.6).await;
    assert!(!stores.counts().resting);
    assert_eq!(stores.probe().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_after_answers_is_one_failure() {
    let (double, stores) = guarded(Manner::Answers);
    stores.user("r", "alice").await.unwrap();
    double.does(Manner::Fails);
    for is_resting in [false, false, true] {
        assert_eq!(stores.probe().await, Err(Unavailable::Failed));
        assert_eq!(stores.counts().resting, is_resting);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_guard_that_is_dropped_goes_on() {
    let (double, stores) = guarded(Manner::Fails);
    break_it(&stores).await;
    drop(stores);
    pass(60.0).await;
    assert_eq!((double.probes.load(Ordering::Relaxed), Arc::strong_count(&double)), (0, 1));
}
