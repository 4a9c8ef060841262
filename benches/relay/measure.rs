//! What a server has cost so far: CPU time of its process, busy time of its processors, memory.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::system;

/// Nanoseconds of one tick of /proc/stat (USER_HZ is 100 on every architecture that has this benchmark's Linux).
const TICK_NS: u64 = 10_000_000;

/// One reading of the clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    process_ns: u64,
    waited_ns: u64,
    idle_ns: u64,
}

/// The difference of two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// CPU time of all threads of the process.
    pub(crate) process_ns: u64,
    /// Time in which the processors were not idle: the process, the kernel's work on its behalf, and whatever else ran there.
    pub(crate) busy_ns: u64,
    /// Share of the time in which a thread of the process could have run but something else did.
    pub(crate) waited: f64,
    /// Busy share of the processors.
    pub(crate) busy: f64,
}

/// A server as the clocks see it.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pid: u32,
    cpus: Vec<usize>,
    /// By processor: nanoseconds that nothing else wanted, where something takes them.
    left: Vec<Arc<AtomicU64>>,
}

/// What takes what is left of a processor looks at the clock again within this, unless something came between.
const GLANCE: Duration = Duration::from_nanos(300);

impl Subject {
    /// With `filled` what is left of the processors is taken by threads that run when nothing else wants to, and measured by them: to
    /// the nanosecond, the work of interrupts counted as busy, and without a virtual machine's halts, whose ends cost more than
    /// many packets do.
    pub(crate) fn new(pid: u32, cpus: Vec<usize>, filled: bool) -> io::Result<Self> {
        let fillers = cpus.iter().filter(|_| filled);
        let left = fillers.map(|cpu| fill(*cpu)).collect::<io::Result<_>>()?;
        Ok(Self { pid, cpus, left })
    }

    /// Nanoseconds that the processors have been idle.
    fn idle_ns(&self) -> io::Result<u64> {
        if !self.left.is_empty() {
            return Ok(self.left.iter().map(|left| left.load(Ordering::Relaxed)).sum());
        }
        let stat = fs::read_to_string("/proc/stat")?;
        Ok(self.cpus.iter().filter_map(|cpu| idle_ticks(&stat, *cpu)).sum::<u64>() * TICK_NS)
    }

    pub(crate) fn read(&self) -> io::Result<Reading> {
        let process_ns = system::process_cpu_ns(self.pid)?;
        Ok(Reading { at: Instant::now(), process_ns, waited_ns: self.waited_ns()?, idle_ns: self.idle_ns()? })
    }

    pub(crate) fn spent(&self, from: Reading, to: Reading) -> Spent {
        // Busy is what is left of the time that passed: ticks would miss work that is shorter than they are.
        let wall = (to.at - from.at).as_nanos() as u64 * self.cpus.len() as u64;
        let busy_ns = wall.saturating_sub(to.idle_ns - from.idle_ns);
        let waited = to.waited_ns.saturating_sub(from.waited_ns) as f64 / wall as f64;
        Spent { process_ns: to.process_ns - from.process_ns, busy_ns, waited, busy: busy_ns as f64 / wall as f64 }
    }

    /// How long the threads of the process have waited for a processor while they could run.
    fn waited_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A kernel without schedstat knows no waiting.
            let stat = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            sum += stat.split_whitespace().nth(1).and_then(|waited| waited.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Bytes of memory that the process has resident.
    ///
    /// From smaps_rollup, which counts pages; the counters behind /proc/PID/status lag by up to some hundred kilobytes.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
        kilobytes.map(|kb: u64| kb * 1024).ok_or_else(|| io::Error::other("no Rss in smaps_rollup"))
    }
}

/// Takes what is left of a processor until this process ends, and counts it.
fn fill(cpu: usize) -> io::Result<Arc<AtomicU64>> {
    let left = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&left);
    let (sender, ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let prepared = system::pin(0, &[cpu]).and_then(|()| system::put_last());
        let failed = prepared.is_err();
        // Whoever started this waits for it.
        let _ = sender.send(prepared);
        if failed {
            return;
        }
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let passed = now - last;
            if passed < GLANCE {
                counted.fetch_add(passed.as_nanos() as u64, Ordering::Relaxed);
            }
            last = now;
        }
    });
    ready.recv().map_err(io::Error::other)??;
    Ok(left)
}

/// Ticks that one processor has been idle, waiting for disks included.
fn idle_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(fields.get(3)? + fields.get(4)?)
}
