//! What the server finds out about its system, and what it does about it: which ways of receiving and sending it takes, what
//! the kernel drops on its listeners, which processors its workers run on.
//!
//! Needs Linux, and `taskset` (util-linux). Calls are taken away by seccomp filters, as sandboxes do it.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "seccomp and what runs between fork and exec")]

mod client;
mod common;

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;

use client::Client;
use common::ports::peer_socket;
use common::{LOOPBACK, PASSWORD, PATIENCE, Server, USER};

/// A system call that the process is not to have.
#[derive(Clone, Copy)]
struct Denied {
    call: libc::c_long,
    /// Only with this option of the level SOL_UDP.
    option: Option<libc::c_int>,
    errno: libc::c_int,
}

/// The filter that lets all calls pass but this one (seccomp(2)).
fn filter(denied: Denied) -> Vec<libc::sock_filter> {
    /// Places in `seccomp_data`: the call's number, and the low halves of the second and third argument.
    const NUMBER: u32 = 0;
    const LEVEL: u32 = 24;
    const OPTION: u32 = 32;
    let mut checks = vec![(NUMBER, denied.call as u32)];
    if let Some(option) = denied.option {
        checks.extend([(LEVEL, libc::SOL_UDP as u32), (OPTION, option as u32)]);
    }
    let instruction = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut program = Vec::new();
    for (at, (place, value)) in checks.iter().enumerate() {
        // Past the remaining checks, two instructions each, and the refusal.
        let to_the_end = (2 * (checks.len() - at - 1) + 1) as u8;
        program.push(instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, *place));
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_the_end, *value));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | denied.errno as u32));
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Makes `command` run without a system call.
fn deny(command: &mut Command, denied: Denied) {
    let mut program = filter(denied);
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the filter outlives the call, which copies it.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
        };
        if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(install) };
}

fn client(server: &Server) -> Client {
    Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)))
}

/// Relays a burst each way.
fn relay(server: &Server) {
    const BURST: u8 = 40;
    let peer = peer_socket(Ipv4Addr::LOCALHOST.into());
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = peer.local_addr().expect("an address");
    let mut client = client(server);
    let relayed = client.allocate().expect("an allocation");
    client.permit(address).expect("a permission");
    for round in 0..10 {
        (0..BURST).for_each(|number| client.send(address, &[round, number, 7]));
        for number in 0..BURST {
            let mut buffer = [0; 16];
            let (len, from) = peer.recv_from(&mut buffer).expect("data from the relay");
            assert_eq!((&buffer[..len], from), (&[round, number, 7][..], relayed));
        }
        for number in 0..BURST {
            peer.send_to(&[round, number], relayed).expect("sending");
        }
        (0..BURST).for_each(|number| assert_eq!(client.receive(), [round, number]));
    }
}

#[test]
fn what_the_kernel_refuses_is_found_at_the_start_and_done_without() {
    let call = |call, errno| Some(Denied { call, option: None, errno });
    let option = |option| Some(Denied { call: libc::SYS_setsockopt, option: Some(option), errno: libc::ENOPROTOOPT });
    let all = "recvmmsg and sendmmsg, UDP_GRO, UDP_SEGMENT";
    let cases = [
        ("auto", None, "batched", Some(all), None),
        ("auto", call(libc::SYS_recvmmsg, libc::ENOSYS), "portable", None, Some("recvmmsg and sendmmsg: Function")),
        ("auto", call(libc::SYS_sendmmsg, libc::EPERM), "portable", None, Some("recvmmsg and sendmmsg: Operation")),
        ("batched", call(libc::SYS_sendmmsg, libc::ENOSYS), "portable", None, Some("recvmmsg and sendmmsg: Function")),
        (
            "auto",
            option(libc::UDP_GRO),
            "batched",
            Some("recvmmsg and sendmmsg, UDP_SEGMENT"),
            Some("UDP_GRO: Protocol"),
        ),
        (
            "auto",
            option(libc::UDP_SEGMENT),
            "batched",
            Some("recvmmsg and sendmmsg, UDP_GRO"),
            Some("UDP_SEGMENT: Prot"),
        ),
        (
            "batched",
            None,
            "batched",
            Some("recvmmsg and sendmmsg"),
            Some("UDP_GRO: udp-io says so, UDP_SEGMENT: udp-io"),
        ),
        ("portable", None, "portable", None, Some("recvmmsg and sendmmsg: udp-io says so")),
    ];
    for (wanted, denied, io, on, off) in cases {
        let configuration = LOOPBACK.replace("workers = 2", &format!("workers = 2\nudp-io = \"{wanted}\""));
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        denied.into_iter().for_each(|denied| deny(&mut command, denied));
        let server = Server::launch(command, &configuration);
        let line = server.await_logged("datagrams");
        assert_eq!((line["io"].as_str(), line["on"].as_str()), (Some(io), on), "{line}");
        match off {
            Some(off) => assert!(line["off"].as_str().is_some_and(|line| line.starts_with(off)), "{off}: {line}"),
            None => assert!(line["off"].is_null(), "{line}"),
        }
        relay(&server);
        server.stop();
    }
}

#[test]
fn check_says_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, LOOPBACK).expect("writing the configuration");
    let check = |denied: Option<Denied>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        command.args(["check", "--syntax-only", "-c"]).arg(&file);
        denied.into_iter().for_each(|denied| deny(&mut command, denied));
        let output = command.output().expect("running it");
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).expect("text");
        assert!(printed.parse::<toml::Table>().is_ok(), "still TOML: {printed}");
        printed
    };
    let printed = check(None);
    let wanted = "\n# datagrams on this host: batched\n# on: recvmmsg and sendmmsg, UDP_GRO, UDP_SEGMENT\n";
    assert!(printed.ends_with(wanted), "{printed}");
    let printed = check(Some(Denied { call: libc::SYS_recvmmsg, option: None, errno: libc::ENOSYS }));
    assert!(printed.contains("\n# datagrams on this host: portable\n"), "{printed}");
    assert!(printed.contains("\n# off: recvmmsg and sendmmsg: Function not implemented"), "{printed}");
}

/// A status field of every thread of the server whose name begins with `worker-`, by name.
fn of_workers(server: &Server, field: &str) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server's threads");
    let mut found: Vec<(String, String)> = tasks
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let get = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
                line.map(|value| value.trim().to_owned())
            };
            Some((get("Name")?, get(field)?)).filter(|(name, _)| name.starts_with("worker-"))
        })
        .collect();
    found.sort();
    found
}

/// The processors that this test may use.
fn processors() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("its processors");
    list.trim()
        .split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let [first, last] = [first, last].map(|number| number.parse::<usize>().expect("a number"));
            first..=last
        })
        .collect()
}

#[test]
fn workers_are_pinned_one_after_the_other_if_asked() {
    let processors = processors();
    let all = |server: &Server| of_workers(server, "Cpus_allowed_list");
    let server = Server::start(&LOOPBACK.replace("workers = 2", "workers = 3\npin-workers = true"));
    let pinned: Vec<_> =
        (0..3).map(|at| (format!("worker-{at}"), processors[at % processors.len()].to_string())).collect();
    assert_eq!(all(&server), pinned);
    relay(&server);
    server.stop();

    // The processors are those that the process may use.
    let last = *processors.last().expect("a processor");
    let server = Server::launch(
        on_processor(last, env!("CARGO_BIN_EXE_turnserver")),
        &LOOPBACK.replace("workers = 2", "workers = 1\npin-workers = true"),
    );
    assert_eq!(all(&server), [("worker-0".to_owned(), last.to_string())]);
    server.stop();

    let server = Server::start(LOOPBACK);
    let own = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    assert!(all(&server).iter().all(|(_, list)| own.contains(&format!("Cpus_allowed_list:\t{list}\n"))));
    server.stop();
}

/// A command for `program` on one processor only.
fn on_processor(processor: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &processor.to_string(), program]);
    command
}

#[test]
fn there_is_a_worker_for_every_processor_that_the_process_may_use() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), LOOPBACK.replace("workers = 2", "workers = \"auto\"")).expect("writing it");
    for processor in processors() {
        let mut command = on_processor(processor, env!("CARGO_BIN_EXE_turnserver"));
        let output =
            command.args(["check", "--syntax-only", "-c"]).arg(file.path()).output().expect("taskset (util-linux)");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("\nworkers = 1\n"), "{output:?}");
    }
}

/// While the server stands still, what does not fit its listener's buffer is dropped by the kernel, and counted.
#[test]
fn what_the_kernel_drops_on_a_listener_is_reported() {
    const SENT: u64 = 2000;
    for (workers, udp_io) in [(1, "auto"), (2, "auto"), (1, "portable")] {
        let process = format!("workers = {workers}\nlistener-buffer = \"16KiB\"\nudp-io = \"{udp_io}\"");
        let mut server = Server::start(&LOOPBACK.replace("workers = 2", &process));
        let (flooded, spared) = (server.ipv4("udp"), server.ipv6("udp"));
        server.signal("STOP");
        // From several ports, so that all workers' sockets are hit.
        let senders: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
        for sender in senders.iter().cycle().take(SENT as usize) {
            sender.send_to(&[0xFF; 1000], flooded).expect("sending");
        }
        server.signal("CONT");
        // Answered after what has been in the worker's buffers for longer.
        Client::new("udp", spared, None).binding();
        server.signal("TERM");
        let stopped = server.await_logged("stopped");
        let kernel_drops = stopped["kernel_drops"].as_str().expect("kernel_drops");
        let dropped: u64 = match kernel_drops.split_once('=') {
            Some((address, count)) if address == flooded.to_string() => count.parse().expect("a count"),
            _ => panic!("{kernel_drops:?} is of {flooded} alone, not of {spared}"),
        };
        let drops = stopped["drops"].as_str().expect("drops");
        let read = drops.split(' ').find_map(|drop| drop.strip_prefix("not-served=")).expect("what was read");
        let read: u64 = read.parse().expect("a count");
        assert!(dropped > SENT / 2 && dropped + read <= SENT, "{dropped} and {read} of {SENT}");
        // Another worker may stop before it has read everything.
        assert!(workers > 1 || dropped + read == SENT, "{dropped} and {read} of {SENT}");
    }
}
