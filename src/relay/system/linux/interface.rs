//! What the kernel tells about an interface (netdevice(7)).

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd};

/// The MTU of an interface in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<usize> {
    let request = ask(request(name)?, libc::SIOCGIFMTU as libc::Ioctl)?;
    // SAFETY: the call has succeeded, so the kernel has written the MTU, an int.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

/// The address of an Ethernet interface; `None` for another kind.
#[cfg(offload_program)]
pub(crate) fn hardware_address(name: &str) -> io::Result<Option<[u8; 6]>> {
    let request = ask(request(name)?, libc::SIOCGIFHWADDR as libc::Ioctl)?;
    // SAFETY: the call has succeeded, so the kernel has written a sockaddr.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    mac.iter_mut().zip(address.sa_data).for_each(|(to, from)| *to = from as u8);
    Ok((address.sa_family == libc::ARPHRD_ETHER).then_some(mac))
}

/// The index of an interface, if it is there.
#[cfg(offload_program)]
pub(crate) fn index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of an interface's driver (ETHTOOL_GDRVINFO of ethtool(8)).
#[cfg(offload_program)]
pub(crate) fn driver(name: &str) -> io::Result<String> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const ETHTOOL_GDRVINFO: u32 = 3;

    /// struct ethtool_drvinfo.
    #[repr(C)]
    struct Info {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }

    let mut info = Info { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    ask(request, SIOCETHTOOL)?;
    let len = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..len]).into_owned())
}

/// A question about an interface.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid ifreq, which is made of integers and a pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: the name ends there.
    let room = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    if name.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    room.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed() as libc::c_char);
    Ok(request)
}

/// Asks the kernel.
fn ask(mut request: libc::ifreq, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the kernel reads and writes no more than the ifreq and, for the one question that has some, the data that it
    // points to, which is of the size that the kernel knows; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
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
