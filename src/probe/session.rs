//! The steps of a probe of one path: an address of the server over one transport.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::timeout;

use super::{
    Credentials, Finding, Options, Target,
    certificate::{self, Summary},
    client::{Client, Failure, Reply},
    echo,
    finding::{Level, printable, worst},
    link::{Security, open},
    special, words,
};
use crate::{
    stun::{AttributeType, MessageWriter, Method},
    turn::Family,
};

/// What was found on one path.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathReport {
    /// udp, tcp, tls or dtls.
    pub transport: &'static str,
    /// The server's address.
    pub address: SocketAddr,
    /// In the order of the steps.
    pub findings: Vec<Finding>,
    /// How long steps took, in milliseconds.
    pub milliseconds: Times,
    /// What the server calls itself.
    pub software: Option<String>,
    /// The address that the server sees.
    pub mapped: Option<SocketAddr>,
    /// The realm of its challenge.
    pub realm: Option<String>,
    /// Relayed addresses that were given.
    pub relayed: Vec<SocketAddr>,
    /// The server's certificate.
    pub certificate: Option<Summary>,
}

/// Round-trip times, in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Times {
    /// The TCP connection.
    pub connect: Option<f64>,
    /// The handshake of TLS or DTLS.
    pub handshake: Option<f64>,
    /// A Binding request.
    pub binding: Option<f64>,
    /// An Allocate request with credentials.
    pub allocate: Option<f64>,
    /// Data through two relayed addresses of the server and back.
    pub relay: Option<f64>,
    /// Data through one relayed address to this host.
    pub peer: Option<f64>,
}

/// In milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl PathReport {
    fn new(target: &Target, address: SocketAddr) -> Self {
        Self {
            transport: target.transport.name(),
            address,
            findings: Vec::new(),
            milliseconds: Times::default(),
            software: None,
            mapped: None,
            realm: None,
            relayed: Vec::new(),
            certificate: None,
        }
    }

    /// The worst of its findings.
    #[must_use]
    pub fn level(&self) -> Level {
        worst(&self.findings)
    }

    pub(super) fn say(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// The addresses of a target's host.
///
/// # Errors
/// It has none, or they are not found in time.
pub async fn resolve(target: &Target, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(limit, tokio::net::lookup_host((target.host.as_str(), target.port))).await;
    let mut addresses: Vec<SocketAddr> = found.map_err(|_| io::ErrorKind::TimedOut)??.collect();
    let mut known = Vec::new();
    addresses.retain(|address| {
        !known.contains(address) && {
            known.push(*address);
            true
        }
    });
    Ok(addresses)
}

/// Tries one address of the target, step by step, until one fails that the others need.
pub async fn probe_path(target: &Target, address: SocketAddr, options: &Options) -> PathReport {
    let mut report = PathReport::new(target, address);
    let probe = Probe { target, address, options };
    probe.run(&mut report).await;
    report
}

/// A probe of one path.
pub(super) struct Probe<'p> {
    pub(super) target: &'p Target,
    pub(super) address: SocketAddr,
    pub(super) options: &'p Options,
}

/// An allocation.
pub(super) struct Allocated {
    pub(super) client: Client,
    pub(super) relayed: SocketAddr,
    pub(super) mapped: Option<SocketAddr>,
}

impl Probe<'_> {
    fn host(&self) -> &str {
        self.options.server_name.as_deref().unwrap_or(&self.target.host)
    }

    fn user(&self) -> Option<&str> {
        match &self.options.credentials {
            Credentials::None => None,
            Credentials::Password { user, .. } | Credentials::Key { user, .. } => Some(user),
        }
    }

    async fn run(&self, report: &mut PathReport) {
        let transport = self.target.transport;
        let opened = match open(transport, self.address, self.host(), self.options.timeout).await {
            Ok(opened) => opened,
            Err(error) => return report.say(words::not_opened(transport, &error)),
        };
        report.milliseconds.connect = opened.connect.map(millis);
        report.milliseconds.handshake = opened.handshake.map(millis);
        if let Some(time) = report.milliseconds.connect {
            report.say(Finding::ok("connect", format!("took {time} ms")));
        }
        if let Some(security) = &opened.security {
            let time = report.milliseconds.handshake.unwrap_or_default();
            report.say(Finding::ok("handshake", format!("{}, took {time} ms", security.what)));
            self.certificate(report, security);
        }
        let mut client = Client::new(opened.link, self.options.timeout);
        if !self.binding(report, &mut client).await || !self.target.relays {
            return;
        }
        let Some(first) = self.allocate(report, client).await else { return };
        self.relay(report, first).await;
    }

    fn certificate(&self, report: &mut PathReport, security: &Security) {
        let rename = "use a name that it is for, or get one for this name";
        let judged =
            certificate::judge(&security.chain, &[self.host()], rename, &self.options.roots, SystemTime::now());
        let (summary, findings) = judged;
        report.certificate = summary;
        if self.options.from_elsewhere {
            report.findings.extend(findings);
        }
    }

    /// Whether it is worth going on.
    async fn binding(&self, report: &mut PathReport, client: &mut Client) -> bool {
        const ABOUT: &str = "binding";
        let reply = match client.request(Method::Binding, |_| {}).await {
            Ok(reply) => reply,
            Err(Failure::Silence) if self.target.relays => {
                // Some servers relay and do not do this.
                let remedy =
                    "let the server answer Binding requests (coturn: remove no-stun), or see whether it is there";
                report.say(Finding::warning(ABOUT, "was not answered", remedy));
                return true;
            }
            Err(failure) => {
                report.say(words::not_answered(ABOUT, self.target.transport, &failure));
                return false;
            }
        };
        report.software = reply.text(AttributeType::SOFTWARE).map(|software| printable(&software));
        let time = millis(reply.round_trip);
        report.milliseconds.binding = Some(time);
        if let Some(error) = reply.error() {
            report.say(words::refused(ABOUT, Method::Binding, &error, None));
            return self.target.relays;
        }
        report.mapped = reply.address(AttributeType::XOR_MAPPED_ADDRESS);
        let Some(mapped) = report.mapped else {
            report.say(Finding::error(ABOUT, "the answer has no address in it", "use a server of RFC 5389 or newer"));
            return true;
        };
        let by = report.software.as_ref().map_or_else(String::new, |software| format!(" by {software}"));
        let nat = if mapped.ip() == client.link.local.ip() || client.link.local.ip().is_unspecified() {
            ""
        } else {
            ", behind a NAT"
        };
        report.say(Finding::ok(ABOUT, format!("answered{by} in {time} ms; this client is {mapped}{nat}")));
        if reply.lost > 0 {
            let what = format!("{} of its datagrams were lost", reply.lost);
            report.say(Finding::warning(ABOUT, what, "see the path to the server, and what it drops"));
        }
        true
    }

    /// The challenge, and the first allocation.
    async fn allocate(&self, report: &mut PathReport, mut client: Client) -> Option<Allocated> {
        const ABOUT: &str = "challenge";
        let transport = self.target.transport;
        let reply = match client.request(Method::Allocate, |writer| requested(writer, None)).await {
            Ok(reply) => reply,
            Err(failure) => {
                report.say(words::not_answered(ABOUT, transport, &failure));
                return None;
            }
        };
        let (realm, nonce) = (reply.bytes(AttributeType::REALM), reply.bytes(AttributeType::NONCE));
        match (reply.error(), realm, nonce) {
            (None, ..) => {
                let remedy = "let the server ask for credentials, unless it is for a closed network";
                report.say(Finding::warning(ABOUT, "there is none: the server relays for everybody", remedy));
                return self.allocated(report, client, &reply);
            }
            (Some((401, _)), Some(realm), Some(nonce)) => {
                let shown = printable(&String::from_utf8_lossy(&realm));
                report.say(Finding::ok(ABOUT, format!("the server asks for credentials in the realm {shown:?}")));
                report.realm = Some(shown);
                if self.user().is_none() {
                    report.say(Finding::skipped("allocate", "no credentials were given; give --user"));
                    return None;
                }
                if let Err(failure) = client.sign_in(&self.options.credentials, &realm, &nonce) {
                    report.say(words::not_answered("allocate", transport, &failure));
                    return None;
                }
            }
            (Some((401, _)), ..) => {
                let remedy = "let the server use long-term credentials (coturn: lt-cred-mech and realm)";
                report.say(Finding::error(ABOUT, "the server refuses (401) without a realm and a nonce", remedy));
                return None;
            }
            (Some(error), ..) => {
                report.say(self.explain(ABOUT, Method::Allocate, &error, &reply));
                return None;
            }
        }
        let reply = match client.request(Method::Allocate, |writer| requested(writer, None)).await {
            Ok(reply) => reply,
            Err(failure) => {
                report.say(words::not_answered("allocate", transport, &failure));
                return None;
            }
        };
        if let Some(error) = reply.error() {
            report.say(self.explain("allocate", Method::Allocate, &error, &reply));
            return None;
        }
        report.milliseconds.allocate = Some(millis(reply.round_trip));
        self.allocated(report, client, &reply)
    }

    fn explain(&self, about: &str, method: Method, error: &(u16, String), reply: &Reply) -> Finding {
        let mut finding = words::refused(about, method, error, self.user());
        let elsewhere = reply
            .message()
            .and_then(|message| message.get(AttributeType::ALTERNATE_SERVER).and_then(crate::stun::address::decode));
        if let Some(elsewhere) = elsewhere.filter(|_| error.0 == 300) {
            finding.what.push_str(&format!(", to {elsewhere}"));
        }
        finding
    }

    fn allocated(&self, report: &mut PathReport, client: Client, reply: &Reply) -> Option<Allocated> {
        const ABOUT: &str = "allocate";
        let Some(relayed) = reply.address(AttributeType::XOR_RELAYED_ADDRESS) else {
            report.say(Finding::error(ABOUT, "the answer has no relayed address in it", "use another server"));
            return None;
        };
        report.relayed.push(relayed);
        let time = millis(reply.round_trip);
        let lifetime = reply.number(AttributeType::LIFETIME).unwrap_or_default();
        let private = private_relay(relayed.ip(), self.address.ip()).filter(|_| self.options.from_elsewhere);
        report.say(match private {
            None => Finding::ok(ABOUT, format!("{relayed} for {lifetime} s, in {time} ms")),
            Some(kind) => {
                let what = format!("the relayed address is {relayed}, which nobody elsewhere reaches ({kind})");
                Finding::error(ABOUT, what, "set external-ip to the server's public address, or to \"auto\"")
            }
        });
        if reply.signed == Some(false) {
            let what = "the answer is not signed with the user's key: clients take no notice of it";
            report.say(Finding::error(ABOUT, what, "see what on the way changes messages"));
        }
        let mapped = reply.address(AttributeType::XOR_MAPPED_ADDRESS).or(report.mapped);
        Some(Allocated { client, relayed, mapped })
    }

    /// What an allocation is good for.
    async fn relay(&self, report: &mut PathReport, mut first: Allocated) {
        self.other_family(report, Family::of(first.relayed.ip())).await;
        match self.another(None).await {
            Ok(mut second) => {
                echo::between(report, &mut first, &mut second).await;
                // What is left of it expires by itself.
                let _ = delete(&mut second.client).await;
            }
            Err(finding) => {
                let what = format!("a second allocation was not to be had: {}", finding.what);
                report.say(Finding::skipped("relay", what));
            }
        }
        if private_relay(first.relayed.ip(), self.address.ip()).is_some() {
            report.say(Finding::skipped("peer", format!("{} is none that this host reaches", first.relayed.ip())));
        } else if self.options.from_elsewhere {
            echo::outside(report, &mut first, self.address.ip(), self.target.transport).await;
        }
        self.end(report, &mut first.client).await;
    }

    /// One more allocation, on a link of its own.
    async fn another(&self, family: Option<Family>) -> Result<Allocated, Finding> {
        const ABOUT: &str = "allocate";
        let transport = self.target.transport;
        let opened = open(transport, self.address, self.host(), self.options.timeout).await;
        let opened = opened.map_err(|error| words::not_opened(transport, &error))?;
        let mut client = Client::new(opened.link, self.options.timeout);
        let failed = |failure: Failure| words::not_answered(ABOUT, transport, &failure);
        let mut reply = client.request(Method::Allocate, |writer| requested(writer, family)).await.map_err(failed)?;
        if let (Some((401, _)), Some(realm), Some(nonce)) =
            (reply.error(), reply.bytes(AttributeType::REALM), reply.bytes(AttributeType::NONCE))
        {
            client.sign_in(&self.options.credentials, &realm, &nonce).map_err(failed)?;
            reply = client.request(Method::Allocate, |writer| requested(writer, family)).await.map_err(failed)?;
        }
        if let Some(error) = reply.error() {
            return Err(self.explain(ABOUT, Method::Allocate, &error, &reply));
        }
        let relayed = reply.address(AttributeType::XOR_RELAYED_ADDRESS);
        let relayed = relayed.ok_or_else(|| Finding::error(ABOUT, "the answer has no relayed address in it", ""))?;
        Ok(Allocated { client, relayed, mapped: reply.address(AttributeType::XOR_MAPPED_ADDRESS) })
    }

    /// Whether addresses of the other family are relayed, too.
    async fn other_family(&self, report: &mut PathReport, family: Family) {
        let (other, about) = match family {
            Family::V4 => (Family::V6, "relayed IPv6"),
            Family::V6 => (Family::V4, "relayed IPv4"),
        };
        match self.another(Some(other)).await {
            Ok(mut allocated) => {
                report.relayed.push(allocated.relayed);
                report.say(Finding::ok(about, allocated.relayed.to_string()));
                // What is left of it expires by itself.
                let _ = delete(&mut allocated.client).await;
            }
            Err(finding) if finding.what.contains(" 440") => {
                report.say(Finding::skipped(about, "the server has no relay address of this family"));
            }
            Err(Finding { what, .. }) => report.say(Finding::skipped(about, what)),
        }
    }

    /// Refreshes and deletes the allocation.
    async fn end(&self, report: &mut PathReport, client: &mut Client) {
        const ABOUT: &str = "refresh";
        let transport = self.target.transport;
        match client.request(Method::Refresh, |_| {}).await {
            Err(failure) => return report.say(words::not_answered(ABOUT, transport, &failure)),
            Ok(reply) => match reply.error() {
                Some(error) => report.say(words::refused(ABOUT, Method::Refresh, &error, self.user())),
                None => {
                    let lifetime = reply.number(AttributeType::LIFETIME).unwrap_or_default();
                    report.say(Finding::ok(ABOUT, format!("for {lifetime} s")));
                }
            },
        }
        match delete(client).await {
            Err(failure) => report.say(words::not_answered("delete", transport, &failure)),
            Ok(reply) => match reply.error() {
                Some(error) => report.say(words::refused("delete", Method::Refresh, &error, self.user())),
                None => report.say(Finding::ok("delete", "the allocation is gone")),
            },
        }
    }
}

async fn delete(client: &mut Client) -> Result<Reply, Failure> {
    client
        .request(Method::Refresh, |writer| {
            writer.u32(AttributeType::LIFETIME, 0);
        })
        .await
}

/// What an Allocate asks for: UDP, of a family if it matters.
fn requested(writer: &mut MessageWriter<'_>, family: Option<Family>) {
    /// The number of UDP (RFC 8656 §18.8).
    const UDP: u8 = 17;
    writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]);
    let number = match family {
        None => return,
        Some(Family::V4) => 1,
        Some(Family::V6) => 2,
    };
    writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[number, 0, 0, 0]);
}

/// What keeps others from a relayed address, if its kind is less public than that of the server's own address.
fn private_relay(relayed: IpAddr, server: IpAddr) -> Option<&'static str> {
    let relayed = special(relayed)?;
    // Where the server itself is reached at an address of the other family that is not public, this is all that can be asked for.
    let other_family = relayed.net.addr().is_ipv4() != server.is_ipv4();
    let same_kind = special(server).is_some_and(|server| server.net == relayed.net || other_family);
    (!same_kind).then_some(relayed.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_address_is_to_be_as_public_as_the_server() {
        let private = |relayed: &str, server: &str| private_relay(relayed.parse().unwrap(), server.parse().unwrap());
        assert_eq!(private("8.8.8.8", "8.8.4.4"), None);
        assert_eq!(private("10.0.0.1", "8.8.4.4"), Some("private use, RFC 1918"));
        assert_eq!(private("127.0.0.1", "10.0.0.1"), Some("loopback, RFC 1122"));
        assert_eq!(private("10.0.0.1", "10.1.0.1"), None);
        assert_eq!(private("127.0.0.1", "127.0.0.1"), None);
        assert_eq!(private("127.0.0.1", "::1"), None);
        assert_eq!(private("10.0.0.1", "2600::1"), Some("private use, RFC 1918"));
        assert_eq!(private("8.8.8.8", "10.0.0.1"), None);
        assert_eq!(private("fd00::1", "2600::1"), Some("unique local, RFC 4193"));
    }
}
