//! Every key of coturn's, through the import and our own reader, to the settings that come of it.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    Imported, Options, import,
    keys::{KEYS, Takes},
    report::{self, Kind, Report},
};
use crate::config::{self, Effective, Host};

/// A host with the addresses that the files here speak of.
fn host() -> Host {
    let ips = ["127.0.0.1", "10.0.0.5", "10.0.0.6", "::1", "2001:db8::5", "2001:db8::6"].map(|ip| ip.parse().unwrap());
    Host {
        primary: vec![ips[1], ips[4]],
        addresses: ips.to_vec(),
        processors: 3,
        variable: |_| Err(std::env::VarError::NotPresent),
    }
}

/// A folder with `cert.pem`, `key.pem` and `turn.db`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["turn.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    folder
}

fn options(version: &str, decisions: &[(&str, &str)]) -> Options {
    let decisions = decisions.iter().map(|(key, answer)| ((*key).to_owned(), (*answer).to_owned())).collect();
    Options { from: Some(version.parse().unwrap()), decisions, random: [[7; 16], [8; 16]] }
}

/// What a configuration comes to, as `check` prints it.
fn effective(toml: &str, folder: &Path) -> String {
    let name = folder.join("turnserver.toml").display().to_string();
    match config::parse(toml, &name, &host()) {
        Ok(loaded) => Effective(&loaded.settings).to_string(),
        Err(refused) => panic!("{refused}\n{toml}"),
    }
}

fn says(report: &Report, kind: Kind, key: &str) -> bool {
    report.items.iter().any(|item| item.kind == kind && item.key == key)
}

/// What is in every file here unless it says so itself.
const BASE: &str = "realm=r\nuser=neo:tape\nlistening-ip=10.0.0.5\n";
/// TLS for those keys that are of use with it.
const TLS: &str = "cert=FOLDER/cert.pem\npkey=FOLDER/key.pem\n";
const ROUND: &str = "listening-ip = [\"10.0.0.5\"]\nlistening-port = ";

/// What becomes of a key: of lines with it, from a version.
#[derive(Debug)]
enum Becomes {
    /// This is in the settings.
    Set(&'static [&'static str]),
    /// It is said to be left out, and the settings are as without it.
    Ignored,
    /// It is a question. Answered so, this is in the settings.
    Asked(&'static str, &'static [&'static str]),
    /// It is an error.
    Refused,
}

use Becomes::{Asked, Ignored, Refused, Set};

/// A key, a version, lines beside [`BASE`], and what becomes of them.
type Row = (&'static str, &'static str, &'static str, Becomes);

const TABLE: &[Row] = &[
    (
        "listening-ip",
        "4.6.1",
        "listening-ip=127.0.0.1\nno-rfc5780",
        Set(&["listening-ip = [\"10.0.0.5\", \"127.0.0.1\"]"]),
    ),
    ("listening-ip", "4.6.1", "listening-ip=::", Set(&["listening-ip = [\"10.0.0.5\", \"::\", \"0.0.0.0\"]"])),
    ("listening-ip", "4.6.1", "listening-ip=turn.example", Refused),
    (
        "listening-port",
        "4.6.1",
        "listening-port 3480",
        Set(&["listening-port = 3480\ntransports = [\"udp\", \"tcp\"]"]),
    ),
    (
        "tls-listening-port",
        "4.17.0",
        "tls-listening-port=443\nTLS",
        Set(&[
            "listening-port = 3478\ntransports = [\"udp\", \"tcp\", \"tls\"]",
            "listening-port = 443\ntransports = [\"tcp\", \"tls\"]",
        ]),
    ),
    ("tls-listening-port", "4.17.0", "tls-listening-port=443", Ignored),
    (
        "alt-listening-port",
        "4.6.1",
        "alt-listening-port=4000\nlistening-ip=10.0.0.6",
        Set(&[
            "primary-ip = [\"10.0.0.5\"]",
            "alternate-ip = [\"10.0.0.6\"]",
            "primary-port = 3478",
            "alternate-port = 4000",
        ]),
    ),
    ("alt-listening-port", "4.17.0", "alt-listening-port=4000", Ignored),
    (
        "alt-tls-listening-port",
        "4.17.0",
        "alt-tls-listening-port=4001\nrfc5780\nlistening-ip=10.0.0.6\nTLS",
        Set(&["listening-port = 4001\ntransports = [\"tls\"]"]),
    ),
    ("alt-tls-listening-port", "4.17.0", "alt-tls-listening-port=4001", Ignored),
    ("listening-device", "4.6.1", "listening-device=eth0", Asked("drop", &[ROUND])),
    ("relay-device", "4.6.1", "relay-device=eth0", Asked("drop", &[ROUND])),
    ("relay-ip", "4.6.1", "relay-ip=10.0.0.6", Set(&["relay-ip = [\"10.0.0.6\"]"])),
    ("external-ip", "4.6.1", "external-ip=203.0.113.9", Set(&["external-ip = [\"203.0.113.9/10.0.0.5\"]"])),
    ("external-ip", "4.6.1", "external-ip=203.0.113.9/10.0.0.5", Set(&["external-ip = [\"203.0.113.9/10.0.0.5\"]"])),
    (
        "external-ip",
        "4.6.1",
        "external-ip=203.0.113.9\nlistening-ip=127.0.0.1\nno-rfc5780",
        Set(&["relay-ip = [\"10.0.0.5\"]", "external-ip = [\"203.0.113.9/10.0.0.5\"]"]),
    ),
    (
        "external-ip",
        "4.17.0",
        "external-ip=203.0.113.9/10.0.0.5\nexternal-ip=203.0.113.8/10.0.0.6\nlistening-ip=10.0.0.6",
        Set(&["relay-ip = [\"10.0.0.5\"]", "external-ip = [\"203.0.113.9/10.0.0.5\"]"]),
    ),
    ("external-ip", "4.6.1", "external-ip=203.0.113.9/2001:db8::5", Refused),
    ("min-port", "4.6.1", "min-port=50000", Set(&["min-port = 50000\nmax-port = 65535"])),
    ("min-port", "4.6.1", "min-port=80", Set(&["min-port = 1024"])),
    ("max-port", "4.6.1", "max-port=50000", Set(&["min-port = 49152\nmax-port = 50000"])),
    ("max-port", "4.6.1", "max-port=49000", Refused),
    (
        "aux-server",
        "4.6.1",
        "aux-server=127.0.0.1:80",
        Set(&["listening-ip = [\"127.0.0.1\"]\nlistening-port = 80\ntransports = [\"udp\", \"tcp\"]"]),
    ),
    ("aux-server", "4.6.1", "aux-server=10.0.0.5", Refused),
    ("aux-server", "4.6.1", "aux-server=10.0.0.5:3478", Ignored),
    ("listening-ip", "4.6.1", "listening-ip=fe80::1", Refused),
    ("no-udp", "4.6.1", "no-udp\nlistening-ip=10.0.0.6", Set(&["transports = [\"tcp\"]\n\n[relay]"])),
    ("udp-self-balance", "4.6.1", "udp-self-balance", Ignored),
    ("no-udp", "4.6.1", "no-udp", Set(&["transports = [\"tcp\"]"])),
    ("no-tcp", "4.6.1", "no-tcp", Set(&["transports = [\"udp\"]"])),
    ("no-tcp", "4.6.1", "no-tcp\nno-udp", Refused),
    ("no-tls", "4.17.0", "no-tls\nTLS", Set(&["transports = [\"udp\", \"tcp\"]"])),
    (
        "no-dtls",
        "4.6.1",
        "no-dtls\nTLS",
        Set(&["transports = [\"udp\", \"tcp\", \"tls\"]", "transports = [\"tcp\", \"tls\"]"]),
    ),
    (
        "dtls",
        "4.17.0",
        "dtls\nTLS",
        Set(&["listening-port = 5349\ntransports = [\"udp\", \"tcp\", \"tls\", \"dtls\"]"]),
    ),
    ("no-udp-relay", "4.6.1", "no-udp-relay", Set(&["udp-relaying = false", "tcp-relaying = true"])),
    ("no-tcp-relay", "4.6.1", "no-tcp-relay", Set(&["udp-relaying = true", "tcp-relaying = false"])),
    ("no-tcp-relay", "4.6.1", "no-tcp-relay\nno-udp-relay", Refused),
    (
        "tcp-proxy-port",
        "4.6.1",
        "tcp-proxy-port=5555",
        Asked(
            "10.0.0.0/24, 192.0.2.7",
            &["listening-port = 5555\ntransports = [\"tcp\"]\nproxy-protocol = [\"10.0.0.0/24\", \"192.0.2.7/32\"]"],
        ),
    ),
    ("raw-public-keys", "4.17.0", "raw-public-keys", Ignored),
    ("cert", "4.6.1", "TLS", Set(&["cert = \"FOLDER/cert.pem\"", "[\"udp\", \"tcp\", \"tls\", \"dtls\"]"])),
    ("cert", "4.6.1", "cert=/x.pem", Refused),
    ("pkey", "4.6.1", "TLS", Set(&["pkey = \"FOLDER/key.pem\""])),
    ("pkey", "4.6.1", "pkey=FOLDER/key.pem\nno-tls\nno-dtls", Ignored),
    ("pkey-pwd", "4.6.1", "pkey-pwd=hunter2", Asked("decrypted", &[ROUND])),
    (
        "CA-file",
        "4.6.1",
        "CA-file=FOLDER/cert.pem\nTLS",
        Set(&["client-ca = \"FOLDER/cert.pem\"\nclient-certificate = \"required\""]),
    ),
    ("cipher-list", "4.6.1", "cipher-list=\"ECDHE-RSA-AES256-GCM-SHA512:DHE-RSA\"", Ignored),
    ("ec-curve-name", "4.6.1", "ec-curve-name=prime256v1", Ignored),
    ("dh-file", "4.6.1", "dh-file=/x.pem", Ignored),
    ("dh566", "4.6.1", "dh566", Ignored),
    ("dh1066", "4.6.1", "dh1066", Ignored),
    ("dh2066", "4.5.1", "dh2066", Ignored),
    ("tlsv1", "4.17.0", "tlsv1", Asked("drop", &[ROUND])),
    ("tlsv1_1", "4.17.0", "tlsv1_1", Asked("drop", &[ROUND])),
    ("no-tlsv1", "4.6.1", "no-tlsv1", Ignored),
    ("no-tlsv1_1", "4.6.1", "no-tlsv1_1", Ignored),
    ("no-tlsv1_2", "4.6.1", "no-tlsv1_2\nTLS", Set(&["min-version = \"1.3\"", "transports = [\"tcp\", \"tls\"]"])),
    ("no-sslv2", "4.6.1", "no-sslv2", Ignored),
    ("no-sslv3", "4.6.1", "no-sslv3", Ignored),
    ("secret-key-file", "4.6.1", "secret-key-file=/x", Asked("decrypted", &[ROUND])),
    ("acme-redirect", "4.6.1", "acme-redirect=http://x/", Ignored),
    ("lt-cred-mech", "4.6.1", "lt-cred-mech", Set(&["anonymous = false", "name = \"neo\""])),
    ("no-auth", "4.6.1", "no-auth", Asked("anonymous", &["anonymous = true"])),
    ("no-auth", "4.6.1", "no-auth\nlt-cred-mech", Refused),
    (
        "user",
        "4.6.1",
        "user=a:0xbc807ee29df3c9ffa736523fb2c4e8ee\nuser=b:x:y",
        Set(&["name = \"neo\"", "name = \"a\"\nkey = ", "name = \"b\"\npassword = "]),
    ),
    ("user", "4.6.1", "user=a:0xbc", Refused),
    ("user", "4.6.1", "user=nobody", Refused),
    ("realm", "4.6.1", "realm=\"other.example\"", Set(&["realm = \"other.example\""])),
    (
        "use-auth-secret",
        "4.6.1",
        "use-auth-secret=false\nstatic-auth-secret=0123456789abcdef",
        Set(&["name = \"static-auth-secret\"\nsecret = \"****\""]),
    ),
    (
        "static-auth-secret",
        "4.6.1",
        "static-auth-secret=0123456789abcdef",
        Set(&["name = \"static-auth-secret\"\nsecret = \"****\""]),
    ),
    (
        "static-auth-secret",
        "4.6.1",
        "static-auth-secret=0123456789abcdef\nstatic-auth-secret=fedcba9876543210",
        Set(&["name = \"coturn-1\"", "name = \"coturn-2\""]),
    ),
    (
        "rest-api-separator",
        "4.6.1",
        "rest-api-separator=|\nstatic-auth-secret=0123456789abcdef",
        Set(&["rest-api-separator = \"|\""]),
    ),
    (
        "oauth",
        "4.6.1",
        "oauth\nserver-name=turn.example",
        Set(&["server-name = \"turn.example\"", "type = \"sqlite\""]),
    ),
    ("server-name", "4.6.1", "server-name=turn.example\noauth", Set(&["server-name = \"turn.example\""])),
    ("server-name", "4.6.1", "server-name=turn.example", Ignored),
    ("stale-nonce", "4.6.1", "stale-nonce", Set(&["stale-nonce = \"10m\""])),
    ("stale-nonce", "4.6.1", "stale-nonce=3600", Set(&["stale-nonce = \"1h\""])),
    ("stale-nonce", "4.6.1", "stale-nonce=0", Set(&["stale-nonce = \"365d\""])),
    ("stateless-nonce", "4.17.0", "stateless-nonce=true", Ignored),
    ("stateless-nonce-secret", "4.17.0", "stateless-nonce-secret=hunter2", Ignored),
    ("secure-stun", "4.6.1", "secure-stun", Asked("drop", &[ROUND])),
    ("check-origin-consistency", "4.6.1", "check-origin-consistency", Ignored),
    ("secret-ts-exp-time", "4.6.1", "secret-ts-exp-time=5", Ignored),
    ("no-auth-pings", "4.6.1", "no-auth-pings", Ignored),
    ("no-dynamic-ip-list", "4.6.1", "no-dynamic-ip-list", Ignored),
    ("no-dynamic-realms", "4.6.1", "no-dynamic-realms", Ignored),
    ("userdb", "4.6.1", "userdb=/var/lib/turn/turndb", Set(&["type = \"sqlite\"", "path = \"/var/lib/turn/turndb\""])),
    ("db", "4.6.1", "db=/var/lib/turn/turndb", Set(&["path = \"/var/lib/turn/turndb\""])),
    (
        "psql-userdb",
        "4.6.1",
        "psql-userdb=\"host=db dbname=turn user=u password=hunter2 connect_timeout=5\"",
        Set(&["type = \"postgresql\"", "postgresql://u:****@db/turn", "timeout = \"5s\""]),
    ),
    ("psql-userdb", "4.6.1", "psql-userdb=postgresql:///turn", Set(&["postgresql://localhost/turn"])),
    ("sql-userdb", "4.6.1", "sql-userdb=\"host=db dbname=turn\"", Set(&["postgresql://db/turn"])),
    (
        "mysql-userdb",
        "4.6.1",
        "mysql-userdb=\"host=db dbname=turn user=u password=hunter2 port=3307\"",
        Set(&["mysql://u:****@db:3307/turn"]),
    ),
    ("mongo-userdb", "4.6.1", "mongo-userdb=mongodb://x:hunter2@y", Asked("drop", &[ROUND])),
    (
        "redis-userdb",
        "4.6.1",
        "redis-userdb=\"ip=127.0.0.1 dbname=2 password=hunter2\"",
        Set(&["redis://:****@127.0.0.1/2"]),
    ),
    ("redis-userdb", "4.6.1", "redis-userdb=hunter2", Refused),
    ("redis-statsdb", "4.6.1", "redis-statsdb=\"ip=127.0.0.1 password=hunter2\"", Ignored),
    ("fingerprint", "4.6.1", "fingerprint", Set(&["fingerprint = true"])),
    ("software-attribute", "4.17.0", "software-attribute", Set(&["software-attribute = true"])),
    ("no-software-attribute", "4.6.1", "no-software-attribute=false", Set(&["software-attribute = true"])),
    ("no-software-attribute", "4.6.1", "no-software-attribute", Set(&["software-attribute = false"])),
    ("mobility", "4.6.1", "mobility", Set(&["mobility = true"])),
    ("mobility", "4.6.1", "mobility=off", Set(&["mobility = false"])),
    ("mobility", "4.6.1", "mobility=perhaps", Refused),
    ("stun-only", "4.6.1", "stun-only", Set(&["anonymous = false", "name = \"nobody\"\nkey = "])),
    ("no-stun", "4.6.1", "no-stun", Asked("drop", &[ROUND])),
    (
        "rfc5780",
        "4.17.0",
        "rfc5780\nlistening-ip=10.0.0.6\nlistening-ip=2001:db8::5\nlistening-ip=2001:db8::6",
        Set(&[
            "primary-ip = [\"10.0.0.5\", \"2001:db8::5\"]",
            "alternate-ip = [\"10.0.0.6\", \"2001:db8::6\"]",
            "alternate-port = 3479",
        ]),
    ),
    ("rfc5780", "4.17.0", "rfc5780", Asked("drop", &[ROUND])),
    ("no-rfc5780", "4.6.1", "no-rfc5780\nlistening-ip=10.0.0.6", Set(&["transports = [\"udp\", \"tcp\"]\n\n[relay]"])),
    ("response-origin-only-with-rfc5780", "4.6.1", "response-origin-only-with-rfc5780", Ignored),
    ("stun-backward-compatibility", "4.17.0", "stun-backward-compatibility", Ignored),
    ("no-stun-backward-compatibility", "4.6.1", "no-stun-backward-compatibility", Ignored),
    ("rfc3489-compatibility", "4.17.0", "rfc3489-compatibility", Set(&["rfc3489 = true"])),
    ("rfc5766-channel-numbers", "4.17.0", "rfc5766-channel-numbers", Set(&["rfc5766-channel-numbers = true"])),
    ("rfc5766-channel-numbers", "4.17.0", "rfc5766-channel-numbers=no", Set(&["rfc5766-channel-numbers = false"])),
    ("include-reason-string", "4.17.0", "include-reason-string", Ignored),
    ("keep-address-family", "4.6.1", "keep-address-family", Set(&["allocation-default-address-family = \"keep\""])),
    (
        "allocation-default-address-family",
        "4.6.1",
        "allocation-default-address-family=ipv6\nlistening-ip=::1",
        Set(&["allocation-default-address-family = \"ipv6\""]),
    ),
    ("allocation-default-address-family", "4.6.1", "allocation-default-address-family=ipv5", Refused),
    ("max-allocate-lifetime", "4.6.1", "max-allocate-lifetime=7200", Set(&["max-allocate-lifetime = \"2h\""])),
    (
        "max-allocate-lifetime",
        "4.6.1",
        "max-allocate-lifetime=60",
        Set(&["default-allocate-lifetime = \"1m\"", "max-allocate-lifetime = \"1m\""]),
    ),
    ("channel-lifetime", "4.6.1", "channel-lifetime=700", Set(&["channel-lifetime = \"700s\""])),
    ("permission-lifetime", "4.6.1", "permission-lifetime", Set(&["permission-lifetime = \"5m\""])),
    ("max-allocate-timeout", "4.6.1", "max-allocate-timeout=90", Set(&["idle-timeout = \"90s\""])),
    ("respond-http-unsupported", "4.17.0", "respond-http-unsupported", Ignored),
    ("drop-invalid-packets", "4.17.0", "drop-invalid-packets", Ignored),
    ("drop-invalid-packets-log", "4.17.0", "drop-invalid-packets-log", Ignored),
    (
        "alternate-server",
        "4.6.1",
        "alternate-server=192.0.2.9",
        Set(&["address = \"192.0.2.9:3478\"\ntransports = [\"udp\", \"tcp\"]"]),
    ),
    (
        "tls-alternate-server",
        "4.6.1",
        "tls-alternate-server=[2001:db8::9]:443",
        Set(&["address = \"[2001:db8::9]:443\"\ntransports = [\"tls\", \"dtls\"]"]),
    ),
    (
        "udp-alternate-server",
        "4.17.0",
        "udp-alternate-server=192.0.2.9\nalternate-server=192.0.2.8",
        Set(&[
            "address = \"192.0.2.8:3478\"\ntransports = [\"tcp\"]",
            "address = \"192.0.2.9:3478\"\ntransports = [\"udp\", \"dtls\"]",
        ]),
    ),
    (
        "tcp-alternate-server",
        "4.17.0",
        "tcp-alternate-server=192.0.2.9:80",
        Set(&["address = \"192.0.2.9:80\"\ntransports = [\"tcp\"]"]),
    ),
    (
        "allowed-peer-ip",
        "4.6.1",
        "allowed-peer-ip=192.168.1.0-192.168.1.255",
        Set(&["allowed-peer-ip = [\"192.168.1.0/24\"]"]),
    ),
    ("allowed-peer-ip", "4.6.1", "allowed-peer-ip=server.example", Refused),
    ("denied-peer-ip", "4.6.1", "denied-peer-ip=10.0.0.0-10.255.255.255", Set(&["denied-peer-ip = [\"10.0.0.0/8\"]"])),
    ("denied-peer-ip", "4.6.1", "denied-peer-ip=192.0.2.1", Set(&["denied-peer-ip = [\"192.0.2.1/32\"]"])),
    ("denied-peer-ip", "4.6.1", "denied-peer-ip=10.0.0.0/8", Set(&["denied-peer-ip = [\"10.0.0.0/8\"]"])),
    ("denied-peer-ip", "4.6.1", "denied-peer-ip=::ffff:0.0.0.0-::ffff:255.255.255.255", Ignored),
    ("denied-peer-ip", "4.6.1", "denied-peer-ip=10.9.0.0-10.1.0.0", Refused),
    (
        "allow-loopback-peers",
        "4.6.1",
        "allow-loopback-peers",
        Asked("allow", &["allowed-peer-ip = [\"127.0.0.0/8\", \"::1/128\"]"]),
    ),
    ("allow-loopback-peers", "4.6.1", "allow-loopback-peers", Asked("refuse", &["allowed-peer-ip = []"])),
    ("no-loopback-peers", "4.5.0", "no-loopback-peers", Ignored),
    ("no-multicast-peers", "4.6.1", "no-multicast-peers", Ignored),
    ("server-relay", "4.6.1", "server-relay", Asked("drop", &[ROUND])),
    ("user-quota", "4.6.1", "user-quota=12", Set(&["user-quota = 12"])),
    ("total-quota", "4.6.1", "total-quota=1200", Set(&["total-quota = 1200"])),
    ("max-bps", "4.6.1", "max-bps=64000", Set(&["max-bps = \"512kbit/s\""])),
    ("max-bps", "4.6.1", "max-bps=64k", Refused),
    ("bps-capacity", "4.6.1", "bps-capacity=1000000\nmax-bps=64000", Set(&["total-quota = 15"])),
    ("bps-capacity", "4.6.1", "bps-capacity=1000000\nmax-bps=64000\ntotal-quota=5", Set(&["total-quota = 5"])),
    ("bps-capacity", "4.6.1", "bps-capacity=0", Set(&["bps-capacity = 0"])),
    ("unauthorized-ratelimit", "4.17.0", "unauthorized-ratelimit", Set(&["unauthorized-rate = 10"])),
    (
        "unauthorized-ratelimit-rps",
        "4.17.0",
        "unauthorized-ratelimit-rps=7\nunauthorized-ratelimit",
        Set(&["unauthorized-rate = 7"]),
    ),
    ("unauthorized-ratelimit-rps", "4.17.0", "unauthorized-ratelimit-rps=7", Ignored),
    ("relay-threads", "4.6.1", "relay-threads=0", Set(&["workers = 1"])),
    ("relay-threads", "4.6.1", "relay-threads=8", Set(&["workers = 8"])),
    ("cpus", "4.17.0", "cpus=5", Set(&["workers = 5"])),
    (
        "sock-buf-size",
        "4.17.0",
        "sock-buf-size=1048576",
        Set(&["socket-buffer = \"1MiB\"", "listener-buffer = \"1MiB\""]),
    ),
    ("ne", "4.6.1", "ne=2", Ignored),
    ("udp-recvmmsg", "4.17.0", "udp-recvmmsg=0", Ignored),
    ("udp-recvmmsg-log", "4.17.0", "udp-recvmmsg-log", Ignored),
    ("udp-sendmmsg-log", "4.17.0", "udp-sendmmsg-log", Ignored),
    ("udp-gso", "4.17.0", "udp-gso", Ignored),
    ("multiplex-peer", "4.17.0", "multiplex-peer", Asked("drop", &[ROUND])),
    ("multiplex-peer-port", "4.17.0", "multiplex-peer-port=3480", Asked("drop", &[ROUND])),
    ("multiplex-peer-max-peers", "4.17.0", "multiplex-peer-max-peers=64", Ignored),
    ("daemon", "4.6.1", "daemon", Ignored),
    ("pidfile", "4.6.1", "pidfile=\"/var/run/turnserver.pid\"", Ignored),
    ("proc-user", "4.6.1", "proc-user=turnserver", Ignored),
    ("proc-group", "4.6.1", "proc-group=turnserver", Ignored),
    ("drain-min-allocations", "4.17.0", "drain-min-allocations=3", Ignored),
    ("prod", "4.6.1", "prod", Ignored),
    ("version", "4.6.1", "version", Ignored),
    ("verbose", "4.6.1", "verbose", Set(&["level = \"info\""])),
    ("Verbose", "4.6.1", "Verbose", Set(&["level = \"debug\""])),
    ("log-file", "4.6.1", "log-file=/var/log/turn.log", Ignored),
    ("no-stdout-log", "4.6.1", "no-stdout-log", Ignored),
    ("syslog", "4.6.1", "syslog", Ignored),
    ("syslog-facility", "4.6.1", "syslog-facility=LOG_LOCAL1", Ignored),
    ("simple-log", "4.6.1", "simple-log", Ignored),
    ("log-min-level", "4.17.0", "log-min-level=warning\nverbose", Set(&["level = \"warn\""])),
    ("log-min-level", "4.17.0", "log-min-level=loud", Refused),
    ("new-log-timestamp", "4.6.1", "new-log-timestamp", Ignored),
    ("new-log-timestamp-format", "4.6.1", "new-log-timestamp-format \"%FT%T%z\"", Ignored),
    ("log-binding", "4.6.1", "log-binding", Ignored),
    (
        "prometheus",
        "4.6.1",
        "prometheus",
        Set(&["listen = \"127.0.0.1:9641\"", "coturn-metrics = true", "public-metrics = false"]),
    ),
    ("prometheus-port", "4.6.1", "prometheus-port=9700\nprometheus", Set(&["listen = \"127.0.0.1:9700\""])),
    ("prometheus-port", "4.6.1", "prometheus-port=9700", Ignored),
    (
        "prometheus-address",
        "4.17.0",
        "prometheus-address=10.0.0.5\nprometheus",
        Set(&["listen = \"10.0.0.5:9641\"", "token = ", "public-metrics = true"]),
    ),
    ("prometheus-path", "4.17.0", "prometheus-path=/m", Ignored),
    ("prometheus-username-labels", "4.6.1", "prometheus-username-labels", Asked("drop", &[ROUND])),
    ("prometheus-tls", "4.17.0", "prometheus-tls\nprometheus-address=10.0.0.5", Set(&["listen = \"127.0.0.1:9641\""])),
    ("prometheus-cert", "4.17.0", "prometheus-cert=/x", Ignored),
    ("prometheus-key", "4.17.0", "prometheus-key=/x", Ignored),
    ("cli", "4.17.0", "cli", Ignored),
    ("no-cli", "4.6.1", "no-cli", Ignored),
    ("cli-ip", "4.6.1", "cli-ip=127.0.0.1", Ignored),
    ("cli-port", "4.6.1", "cli-port=5766", Ignored),
    ("cli-password", "4.6.1", "cli-password=hunter2", Ignored),
    ("cli-max-output-sessions", "4.6.1", "cli-max-output-sessions=9", Ignored),
    ("web-admin", "4.6.1", "web-admin", Ignored),
    ("web-admin-ip", "4.6.1", "web-admin-ip=127.0.0.1", Ignored),
    ("web-admin-port", "4.6.1", "web-admin-port=8080", Ignored),
    ("web-admin-listen-on-workers", "4.6.1", "web-admin-listen-on-workers", Asked("drop", &[ROUND])),
    ("no-http", "4.5.0.8", "no-http", Ignored),
];

#[test]
fn every_key_comes_to_what_it_should() {
    let folder = folder();
    let all: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    let tested: BTreeSet<&str> = TABLE.iter().map(|(key, ..)| *key).collect();
    assert_eq!(all, tested);
    let fails = |row: &&Row| std::panic::catch_unwind(|| check(row, folder.path())).is_err();
    let wrong: Vec<&str> = TABLE.iter().filter(fails).map(|(_, _, lines, _)| *lines).collect();
    assert!(wrong.is_empty(), "wrong, with the reasons above: {wrong:#?}");
}

fn check((key, version, lines, becomes): &Row, folder: &Path) {
    let at = folder.display().to_string();
    let written = |text: &str| text.replace("TLS", TLS).replace("FOLDER", &at);
    let text = written(&format!("{BASE}{lines}\n"));
    let Imported { toml, report } = import(&text, "turnserver.conf", &options(version, &[]));
    let context = format!("{key}: {lines:?}\n{report}");
    assert!(!report.to_string().contains("hunter2"), "{context}");
    // What the report speaks of stands from here on.
    let line = BASE.lines().count() + 1;
    match becomes {
        Set(fragments) => {
            let toml = toml.unwrap_or_else(|| panic!("{context}"));
            let settings = effective(&toml, folder);
            for fragment in *fragments {
                assert!(settings.contains(&written(fragment)), "{context}{fragment}\n{toml}\n{settings}");
            }
            assert!(report.imported.iter().any(|mapped| mapped.key == *key && mapped.line >= line), "{context}");
        }
        Ignored => {
            let toml = toml.unwrap_or_else(|| panic!("{context}"));
            let item = report.items.iter().find(|item| item.kind == Kind::Ignored && item.key == *key);
            assert_eq!(item.unwrap_or_else(|| panic!("{context}")).line, Some(line), "{context}");
            let without = import(BASE, "turnserver.conf", &options(version, &[])).toml.unwrap();
            assert_eq!(effective(&toml, folder), effective(&without, folder), "{context}");
        }
        Asked(answer, fragments) => {
            assert!(toml.is_none() && !report.has(Kind::Error) && says(&report, Kind::Decide, key), "{context}");
            let answered = import(&text, "turnserver.conf", &options(version, &[(*key, *answer)]));
            let toml = answered.toml.unwrap_or_else(|| panic!("{}", answered.report));
            let settings = effective(&toml, folder);
            assert!(fragments.iter().all(|fragment| settings.contains(fragment)), "{context}{settings}");
            assert!(!answered.report.has(Kind::Decide) && says(&answered.report, Kind::Changed, key), "{context}");
        }
        Refused => {
            assert!(toml.is_none() && report.has(Kind::Error), "{context}");
            let is_about = |item: &report::Item| item.kind == Kind::Error && item.line >= Some(line);
            assert!(report.items.iter().any(is_about), "{context}");
        }
    }
}

/// Whatever is put together, what the import makes is a configuration that our reader takes.
#[test]
fn what_is_made_is_always_accepted() {
    use proptest::{prelude::*, sample::subsequence, test_runner::TestRunner};
    let folder = folder();
    let at = folder.path().display().to_string();
    let answers: Vec<(&str, &str)> = TABLE
        .iter()
        .filter_map(|(key, _, _, becomes)| if let Asked(answer, _) = becomes { Some((*key, *answer)) } else { None })
        .collect();
    let rows: Vec<&Row> = TABLE.iter().filter(|row| !matches!(row.3, Refused)).collect();
    let some = (subsequence(rows, 0..12), prop::sample::select(vec!["4.5.2", "4.6.1", "4.7.0", "4.17.1"]));
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::with_cases(400),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let made = std::cell::Cell::new(0);
    let outcome = runner.run(&some, |(rows, version)| {
        let lines: String = rows.iter().map(|(_, _, lines, _)| format!("{lines}\n")).collect();
        let text = format!("{BASE}{lines}").replace("TLS", TLS).replace("FOLDER", &at);
        let asked = import(&text, "turnserver.conf", &options(version, &[])).report;
        let is_asked = |key: &str| asked.items.iter().any(|item| item.kind == Kind::Decide && item.key == key);
        let mut decisions: Vec<(&str, &str)> = answers.iter().copied().filter(|(key, _)| is_asked(key)).collect();
        decisions.dedup_by_key(|(key, _)| *key);
        let Imported { toml, report } = import(&text, "turnserver.conf", &options(version, &decisions));
        prop_assert!(toml.is_some() != (report.has(Kind::Error) || report.has(Kind::Decide)));
        if let Some(toml) = toml {
            let name = folder.path().join("turnserver.toml").display().to_string();
            let read = config::parse(&toml, &name, &host());
            prop_assert!(read.is_ok(), "{}\n{}\n{}", read.unwrap_err(), text, toml);
            made.set(made.get() + 1);
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    assert!(made.get() > 100, "{} configurations were made", made.get());
}

#[test]
fn loopback_that_is_denied_stays_so() {
    let folder = folder();
    let text = format!("{BASE}allow-loopback-peers\ndenied-peer-ip=127.0.0.0-127.255.255.255\n");
    let Imported { toml, report } = import(&text, "t", &options("4.6.1", &[("allow-loopback-peers", "allow")]));
    let settings = effective(&toml.unwrap_or_else(|| panic!("{report}")), folder.path());
    assert!(settings.contains("allowed-peer-ip = [\"::1/128\"]\ndenied-peer-ip = [\"127.0.0.0/8\"]"), "{settings}");
}

/// As coturn has no exception for its own relay.
#[test]
fn own_addresses_in_a_denied_range_are_told_of() {
    let of =
        |lines: &str| imported(&format!("{BASE}{lines}\n")).report.to_string().contains("this server's own addresses");
    assert!(of("denied-peer-ip=10.0.0.0-10.255.255.255"));
    assert!(!of("denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.0.0.5"));
    assert!(!of("denied-peer-ip=10.0.0.5") && !of("denied-peer-ip=172.16.0.0-172.31.255.255"));
}

/// What was left out, is wrong or waits for an answer was not imported.
#[test]
fn only_what_is_in_the_result_counts_as_imported() {
    let report = imported(&format!("{BASE}server-name=x\nprometheus-port=9\nmobility\n")).report;
    assert_eq!(
        report.imported.iter().map(|mapped| mapped.key).collect::<Vec<_>>(),
        ["realm", "user", "listening-ip", "mobility"]
    );
}

fn imported(text: &str) -> Imported {
    import(text, "turnserver.conf", &Options::default())
}

#[test]
fn a_name_that_coturn_does_not_know_is_an_error_with_its_line() {
    let Imported { toml, report } = imported(&format!("{BASE}\ndenied_peer_ip=10.0.0.0-10.0.0.9\n--mobility\n-v\n"));
    assert!(toml.is_none());
    let errors: Vec<(Option<usize>, &str)> = report
        .items
        .iter()
        .filter(|item| item.kind == Kind::Error)
        .map(|item| (item.line, item.what.as_str()))
        .collect();
    assert_eq!(errors.iter().map(|(line, _)| line.unwrap()).collect::<Vec<_>>(), [5, 6, 7]);
    assert!(errors[0].1.ends_with("did you mean `denied-peer-ip`?"), "{errors:?}");
    assert!(errors[1].1.ends_with("write `mobility`") && errors[2].1.ends_with("write `verbose`"), "{errors:?}");
}

#[test]
fn a_line_that_is_no_setting_is_not_repeated() {
    let report = imported(&format!("{BASE}hunter2!secret\n")).report.to_string();
    assert!(report.contains("turnserver.conf:4: error: this line") && !report.contains("hunter2"), "{report}");
}

#[test]
fn without_credentials_it_is_a_question_whether_everybody_is_served() {
    let Imported { toml, report } = imported("listening-port=3478\n");
    assert!(toml.is_none() && says(&report, Kind::Decide, "no-auth"), "{report}");
    let database_alone = imported("userdb=/x\n");
    assert!(says(&database_alone.report, Kind::Decide, "no-auth"), "{}", database_alone.report);
}

#[test]
fn a_realm_that_is_missing_is_a_question() {
    let Imported { toml, report } = imported("user=neo:tape\n");
    assert!(toml.is_none() && says(&report, Kind::Decide, "realm"), "{report}");
    let options = options("4.6.1", &[("realm", "a.example")]);
    let toml = import("user=neo:tape\n", "turnserver.conf", &options).toml.unwrap();
    assert!(toml.contains("realm = \"a.example\" # decided"), "{toml}");
}

#[test]
fn answers_to_questions_that_are_not_asked_are_refused() {
    let Imported { toml, report } = import(BASE, "turnserver.conf", &options("4.6.1", &[("no-auth", "anonymous")]));
    assert!(toml.is_none() && says(&report, Kind::Error, "no-auth"), "{report}");
    let text = format!("{BASE}server-relay\n");
    let wrong = import(&text, "turnserver.conf", &options("4.6.1", &[("server-relay", "keep")]));
    assert!(wrong.toml.is_none() && wrong.report.to_string().contains("write drop"), "{}", wrong.report);
}

#[test]
fn what_is_off_raises_no_question() {
    let Imported { toml, report } = imported(&format!("{BASE}server-relay=false\ntlsv1=0\nno-auth=off\n"));
    assert!(toml.is_some(), "{report}");
}

#[test]
fn without_users_the_database_that_coturn_has_by_default_is_taken() {
    for text in ["realm=r\nlt-cred-mech\n", "realm=r\nuse-auth-secret\n"] {
        let Imported { toml, report } = imported(text);
        assert!(toml.unwrap_or_else(|| panic!("{report}")).contains("path = \"/var/lib/turn/turndb\""));
    }
}

#[test]
fn allowed_beats_denied_as_with_coturn() {
    let folder = folder();
    let text = format!(
        "{BASE}allowed-peer-ip=10.0.0.0-10.255.255.255\ndenied-peer-ip=10.1.0.0-10.1.255.255\n\
         denied-peer-ip=10.0.0.0-11.255.255.255\nallowed-peer-ip=172.16.5.0-172.16.5.255\ndenied-peer-ip=172.16.0.0-172.31.255.255\n"
    );
    let Imported { toml, report } = imported(&text);
    let settings = effective(&toml.unwrap_or_else(|| panic!("{report}")), folder.path());
    assert!(settings.contains("allowed-peer-ip = [\"10.0.0.0/8\", \"172.16.5.0/24\"]"), "{settings}");
    // 10.0.0.0/7 is around what is allowed; the longer prefix wins there.
    assert!(settings.contains("denied-peer-ip = [\"10.0.0.0/7\", \"172.16.0.0/12\"]"), "{settings}");
}

#[test]
fn the_last_of_a_key_counts_and_lists_add_up() {
    let Imported { toml, report } =
        imported("realm=a\nuser=neo:one\nuser=neo:two\nmin-port=50000\nrealm=b\nmin-port=50001\n");
    let toml = toml.unwrap_or_else(|| panic!("{report}"));
    assert!(
        toml.contains("realm = \"b\" # realm, line 5") && toml.contains("min-port = 50001 # min-port, line 6"),
        "{toml}"
    );
    assert!(toml.contains("\"two\"") && !toml.contains("\"one\""), "{toml}");
    let replaced: Vec<usize> =
        report.items.iter().filter(|item| item.what.contains("replaces it")).filter_map(|item| item.line).collect();
    assert_eq!(replaced, [1, 2, 4]);
}

#[test]
fn what_coturn_would_not_take_for_a_comment_is_said() {
    let report = imported(&format!("{BASE}realm=x # mine\nmin-port=50000 # low\n")).report.to_string();
    assert!(report.contains(":4: changed: realm: coturn knows no comments behind a value"), "{report}");
    assert!(report.contains(":5: changed: min-port: coturn reads this number as 50000"), "{report}");
    assert!(imported(&format!("{BASE}mobility # yes\n")).toml.is_none());
}

#[test]
fn defaults_are_those_of_the_version() {
    let folder = folder();
    let at = folder.path().display();
    let text = format!("{BASE}cert={at}/cert.pem\npkey={at}/key.pem\nlistening-ip=10.0.0.6\n");
    let of =
        |version| effective(&import(&text, "turnserver.conf", &options(version, &[])).toml.unwrap(), folder.path());
    for (version, dtls, discovery, channels) in [
        ("4.6.1", true, true, true),
        ("4.7.0", true, false, true),
        ("4.16.0", true, false, false),
        ("4.17.1", false, false, false),
    ] {
        let settings = of(version);
        assert_eq!(settings.contains("\"dtls\""), dtls, "{version}");
        assert_eq!(settings.contains("[nat-discovery]"), discovery, "{version}");
        assert_eq!(settings.contains("rfc5766-channel-numbers = true"), channels, "{version}");
    }
}

#[test]
fn the_version_is_guessed_from_keys_that_only_some_know() {
    for (lines, version) in
        [("", "4.6.1"), ("no-tlsv1\n", "4.6.1"), ("dtls\n", "4.17.0"), ("no-loopback-peers\n", "4.6.1")]
    {
        assert_eq!(imported(&format!("{BASE}{lines}")).report.version, version, "{lines}");
    }
    let report = import(&format!("{BASE}dtls\n"), "turnserver.conf", &options("4.6.1", &[])).report.to_string();
    assert!(report.contains("dtls: came with coturn 4.17.0"), "{report}");
}

#[test]
fn every_value_of_a_secret_key_stays_out_of_the_report() {
    for key in KEYS.iter().filter(|key| matches!(key.takes, Takes::Secret | Takes::Secrets)) {
        for value in ["hunter2", "hunter2 # x", "hunter2;", "a=b hunter2=c", "0xhunter2", "x:hunter2"] {
            let Imported { report, .. } =
                imported(&format!("{BASE}use-auth-secret\n{0}={value}\n{0}=y{value}\n", key.name));
            let (text, json) = (report.to_string(), serde_json::to_string(&report).unwrap());
            assert!(!text.contains("hunter2") && !json.contains("hunter2"), "{}: {text}", key.name);
        }
    }
}
