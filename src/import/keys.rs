//! Every key that any version of coturn from 4.4.5.3 to 4.17.1 knows, one entry each, with what becomes of it here.

use super::version::Version;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A boolean; nothing means true.
    Switch,
    /// Nothing: whatever is written, it is on.
    Flag,
    /// A number.
    Number,
    /// A number; nothing means this one.
    NumberOr(u32),
    /// A port.
    Port,
    /// A text.
    Text,
    /// A text; the key may be repeated, and each counts.
    Texts,
    /// A text that is not shown.
    Secret,
    /// A text that is not shown; the key may be repeated, and each counts.
    Secrets,
}

impl Takes {
    /// Whether the key may stand alone.
    pub(super) const fn nothing(self) -> bool {
        matches!(self, Self::Switch | Self::Flag | Self::NumberOr(_))
    }
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is imported: where to.
    Mapped(&'static str),
    /// It is left out, and nothing is lost that matters: why.
    Ignored(&'static str),
    /// Leaving it out would change security or service, so that the operator decides: the question, and the answers there are.
    Asked(&'static str, &'static [&'static str]),
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// As it is written.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) takes: Takes,
    /// What becomes of it.
    pub(super) verdict: Verdict,
    /// The version that brought it, if it was not always there.
    pub(super) since: Option<Version>,
    /// The last version that knew it, if it is gone.
    pub(super) until: Option<Version>,
}

const fn mapped(name: &'static str, takes: Takes, to: &'static str) -> Key {
    Key { name, takes, verdict: Verdict::Mapped(to), since: None, until: None }
}

const fn ignored(name: &'static str, takes: Takes, why: &'static str) -> Key {
    Key { name, takes, verdict: Verdict::Ignored(why), since: None, until: None }
}

const fn asked(name: &'static str, takes: Takes, question: &'static str, answers: &'static [&'static str]) -> Key {
    Key { name, takes, verdict: Verdict::Asked(question, answers), since: None, until: None }
}

impl Key {
    const fn since(mut self, major: u16, minor: u16, patch: u16, fix: u16) -> Self {
        self.since = Some(Version([major, minor, patch, fix]));
        self
    }

    const fn until(mut self, major: u16, minor: u16, patch: u16, fix: u16) -> Self {
        self.until = Some(Version([major, minor, patch, fix]));
        self
    }
}

use Takes::{Flag, Number, NumberOr, Port, Secret, Secrets, Switch, Text, Texts};

const ALREADY: &str = "it is so here anyway";
const NO_TELNET: &str = "there is no telnet interface; `turnserver ctl` stands in for it";
const NO_WEB_ADMIN: &str =
    "coturn's pages are not there; the page of [management], its HTTP interface and `turnserver ctl` stand in for them";
const NO_DH: &str = "no cipher with finite-field DHE is offered";
const FOR_TLS_METRICS: &str = "metrics have no TLS of their own; put a proxy in front where the way is not trusted";
const UNIT: &str = "the systemd unit says whom the server runs as (User=, Group=)";
const STDERR: &str = "the log goes to standard error, which systemd takes to the journal";
const BATCHES: &str = "datagrams are sent and received in batches anyway; metrics have their sizes";
const DROP: &[&str] = &["drop"];

/// All of them, in the order of their subjects.
pub(super) const KEYS: &[Key] = &[
    // Listeners and addresses.
    mapped("listening-ip", Texts, "listener.listening-ip"),
    mapped("listening-port", Port, "listener.listening-port"),
    mapped("tls-listening-port", Port, "listener.listening-port"),
    mapped("alt-listening-port", Port, "nat-discovery.alternate-port"),
    mapped("alt-tls-listening-port", Port, "listener.listening-port"),
    asked("listening-device", Text, "listeners are not bound to a network interface here: clients would be served on all; name the addresses of the interface as listening-ip instead", DROP),
    asked("relay-device", Text, "relay sockets are not bound to a network interface here; name its addresses as relay-ip instead", DROP),
    mapped("relay-ip", Texts, "relay.relay-ip"),
    mapped("external-ip", Texts, "relay.external-ip"),
    mapped("min-port", Port, "relay.min-port"),
    mapped("max-port", Port, "relay.max-port"),
    mapped("aux-server", Texts, "listener.listening-ip"),
    ignored("udp-self-balance", Switch, "all workers serve every port"),
    mapped("no-udp", Switch, "listener.transports"),
    mapped("no-tcp", Switch, "listener.transports"),
    mapped("no-tls", Switch, "listener.transports"),
    mapped("no-dtls", Switch, "listener.transports"),
    mapped("dtls", Switch, "listener.transports").since(4, 17, 0, 0),
    mapped("no-udp-relay", Switch, "relay.udp-relaying"),
    mapped("no-tcp-relay", Switch, "relay.tcp-relaying"),
    mapped("tcp-proxy-port", Port, "listener.proxy-protocol").since(4, 5, 1, 2),
    ignored("raw-public-keys", Switch, "raw public keys (RFC 7250) are not supported; clients verify the certificate").since(4, 6, 3, 0),
    // TLS.
    mapped("cert", Text, "tls.cert"),
    mapped("pkey", Text, "tls.pkey"),
    asked("pkey-pwd", Secret, "keys are read without a password here: decrypt the key (openssl pkey -in OLD -out NEW, mode 0600) and name the new file as pkey", &["decrypted"]),
    mapped("CA-file", Text, "tls.client-ca"),
    ignored("cipher-list", Text, "TLS 1.2 and 1.3 are served with forward secrecy and authenticated encryption only"),
    ignored("ec-curve-name", Text, "the usual curves are offered"),
    ignored("dh-file", Text, NO_DH),
    ignored("dh566", Switch, NO_DH),
    ignored("dh1066", Switch, NO_DH).since(4, 5, 1, 2),
    ignored("dh2066", Switch, NO_DH),
    asked("tlsv1", Switch, "TLS 1.0 is not served here: clients that know nothing newer would be shut out", DROP).since(4, 7, 0, 0),
    asked("tlsv1_1", Switch, "TLS 1.1 is not served here: clients that know nothing newer would be shut out", DROP).since(4, 7, 0, 0),
    ignored("no-tlsv1", Switch, ALREADY).until(4, 6, 3, 0),
    ignored("no-tlsv1_1", Switch, ALREADY).until(4, 6, 3, 0),
    mapped("no-tlsv1_2", Switch, "tls.min-version"),
    ignored("no-sslv2", Switch, ALREADY).until(4, 6, 3, 0),
    ignored("no-sslv3", Switch, ALREADY).until(4, 6, 3, 0),
    asked("secret-key-file", Text, "passwords of databases are not read encrypted here: decrypt the one in mysql-userdb (turnadmin -E shows how it was made) and write it in clear", &["decrypted"]).since(4, 5, 0, 8),
    ignored("acme-redirect", Text, "no HTTP is served on TURN's ports; answer ACME on port 80").since(4, 5, 2, 0),
    // Authentication and users.
    mapped("lt-cred-mech", Switch, "auth"),
    asked("no-auth", Switch, "coturn serves everybody without credentials: an open relay", &["anonymous"]),
    mapped("user", Secrets, "auth.user"),
    mapped("realm", Text, "auth.realm"),
    mapped("use-auth-secret", Flag, "auth.static-auth-secret"),
    mapped("static-auth-secret", Secrets, "auth.static-auth-secret"),
    mapped("rest-api-separator", Text, "auth.rest-api-separator"),
    mapped("oauth", Switch, "auth.server-name"),
    mapped("server-name", Text, "auth.server-name"),
    mapped("stale-nonce", NumberOr(600), "auth.stale-nonce"),
    ignored("stateless-nonce", Switch, "nonces are so here always").since(4, 16, 0, 0),
    ignored("stateless-nonce-secret", Secret, "each server makes its own: a client that another server takes over is asked once for a new nonce").since(4, 16, 0, 0),
    asked("secure-stun", Switch, "Binding is answered without credentials here, as browsers need it; answers to one source are limited (binding-rate)", DROP),
    ignored("check-origin-consistency", Switch, "ORIGIN is of no account here"),
    ignored("secret-ts-exp-time", Number, "it has had no effect for years").until(4, 6, 3, 0),
    ignored("no-auth-pings", Flag, "databases are only asked when there is something to ask").since(4, 5, 1, 2),
    ignored("no-dynamic-ip-list", Flag, "peers in a database are read again every cache-time of [store]").since(4, 5, 1, 2),
    ignored("no-dynamic-realms", Flag, "realms of a database are read at the start only").since(4, 5, 1, 2),
    mapped("userdb", Text, "store.path"),
    mapped("db", Text, "store.path"),
    mapped("psql-userdb", Secret, "store.url"),
    mapped("sql-userdb", Secret, "store.url"),
    mapped("mysql-userdb", Secret, "store.url"),
    asked("mongo-userdb", Secret, "MongoDB is not supported: export its users to SQLite, PostgreSQL, MySQL or Redis and name that instead", DROP),
    mapped("redis-userdb", Secret, "store.url"),
    ignored("redis-statsdb", Secret, "sessions are told of by `turnserver ctl`, metrics, and the events of [management]"),
    // Protocol behaviour.
    mapped("fingerprint", Switch, "process.fingerprint"),
    mapped("software-attribute", Switch, "process.software-attribute").since(4, 7, 0, 0),
    mapped("no-software-attribute", Switch, "process.software-attribute"),
    mapped("mobility", Switch, "relay.mobility"),
    mapped("stun-only", Switch, "auth"),
    asked("no-stun", Switch, "Binding is always answered here; answers to one source are limited (binding-rate)", DROP),
    mapped("rfc5780", Flag, "nat-discovery").since(4, 7, 0, 0),
    mapped("no-rfc5780", Flag, "nat-discovery").since(4, 6, 0, 0),
    ignored("response-origin-only-with-rfc5780", Flag, ALREADY).since(4, 6, 0, 0),
    ignored("stun-backward-compatibility", Switch, "MAPPED-ADDRESS is sent to clients of RFC 3489 only (compatibility.rfc3489)").since(4, 7, 0, 0),
    ignored("no-stun-backward-compatibility", Switch, ALREADY).since(4, 6, 0, 0).until(4, 6, 3, 0),
    mapped("rfc3489-compatibility", Switch, "compatibility.rfc3489").since(4, 16, 0, 0),
    mapped("rfc5766-channel-numbers", Switch, "compatibility.rfc5766-channel-numbers").since(4, 16, 0, 0),
    ignored("include-reason-string", Switch, "errors have their RFC's reason; the log at level debug has more").since(4, 10, 0, 0),
    mapped("keep-address-family", Switch, "relay.allocation-default-address-family").since(4, 5, 0, 8),
    mapped("allocation-default-address-family", Text, "relay.allocation-default-address-family").since(4, 6, 0, 0),
    mapped("max-allocate-lifetime", NumberOr(3_600), "lifetimes.max-allocate-lifetime").since(4, 5, 0, 8),
    mapped("channel-lifetime", NumberOr(600), "lifetimes.channel-lifetime").since(4, 5, 0, 8),
    mapped("permission-lifetime", NumberOr(300), "lifetimes.permission-lifetime").since(4, 5, 0, 8),
    mapped("max-allocate-timeout", Number, "tcp.idle-timeout"),
    ignored("respond-http-unsupported", Switch, "connections that speak HTTP are closed without an answer").since(4, 6, 3, 0),
    ignored("drop-invalid-packets", Switch, ALREADY).since(4, 8, 0, 0),
    ignored("drop-invalid-packets-log", Switch, "they are counted in the metrics").since(4, 8, 0, 0),
    mapped("alternate-server", Texts, "redirect.server"),
    mapped("tls-alternate-server", Texts, "redirect.server"),
    mapped("udp-alternate-server", Texts, "redirect.server").since(4, 15, 0, 0),
    mapped("tcp-alternate-server", Texts, "redirect.server").since(4, 15, 0, 0),
    // Peers, quotas, abuse.
    mapped("allowed-peer-ip", Texts, "peers.allowed-peer-ip"),
    mapped("denied-peer-ip", Texts, "peers.denied-peer-ip"),
    asked("allow-loopback-peers", Switch, "every client could reach the services of this host that listen on 127.0.0.1 and ::1 alone", &["allow", "refuse"]).since(4, 5, 1, 0),
    ignored("no-loopback-peers", Switch, ALREADY).until(4, 5, 0, 8),
    ignored("no-multicast-peers", Switch, ALREADY),
    asked("server-relay", Switch, "whoever finds a relayed address could send to its client without permission; no client of TURN needs that", DROP),
    mapped("user-quota", Number, "limits.user-quota"),
    mapped("total-quota", Number, "limits.total-quota"),
    mapped("max-bps", Number, "limits.max-bps"),
    mapped("bps-capacity", Number, "limits.total-quota"),
    mapped("unauthorized-ratelimit", Switch, "limits.unauthorized-rate").since(4, 14, 0, 0),
    mapped("unauthorized-ratelimit-rps", Number, "limits.unauthorized-rate").since(4, 14, 0, 0),
    // Process, threads, fast paths.
    mapped("relay-threads", Number, "process.workers"),
    mapped("cpus", Number, "process.workers").since(4, 8, 0, 0),
    mapped("sock-buf-size", Number, "relay.socket-buffer").since(4, 8, 0, 0),
    ignored("ne", Number, "there is one network engine").until(4, 9, 0, 0),
    ignored("udp-recvmmsg", Switch, BATCHES).since(4, 10, 0, 0),
    ignored("udp-recvmmsg-log", Switch, BATCHES).since(4, 12, 0, 0),
    ignored("udp-sendmmsg-log", Switch, BATCHES).since(4, 13, 0, 0),
    ignored("udp-gso", Switch, "datagrams are merged anyway where the system can").since(4, 12, 0, 0),
    asked("multiplex-peer", Flag, "each allocation has a port of its own here (min-port to max-port), which the firewall must let through; a peer may talk to many allocations", DROP).since(4, 12, 0, 0),
    asked("multiplex-peer-port", Number, "relayed addresses have ports from min-port to max-port here, which the firewall must let through", DROP).since(4, 12, 0, 0),
    mapped("multiplex-peer-max-peers", Number, "limits.permissions-per-allocation").since(4, 16, 0, 0),
    ignored("daemon", Switch, "the server stays in the foreground; systemd or a container keeps it"),
    ignored("pidfile", Text, "systemd knows the process; `turnserver ctl` finds the server by its socket"),
    ignored("proc-user", Text, UNIT),
    ignored("proc-group", Text, UNIT),
    ignored("drain-min-allocations", Number, "draining ends with the last session, or at drain-timeout of [process]").since(4, 15, 0, 0),
    ignored("prod", Flag, "the version is not told anyway").until(4, 6, 3, 0),
    ignored("version", Flag, "it is no setting; `turnserver --version` prints it").since(4, 6, 0, 0),
    // Log, metrics, administration.
    mapped("verbose", Switch, "log.level"),
    mapped("Verbose", Switch, "log.level"),
    ignored("log-file", Text, STDERR),
    ignored("no-stdout-log", Switch, STDERR),
    ignored("syslog", Switch, STDERR),
    ignored("syslog-facility", Text, STDERR).since(4, 6, 0, 0),
    ignored("simple-log", Switch, STDERR),
    mapped("log-min-level", Text, "log.level").since(4, 15, 0, 0),
    ignored("new-log-timestamp", Switch, ALREADY).since(4, 5, 2, 0),
    ignored("new-log-timestamp-format", Text, "times in the log are RFC 3339").since(4, 5, 2, 0),
    ignored("log-binding", Switch, "Binding requests are counted in the metrics").since(4, 5, 2, 0),
    mapped("prometheus", Flag, "management.listen").since(4, 5, 2, 0),
    mapped("prometheus-port", Port, "management.listen").since(4, 6, 0, 0),
    mapped("prometheus-address", Text, "management.listen").since(4, 6, 3, 0),
    ignored("prometheus-path", Text, "metrics are at /metrics").since(4, 7, 0, 0),
    asked("prometheus-username-labels", Flag, "metrics have no users here, as each would be a series for ever; `turnserver ctl` and /v1/users have them", DROP).since(4, 6, 0, 0),
    mapped("prometheus-tls", Switch, "management.listen").since(4, 14, 0, 0),
    ignored("prometheus-cert", Text, FOR_TLS_METRICS).since(4, 14, 0, 0),
    ignored("prometheus-key", Text, FOR_TLS_METRICS).since(4, 14, 0, 0),
    ignored("cli", Switch, NO_TELNET).since(4, 10, 0, 0),
    ignored("no-cli", Switch, NO_TELNET),
    ignored("cli-ip", Text, NO_TELNET),
    ignored("cli-port", Port, NO_TELNET),
    ignored("cli-password", Secret, NO_TELNET),
    ignored("cli-max-output-sessions", Number, NO_TELNET),
    ignored("web-admin", Switch, NO_WEB_ADMIN).since(4, 5, 1, 0),
    ignored("web-admin-ip", Text, NO_WEB_ADMIN).since(4, 5, 1, 0),
    ignored("web-admin-port", Port, NO_WEB_ADMIN).since(4, 5, 1, 0),
    asked("web-admin-listen-on-workers", Switch, "administration is never served on TURN's ports here", DROP).since(4, 5, 1, 0),
    ignored("no-http", Switch, ALREADY).since(4, 5, 0, 8).until(4, 5, 0, 8),
];

/// The options of coturn's command line that have one letter, which no file takes, and their long names; none if no file
/// takes that either.
const LETTERS: [(&str, &str); 31] = [
    ("d", "listening-device"),
    ("p", "listening-port"),
    ("L", "listening-ip"),
    ("i", "relay-device"),
    ("E", "relay-ip"),
    ("X", "external-ip"),
    ("m", "relay-threads"),
    ("v", "verbose"),
    ("V", "Verbose"),
    ("o", "daemon"),
    ("f", "fingerprint"),
    ("a", "lt-cred-mech"),
    ("z", "no-auth"),
    ("u", "user"),
    ("r", "realm"),
    ("q", "user-quota"),
    ("Q", "total-quota"),
    ("s", "max-bps"),
    ("C", "rest-api-separator"),
    ("S", "stun-only"),
    ("l", "log-file"),
    ("b", "userdb"),
    ("e", "psql-userdb"),
    ("M", "mysql-userdb"),
    ("J", "mongo-userdb"),
    ("N", "redis-userdb"),
    ("O", "redis-statsdb"),
    ("B", "bps-capacity"),
    ("c", ""),
    ("n", ""),
    ("h", ""),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What to do about a name that is no key.
pub(super) fn remedy(name: &str) -> String {
    let bare = name.trim_start_matches('-');
    if let Some((_, long)) = LETTERS.iter().find(|(letter, _)| *letter == bare) {
        return match *long {
            "" => "an option of the command line, which a file does not take; remove it".to_owned(),
            long => format!("an option of the command line, which a file does not take; write `{long}`"),
        };
    }
    if bare != name && find(bare).is_some() {
        return format!("names have no dashes before them in a file; write `{bare}`");
    }
    let written = bare.to_lowercase().replace('_', "-");
    let slips = |key: &Key| strsim::damerau_levenshtein(&written, &key.name.to_lowercase());
    match KEYS.iter().min_by_key(|key| slips(key)) {
        Some(near) if slips(near) <= (near.name.len() / 3).max(1) => format!("did you mean `{}`?", near.name),
        Some(near) => format!("the nearest key is `{}`; correct it or remove it", near.name),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_154_keys() {
        let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!((names.len(), KEYS.len()), (154, 154));
        assert!(LETTERS.iter().all(|(_, long)| long.is_empty() || find(long).is_some()));
    }

    #[test]
    fn a_slip_is_recognised() {
        assert_eq!(remedy("lisening-port"), "did you mean `listening-port`?");
        assert_eq!(remedy("denied_peer_ip"), "did you mean `denied-peer-ip`?");
        assert_eq!(remedy("--realm"), "names have no dashes before them in a file; write `realm`");
        assert!(remedy("-v").ends_with("write `verbose`") && remedy("c").ends_with("remove it"));
        assert!(remedy("zzzzzzzzzzzzzzz").starts_with("the nearest key is `"));
    }
}
