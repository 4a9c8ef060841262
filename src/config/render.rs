//! Settings back to text: every effective value, defaults included, secrets masked. The text is TOML.

use std::fmt::{self, Display};

use super::{
    limits,
    settings::{
        Access, Certificate, ClientCa, DefaultFamily, DrainError, HttpStore, LogFormat, Mechanisms, Secret, Settings,
        Store, StoreBackend, TlsVersion, TokenKey, UdpIo, User, UserSecret,
    },
    store::masked_url,
    value::{Transport, gather_text, period_or_off_text, period_text, size_text},
};
use crate::auth::rest::RestSecret;

pub(super) const MASK: &str = "****";
/// As long as a token has to be.
const MASK_OF_TOKEN: &str = "****************";

/// Prints all settings, masked, as TOML.
#[derive(Debug, Clone, Copy)]
pub struct Effective<'s>(pub &'s Settings);

impl Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { lifetimes, limits: bounds, peers, tcp, compatibility, process, offload, log, .. } = self.0;
        self.listeners(f)?;
        self.relay(f)?;
        self.auth(f)?;
        self.store(f)?;

        writeln!(f, "\n[lifetimes]")?;
        writeln!(f, "default-allocate-lifetime = {}", text(period_text(lifetimes.default_allocate)))?;
        writeln!(f, "max-allocate-lifetime = {}", text(period_text(lifetimes.max_allocate)))?;
        writeln!(f, "permission-lifetime = {}", text(period_text(lifetimes.permission)))?;
        writeln!(f, "channel-lifetime = {}", text(period_text(lifetimes.channel)))?;
        writeln!(f, "reservation-lifetime = {}", text(period_text(lifetimes.reservation)))?;
        writeln!(f, "connect-timeout = {}", text(period_text(lifetimes.connect)))?;
        writeln!(f, "connection-bind-timeout = {}", text(period_text(lifetimes.connection_bind)))?;

        writeln!(f, "\n[limits]")?;
        limits::render(f, bounds)?;

        writeln!(f, "\n[peers]")?;
        writeln!(f, "allowed-peer-ip = {}", list(&peers.allowed))?;
        writeln!(f, "denied-peer-ip = {}", list(&peers.denied))?;

        if let Some(redirect) = &self.0.redirect {
            writeln!(f, "\n[redirect]")?;
            writeln!(f, "share = {}", redirect.share)?;
            for server in &redirect.servers {
                let transports = Transport::ALL.iter().zip(server.transports()).filter(|(_, on)| *on);
                let transports: Vec<&str> = transports.map(|(transport, _)| transport.name()).collect();
                writeln!(f, "\n[[redirect.server]]")?;
                writeln!(f, "address = {}", text(server.address))?;
                writeln!(f, "transports = {}", list(&transports))?;
                writeln!(f, "weight = {}", server.weight)?;
                if let Some(domain) = &server.domain {
                    writeln!(f, "domain = {}", text(domain))?;
                }
            }
        }

        self.nat_discovery(f)?;

        writeln!(f, "\n[tcp]")?;
        writeln!(f, "idle-timeout = {}", text(period_text(tcp.idle_timeout)))?;
        writeln!(f, "message-timeout = {}", text(period_text(tcp.message_timeout)))?;
        writeln!(f, "max-connections = {}", tcp.max_connections)?;
        writeln!(f, "max-connections-per-ip = {}", tcp.max_connections_per_ip)?;
        writeln!(f, "queue-bytes = {}", text(size_text(tcp.queue_bytes)))?;
        writeln!(f, "queue-age = {}", text(period_text(tcp.queue_age)))?;

        self.tls(f)?;

        writeln!(f, "\n[compatibility]")?;
        writeln!(f, "rfc3489 = {}", compatibility.rfc3489)?;
        writeln!(f, "rfc5766-channel-numbers = {}", compatibility.rfc5766_channel_numbers)?;

        let udp_io = match process.udp_io {
            UdpIo::Auto => "auto",
            UdpIo::Batched => "batched",
            UdpIo::Portable => "portable",
        };
        writeln!(f, "\n[process]")?;
        writeln!(f, "workers = {}", process.workers)?;
        writeln!(f, "pin-workers = {}", process.pin_workers)?;
        writeln!(f, "udp-io = {}", text(udp_io))?;
        writeln!(f, "listener-buffer = {}", buffer(process.listener_buffer))?;
        writeln!(f, "gather = {}", text(gather_text(process.gather)))?;
        writeln!(f, "software-attribute = {}", process.software_attribute)?;
        writeln!(f, "fingerprint = {}", process.fingerprint)?;
        writeln!(f, "drain-timeout = {}", text(period_or_off_text(process.drain_timeout)))?;
        let drain_error = match process.drain_error {
            DrainError::Quota => 486,
            DrainError::Capacity => 508,
        };
        writeln!(f, "drain-error = {drain_error}")?;

        self.management(f)?;

        writeln!(f, "\n[offload]")?;
        writeln!(f, "mode = {}", text(offload.mode.name()))?;
        writeln!(f, "interfaces = {}", list(&offload.interfaces))?;
        writeln!(f, "channels = {}", offload.channels)?;

        let format = match log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(f, "\n[log]")?;
        writeln!(f, "level = {}", text(&log.level))?;
        writeln!(f, "format = {}", text(format))
    }
}

impl Effective<'_> {
    fn listeners(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for listener in &self.0.listeners {
            let transports =
                [("udp", listener.udp), ("tcp", listener.tcp), ("tls", listener.tls), ("dtls", listener.dtls)];
            let transports: Vec<&str> = transports.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            writeln!(f, "[[listener]]")?;
            writeln!(f, "listening-ip = {}", list(&listener.addresses))?;
            writeln!(f, "listening-port = {}", listener.port)?;
            writeln!(f, "transports = {}", list(&transports))?;
            if !listener.proxies.is_empty() {
                writeln!(f, "proxy-protocol = {}", list(&listener.proxies))?;
            }
            if let Some(realm) = self.0.realms.get(listener.realm.index().wrapping_sub(1)) {
                writeln!(f, "realm = {}", text(&realm.name))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn relay(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = &self.0.relay;
        let local: Vec<_> = relay.addresses.iter().map(|address| address.local).collect();
        let mut mapped = Vec::new();
        for address in relay.addresses.iter().filter(|address| address.external != address.local) {
            // One public address for several private ones is written alone, as it must have been.
            let shared = relay.addresses.iter().filter(|other| other.external == address.external).count() > 1;
            let pair = format!("{}/{}", address.external, address.local);
            let written = if shared { address.external.to_string() } else { pair };
            if !mapped.contains(&written) {
                mapped.push(written);
            }
        }
        let family = match relay.default_family {
            DefaultFamily::Ipv4 => "ipv4",
            DefaultFamily::Ipv6 => "ipv6",
            DefaultFamily::Keep => "keep",
        };
        writeln!(f, "[relay]")?;
        writeln!(f, "relay-ip = {}", list(&local))?;
        match relay.find_external.auto {
            true => writeln!(f, "external-ip = \"auto\"")?,
            false => writeln!(f, "external-ip = {}", list(&mapped))?,
        }
        writeln!(f, "stun-servers = {}", list(&relay.find_external.stun_servers))?;
        let metadata = relay.find_external.metadata.as_ref().map(|url| url.as_str().trim_end_matches('/'));
        writeln!(f, "metadata-url = {}", text(metadata.unwrap_or("off")))?;
        writeln!(f, "external-ip-interval = {}", text(period_text(relay.find_external.interval)))?;
        writeln!(f, "min-port = {}", relay.min_port)?;
        writeln!(f, "max-port = {}", relay.max_port)?;
        writeln!(f, "socket-buffer = {}", buffer(relay.socket_buffer))?;
        writeln!(f, "allocation-default-address-family = {}", text(family))?;
        writeln!(f, "udp-relaying = {}", relay.udp)?;
        writeln!(f, "tcp-relaying = {}", relay.tcp)?;
        writeln!(f, "mobility = {}", relay.mobility)
    }

    fn tls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tls) = &self.0.tls else { return Ok(()) };
        let min_version = match tls.min_version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        writeln!(f, "\n[tls]")?;
        writeln!(f, "min-version = {}", text(min_version))?;
        if let Some(ClientCa { file, required, .. }) = &tls.clients {
            writeln!(f, "client-ca = {}", text(file.display()))?;
            writeln!(f, "client-certificate = {}", text(if *required { "required" } else { "optional" }))?;
        }
        writeln!(f, "handshake-timeout = {}", text(period_text(tls.handshake_timeout)))?;
        writeln!(f, "max-handshakes = {}", tls.max_handshakes)?;
        for Certificate { cert, pkey, names, .. } in &tls.certificates {
            writeln!(f, "\n# {}", names.join(" "))?;
            writeln!(f, "[[tls.certificate]]")?;
            writeln!(f, "cert = {}", text(cert.display()))?;
            writeln!(f, "pkey = {}", text(pkey.display()))?;
        }
        Ok(())
    }

    /// What is there by default, where it can be had, is a comment: written down it would be required.
    fn management(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let management = &self.0.management;
        writeln!(f, "\n[management]")?;
        match &management.listen {
            None => writeln!(f, "listen = \"off\"")?,
            Some(Access { at, required: true }) => writeln!(f, "listen = {}", text(at))?,
            Some(Access { at, required: false }) => writeln!(f, "# listen = {}", text(at))?,
        }
        match &management.socket {
            None => writeln!(f, "socket = \"off\"")?,
            Some(Access { at, required: true }) => writeln!(f, "socket = {}", text(at.display()))?,
            Some(Access { at, required: false }) => writeln!(f, "# socket = {}", text(at.display()))?,
        }
        if management.token.is_some() {
            writeln!(f, "token = {}", text(MASK_OF_TOKEN))?;
        }
        writeln!(f, "public-metrics = {}", management.public_metrics)?;
        writeln!(f, "coturn-metrics = {}", management.coturn_metrics)?;
        writeln!(f, "web-page = {}", management.web_page)?;
        writeln!(f, "host-names = {}", list(&management.host_names))
    }

    fn nat_discovery(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(discovery) = &self.0.nat_discovery else { return Ok(()) };
        let local = |at: usize| discovery.pairs.iter().map(|pair| pair[at].local).collect::<Vec<_>>();
        let mapped = discovery.pairs.iter().flatten().filter(|address| address.external != address.local);
        let mapped: Vec<String> = mapped.map(|address| format!("{}/{}", address.external, address.local)).collect();
        writeln!(f, "\n[nat-discovery]")?;
        writeln!(f, "primary-ip = {}", list(&local(0)))?;
        writeln!(f, "alternate-ip = {}", list(&local(1)))?;
        writeln!(f, "primary-port = {}", discovery.primary_port)?;
        writeln!(f, "alternate-port = {}", discovery.alternate_port)?;
        writeln!(f, "external-ip = {}", list(&mapped))
    }

    fn auth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = &self.0.auth;
        writeln!(f, "\n[auth]")?;
        writeln!(f, "realm = {}", text(&auth.realm))?;
        writeln!(f, "anonymous = {}", auth.anonymous)?;
        writeln!(f, "stale-nonce = {}", text(period_text(auth.stale_nonce)))?;
        writeln!(f, "expiry-grace = {}", text(period_text(auth.expiry_grace)))?;
        writeln!(f, "uris = {}", list(&auth.uris))?;
        mechanisms(f, "auth", &auth.mechanisms)?;
        users(f, "auth", &auth.users)?;
        for realm in &self.0.realms {
            writeln!(f, "\n[[realm]]")?;
            writeln!(f, "name = {}", text(&realm.name))?;
            mechanisms(f, "realm", &realm.mechanisms)?;
            users(f, "realm", &realm.users)?;
            if let Some(peers) = &realm.peers {
                writeln!(f, "\n[realm.peers]")?;
                writeln!(f, "allowed-peer-ip = {}", list(&peers.allowed))?;
                writeln!(f, "denied-peer-ip = {}", list(&peers.denied))?;
            }
            if let Some(bounds) = &realm.limits {
                writeln!(f, "\n[realm.limits]")?;
                limits::realm_lines(f, bounds)?;
            }
        }
        Ok(())
    }
}

/// Secrets and token keys of `[auth]` or a realm: its own keys first, then its tables.
fn mechanisms(f: &mut fmt::Formatter<'_>, table: &str, mechanisms: &Mechanisms) -> fmt::Result {
    let Mechanisms { secrets, rest, token_keys, server_name } = mechanisms;
    if !secrets.is_empty() {
        writeln!(f, "rest-api-username = {}", text(rest.form.text()))?;
        writeln!(f, "rest-api-separator = {}", text(rest.separator))?;
    }
    if let Some(server_name) = server_name {
        writeln!(f, "server-name = {}", text(server_name))?;
    }
    for RestSecret { name, tenant, algorithm, key: _ } in secrets {
        writeln!(f, "\n[[{table}.secret]]")?;
        writeln!(f, "name = {}", text(name))?;
        writeln!(f, "secret = {}", text(MASK))?;
        writeln!(f, "algorithm = {}", text(algorithm.text()))?;
        if let Some(tenant) = tenant {
            writeln!(f, "tenant = {}", text(tenant))?;
        }
    }
    for TokenKey { kid, algorithm, key: _ } in token_keys {
        writeln!(f, "\n[[{table}.token-key]]")?;
        writeln!(f, "kid = {}", text(kid))?;
        writeln!(f, "key = {}", text(MASK))?;
        writeln!(f, "algorithm = {}", text(algorithm.text()))?;
    }
    Ok(())
}

fn users(f: &mut fmt::Formatter<'_>, table: &str, users: &[User]) -> fmt::Result {
    for User { name, secret } in users {
        writeln!(f, "\n[[{table}.user]]\nname = {}", text(name))?;
        match secret {
            UserSecret::Password(_) => writeln!(f, "password = {}", text(MASK))?,
            UserSecret::Keys { sha256, .. } => {
                writeln!(f, "key = {}", text(MASK))?;
                if sha256.is_some() {
                    writeln!(f, "key-sha256 = {}", text(MASK))?;
                }
            }
        }
    }
    Ok(())
}

impl Effective<'_> {
    fn store(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Store { backend, connections, limits }) = &self.0.store else { return Ok(()) };
        writeln!(f, "\n[store]")?;
        writeln!(f, "type = {}", text(backend.name()))?;
        match backend {
            StoreBackend::Sqlite(path) => writeln!(f, "path = {}", text(path.display()))?,
            StoreBackend::Postgresql(Secret(url))
            | StoreBackend::Mysql(Secret(url))
            | StoreBackend::Redis(Secret(url)) => {
                writeln!(f, "url = {}", text(masked_url(url)))?;
            }
            StoreBackend::Http(HttpStore { url: Secret(url), ca, .. }) => {
                writeln!(f, "url = {}", text(masked_url(url)))?;
                writeln!(f, "secret = {}", text(MASK))?;
                if let Some((file, _)) = ca {
                    writeln!(f, "ca = {}", text(file.display()))?;
                }
            }
        }
        writeln!(f, "timeout = {}", text(period_text(limits.timeout)))?;
        writeln!(f, "connections = {connections}")?;
        writeln!(f, "max-questions = {}", limits.max_questions)?;
        writeln!(f, "cache-entries = {}", limits.cache_entries)?;
        writeln!(f, "cache-time = {}", text(period_text(limits.cache_time)))?;
        writeln!(f, "negative-cache-time = {}", text(period_text(limits.negative_cache_time)))?;
        writeln!(f, "max-failures = {}", limits.max_failures)?;
        writeln!(f, "max-pause = {}", text(period_text(limits.max_pause)))
    }
}

/// A TOML string.
fn text(value: impl Display) -> toml::Value {
    toml::Value::String(value.to_string())
}

/// A TOML list of strings.
fn list(values: &[impl Display]) -> toml::Value {
    toml::Value::Array(values.iter().map(text).collect())
}

fn buffer(bytes: Option<usize>) -> toml::Value {
    text(bytes.map_or_else(|| "system".to_owned(), size_text))
}
