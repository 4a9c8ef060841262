//! Networks of a test's own. Needs root and iproute2.

#![allow(unsafe_code)]

use std::{panic::resume_unwind, process::Command, thread};

/// Runs `test` in a thread whose network, like that of the programs that it starts, is a new namespace in which nothing is up.
pub(crate) fn in_new_network<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        // SAFETY: no pointers are passed; only the namespace of the calling thread changes.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace: {}", std::io::Error::last_os_error());
        test()
    });
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The same, with nothing but a loopback interface of this MTU.
pub(crate) fn with_loopback_of_mtu(mtu: u16, test: impl FnOnce() + Send + 'static) {
    in_new_network(move || {
        ip(&format!("link set lo up mtu {mtu}"));
        test();
    });
}

/// Runs `ip` in the network of this thread.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip of iproute2");
    assert!(status.success(), "ip {arguments}: {status}");
}

/// The thread's id in the system, by which its network can be named.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Switches off what an interface of this thread's network does for checksums, and all that needs it.
pub(crate) fn without_checksum_offload(interface: &str) {
    /// The ioctl of ethtool(8), and the commands "get" and "set" of checksums to be sent.
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const GET: u32 = 0x16;
    const SET: u32 = 0x17;

    let socket = std::net::UdpSocket::bind("[::]:0").expect("a socket");
    let ask = |command: u32| {
        let mut value = [command, 0];
        // SAFETY: all zeros is a valid value of the structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *place = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: the request names an interface and points to a command with its value; both outlive the call.
        let result =
            unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), SIOCETHTOOL as _, &raw mut request) };
        assert_eq!(result, 0, "{interface}: {}", std::io::Error::last_os_error());
        value[1]
    };
    ask(SET);
    assert_eq!(ask(GET), 0, "{interface} still computes checksums");
}

/// Gives the loopback interface of such a namespace one more address.
pub(crate) fn add_address(address: &str) {
    ip(&format!("address add {address} dev lo"));
    super::await_address(address.parse().expect("an address"));
}
