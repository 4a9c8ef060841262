//! The signals that the running server heeds.

use std::io;

/// What the process is asked for.
pub(super) enum Signal {
    /// To end, when its sessions have, if it is to wait for them.
    Terminate,
    /// To end at once, by this signal.
    Interrupt(&'static str),
    /// To take no new sessions, and end when none is left.
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is no such signal"))]
    Drain,
    /// To read its configuration again.
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is no such signal"))]
    Reload,
}

/// The signals that are heeded.
#[cfg(unix)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    drain: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            drain: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt("SIGINT"),
            _ = self.drain.recv() => Signal::Drain,
            _ = self.reload.recv() => Signal::Reload,
        }
    }
}

/// The signals that are heeded.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> Signal {
        // Without the handler the system's own default stops the process.
        let _ = tokio::signal::ctrl_c().await;
        Signal::Interrupt("Ctrl-C")
    }
}
