//! `external-ip = "auto"`: each cloud's metadata, STUN servers, both, neither; and an address that changes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{
    common::{
        LOOPBACK, Server,
        client::{TurnClient, loopback_socket},
        ports::peer_socket,
    },
    fakes::{self, Request, Stun},
};

const EXTERNAL: &str = "198.51.100.7";

/// A server that finds its own address: whom it asks, in TOML.
fn auto(who: &str) -> String {
    let one = LOOPBACK.replace("relay-ip = [\"127.0.0.1\", \"::1\"]", "relay-ip = \"127.0.0.1\"");
    let auto = one.replace("[relay]", &format!("[relay]\nexternal-ip = \"auto\"\n{who}"));
    assert!(one != LOOPBACK && auto != one);
    auto
}

fn relayed(server: &Server) -> IpAddr {
    TurnClient::new(loopback_socket(), server.ipv4("udp")).allocate().ip()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// AWS, as its guide of IMDSv2 has it: a token first.
fn aws(request: &Request) -> Option<String> {
    const TOKEN: &str = "AQAAANjUxiPCCAcFakeToken==";
    if request.method == "PUT" && request.target == "/latest/api/token" {
        let ttl: u32 = request.header("x-aws-ec2-metadata-token-ttl-seconds").parse().ok()?;
        return (1..=21_600).contains(&ttl).then(|| TOKEN.to_owned());
    }
    let good = request.gets("/latest/meta-data/public-ipv4") && request.header("x-aws-ec2-metadata-token") == TOKEN;
    good.then(|| EXTERNAL.to_owned())
}

fn google(request: &Request) -> Option<String> {
    const PATH: &str = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
    (request.gets(PATH) && request.header("metadata-flavor") == "Google").then(|| format!("{EXTERNAL}\n"))
}

fn azure(request: &Request) -> Option<String> {
    let known = request.gets("/metadata/instance/network/interface?api-version=2021-02-01&format=json");
    (known && request.header("metadata") == "true").then(|| {
        format!(
            r#"[{{"ipv4":{{"ipAddress":[{{"privateIpAddress":"127.0.0.1","publicIpAddress":"{EXTERNAL}"}}],
                "subnet":[{{"address":"10.0.0.0","prefix":"24"}}]}},"ipv6":{{"ipAddress":[]}},"macAddress":"000D3A"}}]"#
        )
    })
}

/// An address of Azure's standard kind, which the interface does not tell of.
fn azure_standard(request: &Request) -> Option<String> {
    if request.header("metadata") != "true" {
        return None;
    }
    if request.gets("/metadata/instance/network/interface?api-version=2021-02-01&format=json") {
        return Some(r#"[{"ipv4":{"ipAddress":[{"privateIpAddress":"127.0.0.1","publicIpAddress":""}]}}]"#.to_owned());
    }
    request.gets("/metadata/loadbalancer?api-version=2021-02-01&format=json").then(|| {
        format!(
            r#"{{"loadbalancer":{{"publicIpAddresses":[{{"frontendIpAddress":"{EXTERNAL}","privateIpAddress":"127.0.0.1"}}],
                "inboundRules":[],"outboundRules":[]}}}}"#
        )
    })
}

fn hetzner(request: &Request) -> Option<String> {
    request.gets("/hetzner/v1/metadata/public-ipv4").then(|| EXTERNAL.to_owned())
}

fn digital_ocean(request: &Request) -> Option<String> {
    request.gets("/metadata/v1/interfaces/public/0/ipv4/address").then(|| EXTERNAL.to_owned())
}

#[test]
fn each_cloud_tells_the_address() {
    type Service = fn(&Request) -> Option<String>;
    let clouds: [(&str, Service); 6] = [
        ("AWS", aws),
        ("Google Cloud", google),
        ("Azure", azure),
        ("Azure", azure_standard),
        ("Hetzner", hetzner),
        ("DigitalOcean", digital_ocean),
    ];
    for (name, service) in clouds {
        let server = Server::start(&auto(&format!("metadata-url = \"{}\"", fakes::metadata(service))));
        let found = server.await_logged("external address: found");
        assert_eq!((&found["external"], &found["by"]), (&EXTERNAL.into(), &format!("metadata of {name}").into()));
        assert_eq!(relayed(&server), ip(EXTERNAL), "{name}");
        server.stop();
    }
}

#[test]
fn stun_servers_tell_it_alone_or_confirm_it() {
    let stun = Stun::new(EXTERNAL);
    let alone = format!("metadata-url = \"off\"\nstun-servers = [\"{}\"]", stun.address);
    let server = Server::start(&auto(&alone));
    let found = server.await_logged("external address: found");
    assert_eq!(found["by"], format!("STUN server {}", stun.address));
    assert_eq!(relayed(&server), ip(EXTERNAL));
    server.stop();

    let both = format!("metadata-url = \"{}\"\nstun-servers = [\"{}\"]", fakes::metadata(hetzner), stun.address);
    let server = Server::start(&auto(&both));
    let found = server.await_logged("external address: found");
    assert_eq!(found["by"], format!("metadata of Hetzner, STUN server {}", stun.address));
    let log = server.stop();
    assert!(!log.contains("confirm"), "{log}");
}

/// What nobody confirms is told, and the log says so; what others contradict is not told at all.
#[test]
fn what_is_not_verified_is_said() {
    let gone = loopback_socket().local_addr().expect("an address");
    let alone = format!("metadata-url = \"{}\"\nstun-servers = [\"{gone}\"]", fakes::metadata(hetzner));
    let server = Server::start(&auto(&alone));
    let warned = server.await_logged("external address: no STUN server confirms it");
    assert_eq!(warned["external"], EXTERNAL);
    assert_eq!(relayed(&server), ip(EXTERNAL));
    server.stop();

    let stun = Stun::new("198.51.100.8");
    let contradicting =
        format!("metadata-url = \"{}\"\nstun-servers = [\"{}\"]", fakes::metadata(hetzner), stun.address);
    let server = Server::start(&auto(&contradicting));
    let warned = warning(&server, "contradict each other");
    assert_eq!(warned["external"], "127.0.0.1");
    assert!(
        warned["said"].as_str().unwrap().contains("198.51.100.7")
            && warned["said"].as_str().unwrap().contains("198.51.100.8")
    );
    assert_eq!(relayed(&server), ip("127.0.0.1"));
    server.stop();

    let server = Server::start(&auto(&format!("metadata-url = \"{}\"", fakes::metadata(|_| None))));
    let warned = warning(&server, "nobody answers");
    assert_eq!((&warned["external"], &warned["why"]), (&"127.0.0.1".into(), &"no metadata service answers".into()));
    assert_eq!(relayed(&server), ip("127.0.0.1"));
    server.stop();
}

/// The fields of the warning with these words.
fn warning(server: &Server, words: &str) -> Value {
    server.await_log(|log| {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut warnings = lines.filter(|line| line["level"] == "WARN").map(|mut line| line["fields"].take());
        warnings.find(|fields| fields["message"].as_str().is_some_and(|message| message.contains(words)))
    })
}

/// New allocations are told the new address; older ones keep theirs, and go on working.
#[test]
fn a_changed_address_is_told_from_then_on() {
    let told = Arc::new(Mutex::new(EXTERNAL.to_owned()));
    let says = Arc::clone(&told);
    let base = fakes::metadata(move |request| hetzner(request).map(|_| says.lock().expect("the address").clone()));
    let server = Server::start(&auto(&format!("metadata-url = \"{base}\"\nexternal-ip-interval = \"200ms\"")));
    let mut older = TurnClient::new(loopback_socket(), server.ipv4("udp"));
    let first = older.allocate();
    assert_eq!(first.ip(), ip(EXTERNAL));
    // What is sent from the relay's own address is known by the external one.
    let peer = peer_socket(ip("127.0.0.2"));
    older.permit(peer.local_addr().expect("an address"));

    *told.lock().expect("the address") = "198.51.100.9".to_owned();
    let changed = server.await_log(|log| {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut fields = lines.map(|mut line| line["fields"].take());
        fields.find(|it| {
            it["message"].as_str().is_some_and(|message| message.starts_with("the external address has changed"))
        })
    });
    assert_eq!(changed["external"], "198.51.100.9");
    let mut newer = TurnClient::new(loopback_socket(), server.ipv4("udp"));
    let second = newer.allocate();
    assert_eq!(second.ip(), ip("198.51.100.9"));

    // The older one still relays, from outside and from the newer one, under the address that it was told.
    let local = SocketAddr::new(ip("127.0.0.1"), first.port());
    arrives(&mut older, b"from outside", || drop(peer.send_to(b"from outside", local)));
    older.permit(second);
    newer.permit(first);
    let indication = newer.send_indication(first, b"from the newer one");
    let (socket, to) = (newer.socket.try_clone().expect("a socket"), newer.server);
    arrives(&mut older, b"from the newer one", || drop(socket.send_to(&indication, to)));
    server.stop();
}

/// Sends until the data come to the client.
fn arrives(client: &mut TurnClient, data: &[u8], send: impl Fn()) {
    let mut buffer = [0; 2048];
    for _ in 0..10 {
        send();
        if let Ok((len, _)) = client.socket.recv_from(&mut buffer)
            && buffer[..len].windows(data.len()).any(|window| window == data)
        {
            return;
        }
    }
    panic!("{} does not arrive", String::from_utf8_lossy(data));
}
