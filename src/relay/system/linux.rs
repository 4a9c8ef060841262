//! Datagrams on Linux: several per call, with their metadata (ip(7), ipv6(7), recvmmsg(2), sendmmsg(2)).

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use libc::{c_int, c_void};

use super::{BATCH, Batch, MAX_DATAGRAM, Outgoing, Received, SendOptions, Use, payload_start};
use crate::turn::IcmpError;

/// Control data of one datagram; 64-bit words for the alignment that the headers need. Room for PKTINFO, a traffic class and
/// an extended error with its offender's address.
type Control = [u64; 20];

const CONTROL_LEN: usize = mem::size_of::<Control>();

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

/// The structures that recvmmsg fills. They point to each other, so they live in boxes that never move.
pub(super) struct ReceiveCalls {
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
}

impl ReceiveCalls {
    pub(super) fn new() -> Self {
        let mut calls = Self {
            names: Box::new([zeroed(); BATCH]),
            controls: Box::new([[0; 20]; BATCH]),
            iovecs: Box::new([libc::iovec { iov_base: ptr::null_mut(), iov_len: MAX_DATAGRAM }; BATCH]),
            headers: Box::new([zeroed(); BATCH]),
        };
        for (at, header) in calls.headers.iter_mut().enumerate() {
            header.msg_hdr.msg_name = (&raw mut calls.names[at]).cast();
            header.msg_hdr.msg_control = (&raw mut calls.controls[at]).cast();
            header.msg_hdr.msg_iov = &raw mut calls.iovecs[at];
            header.msg_hdr.msg_iovlen = 1;
        }
        calls.reset(BATCH);
        calls
    }

    /// Restores the lengths that the kernel overwrote.
    fn reset(&mut self, used: usize) {
        for header in self.headers.iter_mut().take(used) {
            #[allow(clippy::cast_possible_truncation)] // 128
            {
                header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as u32;
            }
            header.msg_hdr.msg_controllen = CONTROL_LEN;
            header.msg_hdr.msg_flags = 0;
        }
    }

    pub(super) fn receive(
        &mut self,
        socket: &impl AsRawFd,
        slots: &mut [u8],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        for (at, iovec) in self.iovecs.iter_mut().enumerate() {
            iovec.iov_base = slots[payload_start(at)..][..MAX_DATAGRAM].as_mut_ptr().cast();
        }
        let count = loop {
            // SAFETY: all `BATCH` headers point into boxes owned by `self` and to distinct slots of `slots`, each of the length
            // given; all of them outlive the call.
            #[allow(clippy::cast_possible_truncation)] // 32
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH as u32,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if let Ok(count) = usize::try_from(count) {
                break count;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                io::ErrorKind::Interrupted => {}
                // An ICMP error that is pending on the socket; taking it clears it, the detail is in the error queue.
                _ if is_pending_icmp(&error) => {}
                _ => return Err(error),
            }
        };
        for at in 0..count {
            let header = &self.headers[at];
            let len = header.msg_len as usize;
            let mut entry = Received { source: ANYWHERE, local: None, tos: 0, len };
            for (level, kind, data) in control_messages(&header.msg_hdr) {
                read_control(&mut entry, level, kind, data);
            }
            // A datagram is always pushed, so that entries and slots agree; one without an address goes nowhere.
            entry.source = decode_address(&self.names[at]).unwrap_or(ANYWHERE);
            received.push(entry);
        }
        self.reset(count);
        Ok(())
    }
}

/// Stands for an address that the kernel did not give; nothing can be sent there.
const ANYWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

fn read_control(entry: &mut Received, level: c_int, kind: c_int, data: &[u8]) {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_TOS) => entry.tos = data.first().copied().unwrap_or(0),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            // An int below 256.
            entry.tos = data.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).to_le_bytes()[0]);
        }
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // in_pktinfo: interface, local address, destination address.
            entry.local =
                data.get(4..8).and_then(|ip| ip.first_chunk::<4>()).map(|ip| IpAddr::from(Ipv4Addr::from(*ip)));
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            entry.local = data.first_chunk::<16>().map(|ip| IpAddr::from(Ipv6Addr::from(*ip)));
        }
        _ => {}
    }
}

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

/// The structures that sendmmsg reads; filled anew for each run.
pub(super) struct SendCalls {
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
}

impl SendCalls {
    pub(super) fn new() -> Self {
        Self {
            names: Box::new([zeroed(); BATCH]),
            controls: Box::new([[0; 20]; BATCH]),
            iovecs: Box::new([libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH]),
            headers: Box::new([zeroed(); BATCH]),
        }
    }

    /// Sends all of `run`; returns how many datagrams the system refused.
    pub(super) fn send(&mut self, socket: &std::net::UdpSocket, run: &[Outgoing], batch: &Batch) -> usize {
        if let [one] = run {
            return usize::from(send_one(socket, batch.bytes(one.range.clone()), one.to, one.options).is_err());
        }
        let mut count = 0;
        for (at, out) in run.iter().enumerate().take(BATCH) {
            let bytes = batch.bytes(out.range.clone());
            self.iovecs[at] = iovec(bytes);
            fill_header(
                &mut self.headers[at].msg_hdr,
                &mut self.names[at],
                &mut self.controls[at],
                &mut self.iovecs[at],
                out.to,
                out.options,
            );
            count = at + 1;
        }
        let (mut sent, mut refused, mut retried) = (0, 0, false);
        while sent < count {
            // SAFETY: headers `sent..count` were just filled and point into boxes owned by `self` and into `batch`, which
            // outlive the call; the kernel only reads them, but for the lengths that it writes to the headers.
            #[allow(clippy::cast_possible_truncation)] // at most 32
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[sent..].as_mut_ptr(),
                    (count - sent) as u32,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(result) {
                Ok(accepted) if accepted > 0 => {
                    sent += accepted;
                    retried = false;
                }
                // The first datagram was refused; an ICMP error about an earlier one is reported once and then gone.
                _ => {
                    let error = io::Error::last_os_error();
                    if !retried && (is_pending_icmp(&error) || error.kind() == io::ErrorKind::Interrupted) {
                        retried = true;
                    } else {
                        sent += 1;
                        refused += 1;
                        retried = false;
                    }
                }
            }
        }
        refused
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn fill_header(
    header: &mut libc::msghdr,
    name: &mut libc::sockaddr_storage,
    control: &mut Control,
    iovec: &mut libc::iovec,
    to: SocketAddr,
    options: SendOptions,
) {
    header.msg_namelen = encode_address(to, name);
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_iov = iovec;
    header.msg_iovlen = 1;
    header.msg_flags = 0;
    header.msg_control = ptr::null_mut();
    header.msg_controllen = 0;
    let mut used = 0;
    if options.tos != 0 {
        let value = c_int::from(options.tos).to_ne_bytes();
        let (level, kind) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = put_control(control, used, level, kind, &value);
    }
    match options.from {
        // in_pktinfo and in6_pktinfo: only the local address is given.
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            used = put_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            used = put_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if used > 0 {
        header.msg_control = ptr::from_mut(control).cast();
        header.msg_controllen = used;
    }
}

/// Appends a control message at byte `at`; returns where the next one goes.
fn put_control(control: &mut Control, at: usize, level: c_int, kind: c_int, data: &[u8]) -> usize {
    // SAFETY: CMSG_LEN and CMSG_SPACE are arithmetic on the length.
    #[allow(clippy::cast_possible_truncation)] // at most 20
    let (len, space) = unsafe { (libc::CMSG_LEN(data.len() as u32), libc::CMSG_SPACE(data.len() as u32) as usize) };
    assert!(at + space <= CONTROL_LEN, "two control messages of at most 40 bytes fit 160");
    let message = libc::cmsghdr { cmsg_len: len as usize, cmsg_level: level, cmsg_type: kind };
    // SAFETY: the assertion says that the message lies inside `control`; `at` is a multiple of the alignment, as CMSG_SPACE is.
    unsafe {
        let place = ptr::from_mut(control).cast::<u8>().add(at).cast::<libc::cmsghdr>();
        place.write(message);
        ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(place), data.len());
    }
    at + space
}

/// Sends one datagram.
pub(super) fn send_one(
    socket: &std::net::UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    options: SendOptions,
) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if options.dont_fragment {
        set_fragmentation(fd, to, Fragmentation::Forbidden)?;
    }
    let (mut name, mut control, mut iovec) = (zeroed(), [0; 20], iovec(bytes));
    let mut header = zeroed();
    fill_header(&mut header, &mut name, &mut control, &mut iovec, to, options);
    let mut result = Ok(());
    for _ in 0..2 {
        // SAFETY: `header` points to locals and to `bytes`, all of which outlive the call.
        let sent = unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT) };
        result = if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // An ICMP error about an earlier datagram is reported once and then gone.
        match &result {
            Err(error) if is_pending_icmp(error) => {}
            _ => break,
        }
    }
    if options.dont_fragment {
        set_fragmentation(fd, to, Fragmentation::Allowed)?;
    }
    result
}

/// Whether datagrams may be fragmented.
#[derive(Clone, Copy)]
enum Fragmentation {
    Allowed,
    Forbidden,
}

fn set_fragmentation(fd: RawFd, to: SocketAddr, rule: Fragmentation) -> io::Result<()> {
    match (to, rule) {
        (SocketAddr::V4(_), Fragmentation::Allowed) => {
            set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
        }
        // DF=1 without believing the path MTU that the kernel remembers: the network is to decide.
        (SocketAddr::V4(_), Fragmentation::Forbidden) => {
            set_int(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        (SocketAddr::V6(_), rule) => {
            let forbidden = matches!(rule, Fragmentation::Forbidden);
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, c_int::from(forbidden))
        }
    }
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
pub(super) fn take_icmp_error(socket: &std::net::UdpSocket) -> Option<(SocketAddr, IcmpError)> {
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
