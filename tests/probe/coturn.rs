//! `turnserver probe` against coturn's server.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use turnserver::probe::binding::seen_by;

use super::{
    assert_found,
    common::{PASSWORD, PATIENCE, REALM, USER, ports::free_port_pair, process::Process, tls::Authority},
    first_path, json,
};

/// Debian's.
const COTURN: &str = "/usr/bin/turnserver";

/// coturn on loopback, with TLS and DTLS.
struct Coturn {
    process: Process,
    /// Of UDP and TCP; TLS and DTLS have the next.
    port: u16,
    folder: tempfile::TempDir,
}

impl Coturn {
    fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(folder.path(), "cert", authority.issue_rsa(&["127.0.0.1"]));
        let (port, relay) = (free_port_pair(&[Ipv4Addr::LOCALHOST.into()]), 28_000);
        let shown = folder.path().display();
        let configuration = format!(
            "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nlistening-port={port}\ntls-listening-port={}\n\
             min-port={relay}\nmax-port={}\nrealm={REALM}\nlt-cred-mech\nuser={USER}:{PASSWORD}\ncert={shown}/cert.pem\n\
             pkey={shown}/cert.key\nno-cli\nlog-file=stdout\nuserdb={shown}/users\n\
             pidfile={shown}/pid\n{more}",
            port + 1,
            relay + 999
        );
        let file = folder.path().join("coturn.conf");
        std::fs::write(&file, configuration).unwrap();
        assert!(Path::new(COTURN).exists(), "{COTURN} is missing (coturn): .ci/run installs it");
        let mut command = Command::new(COTURN);
        command.arg("-c").arg(&file);
        let process = Process::start(command);
        let server = Self { process, port, folder };
        let deadline = Instant::now() + PATIENCE;
        let listens = |port: u16| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() && answers(port);
        while !(listens(port) && listens(port + 1)) {
            assert!(Instant::now() < deadline, "coturn does not listen:\n{}", server.process.output());
        }
        server
    }

    fn probe(&self, uri: &str, user: &str) -> (i32, serde_json::Value) {
        let ca = self.folder.path().join("ca.pem");
        json(&["probe", uri, "--ca", ca.to_str().unwrap(), "--user", user, "--password-env", "PROBE_PASSWORD"], "")
    }
}

/// Whether somebody answers a Binding request over UDP, soon.
fn answers(port: u16) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (local, limit) = (Ipv4Addr::LOCALHOST, Duration::from_millis(500));
    runtime.block_on(seen_by(SocketAddr::from((local, port)), local.into(), limit)).is_ok()
}

#[test]
fn every_step_works_with_coturn_over_all_four_transports() {
    let coturn = Coturn::start("allow-loopback-peers\n");
    let (plain, secure) = (coturn.port, coturn.port + 1);
    for uri in [
        format!("turn:127.0.0.1:{plain}"),
        format!("turn:127.0.0.1:{plain}?transport=tcp"),
        format!("turns:127.0.0.1:{secure}"),
        format!("turns:127.0.0.1:{secure}?transport=udp"),
    ] {
        let (status, probed) = coturn.probe(&uri, USER);
        assert_eq!(status, 0, "{probed:#}");
        let path = &probed["targets"][0]["paths"][0];
        assert!(path["software"].as_str().unwrap().starts_with("Coturn"), "{path:#}");
        for about in ["binding", "challenge", "allocate", "relay", "peer", "refresh", "delete"] {
            assert_found(first_path(&probed), ("ok", about, ""));
        }
        if uri.starts_with("turns") {
            assert_found(first_path(&probed), ("ok", "certificate", "is for 127.0.0.1"));
        }
        assert_found(first_path(&probed), ("skipped", "relayed IPv6", "no relay address of this family"));
    }
    let (status, probed) = coturn.probe(&format!("turn:127.0.0.1:{plain}"), "mallory");
    assert_eq!(status, 1);
    assert_found(first_path(&probed), ("error", "allocate", "401"));
}

/// Without `allow-loopback-peers` its own relayed addresses on loopback are none, either.
#[test]
fn a_coturn_that_refuses_its_own_relayed_addresses_is_warned_about() {
    let coturn = Coturn::start("");
    let (status, probed) = coturn.probe(&format!("turn:127.0.0.1:{}", coturn.port), USER);
    assert_eq!((status, &probed["level"]), (0, &"warning".into()), "{probed:#}");
    assert_found(
        first_path(&probed),
        ("warning", "relay", "refuses its own relayed address 127.0.0.1 as a peer (403)"),
    );
    assert_found(first_path(&probed), ("skipped", "peer", "as it should with special ones"));
}
