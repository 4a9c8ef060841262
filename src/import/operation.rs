//! `[compatibility]`, `[process]`, `[management]` and `[log]`: how it runs, and how it is watched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    document::text,
    report::Kind,
    source::{Given, Source, from},
    version::Version,
};

pub(super) fn import(source: &mut Source<'_>) {
    compatibility(source);
    process(source);
    metrics(source);
    log(source);
}

fn compatibility(source: &mut Source<'_>) {
    if let Some(line) = source.on("rfc3489-compatibility") {
        source.document.set("[compatibility]", "rfc3489", true, from("rfc3489-compatibility", line));
    }
    let key = "rfc5766-channel-numbers";
    if let Some(line) = source.on(key) {
        source.document.set("[compatibility]", key, true, from(key, line));
    } else if source.line(key).is_none() && source.version < Version::STRICT_CHANNELS {
        source.document.set("[compatibility]", key, true, "as coturn before 4.16.0 does; only old clients need it");
    }
}

fn process(source: &mut Source<'_>) {
    const MOST_WORKERS: u64 = 256;
    let (threads, cpus) = (source.number("relay-threads"), source.number("cpus"));
    if let Some((key, Given { value, line })) = threads.map(|it| ("relay-threads", it)).or(cpus.map(|it| ("cpus", it)))
    {
        source.document.set("[process]", "workers", value.clamp(1, MOST_WORKERS), from(key, line));
    }
    if let (Some(_), Some(Given { line, .. })) = (threads, cpus) {
        source.report.say(Kind::Ignored, line, "cpus", "relay-threads says how many workers there are");
    }
    if let Some(line) = source.on("fingerprint") {
        source.document.set("[process]", "fingerprint", true, from("fingerprint", line));
    }
    // The inverse says it with `=false`.
    let inverse = source.line("no-software-attribute").filter(|_| !source.is_on("no-software-attribute"));
    if let Some(line) = source.on("software-attribute").or(inverse) {
        source.document.set("[process]", "software-attribute", true, from("software-attribute", line));
    }
}

/// `prometheus`: coturn has metrics on all addresses unless told otherwise.
fn metrics(source: &mut Source<'_>) {
    const PORT: u16 = 9_641;
    let tls = source.on("prometheus-tls");
    let on = source.on("prometheus").or(tls);
    let (port, address) = (source.port("prometheus-port"), source.text("prometheus-address"));
    let Some(line) = on else {
        for (key, line) in
            [("prometheus-port", port.map(|it| it.line)), ("prometheus-address", address.map(|it| it.line))]
        {
            if let Some(line) = line {
                source.report.say(Kind::Ignored, line, key, "metrics are not asked for (prometheus)");
            }
        }
        return;
    };
    let given = address.and_then(|given| source.address("prometheus-address", given).map(|ip| (ip, given.line)));
    let mut ip = given.map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |(ip, _)| ip);
    if let Some(line) = tls {
        ip = Ipv4Addr::LOCALHOST.into();
        let what = "metrics have no TLS of their own, and are there for this host alone: put a proxy in front";
        source.report.say(Kind::Changed, line, "prometheus-tls", what);
    } else if given.is_none() {
        let what = "coturn has metrics on all addresses; here they are there for this host alone, unless prometheus-address says \
                    which address they are on";
        source.report.say(Kind::Changed, line, "prometheus", what);
    }
    let at = SocketAddr::new(ip, port.map_or(PORT, |port| port.value));
    if is_relayed(source, at) {
        let what =
            format!("{at} may be a relayed address, as TCP is relayed: set no-tcp-relay, or another port or range");
        source.report.say(Kind::Error, line, "prometheus", what);
    }
    source.document.set("[management]", "listen", text(at), from("prometheus", line));
    if !ip.is_loopback() {
        let [_, token] = source.random();
        source.document.set("[management]", "token", text(token), "for all but metrics; made by the import");
        source.document.set("[management]", "public-metrics", true, "without the token, as with coturn");
    }
    source.document.set("[management]", "coturn-metrics", true, "also by the names that coturn gives them");
}

/// Whether clients could take the port for relaying TCP before metrics do.
fn is_relayed(source: &mut Source<'_>, at: SocketAddr) -> bool {
    let named = if source.line("relay-ip").is_some() { "relay-ip" } else { "listening-ip" };
    let named: Vec<IpAddr> = source.all(named).iter().filter_map(|given| given.value.parse().ok()).collect();
    let min = source.port("min-port").map_or(49_152, |given| given.value);
    let max = source.port("max-port").map_or(65_535, |given| given.value);
    let anywhere = at.ip().is_unspecified() || named.iter().all(IpAddr::is_unspecified) && !at.ip().is_loopback();
    !source.is_on("no-tcp-relay") && (min..=max).contains(&at.port()) && (anywhere || named.contains(&at.ip()))
}

/// `verbose` and the like say how much is said, and `log-min-level` what is left of it.
fn log(source: &mut Source<'_>) {
    const LEVELS: [(&str, &str); 4] = [("error", "error"), ("warning", "warn"), ("info", "info"), ("debug", "debug")];
    let wanted = source.on("Verbose").map(|line| (3, from("Verbose", line)));
    let wanted = wanted.or_else(|| source.on("verbose").map(|line| (2, from("verbose", line))));
    let least = source.text("log-min-level").and_then(|Given { value, line }| {
        let level = LEVELS.iter().position(|(name, _)| *name == value);
        if level.is_none() {
            source.report.say(Kind::Error, line, "log-min-level", "is none of debug, info, warning and error");
        }
        level.map(|level| (level, from("log-min-level", line)))
    });
    let (level, why) = wanted.unwrap_or((2, String::new()));
    let (level, why) = least.filter(|(least, _)| *least < level).unwrap_or((level, why));
    source.document.set("[log]", "level", text(LEVELS[level].1), why);
}
