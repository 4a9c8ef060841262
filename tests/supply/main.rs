//! What the program is made of, beside its tests: licences of what it contains.

mod notices;

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
