//! The capabilities that the program takes, given up when it stands (capabilities(7)); and the kernel's clock.

#![allow(unsafe_code)]

use std::{io, time::Duration};

use super::kernel::Kernel;

const CAP_NET_ADMIN: u32 = 12;
const CAP_BPF: u32 = 39;

/// _LINUX_CAPABILITY_VERSION_3: 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// 32 capabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Time of CLOCK_MONOTONIC, by which the program sees deadlines pass.
pub(super) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid and outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // Neither is ever negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether this thread may load and attach programs.
pub(super) fn are_there() -> bool {
    get().is_ok_and(|halves| has(&halves, CAP_NET_ADMIN) && has(&halves, CAP_BPF))
}

/// Leaves this thread nothing but these two.
#[cfg(test)]
pub(super) fn keep_nothing_else() {
    let mut halves = get().unwrap();
    for capability in 0..64 {
        if ![CAP_NET_ADMIN, CAP_BPF].contains(&capability) {
            drop_one(&mut halves, capability, true);
        }
    }
    set(&halves).unwrap();
}

/// Gives both capabilities up, for this thread and those that it starts. Where the kernel lets only the privileged write to tables
/// (before Linux 5.19), CAP_BPF stays.
pub(super) fn give_up(kernel: &Kernel) {
    let Ok(mut halves) = get() else { return };
    drop_one(&mut halves, CAP_NET_ADMIN, true);
    drop_one(&mut halves, CAP_BPF, false);
    if let Err(error) = set(&halves) {
        tracing::warn!(%error, "cannot give up CAP_BPF and CAP_NET_ADMIN");
        return;
    }
    match kernel.try_writing() {
        Ok(()) => drop_one(&mut halves, CAP_BPF, true),
        Err(_) => halves[half(CAP_BPF)].effective |= bit(CAP_BPF) & halves[half(CAP_BPF)].permitted,
    }
    if let Err(error) = set(&halves) {
        tracing::warn!(%error, "cannot settle CAP_BPF");
    }
}

const fn half(capability: u32) -> usize {
    (capability / 32) as usize
}

const fn bit(capability: u32) -> u32 {
    1 << (capability % 32)
}

fn has(halves: &[Half; 2], capability: u32) -> bool {
    halves[half(capability)].effective & bit(capability) != 0
}

/// Takes a capability out of the effective set, and for good.
fn drop_one(halves: &mut [Half; 2], capability: u32, for_good: bool) {
    let half = &mut halves[half(capability)];
    half.effective &= !bit(capability);
    if for_good {
        half.permitted &= !bit(capability);
        half.inheritable &= !bit(capability);
    }
}

fn get() -> io::Result<[Half; 2]> {
    let (mut header, mut halves) = (Header { version: VERSION, pid: 0 }, [Half::default(); 2]);
    // SAFETY: the kernel reads and writes the header, and writes two halves, as this version has; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(halves) }
}

fn set(halves: &[Half; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: the kernel reads the header and two halves, as this version has; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
