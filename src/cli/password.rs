//! Reading a password: from a prompt that does not show it, or from a pipe. Never from the command line, which every user of the
//! host can see.

use std::io::{self, BufRead, IsTerminal};

use zeroize::Zeroizing;

/// Reads a new password: twice from the terminal, or the first line of what standard input is redirected from.
///
/// # Errors
/// In words, to be printed.
pub(super) fn read_new() -> Result<Zeroizing<String>, String> {
    let cannot = |error: io::Error| format!("cannot read the password: {error}");
    if io::stdin().is_terminal() {
        let password = Zeroizing::new(rpassword::prompt_password("Password: ").map_err(cannot)?);
        let again = Zeroizing::new(rpassword::prompt_password("Again: ").map_err(cannot)?);
        return if password == again { Ok(password) } else { Err("the two passwords differ; try again".to_owned()) };
    }
    read_line().map_err(cannot)
}

/// Reads a password that exists: once from the terminal, or the first line of what standard input is redirected from.
///
/// # Errors
/// In words, to be printed.
pub(super) fn read() -> Result<Zeroizing<String>, String> {
    let read = if io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ").map(Zeroizing::new)
    } else {
        read_line()
    };
    read.map_err(|error| format!("cannot read the password: {error}"))
}

fn read_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let len = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(len);
    Ok(line)
}
