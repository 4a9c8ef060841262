//! Floods against the running server while a call goes on, and what a forged source can have sent to others.
//!
//! Each flood is a [`scene::Flood`]: a configuration and an attack. The ordinary tests run it for a moment at a rate that a small,
//! busy machine bears, and demand what the server owes: that the call goes on, that memory and log stay bounded, and that
//! somebody new is served right after. The ignored test `report` runs each as fast as it can, and prints the tables of
//! docs/hardening.md:
//!
//! ```sh
//! cargo test --release --locked --test floods -- --ignored --nocapture --test-threads=1 report
//! ```
//!
//! Needs root and iproute2: every flood has a network of its own, in which 10.0.0.0/8 is on this host.

#![cfg(target_os = "linux")]

#[path = "../client/mod.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod call;
mod management;
mod measure;
mod reflection;
mod scarcity;
mod scene;
mod sources;
mod strangers;
mod streams;
mod users;

use scene::{Flood, Plan, SERVER};

/// Every flood, in the order of the report.
fn all() -> Vec<Flood> {
    [strangers::floods(), users::floods(), streams::floods(), management::floods(), scarcity::floods()].concat()
}

/// A moment of one flood, and what the server owes.
fn bear(name: &str) {
    let flood = all().into_iter().find(|flood| flood.name == name).unwrap_or_else(|| panic!("no flood {name}"));
    let outcome = scene::run(flood, Plan::short(&flood));
    eprintln!("{}", outcome.row());
    outcome.check(&flood);
}

/// Declares a test for each flood.
macro_rules! floods {
    ($($test:ident: $name:expr,)*) => {
        $(#[test] fn $test() { bear($name); })*

        #[test]
        fn every_flood_has_its_test() {
            let tested = [$($name),*];
            let all: Vec<&str> = all().iter().map(|flood| flood.name).collect();
            assert_eq!(all, tested);
        }
    };
}

floods! {
    binding_requests: "Binding requests, 100,000 sources",
    allocates: "Allocate requests without credentials, 100,000 sources",
    junk: "junk datagrams, 100,000 sources",
    odd_lengths: "empty, oversize and lying datagrams",
    data_without_an_allocation: "ChannelData and Send indications, 100,000 sources",
    wrong_passwords: "wrong passwords, 100,000 sources",
    replayed_nonces: "a nonce replayed from 100,000 sources, right password",
    unknown_channels: "ChannelData to unknown channels, by a user",
    permissions_and_channels: "permissions and channels without end, by a user",
    allocations_at_the_quota: "allocations beyond the quota, by a user",
    frames: "empty, oversize and broken frames on TCP",
    slow_tcp: "messages byte by byte on TCP",
    slow_tls: "handshakes byte by byte on TLS",
    hellos: "ClientHellos of DTLS without a cookie, 100,000 sources",
    half_open_dtls: "half-open handshakes of DTLS",
    management_abuse: "management: slow, huge, wrong tokens, many connections",
    ports: "all relay ports taken, by a user",
    descriptors: "all file descriptors taken by connections",
    memory: "connections with unfinished messages, memory limited",
}

#[test]
#[ignore = "takes minutes; prints the tables of docs/hardening.md"]
#[allow(clippy::print_stdout, reason = "the table is what it is run for")]
fn report() {
    println!("server on {SERVER}; {}", measure::machine());
    println!("\n{}", scene::HEAD);
    let mut late = Vec::new();
    for flood in all() {
        let outcome = scene::run(flood, Plan::LONG);
        println!("{}", outcome.row());
        late.extend(outcome.check_recovery());
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[test]
#[ignore = "prints the table of docs/hardening.md"]
#[allow(clippy::print_stdout, reason = "the table is what it is run for")]
fn report_reflection() {
    println!("{}", reflection::table());
}
