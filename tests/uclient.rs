//! coturn's own load client, `turnutils_uclient`, against the server, with its echo peer `turnutils_peer` or client to
//! client. How the tool is driven and its report is read: `common/uclient.rs`.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use common::uclient::{LIMIT, Run};
use common::{LOOPBACK, PATIENCE, Server, USER, loopback_with_dtls, loopback_with_tls};
use common::{ports::free_port_pair, process::Process};

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// `turnutils_peer` on a port (and the next one, for RTCP) of its own on both loopback addresses.
struct Peer {
    _process: Process,
    port: u16,
}

impl Peer {
    fn start() -> Self {
        let port = free_port_pair(&[IPV4, IPV6]);
        let mut command = Command::new("turnutils_peer");
        command.args(["-L", "127.0.0.1", "-L", "::1", "-p", &port.to_string()]);
        let peer = Self { _process: Process::start(command), port };
        for address in [IPV4, IPV6] {
            for port in [port, port + 1] {
                await_echo(SocketAddr::new(address, port));
            }
        }
        peer
    }
}

/// Waits until `peer` answers; it says nothing when it is ready.
fn await_echo(peer: SocketAddr) {
    let socket = UdpSocket::bind((if peer.is_ipv4() { IPV4 } else { IPV6 }, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Until the peer has bound its port the kernel answers with an ICMP error, reported by either call.
        let sent = socket.send_to(b"there?", peer);
        if sent.is_ok() && socket.recv(&mut [0; 16]).is_ok() {
            return;
        }
    }
    panic!("turnutils_peer does not answer on {peer} within {PATIENCE:?}");
}

/// A server and a peer of the test's own, and one run over IPv4 with the listener for `transport`.
fn relay_over_ipv4(transport: &str, options: &[&str], sessions: usize) {
    let configuration = if transport == "dtls" { loopback_with_dtls() } else { loopback_with_tls() };
    let (server, peer) = (Server::start(&configuration), Peer::start());
    let peer = Some(SocketAddr::new(IPV4, peer.port));
    Run { namespace: None, server: server.ipv4(transport), peer, options, sessions }.check();
    server.stop();
}

/// Over UDP with channels: an RTP and an RTCP allocation.
#[test]
fn udp_channels() {
    relay_over_ipv4("udp", &["-X"], 2);
}

/// Over UDP with Send and Data indications. One client: with several the tool itself loses whole sessions.
#[test]
fn udp_indications() {
    relay_over_ipv4("udp", &["-X", "-s", "-m", "1"], 2);
}

#[test]
fn tcp_channels() {
    relay_over_ipv4("tcp", &["-X", "-t"], 2);
}

#[test]
fn tcp_indications() {
    relay_over_ipv4("tcp", &["-X", "-t", "-s"], 2);
}

/// Over TLS, whose certificate the tool does not look at.
#[test]
fn tls_channels() {
    relay_over_ipv4("tls", &["-X", "-t", "-S"], 2);
}

#[test]
fn tls_indications() {
    relay_over_ipv4("tls", &["-X", "-t", "-S", "-s"], 2);
}

/// Over DTLS, which the tool calls secured UDP.
#[test]
fn dtls_channels() {
    relay_over_ipv4("dtls", &["-X", "-S"], 2);
}

#[test]
fn dtls_indications() {
    relay_over_ipv4("dtls", &["-X", "-S", "-s"], 2);
}

/// DONT-FRAGMENT in requests, ChannelData padded over UDP as well, and repeated CreatePermission and ChannelBind.
#[test]
fn dont_fragment_padding_and_extra_requests() {
    relay_over_ipv4("udp", &["-X", "-g", "-D", "-G", "-m", "4"], 4);
}

#[test]
fn several_clients_over_udp() {
    relay_over_ipv4("udp", &["-X", "-c", "-m", "10"], 10);
}

#[test]
fn several_clients_over_tls() {
    relay_over_ipv4("tls", &["-X", "-t", "-S", "-c", "-m", "10"], 10);
}

#[test]
fn several_clients_over_dtls() {
    relay_over_ipv4("dtls", &["-X", "-S", "-c", "-m", "10"], 10);
}

#[test]
fn several_clients_over_tcp() {
    relay_over_ipv4("tcp", &["-X", "-t", "-c", "-m", "10"], 10);
}

/// Two clients whose peers are each other's relayed addresses.
#[test]
fn client_to_client() {
    let server = Server::start(LOOPBACK);
    Run { namespace: None, server: server.ipv4("udp"), peer: None, options: &["-X", "-y", "-m", "2"], sessions: 4 }
        .check();
    Run {
        namespace: None,
        server: server.ipv4("tcp"),
        peer: None,
        options: &["-X", "-y", "-t", "-m", "2"],
        sessions: 4,
    }
    .check();
    server.stop();
}

/// Each allocation moves to another socket of the tool right after it was made (RFC 8016), with four workers. With an echo, so
/// that each client sends before it receives: until then data go to the old socket (§3.2.2), which the tool no longer reads. Not over
/// TLS and DTLS: when the tool has closed its old session before it moves, it then shuts the new one, which has come to lie at the
/// same place in its memory. `tests/conformance/r8016_mobility.rs` moves over both.
fn mobility(transport: &str, options: &[&str], sessions: usize) {
    let (server, peer) = (Server::start(&LOOPBACK.replace("workers = 2", "workers = 4")), Peer::start());
    let peer = Some(SocketAddr::new(IPV4, peer.port));
    Run { namespace: None, server: server.ipv4(transport), peer, options, sessions }.check();
    // Over TCP the allocations move, too, by which the tool tries its way, when their old connections close.
    assert!(server.stop().matches("session moves").count() >= sessions);
}

#[test]
fn mobility_over_udp() {
    mobility("udp", &["-X", "-M", "-c", "-m", "8"], 8);
    mobility("udp", &["-X", "-M", "-s", "-c", "-m", "1"], 1);
}

#[test]
fn mobility_over_tcp() {
    mobility("tcp", &["-X", "-M", "-t", "-c", "-m", "4"], 4);
}

/// RFC 6062: allocations of TCP, each client's peer the other's relayed address. Two runs, as the tool's connections land on
/// other workers each time.
#[test]
fn tcp_relaying() {
    let server = Server::start(&LOOPBACK.replace("[relay]", "[relay]\ntcp-relaying = true"));
    for _ in 0..2 {
        let options = &["-X", "-T", "-m", "2"];
        Run { namespace: None, server: server.ipv4("tcp"), peer: None, options, sessions: 2 }.check();
    }
    server.stop();
}

/// The same over TLS: a data connection is a TLS connection, too, and what a peer sends may come to it from another worker.
#[test]
fn tcp_relaying_over_tls() {
    let server = Server::start(&loopback_with_tls().replace("[relay]", "[relay]\ntcp-relaying = true"));
    for _ in 0..2 {
        let options = &["-X", "-T", "-S", "-m", "2"];
        Run { namespace: None, server: server.ipv4("tls"), peer: None, options, sessions: 2 }.check();
    }
    server.stop();
}

/// IPv6 from the client to the server and from the relay to the peer.
#[test]
fn ipv6() {
    let (server, peer) = (Server::start(LOOPBACK), Peer::start());
    let peer = Some(SocketAddr::new(IPV6, peer.port));
    Run { namespace: None, server: server.ipv6("udp"), peer, options: &["-x", "-c", "-m", "2"], sessions: 2 }.check();
    Run { namespace: None, server: server.ipv6("tcp"), peer, options: &["-x", "-t", "-c", "-m", "2"], sessions: 2 }
        .check();
    server.stop();
}

/// Time-limited credentials, which the tool makes itself of a secret (`-W`), over each transport, with and without a user's name.
#[test]
fn time_limited_credentials() {
    let secret = "static-auth-secret = \"a secret of these times\"\n[[auth.user]]";
    let server = Server::start(&loopback_with_tls().replacen("[[auth.user]]", secret, 1));
    let peer = Peer::start();
    let peer = Some(SocketAddr::new(IPV4, peer.port));
    for (transport, options) in [("udp", &["-X"][..]), ("tcp", &["-X", "-t"]), ("tls", &["-X", "-t", "-S"])] {
        let run = Run { namespace: None, server: server.ipv4(transport), peer, options, sessions: 2 };
        run.check_as(&["-u", "zoe", "-W", "a secret of these times"]);
    }
    let run = Run { namespace: None, server: server.ipv4("udp"), peer, options: &["-X"], sessions: 2 };
    run.check_as(&["-W", "a secret of these times"]);
    // A user with a password is served by the same server.
    run.check();
    let log = server.stop();
    assert!(log.contains("\"user\":\"zoe\"") && !log.contains("a secret of these times"), "{log}");
}

/// The tool's separator (`-C`).
#[test]
fn time_limited_credentials_with_another_separator() {
    let secret = "static-auth-secret = \"a secret of these times\"\nrest-api-separator = \"|\"\n[[auth.user]]";
    let (server, peer) = (Server::start(&LOOPBACK.replacen("[[auth.user]]", secret, 1)), Peer::start());
    let peer = Some(SocketAddr::new(IPV4, peer.port));
    let run = Run { namespace: None, server: server.ipv4("udp"), peer, options: &["-X", "-C", "|"], sessions: 2 };
    run.check_as(&["-u", "zoe", "-W", "a secret of these times"]);
    server.stop();
}

/// Access tokens (`-J`), which the tool makes itself with three well-known keys, another one for each Allocate and Refresh.
#[test]
fn access_tokens() {
    let keys = r#"server-name = "blackdow.carleon.gov"
[[auth.token-key]]
kid = "north"
key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK"
[[auth.token-key]]
kid = "union"
key = "MTIzNDU2Nzg5MDEyMzQ1Ngo="
algorithm = "A128GCM"
[[auth.token-key]]
kid = "oldempire"
key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK"
[[auth.user]]"#;
    let server = Server::start(&loopback_with_tls().replacen("[[auth.user]]", keys, 1));
    let peer = Peer::start();
    let peer = Some(SocketAddr::new(IPV4, peer.port));
    for (transport, options) in [
        ("udp", &["-X", "-J", "-c", "-m", "8"][..]),
        ("tcp", &["-X", "-J", "-c", "-t", "-m", "8"]),
        ("tls", &["-X", "-J", "-c", "-t", "-S", "-m", "8"]),
    ] {
        Run { namespace: None, server: server.ipv4(transport), peer, options, sessions: 8 }.check();
    }
    let log = server.stop();
    let used = ["north", "union", "oldempire"].into_iter().filter(|kid| log.contains(&format!("\"tenant\":\"{kid}\"")));
    assert!(used.count() >= 2, "24 choices among three keys\n{log}");
}

/// A wrong password gets no allocation: the report above cannot come from a server that lets everyone in.
#[test]
fn wrong_password() {
    let server = Server::start(LOOPBACK);
    let mut command = Command::new("turnutils_uclient");
    command.args(["-X", "-c", "-u", USER, "-w", "wrong", "-e", "127.0.0.1", "-p"]);
    command.args([&server.ipv4("udp").port().to_string(), "127.0.0.1"]);
    let mut client = Process::start(command);
    let status = client.wait(LIMIT).and_then(|status| status.code());
    assert!(status.is_some_and(|code| code != 0), "{status:?}\n{}", client.output());
    assert!(client.output().contains("Cannot complete Allocation"), "{}", client.output());
    server.stop();
}
