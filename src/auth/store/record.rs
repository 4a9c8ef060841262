//! What a store answers with, and how it is read from the texts that coturn keeps.

#![cfg_attr(
    not(all(
        feature = "sqlite",
        feature = "postgresql",
        feature = "mysql",
        feature = "redis",
        feature = "http-store"
    )),
    allow(dead_code, reason = "each store reads a part of this")
)]

use std::{fmt, fmt::Write, time::Duration};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::StoreError;
use crate::{auth::key::LongTermKey, config::parse_peer_range};

/// A user: what proves it, and what it may take.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// MD5(name ":" realm ":" password).
    pub md5: Option<LongTermKey>,
    /// SHA-256(name ":" realm ":" password).
    pub sha256: Option<LongTermKey>,
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName {
    /// The realm.
    pub realm: String,
    /// The user's name.
    pub name: String,
}

/// A secret of time-limited credentials. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedSecret {
    /// What it goes by, where the store has names for secrets; coturn's tables have none.
    pub name: Option<String>,
    /// The secret.
    pub value: Zeroizing<String>,
}

impl fmt::Debug for NamedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How access tokens are encrypted (RFC 7635 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AEAD_AES_128_GCM
    A128Gcm,
    /// AEAD_AES_256_GCM
    A256Gcm,
}

/// A key that the authorization server shares with this one (RFC 7635 §4.1). Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The key id, which clients send as USERNAME.
    pub kid: String,
    /// The key as it is kept: what coturn calls `ikm_key`, without its base64.
    pub key: Zeroizing<Vec<u8>>,
    /// What tokens are encrypted with.
    pub algorithm: TokenAlgorithm,
    /// From when on it is used, in seconds since the UNIX epoch.
    pub from: u64,
    /// For how long it is used; `None` for ever.
    pub lifetime: Option<Duration>,
    /// The realm of those who have tokens of this key; `None` for the default one.
    pub realm: Option<String>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("from", &self.from)
            .field("lifetime", &self.lifetime)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// What a realm may take; `None` is what the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RealmOptions {
    /// The realm.
    pub realm: String,
    /// Bytes per second and session, each direction apart (`max-bps`, which coturn counts in bytes).
    pub max_bytes_per_second: Option<u64>,
    /// Allocations of all its users (`total-quota`).
    pub total_quota: Option<u32>,
    /// Allocations per user (`user-quota`).
    pub user_quota: Option<u32>,
}

/// Peers that clients of a realm may and may not reach, beside what the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerRules {
    /// `allowed_peer_ip`
    pub allowed: Vec<IpNet>,
    /// `denied_peer_ip`
    pub denied: Vec<IpNet>,
}

/// Reads `hmackey`: 32 hexadecimal digits of MD5, or 64 of SHA-256, blanks after them (PostgreSQL's `char(128)`).
pub fn record(hmackey: &str) -> Result<Record, StoreError> {
    let text = hmackey.trim_end();
    let text = text.strip_prefix("0x").unwrap_or(text);
    match text.len() {
        32 => hex(text).map(|key| Record { md5: Some(LongTermKey::Md5(key)), ..Record::default() }),
        64 => hex(text).map(|key| Record { sha256: Some(LongTermKey::Sha256(key)), ..Record::default() }),
        _ => None,
    }
    .ok_or_else(|| StoreError::Malformed("the key of a user is neither 32 nor 64 hexadecimal digits".to_owned()))
}

/// Exactly `2 * N` hexadecimal digits of either case.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

/// The digits of a key, as coturn keeps them.
pub(super) fn digits(key: &LongTermKey) -> Zeroizing<String> {
    let bytes = key.as_bytes();
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A row of `oauth_key`, as texts and numbers.
pub(super) struct TokenRow {
    pub(super) ikm_key: Option<String>,
    pub(super) timestamp: Option<i64>,
    pub(super) lifetime: Option<i64>,
    pub(super) as_rs_alg: Option<String>,
    pub(super) realm: Option<String>,
}

/// Reads a row of `oauth_key`.
pub(super) fn token_key(kid: &str, row: TokenRow) -> Result<TokenKey, StoreError> {
    // With or without padding: people cut it off.
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let malformed = |what: &str| StoreError::Malformed(format!("token key {kid:?} {what}"));
    let text = Zeroizing::new(row.ikm_key.unwrap_or_default());
    let key = BASE64.decode(text.trim()).map(Zeroizing::new).map_err(|_| malformed("is not base64"))?;
    if key.is_empty() {
        return Err(malformed("is empty"));
    }
    let algorithm = match row.as_rs_alg.as_deref().unwrap_or_default() {
        "" | "A256GCM" => TokenAlgorithm::A256Gcm,
        "A128GCM" => TokenAlgorithm::A128Gcm,
        other => return Err(malformed(&format!("is for {other:?}, which is neither A128GCM nor A256GCM"))),
    };
    let count = |number: Option<i64>| u64::try_from(number.unwrap_or(0)).map_err(|_| malformed("has a negative time"));
    let lifetime = count(row.lifetime)?;
    Ok(TokenKey {
        kid: kid.to_owned(),
        key,
        algorithm,
        from: count(row.timestamp)?,
        lifetime: (lifetime > 0).then(|| Duration::from_secs(lifetime)),
        realm: row.realm.filter(|realm| !realm.is_empty()),
    })
}

/// What is said where a store has origins.
pub(super) const ORIGINS_ARE_IGNORED: &str =
    "the store assigns realms to web origins; that is ignored, as browsers do not send ORIGIN";

/// Collects rows of `turn_realm_option` into one entry per realm, in order. Zero is no limit, as coturn has it.
#[derive(Debug, Default)]
pub struct RealmRows(std::collections::BTreeMap<String, RealmOptions>);

impl RealmRows {
    /// Takes one option; those that coturn does not know are passed over as coturn does.
    pub fn add(&mut self, realm: &str, option: &str, value: &str) -> Result<(), StoreError> {
        let malformed = || StoreError::Malformed(format!("{option} of realm {realm:?} is {value:?}, no number"));
        let options = self
            .0
            .entry(realm.to_owned())
            .or_insert_with(|| RealmOptions { realm: realm.to_owned(), ..RealmOptions::default() });
        let quota = || value.trim().parse::<u32>().map(|number| (number > 0).then_some(number));
        match option {
            "max-bps" => {
                let number: u64 = value.trim().parse().map_err(|_| malformed())?;
                options.max_bytes_per_second = (number > 0).then_some(number);
            }
            "total-quota" => options.total_quota = quota().map_err(|_| malformed())?,
            "user-quota" => options.user_quota = quota().map_err(|_| malformed())?,
            _ => {}
        }
        Ok(())
    }

    /// One entry per realm.
    pub fn finish(self) -> Vec<RealmOptions> {
        self.0.into_values().collect()
    }
}

impl PeerRules {
    /// Reads `IP`, `IP-IP` and networks. A range that cannot be read fails them all: a denied one must not be passed over.
    pub fn read<'t>(
        allowed: impl IntoIterator<Item = &'t str>,
        denied: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, StoreError> {
        fn list<'t>(table: &str, texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<IpNet>, StoreError> {
            let mut networks = Vec::new();
            for text in texts {
                let read = parse_peer_range(text.trim())
                    .map_err(|fault| StoreError::Malformed(format!("{table} has {text:?}, which {fault}")))?;
                networks.extend(read);
            }
            networks.sort_unstable();
            networks.dedup();
            Ok(networks)
        }
        Ok(Self { allowed: list("allowed_peer_ip", allowed)?, denied: list("denied_peer_ip", denied)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_coturn_writes_them() {
        let lower = "bc807ee29df3c9ffa736523fb2c4e8ee";
        for text in [lower.to_owned(), lower.to_uppercase(), format!("{lower}{}", " ".repeat(96)), format!("0x{lower}")]
        {
            let key = record(&text).unwrap().md5.unwrap();
            assert_eq!(*digits(&key), lower);
        }
        let long = format!("{lower}{lower}");
        let read = record(&long).unwrap();
        assert!(read.md5.is_none());
        assert_eq!(*digits(&read.sha256.unwrap()), long);
    }

    #[test]
    fn a_key_that_is_none_is_not_repeated_in_the_error() {
        for text in [
            "",
            "secret",
            "bc807ee29df3c9ffa736523fb2c4e8eg",
            "bc80",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            let error = record(text).unwrap_err().to_string();
            assert!(error.ends_with("neither 32 nor 64 hexadecimal digits"), "{error}");
        }
    }

    fn row(key: &str, algorithm: &str) -> TokenRow {
        TokenRow {
            ikm_key: Some(key.to_owned()),
            timestamp: Some(7),
            lifetime: Some(0),
            as_rs_alg: Some(algorithm.to_owned()),
            realm: Some(String::new()),
        }
    }

    #[test]
    fn token_keys_are_read_as_coturn_has_them() {
        // "oldempire" of coturn's example database.
        let key = token_key("oldempire", row("MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK", "A256GCM")).unwrap();
        assert_eq!(key.key.as_slice(), b"12345678901234567890123456789012\n");
        assert_eq!((key.algorithm, key.from, key.lifetime, key.realm), (TokenAlgorithm::A256Gcm, 7, None, None));
        let short = TokenRow { lifetime: Some(60), realm: Some("r".to_owned()), ..row("YWJjZA", "A128GCM") };
        let key = token_key("k", short).unwrap();
        assert_eq!(key.lifetime, Some(Duration::from_secs(60)));
        assert_eq!((key.algorithm, key.realm.as_deref()), (TokenAlgorithm::A128Gcm, Some("r")));
        assert_eq!(token_key("k", row("YWJjZA==", "")).unwrap().algorithm, TokenAlgorithm::A256Gcm);
    }

    #[test]
    fn token_keys_that_make_no_sense_are_refused_without_showing_them() {
        let negative = TokenRow { lifetime: Some(-1), ..row("YWJjZA==", "A128GCM") };
        for (bad, what) in [
            (row("!!secret!!", "A256GCM"), "is not base64"),
            (row("", "A256GCM"), "is empty"),
            (row("YWJjZA==", "A192GCM"), "neither A128GCM nor A256GCM"),
            (negative, "negative time"),
        ] {
            let error = token_key("k", bad).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", token_key("k", row("YWJjZA==", "")).unwrap()).contains("97"));
    }

    #[test]
    fn realm_options_are_gathered_by_realm() {
        let mut rows = RealmRows::default();
        for (realm, option, value) in [
            ("north.gov", "max-bps", "500000"),
            ("crinna.org", "total-quota", "10000"),
            ("north.gov", "user-quota", "0"),
            ("north.gov", "total-quota", "12000"),
            ("north.gov", "colour", "blue"),
        ] {
            rows.add(realm, option, value).unwrap();
        }
        assert!(rows.add("r", "max-bps", "many").unwrap_err().to_string().contains("is \"many\", no number"));
        let rows = rows.finish();
        let realms: Vec<&str> = rows.iter().map(|options| options.realm.as_str()).collect();
        assert_eq!(realms, ["crinna.org", "north.gov", "r"]);
        assert_eq!(rows[0].total_quota, Some(10_000));
        let north = &rows[1];
        assert_eq!(
            (north.max_bytes_per_second, north.total_quota, north.user_quota),
            (Some(500_000), Some(12_000), None)
        );
    }

    #[test]
    fn peer_ranges_are_networks_and_a_broken_one_fails_them_all() {
        let rules =
            PeerRules::read(["172.17.13.200", "172.17.13.200"], ["123::45", "10.0.0.0-10.255.255.255"]).unwrap();
        assert_eq!(rules.allowed, ["172.17.13.200/32".parse::<IpNet>().unwrap()]);
        let denied = ["10.0.0.0/8", "123::45/128"].map(|text| text.parse::<IpNet>().unwrap());
        assert_eq!(rules.denied, denied);
        let error = PeerRules::read([], ["10.0.0.0-nine"]).unwrap_err().to_string();
        assert!(error.contains("denied_peer_ip has \"10.0.0.0-nine\", which is not an IP address"), "{error}");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let secret = NamedSecret { name: Some("blue".to_owned()), value: Zeroizing::new("hunter2".to_owned()) };
        assert_eq!(format!("{secret:?}"), "NamedSecret { name: Some(\"blue\"), .. }");
        let record = record("bc807ee29df3c9ffa736523fb2c4e8ee").unwrap();
        assert!(format!("{record:?}").contains("Md5(****)"));
    }
}
