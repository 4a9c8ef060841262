//! Receiving: recvmmsg with metadata, and datagrams that the kernel has merged taken apart again.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
    ptr,
};

use libc::c_int;

use super::{
    super::{BATCH, MAX_DATAGRAM, Received, payload_start},
    CONTROL_LEN, Control, LinuxSocket, control_messages, decode_address, is_pending_icmp, zeroed,
};

/// The structures that recvmmsg fills, one of each per slot. They point to each other, so they live in boxes that never move.
pub(crate) struct ReceiveCalls {
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
}

impl ReceiveCalls {
    pub(crate) fn new() -> Self {
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
        calls.reset(0..BATCH);
        calls
    }

    /// Restores the lengths that the kernel overwrote.
    fn reset(&mut self, used: std::ops::Range<usize>) {
        for header in &mut self.headers[used] {
            #[allow(clippy::cast_possible_truncation)] // 128
            {
                header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as u32;
            }
            header.msg_hdr.msg_controllen = CONTROL_LEN;
            header.msg_hdr.msg_flags = 0;
        }
    }

    /// Receives into the slots from `first` on; returns how many of them were filled.
    pub(crate) fn receive(
        &mut self,
        socket: &LinuxSocket,
        slots: &mut [u8],
        first: usize,
        received: &mut Vec<Received>,
    ) -> io::Result<usize> {
        for (at, iovec) in self.iovecs.iter_mut().enumerate().skip(first) {
            iovec.iov_base = slots[payload_start(at)..][..MAX_DATAGRAM].as_mut_ptr().cast();
        }
        let count = loop {
            // SAFETY: the headers from `first` on point into boxes owned by `self` and to distinct slots of `slots`, each of the
            // length given; all of them outlive the call.
            #[allow(clippy::cast_possible_truncation)] // at most 32
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers[first..].as_mut_ptr(),
                    (BATCH - first) as u32,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if let Ok(count) = usize::try_from(count) {
                break count;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(0),
                io::ErrorKind::Interrupted => {}
                // An ICMP error that is pending on the socket; taking it clears it, the detail is in the error queue.
                _ if is_pending_icmp(&error) => {}
                _ => return Err(error),
            }
        };
        let before = received.len();
        for at in first..first + count {
            self.take(at, received);
        }
        self.reset(first..first + count);
        socket.merging.note(socket, count, &received[before..]);
        Ok(count)
    }

    /// Adds the datagrams of one filled slot: several if the kernel has merged them.
    fn take(&self, at: usize, received: &mut Vec<Received>) {
        let header = &self.headers[at];
        let total = header.msg_len as usize;
        let source = decode_address(&self.names[at]).unwrap_or(ANYWHERE);
        let start = payload_start(at);
        let mut entry = Received { source, local: None, tos: 0, start, len: total };
        let mut each = total;
        for (level, kind, data) in control_messages(&header.msg_hdr) {
            if let (libc::SOL_UDP, libc::UDP_GRO) = (level, kind) {
                let size = data.first_chunk().map_or(0, |bytes| c_int::from_ne_bytes(*bytes));
                each = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(total);
            } else {
                read_control(&mut entry, level, kind, data);
            }
        }
        if each >= total {
            received.push(entry);
            return;
        }
        let mut offset = 0;
        while offset < total {
            received.push(Received { start: start + offset, len: each.min(total - offset), ..entry });
            offset += each;
        }
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
