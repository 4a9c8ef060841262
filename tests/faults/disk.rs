//! Disks that are full.

use std::{
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libc::EBADF;

use crate::{
    call::{Call, configuration, until},
    common::{
        LOOPBACK, PATIENCE, Server,
        client::{TurnClient, loopback_peer, loopback_socket},
        ports::free_port_pair,
    },
    inject::{Call as Syscall, Faults},
};

/// A child that a failed test does not leave behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Of one that has ended there is nothing left to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every line of the log meets a full disk, those about a panic, too.
#[test]
fn a_log_that_cannot_be_written_costs_its_lines_alone() {
    for format in ["text", "json"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port_pair(&[Ipv4Addr::LOCALHOST.into()]);
        let file = directory.path().join("turnserver.toml");
        let text = LOOPBACK
            .replace("listening-ip = [\"127.0.0.1\", \"::1\"]", "listening-ip = \"127.0.0.1\"")
            .replace("listening-port = 0", &format!("listening-port = {port}"))
            .replace("workers = 2", "workers = 1");
        fs::write(&file, text + "[management]\nlisten = \"off\"\nsocket = \"off\"\n").expect("a configuration");
        let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
        let faults = Faults::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        command.arg("-c").arg(&file).args(["--log-format", format, "--log-level", "debug"]);
        faults.attach(&mut command);
        command.stdin(Stdio::null()).stdout(full()).stderr(full());
        let mut server = Killed(command.spawn().expect("the server"));

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let call = || Call::between(TurnClient::new(loopback_socket(), address), loopback_peer());
        let mut first = call();
        first.exchange(b"with a log that says nothing");
        first.client.delete();
        let second = call();
        second.exchange(b"before a worker panics, and cannot say so");
        faults.inject_at(0, Syscall::EpollWait, EBADF, 1);
        until("the worker has panicked", || {
            let _ = second.client.socket.send_to(&[0; 20], address);
            faults.failed(Syscall::EpollWait) == 1
        });
        call().exchange(b"in the second life");

        let status = Command::new("kill").arg(server.0.id().to_string()).status().expect("kill");
        assert!(status.success());
        let start = Instant::now();
        let ended = loop {
            if let Some(status) = server.0.try_wait().expect("a child") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(ended.success(), "{format}: {ended}");
    }
}

#[test]
fn a_full_disk_spoils_no_count_of_the_month() {
    // A file system of its own, in a mount namespace of the server's.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state");
    fs::create_dir(&state).expect("a folder");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$@\"").arg(&state);
    command.arg(env!("CARGO_BIN_EXE_turnserver"));
    let text = configuration(1).replace(
        "[limits]",
        &format!("[limits]\ntotal-bytes-per-month = \"1GB\"\nstate-directory = {:?}", state.display().to_string()),
    );
    let server = Server::launch(command, &text);
    let call = Call::new(&server);
    call.exchange(&[7; 100]);

    let inside = format!("/proc/{}/root{}", server.pid(), state.display());
    let usage = || fs::read_to_string(format!("{inside}/usage")).expect("the count");
    let filler = format!("{inside}/filler");
    let mut full = File::create(&filler).expect("a file");
    while full.write_all(&[0; 4096]).is_ok() {}
    while full.write_all(&[0]).is_ok() {}
    let before = usage();
    call.exchange(b"data pass");
    // It is written every ten seconds.
    let complaint = server.await_logged(
        "the bytes of the month cannot be written; those since the last time would be forgotten with the process: make room, and let \
         the server's user write there",
    );
    assert!(complaint["error"].as_str().is_some_and(|error| error.contains("No space left")), "{complaint}");
    assert_eq!(usage(), before, "what was written is whole");

    drop(full);
    fs::remove_file(&filler).expect("to make room");
    // Its last act is to write.
    let kept = File::open(format!("{inside}/.")).expect("the folder");
    server.stop();
    let after = fs::read_to_string(format!("/proc/self/fd/{}/usage", kept.as_raw_fd())).expect("the count");
    // Twice 100 and twice 9 bytes.
    assert!(after.contains("\ttotal\t\t\t218\n"), "{after}");
}
