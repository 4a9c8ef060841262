//! What clients may: the peers they reach, how much they hold, how fast they ask.
//!
//! * [`special`]: the address ranges that are not part of the public Internet, as data.
//! * [`peer`]: which peer addresses are served.
//! * [`limiter`]: all limits of what is held and relayed, per allocation, user, tenant, realm and in total. Made of [`quota`]
//!   (allocations), [`account`] (rates and bytes per month), [`bucket`] (one rate), [`month`], [`usage`] (counts as text);
//!   [`limit`] names and counts them.
//! * [`rate`]: requests per source prefix.
//!
//! The invariant of this room: it decides and counts, nothing else. No sockets, no files, no clock (time is passed in as
//! milliseconds). The decisions on the packet path allocate nothing, and share nothing but atomic numbers; what little is
//! locked beside them says so.

pub mod account;
pub mod bucket;
pub mod limit;
pub mod limiter;
pub mod month;
pub mod peer;
pub mod quota;
pub mod rate;
pub mod special;
pub mod usage;
