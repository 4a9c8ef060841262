//! `turnserver ctl`: asks a running server over its Unix socket, and prints the answer for people or as JSON.

pub(super) mod client;
pub(super) mod explain;
mod table;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Subcommand;
use serde_json::{Value, json};

use self::{
    client::{Answer, call},
    table::Table,
};
use crate::{
    admin::encode,
    config::{self, DEFAULT_SOCKET, settings::Access},
};

/// The verb, and how to reach the server.
#[derive(Debug, clap::Args)]
pub(super) struct Ctl {
    /// The server's Unix socket. Default: that of the configuration, if one is named, or /run/turnserver/control.sock
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,

    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How the server is: state, workers, sessions, traffic, ports
    Info,
    /// Whether new clients should be sent here; the exit status is 0 if so, 1 otherwise
    Status,
    /// The version of the running server
    Version,
    /// Sessions, of all users or one
    Sessions {
        /// Only sessions of this user
        user: Option<String>,
        /// Only the session with this id, in detail
        #[arg(long, value_name = "ID", conflicts_with_all = ["user", "client", "transport", "limit"])]
        id: Option<String>,
        /// Only sessions of clients with this IP address
        #[arg(long, value_name = "IP")]
        client: Option<String>,
        /// Only sessions of clients over this transport: udp, tcp, tls, dtls
        #[arg(long, value_name = "NAME")]
        transport: Option<String>,
        /// Print so many at most
        #[arg(long, value_name = "NUMBER", default_value = "1000")]
        limit: usize,
    },
    /// End a session, or all sessions of a user or of a secret
    Disconnect {
        /// The session's id, as in lists and log lines
        #[arg(required_unless_present_any = ["user", "secret"])]
        id: Option<String>,
        /// All sessions of this user
        #[arg(long, value_name = "NAME", conflicts_with_all = ["id", "secret"])]
        user: Option<String>,
        /// All sessions with credentials that were made with the secret of this name, or tokens of the key with this id
        #[arg(long, value_name = "NAME", conflicts_with = "id")]
        secret: Option<String>,
        /// Only in this realm
        #[arg(long, value_name = "NAME", conflicts_with = "id")]
        realm: Option<String>,
    },
    /// Make a time-limited credential, with a secret of the running server
    Credentials {
        /// The user's name; quotas and logs go by it
        user: Option<String>,
        /// How long it is good for, like 12h or 7d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = config::parse_period)]
        ttl: Duration,
        /// The realm whose secret it is made with [default: that of [auth]]
        #[arg(long, value_name = "NAME")]
        realm: Option<String>,
        /// The secret that it is made with [default: the first]
        #[arg(long, value_name = "NAME")]
        secret_name: Option<String>,
        /// What the answer looks like: rest, ice-servers or cloudflare
        #[arg(long, value_name = "SHAPE", default_value = "rest", value_parser = ["rest", "ice-servers", "cloudflare"])]
        shape: String,
    },
    /// Take no new sessions; stop when none is left
    Drain {
        /// End the sessions that are left after this time ("90s", "10m"). Default: process.drain-timeout
        #[arg(long, value_name = "DURATION", conflicts_with = "stay", value_parser = config::parse_period)]
        timeout: Option<Duration>,
        /// Go on running when no session is left
        #[arg(long)]
        stay: bool,
    },
    /// Take new sessions again
    Undrain,
    /// The log level, or a new one until the server ends or its configuration names another
    Loglevel {
        /// Like info, or info,turnserver::turn=debug
        #[arg(value_parser = config::check_log_level)]
        level: Option<String>,
    },
    /// Read the configuration again and go on with it; a bad one changes nothing
    Reload,
    /// Stop the server now
    Stop,
}

impl Ctl {
    /// Does it. `configuration` may name the socket.
    pub(super) fn run(&self, configuration: Option<&Path>) -> ExitCode {
        answered(self.socket.as_deref(), configuration, |socket| self.ask(socket))
    }

    /// The answer as it is to be printed, and the exit status.
    fn ask(&self, socket: &Path) -> Result<(String, ExitCode), String> {
        let answer = match &self.verb {
            Verb::Info | Verb::Version => call(socket, "GET", "/status", None)?.good()?,
            Verb::Status => {
                // An answer either way.
                let Answer { status, body } = call(socket, "GET", "/ready", None)?;
                let code = if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                return Ok((self.shown(&body, readiness), code));
            }
            Verb::Sessions { id: Some(id), .. } => {
                call(socket, "GET", &format!("/v1/sessions/{}", encode(id)), None)?.good()?
            }
            Verb::Sessions { user, client, transport, limit, .. } => {
                let filters = [("user", user), ("client", client), ("transport", transport)];
                all_sessions(socket, &filters, *limit)?
            }
            Verb::Credentials { user, ttl, realm, secret_name, shape } => {
                let user = user.as_deref().unwrap_or_default();
                let (realm, secret) = (realm.as_deref(), secret_name.as_deref());
                let wish =
                    json!({ "user": user, "ttl": ttl.as_secs(), "realm": realm, "secret": secret, "shape": shape });
                call(socket, "POST", "/v1/credentials", Some(&wish))?.good()?
            }
            Verb::Disconnect { id, user, secret, realm } => {
                let given = [("user", user), ("secret", secret), ("realm", realm)];
                let given =
                    given.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
                let target = match id {
                    Some(id) => format!("/v1/sessions/{}", encode(id)),
                    None => format!("/v1/sessions?{}", given.collect::<Vec<_>>().join("&")),
                };
                call(socket, "DELETE", &target, None)?.good()?
            }
            Verb::Drain { timeout, stay } => {
                let timeout = timeout.map(|timeout| timeout.as_secs_f64());
                call(socket, "POST", "/v1/drain", Some(&json!({ "timeout": timeout, "stay": stay })))?.good()?
            }
            Verb::Undrain => call(socket, "DELETE", "/v1/drain", None)?.good()?,
            Verb::Loglevel { level: None } => call(socket, "GET", "/v1/log-level", None)?.good()?,
            Verb::Loglevel { level: Some(level) } => {
                call(socket, "PUT", "/v1/log-level", Some(&json!({ "level": level })))?.good()?
            }
            Verb::Reload => call(socket, "POST", "/v1/reload", None)?.good()?,
            Verb::Stop => call(socket, "POST", "/v1/stop", None)?.good()?,
        };
        let text = match &self.verb {
            Verb::Info => self.shown(&answer, info),
            Verb::Version if self.json => format!("{}\n", json!({ "version": answer["version"] })),
            Verb::Version => format!("{}\n", word(&answer["version"])),
            Verb::Sessions { id: Some(_), .. } => self.shown(&answer, session),
            Verb::Sessions { .. } => self.shown(&answer, sessions),
            Verb::Disconnect { .. } => {
                self.shown(&answer, |answer| format!("sessions ended: {}\n", answer["disconnected"]))
            }
            Verb::Credentials { shape, .. } if shape == "rest" => self.shown(&answer, credential),
            Verb::Credentials { .. } => self.shown(&answer, |answer| format!("{answer:#}\n")),
            Verb::Drain { .. } | Verb::Undrain | Verb::Stop => self.shown(&answer, state),
            Verb::Reload => self.shown(&answer, reloaded),
            Verb::Loglevel { .. } => self.shown(&answer, |answer| format!("{}\n", word(&answer["level"]))),
            Verb::Status => String::new(),
        };
        Ok((text, ExitCode::SUCCESS))
    }

    fn shown(&self, answer: &Value, for_people: impl Fn(&Value) -> String) -> String {
        if self.json { format!("{answer}\n") } else { for_people(answer) }
    }
}

/// Finds the server's socket, by name or in the configuration, and prints what `ask` makes of its answer.
fn answered(
    socket: Option<&Path>,
    configuration: Option<&Path>,
    ask: impl FnOnce(&Path) -> Result<(String, ExitCode), String>,
) -> ExitCode {
    let socket = match (socket, configuration) {
        (Some(socket), _) => socket.to_owned(),
        (None, None) => PathBuf::from(DEFAULT_SOCKET),
        (None, Some(file)) => match config::load(file) {
            // What is wrong with the rest of it is for the server to say: it may be asked to reload just this.
            Err(errors) => match config::socket_in(file) {
                Some(socket) => socket,
                None => return super::refuse(&errors),
            },
            Ok(loaded) => match loaded.settings.management.socket {
                Some(Access { at, .. }) => at,
                None => return failed("the server has no management socket: management.socket is \"off\""),
            },
        },
    };
    match ask(&socket) {
        Ok((text, code)) => {
            let mut out = io::stdout().lock();
            // Closed output is nobody's failure.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            code
        }
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Page by page.
fn all_sessions(socket: &Path, filters: &[(&str, &Option<String>)], limit: usize) -> Result<Value, String> {
    let given = filters.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encode(value.as_deref()?))));
    let given: String = given.collect();
    let (mut sessions, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = (limit - sessions.len()).min(1000);
        if page == 0 {
            return Ok(json!({ "sessions": sessions, "more": true }));
        }
        let answer = call(socket, "GET", &format!("/v1/sessions?limit={page}{cursor}{given}"), None)?.good()?;
        sessions.extend(answer["sessions"].as_array().cloned().unwrap_or_default());
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(json!({ "sessions": sessions, "more": false })),
        }
    }
}

/// Text without its quotes, and anything else as JSON has it.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn words(values: &Value) -> String {
    values.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(" ")
}

/// Seconds as a person would say them.
fn period(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or_default();
    // Durations are positive and far below 2^63.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Bytes as a person would say them.
fn size(bytes: &Value) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut number = bytes.as_f64().unwrap_or_default();
    let mut unit = 0;
    while number >= 1000.0 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{number:.1} {}", UNITS[unit]) }
}

fn readiness(answer: &Value) -> String {
    if answer["ready"] == true {
        return "ready\n".to_owned();
    }
    let obstacles = answer["obstacles"].as_array().into_iter().flatten().map(word).collect::<Vec<_>>();
    format!("not ready: {}\n", obstacles.join("; "))
}

fn state(answer: &Value) -> String {
    let mut text = format!("{}; sessions: {}", word(&answer["state"]), answer["sessions"]);
    let drain = &answer["drain"];
    if drain["left"].is_number() {
        text += &format!("; stops in {} at the latest", period(&drain["left"]));
    } else if drain["stay"] == true {
        text += "; goes on running when none is left";
    } else if drain.is_object() {
        text += "; stops when none is left";
    }
    text + "\n"
}

fn reloaded(answer: &Value) -> String {
    let list = |key: &str| answer[key].as_array().into_iter().flatten().map(word).collect::<Vec<_>>();
    let changed = list("changed");
    let mut text = match &changed[..] {
        [] => "reloaded; nothing has changed\n".to_owned(),
        changed => format!("reloaded; changed: {}\n", changed.join(", ")),
    };
    if answer["sessions_ended"] != 0 {
        text += &format!("sessions ended, as their users or secrets are gone: {}\n", answer["sessions_ended"]);
    }
    let restart = list("needs_restart");
    if !restart.is_empty() {
        text += &format!("not applied until a restart: {}\n", restart.join(", "));
    }
    list("warnings").iter().for_each(|warning| text += &format!("warning: {warning}\n"));
    if answer["complete"] == false {
        text += "a worker is busy and follows later\n";
    }
    text
}

fn info(answer: &Value) -> String {
    let traffic = |direction: &str| {
        let traffic = &answer["traffic"][direction];
        format!("{} in {} packets", size(&traffic["bytes"]), traffic["packets"])
    };
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("version", word(&answer["version"]));
    row("running for", period(&answer["uptime"]));
    row("state", state(answer).trim_end().to_owned());
    row("readiness", readiness(answer).trim_end().to_owned());
    for listener in answer["listeners"].as_array().into_iter().flatten() {
        row("listening", format!("{} {}", word(&listener["transport"]), word(&listener["address"])));
    }
    let allocations = &answer["allocations"];
    row("allocations", format!("{} now, {} since the start", allocations["active"], allocations["total"]));
    for by in allocations["by"].as_array().into_iter().flatten().filter(|by| by["total"] != 0) {
        let name = format!("  {} {}", word(&by["transport"]), word(&by["family"]));
        row(&name, format!("{} now, {} since the start", by["active"], by["total"]));
    }
    row("connections", answer["connections"].to_string());
    row("to peers", traffic("to_peers"));
    row("to clients", traffic("to_clients"));
    let requests = &answer["requests"];
    row("requests", format!("{} successes, {} errors", requests["successes"], requests["errors"]));
    for (reason, count) in answer["drops"].as_object().into_iter().flatten().filter(|(_, count)| **count != 0) {
        row("dropped", format!("{count} {reason}"));
    }
    for drops in answer["kernel_drops"].as_array().into_iter().flatten().filter(|drops| drops["datagrams"] != 0) {
        row("kernel drops", format!("{} on {}", drops["datagrams"], word(&drops["address"])));
    }
    for pool in answer["ports"].as_array().into_iter().flatten() {
        let (used, size) = (&pool["used"], &pool["size"]);
        row("relay ports", format!("{used} of {size} {} on {}", word(&pool["protocol"]), word(&pool["address"])));
    }
    for worker in answer["workers"].as_array().into_iter().flatten() {
        let load = worker["load"].as_f64().map_or_else(|| "?".to_owned(), |load| format!("{:.0} %", load * 100.0));
        let name = format!("worker {}", worker["worker"]);
        row(&name, format!("load {load}, {} allocations", worker["allocations"]));
    }
    table.text()
}

fn sessions(answer: &Value) -> String {
    let mut table = Table::default();
    let head = ["ID", "USER", "CLIENT", "BY", "RELAYED", "AGE", "TO PEERS", "TO CLIENT"];
    table.row(head.map(str::to_owned));
    let list = answer["sessions"].as_array();
    for session in list.into_iter().flatten() {
        table.row([
            word(&session["id"]),
            word(&session["user"]),
            word(&session["client"]),
            word(&session["transport"]),
            words(&session["relayed"]),
            period(&session["age"]),
            size(&session["to_peers"]["bytes"]),
            size(&session["to_client"]["bytes"]),
        ]);
    }
    let more = if answer["more"] == true { "(there may be more: --limit)\n" } else { "" };
    format!("{}{more}", table.text())
}

fn credential(answer: &Value) -> String {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("username", word(&answer["username"]));
    row("password", word(&answer["password"]));
    row("good for", period(&answer["ttl"]));
    for uri in answer["uris"].as_array().into_iter().flatten() {
        row("uri", word(uri));
    }
    table.text()
}

fn session(answer: &Value) -> String {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    for name in ["id", "user", "realm", "tenant", "secret", "client", "server", "transport", "protocol"] {
        if !answer[name].is_null() {
            row(name, word(&answer[name]));
        }
    }
    row("relayed", words(&answer["relayed"]));
    row("age", period(&answer["age"]));
    row("expires in", period(&answer["expires_in"]));
    for (name, key) in [("to peers", "to_peers"), ("to client", "to_client")] {
        row(name, format!("{} in {} packets", size(&answer[key]["bytes"]), answer[key]["packets"]));
    }
    let peers = &answer["peers"];
    row("permissions", words(&peers["permissions"]));
    for channel in peers["channels"].as_array().into_iter().flatten() {
        row("channel", format!("{} {}", word(&channel["number"]), word(&channel["peer"])));
    }
    row("connections", words(&peers["connections"]));
    if answer["away"] == true {
        row("away", "its client is gone, and may come back with its ticket".to_owned());
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_do() {
        for (seconds, text) in
            [(0.25, "0.2s"), (59.0, "59.0s"), (61.0, "1m01s"), (3_700.0, "1h01m"), (90_000.0, "1d01h")]
        {
            assert_eq!(period(&json!(seconds)), text);
        }
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_230_000_000, "1.2 GB")] {
            assert_eq!(size(&json!(bytes)), text);
        }
    }

    #[test]
    fn states_are_said_as_people_do() {
        let text = |answer| state(&answer);
        assert_eq!(text(json!({ "state": "serving", "drain": null, "sessions": 3 })), "serving; sessions: 3\n");
        let drain = json!({ "left": 90.0, "stay": false, "for": 0.0 });
        let expected = "draining; sessions: 1; stops in 1m30s at the latest\n";
        assert_eq!(text(json!({ "state": "draining", "drain": drain, "sessions": 1 })), expected);
    }
}
