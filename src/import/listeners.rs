//! `[[listener]]` and `[tls]`: where clients are served, and over what.
//!
//! On every port of coturn's the first bytes of a client tell whether it speaks TLS (or DTLS) or not, so that a listener here has
//! all transports that are on.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    document::{Table, list, text},
    report::Kind,
    source::{Given, Source, from, from_all},
    version::Version,
};

/// Ports that coturn listens on unless told otherwise.
const PORT: u16 = 3_478;
const SECURE_PORT: u16 = 5_349;

/// What is served.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) udp: bool,
    pub(super) tcp: bool,
    pub(super) tls: bool,
    pub(super) dtls: bool,
}

impl Served {
    fn names(self) -> Vec<&'static str> {
        let all = [("udp", self.udp), ("tcp", self.tcp), ("tls", self.tls), ("dtls", self.dtls)];
        all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
    }
}

pub(super) fn import(source: &mut Source<'_>) {
    let addresses = addresses(source);
    let served = served(source);
    let plain = source.port("listening-port");
    let secure = source.port("tls-listening-port");
    let (port, secure_port) =
        (plain.map_or(PORT, |given| given.value), secure.map_or(SECURE_PORT, |given| given.value));
    let base = Served { tls: served.tls && served.tcp, dtls: served.dtls && served.udp, ..served };
    let mut bound: Vec<(u16, Option<IpAddr>)> = Vec::new();

    if base.names().is_empty() && !(served.tls || served.dtls) {
        let what = "no-udp and no-tcp leave nothing to listen on, as there is neither TLS nor DTLS";
        source.report.say(Kind::Error, source.line("no-udp"), "no-udp", what);
        return;
    }
    if !base.names().is_empty() {
        listener(source, &addresses, port, plain.map(|given| from("listening-port", given.line)), base);
        bound.push((port, None));
    }
    if (served.tls || served.dtls) && !bound.contains(&(secure_port, None)) {
        // Whatever is off is off here, too.
        let also = Served { udp: served.udp && served.dtls, tcp: served.tcp && served.tls, ..served };
        listener(source, &addresses, secure_port, secure.map(|given| from("tls-listening-port", given.line)), also);
        bound.push((secure_port, None));
    } else if let (Some(given), false) = (secure, served.tls || served.dtls) {
        source.report.say(Kind::Ignored, given.line, "tls-listening-port", "neither TLS nor DTLS is served");
    }
    alternate(source, &addresses, served, secure_port, &mut bound);
    auxiliary(source, &addresses, base, &mut bound);
    proxied(source, &addresses, served);
    tls(source, served);
}

/// Writes a listener on all of the addresses.
fn listener(source: &mut Source<'_>, addresses: &[Given<IpAddr>], port: u16, why: Option<String>, served: Served) {
    let mut table = Table::new("[[listener]]");
    if !addresses.is_empty() {
        let ips = list(addresses.iter().map(|given| given.value));
        table = table.set("listening-ip", ips, from_all("listening-ip", addresses));
    }
    table = table.set("listening-port", port, why.unwrap_or_else(|| "coturn's default".to_owned()));
    source.document.add(table.set("transports", list(served.names()), ""));
}

/// The addresses that are named. To coturn `::` is IPv4, too.
pub(super) fn addresses(source: &mut Source<'_>) -> Vec<Given<IpAddr>> {
    let mut addresses: Vec<Given<IpAddr>> = Vec::new();
    for given in source.all("listening-ip") {
        let Some(address) = source.address("listening-ip", given) else { continue };
        addresses.push(Given { value: address, line: given.line });
    }
    let has = |address: IpAddr, list: &[Given<IpAddr>]| list.iter().any(|given| given.value == address);
    let everywhere = addresses.iter().find(|given| given.value.is_ipv6() && given.value.is_unspecified()).copied();
    if let Some(Given { line, .. }) = everywhere
        && !has(Ipv4Addr::UNSPECIFIED.into(), &addresses)
    {
        addresses.push(Given { value: Ipv4Addr::UNSPECIFIED.into(), line });
        source.report.say(
            Kind::Note,
            line,
            "listening-ip",
            "`::` takes IPv4 with coturn, too; here it is written as two addresses",
        );
    }
    addresses
        .iter()
        .enumerate()
        .filter(|(index, given)| !has(given.value, &addresses[..*index]))
        .map(|(_, given)| *given)
        .collect()
}

/// What is served over which transport.
pub(super) fn served(source: &mut Source<'_>) -> Served {
    let (cert, pkey) = (source.line("cert"), source.line("pkey"));
    let [no_tls, no_dtls, dtls] = ["no-tls", "no-dtls", "dtls"].map(|key| source.is_on(key));
    let only_new = source.on("no-tlsv1_2");
    let has_certificate = cert.is_some() && pkey.is_some();
    let wants_dtls = if source.version < Version::NO_DTLS { !no_dtls } else { dtls };
    let tls = has_certificate && !no_tls;
    let dtls = has_certificate && wants_dtls && only_new.is_none();
    match (cert, pkey) {
        (Some(line), None) | (None, Some(line)) if !no_tls || wants_dtls => {
            let (there, missing) = if cert.is_some() { ("cert", "pkey") } else { ("pkey", "cert") };
            let what = format!("is of no use without {missing}: write both, or no-tls and no-dtls");
            source.report.say(Kind::Error, line, there, what);
        }
        (None, None) if !no_tls => {
            let what = "no cert and pkey are named, so that TLS is not served; coturn would look for turn_server_cert.pem in \
                        its folders, and go without if there is none";
            source.report.say(Kind::Note, None, "cert", what);
        }
        _ => {}
    }
    if dtls && source.line("dtls").is_none() {
        let what =
            "DTLS is served, as coturn before 4.17.0 does wherever there is a certificate (no-dtls turns it off)";
        source.report.say(Kind::Note, cert, "cert", what);
    }
    if let (Some(line), true) = (only_new, has_certificate && wants_dtls) {
        source.report.say(Kind::Changed, line, "no-tlsv1_2", "leaves no version of DTLS, which is not served");
    }
    Served { udp: !source.is_on("no-udp"), tcp: !source.is_on("no-tcp"), tls, dtls }
}

/// The second port of TLS, which coturn has for RFC 5780 only.
fn alternate(
    source: &mut Source<'_>,
    addresses: &[Given<IpAddr>],
    served: Served,
    secure_port: u16,
    bound: &mut Vec<(u16, Option<IpAddr>)>,
) {
    let Some(given) = source.port("alt-tls-listening-port") else { return };
    let key = "alt-tls-listening-port";
    if !super::addresses::is_discovery_on(source) || !(served.tls || served.dtls) || given.value == secure_port {
        source.report.say(Kind::Ignored, given.line, key, "it is of use with RFC 5780 and TLS only");
    } else if !bound.contains(&(given.value, None)) {
        let only = Served { udp: false, tcp: false, ..served };
        listener(source, addresses, given.value, Some(from(key, given.line)), only);
        bound.push((given.value, None));
    }
}

/// `aux-server`: further addresses with ports of their own.
fn auxiliary(
    source: &mut Source<'_>,
    addresses: &[Given<IpAddr>],
    served: Served,
    bound: &mut Vec<(u16, Option<IpAddr>)>,
) {
    for given in source.all("aux-server") {
        let Some(socket) = source.socket("aux-server", given, None) else { continue };
        let (ip, port) = (socket.ip(), socket.port());
        let everywhere = |given: &Given<IpAddr>| given.value.is_unspecified() && given.value.is_ipv4() == ip.is_ipv4();
        let covered = addresses.is_empty() || addresses.iter().any(|given| given.value == ip || everywhere(given));
        if bound.contains(&(port, None)) && covered || bound.contains(&(port, Some(ip))) {
            let what = "another listener has this port already; coturn could not open it either";
            source.report.say(Kind::Ignored, given.line, "aux-server", what);
            continue;
        }
        bound.push((port, Some(ip)));
        let table = Table::new("[[listener]]").set("listening-ip", text(ip), from("aux-server", given.line));
        source.document.add(table.set("listening-port", port, "").set("transports", list(served.names()), ""));
    }
}

/// `tcp-proxy-port`: coturn believes everybody's PROXY header, which is not done here.
fn proxied(source: &mut Source<'_>, addresses: &[Given<IpAddr>], served: Served) {
    let Some(given) = source.port("tcp-proxy-port") else { return };
    let question = "coturn believes the PROXY header of whoever connects; here only the balancers' networks are believed: name them, \
                    with commas between them, or drop the port";
    let Some(answer) = source.decide("tcp-proxy-port", question, &["NETWORKS", "drop"]) else { return };
    if answer == "drop" {
        return;
    }
    let networks: Vec<&str> = answer.split(',').map(str::trim).collect();
    if let Some(wrong) = networks.iter().find(|network| crate::config::parse_peer_range(network).is_err()) {
        let what = format!("--decide tcp-proxy-port: {wrong:?} is no network; write e.g. 10.0.0.0/24,192.0.2.7");
        source.report.say(Kind::Error, given.line, "tcp-proxy-port", what);
        return;
    }
    let mut table = Table::new("[[listener]]");
    if !addresses.is_empty() {
        table = table.set("listening-ip", list(addresses.iter().map(|given| given.value)), "");
    }
    table = table.set("listening-port", given.value, from("tcp-proxy-port", given.line));
    let served = Served { udp: false, dtls: false, tcp: true, tls: served.tls };
    table = table.set("transports", list(served.names()), "");
    source.document.add(table.set("proxy-protocol", list(networks), "whose headers are believed"));
}

/// `[tls]`.
fn tls(source: &mut Source<'_>, served: Served) {
    let (cert, pkey) = (source.text("cert"), source.text("pkey"));
    let ca = source.text("CA-file");
    let newest = source.on("no-tlsv1_2");
    if !served.tls && !served.dtls {
        for (key, given) in [("cert", cert), ("pkey", pkey), ("CA-file", ca)] {
            if let Some(Given { line, .. }) = given {
                source.report.say(Kind::Ignored, line, key, "neither TLS nor DTLS is served");
            }
        }
        return;
    }
    for (key, given) in [("cert", cert), ("pkey", pkey)] {
        if let Some(Given { value, line }) = given {
            source.document.set("[tls]", key, text(value), from(key, line));
            if !value.starts_with('/') {
                let what = "coturn looks for it in several folders; here it is looked for beside the configuration";
                source.report.say(Kind::Changed, line, key, what);
            }
        }
    }
    if let Some(Given { value, line }) = ca {
        source.document.set("[tls]", "client-ca", text(value), from("CA-file", line));
        let what = "clients need a certificate of these authorities, as with coturn; remove it if that was not meant";
        source.report.say(Kind::Note, line, "CA-file", what);
    }
    if let Some(line) = newest {
        source.document.set("[tls]", "min-version", text("1.3"), from("no-tlsv1_2", line));
    } else if source.version < Version::WITHOUT_EXTRAS
        && !(source.is_on("no-tlsv1") && source.is_on("no-tlsv1_1"))
        && served.tls
    {
        let what = "1.2 is the lowest version of TLS; coturn before 4.7.0 takes 1.0 and 1.1, if its OpenSSL does";
        source.report.say(Kind::Changed, None, "", what);
    }
}
