//! `docs/unsafe.md` lists each file of `src/` with `unsafe` in it, how often, why, and what runs through it.

use std::collections::BTreeMap;

use crate::{files, text};

const TABLE: &str = "docs/unsafe.md";

/// A line that begins something unsafe: a block, an implementation, a declaration, a function.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|character: char| !character.is_alphanumeric() && character != '_').any(|word| word == "unsafe")
}

/// Whether the statement that a line belongs to has its argument above it.
fn is_argued(lines: &[&str], at: usize) -> bool {
    let mut above = lines.get(..at).unwrap_or_default().iter().rev().map(|line| line.trim()).peekable();
    // The line may go on from one that ends in the middle of a statement, or be one of several alike.
    while let Some(line) = above.peek() {
        let goes_on =
            line.ends_with(['=', '(', '|']) || line.starts_with("#[") || is_unsafe(line) && line.ends_with("{}");
        if !goes_on {
            break;
        }
        above.next();
    }
    above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with("// SAFETY"))
}

#[test]
fn every_unsafe_place_has_its_argument_and_its_row() {
    let mut found = BTreeMap::new();
    let mut bare = Vec::new();
    for path in files("src", ".rs") {
        let source = text(&path);
        let lines: Vec<&str> = source.lines().collect();
        let places: Vec<usize> = (0..lines.len()).filter(|at| is_unsafe(lines[*at])).collect();
        bare.extend(places.iter().filter(|at| !is_argued(&lines, **at)).map(|at| format!("{path}:{}", at + 1)));
        if !places.is_empty() {
            found.insert(path, places.len());
        }
    }
    assert!(bare.is_empty(), "no `// SAFETY:` above: {bare:?}");
    assert_eq!(
        found,
        rows(),
        "src/ (left) has other unsafe places than {TABLE} (right) says; review them, then change it"
    );
}

/// The files of the table and their numbers of places; each row says something in every column.
fn rows() -> BTreeMap<String, usize> {
    let table = text(TABLE);
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `src/")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        assert!(cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()), "{TABLE}: {line}");
        let places = cells[1].parse().unwrap_or_else(|_| panic!("{TABLE}: not a number of places: {line}"));
        assert!(rows.insert(cells[0].trim_matches('`').to_owned(), places).is_none(), "{TABLE}: twice: {line}");
    }
    assert!(!rows.is_empty(), "{TABLE} has no rows");
    rows
}

/// Elsewhere the compiler refuses it.
#[test]
fn unsafe_is_denied_but_where_a_file_allows_it() {
    let manifest: toml::Table = text("Cargo.toml").parse().expect("TOML");
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
    let allowing: Vec<String> =
        files("src", ".rs").into_iter().filter(|path| text(path).contains("allow(unsafe_code)")).collect();
    let listed: Vec<String> = rows().into_keys().collect();
    for path in &allowing {
        let room = path.trim_end_matches("mod.rs").to_owned();
        assert!(listed.iter().any(|file| file.starts_with(&room)), "{path} allows what it does not use");
    }
    for core in ["src/stun/", "src/turn/", "src/policy/", "src/auth/", "src/config/", "src/admin/"] {
        assert!(!listed.iter().any(|file| file.starts_with(core)), "{core} needs none");
    }
}

#[test]
fn what_is_unsafe_and_what_argues_for_it_are_told_apart() {
    assert!(is_unsafe("    let a = unsafe { b() };") && is_unsafe("unsafe impl A for B {}"));
    assert!(
        !is_unsafe("#![allow(unsafe_code)]")
            && !is_unsafe("// nothing unsafe here")
            && !is_unsafe("let not_unsafe = 1;")
    );
    assert!(is_argued(&["// SAFETY: so.", "let a =", "    unsafe { b() };"], 2));
    assert!(is_argued(&["// SAFETY: so.", "#[allow(x)]", "let a = unsafe { b() };"], 2));
    assert!(!is_argued(&["// SAFETY: so.", "let c = 1;", "let a = unsafe { b() };"], 2));
    assert!(!is_argued(&["// Because.", "let a = unsafe { b() };"], 1));
}
