//! What is said about an import. No value of a key that holds a secret is ever in it.

use std::fmt;

use serde::Serialize;

use super::version::Version;

/// What kind of thing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It cannot be imported.
    Error,
    /// The operator has to decide.
    Decide,
    /// It is not as it was with coturn.
    Changed,
    /// It is left out, and nothing is lost that matters.
    Ignored,
    /// It is as it was; something to know about it.
    Note,
}

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What kind of thing.
    pub kind: Kind,
    /// The line of coturn's file that it is about, if it is about one.
    pub line: Option<usize>,
    /// The key of coturn's; empty if it is about none.
    pub key: String,
    /// What there is to say.
    pub what: String,
    /// What it may be answered with (`--decide KEY=ANSWER`), if it is a question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
}

/// One line of coturn's file that went somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// Where it stands.
    pub line: usize,
    /// The key of coturn's.
    pub key: &'static str,
    /// The key or table of ours.
    pub to: &'static str,
}

/// All that is said about one file.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file as it was named to us.
    pub file: String,
    /// The version of coturn that the file was read for.
    pub version: String,
    /// Whether that was said and not guessed.
    pub version_given: bool,
    /// What was imported.
    pub imported: Vec<Mapped>,
    /// What else there is to say.
    pub items: Vec<Item>,
}

impl Report {
    pub(super) fn new(file: &str, version: Version, version_given: bool) -> Self {
        Self {
            file: file.to_owned(),
            version: version.to_string(),
            version_given,
            imported: Vec::new(),
            items: Vec::new(),
        }
    }

    /// Says something about a line, or about what no line says.
    pub(super) fn say(&mut self, kind: Kind, line: impl Into<Option<usize>>, key: &str, what: impl Into<String>) {
        let item = Item { kind, line: line.into(), key: key.to_owned(), what: what.into(), answers: Vec::new() };
        if !self.items.contains(&item) {
            self.items.push(item);
        }
    }

    pub(super) fn ask(&mut self, line: Option<usize>, key: &str, what: &str, answers: Vec<String>) {
        self.items.push(Item { kind: Kind::Decide, line, key: key.to_owned(), what: what.to_owned(), answers });
    }

    /// Adds what is about no line.
    pub fn note(&mut self, what: String) {
        self.say(Kind::Note, None, "", what);
    }

    /// Whether anything of a kind was said.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.items.iter().any(|item| item.kind == kind)
    }

    /// In the order of the file, what is about no line last.
    pub(super) fn sort(&mut self) {
        self.items.sort_by_key(|item| (item.line.unwrap_or(usize::MAX), item.kind));
        self.imported.sort_by_key(|mapped| mapped.line);
    }
}

impl fmt::Display for Report {
    /// A line for each thing, and a summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Item { kind, line, key, what, answers } in &self.items {
            f.write_str(&self.file)?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
            }
            let kind = match kind {
                Kind::Error => "error",
                Kind::Decide => "decide",
                Kind::Changed => "changed",
                Kind::Ignored => "ignored",
                Kind::Note => "note",
            };
            write!(f, ": {kind}: ")?;
            if !key.is_empty() {
                write!(f, "{key}: ")?;
            }
            f.write_str(what)?;
            if !answers.is_empty() {
                let answers: Vec<String> = answers.iter().map(|answer| format!("--decide {key}={answer}")).collect();
                write!(f, "; answer with {}, or change the file", answers.join(" or "))?;
            }
            writeln!(f)?;
        }
        let count = |kind| self.items.iter().filter(|item| item.kind == kind).count();
        let how = if self.version_given { "" } else { ", which is a guess (--from-version says it)" };
        writeln!(
            f,
            "{}: coturn {}{how}: {} settings imported, {} changed, {} ignored, {} to decide, {} errors",
            self.file,
            self.version,
            self.imported.len(),
            count(Kind::Changed),
            count(Kind::Ignored),
            count(Kind::Decide),
            count(Kind::Error),
        )
    }
}
