//! Ports, descriptors and memory that run out.

use std::{fs, io::Write, net::TcpStream, path::PathBuf, process::Command};

use crate::{
    client::Client,
    common::PASSWORD,
    scene::{ATTACKER, Flood, Pace, Scene},
    sources::address,
    streams::connect,
};

/// What the server may have where memory is limited.
const MEMORY_MIB: usize = 96;

/// Where groups are made, and what their limit is called, in version 1 and in version 2.
const GROUPS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

pub(crate) fn floods() -> Vec<Flood> {
    vec![
        Flood {
            configuration: "[relay]\nmin-port = 50000\nmax-port = 50099\n",
            ..Flood::new("all relay ports taken, by a user", 200, ports)
        },
        Flood {
            command: with_few_descriptors,
            ..Flood::new("all file descriptors taken by connections", 200, |scene, pace| {
                connections(scene, pace, b"\0")
            })
        },
        Flood {
            command: with_little_memory,
            growth_kib: MEMORY_MIB << 10,
            ..Flood::new("connections with unfinished messages, memory limited", 150, |scene, pace| {
                // 4 KiB are the longest message of somebody without an allocation.
                let message = [&[0, 1, 0x0F, 0xE8, 0x21, 0x12, 0xA4, 0x42][..], &[7; 4000]].concat();
                connections(scene, pace, &message);
            })
        },
    ]
}

/// Allocations over TCP until there are no more, and further attempts. They end with their connections.
fn ports(scene: &Scene, pace: &mut Pace) {
    let (mut number, mut held) = (0, Vec::new());
    while pace.goes_on() {
        number += 1;
        let Some(stream) = connect(address(number), scene.plain) else { continue };
        let mut client = Client::over_tcp(stream, Some((ATTACKER, PASSWORD)));
        if client.allocate().is_ok() {
            held.push(client);
        }
        pace.count(1);
    }
}

/// Connections that begin a message, as many as there may be; beyond those, the oldest are made anew.
fn connections(scene: &Scene, pace: &mut Pace, beginning: &[u8]) {
    const HELD: usize = 4000;
    let mut held: Vec<TcpStream> = Vec::new();
    let mut number = 0;
    while pace.goes_on() {
        number += 1;
        // A server without descriptors lets it wait.
        let Some(mut stream) = connect(address(number), scene.plain) else { continue };
        let _ = stream.write_all(beginning);
        if held.len() < HELD {
            held.push(stream);
        } else {
            held[number as usize % HELD] = stream;
        }
        pace.count(1);
    }
}

/// With so few descriptors that connections take all of them.
fn with_few_descriptors() -> Command {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=128:128", env!("CARGO_BIN_EXE_turnserver")]);
    command
}

/// In a control group with a limit of memory if one can be made here, else with one of address space.
fn with_little_memory() -> Command {
    let Some(group) = control_group() else {
        let mut command = Command::new("prlimit");
        command.args([&format!("--as={}", 1_usize << 30), env!("CARGO_BIN_EXE_turnserver")]);
        return command;
    };
    let mut command = Command::new("sh");
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.display());
    command.args(["-c", &enter, env!("CARGO_BIN_EXE_turnserver")]);
    command
}

/// A group with the limit: of version 1 or 2, whichever has memory.
fn control_group() -> Option<PathBuf> {
    let limit = (MEMORY_MIB << 20).to_string();
    for (root, file) in GROUPS {
        let group = group_in(root);
        if fs::create_dir(&group).is_ok() && group.join(file).exists() && fs::write(group.join(file), &limit).is_ok() {
            return Some(group);
        }
        let _ = fs::remove_dir(&group);
    }
    None
}

/// Removes the group, which a server that has ended has left.
pub(crate) fn remove_control_group() {
    for (root, _) in GROUPS {
        let _ = fs::remove_dir(group_in(root));
    }
}

fn group_in(root: &str) -> PathBuf {
    PathBuf::from(root).join(format!("turnserver-floods-{}", std::process::id()))
}
