//! What the server holds, over time: by the kernel's account, and by its own.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    plan::{DRAINED_WITHIN, Plan},
    plot,
    world::World,
};

/// Ticks of /proc/PID/stat in a second, on every architecture that we know.
const TICKS: f64 = 100.0;

/// A number of a sample, and its name.
type Field = (&'static str, fn(&Sample) -> f64);

/// One look at the server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// Seconds since the churn began, or the warm-up before it; those in which the machine stood still not counted.
    pub(crate) at: f64,
    pub(crate) resident_kib: f64,
    pub(crate) descriptors: f64,
    pub(crate) threads: f64,
    /// Seconds of processor time since the server's start.
    pub(crate) processor: f64,
    pub(crate) allocations: f64,
    pub(crate) permissions: f64,
    pub(crate) channels: f64,
    /// Connections with peers (RFC 6062).
    pub(crate) peer_connections: f64,
    /// In use or reserved.
    pub(crate) ports: f64,
    /// Clients' connections over TCP and TLS, and sessions of DTLS.
    pub(crate) connections: f64,
    /// Whose use is counted for limits.
    pub(crate) accounts: f64,
    /// Made since the server's start.
    pub(crate) made: f64,
    /// Datagrams relayed since the server's start.
    pub(crate) relayed: f64,
    pub(crate) reloads: f64,
    /// Of all calls together: datagrams sent, and what of them is under way or lost.
    pub(crate) sent: f64,
    pub(crate) missing: f64,
    /// The same of the call that misses most.
    pub(crate) worst: f64,
}

impl Sample {
    /// What is written down of it.
    pub(crate) const FIELDS: [Field; 17] = [
        ("seconds", |s| s.at),
        ("resident_kib", |s| s.resident_kib),
        ("descriptors", |s| s.descriptors),
        ("threads", |s| s.threads),
        ("processor_seconds", |s| s.processor),
        ("allocations", |s| s.allocations),
        ("permissions", |s| s.permissions),
        ("channels", |s| s.channels),
        ("peer_connections", |s| s.peer_connections),
        ("relay_ports", |s| s.ports),
        ("connections", |s| s.connections),
        ("limits_accounts", |s| s.accounts),
        ("allocations_made", |s| s.made),
        ("datagrams_relayed", |s| s.relayed),
        ("reloads", |s| s.reloads),
        ("calls_sent", |s| s.sent),
        ("calls_missing", |s| s.missing),
    ];

    fn take(world: &World, began: Instant) -> Self {
        let (_, metrics) = world.ask("GET", "/metrics", "");
        let sum = |name: &str| -> f64 {
            let of = |line: &str| {
                let rest = line.strip_prefix(name)?;
                rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
            };
            metrics.lines().filter_map(of).fold(0.0, |sum, value| sum + value)
        };
        let (_, sessions) = world.ask("GET", "/v1/sessions?limit=1000", "");
        let sessions: serde_json::Value = serde_json::from_str(&sessions).expect("JSON");
        let total = |key: &str| -> f64 {
            let of_each =
                sessions["sessions"].as_array().into_iter().flatten().filter_map(|session| session[key].as_u64());
            of_each.sum::<u64>() as f64
        };
        let status = fs::read_to_string(format!("/proc/{}/status", world.pid)).expect("the server's status");
        let number = |key: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", world.pid)).expect("the server's stat");
        // What stands after the name, which may have anything in it: state is the third field, utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("ticks")).sum();
        let (mut sent, mut missing, mut worst) = (0, 0, 0);
        for call in world.calls().iter().filter(|call| !call.pardoned.load(Ordering::Relaxed)) {
            let of_call = call.sent_and_missing();
            (sent, missing, worst) = (sent + of_call.0, missing + of_call.1, worst.max(of_call.1));
        }
        Self {
            at: (Instant::now() - began).saturating_sub(world.stood_still()).as_secs_f64(),
            resident_kib: number("VmRSS:"),
            descriptors: fs::read_dir(format!("/proc/{}/fd", world.pid)).expect("the descriptors").count() as f64,
            threads: threads(world.pid),
            processor: ticks / TICKS,
            allocations: sum("turn_allocations_active"),
            permissions: total("permissions"),
            channels: total("channels"),
            peer_connections: total("connections"),
            ports: sum("turn_relay_ports_used"),
            connections: sum("turn_connections_active"),
            accounts: sum("turn_limits_accounts"),
            made: sum("turn_allocations_total"),
            relayed: sum("turn_relay_packets_total"),
            reloads: sum("turn_config_reloads_total"),
            sent: sent as f64,
            missing: missing as f64,
            worst: worst as f64,
        }
    }

    /// What must be as it was, to the last one, when nobody is there.
    pub(crate) fn exact(&self) -> [(&'static str, f64); 9] {
        [
            ("descriptors", self.descriptors),
            ("threads", self.threads),
            ("allocations", self.allocations),
            ("permissions", self.permissions),
            ("channels", self.channels),
            ("connections with peers", self.peer_connections),
            ("relay ports", self.ports),
            ("connections of clients", self.connections),
            ("accounts of limits", self.accounts),
        ]
    }
}

pub(crate) struct Watch<'w> {
    world: &'w World,
    plan: &'w Plan,
    began: Instant,
    file: BufWriter<File>,
    samples: Vec<Sample>,
    /// When nobody has been there yet.
    first: Sample,
    /// When nobody was there: before the churn, and after it.
    drained: Vec<Sample>,
}

/// The server's threads, without those of the pool that looks at files: it has one for each look that goes on, and one more for good
/// once the machine has held a look up until the next, as the work then keeps both from ending.
fn threads(server: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).expect("the server's threads");
    // One that has ended meanwhile has no name.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() != "tokio-rt-worker").count() as f64
}

/// All that was seen.
pub(crate) struct Samples {
    /// Drained, before the churn.
    pub(crate) before: Sample,
    pub(crate) churn: Vec<Sample>,
    /// Drained, after it.
    pub(crate) after: Sample,
}

impl<'w> Watch<'w> {
    pub(crate) fn new(world: &'w World, plan: &'w Plan) -> Self {
        let path = plan.folder.join("samples.csv");
        let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut file = BufWriter::new(file);
        let names = Sample::FIELDS.map(|(name, _)| name).join(",");
        writeln!(file, "{names}").and_then(|()| file.flush()).expect("to write");
        let began = Instant::now();
        let first = Sample::take(world, began);
        Self { world, plan, began, file, samples: Vec::new(), first, drained: Vec::new() }
    }

    /// Waits until nothing is there that clients have made; if something stays, goes on all the same, and `report` tells.
    pub(crate) fn drained(&mut self) {
        let deadline = Instant::now() + DRAINED_WITHIN;
        let before = self.drained.first().unwrap_or(&self.first).exact();
        let mut now = self.look();
        while now.exact() != before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(500));
            now = self.look();
        }
        self.drained.push(now);
    }

    /// The churn begins.
    pub(crate) fn begin(&mut self) {
        self.began = Instant::now();
        self.samples.clear();
    }

    pub(crate) fn sample(&mut self) {
        let mut plotted = Instant::now();
        while !self.world.is_over() {
            self.world.idle(self.plan.interval);
            let sample = self.look();
            self.samples.push(sample);
            if plotted.elapsed() > Duration::from_secs(60) {
                plotted = Instant::now();
                plot::write(self.plan, &self.samples);
            }
        }
    }

    fn look(&mut self) -> Sample {
        let sample = Sample::take(self.world, self.began);
        let mut line = String::new();
        for (place, (_, value)) in Sample::FIELDS.iter().enumerate() {
            let _ = write!(line, "{}{:.2}", if place == 0 { "" } else { "," }, value(&sample));
        }
        writeln!(self.file, "{line}").and_then(|()| self.file.flush()).expect("to write");
        sample
    }

    pub(crate) fn end(self) -> Samples {
        let [before, after] = self.drained.try_into().expect("drained twice");
        Samples { before, churn: self.samples, after }
    }
}
