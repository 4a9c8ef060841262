//! The report: one table per measurement, with the ratio of ours to each peer.

use std::fmt::Write;

use crate::job::Outcome;
use crate::options::{Kind, Measure, RunOptions};
use crate::summary::{Figure, Summary};

/// One outcome on one line.
pub(crate) fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Load(result) => {
            let mut line = format!(
                "{:.0} ns process, {:.0} ns core at {} pps, {:.3} % lost, headroom {:.0} %",
                result.process_ns_per_packet,
                result.core_ns_per_packet,
                result.rate,
                result.loss() * 100.0,
                result.headroom * 100.0
            );
            if let Some(security) = &result.security {
                let _ = write!(line, ", {security}");
            }
            if let (Some(p50), Some(p99)) = (result.latency_p50, result.latency_p99) {
                let _ = write!(line, ", p50 {p50:.1} µs, p99 {p99:.1} µs");
            }
            if let Some(reason) = &result.invalid {
                let _ = write!(line, "; INVALID: {reason}");
            }
            line
        }
        Outcome::Search { pps, limit, .. } => format!("{pps} pps (limit: {limit:?})"),
        Outcome::Memory { allocations, before, after } => {
            format!("{:.0} bytes per allocation", (*after as f64 - *before as f64) / *allocations as f64)
        }
        Outcome::Churn(result) => format!(
            "{:.0} cycles/s, {:.0} per busy core second, {} retransmissions, headroom {:.0} %",
            result.cycles as f64 / result.seconds,
            result.cycles_per_busy_second,
            result.retransmissions,
            result.headroom * 100.0
        ),
        Outcome::Failed(reason) => format!("FAILED: {reason}"),
    }
}

/// All tables, in Markdown.
pub(crate) fn tables(summaries: &[Summary], options: &RunOptions) -> String {
    let mut text = String::new();
    for (measure, title) in [
        (Measure::Cpu, format!("CPU per relayed packet at {} packets/s offered", options.rate)),
        (Measure::MaxRate, "Highest rate held with at most 0.1 % loss".to_owned()),
        (Measure::Latency, format!("Latency at {} packets/s", crate::run::LATENCY_RATE)),
        (Measure::Memory, "Memory per idle UDP allocation with one channel".to_owned()),
        (Measure::Allocations, "Allocations set up and torn down".to_owned()),
    ] {
        let rows: Vec<&Summary> = summaries.iter().filter(|summary| summary.measure == measure).collect();
        if !rows.is_empty() {
            let _ = writeln!(text, "## {title}\n\n{}", table(&rows, options.rate));
        }
    }
    text
}

fn table(rows: &[&Summary], rate: u64) -> String {
    let mut cells = Vec::new();
    let mut head = vec!["workload".to_owned(), "server".to_owned()];
    for (name, _) in rows.first().map(|row| row.figures.as_slice()).unwrap_or_default() {
        head.extend([(*name).to_owned(), "ours / it".to_owned()]);
    }
    head.extend(["lost".to_owned(), "headroom".to_owned(), "remarks".to_owned()]);
    cells.push(head);

    let mut previous = None;
    for row in rows {
        let ours = rows.iter().find(|other| other.workload == row.workload && other.server == Kind::Ours);
        let workload = row.workload.map(|workload| workload.to_string()).unwrap_or_default();
        let name = if previous == Some(row.workload) { String::new() } else { workload };
        previous = Some(row.workload);
        let mut line = vec![name, row.server.name().to_owned()];
        for (name, figure) in &row.figures {
            line.push(figure.map_or_else(|| "–".to_owned(), show));
            let ratio = ours.and_then(|ours| Some(ours.figure(name)?.median / figure.as_ref()?.median));
            line.push(match ratio {
                Some(ratio) if row.server != Kind::Ours => format!("{ratio:.2}"),
                _ => String::new(),
            });
        }
        let loaded = row.rate.is_some();
        line.push(if loaded { format!("{:.3} %", row.worst_loss * 100.0) } else { String::new() });
        let headroom = row.least_headroom;
        line.push(if headroom.is_finite() { format!("{:.0} %", headroom * 100.0) } else { String::new() });
        let mut remarks = row.remarks.clone();
        if let Some(lower) = row.rate.filter(|lower| row.measure == Measure::Cpu && *lower < rate) {
            remarks.insert(0, format!("AT {lower} packets/s ONLY"));
        }
        line.push(remarks.join("; "));
        cells.push(line);
    }
    align(&cells)
}

fn show(figure: Figure) -> String {
    let Figure { median, lowest, highest } = figure;
    let digits = match highest {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{median:.digits$} ({lowest:.digits$}–{highest:.digits$})")
}

/// A Markdown table whose columns line up.
fn align(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in cells.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}
