//! The servers: which there are, how each is configured for the same task, started and stopped.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::job::{PASSWORD, REALM, Secured, USER};
use crate::options::{Kind, Measure, Path, RunOptions};
use crate::system;
use crate::topology::Topology;

/// Ports of relayed addresses; listeners are below.
pub(crate) const RELAY_PORTS: RangeInclusive<u16> = 10_000..=65_535;

/// Receive buffer of the listener of servers that leave it to their user: what this server has by default.
pub(crate) const LISTENER_BUFFER: usize = 4 << 20;

/// A server that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    /// Name and version, as it says itself.
    pub(crate) version: String,
}

/// A server that runs; it is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) listen: SocketAddrV4,
    pub(crate) secured: Option<Secured>,
    /// Holds the configuration file and the certificate for as long as the server runs.
    _directory: tempfile::TempDir,
}

impl Server {
    /// Those of the wanted servers that are on this machine.
    pub(crate) fn find(options: &RunOptions) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for &kind in &options.servers {
            let program = match kind {
                Kind::Ours | Kind::Native | Kind::Generic => Some(options.ours.clone()),
                Kind::Baseline => options.baseline.clone(),
                Kind::Coturn => Some(options.coturn.clone()),
                Kind::TurnCrate => Some(std::env::current_exe()?),
                Kind::TurnServer => Some(options.turn_server.clone()),
            };
            let Some(program) = program.and_then(|program| which(&program)) else {
                continue;
            };
            let version = version(kind, &program);
            found.push(Self { kind, program, version });
        }
        Ok(found)
    }

    /// Whether this server can be measured so; the `turn` crate's server knows no connections, and `turn-server` no peers but its own clients.
    pub(crate) fn supports(&self, measure: Measure, path: Option<Path>) -> bool {
        match self.kind {
            Kind::Ours | Kind::Baseline | Kind::Coturn => true,
            Kind::Native | Kind::Generic => path.is_some_and(Path::is_plain_udp),
            Kind::TurnCrate => path.is_none_or(Path::is_plain_udp),
            Kind::TurnServer => path == Some(Path::RelayToRelay) && measure != Measure::Memory,
        }
    }

    /// Starts the server on its processors, in its namespace; with a certificate only if the path needs one, so that the
    /// others are measured without.
    pub(crate) fn start(
        &self,
        options: &RunOptions,
        topology: &Topology,
        cpus: &[usize],
        path: Option<Path>,
    ) -> io::Result<Running> {
        let [listen, listen_secured] = topology.listen()?;
        let directory = tempfile::tempdir()?;
        let secured = if path.is_some_and(Path::is_secured) {
            Some(Secured {
                server: listen_secured,
                certificate: certify(directory.path())?,
                dtls: path == Some(Path::Dtls),
            })
        } else {
            None
        };
        let configure = |name: &str, text: String| {
            let file = directory.path().join(name);
            fs::write(&file, text).map(|()| file)
        };
        let namespace = topology.server_namespace.as_deref();
        let mut command = match self.kind {
            Kind::Ours | Kind::Native | Kind::Generic | Kind::Baseline => {
                let mut command = inside(namespace, &self.program);
                command
                    .arg("-c")
                    .arg(configure("turnserver.toml", ours(self.kind, listen, secured.as_ref(), options))?);
                command
            }
            Kind::Coturn => {
                let text = coturn(listen, secured.as_ref(), options.workers, directory.path());
                let file = configure("turnserver.conf", text)?;
                let mut command = inside(namespace, &self.program);
                command.arg("-c").arg(file);
                command
            }
            Kind::TurnCrate => {
                // It enters the namespace itself.
                let mut command = Command::new(&self.program);
                command.arg("turn-crate").arg(listen.to_string()).args(["--workers", &options.workers.to_string()]);
                command.args(namespace.map(|name| format!("--namespace={name}")));
                command
            }
            Kind::TurnServer => {
                let mut command = inside(namespace, &self.program);
                command.arg("--config").arg(configure("turn-server.toml", turn_server(listen, options.workers))?);
                command
            }
        };
        let log = |suffix: &str| match &options.logs {
            None => Ok(Stdio::null()),
            Some(directory) => {
                fs::create_dir_all(directory)?;
                let file = directory.join(format!("{}.{suffix}", self.kind.name()));
                fs::File::options().create(true).append(true).open(file).map(Stdio::from)
            }
        };
        command.stdin(Stdio::null()).stdout(log("out")?).stderr(log("err")?);
        system::prepare_child(&mut command, cpus);
        let child = command.spawn()?;
        Ok(Running { child, listen, secured, _directory: directory })
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server has bound its UDP port: by then a program of its own is where it belongs, or follows at once.
    pub(crate) fn await_socket(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let port = format!(":{:04X} ", self.listen.port());
        while !fs::read_to_string(format!("/proc/{}/net/udp", self.pid()))?.contains(&port) {
            if Instant::now() > deadline {
                return Err(io::Error::other("the server does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// Whether the server has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child: politely for half a second, then for good.
pub(crate) fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        system::send_signal(child.id(), libc::SIGTERM);
    }
    let deadline = Instant::now() + Duration::from_millis(500);
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A command inside a network namespace; `ip` becomes the program, so the process id is the program's.
fn inside(namespace: Option<&str>, program: &FilePath) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// The file of the private key, beside the certificate's.
const KEY: &str = "key.pem";

/// Writes a self-signed certificate for the realm, ECDSA with P-256, and its key; returns the certificate's file.
fn certify(directory: &FilePath) -> io::Result<PathBuf> {
    let made = rcgen::generate_simple_self_signed([REALM.to_owned()]).map_err(io::Error::other)?;
    let (certificate, key) = (directory.join("cert.pem"), directory.join(KEY));
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    Ok(certificate)
}

/// This server, with everything off that would count the generator's clients as one attacker. Logs as by default.
fn ours(kind: Kind, listen: SocketAddrV4, secured: Option<&Secured>, options: &RunOptions) -> String {
    let tls = secured.map(|Secured { server, certificate, dtls }| {
        let (ip, port, certificate) = (server.ip(), server.port(), certificate.display());
        let transport = if *dtls { "dtls" } else { "tls" };
        format!(
            r#"
[[listener]]
listening-ip = "{ip}"
listening-port = {port}
transports = ["{transport}"]
[tls]
cert = "{certificate}"
pkey = "{KEY}"
"#
        )
    });
    let tls = tls.unwrap_or_default();
    let offload = match kind {
        Kind::Native => "[offload]\nmode = \"native\"",
        Kind::Generic => "[offload]\nmode = \"generic\"",
        _ => "",
    };
    let (ip, port, workers, extra) = (listen.ip(), listen.port(), options.workers, &options.ours_extra);
    let (first, last) = (RELAY_PORTS.start(), RELAY_PORTS.end());
    format!(
        r#"
[[listener]]
listening-ip = "{ip}"
listening-port = {port}
transports = ["udp", "tcp"]
[relay]
relay-ip = "{ip}"
min-port = {first}
max-port = {last}
[auth]
realm = "{REALM}"
[[auth.user]]
name = "{USER}"
password = "{PASSWORD}"
[limits]
unauthorized-rate = 0
binding-rate = 0
[peers]
allowed-peer-ip = ["127.0.0.0/8", "198.18.0.0/15"]
[tcp]
max-connections = 100000
max-connections-per-ip = 100000
[process]
workers = {workers}
{tls}{extra}
{offload}
"#
    )
}

/// Coturn: its default engine, UDP, TCP and where needed TLS or DTLS, one user. Its log, which has no levels, goes to /dev/null.
fn coturn(listen: SocketAddrV4, secured: Option<&Secured>, workers: usize, directory: &FilePath) -> String {
    let tls = match secured {
        Some(Secured { server, certificate, dtls }) => {
            let (port, certificate, key) = (server.port(), certificate.display(), directory.join(KEY));
            let other = if *dtls { "no-tls" } else { "no-dtls" };
            format!("tls-listening-port={port}\ncert={certificate}\npkey={}\n{other}", key.display())
        }
        None => "no-tls\nno-dtls".to_owned(),
    };
    let (ip, port, directory) = (listen.ip(), listen.port(), directory.display());
    let (first, last) = (RELAY_PORTS.start(), RELAY_PORTS.end());
    format!(
        "listening-ip={ip}\nlistening-port={port}\nrelay-ip={ip}\nmin-port={first}\nmax-port={last}\n\
         lt-cred-mech\nrealm={REALM}\nuser={USER}:{PASSWORD}\nrelay-threads={workers}\n\
         {tls}\nno-cli\nallow-loopback-peers\nno-stdout-log\nsimple-log\nlog-file=/dev/null\n\
         userdb={directory}/turndb\npidfile={directory}/pid\n"
    )
}

/// The `turn-server` crate. It gives addresses only from 49152 on.
fn turn_server(listen: SocketAddrV4, workers: usize) -> String {
    format!(
        r#"
[server]
port-range = "49152..65535"
max-threads = {workers}
realm = "{REALM}"
[[server.interfaces]]
transport = "udp"
listen = "{listen}"
external = "{listen}"
idle-timeout = 600
mtu = 1500
[log]
level = "error"
stdout = false
[auth]
enable-hooks-auth = false
[auth.static-credentials]
{USER} = "{PASSWORD}"
"#
    )
}

/// The file of a program, looked for in PATH if it has no directory.
fn which(program: &FilePath) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn version(kind: Kind, program: &FilePath) -> String {
    if kind == Kind::TurnCrate {
        // The version that Cargo.lock has.
        let lock = include_str!("../../Cargo.lock");
        let found =
            lock.split("[[package]]").find_map(|entry| entry.trim().strip_prefix("name = \"turn\"\nversion = \""));
        let number = found.and_then(|rest| rest.split('"').next()).unwrap_or("?");
        return format!("turn {number}");
    }
    let text = first_output(program).unwrap_or_default();
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("version unknown").trim();
    if kind == Kind::Coturn { format!("coturn {line}") } else { line.to_owned() }
}

/// What a program prints when it is asked for its version. One that starts to serve instead is ended.
fn first_output(program: &FilePath) -> io::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + Duration::from_secs(2);
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    end(&mut child);
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    Ok(text)
}
