//! Datagrams with their traffic class, several in one call: what the standard library has no calls for (ip(7), ipv6(7), udp(7)).

#![allow(unsafe_code)]

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use libc::c_int;
use socket2::SockAddr;

/// Received in one call: a datagram, or several that were merged.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) source: SocketAddr,
    /// DSCP and ECN.
    pub(crate) tos: u8,
    pub(crate) datagrams: Vec<Vec<u8>>,
}

fn set(socket: &UdpSocket, level: c_int, option: c_int) {
    let on: c_int = 1;
    // SAFETY: the value is an int that outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size_of_val(&on) as u32) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Asks for the traffic class of what is received.
pub(crate) fn receive_tos(socket: &UdpSocket) {
    if socket.local_addr().expect("an address").is_ipv4() {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS);
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
    }
}

/// Takes merged datagrams merged.
pub(crate) fn receive_merged(socket: &UdpSocket) {
    set(socket, libc::SOL_UDP, libc::UDP_GRO);
}

/// Appends a control message.
fn put(control: &mut Vec<u8>, level: c_int, kind: c_int, value: &[u8]) {
    control.extend((size_of::<libc::cmsghdr>() + value.len()).to_ne_bytes());
    control.extend(level.to_ne_bytes());
    control.extend(kind.to_ne_bytes());
    control.extend(value);
    control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
}

/// Sends datagrams of equal length, of which the last may be shorter, as one if they are several and fit the link.
pub(crate) fn send(socket: &UdpSocket, datagrams: &[Vec<u8>], to: SocketAddr, tos: u8) {
    let mut control = Vec::new();
    let (level, kind) =
        if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    put(&mut control, level, kind, &c_int::from(tos).to_ne_bytes());
    if let [first, _, ..] = datagrams {
        let each = u16::try_from(first.len()).expect("less than 64 KiB");
        put(&mut control, libc::SOL_UDP, libc::UDP_SEGMENT, &each.to_ne_bytes());
    }
    let (name, bytes) = (SockAddr::from(to), datagrams.concat());
    let mut slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid value of the structure.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_namelen = name.len();
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len() as _;
    // SAFETY: the header points to locals that outlive the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, 0) };
    let error = io::Error::last_os_error();
    if sent < 0 && datagrams.len() > 1 && matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)) {
        return datagrams.iter().for_each(|one| send(socket, std::slice::from_ref(one), to, tos));
    }
    assert_eq!(usize::try_from(sent).ok(), Some(bytes.len()), "{error}");
}

/// Receives what comes next, or fails as the socket's time limit or mode says.
pub(crate) fn receive(socket: &UdpSocket) -> io::Result<Received> {
    let (mut bytes, mut control) = (vec![0u8; 65_536], vec![0u8; 256]);
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid value of the structure.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len() as _;
    // SAFETY: the header points to locals that outlive the call, and to the storage, which the kernel fills as it says; a socket
    // of the Internet always has a source to tell.
    let (len, source) = unsafe {
        SockAddr::try_init(|storage, namelen| {
            header.msg_name = storage.cast();
            header.msg_namelen = *namelen;
            let len = libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0);
            *namelen = header.msg_namelen;
            usize::try_from(len).map_err(|_| io::Error::last_os_error())
        })?
    };
    #[allow(clippy::useless_conversion, reason = "another type elsewhere")]
    control.truncate(usize::try_from(header.msg_controllen).expect("what was given"));
    let (mut tos, mut each) = (0, len.max(1));
    for (level, kind, value) in controls(&control) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) => tos = value[0],
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => tos = int(value) as u8,
            (libc::SOL_UDP, libc::UDP_GRO) => each = int(value) as usize,
            _ => {}
        }
    }
    let whole = &bytes[..len];
    let datagrams = if len == 0 { vec![Vec::new()] } else { whole.chunks(each).map(<[u8]>::to_vec).collect() };
    Ok(Received { source: source.as_socket().expect("an address"), tos, datagrams })
}

fn int(bytes: &[u8]) -> c_int {
    c_int::from_ne_bytes(*bytes.first_chunk().expect("an int"))
}

/// The control messages in what the kernel has filled: level, kind, value.
fn controls(mut bytes: &[u8]) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<{ size_of::<usize>() }>()?;
        let len = usize::from_ne_bytes(*len);
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let value = &bytes[size_of::<libc::cmsghdr>()..len];
        bytes = bytes.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        Some((c_int::from_ne_bytes(*level), c_int::from_ne_bytes(*kind), value))
    })
}
