//! What is said about a configuration: one [`Finding`] per thing, with its place and its remedy, and the [`Report`] that
//! collects them while the file is read.

use std::{
    cell::{Cell, RefCell},
    fmt,
    path::{Path, PathBuf},
};

/// One error or warning about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file as it was named to us.
    pub file: String,
    /// Where in the file; `None` if it concerns something that is not there.
    pub position: Option<Position>,
    /// The key with its table, e.g. `limits.user-quota`; may be empty for a whole file.
    pub key: String,
    /// The offending value as written, `****` for secrets.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// A place in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl fmt::Display for Finding {
    /// `file:line:column: key = value: what; remedy`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

/// Why a configuration was refused: everything that was found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// At least one.
    pub errors: Vec<Finding>,
    /// Found on the way.
    pub warnings: Vec<Finding>,
}

impl ConfigErrors {
    /// One error about the file as a whole.
    pub(crate) fn whole_file(file: &str, what: String, remedy: &str) -> Self {
        let error = Finding {
            file: file.to_owned(),
            position: None,
            key: String::new(),
            value: None,
            what,
            remedy: Some(remedy.to_owned()),
        };
        Self { errors: vec![error], warnings: Vec::new() }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What a finding is about: a key, its value as shown, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Byte offset in the text.
    pub(super) offset: Option<usize>,
    /// Key with its table.
    pub(super) key: String,
    /// The value as it may be shown.
    pub(super) value: Option<String>,
}

/// Collects the findings of one text.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    errors: RefCell<Vec<(usize, Finding)>>,
    warnings: RefCell<Vec<(usize, Finding)>>,
    holds_secrets: Cell<bool>,
    files: RefCell<Vec<PathBuf>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            holds_secrets: Cell::default(),
            files: RefCell::default(),
        }
    }

    /// The text of the file.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    pub(super) fn error(&self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.errors.borrow_mut().push(self.finding(place, what.into(), remedy.into()));
    }

    pub(super) fn warning(&self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.borrow_mut().push(self.finding(place, what.into(), remedy.into()));
    }

    /// A secret stands in the text itself.
    pub(super) fn note_secret(&self) {
        self.holds_secrets.set(true);
    }

    /// Another file belongs to the configuration.
    pub(super) fn note_file(&self, path: &Path) {
        self.files.borrow_mut().push(path.to_owned());
    }

    /// The other files that belong to the configuration, as far as they were read.
    pub(super) fn take_files(&self) -> Vec<PathBuf> {
        self.files.take()
    }

    /// Whether any secret stands in the text itself.
    pub(super) fn holds_secrets(&self) -> bool {
        self.holds_secrets.get()
    }

    /// Whether an error was reported.
    pub(super) fn failed(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Errors and warnings in the order of the file; what is missing from the file comes last.
    pub(super) fn into_findings(self) -> (Vec<Finding>, Vec<Finding>) {
        let sorted = |findings: RefCell<Vec<(usize, Finding)>>| {
            let mut findings = findings.into_inner();
            findings.sort_by_key(|(offset, _)| *offset);
            findings.into_iter().map(|(_, finding)| finding).collect()
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    /// Line and column of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        position(self.text, offset).line
    }

    fn finding(&self, place: &Place, what: String, remedy: String) -> (usize, Finding) {
        let finding = Finding {
            file: self.file.to_owned(),
            position: place.offset.map(|offset| position(self.text, offset)),
            key: place.key.clone(),
            value: place.value.clone(),
            what,
            remedy: (!remedy.is_empty()).then_some(remedy),
        };
        (place.offset.unwrap_or(usize::MAX), finding)
    }
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or("").chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        assert_eq!(position("", 0), Position { line: 1, column: 1 });
        assert_eq!(position("ab\ncd", 4), Position { line: 2, column: 2 });
        assert_eq!(position("é = x", 5), Position { line: 1, column: 5 });
        assert_eq!(position("ab", 99), Position { line: 1, column: 3 });
    }

    #[test]
    fn a_finding_reads_as_one_line() {
        let report = Report::new("t.toml", "a = 1\nb = 2\n");
        report.error(
            &Place { offset: Some(10), key: "b".into(), value: Some("2".into()) },
            "is too small",
            "write 3 or more",
        );
        report.error(&Place { offset: Some(4), key: "a".into(), value: None }, "is odd", "");
        report.error(&Place { offset: None, key: "c".into(), value: None }, "is missing", "");
        let (errors, warnings) = report.into_findings();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["t.toml:1:5: a: is odd", "t.toml:2:5: b = 2: is too small; write 3 or more", "t.toml: c: is missing"]
        );
        assert!(warnings.is_empty());
    }
}
