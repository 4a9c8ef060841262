//! `[store]`: where users are kept beside the configuration.

use std::{borrow::Cow, path::Path, time::Duration};

use toml::de::DeValue;
use url::{Host as UrlHost, Url};
use zeroize::Zeroizing;

use super::{
    access::{readable_by_others, secret},
    credential,
    finding::Place,
    host::Host,
    reader::{Entry, Leaf, Mistake, Section},
    render::MASK,
    settings::{HttpStore, Secret, Store, StoreBackend, StoreLimits},
    tls,
    value::{Int, Period, Text, choose},
};

/// `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgresql,
    Mysql,
    Redis,
    Http,
}

impl Kind {
    /// The schemes of its URLs; none if it has a path.
    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[],
            Self::Postgresql => &["postgresql", "postgres"],
            Self::Mysql => &["mysql", "mariadb"],
            Self::Redis => &["redis", "rediss"],
            Self::Http => &["https", "http"],
        }
    }

    /// The cargo feature that it is built with, and whether it was.
    const fn feature(self) -> (&'static str, bool) {
        match self {
            Self::Sqlite => ("sqlite", cfg!(feature = "sqlite")),
            Self::Postgresql => ("postgresql", cfg!(feature = "postgresql")),
            Self::Mysql => ("mysql", cfg!(feature = "mysql")),
            Self::Redis => ("redis", cfg!(feature = "redis")),
            Self::Http => ("http-store", cfg!(feature = "http-store")),
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgresql => "postgresql://turn:PASSWORD@db.example.org/turn?sslmode=verify-full",
            Self::Mysql => "mysql://turn:PASSWORD@db.example.org/turn?ssl-mode=VERIFY_IDENTITY",
            Self::Redis => "rediss://:PASSWORD@db.example.org/0",
            Self::Http => "https://users.example.org/turn",
        }
    }
}

impl Leaf for Kind {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake> {
        let choices = [
            ("sqlite", Self::Sqlite),
            ("postgresql", Self::Postgresql),
            ("mysql", Self::Mysql),
            ("redis", Self::Redis),
            ("http", Self::Http),
        ];
        choose(value, &choices)
    }
}

const URL: [&str; 3] = ["url", "url-file", "url-env"];
const SECRET: [&str; 3] = ["secret", "secret-file", "secret-env"];

/// Reads `[store]`. Relative files are looked up under `base`. `None` if there is none, or it is wrong.
pub(super) fn store(root: &Section<'_>, base: &Path, host: &Host) -> Option<Store> {
    let section = root.section("store");
    let limits = limits(&section);
    let Int(connections) = section.get("connections").or(Int::<1, 1_000>(4));
    let kind = match section.get::<Kind>("type") {
        Entry::Given(kind, place) => {
            let (feature, is_built_in) = kind.feature();
            if !is_built_in {
                let remedy = format!("choose another, or build with --features {feature}");
                section.report.error(&place, "is not in this build", remedy);
            }
            Some(kind)
        }
        Entry::Bad => None,
        Entry::Absent => {
            if root.has_any("store") {
                let remedy = "write \"sqlite\", \"postgresql\", \"mysql\", \"redis\" or \"http\"";
                section.report.error(&section.place("type"), "is missing", remedy);
            }
            None
        }
    };
    // Everything is read, so that all that is wrong is said at once.
    let path = section.get::<Text>("path");
    let url = given_once(&section, URL, base, host);
    let signing = given_once(&section, SECRET, base, host);
    let ca = match section.get::<Text>("ca") {
        Entry::Given(Text(path), place) => credential::file(&section, (&path, &place), base, host).and_then(|path| {
            let file = (path, place);
            tls::chain(&section, &file).map(|roots| Some((file.0, roots)))
        }),
        Entry::Absent => Some(None),
        Entry::Bad => None,
    };
    let backend = match kind? {
        Kind::Sqlite => {
            refuse_others(&section, &[URL.as_slice(), &SECRET, &["ca"]].concat(), "a file; write its path");
            let Text(path) = match path {
                Entry::Given(path, place) => {
                    warn_of_readers(&section, &place, &base.join(&path.0));
                    path
                }
                Entry::Bad => return None,
                Entry::Absent => {
                    let remedy = "write the file, e.g. path = \"/var/lib/turnserver/turndb\"; it is made on first use";
                    section.report.error(&section.place("path"), "is missing", remedy);
                    return None;
                }
            };
            StoreBackend::Sqlite(base.join(path))
        }
        kind @ (Kind::Postgresql | Kind::Mysql | Kind::Redis) => {
            refuse_others(&section, &[["path"].as_slice(), &SECRET, &["ca"]].concat(), "reached by its url");
            let url = Secret(address(&section, kind, url)?);
            match kind {
                Kind::Postgresql => StoreBackend::Postgresql(url),
                Kind::Mysql => StoreBackend::Mysql(url),
                _ => StoreBackend::Redis(url),
            }
        }
        Kind::Http => {
            refuse_others(&section, &["path"], "reached by its url");
            let url = address(&section, Kind::Http, url);
            let secret = signing_secret(&section, signing);
            StoreBackend::Http(HttpStore { url: Secret(url?), secret: Secret(secret?), ca: ca? })
        }
    };
    Some(Store { backend, connections, limits: limits? })
}

fn limits(section: &Section<'_>) -> Option<StoreLimits> {
    let period = |key, seconds| section.get(key).or(Period(Duration::from_secs(seconds))).0;
    let limits = StoreLimits {
        timeout: period("timeout", 2),
        max_questions: section.get("max-questions").or(Int::<1, 1_000_000>(1_000)).0 as usize,
        cache_entries: section.get("cache-entries").or(Int::<0, 10_000_000>(10_000)).0 as usize,
        cache_time: period("cache-time", 60),
        negative_cache_time: period("negative-cache-time", 10),
        max_failures: section.get("max-failures").or(Int::<1, 1_000>(3)).0,
        max_pause: period("max-pause", 30),
    };
    const LONGEST: Duration = Duration::from_secs(60);
    if limits.timeout > LONGEST {
        let remedy = "write at most \"60s\": clients give up after less";
        section.report.error(&section.place_at("timeout"), "is longer than anybody waits", remedy);
        return None;
    }
    Some(limits)
}

/// A secret that may be written, in a file or in the environment. `None` if it is not given, or wrong and reported.
fn given_once(
    section: &Section<'_>,
    names: [&'static str; 3],
    base: &Path,
    host: &Host,
) -> Option<(Zeroizing<String>, Place)> {
    let given: Vec<_> = names.into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given[..] {
        let what = format!("is given twice, as {first} and as {second}");
        section.report.error(&section.place_at(second), what, "keep one");
        return None;
    }
    secret(section, names, base, host)
}

/// Reports keys that mean nothing to this type.
fn refuse_others(section: &Section<'_>, others: &[&'static str], instead: &str) {
    for key in others.iter().filter(|key| section.has(key)) {
        let remedy = format!("remove it; a store of this type is {instead}");
        section.report.error(&section.place_at(key), "means nothing to this type of store", remedy);
    }
}

fn address(section: &Section<'_>, kind: Kind, given: Option<(Zeroizing<String>, Place)>) -> Option<Url> {
    let Some((text, place)) = given else {
        if !URL.iter().any(|name| section.has(name)) {
            let remedy = format!("write url, url-file or url-env, e.g. url = \"{}\"", kind.example());
            section.report.error(&section.place("url"), "is missing", remedy);
        }
        return None;
    };
    // Nothing of the text is repeated: it may hold a password, and in a place where no parser looks for it.
    let fault = match Url::parse(&text) {
        Err(error) => format!("is not a URL: {error}"),
        Ok(url) if !kind.schemes().contains(&url.scheme()) => {
            let schemes: Vec<String> = kind.schemes().iter().map(|scheme| format!("{scheme}://")).collect();
            format!("does not begin with {}", schemes.join(" or "))
        }
        Ok(url) if url.host().is_none() => "names no host".to_owned(),
        Ok(url) if kind == Kind::Http && !(url.username().is_empty() && url.password().is_none()) => {
            "holds a name or password, but requests are signed instead".to_owned()
        }
        Ok(url) => {
            warn_of_plain_http(section, &place, &url);
            return Some(url);
        }
    };
    section.report.error(&place, fault, format!("write it like \"{}\"", kind.example()));
    None
}

fn warn_of_plain_http(section: &Section<'_>, place: &Place, url: &Url) {
    let stays_here = match url.host() {
        Some(UrlHost::Ipv4(ip)) => ip.is_loopback(),
        Some(UrlHost::Ipv6(ip)) => ip.is_loopback(),
        Some(UrlHost::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !stays_here {
        let what = "sends and receives keys of users for everybody on the way to read";
        section.report.warning(place, what, "write https://");
    }
}

fn signing_secret(section: &Section<'_>, given: Option<(Zeroizing<String>, Place)>) -> Option<Zeroizing<String>> {
    const SHORTEST: usize = 16;
    match given {
        Some((secret, place)) => {
            // A masked one is what `check` has printed.
            if secret.len() < SHORTEST && *secret != MASK {
                let remedy = format!("write at least {SHORTEST} characters, e.g. from openssl rand -base64 24");
                section.report.error(&place, "is too short", remedy);
                return None;
            }
            Some(secret)
        }
        None => {
            if !SECRET.iter().any(|name| section.has(name)) {
                let remedy = "write secret, secret-file or secret-env; requests are signed with it";
                section.report.error(&section.place("secret"), "is missing", remedy);
            }
            None
        }
    }
}

fn warn_of_readers(section: &Section<'_>, place: &Place, path: &Path) {
    if readable_by_others(path) {
        let shown = path.display();
        section.report.warning(place, format!("{shown} is readable by everyone"), format!("chmod 640 {shown}"));
    }
}

/// A URL as it may be shown: without passwords, in front of the host or behind it.
pub(super) fn masked_url(url: &Url) -> String {
    const WORDS: [&str; 6] = ["pass", "pwd", "secret", "key", "token", "cred"];
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Refused only by URLs that cannot have a password.
        let _ = shown.set_password(Some(MASK));
    }
    if url.query().is_some() {
        let is_secret = |name: &str| WORDS.iter().any(|word| name.to_lowercase().contains(word));
        let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = url
            .query_pairs()
            .map(|(name, value)| if is_secret(&name) { (name, Cow::Borrowed(MASK)) } else { (name, value) })
            .collect();
        shown.query_pairs_mut().clear().extend_pairs(pairs);
    }
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_password_wherever_it_was() {
        for (written, shown) in [
            ("postgresql://turn:hunter2@db/turn?sslmode=require", "postgresql://turn:****@db/turn?sslmode=require"),
            ("postgresql://db/turn?user=turn&password=hunter2", "postgresql://db/turn?user=turn&password=****"),
            ("redis://:hunter2@db:6379/2", "redis://:****@db:6379/2"),
            ("https://a.example/turn?api-token=hunter2", "https://a.example/turn?api-token=****"),
            ("mysql://turn@db/turn", "mysql://turn@db/turn"),
        ] {
            let once = masked_url(&Url::parse(written).unwrap());
            assert_eq!(once, shown);
            assert_eq!(masked_url(&Url::parse(&once).unwrap()), shown);
        }
    }
}
