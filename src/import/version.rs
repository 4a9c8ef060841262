//! Versions of coturn, and which one a file was probably written for: defaults have changed between them.

use std::{fmt, str::FromStr};

use super::lines::Setting;

/// A version of coturn: up to four numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub(super) [u16; 4]);

impl Version {
    /// What Debian 12 and 13 and Ubuntu have, and so most people.
    pub(super) const USUAL: Self = Self([4, 6, 1, 0]);
    /// `cli`, empty reason phrases, and all that was on by default before: off from here on.
    pub(super) const WITHOUT_EXTRAS: Self = Self([4, 7, 0, 0]);
    /// Channel numbers above 0x4FFF are refused.
    pub(super) const STRICT_CHANNELS: Self = Self([4, 16, 0, 0]);
    /// DTLS only where asked for.
    pub(super) const NO_DTLS: Self = Self([4, 17, 0, 0]);
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut version = [0; 4];
        let parts: Vec<&str> = text.split('.').collect();
        if !(2..=4).contains(&parts.len()) {
            return Err("is no version of coturn; write one like 4.6.1".to_owned());
        }
        for (number, part) in version.iter_mut().zip(parts) {
            *number = part.parse().map_err(|_| "is no version of coturn; write one like 4.6.1".to_owned())?;
        }
        Ok(Self(version))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch, fix] = self.0;
        write!(f, "{major}.{minor}.{patch}")?;
        if fix > 0 { write!(f, ".{fix}") } else { Ok(()) }
    }
}

/// The version that the keys of a file speak for: the usual one, unless it lacks one of them. Keys that are gone say nothing: files
/// are copied for years.
pub(super) fn guess(settings: &[Setting<'_>]) -> Version {
    let newest = settings.iter().filter_map(|setting| setting.key?.since).max();
    newest.map_or(Version::USUAL, |newest| newest.max(Version::USUAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(version("4.6.1").to_string(), "4.6.1");
        assert_eq!(version("4.5.1.2").to_string(), "4.5.1.2");
        assert_eq!(version("4.17").to_string(), "4.17.0");
        assert!(version("4.6.1") < version("4.17.0") && version("4.5.1.2") < version("4.5.2"));
        for wrong in ["", "4", "latest", "4.6.1.0.1", "4.x"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
