//! The TURN engine, driven through its public interface with values only: no sockets, no clock.
//!
//! One module per topic, each test named by a behaviour with the ids of the statements that it covers; `model` drives
//! random interleavings against a simple reference model.

mod allocate;
mod authentication;
mod bound;
mod channels;
mod connections;
mod credentials;
mod data;
mod discovery;
mod dual;
mod expiry;
mod limits;
mod messages;
mod mobility;
mod model;
mod permissions;
mod redirect;
mod refresh;
mod renewal;
mod revocation;
mod support;
