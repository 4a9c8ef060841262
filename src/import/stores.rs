//! `[store]`: coturn's databases. Connection strings become URLs.

use url::Url;

use super::{
    document::text,
    report::Kind,
    source::{Given, Source, from},
};

/// Where Debian's coturn has its database; it looks there even if it is not told to.
const DEFAULT_DATABASE: &str = "/var/lib/turn/turndb";

/// Keys of coturn's databases, those that hold one kind together.
const SQLITE: [&str; 2] = ["userdb", "db"];
const POSTGRESQL: [&str; 2] = ["psql-userdb", "sql-userdb"];

/// Longest time that a question may take.
const LONGEST_TIMEOUT: u64 = 60;

/// What a connection string comes to.
struct Connection {
    url: Url,
    timeout: Option<u64>,
}

/// Writes `[store]`. `alone`: without it nobody could log in.
pub(super) fn import(source: &mut Source<'_>, alone: bool) {
    let given: Vec<(&'static str, usize)> = [&SQLITE[..], &POSTGRESQL, &["mysql-userdb", "redis-userdb"]]
        .concat()
        .into_iter()
        .filter_map(|key| source.line(key).map(|line| (key, line)))
        .collect();
    let Some(&(key, line)) = given.iter().max_by_key(|(_, line)| *line) else {
        return by_default(source, alone);
    };
    for (other, earlier) in given.iter().filter(|(_, earlier)| *earlier != line) {
        let what = format!("line {line} replaces it: coturn has one database, the last");
        source.report.say(Kind::Changed, *earlier, other, what);
    }
    let Some(Given { value, .. }) = source.text(key) else { return };
    if SQLITE.contains(&key) {
        source.document.set("[store]", "type", text("sqlite"), "");
        source.document.set("[store]", "path", text(value), from(key, line));
    } else {
        let kind = match key {
            "mysql-userdb" => "mysql",
            "redis-userdb" => "redis",
            _ => "postgresql",
        };
        match connection(source, kind, key, Given { value, line }) {
            Some(Connection { url, timeout }) => {
                source.document.set("[store]", "type", text(kind), "");
                source.document.set("[store]", "url", text(url), from(key, line));
                if let Some(timeout) = timeout {
                    let timeout = timeout.clamp(1, LONGEST_TIMEOUT);
                    source.document.set("[store]", "timeout", text(format!("{timeout}s")), "connect_timeout");
                }
                let what = "the password stands in the URL; it can be put into a file of its own (url-file)";
                source.report.say(Kind::Note, line, key, what);
            }
            None => return,
        }
    }
    tokens(source);
}

/// coturn has its own database file even if the configuration names none.
fn by_default(source: &mut Source<'_>, alone: bool) {
    let oauth = source.is_on("oauth");
    if alone || oauth {
        source.document.set("[store]", "type", text("sqlite"), "");
        source.document.set("[store]", "path", text(DEFAULT_DATABASE), "where coturn looks if no database is named");
        let what = format!(
            "the file names no database, for which coturn takes {DEFAULT_DATABASE} (on Debian); so does the result: see that the \
             server may read it"
        );
        source.report.say(Kind::Note, None, "userdb", what);
        tokens(source);
    } else {
        let what = format!(
            "users that were added with turnadmin are in coturn's own database, which this file does not name: if there are any, \
             add [store] with type = \"sqlite\" and path = {DEFAULT_DATABASE:?}"
        );
        source.report.say(Kind::Note, None, "userdb", what);
        unused_server_name(source);
    }
}

/// Access tokens, whose keys are in the database.
fn tokens(source: &mut Source<'_>) {
    let Some(line) = source.on("oauth") else { return unused_server_name(source) };
    let name = source.text("server-name").or_else(|| source.text("realm"));
    if let Some(Given { value, line: named }) = name {
        source.document.set("[auth]", "server-name", text(value), format!("oauth, line {line}; name, line {named}"));
    }
}

fn unused_server_name(source: &mut Source<'_>) {
    if let Some(line) = source.line("server-name") {
        source.report.say(Kind::Ignored, line, "server-name", "it is of use with oauth only");
    }
}

fn connection(
    source: &mut Source<'_>,
    kind: &'static str,
    key: &'static str,
    given: Given<&str>,
) -> Option<Connection> {
    let read = match Url::parse(given.value) {
        Ok(url) if kind == "postgresql" && ["postgresql", "postgres"].contains(&url.scheme()) => with_host(url),
        _ => words(given.value).and_then(|words| from_words(kind, &words)),
    };
    match read {
        Ok((connection, left_out)) => {
            for word in left_out {
                source.report.say(
                    Kind::Changed,
                    given.line,
                    key,
                    format!("{word} of the connection string has no counterpart here"),
                );
            }
            Some(connection)
        }
        Err(fault) => {
            source.report.say(Kind::Error, given.line, key, fault);
            None
        }
    }
}

type Read = Result<(Connection, Vec<String>), String>;

/// A URI that names no host means this one.
fn with_host(mut url: Url) -> Read {
    if url.host().is_none() {
        url.set_host(Some("localhost")).map_err(|_| "is no usable URI".to_owned())?;
    }
    Ok((Connection { url, timeout: None }, Vec::new()))
}

/// The `name=value` words of a connection string. A value may be in single quotes, with backslashes, as libpq has it.
fn words(text: &str) -> Result<Vec<(String, String)>, String> {
    const FAULT: &str = "is not made of name=value words; nothing of it is shown, as it may hold a password";
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(FAULT)?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(FAULT.to_owned());
        }
        let (value, behind) = value(behind.trim_start()).ok_or(FAULT)?;
        words.push((name.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(words)
}

/// A value at the beginning of a text, and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let quoted = text.starts_with('\'');
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return text.get(at + 1..).map(|rest| (value, rest)),
            character if !quoted && character.is_whitespace() => return text.get(at..).map(|rest| (value, rest)),
            character => value.push(character),
        }
    }
    (!quoted).then_some((value, ""))
}

/// What a word of a connection string means: every spelling that coturn takes.
const MEANINGS: [(&str, &[&str]); 6] = [
    ("host", &["host", "ip", "addr", "ipaddr", "hostaddr"]),
    ("database", &["dbname", "db", "database"]),
    ("user", &["user", "uname", "name", "username"]),
    ("password", &["password", "pwd", "passwd", "secret"]),
    ("port", &["port", "p"]),
    ("timeout", &["connect_timeout", "timeout"]),
];

/// What is handed on in the URL: kind, word, parameter.
const PARAMETERS: [(&str, &str, &str); 8] = [
    ("postgresql", "sslmode", "sslmode"),
    ("postgresql", "sslrootcert", "sslrootcert"),
    ("postgresql", "sslcert", "sslcert"),
    ("postgresql", "sslkey", "sslkey"),
    ("postgresql", "application_name", "application_name"),
    ("mysql", "ca", "ssl-ca"),
    ("mysql", "cert", "ssl-cert"),
    ("mysql", "key", "ssl-key"),
];

/// Words that are known to have no counterpart.
const LEFT_OUT: [&str; 13] = [
    "read_timeout",
    "write_timeout",
    "cipher",
    "capath",
    "ca",
    "cacert",
    "tls-ca",
    "cert",
    "clientkey",
    "sni",
    "servername",
    "verify",
    "options",
];

fn from_words(kind: &'static str, words: &[(String, String)]) -> Read {
    let of = |meaning: &str| {
        let names = MEANINGS.into_iter().find(|(name, _)| *name == meaning).map_or(&[][..], |(_, names)| names);
        words.iter().rev().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    };
    let secured = words
        .iter()
        .any(|(name, value)| ["tls", "ssl"].contains(&name.as_str()) && !value.starts_with(['0', 'n', 'N', 'f', 'F']));
    let scheme = if kind == "redis" && secured { "rediss" } else { kind };
    let refused = |what: &str| format!("its {what} cannot be part of a URL");
    let mut url = Url::parse(&format!("{scheme}://localhost/")).map_err(|_| refused("type"))?;
    match of("host") {
        // A folder with a Unix socket.
        Some(folder) if folder.starts_with('/') && kind == "postgresql" => {
            url.query_pairs_mut().append_pair("host", folder);
        }
        Some(host) => {
            let bracketed = format!("[{host}]");
            let host = if host.parse::<std::net::Ipv6Addr>().is_ok() { &bracketed } else { host };
            url.set_host(Some(host)).map_err(|_| refused("host"))?;
        }
        None => {}
    }
    if let Some(port) = of("port") {
        let port = port.parse().map_err(|_| "its port is no number".to_owned())?;
        url.set_port(Some(port)).map_err(|()| refused("port"))?;
    }
    if let Some(user) = of("user") {
        url.set_username(user).map_err(|()| refused("user"))?;
    }
    if let Some(password) = of("password") {
        url.set_password(Some(password)).map_err(|()| refused("password"))?;
    }
    if let Some(database) = of("database") {
        url.set_path(database);
    }
    let mut left_out = Vec::new();
    for (name, value) in words {
        let name = name.as_str();
        let parameter = PARAMETERS.into_iter().find(|(of, word, _)| *of == kind && *word == name);
        if let Some((_, _, parameter)) = parameter {
            url.query_pairs_mut().append_pair(parameter, value);
            continue;
        }
        let is_tls = kind == "redis" && ["tls", "ssl"].contains(&name);
        if !is_tls && !MEANINGS.iter().any(|(_, names)| names.contains(&name)) {
            // What nobody knows may be part of a password that has blanks in it.
            let known = LEFT_OUT.contains(&name);
            left_out.push(if known { format!("`{name}`") } else { "one word that is not known".to_owned() });
        }
    }
    let timeout = of("timeout").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
    Ok((Connection { url, timeout }, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(kind: &'static str, written: &str) -> String {
        from_words(kind, &words(written).unwrap()).unwrap().0.url.to_string()
    }

    #[test]
    fn connection_strings_become_urls() {
        for (kind, written, expected) in [
            (
                "postgresql",
                "host=db.example dbname=coturn user=turn password=turn connect_timeout=30",
                "postgresql://turn:turn@db.example/coturn",
            ),
            (
                "postgresql",
                "host=/run/postgresql dbname=turn user=turn",
                "postgresql://turn@localhost/turn?host=%2Frun%2Fpostgresql",
            ),
            (
                "postgresql",
                r"password='it\'s a @/:? one' host = ::1 sslmode=require",
                "postgresql://:it's%20a%20%40%2F%3A%3F%20one@[::1]/?sslmode=require",
            ),
            (
                "mysql",
                "host=10.0.0.7 dbname=turn user=turn password=p#w port=3307 read_timeout=9",
                "mysql://turn:p%23w@10.0.0.7:3307/turn",
            ),
            (
                "redis",
                "ip=127.0.0.1 dbname=2 password=turn port=6380 connect_timeout=30",
                "redis://:turn@127.0.0.1:6380/2",
            ),
            ("redis", "host=r.example tls=true", "rediss://r.example/"),
        ] {
            assert_eq!(url(kind, written), expected, "{written}");
        }
        let (connection, left_out) = from_words("mysql", &words("db=x timeout=3 cipher=ALL").unwrap()).unwrap();
        assert_eq!((connection.timeout, left_out), (Some(3), vec!["`cipher`".to_owned()]));
    }

    #[test]
    fn what_is_no_connection_string_is_not_repeated() {
        for wrong in ["hunter2", "host=x hunter2", "password='hunter2", "=hunter2", "password=hunter2\\"] {
            let fault = words(wrong).unwrap_err();
            assert!(!fault.contains("hunter2") && fault.contains("name=value"), "{wrong}");
        }
        let fault = from_words("mysql", &words("host=x port=hunter2").unwrap()).err().unwrap();
        assert!(!fault.contains("hunter2"));
    }
}
