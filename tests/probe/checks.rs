//! `turnserver check`: each finding caused by what it is about.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::{
    assert_found,
    common::{
        LOOPBACK, Server, loopback_with_tls,
        ports::free_port_pair,
        tls::{Authority, HOST},
    },
    fakes, json, turnserver,
};

/// A folder with a configuration that only its owner reads, and the certificate that it may name.
struct Configured(tempfile::TempDir);

impl Configured {
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(folder.path(), "cert", authority.issue(&[HOST, "127.0.0.1"]));
        let file = folder.path().join("t.toml");
        fs::write(&file, configuration).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Checks it; exit status and findings.
    fn check(&self, more: &[&str]) -> (i32, Value) {
        let file = self.path("t.toml");
        json(&[&["check", "-c", file.to_str().unwrap()], more].concat(), "")
    }
}

/// The findings of a check that has this exit status.
#[track_caller]
fn findings(configuration: &str, more: &[&str], expected: i32) -> Value {
    let (status, mut checked) = Configured::new(configuration).check(more);
    assert_eq!(status, expected, "{checked:#}");
    checked["findings"].take()
}

/// LOOPBACK without what is warned about.
fn quiet() -> String {
    let quiet = LOOPBACK.replace("[peers]\nallowed-peer-ip = [\"127.0.0.0/8\", \"::1\"]\n", "");
    assert_ne!(quiet, LOOPBACK);
    quiet
}

/// LOOPBACK on a port of its own, whatever else.
fn on_port(port: u16) -> String {
    LOOPBACK.replace("listening-port = 0", &format!("listening-port = {port}"))
}

#[test]
fn a_server_is_started_for_it_where_none_runs() {
    let three = quiet().replace(r#"["udp", "tcp"]"#, r#"["udp", "tcp", "dtls"]"#);
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let three = three.replace("listening-port = 0", &format!("listening-port = {port}"));
    let all = three + &loopback_with_tls()[LOOPBACK.len()..];
    let configured = Configured::new(&all);
    let ca = configured.path("ca.pem");
    let (status, checked) = configured.check(&["--ca", ca.to_str().unwrap()]);
    assert_eq!((status, &checked["server"]), (0, &"temporary".into()), "{checked:#}");
    let found = &checked["findings"];
    assert_found(found, ("ok", "configuration", "has no mistakes"));
    for transport in ["udp 127.0.0.1", "tcp [::1]", "tls 127.0.0.1", "dtls [::1]"] {
        assert_found(found, ("ok", transport, "a client gets"));
        assert_found(found, ("ok", transport, "and another hears it, there and back"));
    }
    assert_found(found, ("ok", "relay ports", "UDP ports from 49152 to 65535 are free on 127.0.0.1"));
    assert_found(found, ("ok", "management", "is reached from this host only"));
    assert_found(found, ("ok", "certificate", "is for turn.example.org, 127.0.0.1; its key is the right one"));
    assert_found(found, ("ok", "certificate", "leads to who is trusted by"));
    assert_found(found, ("ok", "external address", "and all listeners are local"));
    assert!(found.as_array().unwrap().iter().all(|finding| finding["level"] != "error"), "{found:#}");
    // Nothing is left of it.
    assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
}

#[test]
fn the_lines_are_for_people_and_the_password_is_in_none() {
    let configured = Configured::new(&quiet().replace("\"secret\"", "\"hunter2hunter2\""));
    let output = turnserver(&["check", "-c", configured.path("t.toml").to_str().unwrap()], "");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.starts_with("ok       configuration: has no mistakes\n"), "{printed}");
    assert!(printed.contains("\nerrors: 0, warnings: "), "{printed}");
    assert!(printed.contains("\nok       udp 127.0.0.1:") && !printed.contains("hunter2"), "{printed}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_running_server_is_tried_where_there_is_one() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let configuration = on_port(port);
    let server = Server::start(&configuration);
    let (status, checked) = Configured::new(&configuration).check(&[]);
    assert_eq!((status, &checked["server"]), (0, &"running".into()), "{checked:#}");
    assert_found(&checked["findings"], ("ok", &format!("udp 127.0.0.1:{port}"), "a client gets 127.0.0.1:"));
    // What the file says and the server does not know yet is wrong.
    let other = configuration.replace("password = \"secret\"", "password = \"changed since\"");
    let found = findings(&other, &[], 1);
    assert_found(&found, ("error", &format!("tcp 127.0.0.1:{port} allocate"), "the password is wrong"));
    let log = server.stop();
    assert!(log.matches("session begins").count() >= 4, "{log}");
}

#[test]
fn time_limited_credentials_and_keys_serve_as_well() {
    for credentials in [
        "static-auth-secret = \"the secret of the tests\"\n".to_owned(),
        // MD5(alice:example.org:secret).
        "[[auth.user]]\nname = \"alice\"\nkey = \"1a8b2edc94ac4325f8ba3c83b85c44eb\"\n".to_owned(),
    ] {
        let key = turnserver::auth::key::md5_key("alice", "example.org", "secret").unwrap();
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let credentials = credentials.replace("1a8b2edc94ac4325f8ba3c83b85c44eb", &hex);
        let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
        let (before, after) = LOOPBACK.split_once("[[auth.user]]").unwrap();
        let after = after.split_once("[peers]").unwrap().1;
        let configuration = format!("{before}{credentials}[peers]{after}")
            .replace("listening-port = 0", &format!("listening-port = {port}"));
        let server = Server::start(&configuration);
        let found = findings(&configuration, &[], 0);
        assert_found(&found, ("ok", &format!("udp 127.0.0.1:{port}"), "and another hears it"));
        server.stop();
    }
}

#[test]
fn another_program_on_the_port_is_an_error() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let _holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let found = findings(&on_port(port), &["--timeout", "500ms"], 1);
    assert_found(&found, ("error", &format!("udp 127.0.0.1:{port} challenge"), "was not answered"));
    assert_found(&found, ("error", &format!("tcp 127.0.0.1:{port} connect"), "nobody listens on this TCP port"));
}

#[test]
fn relay_ports_have_to_be_there_and_enough() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let range = |max: u16| format!("[relay]\nmin-port = {port}\nmax-port = {max}");
    let few = LOOPBACK.replace("[relay]", &range(port + 1)) + "[limits]\ntotal-quota = 100\n";
    let found = findings(&few, &[], 0);
    assert_found(&found, ("ok", "relay ports", "2 of 2 UDP ports"));
    assert_found(
        &found,
        ("warning", "relay ports", "2 ports are fewer than the 100 allocations that total-quota allows"),
    );
    assert_found(&found, ("ok", "relay ports", "the system gives others none of them"));

    let _holders = [port, port + 1].map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    let found = findings(&few, &[], 1);
    assert_found(&found, ("error", "relay ports", "0 of 2 UDP ports"));
    assert_found(&found, ("error", "udp 127.0.0.1", "508 Insufficient Capacity"));
}

#[test]
fn certificates_are_looked_at_as_clients_do() {
    let uris =
        "[auth]\nuris = [\"turns:elsewhere.example.org:5349\", \"turns:turn.example.org\", \"turn:a.example.org\"]\n";
    let configuration = loopback_with_tls().replace("[auth]\n", uris);
    let configured = Configured::new(&configuration);
    fs::set_permissions(configured.path("cert.key"), fs::Permissions::from_mode(0o660)).unwrap();
    let (status, checked) = configured.check(&[]);
    assert_eq!(status, 1, "{checked:#}");
    let found = &checked["findings"];
    assert_found(found, ("error", "certificate", "clients are told elsewhere.example.org"));
    assert!(!found.to_string().contains("told turn.example.org") && !found.to_string().contains("told a.example.org"));
    assert_found(found, ("warning", "certificate", "may be changed by others than its owner (mode 660)"));
    // Nobody here knows the authority of the tests.
    let alone =
        found.as_array().unwrap().iter().any(|finding| finding["what"].as_str().unwrap().contains("comes alone"));
    let nobody = found.as_array().unwrap().iter().any(|finding| finding["level"] == "skipped");
    assert!(alone || nobody, "{found:#}");

    let expired = Configured::new(&loopback_with_tls());
    self_signed(expired.0.path(), &["turn.example.org"], -3);
    let (status, checked) = expired.check(&[]);
    assert_eq!(status, 1);
    assert_found(&checked["findings"], ("error", "certificate", "has expired 3 days ago"));
    // The listener works all the same, for who does not look.
    assert_found(&checked["findings"], ("ok", "tls 127.0.0.1", "a client gets"));

    let nameless = Configured::new(&loopback_with_tls());
    self_signed(nameless.0.path(), &[], 5);
    let (status, checked) = nameless.check(&[]);
    assert_eq!(status, 1);
    assert_found(&checked["findings"], ("error", "certificate", "has no names"));
    assert_found(&checked["findings"], ("warning", "certificate", "expires in 5 days"));
}

/// Writes a certificate that ends in so many days.
fn self_signed(folder: &Path, names: &[&str], days: i32) {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    let now = SystemTime::now();
    let time = Duration::from_secs(86_400) * days.unsigned_abs() + Duration::from_secs(60);
    params.not_before = (now - Duration::from_secs(90 * 86_400)).into();
    params.not_after = if days < 0 { now - time } else { now + time }.into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    Authority::new().write(folder, "cert", (certificate, key.serialize_pem()));
}

#[test]
fn external_addresses_are_held_against_what_others_see() {
    let public = fakes::Stun::new("9.9.9.9");
    let address = public.address.to_string();
    let mapped = LOOPBACK.replace("[relay]", "[relay]\nexternal-ip = \"9.9.9.10/127.0.0.1\"");
    let found = findings(&mapped, &["--stun-server", &address], 1);
    let said = "clients are told 9.9.9.10, and 127.0.0.1 is seen as 9.9.9.9";
    assert_found(&found, ("error", "external address", said));
    *public.says.lock().unwrap() = "9.9.9.10".parse().unwrap();
    let found = findings(&mapped, &["--stun-server", &address], 0);
    assert_found(&found, ("ok", "external address", "127.0.0.1 is seen as 9.9.9.10, as clients are told"));

    // One that is configured, and is not there.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let found = findings(&mapped.replace("[relay]", &format!("[relay]\nstun-servers = \"{gone}\"")), &[], 0);
    assert_found(&found, ("warning", "external address", &format!("STUN server {gone} tells nothing of 127.0.0.1")));

    // Clients come from elsewhere, and are told a private address.
    let everywhere = LOOPBACK.replace("[\"127.0.0.1\", \"::1\"]\nlistening-port", "\"0.0.0.0\"\nlistening-port");
    assert_ne!(everywhere, LOOPBACK);
    let found = findings(&everywhere, &[], 0);
    assert_found(&found, ("warning", "external address", "clients are told 127.0.0.1 (loopback, RFC 1122)"));

    // What "auto" would find.
    let auto = LOOPBACK.replace(
        "[relay]",
        &format!("[relay]\nexternal-ip = \"auto\"\nmetadata-url = \"off\"\nstun-servers = \"{address}\""),
    );
    let auto = auto.replace("relay-ip = [\"127.0.0.1\", \"::1\"]", "relay-ip = \"127.0.0.1\"");
    let found = findings(&auto, &[], 0);
    assert_found(&found, ("ok", "external address", "127.0.0.1 is 9.9.9.10 (STUN server"));
    assert_found(&found, ("ok", "udp 127.0.0.1", "a client gets 9.9.9.10:"));
    let silent = auto.replace(&address, &gone.to_string());
    assert_found(&findings(&silent, &[], 1), ("error", "external address", "\"auto\" finds none for 127.0.0.1"));
}

#[test]
fn management_that_others_reach_is_warned_about() {
    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let management = format!(
        "[management]\nlisten = \"0.0.0.0:{port}\"\nsocket = \"off\"\ntoken = \"a token of the tests\"\npublic-metrics = true\n"
    );
    let found =
        findings(&format!("{LOOPBACK}{}", management.replace("a token of the tests", "a-token-of-the-tests")), &[], 0);
    assert_found(&found, ("warning", "management", "is reached from elsewhere"));
    assert_found(&found, ("warning", "management", "metrics and status are for everybody"));
    let off = format!("{LOOPBACK}[management]\nlisten = \"off\"\nsocket = \"off\"\n");
    assert_found(&findings(&off, &[], 0), ("ok", "management", "is not reached over the network"));
}

#[test]
fn limits_of_the_system_are_looked_at() {
    let processors = thread::available_parallelism().unwrap().get();
    let greedy = LOOPBACK.replace("workers = 2", &format!("workers = {}\nlistener-buffer = \"1GiB\"", processors + 1));
    let found = findings(&greedy, &[], 0);
    assert_found(&found, ("warning", "processors", &format!("{} workers for {processors} processors", processors + 1)));
    assert_found(&found, ("warning", "buffers", "process.listener-buffer wants 1073741824"));
    assert_eq!(findings_status(&greedy, &["--strict"]), 1);
    let levels: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["about"] == "descriptors")
        .map(|it| it["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels.len(), 1);
}

fn findings_status(configuration: &str, more: &[&str]) -> i32 {
    Configured::new(configuration).check(more).0
}

/// The mistakes of the file come first, and nothing is tried with them; with `--syntax-only` nothing is tried at all.
#[test]
fn a_wrong_configuration_and_syntax_only_try_nothing() {
    let wrong = Configured::new("[relay]\nmin-port = 1\n");
    let output = turnserver(&["check", "--json", "-c", wrong.path("t.toml").to_str().unwrap()], "");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));

    let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
    let _holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let taken = Configured::new(&on_port(port));
    let file = taken.path("t.toml");
    let output = turnserver(&["check", "--syntax-only", "-c", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("[[listener]]\n"));
    let output = turnserver(&["check", "--syntax-only", "--json", "-c", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
}
