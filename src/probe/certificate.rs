//! What is thought of a server's certificate: its names, its time, and who vouches for it, each for itself.

use std::{
    io,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use serde::Serialize;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::finding::Finding;

/// With less than this left, whoever renews certificates is late.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 24 * 60 * 60;

/// Who vouches for certificates.
#[derive(Debug)]
pub struct Roots {
    /// The certificates.
    pub store: RootCertStore,
    /// Where they are from, in words.
    pub origin: String,
}

impl Roots {
    /// Those of a PEM file, or else those that this system trusts.
    ///
    /// # Errors
    /// The file cannot be read, or holds none.
    pub fn load(file: Option<&Path>) -> io::Result<Self> {
        let mut store = RootCertStore::empty();
        let Some(file) = file else {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(Self { store, origin: "this system".to_owned() });
        };
        let pem = std::fs::read(file)?;
        let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        store.add_parsable_certificates(read.map_err(|error| io::Error::other(error.to_string()))?);
        if store.is_empty() {
            return Err(io::Error::other("it holds no certificate in PEM"));
        }
        Ok(Self { store, origin: file.display().to_string() })
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Whom it is for, as it says.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Certificates that were sent, this one included.
    pub chain: usize,
}

impl Summary {
    fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.into_iter().flat_map(|extension| &extension.value.general_names).filter_map(name);
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: names.collect(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            chain: chain.len(),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// The hosts that a certificate is wanted for, and what is thought of it.
///
/// Without a host only its time and its chain are looked at. What to do about a wrong name is `rename`.
#[must_use]
pub fn judge(
    chain: &[CertificateDer<'_>],
    hosts: &[&str],
    rename: &str,
    roots: &Roots,
    now: SystemTime,
) -> (Option<Summary>, Vec<Finding>) {
    const ABOUT: &str = "certificate";
    let parsed = chain.first().map(ParsedCertificate::try_from).and_then(Result::ok);
    let (Some(summary), Some(parsed)) = (Summary::read(chain), parsed) else {
        let what = "is none that can be read";
        return (None, vec![Finding::error(ABOUT, what, "make it anew")]);
    };
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(seconds).unwrap_or(i64::MAX);
    let mut findings = Vec::new();
    for host in hosts {
        let named = ServerName::try_from(*host).map(|name| verify_server_name(&parsed, &name));
        let known = if summary.names.is_empty() { "none".to_owned() } else { summary.names.join(", ") };
        findings.push(match named {
            Ok(Ok(())) => Finding::ok(ABOUT, format!("is for {host}")),
            _ => Finding::error(ABOUT, format!("is not for {host}; its names: {known}"), rename),
        });
    }
    findings.push(time(&summary, now));
    // Its time is another matter: who vouches for it is asked of a time when it is good.
    let at = now.min(summary.not_after).max(summary.not_before).max(0);
    findings.push(trust(chain, &parsed, &summary, roots, u64::try_from(at).unwrap_or(0)));
    (Some(summary), findings)
}

fn time(summary: &Summary, now: i64) -> Finding {
    const ABOUT: &str = "certificate";
    let days = |seconds: i64| match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if summary.not_after < now {
        let what = format!("has expired {} ago: clients refuse it", days(now - summary.not_after));
        return Finding::error(ABOUT, what, "renew it, and let the server take the new one");
    }
    if summary.not_before > now {
        let what = format!("is good only in {}: clients refuse it", days(summary.not_before - now));
        return Finding::error(ABOUT, what, "wait, or set the clocks of this host and of the one that made it");
    }
    let left = summary.not_after - now;
    if left < SOON {
        let what = format!("expires in {}", days(left));
        return Finding::warning(ABOUT, what, "renew it; if that should happen by itself, see why it does not");
    }
    Finding::ok(ABOUT, format!("expires in {}", days(left)))
}

fn trust(
    chain: &[CertificateDer<'_>],
    parsed: &ParsedCertificate<'_>,
    summary: &Summary,
    roots: &Roots,
    at: u64,
) -> Finding {
    const ABOUT: &str = "certificate";
    let origin = &roots.origin;
    if roots.store.is_empty() {
        return Finding::skipped(ABOUT, "nobody is trusted here, so who vouches for it is not known; give --ca");
    }
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let others = chain.get(1..).unwrap_or_default();
    match verify_server_cert_signed_by_trust_anchor(parsed, &roots.store, others, time, algorithms.all) {
        Ok(()) => Finding::ok(ABOUT, format!("leads to who is trusted by {origin} ({} sent)", count(chain))),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if summary.subject == summary.issuer => {
            let what = format!("has signed itself, and {origin} does not trust it: browsers refuse it");
            Finding::warning(
                ABOUT,
                what,
                "get one from an authority that clients trust, or give it to them and to --ca",
            )
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if chain.len() == 1 => {
            let what = format!("comes alone, and its issuer ({}) is not trusted by {origin}", summary.issuer);
            let remedy = "serve the whole chain (fullchain.pem rather than cert.pem); for an authority of your own give \
                          its certificate to clients and to --ca";
            Finding::warning(ABOUT, what, remedy)
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            let what = format!("comes with a chain ({} sent) that leads to nobody whom {origin} trusts", count(chain));
            Finding::warning(
                ABOUT,
                what,
                "serve the chain of this very certificate, in order; for an authority of your own give --ca",
            )
        }
        Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
            let what = format!("is signed with another key than that of {}, whom {origin} trusts", summary.issuer);
            Finding::warning(ABOUT, what, "compare the certificate of your authority with the one that clients have")
        }
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            let what = "comes with a certificate in its chain that has expired";
            Finding::error(ABOUT, what, "serve the chain that your authority gives out today")
        }
        Err(error) => Finding::error(ABOUT, format!("is refused by clients: {error}"), "make it anew for TLS servers"),
    }
}

fn count(chain: &[CertificateDer<'_>]) -> String {
    match chain.len() {
        1 => "1 certificate".to_owned(),
        more => format!("{more} certificates"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;
    use crate::probe::finding::Level;

    const NOW: u64 = 1_900_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, from: u64, until: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["turn.example.org".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (at(from).into(), at(until).into());
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, issuer).unwrap().der().clone()
    }

    fn said(chain: &[CertificateDer<'static>], host: &str, root: &CertificateDer<'static>) -> Vec<(Level, String)> {
        let mut store = RootCertStore::empty();
        store.add(root.clone()).unwrap();
        let roots = Roots { store, origin: "the test".to_owned() };
        let (summary, findings) = judge(chain, &[host], "use another", &roots, at(NOW));
        assert_eq!(summary.unwrap().names, ["turn.example.org", "192.0.2.1"]);
        findings.into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    /// Whoever is probed may show anything.
    #[test]
    fn a_certificate_that_ends_before_it_begins_is_bad() {
        let ours = authority("ours");
        let odd = leaf(&ours, NOW + 1_000, NOW - 1_000);
        let told = said(std::slice::from_ref(&odd), "turn.example.org", &ours.der().clone());
        assert!(told.iter().any(|(level, _)| *level == Level::Error), "{told:?}");
    }

    #[test]
    fn names_times_and_chains_are_told_apart() {
        let (ours, other) = (authority("ours"), authority("other"));
        let root = ours.der().clone();
        let good = leaf(&ours, NOW - 10, NOW + 30 * 86_400 + 9);
        let told = said(std::slice::from_ref(&good), "turn.example.org", &root);
        assert!(told.iter().all(|(level, _)| *level == Level::Ok), "{told:?}");
        assert_eq!(told[1].1, "expires in 30 days");
        assert_eq!(said(std::slice::from_ref(&good), "192.0.2.1", &root)[0].0, Level::Ok);
        let wrong = said(&[good], "turn.example.com", &root);
        assert_eq!(wrong[0].1, "is not for turn.example.com; its names: turn.example.org, 192.0.2.1");
        assert_eq!((wrong[0].0, wrong[1].0, wrong[2].0), (Level::Error, Level::Ok, Level::Ok));

        let late = said(&[leaf(&ours, NOW - 90 * 86_400, NOW - 3 * 86_400)], "turn.example.org", &root);
        assert_eq!(late[1], (Level::Error, "has expired 3 days ago: clients refuse it".to_owned()));
        assert_eq!(late[2].0, Level::Ok, "{late:?}");
        let early = said(&[leaf(&ours, NOW + 100, NOW + 86_400)], "turn.example.org", &root);
        assert_eq!(early[1], (Level::Error, "is good only in less than a day: clients refuse it".to_owned()));
        let soon = said(&[leaf(&ours, NOW - 10, NOW + 86_401)], "turn.example.org", &root);
        assert_eq!(soon[1], (Level::Warning, "expires in 1 day".to_owned()));

        let strange = leaf(&other, NOW - 10, NOW + 30 * 86_400);
        let alone = said(std::slice::from_ref(&strange), "turn.example.org", &root);
        assert_eq!(alone[2].0, Level::Warning);
        assert!(alone[2].1.starts_with("comes alone, and its issuer (CN=other) is not trusted"), "{alone:?}");
        let chain = said(&[strange, other.der().clone()], "turn.example.org", &root);
        assert!(chain[2].1.starts_with("comes with a chain (2 certificates sent)"), "{chain:?}");
    }

    #[test]
    fn one_that_signed_itself_is_called_so() {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
        let roots = Roots { store: RootCertStore::empty(), origin: String::new() };
        assert_eq!(judge(std::slice::from_ref(&own), &[], "", &roots, at(NOW)).1[1].level, Level::Skipped);
        let mut store = RootCertStore::empty();
        store.add(authority("ours").der().clone()).unwrap();
        let roots = Roots { store, origin: "the test".to_owned() };
        let (_, findings) = judge(&[own], &[], "", &roots, at(NOW));
        assert!(findings[1].what.starts_with("has signed itself"), "{findings:?}");
        assert_eq!(judge(&[], &[], "", &roots, at(NOW)).1[0].what, "is none that can be read");
    }
}
