//! coturn's load client `turnutils_uclient`.
//!
//! The tool exits with 0 even when it has lost every second packet, so its report is read: what it sent, what came
//! back, and `Total lost packets`. `-m` counts its allocations: by default two, RTP and RTCP, the second by EVEN-PORT and
//! RESERVATION-TOKEN; with `-c` one, without RTCP; with `-y` twice as many. It leaves them behind when it ends.

use std::net::SocketAddr;
use std::time::Duration;

use super::process::{command_in, run};
use super::{PASSWORD, USER};

/// Messages that each session sends.
const MESSAGES: usize = 50;

/// One run takes 4 to 8 seconds on an idle machine, most of it the tool's own waiting.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One run of the tool.
pub(crate) struct Run<'a> {
    /// The network namespace to run it in, or none for where the test runs.
    pub(crate) namespace: Option<&'a str>,
    /// The server's listener.
    pub(crate) server: SocketAddr,
    /// The echo peer, or none for client to client.
    pub(crate) peer: Option<SocketAddr>,
    /// More options for the tool.
    pub(crate) options: &'a [&'a str],
    /// Allocations that the options make it open; each sends [`MESSAGES`].
    pub(crate) sessions: usize,
}

/// User name and password, as the tool's options.
const LONG_TERM: [&str; 4] = ["-u", USER, "-w", PASSWORD];

impl Run<'_> {
    /// Runs the tool and checks its report: every message sent, every one echoed.
    pub(crate) fn check(&self) {
        self.check_as(&LONG_TERM);
    }

    /// The same with other credentials, as the tool's options.
    pub(crate) fn check_as(&self, credentials: &[&str]) {
        let mut command = command_in(self.namespace, "turnutils_uclient");
        command.args(credentials).args(["-z", "5", "-l", "170"]);
        command.args(["-n", &MESSAGES.to_string(), "-p", &self.server.port().to_string()]).args(self.options);
        if let Some(peer) = self.peer {
            command.args(["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()]);
        }
        command.arg(self.server.ip().to_string());
        let description = format!("{command:?}");
        let output = run(command, LIMIT);

        let expected = self.sessions * MESSAGES;
        let found = Report::parse(&output);
        let wanted = Report { sent: Some(expected), received: Some(expected), lost: Some(0), dropped: Some(0) };
        assert_eq!(found, wanted, "{description}\n{output}");
        eprintln!("{expected} sent and received, 0 lost: {description}");
    }
}

/// The figures at the end of the tool's output.
#[derive(Debug, Default, PartialEq)]
struct Report {
    sent: Option<usize>,
    received: Option<usize>,
    lost: Option<usize>,
    dropped: Option<usize>,
}

impl Report {
    /// Reads the lines `tot_send_msgs=100, tot_recv_msgs=100` and `Total lost packets 0 (…), total send dropped 0`;
    /// the tool prints the first one every second, the last counts.
    fn parse(output: &str) -> Self {
        let last = |label: &str| {
            let text = &output[output.rfind(label)? + label.len()..];
            text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
        };
        Self {
            sent: last("tot_send_msgs="),
            received: last("tot_recv_msgs="),
            lost: last("Total lost packets "),
            dropped: last("total send dropped "),
        }
    }
}
