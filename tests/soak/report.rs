//! The judgement: what must hold, and the figures.
//!
//! 1. Nothing that an actor did has failed, and the server has logged no error.
//! 2. When nobody is there any more, descriptors, threads, allocations, permissions, channels, connections, ports and accounts
//!    are as many as before the churn, to the last one.
//! 3. Resident memory is flat: the straight line through the samples of the last three quarters of the churn rises by at most
//!    [`RISE_KIB`] over that time; and when nobody is there any more, no more is resident than at the highest point of it.
//!    (More than before the churn is: tables of fixed size, and what the allocator keeps of the peak.)
//! 4. Calls lose nothing: at most [`LOST`] of their datagrams, as a machine that is busy with other things may drop some where
//!    they arrive, and of no call more than [`LOST_OF_ONE`].

use std::{fmt::Write as _, fs, sync::Arc, sync::atomic::Ordering};

use crate::{
    plan::Plan,
    plot,
    watch::{Sample, Samples},
    world::{CallRecord, World},
};

const RISE_KIB: f64 = 2048.0;
const LOST: f64 = 0.001;
const LOST_OF_ONE: f64 = 0.01;

pub(crate) fn judge(plan: &Plan, world: &World, samples: &Samples, calls: &[Arc<CallRecord>], log: &str) {
    plot::write(plan, &samples.churn);
    let mut faults: Vec<String> = world.failures();
    // The operator's mistakes are told to the operator.
    let is_fault = |line: &&str| line.contains(r#""level":"ERROR""#) && !line.contains("turnserver::cli::reload");
    let errors = log.lines().filter(is_fault);
    faults.extend(errors.map(|line| format!("logged: {line}")));

    for ((name, before), (_, after)) in samples.before.exact().into_iter().zip(samples.after.exact()) {
        if before != after {
            faults.push(format!("{name}: {before} before the churn, {after} when all were gone"));
        }
    }

    let flat = &samples.churn[samples.churn.len() / 4..];
    let rise = rise(flat);
    if rise > RISE_KIB {
        faults.push(format!(
            "resident memory rises by {rise:.0} KiB in three quarters of the time; {RISE_KIB} are allowed"
        ));
    }
    let highest = flat.iter().map(|sample| sample.resident_kib).fold(0.0, f64::max);
    let left = samples.after.resident_kib;
    if left > highest {
        faults.push(format!("{left:.0} KiB are resident when all are gone; {highest:.0} were while they were there"));
    }

    let calls: Vec<_> = calls.iter().filter(|call| !call.pardoned.load(Ordering::Relaxed)).collect();
    let (mut sent, mut lost) = (0, 0);
    for call in &calls {
        let (of_call, missing) = call.sent_and_missing();
        (sent, lost) = (sent + of_call, lost + missing);
        // One of two seconds may lose one datagram.
        if missing as f64 > (of_call as f64 * LOST_OF_ONE).max(1.0) {
            faults.push(format!("{}: {missing} of {of_call} datagrams are lost", call.kind));
        }
    }
    if sent == 0 || lost as f64 > sent as f64 * LOST {
        faults.push(format!("{lost} of {sent} datagrams of calls are lost"));
    }

    let figures = figures(plan, world, samples, &calls, rise);
    fs::write(plan.folder.join("figures.md"), &figures).expect("to write");
    eprintln!("{figures}\nsamples, figures and plot: {}", plan.folder.display());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// By how much the straight line through resident memory rises from the first to the last of these, in KiB (least squares).
fn rise(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, memory) = (mean(|sample| sample.at), mean(|sample| sample.resident_kib));
    let product: f64 = samples.iter().map(|sample| (sample.at - time) * (sample.resident_kib - memory)).sum();
    let square: f64 = samples.iter().map(|sample| (sample.at - time).powi(2)).sum();
    let span = samples.last().expect("samples").at - samples[0].at;
    product / square * span
}

/// As tables, for `docs/hardening.md`.
fn figures(plan: &Plan, world: &World, samples: &Samples, calls: &[&Arc<CallRecord>], rise: f64) -> String {
    let (first, last) = (samples.churn.first().expect("samples"), samples.churn.last().expect("samples"));
    let flat = &samples.churn[samples.churn.len() / 4..];
    let range = |of: fn(&Sample) -> f64| {
        let values = flat.iter().map(of);
        (values.clone().fold(f64::MAX, f64::min), values.fold(0.0, f64::max))
    };
    let (before, after) = (&samples.before, &samples.after);
    let mut text = format!(
        "{:.0} minutes; {:.0} allocations made, {:.0} datagrams relayed, {:.0} reloads; {:.1} % of a processor.\n\n",
        plan.duration.as_secs_f64() / 60.0,
        last.made - before.made,
        last.relayed - before.relayed,
        last.reloads - before.reloads,
        100.0 * (last.processor - first.processor) / (last.at - first.at),
    );
    let _ = writeln!(text, "| | before | lowest and highest in the last three quarters | after |\n|---|---|---|---|");
    let _ = writeln!(
        text,
        "| resident memory, MiB | {:.1} | {:.1}–{:.1} | {:.1} |",
        before.resident_kib / 1024.0,
        range(|sample| sample.resident_kib).0 / 1024.0,
        range(|sample| sample.resident_kib).1 / 1024.0,
        after.resident_kib / 1024.0
    );
    let ranges = [
        range(|s| s.descriptors),
        range(|s| s.threads),
        range(|s| s.allocations),
        range(|s| s.permissions),
        range(|s| s.channels),
        range(|s| s.peer_connections),
        range(|s| s.ports),
        range(|s| s.connections),
        range(|s| s.accounts),
    ];
    for (((name, before), (_, after)), (low, high)) in before.exact().into_iter().zip(after.exact()).zip(ranges) {
        let _ = writeln!(text, "| {name} | {before:.0} | {low:.0}–{high:.0} | {after:.0} |");
    }
    let made = flat.last().expect("samples").made - flat[0].made;
    let _ = writeln!(
        text,
        "\nOver the last three quarters the line through resident memory rises by {rise:.0} KiB, {:.1} bytes for each of the \
         {made:.0} allocations made then.\n",
        rise * 1024.0 / made
    );
    let _ = writeln!(text, "| calls | number | datagrams sent | lost | the worst call lost |\n|---|---|---|---|---|");
    let mut kinds: Vec<&str> = calls.iter().map(|call| call.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind: Vec<(u64, u64)> =
            calls.iter().filter(|call| call.kind == kind).map(|call| call.sent_and_missing()).collect();
        let (sent, lost) = of_kind.iter().fold((0, 0), |sum, call| (sum.0 + call.0, sum.1 + call.1));
        let worst = of_kind.iter().map(|call| call.1).max().unwrap_or(0);
        let _ = writeln!(text, "| {kind} | {} | {sent} | {lost} | {worst} |", of_kind.len());
    }
    let _ = writeln!(text, "\n| what was done | times |\n|---|---|");
    for (what, times) in world.done() {
        let _ = writeln!(text, "| {what} | {times} |");
    }
    if world.pauses() > 0 {
        let _ = writeln!(
            text,
            "\nThe machine stood still {} times, {:.0} s together; these and what was under way then do not count.",
            world.pauses(),
            world.stood_still().as_secs_f64()
        );
    }
    text
}
