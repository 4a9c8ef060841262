//! Sessions whose users, secrets and keys a store no longer has: they end when that is found, which is looked for every now and
//! then, and whenever somebody says that the store has changed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    auth::{
        credential::Proof,
        store::{NamedSecret, StoreCounts, Unavailable, logins::Logins},
    },
    relay::{Filter, Monitor},
    turn::{Basis, Mechanism, Revocation, SessionView},
};

/// Questions to the store at a time.
const AT_A_TIME: usize = 16;

/// Why it is not known which sessions may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// A worker does not answer.
    Worker,
    /// The store does not.
    Store,
}

/// The sessions that a store has let in.
#[derive(Debug, Clone)]
pub struct Standing {
    monitor: Monitor,
    logins: Arc<Logins>,
}

impl Standing {
    /// Those of this server.
    #[must_use]
    pub const fn new(monitor: Monitor, logins: Arc<Logins>) -> Self {
        Self { monitor, logins }
    }

    /// Asks the store about everything that has let in sessions, and ends those for which it is no longer there; returns how
    /// many they were.
    ///
    /// # Errors
    /// What could not be asked about goes on.
    pub async fn look(&self) -> Result<usize, Unknown> {
        self.review(|session| session.mechanism == Mechanism::Store).await
    }

    /// The same after a change that may concern anything: the cache has nothing of before.
    ///
    /// # Errors
    /// As above.
    pub async fn look_after_change(&self) -> Result<usize, Unknown> {
        self.logins.forget();
        self.look().await
    }

    /// The same for one user of a realm, whom the store is asked about in any case: its cache has what it says from then on.
    ///
    /// # Errors
    /// As above.
    pub async fn look_at_user(&self, realm: String, user: String) -> Result<usize, Unknown> {
        self.ask(&realm, &Proof::Password(user.as_str().into(), 0)).await?;
        let is_of = move |session: &SessionView| {
            let subject = &session.subject;
            session.mechanism == Mechanism::Store && *subject.user == *user && *subject.realm == *realm
        };
        self.review(is_of).await
    }

    /// The same for the secrets of a realm.
    ///
    /// # Errors
    /// As above.
    pub async fn look_at_secrets(&self, realm: String) -> Result<usize, Unknown> {
        // Keys of tokens are among them, and asked about by ids that nobody here knows.
        self.logins.forget();
        let is_of = move |session: &SessionView| {
            session.mechanism == Mechanism::Store && session.secret.is_some() && *session.subject.realm == *realm
        };
        self.review(is_of).await
    }

    /// Looks every `period`, for ever.
    pub async fn watch(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            // What fails is logged where the store is asked, and looked at again next time.
            if let Ok(ended @ 1..) = self.look().await {
                tracing::info!(sessions = ended, "ended: the store no longer has what let them in");
            }
        }
    }

    /// How the store fares.
    pub(super) fn counts(&self) -> (&'static str, StoreCounts) {
        self.logins.counts()
    }

    /// The secrets that the store has for a realm, whose name is in the form that stores have it.
    pub(super) async fn secrets(&self, realm: &str) -> Result<Arc<[NamedSecret]>, Unavailable> {
        self.logins.secrets(realm).await
    }

    async fn ask(&self, realm: &str, proof: &Proof) -> Result<bool, Unknown> {
        self.logins.has(realm, proof).await.map_err(|_| Unknown::Store)
    }

    async fn review(
        &self,
        is_concerned: impl Fn(&SessionView) -> bool + Send + Sync + 'static,
    ) -> Result<usize, Unknown> {
        let (mut bases, mut outcome) = (HashSet::new(), Ok(()));
        let filter: Filter = Arc::new(is_concerned);
        for worker in 0..self.monitor.workers() {
            let mut first = Some(0);
            while let Some(from) = first {
                let Some(stretch) = self.monitor.look(worker, from, Arc::clone(&filter)).await else {
                    outcome = Err(Unknown::Worker);
                    break;
                };
                bases.extend(stretch.sessions.iter().filter_map(|(_, session)| Basis::of(session)));
                first = stretch.next;
            }
        }
        let mut ended = 0;
        let mut bases = bases.into_iter();
        let mut asked = tokio::task::JoinSet::new();
        loop {
            while asked.len() < AT_A_TIME
                && let Some(basis) = bases.next()
            {
                let logins = Arc::clone(&self.logins);
                asked.spawn(async move { (logins.has(&basis.realm, &basis.proof).await, basis) });
            }
            match asked.join_next().await {
                None => break,
                Some(Ok((Ok(true), _))) => {}
                Some(Ok((Ok(false), basis))) => match self.monitor.revoke(Revocation::Basis(basis)).await {
                    Some(count) => ended += count,
                    None => outcome = Err(Unknown::Worker),
                },
                Some(Ok((Err(_), _)) | Err(_)) => outcome = Err(Unknown::Store),
            }
        }
        outcome.map(|()| ended)
    }
}
