//! What stores answer: a service in JSON, and the texts of coturn's tables.

use turnserver::auth::store::{
    hook::read_as_any,
    record::{PeerRules, RealmRows, record},
};

use super::bytes::{Bytes, text};

/// Names and an answer as JSON; and the bytes as texts of each column.
pub(crate) fn run(bytes: &[u8]) {
    let mut left = Bytes::new(bytes);
    let (realm, name) = (left.line(), left.line());
    let answer = left.rest();
    let read = read_as_any(answer, realm, name);
    if let Ok(Some(user)) = &read.user {
        assert!(user.md5.is_some() || user.sha256.is_some(), "a user without a key");
    }
    if let Ok(secrets) = &read.secrets {
        assert!(secrets.iter().all(|secret| !secret.value.is_empty()));
    }
    if let Ok(Some(key)) = &read.token_key {
        assert!(!key.key.is_empty() && key.kid == name && key.realm.as_deref() != Some(""));
    }
    if let Ok(realms) = &read.realms {
        let no_zero = |realm: &turnserver::auth::store::RealmOptions| {
            realm.max_bytes_per_second != Some(0) && realm.total_quota != Some(0) && realm.user_quota != Some(0)
        };
        assert!(realms.iter().all(no_zero));
    }

    let text = text(answer);
    if let Ok(record) = record(text) {
        assert!(record.md5.is_some() != record.sha256.is_some());
    }
    let mut rows = RealmRows::default();
    for option in ["max-bps", "total-quota", "user-quota", name] {
        let _ = rows.add(realm, option, text);
    }
    assert!(rows.finish().len() <= 1);
    let lines: Vec<&str> = text.lines().collect();
    if let Ok(rules) = PeerRules::read(lines.iter().copied(), [name]) {
        assert!(!rules.denied.is_empty(), "a range that was passed over");
        for line in lines {
            let alone = PeerRules::read([line], []).expect("what can be read among others");
            // The same may stand there more than once.
            let kept = |range| rules.allowed.iter().any(|kept| kept.contains(range));
            assert!(alone.allowed.iter().all(kept), "a range that was passed over: {line}");
        }
    }
}
