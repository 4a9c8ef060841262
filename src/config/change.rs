//! From one configuration to the next while the server runs: what changes, what cannot, and which realm is which.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Effective,
    settings::{Realm, Settings, Tls},
};
use crate::auth::credential::RealmId;

/// Leaves what needs a restart as it is in force; returns the keys for which that is not what `new` says.
#[must_use]
pub fn keep_until_restart(new: &mut Settings, in_force: &Settings) -> Vec<&'static str> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($key:literal: $($path:ident).+),+ $(,)?) => {
            $(if new.$($path).+ != in_force.$($path).+ {
                new.$($path).+.clone_from(&in_force.$($path).+);
                kept.push($key);
            })+
        };
    }
    keep! {
        "relay.min-port": relay.min_port,
        "relay.max-port": relay.max_port,
        "store": store,
        "process.workers": process.workers,
        "process.pin-workers": process.pin_workers,
        "process.udp-io": process.udp_io,
        "process.listener-buffer": process.listener_buffer,
        "process.gather": process.gather,
        "offload.mode": offload.mode,
        "offload.interfaces": offload.interfaces,
        "offload.channels": offload.channels,
        "management.listen": management.listen,
        "management.socket": management.socket,
        "log.format": log.format,
    }
    // Without bytes per month there is nothing to keep, and what is there stays where it is.
    if new.limits.state_directory != in_force.limits.state_directory
        && new.limits.state_directory.is_some()
        && in_force.limits.state_directory.is_some()
    {
        new.limits.state_directory.clone_from(&in_force.limits.state_directory);
        kept.push("limits.state-directory");
    }
    kept
}

/// The same settings with every realm in the place that it has in those `before`: whatever knows a realm knows it by its place. The
/// place of a realm that is gone is held by one without anybody in it.
#[must_use]
pub fn with_realms_in_place(mut new: Settings, before: &Settings) -> Settings {
    let mut places: Vec<Option<Realm>> = before.realms.iter().map(|_| None).collect();
    let mut ids = vec![RealmId::DEFAULT];
    for realm in std::mem::take(&mut new.realms) {
        let known = before.realms.iter().position(|known| known.name == realm.name);
        let at = known.filter(|at| places[*at].is_none()).unwrap_or(places.len());
        if at == places.len() {
            places.push(None);
        }
        places[at] = Some(realm);
        ids.push(RealmId(u16::try_from(at + 1).unwrap_or(u16::MAX)));
    }
    // Told by some listener, as far as anybody is concerned: nobody gets there by a name or a secret.
    let empty = |name: &str| Realm {
        name: name.to_owned(),
        users: Vec::new(),
        mechanisms: super::settings::Mechanisms::default(),
        peers: None,
        limits: None,
        announced: true,
    };
    let names = before.realms.iter().map(|realm| realm.name.as_str()).chain(std::iter::repeat(""));
    new.realms = places.into_iter().zip(names).map(|(realm, name)| realm.unwrap_or_else(|| empty(name))).collect();
    for listener in &mut new.listeners {
        listener.realm = ids.get(listener.realm.index()).copied().unwrap_or_default();
    }
    new
}

/// What is different, as keys and tables of the configuration. Values are not shown.
#[must_use]
pub fn differences(old: &Settings, new: &Settings) -> Vec<String> {
    let (before, after) = (flat(old), flat(new));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let mut changed: BTreeSet<String> = changed.cloned().collect();
    // What is masked, and what stands in other files.
    let users = |settings: &Settings| {
        let of_realms = settings.realms.iter().map(|realm| (realm.users.clone(), realm.mechanisms.clone()));
        let auth = (settings.auth.users.clone(), settings.auth.mechanisms.clone());
        std::iter::once(auth).chain(of_realms).collect::<Vec<_>>()
    };
    let (before, after) = (users(old), users(new));
    if before.first() != after.first() && !changed.iter().any(|key| key.starts_with("auth.")) {
        changed.insert("auth: passwords, keys or secrets".to_owned());
    }
    if before.get(1..) != after.get(1..) && !changed.contains("realm") {
        changed.insert("realm: passwords, keys or secrets".to_owned());
    }
    let material = |settings: &Settings| {
        settings.tls.as_ref().map(|Tls { certificates, clients, .. }| {
            let certificates =
                certificates.iter().map(|certificate| (certificate.chain.clone(), certificate.key.clone()));
            (certificates.collect::<Vec<_>>(), clients.clone())
        })
    };
    if material(old) != material(new) && !changed.contains("tls.certificate") {
        changed.insert("tls: certificates".to_owned());
    }
    if old.management.token != new.management.token && !changed.contains("management.token") {
        changed.insert("management.token".to_owned());
    }
    changed.into_iter().collect()
}

/// Every key with its value, lists of tables as one.
fn flat(settings: &Settings) -> BTreeMap<String, String> {
    fn add(into: &mut BTreeMap<String, String>, name: String, value: &toml::Value) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                    add(into, name, value);
                }
            }
            value => {
                into.insert(name, value.to_string());
            }
        }
    }
    let mut flat = BTreeMap::new();
    // It is TOML, which a test of it shows.
    if let Ok(table) = Effective(settings).to_string().parse::<toml::Table>() {
        add(&mut flat, String::new(), &toml::Value::Table(table));
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};

    const AUTH: &str = "[auth]\nrealm = \"north.gov\"\nstatic-auth-secret = \"the secret of the north\"\n";

    fn parse(text: &str) -> Settings {
        let relay = "[relay]\nrelay-ip = \"127.0.0.1\"\n";
        config::parse(&format!("{relay}{text}"), "t.toml", &Host::detect().unwrap()).unwrap().settings
    }

    fn realm(name: &str) -> String {
        format!("[[realm]]\nname = \"{name}\"\nstatic-auth-secret = \"the secret of {name}\"\n")
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let old = parse(AUTH);
        let mut new = parse(&format!(
            "min-port = 50000\n{AUTH}[limits]\nuser-quota = 7\n[process]\nworkers = 3\ngather = \"off\"\n[log]\nformat = \"json\"\n"
        ));
        let workers = if old.process.workers == 3 { vec![] } else { vec!["process.workers"] };
        let gather = if old.process.gather.is_none() { vec![] } else { vec!["process.gather"] };
        let expected = [vec!["relay.min-port"], workers, gather, vec!["log.format"]].concat();
        assert_eq!(keep_until_restart(&mut new, &old), expected);
        assert_eq!((new.process.workers, new.relay.min_port), (old.process.workers, old.relay.min_port));
        assert_eq!(differences(&old, &new), ["limits.user-quota"]);
        assert_eq!(keep_until_restart(&mut new, &old), [""; 0]);
    }

    #[test]
    fn a_realm_keeps_its_place() {
        let listeners = |realms: [&str; 2]| -> String {
            let listener = |(realm, port): (&str, u16)| {
                format!("[[listener]]\nlistening-ip = \"127.0.0.1\"\nlistening-port = {port}\nrealm = \"{realm}\"\n")
            };
            realms.into_iter().zip(4_000..).map(listener).collect()
        };
        let old = parse(&[AUTH, &realm("a"), &realm("b"), &listeners(["a", "b"])].concat());
        let new = parse(&[AUTH, &realm("c"), &realm("b"), &listeners(["b", "c"])].concat());
        let placed = with_realms_in_place(new, &old);
        let names: Vec<_> = placed.realms.iter().map(|realm| realm.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(placed.realms[0].mechanisms.secrets.is_empty() && placed.realms[0].announced);
        let told: Vec<_> = placed.listeners.iter().map(|listener| listener.realm).collect();
        assert_eq!(told, [RealmId(2), RealmId(3)]);
        // And back.
        let again = parse(&[AUTH, &realm("a"), &listeners(["a", "north.gov"])].concat());
        let again = with_realms_in_place(again, &placed);
        assert_eq!(again.listeners.iter().map(|listener| listener.realm).collect::<Vec<_>>(), [RealmId(1), RealmId(0)]);
        assert_eq!(again.realms.len(), 3);
        assert!(!again.realms[0].mechanisms.secrets.is_empty());
    }

    #[test]
    fn a_secret_that_changes_is_a_difference_and_does_not_show() {
        let old = parse(AUTH);
        assert_eq!(differences(&old, &old), [""; 0]);
        let new = parse(&AUTH.replace("the secret", "another secret"));
        assert_eq!(differences(&old, &new), ["auth: passwords, keys or secrets"]);
        let user = format!("{AUTH}[[auth.user]]\nname = \"gorst\"\npassword = \"hero\"\n");
        assert_eq!(differences(&old, &parse(&user)), ["auth.user"]);
        assert_eq!(differences(&old, &parse(&[AUTH, &realm("a")].concat())), ["realm"]);
    }
}
