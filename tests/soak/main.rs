//! Soak: the running server under the churn of browsers for as long as one likes, and nothing of it stays behind.
//!
//! Clients gather over every transport and use few of the allocations that they make; calls relay numbered datagrams all the
//! while; connections are relayed (RFC 6062), allocations move (RFC 8016), credentials end, strangers knock, and an operator
//! reloads. Lifetimes are short, so that minutes have in them what else takes hours. What the server holds is sampled, written
//! down and plotted, and judged at the end by what `report` says.
//!
//! Too long for a plain `cargo test`: `.ci/run` runs its three minutes beside the other suites. The keys of the environment are
//! in `plan`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

#[allow(dead_code, reason = "shared with the tests of conformance")]
#[path = "../conformance/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of conformance")]
#[path = "../conformance/setup.rs"]
mod setup;
#[allow(dead_code, reason = "shared with the tests of conformance")]
#[path = "../conformance/wire.rs"]
mod wire;

mod browser;
mod call;
mod caller;
mod operator;
mod plan;
mod plot;
mod report;
mod strangers;
mod streams;
mod watch;
mod world;

use std::{fs, process::Command, thread, time::Instant};

use rand::{SeedableRng, rngs::StdRng};

use common::Server;
use operator::Operator;
use plan::Plan;
use watch::Watch;
use world::World;

#[test]
#[ignore = "three minutes: .ci/run runs it beside the other suites"]
fn hours_of_churn_leave_nothing_behind_and_calls_lose_nothing() {
    let plan = Plan::from_environment();
    let (folder, authority) = plan::folder();
    let server = Server::launch_in(folder, Command::new(&plan.program), &plan::configuration(&plan::Choice::default()));
    let world = World::new(&server);
    let mut operator = Operator::new(&server, &world, &plan, authority);
    let mut watch = Watch::new(&world, &plan);

    // What is touched once and kept is touched first: everything there is, once.
    warm_up(&world, &mut operator);
    watch.drained();
    watch.begin();

    world.go_on_until(Instant::now() + plan.duration);
    thread::scope(|scope| {
        let world = &world;
        let actor = |number: usize, act: fn(&World, &mut StdRng)| {
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(plan.seed + number as u64);
                while !world.is_over() {
                    act(world, &mut rng);
                }
            });
        };
        let mut number = 0;
        for _ in 0..plan.scale {
            for (act, how_many) in [
                (browser::gather as fn(&World, &mut StdRng), 4),
                (browser::credential_ends, 1),
                (streams::connections, 1),
                (strangers::knock, 1),
            ] {
                for _ in 0..how_many {
                    number += 1;
                    actor(number, act);
                }
            }
        }
        for number in 0..call::KINDS.len() * plan.scale {
            scope.spawn(move || call::calls(world, number, plan.seed));
        }
        scope.spawn(|| world.notice_pauses());
        scope.spawn(|| watch.sample());
        operator.work();
    });

    watch.drained();
    let (samples, calls) = (watch.end(), world.calls());
    let log = server.stop();
    fs::write(plan.folder.join("server.log"), &log).expect("to write");
    report::judge(&plan, &world, &samples, &calls, &log);
}

/// Everything once, one after the other.
fn warm_up(world: &World, operator: &mut Operator<'_>) {
    world.go_on_until(Instant::now() + plan::WARM_UP);
    let mut rng = StdRng::seed_from_u64(0);
    thread::scope(|scope| {
        for number in 0..call::KINDS.len() {
            scope.spawn(move || call::calls(world, number, 0));
        }
        scope.spawn(|| world.notice_pauses());
        for _ in 0..3 {
            browser::gather_over_everything(world, &mut rng);
        }
        browser::credential_ends(world, &mut rng);
        streams::connections(world, &mut rng);
        strangers::knock(world, &mut rng);
        operator.do_everything();
    });
}
