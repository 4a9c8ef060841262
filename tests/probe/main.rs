//! A client's end, from outside: `turnserver probe` against our server, coturn's and ones that are broken; `turnserver check` with
//! what it finds on a host; `external-ip = "auto"` with clouds and STUN servers that are made up.
//!
//! Needs coturn's `turnserver`, started on loopback with a configuration of its own.

#[path = "../common/mod.rs"]
mod common;

mod checks;
mod coturn;
mod external;
mod fakes;
mod servers;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Runs our program with this on standard input.
fn turnserver(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    let mut child = command
        .args(arguments)
        .env("PROBE_PASSWORD", common::PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("our program");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that needs none may have closed it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("an end")
}

/// Its exit status and what it printed as JSON.
fn json(arguments: &[&str], input: &str) -> (i32, Value) {
    let output = turnserver(&[arguments, &["--json"]].concat(), input);
    let printed = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().expect("an exit status"), value)
}

/// Whether there is a finding like this: level, a part of what it is about, a part of what is found. Says what there is otherwise.
#[track_caller]
fn assert_found(findings: &Value, (level, about, what): (&str, &str, &str)) {
    let has = |finding: &Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let remedied = matches!(text("level"), "ok" | "skipped") || !text("remedy").is_empty();
        text("level") == level && text("about").contains(about) && text("what").contains(what) && remedied
    };
    let list = findings.as_array().expect("findings");
    assert!(list.iter().any(has), "no {level} of {about:?} with {what:?} and a remedy in {findings:#}");
}

/// The findings of a probe's first path.
fn first_path(probed: &Value) -> &Value {
    &probed["targets"][0]["paths"][0]["findings"]
}
