//! What we hand out besides the program: the Debian package, the container file, manifests for Kubernetes, the dashboard and the
//! alerts. Each is used as far as that goes on one host, and then a client is served.
//!
//! Needs root, `unshare`, `setpriv` and `mount` (util-linux, mount), `chroot`, dpkg, cargo-deb, Prometheus with `promtool`, and the
//! programs of requirements.txt in `.venv` beside it; `.ci/run` installs them.

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod container;
mod debian;
mod inside;
mod kubernetes;
mod monitoring;

/// A program of requirements.txt.
fn tool(name: &str) -> std::process::Command {
    std::process::Command::new(format!("{}/tests/deploy/.venv/bin/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// A file of ours.
fn ours(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
