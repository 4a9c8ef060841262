//! The place of `systemd.rs` on systems that have none: nothing is passed, nobody is told.

use std::{io, sync::Arc};

use crate::{
    admin::Lifecycle,
    relay::{Monitor, PassedSockets},
};

pub(super) fn passed_sockets() -> io::Result<PassedSockets> {
    Ok(PassedSockets::default())
}

pub(super) fn ready() {}

pub(super) fn reloading() {}

pub(super) fn draining() {}

pub(super) fn stopping() {}

pub(super) async fn attend(_: Monitor, _: Arc<Lifecycle>) {}
