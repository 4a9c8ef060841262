//! What is run: for how long, how much of it, against which configuration.

use std::{env, fmt::Write, fs, path::PathBuf, time::Duration};

use crate::common::tls::{Authority, HOST};

/// Minutes of churn, after the warm-up and before everything drains.
const MINUTES: &str = "TURNSERVER_SOAK_MINUTES";
/// How many of each actor there are.
const SCALE: &str = "TURNSERVER_SOAK_SCALE";
/// The folder for samples, figures and the plot.
const FOLDER: &str = "TURNSERVER_SOAK_FOLDER";
/// The server, if it is another one than was built with the tests.
const PROGRAM: &str = "TURNSERVER_SOAK_PROGRAM";

/// Lifetimes in place of 10, 5, 10, 1 and half a minute.
pub(crate) const ALLOCATION: Duration = Duration::from_secs(20);
pub(crate) const PERMISSION: Duration = Duration::from_secs(12);
pub(crate) const CHANNEL: Duration = Duration::from_secs(16);
const NONCE: Duration = Duration::from_secs(25);
const IDLE: Duration = Duration::from_secs(10);
const RESERVATION: Duration = Duration::from_secs(5);
/// After this long without any client nothing may be there any more.
pub(crate) const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// Calls of the warm-up end after this long.
pub(crate) const WARM_UP: Duration = Duration::from_secs(5);

/// The secret of time-limited credentials, and one that comes and goes.
pub(crate) const SECRET: &str = "a secret that stays as it is all the time";
pub(crate) const PASSING_SECRET: &str = "a secret that comes and goes, and comes again";

/// What the environment asks for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) scale: usize,
    pub(crate) folder: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) seed: u64,
    /// Between two samples.
    pub(crate) interval: Duration,
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        let number = |key: &str, otherwise: f64| -> f64 {
            env::var(key).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number")))
        };
        let duration = Duration::from_secs_f64(number(MINUTES, 3.0) * 60.0);
        let folder =
            env::var_os(FOLDER).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak"), Into::into);
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let program = env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_turnserver").into(), Into::into);
        let interval = (duration / 360).clamp(Duration::from_secs(2), Duration::from_secs(10));
        Self { duration, scale: number(SCALE, 1.0) as usize, folder, program, seed: 1, interval }
    }
}

/// What the operator changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Lines of `[limits]`; none that anybody reaches.
    pub(crate) limits: String,
    /// Whether there is one user more.
    pub(crate) guest: bool,
    /// Whether there is one secret more.
    pub(crate) secret: bool,
    /// One port more.
    pub(crate) port: Option<u16>,
}

/// A folder with a certificate, and who signs the next one.
pub(crate) fn folder() -> (tempfile::TempDir, Authority) {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    authority.write(folder.path(), "cert", authority.issue(&[HOST, "127.0.0.1"]));
    (folder, authority)
}

/// The relayed addresses of IPv4 are on an address of their own.
pub(crate) fn configuration(choice: &Choice) -> String {
    let mut text = format!(
        r#"
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["udp", "tcp"]
[[listener]]
listening-ip = ["127.0.0.1", "::1"]
listening-port = 0
transports = ["tls", "dtls"]
[tls]
cert = "cert.pem"
pkey = "cert.key"
[relay]
relay-ip = ["127.63.0.1", "::1"]
min-port = 61000
max-port = 64999
tcp-relaying = true
[auth]
realm = "example.org"
stale-nonce = "{}s"
static-auth-secret = "{SECRET}"
[[auth.user]]
name = "alice"
password = "secret"
[peers]
allowed-peer-ip = ["127.0.0.0/8", "::1"]
[lifetimes]
default-allocate-lifetime = "{}s"
max-allocate-lifetime = "{}s"
permission-lifetime = "{}s"
channel-lifetime = "{}s"
reservation-lifetime = "{}s"
connect-timeout = "5s"
connection-bind-timeout = "5s"
[tcp]
idle-timeout = "{}s"
[process]
workers = 2
[management]
listen = "off"
socket = "control.sock"
[log]
level = "warn,turnserver::cli=info"
[limits]
{}
"#,
        NONCE.as_secs(),
        ALLOCATION.as_secs(),
        ALLOCATION.as_secs(),
        PERMISSION.as_secs(),
        CHANNEL.as_secs(),
        RESERVATION.as_secs(),
        IDLE.as_secs(),
        choice.limits,
    );
    if choice.guest {
        text.push_str("[[auth.user]]\nname = \"guest\"\npassword = \"secret\"\n");
    }
    if choice.secret {
        let _ = write!(text, "[[auth.secret]]\nname = \"passing\"\nsecret = \"{PASSING_SECRET}\"\n");
    }
    if let Some(port) = choice.port {
        let _ = write!(
            text,
            "[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\ntransports = [\"udp\", \"tcp\"]\n"
        );
    }
    text
}
