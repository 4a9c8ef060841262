//! coturn's grammar: one setting a line, a name and a value.
//!
//! Name and value are separated by any run of blanks, tabs and `=`. A comment is a line that begins with `#`; there is none behind
//! a value. One quote before the value and one behind it are left out, whatever is between; nothing is escaped, and single quotes
//! mean themselves. coturn reads 1023 bytes at a time: the rest of a longer line is another line to it.

use super::keys::{self, Key};

/// What coturn reads of a line.
const LONGEST: usize = 1_023;

/// One setting of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'t> {
    /// Counts from 1.
    pub(super) line: usize,
    /// The name as written.
    pub(super) name: &'t str,
    /// The value, if there is one.
    pub(super) value: Option<&'t str>,
    /// The key, if the name is one.
    pub(super) key: Option<&'static Key>,
    /// Whether the line is longer than coturn reads.
    pub(super) is_cut: bool,
}

/// Every setting of a text.
pub(super) fn settings(text: &str) -> Vec<Setting<'_>> {
    const SEPARATORS: [char; 3] = [' ', '\t', '='];
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut settings = Vec::new();
    for (written, line) in text.lines().zip(1..) {
        let trimmed = written.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (name, rest) = trimmed.split_at(trimmed.find(SEPARATORS).unwrap_or(trimmed.len()));
        let rest = rest.trim_start_matches(SEPARATORS);
        let value = rest.strip_prefix('"').unwrap_or(rest);
        let value = value.strip_suffix('"').unwrap_or(value).trim_end();
        let value = (!value.is_empty()).then_some(value);
        settings.push(Setting { line, name, value, key: keys::find(name), is_cut: written.len() > LONGEST });
    }
    settings
}

/// Whether a text is more likely a file of coturn than one of ours: most of what it sets are coturn's keys, and it has no table.
/// One that sets nothing is coturn's if it says so.
#[must_use]
pub fn is_coturns(text: &str) -> bool {
    let settings = settings(text);
    if settings.iter().any(|setting| setting.name.starts_with('[')) {
        return false;
    }
    let known = settings.iter().filter(|setting| setting.key.is_some()).count();
    match settings.len() {
        0 => text.lines().any(|line| line.starts_with('#') && line.to_lowercase().contains("coturn")),
        all => known * 2 > all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> (&str, Option<&str>) {
        let settings = settings(line);
        assert_eq!(settings.len(), 1, "{line:?}");
        (settings[0].name, settings[0].value)
    }

    #[test]
    fn a_line_has_a_name_and_a_value() {
        for line in [
            "realm=a.example",
            "realm a.example",
            "realm = a.example  \r",
            "\trealm\t==\t a.example",
            "realm=\"a.example\"",
        ] {
            assert_eq!(one(line), ("realm", Some("a.example")), "{line:?}");
        }
        assert_eq!(one("mobility"), ("mobility", None));
        assert_eq!(one("mobility="), ("mobility", None));
    }

    #[test]
    fn values_are_taken_as_they_are() {
        assert_eq!(one("realm=a.example # mine").1, Some("a.example # mine"));
        assert_eq!(one("user=neo:ta\"pe").1, Some("neo:ta\"pe"));
        assert_eq!(one("user='neo:tape'").1, Some("'neo:tape'"));
        assert_eq!(one("user=neo:a=b c").1, Some("neo:a=b c"));
        assert_eq!(one("realm=a.example;").1, Some("a.example;"));
    }

    #[test]
    fn comments_and_empty_lines_are_none() {
        assert!(settings("# realm=x\n\n   \n  # mobility\n").is_empty());
        assert_eq!(
            settings("\u{feff}mobility\n# x\nrealm=y").iter().map(|setting| setting.line).collect::<Vec<_>>(),
            [1, 3]
        );
    }

    #[test]
    fn lines_that_coturn_would_cut_are_known() {
        let long = format!("cipher-list={}", "x".repeat(1_100));
        assert!(settings(&long)[0].is_cut && !settings("realm=x")[0].is_cut);
    }

    #[test]
    fn a_file_of_coturn_is_told_from_ours() {
        assert!(is_coturns("listening-port=3478\nrealm=x\nlt-cred-mech\n"));
        assert!(is_coturns("realm=x\nuser=a:b\nfingerpint\n"));
        assert!(is_coturns("# Coturn TURN SERVER configuration file\n#\n#realm=x\n"));
        assert!(!is_coturns("[auth]\nrealm = \"x\"\n"));
        assert!(!is_coturns("") && !is_coturns("# nothing\n") && !is_coturns("hello world\n"));
    }
}
