//! The capabilities that the program takes (capabilities(7)): one thread has them from the process's start on, puts the program at
//! its interfaces, and ends. And the kernel's clock.

#![allow(unsafe_code)]

use std::{
    io,
    sync::mpsc::{Sender, channel, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use crate::config::{Settings, settings::OffloadMode};

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What loading and attaching take.
const NEEDED: [u32; 2] = [CAP_NET_ADMIN, CAP_BPF];
/// That, and what has the verifier look less closely, which the program does without.
const ALL: [u32; 3] = [CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF];

/// _LINUX_CAPABILITY_VERSION_3: 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// 32 capabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// What takes capabilities.
type Work = Box<dyn FnOnce() + Send>;

/// The capabilities that relaying in the kernel takes, kept apart in a thread that does nothing else. They belong to threads, and a
/// thread has those of the one that starts it: none that is started after this one has them.
#[derive(Debug, Default)]
pub struct Privileges(Option<Keeper>);

#[derive(Debug)]
struct Keeper {
    work: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Privileges {
    /// Takes CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF from the calling thread, for good. To be called before any other thread is
    /// started. If the settings ask for offload, a thread of their own has them until they have been used, or this is dropped.
    /// Where the kernel lets only the privileged write to tables (before Linux 5.19), CAP_BPF stays if offload is asked for.
    #[must_use]
    pub fn set_apart(settings: &Settings) -> Self {
        if !cfg!(offload_program) || settings.offload.mode == OffloadMode::Off {
            give_up_all();
            return Self(None);
        }
        let (work, orders) = channel::<Work>();
        let thread = std::thread::Builder::new().name("offload".to_owned());
        let thread = thread.spawn(move || {
            if let Ok(work) = orders.recv() {
                work();
            }
        });
        finish_loading();
        give_up(&[CAP_NET_ADMIN]);
        match thread {
            Ok(thread) => Self(Some(Keeper { work, thread })),
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that puts the program at the interfaces");
                Self(None)
            }
        }
    }

    /// Does what takes the capabilities, with which it is over then. `None` if there is no thread that has them, or it panicked.
    pub(super) fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let Keeper { work: orders, thread } = self.0?;
        let (answer, answered) = sync_channel(1);
        // It waits for this alone, and this function for the answer.
        let _ = orders.send(Box::new(move || {
            let _ = answer.send(work());
        }));
        let _ = thread.join();
        answered.recv().ok()
    }
}

/// Whether this thread may load and attach programs.
pub(super) fn are_there() -> bool {
    get().is_ok_and(|halves| NEEDED.iter().all(|capability| has(&halves, *capability)))
}

/// Leaves this thread nothing but what loading and attaching take.
#[cfg(test)]
pub(super) fn keep_nothing_else() {
    let others: Vec<u32> = (0..64).filter(|capability| !NEEDED.contains(capability)).collect();
    give_up(&others);
}

/// Gives up what writing to tables does not take, but for CAP_NET_ADMIN.
pub(super) fn finish_loading() {
    give_up(if writing_takes_bpf() { &[CAP_PERFMON] } else { &[CAP_PERFMON, CAP_BPF] });
}

/// Gives all of them up, for this thread and those that it starts.
pub(super) fn give_up_all() {
    give_up(&ALL);
}

fn give_up(capabilities: &[u32]) {
    let Ok(before) = get() else { return };
    let mut after = before;
    for capability in capabilities {
        drop_one(&mut after, *capability, true);
    }
    // A sandbox may prohibit the call where there is nothing to give up.
    if after != before
        && let Err(error) = set(&after)
    {
        tracing::warn!(%error, "cannot give up the capabilities of offload (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)");
    }
}

/// Whether the kernel lets only those with CAP_BPF write to tables.
fn writing_takes_bpf() -> bool {
    let Ok(before) = get() else { return false };
    // Where even they may not, a sandbox prohibits all of it.
    if !has(&before, CAP_BPF) || is_writing_refused() {
        return false;
    }
    let mut without = before;
    drop_one(&mut without, CAP_BPF, false);
    if set(&without).is_err() {
        return false;
    }
    let refused = is_writing_refused();
    // It is permitted still; if it failed, the capability would be missing where it is needed, which shows at the first writing.
    let _ = set(&before);
    refused
}

/// Whether writing to tables is prohibited, by an attempt to write to one that does not exist.
fn is_writing_refused() -> bool {
    const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
    /// bpf_attr of this command: the table's descriptor, key, value, flags.
    const NOWHERE: [u64; 4] = [u32::MAX as u64, 0, 0, 0];

    // SAFETY: the attributes are what the kernel takes for this command and outlive the call, which fails for the descriptor before
    // it reads the key or the value.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, NOWHERE.as_ptr(), size_of_val(&NOWHERE)) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
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
