//! What the SQL databases share: coturn's tables, and one implementation of the traits over each driver.
//!
//! The statements differ in placeholders and casts only ([`Statements`]). Casts make every column a text or a 64-bit number,
//! whatever type a database of coturn's has given it over the years. Rows come with the realm and name that they are for and
//! are compared here once more, exactly: MySQL takes `Alice` and `alice `for the same.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, Database};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::StoreError;

/// A connection that nobody has needed for so long is not trusted: firewalls forget connections without a word.
const IDLE: Duration = Duration::from_secs(60);

/// What is done with a new connection before it is used.
pub(super) type Prepare<C> =
    for<'c> fn(&'c mut C) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'c>>;

/// The connections to one database: at most so many at a time. One whose question was given up is closed; sqlx's own pool would
/// wait for its answer, and keep its place for as long as a dead network does not say so.
pub(super) struct Connections<DB: Database> {
    options: <DB::Connection as Connection>::Options,
    prepare: Prepare<DB::Connection>,
    permits: Semaphore,
    /// Those that wait for a question, the one used last at the end, with the time since when.
    idle: Mutex<Vec<(DB::Connection, Instant)>>,
}

/// A connection while a question is asked.
pub(super) struct Lent<'p, DB: Database> {
    pub(super) connection: DB::Connection,
    is_new: bool,
    _permit: SemaphorePermit<'p>,
}

impl<DB: Database> Connections<DB> {
    /// Connections that are made when they are needed.
    pub(super) fn new(
        options: <DB::Connection as Connection>::Options,
        connections: u32,
        prepare: Prepare<DB::Connection>,
    ) -> Self {
        let permits = Semaphore::new(connections as usize);
        Self { options: options.disable_statement_logging(), prepare, permits, idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(DB::Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection; waits until there is one.
    pub(super) async fn lend(&self) -> Result<Lent<'_, DB>, sqlx::Error> {
        // The semaphore is never closed.
        let permit = self.permits.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let waiting = {
            let now = Instant::now();
            let mut idle = self.idle();
            idle.retain(|(_, since)| now < *since + IDLE);
            idle.pop()
        };
        if let Some((connection, _)) = waiting {
            return Ok(Lent { connection, is_new: false, _permit: permit });
        }
        let mut connection = self.options.connect().await?;
        (self.prepare)(&mut connection).await?;
        Ok(Lent { connection, is_new: true, _permit: permit })
    }

    /// Takes a connection back with what came of the question. `None` if the connection turned out to be broken and was not
    /// new, so that the question is worth asking again.
    pub(super) fn take_back<T>(
        &self,
        lent: Lent<'_, DB>,
        outcome: Result<T, sqlx::Error>,
    ) -> Option<Result<T, sqlx::Error>> {
        let Lent { connection, is_new, _permit } = lent;
        let ends_it = |error: &sqlx::Error| match error {
            sqlx::Error::Database(refusal) => is_farewell(refusal.code().as_deref()),
            sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => false,
            _ => true,
        };
        if !outcome.as_ref().err().is_some_and(ends_it) {
            self.idle().push((connection, Instant::now()));
            return Some(outcome);
        }
        // What has ended one has most likely ended all.
        self.idle().clear();
        is_new.then_some(outcome)
    }
}

/// Whether a server that says this ends the connection: PostgreSQL's class 57P, when it is shut down.
fn is_farewell(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("57P"))
}

/// Nothing is done with a new connection.
pub(super) fn as_it_is<C>(_: &mut C) -> Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + '_>> {
    Box::pin(async { Ok(()) })
}

/// Every statement, in one database's dialect.
pub(super) struct Statements {
    /// Realm and name to realm, name, key.
    pub(super) user: &'static str,
    /// Realm to realm, secret.
    pub(super) secrets: &'static str,
    /// Key id to key id, key, timestamp, lifetime, algorithm, realm.
    pub(super) token_key: &'static str,
    /// Realm, option, value of all.
    pub(super) realm_options: &'static str,
    /// The number of origins.
    pub(super) origins: &'static str,
    /// Realm to realm, range; those of the empty realm, too.
    pub(super) allowed: &'static str,
    /// The same.
    pub(super) denied: &'static str,
    /// Realm and name of all users, in order.
    pub(super) users: &'static str,
    /// Realm, name, key.
    pub(super) put_user: &'static str,
    /// Realm, name.
    pub(super) remove_user: &'static str,
    /// Realm, secret.
    pub(super) add_secret: &'static str,
    /// Realm, secret.
    pub(super) remove_secret: &'static str,
}

/// coturn's tables.
pub(super) const SCHEMA: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS turnusers_lt (realm varchar(127) DEFAULT '', name varchar(512), hmackey char(128), \
     PRIMARY KEY (realm, name))",
    "CREATE TABLE IF NOT EXISTS turn_secret (realm varchar(127) DEFAULT '', value varchar(256), \
     PRIMARY KEY (realm, value))",
    "CREATE TABLE IF NOT EXISTS allowed_peer_ip (realm varchar(127) DEFAULT '', ip_range varchar(256), \
     PRIMARY KEY (realm, ip_range))",
    "CREATE TABLE IF NOT EXISTS denied_peer_ip (realm varchar(127) DEFAULT '', ip_range varchar(256), \
     PRIMARY KEY (realm, ip_range))",
    "CREATE TABLE IF NOT EXISTS turn_origin_to_realm (origin varchar(127), realm varchar(127), PRIMARY KEY (origin))",
    "CREATE TABLE IF NOT EXISTS turn_realm_option (realm varchar(127) DEFAULT '', opt varchar(32), value varchar(128), \
     PRIMARY KEY (realm, opt))",
    "CREATE TABLE IF NOT EXISTS oauth_key (kid varchar(128), ikm_key varchar(256), timestamp bigint DEFAULT 0, \
     lifetime integer DEFAULT 0, as_rs_alg varchar(64) DEFAULT '', realm varchar(127), PRIMARY KEY (kid))",
    "CREATE TABLE IF NOT EXISTS admin_user (name varchar(32), realm varchar(127), password varchar(127), \
     PRIMARY KEY (name))",
];

/// What a driver's error means.
pub(super) fn failure(error: &sqlx::Error) -> StoreError {
    match error {
        // The message alone: the details of a constraint repeat the row.
        sqlx::Error::Database(refusal) => StoreError::Refused(refusal.message().to_owned()),
        sqlx::Error::Io(cause) => StoreError::Unreachable(cause.to_string()),
        sqlx::Error::Tls(cause) => StoreError::Unreachable(format!("TLS: {cause}")),
        other => StoreError::Refused(other.to_string()),
    }
}

/// Whether the error says that a table is not there.
fn names_a_missing_table(error: &sqlx::Error) -> bool {
    let Some(refusal) = error.as_database_error() else { return false };
    // PostgreSQL's and MySQL's SQLSTATE; SQLite has none.
    matches!(refusal.code().as_deref(), Some("42P01" | "42S02")) || refusal.message().starts_with("no such table")
}

/// Tables that some versions of coturn do not make. One that is not there is empty, and said once to be missing.
#[derive(Debug, Default)]
pub(super) struct OptionalTables {
    missing: Mutex<BTreeSet<&'static str>>,
}

impl OptionalTables {
    /// The rows of a table that may be missing.
    pub(super) fn rows<T>(&self, table: &'static str, rows: Result<Vec<T>, sqlx::Error>) -> Result<Vec<T>, StoreError> {
        match rows {
            Err(error) if names_a_missing_table(&error) => {
                self.warn_once(table, "the store has no such table; it is taken for empty");
                Ok(Vec::new())
            }
            rows => rows.map_err(|error| failure(&error)),
        }
    }

    /// Warns about a table, the first time only.
    pub(super) fn warn_once(&self, table: &'static str, what: &'static str) {
        let first = self.missing.lock().is_ok_and(|mut said| said.insert(table));
        if first {
            tracing::warn!(table, "{what}");
        }
    }
}

/// Implements both traits for `$store { connections, tables: OptionalTables }` over one driver of sqlx. `$foreign` says of an
/// error that the database cannot even represent a text that was asked for, so that there is no such row.
macro_rules! sql_store {
    ($store:ty, $database:ty, $statements:expr, $foreign:expr) => {
        impl $crate::auth::store::Store for $store {
            fn user<'a>(
                &'a self,
                realm: &'a str,
                name: &'a str,
            ) -> $crate::auth::store::Answer<'a, Option<$crate::auth::store::Record>> {
                Box::pin(async move {
                    type Row = (String, String, Option<String>);
                    let rows: Vec<Row> = match self.rows($statements.user, &[realm, name]).await {
                        Ok(rows) => rows,
                        Err(error) if $foreign(&error) => return Ok(None),
                        Err(error) => return Err($crate::auth::store::sql::failure(&error)),
                    };
                    let is_asked = |(of, who, _): &Row| of == realm && who == name;
                    let Some((.., Some(key))) = rows.into_iter().find(is_asked) else { return Ok(None) };
                    $crate::auth::store::record::record(&zeroize::Zeroizing::new(key)).map(Some)
                })
            }

            fn secrets<'a>(
                &'a self,
                realm: &'a str,
            ) -> $crate::auth::store::Answer<'a, Vec<$crate::auth::store::NamedSecret>> {
                Box::pin(async move {
                    let rows = self.rows::<(String, String)>($statements.secrets, &[realm]).await;
                    let rows = self.tables.rows("turn_secret", rows)?;
                    let rows = rows.into_iter().filter(|(of, secret)| of == realm && !secret.is_empty());
                    let secret = |(_, value): (String, String)| $crate::auth::store::NamedSecret {
                        name: None,
                        value: zeroize::Zeroizing::new(value),
                    };
                    Ok(rows.map(secret).collect())
                })
            }

            fn token_key<'a>(
                &'a self,
                kid: &'a str,
            ) -> $crate::auth::store::Answer<'a, Option<$crate::auth::store::TokenKey>> {
                Box::pin(async move {
                    type Row = (String, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<String>);
                    let rows = match self.rows::<Row>($statements.token_key, &[kid]).await {
                        Err(error) if $foreign(&error) => Vec::new(),
                        rows => self.tables.rows("oauth_key", rows)?,
                    };
                    let row = rows.into_iter().find(|(of, ..)| of == kid);
                    row.map(|(_, ikm_key, timestamp, lifetime, as_rs_alg, realm)| {
                        let row =
                            $crate::auth::store::record::TokenRow { ikm_key, timestamp, lifetime, as_rs_alg, realm };
                        $crate::auth::store::record::token_key(kid, row)
                    })
                    .transpose()
                })
            }

            fn realms(&self) -> $crate::auth::store::Answer<'_, Vec<$crate::auth::store::RealmOptions>> {
                Box::pin(async move {
                    let origins = self.rows::<(i64,)>($statements.origins, &[]).await;
                    let origins = self.tables.rows("turn_origin_to_realm", origins)?;
                    if origins.first().is_some_and(|(number,)| *number > 0) {
                        let ignored = $crate::auth::store::record::ORIGINS_ARE_IGNORED;
                        self.tables.warn_once("turn_origin_to_realm", ignored);
                    }
                    let rows = self.rows::<(String, String, Option<String>)>($statements.realm_options, &[]).await;
                    let rows = self.tables.rows("turn_realm_option", rows)?;
                    let mut realms = $crate::auth::store::record::RealmRows::default();
                    for (realm, option, value) in &rows {
                        realms.add(realm, option, value.as_deref().unwrap_or("0"))?;
                    }
                    Ok(realms.finish())
                })
            }

            fn peer_rules<'a>(
                &'a self,
                realm: &'a str,
            ) -> $crate::auth::store::Answer<'a, $crate::auth::store::PeerRules> {
                Box::pin(async move {
                    let allowed = self.rows::<(String, String)>($statements.allowed, &[realm]).await;
                    let allowed = self.tables.rows("allowed_peer_ip", allowed)?;
                    let denied = self.rows::<(String, String)>($statements.denied, &[realm]).await;
                    let denied = self.tables.rows("denied_peer_ip", denied)?;
                    let is_ours = |(of, _): &&(String, String)| of == realm || of.is_empty();
                    $crate::auth::store::PeerRules::read(
                        allowed.iter().filter(is_ours).map(|(_, range)| range.as_str()),
                        denied.iter().filter(is_ours).map(|(_, range)| range.as_str()),
                    )
                })
            }

            fn probe(&self) -> $crate::auth::store::Answer<'_, ()> {
                Box::pin(async move {
                    // What logins need; no user has an empty name.
                    let rows = self.rows::<(String, String, Option<String>)>($statements.user, &["", ""]).await;
                    rows.map(drop).map_err(|error| $crate::auth::store::sql::failure(&error))
                })
            }
        }

        impl $crate::auth::store::Registry for $store {
            fn prepare(&self) -> $crate::auth::store::Answer<'_, ()> {
                Box::pin(async move {
                    for table in $crate::auth::store::sql::SCHEMA {
                        self.write(table, &[]).await?;
                    }
                    Ok(())
                })
            }

            fn users<'a>(
                &'a self,
                realm: Option<&'a str>,
            ) -> $crate::auth::store::Answer<'a, Vec<$crate::auth::store::UserName>> {
                Box::pin(async move {
                    let rows = self.rows::<(String, String)>($statements.users, &[]).await;
                    let rows = rows.map_err(|error| $crate::auth::store::sql::failure(&error))?;
                    let names = rows.into_iter().map(|(realm, name)| $crate::auth::store::UserName { realm, name });
                    let mut names: Vec<_> =
                        names.filter(|user| realm.is_none_or(|realm| user.realm == realm)).collect();
                    names.sort_unstable();
                    Ok(names)
                })
            }

            fn put_user<'a>(
                &'a self,
                realm: &'a str,
                name: &'a str,
                md5: &'a $crate::auth::key::LongTermKey,
            ) -> $crate::auth::store::Answer<'a, ()> {
                Box::pin(async move {
                    let digits = $crate::auth::store::record::digits(md5);
                    self.write($statements.put_user, &[realm, name, &digits]).await.map(drop)
                })
            }

            fn remove_user<'a>(&'a self, realm: &'a str, name: &'a str) -> $crate::auth::store::Answer<'a, bool> {
                Box::pin(async move { self.write($statements.remove_user, &[realm, name]).await })
            }

            fn add_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> $crate::auth::store::Answer<'a, ()> {
                Box::pin(async move { self.write($statements.add_secret, &[realm, secret]).await.map(drop) })
            }

            fn remove_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> $crate::auth::store::Answer<'a, bool> {
                Box::pin(async move { self.write($statements.remove_secret, &[realm, secret]).await })
            }
        }

        impl $store {
            /// The rows that a statement finds for these texts.
            async fn rows<R>(&self, statement: &'static str, texts: &[&str]) -> Result<Vec<R>, sqlx::Error>
            where
                R: Send + Unpin + for<'r> sqlx::FromRow<'r, <$database as sqlx::Database>::Row>,
            {
                loop {
                    let mut lent = self.connections.lend().await?;
                    let query = sqlx::query_as::<$database, R>(statement);
                    let query = texts.iter().fold(query, |query, text| query.bind((*text).to_owned()));
                    let outcome = query.fetch_all(&mut lent.connection).await;
                    if let Some(outcome) = self.connections.take_back(lent, outcome) {
                        return outcome;
                    }
                }
            }

            /// Runs a statement with these texts; whether it wrote rows. All of them may be run twice.
            async fn write(
                &self,
                statement: &'static str,
                texts: &[&str],
            ) -> Result<bool, $crate::auth::store::StoreError> {
                loop {
                    let lent = self.connections.lend().await;
                    let mut lent = lent.map_err(|error| $crate::auth::store::sql::failure(&error))?;
                    let query = sqlx::query::<$database>(statement);
                    let query = texts.iter().fold(query, |query, text| query.bind((*text).to_owned()));
                    let outcome = query.execute(&mut lent.connection).await;
                    if let Some(outcome) = self.connections.take_back(lent, outcome) {
                        let done = outcome.map_err(|error| $crate::auth::store::sql::failure(&error))?;
                        return Ok(done.rows_affected() > 0);
                    }
                }
            }
        }
    };
}

pub(super) use sql_store;
