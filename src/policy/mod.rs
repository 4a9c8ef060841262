//! What clients may: the peers they reach, how much they hold, how fast they ask.
//!
//! * [`special`]: the address ranges that are not part of the public Internet, as data.
//! * [`peer`]: which peer addresses are served.
//! * [`quota`]: allocations per user and in total.
//! * [`rate`]: requests per source prefix before anybody is authenticated.
//!
//! The invariant of this room: it decides and counts, nothing else. No sockets, no clock (time is passed in as
//! milliseconds), no locks (whoever shares a value wraps it), and the decisions on the packet path allocate nothing.

pub mod peer;
pub mod quota;
pub mod rate;
pub mod special;
