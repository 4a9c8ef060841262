//! What records take.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use turnserver::stun::Method;

use crate::{
    client::Refused,
    common::{Server, USER},
    support::{HERE, await_finding, client, reasons, request, says},
    web::managed,
};

/// Sources of the flood: many times what is remembered.
const SOURCES: u32 = 20_000;

/// Kilobytes of memory that the server uses.
fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Every source has a datagram that is no STUN, and a request without credentials.
fn flood(server: SocketAddr, sources: std::ops::Range<u32>) {
    let request = request(Method::Allocate, None, |_| {});
    for source in sources {
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + source);
        let socket = UdpSocket::bind((ip, 0)).expect("a socket");
        socket.send_to(&[0xC0; 20], server).expect("to send");
        socket.send_to(&request, server).expect("to send");
    }
}

#[test]
fn a_flood_of_sources_takes_no_memory_and_hides_nobody_in_earnest() {
    let server = Server::start(&managed(""));
    let address = server.ipv4("udp");
    assert_eq!(client(&server, USER, "wrong").allocate(), Err(Refused(401)));
    says(&server, HERE, "wrong-password", &["The password of \"alice\" is wrong"]);
    // Buffers of the system's and the runtime's have their size after this.
    flood(address, 0..2_000);
    let last = |source: u32| Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + source).to_string();
    await_finding(&server, &last(1_999), "not-served", |_| true);
    let before = resident(&server);
    flood(address, 2_000..SOURCES);
    await_finding(&server, &last(SOURCES - 1), "not-served", |_| true);
    let after = resident(&server);
    assert!(after < before + 1024, "{before} kB before, {after} kB after");
    assert_eq!(reasons(&server, &last(0)), ["nothing-known"]);
    says(&server, HERE, "wrong-password", &["The password of \"alice\" is wrong"]);
}
