//! `[auth]` and `[[auth.user]]`: who may, and where secrets come from. What `[auth]` shares with `[[realm]]` is in [`super::realms`].

use std::{
    env::VarError,
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    credential,
    finding::Place,
    host::Host,
    reader::{Entry, Section},
    realms,
    settings::{Auth, Listener, Secret, User, UserSecret},
    value::{ClientUri, Period, PeriodOrZero, Text},
};

/// The password in the example files, which everybody knows.
pub(super) const EXAMPLE_PASSWORD: &str = "change-me";

/// Realm of a server that asks nobody for credentials.
const ANONYMOUS_REALM: &str = "turnserver";

/// RFC 8489 §14.9 and §14.3: REALM has fewer than 128 characters, USERNAME fewer than 509 bytes.
pub(super) const LONGEST_REALM: usize = 127;
const LONGEST_NAME: usize = 508;

/// Where the one secret of a realm may be given.
pub(super) const STATIC_SECRET: [&str; 3] = ["static-auth-secret", "static-auth-secret-file", "static-auth-secret-env"];

/// Largest secret file read; a secret is one line.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Reads `[auth]`. Relative secret files are looked up under `base`.
pub(super) fn auth(root: &Section<'_>, base: &Path, host: &Host, listeners: &[Listener]) -> Auth {
    let section = root.section("auth");
    let anonymous = section.get::<bool>("anonymous");
    let anonymous_is_bad = matches!(anonymous, Entry::Bad);
    let anonymous = anonymous.or(false);
    let sections = section.sections("user");
    let written = sections.as_ref().map_or(0, Vec::len);
    let users = users(sections.unwrap_or_default(), base, host);
    let mechanisms = realms::mechanisms(&section, root.has_any("store"), base, host);
    let others = ["secret", "token-key"].into_iter().chain(STATIC_SECRET).any(|key| section.has(key));
    if anonymous && section.has("user") {
        let remedy = "remove `anonymous = true` or the users";
        section.report.error(&section.place_at("anonymous"), "users are listed, but nobody is asked", remedy);
    } else if anonymous && others {
        let remedy = "remove `anonymous = true`, or the secrets and keys";
        section.report.error(&section.place_at("anonymous"), "secrets are given, but nobody is asked", remedy);
    } else if anonymous && root.has_any("store") {
        let remedy = "remove `anonymous = true` or [store]";
        section.report.error(&section.place_at("anonymous"), "a store of users is given, but nobody is asked", remedy);
    } else if anonymous && listeners.iter().flat_map(|listener| &listener.addresses).any(|ip| !ip.is_loopback()) {
        let remedy = "list users, or listen on loopback only";
        section.report.warning(&section.place_at("anonymous"), "anyone who reaches this server may relay", remedy);
    } else if !anonymous
        && !anonymous_is_bad
        && written == 0
        && !section.has("user")
        && !others
        && !root.has("realm")
        && !root.has_any("store")
    {
        let remedy = "add [[auth.user]] with name and password, or static-auth-secret, or a [store], or write \
                      `anonymous = true` to serve everyone";
        section.report.error(&section.place("user"), "there are no credentials", remedy);
    }
    Auth {
        realm: realm(&section, anonymous),
        anonymous,
        users,
        mechanisms,
        limits: None,
        expiry_grace: section.get("expiry-grace").or(PeriodOrZero(Duration::ZERO)).0,
        uris: section.list("uris").or(Vec::new()).into_iter().map(|(ClientUri(uri), _)| uri).collect(),
        stale_nonce: stale_nonce(&section),
    }
}

fn realm(section: &Section<'_>, anonymous: bool) -> String {
    match section.get::<Text>("realm") {
        Entry::Given(Text(realm), place) => {
            if realm.chars().count() > LONGEST_REALM {
                let remedy = format!("write at most {LONGEST_REALM} characters");
                section.report.error(&place, "is too long", remedy);
            }
            realm
        }
        Entry::Bad => String::new(),
        Entry::Absent => {
            if !anonymous {
                let remedy = "write the name of your service, e.g. realm = \"example.org\"";
                section.report.error(&section.place("realm"), "is missing", remedy);
            }
            ANONYMOUS_REALM.to_owned()
        }
    }
}

fn stale_nonce(section: &Section<'_>) -> Duration {
    section.get("stale-nonce").or(Period(Duration::from_secs(3_600))).0
}

/// Reads user tables.
pub(super) fn users(sections: Vec<Section<'_>>, base: &Path, host: &Host) -> Vec<User> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    let mut users = Vec::new();
    for section in sections {
        let secret = user_secret(&section, base, host);
        match section.get::<Text>("name") {
            Entry::Absent => section.report.error(&section.place("name"), "is missing", "write the user's name"),
            Entry::Bad => {}
            Entry::Given(Text(name), place) => {
                if let Some((_, line)) = seen.iter().find(|(earlier, _)| *earlier == name) {
                    section.report.error(&place, format!("this user exists already (line {line})"), "remove one");
                }
                if name.len() > LONGEST_NAME {
                    section.report.error(&place, "is too long", format!("write at most {LONGEST_NAME} bytes"));
                }
                seen.push((name.clone(), section.report.line(place.offset.unwrap_or_default())));
                users.extend(secret.map(|secret| User { name, secret }));
            }
        }
    }
    users
}

/// The one secret of a user; `None` once an error is reported.
fn user_secret(section: &Section<'_>, base: &Path, host: &Host) -> Option<UserSecret> {
    const PASSWORD: [&str; 3] = ["password", "password-file", "password-env"];
    const KEY: [&str; 3] = ["key", "key-file", "key-env"];
    const KEY_SHA256: [&str; 3] = ["key-sha256", "key-sha256-file", "key-sha256-env"];
    let given = |names: [&'static str; 3]| names.into_iter().filter(|name| section.has(name)).collect::<Vec<_>>();
    let [passwords, keys, sha256_keys] = [given(PASSWORD), given(KEY), given(KEY_SHA256)];
    let main: Vec<&str> = passwords.iter().chain(&keys).copied().collect();
    for names in [&main, &sha256_keys] {
        if let [first, second, ..] = names[..] {
            let what = format!("the secret is given twice, as {first} and as {second}");
            section.report.error(&section.place_at(second), what, "keep one");
            return None;
        }
    }
    match (main.as_slice(), sha256_keys.first()) {
        ([], None) => {
            let remedy = "write password, password-file, password-env, key, key-file or key-env";
            section.report.error(&section.place("password"), "this user has no secret", remedy);
            None
        }
        ([], Some(sha256)) => {
            let remedy = "add key, key-file or key-env, for clients that know only MESSAGE-INTEGRITY with SHA-1";
            section.report.error(&section.place_at(sha256), "the MD5 key is missing", remedy);
            None
        }
        ([_, ..], Some(sha256)) if !passwords.is_empty() => {
            let remedy = "remove it; all keys derive from the password";
            section.report.error(&section.place_at(sha256), "is given next to a password", remedy);
            None
        }
        _ if !passwords.is_empty() => {
            let (password, place) = secret(section, PASSWORD, base, host)?;
            if *password == EXAMPLE_PASSWORD {
                section.report.warning(&place, "is the password of the examples", "write a password of your own");
            }
            Some(UserSecret::Password(Secret(password)))
        }
        (_, sha256) => {
            let md5 = secret(section, KEY, base, host).and_then(|(text, place)| {
                hex(section, &place, text.strip_prefix("0x").unwrap_or(&text), "MD5(name:realm:password)")
            });
            let sha256 = match sha256 {
                None => Some(None),
                Some(_) => secret(section, KEY_SHA256, base, host).and_then(|(text, place)| {
                    let text = text.strip_prefix("0x").unwrap_or(&text);
                    hex(section, &place, text, "SHA-256(name:realm:password)").map(|key| Some(Secret(key.into())))
                }),
            };
            Some(UserSecret::Keys { md5: Secret(md5?.into()), sha256: sha256? })
        }
    }
}

/// The text of a secret that is given in exactly one of the ways of its names; `None` once an error is reported.
pub(super) fn one_secret(
    section: &Section<'_>,
    names: [&'static str; 3],
    base: &Path,
    host: &Host,
) -> Option<(Zeroizing<String>, Place)> {
    let given: Vec<&str> = names.into_iter().filter(|name| section.has(name)).collect();
    match given[..] {
        [] => {
            let [plain, file, variable] = names;
            section.report.error(&section.place(plain), "is missing", format!("write {plain}, {file} or {variable}"));
            None
        }
        [_] => secret(section, names, base, host),
        [first, second, ..] => {
            let what = format!("the secret is given twice, as {first} and as {second}");
            section.report.error(&section.place_at(second), what, "keep one");
            None
        }
    }
}

/// The text of a secret, from the place that it was given at.
pub(super) fn secret(
    section: &Section<'_>,
    names: [&'static str; 3],
    base: &Path,
    host: &Host,
) -> Option<(Zeroizing<String>, Place)> {
    let [plain, file, variable] = names;
    if let Entry::Given(Text(text), place) = section.get(plain) {
        section.report.note_secret();
        return Some((text.into(), place));
    }
    if let Entry::Given(Text(path), place) = section.get(file) {
        let path = credential::file(section, (&path, &place), base, host)?;
        return secret_file(section, &place, &path).map(|text| (text, place));
    }
    if let Entry::Given(Text(name), place) = section.get(variable) {
        let fault = match (host.variable)(&name) {
            Ok(text) if text.is_empty() => "the environment variable is empty",
            Ok(text) if text.chars().any(char::is_control) => "the environment variable holds control characters",
            Ok(text) => return Some((text.into(), place)),
            Err(VarError::NotPresent) => "the environment variable is not set",
            Err(VarError::NotUnicode(_)) => "the environment variable is not UTF-8",
        };
        section.report.error(&place, fault, "set it to the secret before the server starts");
    }
    None
}

fn secret_file(section: &Section<'_>, place: &Place, path: &Path) -> Option<Zeroizing<String>> {
    section.report.note_file(path);
    let shown = path.display();
    let content = match read_secret(path) {
        Ok(content) => content,
        Err(error) => {
            let remedy = "create it, readable for the user that the server runs as";
            section.report.error(place, format!("cannot read {shown}: {error}"), remedy);
            return None;
        }
    };
    let fault = match content.trim_end_matches(['\r', '\n']) {
        "" => "is empty",
        text if text.chars().any(char::is_control) => "holds more than one line or control characters",
        text => {
            if readable_by_others(path) {
                section.report.warning(place, format!("{shown} is readable by everyone"), format!("chmod 600 {shown}"));
            }
            return Some(text.to_owned().into());
        }
    };
    section.report.error(place, format!("{shown} {fault}"), "write the secret into it, on one line");
    None
}

fn read_secret(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut content = Zeroizing::new(String::new());
    let length = File::open(path)?.take(LARGEST_SECRET + 1).read_to_string(&mut content)?;
    if length as u64 > LARGEST_SECRET {
        return Err(io::Error::other("is too large for a secret"));
    }
    Ok(content)
}

#[cfg(unix)]
pub(super) fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o004;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(not(unix))]
pub(super) fn readable_by_others(_path: &Path) -> bool {
    false
}

/// Parses exactly `2 * N` hexadecimal digits.
fn hex<const N: usize>(section: &Section<'_>, place: &Place, text: &str, meaning: &str) -> Option<[u8; N]> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Option<Vec<u8>> = digits
        .filter(|digits| digits.len() == 2 * N)
        .map(|digits| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect());
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    if key.is_none() {
        let remedy = format!("write {meaning} in hexadecimal");
        section.report.error(place, format!("is not a key of {} hexadecimal digits", 2 * N), remedy);
    }
    key
}
