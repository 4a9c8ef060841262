//! System calls of a server that fail, and clocks that are set, while it runs (`inject.c`).

use std::{os::unix::fs::FileExt, path::PathBuf, process::Command, sync::OnceLock};

use tempfile::NamedTempFile;

use crate::common::{Server, refusal};

/// The calls that can fail, in the order of `inject.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Socket,
    Bind,
    SendMsg,
    SendMmsg,
    RecvMmsg,
    /// Only where it waits.
    EpollWait,
    Accept,
}

/// Calls there are.
const CALLS: u64 = 7;
/// Bytes of what is said of one.
const FAULT: u64 = 16;
/// Where the count of merged datagrams stands.
const MERGED: u64 = CALLS * FAULT;
/// Where the clock's advance stands.
const AHEAD: u64 = MERGED + 8;

/// What is to fail in one server.
pub(crate) struct Faults {
    file: NamedTempFile,
}

impl Faults {
    pub(crate) fn new() -> Self {
        let file = NamedTempFile::new().expect("a file");
        file.as_file().set_len(AHEAD + 8).expect("a length");
        Self { file }
    }

    /// Starts a server in which calls can fail.
    pub(crate) fn start(&self, configuration: &str) -> Server {
        self.start_in(None, configuration)
    }

    /// The same, inside a network namespace.
    pub(crate) fn start_in(&self, namespace: Option<&str>, configuration: &str) -> Server {
        Server::start_as(namespace, configuration, |command| self.attach(command))
    }

    /// Has calls of this program fail.
    pub(crate) fn attach(&self, command: &mut Command) {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| refusal::library("tests/faults/inject.c"));
        command.env("LD_PRELOAD", library).env("TURNSERVER_TEST_FAULTS", self.file.path());
    }

    /// The next so many calls fail.
    pub(crate) fn inject(&self, call: Call, error: i32, times: i32) {
        self.inject_for(call, error, times, -1);
    }

    /// The next so many calls of one worker fail.
    pub(crate) fn inject_at(&self, worker: usize, call: Call, error: i32, times: i32) {
        self.inject_for(call, error, times, i32::try_from(worker).expect("a small number"));
    }

    fn inject_for(&self, call: Call, error: i32, times: i32, worker: i32) {
        let at = call as u64 * FAULT;
        // How many are to fail comes last: until then none does.
        for (at, value) in [(at + 4, 0), (at, error), (at + 8, worker), (at + 12, 0), (at + 4, times)] {
            self.file.as_file().write_all_at(&value.to_ne_bytes(), at).expect("to write");
        }
    }

    /// How many calls have failed since the last [`Faults::inject`].
    pub(crate) fn failed(&self, call: Call) -> i32 {
        self.number(call as u64 * FAULT + 12)
    }

    /// No more calls fail.
    pub(crate) fn heal(&self, call: Call) {
        self.inject(call, 0, 0);
    }

    /// Sets the clock on the wall: so many seconds ahead of the right time.
    pub(crate) fn set_clock(&self, ahead: i64) {
        self.file.as_file().write_all_at(&ahead.to_ne_bytes(), AHEAD).expect("to write");
    }

    /// How many merged datagrams have left the server.
    pub(crate) fn merged(&self) -> i32 {
        self.number(MERGED)
    }

    fn number(&self, at: u64) -> i32 {
        let mut bytes = [0; 4];
        self.file.as_file().read_exact_at(&mut bytes, at).expect("to read");
        i32::from_ne_bytes(bytes)
    }
}
