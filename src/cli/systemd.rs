//! What systemd, or whoever else speaks its protocols, gives to the server and wants to hear of it: readiness, what it is
//! doing and whether it is alive (sd_notify(3)); and sockets that are open already (sd_listen_fds(3)).
//!
//! Without them in the environment all of this does nothing.

// Descriptors are passed by their numbers.
#![allow(unsafe_code)]

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        fd::FromRawFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use crate::{
    admin::Lifecycle,
    relay::{Monitor, PassedSockets},
};

/// Names the socket of whoever wants to hear how the server does.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// The longest time between two looks at how the server does.
const LOOK: Duration = Duration::from_secs(5);
/// How many looks fall into the time after which the watchdog bites.
const LOOKS: u32 = 3;
/// For how long a server that drains asks not to be killed, each time that it asks.
const EXTENSION: NotifyState<'_> = NotifyState::ExtendTimeoutUsec(30_000_000);

/// The sockets that were passed to this process. To be called once, before anything else is opened.
///
/// # Errors
/// What is said of them is wrong.
pub(super) fn passed_sockets() -> io::Result<PassedSockets> {
    // They are marked to be closed in programs that this one might start; nothing is passed if it is meant for another process.
    let sockets = sd_notify::listen_fds_with_names()?.map(|(descriptor, name)| {
        // SAFETY: whoever started this process has opened the descriptor for it (LISTEN_PID says so, and that it is open has just
        // been seen); nothing was opened here before, so nobody else owns it, and this is the only time that it is taken.
        (name, unsafe { socket2::Socket::from_raw_fd(descriptor) })
    });
    Ok(PassedSockets::new(sockets))
}

/// Tells that clients are served, from the start on or again after [`reloading`].
pub(super) fn ready() {
    if let Err(error) = try_to_tell(&[NotifyState::Ready, NotifyState::Status("serving")]) {
        tracing::warn!(%error, "cannot tell systemd that the server is ready");
    }
}

/// Tells that the configuration is being read again; [`ready`] ends it, whatever has become of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell systemd of a reload"),
    }
}

/// Tells that the server drains because it was asked to end. That it ends is told later: draining can be undone.
pub(super) fn draining() {
    tell(&[EXTENSION, NotifyState::Status("draining")]);
}

/// Tells that the server ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells how the server does as long as it runs, and that it is alive as long as all workers answer.
pub(super) async fn attend(monitor: Monitor, lifecycle: Arc<Lifecycle>) {
    if env::var_os(NOTIFY_SOCKET).is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(LOOK, |limit| (limit / LOOKS).clamp(Duration::from_millis(1), LOOK));
    let mut look = tokio::time::interval(period);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        look.tick().await;
        let (_, all_answer) = monitor.reports().await;
        let (sessions, drains) = (monitor.sessions(), lifecycle.is_draining());
        let mut states = Vec::new();
        if all_answer && watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        if all_answer && drains {
            states.push(EXTENSION);
        }
        let status = match (all_answer, drains) {
            (false, _) => "not all workers answer".to_owned(),
            (true, true) => format!("draining, sessions left: {sessions}"),
            (true, false) => format!("serving, sessions: {sessions}"),
        };
        if status != told {
            states.push(NotifyState::Status(&status));
        }
        if !states.is_empty() {
            tell(&states);
        }
        told = status;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // That it cannot be told anything was said when it was to be told that the server is ready.
    if let Err(error) = try_to_tell(states) {
        tracing::debug!(%error, "cannot tell systemd how the server does");
    }
}

/// Sends one message, with a line for each state, if anybody wants to hear.
fn try_to_tell(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = env::var_os(NOTIFY_SOCKET) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    // Whoever does not take what it is told must not hold up the server.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(&name)?)?;
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    socket.send(message.as_bytes())?;
    Ok(())
}

/// The address of a socket: a path, or after an `@` a name that is in no file system.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
