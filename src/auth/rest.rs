//! Time-limited credentials (draft-uberti-behave-turn-rest-00): the user name says until when it is good, and the password is a
//! MAC over the name, made with a secret that this server shares with whoever issues them.
//!
//! The form of names is the operator's decision and never guessed: with a name like `1700000000:9999999999` a guess would take
//! a user's own name for the expiry.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a password is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestAlgorithm {
    /// HMAC-SHA1, as the draft has it.
    #[default]
    Sha1,
    /// HMAC-SHA256.
    Sha256,
}

impl RestAlgorithm {
    /// Each with how it is written in the configuration.
    pub const ALL: [(&'static str, Self); 2] = [("sha1", Self::Sha1), ("sha256", Self::Sha256)];

    /// As it is written in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(text, _)| text)
    }
}

/// A secret shared with who issues credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct RestSecret {
    /// What it is called in logs and revocations.
    pub name: Arc<str>,
    /// The tenant that it is for: names must have this tenant in them. `None`: names that have none.
    pub tenant: Option<Arc<str>>,
    /// What passwords are made with.
    pub algorithm: RestAlgorithm,
    /// The secret itself.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for RestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, tenant, algorithm, key: _ } = self;
        write!(f, "RestSecret({name:?}, {tenant:?}, {algorithm:?}, ****)")
    }
}

impl RestSecret {
    /// The password that goes with a user name: base64 of the MAC.
    #[must_use]
    pub fn password(&self, username: &str) -> Zeroizing<String> {
        // HMAC takes keys of any length (RFC 2104 §2).
        let text = match self.algorithm {
            RestAlgorithm::Sha1 => {
                let mac = Hmac::<Sha1>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!());
                STANDARD.encode(mac.chain_update(username).finalize().into_bytes())
            }
            RestAlgorithm::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!());
                STANDARD.encode(mac.chain_update(username).finalize().into_bytes())
            }
        };
        Zeroizing::new(text)
    }
}

/// The order of the parts of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestForm {
    /// `expiry:user`, as the draft has it; the user may be missing.
    #[default]
    ExpiryUser,
    /// `user:expiry`.
    UserExpiry,
    /// `expiry:tenant:user`; the user may be missing.
    ExpiryTenantUser,
    /// `tenant:user:expiry`.
    TenantUserExpiry,
}

impl RestForm {
    /// Each with how it is written in the configuration.
    pub const ALL: [(&'static str, Self); 4] = [
        ("expiry:user", Self::ExpiryUser),
        ("user:expiry", Self::UserExpiry),
        ("expiry:tenant:user", Self::ExpiryTenantUser),
        ("tenant:user:expiry", Self::TenantUserExpiry),
    ];

    /// Whether names have a tenant in them.
    #[must_use]
    pub const fn has_tenant(self) -> bool {
        matches!(self, Self::ExpiryTenantUser | Self::TenantUserExpiry)
    }

    /// As it is written in the configuration.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, form)| *form == self).map_or("", |(text, _)| text)
    }
}

/// How names are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestNames {
    /// The order of their parts.
    pub form: RestForm,
    /// What stands between the parts.
    pub separator: char,
}

impl Default for RestNames {
    fn default() -> Self {
        Self { form: RestForm::default(), separator: ':' }
    }
}

/// The parts of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestName<'n> {
    /// Seconds since the UNIX epoch.
    pub expires: u64,
    /// The tenant, where names have one.
    pub tenant: Option<&'n str>,
    /// The user; the whole name where none is given, so that holders of two such credentials are not one user.
    pub user: &'n str,
}

impl RestNames {
    /// Takes a name apart; `None` if it has no expiry where it should be.
    #[must_use]
    pub fn parse<'n>(&self, name: &'n str) -> Option<RestName<'n>> {
        let separator = self.separator;
        let (expiry, rest) = match self.form {
            RestForm::ExpiryUser | RestForm::ExpiryTenantUser => name.split_once(separator).unwrap_or((name, "")),
            RestForm::UserExpiry | RestForm::TenantUserExpiry => {
                let (rest, expiry) = name.rsplit_once(separator)?;
                (expiry, rest)
            }
        };
        if expiry.is_empty() || !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let expires = expiry.parse().ok()?;
        let (tenant, user) = if self.form.has_tenant() {
            let (tenant, user) = rest.split_once(separator).unwrap_or((rest, ""));
            (Some(tenant), user)
        } else {
            (None, rest)
        };
        Some(RestName { expires, tenant, user: if user.is_empty() { name } else { user } })
    }

    /// Puts a name together.
    #[must_use]
    pub fn write(&self, expires: u64, tenant: Option<&str>, user: &str) -> String {
        let separator = self.separator;
        let tenant = tenant.unwrap_or_default();
        match self.form {
            RestForm::ExpiryUser if user.is_empty() => expires.to_string(),
            RestForm::ExpiryUser => format!("{expires}{separator}{user}"),
            RestForm::UserExpiry => format!("{user}{separator}{expires}"),
            RestForm::ExpiryTenantUser if user.is_empty() => format!("{expires}{separator}{tenant}"),
            RestForm::ExpiryTenantUser => format!("{expires}{separator}{tenant}{separator}{user}"),
            RestForm::TenantUserExpiry => format!("{tenant}{separator}{user}{separator}{expires}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(form: RestForm, separator: char) -> RestNames {
        RestNames { form, separator }
    }

    fn secret(algorithm: RestAlgorithm) -> RestSecret {
        let key = Zeroizing::new(b"north".to_vec());
        RestSecret { name: "first".into(), tenant: None, algorithm, key }
    }

    /// REST-2.2-01. The values were computed with `openssl dgst -sha1 -hmac north -binary | base64`, and -sha256.
    #[test]
    fn passwords_are_those_of_openssl() {
        let name = "1433895918:ninefingers";
        assert_eq!(*secret(RestAlgorithm::Sha1).password(name), "jy8hTxmOO7UtEKXqSkSlvakPVYA=");
        assert_eq!(*secret(RestAlgorithm::Sha256).password(name), "xdnAJn9/0fhMTrcTABhSvZcYTK5UOj3LzL0Zzpc0EwE=");
    }

    /// REST-2.2-02, REST-3-07
    #[test]
    fn names_are_taken_apart_as_configured_and_never_guessed() {
        let parsed = |form, name| names(form, ':').parse(name).map(|name| (name.expires, name.tenant, name.user));
        let draft = RestForm::ExpiryUser;
        assert_eq!(parsed(draft, "100:alice"), Some((100, None, "alice")));
        assert_eq!(parsed(draft, "100:a:b"), Some((100, None, "a:b")));
        assert_eq!(parsed(draft, "100:"), Some((100, None, "100:")));
        assert_eq!(parsed(draft, "100"), Some((100, None, "100")));
        assert_eq!(parsed(draft, "100:999"), Some((100, None, "999")));
        let digits = "9".repeat(30);
        for unusable in ["abc", "", ":", "-1:x", "+1:x", " 1:x", "1 :x", "0x1:x", "alice:100", digits.as_str()] {
            assert_eq!(parsed(draft, unusable), None, "{unusable}");
        }
        let turned = RestForm::UserExpiry;
        assert_eq!(parsed(turned, "alice:100"), Some((100, None, "alice")));
        assert_eq!(parsed(turned, "a:b:100"), Some((100, None, "a:b")));
        assert_eq!(parsed(turned, "999:100"), Some((100, None, "999")));
        assert_eq!(parsed(turned, "100"), None);
        let tenant = RestForm::ExpiryTenantUser;
        assert_eq!(parsed(tenant, "100:acme:alice"), Some((100, Some("acme"), "alice")));
        assert_eq!(parsed(tenant, "100:acme"), Some((100, Some("acme"), "100:acme")));
        assert_eq!(parsed(tenant, "100"), Some((100, Some(""), "100")));
        let turned = RestForm::TenantUserExpiry;
        assert_eq!(parsed(turned, "acme:a:b:100"), Some((100, Some("acme"), "a:b")));
        assert_eq!(names(draft, '|').parse("100|a:b").map(|name| name.user), Some("a:b"));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", secret(RestAlgorithm::Sha1)), "RestSecret(\"first\", None, Sha1, ****)");
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(
            form in proptest::sample::select(RestForm::ALL.map(|(_, form)| form).to_vec()),
            expires: u64, tenant in "[a-z]{1,9}", user in "[a-z:0-9]{0,9}[a-z]",
        ) {
            let names = names(form, ':');
            let tenant = form.has_tenant().then_some(tenant);
            let name = names.write(expires, tenant.as_deref(), &user);
            prop_assert_eq!(names.parse(&name), Some(RestName { expires, tenant: tenant.as_deref(), user: &user }));
        }
    }
}
