//! Servers for which the system merges no datagrams, or not on every socket.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Says how the servers of a test fare: `refused` or `partly-refused`.
pub(crate) const MERGING: &str = "TURNSERVER_TEST_MERGING";

/// Has `refuse.c` put before the C library of a program; `how` is a value of [`MERGING`].
pub(crate) fn refuse_merging(command: &mut Command, how: &str) {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| library("tests/common/refuse.c"));
    command.env("LD_PRELOAD", library).env(MERGING, how);
}

/// A C file, compiled to be put before the C library of a program.
pub(crate) fn library(source: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.file_stem().expect("a name")).with_extension("so");
    // Several test programs may do this at once: each puts a whole file in place.
    let draft = library.with_extension(std::process::id().to_string());
    // The C compiler is the one that Rust links with.
    let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&draft).arg(&source).status();
    assert!(status.expect("cc").success(), "{} is not compiled", source.display());
    fs::rename(&draft, &library).expect("a library in the target directory");
    library
}
