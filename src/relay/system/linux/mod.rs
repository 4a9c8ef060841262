//! Datagrams on Linux: several per call, with their metadata (ip(7), ipv6(7), udp(7), recvmmsg(2), sendmmsg(2)).
//!
//! Passing the kernel's stack is what a packet costs, so several pass it as one where they can: bursts of one flow are received
//! merged (UDP_GRO) and sent merged (UDP_SEGMENT). Here is what both directions share.

#![allow(unsafe_code)]

mod host;
mod interface;
mod merging;
pub(super) mod probe;
mod receive;
mod send;

pub(super) use host::{kernel_drops, pin_thread, processors, thread_time};
pub(super) use interface::mtu as interface_mtu;
#[cfg(offload_program)]
pub(in super::super) use interface::{driver, hardware_address, index as interface_index};
pub(super) use receive::ReceiveCalls;
pub(super) use send::{SendCalls, send_one};

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use libc::{c_int, c_void};

use merging::Merging;

use super::{Use, path::Merges};
use crate::turn::IcmpError;

/// Control data of one datagram; 64-bit words for the alignment that the headers need. Room for PKTINFO, a traffic class and
/// an extended error with its offender's address.
type Control = [u64; 20];

const CONTROL_LEN: usize = mem::size_of::<Control>();

/// A socket and what it has learnt about merging.
#[derive(Debug)]
pub(crate) struct LinuxSocket {
    socket: std::net::UdpSocket,
    merging: Merging,
}

impl LinuxSocket {
    pub(super) fn new(socket: std::net::UdpSocket, merges: Merges) -> Self {
        Self { socket, merging: Merging::new(merges) }
    }
}

impl AsRawFd for LinuxSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn set_int(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int that outlives the call.
    #[allow(clippy::cast_possible_truncation)] // 4
    let result = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast::<c_void>(), mem::size_of::<c_int>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks for the metadata that RFC 8656 §13–14 need, and sets the fragmentation rule.
pub(super) fn set_options(socket: &impl AsRawFd, address: SocketAddr, usage: Use) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let wildcard = usage == Use::Listener && address.ip().is_unspecified();
    if address.is_ipv4() {
        set_int(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        // DF=0, and the path MTU that forged ICMP errors claim is not believed (RFC 8656 §14).
        set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
        if wildcard {
            set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        if usage == Use::Relay {
            set_int(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        }
    } else {
        set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        // The modes that believe no ICMP error also hide "packet too big" from the socket, which is to be forwarded
        // (RFC 8656 §11.5). What a forged one can do is bounded: packets are cut to no less than 1280 bytes.
        let discovery = if usage == Use::Relay { libc::IPV6_PMTUDISC_WANT } else { libc::IPV6_PMTUDISC_OMIT };
        set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discovery)?;
        if wildcard {
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        if usage == Use::Relay {
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        }
    }
    Ok(())
}

/// Raises the soft limit of descriptors to the hard one.
pub(super) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the length of both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Takes away the 50 µs by which the kernel may prolong the sleeps of this thread (PR_SET_TIMERSLACK of prctl(2)).
pub(super) fn sleep_exactly() -> io::Result<()> {
    /// In nanoseconds; 0 would mean the default.
    const SLACK: libc::c_ulong = 1;
    // SAFETY: this option takes a number and no pointer.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// See M_MMAP_THRESHOLD of mallopt(3). By itself glibc's allocator raises it to the length of the largest block ever freed, after
/// which long queues lie among small blocks that hold them in place.
pub(super) fn give_back_large_blocks() {
    /// In bytes: what the threshold is at first.
    #[cfg(target_env = "gnu")]
    const LARGE: c_int = 128 << 10;
    // SAFETY: the call takes no pointer; it only changes where later blocks come from.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// See malloc_trim(3). Small blocks that are freed between others stay with glibc's allocator otherwise.
pub(super) fn release_freed_memory() {
    // SAFETY: the call takes no pointer, and touches only what has been freed.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A socket address in the kernel's form, with its length.
fn encode_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let encoded = socket2::SockAddr::from(address);
    // SAFETY: a `SockAddr` holds a whole sockaddr_storage, and both places are valid and do not overlap.
    unsafe { ptr::copy_nonoverlapping(encoded.as_ptr().cast::<libc::sockaddr_storage>(), ptr::from_mut(name), 1) };
    encoded.len()
}

fn decode_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, which it is large and aligned enough for.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// A zeroed kernel structure.
fn zeroed<T>() -> T
where
    T: KernelStruct,
{
    // SAFETY: `KernelStruct` is implemented for C structures of integers and pointers only, for which all zeros is valid.
    unsafe { mem::zeroed() }
}

/// C structures for which all zero bytes are a valid value.
trait KernelStruct {}
impl KernelStruct for libc::sockaddr_storage {}
impl KernelStruct for libc::mmsghdr {}
impl KernelStruct for libc::msghdr {}

/// The control messages of a header that the kernel has just filled: level, type, data.
fn control_messages(header: &libc::msghdr) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    // SAFETY: the kernel has filled `msg_controllen` bytes at `msg_control`, which live as long as `header`, with
    // well-formed control messages; the macros walk them and stop at their end.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        // SAFETY: as above; `next` is null or points to a whole control message.
        unsafe {
            let message = next.as_ref()?;
            let len = message.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(next), len);
            next = libc::CMSG_NXTHDR(header, next);
            Some((message.cmsg_level, message.cmsg_type, data))
        }
    })
}

/// Errors of a call that are about an earlier datagram.
fn is_pending_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::ENONET
                | libc::EMSGSIZE
        )
    )
}

/// Takes one error from the socket's error queue that came as an ICMP message. Local errors are passed over.
pub(super) fn take_icmp_error(socket: &LinuxSocket) -> Option<(SocketAddr, IcmpError)> {
    loop {
        let (mut name, mut control) = (zeroed::<libc::sockaddr_storage>(), [0u64; 20]);
        let mut header = zeroed::<libc::msghdr>();
        header.msg_name = (&raw mut name).cast();
        #[allow(clippy::cast_possible_truncation)] // 128
        {
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as u32;
        }
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = CONTROL_LEN;
        // SAFETY: `header` points to locals that outlive the call; there is no room for data, which is not wanted.
        let taken =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if taken < 0 {
            return None;
        }
        let error = control_messages(&header).find_map(|(level, kind, data)| {
            matches!((level, kind), (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR))
                .then(|| read_extended_error(data))
                .flatten()
        });
        if let (Some(error), Some(destination)) = (error, decode_address(&name)) {
            return Some((destination, error));
        }
    }
}

/// sock_extended_err: errno (4), origin, type, code, padding, info (4).
fn read_extended_error(data: &[u8]) -> Option<IcmpError> {
    let &[_, _, _, _, origin, kind, code, _, i0, i1, i2, i3, ..] = data.first_chunk::<16>()?;
    matches!(origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6).then_some(IcmpError {
        kind,
        code,
        mtu: u32::from_ne_bytes([i0, i1, i2, i3]),
    })
}
