//! What the program is made of, beside its tests: licences of what it contains, the inventory of `unsafe`, how the binary was built,
//! and that the tests which [SECURITY.md](../../SECURITY.md) and [docs/hardening.md](../../docs/hardening.md) name exist.
//!
//! Needs `readelf` (binutils, which comes with the C compiler that linking needs).

mod binary;
mod inventory;
mod notices;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of ours.
fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of ours.
fn text(path: &str) -> String {
    fs::read_to_string(ours(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder of ours with this ending, by their paths from the top.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(ours(&folder)).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("its type").is_dir() {
                // Packages of others.
                if !path.ends_with("node_modules") && !path.ends_with(".venv") {
                    folders.push(path);
                }
            } else if path.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
