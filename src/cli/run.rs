//! `turnserver` without a command: run the server in the foreground until it is told to stop.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing_subscriber::EnvFilter;

use crate::{
    auth::{
        directory::Slow,
        store::{Stores, logins::Logins, realms::KnownRealms},
    },
    config::{
        EMBEDDED_USER, Loaded, Settings,
        settings::{Log, LogFormat, Peers},
    },
    policy::limit::Limit,
    relay::{Counts, Endpoint, KernelDrops, Relay},
    turn::{Drop, Transport},
};

/// Starts the server with `loaded`; `generated_password` is set if the built-in configuration is used.
pub(super) fn run(loaded: Loaded, generated_password: Option<String>) -> ExitCode {
    start_logging(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match serve(loaded.settings, generated_password.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut settings: Settings, generated_password: Option<&str>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        // Before the first listener opens: a signal that comes early must not be lost.
        let stop = stop_signal().map_err(|error| format!("cannot watch for signals: {error}"))?;
        let relayed = settings.relay.addresses.clone();
        let anonymous = settings.auth.anonymous;
        let stores = settings.store.as_ref().map(Stores::open).transpose().map_err(|error| error.to_string())?;
        let logins = stores.clone().map(|stores| Logins::new(&settings, stores)).transpose();
        let logins = logins.map_err(|error| format!("cannot start: {error}"))?;
        let logins = logins.map(|logins| -> Arc<dyn Slow> { Arc::new(logins) });
        let (mut realms, again) = match (stores, &settings.store) {
            (Some(stores), Some(store)) => {
                (Some(KnownRealms::new(&settings, stores)), store.limits.cache_time.max(SOONEST))
            }
            _ => (None, SOONEST),
        };
        if let Some(realms) = &mut realms {
            begin(realms, &mut settings).await;
        }
        let relay = Relay::start_with(settings, logins).map_err(|error| error.to_string())?;
        for Endpoint { transport, address } in relay.endpoints() {
            tracing::info!(transport = transport.name(), %address, "listening");
        }
        for address in relayed {
            tracing::info!(local = %address.local, external = %address.external, "relaying");
        }
        if anonymous {
            tracing::warn!("anonymous = true: anybody can relay through this server");
        }
        if let Some(realms) = &realms {
            relay.add_peers(&realms.peers());
        }
        let path = relay.datagram_path();
        tracing::info!(io = path.name(), on = path.on(), off = path.off(), "datagrams");
        tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = relay.workers(), io = path.name(), "ready");
        if let Some(password) = generated_password {
            // Whoever started this without a configuration wants to try it. Closed output is no reason not to serve.
            let _ = print_ice_servers(&relay, password);
        }
        let mut stop = pin!(stop);
        let mut look = tokio::time::interval(LOOK);
        let mut drops = relay.kernel_drops();
        let mut read_again = tokio::time::interval_at(Instant::now() + again, again);
        read_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let signal = loop {
            tokio::select! {
                signal = &mut stop => break signal,
                _ = look.tick() => warn_of_drops(&mut drops, relay.kernel_drops()),
                changed = next_peers(realms.as_mut(), &mut read_again) => if let Some(peers) = changed {
                    tracing::info!("the store has other peer rules: they hold from now on");
                    relay.add_peers(&peers);
                },
            }
        };
        tracing::info!(signal, "stopping");
        // Joining the workers takes no longer than closing their sockets.
        log_counts(&relay.stop());
        Ok(())
    })
}

/// Between two looks at what the kernel drops.
const LOOK: Duration = Duration::from_secs(60);

/// The peer lists of a store are not read more often.
const SOONEST: Duration = Duration::from_secs(5);

/// Reads what a store says about realms, before anybody is served.
async fn begin(realms: &mut KnownRealms, settings: &mut Settings) {
    // A store that does not answer is not waited for again: it is asked for peers later.
    match realms.limit(settings).await {
        Ok(()) => {
            if realms.read_peers().await.is_err() {
                tracing::warn!("the store has not told its peer lists: until it does, those of the configuration hold");
            }
        }
        Err(_) => tracing::warn!(
            "the store has not told the limits and peers of realms: those of the configuration hold, of limits until the \
             next start, of peers until it tells them"
        ),
    }
}

/// Waits until it is time, and reads the peer lists of a store again; `None` if they are the same or cannot be read.
async fn next_peers(realms: Option<&mut KnownRealms>, time: &mut Interval) -> Option<Vec<Peers>> {
    let Some(realms) = realms else { return pending().await };
    time.tick().await;
    // What fails is logged where the store is asked.
    matches!(realms.read_peers().await, Ok(true)).then(|| realms.peers())
}

/// Warns of every listener on which the kernel has dropped more than it had `before`.
fn warn_of_drops(before: &mut Vec<KernelDrops>, now: Vec<KernelDrops>) {
    for (before, now) in before.iter().zip(&now) {
        let dropped = now.datagrams - before.datagrams;
        if dropped > 0 {
            tracing::warn!(
                address = %now.address, datagrams = dropped,
                "the kernel has dropped datagrams: the listener's buffer was full; raise listener-buffer \
                 (and net.core.rmem_max with it), or give the server more processors"
            );
        }
    }
    *before = now;
}

/// Logs to standard error, as the settings say.
fn start_logging(log: &Log) {
    // The level was validated with the settings.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Resolves with the signal's name when the process is asked to stop.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Resolves when the process is asked to stop.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        // Without the handler the system's own default stops the process.
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    })
}

/// Prints where the server is reached and an `iceServers` entry to paste.
fn print_ice_servers(relay: &Relay, password: &str) -> io::Result<()> {
    let mut urls: Vec<String> = relay.endpoints().iter().filter_map(url).collect();
    urls.dedup();
    let urls = urls.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    let mut out = io::stdout().lock();
    writeln!(out, "\nPaste this into a WebRTC application or the trickle-ICE page:\n")?;
    writeln!(
        out,
        "{{\"iceServers\": [{{\"urls\": [{urls}], \"username\": \"{EMBEDDED_USER}\", \"credential\": \"{password}\"}}]}}\n"
    )?;
    out.flush()
}

/// The TURN URI (RFC 7065) of an endpoint. A wildcard address is replaced by the host's own.
fn url(endpoint: &Endpoint) -> Option<String> {
    let ip = match endpoint.address.ip() {
        ip if ip.is_unspecified() => primary_address(ip.is_ipv6())?,
        ip => ip,
    };
    let host = SocketAddr::new(ip, endpoint.address.port());
    let (scheme, transport) = match endpoint.transport {
        Transport::Udp => ("turn", "udp"),
        Transport::Tcp => ("turn", "tcp"),
        Transport::Tls => ("turns", "tcp"),
        Transport::Dtls => ("turns", "udp"),
    };
    Some(format!("{scheme}:{host}?transport={transport}"))
}

/// The host's address towards the world, in one family, if it has one there.
fn primary_address(ipv6: bool) -> Option<IpAddr> {
    let host = crate::config::Host::detect().ok()?;
    host.primary.into_iter().find(|ip| ip.is_ipv6() == ipv6)
}

fn log_counts(Counts { totals, limits, kernel_drops }: &Counts) {
    let drops: Vec<String> = Drop::ALL
        .iter()
        .filter(|reason| totals.dropped(**reason) > 0)
        .map(|reason| format!("{}={}", reason.name(), totals.dropped(*reason)))
        .collect();
    let list = |counts: &[(Limit, u64)]| {
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        counts.map(|(limit, count)| format!("{}={count}", limit.key())).collect::<Vec<_>>()
    };
    let (mut limited, held_up) = (list(&limits.refused), list(&limits.held_up));
    if limits.refused_by_rate > 0 {
        limited.push(format!("allocation-rate={}", limits.refused_by_rate));
    }
    let kernel_drops: Vec<String> = kernel_drops
        .iter()
        .filter(|drops| drops.datagrams > 0)
        .map(|drops| format!("{}={}", drops.address, drops.datagrams))
        .collect();
    tracing::info!(
        allocations = totals.allocations,
        successes = totals.successes,
        errors = totals.errors,
        to_peer_packets = totals.to_peers.packets,
        to_peer_bytes = totals.to_peers.bytes,
        to_client_packets = totals.to_clients.packets,
        to_client_bytes = totals.to_clients.bytes,
        drops = drops.join(" "),
        limited = limited.join(" "),
        held_up = held_up.join(" "),
        kernel_drops = kernel_drops.join(" "),
        "stopped"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7064-3-01: `turns` is for secured endpoints only, and the transport is what carries TLS (RFC 7065 §3.1).
    #[test]
    fn urls_say_how_an_endpoint_is_reached() {
        for (transport, address, expected) in [
            (Transport::Udp, "192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp"),
            (Transport::Tcp, "[2001:db8::1]:3478", "turn:[2001:db8::1]:3478?transport=tcp"),
            (Transport::Tls, "192.0.2.1:443", "turns:192.0.2.1:443?transport=tcp"),
            (Transport::Dtls, "192.0.2.1:5349", "turns:192.0.2.1:5349?transport=udp"),
        ] {
            let endpoint = Endpoint { transport, address: address.parse().unwrap() };
            assert_eq!(url(&endpoint).as_deref(), Some(expected));
        }
    }
}
