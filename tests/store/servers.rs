//! Database servers as children of a test: on a free port of loopback, with their files in a temporary folder.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    common::{
        PATIENCE,
        ports::free_port_pair,
        process::{Process, run},
    },
    text,
};

/// How long a server may take to make its files.
const INSTALLING: Duration = Duration::from_secs(120);

/// The password of every database.
pub(crate) const PASSWORD: &str = "hunter2-of-the-database";

/// What is put into coturn's tables beside what coturn's tools and example data put there.
const SCHEMA: &str = "/usr/share/coturn/schema.sql";
const EXAMPLE: &str = "/usr/share/coturn/testsqldbsetup.sql";

/// A database server.
pub(crate) trait Server: Sized {
    /// Makes its files, and starts it.
    fn install() -> Self;

    /// `[store]` for it.
    fn store(&self) -> String;

    /// What `turnadmin` is told to find it.
    fn turnadmin(&self) -> [String; 2];

    /// Makes coturn's tables or nothing, and puts coturn's example data into them.
    fn fill(&self);

    /// Starts it again, after it was stopped.
    fn start(&mut self);

    /// Stops it.
    fn stop(&mut self);

    /// Lets it hang: it accepts connections and does nothing (true), or goes on (false).
    fn hang(&mut self, hang: bool);

    /// Lets questions for users wait for so long, from now on.
    fn slow_down(&self, time: Duration) -> Option<Process>;

    /// Runs statements of its own language.
    fn execute(&self, statements: &str);
}

/// A port that no TCP socket has, below those that the system gives out.
pub(crate) fn free_port() -> u16 {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    loop {
        let port = free_port_pair(&[ip]);
        if TcpListener::bind((ip, port)).is_ok() {
            return port;
        }
    }
}

/// A folder that another user may get into.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("store").tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    folder
}

/// A folder in it that belongs to another user.
fn folder_of(parent: &Path, name: &str, user: &str) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).expect("a folder");
    let id = |option: &str| {
        let output = Command::new("id").args([option, user]).output().expect("id");
        let id = String::from_utf8_lossy(&output.stdout).trim().parse();
        id.unwrap_or_else(|_| panic!("there is no user {user}; .ci/run installs what the tests need"))
    };
    chown(&path, Some(id("-u")), Some(id("-g"))).expect("its owner");
    path
}

/// A command that another user runs, in the same process.
fn command_of(user: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", program]).current_dir("/");
    command
}

/// A program of Debian's, also where it is not on the PATH.
fn program(name: &str, folders: &str) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut candidates: Vec<PathBuf> = path.split(':').map(|folder| Path::new(folder).join(name)).collect();
    for version in fs::read_dir(folders).into_iter().flatten().flatten() {
        candidates.push(version.path().join("bin").join(name));
    }
    let found = candidates.iter().find(|path| path.is_file());
    text(found.unwrap_or_else(|| panic!("there is no {name}; .ci/run installs what the tests need"))).to_owned()
}

/// Runs a command until it succeeds, as it does once a server is up.
fn until_it_works(server: &Process, mut command: impl FnMut() -> Command) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = command().output().expect("a client");
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "{said}; the server's log:\n{}", server.output());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until every thread of a process that was sent SIGSTOP has stopped, which is a moment later.
fn await_stopped(pid: u32) {
    let is_stopped = |stat: String| stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
        // A thread that has just ended has no file.
        let mut stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        if stats.all(is_stopped) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// PostgreSQL.
pub(crate) struct Postgresql {
    process: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl Postgresql {
    const USER: &'static str = "postgres";

    fn program(name: &str) -> String {
        program(name, "/usr/lib/postgresql")
    }

    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = command_of(Self::USER, &Self::program("postgres"));
        command.args(["-D", text(&folder.join("data")), "-p", &port.to_string(), "-h", "127.0.0.1"]);
        command.args(["-k", text(&folder.join("data")), "-c", "fsync=off", "-c", "shared_buffers=1MB"]);
        let process = Process::start(command);
        until_it_works(&process, || Self::client(port, "turn", &["-c", "SELECT 1"]));
        process
    }

    fn client(port: u16, database: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("psql");
        command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "5");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-U", "turn", "-d", database]).args(arguments);
        command
    }

    /// The server and its children, each of which is a group of its own.
    fn signal_all(&self, signal: &str) {
        let pid = self.process.pid().to_string();
        let children = Command::new("pgrep").args(["-P", &pid]).output().expect("pgrep").stdout;
        let children = String::from_utf8_lossy(&children).into_owned();
        for pid in std::iter::once(pid.as_str()).chain(children.split_whitespace()) {
            // One that has just ended has no need of it.
            let _ = Command::new("kill").args(["-s", signal, pid]).output().expect("kill");
        }
    }
}

impl Server for Postgresql {
    fn install() -> Self {
        let folder = open_folder();
        let data = folder_of(folder.path(), "data", Self::USER);
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let mut install = command_of(Self::USER, &Self::program("initdb"));
        install.args(["-D", text(&data), "-U", "turn", "--auth=scram-sha-256", "--no-sync", "-E", "UTF8"]);
        install.args(["--locale=C", "--pwfile", text(&password)]);
        run(install, INSTALLING);
        let port = free_port();
        // The database is made by the single-user server: nobody can connect to one that is not there.
        let mut make = command_of(Self::USER, "sh");
        let program = Self::program("postgres");
        make.args([
            "-c",
            "echo 'CREATE DATABASE turn' | \"$1\" --single -D \"$2\" postgres",
            "sh",
            &program,
            text(&data),
        ]);
        run(make, INSTALLING);
        Self { process: Self::launch(folder.path(), port), port, folder }
    }

    fn store(&self) -> String {
        let port = self.port;
        format!("type = \"postgresql\"\nurl = \"postgresql://turn:{PASSWORD}@127.0.0.1:{port}/turn?sslmode=disable\"\n")
    }

    fn turnadmin(&self) -> [String; 2] {
        let port = self.port;
        let connection =
            format!("host=127.0.0.1 port={port} dbname=turn user=turn password={PASSWORD} connect_timeout=30");
        ["-e".to_owned(), connection]
    }

    fn fill(&self) {
        for file in [SCHEMA, EXAMPLE] {
            run(Self::client(self.port, "turn", &["-f", file]), PATIENCE);
        }
    }

    fn start(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
    }

    fn stop(&mut self) {
        self.process.signal("QUIT");
        assert!(self.process.wait(PATIENCE).is_some(), "{}", self.process.output());
    }

    fn hang(&mut self, hang: bool) {
        self.signal_all(if hang { "STOP" } else { "CONT" });
    }

    fn slow_down(&self, time: Duration) -> Option<Process> {
        let sleep = format!("SELECT pg_sleep({})", time.as_secs_f64());
        let lock = "LOCK TABLE turnusers_lt IN ACCESS EXCLUSIVE MODE";
        let mut client =
            Self::client(self.port, "turn", &["-c", "BEGIN", "-c", lock, "-c", "\\echo locked", "-c", &sleep]);
        client.args(["-c", "COMMIT"]);
        let client = Process::start(client);
        client.find_line(PATIENCE, |line| line.contains("locked").then_some(()));
        Some(client)
    }

    fn execute(&self, statements: &str) {
        run(Self::client(self.port, "turn", &["-c", statements]), PATIENCE);
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        // Its children end when it does; a server that is killed leaves them to find out by themselves.
        self.signal_all("CONT");
        self.process.signal("QUIT");
        self.process.wait(PATIENCE);
    }
}

/// MariaDB.
pub(crate) struct Mariadb {
    process: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl Mariadb {
    const USER: &'static str = "mysql";

    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = command_of(Self::USER, &program("mariadbd", ""));
        // Each that starts removes temporary tables of others where it has its own.
        command.env("TMPDIR", folder.join("tmp"));
        let data = folder.join("data");
        command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", data.join("socket").display())).arg(format!("--port={port}"));
        command.args([
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=8M",
            "--innodb-flush-log-at-trx-commit=0",
        ]);
        let process = Process::start(command);
        until_it_works(&process, || Self::client(folder, &["-e", "SELECT 1"]));
        process
    }

    fn client(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("mariadb");
        let socket = folder.join("data").join("socket");
        command.arg("--no-defaults").arg(format!("--socket={}", socket.display()));
        command.args(["--user=root", "--unbuffered", "--connect-timeout=5"]).args(arguments);
        command
    }
}

impl Server for Mariadb {
    fn install() -> Self {
        let folder = open_folder();
        let data = folder_of(folder.path(), "data", Self::USER);
        let temporary = folder_of(folder.path(), "tmp", Self::USER);
        let mut install = command_of(Self::USER, &program("mariadb-install-db", ""));
        install.env("TMPDIR", temporary);
        install.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
        run(install, INSTALLING);
        let port = free_port();
        let server = Self { process: Self::launch(folder.path(), port), port, folder };
        // Debian's own default would be utf8mb4; older databases are like this.
        let make = format!(
            "CREATE DATABASE turn CHARACTER SET latin1; CREATE USER turn@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; \
             CREATE USER turn@localhost IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON turn.* TO turn@'127.0.0.1', turn@localhost"
        );
        run(Self::client(server.folder.path(), &["-e", &make]), PATIENCE);
        server
    }

    fn store(&self) -> String {
        let port = self.port;
        format!("type = \"mysql\"\nurl = \"mysql://turn:{PASSWORD}@127.0.0.1:{port}/turn?ssl-mode=disabled\"\n")
    }

    fn turnadmin(&self) -> [String; 2] {
        let port = self.port;
        let connection =
            format!("host=127.0.0.1 port={port} dbname=turn user=turn password={PASSWORD} connect_timeout=30");
        ["-M".to_owned(), connection]
    }

    fn fill(&self) {
        for file in [SCHEMA, EXAMPLE] {
            run(Self::client(self.folder.path(), &["turn", "-e", &format!("source {file}")]), PATIENCE);
        }
    }

    fn start(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
    }

    fn stop(&mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(PATIENCE).is_some(), "{}", self.process.output());
    }

    fn hang(&mut self, hang: bool) {
        self.process.signal(if hang { "STOP" } else { "CONT" });
        if hang {
            await_stopped(self.process.pid());
        }
    }

    fn slow_down(&self, time: Duration) -> Option<Process> {
        let lock = format!(
            "LOCK TABLES turnusers_lt WRITE; SELECT 'locked'; SELECT SLEEP({}); UNLOCK TABLES",
            time.as_secs_f64()
        );
        let client = Process::start(Self::client(self.folder.path(), &["turn", "--batch", "-e", &lock]));
        client.find_line(PATIENCE, |line| line.contains("locked").then_some(()));
        Some(client)
    }

    fn execute(&self, statements: &str) {
        run(Self::client(self.folder.path(), &["turn", "--default-character-set=utf8mb4", "-e", statements]), PATIENCE);
    }
}

/// Redis.
pub(crate) struct Redis {
    process: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl Redis {
    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", text(folder)]);
        command.args(["--requirepass", PASSWORD, "--save", ""]);
        let process = Process::start(command);
        until_it_works(&process, || {
            let mut command = Self::client(port);
            command.arg("PING");
            command
        });
        process
    }

    fn client(port: u16) -> Command {
        let mut command = Command::new("redis-cli");
        command.env("REDISCLI_AUTH", PASSWORD).args(["-e", "-p", &port.to_string(), "-n", "2"]);
        command
    }
}

impl Server for Redis {
    fn install() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        Self { process: Self::launch(folder.path(), port), port, folder }
    }

    fn store(&self) -> String {
        format!("type = \"redis\"\nurl = \"redis://:{PASSWORD}@127.0.0.1:{}/2\"\n", self.port)
    }

    fn turnadmin(&self) -> [String; 2] {
        let port = self.port;
        ["-N".to_owned(), format!("ip=127.0.0.1 port={port} dbname=2 password={PASSWORD} connect_timeout=30")]
    }

    /// The commands of coturn's example, which is a shell script for a server of its own.
    fn fill(&self) {
        let script = fs::read_to_string("/usr/share/coturn/testredisdbsetup.sh").expect("coturn's example");
        let commands = script.lines().map(|line| line.replace("\\$", "$"));
        let kept = commands.filter(|line| ["set ", "sadd ", "hmset "].iter().any(|verb| line.starts_with(verb)));
        self.execute(&kept.collect::<Vec<_>>().join("\n"));
    }

    fn start(&mut self) {
        self.process = Self::launch(self.folder.path(), self.port);
        // It forgets everything.
        self.fill();
    }

    fn stop(&mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(PATIENCE).is_some(), "{}", self.process.output());
    }

    fn hang(&mut self, hang: bool) {
        self.process.signal(if hang { "STOP" } else { "CONT" });
        if hang {
            await_stopped(self.process.pid());
        }
    }

    fn slow_down(&self, time: Duration) -> Option<Process> {
        let mut command = Self::client(self.port);
        command.args(["CLIENT", "PAUSE", &time.as_millis().to_string(), "ALL"]);
        run(command, PATIENCE);
        None
    }

    fn execute(&self, statements: &str) {
        let mut client = Self::client(self.port);
        let file = self.folder.path().join("commands");
        fs::write(&file, format!("{statements}\n")).expect("a file");
        client.stdin(fs::File::open(&file).expect("the file"));
        let output = client.output().expect("redis-cli; .ci/run installs what the tests need");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !said.contains("ERR"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}
