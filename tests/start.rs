//! Every configuration that we hand out is started, serves its user over UDP and TCP, and TLS and DTLS where it has that, and stops
//! cleanly; so is the built-in one.
//!
//! They listen on port 3478 of all addresses, so each has a network namespace without a name, which the kernel removes
//! with the last process in it: the test starts its own binary again through `unshare --net`, with the one test
//! [`inside`] selected. Needs root, `ip` (iproute2) and `unshare` (util-linux).

mod client;
mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client::Client;
use common::process::{Process, run};
use common::{PATIENCE, await_address, dtls, tls};
use serde_json::Value;

/// Set inside a namespace: the configuration to start, or [`BUILT_IN`].
const CONFIGURATION: &str = "TURNSERVER_TEST_START";
/// No configuration at all.
const BUILT_IN: &str = "built-in";
/// The same on a host whose only IPv6 address is loopback.
const BUILT_IN_IPV4: &str = "built-in, loopback of IPv6";
/// The same on a host with IPv4 alone, IPv6 switched off.
const BUILT_IN_NO_IPV6: &str = "built-in, no IPv6";
/// The same on a host with IPv6 alone, not even loopback of IPv4.
const BUILT_IN_NO_IPV4: &str = "built-in, no IPv4";
/// The addresses of the host that a namespace stands for; documentation prefixes, connected to nothing.
const HOST: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// One start, with six clients.
const LIMIT: Duration = Duration::from_secs(120);

/// What the configurations are written for: UDP and TCP on this port.
const PORT: u16 = 3478;

/// User and password.
type Credentials<'c> = Option<(&'c str, &'c str)>;

fn in_a_namespace(configuration: &str) {
    let user = std::fs::metadata("/proc/self").expect("/proc").uid();
    assert_eq!(user, 0, "making network namespaces needs root (.ci/run sees to it)");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().expect("the test binary"));
    command.args(["--exact", "inside", "--nocapture", "--test-threads=1"]).env(CONFIGURATION, configuration);
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    let output = run(command, LIMIT);
    assert!(output.contains("served and stopped"), "nothing was tested:\n{output}");
}

fn ready_made() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).expect("config/").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[test]
fn every_ready_made_configuration_serves() {
    let files = ready_made();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        in_a_namespace(file.to_str().expect("a path in UTF-8"));
    }
}

#[test]
fn the_example_serves() {
    in_a_namespace(concat!(env!("CARGO_MANIFEST_DIR"), "/turnserver.toml.example"));
}

/// What it prints on standard output is what a browser needs.
#[test]
fn the_built_in_configuration_serves_what_it_prints() {
    in_a_namespace(BUILT_IN);
}

/// A URL with a loopback address would serve nobody.
#[test]
fn the_built_in_configuration_names_only_addresses_that_others_can_reach() {
    in_a_namespace(BUILT_IN_IPV4);
}

/// Nothing of a family that is not there is asked for, and what clients are told serves them without asking for a family.
#[test]
fn the_built_in_configuration_serves_hosts_of_one_family() {
    in_a_namespace(BUILT_IN_NO_IPV6);
    in_a_namespace(BUILT_IN_NO_IPV4);
}

/// The part inside a namespace; run as an ordinary test, it has nothing to do.
#[test]
fn inside() {
    let Ok(configuration) = std::env::var(CONFIGURATION) else { return };
    let host = match configuration.as_str() {
        BUILT_IN_IPV4 | BUILT_IN_NO_IPV6 => &HOST[..1],
        BUILT_IN_NO_IPV4 => &HOST[1..],
        _ => &HOST[..],
    };
    if configuration == BUILT_IN_NO_IPV6 {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("switching IPv6 off");
    }
    ip("link set lo up");
    if configuration == BUILT_IN_NO_IPV4 {
        ip("address del 127.0.0.1/8 dev lo");
    }
    for address in host {
        add(address);
    }
    match configuration.as_str() {
        BUILT_IN | BUILT_IN_IPV4 | BUILT_IN_NO_IPV6 | BUILT_IN_NO_IPV4 => built_in(host),
        file => configured(Path::new(file)),
    }
    eprintln!("{configuration}: served and stopped");
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    run(command, PATIENCE);
}

fn add(address: &str) {
    ip(&format!("address add {address} dev lo"));
    await_address(address.parse().expect("an address"));
}

fn configured(file: &Path) {
    // Certificates are looked for beside the file.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("turnserver.toml");
    std::fs::copy(file, &copy).expect("copying the configuration");
    let file = &copy;
    let text = std::fs::read_to_string(file).expect("the configuration");
    let settings: toml::Table = text.parse().expect("TOML");
    let listening = settings.get("listener").map(|listeners| listeners[0].get("listening-ip"));
    let addresses: Vec<IpAddr> = match listening.flatten() {
        Some(address) => vec![address.as_str().expect("one address").parse().expect("an address")],
        None => HOST.iter().map(|address| address.parse().expect("an address")).collect(),
    };
    let user = settings["auth"].get("user").map(|users| &users[0]);
    let credentials = user.map(|user| ["name", "password"].map(|key| user[key].as_str().expect("a text").to_owned()));
    let credentials = credentials.or_else(|| settings["auth"].get("static-auth-secret").map(|_| mint(file)));
    let credentials = credentials.as_ref().map(|[user, password]| (user.as_str(), password.as_str()));
    assert!(credentials.is_some() || settings["auth"]["anonymous"] == toml::Value::Boolean(true));
    let discovery = settings.get("nat-discovery").filter(|table| table.get("primary-ip").is_some()).map(|discovery| {
        let alternate = discovery["alternate-ip"].as_str().expect("one address");
        add(alternate);
        let ports = ["primary-port", "alternate-port"].map(|key| discovery[key].as_integer().expect("a port") as u16);
        let ips = [discovery["primary-ip"].as_str().expect("one address"), alternate];
        ips.map(|ip| ports.map(|port| SocketAddr::new(ip.parse().expect("an address"), port)))
    });
    let external = settings.get("relay").and_then(|relay| relay.get("external-ip")).and_then(toml::Value::as_str);
    let external = external.map(|text| text.split('/').next().unwrap_or(text).parse().expect("an address"));
    let relayed: IpAddr = external.unwrap_or(addresses[0]);

    let secured = settings.get("tls").and_then(|tls| tls.get("cert")).is_some();
    if secured {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        command.args([
            "certificate",
            "--self-signed",
            "--name",
            tls::HOST,
            "--out-cert",
            "cert.pem",
            "--out-key",
            "key.pem",
        ]);
        command.current_dir(folder.path());
        run(command, PATIENCE);
        std::fs::copy(folder.path().join("cert.pem"), folder.path().join("ca.pem")).expect("copying the certificate");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("-c").arg(file);
    let server = Process::start(command);
    server.find_line(PATIENCE, |line| line.contains(" ready ").then_some(()));
    for address in addresses {
        for transport in ["udp", "tcp"] {
            let connect = |user: Credentials<'_>| Client::new(transport, SocketAddr::new(address, PORT), user);
            serves(&connect, credentials, relayed);
        }
        for port in if secured { &[5349, 443][..] } else { &[] } {
            let server = SocketAddr::new(address, *port);
            let connect =
                |user: Credentials<'_>| Client::over_tls(tls::connect(tls::client(folder.path()), server), user);
            serves(&connect, credentials, relayed);
        }
        if secured {
            let server = SocketAddr::new(address, 5349);
            let connect = |user: Credentials<'_>| {
                let socket = UdpSocket::bind((address, 0)).expect("a socket");
                socket.connect(server).expect("connecting");
                let mut stream = dtls::prepare(folder.path(), socket);
                assert!(dtls::handshake(&mut stream, PATIENCE), "no handshake over DTLS");
                Client::over_dtls(stream, user)
            };
            serves(&connect, credentials, relayed);
        }
    }
    for address in discovery.iter().flatten().flatten() {
        for transport in ["udp", "tcp"] {
            let connect = |user: Credentials<'_>| Client::new(transport, *address, user);
            serves(&connect, credentials, relayed);
        }
    }
    stop(server);
}

/// A credential that the program makes with the configuration's secret.
fn mint(file: &Path) -> [String; 2] {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.args(["credentials", "--json", "--shape", "rest", "--user", "zoe", "-c"]).arg(file);
    let output = run(command, PATIENCE);
    let minted = output.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).expect("JSON");
    ["username", "password"].map(|key| minted[key].as_str().expect("a text").to_owned())
}

fn built_in(host: &[&str]) {
    let server = Process::start(Command::new(env!("CARGO_BIN_EXE_turnserver")));
    let entry: Value = server.find_line(PATIENCE, |line| line.starts_with('{').then(|| line.parse().expect("JSON")));
    let entry = &entry["iceServers"][0];
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let (user, password) = (text(&entry["username"]), text(&entry["credential"]));
    let urls: Vec<String> = entry["urls"].as_array().expect("urls").iter().map(text).collect();
    let sockets = host.iter().map(|address| SocketAddr::new(address.parse().expect("an address"), PORT));
    let wanted: Vec<String> = sockets
        .flat_map(|socket| ["udp", "tcp"].map(|transport| format!("turn:{socket}?transport={transport}")))
        .collect();
    assert_eq!(urls, wanted);
    for url in urls {
        let (socket, transport) = url.strip_prefix("turn:").and_then(|it| it.split_once("?transport=")).expect("a URL");
        let socket = socket.parse().expect("an address");
        let connect = |user: Credentials<'_>| Client::new(transport, socket, user);
        serves(&connect, Some((&user, &password)), host[0].parse().expect("an address"));
    }
    let log = stop(server);
    assert_eq!(log.matches(&password).count(), 1, "the password belongs on standard output, once:\n{log}");
}

/// Binding, and an allocation with the right password but not with a wrong one.
fn serves(connect: &dyn Fn(Credentials<'_>) -> Client, credentials: Credentials<'_>, relayed: IpAddr) {
    let mut client = connect(credentials);
    let mapped = client.binding();
    assert_eq!(mapped.port(), client.local().port());
    let address = client.allocate().unwrap_or_else(|refused| panic!("{}: {refused:?}", client.local()));
    assert_eq!(address.ip(), relayed, "{}", client.local());
    assert!(address.port() >= 49_152, "{address}");
    client.delete().expect("deleting the allocation");
    if let Some((user, password)) = credentials {
        let refused = connect(Some((user, &format!("{password}?")))).allocate();
        assert_eq!(refused, Err(client::Refused(401)), "{}", client.local());
    }
}

fn stop(mut server: Process) -> String {
    server.signal("TERM");
    let status = server.wait(PATIENCE).and_then(|status| status.code());
    assert_eq!(status, Some(0), "{}", server.output());
    server.output()
}
