//! Reading a spanned TOML tree: a [`Section`] hands out the known keys of one table as typed values, reports every value
//! that is wrong, and in the end every key that nobody knows.

use std::{cell::Cell, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    finding::{Place, Report},
    schema::{self, Table},
};

/// A type that one TOML value is read into; validates while parsing.
pub(super) trait Leaf: Sized {
    fn read(value: &DeValue<'_>) -> Result<Self, Mistake>;
}

/// Why a value was refused. Never repeats the value, which may be a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Mistake {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// A value of the wrong type.
    pub(super) fn wrong_type(value: &DeValue<'_>, expected: &str) -> Self {
        let remedy = match value {
            DeValue::String(_) => format!("write {expected} without quotes"),
            _ => format!("write {expected}"),
        };
        Self::new(format!("is of type {}, expected {expected}", value.type_str()), remedy)
    }
}

/// What a key was found to hold.
#[derive(Debug)]
pub(super) enum Entry<T> {
    /// The key is not in the file.
    Absent,
    /// The key is there, its value was refused and reported.
    Bad,
    /// A value and where it stands.
    Given(T, Place),
}

impl<T> Entry<T> {
    /// The value, or the default where there is none to use.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Given(value, _) => value,
            Self::Absent | Self::Bad => default,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// One table while it is read.
pub(super) struct Section<'r> {
    pub(super) report: &'r Report<'r>,
    schema: &'static Table,
    table: Option<&'r DeTable<'r>>,
    offset: Option<usize>,
}

impl<'r> Section<'r> {
    /// The top of the file.
    pub(super) fn root(report: &'r Report<'r>, table: &'r DeTable<'r>) -> Self {
        let root = Self { report, schema: &schema::ROOT, table: Some(table), offset: Some(0) };
        root.report_unknown();
        root
    }

    /// A table below this one; an absent one reads as empty.
    pub(super) fn section(&self, name: &'static str) -> Self {
        let schema = self.child(name);
        let empty = Self { report: self.report, schema, table: None, offset: None };
        match self.value(name).map(|value| (value.span(), value.get_ref())) {
            None => empty,
            Some((span, DeValue::Table(table))) => self.open(schema, table, span),
            Some((span, other)) => {
                self.not_a_table(schema, other, span);
                empty
            }
        }
    }

    /// The tables of an array of tables; `None` if there is none.
    pub(super) fn sections(&self, name: &'static str) -> Option<Vec<Self>> {
        let schema = self.child(name);
        let value = self.value(name)?;
        let DeValue::Array(tables) = value.get_ref() else {
            self.not_a_table(schema, value.get_ref(), value.span());
            return Some(Vec::new());
        };
        if tables.is_empty() {
            let place =
                Place { offset: Some(value.span().start), key: schema.name.to_owned(), value: Some("[]".into()) };
            self.report.error(&place, "is empty", format!("write {} or leave it out", schema::header(schema)));
        }
        let mut sections = Vec::new();
        for element in tables.iter() {
            match element.get_ref() {
                DeValue::Table(table) => sections.push(self.open(schema, table, element.span())),
                other => self.not_a_table(schema, other, element.span()),
            }
        }
        Some(sections)
    }

    /// Whether the key is in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether there is anything in a table below this one.
    pub(super) fn has_any(&self, table: &str) -> bool {
        self.value(table).is_some_and(|value| value.get_ref().as_table().is_none_or(|table| !table.is_empty()))
    }

    /// One value.
    pub(super) fn get<T: Leaf>(&self, key: &'static str) -> Entry<T> {
        match self.value(key) {
            None => Entry::Absent,
            Some(value) => match self.read(key, value) {
                None => Entry::Bad,
                Some((value, place)) => Entry::Given(value, place),
            },
        }
    }

    /// One value or a list of them. A list with a bad element is bad, an empty list is an empty list.
    pub(super) fn list<T: Leaf>(&self, key: &'static str) -> Entry<Vec<(T, Place)>> {
        let Some(value) = self.value(key) else { return Entry::Absent };
        let all_good = Cell::new(true);
        let read = |value| {
            let item = self.read(key, value);
            all_good.set(all_good.get() && item.is_some());
            item
        };
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(read).collect(),
            _ => read(value).into_iter().collect(),
        };
        if all_good.get() { Entry::Given(items, self.place_of(key, value)) } else { Entry::Bad }
    }

    /// Where a finding about the table itself, or a key that is missing from it, belongs.
    pub(super) fn place(&self, key: &str) -> Place {
        Place { offset: self.offset, key: self.path(key), value: None }
    }

    /// Where the value of a key stands; the table if there is none.
    pub(super) fn place_at(&self, key: &str) -> Place {
        self.value(key).map_or_else(|| self.place(key), |value| self.place_of(key, value))
    }

    fn path(&self, key: &str) -> String {
        match (self.schema.name, key) {
            ("", key) => key.to_owned(),
            (table, "") => table.to_owned(),
            (table, key) => format!("{table}.{key}"),
        }
    }

    fn child(&self, name: &'static str) -> &'static Table {
        // Only names from the schema are asked for; the tests read every one of them.
        schema::table(&self.path(name)).unwrap_or(&schema::ROOT)
    }

    fn value(&self, key: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema of [{}]", self.schema.name);
        self.table?.get(key)
    }

    fn open(&self, schema: &'static Table, table: &'r DeTable<'r>, span: Range<usize>) -> Self {
        let section = Self { report: self.report, schema, table: Some(table), offset: Some(span.start) };
        section.report_unknown();
        section
    }

    fn read<T: Leaf>(&self, key: &'static str, value: &Spanned<DeValue<'_>>) -> Option<(T, Place)> {
        let place = self.place_of(key, value);
        match T::read(value.get_ref()) {
            Ok(read) => Some((read, place)),
            Err(Mistake { what, remedy }) => {
                self.report.error(&place, what, remedy);
                None
            }
        }
    }

    fn place_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Place {
        Place { offset: Some(value.span().start), key: self.path(key), value: Some(self.shown(key, value)) }
    }

    /// The value as it may be printed: one line, not too long, no secrets, no tables (which may hold secrets).
    fn shown(&self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        const LONGEST: usize = 60;
        if schema::is_secret(self.schema, key) {
            return "****".to_owned();
        }
        if holds_tables(value.get_ref()) {
            return if value.get_ref().is_table() { "{…}".to_owned() } else { "[…]".to_owned() };
        }
        let source = self.report.text().get(value.span()).unwrap_or_default();
        let line = source.lines().next().unwrap_or_default();
        let mut shown: String = line.chars().take(LONGEST).collect();
        if shown.len() < source.len() {
            shown.push('…');
        }
        shown
    }

    fn not_a_table(&self, schema: &'static Table, value: &DeValue<'_>, span: Range<usize>) {
        let place = Place { offset: Some(span.start), key: schema.name.to_owned(), value: None };
        let what = match (schema.repeated, value) {
            (true, DeValue::Table(_)) => "is a single table, expected a list of tables".to_owned(),
            _ => format!("is of type {}, expected a table", value.type_str()),
        };
        self.report.error(&place, what, format!("write it as {}", schema::header(schema)));
    }

    fn report_unknown(&self) {
        for (key, value) in self.table.into_iter().flat_map(|table| table.iter()) {
            let name: &str = key.get_ref();
            if !self.schema.keys.contains(&name) {
                let place = Place { offset: Some(key.span().start), ..self.place_of(name, value) };
                let kind = if self.schema.name.is_empty() && holds_tables(value.get_ref()) { "table" } else { "key" };
                self.report.error(&place, format!("unknown {kind}"), schema::remedy(self.schema, name));
            }
        }
    }
}

/// Whether the value is a table or a list with tables in it.
fn holds_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| holds_tables(item.get_ref())),
        _ => false,
    }
}
