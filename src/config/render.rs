//! Settings back to text: every effective value, defaults included, secrets masked. The text is TOML.

use std::fmt::{self, Display};

use super::{
    settings::{DefaultFamily, LogFormat, Settings, UdpIo, User, UserSecret},
    value::{period_text, size_text},
};

const MASK: &str = "****";

/// Prints all settings, masked, as TOML.
#[derive(Debug, Clone, Copy)]
pub struct Effective<'s>(pub &'s Settings);

impl Display for Effective<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { lifetimes, limits, peers, tcp, compatibility, process, log, .. } = self.0;
        self.listeners(f)?;
        self.relay(f)?;
        self.auth(f)?;

        writeln!(f, "\n[lifetimes]")?;
        writeln!(f, "default-allocate-lifetime = {}", text(period_text(lifetimes.default_allocate)))?;
        writeln!(f, "max-allocate-lifetime = {}", text(period_text(lifetimes.max_allocate)))?;
        writeln!(f, "permission-lifetime = {}", text(period_text(lifetimes.permission)))?;
        writeln!(f, "channel-lifetime = {}", text(period_text(lifetimes.channel)))?;
        writeln!(f, "reservation-lifetime = {}", text(period_text(lifetimes.reservation)))?;
        writeln!(f, "connect-timeout = {}", text(period_text(lifetimes.connect)))?;
        writeln!(f, "connection-bind-timeout = {}", text(period_text(lifetimes.connection_bind)))?;

        writeln!(f, "\n[limits]")?;
        writeln!(f, "user-quota = {}", limits.user_quota.unwrap_or(0))?;
        writeln!(f, "total-quota = {}", limits.total_quota.unwrap_or(0))?;
        writeln!(f, "permissions-per-allocation = {}", limits.permissions_per_allocation)?;
        writeln!(f, "channels-per-allocation = {}", limits.channels_per_allocation)?;
        writeln!(f, "connections-per-allocation = {}", limits.connections_per_allocation)?;
        writeln!(f, "unauthorized-rate = {}", limits.unauthorized_rate.unwrap_or(0))?;
        writeln!(f, "binding-rate = {}", limits.binding_rate.unwrap_or(0))?;
        writeln!(f, "source-prefix-ipv4 = {}", limits.ipv4_prefix)?;
        writeln!(f, "source-prefix-ipv6 = {}", limits.ipv6_prefix)?;

        writeln!(f, "\n[peers]")?;
        writeln!(f, "allowed-peer-ip = {}", list(&peers.allowed))?;
        writeln!(f, "denied-peer-ip = {}", list(&peers.denied))?;

        if let Some(redirect) = &self.0.redirect {
            writeln!(f, "\n[redirect]")?;
            writeln!(f, "alternate-server = {}", list(&redirect.servers))?;
            if let Some(domain) = &redirect.domain {
                writeln!(f, "alternate-domain = {}", text(domain))?;
            }
        }

        writeln!(f, "\n[tcp]")?;
        writeln!(f, "idle-timeout = {}", text(period_text(tcp.idle_timeout)))?;
        writeln!(f, "message-timeout = {}", text(period_text(tcp.message_timeout)))?;
        writeln!(f, "max-connections = {}", tcp.max_connections)?;
        writeln!(f, "max-connections-per-ip = {}", tcp.max_connections_per_ip)?;
        writeln!(f, "queue-bytes = {}", text(size_text(tcp.queue_bytes)))?;
        writeln!(f, "queue-age = {}", text(period_text(tcp.queue_age)))?;

        writeln!(f, "\n[compatibility]")?;
        writeln!(f, "rfc3489 = {}", compatibility.rfc3489)?;
        writeln!(f, "rfc5766-channel-numbers = {}", compatibility.rfc5766_channel_numbers)?;

        let udp_io = match process.udp_io {
            UdpIo::Auto => "auto",
            UdpIo::Portable => "portable",
        };
        writeln!(f, "\n[process]")?;
        writeln!(f, "workers = {}", process.workers)?;
        writeln!(f, "udp-io = {}", text(udp_io))?;
        writeln!(f, "listener-buffer = {}", buffer(process.listener_buffer))?;
        writeln!(f, "software-attribute = {}", process.software_attribute)?;
        writeln!(f, "fingerprint = {}", process.fingerprint)?;

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
            let transports = [("udp", listener.udp), ("tcp", listener.tcp)];
            let transports: Vec<&str> = transports.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            writeln!(f, "[[listener]]")?;
            writeln!(f, "listening-ip = {}", list(&listener.addresses))?;
            writeln!(f, "listening-port = {}", listener.port)?;
            writeln!(f, "transports = {}\n", list(&transports))?;
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
        writeln!(f, "external-ip = {}", list(&mapped))?;
        writeln!(f, "min-port = {}", relay.min_port)?;
        writeln!(f, "max-port = {}", relay.max_port)?;
        writeln!(f, "socket-buffer = {}", buffer(relay.socket_buffer))?;
        writeln!(f, "allocation-default-address-family = {}", text(family))?;
        writeln!(f, "udp-relaying = {}", relay.udp)?;
        writeln!(f, "tcp-relaying = {}", relay.tcp)
    }

    fn auth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = &self.0.auth;
        writeln!(f, "\n[auth]")?;
        writeln!(f, "realm = {}", text(&auth.realm))?;
        writeln!(f, "anonymous = {}", auth.anonymous)?;
        writeln!(f, "stale-nonce = {}", text(period_text(auth.stale_nonce)))?;
        for User { name, secret } in &auth.users {
            writeln!(f, "\n[[auth.user]]\nname = {}", text(name))?;
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
