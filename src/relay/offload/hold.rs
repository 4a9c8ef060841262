//! Moments in which the kernel relays nothing: from before something is taken from clients until every worker has taken its channels out
//! of the tables, however long one of them takes. Meanwhile user space serves, and it refuses at once.

use std::sync::{Arc, Mutex, PoisonError};

use super::{kernel::Kernel, layout::Ports, start::Offload};

/// The ports of this server, and how many want them not to be.
pub(super) struct Gate {
    ports: Box<Ports>,
    holds: Mutex<usize>,
}

impl Gate {
    pub(super) const fn new(ports: Box<Ports>) -> Self {
        Self { ports, holds: Mutex::new(0) }
    }

    fn change(&self, kernel: &Kernel, by: impl FnOnce(usize) -> usize) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = *holds == 0;
        *holds = by(*holds);
        // A place that has been written once can be written again.
        let _ = match (was_open, *holds == 0) {
            (true, false) => kernel.set_ports(&Ports([0; 65_536])),
            (false, true) => kernel.set_ports(&self.ports),
            _ => Ok(()),
        };
    }
}

/// The kernel relays nothing as long as this is there.
pub(in super::super) struct Hold(Arc<Offload>);

impl Offload {
    /// Has the kernel pass everything up until what is returned is dropped.
    pub(in super::super) fn hold(self: &Arc<Self>) -> Hold {
        self.gate.change(&self.kernel, |holds| holds + 1);
        Hold(Arc::clone(self))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.gate.change(&self.0.kernel, |holds| holds - 1);
    }
}
