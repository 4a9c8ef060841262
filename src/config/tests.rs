//! The whole room at once: texts in, settings or findings out, on a host made up for the purpose.

use std::{
    collections::BTreeSet,
    env::VarError,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{
    schema,
    settings::{
        DefaultFamily, HolderLimits, Mechanisms, RealmLimits, RelayAddress, Secret, StoreBackend, StoreLimits,
        TlsVersion, UserSecret,
    },
    *,
};
use crate::auth::rest::{RestAlgorithm, RestForm};

/// What every acceptable configuration needs.
const CREDENTIALS: &str = "[auth]\nrealm = \"example.org\"\n[[auth.user]]\nname = \"demo\"\npassword = \"pw\"\n";

fn host() -> Host {
    let ips = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    Host {
        addresses: ips(&["127.0.0.1", "192.0.2.7", "10.0.0.7", "::1", "2001:db8::7"]),
        primary: ips(&["192.0.2.7", "2001:db8::7"]),
        processors: 3,
        variable: |name| match name {
            "SET" => Ok("from-env".to_owned()),
            "KEY" => Ok("0xFFffffffffffffffffffffffffffff01".to_owned()),
            "EMPTY" => Ok(String::new()),
            "CREDENTIALS_DIRECTORY" => {
                CREDENTIALS_FOLDER.with_borrow(|folder| folder.clone().ok_or(VarError::NotPresent))
            }
            _ => Err(VarError::NotPresent),
        },
    }
}

thread_local! {
    /// What systemd would set CREDENTIALS_DIRECTORY to.
    static CREDENTIALS_FOLDER: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// A listener for TLS.
const SERVES_TLS: &str = "[[listener]]\ntransports = \"tls\"\n";

/// A certificate and its key in files.
struct Pem(tempfile::TempDir);

impl Pem {
    fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self::of(rcgen::CertificateParams::new(names).unwrap())
    }

    fn of(params: rcgen::CertificateParams) -> Self {
        let (key, pem) = (rcgen::KeyPair::generate().unwrap(), Self(tempfile::tempdir().unwrap()));
        std::fs::write(pem.path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(pem.path("key.pem"), key.serialize_pem()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(pem.path("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        pem
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().unwrap().to_owned()
    }

    /// `[tls]` with both.
    fn table(&self) -> String {
        format!("[tls]\ncert = {:?}\npkey = {:?}\n", self.path("cert.pem"), self.path("key.pem"))
    }

    fn settings(&self, text: &str) -> Settings {
        settings(&format!("{text}{}", self.table()))
    }

    fn errors(&self, text: &str) -> Vec<String> {
        errors(&format!("{text}{}", self.table()))
    }

    fn warnings(&self, text: &str) -> Vec<String> {
        warnings(&format!("{text}{}", self.table()))
    }
}

fn ipv4_host() -> Host {
    let all = host();
    let ipv4 = |list: Vec<IpAddr>| list.into_iter().filter(IpAddr::is_ipv4).collect();
    Host { addresses: ipv4(all.addresses), primary: ipv4(all.primary), ..all }
}

fn accept(text: &str) -> Loaded {
    parse(text, "t.toml", &host()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors of a text, one line each.
fn refuse(text: &str) -> Vec<String> {
    refuse_on(text, &host())
}

fn refuse_on(text: &str, host: &Host) -> Vec<String> {
    let errors = parse(text, "t.toml", host).expect_err("was accepted");
    errors.errors.iter().map(ToString::to_string).collect()
}

/// Accepts `text` with credentials added.
fn settings(text: &str) -> Settings {
    accept(&format!("{text}\n{CREDENTIALS}")).settings
}

/// The errors of `text` with credentials added after it.
fn errors(text: &str) -> Vec<String> {
    refuse(&format!("{text}\n{CREDENTIALS}"))
}

/// The warnings of `text` with credentials added.
fn warnings(text: &str) -> Vec<String> {
    accept(&format!("{text}\n{CREDENTIALS}")).warnings.iter().map(ToString::to_string).collect()
}

/// The errors of a user table.
fn user_errors(user: &str) -> Vec<String> {
    refuse(&format!("[auth]\nrealm = \"r\"\n[[auth.user]]\n{user}\n"))
}

fn user(user: &str) -> settings::User {
    let loaded = accept(&format!("[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\n{user}\n"));
    loaded.settings.auth.users[0].clone()
}

#[test]
fn credentials_alone_give_the_defaults() {
    let settings = settings("");
    assert_eq!(settings.listeners.len(), 1);
    let listener = &settings.listeners[0];
    assert_eq!(listener.addresses, ["0.0.0.0".parse::<IpAddr>().unwrap(), "::".parse().unwrap()]);
    assert!(listener.port == 3478 && listener.udp && listener.tcp && !listener.tls && !listener.dtls);
    let relayed: Vec<String> = settings.relay.addresses.iter().map(|address| address.local.to_string()).collect();
    assert_eq!(relayed, ["192.0.2.7", "2001:db8::7"]);
    assert_eq!((settings.relay.min_port, settings.relay.max_port), (49_152, 65_535));
    assert_eq!(settings.relay.default_family, DefaultFamily::Ipv4);
    assert_eq!(settings.auth.stale_nonce, Duration::from_secs(3_600));
    assert_eq!(settings.lifetimes.default_allocate, Duration::from_secs(600));
    assert_eq!(settings.limits.realm, RealmLimits::default());
    assert_eq!(settings.limits.total, HolderLimits::default());
    assert_eq!(settings.limits.unauthorized_rate, Some(100));
    assert_eq!(settings.limits.binding_rate, Some(200));
    assert_eq!(settings.process.workers, 3);
    assert_eq!(settings.process.listener_buffer, Some(4 << 20));
    assert!(settings.redirect.is_none());
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = "\
[limits]
user-qouta = 5
total-quota = \"many\"

[lifetimes]
channel-lifetime = \"ten\"

[auth]
realm = \"\"
[[auth.user]]
name = \"demo\"
password = 12345
[relay]
min-port = 80
[limit]
";
    assert_eq!(
        refuse(text),
        [
            "t.toml:2:1: limits.user-qouta = 5: unknown key; did you mean `user-quota`?",
            "t.toml:3:15: limits.total-quota = \"many\": is of type string, expected an integer; write an integer without quotes",
            "t.toml:6:20: lifetimes.channel-lifetime = \"ten\": is not a duration; write a duration like \"90s\", \"10m\", \"1h\", \
             \"500ms\" or a whole number of seconds",
            "t.toml:9:9: auth.realm = \"\": is empty; write a value",
            "t.toml:12:12: auth.user.password = ****: is of type integer, expected a string; write a string, in quotes",
            "t.toml:14:12: relay.min-port = 80: is out of range; write a number from 1024 to 65535",
            "t.toml:15:2: limit = {…}: unknown table; did you mean `limits`?",
        ]
    );
}

#[test]
fn nothing_is_accepted_without_credentials() {
    let lines = refuse("");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("t.toml: auth.user: there are no credentials; add [[auth.user]]"), "{lines:?}");
    assert!(lines[1].starts_with("t.toml: auth.realm: is missing"), "{lines:?}");
    assert!(refuse("[auth]\nrealm = \"r\"\nanonymous = false\n")[0].contains("there are no credentials"));
    assert!(refuse("[auth]\nrealm = \"r\"\nuser = []\n")[0].contains("is empty"));
}

#[test]
fn anonymous_is_explicit_and_exclusive() {
    let loaded = accept("[[listener]]\nlistening-ip = \"127.0.0.1\"\n[auth]\nanonymous = true\n");
    assert!(loaded.settings.auth.anonymous && loaded.settings.auth.users.is_empty());
    assert_eq!(loaded.settings.auth.realm, "turnserver");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(accept("[auth]\nanonymous = true\n").warnings[0].what.contains("anyone who reaches this server"));
    let both = refuse(&CREDENTIALS.replace("realm", "anonymous = true\nrealm"));
    assert!(both[0].starts_with("t.toml:2:13: auth.anonymous = true: users are listed"), "{both:?}");
    assert_eq!(refuse("[auth]\nrealm = \"r\"\nanonymous = \"yes\"\n").len(), 1, "one error for one mistake");
}

#[test]
fn a_key_in_the_wrong_table_is_sent_home() {
    assert_eq!(
        errors("[relay]\nuser-quota = 3"),
        ["t.toml:2:1: relay.user-quota = 3: unknown key; `user-quota` lives in [limits]"]
    );
    assert_eq!(
        errors("listening-port = 3479"),
        ["t.toml:1:1: listening-port = 3479: unknown key; `listening-port` lives in [[listener]]"]
    );
    assert_eq!(errors("[[listner]]"), ["t.toml:1:3: listner = […]: unknown table; did you mean `listener`?"]);
    assert_eq!(
        errors("[listener]\nlistening-port = 1"),
        ["t.toml:1:1: listener: is a single table, expected a list of tables; write it as [[listener]]"]
    );
    assert!(
        errors("[[relay]]\nmin-port = 5000")[0].contains("is of type array, expected a table; write it as [relay]")
    );
}

#[test]
fn duplicate_keys_and_tables_are_errors() {
    let twice = errors("[limits]\nuser-quota = 1\nuser-quota = 2\nbinding-rte = 1");
    assert_eq!(twice[0], "t.toml:3:1: user-quota: duplicate key; remove one");
    assert!(twice[1].contains("did you mean `binding-rate`?"), "the rest is still read: {twice:?}");
    assert!(errors("[limits]\n[limits]")[0].contains("duplicate key"));
}

#[test]
fn broken_syntax_has_a_line_and_shows_no_secret() {
    let lines = refuse("[auth]\nrealm = \"r\"\n[[auth.user]]\npassword = \"hunter2\n");
    assert!(lines[0].starts_with("t.toml:4:"), "{lines:?}");
    assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
}

#[test]
fn secrets_never_show_wherever_they_are_written() {
    for text in [
        "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\npasswrd = \"hunter2\"\n",
        "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\npassword = [\"hunter2\"]\n",
        "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\nkey = \"hunter2\"\n",
        "[auth]\nrealm = \"r\"\nuser = \"demo:hunter2\"\n",
        "[auth]\nrealm = \"r\"\nuser = [\"demo:hunter2\"]\n",
        "[auth]\nrealm = \"r\"\nlt-cred = \"hunter2\"\n",
        "auth = \"hunter2\"\n",
        "password = \"hunter2\"\n",
        "[user]\nname = \"hunter2\"\n",
        "logs = [[{ word = \"hunter2\" }]]\n",
        "users = [{ password = \"hunter2\" }]\n",
        "log = { passwords = { demo = \"hunter2\" } }\n",
        "[log]\nstatic-auth-secret = \"hunter2\"\n",
    ] {
        let lines = refuse(text).join("\n");
        assert!(!lines.contains("hunter2"), "{lines}");
    }
    let loaded = accept(&CREDENTIALS.replace("\"pw\"", "\"hunter2\""));
    assert!(!format!("{loaded:?}{}", Effective(&loaded.settings)).contains("hunter2"));
}

#[test]
fn addresses_must_be_on_this_host() {
    let lines = errors("[[listener]]\nlistening-ip = [\"192.0.2.7\", \"192.0.2.8\"]");
    assert_eq!(
        lines,
        [
            "t.toml:2:30: listener.listening-ip = \"192.0.2.8\": is not an address of this host; write one of this host's \
          addresses: 127.0.0.1, 192.0.2.7, 10.0.0.7, ::1, 2001:db8::7"
        ]
    );
    assert!(
        errors("[relay]\nrelay-ip = \"192.0.2.8\"")[0]
            .contains("relay.relay-ip = \"192.0.2.8\": is not an address of this host")
    );
    assert_eq!(settings("[[listener]]\nlistening-ip = \"127.9.9.9\"").relay.addresses.len(), 1);
    let unserved = refuse_on(&format!("[[listener]]\nlistening-ip = \"::\"\n{CREDENTIALS}"), &ipv4_host());
    assert_eq!(unserved, ["t.toml:2:16: listener.listening-ip = \"::\": this host has no IPv6 address; remove it"]);
}

#[test]
fn listeners_must_not_repeat_each_other() {
    let twin = "[[listener]]\nlistening-ip = \"192.0.2.7\"\n";
    assert_eq!(
        errors(&format!("{twin}{twin}transports = [\"udp\"]")),
        [
            "t.toml:4:16: listener.listening-ip = \"192.0.2.7\": UDP port 3478 of 192.0.2.7 is already listened on (line 2); \
          remove one, or change its listening-port or transports"
        ]
    );
    assert_eq!(settings(&format!("{twin}transports = [\"tcp\"]\n{twin}transports = \"udp\"")).listeners.len(), 2);
    assert_eq!(settings(&format!("{twin}listening-port = 0\n{twin}listening-port = 0")).listeners.len(), 2);
    assert_eq!(errors("[[listener]]\n[[listener]]").len(), 4, "both families, both transports");
    assert!(errors("[[listener]]\ntransports = [\"udp\", \"udp\"]")[0].contains("is listed twice"));
    assert!(errors("[[listener]]\ntransports = []")[0].contains("is empty"));
    assert!(errors("[[listener]]\nlistening-ip = []")[0].contains("is empty"));
    assert!(errors("[[listener]]\nlistening-port = 70000")[0].contains("write a number from 0 to 65535"));
}

#[test]
fn secured_transports_have_a_default_port_and_share_ports() {
    let files = Pem::new(&["turn.example.org"]);
    let settings =
        files.settings("[[listener]]\ntransports = \"tls\"\n[[listener]]\ntransports = [\"tls\", \"tcp\"]\n");
    let ports: Vec<_> = settings.listeners.iter().map(|it| (it.port, it.udp, it.tcp, it.tls)).collect();
    assert_eq!(ports, [(5349, false, false, true), (3478, false, true, true)]);
    let twins = "[[listener]]\nlistening-ip = \"10.0.0.7\"\nlistening-port = 443\ntransports = \"tls\"\n";
    let lines = files.errors(&format!("{twins}{}", twins.replace("tls", "tcp")));
    assert_eq!(
        lines,
        [
            "t.toml:6:16: listener.listening-ip = \"10.0.0.7\": TCP port 443 of 10.0.0.7 is already listened on (line 2); \
          remove one, or change its listening-port or transports"
        ]
    );
    assert_eq!(
        errors("[[listener]]\ntransports = \"dtls\""),
        ["t.toml: tls.cert: is missing, but a [[listener]] serves TLS or DTLS; write cert and pkey, two PEM files \
             (`turnserver certificate` makes them for tests), or remove \"tls\" and \"dtls\" from transports",]
    );
    let dtls = "[[listener]]\ntransports = [\"tls\", \"dtls\"]\n";
    let settings = files.settings(&format!("{dtls}[[listener]]\ntransports = [\"udp\", \"dtls\"]\n"));
    let ports: Vec<_> = settings.listeners.iter().map(|it| (it.port, it.udp, it.tls, it.dtls)).collect();
    assert_eq!(ports, [(5349, false, true, true), (3478, true, false, true)]);
}

#[test]
fn dtls_has_no_version_1_3() {
    let files = Pem::new(&["turn.example.org"]);
    let newest = |transport: &str| {
        let serves = format!("[[listener]]\ntransports = \"{transport}\"\n");
        format!("{serves}{}min-version = \"1.3\"\n", files.table())
    };
    assert_eq!(settings(&newest("tls")).tls.unwrap().min_version, TlsVersion::V1_3);
    let lines = errors(&newest("dtls"));
    assert!(lines.len() == 1 && lines[0].contains("serves DTLS, which is there in version 1.2 only"), "{lines:?}");
}

#[test]
fn balancers_are_networks_and_only_for_streams() {
    let one = |proxies: &str| format!("[[listener]]\ntransports = \"tcp\"\nproxy-protocol = {proxies}\n");
    let listener = &settings(&one("[\"10.0.0.0/24\", \"192.0.2.9\"]")).listeners[0];
    assert_eq!(listener.proxies, ["10.0.0.0/24".parse().unwrap(), "192.0.2.9/32".parse().unwrap()]);
    assert!(errors(&one("[]"))[0].contains("proxy-protocol = []: is empty"));
    assert!(errors(&one("\"localhost\""))[0].contains("is not an IP address"));
    assert!(errors(&one("\"10.0.0.0/8\"").replace("tcp", "udp"))[0].contains("is for TCP and TLS"));
    assert!(warnings(&one("\"0.0.0.0/0\""))[0].contains("lets every client choose the address"));
}

#[test]
fn certificates_are_read_and_checked() {
    let files = Pem::new(&["turn.example.org", "*.example.net"]);
    let tls = files.settings(SERVES_TLS).tls.unwrap();
    assert_eq!(tls.certificates[0].names, ["turn.example.org", "*.example.net"]);
    assert_eq!((tls.min_version, tls.max_handshakes), (TlsVersion::V1_2, 1_000));
    assert!(tls.clients.is_none());
    assert!(files.settings("").tls.is_none(), "nobody serves it");
    assert!(files.warnings("")[0].contains("no [[listener]] serves TLS or DTLS"));

    let other = Pem::new(&["other.example.org"]);
    let path = |file: &str| other.path(file);
    let missing = other.path("missing.pem");
    std::fs::write(path("empty.pem"), "").unwrap();
    std::fs::write(path("junk.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::write(
        path("encrypted.pem"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    for (cert, pkey, wanted) in [
        (&missing, &path("key.pem"), "cannot read"),
        (&path("cert.pem"), &missing, "cannot read"),
        (&path(""), &path("key.pem"), "is not a file"),
        (&path("empty.pem"), &path("key.pem"), "holds no certificate in PEM"),
        (&path("key.pem"), &path("key.pem"), "holds no certificate in PEM"),
        (&path("junk.pem"), &path("key.pem"), "does not begin with an X.509 certificate"),
        (&path("cert.pem"), &path("empty.pem"), "holds no usable private key"),
        (&path("cert.pem"), &path("cert.pem"), "holds no usable private key"),
        (&path("cert.pem"), &path("encrypted.pem"), "is encrypted"),
        (&path("cert.pem"), &files.path("key.pem"), "is not the key of the first certificate in"),
    ] {
        let lines = errors(&format!("{SERVES_TLS}[tls]\ncert = {cert:?}\npkey = {pkey:?}\n"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(wanted) && lines[0].contains("t.toml:"), "{wanted}: {lines:?}");
    }
    let alone = format!("{SERVES_TLS}[tls]\ncert = {:?}\n", path("cert.pem"));
    assert_eq!(errors(&alone), ["t.toml:3:1: tls.pkey: is missing; write the PEM file of the private key"]);
}

#[test]
fn certificates_that_need_attention_are_warned_about() {
    let mut old = rcgen::CertificateParams::new(["old.example.org".to_owned()]).unwrap();
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    assert!(Pem::of(old.clone()).warnings(SERVES_TLS)[0].contains("has expired"));
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(3000, 1, 1), rcgen::date_time_ymd(3001, 1, 1));
    assert!(Pem::of(old).warnings(SERVES_TLS)[0].contains("is not valid before"));
    let nameless = Pem::new(&[]);
    assert!(nameless.warnings(SERVES_TLS).is_empty(), "the first is for everybody");
    let second = format!(
        "{SERVES_TLS}{}[[tls.certificate]]\ncert = {:?}\npkey = {:?}\n",
        Pem::new(&["turn.example.org"]).table(),
        nameless.path("cert.pem"),
        nameless.path("key.pem")
    );
    assert!(refuse(&format!("{second}{CREDENTIALS}")).len() == 2, "the first pair of files is gone");
    let first = Pem::new(&["turn.example.org"]);
    let second =
        format!("[[tls.certificate]]\ncert = {:?}\npkey = {:?}\n", nameless.path("cert.pem"), nameless.path("key.pem"));
    assert!(warnings(&format!("{SERVES_TLS}{}{second}", first.table()))[0].contains("holds no DNS name"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(first.path("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(first.warnings(SERVES_TLS)[0].contains("is readable by everyone"));
    }
}

#[test]
fn clients_may_have_to_show_certificates() {
    let files = Pem::new(&["turn.example.org"]);
    let clients = |more: &str| format!("{SERVES_TLS}{}client-ca = {:?}\n{more}", files.table(), files.path("cert.pem"));
    assert!(settings(&clients("")).tls.unwrap().clients.unwrap().required);
    assert!(!settings(&clients("client-certificate = \"optional\"\n")).tls.unwrap().clients.unwrap().required);
    let without = errors(&format!("{SERVES_TLS}{}client-certificate = \"required\"\n", files.table()));
    assert!(without[0].contains("is given without client-ca"), "{without:?}");
    let wrong = errors(&format!("{SERVES_TLS}{}client-ca = {:?}\n", files.table(), files.path("key.pem")));
    assert!(wrong[0].contains("holds no certificate in PEM"), "{wrong:?}");
}

#[test]
fn relay_addresses_follow_the_listeners() {
    let local = |text: &str| -> Vec<String> {
        settings(text).relay.addresses.iter().map(|address| address.local.to_string()).collect()
    };
    assert_eq!(local("[[listener]]\nlistening-ip = [\"10.0.0.7\", \"::1\"]"), ["10.0.0.7", "::1"]);
    assert_eq!(local("[[listener]]\nlistening-ip = [\"10.0.0.7\", \"::\"]"), ["10.0.0.7", "2001:db8::7"]);
    assert_eq!(local("[relay]\nrelay-ip = [\"10.0.0.7\", \"192.0.2.7\"]"), ["10.0.0.7", "192.0.2.7"]);
    assert!(errors("[relay]\nrelay-ip = \"0.0.0.0\"")[0].contains("relay sockets need a specific address"));
    assert!(errors("[relay]\nrelay-ip = []")[0].contains("is empty"));
    assert!(errors("[relay]\nrelay-ip = [\"10.0.0.7\", \"10.0.0.7\"]")[0].contains("is listed twice"));
    let nowhere = Host { primary: Vec::new(), ..host() };
    assert!(refuse_on(CREDENTIALS, &nowhere)[0].contains("no address of this host can be relayed from"));
    let bare = Host { addresses: Vec::new(), primary: Vec::new(), ..host() };
    assert!(refuse_on(CREDENTIALS, &bare)[0].contains("this host has no address to listen on"));
}

#[test]
fn external_addresses_map_relay_addresses() {
    let mapped = |text: &str| settings(text).relay.addresses;
    let address = |local: &str, external: &str| RelayAddress {
        local: local.parse().unwrap(),
        external: external.parse().unwrap(),
    };
    assert_eq!(
        mapped("[relay]\nexternal-ip = [\"203.0.113.1\", \"2001:db8:f::1/2001:db8::7\"]"),
        [address("192.0.2.7", "203.0.113.1"), address("2001:db8::7", "2001:db8:f::1")]
    );
    assert_eq!(
        mapped("[relay]\nrelay-ip = [\"10.0.0.7\", \"192.0.2.7\"]\nexternal-ip = \"203.0.113.1/10.0.0.7\""),
        [address("10.0.0.7", "203.0.113.1"), address("192.0.2.7", "192.0.2.7")]
    );
    let shared = errors("[relay]\nrelay-ip = [\"10.0.0.7\", \"192.0.2.7\"]\nexternal-ip = \"203.0.113.1\"");
    assert!(shared[0].contains("would stand for 2 relay addresses"), "{shared:?}");
    let second = errors("[relay]\nexternal-ip = [\"203.0.113.1\", \"203.0.113.2\"]");
    assert!(second[0].contains("is a second external address for IPv4; write one per family"), "{second:?}");
    assert!(errors("[relay]\nexternal-ip = \"203.0.113.1/10.0.0.9\"")[0].contains("10.0.0.9 is not a relay address"));
    let lonely = errors("[relay]\nrelay-ip = \"10.0.0.7\"\nexternal-ip = \"2001:db8:f::1\"");
    assert!(lonely[0].contains("there is no relay address of this family"), "{lonely:?}");
}

#[test]
fn relay_ports_and_family_make_sense() {
    assert_eq!(
        errors("[relay]\nmin-port = 60000\nmax-port = 50000"),
        [
            "t.toml:2:12: relay.min-port = 60000: the relay ports begin at 60000 and end at 50000; write a min-port that is not \
          above max-port"
        ]
    );
    assert!(errors("[relay]\nmax-port = 50")[0].contains("write a number from 1024 to 65535"));
    assert_eq!(errors("[relay]\nmin-port = \"x\"\nmax-port = 2000").len(), 1, "one error for one mistake");
    assert!(
        errors("[relay]\nmax-port = 2000")[0]
            .starts_with("t.toml:2:12: relay.max-port = 2000: the relay ports begin at 49152")
    );
    let family = errors("[relay]\nrelay-ip = \"10.0.0.7\"\nallocation-default-address-family = \"ipv6\"");
    assert!(family[0].contains("there is no relay address of this family"), "{family:?}");
    assert_eq!(settings("").relay.socket_buffer, Some(1 << 20));
    assert_eq!(settings("[relay]\nsocket-buffer = \"2MiB\"").relay.socket_buffer, Some(2 << 20));
    assert_eq!(settings("[relay]\nsocket-buffer = \"system\"").relay.socket_buffer, None);
}

fn ipv6_host() -> Host {
    let all = host();
    let ipv6 = |list: Vec<IpAddr>| list.into_iter().filter(IpAddr::is_ipv6).collect();
    Host { addresses: ipv6(all.addresses), primary: ipv6(all.primary), ..all }
}

#[test]
fn a_host_without_ipv4_is_served_by_ipv6_alone() {
    let loaded = parse(CREDENTIALS, "t.toml", &ipv6_host()).unwrap();
    assert_eq!(loaded.settings.listeners[0].addresses, ["::".parse::<IpAddr>().unwrap()]);
    assert_eq!(loaded.settings.relay.addresses.len(), 1);
    assert_eq!(loaded.settings.relay.default_family, DefaultFamily::Ipv4);
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("clients that ask for no family are refused (440); write \"keep\""), "{warning}");
    // What is printed reads back.
    let printed = Effective(&loaded.settings).to_string();
    assert_eq!(Effective(&parse(&printed, "t.toml", &ipv6_host()).unwrap().settings).to_string(), printed);

    let built_in = embedded_for("built-in", &ipv6_host()).unwrap();
    assert_eq!(built_in.loaded.settings.relay.default_family, DefaultFamily::Keep);
    assert!(built_in.loaded.warnings.is_empty());
}

#[test]
fn a_host_without_ipv6_is_served_by_ipv4_alone() {
    let loaded = parse(CREDENTIALS, "t.toml", &ipv4_host()).unwrap();
    assert_eq!(loaded.settings.listeners[0].addresses, ["0.0.0.0".parse::<IpAddr>().unwrap()]);
    assert!(loaded.settings.relay.addresses.len() == 1 && loaded.warnings.is_empty());
}

#[test]
fn users_have_one_name_and_one_secret() {
    assert!(user_errors("password = \"x\"")[0].contains("auth.user.name: is missing"));
    assert!(user_errors("name = \"u\"")[0].contains("this user has no secret"));
    assert_eq!(
        user_errors("name = \"u\"\npassword = \"x\"\npassword-env = \"SET\""),
        [
            "t.toml:6:16: auth.user.password-env = \"SET\": the secret is given twice, as password and as password-env; keep one"
        ]
    );
    assert!(user_errors("name = \"u\"\npassword = \"x\"\nkey-env = \"KEY\"")[0].contains("as password and as key-env"));
    assert!(user_errors("name = \"\"\npassword = \"x\"")[0].contains("is empty"));
    assert!(user_errors("name = \"u\"\npassword = \"\"")[0].contains("is empty"));
    let twins = user_errors("name = \"u\"\npassword = \"x\"\n[[auth.user]]\nname = \"u\"\npassword = \"y\"");
    assert_eq!(twins, ["t.toml:7:8: auth.user.name = \"u\": this user exists already (line 4); remove one"]);
    assert!(user_errors(&format!("name = \"{}\"\npassword = \"x\"", "u".repeat(509)))[0].contains("is too long"));
    assert!(refuse(&CREDENTIALS.replace("example.org", &"r".repeat(128)))[0].contains("is too long"));
}

#[test]
fn keys_are_hexadecimal() {
    let digits = "00112233445566778899aabbccddeeff";
    let md5 = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    for written in [digits.to_owned(), format!("0x{digits}"), digits.to_uppercase()] {
        let UserSecret::Keys { md5: Secret(key), sha256: None } = user(&format!("key = \"{written}\"")).secret else {
            panic!("not a key");
        };
        assert_eq!(*key, md5);
    }
    let both = user(&format!("key = \"{digits}\"\nkey-sha256 = \"{digits}{digits}\"")).secret;
    let UserSecret::Keys { sha256: Some(Secret(sha256)), .. } = both else { panic!("no SHA-256 key") };
    assert_eq!(sha256[16..], md5);
    for bad in [&digits[1..], "0x", &format!("{digits}00"), &digits.replace('f', "g"), &digits.replace("ff", "é")] {
        let lines = user_errors(&format!("name = \"u\"\nkey = \"{bad}\""));
        assert!(lines[0].contains("auth.user.key = ****: is not a key of 32 hexadecimal digits"), "{lines:?}");
    }
    assert!(
        user_errors(&format!("name = \"u\"\nkey = \"{digits}\"\nkey-sha256 = \"00\""))[0].contains("64 hexadecimal")
    );
    assert!(user_errors("name = \"u\"\nkey-sha256 = \"00\"")[0].contains("the MD5 key is missing"));
    assert!(user_errors("name = \"u\"\npassword = \"x\"\nkey-sha256 = \"00\"")[0].contains("next to a password"));
}

#[test]
fn secrets_come_from_the_environment() {
    let UserSecret::Password(Secret(password)) = user("password-env = \"SET\"").secret else { panic!("no password") };
    assert_eq!(*password, "from-env");
    let UserSecret::Keys { md5: Secret(md5), .. } = user("key-env = \"KEY\"").secret else { panic!("no key") };
    assert_eq!(md5[15], 1);
    assert_eq!(
        user_errors("name = \"u\"\npassword-env = \"UNSET\""),
        [
            "t.toml:5:16: auth.user.password-env = \"UNSET\": the environment variable is not set; set it to the secret before \
          the server starts"
        ]
    );
    assert!(user_errors("name = \"u\"\npassword-env = \"EMPTY\"")[0].contains("is empty"));
}

#[test]
fn files_can_be_credentials_of_the_service() {
    let errors = user_errors("name = \"u\"\npassword-file = \"credential:demo.password\"");
    assert_eq!(
        errors,
        [
            "t.toml:5:17: auth.user.password-file = \"credential:demo.password\": there are no credentials: the environment \
          variable CREDENTIALS_DIRECTORY is not set; add LoadCredential=demo.password:/a/file to the unit, or write the path of a \
          file"
        ]
    );
    let pem = Pem::new(&["turn.example.org"]);
    std::fs::write(pem.path("demo.password"), "from-systemd\n").unwrap();
    CREDENTIALS_FOLDER.set(Some(pem.0.path().display().to_string()));
    let UserSecret::Password(Secret(password)) = user("password-file = \"credential:demo.password\"").secret else {
        panic!("no password")
    };
    assert_eq!(*password, "from-systemd");
    let tls = "[tls]\ncert = \"credential:cert.pem\"\npkey = \"credential:key.pem\"\n";
    assert_eq!(settings(&format!("{SERVES_TLS}{tls}")).tls.unwrap().certificates.len(), 1);
    let missing = user_errors("name = \"u\"\npassword-file = \"credential:other\"");
    assert!(missing[0].contains(&format!("cannot read {}", pem.path("other"))), "{missing:?}");
    for name in ["", ".", "..", "../demo.password", "/etc/shadow"] {
        let errors = user_errors(&format!("name = \"u\"\npassword-file = \"credential:{name}\""));
        assert!(errors[0].contains("does not name a credential"), "{errors:?}");
    }
}

#[test]
fn secrets_come_from_files_next_to_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("t.toml").display().to_string();
    let put = |file: &str, content: &[u8], mode: u32| {
        let path = folder.path().join(file);
        fs::write(&path, content).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        #[cfg(not(unix))]
        let _ = mode;
    };
    put("good", b"s e c r e t\r\n", 0o600);
    put("open", b"secret", 0o644);
    put("empty", b"\n", 0o600);
    put("lines", b"one\ntwo\n", 0o600);
    put("binary", &[0xff, 0xfe], 0o600);
    put("large", &[b'x'; 70_000], 0o600);
    let with = |file: &str| {
        let text = format!("[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"u\"\npassword-file = \"{file}\"\n");
        parse(&text, &name, &host())
    };
    let good = with("good").unwrap();
    let UserSecret::Password(Secret(password)) = &good.settings.auth.users[0].secret else { panic!("no password") };
    assert_eq!(**password, "s e c r e t");
    assert!(good.warnings.is_empty());
    #[cfg(unix)]
    assert!(with("open").unwrap().warnings[0].what.ends_with("open is readable by everyone"));
    let error = |file: &str| with(file).unwrap_err().errors[0].what.clone();
    assert!(error("missing").contains("missing: ") && error("missing").starts_with("cannot read "));
    assert!(error("empty").ends_with("empty is empty"));
    assert!(error("lines").contains("holds more than one line"));
    assert!(error("binary").starts_with("cannot read "));
    assert!(error("large").contains("is too large for a secret"));
}

#[test]
fn a_file_with_secrets_in_it_is_the_servers_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let warnings = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let loaded = parse(text, path.to_str().unwrap(), &host()).unwrap_or_else(|errors| panic!("{errors}"));
        loaded.warnings.into_iter().map(|warning| warning.what).collect::<Vec<_>>()
    };
    let what = "this file holds secrets and is readable by everyone";
    assert_eq!(warnings(CREDENTIALS, 0o644), [what]);
    assert!(warnings(CREDENTIALS, 0o640).is_empty());
    assert!(warnings(&CREDENTIALS.replace("password = \"pw\"", "password-env = \"SET\""), 0o644).is_empty());
    let secret = "[auth]\nrealm = \"r\"\nstatic-auth-secret = \"0123456789abcdef\"\n";
    assert_eq!(warnings(secret, 0o604), [what]);
}

/// [auth] with this in it.
fn auth(more: &str) -> String {
    format!("[auth]\nrealm = \"example.org\"\n{more}\n")
}

const SECRET: &str = "static-auth-secret = \"0123456789abcdef\"";

#[test]
fn secrets_have_names_and_may_be_many() {
    let settings = accept(&auth(&format!(
        "{SECRET}\nexpiry-grace = \"5m\"\nrest-api-username = \"user:expiry\"\nrest-api-separator = \"|\"\n\
         [[auth.secret]]\nname = \"new\"\nsecret-env = \"SET\"\nalgorithm = \"sha256\""
    )))
    .settings;
    let Mechanisms { secrets, rest, .. } = &settings.auth.mechanisms;
    assert_eq!(secrets.iter().map(|secret| &*secret.name).collect::<Vec<_>>(), ["static-auth-secret", "new"]);
    assert_eq!((&**secrets[0].key, &**secrets[1].key), (&b"0123456789abcdef"[..], &b"from-env"[..]));
    assert_eq!((secrets[0].algorithm, secrets[1].algorithm), (RestAlgorithm::Sha1, RestAlgorithm::Sha256));
    assert_eq!((rest.form, rest.separator), (RestForm::UserExpiry, '|'));
    assert_eq!(settings.auth.expiry_grace, Duration::from_secs(300));
    let one = |more: &str| refuse(&auth(more)).remove(0);
    assert!(one("[[auth.secret]]\nsecret = \"x\"").contains("auth.secret.name: is missing"));
    assert!(one("[[auth.secret]]\nname = \"x\"").contains("auth.secret.secret: is missing; write secret, secret-file"));
    assert!(one("static-auth-secret = \"x\"\nstatic-auth-secret-env = \"SET\"").contains("is given twice"));
    let twice = "[[auth.secret]]\nname = \"x\"\nsecret = \"y\"\n";
    assert!(one(&[twice, twice].concat()).contains("is another secret's name"));
    assert!(one(&format!("{SECRET}\nrest-api-separator = \"a\"")).contains("is no separator"));
    assert!(one(&format!("{SECRET}\nrest-api-username = \"user\"")).contains("is not a known choice"));
    let many = (0..33).map(|at| format!("[[auth.secret]]\nname = \"{at}\"\nsecret = \"0123456789abcdef\"\n"));
    assert!(one(&many.collect::<String>()).contains("is one more than 32 secrets"));
}

#[test]
fn a_tenant_is_there_for_all_secrets_or_for_none() {
    let one = |more: &str| refuse(&auth(more)).remove(0);
    let acme = "[[auth.secret]]\nname = \"x\"\nsecret = \"0123456789abcdef\"\ntenant = \"acme\"\n";
    let with_tenants = "rest-api-username = \"expiry:tenant:user\"\n";
    assert!(one(acme).contains("is for a tenant, which user names do not have"));
    assert!(one(&format!("{with_tenants}{SECRET}")).contains("is for no tenant, but user names have one"));
    assert!(accept(&auth(&format!("{with_tenants}{acme}"))).warnings.is_empty());
    let colon = acme.replace("acme", "a:b");
    assert!(one(&format!("{with_tenants}{colon}")).contains("contains ':'"));
}

#[test]
fn weak_secrets_and_idle_keys_are_warned_about() {
    let warning = |more: &str| accept(&auth(more)).warnings.remove(0).to_string();
    assert!(
        warning("static-auth-secret = \"change-me\"")
            .contains("static-auth-secret = ****: is the secret of the examples")
    );
    assert!(warning("static-auth-secret = \"short\"").contains("is short"));
    let user = "[[auth.user]]\nname = \"u\"\npassword = \"p\"";
    assert!(warning(&format!("rest-api-separator = \"|\"\n{user}")).contains("is of use with secrets only"));
    assert!(warning(&format!("server-name = \"x\"\n{user}")).contains("is of use with access tokens only"));
}

/// Keys as `turnutils_uclient -J` has them: in base64, and longer than needed.
#[test]
fn token_keys_are_base64_of_enough_bytes() {
    let key = |more: &str| auth(&format!("[[auth.token-key]]\n{more}"));
    let settings = accept(&key(
        "kid = \"north\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\"\n[[auth.token-key]]\nkid = \"union\"\n\
         key = \"MTIzNDU2Nzg5MDEyMzQ1Ngo=\"\nalgorithm = \"A128GCM\"",
    ))
    .settings;
    let keys = &settings.auth.mechanisms.token_keys;
    assert_eq!(keys.iter().map(|key| (&*key.kid, key.key.0.len())).collect::<Vec<_>>(), [("north", 33), ("union", 17)]);
    let one = |more: &str| refuse(&key(more)).remove(0);
    assert!(one("kid = \"x\"\nkey = \"MTIz\"").contains("key = ****: has 3 bytes, but A256GCM takes 32"));
    assert!(one("kid = \"x\"\nkey = \"?\"").contains("is not base64"));
    assert!(one("key-env = \"SET\"").contains("auth.token-key.kid: is missing"));
    assert!(one("kid = \"x\"").contains("auth.token-key.key: is missing"));
}

#[test]
fn a_realm_has_the_limits_of_all_where_it_says_nothing() {
    let text = format!(
        "{}\n[limits]\nuser-quota = 5\nuser-max-bps = \"2Mbit/s\"\ntotal-quota = 9\n[[realm]]\nname = \"a.org\"\n{SECRET}\n\
         [realm.limits]\nuser-quota = 0\nrealm-quota = 7\n[[realm]]\nname = \"b.org\"\n{SECRET}\n",
        auth(SECRET)
    );
    let settings = accept(&text).settings;
    let own = settings.realms[0].limits.unwrap();
    assert_eq!((own.user.allocations, own.realm.allocations), (None, Some(7)));
    assert_eq!(own.user.bits_per_second, Some(2_000_000));
    assert_eq!(settings.limits.realm.user.allocations, Some(5));
    assert_eq!(settings.realms[1].limits, None);
    let refused = refuse(&text.replace("realm-quota = 7", "total-quota = 7"));
    assert!(
        refused[0].contains("realm.limits.total-quota = 7: unknown key; `total-quota` lives in [limits]"),
        "{refused:?}"
    );
    let monthly = refuse(&text.replace("realm-quota = 7", "user-bytes-per-month = \"1GB\""));
    assert!(monthly[0].contains("needs state-directory"), "{monthly:?}");
}

#[test]
fn realms_have_names_of_their_own_and_somebody_in_them() {
    let base = format!("{}\n", auth(SECRET));
    let with = |more: &str| format!("{base}{more}");
    let realm = |name: &str| format!("[[realm]]\nname = \"{name}\"\n{SECRET}\n");
    let listener = "[[listener]]\n[[listener]]\nlistening-port = 3479\nrealm = \"b.org\"\n";
    let peers = "[realm.peers]\nallowed-peer-ip = \"10.0.0.0/8\"\n";
    let settings = accept(&with(&[&realm("a.org"), &realm("b.org"), peers, listener].concat())).settings;
    let realms: Vec<_> = settings.realms.iter().map(|realm| (&*realm.name, realm.announced)).collect();
    assert_eq!(realms, [("a.org", false), ("b.org", true)]);
    assert_eq!(settings.listeners.iter().map(|listener| listener.realm.0).collect::<Vec<_>>(), [0, 2]);
    assert!(settings.realms[0].peers.is_none());
    assert_eq!(settings.realms[1].peers.as_ref().unwrap().allowed.len(), 1);
    let one = |more: &str| refuse(&with(more)).remove(0);
    assert!(one("[[realm]]\nname = \"a.org\"\n").contains("nobody can get into this realm"));
    assert!(one(&format!("[[realm]]\n{SECRET}\n")).contains("realm.name: is missing"));
    assert!(one(&realm("example.org")).contains("is the realm of [auth]"));
    assert!(one(&[realm("a.org"), realm("a.org")].concat()).contains("is another realm's name"));
    assert!(one(&realm("a@b.org")).contains("contains `@`"));
    let unknown = one(&[&realm("a.org"), listener].concat());
    assert!(unknown.contains("is no realm; write one of example.org, a.org, or add a [[realm]]"), "{unknown}");
    let anonymous = format!("[auth]\nanonymous = true\n{}", realm("a.org"));
    assert!(refuse(&anonymous)[0].contains("nobody is asked who they are"));
    assert!(
        refuse(&format!("[auth]\nanonymous = true\n{SECRET}\n"))[0].contains("secrets are given, but nobody is asked")
    );
    // Users of the default realm are not needed where there are others.
    assert_eq!(accept(&format!("[auth]\nrealm = \"r\"\n{}", realm("a.org"))).settings.realms.len(), 1);
}

#[test]
fn clients_are_told_where_the_world_sees_the_server() {
    let uris = |more: &str| client_uris(&settings(more));
    assert_eq!(
        uris(""),
        [
            "stun:192.0.2.7:3478",
            "turn:192.0.2.7:3478?transport=udp",
            "turn:192.0.2.7:3478?transport=tcp",
            "stun:[2001:db8::7]:3478",
            "turn:[2001:db8::7]:3478?transport=udp",
            "turn:[2001:db8::7]:3478?transport=tcp",
        ]
    );
    let nat =
        "[[listener]]\nlistening-ip = \"10.0.0.7\"\ntransports = \"udp\"\n[relay]\nexternal-ip = \"203.0.113.1\"\n";
    assert_eq!(uris(nat), ["stun:203.0.113.1:3478", "turn:203.0.113.1:3478?transport=udp"]);
    let files = Pem::new(&["*.example.org", "turn.example.org"]);
    let tls = files.settings(&format!("{SERVES_TLS}listening-ip = \"10.0.0.7\"\n"));
    assert_eq!(client_uris(&tls), ["turns:turn.example.org:5349?transport=tcp"]);
    assert!(uris("[[listener]]\nlistening-port = 0\n").is_empty());
    let given = accept(&auth(&format!("uris = [\"turn:turn.example.org\"]\n{SECRET}"))).settings;
    assert_eq!(client_uris(&given), ["turn:turn.example.org"]);
    let wrong = refuse(&auth(&format!("uris = \"https://turn.example.org\"\n{SECRET}")));
    assert!(wrong[0].contains("is no URI of a STUN or TURN server"));
}

#[test]
fn lifetimes_make_sense() {
    assert_eq!(
        errors("[lifetimes]\nmax-allocate-lifetime = \"5m\""),
        [
            "t.toml:2:25: lifetimes.max-allocate-lifetime = \"5m\": the default lifetime 10m is above the longest, 5m; write a \
          max-allocate-lifetime that is not below default-allocate-lifetime"
        ]
    );
    assert!(
        errors("[lifetimes]\ndefault-allocate-lifetime = \"2h\"")[0].starts_with("t.toml:2:29: lifetimes.default-")
    );
    assert!(
        errors("[lifetimes]\ndefault-allocate-lifetime = \"500ms\"")[0].contains("is not a whole number of seconds")
    );
    assert!(errors("[auth]\nstale-nonce = 0")[0].contains("is zero"));
    let short =
        warnings("[lifetimes]\npermission-lifetime = 2\nchannel-lifetime = \"3s\"\nreservation-lifetime = \"1s\"");
    assert_eq!(short.len(), 3, "{short:?}");
    assert!(short[0].contains("RFC 8656 says 5m"), "{short:?}");
    assert!(warnings("[lifetimes]\npermission-lifetime = 300\nreservation-lifetime = \"1m\"").is_empty());
}

#[test]
fn tcp_is_relayed_on_demand_and_something_is_relayed_always() {
    let relay = settings("").relay;
    assert_eq!((relay.udp, relay.tcp), (true, false));
    let relay = settings("[relay]\nudp-relaying = false\ntcp-relaying = true").relay;
    assert_eq!((relay.udp, relay.tcp), (false, true));
    assert_eq!(
        errors("[relay]\nudp-relaying = false"),
        [
            "t.toml:2:16: relay.udp-relaying = false: is false, and so is tcp-relaying: nothing could be relayed; set one of the two \
          to true"
        ]
    );
    let short = warnings("[lifetimes]\nconnect-timeout = \"29s\"\nconnection-bind-timeout = \"31s\"");
    assert_eq!(short.len(), 2, "{short:?}");
    assert!(short.iter().all(|warning| warning.contains("RFC 6062 says 30s")), "{short:?}");
    assert!(warnings("[lifetimes]\nconnect-timeout = \"1m\"").is_empty());
}

#[test]
fn limits_are_read_by_holder_and_kind() {
    let limits = settings(
        "[limits]\nuser-quota = 3\ntenant-unused-quota = 9\nmax-bps = \"1Mbit/s\"\nuser-max-bps = \"250KB/s\"\n\
         bps-capacity = \"1Gbit/s\"\npps-capacity = 70000\nrealm-new-peer-rate = 4\nuser-bytes-per-month = \"5GB\"\n\
         state-directory = \"state\"\nallocation-rate = 2\nburst = \"1s\"",
    )
    .limits;
    assert_eq!(limits.realm.allocation, HolderLimits { bits_per_second: Some(1_000_000), ..HolderLimits::default() });
    let user = HolderLimits {
        allocations: Some(3),
        bits_per_second: Some(2_000_000),
        bytes_per_month: Some(5_000_000_000),
        ..HolderLimits::default()
    };
    assert_eq!(limits.realm.user, user);
    assert_eq!(limits.realm.tenant, HolderLimits { unused: Some(9), ..HolderLimits::default() });
    assert_eq!(limits.realm.realm, HolderLimits { new_peers_per_second: Some(4), ..HolderLimits::default() });
    let total = HolderLimits {
        bits_per_second: Some(1_000_000_000),
        packets_per_second: Some(70_000),
        ..HolderLimits::default()
    };
    assert_eq!(limits.total, total);
    assert_eq!((limits.allocation_rate, limits.burst), (Some(2), Duration::from_secs(1)));
    assert_eq!(limits.state_directory.as_deref(), Some(Path::new("state")));
    let defaults = settings("").limits;
    assert_eq!((defaults.allocation_rate, defaults.burst), (None, Duration::from_millis(200)));
}

#[test]
fn limits_that_cannot_work_say_why() {
    let bare = &errors("[limits]\nmax-bps = 1000000")[0];
    assert!(
        bare.contains("has no unit; write a bandwidth like") && bare.contains("coturn's numbers are bytes"),
        "{bare}"
    );
    for burst in ["49ms", "61s"] {
        assert!(errors(&format!("[limits]\nburst = \"{burst}\""))[0].contains("from \"50ms\" to \"1m\""));
    }
    let homeless = &errors("[limits]\ntotal-bytes-per-month = \"1TB\"")[0];
    assert!(
        homeless.contains("limits.total-bytes-per-month") && homeless.contains("needs state-directory"),
        "{homeless}"
    );
    assert!(warnings("[limits]\nstate-directory = \"x\"")[0].contains("no bytes per month are limited"));
    let above = warnings("[limits]\nmax-bps = \"2Mbit/s\"\nuser-max-bps = \"1Mbit/s\"");
    assert!(above[0].contains("max-bps") && above[0].contains("is above user-max-bps and never reached"), "{above:?}");
}

#[test]
fn zero_is_unlimited_for_quotas_and_rates_only() {
    let limits = settings("[limits]\nuser-quota = 0\ntotal-quota = 7\nunauthorized-rate = 0\nbinding-rate = 9").limits;
    assert_eq!((limits.realm.user.allocations, limits.total.allocations), (None, Some(7)));
    assert_eq!((limits.unauthorized_rate, limits.binding_rate), (None, Some(9)));
    let per_allocation = ["permissions-per-allocation", "channels-per-allocation", "connections-per-allocation"];
    for key in per_allocation.into_iter().chain(["source-prefix-ipv4", "source-prefix-ipv6"]) {
        assert!(errors(&format!("[limits]\n{key} = 0"))[0].contains("is out of range"), "{key}");
    }
    assert!(errors("[limits]\nconnections-per-allocation = 10001")[0].contains("write a number from 1 to 10000"));
    assert!(errors("[limits]\nsource-prefix-ipv4 = 33")[0].contains("write a number from 1 to 32"));
    assert!(warnings("[limits]\nuser-quota = 9\ntotal-quota = 7")[0].contains("is above total-quota (7)"));
}

#[test]
fn peer_lists_must_not_contradict_themselves() {
    let peers =
        settings("[peers]\nallowed-peer-ip = \"10.1.0.0/16\"\ndenied-peer-ip = [\"10.0.0.0/8\", \"192.0.2.1\"]").peers;
    assert_eq!((peers.allowed.len(), peers.denied.len()), (1, 2));
    assert_eq!(
        errors("[peers]\nallowed-peer-ip = \"10.0.0.0/8\"\ndenied-peer-ip = \"10.0.0.0-10.255.255.255\""),
        [
            "t.toml:3:18: peers.denied-peer-ip = \"10.0.0.0-10.255.255.255\": 10.0.0.0/8 is both allowed and denied; remove it \
          from allowed-peer-ip or from denied-peer-ip"
        ]
    );
    assert!(
        warnings("[peers]\ndenied-peer-ip = [\"8.8.8.8\", \"8.8.8.8/32\"]")[0].contains("8.8.8.8/32 is listed twice")
    );
    assert!(warnings("[peers]\nallowed-peer-ip = \"0.0.0.0/0\"")[0].contains("opens this host's own services"));
    assert!(warnings("[peers]\nallowed-peer-ip = \"169.254.0.0/16\"")[0].contains("metadata"));
    assert_eq!(errors("[peers]\nallowed-peer-ip = [\"nonsense\", \"10.0.0.1/8\"]").len(), 2, "each element on its own");
}

#[test]
fn redirects_lead_elsewhere() {
    let text = "[redirect]\nalternate-server = [\"198.51.100.1\", \"[2001:db8::9]:443\"]\nalternate-domain = \"turn.example.org\"";
    let redirect = settings(text).redirect.unwrap();
    let [plain, secure] = [[true, true, false, false], [false, false, true, true]];
    let servers: Vec<_> = redirect.servers.iter().map(|it| (it.address.to_string(), it.transports())).collect();
    let of = |address: &str, transports| (address.to_owned(), transports);
    assert_eq!(
        servers,
        [
            of("198.51.100.1:3478", plain),
            of("[2001:db8::9]:443", plain),
            of("198.51.100.1:5349", secure),
            of("[2001:db8::9]:5349", secure)
        ]
    );
    assert!(redirect.servers.iter().all(|server| server.domain.as_deref() == Some("turn.example.org")));
    assert!(redirect.servers.iter().all(|server| server.weight == 1));
    assert_eq!(redirect.share, 100);
    assert!(settings("[redirect]").redirect.is_none());
    assert!(errors("[redirect]\nalternate-domain = \"a.example\"")[0].contains("is given without alternate-server"));
    assert!(errors("[redirect]\nalternate-server = []")[0].contains("is empty"));
    assert!(errors("[redirect]\nalternate-server = \"192.0.2.7\"")[0].contains("is this server itself"));
    assert!(
        errors("[redirect]\nalternate-server = [\"198.51.100.1\", \"198.51.100.1:3478\"]")[0]
            .contains("is listed twice")
    );
    assert!(settings("[redirect]\nalternate-server = \"192.0.2.7:3479\"").redirect.is_some());
    let secured = |text: &str| -> Vec<SocketAddr> {
        let servers = settings(text).redirect.unwrap().servers;
        assert!(servers.iter().all(|server| server.udp == server.tcp && server.tls == server.dtls));
        servers.into_iter().filter(|server| server.tls && !server.udp).map(|server| server.address).collect()
    };
    let two = "[redirect]\nalternate-server = [\"198.51.100.1:80\", \"2001:db8::9\"]\n";
    assert_eq!(secured(two), ["198.51.100.1:5349".parse().unwrap(), "[2001:db8::9]:5349".parse().unwrap()]);
    let other = format!("{two}tls-alternate-server = [\"198.51.100.2\", \"198.51.100.2:443\"]\n");
    assert_eq!(secured(&other), ["198.51.100.2:5349".parse().unwrap(), "198.51.100.2:443".parse().unwrap()]);
    assert!(
        errors("[redirect]\ntls-alternate-server = \"198.51.100.2\"")[0].contains("given without alternate-server")
    );
    let both = "[redirect]\nalternate-server = [\"198.51.100.1\", \"198.51.100.1:80\"]\n";
    assert_eq!(secured(both), ["198.51.100.1:5349".parse().unwrap()]);
    assert!(errors(&format!("{two}tls-alternate-server = []"))[0].contains("is empty"));
    let files = Pem::new(&["turn.example.org"]);
    let own = files.errors(&format!("{SERVES_TLS}[redirect]\nalternate-server = \"192.0.2.7:3479\"\n"));
    assert!(own[0].contains("would send clients over TLS to 192.0.2.7:5349"), "{own:?}");
}

/// Two addresses of IPv4, and a key to add.
fn discovery(more: &str) -> String {
    format!("[nat-discovery]\nprimary-ip = \"192.0.2.7\"\nalternate-ip = \"10.0.0.7\"\n{more}\n")
}

#[test]
fn nat_discovery_is_off_unless_configured() {
    assert_eq!(settings("").nat_discovery, None);
    assert_eq!(settings("[nat-discovery]").nat_discovery, None);
}

#[test]
fn nat_discovery_listens_on_both_ports_of_both_addresses() {
    let offered = settings(&discovery(""));
    let discovery_ = offered.nat_discovery.as_ref().unwrap();
    assert_eq!((discovery_.primary_port, discovery_.alternate_port, discovery_.tcp), (3478, 3479, true));
    let local = discovery_.pairs[0].map(|address| address.local.to_string());
    assert_eq!(local, ["192.0.2.7", "10.0.0.7"]);
    // The default listener has the primary port everywhere.
    let added = &offered.listeners[1..];
    assert_eq!(added.len(), 1);
    assert!(added[0].port == 3479 && added[0].udp && added[0].tcp);
    assert_eq!(added[0].addresses, ["192.0.2.7".parse::<IpAddr>().unwrap(), "10.0.0.7".parse().unwrap()]);
    // It is no reason to relay from there.
    assert_eq!(offered.relay.addresses.len(), 2);

    let listeners = "[[listener]]\nlistening-ip = \"192.0.2.7\"\ntransports = [\"udp\"]\n\
                     [[listener]]\nlistening-ip = \"10.0.0.7\"\nlistening-port = 3479\ntransports = [\"tcp\"]\n";
    let mixed = settings(&format!("{listeners}{}", discovery("")));
    let added: Vec<String> =
        mixed.listeners[2..].iter().map(|it| format!("{} {:?} {} {}", it.port, it.addresses, it.udp, it.tcp)).collect();
    assert_eq!(
        added,
        [
            "3478 [192.0.2.7] false true",
            "3478 [10.0.0.7] true true",
            "3479 [10.0.0.7] true false",
            "3479 [192.0.2.7] true true"
        ]
    );
    let udp_only = settings(&format!("[[listener]]\ntransports = [\"udp\"]\n{}", discovery("")));
    assert!(udp_only.listeners.iter().all(|listener| !listener.tcp) && !udp_only.nat_discovery.unwrap().tcp);
}

#[test]
fn nat_discovery_needs_two_addresses_of_a_family_and_two_ports() {
    for (text, wanted) in [
        (
            "[nat-discovery]\nprimary-port = 3478",
            "nat-discovery.primary-ip: is missing; write primary-ip and alternate-ip",
        ),
        ("[nat-discovery]\nprimary-ip = \"192.0.2.7\"", "there is no alternate IPv4 address; add another address"),
        ("[nat-discovery]\nalternate-ip = \"192.0.2.7\"", "there is no primary IPv4 address that this could be"),
        (&discovery("").replace("10.0.0.7", "2001:db8::7"), "there is no alternate IPv4 address"),
        (&discovery("").replace("10.0.0.7", "192.0.2.7"), "192.0.2.7 is the primary address; write another"),
        (
            &discovery("").replace("10.0.0.7", "192.0.2.8"),
            "\"192.0.2.8\": is not an address of this host; write one of",
        ),
        (&discovery("").replace("10.0.0.7", "0.0.0.0"), "\"0.0.0.0\": is not one address"),
        (
            "[nat-discovery]\nprimary-ip = [\"192.0.2.7\", \"10.0.0.7\"]\nalternate-ip = \"127.0.0.1\"",
            "\"10.0.0.7\": is a second IPv4 address; write one for each family",
        ),
        (&discovery("alternate-port = 3478"), "primary and alternate port are both 3478; write two different ports"),
        (&discovery("primary-port = 3479"), "primary and alternate port are both 3479"),
        (&discovery("primary-port = 0"), "is out of range; write a number from 1 to 65535"),
        (
            &discovery("external-ip = \"203.0.113.1\""),
            "does not say which address it stands for; write it as \"public/private\", e.g. \"203.0.113.1/192.0.2.7\"",
        ),
        (&discovery("external-ip = \"203.0.113.1/192.0.2.9\""), "192.0.2.9 is no address of NAT discovery"),
        (
            &discovery("external-ip = \"203.0.113.1/192.0.2.7\""),
            "10.0.0.7 has no external address, the other address of its pair has; add \"public/10.0.0.7\"",
        ),
        (
            &discovery("external-ip = [\"203.0.113.1/192.0.2.7\", \"203.0.113.1/10.0.0.7\"]"),
            "maps an address that is mapped already",
        ),
        (
            &format!("[[listener]]\n[[listener]]\nlistening-port = 3479\ntransports = [\"tls\"]\n{}", discovery("")),
            "port 3479 of 192.0.2.7 is a listener's for TLS or DTLS alone",
        ),
        (&discovery("alternate-prot = 1"), "did you mean `alternate-port`?"),
    ] {
        let lines = errors(text);
        assert!(lines.iter().any(|line| line.contains(wanted)), "{text}: {lines:?}");
    }
}

#[test]
fn nat_discovery_tells_external_addresses() {
    let seen = |text: &str| -> Vec<String> {
        settings(text).nat_discovery.unwrap().external().map(|address| address.to_string()).collect()
    };
    let both = "external-ip = [\"203.0.113.1/192.0.2.7\", \"203.0.113.2/10.0.0.7\"]";
    let mapped = ["203.0.113.1:3478", "203.0.113.1:3479", "203.0.113.2:3478", "203.0.113.2:3479"];
    assert_eq!(seen(&discovery(both)), mapped);
    let relay = "[relay]\nrelay-ip = \"192.0.2.7\"\nexternal-ip = \"203.0.113.1\"\n";
    let other = discovery("external-ip = \"203.0.113.2/10.0.0.7\"");
    assert_eq!(seen(&format!("{relay}{other}")), mapped);
    assert!(errors(&format!("{relay}{}", discovery("")))[0].contains("10.0.0.7 has no external address"));
}

#[test]
fn a_redirect_says_for_which_transport_how_often_and_by_what_name() {
    let server = |address: &str, more: &str| format!("[[redirect.server]]\naddress = \"{address}\"\n{more}\n");
    let tls = server("198.51.100.1:443", "transports = [\"tls\", \"dtls\"]\nweight = 3\ndomain = \"a.example.org\"");
    let udp = server("198.51.100.1:443", "transports = \"udp\"\nweight = 0");
    let redirect = settings(&format!("[redirect]\nshare = 25\n{tls}{udp}")).redirect.unwrap();
    assert_eq!(redirect.share, 25);
    let [first, second] = &redirect.servers[..] else { panic!("{redirect:?}") };
    assert_eq!((first.transports(), first.weight), ([false, false, true, true], 3));
    assert_eq!((first.domain.as_deref(), second.weight), (Some("a.example.org"), 0));
    assert_eq!((second.transports(), &second.domain), ([true, false, false, false], &None));
    for (text, error) in [
        (format!("{tls}{tls}"), "is listed twice"),
        (format!("{tls}[[redirect.server]]\naddress = \"198.51.100.1:443\""), "is listed twice"),
        (udp.clone(), "no server has a weight above 0"),
        (server("192.0.2.7", ""), "is this server itself"),
        ("[[redirect.server]]\nweight = 1".to_owned(), "is missing"),
        ("[redirect]\nshare = 0".to_owned(), "share"),
        ("[redirect]\nshare = 50".to_owned(), "is given without a server"),
        (server("198.51.100.1", "transports = []"), "is empty"),
    ] {
        assert!(errors(&text)[0].contains(error), "{text}: {:?}", errors(&text));
    }
}

#[test]
fn tcp_process_and_log_make_sense() {
    let tcp = settings("[tcp]\nmax-connections = 50\nqueue-bytes = \"64KiB\"\nqueue-age = \"250ms\"").tcp;
    assert_eq!((tcp.max_connections, tcp.max_connections_per_ip, tcp.queue_bytes), (50, 50, 65_536));
    assert!(
        errors("[tcp]\nmax-connections = 5\nmax-connections-per-ip = 6")[0].contains("is above max-connections (5)")
    );
    assert!(errors("[tcp]\nqueue-bytes = 1")[0].contains("write a size from 16KiB to 1GiB"));
    assert!(errors("[process]\nworkers = 0")[0].contains("write \"auto\" or 1 to 256"));
    assert!(errors("[log]\nlevel = \"inof\"")[0].contains("did you mean `info`?"));
    assert!(errors("[compatibility]\nrfc3489 = 1")[0].contains("is of type integer, expected true or false"));
    assert_eq!(settings("[process]\nworkers = 7\nlistener-buffer = \"system\"").process.listener_buffer, None);
    let process = settings("[process]\npin-workers = true\nudp-io = \"batched\"").process;
    assert_eq!((process.pin_workers, process.udp_io), (true, settings::UdpIo::Batched));
    assert!(errors("[process]\nudp-io = \"batch\"")[0].contains("did you mean \"batched\"?"));
}

/// A configuration with this `[store]` and nobody else to let in.
fn store(table: &str) -> String {
    format!("[auth]\nrealm = \"r\"\n[store]\n{table}")
}

const SERVICE: &str = "type = \"http\"\nurl = \"https://users.example/turn\"\nsecret = \"0123456789abcdef\"\n";

#[test]
fn a_store_stands_in_for_users() {
    let settings = accept(&store("type = \"sqlite\"\npath = \"turndb\"")).settings;
    let found = settings.store.unwrap();
    assert!(matches!(&found.backend, StoreBackend::Sqlite(path) if path == Path::new("turndb")));
    let StoreLimits { timeout, max_questions, cache_entries, cache_time, negative_cache_time, max_failures, max_pause } =
        found.limits;
    assert_eq!([timeout, cache_time, negative_cache_time, max_pause].map(|time| time.as_secs()), [2, 60, 10, 30]);
    assert_eq!((found.connections, max_questions, cache_entries, max_failures), (4, 1_000, 10_000, 3));
    assert!(settings.auth.users.is_empty());
    for (kind, url) in [
        ("postgresql", "postgresql://turn:x@db/turn"),
        ("mysql", "mysql://db/turn"),
        ("redis", "redis://:x@db/0"),
        ("redis", "rediss://db"),
    ] {
        let loaded = accept(&store(&format!("type = {kind:?}\nurl = {url:?}")));
        assert_eq!(loaded.settings.store.unwrap().backend.name(), kind);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    assert!(accept(&store(SERVICE)).warnings.is_empty());
    let plain = accept(&store(&SERVICE.replace("https", "http")));
    assert!(plain.warnings[0].what.contains("for everybody on the way to read"));
    assert!(accept(&store(&SERVICE.replace("https://users.example", "http://[::1]:8080"))).warnings.is_empty());
}

#[test]
fn a_store_that_makes_no_sense_is_refused() {
    for (table, expected) in [
        ("timeout = \"1s\"", "store.type: is missing; write \"sqlite\", \"postgresql\""),
        ("type = \"postgres\"", "did you mean \"postgresql\"?"),
        ("type = \"sqlite\"", "store.path: is missing"),
        ("type = \"sqlite\"\npath = \"x\"\nurl = \"y\"", "store.url = ****: means nothing to this type of store"),
        ("type = \"redis\"\npath = \"x\"\nurl = \"redis://db\"", "store.path = \"x\": means nothing to this type"),
        ("type = \"mysql\"", "store.url: is missing; write url, url-file or url-env"),
        ("type = \"mysql\"\nurl = \"redis://db\"", "store.url = ****: does not begin with mysql:// or mariadb://"),
        ("type = \"mysql\"\nurl = \"hunter2\"", "store.url = ****: is not a URL"),
        ("type = \"mysql\"\nurl = \"mysql:hunter2\"", "store.url = ****: names no host"),
        ("type = \"mysql\"\nurl-env = \"UNSET\"", "the environment variable is not set"),
        ("type = \"mysql\"\nurl = \"mysql://db\"\nurl-env = \"SET\"", "is given twice, as url and as url-env"),
        ("type = \"http\"\nurl = \"https://a.example\"", "store.secret: is missing"),
        ("type = \"http\"\nurl = \"https://a.example\"\nsecret = \"hunter2\"", "store.secret = ****: is too short"),
        (
            "type = \"http\"\nurl = \"https://u:hunter2@a.example\"\nsecret = \"0123456789abcdef\"",
            "holds a name or password",
        ),
        ("type = \"sqlite\"\npath = \"x\"\ntimeout = \"2m\"", "is longer than anybody waits"),
        ("type = \"sqlite\"\npath = \"x\"\nconnections = 0", "write a number from 1 to 1000"),
        ("type = \"sqlite\"\npath = \"x\"\ncache-size = 1", "store.cache-size = ****: unknown key"),
    ] {
        let lines = refuse(&store(table));
        assert!(lines.iter().any(|line| line.contains(expected)), "{table}: {lines:?}");
        assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
    }
    let anonymous = refuse("[auth]\nanonymous = true\n[store]\ntype = \"sqlite\"\npath = \"x\"");
    assert!(anonymous[0].contains("a store of users is given, but nobody is asked"));
}

#[cfg(unix)]
#[test]
fn a_database_file_that_everybody_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turndb");
    fs::write(&path, "").unwrap();
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = accept(&store(&format!("type = \"sqlite\"\npath = {path:?}")));
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
    }
}

#[test]
fn management_is_on_loopback_unless_there_is_a_token() {
    let management = |text: &str| settings(&format!("[management]\n{text}")).management;
    let wrong = |text: &str| errors(&format!("[management]\n{text}"));
    let default = management("");
    assert_eq!(default.listen, Some(settings::Access { at: "127.0.0.1:9641".parse().unwrap(), required: false }));
    let off = management("listen = \"off\"\nsocket = \"off\"");
    assert_eq!((off.listen, off.socket), (None, None));
    let token = "token = \"0123456789abcdef\"";
    assert!(wrong("listen = \"0.0.0.0:9641\"")[0].contains("there is no token"));
    assert!(wrong("listen = \"10.0.0.7:9641\"")[0].contains("there is no token"));
    assert!(management(&format!("listen = \"10.0.0.7:9641\"\n{token}")).listen.unwrap().required);
    assert!(wrong(&format!("listen = \"10.9.9.9:9641\"\n{token}"))[0].contains("is not an address of this host"));
    assert!(wrong("listen = \"127.0.0.1\"")[0].contains("is not an address with a port"));
    assert!(wrong("listen = \"127.0.0.1:3478\"")[0].contains("is where clients are served"));
    let relaying = "[relay]\ntcp-relaying = true\n[management]\nlisten = \"0.0.0.0:50000\"\n";
    assert!(errors(&format!("{relaying}{token}"))[0].contains("is a port of the relay range"));
    for short in ["token = \"0123456789abcde\"", "token = \"0123456789 abcdef\"", "token = \"zoë-zoë-zoë-zoë-zoë\""]
    {
        let errors = wrong(short);
        assert!(errors[0].contains("16 or more printable") && errors[0].contains("****"), "{errors:?}");
    }
    assert!(wrong(&format!("{token}\ntoken-file = \"t\""))[0].contains("given twice"));
    let named = management("host-names = \"TURN.example.org\"");
    assert_eq!((named.host_names, named.web_page), (vec!["TURN.example.org".to_owned()], true));
    for name in ["turn.example.org:9641", "http://turn.example.org", "*.example.org", ""] {
        assert!(wrong(&format!("host-names = {name:?}"))[0].contains("is not a domain name"), "{name}");
    }
    let long = format!("socket = \"/{}\"", "s".repeat(103));
    assert!(wrong(&long)[0].contains("too long for a Unix socket"));
}

#[test]
fn offload_is_off_unless_asked_for() {
    let offload = settings("").offload;
    assert_eq!((offload.mode, offload.interfaces.len()), (settings::OffloadMode::Off, 0));
    let offload = settings("[offload]\nmode = \"native\"\ninterfaces = [\"eth0\", \"eth1.5\"]\nchannels = 7").offload;
    assert_eq!(offload.mode, settings::OffloadMode::Native);
    assert_eq!((offload.interfaces, offload.channels), (vec!["eth0".to_owned(), "eth1.5".to_owned()], 7));
    assert!(errors("[offload]\nmode = \"on\"")[0].contains("write one of \"off\", \"auto\""));
    assert!(errors("[offload]\ninterfaces = \"a name that is too long\"")[0].contains("no name of an interface"));
    assert!(errors("[offload]\nchannels = 0")[0].contains("write a number from 1 to 1048576"));
}

#[test]
fn what_check_prints_reads_back_to_the_same() {
    let everything = "\
[[listener]]
listening-ip = [\"10.0.0.7\", \"192.0.2.7\"]
transports = [\"tcp\"]
[[listener]]
listening-port = 0
[relay]
external-ip = [\"203.0.113.1/192.0.2.7\", \"2001:db8:f::1\"]
socket-buffer = \"64KiB\"
[limits]
user-quota = 5
user-unused-quota = 20
realm-quota = 50
allocation-rate = 9
max-bps = \"1500kbit/s\"
bps-capacity = \"1Gbit/s\"
tenant-max-pps = 7000
new-peer-rate = 5
tenant-bytes-per-month = \"100GB\"
burst = \"1s\"
state-directory = \"/var/lib/turnserver\"
[peers]
denied-peer-ip = [\"10.0.0.1-10.0.0.6\"]
[redirect]
alternate-server = \"198.51.100.1\"
alternate-domain = \"turn.example.org\"
share = 50
[[redirect.server]]
address = \"198.51.100.2:5349\"
transports = \"tls\"
weight = 7
domain = \"b.example.org\"
[nat-discovery]
primary-ip = \"192.0.2.7\"
alternate-ip = \"10.0.0.7\"
alternate-port = 3480
external-ip = \"203.0.113.2/10.0.0.7\"
[tcp]
queue-age = \"1500ms\"
[process]
pin-workers = true
udp-io = \"batched\"
drain-timeout = \"5m\"
drain-error = 486
[management]
listen = \"10.0.0.7:9641\"
socket = \"off\"
token = \"0123456789abcdef\"
public-metrics = true
coturn-metrics = true
web-page = false
host-names = [\"turn.example.org\"]
[offload]
mode = \"generic\"
interfaces = [\"eth0\", \"eth1\"]
channels = 100
[log]
level = \"info,turnserver::turn=debug\"
format = \"json\"
";
    let files = Pem::new(&["turn.example.org"]);
    let clients = format!("min-version = \"1.3\"\nclient-ca = {:?}\n", files.path("cert.pem"));
    let tls =
        format!("[[listener]]\ntransports = \"tls\"\nproxy-protocol = \"10.0.0.0/8\"\n{}{clients}", files.table());
    let realms = "[[listener]]\nrealm = \"a.org\"\n[[realm]]\nname = \"a.org\"\nrest-api-username = \"expiry:tenant:user\"\n\
                  [[realm.secret]]\nname = \"s\"\nsecret = \"0123456789abcdef\"\nalgorithm = \"sha256\"\ntenant = \"t\"\n\
                  [[realm.user]]\nname = \"u\"\npassword = \"p\"\n[realm.peers]\ndenied-peer-ip = \"192.0.2.0/24\"\n\
                  [realm.limits]\nuser-quota = 3\nmax-bps = \"1Mbit/s\"\n";
    let databases = "[store]\ntype = \"postgresql\"\nurl = \"postgresql://turn:hunter2@db/turn?sslmode=require\"\ntimeout = \"1500ms\"\n";
    let service = format!("[store]\n{SERVICE}ca = {:?}\n", files.path("cert.pem"));
    let file = "[store]\ntype = \"sqlite\"\npath = \"turndb\"\ncache-entries = 0\n";
    for text in ["", everything, &tls, realms, databases, &service, file] {
        let printed = Effective(&settings(text)).to_string();
        assert!(printed.contains("password = \"****\"") && !printed.contains("hunter2"), "{printed}");
        assert_eq!(Effective(&accept(&printed).settings).to_string(), printed);
    }
}

#[test]
fn keys_are_masked_when_printed() {
    let digits = "00112233445566778899aabbccddeeff";
    let text =
        format!("[auth]\nrealm=\"r\"\n[[auth.user]]\nname=\"u\"\nkey=\"{digits}\"\nkey-sha256=\"{digits}{digits}\"\n");
    let printed = Effective(&accept(&text).settings).to_string();
    assert!(printed.contains("key = \"****\"\nkey-sha256 = \"****\"") && !printed.contains("0011"), "{printed}");
}

#[test]
fn the_built_in_configuration_has_a_fresh_password() {
    let [one, other] = [(); 2].map(|()| embedded_for("built-in", &host()).unwrap());
    assert_ne!(one.password, other.password);
    assert!(one.password.len() >= 22);
    let settings = &one.loaded.settings;
    assert_eq!(settings.auth.users[0].name, EMBEDDED_USER);
    let UserSecret::Password(Secret(password)) = &settings.auth.users[0].secret else { panic!("no password") };
    assert_eq!(**password, one.password);
    assert!(settings.listeners[0].port == 3478 && one.loaded.warnings.is_empty());
}

#[test]
fn files_that_cannot_be_read_are_errors() {
    let missing = load(Path::new("/nonexistent/t.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/t.toml: cannot read the configuration: "), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"[auth]\nrealm = \"caf\xe9\"\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
}

const EXAMPLE: &str = include_str!("../../turnserver.toml.example");

/// Keys of the example with their tables, commented-out ones included.
fn example_keys() -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let written = line.strip_prefix("# ").unwrap_or(line);
        if written.starts_with('[') {
            table = written.trim_start_matches('[').trim_end_matches(']').to_owned();
            continue;
        }
        let Some((key, _)) = written.split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            keys.insert(format!("{table}.{key}"));
        }
    }
    keys
}

/// Whether what looks like a key in the schema is a table of its own.
fn is_table(key: &str) -> bool {
    schema::table(key).is_some()
}

#[test]
fn the_example_has_every_key_and_no_other() {
    let known =
        schema::TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| format!("{}.{key}", table.name)));
    let known: BTreeSet<String> = known.filter(|key| !is_table(key)).collect();
    let keys = example_keys();
    assert!(keys.is_subset(&known), "{:?}", keys.difference(&known));
    // What a realm has in common with [auth] is documented there.
    let missing: Vec<&String> = known.difference(&keys).filter(|key| !key.starts_with("realm.")).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for table in schema::TABLES {
        let header = schema::header(table);
        let is_header = |line: &str| line.strip_prefix("# ").unwrap_or(line) == header;
        assert!(EXAMPLE.lines().any(is_header), "{header} is missing");
    }
}

#[test]
fn the_example_gives_the_built_in_defaults() {
    let defaults = "[auth]\nrealm = \"example.org\"\n[[auth.user]]\nname = \"demo\"\npassword = \"change-me\"\n";
    let example = accept(EXAMPLE);
    assert_eq!(format!("{:?}", example.settings), format!("{:?}", accept(defaults).settings));
    assert!(example.warnings[0].what.contains("password of the examples"));
}

#[test]
fn every_key_is_read() {
    for table in schema::TABLES {
        for key in table.keys {
            // A date is a value of no key: whoever reads the key refuses it.
            let header = schema::header(table);
            let text = match table.name {
                "realm" => format!("{header}\n{key} = 2000-01-01\n"),
                name if name.ends_with(".user") && key.starts_with("key-sha256") => {
                    let outer = if name == "auth.user" { "[auth]" } else { "[[realm]]" };
                    format!("{outer}\n{header}\nkey = \"{}\"\n{key} = 2000-01-01\n", "0".repeat(32))
                }
                name if name.starts_with("realm.") => format!("[[realm]]\n{header}\n{key} = 2000-01-01\n"),
                _ => format!("{header}\n{key} = 2000-01-01\n"),
            };
            let lines = refuse(&text);
            assert!(lines.iter().any(|line| line.contains("is of type datetime")), "{key}: {lines:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_damage_to_the_example_is_reported_without_panic(
        at in 0..EXAMPLE.len(), length in 0..200_usize, splice in "[\\[\\]\"'=#{}.,a-z0-9é\n -]{0,8}",
    ) {
        let head = EXAMPLE.get(..at).unwrap_or_default();
        let tail = EXAMPLE.get(at + length..).unwrap_or_default();
        if let Err(errors) = parse(&format!("{head}{splice}{tail}"), "t.toml", &host()) {
            assert!(!errors.errors.is_empty());
        }
    }
}
