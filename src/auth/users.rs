//! The accounts of the configuration, ready to be looked up by USERNAME or USERHASH.
//!
//! Keys are computed once, here: requests are checked by keys, and allocations keep keys, never passwords (RFC 8656 §6). Only the
//! settings have those, for the next reload to compare. Nothing changes after it is made: a reload makes it anew. Whether a
//! request proves its user is decided by the caller.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    credential::{Credential, RealmId},
    key::{LongTermKey, md5_key, sha256_key, userhash},
    prepare::{PrepareError, is_printable_ascii, prepare},
    subject::Subject,
};
use crate::config::settings::{Secret, User, UserSecret};
use crate::stun::PasswordAlgorithm;

/// One account: whose it is and what proves it.
#[derive(Debug)]
pub struct Account {
    md5: Credential,
    sha256: Option<Credential>,
}

impl Account {
    /// The credential for this algorithm, if the account has one.
    pub fn credential(&self, algorithm: PasswordAlgorithm) -> Option<&Credential> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(&self.md5),
            PasswordAlgorithm::Sha256 => self.sha256.as_ref(),
        }
    }
}

/// Why a set of accounts cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// The realm has no OpaqueString form.
    #[error("realm {0}")]
    Realm(PrepareError),
    /// A user name has no OpaqueString form.
    #[error("user name {name:?} {error}")]
    Name {
        /// The name as configured.
        name: String,
        /// What is wrong with it.
        error: PrepareError,
    },
    /// A password has no OpaqueString form.
    #[error("password of user {name:?} {error}")]
    Password {
        /// The name as configured.
        name: String,
        /// What is wrong with the password.
        error: PrepareError,
    },
    /// Two accounts have the same name after preparation.
    #[error("user {0:?} is configured twice")]
    Duplicate(String),
}

/// Whose accounts they are, and what clients call them.
#[derive(Debug, Clone, Copy)]
pub struct Realm<'r> {
    /// Its place among the realms.
    pub id: RealmId,
    /// Its name.
    pub name: &'r str,
    /// REALM, as clients are told it where these accounts serve; part of every key.
    pub announced: &'r str,
}

/// The static accounts of one realm. Where clients are told another realm, they say `user@realm`.
#[derive(Debug)]
pub struct StaticUsers {
    by_name: HashMap<Arc<str>, Arc<Account>>,
    by_hash: HashMap<[u8; 32], Arc<Account>>,
    offered: &'static [PasswordAlgorithm],
}

impl StaticUsers {
    /// Computes the keys of every account.
    pub fn new(realm: Realm<'_>, users: &[User]) -> Result<Self, UsersError> {
        let announced = prepare(realm.announced).map_err(UsersError::Realm)?;
        let realm_name: Arc<str> = prepare(realm.name).map_err(UsersError::Realm)?.into();
        let mut by_name = HashMap::with_capacity(users.len());
        let mut by_hash = HashMap::with_capacity(users.len());
        let mut all_have_sha256 = true;
        for user in users {
            let bad_name = |error| UsersError::Name { name: user.name.clone(), error };
            let bad_password = |error| UsersError::Password { name: user.name.clone(), error };
            let own: Arc<str> = prepare(&user.name).map_err(bad_name)?.into();
            let name: Arc<str> =
                if *announced == *realm_name { Arc::clone(&own) } else { format!("{own}@{realm_name}").into() };
            let (md5, sha256) = match &user.secret {
                UserSecret::Password(Secret(password)) => (
                    md5_key(&name, &announced, password).map_err(bad_password)?,
                    Some(sha256_key(&name, &announced, password).map_err(bad_password)?),
                ),
                UserSecret::Keys { md5: Secret(md5), sha256 } => {
                    (LongTermKey::Md5(**md5), sha256.as_ref().map(|Secret(key)| LongTermKey::Sha256(**key)))
                }
            };
            all_have_sha256 &= sha256.is_some();
            let hash = userhash(&name, &announced).map_err(bad_name)?;
            let subject = Arc::new(Subject { user: own, realm: Arc::clone(&realm_name), tenant: None });
            let credential = |key| Credential {
                subject: Arc::clone(&subject),
                realm: realm.id,
                key,
                term: None,
                secret: None,
                bearer: false,
                mark: 0,
            };
            let account = Arc::new(Account { md5: credential(md5), sha256: sha256.map(credential) });
            by_hash.insert(hash, account.clone());
            if by_name.insert(name, account).is_some() {
                return Err(UsersError::Duplicate(user.name.clone()));
            }
        }
        let offered: &[_] = if all_have_sha256 {
            &[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]
        } else {
            &[PasswordAlgorithm::Md5]
        };
        Ok(Self { by_name, by_hash, offered })
    }

    /// The account of this USERNAME, as received (RFC 8489 §14.3). Clients must have applied OpaqueString; for those
    /// that did not, a non-ASCII name is prepared first. A printable ASCII name costs no allocation.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Account>> {
        if is_printable_ascii(name) {
            return self.by_name.get(name);
        }
        self.by_name.get(prepare(name).ok()?.as_ref())
    }

    /// The account of this USERHASH (RFC 8489 §14.4).
    pub fn by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<Account>> {
        self.by_hash.get(hash)
    }

    /// What PASSWORD-ALGORITHMS offers, best first (RFC 8489 §18.5.1.1: MD5 only for compatibility).
    ///
    /// SHA-256 is offered only if every account has a key for it: PASSWORD-ALGORITHMS is sent before the user is
    /// known, and a client that then chose SHA-256 for an account with nothing but an MD5 key could never get in.
    pub fn offered(&self) -> &[PasswordAlgorithm] {
        self.offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REALM: Realm<'_> = Realm { id: RealmId::DEFAULT, name: "north.gov", announced: "north.gov" };

    fn made(users: Vec<User>) -> Result<StaticUsers, UsersError> {
        StaticUsers::new(REALM, &users)
    }

    fn key(account: &Account, algorithm: PasswordAlgorithm) -> Option<&LongTermKey> {
        account.credential(algorithm).map(|credential| &credential.key)
    }

    fn user(account: &Account) -> &str {
        &account.md5.subject.user
    }

    fn with_password(name: &str, password: &str) -> User {
        User { name: name.into(), secret: UserSecret::Password(Secret(password.to_owned().into())) }
    }

    fn with_keys(name: &str, md5: [u8; 16], sha256: Option<[u8; 32]>) -> User {
        User {
            name: name.into(),
            secret: UserSecret::Keys { md5: Secret(md5.into()), sha256: sha256.map(|key| Secret(key.into())) },
        }
    }

    #[test]
    fn an_account_is_found_by_name_and_by_hash_with_its_keys() {
        let users = made(vec![with_password("gorst", "hero"), with_password("x", "y")]).unwrap();
        let gorst = users.by_name("gorst").unwrap();
        assert_eq!((user(gorst), &*gorst.md5.subject.realm), ("gorst", "north.gov"));
        let by_hash = users.by_hash(&userhash("gorst", "north.gov").unwrap()).unwrap();
        assert!(Arc::ptr_eq(gorst, by_hash));
        let md5 = key(gorst, PasswordAlgorithm::Md5).unwrap();
        assert_eq!(md5.as_bytes(), md5_key("gorst", "north.gov", "hero").unwrap().as_bytes());
        let sha256 = key(gorst, PasswordAlgorithm::Sha256).unwrap();
        assert_eq!(sha256.as_bytes(), sha256_key("gorst", "north.gov", "hero").unwrap().as_bytes());
    }

    #[test]
    fn unknown_and_unpreparable_names_are_not_found() {
        let users = made(vec![with_password("gorst", "hero")]).unwrap();
        for name in ["", "Gorst", "gorst ", "gorst\0", "\u{ad}", "g\u{f6}rst"] {
            assert!(users.by_name(name).is_none(), "{name:?}");
        }
        assert!(users.by_hash(&[0; 32]).is_none());
    }

    #[test]
    fn a_non_ascii_name_is_found_in_every_spelling_of_it() {
        let users = made(vec![with_password("Jose\u{301}", "pa\u{308}ss")]).unwrap();
        let account = users.by_name("Jos\u{e9}").unwrap();
        assert!(Arc::ptr_eq(account, users.by_name("Jose\u{301}").unwrap()));
        assert_eq!(user(account), "Jos\u{e9}");
        let expected = md5_key("Jos\u{e9}", "north.gov", "p\u{e4}ss").unwrap();
        assert_eq!(key(account, PasswordAlgorithm::Md5).unwrap().as_bytes(), expected.as_bytes());
    }

    #[test]
    fn sha256_is_offered_first_and_only_if_every_account_has_it() {
        use PasswordAlgorithm::{Md5, Sha256};
        let offered = |users| made(users).unwrap().offered().to_vec();
        assert_eq!(offered(vec![with_password("a", "b")]), [Sha256, Md5]);
        assert_eq!(offered(vec![with_password("a", "b"), with_keys("c", [1; 16], Some([2; 32]))]), [Sha256, Md5]);
        assert_eq!(offered(vec![with_password("a", "b"), with_keys("c", [1; 16], None)]), [Md5]);
        let users = made(vec![with_keys("c", [1; 16], None)]).unwrap();
        let account = users.by_name("c").unwrap();
        assert_eq!(key(account, Md5).unwrap().as_bytes(), [1; 16]);
        assert!(key(account, Sha256).is_none());
    }

    #[test]
    fn what_cannot_be_served_is_named_without_the_password() {
        let error = |users| made(users).unwrap_err().to_string();
        assert_eq!(error(vec![with_password("", "x")]), "user name \"\" is empty");
        assert_eq!(
            error(vec![with_password("a", "x\ny")]),
            "password of user \"a\" has a forbidden character at position 2"
        );
        let twice = vec![with_password("\u{e9}", "x"), with_password("e\u{301}", "y")];
        assert!(error(twice).ends_with("is configured twice"));
        let nameless = StaticUsers::new(Realm { announced: "", ..REALM }, &[]);
        assert_eq!(nameless.unwrap_err(), UsersError::Realm(PrepareError::Empty));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let users = made(vec![with_keys("c", [0xab; 16], Some([0xcd; 32]))]).unwrap();
        let text = format!("{users:?}");
        // The map from user hash to account holds numbers of its own; the account alone must hold none.
        assert!(format!("{:?}", users.by_name("c").unwrap()).contains("Md5(****)"));
        assert!(!text.contains("171, 171") && !text.contains("205, 205"));
    }

    /// A realm that no listener announces: its users name it.
    #[test]
    fn where_another_realm_is_announced_users_say_theirs() {
        let realm = Realm { id: RealmId(2), name: "south.gov", announced: "north.gov" };
        let users = StaticUsers::new(realm, &[with_password("gorst", "hero")]).unwrap();
        assert!(users.by_name("gorst").is_none());
        let gorst = users.by_name("gorst@south.gov").unwrap();
        let by_hash = users.by_hash(&userhash("gorst@south.gov", "north.gov").unwrap()).unwrap();
        assert!(Arc::ptr_eq(gorst, by_hash));
        assert_eq!(*gorst.md5.subject, Subject::new("gorst", "south.gov"));
        assert_eq!(gorst.md5.realm, RealmId(2));
        let expected = md5_key("gorst@south.gov", "north.gov", "hero").unwrap();
        assert_eq!(gorst.md5.key.as_bytes(), expected.as_bytes());
    }
}
