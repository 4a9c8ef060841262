//! What a server has cost so far: CPU time of its process, busy time of its processors, memory.

use std::fs;
use std::io;
use std::time::Instant;

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
    pub(crate) pid: u32,
    pub(crate) cpus: Vec<usize>,
}

impl Subject {
    pub(crate) fn read(&self) -> io::Result<Reading> {
        let stat = fs::read_to_string("/proc/stat")?;
        let idle: u64 = self.cpus.iter().filter_map(|cpu| idle_ticks(&stat, *cpu)).sum();
        let process_ns = system::process_cpu_ns(self.pid)?;
        Ok(Reading { at: Instant::now(), process_ns, waited_ns: self.waited_ns()?, idle_ns: idle * TICK_NS })
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

/// Ticks that one processor has been idle, waiting for disks included.
fn idle_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(fields.get(3)? + fields.get(4)?)
}
