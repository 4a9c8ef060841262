//! What clients elsewhere are told and shown: external addresses and certificates.

use std::{path::Path, time::SystemTime};

use crate::{
    config::{
        Settings,
        settings::{FindExternal, Listener, RelayAddress},
    },
    external::{Testimony, Verdict, Witness, ask, judge},
    probe::{self, Finding, Roots, certificate, special, target::Target},
};

/// What is thought of every relay address's external one. Where it is to be found, it is put in its place.
pub(super) async fn addresses(settings: &mut Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let local_only = settings.listeners.iter().flat_map(|listener| &listener.addresses).all(|ip| ip.is_loopback());
    let relay = &mut settings.relay;
    for address in &mut relay.addresses {
        // Whose address is written down is asked for by STUN alone: what a cloud says of it is no proof that it is wrong.
        let find = match relay.find_external.auto {
            true => relay.find_external.clone(),
            false => FindExternal { metadata: None, ..relay.find_external.clone() },
        };
        let answers = if find.metadata.is_none() && find.stun_servers.is_empty() {
            Vec::new()
        } else {
            ask(&find, address.local).await
        };
        findings.extend(compare(&find, address, &answers));
        findings.push(publicity(*address, local_only));
    }
    findings
}

/// Holds what clients are told against what others say.
fn compare(find: &FindExternal, address: &mut RelayAddress, answers: &[Testimony]) -> Vec<Finding> {
    const ABOUT: &str = "external address";
    let RelayAddress { local, external } = *address;
    let silent = answers.iter().filter_map(|(witness, answer)| match (witness, answer) {
        (Witness::Stun(_), Err(why)) => Some(Finding::warning(
            ABOUT,
            format!("{witness} tells nothing of {local}: {why}"),
            "name a STUN server that is there, and let UDP out to it",
        )),
        _ => None,
    });
    let mut findings: Vec<Finding> = silent.collect();
    match judge(find, answers) {
        _ if answers.is_empty() => {}
        Verdict::Found { address: found, by, .. } if find.auto => {
            address.external = found;
            findings.push(Finding::ok(ABOUT, format!("{local} is {found} ({by})")));
        }
        Verdict::Found { address: found, by, .. } if found == external => {
            findings.push(Finding::ok(ABOUT, format!("{local} is seen as {found}, as clients are told ({by})")));
        }
        Verdict::Found { address: found, by, .. } => {
            let what = format!("clients are told {external}, and {local} is seen as {found} ({by})");
            findings.push(Finding::error(ABOUT, what, format!("write external-ip = \"{found}\", or \"auto\"")));
        }
        Verdict::Contradiction(said) => {
            let what = format!("of {local} different things are said: {said}");
            findings.push(Finding::warning(ABOUT, what, "find out which is right, and write it as external-ip"));
        }
        Verdict::Silence(why) if find.auto => {
            let what = format!("\"auto\" finds none for {local}: {why}; clients would be told {external}");
            findings.push(Finding::error(ABOUT, what, "write external-ip, or add stun-servers that are there"));
        }
        // Each of those who were asked has its own finding.
        Verdict::Silence(_) => {}
    }
    findings
}

fn publicity(RelayAddress { local, external }: RelayAddress, local_only: bool) -> Finding {
    const ABOUT: &str = "external address";
    match special(external) {
        None => Finding::ok(ABOUT, format!("clients are told {external}")),
        Some(kind) if local_only => {
            Finding::ok(ABOUT, format!("clients are told {external} ({}), and all listeners are local", kind.name))
        }
        Some(kind) => {
            let what = format!("clients are told {external} ({}): only those in the same network reach it", kind.name);
            let remedy = if local == external {
                "write external-ip = \"auto\", or the public address"
            } else {
                "write the public address as external-ip"
            };
            Finding::warning(ABOUT, what, remedy)
        }
    }
}

/// What is thought of every certificate, for the names that clients are told.
pub(super) fn certificates(settings: &Settings, roots: &Roots) -> Vec<Finding> {
    let Some(tls) = &settings.tls else { return Vec::new() };
    let hosts = hosts(settings);
    let mut findings = Vec::new();
    let mut unserved: Vec<&str> = hosts.iter().map(String::as_str).collect();
    for configured in &tls.certificates {
        let shown = configured.cert.display().to_string();
        let (summary, judged) = certificate::judge(&configured.chain, &[], "", roots, SystemTime::now());
        let named = |finding: Finding| Finding { about: format!("certificate {shown}"), ..finding };
        findings.extend(judged.into_iter().map(named));
        let names = summary.map(|summary| summary.names).unwrap_or_default();
        if names.is_empty() {
            let what = "has no names: clients refuse it whatever they are told";
            findings.push(named(Finding::error("", what, "make it anew, with the names that clients use")));
        } else {
            findings.push(named(Finding::ok("", format!("is for {}; its key is the right one", names.join(", ")))));
        }
        unserved.retain(|host| {
            let (_, judged) = certificate::judge(&configured.chain, &[host], "", roots, SystemTime::now());
            judged.first().is_none_or(|finding| finding.level != probe::Level::Ok)
        });
        findings.extend(loose(&configured.pkey));
    }
    findings.extend(unserved.into_iter().map(|host| {
        let remedy = "get a certificate for this name, or tell clients another (auth.uris)";
        Finding::error(
            "certificate",
            format!("clients are told {host} (auth.uris), and no certificate is for it"),
            remedy,
        )
    }));
    findings
}

/// The hosts of secure URIs that clients are told.
fn hosts(settings: &Settings) -> Vec<String> {
    let secure = settings.listeners.iter().any(|listener: &Listener| listener.tls || listener.dtls);
    let targets = settings.auth.uris.iter().filter(|_| secure).filter_map(|uri| uri.parse::<Target>().ok());
    let mut hosts: Vec<String> =
        targets.filter(|target| target.transport.is_secure()).map(|target| target.host).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A key that others may change. (That they may read it is said with the configuration.)
#[cfg(unix)]
fn loose(key: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;

    /// Group or others may write.
    const WRITE: u32 = 0o022;
    let mode = key.metadata().ok()?.permissions().mode();
    (mode & WRITE != 0).then(|| {
        let what = format!("{} may be changed by others than its owner (mode {:o})", key.display(), mode & 0o777);
        Finding::warning("certificate", what, format!("chmod 600 {}", key.display()))
    })
}

/// Modes are a matter of Unix.
#[cfg(not(unix))]
fn loose(_: &Path) -> Option<Finding> {
    None
}
