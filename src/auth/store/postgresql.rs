//! PostgreSQL, with coturn's tables.

use sqlx::{ConnectOptions, Postgres, postgres::PgConnectOptions};
use url::Url;

use super::{
    StoreError,
    sql::{Connections, OptionalTables, Statements, as_it_is, failure, sql_store},
};

/// Users in a PostgreSQL database.
pub struct PostgresqlStore {
    connections: Connections<Postgres>,
    tables: OptionalTables,
}

impl PostgresqlStore {
    /// A database by its URL. Connections are made when they are needed.
    pub fn open(url: &Url, connections: u32) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_url(url).map_err(|error| failure(&error))?;
        Ok(Self { connections: Connections::new(options, connections, as_it_is), tables: OptionalTables::default() })
    }
}

const STATEMENTS: Statements = Statements {
    // `char(128)` becomes a text without the blanks that it is padded with.
    user: "SELECT realm::text, name::text, hmackey::text FROM turnusers_lt WHERE realm = $1 AND name = $2",
    secrets: "SELECT realm::text, value::text FROM turn_secret WHERE realm = $1",
    token_key: "SELECT kid::text, ikm_key::text, timestamp::bigint, lifetime::bigint, as_rs_alg::text, realm::text \
                FROM oauth_key WHERE kid = $1",
    realm_options: "SELECT realm::text, opt::text, value::text FROM turn_realm_option",
    origins: "SELECT count(*) FROM turn_origin_to_realm",
    allowed: "SELECT realm::text, ip_range::text FROM allowed_peer_ip WHERE realm = $1 OR realm = ''",
    denied: "SELECT realm::text, ip_range::text FROM denied_peer_ip WHERE realm = $1 OR realm = ''",
    users: "SELECT realm::text, name::text FROM turnusers_lt",
    put_user: "INSERT INTO turnusers_lt (realm, name, hmackey) VALUES ($1, $2, $3) \
               ON CONFLICT (realm, name) DO UPDATE SET hmackey = excluded.hmackey",
    remove_user: "DELETE FROM turnusers_lt WHERE realm = $1 AND name = $2",
    add_secret: "INSERT INTO turn_secret (realm, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    remove_secret: "DELETE FROM turn_secret WHERE realm = $1 AND value = $2",
};

/// Whether the database's encoding does not have a character that was asked for: no row can hold it.
fn is_foreign(error: &sqlx::Error) -> bool {
    const UNTRANSLATABLE_CHARACTER: &str = "22P05";
    error.as_database_error().and_then(|refusal| refusal.code()).is_some_and(|code| code == UNTRANSLATABLE_CHARACTER)
}

sql_store!(PostgresqlStore, Postgres, STATEMENTS, is_foreign);
