//! Listeners and relaying, tried as clients do: on the running server if something listens where it would, or else on one that is
//! started for it in this process, with the same settings and ports that are free.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::RootCertStore;
use zeroize::Zeroizing;

use crate::{
    auth::{credential::RealmId, mint::mint},
    config::{
        Settings,
        settings::{Listener, Mechanisms, OffloadMode, Secret, User, UserSecret},
    },
    probe::{Credentials, Finding, Level, Options, PathReport, Roots, Target, probe_path},
    relay::Relay,
    turn::Transport,
};

const RUNNING: &str = "running";
const TEMPORARY: &str = "temporary";
const NONE: &str = "none";

/// A way in.
struct Door {
    transport: Transport,
    address: SocketAddr,
    realm: RealmId,
    /// Connections from here would have to begin with a PROXY protocol header.
    proxied: bool,
}

/// Tries all listeners; returns what was tried: a running server, a temporary one, or none.
pub(super) async fn try_all(settings: &Settings, limit: Duration, findings: &mut Vec<Finding>) -> &'static str {
    const ABOUT: &str = "server";
    let doors: Vec<Door> = settings.listeners.iter().flat_map(doors).collect();
    let ends: Vec<(&Door, Option<ErrorKind>)> = doors.iter().map(|door| (door, taken(door))).collect();
    if ends.iter().any(|(_, error)| *error == Some(ErrorKind::AddrInUse)) {
        findings.push(Finding::ok(ABOUT, "something listens where it would: this is tried"));
        for door in &doors {
            let credentials = credentials(settings, door.realm);
            findings.extend(try_door(settings, door, credentials, limit).await);
        }
        return RUNNING;
    }
    let refused = ends.iter().filter_map(|(door, error)| match error {
        Some(ErrorKind::PermissionDenied) => Some(Finding::warning(
            format!("{} {}", door.transport.name(), door.address),
            "whoever runs this check may not listen on a port below 1024",
            "run the server by the unit, or with CAP_NET_BIND_SERVICE; or run this check as root",
        )),
        Some(error) => Some(Finding::error(
            format!("{} {}", door.transport.name(), door.address),
            format!("cannot be listened on: {error}"),
            "write a listening-ip of this host, and a port that is free",
        )),
        None => None,
    });
    findings.extend(refused);
    match temporary(settings) {
        Err(error) => {
            findings.push(Finding::error(ABOUT, error, "change the configuration or this host, as the message says"));
            NONE
        }
        Ok((relay, password)) => {
            findings
                .push(Finding::ok(ABOUT, "nothing listens where it would: one is started on other ports, and tried"));
            for endpoint in relay.endpoints().to_vec() {
                let address = reachable(endpoint.address);
                let door = Door { transport: endpoint.transport, address, realm: RealmId::DEFAULT, proxied: false };
                let credentials = match settings.auth.anonymous {
                    true => Credentials::None,
                    false => Credentials::Password { user: USER.to_owned(), password: password.clone() },
                };
                findings.extend(try_door(settings, &door, credentials, limit).await);
            }
            // Its sessions are those of the probe.
            let _ = relay.stop();
            TEMPORARY
        }
    }
}

/// The transports and addresses of a listener.
fn doors(listener: &Listener) -> Vec<Door> {
    let on = [listener.udp, listener.tcp, listener.tls, listener.dtls];
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls].into_iter().zip(on);
    let transports: Vec<Transport> = transports.filter_map(|(transport, on)| on.then_some(transport)).collect();
    let doors = listener.addresses.iter().filter(|_| listener.port != 0).flat_map(|ip| {
        transports.iter().map(|transport| {
            let address = reachable(SocketAddr::new(*ip, listener.port));
            let proxied = transport.is_stream() && listener.proxies.iter().any(|net| net.contains(&address.ip()));
            Door { transport: *transport, address, realm: listener.realm, proxied }
        })
    });
    doors.collect()
}

/// Where this host reaches a socket of its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Why the server could not listen there, if it could not.
fn taken(door: &Door) -> Option<ErrorKind> {
    let error = if door.transport.is_stream() {
        TcpListener::bind(door.address).err()
    } else {
        UdpSocket::bind(door.address).err()
    };
    error.map(|error| error.kind())
}

/// The user of a temporary server.
const USER: &str = "turnserver-check";

/// Starts a server like the configured one that is in nobody's way: on ports that the system chooses, with a user of its own.
fn temporary(settings: &Settings) -> Result<(Relay, Zeroizing<String>), String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let password = Zeroizing::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut settings = settings.clone();
    for listener in &mut settings.listeners {
        listener.port = 0;
        listener.proxies.clear();
        listener.realm = RealmId::DEFAULT;
    }
    if !settings.auth.anonymous {
        let secret = UserSecret::Password(Secret(password.clone()));
        settings.auth.users.push(User { name: USER.to_owned(), secret });
    }
    settings.nat_discovery = None;
    settings.redirect = None;
    settings.limits.state_directory = None;
    settings.process.workers = settings.process.workers.min(2);
    settings.process.pin_workers = false;
    // Nothing is put at this host's interfaces to try it.
    settings.offload.mode = OffloadMode::Off;
    Relay::start(settings, None, &[]).map(|relay| (relay, password)).map_err(|error| error.to_string())
}

/// Credentials that the configuration itself holds.
fn credentials(settings: &Settings, realm: RealmId) -> Credentials {
    let other = realm.index().checked_sub(1).and_then(|index| settings.realms.get(index));
    let (users, mechanisms): (&[User], &Mechanisms) = match other {
        Some(realm) => (&realm.users, &realm.mechanisms),
        None => (&settings.auth.users, &settings.auth.mechanisms),
    };
    let with_password = users.iter().find_map(|user| match &user.secret {
        UserSecret::Password(Secret(password)) => {
            Some(Credentials::Password { user: user.name.clone(), password: password.clone() })
        }
        UserSecret::Keys { .. } => None,
    });
    let minted = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let secret = mechanisms.secrets.first()?;
        let minted = mint(secret, &mechanisms.rest, USER, Duration::from_secs(600), now).ok()?;
        Some(Credentials::Password { user: minted.username, password: minted.password })
    };
    let with_key = || {
        users.iter().find_map(|user| match &user.secret {
            UserSecret::Keys { md5: Secret(md5), .. } => {
                Some(Credentials::Key { user: user.name.clone(), md5: md5.clone() })
            }
            UserSecret::Password(_) => None,
        })
    };
    with_password.or_else(minted).or_else(with_key).unwrap_or_default()
}

async fn try_door(settings: &Settings, door: &Door, credentials: Credentials, limit: Duration) -> Vec<Finding> {
    let about = format!("{} {}", door.transport.name(), door.address);
    if door.proxied {
        let why = "connections from this host have to begin with a PROXY protocol header";
        return vec![Finding::skipped(about, why)];
    }
    let wants_certificate = settings.tls.iter().filter_map(|tls| tls.clients.as_ref()).any(|clients| clients.required);
    if door.transport.is_secure() && wants_certificate {
        return vec![Finding::skipped(about, "clients have to show a certificate, which this check has not")];
    }
    let names = settings.tls.iter().flat_map(|tls| &tls.certificates).flat_map(|certificate| &certificate.names);
    let name = names.into_iter().find(|name| !name.starts_with('*'));
    let target = Target {
        // What a probe asks for is UDP.
        relays: settings.relay.udp,
        host: door.address.ip().to_string(),
        port: door.address.port(),
        transport: door.transport,
    };
    let options = Options {
        timeout: limit,
        server_name: name.cloned(),
        // What is thought of certificates is said of their files.
        roots: Arc::new(Roots { store: RootCertStore::empty(), origin: String::new() }),
        from_elsewhere: false,
        ..Options::new(credentials)
    };
    said(&about, settings, &probe_path(&target, door.address, &options).await)
}

/// A line if all is well, and else what is not.
fn said(about: &str, settings: &Settings, report: &PathReport) -> Vec<Finding> {
    // What the configuration says is no surprise.
    let redirected = |finding: &Finding| settings.redirect.is_some() && finding.what.contains(" 300 ");
    let expected = |finding: &&Finding| {
        settings.auth.anonymous && finding.about == "challenge" && finding.level == Level::Warning
            || redirected(finding)
    };
    let bad = report.findings.iter().filter(|finding| finding.level >= Level::Warning).filter(|it| !expected(it));
    let mut findings: Vec<Finding> =
        bad.map(|finding| Finding { about: format!("{about} {}", finding.about), ..finding.clone() }).collect();
    if !findings.is_empty() {
        return findings;
    }
    let relayed: Vec<String> = report.relayed.iter().map(ToString::to_string).collect();
    let skipped = |about: &str| report.findings.iter().find(|it| it.about == about && it.level == Level::Skipped);
    findings.push(match (relayed.is_empty(), report.milliseconds.relay) {
        (false, Some(time)) => {
            let what =
                format!("a client gets {}, and another hears it, there and back, in {time} ms", relayed.join(" and "));
            Finding::ok(about, what)
        }
        (false, None) => {
            let why = skipped("relay").map_or("", |finding| finding.what.as_str());
            Finding::ok(
                about,
                format!("a client gets {}; relaying to another was not tried: {why}", relayed.join(" and ")),
            )
        }
        (true, _) => {
            let why = if !settings.relay.udp {
                "udp-relaying is false"
            } else if report.findings.iter().any(redirected) {
                "clients are sent elsewhere ([redirect])"
            } else if skipped("allocate").is_some() {
                "the configuration holds no password or secret"
            } else {
                "it was not reached"
            };
            Finding::ok(about, format!("answers; allocating was not tried: {why}"))
        }
    });
    findings
}
