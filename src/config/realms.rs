//! `[[realm]]`, and what a realm has in common with `[auth]`: secrets of time-limited credentials, keys of access tokens.

use std::{path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use super::{
    access::{self, EXAMPLE_PASSWORD},
    finding::Place,
    host::Host,
    limits,
    reader::{Entry, Section},
    settings::{Auth, Limits, Listener, Mechanisms, Realm, Secret, TokenKey},
    tables,
    value::{Separator, Text},
};
use crate::auth::{
    credential::RealmId,
    rest::{RestAlgorithm, RestForm, RestNames, RestSecret},
    token::TokenAlgorithm,
};

/// More would not be looked through for each login.
const MOST_REALMS: usize = 1_000;
const MOST_SECRETS: usize = 32;

/// What is sent with every challenge must leave room for the rest.
const LONGEST_SERVER_NAME: usize = 255;

/// A secret that can be guessed at leisure by whoever has seen one credential.
const SHORTEST_SECRET: usize = 16;

/// What the secret of `static-auth-secret` is called.
const STATIC_SECRET: &str = "static-auth-secret";

/// Reads every `[[realm]]`; none is announced yet. `all` is what `[limits]` says.
pub(super) fn realms(root: &Section<'_>, base: &Path, host: &Host, auth: &Auth, all: &Limits) -> Vec<Realm> {
    let sections = root.sections("realm").unwrap_or_default();
    let mut realms: Vec<Realm> = Vec::new();
    for section in &sections {
        let mechanisms = mechanisms(section, root.has_any("store"), base, host);
        let users = section.sections("user");
        let has_users = users.is_some();
        let users = access::users(users.unwrap_or_default(), base, host);
        let peers = section.has("peers").then(|| tables::peers_of(&section.section("peers")));
        let limits = section.has("limits").then(|| limits::realm(&section.section("limits"), &all.realm, &all.total));
        let others = ["secret", "token-key"].into_iter().chain(access::STATIC_SECRET);
        if !has_users && !others.into_iter().any(|key| section.has(key)) && !root.has_any("store") {
            let remedy = "add [[realm.user]], [[realm.secret]] or [[realm.token-key]] below it, or a [store]";
            section.report.error(&section.place(""), "nobody can get into this realm", remedy);
        }
        let Some((name, place)) = name(section) else { continue };
        if name == auth.realm {
            let remedy = "write another name, or put its users into [auth]";
            section.report.error(&place, "is the realm of [auth]", remedy);
        } else if realms.iter().any(|realm| realm.name == name) {
            section.report.error(&place, "is another realm's name", "write each realm once");
        }
        if auth.anonymous {
            let remedy = "remove `anonymous = true` or the realms";
            section.report.error(&place, "nobody is asked who they are", remedy);
        }
        realms.push(Realm { name, users, mechanisms, peers, limits, announced: false });
    }
    if let Some(section) = sections.get(MOST_REALMS) {
        section.report.error(&section.place(""), format!("is one more than {MOST_REALMS} realms"), "write fewer");
    }
    realms
}

fn name(section: &Section<'_>) -> Option<(String, Place)> {
    match section.get::<Text>("name") {
        Entry::Given(Text(name), place) => {
            if name.chars().count() > access::LONGEST_REALM {
                let remedy = format!("write at most {} characters", access::LONGEST_REALM);
                section.report.error(&place, "is too long", remedy);
            }
            if name.contains('@') {
                section.report.error(&place, "contains `@`, which stands before it in user@realm", "leave it out");
            }
            Some((name, place))
        }
        Entry::Absent => {
            section.report.error(&section.place("name"), "is missing", "write the realm's name");
            None
        }
        Entry::Bad => None,
    }
}

/// Gives each listener the realm that it names, if it names one.
pub(super) fn assign(
    root: &Section<'_>,
    listeners: &mut [Listener],
    named: Vec<Option<(String, Place)>>,
    auth: &Auth,
    realms: &mut [Realm],
) {
    for (listener, named) in listeners.iter_mut().zip(named) {
        let Some((name, place)) = named else { continue };
        if name == auth.realm {
            continue;
        }
        match realms.iter_mut().zip(1..).find(|(realm, _)| realm.name == name) {
            Some((realm, id)) => {
                realm.announced = true;
                listener.realm = RealmId(id);
            }
            None => {
                let known: Vec<&str> =
                    [auth.realm.as_str()].into_iter().chain(realms.iter().map(|realm| realm.name.as_str())).collect();
                let remedy = format!("write one of {}, or add a [[realm]] of this name", known.join(", "));
                root.report.error(&place, "is no realm", remedy);
            }
        }
    }
}

/// Reads the secrets and token keys of `[auth]` or a `[[realm]]`. `has_store`: there may be others in a store.
pub(super) fn mechanisms(section: &Section<'_>, has_store: bool, base: &Path, host: &Host) -> Mechanisms {
    let names = RestNames {
        form: section.get("rest-api-username").or(RestForm::default()),
        separator: section.get("rest-api-separator").or(Separator(':')).0,
    };
    Mechanisms {
        secrets: secrets(section, &names, has_store, base, host),
        rest: names,
        token_keys: token_keys(section, base, host),
        server_name: match section.get::<Text>("server-name") {
            Entry::Given(Text(name), place) => {
                if name.len() > LONGEST_SERVER_NAME {
                    let remedy = format!("write at most {LONGEST_SERVER_NAME} bytes");
                    section.report.error(&place, "is too long", remedy);
                }
                if !section.has("token-key") && !has_store {
                    let remedy = "add the keys of your authorization server, or remove it";
                    section.report.warning(&place, "is of use with access tokens only", remedy);
                }
                Some(name)
            }
            Entry::Absent | Entry::Bad => None,
        },
    }
}

fn secrets(section: &Section<'_>, names: &RestNames, has_store: bool, base: &Path, host: &Host) -> Vec<RestSecret> {
    let mut secrets = Vec::new();
    let mut places = Vec::new();
    if access::STATIC_SECRET.into_iter().any(|key| section.has(key))
        && let Some((text, place)) = access::one_secret(section, access::STATIC_SECRET, base, host)
    {
        check_strength(section, &text, &place);
        secrets.push(rest_secret(STATIC_SECRET, None, RestAlgorithm::default(), &text));
        places.push(place);
    }
    for table in section.sections("secret").unwrap_or_default() {
        let text = access::one_secret(&table, ["secret", "secret-file", "secret-env"], base, host);
        let algorithm = table.get("algorithm").or(RestAlgorithm::default());
        let tenant = match table.get::<Text>("tenant") {
            Entry::Given(Text(tenant), place) => {
                if tenant.contains(names.separator) {
                    let what = format!("contains {:?}, which stands behind it in user names", names.separator);
                    table.report.error(&place, what, "leave it out");
                }
                Some(tenant)
            }
            Entry::Absent | Entry::Bad => None,
        };
        let (name, place) = match table.get::<Text>("name") {
            Entry::Given(Text(name), place) => (name, place),
            Entry::Absent => {
                let remedy = "write what to call this secret in logs and revocations";
                table.report.error(&table.place("name"), "is missing", remedy);
                continue;
            }
            Entry::Bad => continue,
        };
        if secrets.iter().any(|other: &RestSecret| *other.name == *name) {
            table.report.error(&place, "is another secret's name", "write another one");
        }
        if let Some((text, text_place)) = text {
            check_strength(&table, &text, &text_place);
            secrets.push(rest_secret(&name, tenant.as_deref(), algorithm, &text));
            places.push(place);
        }
    }
    check_tenants(section, names, &secrets, &places);
    if let Some(place) = places.get(MOST_SECRETS) {
        let what = format!("is one more than {MOST_SECRETS} secrets, which are all tried for each login");
        section.report.error(place, what, "remove those that are no longer used");
    }
    if secrets.is_empty() && !section.has("secret") && !has_store {
        for key in ["rest-api-username", "rest-api-separator"] {
            if section.has(key) {
                let what = "is of use with secrets only";
                section.report.warning(&section.place_at(key), what, "add static-auth-secret, or remove it");
            }
        }
    }
    secrets
}

fn rest_secret(name: &str, tenant: Option<&str>, algorithm: RestAlgorithm, text: &str) -> RestSecret {
    let key = Zeroizing::new(text.as_bytes().to_vec());
    RestSecret { name: name.into(), tenant: tenant.map(Arc::from), algorithm, key }
}

/// A name either has a tenant or has none, for all secrets of a realm.
fn check_tenants(section: &Section<'_>, names: &RestNames, secrets: &[RestSecret], places: &[Place]) {
    let odd = |(secret, _): &(&RestSecret, &Place)| secret.tenant.is_some() != names.form.has_tenant();
    if let Some((secret, place)) = secrets.iter().zip(places).find(odd) {
        let (what, remedy) = match &secret.tenant {
            Some(_) => (
                "is for a tenant, which user names do not have",
                "write rest-api-username = \"expiry:tenant:user\", or remove the tenant",
            ),
            None => (
                "is for no tenant, but user names have one",
                "write the tenant that this secret is for, or remove it from rest-api-username",
            ),
        };
        section.report.error(place, what, remedy);
    }
}

fn check_strength(section: &Section<'_>, text: &str, place: &Place) {
    if text == EXAMPLE_PASSWORD {
        section.report.warning(place, "is the secret of the examples", "write a secret of your own");
    } else if text.len() < SHORTEST_SECRET {
        let what = "is short: whoever has one credential can guess it";
        section.report.warning(place, what, "make one with `openssl rand -hex 32`");
    }
}

fn token_keys(section: &Section<'_>, base: &Path, host: &Host) -> Vec<TokenKey> {
    let mut keys: Vec<TokenKey> = Vec::new();
    for table in section.sections("token-key").unwrap_or_default() {
        let text = access::one_secret(&table, ["key", "key-file", "key-env"], base, host);
        let algorithm = table.get("algorithm").or(TokenAlgorithm::default());
        let kid = match table.get::<Text>("kid") {
            Entry::Given(Text(kid), place) => {
                if keys.iter().any(|key| key.kid == kid) {
                    table.report.error(&place, "is another key's id", "write another one");
                }
                kid
            }
            Entry::Absent => {
                table.report.error(&table.place("kid"), "is missing", "write the key's id");
                continue;
            }
            Entry::Bad => continue,
        };
        let Some((text, place)) = text else { continue };
        match decode(&text) {
            Some(key) if key.len() >= algorithm.key_len() => {
                keys.push(TokenKey { kid, algorithm, key: Secret(key) });
            }
            Some(key) => {
                let what = format!("has {} bytes, but {} takes {}", key.len(), algorithm.text(), algorithm.key_len());
                table.report.error(&place, what, "write the key of the authorization server, in base64");
            }
            None => table.report.error(&place, "is not base64", "write the key of the authorization server, in base64"),
        }
    }
    keys
}

/// Decodes base64 of either alphabet, with or without padding.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let standard = |c: char| match c {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    let text: Zeroizing<String> = Zeroizing::new(text.trim_end_matches('=').chars().map(standard).collect());
    STANDARD_NO_PAD.decode(text.as_bytes()).ok().map(Zeroizing::new)
}
