//! `turnserver` without a command: run the server in the foreground until it is told to stop.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{
    outward,
    reload::{Event, Parts, Running, Source},
    signals::{Signal, Signals},
    stored_realms::{SOONEST, StoredRealms},
    systemd,
};
use crate::{
    admin::{Admin, Lifecycle, LogLevel, Next, Reloads, SetLevel, Sockets, Standing},
    auth::{
        directory::Slow,
        store::{Stores, logins::Logins},
    },
    config::{
        EMBEDDED_USER, Loaded, Settings,
        settings::{Log, LogFormat},
    },
    policy::limit::Limit,
    relay::{
        Counts, Endpoint, FORWARDING_OFF, KernelDrops, OffloadReport, PassedSockets, Privileges, Relay, log_panics,
    },
    turn::{Drop, Transport},
};

/// Starts the server with `loaded`; `generated_password` is set if the built-in configuration is used.
pub(super) fn run(loaded: Loaded, generated_password: Option<String>, source: Option<Source>) -> ExitCode {
    // Before anything is opened here.
    let passed = systemd::passed_sockets();
    let log = start_logging(&loaded.settings.log);
    log_panics();
    // Before any other thread is started, which would keep them.
    let privileges = Privileges::set_apart(&loaded.settings);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let passed = passed.map_err(|error| format!("cannot take the sockets of LISTEN_FDS: {error}"));
    let loaded = (loaded.settings, loaded.files);
    match passed.and_then(|passed| serve(loaded, generated_password.as_deref(), source, log, passed, privileges)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn serve(
    (mut settings, files): (Settings, Vec<PathBuf>),
    generated_password: Option<&str>,
    source: Option<Source>,
    log: Arc<LogLevel>,
    passed: PassedSockets,
    privileges: Privileges,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        // Before the first listener opens: a signal that comes early must not be lost.
        let mut signals = Signals::watch().map_err(|error| format!("cannot watch for signals: {error}"))?;
        let sockets = Sockets::open(&settings.management).map_err(|error| error.to_string())?;
        outward::find(&mut settings.relay, &[]).await;
        let stores = settings.store.as_ref().map(Stores::open).transpose().map_err(|error| error.to_string())?;
        let logins = stores.clone().map(|stores| Logins::new(&settings, stores)).transpose();
        let logins = logins.map_err(|error| format!("cannot start: {error}"))?.map(Arc::new);
        let slow = logins.clone().map(|logins| -> Arc<dyn Slow> { logins });
        let realms = StoredRealms::begin(stores, &mut settings).await;
        let reserved = sockets.addresses();
        let relay = Relay::start_on(settings.clone(), slow, &reserved, passed, privileges);
        let relay = relay.map_err(|error| error.to_string())?;
        for Endpoint { transport, address } in relay.endpoints() {
            tracing::info!(transport = transport.name(), %address, "listening");
        }
        for address in &settings.relay.addresses {
            tracing::info!(local = %address.local, external = %address.external, "relaying");
        }
        if settings.auth.anonymous {
            tracing::warn!("anonymous = true: anybody can relay through this server");
        }
        let lifecycle = Arc::new(Lifecycle::new(relay.monitor().clone(), settings.process.drain_timeout));
        let standing = logins.clone().map(|logins| Standing::new(relay.monitor().clone(), logins));
        let (reloads, requests) = Reloads::new();
        let admin = match manage(sockets, &settings, &relay, &lifecycle, standing.clone(), (&log, &reloads)) {
            Ok(admin) => admin,
            Err(error) => {
                let _ = relay.stop();
                return Err(error);
            }
        };
        realms.tell(&relay);
        let path = relay.datagram_path();
        tracing::info!(io = path.name(), on = path.on(), off = path.off(), "datagrams");
        match relay.monitor().offload() {
            OffloadReport::Off => {}
            OffloadReport::Unavailable(why) => tracing::warn!(%why, "no offload: all data pass through user space"),
            report @ OffloadReport::On { .. } => tracing::info!(mode = report.name(), on = %report, "offload"),
        }
        tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = relay.workers(), io = path.name(), "ready");
        if let Some(password) = generated_password {
            // Whoever started this without a configuration wants to try it. Closed output is no reason not to serve.
            let _ = print_ice_servers(&relay, password);
        }
        systemd::ready();
        let attendant = tokio::spawn(systemd::attend(relay.monitor().clone(), Arc::clone(&lifecycle)));
        let period = settings.store.as_ref().map(|store| store.limits.cache_time.max(SOONEST));
        let users = async {
            match (&standing, period) {
                (Some(standing), Some(period)) => standing.watch(period).await,
                _ => pending().await,
            }
        };
        let parts = Parts { relay, admin, lifecycle: Arc::clone(&lifecycle), log, realms, logins, reloads, reserved };
        let mut running = Running::new(parts, source, (settings, files), requests);
        tokio::select! {
            () = wait_for_the_end(&mut running, &lifecycle, &mut signals) => {}
            () = users => {}
        }
        attendant.abort();
        systemd::stopping();
        // Joining the workers takes no longer than closing their sockets.
        let Parts { relay, admin, .. } = running.parts;
        let counts = relay.stop();
        if let Some(admin) = admin {
            admin.stop();
        }
        log_counts(&counts);
        Ok(())
    })
}

/// Serves whoever watches and manages this server, if there is a way to. What is there by default only is done without where it
/// cannot be had.
fn manage(
    sockets: Sockets,
    settings: &Settings,
    relay: &Relay,
    lifecycle: &Arc<Lifecycle>,
    standing: Option<Standing>,
    (log, reloads): (&Arc<LogLevel>, &Arc<Reloads>),
) -> Result<Option<Admin>, String> {
    if sockets.is_empty() {
        return Ok(None);
    }
    let (addresses, path) = (sockets.addresses(), sockets.path().map(Path::to_owned));
    let (monitor, lifecycle) = (relay.monitor().clone(), Arc::clone(lifecycle));
    match Admin::start(sockets, settings, monitor, lifecycle, standing, Arc::clone(log), Arc::clone(reloads)) {
        Ok(admin) => {
            for address in addresses {
                tracing::info!(%address, "management");
            }
            if let Some(path) = path {
                tracing::info!(path = %path.display(), "management socket");
            }
            Ok(Some(admin))
        }
        Err(error) if settings.management.is_required() => Err(format!("cannot start management: {error}")),
        Err(error) => {
            tracing::warn!(why = %error, "no management");
            Ok(None)
        }
    }
}

/// Waits until the server is to end.
async fn wait_for_the_end(running: &mut Running, lifecycle: &Lifecycle, signals: &mut Signals) {
    let mut ended = pin!(lifecycle.ended());
    let mut look = tokio::time::interval(LOOK);
    let mut close = tokio::time::interval(CLOSE);
    let mut drops = running.parts.relay.kernel_drops();
    let mut idle = 0;
    loop {
        let event = tokio::select! {
            signal = signals.next() => Event::Signal(signal),
            why = &mut ended => return tracing::info!(why, "stopping"),
            event = running.event() => event,
            _ = look.tick() => {
                warn_of_drops(&mut drops, running.parts.relay.kernel_drops());
                warn_of_idle_offload(&mut idle, &running.parts.relay);
                continue;
            }
            _ = close.tick() => {
                running.parts.relay.look_at_addresses();
                if running.parts.relay.has_retired() {
                    running.parts.relay.close_retired().await;
                }
                continue;
            }
        };
        match event {
            Event::Signal(Signal::Terminate) => match lifecycle.terminate() {
                Next::Drains => systemd::draining(),
                Next::Stops => return tracing::info!(signal = "SIGTERM", "stopping"),
            },
            Event::Signal(Signal::Interrupt(name)) => return tracing::info!(signal = name, "stopping"),
            Event::Signal(Signal::Drain) => lifecycle.drain(None, false),
            Event::Signal(Signal::Reload) if running.is_configured() => running.heed_signal().await,
            // Somebody has tried it in a terminal, and closed that.
            Event::Signal(Signal::Reload) => return tracing::info!(signal = "SIGHUP", "stopping"),
            Event::Wish(wish) => running.fulfil(wish).await,
            Event::Peers => {
                running.parts.realms.tell(&running.parts.relay);
                tracing::info!("the store has other peer rules: they hold from now on");
            }
        }
    }
}

/// Between two looks at what the kernel drops.
const LOOK: Duration = Duration::from_secs(60);

/// Between two looks whether a listener that was dropped from the configuration can be closed, and whether this host has other
/// addresses.
const CLOSE: Duration = Duration::from_secs(5);

/// Warns of every listener on which the kernel has dropped more than it had `before`.
fn warn_of_drops(before: &mut Vec<KernelDrops>, now: Vec<KernelDrops>) {
    for now in &now {
        let known = before.iter().find(|before| before.address == now.address);
        let dropped = now.datagrams.saturating_sub(known.map_or(0, |before| before.datagrams));
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

/// Warns if the kernel relays nothing because it gets no routes.
fn warn_of_idle_offload(before: &mut u64, relay: &Relay) {
    let Some(counts) = relay.monitor().offload_counts() else { return };
    let now = counts.passed(FORWARDING_OFF);
    if now > *before {
        tracing::warn!(
            packets = now - *before,
            "nothing is offloaded: the loopback interface does not forward; run `sysctl -w net.ipv4.conf.lo.forwarding=1 \
             net.ipv6.conf.lo.forwarding=1`"
        );
    }
    *before = now;
}

/// Logs to standard error, or to the journal that it is connected to, as the settings say. Returns what changes the level.
fn start_logging(log: &Log) -> Arc<LogLevel> {
    // The level was validated with the settings.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    #[cfg(target_os = "linux")]
    if log.format == LogFormat::Text
        && let Some(journal) = super::journal::Journal::connected()
    {
        use tracing_subscriber::{layer::SubscriberExt, reload, util::SubscriberInitExt};

        let (filter, handle) = reload::Layer::new(filter);
        tracing_subscriber::registry().with(filter).with(journal).init();
        let set = move |level: &str| handle.reload(filter_of(level)?).map_err(|error| error.to_string());
        return Arc::new(LogLevel::new(log.level.clone(), Box::new(set)));
    }
    // A line that cannot be written, on a full disk say, is lost. To say so on standard error would be to write there, too, and to
    // panic where that fails.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let set: SetLevel = match log.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |level| handle.reload(filter_of(level)?).map_err(|error| error.to_string()))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |level| handle.reload(filter_of(level)?).map_err(|error| error.to_string()))
        }
    };
    Arc::new(LogLevel::new(log.level.clone(), set))
}

fn filter_of(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| error.to_string())
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

fn log_counts(Counts { totals, limits, kernel_drops, offload }: &Counts) {
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
    if let Some(offload) = offload {
        let passed: Vec<String> = offload
            .passed
            .iter()
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| format!("{reason}={packets}"))
            .collect();
        tracing::info!(
            to_peer_packets = totals.kernel_to_peers.packets,
            to_peer_bytes = totals.kernel_to_peers.bytes,
            to_client_packets = totals.kernel_to_clients.packets,
            to_client_bytes = totals.kernel_to_clients.bytes,
            passed_up = passed.join(" "),
            no_room = offload.no_room,
            lost = offload.lost,
            "relayed by the kernel, included in what follows"
        );
    }
    tracing::info!(
        allocations = totals.allocations(),
        successes = totals.successes(),
        errors = totals.errors(),
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
