//! A network of a test's own.

#![allow(unsafe_code)]

use std::process::Command;

/// Runs `test` in a thread whose network, like that of the programs that it starts, is a new namespace with nothing but a
/// loopback interface of this MTU. Needs root.
pub(crate) fn with_loopback_of_mtu(mtu: u16, test: fn()) {
    let thread = std::thread::spawn(move || {
        // SAFETY: no pointers are passed; only the namespace of the calling thread changes.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace: {}", std::io::Error::last_os_error());
        let status = Command::new("ip").args(["link", "set", "lo", "up", "mtu", &mtu.to_string()]).status();
        assert!(status.expect("ip of iproute2").success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Gives the loopback interface of such a namespace one more address.
pub(crate) fn add_address(address: &str) {
    let status = Command::new("ip").args(["address", "add", address, "dev", "lo"]).status();
    assert!(status.expect("ip of iproute2").success());
    crate::common::await_address(address.parse().expect("an address"));
}
