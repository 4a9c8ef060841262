//! `[auth]`: who may relay.

use zeroize::Zeroizing;

use super::{
    document::{Table, text},
    report::Kind,
    source::{Given, Source, from},
    stores,
};

/// Longest USERNAME (RFC 8489 §14.3).
const LONGEST_NAME: usize = 508;

/// A user of `user=name:password`.
struct User {
    name: String,
    key: &'static str,
    secret: Zeroizing<String>,
    line: usize,
}

pub(super) fn import(source: &mut Source<'_>) {
    let users = users(source);
    let secrets = source.all("static-auth-secret");
    let (lt_cred_mech, rest, no_auth) = (source.on("lt-cred-mech"), source.on("use-auth-secret"), source.on("no-auth"));
    nonce(source);
    if source.is_on("stun-only") {
        return stun_only(source);
    }
    let uses_secrets = rest.is_some() || !secrets.is_empty();
    if let (Some(line), Some(other)) = (no_auth, lt_cred_mech.or(rest).or(secrets.first().map(|given| given.line))) {
        let what = format!("contradicts line {other}, and coturn would not start; remove one");
        source.report.say(Kind::Error, line, "no-auth", what);
        return;
    }
    if no_auth.is_some() || lt_cred_mech.is_none() && !uses_secrets && users.is_empty() {
        return anonymous(source, no_auth.is_some(), !users.is_empty());
    }
    realm(source);
    if uses_secrets {
        self::secrets(source, &secrets);
        if let Some(user) = users.first() {
            let what = "coturn lets no such users in beside use-auth-secret; here they can log in: remove them if they should not";
            source.report.say(Kind::Changed, user.line, "user", what);
        }
    }
    if users.iter().any(|user| user.key == "password") {
        let what = "passwords stand as they are; `turnserver key` makes keys to stand in their place";
        source.report.say(Kind::Note, None, "user", what);
    }
    let alone = if uses_secrets { secrets.is_empty() } else { users.is_empty() };
    for User { name, key, secret, line } in users {
        let table = Table::new("[[auth.user]]").set("name", text(name), from("user", line));
        source.document.add(table.set(key, text(secret.as_str()), ""));
    }
    stores::import(source, alone);
}

/// How long a nonce is good.
fn nonce(source: &mut Source<'_>) {
    const NEVER: &str = "\"365d\"";
    match source.number("stale-nonce") {
        Some(Given { value: 0, line }) => {
            source.document.set("[auth]", "stale-nonce", NEVER, from("stale-nonce", line));
            source.report.say(
                Kind::Changed,
                line,
                "stale-nonce",
                "0 is never; here a nonce is good for a year at most",
            );
        }
        Some(Given { value, line }) => {
            const LONGEST: u64 = 365 * 24 * 60 * 60;
            let value = text(format!("{}s", value.min(LONGEST)));
            source.document.set("[auth]", "stale-nonce", value, from("stale-nonce", line));
        }
        None => source.document.set("[auth]", "stale-nonce", "\"600s\"", "coturn's default"),
    }
}

/// A server that relays for nobody: it has one user, whom nobody can be.
fn stun_only(source: &mut Source<'_>) {
    let line = source.line("stun-only").unwrap_or_default();
    let realm = source.text("realm").map_or("stun-only", |given| given.value);
    source.document.set("[auth]", "realm", text(realm), "");
    let [key, _] = source.random();
    let table = Table::new("[[auth.user]]").set("name", text("nobody"), from("stun-only", line));
    source.document.add(table.set("key", text(format!("0x{key}")), "random: nobody has the password"));
    let what = "requests to relay are answered with 401, and there is no user whom anybody could be; users, secrets and databases \
                of the file are left out";
    source.report.say(Kind::Changed, line, "stun-only", what);
}

fn anonymous(source: &mut Source<'_>, is_said: bool, has_users: bool) {
    let question = match (is_said, has_users) {
        (true, true) => {
            "coturn serves everybody without credentials, also beside users: an open relay; remove no-auth, or say so"
        }
        (true, false) => {
            "coturn serves everybody without credentials: an open relay; write users or secrets instead, or say so"
        }
        (false, _) => {
            "the file has no user and no secret, and neither lt-cred-mech nor use-auth-secret, so that coturn serves everybody \
             without credentials: an open relay; write one of them, or say so"
        }
    };
    if source.decide("no-auth", question, &["anonymous"]).is_some() {
        let why = source
            .line("no-auth")
            .map_or_else(|| "nothing in the file asks for credentials".to_owned(), |line| from("no-auth", line));
        source.document.set("[auth]", "anonymous", true, why);
    }
}

fn realm(source: &mut Source<'_>) {
    let (realm, why) = match source.text("realm") {
        Some(Given { value, line }) => (value.to_owned(), from("realm", line)),
        None => {
            let question = "the file names no realm, for which coturn takes the domain name of its host: say which it is, as keys \
                            of users depend on it";
            match source.decide("realm", question, &["NAME"]) {
                Some(answer) => (answer, "decided".to_owned()),
                None => return,
            }
        }
    };
    if realm.chars().count() > 127 || realm.is_empty() {
        source.report.say(Kind::Error, source.line("realm"), "realm", "is not of 1 to 127 characters");
    }
    source.document.set("[auth]", "realm", text(realm), why);
}

/// The users, of each name the last.
fn users(source: &mut Source<'_>) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for Given { value, line } in source.all("user") {
        let Some((name, secret)) = value.split_once(':') else {
            source.report.say(Kind::Error, line, "user", "is not a name and a password with a colon between them");
            continue;
        };
        let fault = match secret.strip_prefix("0x") {
            _ if name.is_empty() => Some("has no name before the colon"),
            _ if name.len() > LONGEST_NAME => Some("has a name of more than 508 bytes, which no request can hold"),
            _ if secret.is_empty() => Some("has no password behind the colon"),
            Some(key) if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Some("begins with 0x, but is no key of 32 hexadecimal digits")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            source.report.say(Kind::Error, line, "user", fault);
            continue;
        }
        if let Some(index) = users.iter().position(|user| user.name == name) {
            let earlier = users.remove(index).line;
            let what = format!("line {line} replaces it: coturn takes the last of a name");
            source.report.say(Kind::Changed, earlier, "user", what);
        }
        let key = if secret.starts_with("0x") { "key" } else { "password" };
        users.push(User { name: name.to_owned(), key, secret: secret.to_owned().into(), line });
    }
    users
}

/// Secrets of time-limited credentials, and how the names are put together.
fn secrets(source: &mut Source<'_>, secrets: &[Given<&str>]) {
    match secrets {
        [] => {}
        [Given { value, line }] => {
            source.document.set("[auth]", "static-auth-secret", text(value), from("static-auth-secret", *line));
        }
        several => {
            const MOST: usize = 32;
            if let Some(Given { line, .. }) = several.get(MOST) {
                let what = format!("is one more than {MOST} secrets; remove those that are no longer used");
                source.report.say(Kind::Error, *line, "static-auth-secret", what);
            }
            for (Given { value, line }, number) in several.iter().zip(1..) {
                let table = Table::new("[[auth.secret]]");
                let table = table.set("name", text(format!("coturn-{number}")), from("static-auth-secret", *line));
                source.document.add(table.set("secret", text(value), ""));
            }
        }
    }
    if let Some(Given { value, line }) = source.text("rest-api-separator") {
        let separator = value.chars().next().unwrap_or(':');
        if value.chars().count() > 1 {
            source.report.say(Kind::Changed, line, "rest-api-separator", "coturn takes the first character alone");
        }
        if separator.is_ascii_punctuation() && separator != '@' {
            source.document.set("[auth]", "rest-api-separator", text(separator), from("rest-api-separator", line));
        } else {
            let what = "is no separator here: take a punctuation character other than `@`, and let your application take it, too";
            source.report.say(Kind::Error, line, "rest-api-separator", what);
        }
    }
    let what = "names of time-limited credentials are expiry:user; coturn takes user:expiry, too, which here is \
                rest-api-username = \"user:expiry\"";
    source.report.say(Kind::Note, None, "use-auth-secret", what);
}
