//! Metrics agree with what clients did, while they do it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::{Ipv4Addr, UdpSocket},
    process::{Command, Stdio},
};

use crate::client::{Client, Refused};
use crate::common::{PASSWORD, PATIENCE, Server, USER, loopback_with_tls, ports::peer_socket};
use crate::web::{ask_locally, client, get, managed};

/// Every sample by its name and labels, as written.
pub(crate) fn samples(server: &Server) -> BTreeMap<String, f64> {
    let answer = ask_locally(server, "GET", "/metrics", "");
    assert!(answer.status == 200 && answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:?}");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
}

fn peer() -> UdpSocket {
    let socket = peer_socket(Ipv4Addr::LOCALHOST.into());
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket
}

/// Over TCP no request is sent twice, so that requests are known exactly; over UDP batches are counted.
#[test]
fn they_agree_with_what_a_client_does_while_its_session_runs() {
    for transport in ["udp", "tcp"] {
        let server = Server::start(&managed(""));
        let before = samples(&server);
        let peer = peer();
        let peer_address = peer.local_addr().expect("an address");
        let mut client = Client::new(transport, server.ipv4(transport), Some((USER, PASSWORD)));
        client.binding();
        let relayed = client.allocate().expect("an allocation");
        client.permit(peer_address).expect("a permission");
        let (mut up, mut down) = (0, 0);
        let mut buffer = [0; 2048];
        for at in 0..25 {
            client.send(peer_address, &vec![1; 10 * at]);
            peer.recv(&mut buffer).expect("data");
            up += 10 * at;
            if at % 5 == 0 {
                peer.send_to(&vec![2; 3 * at + 1], relayed).expect("to send");
                assert_eq!(client.receive().len(), 3 * at + 1);
                down += 3 * at + 1;
            }
        }

        let now = samples(&server);
        let more = |name: &str| {
            let found = |samples: &BTreeMap<String, f64>| *samples.get(name).unwrap_or_else(|| panic!("no {name}"));
            found(&now) - found(&before)
        };
        let other = if transport == "udp" { "tcp" } else { "udp" };
        for (name, expected) in [
            ("turn_relay_bytes_total{direction=\"to-peers\"}", up as f64),
            ("turn_relay_packets_total{direction=\"to-peers\"}", 25.0),
            ("turn_relay_bytes_total{direction=\"to-clients\"}", down as f64),
            ("turn_relay_packets_total{direction=\"to-clients\"}", 5.0),
            (&format!("turn_allocations_active{{transport=\"{transport}\",family=\"ipv4\"}}"), 1.0),
            (&format!("turn_allocations_total{{transport=\"{transport}\",family=\"ipv4\"}}"), 1.0),
            (&format!("turn_allocations_active{{transport=\"{other}\",family=\"ipv4\"}}"), 0.0),
            ("turn_errors_total{method=\"CreatePermission\",code=\"403\"}", 0.0),
            ("turn_authentications_total{mechanism=\"password\",result=\"unauthenticated\"}", 0.0),
            ("turn_relay_ports_used{address=\"127.0.0.1\",protocol=\"udp\"}", 1.0),
            ("turn_drops_total{reason=\"no-permission\"}", 0.0),
            ("turn_workers_answering", 0.0),
        ] {
            assert_eq!(more(name), expected, "{name}");
        }
        for (name, expected) in [
            ("turn_requests_total{method=\"Binding\"}", 1.0),
            ("turn_requests_total{method=\"Allocate\"}", 2.0),
            ("turn_requests_total{method=\"CreatePermission\"}", 1.0),
            ("turn_errors_total{method=\"Allocate\",code=\"401\"}", 1.0),
            ("turn_authentications_total{mechanism=\"none\",result=\"unauthenticated\"}", 1.0),
            ("turn_authentications_total{mechanism=\"password\",result=\"passed\"}", 2.0),
        ] {
            let is_right = if transport == "tcp" { more(name) == expected } else { more(name) >= expected };
            assert!(is_right, "{name} over {transport}: {}", more(name));
        }
        // 5 datagrams from the peer, and over UDP 4 requests and 25 Send indications from the client.
        let datagrams = more("turn_receive_batch_datagrams_sum");
        assert!(if transport == "tcp" { datagrams == 5.0 } else { datagrams >= 34.0 }, "{datagrams}");
        let batches = more("turn_receive_batch_datagrams_count");
        assert_eq!(more("turn_receive_batch_datagrams_bucket{le=\"+Inf\"}"), batches);
        assert!((1.0..=datagrams).contains(&batches), "{batches} batches");
        assert!(more("turn_worker_processor_seconds_total{worker=\"0\"}") >= 0.0);

        // The same in the other answers.
        let status = get(&server, "/status");
        assert_eq!(status["traffic"]["to_peers"], serde_json::json!({ "packets": 25, "bytes": up }));
        assert_eq!((&status["allocations"]["active"], &status["sessions"]), (&1.into(), &1.into()));
        let user = &get(&server, "/v1/users")["users"][0];
        let expected = serde_json::json!({
            "user": USER, "realm": "example.org", "tenant": null, "sessions": 1,
            "to_peers": { "packets": 25, "bytes": up }, "to_clients": { "packets": 5, "bytes": down },
        });
        assert_eq!(*user, expected);

        client.delete().expect("to delete");
        let now = samples(&server);
        let active = format!("turn_allocations_active{{transport=\"{transport}\",family=\"ipv4\"}}");
        assert_eq!(now[&active], 0.0);
        assert_eq!(now["turn_allocations_ended_total{reason=\"deleted\"}"], 1.0);
        assert_eq!(now["turn_relay_bytes_total{direction=\"to-peers\"}"], up as f64);
    }
}

#[test]
fn refusals_and_drops_are_counted_by_reason() {
    let server = Server::start(&managed("").replace("[compatibility]", "[limits]\nuser-quota = 1\n[compatibility]"));
    let peer = peer().local_addr().expect("an address");
    let mut first = client(&server);
    first.allocate().expect("an allocation");
    // Without a permission.
    (0..3).for_each(|_| first.send(peer, b"nothing"));
    assert_eq!(client(&server).allocate(), Err(Refused(486)));
    let mut stranger = Client::new("udp", server.ipv4("udp"), Some((USER, "wrong")));
    assert_eq!(stranger.allocate(), Err(Refused(401)));
    // What was sent before a request is handled before it.
    first.binding();
    let now = samples(&server);
    assert_eq!(now["turn_drops_total{reason=\"no-permission\"}"], 3.0);
    assert_eq!(now["turn_limits_refused_total{limit=\"total-quota\"}"], 0.0);
    assert_eq!(now["turn_limits_allocations{use=\"used\"}"], 1.0);
    // Over UDP a request may be sent twice.
    for (name, least) in [
        ("turn_errors_total{method=\"Allocate\",code=\"486\"}", 1.0),
        ("turn_limits_refused_total{limit=\"user-quota\"}", 1.0),
        ("turn_authentications_total{mechanism=\"password\",result=\"unauthenticated\"}", 1.0),
        ("turn_authentications_total{mechanism=\"none\",result=\"unauthenticated\"}", 3.0),
    ] {
        assert!(now[name] >= least, "{name}: {}", now[name]);
    }
    // What every client begins with is no refusal.
    let status = get(&server, "/status");
    let challenges = now["turn_authentications_total{mechanism=\"none\",result=\"unauthenticated\"}"];
    let refused = now["turn_errors_total{method=\"Allocate\",code=\"401\"}"] - challenges;
    assert_eq!(status["refusals"]["401"].as_f64(), Some(refused));
    assert_eq!(status["refusals"]["486"].as_f64(), Some(now["turn_errors_total{method=\"Allocate\",code=\"486\"}"]));
    assert_eq!(status["drops"]["no-permission"], 3);
    let udp = server.ipv4("udp");
    let known = |uri: String| status["uris"].as_array().expect("uris").iter().any(|one| one["uri"] == uri.as_str());
    assert!(known(format!("stun:{udp}")) && known(format!("turn:{udp}?transport=udp")), "{status:#}");
}

#[test]
fn sessions_over_tcp_and_of_both_families_have_their_places() {
    let server = Server::start(&managed(""));
    let mut client = Client::new("tcp", server.ipv4("tcp"), Some((USER, PASSWORD)));
    client
        .allocate_with(&|writer| {
            writer.attribute(turnserver::stun::AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        })
        .expect("an allocation of both families");
    let now = samples(&server);
    assert_eq!(now["turn_allocations_active{transport=\"tcp\",family=\"both\"}"], 1.0);
    assert_eq!(now["turn_connections_active"], 1.0);
    assert_eq!(now["turn_relay_ports_used{address=\"::1\",protocol=\"udp\"}"], 1.0);
    drop(client);
    server.await_logged("session ends");
    let now = samples(&server);
    assert_eq!(now["turn_allocations_active{transport=\"tcp\",family=\"both\"}"], 0.0);
    assert_eq!(now["turn_allocations_ended_total{reason=\"connection-closed\"}"], 1.0);
}

/// Bytes of TCP connections (RFC 6062) are counted while these last.
#[test]
fn relayed_tcp_is_counted_while_its_connections_last() {
    use crate::common::{client::TurnClient, ports::peer_listener};
    use std::{io::Read, net::TcpStream};
    use turnserver::stun::{AttributeType as A, Message, Method};

    let server = Server::start(&managed("").replace("[relay]", "[relay]\ntcp-relaying = true"));
    let address = server.ipv4("tcp");
    let connect = || TurnClient::new(TcpStream::connect(address).expect("a connection"), address);
    let mut control = connect();
    control.learn_nonce();
    control.succeed(Method::Allocate, |writer| {
        writer.attribute(A::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    });
    let listener = peer_listener(Ipv4Addr::LOCALHOST.into());
    let peer_address = listener.local_addr().expect("an address");
    let response = control.succeed(Method::Connect, |writer| {
        writer.xor_address(A::XOR_PEER_ADDRESS, peer_address);
    });
    let id = Message::parse(&response).expect("a response").get_u32(A::CONNECTION_ID).expect("an id").expect("an id");
    let mut data = connect();
    data.learn_nonce();
    data.succeed(Method::ConnectionBind, |writer| {
        writer.u32(A::CONNECTION_ID, id);
    });
    let (mut peer, _) = listener.accept().expect("a connection");
    peer.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let mut buffer = vec![0; 5000];
    data.socket.write_all(&buffer).expect("to send");
    peer.read_exact(&mut buffer).expect("what was sent");
    peer.write_all(&buffer[..700]).expect("to send");
    data.socket.read_exact(&mut buffer[..700]).expect("what was sent");

    let bytes = |samples: &BTreeMap<String, f64>| {
        ["to-peers", "to-clients"].map(|way| samples[&format!("turn_relay_bytes_total{{direction=\"{way}\"}}")])
    };
    assert_eq!(bytes(&samples(&server)), [5000.0, 700.0]);
    let session = &get(&server, "/v1/sessions")["sessions"][0];
    assert_eq!([&session["to_peers"]["bytes"], &session["to_client"]["bytes"]], [5000, 700]);
    assert_eq!((&session["connections"], &session["protocol"]), (&1.into(), &"tcp".into()));
    drop((control, data, peer));
    server.await_logged("session ends");
    assert_eq!(bytes(&samples(&server)), [5000.0, 700.0]);
}

#[test]
fn promtool_finds_nothing_wrong() {
    for more in ["", "coturn-metrics = true"] {
        let server = Server::start(&managed(more));
        client(&server).allocate().expect("an allocation");
        let text = ask_locally(&server, "GET", "/metrics", "").body;
        assert_eq!(text.contains("turn_total_traffic_rcvb"), !more.is_empty());
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (.ci/run installs it)");
        promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("to write");
        let output = promtool.wait_with_output().expect("an end");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}

/// Names of families.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_name_is_documented_and_no_other() {
    let store = "[store]\ntype = \"sqlite\"\npath = \"turndb\"\n";
    let server = Server::start(&format!("{}\n{store}", managed("")));
    let plain = families(&ask_locally(&server, "GET", "/metrics", "").body);
    let text = include_str!("../../docs/metrics.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| name |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).expect("a cell").split(','));
    let documented: BTreeSet<String> = names.map(|name| name.trim().trim_matches('`').to_owned()).collect();
    assert_eq!(plain, documented);

    let server = Server::start(&format!("{}\n{store}", managed("coturn-metrics = true")));
    let all = families(&ask_locally(&server, "GET", "/metrics", "").body);
    assert!(all.is_superset(&plain));
    let section = text.split("## coturn's names").nth(1).expect("the section");
    for name in all.difference(&plain) {
        let stem = name.rsplit_once('_').map_or(name.as_str(), |(stem, _)| stem);
        assert!(section.contains(name.as_str()) || section.contains(&format!("{stem}_{{")), "{name}");
    }
}

#[test]
fn certificates_show_when_they_end() {
    let management = managed("");
    let management = management.split("[management]").nth(1).expect("the table");
    let server = Server::start(&format!("{}[management]{management}", loopback_with_tls()));
    let pem = std::fs::read(server.folder().join("cert.pem")).expect("cert.pem");
    let certificate = openssl::x509::X509::from_pem(&pem).expect("a certificate");
    let epoch = openssl::asn1::Asn1Time::from_unix(0).expect("a time");
    let left = epoch.diff(certificate.not_after()).expect("a difference");
    let end = f64::from(left.days) * 86_400.0 + f64::from(left.secs);
    let file = server.folder().join("cert.pem");
    let name = format!("turn_certificate_expiry_timestamp_seconds{{file=\"{}\"}}", file.display());
    assert_eq!(samples(&server)[&name], end);
}
