//! What `coverage.md` and `tests/README.md` say is so: every statement once, every test that is named there is there, and every
//! MUST without a test is explained.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The specifications that ids begin with.
const SOURCES: [&str; 18] = [
    "8489", "8656", "6062", "5780", "8016", "3489", "5389", "5766", "7350", "7443", "7983", "7635", "8155", "7064",
    "6544", "5769", "REST", "H",
];

/// A line of a table: an id, and what stands in the other columns.
#[derive(Debug)]
struct Row {
    id: String,
    level: String,
    rest: String,
}

impl Row {
    /// Whether the statement binds: rules in the indicative are read like a MUST.
    fn is_must(&self) -> bool {
        self.level.starts_with("MUST") || self.level == "IS" || self.level.ends_with("MUST")
    }
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines below this heading, up to the next one of the same rank.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let begins = text.find(heading).unwrap_or_else(|| panic!("no heading {heading:?}")) + heading.len();
    let rest = &text[begins..];
    rest.find("\n## ").map_or(rest, |ends| &rest[..ends])
}

/// The rows of the tables in a section.
fn rows(text: &str) -> Vec<Row> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let rows = cells.filter(|(id, _)| is_id(id)).map(|(id, rest)| {
        let (level, rest) = rest.split_once(" | ").unwrap_or_else(|| panic!("{id}: three columns"));
        Row { id: id.to_owned(), level: level.to_owned(), rest: rest.to_owned() }
    });
    rows.collect()
}

/// `8489-9.2.4-01`, `REST-3-01`, `H-01`.
fn is_id(text: &str) -> bool {
    let Some((part, number)) = text.rsplit_once('-') else { return false };
    let source = part.split('-').next().unwrap_or_default();
    SOURCES.contains(&source)
        && (part == "H" || part.split('-').count() == 2)
        && number.len() == 2
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests of a file.
fn tests_of(source: &str) -> BTreeSet<String> {
    let after = source.split("#[test]").skip(1);
    let named = after.filter_map(|after| after.split_once("fn ")?.1.split_once('(')).map(|(name, _)| name.to_owned());
    named.collect()
}

/// The tests of this suite, with their module.
fn tests_of_this_suite() -> BTreeSet<String> {
    let main = read("tests/conformance/main.rs");
    let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let mut found = BTreeSet::new();
    for module in modules.filter(|module| *module != "common" && *module != "coverage") {
        let tests = tests_of(&read(&format!("tests/conformance/{module}.rs")));
        found.extend(tests.into_iter().map(|test| format!("{module}::{test}")));
    }
    found
}

struct Coverage {
    text: String,
    tested: Vec<Row>,
    untested: Vec<Row>,
}

impl Coverage {
    fn read() -> Self {
        let text = read("tests/conformance/coverage.md");
        let tested = rows(section(&text, "## Rows and tests\n"));
        let untested = rows(section(&text, "## Rows without a test\n"));
        Self { text, tested, untested }
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.tested.iter().chain(&self.untested)
    }
}

#[test]
fn every_statement_is_there_once() {
    let coverage = Coverage::read();
    let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for row in coverage.all() {
        let (part, number) = row.id.rsplit_once('-').unwrap();
        numbers.entry(part.to_owned()).or_default().push(number.parse().unwrap());
    }
    for (part, mut found) in numbers {
        found.sort_unstable();
        let expected: Vec<u32> = (1..).take(found.len()).collect();
        assert_eq!(found, expected, "numbers of {part}");
    }
    let (tested, all) = (coverage.tested.len(), coverage.all().count());
    let claim = format!("{tested} of {all} rows");
    assert!(coverage.text.contains(&claim), "coverage.md does not say \"{claim}\"");
    let levels = ["MUST", "MUST-", "IS", "SHOULD", "SHOULD-", "SHOULD/MUST", "MAY", "REC", "—"];
    let odd = coverage.all().find(|row| !levels.contains(&&*row.level));
    assert!(odd.is_none(), "{odd:?}");
}

#[test]
fn every_test_that_is_named_exists_and_every_test_is_named() {
    let coverage = Coverage::read();
    let here = tests_of_this_suite();
    let mut named = BTreeSet::new();
    let mut exists = |name: &str, place: &str| match name.split_once(".rs::") {
        // Elsewhere in the project.
        Some((file, test)) => {
            let file = format!("{file}.rs");
            assert!(tests_of(&read(&file)).contains(test), "{place}: no test {test} in {file}");
        }
        None => {
            assert!(here.contains(name), "{place}: no test {name}");
            named.insert(name.to_owned());
        }
    };
    for row in &coverage.tested {
        let tests: Vec<&str> = quoted(&row.rest).filter(|name| name.contains("::") && name.contains('_')).collect();
        assert!(!tests.is_empty(), "{}: no test", row.id);
        tests.into_iter().for_each(|test| exists(test, &row.id));
    }
    for line in section(&coverage.text, "## Tests without a row\n").lines() {
        if let Some(name) = line.strip_prefix("- `").and_then(|line| line.strip_suffix('`')) {
            exists(name, "tests without a row");
        }
    }
    let forgotten: Vec<_> = here.difference(&named).collect();
    assert!(forgotten.is_empty(), "not in coverage.md: {forgotten:#?}");
}

#[test]
fn every_must_without_a_test_is_explained() {
    let coverage = Coverage::read();
    let readme = read("tests/README.md");
    let explained = rows(section(&readme, "## Statements without a test\n"));
    let ids = |rows: &[Row]| rows.iter().map(|row| (row.id.clone(), row.level.clone())).collect::<BTreeSet<_>>();
    assert_eq!(ids(&explained), ids(&coverage.untested), "tests/README.md and coverage.md disagree");
    for row in &explained {
        assert!(row.rest.len() >= 20, "{}: no reason", row.id);
    }
    // What it says in a line is so.
    let musts = coverage.untested.iter().filter(|row| row.is_must()).count();
    let all = coverage.all().filter(|row| row.is_must()).count();
    let claim = format!("{} of {all}", all - musts);
    assert!(readme.contains(&claim), "tests/README.md does not say that {claim} binding statements have a test");
}

/// Files of Rust below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "node_modules" {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Comments name statements, here and beside the code.
#[test]
fn ids_in_comments_are_those_of_statements() {
    let coverage = Coverage::read();
    let known: BTreeSet<&str> = coverage.all().map(|row| &*row.id).collect();
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| sources(&project().join(folder), &mut files));
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a file");
        for line in text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment)) {
            let words = line.split(|char: char| !(char.is_ascii_alphanumeric() || "-.".contains(char)));
            for id in words.map(|word| word.trim_end_matches('.')).filter(|word| is_id(word)) {
                assert!(known.contains(id), "{}: there is no statement {id}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} ids in comments");
}
