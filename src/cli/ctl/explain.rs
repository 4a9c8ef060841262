//! `turnserver explain`: why a client cannot connect, or is not heard.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;

use super::{answered, client::call, table::printable, word};
use crate::admin::encode;

/// Whom it is about, and how to reach the server.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Explain {
    /// The client's IP address, with or without port, a user's name, or a session's id
    #[arg(value_name = "IP | IP:PORT | USER | SESSION")]
    of: String,

    /// The server's Unix socket. Default: that of the configuration, if one is named, or /run/turnserver/control.sock
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Does it. `configuration` may name the socket.
    pub(in crate::cli) fn run(&self, configuration: Option<&Path>) -> ExitCode {
        answered(self.socket.as_deref(), configuration, |socket| {
            let answer = call(socket, "GET", &format!("/v1/explain?of={}", encode(&self.of)), None)?.good()?;
            let text = if self.json { format!("{answer}\n") } else { explanation(&answer) };
            Ok((text, ExitCode::SUCCESS))
        })
    }
}

/// A time ago, in its largest unit.
fn ago(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or_default();
    match seconds {
        ..1.0 => "now".to_owned(),
        ..120.0 => format!("{seconds:.0} s ago"),
        ..7_200.0 => format!("{:.0} min ago", (seconds / 60.0).floor()),
        ..172_800.0 => format!("{:.0} h ago", (seconds / 3_600.0).floor()),
        _ => format!("{:.0} days ago", (seconds / 86_400.0).floor()),
    }
}

/// From the first time to the last.
fn within(finding: &Value) -> String {
    let between = finding["first"].as_f64().unwrap_or_default() - finding["last"].as_f64().unwrap_or_default();
    if between < 1.0 { String::new() } else { format!(" in {}", ago(&between.into()).trim_end_matches(" ago")) }
}

/// Text in lines that a terminal has room for.
fn wrapped(text: &str, first: &str, rest: &str) -> String {
    const WIDTH: usize = 100;
    let mut lines = String::from(first);
    let mut column = first.chars().count();
    for (at, word) in text.split_whitespace().enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > WIDTH {
            lines = lines + "\n" + rest;
            column = rest.len();
        } else if at > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines + "\n"
}

/// When, how often, from where.
fn heading(finding: &Value) -> String {
    let mut parts = Vec::new();
    if !finding["last"].is_null() {
        parts.push(ago(&finding["last"]));
        match finding["count"].as_u64() {
            None | Some(..=1) => {}
            Some(count) if finding["session"].is_string() => parts.push(format!("{count} sessions alike, one of them")),
            Some(count) => parts.push(format!("{count} times{}", within(finding))),
        }
    }
    if let Some(client) = finding["client"].as_str() {
        let by = finding["transport"].as_str().map_or_else(String::new, |transport| format!(" over {transport}"));
        parts.push(format!("{client}{by}"));
    }
    parts.extend(finding["user"].as_str().map(|user| format!("user {user}")));
    parts.push(word(&finding["reason"]));
    parts.join(", ")
}

/// One paragraph for each finding: when and from where, what happened, what to do.
fn explanation(answer: &Value) -> String {
    let findings = answer["findings"].as_array().into_iter().flatten();
    let paragraphs = findings.map(|finding| {
        let said = |what: &str| printable(&word(&finding[what]));
        let heading = printable(&heading(finding)) + "\n";
        heading + &wrapped(&said("text"), "  ", "  ") + &wrapped(&said("remedy"), "  -> ", "     ")
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_a_paragraph_and_harmless() {
        let finding = json!({
            "reason": "wrong-password", "text": "It is \u{1b}[2J wrong.", "remedy": "Correct it. ".repeat(9), "client": "192.0.2.7:5000",
            "transport": "udp", "user": "alice", "session": null, "count": 3, "first": 133.5, "last": 3.2,
        });
        let nothing = json!({ "reason": "nothing-known", "text": "Nothing.", "remedy": "Look.", "client": null,
            "transport": null, "user": null, "session": null, "count": 0, "first": null, "last": null });
        let expected = format!(
            "3 s ago, 3 times in 2 min, 192.0.2.7:5000 over udp, user alice, wrong-password\n  It is \u{FFFD}[2J wrong.\n  \
             -> {}\n     Correct it.\n\nnothing-known\n  Nothing.\n  -> Look.\n",
            ["Correct it."; 8].join(" ")
        );
        assert_eq!(explanation(&json!({ "findings": [finding, nothing] })), expected);
    }
}
