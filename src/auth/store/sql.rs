//! What the SQL databases share: coturn's tables, and one implementation of the traits over each driver.
//!
//! The statements differ in placeholders and casts only ([`Statements`]). Casts make every column a text or a 64-bit number,
//! whatever type a database of coturn's has given it over the years. Rows come with the realm and name that they are for and
//! are compared here once more, exactly: MySQL takes `Alice` and `alice `for the same.

use std::{collections::BTreeSet, sync::Mutex};

use super::StoreError;

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
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            StoreError::Unreachable(error.to_string())
        }
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

/// Implements both traits for `$store { pool, tables: OptionalTables }` over one driver of sqlx. `$foreign` says of an error
/// that the database cannot even represent a text that was asked for, so that there is no such row.
macro_rules! sql_store {
    ($store:ty, $statements:expr, $foreign:expr) => {
        impl $crate::auth::store::Store for $store {
            fn user<'a>(
                &'a self,
                realm: &'a str,
                name: &'a str,
            ) -> $crate::auth::store::Answer<'a, Option<$crate::auth::store::Record>> {
                Box::pin(async move {
                    type Row = (String, String, Option<String>);
                    let query = sqlx::query_as::<_, Row>($statements.user).bind(realm).bind(name);
                    let rows = match query.fetch_all(&self.pool).await {
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
                    let query = sqlx::query_as::<_, (String, String)>($statements.secrets).bind(realm);
                    let rows = self.tables.rows("turn_secret", query.fetch_all(&self.pool).await)?;
                    let secrets = rows.into_iter().filter(|(of, secret)| of == realm && !secret.is_empty());
                    Ok(secrets
                        .map(|(_, value)| $crate::auth::store::NamedSecret { name: None, value: value.into() })
                        .collect())
                })
            }

            fn token_key<'a>(
                &'a self,
                kid: &'a str,
            ) -> $crate::auth::store::Answer<'a, Option<$crate::auth::store::TokenKey>> {
                Box::pin(async move {
                    type Row = (String, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<String>);
                    let query = sqlx::query_as::<_, Row>($statements.token_key).bind(kid);
                    let rows = match query.fetch_all(&self.pool).await {
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
                    let query = sqlx::query_as::<_, (i64,)>($statements.origins);
                    let origins = self.tables.rows("turn_origin_to_realm", query.fetch_all(&self.pool).await)?;
                    if origins.first().is_some_and(|(number,)| *number > 0) {
                        self.tables.warn_once("turn_origin_to_realm", $crate::auth::store::record::ORIGINS_ARE_IGNORED);
                    }
                    type Row = (String, String, Option<String>);
                    let query = sqlx::query_as::<_, Row>($statements.realm_options);
                    let rows = self.tables.rows("turn_realm_option", query.fetch_all(&self.pool).await)?;
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
                    let allowed = sqlx::query_as::<_, (String, String)>($statements.allowed).bind(realm);
                    let allowed = self.tables.rows("allowed_peer_ip", allowed.fetch_all(&self.pool).await)?;
                    let denied = sqlx::query_as::<_, (String, String)>($statements.denied).bind(realm);
                    let denied = self.tables.rows("denied_peer_ip", denied.fetch_all(&self.pool).await)?;
                    let ranges = |rows: &'_ [(String, String)]| {
                        let rows = rows.iter().filter(|(of, _)| of == realm || of.is_empty());
                        rows.map(|(_, range)| range.clone()).collect::<Vec<_>>()
                    };
                    let (allowed, denied) = (ranges(&allowed), ranges(&denied));
                    $crate::auth::store::PeerRules::read(
                        allowed.iter().map(String::as_str),
                        denied.iter().map(String::as_str),
                    )
                })
            }

            fn probe(&self) -> $crate::auth::store::Answer<'_, ()> {
                Box::pin(async move {
                    // What logins need; no user has an empty name.
                    let query = sqlx::query($statements.user).bind("").bind("");
                    query.fetch_all(&self.pool).await.map_err(|error| $crate::auth::store::sql::failure(&error))?;
                    Ok(())
                })
            }
        }

        impl $crate::auth::store::Registry for $store {
            fn prepare(&self) -> $crate::auth::store::Answer<'_, ()> {
                Box::pin(async move {
                    for table in $crate::auth::store::sql::SCHEMA {
                        self.write(sqlx::query(table).execute(&self.pool).await.map(|done| done.rows_affected()))?;
                    }
                    Ok(())
                })
            }

            fn users<'a>(
                &'a self,
                realm: Option<&'a str>,
            ) -> $crate::auth::store::Answer<'a, Vec<$crate::auth::store::UserName>> {
                Box::pin(async move {
                    let query = sqlx::query_as::<_, (String, String)>($statements.users);
                    let rows =
                        query.fetch_all(&self.pool).await.map_err(|error| $crate::auth::store::sql::failure(&error))?;
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
                    let query = sqlx::query($statements.put_user).bind(realm).bind(name).bind(digits.as_str());
                    self.write(query.execute(&self.pool).await.map(|done| done.rows_affected()))?;
                    Ok(())
                })
            }

            fn remove_user<'a>(&'a self, realm: &'a str, name: &'a str) -> $crate::auth::store::Answer<'a, bool> {
                Box::pin(async move {
                    let query = sqlx::query($statements.remove_user).bind(realm).bind(name);
                    self.write(query.execute(&self.pool).await.map(|done| done.rows_affected()))
                })
            }

            fn add_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> $crate::auth::store::Answer<'a, ()> {
                Box::pin(async move {
                    let query = sqlx::query($statements.add_secret).bind(realm).bind(secret);
                    self.write(query.execute(&self.pool).await.map(|done| done.rows_affected()))?;
                    Ok(())
                })
            }

            fn remove_secret<'a>(&'a self, realm: &'a str, secret: &'a str) -> $crate::auth::store::Answer<'a, bool> {
                Box::pin(async move {
                    let query = sqlx::query($statements.remove_secret).bind(realm).bind(secret);
                    self.write(query.execute(&self.pool).await.map(|done| done.rows_affected()))
                })
            }
        }

        impl $store {
            /// Whether rows were written.
            fn write(&self, rows: Result<u64, sqlx::Error>) -> Result<bool, $crate::auth::store::StoreError> {
                rows.map(|rows| rows > 0).map_err(|error| $crate::auth::store::sql::failure(&error))
            }
        }
    };
}

pub(super) use sql_store;
