//! The order of things: which measurements, and every server in turn for each repetition of each.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::job::{Job, Outcome, Task, Workload};
use crate::options::{Direction, Kind, Measure, Path, RunOptions};
use crate::servers::{self, Server};
use crate::system;
use crate::topology::Topology;

/// Relayed packets per second while latency is measured.
pub(crate) const LATENCY_RATE: u64 = 10_000;

/// Allocations whose memory is measured.
const IDLE_ALLOCATIONS: usize = 5_000;

/// One measurement of one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) measure: Measure,
    pub(crate) workload: Option<Workload>,
    pub(crate) server: Kind,
    pub(crate) repetition: usize,
    pub(crate) outcome: Outcome,
}

/// Processors of the servers and of the generator.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cpus {
    pub(crate) server: Vec<usize>,
    pub(crate) generator: Vec<usize>,
}

impl Cpus {
    pub(crate) fn choose(options: &RunOptions) -> Result<Self, String> {
        let allowed = system::allowed_cpus();
        let mut server = options.server_cpus.clone();
        if server.is_empty() {
            server.extend(allowed.iter().rev().take(options.workers).rev());
        }
        let mut generator = options.generator_cpus.clone();
        if generator.is_empty() {
            generator.extend(allowed.iter().filter(|cpu| !server.contains(cpu)));
        }
        if let Some(cpu) = server.iter().chain(&generator).find(|cpu| !allowed.contains(cpu)) {
            return Err(format!("processor {cpu} is not one of those that this process may use: {allowed:?}"));
        }
        if generator.is_empty() || server.iter().any(|cpu| generator.contains(cpu)) {
            return Err(format!("servers and generator need processors of their own; there are {allowed:?}"));
        }
        Ok(Self { server, generator })
    }
}

/// What is measured, workload by workload.
pub(crate) fn plan(options: &RunOptions) -> Vec<(Measure, Option<Workload>)> {
    let measures = [Measure::Cpu, Measure::MaxRate, Measure::Latency, Measure::Memory, Measure::Allocations];
    let mut plan = Vec::new();
    for measure in measures.into_iter().filter(|measure| options.measure.contains(measure)) {
        match measure {
            Measure::Cpu => plan.extend(workloads(options).into_iter().map(|workload| (measure, Some(workload)))),
            Measure::MaxRate => {
                let all = if is_explicit(options) { workloads(options) } else { vec![standard(10), standard(1000)] };
                plan.extend(all.into_iter().map(|workload| (measure, Some(workload))));
            }
            Measure::Latency => plan.push((measure, Some(standard(10)))),
            Measure::Memory | Measure::Allocations => plan.push((measure, None)),
        }
    }
    plan
}

const fn standard(flows: usize) -> Workload {
    Workload { path: Path::Udp, flows, payload: 160, direction: Direction::Both, burst: 1 }
}

fn is_explicit(options: &RunOptions) -> bool {
    let RunOptions { flows, payload, direction, burst, path, .. } = options;
    !(flows.is_empty() && payload.is_empty() && direction.is_empty() && burst.is_empty() && path.is_empty())
}

fn workloads(options: &RunOptions) -> Vec<Workload> {
    if is_explicit(options) {
        return combinations(options);
    }
    if options.quick {
        return vec![standard(10), standard(1000), Workload { burst: 16, ..standard(10) }];
    }
    let mut all: Vec<_> = [1, 10, 100, 1000, 10_000].map(standard).to_vec();
    for flows in [10, 1000] {
        let base = standard(flows);
        all.extend([4, 16].map(|burst| Workload { burst, ..base }));
        all.push(Workload { payload: 1200, ..base });
        all.extend([4, 16].map(|burst| Workload { payload: 1200, burst, ..base }));
        all.extend([Direction::Up, Direction::Down].map(|direction| Workload { direction, ..base }));
        all.push(Workload { path: Path::Tcp, ..base });
        all.push(Workload { path: Path::RelayToRelay, ..base });
    }
    all.extend([Path::Tcp, Path::Tls, Path::Dtls].map(|path| Workload {
        path,
        payload: 1200,
        burst: 4,
        ..standard(10)
    }));
    all
}

/// All combinations of what was given, with standard values for what was not.
fn combinations(options: &RunOptions) -> Vec<Workload> {
    fn or<T: Copy>(given: &[T], standard: T) -> Vec<T> {
        if given.is_empty() { vec![standard] } else { given.to_vec() }
    }
    let mut all = vec![standard(10)];
    let each =
        |all: Vec<Workload>, change: &dyn Fn(Workload) -> Vec<Workload>| all.into_iter().flat_map(change).collect();
    all = each(all, &|w| or(&options.path, w.path).into_iter().map(|path| Workload { path, ..w }).collect());
    all =
        each(all, &|w| or(&options.payload, w.payload).into_iter().map(|payload| Workload { payload, ..w }).collect());
    all = each(all, &|w| {
        or(&options.direction, w.direction).into_iter().map(|direction| Workload { direction, ..w }).collect()
    });
    all = each(all, &|w| or(&options.burst, w.burst).into_iter().map(|burst| Workload { burst, ..w }).collect());
    each(all, &|w| or(&options.flows, w.flows).into_iter().map(|flows| Workload { flows, ..w }).collect())
}

/// Runs everything. Says on standard error how far it is.
pub(crate) fn run(options: &RunOptions, servers: &[Server], cpus: &Cpus, topology: &Topology) -> Vec<Record> {
    let plan = plan(options);
    let mut records = Vec::new();
    let start = Instant::now();
    for (at, (measure, workload)) in plan.iter().copied().enumerate() {
        for repetition in 0..options.repetitions() {
            for server in servers {
                if !server.supports(measure, workload.map(|workload| workload.path)) {
                    continue;
                }
                let outcome = once(options, server, cpus, topology, (measure, workload))
                    .unwrap_or_else(|error| Outcome::Failed(error.to_string()));
                eprintln!(
                    "[{:>5.0} s, {}/{}] {measure:?} {} #{repetition} {}: {}",
                    start.elapsed().as_secs_f64(),
                    at + 1,
                    plan.len(),
                    workload.map(|workload| workload.to_string()).unwrap_or_default(),
                    server.kind.name(),
                    crate::report::brief(&outcome),
                );
                records.push(Record { measure, workload, server: server.kind, repetition, outcome });
            }
        }
    }
    records
}

/// A fresh server, a fresh generator, one task.
fn once(
    options: &RunOptions,
    server: &Server,
    cpus: &Cpus,
    topology: &Topology,
    (measure, workload): (Measure, Option<Workload>),
) -> io::Result<Outcome> {
    let seconds = options.seconds();
    let no_workload = || io::Error::other("a workload is missing");
    let (task, limit) = match measure {
        Measure::Cpu => {
            let workload = workload.ok_or_else(no_workload)?;
            (Task::Load { workload, rate: options.rate, seconds, latency: false }, 15.0 * (seconds + 4.0))
        }
        Measure::Latency => {
            let workload = workload.ok_or_else(no_workload)?;
            (Task::Load { workload, rate: LATENCY_RATE, seconds, latency: true }, 3.0 * (seconds + 4.0))
        }
        Measure::MaxRate => {
            let workload = workload.ok_or_else(no_workload)?;
            (Task::Search { workload, rate: options.rate / 2, seconds: seconds.min(2.0) }, 3.0 * 14.0 * 6.0)
        }
        Measure::Memory => {
            let allocations = if options.quick { 1000 } else { IDLE_ALLOCATIONS };
            (Task::Memory { allocations: allocations + 1 }, 10.0)
        }
        Measure::Allocations => (Task::Churn { seconds, in_flight: 32 }, seconds + 10.0),
    };
    // Where offload is compared, all servers have the same wire.
    let steered = options.servers.iter().any(|kind| kind.is_offloaded());
    let _held = steered.then(|| topology.steer(cpus, server.kind.is_offloaded())).transpose()?;
    let mut running = server.start(options, topology, &cpus.server, workload.map(|workload| workload.path))?;
    let job = Job {
        namespace: topology.generator_namespace.clone(),
        server: running.listen,
        secured: running.secured.clone(),
        server_pid: running.pid(),
        server_cpus: cpus.server.clone(),
        filled: steered,
        clients: topology.clients,
        peer: topology.peer,
        receiver_gro: options.receiver_gro,
        gso: !options.no_gso,
        tick: if measure == Measure::Latency { 0 } else { options.tick },
        task,
    };
    if server.kind.is_offloaded() {
        running.await_socket()?;
    }
    if server.kind == Kind::Native {
        topology.pin_driver(cpus)?;
    }
    let outcome = generate(&job, cpus, Duration::from_secs_f64(60.0 + limit))?;
    if running.has_ended() {
        return Err(io::Error::other("the server has ended by itself"));
    }
    Ok(outcome)
}

/// Starts the generator and waits for its outcome.
fn generate(job: &Job, cpus: &Cpus, limit: Duration) -> io::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("generate").arg(serde_json::to_string(job)?).stdin(Stdio::null()).stdout(Stdio::piped());
    system::prepare_child(&mut command, &cpus.generator);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            servers::end(&mut child);
            return Err(io::Error::other(format!("the generator was not done after {limit:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    Ok(serde_json::from_str(&text)?)
}
