//! `turnserver import-coturn` from outside: configurations as real set-ups have them are imported, our server starts with what comes
//! of them, and coturn's own client is served with their credentials.
//!
//! The files beside this one are written for these tests, with the settings that the documentation of each project gives.

#[path = "../common/mod.rs"]
mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use common::{Server, tls, uclient::Run};

/// Errors in the file, and open questions.
const REFUSED: i32 = 78;
const TO_DECIDE: i32 = 3;

/// coturn's example, as Debian installs it.
const EXAMPLE: &str = "/etc/turnserver.conf";

fn turnserver(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    for variable in ["TURNSERVER_CONFIG", "TURNSERVER_LOG_LEVEL", "TURNSERVER_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command.args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Imports a text with further arguments, from a folder.
fn import(folder: &Path, text: &str, arguments: &[&str]) -> Output {
    let file = folder.join("turnserver.conf");
    fs::write(&file, text).unwrap();
    turnserver(&[&["import-coturn", file.to_str().unwrap()], arguments].concat())
}

/// The file of a set-up, with what it needs of the world put where the test has it: its addresses are loopback, its certificate is
/// one of `folder`.
fn file(name: &str, folder: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name);
    let text = fs::read_to_string(path).unwrap();
    let here = |line: &str| match line.split_once('=') {
        Some(("cert", _)) => format!("cert={}/cert.pem\n", folder.display()),
        Some(("pkey", _)) => format!("pkey={}/cert.key\n", folder.display()),
        _ => format!("{line}\n"),
    };
    let mut text: String = text.lines().map(here).collect();
    if text.contains("cert=") {
        let authority = tls::Authority::new();
        authority.write(folder, "cert", authority.issue(&[tls::HOST]));
    }
    for address in ["203.0.113.10", "192.0.2.10", "10.0.0.10"] {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
        let parts: Vec<&str> = text.split(address).collect();
        assert!(parts.iter().skip(1).all(|rest| ends(rest)), "{name}: {address} is the beginning of another address");
        text = parts.join("127.0.0.1");
    }
    text = text.replace("listening-ip = 0.0.0.0", "listening-ip = 127.0.0.1");
    if !text.contains("listening-ip") {
        text.push_str("listening-ip=127.0.0.1\n");
    }
    text
}

/// The configuration that a file comes to, with ports that the system chooses. Nothing is to be decided beyond `decisions`.
fn imported(name: &str, folder: &Path, decisions: &[&str]) -> String {
    let text = file(name, folder);
    let output = import(folder, &text, decisions);
    assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
    assert!(!stderr(&output).contains("does not start on this host"), "{name}: {}", stderr(&output));
    let toml = stdout(&output).lines().map(|line| match line.split_once(" = ") {
        Some(("listening-port", _)) => "listening-port = 0\n".to_owned(),
        // The usual port may be another server's.
        Some(("listen", _)) => "listen = \"127.0.0.1:0\"\n".to_owned(),
        _ => format!("{line}\n"),
    });
    toml.collect()
}

/// Imports a file, starts the server, and lets coturn's client relay from one of its allocations to another.
fn serves(name: &str, transport: &str, options: &[&str], credentials: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let decisions: &[&str] = if name == "vdo-ninja.conf" { &["--decide", "no-stun=drop"] } else { &[] };
    let server = Server::start(&imported(name, folder.path(), decisions));
    let options = [&["-X", "-y", "-m", "2"], options].concat();
    let run = Run { namespace: None, server: server.ipv4(transport), peer: None, options: &options, sessions: 4 };
    run.check_as(credentials);
    server.stop();
}

const UDP: &[&str] = &[];
const TCP: &[&str] = &["-t"];
const TLS: &[&str] = &["-t", "-S"];

/// The minimal configuration raises no question, and its user logs in.
#[test]
fn tutorial() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &file("tutorial.conf", folder.path()), &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let of = |kind: &str| report["items"].as_array().unwrap().iter().filter(|item| item["kind"] == kind).count();
    assert_eq!((of("error"), of("decide"), of("changed"), of("ignored")), (0, 0, 1, 1), "{report:#}");
    assert_eq!(report["imported"].as_array().unwrap().len(), 12);
    serves("tutorial.conf", "udp", UDP, &["-u", "neo", "-w", "tape"]);
}

#[test]
fn matrix() {
    serves("matrix.conf", "udp", UDP, &["-u", "@alice:example.org", "-W", "bWF0cml4IHNlY3JldCBvZiB0aGUgdGVzdA"]);
}

#[test]
fn matrix_over_tls() {
    serves("matrix.conf", "tls", TLS, &["-u", "@alice:example.org", "-W", "bWF0cml4IHNlY3JldCBvZiB0aGUgdGVzdA"]);
}

#[test]
fn nextcloud() {
    serves("nextcloud.conf", "tcp", TCP, &["-u", "alice", "-W", "bmV4dGNsb3VkIHNlY3JldCBvZiB0aGUgdGVzdA"]);
}

#[test]
fn jitsi() {
    serves("jitsi.conf", "tls", TLS, &["-u", "alice", "-W", "aml0c2kgc2VjcmV0IG9mIHRoZSB0ZXN0"]);
}

/// All peers are denied but the conference server; clients of the server still reach each other.
#[test]
fn bigbluebutton() {
    serves("bigbluebutton.conf", "udp", UDP, &["-u", "alice", "-W", "Ymlnc2JsdWVidXR0b24gc2VjcmV0"]);
}

#[test]
fn netbird() {
    serves("netbird.conf", "udp", UDP, &["-u", "self", "-w", "bmV0YmlyZA"]);
}

#[test]
fn docker() {
    serves("docker.conf", "tcp", TCP, &["-u", "username", "-w", "password"]);
}

#[test]
fn mattermost() {
    serves("mattermost.conf", "udp", UDP, &["-u", "alice", "-W", "bWF0dGVybW9zdCBzZWNyZXQ"]);
}

/// Its channel numbers are those of RFC 8656, as with the coturn that knows its keys, so that Debian's client sends without.
#[test]
fn element() {
    let (secret, options) = ("ZWxlbWVudCBjYWxsIHNlY3JldA", ["-X", "-s", "-y", "-m", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&imported("element.conf", folder.path(), &[]));
    let run = Run { namespace: None, server: server.ipv4("udp"), peer: None, options: &options, sessions: 4 };
    run.check_as(&["-u", "alice", "-W", secret]);
    server.stop();
}

#[test]
fn nixos() {
    serves("nixos.conf", "tls", TLS, &["-u", "alice", "-W", "cHJvc29keSBzZWNyZXQgb2YgdGhlIHRlc3Q"]);
}

#[test]
fn vdo_ninja() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &file("vdo-ninja.conf", folder.path()), &[]);
    assert_eq!(output.status.code(), Some(TO_DECIDE), "{}", stderr(&output));
    assert!(stderr(&output).contains("decide: no-stun: ") && stderr(&output).contains("--decide no-stun=drop"));
    serves("vdo-ninja.conf", "udp", UDP, &["-u", "vdo", "-w", "bmluamE"]);
}

/// Its users are in Redis, which is not there: the server starts and waits for it.
#[test]
fn openvidu() {
    let folder = tempfile::tempdir().unwrap();
    let toml = imported("openvidu.conf", folder.path(), &[]);
    assert!(toml.contains("url = \"redis://:turn@127.0.0.1:1/0\""), "{toml}");
    Server::start(&toml).stop();
}

/// As it comes, coturn's example sets nothing that asks for credentials, which is a question.
#[test]
fn the_example_of_coturn() {
    let output = turnserver(&["import-coturn", EXAMPLE]);
    assert_eq!(output.status.code(), Some(TO_DECIDE), "{}", stderr(&output));
    assert!(output.stdout.is_empty() && stderr(&output).contains("decide: no-auth: "), "{}", stderr(&output));
    let output = turnserver(&["import-coturn", EXAMPLE, "--decide", "no-auth=anonymous"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let here = format!(
        "[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = 0\n\n[relay]{}",
        stdout(&output).split_once("[relay]").unwrap().1
    );
    Server::start(&here).stop();
}

/// The same with everything that it has commented out: every key is known, and what its placeholders allow is imported.
#[test]
fn the_example_of_coturn_with_all_that_it_shows() {
    let text = fs::read_to_string(EXAMPLE).expect("coturn's example, which its package brings");
    // Those that have placeholders, contradict others, or leave nothing to import.
    const WITHOUT: [&str; 8] = [
        "no-auth",
        "no-udp",
        "no-tcp",
        "no-udp-relay",
        "pkey-pwd",
        "web-admin-listen-on-workers",
        "stun-only",
        "no-tls",
    ];
    let mut shown = 0;
    let mut uncommented = String::new();
    for line in text.lines() {
        let Some(setting) = line.strip_prefix('#') else {
            uncommented += &format!("{line}\n");
            continue;
        };
        let name = setting.split('=').next().unwrap_or_default();
        let is_setting =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_setting && !setting.contains('<') && !setting.contains('[') && !WITHOUT.contains(&name) {
            uncommented += &format!("{setting}\n");
            shown += 1;
        } else {
            uncommented += &format!("{line}\n");
        }
    }
    assert!(shown > 80, "{shown} settings are shown");
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &uncommented, &["--check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let of = |kind: &str| {
        let items = report["items"].as_array().unwrap().iter().filter(|item| item["kind"] == kind);
        items.map(|item| item["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("error"), Vec::<String>::new(), "{report:#}");
    let asked = of("decide");
    let answers: Vec<String> = report["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["kind"] == "decide")
        .map(|item| format!("{}={}", item["key"].as_str().unwrap(), item["answers"][0].as_str().unwrap()))
        .map(|answer| answer.replace("NETWORKS", "10.0.0.0/8"))
        .collect();
    assert!(asked.contains(&"server-relay".to_owned()) && asked.contains(&"tcp-proxy-port".to_owned()), "{asked:?}");
    let decided: Vec<&str> = answers.iter().flat_map(|answer| ["--decide", answer.as_str()]).collect();
    let output = import(folder.path(), &uncommented, &decided);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("[[listener]]") && stdout(&output).contains("max-port = 65535"));
}

const USER: &str = "realm=r\nlistening-ip=127.0.0.1\nuser=neo:hunter2\n";

#[test]
fn what_coturn_does_not_know_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &format!("{USER}denied_peer_ip=10.0.0.0-10.0.0.9\n"), &[]);
    assert_eq!(output.status.code(), Some(REFUSED));
    assert!(output.stdout.is_empty());
    let report = stderr(&output);
    assert!(report.contains("turnserver.conf:4: error: denied_peer_ip: is no key"), "{report}");
    assert!(report.contains("did you mean `denied-peer-ip`?"), "{report}");
}

#[test]
fn a_file_that_exists_is_not_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("turnserver.toml");
    let to = ["-o", result.to_str().unwrap()];
    let output = import(folder.path(), USER, &to);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    let first = fs::read_to_string(&result).unwrap();
    assert!(first.contains("\"hunter2\"") && !stderr(&output).contains("hunter2"));
    assert_eq!(fs::metadata(&result).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(turnserver(&["check", "-c", to[1]]).status.code(), Some(0));

    let other = format!("{USER}min-port=50000\n");
    let output = import(folder.path(), &other, &to);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--force writes over it"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&result).unwrap(), first);
    // Whoever made it before has let others read it.
    fs::set_permissions(&result, fs::Permissions::from_mode(0o644)).unwrap();
    let output = import(folder.path(), &other, &[&to[..], &["--force"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::metadata(&result).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&result).unwrap().contains("min-port = 50000"));
}

#[test]
fn nothing_is_written_without_an_answer_or_with_check() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("turnserver.toml");
    let output = import(folder.path(), &format!("{USER}server-relay\n"), &["-o", result.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(TO_DECIDE));
    assert!(!result.exists() && stderr(&output).contains("--decide server-relay=drop"), "{}", stderr(&output));
    let output = import(folder.path(), USER, &["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    assert_eq!(import(folder.path(), USER, &["--decide", "server-relay"]).status.code(), Some(2));
    assert_eq!(import(folder.path(), USER, &["--from-version", "newest"]).status.code(), Some(2));
    assert_eq!(turnserver(&["import-coturn", "/nonexistent.conf"]).status.code(), Some(1));
}

#[test]
fn what_does_not_start_here_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = import(folder.path(), &format!("{USER}cert=/nonexistent.pem\npkey=/nonexistent.key\n"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("does not start on this host as it is")
            && stderr(&output).contains("/nonexistent.pem")
    );
}

#[test]
fn the_server_says_how_to_import_a_file_of_coturn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turnserver.conf");
    let path = path.to_str().unwrap();
    for text in [
        USER,
        "# Coturn TURN SERVER configuration file\n#realm=x\n",
        "use-auth-secret\nstatic-auth-secret=hunter2\nrealm=x\n",
    ] {
        fs::write(path, text).unwrap();
        for arguments in [&["-c", path][..], &["check", "-c", path]] {
            let output = turnserver(arguments);
            assert_eq!(output.status.code(), Some(REFUSED), "{text}");
            let wanted = format!(
                "error: {path}: this is a configuration of coturn; import it: turnserver import-coturn {path} -o "
            );
            assert!(
                stderr(&output).starts_with(&wanted) && !stderr(&output).contains("hunter2"),
                "{}",
                stderr(&output)
            );
        }
    }
    fs::write(path, "[auth]\nrealm = r\n").unwrap();
    assert!(!stderr(&turnserver(&["check", "-c", path])).contains("coturn"));
}
