//! The journal's own socket, at the place where systemd-journald has it.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::common::{LOOPBACK, PATIENCE};

/// The fields of an entry (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut fields = BTreeMap::new();
    while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..at]), text(&line[at + 1..]));
            entry = rest;
        } else {
            let (len, rest) = rest.split_at(8);
            let len = u64::from_le_bytes(len.try_into().expect("eight bytes")) as usize;
            fields.insert(text(line), text(&rest[..len]));
            entry = &rest[len + 1..];
        }
    }
    fields
}

struct Journal {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("systemd/journal")).expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("systemd/journal/socket")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self { socket, folder }
    }

    /// A server with the folder at /run, and `log` as standard error, which JOURNAL_STREAM names if it `is_journal`.
    fn start(&self, log: &Path, is_journal: bool, arguments: &[&str]) -> Server {
        let file = self.folder.path().join("t.toml");
        std::fs::write(&file, LOOPBACK).expect("to write");
        let log = File::create(log).expect("a file");
        let metadata = log.metadata().expect("metadata");
        let inode = if is_journal { metadata.ino() } else { metadata.ino() + 1 };
        let script = "mount --bind \"$1\" /run && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(self.folder.path());
        command.arg(env!("CARGO_BIN_EXE_turnserver")).arg("-c").arg(&file).args(arguments);
        command.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev())).stderr(log).stdin(Stdio::null());
        Server(command.spawn().expect("unshare (util-linux)"))
    }

    fn entry(&self) -> BTreeMap<String, String> {
        let mut buffer = vec![0; 65536];
        loop {
            let len = self.socket.recv(&mut buffer).expect("an entry");
            // Empty ones only try whether the journal is there.
            if len > 0 {
                return fields(&buffer[..len]);
            }
        }
    }

    fn await_message(&self, message: &str) -> BTreeMap<String, String> {
        loop {
            let entry = self.entry();
            if entry["MESSAGE"].split(' ').next() == Some(message) {
                return entry;
            }
        }
    }
}

struct Server(std::process::Child);

impl Server {
    fn stop(mut self) {
        self.signal();
        assert!(self.0.wait().expect("the end").success());
    }

    fn signal(&self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_journal_gets_fields() {
    let journal = Journal::new();
    let log = journal.folder.path().join("stderr");
    let server = journal.start(&log, true, &[]);
    let entry = journal.await_message("listening");
    let has = |name: &str| entry.get(name).map(String::as_str);
    assert_eq!((has("PRIORITY"), has("SYSLOG_IDENTIFIER")), (Some("6"), Some("turnserver")), "{entry:?}");
    assert_eq!(has("TURN_TRANSPORT"), Some("udp"), "{entry:?}");
    assert!(has("TURN_ADDRESS").is_some_and(|address| address.starts_with("127.0.0.1:")), "{entry:?}");
    let shown = format!("listening transport=udp address={}", entry["TURN_ADDRESS"]);
    assert_eq!(entry["MESSAGE"], shown, "what journalctl shows says it all");
    journal.await_message("ready");
    server.stop();
    assert!(journal.await_message("stopped").contains_key("TURN_ALLOCATIONS"));
    assert_eq!(std::fs::read_to_string(&log).expect("the log"), "", "it is in the journal, and there alone");
}

/// Wherever else standard error goes, lines go there; and who asks for JSON gets it.
#[test]
fn other_logs_are_lines() {
    for (is_journal, arguments) in [(false, [].as_slice()), (true, ["--log-format", "json"].as_slice())] {
        let journal = Journal::new();
        let log = journal.folder.path().join("stderr");
        let server = journal.start(&log, is_journal, arguments);
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut lines = String::new();
        // The line that it is ready says how many workers there are.
        while !lines.contains("workers") && std::time::Instant::now() < deadline {
            lines = std::fs::read_to_string(&log).expect("the log");
            std::thread::yield_now();
        }
        server.stop();
        assert!(lines.contains("listening"), "{lines}");
        journal.socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time limit");
        assert!(journal.socket.recv(&mut [0; 64]).is_err(), "it is in the journal, too");
    }
}
