//! `turnserver probe`: tries a server as a client does, and prints what it finds.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use zeroize::Zeroizing;

use super::password;
use crate::{
    auth::{
        mint::mint,
        rest::{RestAlgorithm, RestNames, RestSecret},
    },
    config,
    probe::{Credentials, Finding, Level, Options, PathReport, Roots, Target, probe_path, resolve},
};

/// Which server, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// The server: turn:HOST[:PORT][?transport=udp|tcp], turns:..., stun:... or stuns:...
    #[arg(value_name = "URI", required = true, num_args = 1..)]
    targets: Vec<Target>,

    /// The user's name. The password is asked for, or read from standard input, unless one of the next options is given
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// File that holds the password on one line
    #[arg(long, value_name = "FILE", requires = "user", conflicts_with_all = ["password_env", "secret_file"])]
    password_file: Option<PathBuf>,

    /// Environment variable that holds the password
    #[arg(long, value_name = "NAME", requires = "user", conflicts_with = "secret_file")]
    password_env: Option<String>,

    /// File that holds the secret of time-limited credentials; one is made with it, for --user if that is given
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// PEM file of who vouches for the server's certificate [default: whom this system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The name that the certificate must be for [default: the host of the URI]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// How long each step may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = config::parse_period)]
    timeout: Duration,

    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Largest file of a secret.
const LARGEST: u64 = 64 << 10;

impl Probe {
    /// Does it; what goes wrong on this side is said on standard error.
    pub(super) fn run(&self) -> ExitCode {
        match self.probe() {
            Ok(level) => super::status_of(level, self.strict),
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn probe(&self) -> Result<Level, String> {
        let roots = Roots::load(self.ca.as_deref()).map_err(|error| {
            let shown = self.ca.as_deref().unwrap_or(Path::new("")).display();
            format!("--ca: cannot use {shown}: {error}")
        })?;
        let options = Options {
            timeout: self.timeout,
            server_name: self.server_name.clone(),
            roots: Arc::new(roots),
            ..Options::new(self.credentials()?)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        runtime.block_on(async {
            let (mut all, mut level) = (Vec::new(), Level::Ok);
            for target in &self.targets {
                let found = resolve(target, self.timeout).await;
                let (finding, reports) = match found {
                    Ok(addresses) => {
                        let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                        let finding = Finding::ok("resolve", format!("{} is {}", target.host, shown.join(", ")));
                        let mut reports = Vec::new();
                        self.show(&format!("{target}\n{finding}\n"))?;
                        for address in addresses {
                            let report = probe_path(target, address, &options).await;
                            self.show(&lines(&report))?;
                            reports.push(report);
                        }
                        (finding, reports)
                    }
                    Err(error) => {
                        let what = format!("{} has no address: {error}", target.host);
                        let finding =
                            Finding::error("resolve", what, "see its name in the DNS, and this host's resolver");
                        self.show(&format!("{target}\n{finding}\n"))?;
                        (finding, Vec::new())
                    }
                };
                level = level.max(finding.level);
                level = reports.iter().map(PathReport::level).fold(level, Level::max);
                all.push(json!({ "target": target.to_string(), "resolve": finding, "paths": reports }));
            }
            if self.json {
                print(&format!("{:#}\n", json!({ "level": level, "targets": all })))?;
            }
            Ok(level)
        })
    }

    /// Prints for people.
    fn show(&self, text: &str) -> Result<(), String> {
        if self.json { Ok(()) } else { print(text) }
    }

    fn credentials(&self) -> Result<Credentials, String> {
        if let Some(file) = &self.secret_file {
            let secret = read(file, "--secret-file")?;
            let secret = RestSecret {
                name: "--secret-file".into(),
                tenant: None,
                algorithm: RestAlgorithm::Sha1,
                key: Zeroizing::new(secret.as_bytes().to_vec()),
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let (user, hour) = (self.user.as_deref().unwrap_or("probe"), Duration::from_secs(3600));
            let minted = mint(&secret, &RestNames::default(), user, hour, now);
            let minted = minted.map_err(|error| format!("--user: {error}"))?;
            return Ok(Credentials::Password { user: minted.username, password: minted.password });
        }
        let Some(user) = &self.user else { return Ok(Credentials::None) };
        let password = match (&self.password_file, &self.password_env) {
            (Some(file), _) => read(file, "--password-file")?,
            (None, Some(name)) => {
                let found = env::var(name).map_err(|error| format!("--password-env: {name}: {error}"));
                found.map(Zeroizing::new)?
            }
            (None, None) => password::read()?,
        };
        Ok(Credentials::Password { user: user.clone(), password })
    }
}

/// The only line of a file.
fn read(file: &Path, option: &str) -> Result<Zeroizing<String>, String> {
    let cannot = |error: io::Error| format!("{option}: cannot read {}: {error}", file.display());
    if fs::metadata(file).map_err(cannot)?.len() > LARGEST {
        return Err(format!("{option}: {} is too large", file.display()));
    }
    let text = Zeroizing::new(fs::read_to_string(file).map_err(cannot)?);
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains('\n') {
        return Err(format!("{option}: {} does not hold one line", file.display()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// The findings of a path, each with where it was made.
fn lines(report: &PathReport) -> String {
    let place = format!("{} {}", report.transport, report.address);
    let findings = report.findings.iter().map(|finding| {
        let finding = Finding { about: format!("{place} {}", finding.about), ..finding.clone() };
        format!("{finding}\n")
    });
    findings.collect()
}

fn print(text: &str) -> Result<(), String> {
    let mut output = io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| format!("cannot print: {error}"))
}
