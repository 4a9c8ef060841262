//! Other people's clients of NAT discovery against the server on two loopback addresses: coturn's `turnutils_natdiscovery`
//! (RFC 5780) and Debian's `stun` (RFC 3489). What they say behind NATs: `namespaces`.
//!
//! Both tools end in good order whatever they find, so what they print is read.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use common::Server;
use common::{
    ports::free_port_pair,
    process::{Process, run},
};

/// A tool's run takes a second or two.
const LIMIT: Duration = Duration::from_secs(60);

struct Discovery {
    server: Server,
    port: u16,
}

impl Discovery {
    fn start() -> Self {
        let port = free_port_pair(&[[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from));
        let configuration = format!(
            r#"
            [[listener]]
            listening-ip = "127.0.0.1"
            listening-port = {port}
            [auth]
            realm = "example.org"
            [[auth.user]]
            name = "alice"
            password = "secret"
            [nat-discovery]
            primary-ip = "127.0.0.1"
            alternate-ip = "127.0.0.2"
            primary-port = {port}
            alternate-port = {}
            [compatibility]
            rfc3489 = true
            [process]
            workers = 2
            "#,
            port + 1
        );
        Self { server: Server::start(&configuration), port }
    }

    /// What `turnutils_natdiscovery` prints, without the time at the beginning of its log lines.
    fn tool(&self, options: &[&str]) -> String {
        let mut command = Command::new("turnutils_natdiscovery");
        command.args(options).args(["-L", "127.0.0.1", "-p", &self.port.to_string(), "127.0.0.1"]);
        run(command, LIMIT)
    }

    /// One of the four addresses as the tool prints it.
    fn at(&self, ip: u8, port: u16) -> String {
        SocketAddr::from(([127, 0, 0, ip], self.port + port)).to_string()
    }
}

/// The values of the lines with this label, in order.
fn all<'o>(output: &'o str, label: &str) -> Vec<&'o str> {
    let value = |line: &'o str| line.split_once(label).map(|(_, value)| value.trim_start_matches([':', ' ']));
    output.lines().filter_map(value).collect()
}

#[test]
fn mapping_and_filtering_without_a_nat() {
    let discovery = Discovery::start();
    for padding in [&[][..], &["-P"]] {
        let output = discovery.tool(&[&["-m"], padding].concat());
        assert!(output.contains("No NAT! (Endpoint Independent Mapping)"), "{output}");
        assert!(output.contains("No ALG: Mapped == XOR-Mapped"), "{output}");
        assert_eq!(all(&output, "Response origin").last(), Some(&&discovery.at(2, 0)[..]), "{output}");
        assert_eq!(all(&output, "Other addr"), [discovery.at(2, 1), discovery.at(1, 1)], "{output}");

        let output = discovery.tool(&[&["-f"], padding].concat());
        assert!(output.contains("NAT with Endpoint Independent Filtering!"), "{output}");
        assert_eq!(all(&output, "Response origin").last(), Some(&&discovery.at(2, 1)[..]), "{output}");
    }
    discovery.server.stop();
}

/// RESPONSE-PORT: the tool asks from a second port, and gets the answer on the first.
#[test]
fn the_lifetime_of_a_mapping() {
    let discovery = Discovery::start();
    let output = discovery.tool(&["-t", "-T", "1"]);
    assert!(output.contains("RFC 5780 response 2"), "{output}");
    let reflexive = all(&output, "UDP reflexive addr");
    assert!(reflexive.len() == 2 && reflexive[0] != reflexive[1], "{output}");
    assert!(!output.contains("timeout"), "{output}");
    discovery.server.stop();
}

#[test]
fn hairpinning_and_collision() {
    let discovery = Discovery::start();
    let output = discovery.tool(&["-H"]);
    assert!(output.contains("maybe a successful hairpinning"), "{output}");
    let output = discovery.tool(&["-c", "-A", "127.0.0.3"]);
    let reflexive = all(&output, "UDP reflexive addr");
    assert!(reflexive.len() == 2 && reflexive[1].starts_with("127.0.0.3:"), "{output}");
    discovery.server.stop();
}

#[test]
fn the_algorithm_of_rfc_3489() {
    let discovery = Discovery::start();
    let mut command = Command::new("stun");
    command.args([&discovery.at(1, 0), "-v"]);
    // Its exit status is what it has found out.
    let mut process = Process::start(command);
    assert!(process.wait(LIMIT).is_some(), "still running after {LIMIT:?}:\n{}", process.output());
    let output = process.output();
    for line in ["test I = 1", "test II = 1", "test III = 1", "test I(2) = 1", "is nat  = 0", "Primary: Open"] {
        assert!(output.lines().any(|found| found.trim() == line), "{line}:\n{output}");
    }
    let mut sources = all(&output, "SourceAddress =");
    sources.sort_unstable();
    assert_eq!(sources, [discovery.at(1, 0), discovery.at(1, 1), discovery.at(2, 0), discovery.at(2, 0)], "{output}");
    discovery.server.stop();
}
