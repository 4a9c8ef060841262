//! turnserver: a STUN and TURN relay server.
//!
//! The map of the house; each room says in its own documentation what lives there and what must not.
//!
//! * [`stun`]: the wire. Bytes to values and back; pure.
//! * [`turn`]: the protocol. Allocations, permissions, channels, nonces; pure: (time, who, bytes) to effects.
//! * [`auth`]: who may. Users, secrets, access tokens, realms; in the configuration and in stores elsewhere.
//! * [`policy`]: what they may. Peer address rules, quotas, rate limits.
//! * [`relay`]: the data path and its input/output. Workers, UDP, TCP, relay sockets.
//! * [`admin`]: management. Metrics, health, sessions, drain; over HTTP and a Unix socket.
//! * [`probe`]: a client's end. Tries a server, ours or another, as clients do, and says in words what works.
//! * [`external`]: finding out what address the world sees. Cloud metadata, STUN servers.
//! * [`config`]: TOML text to [`config::Settings`].
//! * [`import`]: the text of a coturn configuration to one of ours; pure.
//! * [`cli`]: the commands.
//!
//! Arrows go one way: `cli` to `config`, `import`, `relay`, `admin`, `external` and `probe`; `admin` to `relay`; `relay` to `turn`,
//! `auth` and `policy`; those to `stun`. All may use the plain settings of `config`. `turn` uses the plain values of `auth`: who somebody is, and what proves it.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod external;
pub mod import;
pub mod policy;
pub mod probe;
pub mod relay;
pub mod stun;
pub mod turn;
