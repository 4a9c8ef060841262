//! Ports below the range from which the system gives out ports, where servers under test listen and clients send from.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Whoever takes ports one after the other begins at another place in each process.
fn start(step: u16) -> u16 {
    (std::process::id() % 199) as u16 * step
}

/// Two adjacent UDP ports that nothing on this host uses, on each of `addresses`.
///
/// They are taken from below the range from which the system gives out ports, and never twice by one process, so that
/// nothing else grabs them before the program that they are meant for has bound them.
pub(crate) fn free_port_pair(addresses: &[IpAddr]) -> u16 {
    const FIRST: u16 = 10_000;
    const PAIRS: u16 = 8_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);

    let mut tried = BTreeSet::new();
    loop {
        let pair = (start(40) + NEXT.fetch_add(1, Ordering::Relaxed)) % PAIRS;
        assert!(tried.insert(pair), "no two adjacent UDP ports are free from {FIRST} on");
        let port = FIRST + 2 * pair;
        if addresses.iter().all(|&ip| (port..=port + 1).all(|port| UdpSocket::bind((ip, port)).is_ok())) {
            return port;
        }
    }
}

/// A UDP socket for a peer. A server refuses its own listeners as peers, by address and port, so that a peer whose port the
/// system chose could be none: over TCP the server may have got the same number.
pub(crate) fn peer_socket(ip: IpAddr) -> UdpSocket {
    on_a_peers_port(ip, UdpSocket::bind)
}

/// A TCP listener for a peer; see [`peer_socket`].
pub(crate) fn peer_listener(ip: IpAddr) -> TcpListener {
    on_a_peers_port(ip, TcpListener::bind)
}

fn on_a_peers_port<T>(ip: IpAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> T {
    const FIRST: u16 = 26_000;
    const COUNT: u16 = 6_700;
    static NEXT: AtomicU16 = AtomicU16::new(0);

    (0..COUNT)
        .find_map(|_| {
            let offset = start(33).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
            bind(SocketAddr::new(ip, FIRST + offset)).ok()
        })
        .unwrap_or_else(|| panic!("no port of {COUNT} from {FIRST} on is free for a peer on {ip}"))
}
