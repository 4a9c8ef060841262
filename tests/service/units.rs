//! The unit files: systemd accepts them, and the service may do little but serve.

use std::{collections::BTreeSet, path::Path, process::Command};

const SERVICE: &str = "turnserver.service";
const SOCKET: &str = "examples/turnserver.socket";
/// What offload needs besides.
const DROP_IN: &str = "offload.conf";
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; .ci/run installs it"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

fn version() -> u32 {
    let (_, text) = output(Command::new("systemd-analyze").arg("--version"));
    let number = text.split_whitespace().nth(1).and_then(|number| number.split(['.', '~', '-']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no version in {text}"))
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(Path::new(UNITS).join(name)).expect("a unit")
}

/// The values of a key, in the order in which they stand.
fn values<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// A root with the units and the program where they name it.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for folder in ["usr/bin", "usr/lib/systemd/system", "etc"] {
        std::fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    let program = root.path().join("usr/bin/turnserver");
    std::fs::copy(env!("CARGO_BIN_EXE_turnserver"), program).expect("to copy");
    for name in [SERVICE, SOCKET] {
        let file = Path::new(name).file_name().expect("a name");
        let target = root.path().join("usr/lib/systemd/system").join(file);
        std::fs::copy(Path::new(UNITS).join(name), target).expect("to copy");
    }
    let drop_ins = root.path().join("etc/systemd/system/turnserver.service.d");
    std::fs::create_dir_all(&drop_ins).expect("a folder");
    std::fs::copy(Path::new(UNITS).join(DROP_IN), drop_ins.join(DROP_IN)).expect("to copy");
    // What the units wait for is the system's.
    for name in ["network-online.target", "multi-user.target", "sockets.target", "sysinit.target", "basic.target"] {
        let from = Path::new("/lib/systemd/system").join(name);
        std::fs::copy(from, root.path().join("usr/lib/systemd/system").join(name)).expect("systemd's own targets");
    }
    root
}

#[test]
fn systemd_accepts_them() {
    let root = root();
    let path = |name: &str| format!("{}/usr/lib/systemd/system/{name}", root.path().display());
    let verify = || {
        let mut command = Command::new("systemd-analyze");
        command.arg("verify").arg(format!("--root={}", root.path().display()));
        command.args(["--recursive-errors=no", "--man=no"]);
        output(command.args([path("turnserver.service"), path("turnserver.socket")]))
    };
    let (mut passed, mut text) = verify();
    if version() < 253 {
        // It says that it does not know this, and goes by the line before.
        let [complaint] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(complaint.ends_with("Failed to parse service type, ignoring: notify-reload"), "{text}");
        let older = unit(SERVICE).replace("Type=notify-reload\n", "");
        std::fs::write(path("turnserver.service"), older).expect("to write");
        (passed, text) = verify();
    }
    assert!(passed && text.is_empty(), "{text}");
}

#[test]
fn a_unit_with_a_mistake_is_not_accepted() {
    let root = root();
    let path = root.path().join("usr/lib/systemd/system/turnserver.service");
    let wrong = unit(SERVICE).replace("WatchdogSec=30s", "WatchdogSecs=30s");
    std::fs::write(&path, wrong).expect("to write");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(format!("--root={}", root.path().display())).args(["--recursive-errors=no", "--man=no"]);
    let (_, text) = output(command.arg(&path));
    assert!(text.contains("WatchdogSecs"), "{text}");
}

#[test]
fn a_drop_in_with_a_mistake_is_not_accepted() {
    let root = root();
    let wrong = unit(DROP_IN).replace("SystemCallFilter=", "SystemCallFilters=");
    let path = root.path().join("etc/systemd/system/turnserver.service.d").join(DROP_IN);
    std::fs::write(path, wrong).expect("to write");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(format!("--root={}", root.path().display())).args(["--recursive-errors=no", "--man=no"]);
    let (_, text) = output(command.arg(root.path().join("usr/lib/systemd/system/turnserver.service")));
    assert!(text.contains("offload.conf") && text.contains("SystemCallFilters"), "{text}");
}

/// Ambient capabilities must be in the bounding set.
#[test]
fn offload_gets_what_its_message_names() {
    let unit = unit(DROP_IN);
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(values(&unit, key), ["CAP_BPF CAP_NET_ADMIN"], "{key}");
    }
}

/// "OK" begins at 1.0 of 10 and ends at 5.0, where "MEDIUM" begins.
#[test]
fn the_sandbox_is_rated_ok_or_better() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=20"]);
    let (passed, text) = output(command.arg(Path::new(UNITS).join(SERVICE)));
    let rating = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{text}"));
    assert!(passed && (rating.contains(" OK ") || rating.contains(" PERFECT ")), "{text}");
}

/// The unit is written for what the server does (see `notifications.rs`).
#[test]
fn the_service_is_told_of_readiness_reload_and_life() {
    let unit = unit(SERVICE);
    // The second counts where it is known, from systemd 253 on.
    assert_eq!(values(&unit, "Type"), ["notify", "notify-reload"]);
    assert_eq!(values(&unit, "WatchdogSec"), ["30s"]);
    assert_eq!(values(&unit, "ExecStart"), ["/usr/bin/turnserver --config /etc/turnserver.toml"]);
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["78"], "EX_CONFIG");
}

/// The example needs a socket for each transport and family that it speaks of.
#[test]
fn the_example_of_sockets_serves_the_listener_that_it_is_written_for() {
    let unit = unit(SOCKET);
    let written: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let auth = "[auth]\nrealm = \"example.org\"\n[[auth.user]]\nname = \"demo\"\npassword = \"pw\"\n";
    let configuration = format!("{}\n{auth}", written.join("\n").replace(", \"tls\"", ", \"tcp\""));
    let loaded =
        turnserver::config::parse(&configuration, "t.toml", &turnserver::config::Host::detect().expect("this host"));
    let settings = loaded.unwrap_or_else(|errors| panic!("{errors:?}")).settings;
    let [listener] = settings.listeners.as_slice() else { panic!("{:?}", settings.listeners) };
    let wanted: BTreeSet<String> =
        listener.addresses.iter().map(|ip| std::net::SocketAddr::new(*ip, listener.port).to_string()).collect();
    for key in ["ListenDatagram", "ListenStream"] {
        let found: BTreeSet<String> = values(&unit, key).into_iter().map(ToOwned::to_owned).collect();
        assert_eq!(found, wanted, "{key}");
    }
    assert_eq!(values(&unit, "BindIPv6Only"), ["ipv6-only"]);
    assert_eq!(values(&unit, "ReusePort"), ["yes"]);
}

/// Both are the same to systemd-sysusers and systemd-tmpfiles as to the unit.
#[test]
fn the_user_and_the_folders_are_made() {
    let root = tempfile::tempdir().expect("a folder");
    for (tool, file, folder) in [
        ("systemd-sysusers", "turnserver.sysusers", "usr/lib/sysusers.d"),
        ("systemd-tmpfiles", "turnserver.tmpfile", "usr/lib/tmpfiles.d"),
    ] {
        let target = root.path().join(folder);
        std::fs::create_dir_all(&target).expect("a folder");
        std::fs::create_dir_all(root.path().join("etc")).expect("a folder");
        std::fs::write(root.path().join("etc/turnserver.toml"), "").expect("to write");
        std::fs::copy(Path::new(UNITS).join(file), target.join("turnserver.conf")).expect("to copy");
        let mut command = Command::new(tool);
        command.arg(format!("--root={}", root.path().display()));
        if tool == "systemd-tmpfiles" {
            command.arg("--create");
        }
        let (passed, text) = output(command.arg("turnserver.conf"));
        assert!(passed, "{tool}: {text}");
    }
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).expect("users");
    let user = users.lines().find(|line| line.starts_with("turnserver:")).unwrap_or_else(|| panic!("{users}"));
    assert!(user.ends_with(":/var/lib/turnserver:/usr/sbin/nologin"), "{user}");
    let group: u32 = user.split(':').nth(3).and_then(|group| group.parse().ok()).expect("a group");
    for (file, mode) in [("etc/turnserver", 0o40750), ("etc/turnserver.toml", 0o100640)] {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(root.path().join(file)).expect(file);
        assert_eq!((found.mode(), found.uid(), found.gid()), (mode, 0, group), "{file}");
    }
}
