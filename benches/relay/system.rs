//! The system calls that std does not offer: processor affinity, namespaces, CPU clocks, and datagrams in batches.
//!
//! All `unsafe` of the benchmark is here.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Datagrams (or trains of datagrams) per system call.
pub(crate) const BATCH: usize = 64;

/// The longest datagram, or train of coalesced datagrams.
const MAX_DATAGRAM: usize = 65_536;

/// From linux/udp.h and linux/sock_diag.h.
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;
const SO_MEMINFO: c_int = 55;
const SK_MEMINFO_DROPS: usize = 8;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a set of bits; all zeros is the empty one. CPU_SET ignores numbers beyond its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        for &cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        set
    }
}

/// The processors that this process may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut set = cpu_set(&[]);
    // SAFETY: the kernel writes at most the given size to `set`.
    if unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) } < 0 {
        return vec![0];
    }
    // SAFETY: the numbers are within the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Makes a thread of any process run on `cpus` only.
pub(crate) fn pin(thread: i32, cpus: &[usize]) -> io::Result<()> {
    let set = cpu_set(cpus);
    // SAFETY: the kernel reads the given size from `set`.
    check(unsafe { libc::sched_setaffinity(thread, mem::size_of_val(&set), &raw const set) }).map(|_| ())
}

/// Lets a thread run before all ordinary ones whenever it can, as interrupts do.
pub(crate) fn put_first(thread: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a valid value, which is only read.
    check(unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameter) }).map(|_| ())
}

/// Lets the calling thread give way to all others. It is not of SCHED_IDLE: the hosts of some virtual machines take a processor that
/// does nothing else for idle, and away.
pub(crate) fn put_last() -> io::Result<()> {
    // SAFETY: no pointers are passed; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 14) }).map(|_| ())
}

/// Makes a child run on `cpus` only, and end with the process that started it.
pub(crate) fn prepare_child(command: &mut Command, cpus: &[usize]) {
    let set = cpu_set(cpus);
    // SAFETY: between fork and exec the closure makes two system calls and touches only its own copy of `set`.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            check(libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set))?;
            Ok(())
        });
    }
}

/// Moves this thread, and those that it starts, into a named network namespace.
pub(crate) fn enter_namespace(name: &str) -> io::Result<()> {
    let file = std::fs::File::open(format!("/run/netns/{name}"))?;
    // SAFETY: a call with an open descriptor and a constant.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(|_| ())
}

/// Raises the soft limit of descriptors to the hard one; children inherit it.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the length of both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(())
}

fn clock(id: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the length of the call.
    check(unsafe { libc::clock_gettime(id, &raw mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Nanoseconds of the clock that the kernel stamps datagrams with.
pub(crate) fn realtime_ns() -> u64 {
    clock(libc::CLOCK_REALTIME).unwrap_or(0)
}

/// Nanoseconds of processor time that all threads of a process have used, those that have ended included.
pub(crate) fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut id = 0;
    // SAFETY: `id` is valid for the length of the call, which returns an error number.
    match unsafe { libc::clock_getcpuclockid(pid as i32, &raw mut id) } {
        0 => clock(id),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Sends a signal to a child.
pub(crate) fn send_signal(pid: u32, signal: c_int) {
    // SAFETY: no memory is involved; the caller gives the number of a child that it has not yet reaped.
    unsafe { libc::kill(pid as i32, signal) };
}

fn set_int(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int that outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast::<c_void>(), length) }).map(|_| ())
}

/// What a generator's socket asks the kernel for.
#[derive(Clone, Copy, Default)]
pub(crate) struct DatagramOptions {
    /// Coalesced trains on receive.
    pub(crate) gro: bool,
    /// The kernel's time of arrival.
    pub(crate) stamps: bool,
}

/// Prepares a socket for [`Receiver`] and [`Sender`]: destination addresses, large buffers.
pub(crate) fn set_options(socket: &impl AsRawFd, options: DatagramOptions) -> io::Result<()> {
    const BUFFER: c_int = 32 << 20;
    let fd = socket.as_raw_fd();
    set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    for (forced, asked) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        set_int(fd, libc::SOL_SOCKET, forced, BUFFER).or_else(|_| set_int(fd, libc::SOL_SOCKET, asked, BUFFER))?;
    }
    if options.gro {
        set_int(fd, libc::SOL_UDP, UDP_GRO, 1)?;
    }
    if options.stamps {
        set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    }
    Ok(())
}

/// Datagrams that the kernel dropped because the receive buffer of this socket was full.
pub(crate) fn dropped(socket: &impl AsRawFd) -> u32 {
    let mut info = [0u32; SK_MEMINFO_DROPS + 1];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        let value = info.as_mut_ptr().cast::<c_void>();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, value, &raw mut length)
    };
    if result < 0 { 0 } else { info[SK_MEMINFO_DROPS] }
}

/// One datagram as it came in.
pub(crate) struct Datagram<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) source: SocketAddrV4,
    /// The address that it was sent to.
    pub(crate) local: Ipv4Addr,
    /// The kernel's time of arrival ([`realtime_ns`]); 0 if not asked for.
    pub(crate) stamp: u64,
}

type ReceiveControl = [u64; 16];

/// Receives datagrams in batches.
pub(crate) struct Receiver {
    slots: Vec<u8>,
    slot: usize,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<ReceiveControl>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Receiver {
    pub(crate) fn new(gro: bool) -> Self {
        let slot = if gro { MAX_DATAGRAM } else { 2048 };
        // SAFETY: C structures of integers and pointers, for which all zeros is valid.
        let (name, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self {
            slots: vec![0; slot * BATCH],
            slot,
            names: vec![name; BATCH],
            controls: vec![[0; 16]; BATCH],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: slot }; BATCH],
            headers: vec![header; BATCH],
        }
    }

    /// Takes what is there, one batch at most, and shows each datagram to `each`; returns how many there were.
    pub(crate) fn receive(&mut self, socket: &impl AsRawFd, mut each: impl FnMut(&Datagram<'_>)) -> usize {
        for (at, slot) in self.slots.chunks_exact_mut(self.slot).enumerate() {
            self.iovecs[at].iov_base = slot.as_mut_ptr().cast();
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[at];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[at]).cast();
            header.msg_controllen = mem::size_of::<ReceiveControl>();
        }
        // SAFETY: every header was just filled with pointers to distinct parts of `self`, of the lengths given, which
        // outlive the call.
        let count = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as u32, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let count = usize::try_from(count).unwrap_or(0);
        let mut datagrams = 0;
        for at in 0..count {
            let name = &self.names[at];
            let source = SocketAddrV4::new(name.sin_addr.s_addr.to_ne_bytes().into(), u16::from_be(name.sin_port));
            let length = self.headers[at].msg_len as usize;
            let (local, stamp, segment) = read_control(&self.headers[at].msg_hdr);
            let bytes = &self.slots[at * self.slot..][..length];
            for bytes in bytes.chunks(segment.unwrap_or(length).max(1)) {
                datagrams += 1;
                each(&Datagram { bytes, source, local, stamp });
            }
        }
        datagrams
    }
}

/// The destination address, the time of arrival, and the length of the segments of a coalesced train.
fn read_control(header: &libc::msghdr) -> (Ipv4Addr, u64, Option<usize>) {
    let (mut local, mut stamp, mut segment) = (Ipv4Addr::UNSPECIFIED, 0, None);
    // SAFETY: the kernel has filled `msg_controllen` bytes at `msg_control` with well-formed control messages; the macros
    // walk them and stop at their end, and each type has the value that is read for it (ip(7), udp(7), socket(7)).
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    local = info.ipi_addr.s_addr.to_ne_bytes().into();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = ptr::read_unaligned(data.cast::<libc::timespec>());
                    stamp = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
                }
                (libc::SOL_UDP, UDP_GRO) => {
                    segment = usize::try_from(ptr::read_unaligned(data.cast::<c_int>())).ok();
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    (local, stamp, segment)
}

/// The two control messages that a sent datagram can have, laid out as cmsg(3) wants them on 64-bit systems.
#[repr(C)]
#[derive(Clone, Copy)]
struct SendControl {
    info_header: libc::cmsghdr,
    info: libc::in_pktinfo,
    info_padding: u32,
    segment_header: libc::cmsghdr,
    segment: u16,
    segment_padding: [u16; 3],
}

const SEGMENT_OFFSET: usize = mem::offset_of!(SendControl, segment_header);

/// Collects datagrams and sends them in batches.
pub(crate) struct Sender {
    bytes: Vec<u8>,
    units: Vec<Unit>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<SendControl>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    refused: u64,
}

struct Unit {
    end: usize,
    to: SocketAddrV4,
    from: Option<Ipv4Addr>,
    segment: u16,
}

impl Sender {
    pub(crate) fn new() -> Self {
        // SAFETY: C structures of integers and pointers, for which all zeros is valid.
        let (name, control, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            bytes: Vec::new(),
            units: Vec::with_capacity(BATCH),
            names: vec![name; BATCH],
            controls: vec![control; BATCH],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH],
            headers: vec![header; BATCH],
            refused: 0,
        }
    }

    /// Where the bytes of the next datagram are appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a datagram of the bytes appended since the last one, or a train of datagrams of `segment` bytes each.
    pub(crate) fn commit(&mut self, to: SocketAddrV4, from: Option<Ipv4Addr>, segment: Option<u16>) {
        self.units.push(Unit { end: self.bytes.len(), to, from, segment: segment.unwrap_or(0) });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.units.len() >= BATCH
    }

    /// How many datagrams or trains the system has refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends everything collected.
    pub(crate) fn flush(&mut self, socket: &impl AsRawFd) {
        let mut start = 0;
        for (at, unit) in self.units.iter().enumerate().take(BATCH) {
            self.names[at] = address(unit.to);
            self.iovecs[at].iov_base = self.bytes[start..unit.end].as_mut_ptr().cast();
            self.iovecs[at].iov_len = unit.end - start;
            start = unit.end;
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[at];
            header.msg_iovlen = 1;
            let (offset, length) = fill_control(&mut self.controls[at], unit);
            header.msg_control = (&raw mut self.controls[at]).cast::<u8>().wrapping_add(offset).cast();
            header.msg_controllen = length;
        }
        let (mut sent, count) = (0, self.units.len().min(BATCH));
        while sent < count {
            // SAFETY: headers `sent..count` were just filled and point into vectors of `self`, none of which changes or moves
            // before the call returns.
            let result = unsafe {
                let headers = self.headers.as_mut_ptr().add(sent);
                libc::sendmmsg(socket.as_raw_fd(), headers, (count - sent) as u32, libc::MSG_DONTWAIT)
            };
            match usize::try_from(result) {
                Ok(accepted) if accepted > 0 => sent += accepted,
                _ => {
                    self.refused += 1;
                    sent += 1;
                }
            }
        }
        self.units.clear();
        self.bytes.clear();
    }
}

/// Fills the control messages that `unit` needs; returns where they begin and how long they are.
fn fill_control(control: &mut SendControl, unit: &Unit) -> (usize, usize) {
    let header = mem::size_of::<libc::cmsghdr>();
    control.info_header.cmsg_len = header + mem::size_of::<libc::in_pktinfo>();
    control.info_header.cmsg_level = libc::IPPROTO_IP;
    control.info_header.cmsg_type = libc::IP_PKTINFO;
    control.info.ipi_spec_dst.s_addr = u32::from_ne_bytes(unit.from.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    control.segment_header.cmsg_len = header + mem::size_of::<u16>();
    control.segment_header.cmsg_level = libc::SOL_UDP;
    control.segment_header.cmsg_type = UDP_SEGMENT;
    control.segment = unit.segment;
    let start = if unit.from.is_some() { 0 } else { SEGMENT_OFFSET };
    let end = if unit.segment > 0 { mem::size_of::<SendControl>() } else { SEGMENT_OFFSET };
    (start, end - start)
}

fn address(of: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: of.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(of.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// A set of sockets to watch for input.
pub(crate) struct Poll {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the descriptor is new and owned by nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { descriptor, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    pub(crate) fn add(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        let (poll, fd) = (self.descriptor.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: `event` is valid for the length of the call, which only reads it.
        check(unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(|_| ())
    }

    /// The tokens of the sockets with input now, without waiting.
    pub(crate) fn ready(&mut self) -> impl Iterator<Item = usize> + '_ {
        let room = self.events.len() as c_int;
        // SAFETY: the kernel writes at most `room` events to the vector, which has that many.
        let count = unsafe { libc::epoll_wait(self.descriptor.as_raw_fd(), self.events.as_mut_ptr(), room, 0) };
        self.events.iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64 as usize)
    }
}
