//! A real headless Chromium, driven by the scripts in `tests/browser` (Node, playwright-core).
//!
//! Needs `chromium` (elsewhere than at /usr/bin/chromium: set `CHROMIUM`), Node 20 or later, npm, and `certutil`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{command_in, run};

/// One browser run takes 2 to 20 seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs a script in one of its modes and returns the JSON object that it prints. The browser trusts `authority`, a certificate in
/// PEM, besides those that it came with.
pub(crate) fn browse(script: &str, mode: &str, argument: &Value, authority: Option<&Path>) -> Value {
    browse_in(None, script, mode, argument, authority)
}

/// The same, inside a network namespace.
pub(crate) fn browse_in(
    namespace: Option<&str>,
    script: &str,
    mode: &str,
    argument: &Value,
    authority: Option<&Path>,
) -> Value {
    let _one_at_a_time = lock();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    if !directory.join("node_modules/playwright-core").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&directory);
        run(npm, LIMIT);
    }
    let home = tempfile::tempdir().expect("a folder");
    if let Some(authority) = authority {
        trust(home.path(), authority);
    }
    let mut node = command_in(namespace, "node");
    node.env("HOME", home.path()).arg(script).arg(mode).arg(argument.to_string()).current_dir(&directory);
    let output = run(node, LIMIT);
    let result = output.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str(line).ok());
    result.unwrap_or_else(|| panic!("{script} printed no JSON object:\n{output}"))
}

/// Makes an authority one that Chromium believes, for the user whose home this is: it looks into his NSS database.
fn trust(home: &Path, authority: &Path) {
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).expect("a folder");
    let database = format!("sql:{}", database.display());
    let mut create = Command::new("certutil");
    create.args(["-N", "--empty-password", "-d", &database]);
    run(create, LIMIT);
    let mut add = Command::new("certutil");
    add.args(["-A", "-n", "authority of the tests", "-t", "C,,", "-d", &database, "-i"]).arg(authority);
    run(add, LIMIT);
}

/// Two browsers at a time, or two `npm ci`, are too much for a small machine; other test processes are kept out as
/// well.
fn lock() -> File {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser.lock");
    let file = File::create(path).expect("a lock file");
    file.lock().expect("the lock");
    file
}
