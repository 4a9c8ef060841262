//! Roots, networks and processes of their own: a test starts its own binary again in new namespaces, with that one test selected,
//! where it can mount what it likes and use every port. The kernel removes all of it with the last process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::client::Client;
use crate::common::{PATIENCE, process::run};

/// Set inside.
const INSIDE: &str = "TURNSERVER_TEST_INSIDE";
/// For all that a test does inside.
const LIMIT: Duration = Duration::from_secs(480);

/// Does `work` inside, as part of the test of this name.
pub(crate) fn inside(test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run(command("ip link set lo up"), PATIENCE);
        work();
        eprintln!("{test}: done inside");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().expect("the test binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    let output = run(command, LIMIT);
    assert!(output.contains(&format!("{test}: done inside")), "nothing was tested:\n{output}");
}

/// A command of words.
pub(crate) fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// A root that is this system's own until something is changed in it, which is kept apart.
pub(crate) struct Layer {
    folder: tempfile::TempDir,
}

impl Layer {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let base = folder.path().display().to_string();
        // On a file system of its own: this root may be such a layer itself, which does not do for changes.
        run(command(&format!("mount -t tmpfs changes {base}")), PATIENCE);
        for part in ["changes", "work", "root"] {
            std::fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        let layers = format!("lowerdir=/,upperdir={base}/changes,workdir={base}/work");
        run(command(&format!("mount -t overlay overlay -o {layers} {base}/root")), PATIENCE);
        run(command(&format!("mount -t proc proc {base}/root/proc")), PATIENCE);
        run(command(&format!("mount --rbind /dev {base}/root/dev")), PATIENCE);
        // No systemd runs in it, whatever runs outside.
        run(command(&format!("mount -t tmpfs run {base}/root/run")), PATIENCE);
        Self { folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What was changed, a line for each.
    pub(crate) fn changes(&self) -> Vec<String> {
        let changes = self.folder.path().join("changes");
        let mut find = Command::new("find");
        find.arg(&changes).args(["-mindepth", "1", "-printf", "%P %y %m %u %g %s\\n"]);
        let mut lines: Vec<String> = run(find, PATIENCE).lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    }

    /// A command in it.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut inner = command("chroot");
        inner.arg(self.root()).args(words.split(' ')).env_clear().env("DEBIAN_FRONTEND", "noninteractive");
        inner.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        inner
    }

    /// What a command in it prints.
    pub(crate) fn run(&self, words: &str) -> String {
        run(self.command(words), PATIENCE * 6)
    }
}

/// User name and password that `output` of `turnserver credentials`, or of a start without configuration, holds.
pub(crate) fn credentials(output: &str) -> [String; 2] {
    ["username", "credential"].map(|key| {
        let (_, rest) = output.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {output}"));
        rest.split('"').nth(1).expect("a text").to_owned()
    })
}

/// Serves a client over UDP and TCP.
pub(crate) fn serves([user, password]: &[String; 2]) {
    for transport in ["udp", "tcp"] {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 3478));
        let mut client = Client::new(transport, server, Some((user, password)));
        client.allocate().unwrap_or_else(|refused| panic!("over {transport}: {refused:?}"));
        client.delete().expect("to delete");
    }
}

/// Mode, owner and group of a file.
pub(crate) fn access(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (found.mode() & 0o7777, found.uid(), found.gid())
}
