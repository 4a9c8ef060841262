//! `turnserver check`: what a configuration comes to.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::config::{Effective, Loaded};

/// Prints the effective settings on standard output and warnings on standard error.
pub(super) fn check(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut output = io::stdout().lock();
    match write!(output, "{}", Effective(&loaded.settings)).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot print the settings: {error}");
            ExitCode::FAILURE
        }
    }
}
