//! Bursts: what is merged on the way in or out, or stays in the process, arrives as it was sent, byte for byte, in order, with its
//! traffic class.
//!
//! Random plans of traffic are carried out against servers that merge, that do not, and that are refused it by the system, with
//! one worker and several. Each has to deliver just what the plan says, so that all of them deliver the same.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod plan;
mod scene;

use std::{process::Command, sync::mpsc, thread};

use common::{
    namespace::{in_new_network, ip, thread_id, with_loopback_of_mtu, without_checksum_offload},
    refusal,
};
use plan::Plan;
use rand::{SeedableRng, rngs::StdRng};
use scene::{Merged, Network, Scene};

/// Plans carried out against each server.
const PLANS: u64 = 200;

/// A server, and whether it passes on the traffic class, which the portable path does not know.
struct Kind {
    udp_io: &'static str,
    workers: usize,
    has_tos: bool,
}

const FAST: Kind = Kind { udp_io: "auto", workers: 1, has_tos: true };
const WORKERS: Kind = Kind { workers: 3, ..FAST };
const PORTABLE: Kind = Kind { udp_io: "portable", workers: 2, has_tos: false };

/// Carries out all plans; returns the longest runs that arrived merged.
fn exercise(network: Network, kind: &Kind, prepare: impl FnOnce(&mut Command) + Send + 'static) -> Merged {
    let mut scene = Scene::new(network, kind.udp_io, kind.workers, prepare);
    for seed in 0..PLANS {
        let plan = Plan::random(&mut StdRng::seed_from_u64(seed));
        scene.carry_out(&plan);
        let expected = plan.deliveries(kind.has_tos);
        for (way, got) in scene.collect(&expected) {
            let expected = &expected[&way];
            let same = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
            assert!(
                got == *expected,
                "plan {seed}, {way:?}: number {same} of {} is {:?} instead of {:?}",
                expected.len(),
                got.get(same).map(ToString::to_string),
                expected.get(same).map(ToString::to_string),
            );
        }
    }
    scene.expect_nothing_more();
    eprintln!("longest merged runs: {:?}", scene.merged);
    scene.merged
}

#[test]
fn one_worker_delivers_all_plans_merged() {
    let merged = exercise(Network::Loopback, &FAST, |_| {});
    assert!(merged.to_peer > 8 && merged.to_client > 8, "{merged:?}");
}

#[test]
fn several_workers_deliver_all_plans_merged() {
    let merged = exercise(Network::Loopback, &WORKERS, |_| {});
    assert!(merged.to_peer > 8 && merged.to_client > 8, "{merged:?}");
}

#[test]
fn the_portable_path_delivers_all_plans_one_by_one() {
    assert_eq!(exercise(Network::Loopback, &PORTABLE, |_| {}), Merged { to_peer: 1, to_client: 1 });
}

#[test]
fn where_the_system_refuses_to_merge_all_plans_are_delivered_one_by_one() {
    let merged = exercise(Network::Loopback, &WORKERS, |command| refusal::refuse_merging(command, "refused"));
    assert_eq!(merged, Merged { to_peer: 1, to_client: 1 });
}

#[test]
fn where_some_sockets_are_refused_to_merge_all_plans_are_delivered() {
    let merged = exercise(Network::Loopback, &FAST, |command| refusal::refuse_merging(command, "partly-refused"));
    assert!(merged.to_peer > 8, "sockets that are not refused go on merging: {merged:?}");
}

/// Segments that do not fit the link are refused by the kernel itself (EMSGSIZE, before 6.14 EINVAL).
#[test]
fn where_long_segments_do_not_fit_the_link_all_plans_are_delivered() {
    with_loopback_of_mtu(1300, || {
        let merged = exercise(Network::Loopback, &FAST, |_| {});
        assert!(merged.to_peer > 8 && merged.to_client > 8, "shorter ones are still merged: {merged:?}");
    });
}

/// Between two hosts, with links as they are everywhere.
#[test]
fn over_a_link_all_plans_are_delivered_merged() {
    over_a_link(|| {}, |merged| assert!(merged.to_peer > 8 && merged.to_client > 8, "{merged:?}"));
}

/// Kernels before 6.12 refuse to merge for such a device (EIO), later ones take it apart by themselves.
#[test]
fn over_a_device_without_checksum_offload_all_plans_are_delivered() {
    over_a_link(|| without_checksum_offload("server"), |_| {});
}

/// Clients and peers on one side of a pair of interfaces, the server on the other; `change` is made to its interface.
fn over_a_link(change: impl FnOnce() + Send + 'static, judge: impl FnOnce(Merged) + Send + 'static) {
    in_new_network(move || {
        ip("link set lo up");
        ip("link add server type veth peer name clients");
        change();
        for address in [scene::CLIENTS.0.to_string() + "/24", scene::CLIENTS.1.to_string() + "/64 nodad"] {
            ip(&format!("addr add {address} dev clients"));
        }
        ip("link set clients up");
        let (name, named) = mpsc::channel();
        let (moved, is_moved) = mpsc::channel();
        // The server starts in a network of its own, in which nothing but this thread is at first.
        let start: scene::Start = Box::new(move |start| {
            let server = thread::spawn(move || {
                in_new_network(move || {
                    name.send(thread_id()).expect("to be awaited");
                    is_moved.recv().expect("the interface");
                    ip("link set lo up");
                    for address in [scene::SERVER.0.to_string() + "/24", scene::SERVER.1.to_string() + "/64 nodad"] {
                        ip(&format!("addr add {address} dev server"));
                    }
                    ip("link set server up");
                    start()
                })
            });
            ip(&format!("link set server netns {}", named.recv().expect("a thread")));
            moved.send(()).expect("to be awaited");
            server.join().expect("a server")
        });
        judge(exercise(Network::Link(start), &FAST, |_| {}));
    });
}
