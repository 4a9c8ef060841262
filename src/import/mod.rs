//! Import from coturn: the text of a `turnserver.conf` in, a configuration of ours and a report out. Nothing is read or asked on
//! the way, so that an import can be made anywhere.
//!
//! Whoever imports gets what the file meant to coturn, as far as that can be had here; what differs is said, with its line. What
//! cannot be had and matters to security or service is a question, and without an answer there is no configuration. What coturn
//! would merely warn about, like a name that it does not know, is an error.
//!
//! * `keys`: every key of coturn's, with its verdict. `lines`: its grammar. `version`: what its versions do by default.
//! * `source`: the settings by key, read as coturn reads them, and the answers to questions.
//! * `listeners`, `addresses`, `access`, `stores`, `peers`, `bounds`, `operation`: one subject each.
//! * `document`: the configuration that is made. `report`: what is said.

mod access;
mod addresses;
mod bounds;
mod document;
mod keys;
mod lines;
mod listeners;
mod operation;
mod peers;
pub mod report;
mod source;
mod stores;
mod version;

#[cfg(test)]
mod tests;

pub use self::{lines::is_coturns, version::Version};
use self::{
    report::{Kind, Report},
    source::Source,
};

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The version of coturn that the file was written for; `None`: guess.
    pub from: Option<Version>,
    /// Answers to questions: key, answer.
    pub decisions: Vec<(String, String)>,
    /// Random bytes for two secrets that the import may have to make.
    pub random: [[u8; 16]; 2],
}

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// The configuration in TOML. It holds secrets if coturn's does. `None` if there are errors or open questions.
    pub toml: Option<String>,
    /// What there is to say.
    pub report: Report,
}

/// Imports a text; `file` is what it is called in the report.
#[must_use]
pub fn import(text: &str, file: &str, options: &Options) -> Imported {
    let mut source = Source::new(lines::settings(text), file, options);
    source.check();
    listeners::import(&mut source);
    addresses::import(&mut source);
    access::import(&mut source);
    bounds::import(&mut source);
    peers::import(&mut source);
    operation::import(&mut source);
    let (document, mut report) = source.finish();
    report.sort();
    let complete = !report.has(Kind::Error) && !report.has(Kind::Decide);
    Imported { toml: complete.then(|| document.to_string()), report }
}
