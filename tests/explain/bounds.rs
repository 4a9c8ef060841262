//! What records take.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Instant,
};

use turnserver::stun::Method;

use crate::{
    client::Refused,
    common::{PATIENCE, Server, USER},
    support::{HERE, client, reasons, request, says},
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

/// The address of a source.
fn ip(source: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + source)
}

/// Waits until the server has worked through what was sent before: a flood may lose some of it, this source's, too.
fn arrives(server: &Server, source: u32) {
    let deadline = Instant::now() + PATIENCE;
    while !reasons(server, &ip(source).to_string()).contains(&"not-served".to_owned()) {
        assert!(Instant::now() < deadline, "nothing of source {source} has arrived");
        flood(server.ipv4("udp"), source..source + 1);
    }
}

/// Every source has a datagram that is no STUN, and a request without credentials.
fn flood(server: SocketAddr, sources: std::ops::Range<u32>) {
    let request = request(Method::Allocate, None, |_| {});
    for source in sources {
        let socket = UdpSocket::bind((ip(source), 0)).expect("a socket");
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
    arrives(&server, 1_999);
    let before = resident(&server);
    flood(address, 2_000..SOURCES);
    arrives(&server, SOURCES - 1);
    let after = resident(&server);
    assert!(after < before + 1024, "{before} kB before, {after} kB after");
    assert_eq!(reasons(&server, &ip(0).to_string()), ["nothing-known"]);
    says(&server, HERE, "wrong-password", &["The password of \"alice\" is wrong"]);
}
