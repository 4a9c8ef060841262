//! `turnserver check --syntax-only` from outside: the configurations that we hand out, exit statuses, masking, the command line. What
//! `check` tries is in `tests/probe`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// `EX_CONFIG`.
const CONFIG_ERROR: i32 = 78;

fn turnserver(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command.args(arguments).output().unwrap()
}

fn check(path: &Path) -> Output {
    turnserver(&["check", "--syntax-only", "-c", path.to_str().unwrap()])
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn write(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("t.toml");
    fs::write(&path, text).unwrap();
    path
}

#[cfg(unix)]
#[test]
fn files_with_secrets_that_everybody_can_read_are_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("auth-secret");
    fs::write(&secret, "0123456789abcdef0123\n").unwrap();
    let file = write(&folder, "[auth]\nrealm = \"r\"\nstatic-auth-secret-file = \"auth-secret\"\n");
    for (mode, warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let output = check(&file);
        assert_eq!(output.status.code(), Some(0));
        let said = stderr(&output);
        assert_eq!(said.contains("auth-secret") && said.contains("readable by everyone"), warned, "{mode:o}: {said}");
        assert!(!said.contains("0123456789abcdef"), "{said}");
    }
}

#[test]
fn every_configuration_that_we_hand_out_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ready_made = fs::read_dir(root.join("config")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = ready_made.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(files.len() >= 6, "{files:?}");
    files.push(root.join("turnserver.toml.example"));
    // The certificate that one of them wants beside itself.
    let folder = tempfile::tempdir().unwrap();
    let mut make = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    make.args([
        "certificate",
        "--self-signed",
        "--name",
        "localhost",
        "--out-cert",
        "cert.pem",
        "--out-key",
        "key.pem",
    ]);
    assert!(make.current_dir(folder.path()).status().unwrap().success());
    for file in files {
        // Where two addresses of the host are named, this host has these.
        let text = fs::read_to_string(&file).unwrap();
        let here = text.replace("\"192.0.2.10\"", "\"127.0.0.1\"").replace("\"192.0.2.11\"", "\"127.0.0.2\"");
        let output = check(&write(&folder, &here));
        assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), stderr(&output));
        assert!(stdout(&output).starts_with("[[listener]]\n"), "{}", file.display());
        assert!(!stdout(&output).contains("change-me") && !stderr(&output).contains("change-me"), "{}", file.display());
        assert!(text.starts_with("# "), "{} says when to use it", file.display());
    }
}

#[test]
fn effective_settings_are_printed_with_secrets_masked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "from-a-file\n").unwrap();
    let path = write(
        &folder,
        "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"a\"\npassword = \"hunter2\"\n\
         [[auth.user]]\nname = \"b\"\npassword-file = \"secret\"\n[limits]\nuser-quota = 7\n",
    );
    let output = check(&path);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains("user-quota = 7\n") && printed.contains("max-allocate-lifetime = \"1h\"\n"), "{printed}");
    assert_eq!(printed.matches("password = \"****\"\n").count(), 2, "{printed}");
    let all = format!("{printed}{}", stderr(&output));
    assert!(!all.contains("hunter2") && !all.contains("from-a-file"), "{all}");
}

#[test]
fn every_error_is_a_line_and_the_status_is_78() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder,
        "[auth]\nrealm = \"r\"\n[[auth.user]]\nname = \"a\"\npassword = 5\n[limits]\nuser-qouta = 7\n[relay]\nmin-port = 1\n",
    );
    for arguments in [vec!["check", "-c"], vec!["check", "--syntax-only", "-c"], vec!["-c"]] {
        let output = turnserver(&[arguments.as_slice(), &[path.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(CONFIG_ERROR));
        assert_eq!(stdout(&output), "");
        let file = path.display();
        let expected = [
            format!(
                "error: {file}:5:12: auth.user.password = ****: is of type integer, expected a string; write a string, in quotes"
            ),
            format!("error: {file}:7:1: limits.user-qouta = 7: unknown key; did you mean `user-quota`?"),
            format!("error: {file}:9:12: relay.min-port = 1: is out of range; write a number from 1024 to 65535"),
        ];
        assert_eq!(stderr(&output).lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_missing_file_is_an_error_not_the_defaults() {
    for arguments in [["check", "-c", "/nonexistent/t.toml"].as_slice(), &["-c", "/nonexistent/t.toml"]] {
        let output = turnserver(arguments);
        assert_eq!(output.status.code(), Some(CONFIG_ERROR));
        assert!(stderr(&output).starts_with("error: /nonexistent/t.toml: cannot read the configuration: "));
    }
}

#[test]
fn without_a_file_the_built_in_configuration_is_checked() {
    let output = turnserver(&["check", "--syntax-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("name = \"demo\"\npassword = \"****\"\n"));
}

#[test]
fn the_command_line_overrides_the_log_settings() {
    let output =
        turnserver(&["check", "--syntax-only", "--log-level", "info,turnserver::turn=debug", "--log-format", "json"]);
    assert!(stdout(&output).contains("\n[log]\nlevel = \"info,turnserver::turn=debug\"\nformat = \"json\"\n"));
    assert_eq!(turnserver(&["check", "--log-level", "loud"]).status.code(), Some(2));
}

#[test]
fn version_and_help_are_answered() {
    let version = turnserver(&["--version"]);
    assert_eq!(stdout(&version), format!("turnserver {}\n", env!("CARGO_PKG_VERSION")));
    let help = turnserver(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["--config <FILE>", "check", "Examples:", "TURNSERVER_CONFIG"] {
        assert!(stdout(&help).contains(word), "{word}");
    }
}
