//! The settings by key, read as coturn reads them.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use super::{
    Options,
    document::Document,
    keys::{self, Key, Takes, Verdict},
    lines::Setting,
    report::{Kind, Mapped, Report},
    version::{self, Version},
};

/// A value and the line it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// The file that is imported, and what is made of it.
pub(super) struct Source<'t> {
    settings: Vec<Setting<'t>>,
    options: &'t Options,
    answered: Vec<String>,
    /// The version that it was written for.
    pub(super) version: Version,
    pub(super) report: Report,
    pub(super) document: Document,
}

impl<'t> Source<'t> {
    pub(super) fn new(settings: Vec<Setting<'t>>, file: &str, options: &'t Options) -> Self {
        let version = options.from.unwrap_or_else(|| version::guess(&settings));
        let report = Report::new(file, version, options.from.is_some());
        let mut document = Document::default();
        document.head.push(format!("Imported from {file:?} of coturn {version}; lines are its."));
        document.head.push(
            "turnserver.toml.example has every key; `turnserver check -c FILE` says what this comes to.".to_owned(),
        );
        Self { settings, options, answered: Vec::new(), version, report, document }
    }

    /// Looks at every line: is it a key, does it have the value that it needs, is it left out, does it raise a question?
    pub(super) fn check(&mut self) {
        for setting in self.settings.clone() {
            let Setting { line, name, key: Some(key), .. } = setting else {
                self.unknown(&setting);
                continue;
            };
            self.check_value(&setting, key);
            let counts = !matches!(key.verdict, Verdict::Ignored(_));
            if let Some(since) = key.since.filter(|since| counts && *since > self.version) {
                let what =
                    format!("came with coturn {since}, and {} ignores it; it is imported all the same", self.version);
                self.report.say(Kind::Note, line, name, what);
            }
            match key.verdict {
                Verdict::Mapped(to) => self.report.imported.push(Mapped { line, key: key.name, to }),
                Verdict::Ignored(why) => {
                    let gone = key.until.map(|until| format!(" (gone after coturn {until})")).unwrap_or_default();
                    self.report.say(Kind::Ignored, line, name, format!("{why}{gone}"));
                }
                // Whoever asks says it, as what is off needs no answer.
                Verdict::Asked(..) => {}
            }
        }
        for key in keys::KEYS {
            // These are asked about with the rest of their subject.
            const ELSEWHERE: [&str; 2] = ["no-auth", "allow-loopback-peers"];
            if matches!(key.verdict, Verdict::Asked(..)) && !ELSEWHERE.contains(&key.name) && self.is_set(key) {
                self.ask(key);
            }
        }
    }

    fn is_set(&mut self, key: &Key) -> bool {
        match key.takes {
            Takes::Switch | Takes::Flag => self.is_on(key.name),
            _ => self.line(key.name).is_some(),
        }
    }

    fn unknown(&mut self, setting: &Setting<'_>) {
        // What is not like a name may be part of a secret.
        const LONGEST: usize = 48;
        let is_name = setting.name.len() <= LONGEST
            && setting.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if is_name {
            let what = format!("is no key of any version of coturn; {}", keys::remedy(setting.name));
            self.report.say(Kind::Error, setting.line, setting.name, what);
        } else {
            let what = "this line does not begin with a key of coturn; correct it, or make it a comment";
            self.report.say(Kind::Error, setting.line, "", what);
        }
    }

    fn check_value(&mut self, setting: &Setting<'_>, key: &'static Key) {
        let Setting { line, name, value, is_cut, .. } = *setting;
        if is_cut {
            let what = "the line is longer than 1023 bytes, which is where coturn cuts it; make it shorter";
            self.report.say(Kind::Error, line, name, what);
        }
        let Some(value) = value else {
            if !key.takes.nothing() && !matches!(key.verdict, Verdict::Ignored(_)) {
                self.report.say(Kind::Error, line, name, "has no value; write one, or remove it");
            }
            return;
        };
        if key.takes == Takes::Flag && value.starts_with(['0', 'n', 'N', 'f', 'F']) {
            let what = "is on whatever its value is: coturn takes none";
            self.report.say(Kind::Changed, line, name, what);
        }
        let is_text = matches!(key.takes, Takes::Text | Takes::Texts | Takes::Secret | Takes::Secrets);
        if is_text && (value.contains(" #") || value.contains("\t#")) {
            let what = "coturn knows no comments behind a value: `#` and what follows is part of it, and stays so";
            self.report.say(Kind::Changed, line, name, what);
        }
        if is_text && value.ends_with(';') {
            self.report.say(
                Kind::Changed,
                line,
                name,
                "coturn takes the `;` at the end for part of the value, and so it stays",
            );
        }
        if is_text && value.chars().any(char::is_control) {
            self.report.say(Kind::Error, line, name, "has control characters in its value; remove them");
        }
    }

    /// Two random secrets in hexadecimal.
    pub(super) fn random(&self) -> [String; 2] {
        self.options.random.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The line of the last setting of a key.
    pub(super) fn line(&self, name: &str) -> Option<usize> {
        self.settings.iter().rev().find(|setting| setting.name == name).map(|setting| setting.line)
    }

    /// Whether a boolean is on. coturn looks at the first letter.
    pub(super) fn is_on(&mut self, name: &str) -> bool {
        let Some(setting) = self.settings.iter().rev().find(|setting| setting.name == name).copied() else {
            return false;
        };
        if setting.key.is_some_and(|key| key.takes == Takes::Flag) {
            return true;
        }
        match setting.value {
            None => true,
            Some(value) if value.starts_with(['0', 'n', 'N', 'f', 'F']) => false,
            Some(value) if value.starts_with(|c: char| c.is_ascii_digit() || "yYtT".contains(c)) => true,
            Some("on" | "ON" | "On") => true,
            Some("off" | "OFF" | "Off") => false,
            Some(_) => {
                let what = "is neither true nor false, and coturn would not start; write true or false";
                self.report.say(Kind::Error, setting.line, name, what);
                false
            }
        }
    }

    /// A boolean that is on, with its line.
    pub(super) fn on(&mut self, name: &str) -> Option<usize> {
        if self.is_on(name) { self.line(name) } else { None }
    }

    /// The value that counts: the last one. Earlier ones are said to be of no account.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Given<&'t str>> {
        self.last_of(&[name])
    }

    /// The same for a key that has several names.
    pub(super) fn last_of(&mut self, names: &[&'static str]) -> Option<Given<&'t str>> {
        let given: Vec<Setting<'t>> =
            self.settings.iter().filter(|setting| names.contains(&setting.name)).copied().collect();
        let (last, earlier) = given.split_last()?;
        for setting in earlier.iter().filter(|setting| setting.value != last.value) {
            let what = format!("line {} replaces it: coturn takes the last", last.line);
            self.report.say(Kind::Changed, setting.line, setting.name, what);
        }
        last.value.map(|value| Given { value, line: last.line })
    }

    /// Every value of a key that may be repeated, each once.
    pub(super) fn all(&self, name: &str) -> Vec<Given<&'t str>> {
        let mut all: Vec<Given<&'t str>> = Vec::new();
        for Setting { line, value, .. } in self.settings.iter().filter(|setting| setting.name == name) {
            if let Some(value) = value.filter(|value| all.iter().all(|other| other.value != *value)) {
                all.push(Given { value, line: *line });
            }
        }
        all
    }

    /// A number as coturn reads it: the digits at the beginning, or 0. What follows is of no account.
    pub(super) fn number(&mut self, name: &'static str) -> Option<Given<u64>> {
        let key = keys::find(name)?;
        let line = self.line(name)?;
        let Some(Given { value, .. }) = self.text(name) else {
            return match key.takes {
                Takes::NumberOr(default) => Some(Given { value: default.into(), line }),
                _ => None,
            };
        };
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (number, rest) = value.split_at(digits);
        if !rest.is_empty() {
            let number = if number.is_empty() { "0" } else { number };
            let what = format!("coturn reads this number as {number} and ignores what follows");
            self.report.say(Kind::Changed, line, name, what);
        }
        let number = if number.is_empty() { Ok(0) } else { number.parse() };
        match number {
            Ok(value) => Some(Given { value, line }),
            Err(_) => {
                self.report.say(Kind::Error, line, name, "is too large a number");
                None
            }
        }
    }

    /// A port; 0 is none.
    pub(super) fn port(&mut self, name: &'static str) -> Option<Given<u16>> {
        let Given { value, line } = self.number(name)?;
        match u16::try_from(value) {
            Ok(0) => None,
            Ok(value) => Some(Given { value, line }),
            Err(_) => {
                self.report.say(Kind::Error, line, name, "is no port; write one from 1 to 65535");
                None
            }
        }
    }

    /// An address. coturn takes names, too, and looks them up when it starts.
    pub(super) fn address(&mut self, name: &str, given: Given<&str>) -> Option<IpAddr> {
        match given.value.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                let what = "is a link-local address, which means nothing without its interface; write another one";
                self.report.say(Kind::Error, given.line, name, what);
                None
            }
            Ok(address) => Some(address.to_canonical()),
            Err(_) => {
                let what = "is not an IP address; names are not looked up here: write the address that it stands for";
                self.report.say(Kind::Error, given.line, name, what);
                None
            }
        }
    }

    /// An address with a port, which may be left out if there is a default.
    pub(super) fn socket(&mut self, name: &str, given: Given<&str>, default: Option<u16>) -> Option<SocketAddr> {
        if let Ok(socket) = given.value.parse::<SocketAddr>()
            && socket.port() != 0
        {
            return Some(SocketAddr::new(socket.ip().to_canonical(), socket.port()));
        }
        let bare = given.value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given.value);
        let (Ok(address), Some(port)) = (bare.parse::<IpAddr>(), default) else {
            let what = "is not an address with a port, like 192.0.2.1:3478 or [2001:db8::1]:3478; names are not looked up here";
            self.report.say(Kind::Error, given.line, name, what);
            return None;
        };
        Some(SocketAddr::new(address.to_canonical(), port))
    }

    /// Asks what the table of keys has for a key.
    pub(super) fn ask(&mut self, key: &Key) -> Option<String> {
        match key.verdict {
            Verdict::Asked(question, answers) => self.decide(key.name, question, answers),
            Verdict::Mapped(_) | Verdict::Ignored(_) => None,
        }
    }

    /// Asks, and returns the answer if there is one. An answer in capital letters stands for any.
    pub(super) fn decide(&mut self, key: &str, question: &str, answers: &[&str]) -> Option<String> {
        let line = self.line(key);
        self.answered.push(key.to_owned());
        let Some((_, answer)) = self.options.decisions.iter().find(|(of, _)| of == key) else {
            let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
            self.report.ask(line, key, question, answers);
            return None;
        };
        let is_free = answers.iter().any(|known| known.bytes().all(|byte| byte.is_ascii_uppercase()));
        if !is_free && !answers.contains(&answer.as_str()) {
            let what = format!("--decide {key}: there is no such answer; write {}", answers.join(" or "));
            self.report.say(Kind::Error, line, key, what);
            return None;
        }
        let what = format!("decided ({answer}): {question}");
        self.report.say(Kind::Changed, line, key, what);
        Some(answer.clone())
    }

    /// The document and the report.
    pub(super) fn finish(mut self) -> (Document, Report) {
        for (key, _) in &self.options.decisions {
            if !self.answered.contains(key) {
                self.report.say(Kind::Error, None, key, "--decide: this file raises no such question; leave it out");
            }
        }
        let left_out: Vec<(Option<usize>, String)> = self
            .report
            .items
            .iter()
            .filter(|item| matches!(item.kind, Kind::Ignored | Kind::Error | Kind::Decide))
            .map(|item| (item.line, item.key.clone()))
            .collect();
        self.report.imported.retain(|Mapped { line, key, .. }| {
            !left_out.iter().any(|(other, name)| *other == Some(*line) && name == key)
        });
        (self.document, self.report)
    }
}

/// Where a line comes from, for the comment beside it.
pub(super) fn from(name: &str, line: usize) -> String {
    format!("{name}, line {line}")
}

/// The same for something that several lines say.
pub(super) fn from_all<T>(name: &str, given: &[Given<T>]) -> String {
    let lines: Vec<String> = given.iter().map(|given| given.line.to_string()).collect();
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{name}, {word} {}", lines.join(", "))
}

/// A number of bytes per second as `[limits]` has it.
pub(super) fn bandwidth(bytes: impl Display) -> String {
    format!("\"{bytes}B/s\"")
}
