//! `/metrics`: everything that is counted, for Prometheus. `docs/metrics.md` has every name.

use super::{
    House,
    census::Survey,
    exposition::{Exposition, Kind},
    health::{obstacles, unix_time},
    lifecycle::Phase,
    reply::{self, Reply},
};
use crate::{
    config::settings::RelayAddress,
    relay::BATCH_BOUNDS,
    turn::{Census, Drop, EndReason, Families, Mechanism, Totals, Transport, Verdict},
};

/// The text format that this is.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(super) async fn metrics(house: &House) -> Reply {
    let survey = house.surveyor.survey().await;
    let (totals, census) = (survey.totals(), survey.census());
    let mut text = Exposition::default();
    server(&mut text, house, &survey);
    allocations(&mut text, &totals, &census);
    requests(&mut text, &totals);
    let waiting: usize = survey.workers.iter().map(|worker| worker.inquiries).sum();
    let help = "Requests that wait until a store of users has answered.";
    text.single("turn_inquiries_waiting", Kind::Gauge, help, waiting);
    store(&mut text, house);
    traffic(&mut text, &totals);
    offload(&mut text, house, &totals);
    limits(&mut text, house);
    resources(&mut text, house);
    workers(&mut text, &survey, &house.monitor.failures());
    process(&mut text, house);
    if house.known().coturn_metrics {
        coturn(&mut text, &totals, &census);
    }
    reply::text(FORMAT, text.into_text())
}

fn server(text: &mut Exposition, house: &House, survey: &Survey) {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("os", std::env::consts::OS),
        ("arch", std::env::consts::ARCH),
        ("dtls", if cfg!(feature = "dtls") { "yes" } else { "no" }),
    ];
    text.family("turnserver_build_info", Kind::Gauge, "What this server was built from; always 1.").sample(&labels, 1);
    let ready = u8::from(obstacles(house).is_empty());
    text.single("turn_ready", Kind::Gauge, "Whether new clients should be sent here.", ready);
    let draining = u8::from(house.lifecycle.phase() != Phase::Serving);
    text.single("turn_draining", Kind::Gauge, "Whether new sessions are refused because the server drains.", draining);
    let answering = u8::from(survey.complete);
    let help = "Whether all workers have answered this scrape; if not, their numbers are older.";
    text.single("turn_workers_answering", Kind::Gauge, help, answering);
    let mut family = text.family(
        "turn_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        "When a certificate ends, in seconds since 1970.",
    );
    for certificate in &house.known().certificates {
        family.sample(&[("file", &certificate.file)], certificate.at);
    }
    house.reloads.metrics(text);
}

fn allocations(text: &mut Exposition, totals: &Totals, census: &Census) {
    let mut by_client = |name, kind, help, census: &Census| {
        let mut family = text.family(name, kind, help);
        for transport in Transport::ALL {
            for families in Families::ALL {
                let labels = [("transport", transport.name()), ("family", families.name())];
                family.sample(&labels, census.get(transport, families));
            }
        }
    };
    by_client(
        "turn_allocations_active",
        Kind::Gauge,
        "Allocations by the client's transport and the family of relayed addresses.",
        census,
    );
    by_client(
        "turn_allocations_total",
        Kind::Counter,
        "Allocations made, by the client's transport and the family of relayed addresses.",
        &totals.begun,
    );
    let mut family = text.family("turn_allocations_ended_total", Kind::Counter, "Allocations ended, by reason.");
    for reason in EndReason::ALL {
        family.sample(&[("reason", reason.name())], totals.ended(reason));
    }
}

fn requests(text: &mut Exposition, totals: &Totals) {
    let mut methods: Vec<(&str, u64)> = Vec::new();
    for (method, _, count) in totals.responses.iter() {
        match methods.last_mut() {
            Some((last, sum)) if *last == method => *sum += count,
            _ => methods.push((method, count)),
        }
    }
    let mut family = text.family("turn_requests_total", Kind::Counter, "Requests answered, by method.");
    for (method, count) in methods {
        family.sample(&[("method", method)], count);
    }
    let mut family = text.family("turn_errors_total", Kind::Counter, "Requests answered with an error, by its code.");
    for (method, code, count) in totals.responses.iter() {
        if let Some(code) = code {
            let code = if code == 0 { "other".to_owned() } else { code.to_string() };
            family.sample(&[("method", method), ("code", &code)], count);
        }
    }
    let help = "Checks of credentials, by what protected the request and what they came to; a client's first request has nothing.";
    let mut family = text.family("turn_authentications_total", Kind::Counter, help);
    for mechanism in Mechanism::ALL {
        for verdict in Verdict::ALL {
            let labels = [("mechanism", mechanism.name()), ("result", verdict.name())];
            family.sample(&labels, totals.credentials(mechanism, verdict));
        }
    }
}

/// How the store of users fares, if there is one.
fn store(text: &mut Exposition, house: &House) {
    let Some((store, counts)) = house.standing.as_ref().map(super::Standing::counts) else { return };
    let help = "Whether the store of users is asked; 0 while it is left alone after failures.";
    let up = u8::from(!counts.resting);
    text.family("turn_store_up", Kind::Gauge, help).sample(&[("store", store)], up);
    let help = "How often the store of users has begun to fail.";
    text.family("turn_store_outages_total", Kind::Counter, help).sample(&[("store", store)], counts.outages);
    let help = "Questions about users, secrets, keys and realms, by what came of them; cached, joined and refused ones were not put to \
                the store.";
    let mut family = text.family("turn_store_questions_total", Kind::Counter, help);
    for (result, count) in [
        ("cached", counts.cached),
        ("joined", counts.joined),
        ("answered", counts.answered),
        ("timed-out", counts.timed_out),
        ("failed", counts.failed),
        ("malformed", counts.malformed),
        ("refused-resting", counts.refused_resting),
        ("refused-busy", counts.refused_busy),
    ] {
        family.sample(&[("store", store), ("result", result)], count);
    }
    let help = "Questions that wait for the store's answer.";
    text.family("turn_store_questions_waiting", Kind::Gauge, help).sample(&[("store", store)], counts.waiting);
    let help = "Users and keys in the cache: found ones, and names that are known not to be there.";
    let mut family = text.family("turn_store_cache_entries", Kind::Gauge, help);
    family.sample(&[("store", store), ("kind", "found")], counts.kept);
    family.sample(&[("store", store), ("kind", "absent")], counts.kept_absent);
}

fn traffic(text: &mut Exposition, totals: &Totals) {
    let directions = [("to-peers", totals.to_peers), ("to-clients", totals.to_clients)];
    let help = "Bytes of application data relayed, without headers, as they are relayed.";
    let mut family = text.family("turn_relay_bytes_total", Kind::Counter, help);
    for (direction, traffic) in directions {
        family.sample(&[("direction", direction)], traffic.bytes);
    }
    let help = "Datagrams of application data relayed, as they are relayed.";
    let mut family = text.family("turn_relay_packets_total", Kind::Counter, help);
    for (direction, traffic) in directions {
        family.sample(&[("direction", direction)], traffic.packets);
    }
    let help = "What was dropped in silence, by reason; queue-full and worker-busy are queues of this server.";
    let mut family = text.family("turn_drops_total", Kind::Counter, help);
    for reason in Drop::ALL {
        family.sample(&[("reason", reason.name())], totals.dropped(*reason));
    }
}

/// What the kernel relays by itself.
fn offload(text: &mut Exposition, house: &House, totals: &Totals) {
    let help = "Whether the kernel relays by itself, and how; always 1.";
    let mode = house.monitor.offload().name();
    text.family("turn_offload_info", Kind::Gauge, help).sample(&[("mode", mode)], 1);
    let directions = [("to-peers", totals.kernel_to_peers), ("to-clients", totals.kernel_to_clients)];
    let help = "Of turn_relay_bytes_total, what the kernel has relayed by itself.";
    let mut family = text.family("turn_offload_bytes_total", Kind::Counter, help);
    for (direction, traffic) in directions {
        family.sample(&[("direction", direction)], traffic.bytes);
    }
    let help = "Of turn_relay_packets_total, what the kernel has relayed by itself.";
    let mut family = text.family("turn_offload_packets_total", Kind::Counter, help);
    for (direction, traffic) in directions {
        family.sample(&[("direction", direction)], traffic.packets);
    }
    let counts = house.monitor.offload_counts().unwrap_or_default();
    let help = "Packets to ports of this server that the kernel's program has passed up to user space, by reason.";
    let mut family = text.family("turn_offload_passed_total", Kind::Counter, help);
    for (reason, packets) in counts.passed {
        family.sample(&[("reason", reason)], packets);
    }
    let help = "Packets that the kernel's program has dropped: changed already when sending proved impossible.";
    text.single("turn_offload_lost_total", Kind::Counter, help, counts.lost);
    let help = "Channels that user space has served because the kernel had no room for them.";
    text.single("turn_offload_no_room_total", Kind::Counter, help, counts.no_room);
}

/// What the limits have done, by their keys in the configuration.
fn limits(text: &mut Exposition, house: &House) {
    let counts = house.monitor.limits();
    let mut family = text.family(
        "turn_limits_refused_total",
        Kind::Counter,
        "Requests refused and datagrams dropped because of a limit, by its key in the configuration.",
    );
    for (limit, count) in &counts.refused {
        family.sample(&[("limit", limit.key())], *count);
    }
    family.sample(&[("limit", "allocation-rate")], counts.refused_by_rate);
    let help = "Times that a stream was made to wait because of a limit, by its key in the configuration.";
    let mut family = text.family("turn_limits_held_up_total", Kind::Counter, help);
    for (limit, count) in &counts.held_up {
        family.sample(&[("limit", limit.key())], *count);
    }
    let help = "Allocations and reserved ports as quotas count them; unused ones are apart where a quota of them is configured.";
    let mut family = text.family("turn_limits_allocations", Kind::Gauge, help);
    family.sample(&[("use", "used")], counts.allocations.used);
    family.sample(&[("use", "unused")], counts.allocations.unused);
    let help =
        "What workers have taken from shared buckets of bandwidth (bits) and packets (datagrams), and not used yet.";
    let mut family = text.family("turn_limits_spare_tokens", Kind::Gauge, help);
    for (unit, spare) in ["bits", "datagrams"].into_iter().zip(counts.spare) {
        family.sample(&[("unit", unit)], spare);
    }
    let help = "Users, tenants and realms, and the server, of whom bandwidth, packets, peers or bytes of the month are counted.";
    text.single("turn_limits_accounts", Kind::Gauge, help, counts.accounts);
}

fn resources(text: &mut Exposition, house: &House) {
    let ports = house.monitor.ports();
    let mut pools = |name, help, value: fn(&crate::relay::PortUse) -> usize| {
        let mut family = text.family(name, Kind::Gauge, help);
        for pool in &ports {
            let labels = [("address", pool.address.to_string()), ("protocol", pool.protocol.to_owned())];
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
            family.sample(&labels, value(pool));
        }
    };
    pools("turn_relay_ports", "Relay ports there are.", |pool| pool.size);
    pools("turn_relay_ports_used", "Relay ports in use or reserved.", |pool| pool.used);
    let help = "What new clients are told of a relay address; always 1.";
    let mut family = text.family("turn_external_address_info", Kind::Gauge, help);
    for RelayAddress { local, external } in &house.known().settings.relay.addresses {
        family.sample(&[("address", &local.to_string()), ("external", &external.to_string())], 1);
    }
    let help = "Connections of clients over TCP and TLS, and sessions of DTLS.";
    text.single("turn_connections_active", Kind::Gauge, help, house.monitor.connections());
    let help = "Datagrams that the kernel has dropped on a listener: its buffer was full.";
    let mut family = text.family("turn_listener_kernel_drops_total", Kind::Counter, help);
    for drops in house.monitor.kernel_drops() {
        family.sample(&[("address", &drops.address.to_string())], drops.datagrams);
    }
}

fn workers(text: &mut Exposition, survey: &Survey, failures: &[u64]) {
    let help = "Allocations of each worker.";
    let mut family = text.family("turn_worker_allocations_active", Kind::Gauge, help);
    for (at, worker) in survey.workers.iter().enumerate() {
        family.sample(&[("worker", &at.to_string())], worker.census.sum());
    }
    let help = "Time that each worker has had a processor; its rate is the worker's load, at most 1.";
    let mut family = text.family("turn_worker_processor_seconds_total", Kind::Counter, help);
    for (at, worker) in survey.workers.iter().enumerate() {
        if let Some(time) = worker.processor_time {
            family.sample(&[("worker", &at.to_string())], time.as_secs_f64());
        }
    }
    let help = "Times that a bug has ended a worker: it has lost its sessions and begun anew.";
    let mut family = text.family("turn_worker_failures_total", Kind::Counter, help);
    for (at, failures) in failures.iter().enumerate() {
        family.sample(&[("worker", &at.to_string())], failures);
    }
    let batches = survey.batches();
    text.family("turn_receive_batch_datagrams", Kind::Histogram, "Datagrams received at once.").histogram(
        &BATCH_BOUNDS,
        &batches.counts,
        batches.datagrams,
    );
}

fn process(text: &mut Exposition, house: &House) {
    let help = "When the server was started, in seconds since 1970.";
    text.single("process_start_time_seconds", Kind::Gauge, help, unix_time(house.started));
    #[cfg(target_os = "linux")]
    {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        if let Some(most) = most.and_then(|most| most.parse::<u64>().ok()) {
            text.single("process_max_fds", Kind::Gauge, "File descriptors that there may be.", most);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            text.single("process_open_fds", Kind::Gauge, "File descriptors that there are.", open.count());
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        if let Some(kilobytes) = resident.and_then(|text| text.parse::<u64>().ok()) {
            let help = "Memory of this process that is resident.";
            text.single("process_resident_memory_bytes", Kind::Gauge, help, kilobytes * 1024);
        }
    }
}

/// By the names that coturn gives them, as far as the same is counted here. Traffic is of application data, and counted as it
/// is relayed rather than at the end of sessions.
fn coturn(text: &mut Exposition, totals: &Totals, census: &Census) {
    let mut family = text.family("turn_total_allocations", Kind::Gauge, "As coturn: allocations, by transport.");
    for (name, transport) in ["UDP", "TCP", "TLS", "DTLS"].into_iter().zip(Transport::ALL) {
        let sum: u64 = Families::ALL.into_iter().map(|families| census.get(transport, families)).sum();
        family.sample(&[("type", name)], sum);
    }
    let binding = |error: bool| {
        let found = totals.responses.iter().filter(|(method, code, _)| *method == "Binding" && code.is_some() == error);
        found.map(|(.., count)| count).sum::<u64>()
    };
    let challenged = totals.responses.iter().filter(|(_, code, _)| *code == Some(401)).map(|(.., count)| count);
    let (up, down) = (totals.to_peers, totals.to_clients);
    for (name, help, value) in [
        ("stun_binding_request", "As coturn: Binding requests.", binding(false) + binding(true)),
        ("stun_binding_response", "As coturn: Binding responses.", binding(false)),
        ("stun_binding_error", "As coturn: Binding errors.", binding(true)),
        ("turn_unauthenticated_401_responses", "As coturn: 401 responses.", challenged.sum()),
        ("turn_total_traffic_rcvp", "As coturn: packets from clients.", up.packets),
        ("turn_total_traffic_rcvb", "As coturn: bytes from clients.", up.bytes),
        ("turn_total_traffic_sentp", "As coturn: packets to clients.", down.packets),
        ("turn_total_traffic_sentb", "As coturn: bytes to clients.", down.bytes),
        ("turn_total_traffic_peer_rcvp", "As coturn: packets from peers.", down.packets),
        ("turn_total_traffic_peer_rcvb", "As coturn: bytes from peers.", down.bytes),
        ("turn_total_traffic_peer_sentp", "As coturn: packets to peers.", up.packets),
        ("turn_total_traffic_peer_sentb", "As coturn: bytes to peers.", up.bytes),
    ] {
        text.single(name, Kind::Untyped, help, value);
    }
}
