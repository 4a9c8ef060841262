//! SECURITY.md and the pages of `docs/` name tests as `FILE.rs::NAME`; each must be there.

use crate::{files, text};

/// The tests that a text names, in the form `tests/quota.rs::name`: file and name.
fn named(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|words| words.split_once(".rs::"))
        .filter(|(file, _)| file.starts_with("tests/") || file.starts_with("src/"))
        .collect()
}

/// Whether a source has a test of this name: a function with the attribute above it, perhaps among others.
fn has_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else { return false };
    let attributes = before.lines().rev().map(str::trim).skip_while(|line| line.is_empty() || *line == "async");
    attributes
        .take_while(|line| line.starts_with("#["))
        .any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
}

#[test]
fn tests_are_told_from_other_functions() {
    assert!(has_test("#[test]\nfn a() {}", "a"));
    assert!(has_test("    #[tokio::test(start_paused = true)]\n    #[ignore]\n    async fn a() {}", "a"));
    assert!(
        !has_test("fn a() {}", "a")
            && !has_test("#[test]\nfn b() {\n    a();\n}\nfn a() {}", "a")
            && !has_test("", "a")
    );
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let mut pages = files("docs", ".md");
    pages.push("SECURITY.md".to_owned());
    let mut count = 0;
    for page in &pages {
        let page_text = text(page);
        for (file, name) in named(&page_text) {
            let source = text(&format!("{file}.rs"));
            assert!(has_test(&source, name), "{page} names a test that is not there: {file}.rs::{name}");
            count += 1;
        }
    }
    assert!(count > 30, "only {count} tests are named");
}

/// Each row of a table under `heading`, without its head.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let part = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let part = part.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = part.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(!rows.is_empty(), "no rows under {heading}");
    rows
}

#[test]
fn each_promise_and_each_advisory_names_the_test_that_shows_it() {
    let page = text("SECURITY.md");
    for heading in ["\n## Threat model", "\n## What went wrong elsewhere"] {
        for row in rows(&page, heading) {
            assert!(!named(row).is_empty(), "no test: {row}");
        }
    }
}
