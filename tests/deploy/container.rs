//! The container file: a linter accepts it; its last stage is laid out here by the same script, and served from.

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
use crate::inside::{access, credentials, inside, serves};
use crate::{ours, tool};

const FILE: &str = "deploy/container/Dockerfile";
/// The user that the file names.
const USER: u32 = 65532;

/// The root of the image, with the program as it was built for tests.
pub(crate) fn lay_out(root: &Path) {
    let mut command = Command::new(ours("deploy/container/rootfs.sh"));
    command.arg(env!("CARGO_BIN_EXE_turnserver")).arg(root);
    run(command, PATIENCE);
}

/// The arguments of an instruction in JSON, like `ENTRYPOINT ["…"]`.
pub(crate) fn instruction(name: &str) -> Vec<String> {
    let file = fs::read_to_string(ours(FILE)).expect("the container file");
    let line = file.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    let (_, json) = line.split_once('[').unwrap_or_else(|| panic!("no list in {line}"));
    serde_json::from_str(&format!("[{json}")).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A command in the image: nothing of this system is there, the root cannot be written to, and the user may do nothing special.
pub(crate) fn in_image(root: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+sys_chroot,+setuid,+setgid", "--no-new-privs", "chroot"]);
    command.arg(format!("--userspec={USER}:{USER}")).args(["--groups="]).arg(root).args(arguments);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Makes the root read-only, but for the folder of the management socket.
pub(crate) fn protect(root: &Path) {
    let shown = root.display();
    let mount = |words: String| run(crate::inside::command(&words), PATIENCE);
    mount(format!("mount --bind {shown} {shown}"));
    mount(format!("mount -o remount,bind,ro {shown}"));
    mount(format!("mount -t tmpfs -o uid={USER},gid={USER},mode=0700 run {shown}/run/turnserver"));
}

#[test]
fn a_linter_accepts_the_file() {
    let mut command = tool("hadolint");
    command.arg(ours(FILE));
    assert_eq!(run(command, PATIENCE), "");
    // It is not that it accepts anything.
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("Dockerfile");
    let text = fs::read_to_string(ours(FILE)).expect("the container file").replace("FROM scratch", "FROM debian");
    fs::write(&wrong, text).expect("to write");
    let refused = tool("hadolint").arg(&wrong).output().expect("hadolint");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("DL3006"), "{refused:?}");
}

/// What the file names must be there.
#[test]
fn the_file_builds_from_what_is_here() {
    let file = fs::read_to_string(ours(FILE)).expect("the container file");
    let manifest: toml::Table = fs::read_to_string(ours("Cargo.toml")).expect("Cargo.toml").parse().expect("TOML");
    let rust = manifest["package"]["rust-version"].as_str().expect("a version");
    assert!(file.contains(&format!("FROM rust:{rust}-")), "the oldest Rust that does: {rust}");
    assert!(
        file.contains("apt-get install -y --no-install-recommends clang"),
        "the program for the kernel is compiled, too"
    );
    assert!(file.contains("deploy/container/rootfs.sh target/release/turnserver /rootfs"));
    assert_eq!(access(&ours("deploy/container/rootfs.sh")).0 & 0o111, 0o111, "it is started");
    assert!(file.contains(&format!("USER {USER}:{USER}")), "by number, so that Kubernetes knows that it is not root");
}

#[test]
fn the_image_has_nothing_but_the_program_and_serves() {
    inside("container::the_image_has_nothing_but_the_program_and_serves", || {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        lay_out(&root);
        let programs = executables(&root);
        let expected = ["usr/bin/turnserver"].map(PathBuf::from).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(programs, expected, "only libraries beside it");
        for path in ["run/turnserver", "var/lib/turnserver"] {
            assert_eq!(access(&root.join(path)), (0o700, USER, USER), "{path}");
        }
        for licence in [
            "turnserver/LICENSE",
            "turnserver/THIRD-PARTY.txt",
            "libc6/copyright",
            "libssl3/copyright",
            "ca-certificates/copyright",
        ] {
            let text = fs::read_to_string(root.join("usr/share/doc").join(licence))
                .unwrap_or_else(|error| panic!("{licence}: {error}"));
            assert!(text.contains("opyright"), "{licence}: {text}");
        }
        assert!(root.join("usr/share/common-licenses/LGPL-2.1").is_file(), "that of the C library");

        protect(&root);
        let mut server = Process::start(in_image(&root, &instruction("ENTRYPOINT")));
        server.find_line(PATIENCE, |line| line.contains("iceServers").then_some(()));
        let output = server.output();
        serves(&credentials(&output.replace("\": \"", "\":\"")));
        assert!(output.contains("management socket"), "{output}");
        let health = instruction("HEALTHCHECK");
        let check = || in_image(&root, &health).output().expect("to run").status.code();
        assert_eq!(check(), Some(0), "healthy");
        // One that drains is healthy, too: whoever kills it for that ends its sessions.
        let ctl = |verb: &[&str]| {
            let words = ["/usr/bin/turnserver", "ctl"].iter().chain(verb).map(|word| (*word).to_owned());
            run(in_image(&root, &words.collect::<Vec<_>>()), PATIENCE)
        };
        ctl(&["drain", "--stay"]);
        assert_eq!(check(), Some(0), "healthy");
        server.signal("TERM");
        assert!(server.wait(PATIENCE).is_some_and(|status| status.success()), "{}", server.output());
        assert_ne!(check(), Some(0), "not healthy");
    });
}

/// Files that can be started, other than libraries.
fn executables(root: &Path) -> BTreeSet<PathBuf> {
    let mut find = Command::new("find");
    find.arg(root).args(["-type", "f", "-perm", "/111", "-not", "-name", "*.so*", "-printf", "%P\\n"]);
    run(find, PATIENCE).lines().map(PathBuf::from).collect()
}
