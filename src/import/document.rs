//! The configuration that is being made: tables in the order of the example file, each line with where it comes from.

use std::fmt;

/// The tables in the order in which they are written.
const ORDER: [&str; 18] = [
    "[[listener]]",
    "[relay]",
    "[auth]",
    "[[auth.user]]",
    "[[auth.secret]]",
    "[store]",
    "[lifetimes]",
    "[limits]",
    "[peers]",
    "[redirect]",
    "[[redirect.server]]",
    "[nat-discovery]",
    "[tcp]",
    "[tls]",
    "[compatibility]",
    "[process]",
    "[management]",
    "[log]",
];

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    header: &'static str,
    lines: Vec<(&'static str, String, String)>,
}

impl Table {
    pub(super) fn new(header: &'static str) -> Self {
        Self { header, lines: Vec::new() }
    }

    /// Writes `key = value`, where the value is TOML already, and why.
    pub(super) fn set(mut self, key: &'static str, value: impl fmt::Display, why: impl Into<String>) -> Self {
        self.lines.push((key, value.to_string(), why.into()));
        self
    }
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Comments before the first table.
    pub(super) head: Vec<String>,
    tables: Vec<Table>,
}

impl Document {
    /// Adds a table that may be there several times.
    pub(super) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Writes a line into a table that is there once.
    pub(super) fn set(
        &mut self,
        header: &'static str,
        key: &'static str,
        value: impl fmt::Display,
        why: impl Into<String>,
    ) {
        let line = (key, value.to_string(), why.into());
        match self.tables.iter_mut().find(|table| table.header == header) {
            Some(table) => table.lines.push(line),
            None => self.tables.push(Table { header, lines: vec![line] }),
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.head {
            writeln!(f, "# {line}")?;
        }
        for header in ORDER {
            for table in self.tables.iter().filter(|table| table.header == header) {
                writeln!(f, "\n{header}")?;
                for (key, value, why) in &table.lines {
                    // What is long stands above.
                    if value.len() + why.len() > 90 || value.contains('\n') && !why.is_empty() {
                        writeln!(f, "# {why}\n{key} = {value}")?;
                    } else if why.is_empty() {
                        writeln!(f, "{key} = {value}")?;
                    } else {
                        writeln!(f, "{key} = {value} # {why}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A string of TOML.
pub(super) fn text(text: impl fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// A list of TOML.
pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(text).collect();
    format!("[{}]", items.join(", "))
}

/// A list of TOML with a line for each item and where it comes from.
pub(super) fn long_list<T: fmt::Display>(items: impl IntoIterator<Item = (T, usize)>) -> String {
    let lines = items.into_iter().map(|(item, line)| format!("    {}, # line {line}\n", text(item)));
    format!("[\n{}]", lines.collect::<String>())
}
