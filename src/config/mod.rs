//! Configuration: TOML text to validated [`Settings`].
//!
//! [`load`] reads a file, [`parse`] a text, [`embedded_default`] the built-in configuration. All of them report everything
//! that is wrong at once ([`ConfigErrors`]) and give no settings unless all is well: a key that is unknown, a value that is
//! refused, a secret that cannot be read never falls back to a default.
//!
//! * `schema`: the names of all tables and keys. `reader`: one table at a time out of the spanned TOML tree.
//! * `value`, `address`: the types of single values. `listen`, `external`, `discovery`, `access`, `realms`, `store`, `limits`, `redirect`,
//!   `tls`, `management`, `tables`: the tables. `uri`: what clients are told to reach the server by.
//! * `finding`: what is reported. `host`: what the configuration is resolved against. `render`: settings back to text.

mod access;
mod address;
pub mod change;
mod credential;
mod discovery;
mod external;
mod finding;
mod host;
mod limits;
mod listen;
mod management;
mod reader;
mod realms;
mod redirect;
mod render;
mod schema;
pub mod settings;
mod store;
mod tables;
mod tls;
mod uri;
mod value;

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

pub use self::{
    finding::{ConfigErrors, Finding, Position},
    host::Host,
    limits::{ALLOCATION_KEYS, HolderKeys, REALM_KEYS, TENANT_KEYS, TOTAL_KEYS, USER_KEYS},
    management::SOCKET as DEFAULT_SOCKET,
    render::Effective,
    settings::Settings,
    uri::{Spoken, client_uris, secure_name, uris_at},
};
use self::{
    finding::{Place, Report},
    reader::{Leaf, Section},
};

/// A configuration that was accepted.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to run with.
    pub settings: Settings,
    /// What the operator should know.
    pub warnings: Vec<Finding>,
    /// The files of secrets, keys and certificates that were read for it.
    pub files: Vec<PathBuf>,
}

/// The built-in configuration.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// What to run with.
    pub loaded: Loaded,
    /// The password of its only user, made for this start.
    pub password: String,
}

/// The only user of the built-in configuration.
pub const EMBEDDED_USER: &str = "demo";

/// Reads and validates a file.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    parse_file(path, &read(path)?)
}

/// Validates the text of a file that was [read](read) before. Secrets, keys and certificates are read anew.
pub fn parse_file(path: &Path, text: &str) -> Result<Loaded, ConfigErrors> {
    let name = path.display().to_string();
    parse(text, &name, &detect(&name)?)
}

/// The path of the management socket in a file, whatever else is wrong there; `None` if it cannot be made out.
#[must_use]
pub fn socket_in(path: &Path) -> Option<PathBuf> {
    let table: toml::Table = read(path).ok()?.parse().ok()?;
    match table.get("management").and_then(|management| management.get("socket")) {
        None => Some(PathBuf::from(DEFAULT_SOCKET)),
        Some(written) => {
            let written = written.as_str().filter(|written| *written != "off")?;
            Some(path.parent().unwrap_or_else(|| Path::new("")).join(written))
        }
    }
}

/// Reads the text of a file.
pub fn read(path: &Path) -> Result<Zeroizing<String>, ConfigErrors> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        let remedy = "name an existing, readable file with -c";
        ConfigErrors::whole_file(&name, format!("cannot read the configuration: {error}"), remedy)
    })?;
    // Secrets may stand in it.
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        ConfigErrors::whole_file(&name, format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// Validates a text. `file_name` is named in findings, and its folder is where relative secret files are looked up.
pub fn parse(text: &str, file_name: &str, host: &Host) -> Result<Loaded, ConfigErrors> {
    let report = Report::new(file_name, text);
    let settings = read_tree(&report, file_name, host);
    let files = report.take_files();
    let (errors, warnings) = report.into_findings();
    match settings {
        Some(settings) if errors.is_empty() => Ok(Loaded { settings, warnings, files }),
        _ => Err(ConfigErrors { errors, warnings }),
    }
}

/// The built-in configuration: UDP and TCP 3478 on all addresses, one user with a fresh random password.
pub fn embedded_default() -> Result<Embedded, ConfigErrors> {
    const NAME: &str = "built-in configuration";
    embedded_for(NAME, &detect(NAME)?)
}

fn embedded_for(name: &str, host: &Host) -> Result<Embedded, ConfigErrors> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|error| {
        ConfigErrors::whole_file(name, format!("cannot make a password: {error}"), "give a configuration with -c")
    })?;
    let password = BASE64_URL_SAFE_NO_PAD.encode(random);
    // Whoever tries it on a host without IPv4 has clients that ask for no family.
    let ipv4 = host.primary.iter().any(std::net::IpAddr::is_ipv4);
    let family = if ipv4 { "" } else { "[relay]\nallocation-default-address-family = \"keep\"\n" };
    let text = format!(
        "{family}[auth]\nrealm = \"turnserver\"\n[[auth.user]]\nname = \"{EMBEDDED_USER}\"\npassword = \"{password}\"\n"
    );
    Ok(Embedded { loaded: parse(&text, name, host)?, password })
}

/// Checks a `tracing` filter given on the command line as strictly as `log.level` is.
pub fn check_log_level(level: &str) -> Result<String, String> {
    value::log_level(level).map_err(|mistake| format!("{}; {}", mistake.what, mistake.remedy))
}

/// Reads a duration given on the command line as strictly as one in a file.
pub fn parse_period(written: &str) -> Result<Duration, String> {
    let read = value::Period::read(&DeValue::String(written.into()));
    read.map(|value::Period(period)| period).map_err(|mistake| format!("{}; {}", mistake.what, mistake.remedy))
}

/// Reads a set of addresses as `[peers]` does: a network, one address, or `first-last`. The error says what is wrong with it.
pub(crate) fn parse_peer_range(text: &str) -> Result<Vec<ipnet::IpNet>, String> {
    address::peer_range(text).map_err(|mistake| mistake.what)
}

fn detect(name: &str) -> Result<Host, ConfigErrors> {
    Host::detect().map_err(|error| {
        let remedy = "check that this process may list network interfaces";
        ConfigErrors::whole_file(name, format!("cannot list the addresses of this host: {error}"), remedy)
    })
}

/// Reads everything there is; `None` if the text is not TOML.
fn read_tree(report: &Report<'_>, file_name: &str, host: &Host) -> Option<Settings> {
    let (tree, errors) = DeTable::parse_recoverable(report.text());
    for error in &errors {
        let offset = error.span().map(|span| span.start);
        // Only a key is repeated here: any other text of a broken line could be part of a secret.
        let duplicate = error.message() == DUPLICATE;
        let key = error.span().filter(|_| duplicate).and_then(|span| report.text().get(span)).unwrap_or_default();
        let place = Place { offset, key: key.to_owned(), value: None };
        let remedy = if duplicate { "remove one" } else { "see https://toml.io for how to write it" };
        report.error(&place, error.message(), remedy);
    }
    if errors.iter().any(|error| error.message() != DUPLICATE) {
        // What the parser recovered from a broken file would only bring misleading errors.
        return None;
    }
    let root = Section::root(report, tree.get_ref());
    let base = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let (mut listeners, named) = listen::listeners(&root, host);
    let relay = listen::relay(&root, host, &listeners);
    let nat_discovery = discovery::nat_discovery(&root, host, &relay, &mut listeners);
    let auth = access::auth(&root, base, host, &listeners);
    let bounds = root.section("limits");
    let mut limits = limits::limits(&bounds);
    let mut realms = realms::realms(&root, base, host, &auth, &limits);
    limits.state_directory = limits::state_directory(&bounds, base, &limits, &realms);
    realms::assign(&root, &mut listeners, named, &auth, &mut realms);
    if report.holds_secrets() && access::readable_by_others(Path::new(file_name)) {
        let remedy = format!("chmod 640 {file_name}, or keep secrets in files of their own");
        report.warning(&root.place(""), "this file holds secrets and is readable by everyone", remedy);
    }
    Some(Settings {
        auth,
        realms,
        store: store::store(&root, base, host),
        lifetimes: tables::lifetimes(&root),
        limits,
        peers: tables::peers(&root),
        redirect: redirect::redirect(&root, host, &listeners, &relay),
        nat_discovery,
        tcp: tables::tcp(&root),
        tls: tls::tls(&root, base, host, &listeners),
        compatibility: tables::compatibility(&root),
        process: tables::process(&root, host),
        offload: tables::offload(&root),
        management: management::management(&root, base, host, &listeners, &relay),
        log: tables::log(&root),
        listeners,
        relay,
    })
}

/// How the TOML parser calls a key that is there twice.
const DUPLICATE: &str = "duplicate key";
