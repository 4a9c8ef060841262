//! What the tests with outside programs share: our server as a child process, and the handling of child processes.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod browser;
pub(crate) mod client;
#[cfg(target_os = "linux")]
pub(crate) mod datagram;
pub(crate) mod dtls;
#[cfg(target_os = "linux")]
pub(crate) mod namespace;
pub(crate) mod ports;
pub(crate) mod process;
#[cfg(target_os = "linux")]
pub(crate) mod refusal;
pub(crate) mod tls;
pub(crate) mod uclient;
#[cfg(target_os = "linux")]
pub(crate) mod veth;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use process::{Process, command_in};

/// How long anything local may take that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The user of [`LOOPBACK`].
pub(crate) const USER: &str = "alice";
/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "secret";
/// The realm of [`LOOPBACK`].
pub(crate) const REALM: &str = "example.org";

/// A server for clients and peers on this host: IPv4 and IPv6, UDP and TCP, ports chosen by the system.
///
/// `rfc5766-channel-numbers` is there for Debian's `turnutils_uclient`, which binds channels up to 0x7FFF.
pub(crate) const LOOPBACK: &str = r#"
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["udp", "tcp"]
[relay]
relay-ip = ["127.0.0.1", "::1"]
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8", "::1"]
[compatibility]
rfc5766-channel-numbers = true
[process]
workers = 2
"#;

/// [`LOOPBACK`] with TLS on a port of its own.
pub(crate) fn loopback_with_tls() -> String {
    format!("{LOOPBACK}{TLS}")
}

/// A listener for TLS alone, on a port chosen by the system.
pub(crate) const TLS: &str = r#"
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["tls"]
[tls]
cert = "cert.pem"
pkey = "cert.key"
"#;

/// Waits until this host reaches itself at an address that it has just been given. For a moment the kernel has no route to a
/// new address of IPv6, and a socket that has met with that does not ask again.
pub(crate) fn await_address(ip: IpAddr) {
    let reaches_itself = || {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.send_to(b"me?", socket.local_addr()?)?;
        socket.recv(&mut [0; 3])
    };
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = reaches_itself() {
        assert!(Instant::now() < deadline, "{ip} is not usable within {PATIENCE:?}: {error}");
    }
}

/// [`LOOPBACK`] whose UDP port also takes DTLS.
pub(crate) fn loopback_with_dtls() -> String {
    let both = LOOPBACK.replace(r#"transports = ["udp", "tcp"]"#, r#"transports = ["udp", "dtls"]"#);
    format!("{both}[tls]\ncert = \"cert.pem\"\npkey = \"cert.key\"\n")
}

/// The built `turnserver` with a configuration of its own.
pub(crate) struct Server {
    process: Process,
    listeners: Vec<(String, SocketAddr)>,
    stopped: bool,
    may_panic: bool,
    /// Holds the configuration file and certificates for as long as the server runs.
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts the server with `configuration` and waits until it is ready. Where that has a table `[tls]`, there is
    /// `cert.pem` with `cert.key`, for [`tls::HOST`] and 127.0.0.1, of the authority in `ca.pem`.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_in(None, configuration)
    }

    /// The same, inside a network namespace.
    pub(crate) fn start_in(namespace: Option<&str>, configuration: &str) -> Self {
        Self::launch(command_in(namespace, env!("CARGO_BIN_EXE_turnserver")), configuration)
    }

    /// The same, with the command completed by `prepare`.
    pub(crate) fn start_as(namespace: Option<&str>, configuration: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = command_in(namespace, env!("CARGO_BIN_EXE_turnserver"));
        prepare(&mut command);
        Self::launch(command, configuration)
    }

    /// The same, with a command of one's own for the program.
    pub(crate) fn launch(command: Command, configuration: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if configuration.contains("[tls]") {
            let authority = tls::Authority::new();
            authority.write(directory.path(), "cert", authority.issue(&[tls::HOST, "127.0.0.1"]));
        }
        Self::launch_in(directory, command, configuration)
    }

    /// Starts the server with what is in the configuration's folder already.
    pub(crate) fn start_with(configuration: &str, directory: tempfile::TempDir) -> Self {
        Self::launch_in(directory, Command::new(env!("CARGO_BIN_EXE_turnserver")), configuration)
    }

    /// The same with a command of one's own for the program.
    pub(crate) fn launch_in(directory: tempfile::TempDir, mut command: Command, configuration: &str) -> Self {
        let file = directory.path().join("turnserver.toml");
        std::fs::write(&file, configuration).expect("writing the configuration");
        command.arg("-c").arg(&file).args(["--log-format", "json"]);
        #[cfg(target_os = "linux")]
        if let Ok(how) = std::env::var(refusal::MERGING) {
            refusal::refuse_merging(&mut command, &how);
        }

        let process = Process::start(command);
        let mut listeners = Vec::new();
        process.find_line(PATIENCE, |line| {
            listeners.extend(parse_listening(line));
            line.contains(r#""message":"ready""#).then_some(())
        });
        Self { process, listeners, stopped: false, may_panic: false, directory }
    }

    /// Where the server listens for `transport` (`udp`, `tcp`) over IPv4.
    pub(crate) fn ipv4(&self, transport: &str) -> SocketAddr {
        self.listener(transport, SocketAddr::is_ipv4)
    }

    /// Where the server listens for `transport` over IPv6.
    pub(crate) fn ipv6(&self, transport: &str) -> SocketAddr {
        self.listener(transport, SocketAddr::is_ipv6)
    }

    /// Where the server listens for `transport`, everywhere.
    pub(crate) fn addresses(&self, transport: &str) -> Vec<SocketAddr> {
        self.listeners.iter().filter(|(of, _)| of == transport).map(|(_, address)| *address).collect()
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn listener(&self, transport: &str, family: impl Fn(&SocketAddr) -> bool) -> SocketAddr {
        let found = self.listeners.iter().find(|(of, address)| of == transport && family(address));
        found.unwrap_or_else(|| panic!("no {transport} listener of that family in {:?}", self.listeners)).1
    }

    /// Sends a signal (`STOP`, `CONT`, ...) to the server.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.process.signal(signal);
    }

    /// The fields of the first log line with this message; waits for it.
    pub(crate) fn await_logged(&self, message: &str) -> serde_json::Value {
        let find = |log: &str| {
            let fields = |line: &str| Some(serde_json::from_str::<serde_json::Value>(line).ok()?["fields"].take());
            log.lines().filter_map(fields).find(|fields| fields["message"] == message)
        };
        loop {
            if let Some(fields) = find(&self.log()) {
                return fields;
            }
            self.process.next_line(PATIENCE);
        }
    }

    /// Waits until `find` finds something in the log.
    pub(crate) fn await_log<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(&self.log()) {
                return found;
            }
            self.process.next_line(PATIENCE);
        }
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// A worker is to panic: what the log says of that is no failure.
    pub(crate) fn expect_panics(&mut self) {
        self.may_panic = true;
    }

    /// Asks the server to end, expects it to do so cleanly, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        self.shut_down();
        self.log()
    }

    /// Waits for the end of a server that ends by itself, cleanly, and returns its log.
    pub(crate) fn ended(mut self) -> String {
        self.await_end();
        self.log()
    }

    fn shut_down(&mut self) {
        self.process.signal("TERM");
        self.await_end();
    }

    fn await_end(&mut self) {
        self.stopped = true;
        let status = self.process.wait(PATIENCE);
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(0), "the server ends with {status:?}; its log:\n{}", self.log());
        assert!(self.may_panic || !self.log().contains("panic"), "the server has panicked; its log:\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}-------------------------", self.log());
        } else if !self.stopped {
            self.shut_down();
        }
    }
}

/// The transport and address of a log line `{"fields":{"message":"listening","transport":"udp","address":"…"},…}`.
fn parse_listening(line: &str) -> Option<(String, SocketAddr)> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = entry.get("fields").filter(|fields| fields["message"] == "listening")?;
    Some((fields["transport"].as_str()?.to_owned(), fields["address"].as_str()?.parse().ok()?))
}
