//! What the kernel tells about an interface (netdevice(7)).

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd};

/// The MTU of an interface in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<usize> {
    // SAFETY: all zeros is a valid ifreq, which is made of integers and a pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: the name ends there.
    let room = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    if name.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    room.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed() as libc::c_char);
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the kernel reads and writes no more than the ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as libc::Ioctl, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so the kernel has written the MTU, an int.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_mtu() {
        assert!(mtu("lo").unwrap() >= 1280);
        assert!(mtu("no such thing").is_err());
        assert!(mtu("a name that no interface can have").is_err());
    }
}
