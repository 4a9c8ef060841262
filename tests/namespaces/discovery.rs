//! NAT discovery through the server, from behind each of the four classic kinds of NAT: all who ask find out the same, and
//! the truth.
//!
//! Three ask: coturn's `turnutils_natdiscovery` (RFC 5780), Debian's `stun` (RFC 3489), and, in both families, [`Probe`], which
//! follows RFC 5780 §4 with messages of `stun-rs`. The probe runs inside a namespace as [`crate::agent`] does.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stun_rs::attributes::discovery::{ChangeRequest, ChangeRequestFlags, OtherAddress, ResponseOrigin};
use stun_rs::attributes::stun::XorMappedAddress;
use stun_rs::methods::BINDING;
use stun_rs::{MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage, StunMessageBuilder};

use crate::common::process::{Process, command_in, run};
use crate::common::{PATIENCE, Server};
use crate::nat::Nat;
use crate::network::{HOST_A, Network, PEER, SERVER, of_family};

/// Set for the probe: the local address to bind.
const LOCAL: &str = "TURNSERVER_TEST_PROBE_LOCAL";
/// Set for the probe: the server's primary address.
const PRIMARY: &str = "TURNSERVER_TEST_PROBE_PRIMARY";

const CONFIGURATION: &str = r#"
[[listener]]
listening-ip = ["203.0.113.10", "2001:db8:1::10"]
listening-port = 3478
transports = ["udp", "tcp"]
[auth]
realm = "example.org"
[[auth.user]]
name = "alice"
password = "secret"
[nat-discovery]
primary-ip = ["203.0.113.10", "2001:db8:1::10"]
alternate-ip = ["203.0.113.11", "2001:db8:1::11"]
[compatibility]
rfc3489 = true
[process]
workers = 2
"#;

const PORT: u16 = 3478;
/// How often the probe asks for an answer that may not come, and for how long each time.
const TRIES: usize = 3;
const WAIT: Duration = Duration::from_millis(500);
/// A tool's run, with its waiting for answers that a NAT keeps out.
const LIMIT: Duration = Duration::from_secs(60);

const INDEPENDENT: &str = "Endpoint Independent";
const BY_ADDRESS: &str = "Address Dependent";
const BY_ADDRESS_AND_PORT: &str = "Address and Port Dependent";

/// What a NAT is to be called: mapping and filtering (RFC 4787), and what `stun` says.
fn names(kind: Nat) -> [&'static str; 3] {
    match kind {
        Nat::FullCone => [INDEPENDENT, INDEPENDENT, "Independent Mapping, Independent Filter"],
        Nat::RestrictedCone => [INDEPENDENT, BY_ADDRESS, "Independent Mapping, Address Dependent Filter"],
        Nat::PortRestrictedCone => [INDEPENDENT, BY_ADDRESS_AND_PORT, "Independent Mapping, Port Dependent Filter"],
        Nat::Symmetric => [BY_ADDRESS_AND_PORT, BY_ADDRESS_AND_PORT, "Dependent Mapping"],
    }
}

#[test]
fn a_full_cone_is_found_out() {
    is_found_out(Nat::FullCone);
}

#[test]
fn a_restricted_cone_is_found_out() {
    is_found_out(Nat::RestrictedCone);
}

#[test]
fn a_port_restricted_cone_is_found_out() {
    is_found_out(Nat::PortRestrictedCone);
}

#[test]
fn a_symmetric_nat_is_found_out() {
    is_found_out(Nat::Symmetric);
}

fn is_found_out(kind: Nat) {
    let network = Network::build_behind(kind);
    let server = Server::start_in(Some(&network.namespace("server")), CONFIGURATION);
    let [mapping, filtering, classic] = names(kind);

    for family in [4, 6] {
        let found = probe(&network, "host-a", of_family(HOST_A, family));
        let expected = json!({"translated": true, "mapping": mapping, "filtering": filtering});
        assert_eq!(found, expected, "{kind:?}, family {family}");
    }

    let said = natdiscovery(&network, "host-a", HOST_A[0]);
    assert!(said.contains(&format!("NAT with {mapping} Mapping!")), "{kind:?}: {mapping}\n{said}");
    assert!(said.contains(&format!("NAT with {filtering} Filtering!")), "{kind:?}: {filtering}\n{said}");
    assert!(!said.contains("ALG detected"), "{said}");

    let said = stun(&network, "host-a");
    let verdict = said.lines().find_map(|line| line.strip_prefix("Primary: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(verdict.starts_with(&format!("{classic},")), "{kind:?}: {classic}\n{said}");
    server.stop();
}

/// A host on the public segment.
#[test]
fn no_nat_is_found_out() {
    let network = Network::build();
    let server = Server::start_in(Some(&network.namespace("server")), CONFIGURATION);
    for family in [4, 6] {
        let found = probe(&network, "peer", of_family(PEER, family));
        assert_eq!(found, json!({"translated": false, "mapping": INDEPENDENT, "filtering": INDEPENDENT}));
    }
    let said = natdiscovery(&network, "peer", PEER[0]);
    assert!(said.contains("No NAT! (Endpoint Independent Mapping)"), "{said}");
    let said = stun(&network, "peer");
    assert!(said.contains("Primary: Open"), "{said}");
    server.stop();
}

fn natdiscovery(network: &Network, host: &str, local: &str) -> String {
    let mut command = command_in(Some(&network.namespace(host)), "turnutils_natdiscovery");
    command.args(["-m", "-f", "-L", local, "-p", &PORT.to_string(), SERVER[0]]);
    run(command, LIMIT)
}

/// Its exit status is what it has found out.
fn stun(network: &Network, host: &str) -> String {
    let mut command = command_in(Some(&network.namespace(host)), "stun");
    command.arg(format!("{}:{PORT}", SERVER[0]));
    let mut process = Process::start(command);
    assert!(process.wait(LIMIT).is_some(), "still running after {LIMIT:?}:\n{}", process.output());
    process.output()
}

/// Runs the probe in the namespace of one host.
fn probe(network: &Network, host: &str, local: IpAddr) -> Value {
    let family = if local.is_ipv4() { 4 } else { 6 };
    let binary = std::env::current_exe().expect("the test binary");
    let mut command = command_in(Some(&network.namespace(host)), binary.to_str().expect("a path in UTF-8"));
    command.args(["--exact", "discovery::ask", "--nocapture", "--test-threads=1"]);
    command.env(LOCAL, local.to_string());
    command.env(PRIMARY, SocketAddr::new(of_family(SERVER, family), PORT).to_string());
    let output = run(command, LIMIT);
    let found = output.lines().find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object));
    found.unwrap_or_else(|| panic!("the probe has found nothing:\n{output}"))
}

/// The probe itself, when a test starts it as one; run as an ordinary test, it has nothing to do.
#[test]
fn ask() {
    let (Ok(local), Ok(primary)) = (std::env::var(LOCAL), std::env::var(PRIMARY)) else { return };
    let (local, primary): (IpAddr, SocketAddr) = (local.parse().expect(LOCAL), primary.parse().expect(PRIMARY));
    let (translated, mapping) = mapping(local, primary);
    let filtering = filtering(local, primary);
    eprintln!("{}", json!({"translated": translated, "mapping": mapping, "filtering": filtering}));
}

/// RFC 5780 §4.3.
fn mapping(local: IpAddr, primary: SocketAddr) -> (bool, &'static str) {
    let probe = Probe::new(local);
    let first = probe.ask(primary, None).expect("UDP connectivity");
    let translated = first.mapped != probe.0.local_addr().expect("the local address");
    let second = probe.ask((first.other.ip(), primary.port()).into(), None).expect("the alternate address answers");
    if first.mapped == second.mapped {
        return (translated, INDEPENDENT);
    }
    let third = probe.ask(first.other, None).expect("the alternate address and port answer");
    (translated, if second.mapped == third.mapped { BY_ADDRESS } else { BY_ADDRESS_AND_PORT })
}

/// RFC 5780 §4.4, from a port that has sent nothing to the alternate address.
fn filtering(local: IpAddr, primary: SocketAddr) -> &'static str {
    let probe = Probe::new(local);
    let other = probe.ask(primary, None).expect("UDP connectivity").other;
    let both = ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort;
    if let Some(answer) = probe.ask(primary, Some(ChangeRequest::new(Some(both)))) {
        assert_eq!(answer.from, other);
        return INDEPENDENT;
    }
    let port = ChangeRequestFlags::ChangePort.into();
    if let Some(answer) = probe.ask(primary, Some(ChangeRequest::new(Some(port)))) {
        assert_eq!(answer.from, SocketAddr::new(primary.ip(), other.port()));
        return BY_ADDRESS;
    }
    BY_ADDRESS_AND_PORT
}

/// One socket of a client.
struct Probe(UdpSocket);

/// What a Binding response tells.
struct Answer {
    from: SocketAddr,
    mapped: SocketAddr,
    other: SocketAddr,
}

impl Probe {
    fn new(local: IpAddr) -> Self {
        Self(UdpSocket::bind((local, 0)).expect("a socket"))
    }

    /// The answer to a Binding request, if one comes.
    fn ask(&self, to: SocketAddr, change: Option<ChangeRequest>) -> Option<Answer> {
        let mut builder = StunMessageBuilder::new(BINDING, MessageClass::Request);
        if let Some(change) = change {
            builder = builder.with_attribute(change);
        }
        let request = builder.build();
        let mut buffer = [0; 512];
        let length = MessageEncoderBuilder::default().build().encode(&mut buffer, &request).expect("encoding");
        // An answer that has to come is awaited longer.
        let end = Instant::now() + if change.is_none() { PATIENCE } else { WAIT * TRIES as u32 };
        while Instant::now() < end {
            self.0.send_to(&buffer[..length], to).expect("sending to the server");
            if let Some((answer, from)) = self.receive(&request) {
                let mapped = answer.get::<XorMappedAddress>().and_then(|it| it.as_xor_mapped_address().ok());
                let origin = answer.get::<ResponseOrigin>().and_then(|it| it.as_response_origin().ok());
                let other = answer.get::<OtherAddress>().and_then(|it| it.as_other_address().ok());
                assert_eq!(origin.map(|it| *it.socket_address()), Some(from), "RESPONSE-ORIGIN");
                let mapped = *mapped.expect("XOR-MAPPED-ADDRESS").socket_address();
                return Some(Answer { from, mapped, other: *other.expect("OTHER-ADDRESS").socket_address() });
            }
        }
        None
    }

    fn receive(&self, request: &StunMessage) -> Option<(StunMessage, SocketAddr)> {
        let deadline = Instant::now() + WAIT;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).expect("a timeout");
            let (length, from) = match self.0.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("receiving: {error}"),
            };
            let decoded = MessageDecoderBuilder::default().build().decode(&buffer[..length]);
            let (message, _) = decoded.expect("a STUN message");
            if message.transaction_id() == request.transaction_id() {
                assert_eq!(message.class(), MessageClass::SuccessResponse, "{message:?}");
                return Some((message, from));
            }
        }
    }
}
