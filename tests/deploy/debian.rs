//! The Debian package: built, installed by dpkg into a root of its own, started, upgraded, removed and purged.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    PATIENCE,
    process::{Process, run},
};
use crate::inside::{Layer, access, credentials, inside, serves};

/// Where the package keeps its unit.
const UNIT: &str = "usr/lib/systemd/system/turnserver.service";
/// What enables it.
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/turnserver.service";
/// What was made at random for this host.
const SECRET: &str = "etc/turnserver/auth-secret";

/// The package, with the program as it was built for tests.
fn build(folder: &Path) -> PathBuf {
    let package = folder.join("turnserver.deb");
    // It works in the target folder, whoever has started it.
    let lock = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cargo-deb.lock")).expect("a file");
    lock.lock().expect("a lock");
    let mut command = Command::new(env!("CARGO"));
    command.args(["deb", "--locked", "--offline", "--no-build", "--profile", "dev", "--fast", "--output"]);
    run(
        {
            command.arg(&package).current_dir(env!("CARGO_MANIFEST_DIR"));
            command
        },
        PATIENCE * 6,
    );
    package
}

#[test]
fn the_package_has_what_it_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = build(folder.path());
    let ask = |field: &str| {
        let mut command = Command::new("dpkg-deb");
        command.arg("--field").arg(&package).arg(field);
        run(command, PATIENCE).trim().to_owned()
    };
    assert_eq!((ask("Package").as_str(), ask("Version")), ("turnserver", format!("{}-1", env!("CARGO_PKG_VERSION"))));
    assert_eq!(ask("Conflicts"), "coturn", "which has a program of the same name");
    for needed in ["libc6 (", "libssl3", "systemd | systemd-standalone-sysusers"] {
        assert!(ask("Depends").contains(needed), "{}", ask("Depends"));
    }
    let contents = |what: &str| {
        let mut command = Command::new("dpkg-deb");
        command.arg(what).arg(&package);
        run(command, PATIENCE)
    };
    let contents = contents("--contents");
    for (mode, path) in [
        ("-rwxr-xr-x", "./usr/bin/turnserver"),
        ("-rw-r-----", "./etc/turnserver.toml"),
        ("-rw-r--r--", "./usr/lib/systemd/system/turnserver.service"),
        ("-rw-r--r--", "./usr/lib/sysusers.d/turnserver.conf"),
        ("-rw-r--r--", "./usr/lib/tmpfiles.d/turnserver.conf"),
        ("-rw-r--r--", "./usr/share/man/man8/turnserver.8.gz"),
        ("-rw-r--r--", "./usr/share/doc/turnserver/copyright"),
        ("-rw-r--r--", "./usr/share/doc/turnserver/THIRD-PARTY.txt"),
        ("-rw-r--r--", "./usr/share/doc/turnserver/examples/turnserver.toml.example"),
        ("-rw-r--r--", "./usr/share/doc/turnserver/examples/turnserver.socket"),
        ("-rw-r--r--", "./usr/share/doc/turnserver/examples/offload.conf"),
    ] {
        let has = |line: &str| line.starts_with(mode) && line.contains(" 0/0 ") && line.ends_with(&format!(" {path}"));
        assert!(contents.lines().any(has), "{mode} {path}:\n{contents}");
    }
    let extracted = folder.path().join("data");
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(&package).arg(&extracted);
    run(extract, PATIENCE);
    let copyright = fs::read_to_string(extracted.join("usr/share/doc/turnserver/copyright")).expect("copyright");
    let ours = fs::read_to_string(crate::ours("LICENSE")).expect("LICENSE");
    let words = |text: &str| text.split_whitespace().filter(|word| *word != ".").collect::<Vec<_>>().join(" ");
    let terms = words(ours.split_once("\n\n").and_then(|(_, rest)| rest.split_once("\n\n")).expect("the terms").1);
    assert!(copyright.starts_with("Format: ") && words(&copyright).contains(&terms), "{copyright}");
    assert!(copyright.contains("/usr/share/doc/turnserver/THIRD-PARTY.txt"), "{copyright}");
    // A socket unit would be started, too: it is an example alone.
    assert!(!contents.contains("system/turnserver.socket"), "{contents}");
    // Nor are there more privileges than the operator has asked for.
    assert!(!contents.contains("turnserver.service.d"), "{contents}");
    let mut control = Command::new("dpkg-deb");
    control.arg("--control").arg(&package).arg(folder.path().join("control"));
    run(control, PATIENCE);
    let conffiles = fs::read_to_string(folder.path().join("control/conffiles")).expect("conffiles");
    assert_eq!(conffiles.trim(), "/etc/turnserver.toml");
}

#[test]
fn it_installs_serves_upgrades_and_is_purged_without_a_trace() {
    inside("debian::it_installs_serves_upgrades_and_is_purged_without_a_trace", life);
}

fn life() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = build(folder.path());
    let layer = Layer::new();
    let root = layer.root();
    fs::copy(&package, root.join("run/turnserver.deb")).expect("to copy");
    // Both have /usr/bin/turnserver: coturn must go first.
    let mut has_coturn = layer.command("dpkg-query --show --showformat=${db:Status-Status} coturn");
    if has_coturn.output().is_ok_and(|output| output.stdout == b"installed") {
        let refused = layer.command("dpkg --install /run/turnserver.deb").output().expect("to run");
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && message.contains("coturn"), "{message}");
        layer.run("dpkg --purge --force-depends coturn");
    }
    let before: BTreeSet<String> = layer.changes().into_iter().collect();
    let users = fs::read_to_string(root.join("etc/passwd")).expect("users");

    layer.run("dpkg --install /run/turnserver.deb");
    let status = || layer.run("dpkg-query --show --showformat=${db:Status-Status} turnserver");
    assert_eq!(status().trim(), "installed");
    let ids = layer.run("id turnserver");
    let group: u32 = layer.run("id --group turnserver").trim().parse().unwrap_or_else(|_| panic!("{ids}"));
    let user: u32 = layer.run("id --user turnserver").trim().parse().unwrap_or_else(|_| panic!("{ids}"));
    assert_eq!(access(&root.join("etc/turnserver.toml")), (0o640, 0, group));
    assert_eq!(access(&root.join("etc/turnserver")), (0o750, 0, group));
    assert_eq!(access(&root.join(SECRET)), (0o640, 0, group));
    let secret = fs::read_to_string(root.join(SECRET)).expect("a secret");
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "32 bytes at random");
    assert!(root.join(UNIT).exists() && fs::symlink_metadata(root.join(ENABLED)).is_ok(), "it starts with the system");

    // As the unit starts it: its user, its folder, its command line.
    let unit = fs::read_to_string(root.join(UNIT)).expect("the unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command line");
    layer.run(&format!("install -d -m 0750 -o {user} -g {group} /run/turnserver"));
    let as_user =
        format!("setpriv --reuid={user} --regid={group} --init-groups --bounding-set=-all --no-new-privs {start}");
    let mut server = Process::start(layer.command(&as_user));
    server.find_line(PATIENCE, |line| line.contains(" ready ").then_some(()));
    assert!(!server.output().contains("WARN"), "{}", server.output());
    serves(&credentials(&layer.run("turnserver credentials -c /etc/turnserver.toml --user alice --json")));
    assert!(layer.run("turnserver ctl version").contains(env!("CARGO_PKG_VERSION")));
    server.signal("TERM");
    assert!(server.wait(PATIENCE).is_some_and(|status| status.success()), "{}", server.output());

    // What the operator has changed stays, and the secret.
    let changed = fs::read_to_string(root.join("etc/turnserver.toml")).expect("the configuration") + "# mine\n";
    fs::write(root.join("etc/turnserver.toml"), &changed).expect("to write");
    layer.run("dpkg --install /run/turnserver.deb");
    assert_eq!(fs::read_to_string(root.join("etc/turnserver.toml")).expect("the configuration"), changed);
    assert_eq!(fs::read_to_string(root.join(SECRET)).expect("a secret"), secret);

    layer.run("dpkg --remove turnserver");
    assert_eq!(status().trim(), "config-files");
    assert!(!root.join("usr/bin/turnserver").exists() && !root.join(UNIT).exists());
    assert!(root.join("etc/turnserver.toml").exists() && root.join(SECRET).exists(), "until it is purged");
    layer.run("install -d -o turnserver -g turnserver /var/lib/turnserver");
    layer.run("touch /var/lib/turnserver/usage");
    layer.run("dpkg --purge turnserver");
    let left: Vec<String> = layer
        .changes()
        .into_iter()
        .filter(|line| !before.contains(line) && !is_dpkgs_own(line) && !is_unchanged_folder(line))
        .collect();
    // The user stays, as those of Debian's own services do.
    let accounts = |line: &String| {
        let path = line.split(' ').next().unwrap_or_default();
        ["passwd", "group", "shadow", "gshadow"]
            .iter()
            .any(|file| path == format!("etc/{file}") || path == format!("etc/{file}-"))
            || path == "etc/.pwd.lock"
    };
    assert!(left.iter().all(accounts), "{left:#?}");
    let users_now = fs::read_to_string(root.join("etc/passwd")).expect("users");
    let new: Vec<&str> = users_now.lines().filter(|line| !users.contains(line)).collect();
    assert!(matches!(new[..], [user] if user.starts_with("turnserver:") && user.ends_with("/nologin")), "{new:?}");

    // And again, from nothing: another secret.
    layer.run("dpkg --install /run/turnserver.deb");
    assert_ne!(fs::read_to_string(root.join(SECRET)).expect("a secret"), secret);
}

/// What dpkg and its triggers keep of all packages.
fn is_dpkgs_own(line: &str) -> bool {
    ["var/lib/dpkg", "var/log", "var/cache"].iter().any(|folder| line.starts_with(folder))
}

/// A folder of this system that something was changed in is listed itself.
fn is_unchanged_folder(line: &str) -> bool {
    let mut parts = line.split(' ');
    let (path, kind) = (parts.next().unwrap_or_default(), parts.next());
    let mode = parts.next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let here = Path::new("/").join(path);
    kind == Some("d") && here.is_dir() && mode == Some(access(&here).0)
}
