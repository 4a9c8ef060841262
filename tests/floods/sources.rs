//! Datagrams from very many addresses: one socket, which names another source with each datagram (IP_PKTINFO, ip(7)).

#![allow(unsafe_code)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use socket2::SockAddr;

/// So many addresses, from [`FIRST`] on.
pub(crate) const SOURCES: u32 = 100_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Datagrams per call.
pub(crate) const BATCH: usize = 50;

/// The n-th address.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + number % SOURCES)
}

/// Control messages of one datagram: a header and `in_pktinfo`, with the padding that the kernel wants.
type Control = [u64; 4];

/// Sends from each of the addresses in turn.
pub(crate) struct Sources {
    socket: UdpSocket,
    to: SockAddr,
    next: u32,
}

impl Sources {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket"), to: to.into(), next: 0 }
    }

    /// Sends [`BATCH`] datagrams, each from the next address; `make` is told which that is. Returns how many the system took.
    pub(crate) fn send(&mut self, mut make: impl FnMut(u32) -> Vec<u8>) -> u32 {
        let numbers = self.next..self.next + BATCH as u32;
        self.next = numbers.end % SOURCES;
        let datagrams: Vec<Vec<u8>> = numbers.clone().map(&mut make).collect();
        let mut controls: Vec<Control> = numbers.map(|number| control(address(number))).collect();
        let mut slices: Vec<libc::iovec> = datagrams
            .iter()
            .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = slices
            .iter_mut()
            .zip(&mut controls)
            .map(|(slice, control)| {
                // SAFETY: all zeros is a valid value of the structure.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = self.to.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_namelen = self.to.len();
                header.msg_hdr.msg_iov = slice;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = size_of::<Control>() as _;
                header
            })
            .collect();
        // SAFETY: each header points to an address, a slice and control messages that outlive the call, which reads them.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as u32, 0) };
        u32::try_from(sent).unwrap_or_else(|_| match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOBUFS) => 0,
            error => panic!("sending: {error}"),
        })
    }
}

/// Names a source.
fn control(source: Ipv4Addr) -> Control {
    let mut bytes = Vec::new();
    bytes.extend((size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>()).to_ne_bytes());
    bytes.extend(libc::IPPROTO_IP.to_ne_bytes());
    bytes.extend(libc::IP_PKTINFO.to_ne_bytes());
    // The interface, as the route says; the source; the destination, which is of no use here.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(source.octets());
    bytes.extend([0; 4]);
    bytes.resize(size_of::<Control>(), 0);
    let mut words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
    std::array::from_fn(|_| words.next().expect("four words"))
}
