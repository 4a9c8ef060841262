//! Reloads of a running server, from outside: by SIGHUP, by `turnserver ctl reload`, over HTTP, and by files that change. What
//! is wrong changes nothing; what is right changes everything that it says, and no session notices that is still wanted.

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the tests of management")]
#[path = "../manage/web.rs"]
mod web;

mod addresses;
mod certificates;
mod listeners;
mod media;
mod refused;
mod settings;
mod stores;
mod support;
mod users;
