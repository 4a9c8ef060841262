//! Who was let in by one configuration and would not be by the next: their sessions end with a reload.

use std::sync::Arc;

use crate::{
    auth::{credential::Proof, prepare::prepare},
    config::settings::{Mechanisms, Settings, User},
    turn::{Basis, Mechanism, Revocation},
};

/// Who is in a realm.
struct Members<'s> {
    name: &'s str,
    users: &'s [User],
    mechanisms: &'s Mechanisms,
}

fn realms(settings: &Settings) -> impl Iterator<Item = Members<'_>> {
    let auth = &settings.auth;
    let first = Members { name: &auth.realm, users: &auth.users, mechanisms: &auth.mechanisms };
    let others = settings.realms.iter().map(|realm| Members {
        name: &realm.name,
        users: &realm.users,
        mechanisms: &realm.mechanisms,
    });
    std::iter::once(first).chain(others)
}

/// As sessions know it. What has no such form is in no configuration that was accepted.
fn known(name: &str) -> Arc<str> {
    prepare(name).map_or_else(|_| name.into(), |name| name.as_ref().into())
}

/// What of the old configuration is not in the new one: realms, users, secrets and keys of access tokens; those that are still
/// there but with another password or key are others.
pub(super) fn departed(old: &Settings, new: &Settings) -> Vec<Revocation> {
    let mut gone = Vec::new();
    if old.auth.anonymous && !new.auth.anonymous {
        gone.push(Revocation::Anonymous);
    }
    for before in realms(old) {
        let realm = known(before.name);
        // Sessions know their realm by its place, which is another one if it begins or ceases to be the default.
        let place = |of: &Settings| known(&of.auth.realm) == realm;
        let after = realms(new).find(|after| known(after.name) == realm);
        let Some(after) = after.filter(|_| place(old) == place(new)) else {
            gone.push(Revocation::Realm(realm));
            continue;
        };
        let users = before.users.iter().filter(|user| {
            let name = known(&user.name);
            !after.users.iter().any(|other| known(&other.name) == name && other.secret == user.secret)
        });
        let users = users.map(|user| (Mechanism::Password, Proof::Password(known(&user.name), 0)));
        // Sessions know it by its name.
        let secrets = before.mechanisms.secrets.iter().filter(|secret| {
            let same = |other: &&_| -> bool {
                let other: &crate::auth::rest::RestSecret = other;
                (&other.name, &other.key, other.algorithm, &other.tenant)
                    == (&secret.name, &secret.key, secret.algorithm, &secret.tenant)
            };
            after.mechanisms.secrets.iter().find(same).is_none()
        });
        let secrets = secrets.map(|secret| (Mechanism::Rest, Proof::Secret(Arc::clone(&secret.name))));
        let keys = before.mechanisms.token_keys.iter();
        let keys = keys.filter(|key| !after.mechanisms.token_keys.contains(key));
        let keys = keys.map(|key| (Mechanism::Token, Proof::Secret(key.kid.as_str().into())));
        let bases = users.chain(secrets).chain(keys).map(|(mechanism, proof)| {
            let realm = Arc::clone(&realm);
            Revocation::Basis(Basis { mechanism, realm, proof })
        });
        gone.extend(bases);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};

    fn parse(text: &str) -> Settings {
        let relay = "[relay]\nrelay-ip = \"127.0.0.1\"\n";
        config::parse(&format!("{relay}{text}"), "t.toml", &Host::detect().unwrap()).unwrap().settings
    }

    const AUTH: &str = "[auth]\nrealm = \"r\"\n";
    const USERS: &str =
        "[[auth.user]]\nname = \"a\"\npassword = \"one\"\n[[auth.user]]\nname = \"b\"\npassword = \"two\"\n";
    const SECRETS: &str = "[[auth.secret]]\nname = \"s\"\nsecret = \"the first of the secrets\"\n[[auth.secret]]\nname = \"t\"\n\
                           secret = \"the second of the secrets\"\n";

    #[test]
    fn what_is_gone_or_another_is_told() {
        let old = parse(&[AUTH, USERS, SECRETS].concat());
        let basis = |mechanism, proof| Revocation::Basis(Basis { mechanism, realm: "r".into(), proof });
        let account = |user: &str| basis(Mechanism::Password, Proof::Password(user.into(), 0));
        let secret = |name: &str| basis(Mechanism::Rest, Proof::Secret(name.into()));
        for (new, expected) in [
            ([AUTH, USERS, SECRETS].concat(), vec![]),
            ([AUTH, SECRETS].concat(), vec![account("a"), account("b")]),
            ([AUTH, USERS, &SECRETS.replace("\"s\"", "\"u\"")].concat(), vec![secret("s")]),
            (
                [AUTH, &USERS.replace("two", "three"), &SECRETS.replace("first", "third")].concat(),
                vec![account("b"), secret("s")],
            ),
            ([&AUTH.replace("\"r\"", "\"other\""), USERS, SECRETS].concat(), vec![Revocation::Realm("r".into())]),
        ] {
            assert_eq!(departed(&old, &parse(&new)), expected, "{new}");
        }
        // Sessions know a realm by its place, and the default one has the first.
        let other =
            "[auth]\nrealm = \"other\"\nstatic-auth-secret = \"the secret of the other\"\n[[realm]]\nname = \"r\"\n";
        let users = USERS.replace("[[auth.user]]", "[[realm.user]]");
        assert_eq!(departed(&old, &parse(&[other, &users].concat())), [Revocation::Realm("r".into())]);
        let nobody = parse("[auth]\nanonymous = true\n");
        assert_eq!(
            departed(&nobody, &parse(&["[auth]\nrealm = \"turnserver\"\n", USERS].concat())),
            [Revocation::Anonymous]
        );
    }
}
