//! What clients are told to reach this server by (RFC 7064, RFC 7065), with credentials.

use std::net::{IpAddr, SocketAddr};

use super::settings::{Listener, Settings};

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
        let hosts: Vec<String> = addresses.map(|ip| SocketAddr::new(ip, listener.port).to_string()).collect();
        for uri in hosts.iter().flat_map(|host| of_host(settings, listener, host)) {
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris
}

fn of_host(settings: &Settings, listener: &Listener, host: &str) -> Vec<String> {
    // A certificate is for a name, and clients compare it with what they were told.
    let names = settings.tls.iter().flat_map(|tls| &tls.certificates).flat_map(|certificate| &certificate.names);
    let name = names.into_iter().find(|name| !name.starts_with('*'));
    let secure = name.map_or_else(|| host.to_owned(), |name| format!("{name}:{}", listener.port));
    [
        (listener.udp, format!("stun:{host}")),
        (listener.udp, format!("turn:{host}?transport=udp")),
        (listener.tcp, format!("turn:{host}?transport=tcp")),
        (listener.tls, format!("turns:{secure}?transport=tcp")),
        (listener.dtls, format!("turns:{secure}?transport=udp")),
    ]
    .into_iter()
    .filter_map(|(on, uri)| on.then_some(uri))
    .collect()
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
