//! `turnserver` without a command: run the server.

use std::process::ExitCode;

use crate::config::Loaded;

/// Starts the server with `loaded`; `generated_password` is set if the built-in configuration is used.
pub(super) fn run(loaded: Loaded, generated_password: Option<String>) -> ExitCode {
    drop((loaded, generated_password));
    eprintln!("error: this build has no relay yet; `turnserver check` validates a configuration");
    ExitCode::FAILURE
}
