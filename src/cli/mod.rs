//! The commands: the command line, and one file per command.
//!
//! A command reads its settings through [`crate::config`], calls the other rooms, and prints. Configuration errors go to
//! standard error, one a line, and end the process with status 78 (`EX_CONFIG`).

mod certificate;
mod check;
mod credentials;
mod ctl;
mod import;
#[cfg(target_os = "linux")]
mod journal;
mod key;
mod outward;
mod password;
mod probe;
mod reload;
mod run;
mod secret;
mod signals;
mod store;
mod stored_realms;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(not(target_os = "linux"))]
#[path = "no_systemd.rs"]
mod systemd;
mod user;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use zeroize::Zeroizing;

use self::reload::{Overrides, Source};
use crate::{
    config::{self, ConfigErrors, Loaded, settings::LogFormat},
    import::is_coturns,
    probe::Level,
};

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// STUN and TURN relay server.
///
/// Helps two parties that cannot reach each other directly: it tells them the address they are seen from (STUN) and relays
/// what they send (TURN).
///
/// Without a command it runs in the foreground until SIGTERM or SIGINT. Without a configuration it runs a built-in one: UDP
/// and TCP port 3478 on all addresses, and one user `demo` whose password is made anew for each start and printed.
#[derive(Debug, Parser)]
#[command(name = "turnserver", version, after_help = AFTER_HELP)]
struct Args {
    /// Configuration file (TOML); turnserver.toml.example documents every key
    #[arg(short, long, value_name = "FILE", env = "TURNSERVER_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// What to log: off, error, warn, info, debug, trace, or pairs like info,turnserver::turn=debug
    #[arg(long, value_name = "FILTER", env = "TURNSERVER_LOG_LEVEL", global = true, value_parser = config::check_log_level)]
    log_level: Option<String>,

    /// Shape of log lines
    #[arg(long, value_name = "FORMAT", env = "TURNSERVER_LOG_FORMAT", global = true)]
    log_format: Option<Format>,

    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Examples:
  Try it; prints what to paste into a browser:
      turnserver
  Find every mistake in a configuration, and try what it comes to:
      turnserver check -c /etc/turnserver.toml
  Only read it, and see the effective settings:
      turnserver check --syntax-only -c /etc/turnserver.toml
  Run with it:
      turnserver -c /etc/turnserver.toml
  Make a credential for a day, with the configuration's secret:
      turnserver credentials -c /etc/turnserver.toml --user alice
  Go over from coturn:
      turnserver import-coturn /etc/turnserver.conf -o /etc/turnserver.toml
  Make a certificate to test TLS with:
      turnserver certificate --self-signed --name turn.example.org --out-cert cert.pem --out-key key.pem
  Add a user to the store that the configuration names:
      turnserver user add alice -c /etc/turnserver.toml
  Try a server as its clients do; the password is asked for:
      turnserver probe turns:turn.example.org --user alice
  See how it does, and whose sessions there are:
      turnserver ctl info
      turnserver ctl sessions
  Go on with what its configuration says now (or send SIGHUP):
      turnserver ctl reload
  Ask why a client cannot connect, or is not heard:
      turnserver explain 192.0.2.7

Exit status:
  0 after a clean stop or success, 1 for a failure or a finding (check, probe, ctl status),
  2 for a wrong command line, 3 when import-coturn needs a decision, 78 for a wrong
  configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate the configuration, and try what it comes to on this host as a client does
    ///
    /// Finds every mistake in the configuration. Then tries the running server, or, if nothing listens where it would, one that is
    /// started for the purpose on ports that are free: every listener, the relay between two clients, relay ports, certificates,
    /// external addresses, limits of the system. Prints each finding, with its remedy if something is wrong. The exit status is 0
    /// if no error was found (with --strict also no warning), 1 if one was, 78 for a configuration that is wrong.
    ///
    /// With --syntax-only nothing is tried: prints the effective settings as TOML on standard output, defaults included and
    /// secrets masked, and warnings on standard error.
    Check(check::Check),
    /// Make a certificate and its key for TLS, to test with
    ///
    /// Clients refuse it unless they are told to trust it. Writes two PEM files, the key readable for its owner only, and
    /// never over files that exist.
    Certificate(certificate::Certificate),
    /// Ask a running server, over its Unix socket
    Ctl(ctl::Ctl),
    /// Say why a client cannot connect, or is not heard
    ///
    /// Asks the running server, over its Unix socket, what it remembers of a client, a user or a session: what was refused and
    /// why, and what its data have met with. Each answer says what happened and what to do about it.
    Explain(ctl::explain::Explain),
    /// Make a time-limited credential, and print what to give to a WebRTC application
    ///
    /// It is made with a secret of the configuration, and the server knows it without being told.
    Credentials(credentials::Credentials),
    /// Make a configuration of a coturn configuration
    ///
    /// All of coturn's keys are known, of every version. What has another meaning here, or none, is reported with its line.
    ImportCoturn(import::Import),
    /// Print the keys that stand for a password in the configuration or a database
    ///
    /// The password is asked for, or read from standard input. Keys are made of the user's name, the realm and the password, and
    /// change with each of them.
    Key(key::Key),
    /// Try a STUN or TURN server, this one or any other, as a client does, and say in words what works
    ///
    /// Resolves and connects, looks at the certificate, asks for the address that the server sees, allocates a relayed address,
    /// sends data through it, and deletes it. Prints each finding, with its remedy if something is wrong. The exit status is
    /// 0 if all that was tried works, 1 if something does not (with --strict also for warnings), 2 for a wrong command line.
    Probe(probe::Probe),
    /// Add, remove and list users of the configured store, and change their passwords
    ///
    /// A running server is told over its Unix socket, so that a change counts at once; where it cannot be told, when its cache of the
    /// store has expired (cache-time, negative-cache-time).
    User(user::User),
    /// Add, remove and list the secrets of time-limited credentials in the configured store
    Secret(secret::Secret),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

impl Args {
    fn overrides(&self) -> Overrides {
        Overrides { level: self.log_level.clone(), format: self.log_format.map(LogFormat::from) }
    }
}

/// Parses the command line and hands over to one command.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match &args.command {
        Some(Command::Certificate(certificate)) => certificate.make(),
        Some(Command::Ctl(ctl)) => ctl.run(args.config.as_deref()),
        Some(Command::Explain(explain)) => explain.run(args.config.as_deref()),
        Some(Command::Credentials(credentials)) => configured(&args, |loaded, _| credentials.print(&loaded.settings)),
        Some(Command::ImportCoturn(import)) => import.run(),
        Some(Command::Key(key)) => match &key.realm {
            Some(realm) => key.print(realm),
            None => configured(&args, |loaded, _| key.print(&loaded.settings.auth.realm)),
        },
        Some(Command::Check(check)) => configured(&args, |loaded, _| check.run(&loaded)),
        Some(Command::Probe(probe)) => probe.run(),
        Some(Command::User(user)) => configured(&args, |loaded, _| user.run(&loaded.settings)),
        Some(Command::Secret(secret)) => configured(&args, |loaded, _| secret.run(&loaded.settings)),
        None => run(&args),
    }
}

/// Runs a command with the configuration and the password that was made for it, if it is the built-in one.
fn configured(args: &Args, command: impl FnOnce(Loaded, Option<String>) -> ExitCode) -> ExitCode {
    let (mut loaded, generated_password) = match configuration(args) {
        Ok(configuration) => configuration,
        Err(errors) => return refuse(&errors),
    };
    args.overrides().apply(&mut loaded.settings);
    command(loaded, generated_password)
}

/// Runs the server, which is to know where its configuration came from.
fn run(args: &Args) -> ExitCode {
    let Some(path) = &args.config else {
        return configured(args, |loaded, password| run::run(loaded, password, None));
    };
    match read(path) {
        Ok((mut loaded, text)) => {
            let source = Source { path: path.clone(), text, overrides: args.overrides() };
            source.overrides.apply(&mut loaded.settings);
            run::run(loaded, None, Some(source))
        }
        Err(errors) => refuse(&errors),
    }
}

/// The configuration that was named, or else the built-in one and its generated password.
fn configuration(args: &Args) -> Result<(Loaded, Option<String>), ConfigErrors> {
    match &args.config {
        Some(path) => read(path).map(|(loaded, _)| (loaded, None)),
        None => config::embedded_default().map(|embedded| (embedded.loaded, Some(embedded.password))),
    }
}

/// A configuration from a file, with the text that it was read from.
fn read(path: &Path) -> Result<(Loaded, Zeroizing<String>), ConfigErrors> {
    let text = config::read(path)?;
    let loaded = config::parse_file(path, &text).map_err(|errors| coturns(path, &text).unwrap_or(errors))?;
    Ok((loaded, text))
}

/// The one thing to say of a configuration that is coturn's.
fn coturns(path: &Path, text: &str) -> Option<ConfigErrors> {
    if !is_coturns(text) {
        return None;
    }
    let name = path.display().to_string();
    let remedy = format!("import it: turnserver import-coturn {name} -o {}", path.with_extension("toml").display());
    Some(ConfigErrors::whole_file(&name, "this is a configuration of coturn".to_owned(), &remedy))
}

/// What the worst finding of a command makes of its exit status.
fn status_of(level: Level, strict: bool) -> ExitCode {
    let bad = if strict { Level::Warning } else { Level::Error };
    if level >= bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn refuse(refused: &ConfigErrors) -> ExitCode {
    for warning in &refused.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &refused.errors {
        eprintln!("error: {error}");
    }
    ExitCode::from(EXIT_CONFIG)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_be_named_before_or_after_the_command() {
        for line in [["turnserver", "-c", "a.toml", "check"], ["turnserver", "check", "-c", "a.toml"]] {
            let args = Args::try_parse_from(line).unwrap();
            assert_eq!(args.config.unwrap(), PathBuf::from("a.toml"));
            assert!(matches!(args.command, Some(Command::Check(_))));
        }
    }

    #[test]
    fn a_wrong_log_level_is_refused_on_the_command_line() {
        let error = Args::try_parse_from(["turnserver", "--log-level", "inof"]).unwrap_err();
        assert!(error.to_string().contains("did you mean `info`?"), "{error}");
    }
}
