//! Trying what the kernel has. The outer error is that there was nothing to try it with, the inner one that it does not work.
//!
//! epoll is not tried: the runtime itself stands on it.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    ptr,
    time::Duration,
};

use super::{
    super::SendOptions,
    send::{fill_header, iovec},
    set_int, zeroed,
};

/// How long a datagram over loopback is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

type Outcome = io::Result<Result<(), io::Error>>;

/// A socket on loopback, or at least some socket.
fn open() -> io::Result<UdpSocket> {
    let any: [SocketAddr; 4] = [
        (Ipv4Addr::LOCALHOST, 0).into(),
        (Ipv6Addr::LOCALHOST, 0).into(),
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv6Addr::UNSPECIFIED, 0).into(),
    ];
    UdpSocket::bind(&any[..])
}

/// Whether there are recvmmsg and sendmmsg.
pub(in super::super) fn batches() -> Outcome {
    let socket = open()?;
    let fd = socket.as_raw_fd();
    let mut header = zeroed::<libc::mmsghdr>();
    // SAFETY: one header that outlives the call, with room for nothing; nothing has been sent to the socket.
    let received = unsafe { libc::recvmmsg(fd, &raw mut header, 1, libc::MSG_DONTWAIT, ptr::null_mut()) };
    let error = io::Error::last_os_error();
    if received < 0 && error.kind() != io::ErrorKind::WouldBlock {
        return Ok(Err(error));
    }
    // SAFETY: no headers are passed.
    let sent = unsafe { libc::sendmmsg(fd, &raw mut header, 0, libc::MSG_DONTWAIT) };
    Ok(if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) })
}

/// Whether there is UDP_GRO.
pub(in super::super) fn merged_receiving() -> Outcome {
    Ok(set_int(open()?.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1))
}

/// Whether there is UDP_SEGMENT, and a merged datagram arrives as several.
pub(in super::super) fn merged_sending() -> Outcome {
    Ok(send_merged(&open()?, &open()?))
}

fn send_merged(sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<()> {
    set_int(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
    let to = receiver.local_addr()?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 8];
    // Where not even an ordinary datagram passes, there is only the kernel's word. Sockets still fall back one by one.
    if sender.send_to(&[0], to).and_then(|_| receiver.recv(&mut buffer)).is_err() {
        return Ok(());
    }
    let (mut name, mut control, mut header) = (zeroed(), [0; 20], zeroed());
    let slices = &mut [iovec(&[1, 2, 3])];
    fill_header(&mut header, &mut name, &mut control, slices, to, SendOptions::default(), Some(2));
    // SAFETY: `header` points to locals that outlive the call.
    if unsafe { libc::sendmsg(sender.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for expected in [&[1, 2][..], &[3]] {
        let len = receiver.recv(&mut buffer)?;
        if buffer[..len] != *expected {
            return Err(io::Error::other("merged datagrams are not taken apart"));
        }
    }
    Ok(())
}
