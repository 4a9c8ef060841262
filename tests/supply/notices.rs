//! The licences of the crates in the binary ask for their texts to be handed out with it: `THIRD-PARTY.txt` has them. This makes it
//! anew and compares; with `TURNSERVER_TEST_WRITE=1` it writes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{ours, text};

const FILE: &str = "THIRD-PARTY.txt";
const HOW: &str = "TURNSERVER_TEST_WRITE=1 cargo test --locked --test supply notices";
/// The crates that Debian packages and images are made of; what others have besides is not handed out.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Texts of what comes inside a crate.
const INSIDE: [(&str, &str); 2] = [("aws-lc-sys", "aws-lc/LICENSE"), ("aws-lc-sys", "aws-lc/third_party/fiat/LICENSE")];

const HEAD: &str = "\
Licences of what turnserver contains
====================================

The program is under the MIT licence (LICENSE). It contains the crates below, each with the text of its licence, or of the one that was
chosen where it offers several. Cargo.lock has their exact sources. Made from them, for Linux and with all features, by

    ";
const BEYOND: &str = "
Besides them it contains:

- SQLite, which is in the public domain.
- The standard library of Rust, Copyright (c) The Rust Project Contributors, under the MIT licence as below.
- The program that relays in the kernel (src/relay/offload/bpf), which is ours, under the MIT licence or the GPL, version 2.

Linked when it starts, and not contained: the system's C library and OpenSSL (Apache License 2.0).
";
/// The terms for crates that name the licence and bring no text of it.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
\"Software\"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

#[test]
fn the_licences_of_all_that_the_binary_contains_are_handed_out_with_it() {
    let made = notices();
    if std::env::var_os("TURNSERVER_TEST_WRITE").is_some() {
        fs::write(ours(FILE), &made).expect("to write");
    }
    let is: BTreeSet<&str> = made.lines().collect();
    let kept = text(FILE);
    let was: BTreeSet<&str> = kept.lines().collect();
    let changed: Vec<_> = is.symmetric_difference(&was).take(20).collect();
    assert!(made == kept, "{FILE} is not up to date. Run: {HOW}\n{changed:#?}");
}

#[test]
fn a_licence_is_chosen_only_where_there_is_a_choice() {
    for (expression, choice) in [
        ("MIT OR Apache-2.0", true),
        ("Apache-2.0/MIT", true),
        ("MIT", true),
        ("Apache-2.0 AND MIT", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("Apache-2.0 OR MIT-0", false),
    ] {
        assert_eq!(may_be_mit(expression), choice, "{expression}");
    }
}

#[test]
fn copyright_lines_are_set_apart_from_terms() {
    let text = "MIT License\n\nCopyright (c) 2020 A\nCopyright 2021 B\n\nPermission is hereby granted\nif copyright (c) holders say so";
    let terms = "MIT License\n\n\nPermission is hereby granted\nif copyright (c) holders say so";
    assert_eq!(apart(text), ("\n    Copyright (c) 2020 A\n    Copyright 2021 B".to_owned(), terms.to_owned()));
    let many = format!("{}Copyright (c) 1998 C", "x\n".repeat(20));
    assert_eq!(apart(&many), (String::new(), many.clone()), "what is in the midst of terms stays there");
}

fn may_be_mit(expression: &str) -> bool {
    !expression.contains(" AND ") && expression.replace('/', " OR ").split(" OR ").any(|licence| licence == "MIT")
}

fn notices() -> String {
    // By its words, a text without its copyright lines; and the crates that have it, each with its lines.
    let mut by_words: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for package in contained() {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        for text in texts(&package) {
            let (copyright, terms) = apart(&text);
            let words: Vec<&str> = terms.split_whitespace().collect();
            let whose = format!("{} {}{copyright}", field("name"), field("version"));
            by_words.entry(words.join(" ")).or_insert_with(|| (terms, BTreeSet::new())).1.insert(whose);
        }
    }
    let mut sorted: Vec<_> = by_words.into_values().collect();
    sorted.sort_by(|one, other| one.1.cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
    let mut made = format!("{HEAD}{HOW}\n{BEYOND}");
    for (terms, whose) in sorted {
        let whose: Vec<String> = whose.into_iter().collect();
        let line = "-".repeat(100);
        write!(made, "\n{line}\n{}\n{line}\n\n{terms}\n", whose.join("\n")).expect("to write to a string");
    }
    made
}

/// The copyright lines at the beginning of a text, each on a line of its own after another, and the rest. They are what texts of one
/// licence differ by.
fn apart(text: &str) -> (String, String) {
    const BEGINNING: usize = 12;
    let is_copyright = |line: &str| {
        let line = line.trim_start().to_lowercase();
        line.starts_with("copyright (c) ") || line.starts_with("copyright \u{a9}") || line.starts_with("copyright 2")
    };
    let (mut copyright, mut terms) = (String::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        if at < BEGINNING && is_copyright(line) {
            write!(copyright, "\n    {}", line.trim()).expect("to write to a string");
        } else {
            terms.push(line);
        }
    }
    (copyright, terms.join("\n").trim_matches('\n').to_owned())
}

/// The packages whose code gets into the binary: all that is depended on, but for building, for tests, or by macros.
fn contained() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version=1", "--locked", "--all-features", "--filter-platform", PLATFORM]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let by_id = |values: &Value| -> BTreeMap<String, Value> {
        list(values).into_iter().map(|value| (value["id"].as_str().expect("an id").to_owned(), value)).collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let is_macro = |id: &str| {
        list(&packages[id]["targets"]).iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    };
    let root = metadata["resolve"]["root"].as_str().expect("a root").to_owned();
    let mut seen = BTreeSet::from([root.clone()]);
    let mut next = vec![root.clone()];
    while let Some(id) = next.pop() {
        for dependency in list(&nodes[&id]["deps"]) {
            let on = dependency["pkg"].as_str().expect("a package").to_owned();
            let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            if normal && !is_macro(&on) && seen.insert(on.clone()) {
                next.push(on);
            }
        }
    }
    seen.remove(&root);
    assert!(seen.len() > 100, "{} crates", seen.len());
    seen.into_iter().map(|id| packages[&id].clone()).collect()
}

/// The texts that come with a package.
fn texts(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().expect("a name");
    let expression = package["license"].as_str().unwrap_or_default();
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    let folder = manifest.parent().expect("a folder");
    let mut found = Vec::new();
    for place in [folder.to_path_buf(), folder.join("LICENSES")] {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries {
            let entry = entry.expect("an entry");
            let file = entry.file_name().to_string_lossy().to_uppercase();
            let is_text = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
                .iter()
                .any(|start| file.starts_with(start));
            if entry.file_type().expect("its type").is_file() && (is_text || place != folder) {
                found.push((file, entry.path()));
            }
        }
    }
    if may_be_mit(expression) && found.iter().any(|(file, _)| file.contains("MIT")) {
        found.retain(|(file, _)| file.contains("MIT"));
    }
    found.extend(INSIDE.iter().filter(|(of, _)| *of == name).map(|(_, path)| ((*path).to_owned(), folder.join(path))));
    found.sort();
    if found.is_empty() {
        assert!(may_be_mit(expression), "{name} brings no text of its licence, which is {expression}");
        let authors: Vec<&str> =
            package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let authors = if authors.is_empty() { format!("The authors of {name}") } else { authors.join(", ") };
        return vec![format!("MIT License\n\nCopyright (c) {authors}\n\n{MIT}")];
    }
    found.iter().map(|(_, path)| tidy(path)).collect()
}

/// A text without what differs by editor.
fn tidy(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = String::from_utf8_lossy(&text).replace('\u{feff}', "");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}
