//! What stands in where the kernel's program was not built: nothing is ever offloaded.

use std::{convert::Infallible, sync::Arc};

#[cfg(target_os = "linux")]
use super::Privileges;
use super::{
    Place,
    report::{OffloadCounts, OffloadReport},
};
use crate::{
    config::{Settings, settings::OffloadMode},
    relay::Endpoint,
    turn::{Bound, Handle, Server, Time, Totals},
};

/// Why it is absent, in the words of build.rs.
const WHY: &str = concat!("this program has no offload: ", env!("OFFLOAD_ABSENT"));

/// There is none.
#[derive(Debug)]
pub(in super::super) struct Offload(Infallible);

impl Offload {
    pub(in super::super) fn counts(&self) -> OffloadCounts {
        match self.0 {}
    }

    pub(in super::super) fn count_late(&self, _: &mut Totals) {
        match self.0 {}
    }

    pub(in super::super) fn hold(self: &Arc<Self>) -> Hold {
        match self.0 {}
    }
}

/// There is none.
pub(in super::super) struct Hold(Infallible);

/// There is none.
pub(in super::super) struct Mirror(Infallible);

impl Mirror {
    pub(in super::super) fn new(offload: Arc<Offload>) -> Self {
        match offload.0 {}
    }

    pub(in super::super) fn follow(&mut self, _: &mut Server, _: &dyn Fn(Handle, &Bound) -> Option<Place>, _: Time) {
        match self.0 {}
    }

    pub(in super::super) fn next_look(&self) -> Option<Time> {
        match self.0 {}
    }

    pub(in super::super) fn look(&mut self, _: &mut Server, _: &dyn Fn(Handle, &Bound) -> Option<Place>, _: Time) {
        match self.0 {}
    }
}

/// Elsewhere than on Linux there are none.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub struct Privileges(());

#[cfg(not(target_os = "linux"))]
impl Privileges {
    /// There is nothing to set apart.
    #[must_use]
    pub const fn set_apart(_: &Settings) -> Self {
        Self(())
    }
}

/// Nothing can be started; asking for it by name is a mistake.
pub(in super::super) fn start(
    settings: &Settings,
    _: &[Endpoint],
    _: Privileges,
    _: impl Fn() -> Time + Send + 'static,
) -> Result<(Option<Arc<Offload>>, OffloadReport), String> {
    match settings.offload.mode {
        OffloadMode::Native | OffloadMode::Generic => Err(WHY.to_owned()),
        OffloadMode::Auto | OffloadMode::Off => Ok((None, plan(settings))),
    }
}

/// What [`start`] would come to.
pub(in super::super) fn plan(settings: &Settings) -> OffloadReport {
    match settings.offload.mode {
        OffloadMode::Off => OffloadReport::Off,
        _ => OffloadReport::Unavailable(WHY.to_owned()),
    }
}
