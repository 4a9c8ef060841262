//! Repetitions brought together: medians, ranges, and what speaks against a figure.

use serde::Serialize;

use crate::job::{HELD_LOSS, LoadResult, Outcome, Workload};
use crate::options::{Kind, Measure};
use crate::run::Record;

/// A median with its range.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Figure {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), lowest, highest })
    }
}

/// One server in one measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) measure: Measure,
    pub(crate) workload: Option<Workload>,
    pub(crate) server: Kind,
    /// The figures by name, in the order of the report's columns.
    pub(crate) figures: Vec<(&'static str, Option<Figure>)>,
    /// Packets per second offered, where load was offered at a fixed rate: the lowest of all repetitions.
    pub(crate) rate: Option<u64>,
    pub(crate) worst_loss: f64,
    pub(crate) least_headroom: f64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
    /// What speaks against the figures, each once.
    pub(crate) remarks: Vec<String>,
}

impl Summary {
    pub(crate) fn figure(&self, name: &str) -> Option<Figure> {
        self.figures.iter().find(|(of, _)| *of == name).and_then(|(_, figure)| *figure)
    }
}

/// Brings together the repetitions of each server in each measurement, in the order in which they were made.
pub(crate) fn summarise(records: &[Record]) -> Vec<Summary> {
    let mut summaries: Vec<Summary> = Vec::new();
    for record in records {
        let same = |one: &&Record| {
            one.measure == record.measure && one.workload == record.workload && one.server == record.server
        };
        if record.repetition == 0 {
            summaries.push(one(&records.iter().filter(same).collect::<Vec<_>>(), record));
        }
    }
    summaries
}

fn one(records: &[&Record], first: &Record) -> Summary {
    let failures = records.iter().filter_map(|record| match &record.outcome {
        Outcome::Failed(reason) => Some(format!("failed: {reason}")),
        _ => None,
    });
    let failures: Vec<String> = failures.collect();
    let outcomes = || records.iter().map(|record| &record.outcome);
    let loads: Vec<&LoadResult> = outcomes()
        .filter_map(|outcome| match outcome {
            Outcome::Load(result) => Some(result),
            Outcome::Search { run, .. } => run.as_ref(),
            _ => None,
        })
        .collect();
    // An invalid run counts only where there is no valid one.
    let valid: Vec<&LoadResult> = loads.iter().copied().filter(|load| load.invalid.is_none()).collect();
    let counted = if valid.is_empty() { &loads } else { &valid };
    let of_loads = |value: &dyn Fn(&LoadResult) -> Option<f64>| {
        Figure::of(counted.iter().filter_map(|load| value(load)).filter(|value| *value > 0.0).collect())
    };
    let of = |value: &dyn Fn(&Outcome) -> Option<f64>| Figure::of(outcomes().filter_map(value).collect());
    let churn = |value: fn(&crate::job::ChurnResult) -> f64| {
        of(&|outcome| if let Outcome::Churn(result) = outcome { Some(value(result)) } else { None })
    };
    let payload = first.workload.map(|workload| f64::from(workload.payload));
    let figures = match first.measure {
        Measure::Cpu => vec![
            ("process ns/packet", of_loads(&|load| Some(load.process_ns_per_packet))),
            ("core ns/packet", of_loads(&|load| Some(load.core_ns_per_packet))),
            ("process ns/byte", of_loads(&|load| Some(load.process_ns_per_packet / payload?))),
        ],
        Measure::Latency => {
            vec![("p50 µs", of_loads(&|load| load.latency_p50)), ("p99 µs", of_loads(&|load| load.latency_p99))]
        }
        Measure::MaxRate => {
            let pps =
                |outcome: &Outcome| if let Outcome::Search { pps, .. } = outcome { Some(*pps as f64) } else { None };
            let mbps = |outcome: &Outcome| Some(pps(outcome)? * payload? * 8.0 / 1e6);
            vec![
                ("packets/s", of(&pps)),
                ("Mbit/s", of(&mbps)),
                ("core ns/packet", of_loads(&|load| Some(load.core_ns_per_packet))),
            ]
        }
        Measure::Memory => vec![(
            "bytes/allocation",
            of(&|outcome| match outcome {
                Outcome::Memory { allocations, before, after } => {
                    Some((*after as f64 - *before as f64) / *allocations as f64)
                }
                _ => None,
            }),
        )],
        Measure::Allocations => vec![
            ("cycles/s", churn(|result| result.cycles as f64 / result.seconds)),
            ("cycles/busy core second", churn(|result| result.cycles_per_busy_second)),
            ("process µs/cycle", churn(|result| result.process_ns_per_cycle / 1000.0)),
        ],
    };
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let churn_headroom = outcomes().filter_map(|outcome| match outcome {
        Outcome::Churn(result) => Some(result.headroom),
        _ => None,
    });
    Summary {
        measure: first.measure,
        workload: first.workload,
        server: first.server,
        figures,
        rate: counted.iter().map(|load| load.rate).min(),
        worst_loss: counted.iter().map(|load| load.loss()).fold(0.0, f64::max),
        least_headroom: least(&mut counted.iter().map(|load| load.headroom).chain(churn_headroom)),
        duplicated: loads.iter().map(|load| load.duplicated).sum(),
        reordered: loads.iter().map(|load| load.reordered).sum(),
        corrupt: loads.iter().map(|load| load.corrupt).sum(),
        remarks: remarks(&failures, &loads, &valid, records),
    }
}

fn remarks(failures: &[String], loads: &[&LoadResult], valid: &[&LoadResult], records: &[&Record]) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(first) = failures.first() {
        remarks.push(format!("{} of {} {first}", failures.len(), records.len()));
    }
    let invalid = loads.len() - valid.len();
    if let Some(reason) = loads.iter().find_map(|load| load.invalid.as_ref()) {
        let consequence = if valid.is_empty() { "INVALID" } else { "left out" };
        remarks.push(format!("{invalid} of {} {consequence}: {reason}", loads.len()));
    }
    let counted = if valid.is_empty() { loads } else { valid };
    if counted.iter().any(|load| load.loss() > HELD_LOSS) {
        remarks.push("NOT HELD: more than 0.1 % lost".to_owned());
    }
    for (count, what) in [
        (loads.iter().map(|load| load.corrupt).sum::<u64>(), "CORRUPT"),
        (loads.iter().map(|load| load.duplicated).sum(), "duplicated"),
        (loads.iter().map(|load| load.reordered).sum(), "out of order"),
    ] {
        if count > 0 {
            remarks.push(format!("{count} {what}"));
        }
    }
    let mut securities: Vec<&String> = loads.iter().filter_map(|load| load.security.as_ref()).collect();
    securities.dedup();
    remarks.extend(securities.into_iter().cloned());
    let generator_limit =
        |record: &&&Record| matches!(record.outcome, Outcome::Search { limit: crate::job::Limit::Generator, .. });
    if records.iter().filter(generator_limit).count() > 0 {
        remarks.push("at least: the generator gave up first".to_owned());
    }
    remarks
}
