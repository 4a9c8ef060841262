//! `turnserver check`: what a configuration comes to.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    config::{Effective, Loaded, Settings},
    relay::{DatagramPath, Relay},
};

/// Prints the effective settings on standard output, with what this host makes of them as comments, and warnings on standard
/// error.
pub(super) fn check(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let mut output = io::stdout().lock();
    let printed = write!(output, "{}", Effective(&loaded.settings))
        .and_then(|()| writeln!(output, "\n# offload on this host: {}", Relay::plan_offload(&loaded.settings)))
        .and_then(|()| write_datagram_path(&mut output, &loaded.settings))
        .and_then(|()| output.flush());
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot print the settings: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how datagrams would be received and sent here.
fn write_datagram_path(output: &mut impl Write, settings: &Settings) -> io::Result<()> {
    let path = match DatagramPath::probe(settings.process.udp_io) {
        Ok(path) => path,
        Err(error) => return writeln!(output, "\n# datagrams on this host: cannot be tried: {error}"),
    };
    writeln!(output, "\n# datagrams on this host: {}", path.name())?;
    writeln!(output, "# on: {}", path.on().as_deref().unwrap_or("nothing beyond one call per datagram"))?;
    path.off().map_or(Ok(()), |off| writeln!(output, "# off: {off}"))
}
