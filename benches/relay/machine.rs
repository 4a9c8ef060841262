//! Where and when figures came about: printed with them, since they say little without.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::options::RunOptions;
use crate::run::Cpus;
use crate::servers::Server;

/// The circumstances of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    date: String,
    command: String,
    processor: String,
    processors: usize,
    kernel: String,
    load: String,
    topology: &'static str,
    cpus: Cpus,
    workers: usize,
    repetitions: usize,
    seconds: f64,
    receiver_gro: bool,
    sender_gso: bool,
    tick: u64,
    servers: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn read(options: &RunOptions, servers: &[Server], cpus: &Cpus, topology: &'static str) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
        Self {
            date: date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
            command: ["cargo bench --bench relay --", &arguments.join(" ")].join(" ").trim_end().to_owned(),
            processor: model.unwrap_or("unknown processor").to_owned(),
            processors: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
            topology,
            cpus: cpus.clone(),
            workers: options.workers,
            repetitions: options.repetitions(),
            seconds: options.seconds(),
            receiver_gro: options.receiver_gro,
            sender_gso: !options.no_gso,
            tick: options.tick,
            servers: servers.iter().map(|server| (server.kind.name(), server.version.clone())).collect(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |switch| if switch { "on" } else { "off" };
        writeln!(f, "{}, `{}`", self.date, self.command)?;
        writeln!(
            f,
            "{} ({} processors), Linux {}, load before: {}",
            self.processor, self.processors, self.kernel, self.load
        )?;
        writeln!(
            f,
            "{}; servers with {} worker(s) on processors {:?}, generator on {:?}; its GSO {}, its GRO {}, sending every {} µs",
            self.topology,
            self.workers,
            self.cpus.server,
            self.cpus.generator,
            on(self.sender_gso),
            on(self.receiver_gro),
            self.tick
        )?;
        writeln!(f, "{} repetitions of {} s; medians (lowest to highest)", self.repetitions, self.seconds)?;
        for (name, version) in &self.servers {
            writeln!(f, "{name}: {version}")?;
        }
        Ok(())
    }
}
