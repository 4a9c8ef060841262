//! The log in systemd's journal, with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! MESSAGE is the line that people read, fields included, as it is without a journal; each field is there on its own, too, as
//! TURN_ADDRESS, TURN_USER and so on, for `journalctl TURN_USER=alice` and for programs.

use std::{
    env,
    fmt::{self, Write},
    io,
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    time::Duration,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// How long a full journal may hold up whoever logs; then the line is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// The longest value in bytes: all of an entry must fit into a datagram.
const LONGEST: usize = 8192;

/// A way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// There if standard error is connected to the journal, as JOURNAL_STREAM says (systemd.exec(5)), and the journal can be
    /// reached: otherwise lines are written to standard error.
    pub(super) fn connected() -> Option<Self> {
        let stream = env::var("JOURNAL_STREAM").ok()?;
        let (device, inode) = stream.split_once(':')?;
        if !is_standard_error(device.parse().ok()?, inode.parse().ok()?) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self { socket })
    }
}

fn is_standard_error(device: u64, inode: u64) -> bool {
    let duplicate = io::stderr().as_fd().try_clone_to_owned();
    let metadata = duplicate.and_then(|descriptor| std::fs::File::from(descriptor).metadata());
    metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (device, inode))
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        // Where it cannot be sent there is nowhere to say so.
        let _ = self.socket.send(&entry.finish(*event.metadata().level(), event.metadata().target()));
    }
}

/// An entry that grows by its fields.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    /// What stands behind the message in the line.
    rest: String,
    fields: Vec<u8>,
}

impl Entry {
    fn add(&mut self, name: &str, value: &str) {
        if name == "message" {
            self.message.push_str(value);
            return;
        }
        let needs_quotes = value.is_empty() || value.contains(char::is_whitespace);
        // Writing to a text does not fail.
        let _ =
            if needs_quotes { write!(self.rest, " {name}={value:?}") } else { write!(self.rest, " {name}={value}") };
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        put(&mut self.fields, &format!("TURN_{name}"), value);
    }

    fn finish(mut self, level: Level, target: &str) -> Vec<u8> {
        // Of syslog(3).
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        self.message.push_str(&self.rest);
        let fields = [("MESSAGE", self.message.as_str()), ("PRIORITY", priority), ("SYSLOG_IDENTIFIER", "turnserver")];
        for (name, value) in fields {
            put(&mut self.fields, name, value);
        }
        put(&mut self.fields, "TURN_TARGET", target);
        self.fields
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format!("{value:?}"));
    }
}

/// Adds a field; one of several lines says how long it is.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(LONGEST)];
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> String {
        let mut entry = Entry::default();
        fields.iter().for_each(|(name, value)| entry.add(name, value));
        String::from_utf8(entry.finish(Level::WARN, "turnserver::x")).unwrap()
    }

    #[test]
    fn people_read_a_line_and_programs_fields() {
        let entry = entry(&[("message", "listening"), ("address", "[::1]:3478"), ("on", "a b"), ("relay.ip", "")]);
        for line in [
            "MESSAGE=listening address=[::1]:3478 on=\"a b\" relay.ip=\"\"",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=turnserver",
            "TURN_ADDRESS=[::1]:3478",
            "TURN_ON=a b",
            "TURN_RELAY_IP=",
            "TURN_TARGET=turnserver::x",
        ] {
            assert!(entry.lines().any(|has| has == line), "{line} in {entry}");
        }
    }

    /// A value with a line end must not become a field of its own.
    #[test]
    fn a_value_of_several_lines_is_one_value() {
        let entry = entry(&[("message", "x"), ("user", "a\nPRIORITY=0")]);
        assert!(entry.starts_with("TURN_USER\n\u{c}\0\0\0\0\0\0\0a\nPRIORITY=0\n"), "{entry:?}");
        assert!(entry.contains("MESSAGE=x user=\"a\\nPRIORITY=0\"\n"), "{entry:?}");
    }

    #[test]
    fn long_values_are_cut() {
        let entry = entry(&[("message", &"é".repeat(LONGEST))]);
        assert_eq!(entry.lines().next().unwrap().len(), "MESSAGE=".len() + LONGEST);
    }
}
