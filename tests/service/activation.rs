//! Sockets that were opened before the server was started.

#![allow(unsafe_code)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsRawFd, fd::RawFd, unix::process::CommandExt},
    process::{Command, Output},
};

use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::common::{LOOPBACK, PASSWORD, Server, USER, ports::free_port_pair};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// [`LOOPBACK`] on this port, of IPv4 alone.
fn on(port: u16) -> String {
    let configuration = LOOPBACK.replacen("listening-ip = [\"127.0.0.1\", \"::1\"]", "listening-ip = \"127.0.0.1\"", 1);
    configuration.replacen("listening-port = 0", &format!("listening-port = {port}"), 1)
}

/// A command for the program to which these sockets are passed as systemd does, by the names.
fn with(sockets: &[&dyn AsRawFd], names: &str) -> Command {
    let descriptors: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    // The shell is replaced by the program, which has its process id then.
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_turnserver")]);
    command.env("LISTEN_FDS", descriptors.len().to_string()).env("LISTEN_FDNAMES", names);
    let pass = move || {
        // First out of the way of the numbers that they are to have.
        let mut moved = [0; 16];
        for (at, descriptor) in descriptors.iter().enumerate() {
            // SAFETY: only copies a descriptor.
            moved[at] = unsafe { libc::fcntl(*descriptor, libc::F_DUPFD_CLOEXEC, 100) };
        }
        for (number, descriptor) in (3..).zip(&moved[..descriptors.len()]) {
            // SAFETY: only descriptors of the child are replaced, which is about to become another program.
            if *descriptor < 0 || unsafe { libc::dup2(*descriptor, number) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: what is done between fork and exec are system calls alone.
    unsafe { command.pre_exec(pass) };
    command
}

/// What a server says that does not start with `command`.
fn refused(mut command: Command, configuration: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, configuration).expect("to write");
    let output: Output = command.arg("-c").arg(&file).output().expect("to run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn udp(port: u16, shared: bool) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_reuse_port(shared).expect("an option");
    socket.bind(&SocketAddr::new(LOCAL, port).into()).expect("to bind");
    socket
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().expect("an address").as_socket().expect("an address").port()
}

fn allocates(server: &Server, transport: &'static str) {
    let mut client = Client::new(transport, server.ipv4(transport), Some((USER, PASSWORD)));
    client.allocate().expect("an allocation");
    client.delete().expect("to delete");
}

/// The sockets stay open here, too, as in systemd: a server that bound its own could not have the port.
#[test]
fn passed_sockets_serve_in_the_place_of_configured_ones() {
    let port = free_port_pair(&[LOCAL]);
    let datagrams = UdpSocket::bind((LOCAL, port)).expect("a socket");
    let connections = TcpListener::bind((LOCAL, port)).expect("a listener");
    let server = Server::launch(with(&[&datagrams, &connections], "turn:turn"), &on(port));
    assert_eq!((server.ipv4("udp").port(), server.ipv4("tcp").port()), (port, port));
    // With one socket all clients over UDP are one worker's, wherever they come from.
    for _ in 0..16 {
        allocates(&server, "udp");
        allocates(&server, "tcp");
    }
    assert!(server.log().contains("fewer sockets were passed than there are workers"), "{}", server.log());
    server.stop();
    // Who comes while no server runs is served by the next one.
    let mut waiting = Client::new("tcp", SocketAddr::new(LOCAL, port), Some((USER, PASSWORD)));
    let server = Server::launch(with(&[&datagrams, &connections], "turn:turn"), &on(port));
    waiting.allocate().expect("an allocation");
    allocates(&server, "udp");
}

#[test]
fn with_a_socket_for_each_worker_the_kernel_spreads_clients() {
    let port = free_port_pair(&[LOCAL]);
    let (first, second) = (udp(port, true), udp(port, true));
    let server = Server::launch(with(&[&first, &second], "a:b"), &on(port));
    let mut clients: Vec<_> = (0..24).map(|_| Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)))).collect();
    for client in &mut clients {
        client.allocate().expect("an allocation");
    }
    assert!(!server.log().contains("fewer sockets"), "{}", server.log());
    // TCP was not passed, and is opened as ever.
    allocates(&server, "tcp");
}

/// What is not for this process is not taken.
#[test]
fn sockets_for_another_process_are_left_alone() {
    let mut own = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    own.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    allocates(&Server::launch(own, LOOPBACK), "udp");
}

#[test]
fn sockets_that_cannot_be_used_are_refused_with_what_to_do() {
    let port = free_port_pair(&[LOCAL]);
    let other = udp(0, false);
    let message = refused(with(&[&other], "turnserver.socket"), &on(port));
    let expected = format!(
        "the passed socket turnserver.socket (UDP 127.0.0.1:{}) is none of the configured listeners: correct its .socket unit",
        port_of(&other)
    );
    assert!(message.contains(&expected), "{message}");

    let (folder, name) = (tempfile::tempdir().expect("a folder"), "local");
    let local = std::os::unix::net::UnixListener::bind(folder.path().join("s")).expect("a socket");
    let message = refused(with(&[&local], name), &on(port));
    assert!(message.contains("the passed socket local (neither UDP nor TCP) is none of"), "{message}");

    let idle = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    idle.bind(&SocketAddr::new(LOCAL, port).into()).expect("to bind");
    let message = refused(with(&[&idle], "idle"), &on(port));
    assert!(message.contains("does not listen: write Accept=no"), "{message}");
    drop(idle);

    let sockets = [udp(port, true), udp(port, true), udp(port, true)];
    let message = refused(with(&[&sockets[0], &sockets[1], &sockets[2]], "a:b:c"), &on(port));
    assert!(message.contains("is one of 3 for 2 workers: some would be read by nobody"), "{message}");
    drop(sockets);

    // As systemd makes them unless BindIPv6Only= is written.
    let both = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
    both.set_only_v6(false).expect("an option");
    let any: SocketAddr = format!("[::]:{port}").parse().expect("an address");
    both.bind(&any.into()).expect("to bind");
    let wild = on(port).replacen("listening-ip = \"127.0.0.1\"", "listening-ip = \"::\"", 1);
    let message = refused(with(&[&both], "both"), &wild);
    assert!(message.contains("takes IPv4, too: write BindIPv6Only=ipv6-only"), "{message}");

    let mut wrong = with(&[&both], "both");
    wrong.env("LISTEN_FDS", "many");
    assert!(refused(wrong, &wild).contains("cannot take the sockets of LISTEN_FDS"));
}

/// systemd's own tool, which starts the server with the first connection.
#[test]
fn systemd_socket_activate_starts_the_server() {
    let port = free_port_pair(&[LOCAL]);
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen=127.0.0.1:{port}")).args(["--setenv=PATH", env!("CARGO_BIN_EXE_turnserver")]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, on(port)).expect("to write");
    let tool = crate::common::process::Process::start({
        command.arg("-c").arg(&file);
        command
    });
    tool.find_line(crate::common::PATIENCE, |line| line.contains("Listening on").then_some(()));
    let mut client = Client::new("tcp", SocketAddr::new(LOCAL, port), Some((USER, PASSWORD)));
    client.allocate().expect("an allocation");
}
