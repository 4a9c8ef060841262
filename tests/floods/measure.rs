//! What a server takes, as the kernel counts it, and where that was measured.

#![allow(unsafe_code)]

use std::{fs, time::Duration};

use crate::common::Server;

/// At one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) resident_kib: usize,
    /// In user space and in the kernel.
    pub(crate) cpu: Duration,
    pub(crate) log_lines: usize,
}

pub(crate) fn vitals(server: &Server) -> Vitals {
    Vitals { resident_kib: resident_kib(server.pid()), cpu: cpu(server), log_lines: server.log().lines().count() }
}

pub(crate) fn resident_kib(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

fn cpu(server: &Server) -> Duration {
    // SAFETY: the call takes a number and returns one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server runs");
    // Behind the name, which may hold anything, utime and stime are the fields 14 and 15 (proc(5)).
    let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
    let used: f64 = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks")).sum();
    Duration::from_secs_f64(used / ticks)
}

/// Kernel, processors, build.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").expect("a load");
    let load = load.split(' ').next().unwrap_or_default();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("Linux {}, {processors} processors, load {load} before, {build} build", kernel.trim())
}
