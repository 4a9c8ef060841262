//! SQLite: a file, made on first use, with coturn's tables (its `turndb`).

use std::{fs::OpenOptions, io, path::Path, time::Duration};

use sqlx::{Connection, Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    StoreError,
    sql::{Connections, OptionalTables, SCHEMA, Statements, sql_store},
};

/// Users in an SQLite file.
pub struct SqliteStore {
    connections: Connections<Sqlite>,
    tables: OptionalTables,
}

impl SqliteStore {
    /// Opens a file, or makes it, readable for its owner only. Whoever writes to it keeps questions waiting for at most
    /// `timeout`.
    pub fn open(path: &Path, connections: u32, timeout: Duration) -> Result<Self, StoreError> {
        create(path).map_err(|error| StoreError::Unreachable(format!("cannot make {}: {error}", path.display())))?;
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(timeout);
        let connections = Connections::new(options, connections, |connection| Box::pin(make_tables(connection)));
        Ok(Self { connections, tables: OptionalTables::default() })
    }
}

/// Makes an empty file if there is none.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes the tables of a file that has none at all.
async fn make_tables(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master").fetch_one(&mut *connection).await?;
    if tables > 0 {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for table in SCHEMA {
        sqlx::query(table).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

const STATEMENTS: Statements = Statements {
    user: "SELECT realm, name, CAST(hmackey AS TEXT) FROM turnusers_lt WHERE realm = ? AND name = ?",
    secrets: "SELECT realm, value FROM turn_secret WHERE realm = ?",
    token_key: "SELECT kid, CAST(ikm_key AS TEXT), CAST(timestamp AS INTEGER), CAST(lifetime AS INTEGER), \
                CAST(as_rs_alg AS TEXT), CAST(realm AS TEXT) FROM oauth_key WHERE kid = ?",
    realm_options: "SELECT realm, opt, CAST(value AS TEXT) FROM turn_realm_option",
    origins: "SELECT count(*) FROM turn_origin_to_realm",
    allowed: "SELECT realm, ip_range FROM allowed_peer_ip WHERE realm = ? OR realm = ''",
    denied: "SELECT realm, ip_range FROM denied_peer_ip WHERE realm = ? OR realm = ''",
    users: "SELECT realm, name FROM turnusers_lt",
    put_user: "INSERT INTO turnusers_lt (realm, name, hmackey) VALUES (?, ?, ?) \
               ON CONFLICT (realm, name) DO UPDATE SET hmackey = excluded.hmackey",
    remove_user: "DELETE FROM turnusers_lt WHERE realm = ? AND name = ?",
    add_secret: "INSERT INTO turn_secret (realm, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
    remove_secret: "DELETE FROM turn_secret WHERE realm = ? AND value = ?",
};

sql_store!(SqliteStore, Sqlite, STATEMENTS, |_: &sqlx::Error| false);
