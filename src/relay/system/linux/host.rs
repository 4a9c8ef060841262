//! What the kernel tells about processors and sockets, and what it is told about threads.

use std::{io, mem, os::fd::AsRawFd, time::Duration};

/// The processors of the calling thread's affinity mask.
pub(in super::super) fn processors() -> io::Result<Vec<usize>> {
    let mut set = empty();
    // SAFETY: `set` is a valid mask of that size and outlives the call.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::cast_sign_loss)] // 1024
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: every number is below the size of the set.
    Ok(all.filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) }).collect())
}

/// Makes one processor the calling thread's whole affinity mask.
pub(in super::super) fn pin_thread(processor: usize) -> io::Result<()> {
    let mut set = empty();
    // SAFETY: `CPU_SET` indexes an array and panics beyond its end; `set` is valid and outlives the calls.
    let result = unsafe {
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How long the calling thread has had a processor.
pub(in super::super) fn thread_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time`, which outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).ok().filter(|_| result == 0)?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a mask of integers, for which all zeros is valid.
    unsafe { mem::zeroed() }
}

/// Counters of one socket (SO_MEMINFO, Linux 4.12).
const COUNTERS: usize = 9;

/// How many datagrams the kernel has dropped on a socket, modulo 2^32.
pub(in super::super) fn kernel_drops(socket: &impl AsRawFd) -> Option<u32> {
    let mut counters = [0u32; COUNTERS];
    #[allow(clippy::cast_possible_truncation)] // 36
    let mut len = mem::size_of_val(&counters) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `counters`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut counters).cast(),
            &raw mut len,
        )
    };
    #[allow(clippy::cast_sign_loss)] // 8
    let at = libc::SK_MEMINFO_DROPS as usize;
    (result == 0 && len as usize > at * mem::size_of::<u32>()).then(|| counters[at])
}
