//! Outside programs: started with their output collected, awaited for a bounded time, never left behind.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running child with its whole process group; killed when dropped.
pub(crate) struct Process {
    name: String,
    pid: u32,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    output: Arc<Mutex<String>>,
    exit: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. Panics with a clear message when the program is missing: a test whose tool is not there has
    /// failed.
    pub(crate) fn start(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt;
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start `{name}` ({error}); .ci/run installs what the tests need\n{command:?}")
        });

        let output = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let readers = vec![
            read_lines(child.stdout.take().expect("stdout is piped"), Arc::clone(&output), sender.clone()),
            read_lines(child.stderr.take().expect("stderr is piped"), Arc::clone(&output), sender),
        ];
        let (pid, stdin) = (child.id(), child.stdin.take());
        let exit = reap(child, readers);
        Self { name, pid, stdin, lines, output, exit, status: None }
    }

    /// The child's process id.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything that the child has printed so far on both of its outputs.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("output").clone()
    }

    /// The next line that the child prints, on either output. Panics when none comes within `limit`.
    pub(crate) fn next_line(&self, limit: Duration) -> String {
        self.lines.recv_timeout(limit).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => {
                panic!("`{}` printed nothing within {limit:?}; before that:\n{}", self.name, self.output())
            }
            RecvTimeoutError::Disconnected => panic!("`{}` has ended:\n{}", self.name, self.output()),
        })
    }

    /// The first line still to come of which `wanted` makes something.
    pub(crate) fn find_line<T>(&self, limit: Duration, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        loop {
            let line = self.next_line(deadline.saturating_duration_since(Instant::now()));
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
    }

    /// Writes one line to the child's standard input.
    pub(crate) fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        if let Err(error) = writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            panic!("cannot write to `{}` ({error}):\n{}", self.name, self.output());
        }
    }

    /// Waits for the end; `None` when the child is still running after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.stdin = None;
        if self.status.is_none() {
            self.status = self.exit.recv_timeout(limit).ok();
        }
        self.status
    }

    /// Sends a signal (`TERM`, `KILL`, ...) to the child's process group, unless it has ended.
    pub(crate) fn signal(&mut self, signal: &str) {
        if self.status.is_none() && self.exit.try_recv().map(|status| self.status = Some(status)).is_err() {
            let target = format!("-{}", self.pid);
            let _ =
                Command::new("sh").args(["-c", "kill -s \"$1\" -- \"$2\" 2>/dev/null", "sh", signal, &target]).status();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
        self.wait(Duration::from_secs(10));
    }
}

/// A command for `program`, inside a network namespace or where the test runs.
pub(crate) fn command_in(namespace: Option<&str>, program: &str) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Runs `command` to its end and returns what it printed. Panics when it takes longer than `limit` or fails.
pub(crate) fn run(command: Command, limit: Duration) -> String {
    let description = format!("{command:?}");
    let mut process = Process::start(command);
    match process.wait(limit) {
        Some(status) if status.success() => process.output(),
        Some(status) => panic!("{description}: {status}\n{}", process.output()),
        None => panic!("{description}: still running after {limit:?}\n{}", process.output()),
    }
}

/// Hands each line to whoever waits for it and keeps it.
fn read_lines(
    source: impl std::io::Read + Send + 'static,
    output: Arc<Mutex<String>>,
    lines: Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            {
                let mut output = output.lock().expect("output");
                output.push_str(&text);
                output.push('\n');
            }
            let _ = lines.send(text);
            line.clear();
        }
    })
}

/// Reports the exit status as soon as the child has ended and all of its output has been read.
fn reap(mut child: Child, readers: Vec<thread::JoinHandle<()>>) -> Receiver<ExitStatus> {
    let (sender, exit) = channel();
    thread::spawn(move || {
        let status = child.wait();
        for reader in readers {
            let _ = reader.join();
        }
        if let Ok(status) = status {
            let _ = sender.send(status);
        }
    });
    exit
}
