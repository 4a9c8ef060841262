//! `turnserver check`: what a configuration comes to, on this host and for clients.
//!
//! * `live`: listeners and relaying, tried on the running server or on one that is started for it.
//! * `surroundings`: relay ports and limits of the system. `outside`: external addresses and certificates.

mod live;
mod outside;
mod surroundings;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde_json::json;

use crate::{
    config::{
        self, Effective, Loaded, Settings,
        settings::{Access, StunServer},
    },
    probe::{Finding, Level, Roots, finding::worst, target::host_and_port},
    relay::{DatagramPath, Relay},
};

/// How to check.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Only read the configuration and print the effective settings; open no socket
    #[arg(long, conflicts_with_all = ["stun_server", "ca", "strict", "json"])]
    syntax_only: bool,

    /// Ask this STUN server, too, what address it sees; repeat it for further ones
    #[arg(long, value_name = "HOST[:PORT]", value_parser = stun_server)]
    stun_server: Vec<StunServer>,

    /// PEM file of who vouches for certificates [default: whom this system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long each step may take
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = config::parse_period)]
    timeout: Duration,

    /// Exit with status 1 for warnings, too
    #[arg(long)]
    strict: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn stun_server(written: &str) -> Result<StunServer, String> {
    let (host, port) = host_and_port(written).ok_or("write it like stun.example.org or 192.0.2.1:3478")?;
    Ok(StunServer { host, port: port.unwrap_or(3478) })
}

impl Check {
    /// Does it; what goes wrong on this side is said on standard error.
    pub(super) fn run(&self, loaded: &Loaded) -> ExitCode {
        if self.syntax_only {
            return print_settings(loaded);
        }
        match self.check(loaded) {
            Ok(level) => super::status_of(level, self.strict),
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn check(&self, loaded: &Loaded) -> Result<Level, String> {
        let roots = Roots::load(self.ca.as_deref()).map_err(|error| format!("--ca: {error}"))?;
        let mut settings = loaded.settings.clone();
        settings.relay.find_external.stun_servers.extend(self.stun_server.iter().cloned());
        let mut findings: Vec<Finding> = loaded
            .warnings
            .iter()
            .map(|warning| {
                let plain = config::Finding { remedy: None, ..warning.clone() };
                Finding::warning("configuration", plain.to_string(), warning.remedy.clone().unwrap_or_default())
            })
            .collect();
        if findings.is_empty() {
            findings.push(Finding::ok("configuration", "has no mistakes"));
        }
        findings.extend(surroundings::of(&settings));
        findings.extend(management(&settings));
        findings.extend(outside::certificates(&settings, &roots));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        let server = runtime.block_on(async {
            findings.extend(outside::addresses(&mut settings).await);
            live::try_all(&settings, self.timeout, &mut findings).await
        });
        self.print(&findings, server).map_err(|error| format!("cannot print: {error}"))?;
        Ok(worst(&findings))
    }

    fn print(&self, findings: &[Finding], server: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.json {
            writeln!(output, "{:#}", json!({ "level": worst(findings), "server": server, "findings": findings }))?;
        } else {
            findings.iter().try_for_each(|finding| writeln!(output, "{finding}"))?;
            let count = |level| findings.iter().filter(|finding| finding.level == level).count();
            writeln!(output, "\nerrors: {}, warnings: {}", count(Level::Error), count(Level::Warning))?;
            writeln!(
                output,
                "From this host alone: a firewall in front of it shows with `turnserver probe` from elsewhere."
            )?;
        }
        output.flush()
    }
}

/// Who reaches management.
fn management(settings: &Settings) -> Vec<Finding> {
    const ABOUT: &str = "management";
    let management = &settings.management;
    let Some(Access { at, .. }) = &management.listen else {
        return vec![Finding::ok(ABOUT, "is not reached over the network")];
    };
    if at.ip().is_loopback() {
        return vec![Finding::ok(ABOUT, format!("{at} is reached from this host only"))];
    }
    let what = format!("{at} is reached from elsewhere, and what is said there, the token included, is not encrypted");
    let remedy =
        "listen on 127.0.0.1 or [::1] and put a proxy with TLS in front, or see that only a private network reaches it";
    let mut findings = vec![Finding::warning(ABOUT, what, remedy)];
    if management.public_metrics {
        let what = "metrics and status are for everybody who reaches it (public-metrics)";
        findings.push(Finding::warning(ABOUT, what, "set public-metrics = false, and give the token to Prometheus"));
    }
    findings
}

/// Prints the effective settings on standard output, with what this host makes of them as comments, and warnings on standard
/// error.
fn print_settings(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut output = io::stdout().lock();
    let printed = write!(output, "{}", Effective(&loaded.settings))
        .and_then(|()| writeln!(output, "\n# offload on this host: {}", Relay::plan_offload(&loaded.settings)))
        .and_then(|()| write_datagram_path(&mut output, &loaded.settings))
        .and_then(|()| output.flush());
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot print the settings: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how datagrams would be received and sent here.
fn write_datagram_path(output: &mut impl Write, settings: &Settings) -> io::Result<()> {
    let path = match DatagramPath::probe(settings.process.udp_io) {
        Ok(path) => path,
        Err(error) => return writeln!(output, "\n# datagrams on this host: cannot be tried: {error}"),
    };
    writeln!(output, "\n# datagrams on this host: {}", path.name())?;
    writeln!(output, "# on: {}", path.on().as_deref().unwrap_or("nothing beyond one call per datagram"))?;
    path.off().map_or(Ok(()), |off| writeln!(output, "# off: {off}"))
}
