//! Who somebody says they are: user names, time-limited ones with all that can be in them, hashes of names, key ids with access tokens.

use std::{sync::LazyLock, time::Duration};

use sha2::{Digest, Sha256};
use turnserver::{
    auth::{
        credential::{Identity, Query, RealmId},
        directory::Directory,
        prepare::prepare,
        rest::{RestForm, RestNames},
        token::{TokenAlgorithm, TokenKey},
    },
    config,
    stun::PasswordAlgorithm,
};

use super::{
    bytes::{Bytes, text},
    settings::host,
};

const SEPARATORS: [char; 4] = [':', '-', '/', '|'];
/// Now, in seconds since the UNIX epoch.
const NOW: u64 = 1_700_000_000;

/// A name of each form: what comes of it is part of it, and a name that is put together comes apart the same.
pub(crate) fn rest(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let separator = *bytes.pick(&SEPARATORS);
    let name = text(bytes.rest());
    for (_, form) in RestForm::ALL {
        let names = RestNames { form, separator };
        let Some(parsed) = names.parse(name) else { continue };
        assert_eq!(parsed.tenant.is_some(), form.has_tenant());
        assert!(name.contains(parsed.user) && parsed.tenant.is_none_or(|tenant| name.contains(tenant)));
        assert!(!parsed.user.is_empty() || name.is_empty());
        let again = names.write(parsed.expires, parsed.tenant, parsed.user);
        if let Some(parsed_again) = names.parse(&again) {
            assert_eq!(parsed_again.expires, parsed.expires, "{name:?} {again:?}");
        }
    }
    if let Ok(prepared) = prepare(name) {
        assert!(prepare(&prepared).is_ok_and(|again| again == prepared), "prepared twice: {prepared:?}");
    }
    for algorithm in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
        for realm in 0..3 {
            let hash: [u8; 32] = Sha256::digest(name).into();
            for identity in [Identity::Name(name), Identity::Hash(&hash)] {
                let query = Query { realm: RealmId(realm), identity, algorithm, token: None };
                for credential in DIRECTORY.find(&query, Duration::from_secs(NOW)).iter() {
                    assert!(!credential.bearer && credential.realm.0 < 2);
                    if let (Some(term), Identity::Name(_)) = (credential.term, identity) {
                        // Only a time in the name gives a credential an end.
                        assert!(!term.left.saturating_add(term.grace).is_zero());
                        assert!(name.bytes().any(|byte| byte.is_ascii_digit()));
                    }
                }
            }
        }
    }
}

const KEY: &[u8; 32] = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
const SERVER: &str = "turn.example.org";

static DIRECTORY: LazyLock<Directory> = LazyLock::new(|| {
    let text = "[auth]\nrealm = \"example.org\"\nserver-name = \"turn.example.org\"\nexpiry-grace = \"60s\"\n\
        static-auth-secret = \"north\"\n\
        [[auth.user]]\nname = \"alice\"\npassword = \"wonderland\"\n\
        [[auth.token-key]]\nkid = \"old\"\nkey = \"SEdrajMyS0pHaXV5MDk4c2RmYXFiTmpPaWF6NzE5MjM=\"\n\
        [[realm]]\nname = \"south.gov\"\nstatic-auth-secret = \"south\"\n\
        [[realm.user]]\nname = \"bob\"\npassword = \"builder\"\n";
    let loaded = config::parse(text, "/nonexistent/turnserver.toml", &host()).unwrap_or_else(|error| panic!("{error}"));
    Directory::new(&loaded.settings, false).expect("users with names")
});

/// An access token as it comes, and what is in one of ours: only what an authorization server has encrypted is let in.
pub(crate) fn token(bytes: &[u8]) {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = TokenKey::new("old", TokenAlgorithm::A256Gcm, KEY).expect("a key of the right length");
    assert!(key.open(bytes, SERVER).is_none(), "a token of nobody");
    let find = |token| {
        let query = Query {
            realm: RealmId::DEFAULT,
            identity: Identity::Name("old"),
            algorithm: PasswordAlgorithm::Md5,
            token: Some(token),
        };
        DIRECTORY.find(&query, Duration::from_secs(NOW))
    };
    assert!(find(bytes).is_empty());

    let mut block = bytes.to_vec();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, KEY).expect("a key of the right length"));
    let nonce = || Nonce::assume_unique_for_key([7; 12]);
    cipher.seal_in_place_append_tag(nonce(), Aad::from(SERVER.as_bytes()), &mut block).expect("to be sealed");
    let mut sealed = [&[0, 12][..], &[7; 12], &block].concat();
    let credentials = find(&sealed);
    let opened = key.open(&sealed, SERVER);
    assert!(key.open(&sealed, "other.example.org").is_none());
    match opened {
        Some(token) => {
            let term = token.term(Duration::from_secs(NOW));
            assert_eq!(credentials.is_empty(), term.is_none());
            assert!(credentials.iter().all(|credential| credential.bearer && credential.term == term));
            if let Some(term) = term {
                assert!(!term.left.is_zero() && term.left <= Duration::from_secs(u64::from(u32::MAX) + 5));
            }
            for key in token.keys() {
                assert!(
                    key.as_bytes().len() >= 16
                        && bytes.windows(key.as_bytes().len()).any(|part| part == key.as_bytes())
                );
            }
        }
        None => assert!(credentials.is_empty()),
    }
    // Damaged, it is nobody's.
    let at = usize::from(bytes.first().copied().unwrap_or_default()) % sealed.len();
    sealed[at] ^= 1;
    assert!(key.open(&sealed, SERVER).is_none());
}
