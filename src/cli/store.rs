//! What the commands on the configured store share: opening it, asking it within the time limit, secrets from prompt or
//! standard input, tables and JSON.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use serde_json::Value;
use zeroize::Zeroizing;

use super::{EXIT_CONFIG, ctl::client::call};
use crate::{
    auth::store::{
        Answer, NamedSecret, Registry, Store,
        open::{Opened, open},
    },
    config::settings::{self, Access, Settings},
};

/// Why a command has failed.
pub(super) enum Failure {
    /// The configuration has no store that it works on.
    Configuration(String),
    /// Anything else.
    Other(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Other(message.to_owned())
    }
}

/// The configured store and what is needed to ask it.
pub(super) struct Desk<'s> {
    pub(super) registry: Arc<dyn Registry>,
    settings: &'s settings::Store,
    runtime: &'s tokio::runtime::Runtime,
}

impl Desk<'_> {
    /// Asks; an answer that takes too long is a failure.
    pub(super) fn ask<T>(&self, answer: Answer<'_, T>) -> Result<T, Failure> {
        let (name, limit) = (self.settings.backend.name(), self.settings.limits.timeout);
        let answer = self.runtime.block_on(async { tokio::time::timeout(limit, answer).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("the store ({name}) {error}").into()),
            Err(_) => Err(format!("the store ({name}) has not answered within {limit:?}").into()),
        }
    }
}

/// Opens the configured store and runs a command on it; what goes wrong is said on standard error.
pub(super) fn on_store(settings: &Settings, command: impl FnOnce(&Desk<'_>) -> Result<(), Failure>) -> ExitCode {
    match open_and_run(settings, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Other(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn open_and_run(settings: &Settings, command: impl FnOnce(&Desk<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(settings) = &settings.store else {
        let remedy =
            "add the table [store] to the file given with -c; users under [[auth.user]] are changed in that file";
        return Err(Failure::Configuration(format!("the configuration names no store; {remedy}")));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let opened = open(settings).map_err(|error| format!("the store ({}) {error}", settings.backend.name()))?;
    match opened {
        Opened::Registry(registry) => command(&Desk { registry, settings, runtime: &runtime }),
        Opened::Store(_) => Err(Failure::Configuration(
            "the store is a service, which has commands of its own; it is only asked from here".to_owned(),
        )),
    }
}

/// The secrets of a realm in the configured store, whatever store that is.
pub(super) fn secrets_of(settings: &Settings, realm: &str) -> Result<Vec<NamedSecret>, String> {
    let Some(settings) = &settings.store else { return Ok(Vec::new()) };
    let (name, limit) = (settings.backend.name(), settings.limits.timeout);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let opened = open(settings).map_err(|error| format!("the store ({name}) {error}"))?;
    let store: Arc<dyn Store> = match opened {
        Opened::Registry(registry) => registry,
        Opened::Store(store) => store,
    };
    match runtime.block_on(async { tokio::time::timeout(limit, store.secrets(realm)).await }) {
        Ok(answer) => answer.map_err(|error| format!("the store ({name}) {error}")),
        Err(_) => Err(format!("the store ({name}) has not answered within {limit:?}")),
    }
}

/// Tells the running server of this configuration what has changed in the store, so that it counts at once; what is no longer there
/// ends its sessions. Without a server that has done so, the server finds it by itself after a while.
pub(super) fn tell_server(settings: &Settings, change: &Value) {
    let Some(Access { at: socket, .. }) = settings.management.socket.as_ref().filter(|socket| socket.at.exists())
    else {
        return;
    };
    // 409 is the answer of a server without a store.
    let answer = call(socket, "POST", "/v1/store/changes", Some(change));
    match answer.and_then(|answer| if answer.status == 409 { Ok(Value::Null) } else { answer.good() }) {
        Ok(answer) => {
            if let Some(ended @ 1..) = answer["disconnected"].as_u64() {
                eprintln!("sessions ended: {ended}");
            }
        }
        Err(why) => {
            let time = settings.store.as_ref().map(|store| store.limits.cache_time).unwrap_or_default();
            eprintln!("warning: a running server may know this only after {time:?}: {why}");
        }
    }
}

/// A secret of one line: asked for twice on a terminal without showing it, else read from standard input.
pub(super) fn read_secret(what: &str) -> Result<Zeroizing<String>, Failure> {
    let secret = if io::stdin().is_terminal() {
        let ask = |prompt: String| {
            let typed = rpassword::prompt_password(prompt).map_err(|error| format!("cannot read the {what}: {error}"));
            typed.map(Zeroizing::new)
        };
        let first = ask(format!("{what}: "))?;
        if first != ask(format!("{what}, once more: "))? {
            return Err("the two are not the same; nothing was changed".into());
        }
        first
    } else {
        read_line(what, io::stdin().lock())?
    };
    if secret.is_empty() {
        return Err(format!("the {what} is empty; nothing was changed").into());
    }
    Ok(secret)
}

/// The one line that there is to read.
fn read_line(what: &str, input: impl Read) -> Result<Zeroizing<String>, Failure> {
    const LONGEST: u64 = 4096;
    // As large as it can become: text that moves leaves itself behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize + 1));
    let length = input.take(LONGEST + 1).read_to_string(&mut text);
    let length = length.map_err(|error| format!("cannot read the {what} from standard input: {error}"))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if length as u64 > LONGEST || line.chars().any(char::is_control) {
        return Err(format!("the {what} on standard input is not one line of text; nothing was changed").into());
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Rows under headings for people, or a list of objects with these names for programs.
pub(super) fn print_rows<const N: usize>(names: [&str; N], rows: &[[String; N]], json: bool) -> Result<(), Failure> {
    let text = if json { objects(names, rows) } else { table(names, rows) };
    print(&text)
}

/// Prints to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| format!("cannot print: {error}").into())
}

fn objects<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    let object = |row: &[String; N]| {
        let fields = names.iter().zip(row).map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
        serde_json::Value::Object(fields.collect())
    };
    format!("{}\n", serde_json::Value::Array(rows.iter().map(object).collect()))
}

fn table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    let headings = names.map(str::to_uppercase);
    let lines: Vec<[String; N]> =
        std::iter::once(headings).chain(rows.iter().map(|row| row.each_ref().map(|cell| shown(cell)))).collect();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell without what a terminal would obey: databases hold whatever was put there.
fn shown(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_harmless() {
        let rows = [["r", "al\u{1b}[2Jice"], ["realm.example", "b"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["realm", "user"], &rows),
            "REALM          USER\nr              al\u{fffd}[2Jice\nrealm.example  b\n"
        );
        assert_eq!(table(["realm"], &[]), "REALM\n");
    }

    #[test]
    fn programs_get_objects() {
        let rows = [["r", "a\"b"]].map(|row| row.map(str::to_owned));
        assert_eq!(objects(["realm", "user"], &rows), "[{\"realm\":\"r\",\"user\":\"a\\\"b\"}]\n");
        assert_eq!(objects(["realm"], &[]), "[]\n");
    }

    #[test]
    fn one_line_is_read_and_nothing_else() {
        let read = |text: &str| read_line("password", text.as_bytes()).map(|line| line.as_str().to_owned());
        for text in ["tape", "tape\n", "tape\r\n"] {
            assert_eq!(read(text).ok().as_deref(), Some("tape"));
        }
        for text in ["two\nlines\n", "a\tb", &"x".repeat(5_000)] {
            let Err(Failure::Other(message)) = read(text) else { panic!("{text:?} was read") };
            assert!(message.ends_with("nothing was changed") && !message.contains("two"), "{message}");
        }
    }
}
