//! `turnserver import-coturn`: a configuration of coturn becomes one of ours.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use zeroize::Zeroizing;

use super::EXIT_CONFIG;
use crate::{
    config::{self, Host},
    import::{self, Imported, Options, Version, report::Kind},
};

/// There are questions without an answer.
const EXIT_DECIDE: u8 = 3;

/// What to import.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Import {
    /// coturn's configuration, usually /etc/turnserver.conf
    file: PathBuf,

    /// The version of coturn that it is for, as defaults have changed [default: guessed from its keys, 4.6.1 in doubt]
    #[arg(long, value_name = "VERSION")]
    from_version: Option<Version>,

    /// Where to write the configuration, readable for its owner only [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,

    /// Write over a file that exists
    #[arg(long, requires = "output")]
    force: bool,

    /// Answer a question of the report; repeat it for further ones
    #[arg(long, value_name = "KEY=ANSWER", value_parser = decision)]
    decide: Vec<(String, String)>,

    /// Only report
    #[arg(long)]
    check: bool,

    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The configuration goes to standard output or FILE, the report to standard error: what is not as it was
with coturn, what is left out, and what has to be decided. Secrets are in the configuration, never in the
report.

Exit status:
  0 when it was imported, 3 when something has to be decided first, 78 when the file cannot be imported
  as it is (a key that coturn does not know, a wrong value), 2 for a wrong command line, 1 for any other
  failure. Nothing is written but with 0.";

fn decision(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, answer)) if !key.is_empty() && !answer.is_empty() => Ok((key.to_owned(), answer.to_owned())),
        _ => Err("write a key and an answer, as the report has them".to_owned()),
    }
}

impl Import {
    /// Imports; what goes wrong is said on standard error.
    pub(super) fn run(&self) -> ExitCode {
        match self.import() {
            Ok(code) => code,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn import(&self) -> Result<ExitCode, String> {
        let name = self.file.display().to_string();
        let bytes = fs::read(&self.file).map(Zeroizing::new).map_err(|error| format!("cannot read {name}: {error}"))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line} of {name} is not UTF-8; save the file as UTF-8")
        })?;
        let mut options = Options { from: self.from_version, decisions: self.decide.clone(), ..Options::default() };
        for random in &mut options.random {
            getrandom::fill(random).map_err(|error| format!("cannot make a secret: {error}"))?;
        }
        let Imported { toml, mut report } = import::import(text, &name, &options);
        let toml = toml.map(Zeroizing::new);
        if let Some(toml) = &toml {
            if !self.check {
                self.write(toml)?;
            }
            for problem in self.problems_here(toml) {
                report.note(problem);
            }
        }
        let printed = if self.json {
            serde_json::to_string(&report).map_err(|error| error.to_string())? + "\n"
        } else {
            report.to_string()
        };
        io::stderr().write_all(printed.as_bytes()).map_err(|error| format!("cannot print the report: {error}"))?;
        Ok(if report.has(Kind::Error) {
            ExitCode::from(EXIT_CONFIG)
        } else if report.has(Kind::Decide) {
            ExitCode::from(EXIT_DECIDE)
        } else {
            ExitCode::SUCCESS
        })
    }

    /// What keeps the result from running on this host, which need not be the one that it is for.
    fn problems_here(&self, toml: &str) -> Vec<String> {
        let Ok(host) = Host::detect() else { return Vec::new() };
        // Relative files are looked up beside the configuration.
        let beside = self.file.with_file_name("turnserver.toml");
        let name = self.output.as_deref().unwrap_or(&beside).display().to_string();
        match config::parse(toml, &name, &host) {
            Ok(_) => Vec::new(),
            Err(refused) => refused
                .errors
                .iter()
                .map(|error| format!("the result does not start on this host as it is: {error}"))
                .collect(),
        }
    }

    fn write(&self, toml: &str) -> Result<(), String> {
        match &self.output {
            Some(path) => write_file(path, self.force, toml),
            None => io::stdout()
                .lock()
                .write_all(toml.as_bytes())
                .map_err(|error| format!("cannot print the configuration: {error}")),
        }
    }
}

/// Writes a file that holds secrets.
fn write_file(path: &Path, force: bool, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(force).create(force).create_new(!force);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = |mut file: std::fs::File| {
        // One that was there before may be readable for others.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    options.open(path).and_then(write).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AlreadyExists => "; --force writes over it",
            _ => "",
        };
        format!("cannot write {}: {error}{remedy}", path.display())
    })
}
