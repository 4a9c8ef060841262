//! What is said about a server: one [`Finding`] per thing that was looked at, with its remedy if something is wrong.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not tried, for the reason that is given.
    Skipped,
    /// Works, but not for everybody or not for long.
    Warning,
    /// Does not work.
    Error,
}

impl Level {
    /// As printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, in a word or two.
    pub about: String,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, about: about.into(), what: what.into(), remedy: None }
    }

    /// Was not tried.
    pub fn skipped(about: impl Into<String>, why: impl Into<String>) -> Self {
        Self { level: Level::Skipped, about: about.into(), what: why.into(), remedy: None }
    }

    /// Could be better.
    pub fn warning(about: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, about: about.into(), what: what.into(), remedy: Some(remedy.into()) }
    }

    /// Does not work.
    pub fn error(about: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Error, about: about.into(), what: what.into(), remedy: Some(remedy.into()) }
    }
}

/// Width of the column of levels.
const LEVELS: usize = 8;

impl fmt::Display for Finding {
    /// A line, and one more if there is a remedy. What comes from the server shows no control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, about, what, remedy } = self;
        write!(f, "{:LEVELS$} {}: {}", level.name(), printable(about), printable(what))?;
        remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "\n{:LEVELS$} -> {}", "", printable(remedy)))
    }
}

/// Text without control characters, so that nobody else's text steers a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The worst of them.
#[must_use]
pub fn worst<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Level {
    findings.into_iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        assert_eq!(Finding::ok("binding", "answered").to_string(), "ok       binding: answered");
        let warning = Finding::warning("certificate", "ends\u{1b}[31m soon", "renew it");
        assert_eq!(warning.to_string(), "warning  certificate: ends\u{fffd}[31m soon\n         -> renew it");
    }

    #[test]
    fn the_worst_counts() {
        let findings = [Finding::ok("a", "b"), Finding::error("a", "b", "c"), Finding::skipped("a", "b")];
        assert_eq!(worst(&findings), Level::Error);
        assert_eq!(worst(&findings[..1]), Level::Ok);
        assert_eq!(worst([]), Level::Ok);
    }
}
