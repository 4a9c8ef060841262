//! The far end of a veth pair at whose near end a program relays (XDP): what it takes to look like another host. Used by tests and by
//! the relay benchmark.

#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io, mem,
    net::UdpSocket,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// bpf(2).
fn bpf(command: libc::c_long, attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are what the kernel takes for this command; what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    match i32::try_from(result) {
        // SAFETY: the call has succeeded, and the descriptor that it has made is nobody else's.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attaches a program of two instructions in the driver of an interface: everything passes.
pub(crate) fn let_everything_in(interface: &str) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_LINK_CREATE: libc::c_long = 28;
    const PROGRAM_XDP: u64 = 6;
    const ATTACH_XDP: u64 = 37;
    const IN_DRIVER: u64 = 4;
    /// r0 = XDP_PASS; exit.
    const PASS: [u64; 2] = [0x0000_0002_0000_00B7, 0x0000_0000_0000_0095];

    let (licence, count) = (c"MIT", PASS.len() as u64);
    let low = |low: u64, high: u64| low | high << 32;
    let load = [low(PROGRAM_XDP, count), PASS.as_ptr() as u64, licence.as_ptr() as u64, 0, 0, 0, 0, 0, 0];
    let mut load = load.to_vec();
    // Up to expected_attach_type.
    load[8] = low(0, ATTACH_XDP);
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let name = CString::new(interface)?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    bpf(BPF_LINK_CREATE, &[low(program.as_raw_fd() as u64, index.into()), low(ATTACH_XDP, IN_DRIVER)])
}

/// Whether checksums of what is sent are left to the "hardware" of an interface of this thread's network, which never computes them.
pub(crate) fn checksums_by_hardware(interface: &str, on: bool) -> io::Result<()> {
    /// The ioctl of ethtool(8), and its command "set" of checksums to be sent.
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;

    let socket = UdpSocket::bind("[::]:0")?;
    let mut value = [ETHTOOL_STXCSUM, u32::from(on)];
    // SAFETY: all zeros is a valid value of the structure.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request names an interface and points to a command with its value; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
