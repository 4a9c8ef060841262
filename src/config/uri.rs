//! What clients are told to reach this server by (RFC 7064, RFC 7065), with credentials.

use std::net::{IpAddr, SocketAddr};

use super::settings::{Listener, Settings};

/// What is spoken where clients are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// STUN and TURN over UDP.
    Udp,
    /// TURN over TCP.
    Tcp,
    /// TURN over TLS.
    Tls,
    /// TURN over DTLS.
    Dtls,
}

/// The URIs to hand out: those of `auth.uris`, or else one for each address and transport. A listener on all addresses is
/// reached at those that are relayed from, as the world sees them; one whose port the system chooses, nobody knows where.
#[must_use]
pub fn client_uris(settings: &Settings) -> Vec<String> {
    if !settings.auth.uris.is_empty() {
        return settings.auth.uris.clone();
    }
    let mut uris: Vec<String> = Vec::new();
    for listener in settings.listeners.iter().filter(|listener| listener.port != 0) {
        let addresses = listener.addresses.iter().flat_map(|ip| seen(settings, *ip));
        let hosts: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, listener.port)).collect();
        let spoken = || spoken(listener).into_iter().flatten();
        for uri in hosts.iter().flat_map(|host| spoken().flat_map(|spoken| of_host(settings, spoken, *host))) {
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris
}

/// The URIs of one place where clients are served; `address` may be unspecified, but not its port.
#[must_use]
pub fn uris_at(settings: &Settings, spoken: Spoken, address: SocketAddr) -> Vec<String> {
    let hosts = seen(settings, address.ip()).into_iter().map(|ip| SocketAddr::new(ip, address.port()));
    hosts.flat_map(|host| of_host(settings, spoken, host)).collect()
}

/// The name of a certificate: clients compare it with what they were told.
#[must_use]
pub fn secure_name(settings: &Settings) -> Option<&str> {
    let names = settings.tls.iter().flat_map(|tls| &tls.certificates).flat_map(|certificate| &certificate.names);
    names.map(String::as_str).find(|name| !name.starts_with('*'))
}

fn spoken(listener: &Listener) -> [Option<Spoken>; 4] {
    [
        listener.udp.then_some(Spoken::Udp),
        listener.tcp.then_some(Spoken::Tcp),
        listener.tls.then_some(Spoken::Tls),
        listener.dtls.then_some(Spoken::Dtls),
    ]
}

fn of_host(settings: &Settings, spoken: Spoken, host: SocketAddr) -> Vec<String> {
    let secure = || secure_name(settings).map_or_else(|| host.to_string(), |name| format!("{name}:{}", host.port()));
    match spoken {
        Spoken::Udp => vec![format!("stun:{host}"), format!("turn:{host}?transport=udp")],
        Spoken::Tcp => vec![format!("turn:{host}?transport=tcp")],
        Spoken::Tls => vec![format!("turns:{}?transport=tcp", secure())],
        Spoken::Dtls => vec![format!("turns:{}?transport=udp", secure())],
    }
}

/// What the world sees of a listening address.
fn seen(settings: &Settings, ip: IpAddr) -> Vec<IpAddr> {
    let relayed = settings.relay.addresses.iter();
    if ip.is_unspecified() {
        let same_family = relayed.filter(|address| address.local.is_ipv4() == ip.is_ipv4());
        return same_family.map(|address| address.external).collect();
    }
    let mapped = relayed.into_iter().find(|address| address.local == ip);
    vec![mapped.map_or(ip, |address| address.external)]
}
