//! MySQL and MariaDB, with coturn's tables.

use sqlx::{
    ConnectOptions, MySql,
    mysql::{MySqlConnectOptions, MySqlDatabaseError},
};
use url::Url;

use super::{
    StoreError,
    sql::{Connections, OptionalTables, Statements, as_it_is, failure, sql_store},
};

/// Users in a MySQL or MariaDB database.
pub struct MysqlStore {
    connections: Connections<MySql>,
    tables: OptionalTables,
}

impl MysqlStore {
    /// A database by its URL. Connections are made when they are needed.
    pub fn open(url: &Url, connections: u32) -> Result<Self, StoreError> {
        let options = MySqlConnectOptions::from_url(url).map_err(|error| failure(&error))?;
        Ok(Self { connections: Connections::new(options, connections, as_it_is), tables: OptionalTables::default() })
    }
}

const STATEMENTS: Statements = Statements {
    // Where the comparison may take one name for another, the rows are compared again by whoever reads them.
    user: "SELECT CAST(realm AS CHAR), CAST(name AS CHAR), CAST(hmackey AS CHAR) FROM turnusers_lt \
           WHERE realm = ? AND name = ?",
    secrets: "SELECT CAST(realm AS CHAR), CAST(value AS CHAR) FROM turn_secret WHERE realm = ?",
    token_key: "SELECT CAST(kid AS CHAR), CAST(ikm_key AS CHAR), CAST(timestamp AS SIGNED), CAST(lifetime AS SIGNED), \
                CAST(as_rs_alg AS CHAR), CAST(realm AS CHAR) FROM oauth_key WHERE kid = ?",
    realm_options: "SELECT CAST(realm AS CHAR), CAST(opt AS CHAR), CAST(value AS CHAR) FROM turn_realm_option",
    origins: "SELECT CAST(count(*) AS SIGNED) FROM turn_origin_to_realm",
    allowed: "SELECT CAST(realm AS CHAR), CAST(ip_range AS CHAR) FROM allowed_peer_ip WHERE realm = ? OR realm = ''",
    denied: "SELECT CAST(realm AS CHAR), CAST(ip_range AS CHAR) FROM denied_peer_ip WHERE realm = ? OR realm = ''",
    users: "SELECT CAST(realm AS CHAR), CAST(name AS CHAR) FROM turnusers_lt",
    // Not over the key of a user whose name the database takes for the same, `Alice` for `alice`.
    put_user: "INSERT INTO turnusers_lt (realm, name, hmackey) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE \
               hmackey = IF(BINARY name = BINARY VALUES(name), VALUES(hmackey), hmackey)",
    remove_user: "DELETE FROM turnusers_lt WHERE realm = ? AND name = ? COLLATE utf8mb4_bin",
    add_secret: "INSERT INTO turn_secret (realm, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = turn_secret.value",
    remove_secret: "DELETE FROM turn_secret WHERE realm = ? AND value = ? COLLATE utf8mb4_bin",
};

/// Whether the column's character set does not have a character that was asked for: no row can hold it.
fn is_foreign(error: &sqlx::Error) -> bool {
    /// `ER_CANT_AGGREGATE_2COLLATIONS`, `ER_CANT_AGGREGATE_NCOLLATIONS`, `ER_TRUNCATED_WRONG_VALUE_FOR_FIELD`,
    /// `ER_CANNOT_CONVERT_STRING`
    const NO_SUCH_CHARACTER: [u16; 4] = [1267, 1271, 1366, 3854];
    let refusal = error.as_database_error().and_then(|refusal| refusal.try_downcast_ref::<MySqlDatabaseError>());
    refusal.is_some_and(|refusal| NO_SUCH_CHARACTER.contains(&refusal.number()))
}

sql_store!(MysqlStore, MySql, STATEMENTS, is_foreign);
