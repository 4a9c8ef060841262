//! The binary `turnserver`.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnserver::cli::main()
}
