//! `[tls]` and `[[tls.certificate]]`: certificates and keys, read and checked, so that a listener that promises TLS has them.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use toml::de::DeValue;
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

use super::{
    access::readable_by_others,
    credential,
    finding::Place,
    host::Host,
    reader::{Entry, Leaf, Mistake, Section},
    settings::{Certificate, ClientCa, Listener, Secret, Tls, TlsVersion},
    value::{Int, Period, Text, choose},
};

/// Largest file of certificates or keys read.
const LARGEST_FILE: u64 = 4 << 20;

/// What a client without a certificate gets (`client-certificate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientCertificate {
    Optional,
    Required,
}

impl Leaf for ClientCertificate {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        choose(value, &[("optional", Self::Optional), ("required", Self::Required)])
    }
}

/// Reads `[tls]`. `None` if there is nothing to serve with, which is an error if a listener needs it. Relative files are
/// looked up under `base`.
pub(super) fn tls(root: &Section<'_>, base: &Path, host: &Host, listeners: &[Listener]) -> Option<Tls> {
    let section = root.section("tls");
    let mut certificates = Vec::new();
    let mut given = section.has("certificate");
    if section.has("cert") || section.has("pkey") {
        given = true;
        certificates.extend(certificate(&section, base, host));
    }
    for section in section.sections("certificate").unwrap_or_default() {
        let first = certificates.is_empty();
        let read = certificate(&section, base, host);
        if let Some(Certificate { names, .. }) = &read
            && names.is_empty()
            && !first
        {
            let what = "holds no DNS name, so no client is ever shown it";
            section.report.warning(&section.place_at("cert"), what, "write it first, or remove it");
        }
        certificates.extend(read);
    }
    let tls = Tls {
        certificates,
        min_version: min_version(&section, listeners),
        clients: client_ca(&section, base, host),
        handshake_timeout: section.get("handshake-timeout").or(Period(Duration::from_secs(10))).0,
        max_handshakes: section.get("max-handshakes").or(Int::<1, 1_000_000>(1_000)).0 as usize,
    };
    let needed = listeners.iter().any(|listener| listener.tls || listener.dtls);
    if needed && !given {
        let remedy = "write cert and pkey, two PEM files (`turnserver certificate` makes them for tests), or remove \
                      \"tls\" and \"dtls\" from transports";
        section.report.error(&section.place("cert"), "is missing, but a [[listener]] serves TLS or DTLS", remedy);
    } else if given && !needed {
        let remedy = "add \"tls\" or \"dtls\" to the transports of a [[listener]]";
        section.report.warning(&section.place(""), "no [[listener]] serves TLS or DTLS", remedy);
    }
    (needed && !tls.certificates.is_empty()).then_some(tls)
}

/// The lowest version. DTLS is there in 1.2 only, so nothing higher can be promised where that is served.
fn min_version(section: &Section<'_>, listeners: &[Listener]) -> TlsVersion {
    match section.get("min-version") {
        Entry::Given(TlsVersion::V1_3, place) if listeners.iter().any(|listener| listener.dtls) => {
            let remedy = "write \"1.2\", or remove \"dtls\" from transports";
            section.report.error(&place, "a [[listener]] serves DTLS, which is there in version 1.2 only", remedy);
            TlsVersion::V1_2
        }
        entry => entry.or(TlsVersion::V1_2),
    }
}

/// The certificate of one table with its key; `None` once an error is reported.
fn certificate(section: &Section<'_>, base: &Path, host: &Host) -> Option<Certificate> {
    let file = |key| match section.get::<Text>(key) {
        Entry::Given(Text(path), place) => Some((credential::file(section, (&path, &place), base, host)?, place)),
        Entry::Bad => None,
        Entry::Absent => {
            let other = if key == "cert" { "the certificate chain" } else { "the private key" };
            section.report.error(&section.place(key), "is missing", format!("write the PEM file of {other}"));
            None
        }
    };
    let (cert, pkey) = (file("cert"), file("pkey"));
    let (chain, key) = (cert.as_ref().map(|cert| chain(section, cert)), pkey.as_ref().map(|pkey| key(section, pkey)));
    let ((cert, place), (pkey, key_place)) = (cert?, pkey?);
    let (chain, key) = (chain??, key??);
    let names = details(section, &place, &cert, &chain)?;
    if let Err(error) = CertifiedKey::from_der(chain.clone(), key.clone_key(), &aws_lc_rs::default_provider()) {
        let (what, remedy) = match error {
            rustls::Error::InconsistentKeys(_) => (
                format!("{} is not the key of the first certificate in {}", pkey.display(), cert.display()),
                "give the key that the certificate was made for; a chain begins with the server's own certificate",
            ),
            error => (format!("{} cannot be used: {error}", pkey.display()), "give an ECDSA, Ed25519 or RSA key"),
        };
        section.report.error(&key_place, what, remedy);
        return None;
    }
    Some(Certificate { cert, pkey, chain, key: Secret(Arc::new(key)), names })
}

pub(super) fn chain(section: &Section<'_>, (path, place): &(PathBuf, Place)) -> Option<Vec<CertificateDer<'static>>> {
    let pem = pem(section, path, place)?;
    let shown = path.display();
    let remedy = "give a file with -----BEGIN CERTIFICATE-----, the server's own first, then those that signed it";
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => {
            section.report.error(place, format!("{shown} holds no certificate in PEM"), remedy);
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            section.report.error(place, format!("{shown} is not PEM: {error}"), remedy);
            None
        }
    }
}

fn key(section: &Section<'_>, (path, place): &(PathBuf, Place)) -> Option<PrivateKeyDer<'static>> {
    let pem = pem(section, path, place)?;
    let shown = path.display();
    if readable_by_others(path) {
        section.report.warning(place, format!("{shown} is readable by everyone"), format!("chmod 600 {shown}"));
    }
    let is_encrypted = || [&b"BEGIN ENCRYPTED"[..], b"Proc-Type: 4,ENCRYPTED"].iter().any(|mark| contains(&pem, mark));
    let (what, remedy) = match PrivateKeyDer::from_pem_slice(&pem) {
        _ if is_encrypted() => ("is encrypted".to_owned(), "give it without a passphrase (openssl pkey), mode 0600"),
        Ok(key) => return Some(key),
        Err(error) => (
            format!("holds no usable private key: {error}"),
            "give a file with -----BEGIN PRIVATE KEY-----, the key of the certificate",
        ),
    };
    section.report.error(place, format!("{shown} {what}"), remedy);
    None
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

fn pem(section: &Section<'_>, path: &Path, place: &Place) -> Option<Vec<u8>> {
    section.report.note_file(path);
    let read = || -> io::Result<Vec<u8>> {
        // What is no file can block, or have no end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(LARGEST_FILE).read_to_end(&mut content)?;
        Ok(content)
    };
    read()
        .map_err(|error| {
            let remedy = "name an existing PEM file that the user may read whom the server runs as";
            section.report.error(place, format!("cannot read {}: {error}", path.display()), remedy);
        })
        .ok()
}

/// The DNS names of the chain's first certificate; warns where its time is not now. `None` if it is none.
fn details(section: &Section<'_>, place: &Place, path: &Path, chain: &[CertificateDer<'_>]) -> Option<Vec<String>> {
    let shown = path.display();
    let parsed = chain.first().map(|first| X509Certificate::from_der(first));
    let Some(Ok((_, certificate))) = parsed else {
        let remedy = "make it anew, or export it again";
        section.report.error(place, format!("{shown} does not begin with an X.509 certificate"), remedy);
        return None;
    };
    let validity = certificate.validity();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if validity.not_after.timestamp() < now {
        let what = format!("the certificate in {shown} has expired ({}); clients will refuse it", validity.not_after);
        section.report.warning(place, what, "renew it");
    } else if validity.not_before.timestamp() > now {
        let what = format!("the certificate in {shown} is not valid before {}", validity.not_before);
        section.report.warning(place, what, "wait, or set this host's clock");
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(names.collect())
}

fn client_ca(section: &Section<'_>, base: &Path, host: &Host) -> Option<ClientCa> {
    let wanted = section.get::<ClientCertificate>("client-certificate");
    match section.get::<Text>("client-ca") {
        Entry::Given(Text(path), place) => {
            let file = (credential::file(section, (&path, &place), base, host)?, place);
            let roots = chain(section, &file)?;
            let (file, place) = file;
            let mut store = RootCertStore::empty();
            if let Some(error) = roots.iter().find_map(|root| store.add(root.clone()).err()) {
                let what = format!("{} holds a certificate that cannot be used: {error}", file.display());
                section.report.error(&place, what, "give the certificates of the authorities that sign your clients'");
                return None;
            }
            Some(ClientCa {
                file,
                roots,
                required: wanted.or(ClientCertificate::Required) == ClientCertificate::Required,
            })
        }
        Entry::Absent => {
            if let Entry::Given(_, place) = wanted {
                let remedy = "add client-ca, the PEM file of who signs your clients' certificates";
                section.report.error(&place, "is given without client-ca", remedy);
            }
            None
        }
        Entry::Bad => None,
    }
}
