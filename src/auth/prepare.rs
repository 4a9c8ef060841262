//! OpaqueString (RFC 8265 §4.2): the form of user names, realms and passwords that STUN hashes (RFC 8489 §9.2.2,
//! §14.3, §14.4, §14.9).
//!
//! Only the string preparation lives here; what is done with the result is [`super::key`]'s and
//! [`super::users`]' business.

use std::borrow::Cow;

use precis_profiles::{
    OpaqueString,
    precis_core::{Error, UnexpectedError, profile::PrecisFastInvocation},
};

/// Why a string has no OpaqueString form. Names a position, never a character: the string may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The string is empty; the profile wants at least one character.
    #[error("is empty")]
    Empty,
    /// A character that the profile forbids (control characters, unassigned code points, joiners out of context).
    #[error("has a forbidden character at position {}", .0 + 1)]
    Character(usize),
    /// The profile could not be applied for another reason.
    #[error("cannot be brought into the form of RFC 8265 OpaqueString")]
    Malformed,
}

/// How often the rules are applied again before a string counts as one without a stable form (RFC 8264 §7).
const REAPPLICATIONS: usize = 3;

/// Applies the OpaqueString profile: non-ASCII spaces become U+0020, the result is in normalization form C, case is
/// kept. Printable ASCII is its own OpaqueString form and costs one pass and no allocation.
///
/// The rules are applied until their output no longer changes (RFC 8264 §7): normalization can yield a character that
/// is forbidden where it then stands (U+0387 becomes the middle dot U+00B7), and such a string is refused.
pub fn prepare(text: &str) -> Result<Cow<'_, str>, PrepareError> {
    if text.is_empty() {
        return Err(PrepareError::Empty);
    }
    if is_printable_ascii(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut form = apply(text)?;
    for _ in 0..REAPPLICATIONS {
        let again = apply(&form)?.into_owned();
        if again == form.as_ref() {
            return Ok(form);
        }
        form = Cow::Owned(again);
    }
    Err(PrepareError::Malformed)
}

fn apply(text: &str) -> Result<Cow<'_, str>, PrepareError> {
    <OpaqueString as PrecisFastInvocation>::enforce(text).map_err(explain)
}

/// Whether `text` holds nothing but U+0020 to U+007E.
pub(super) fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn explain(error: Error) -> PrepareError {
    match error {
        Error::BadCodepoint(info)
        | Error::Unexpected(UnexpectedError::ContextRuleNotApplicable(info))
        | Error::Unexpected(UnexpectedError::MissingContextRule(info)) => PrepareError::Character(info.position),
        Error::Invalid | Error::Unexpected(_) => PrepareError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use precis_profiles::precis_core::profile::Profile;
    use proptest::prelude::*;

    #[test]
    fn printable_ascii_is_borrowed() {
        for text in ["a", " ", "user:with colon", "~!@#$%^&*()"] {
            assert!(matches!(prepare(text), Ok(Cow::Borrowed(same)) if same == text));
        }
    }

    #[test]
    fn empty_and_control_characters_are_refused_by_position_only() {
        assert_eq!(prepare(""), Err(PrepareError::Empty));
        assert_eq!(prepare("ab\u{0}"), Err(PrepareError::Character(2)));
        assert_eq!(prepare("\u{7f}"), Err(PrepareError::Character(0)));
        assert_eq!(PrepareError::Character(2).to_string(), "has a forbidden character at position 3");
        // U+00AD is default-ignorable: OpaqueString forbids what SASLprep removed (RFC 8264 §9.13).
        assert_eq!(prepare("The\u{ad}M"), Err(PrepareError::Character(3)));
    }

    #[test]
    fn spaces_are_mapped_and_composition_is_canonical() {
        assert_eq!(prepare("a\u{a0}b\u{3000}c").unwrap(), "a b c");
        assert_eq!(prepare("e\u{301}").unwrap(), "\u{e9}");
        assert_eq!(prepare("\u{30de}\u{30c8}").unwrap(), "\u{30de}\u{30c8}");
        // Form C, not KC: a compatibility character stays (RFC 8489 §14.3, note).
        assert_eq!(prepare("\u{2168}").unwrap(), "\u{2168}");
    }

    /// RFC 8264 §7: a string whose form the rules would refuse has no form. U+0387 normalizes to U+00B7, which is
    /// allowed between two "l" only; whichever way the profile's implementation says it, it is an error.
    #[test]
    fn a_form_that_is_itself_forbidden_is_refused() {
        assert!(prepare("\u{387}").is_err());
        assert!(prepare("a\u{387}b").is_err());
        assert_eq!(prepare("l\u{387}l").unwrap(), "l\u{b7}l");
    }

    proptest! {
        #[test]
        fn preparing_is_idempotent_and_never_panics(text in any::<String>()) {
            if let Ok(once) = prepare(&text) {
                prop_assert!(!once.is_empty());
                prop_assert_eq!(prepare(&once).unwrap(), once.as_ref());
            }
        }

        #[test]
        fn the_fast_path_agrees_with_the_profile(text in "[ -~]{1,40}") {
            prop_assert_eq!(OpaqueString::new().enforce(text.as_str()).unwrap(), prepare(&text).unwrap());
        }
    }
}
