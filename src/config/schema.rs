//! The names: every table and key there is, and what a misspelt one probably meant.

/// One table of the file and its keys.
#[derive(Debug)]
pub(super) struct Table {
    /// Name as in the header.
    pub(super) name: &'static str,
    /// Written `[[name]]`.
    pub(super) repeated: bool,
    /// Its keys.
    pub(super) keys: &'static [&'static str],
}

/// The top of the file: tables only.
pub(super) const ROOT: Table = Table {
    name: "",
    repeated: false,
    keys: &[
        "listener",
        "relay",
        "auth",
        "realm",
        "store",
        "lifetimes",
        "limits",
        "peers",
        "redirect",
        "nat-discovery",
        "tcp",
        "tls",
        "compatibility",
        "process",
        "offload",
        "management",
        "log",
    ],
};

/// The keys of a user.
const USER: &[&str] = &[
    "name",
    "password",
    "password-file",
    "password-env",
    "key",
    "key-file",
    "key-env",
    "key-sha256",
    "key-sha256-file",
    "key-sha256-env",
];

/// The keys of a secret of time-limited credentials.
const SECRET: &[&str] = &["name", "secret", "secret-file", "secret-env", "algorithm", "tenant"];

/// The keys of a key of access tokens.
const TOKEN_KEY: &[&str] = &["kid", "key", "key-file", "key-env", "algorithm"];

/// Every table in the order of the example file.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "listener",
        repeated: true,
        keys: &["listening-ip", "listening-port", "transports", "proxy-protocol", "realm"],
    },
    Table {
        name: "relay",
        repeated: false,
        keys: &[
            "relay-ip",
            "external-ip",
            "stun-servers",
            "metadata-url",
            "external-ip-interval",
            "min-port",
            "max-port",
            "socket-buffer",
            "allocation-default-address-family",
            "udp-relaying",
            "tcp-relaying",
            "mobility",
        ],
    },
    Table {
        name: "auth",
        repeated: false,
        keys: &[
            "realm",
            "anonymous",
            "stale-nonce",
            "expiry-grace",
            "uris",
            "static-auth-secret",
            "static-auth-secret-file",
            "static-auth-secret-env",
            "rest-api-username",
            "rest-api-separator",
            "server-name",
            "user",
            "secret",
            "token-key",
        ],
    },
    Table { name: "auth.user", repeated: true, keys: USER },
    Table { name: "auth.secret", repeated: true, keys: SECRET },
    Table { name: "auth.token-key", repeated: true, keys: TOKEN_KEY },
    Table {
        name: "realm",
        repeated: true,
        keys: &[
            "name",
            "static-auth-secret",
            "static-auth-secret-file",
            "static-auth-secret-env",
            "rest-api-username",
            "rest-api-separator",
            "server-name",
            "user",
            "secret",
            "token-key",
            "peers",
            "limits",
        ],
    },
    Table { name: "realm.user", repeated: true, keys: USER },
    Table { name: "realm.secret", repeated: true, keys: SECRET },
    Table { name: "realm.token-key", repeated: true, keys: TOKEN_KEY },
    Table { name: "realm.peers", repeated: false, keys: &["allowed-peer-ip", "denied-peer-ip"] },
    Table {
        name: "realm.limits",
        repeated: false,
        keys: &[
            "user-quota",
            "tenant-quota",
            "realm-quota",
            "user-unused-quota",
            "tenant-unused-quota",
            "realm-unused-quota",
            "max-bps",
            "user-max-bps",
            "tenant-max-bps",
            "realm-max-bps",
            "max-pps",
            "user-max-pps",
            "tenant-max-pps",
            "realm-max-pps",
            "new-peer-rate",
            "user-new-peer-rate",
            "tenant-new-peer-rate",
            "realm-new-peer-rate",
            "user-bytes-per-month",
            "tenant-bytes-per-month",
            "realm-bytes-per-month",
        ],
    },
    Table {
        name: "store",
        repeated: false,
        keys: &[
            "type",
            "path",
            "url",
            "url-file",
            "url-env",
            "secret",
            "secret-file",
            "secret-env",
            "ca",
            "timeout",
            "connections",
            "max-questions",
            "cache-entries",
            "cache-time",
            "negative-cache-time",
            "max-failures",
            "max-pause",
        ],
    },
    Table {
        name: "lifetimes",
        repeated: false,
        keys: &[
            "default-allocate-lifetime",
            "max-allocate-lifetime",
            "permission-lifetime",
            "channel-lifetime",
            "reservation-lifetime",
            "connect-timeout",
            "connection-bind-timeout",
        ],
    },
    Table {
        name: "limits",
        repeated: false,
        keys: &[
            "user-quota",
            "tenant-quota",
            "realm-quota",
            "total-quota",
            "user-unused-quota",
            "tenant-unused-quota",
            "realm-unused-quota",
            "total-unused-quota",
            "allocation-rate",
            "max-bps",
            "user-max-bps",
            "tenant-max-bps",
            "realm-max-bps",
            "bps-capacity",
            "max-pps",
            "user-max-pps",
            "tenant-max-pps",
            "realm-max-pps",
            "pps-capacity",
            "burst",
            "new-peer-rate",
            "user-new-peer-rate",
            "tenant-new-peer-rate",
            "realm-new-peer-rate",
            "total-new-peer-rate",
            "user-bytes-per-month",
            "tenant-bytes-per-month",
            "realm-bytes-per-month",
            "total-bytes-per-month",
            "state-directory",
            "permissions-per-allocation",
            "channels-per-allocation",
            "connections-per-allocation",
            "unauthorized-rate",
            "binding-rate",
            "source-prefix-ipv4",
            "source-prefix-ipv6",
        ],
    },
    Table { name: "peers", repeated: false, keys: &["allowed-peer-ip", "denied-peer-ip"] },
    Table {
        name: "redirect",
        repeated: false,
        keys: &["alternate-server", "tls-alternate-server", "alternate-domain", "share", "server"],
    },
    Table { name: "redirect.server", repeated: true, keys: &["address", "transports", "weight", "domain"] },
    Table {
        name: "nat-discovery",
        repeated: false,
        keys: &["primary-ip", "alternate-ip", "primary-port", "alternate-port", "external-ip"],
    },
    Table {
        name: "tcp",
        repeated: false,
        keys: &[
            "idle-timeout",
            "message-timeout",
            "max-connections",
            "max-connections-per-ip",
            "queue-bytes",
            "queue-age",
        ],
    },
    Table {
        name: "tls",
        repeated: false,
        keys: &[
            "cert",
            "pkey",
            "min-version",
            "client-ca",
            "client-certificate",
            "handshake-timeout",
            "max-handshakes",
            "certificate",
        ],
    },
    Table { name: "tls.certificate", repeated: true, keys: &["cert", "pkey"] },
    Table { name: "compatibility", repeated: false, keys: &["rfc3489", "rfc5766-channel-numbers"] },
    Table {
        name: "process",
        repeated: false,
        keys: &[
            "workers",
            "pin-workers",
            "udp-io",
            "listener-buffer",
            "gather",
            "software-attribute",
            "fingerprint",
            "drain-timeout",
            "drain-error",
        ],
    },
    Table {
        name: "management",
        repeated: false,
        keys: &[
            "listen",
            "socket",
            "token",
            "token-file",
            "token-env",
            "public-metrics",
            "coturn-metrics",
            "web-page",
            "host-names",
        ],
    },
    Table { name: "offload", repeated: false, keys: &["mode", "interfaces", "channels"] },
    Table { name: "log", repeated: false, keys: &["level", "format"] },
];

/// The table of that name.
pub(super) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// How a table's header is written.
pub(super) fn header(table: &Table) -> String {
    match table {
        Table { name: "", .. } => "the top of the file".to_owned(),
        Table { name, repeated: true, .. } => format!("[[{name}]]"),
        Table { name, repeated: false, .. } => format!("[{name}]"),
    }
}

/// What to do about `key`, which is not a key of `table`.
pub(super) fn remedy(table: &Table, key: &str) -> String {
    let written = key.to_lowercase().replace('_', "-");
    if let Some(near) = closest(&written, table.keys) {
        return format!("did you mean `{near}`?");
    }
    // Of the tables that have a key, one that is not about a single realm.
    let home = |key: &str| {
        let has = TABLES.iter().filter(|other| other.name != table.name && other.keys.contains(&key));
        has.min_by_key(|other| other.name.starts_with("realm."))
    };
    if let Some(home) = home(&written) {
        return format!("`{written}` lives in {}", header(home));
    }
    let elsewhere: Vec<&str> = TABLES.iter().flat_map(|table| table.keys).copied().collect();
    if let Some((near, home)) = closest(&written, &elsewhere).and_then(|near| Some((near, home(near)?))) {
        return format!("did you mean `{near}` in {}?", header(home));
    }
    let kind = if table.name.is_empty() { "tables" } else { "keys" };
    format!("the {kind} of {} are {}", header(table), table.keys.join(", "))
}

/// The candidate that `written` is probably a slip of.
pub(super) fn closest(written: &str, candidates: &[&'static str]) -> Option<&'static str> {
    let slips = |candidate: &str| strsim::damerau_levenshtein(written, candidate);
    let best = candidates.iter().copied().min_by_key(|candidate| slips(candidate))?;
    (slips(best) <= (best.len() / 3).clamp(1, 3)).then_some(best)
}

/// Whether a value under this key could be a secret, however the key is spelt.
pub(super) fn is_secret(table: &Table, key: &str) -> bool {
    const SECRET_TABLES: [&str; 8] = [
        "auth",
        "auth.user",
        "auth.secret",
        "auth.token-key",
        "realm",
        "realm.user",
        "realm.secret",
        "realm.token-key",
    ];
    const SECRET_WORDS: [&str; 7] = ["pass", "pwd", "secret", "key", "token", "cred", "psk"];
    const SECRET_NAMES: [&str; 3] = ["user", "users", "auth"];
    // A URL holds a password.
    const STORE_SECRETS: [&str; 2] = ["url", "secret"];
    let known = table.keys.contains(&key);
    if table.name == "management" && key == "token" {
        return true;
    }
    if table.name == "store" {
        return !known || STORE_SECRETS.contains(&key);
    }
    if SECRET_TABLES.contains(&table.name) {
        const PLAIN: [&str; 12] = [
            "realm",
            "anonymous",
            "stale-nonce",
            "expiry-grace",
            "uris",
            "rest-api-username",
            "rest-api-separator",
            "server-name",
            "name",
            "algorithm",
            "tenant",
            "kid",
        ];
        return !(known && (PLAIN.contains(&key) || key.ends_with("-file") || key.ends_with("-env")));
    }
    let key = key.to_lowercase();
    !known && (SECRET_NAMES.contains(&key.as_str()) || SECRET_WORDS.iter().any(|word| key.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised() {
        let limits = table("limits").unwrap();
        assert_eq!(remedy(limits, "user-qouta"), "did you mean `user-quota`?");
        assert_eq!(remedy(limits, "User_Quota"), "did you mean `user-quota`?");
        assert_eq!(remedy(&ROOT, "limit"), "did you mean `limits`?");
    }

    #[test]
    fn a_key_of_another_table_is_sent_home() {
        assert_eq!(remedy(table("auth").unwrap(), "user-quota"), "`user-quota` lives in [limits]");
        assert_eq!(remedy(&ROOT, "listening-port"), "`listening-port` lives in [[listener]]");
        assert_eq!(remedy(table("relay").unwrap(), "user-qota"), "did you mean `user-quota` in [limits]?");
    }

    #[test]
    fn what_resembles_nothing_gets_the_list() {
        assert_eq!(remedy(table("log").unwrap(), "zzzzzzzzzz"), "the keys of [log] are level, format");
        assert!(remedy(&ROOT, "zzzzzzzzzz").starts_with("the tables of the top of the file are listener, relay"));
    }

    #[test]
    fn secrets_are_known_by_key_or_by_likeness() {
        let user = table("auth.user").unwrap();
        assert!(is_secret(user, "password") && is_secret(user, "key") && is_secret(user, "passwrd"));
        assert!(!is_secret(user, "name") && !is_secret(user, "password-file"));
        let management = table("management").unwrap();
        assert!(is_secret(management, "token") && !is_secret(management, "token-file"));
        assert!(is_secret(&ROOT, "password") && is_secret(table("log").unwrap(), "static-auth-secret"));
        assert!(!is_secret(table("limits").unwrap(), "user-quota"));
        let store = table("store").unwrap();
        assert!(is_secret(store, "url") && is_secret(store, "secret") && is_secret(store, "ulr"));
        assert!(!is_secret(store, "url-file") && !is_secret(store, "path"));
    }
}
