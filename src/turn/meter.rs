//! How much of an allocation's data may pass, and how many peers it may add: decided outside the protocol.

use super::{Client, Drop, Handle, Server, Time};

/// What holds an allocation to its limits. Asked for each datagram of an allocation that has one; must not allocate, lock or
/// wait then.
pub trait Meter {
    /// Counts a datagram of `bytes` to a peer, unless it exceeds a limit.
    ///
    /// # Errors
    /// Why it is dropped.
    fn to_peer(&mut self, bytes: usize, now: Time) -> Result<(), Drop>;

    /// Counts a datagram of `bytes` to the client, unless it exceeds a limit.
    ///
    /// # Errors
    /// Why it is dropped.
    fn to_client(&mut self, bytes: usize, now: Time) -> Result<(), Drop>;

    /// When a client that can wait, on a stream, may send as much to a peer; `None` if there is nothing to wait for.
    fn wait(&mut self, bytes: usize, now: Time) -> Option<Time>;

    /// Counts peers that get a permission, channel or connection anew, unless they exceed a limit. With the first call, the
    /// allocation is used from now on.
    ///
    /// # Errors
    /// What the client is told, besides that there is not enough capacity.
    fn add_peers(&mut self, peers: usize, now: Time) -> Result<(), &'static str>;
}

impl Server {
    /// Holds an allocation to limits, or to none any more.
    pub fn set_meter(&mut self, handle: Handle, meter: Option<Box<dyn Meter>>) {
        if self.table.get(handle).is_some() {
            self.table[handle].meter = meter;
        }
    }

    /// When a client on a stream may send a message of so many bytes, if there is a reason to wait.
    pub fn wait(&mut self, client: &Client, bytes: usize, now: Time) -> Option<Time> {
        let handle = self.table.find(&client.tuple)?;
        self.table[handle].meter.as_mut()?.wait(bytes, now)
    }
}
