//! The plot: CPU per relayed packet against flows, one line per server.

use std::fmt::Write;

use crate::options::{Kind, Measure};
use crate::summary::Summary;

const WIDTH: f64 = 470.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - 20.0;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - 50.0;

/// Two panels, the server's process and its whole processor; `None` unless some workload was run with several numbers of
/// flows. Of several such workloads the first is plotted.
pub(crate) fn svg(summaries: &[Summary]) -> Option<String> {
    let cpu: Vec<&Summary> = summaries.iter().filter(|summary| summary.measure == Measure::Cpu).collect();
    // All that differ from the first only in their number of flows.
    let base = cpu.first()?.workload?;
    let same = |one: &&&Summary| one.workload.is_some_and(|w| crate::job::Workload { flows: base.flows, ..w } == base);
    let swept: Vec<&Summary> = cpu.iter().filter(same).copied().collect();
    let mut flows: Vec<usize> = swept.iter().filter_map(|one| Some(one.workload?.flows)).collect();
    flows.sort_unstable();
    flows.dedup();
    if flows.len() < 2 {
        return None;
    }
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * WIDTH,
        HEIGHT + 30.0
    );
    let title = format!("{base}").replace(&format!("{} flows", base.flows), "by number of flows");
    for (number, (name, heading)) in
        [("process ns/packet", "server process"), ("core ns/packet", "whole processor, kernel included")]
            .iter()
            .enumerate()
    {
        let x = number as f64 * WIDTH;
        let _ = writeln!(text, "<g transform=\"translate({x},0)\">");
        let _ = writeln!(
            text,
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">CPU ns per relayed packet: {heading}</text>\n\
             <text x=\"{LEFT}\" y=\"38\" fill=\"#666\">{title}</text>"
        );
        panel(&mut text, &swept, &flows, name);
        text.push_str("</g>\n");
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" fill=\"#666\">medians; bars from the lowest to the highest</text>",
        WIDTH + LEFT,
        HEIGHT + 12.0
    );
    legend(&mut text, &swept);
    text.push_str("</svg>\n");
    Some(text)
}

fn panel(text: &mut String, rows: &[&Summary], flows: &[usize], name: &str) {
    let top = rows.iter().filter_map(|row| row.figure(name)).map(|figure| figure.highest).fold(1.0, f64::max);
    let step = nice_step(top / 5.0);
    let top = (top / step).ceil() * step;
    let (first, last) = ((flows[0] as f64).log10(), (flows[flows.len() - 1] as f64).log10());
    let x = |flows: usize| LEFT + 15.0 + ((flows as f64).log10() - first) / (last - first) * (PLOT_WIDTH - 30.0);
    let y = |value: f64| TOP + PLOT_HEIGHT * (1.0 - value / top);
    let right = LEFT + PLOT_WIDTH;
    let mut line = 0.0;
    while line <= top {
        let (at, label) = (y(line), y(line) + 4.0);
        let _ = writeln!(text, "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(text, "<text x=\"{}\" y=\"{label:.1}\" text-anchor=\"end\">{line:.0}</text>", LEFT - 6.0);
        line += step;
    }
    for &count in flows {
        let (at, below) = (x(count), TOP + PLOT_HEIGHT + 18.0);
        let _ = writeln!(text, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{count}</text>");
    }
    let (middle, below) = (LEFT + PLOT_WIDTH / 2.0, TOP + PLOT_HEIGHT + 36.0);
    let _ = writeln!(text, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">flows</text>");
    for kind in kinds(rows) {
        let colour = colour(kind);
        let mut points = String::new();
        for row in rows.iter().filter(|row| row.server == kind) {
            let (Some(workload), Some(figure)) = (row.workload, row.figure(name)) else { continue };
            let (at, low, high, middle) = (x(workload.flows), y(figure.lowest), y(figure.highest), y(figure.median));
            let _ = write!(points, "{at:.1},{middle:.1} ");
            let _ = writeln!(
                text,
                "<line x1=\"{at:.1}\" y1=\"{low:.1}\" x2=\"{at:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\"/>\
                 <circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
            );
        }
        let _ = writeln!(text, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }
}

fn legend(text: &mut String, rows: &[&Summary]) {
    for (number, kind) in kinds(rows).into_iter().enumerate() {
        let x = LEFT + number as f64 * 150.0;
        let (y, colour) = (HEIGHT + 12.0, colour(kind));
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
            y - 9.0,
            x + 20.0,
            kind.name()
        );
    }
}

fn kinds(rows: &[&Summary]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = rows.iter().map(|row| row.server).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#1b6ac9",
        Kind::Native => "#0b3d91",
        Kind::Generic => "#4b8b9b",
        Kind::Baseline => "#7fb2ee",
        Kind::Coturn => "#d1495b",
        Kind::TurnCrate => "#e8a33d",
        Kind::TurnServer => "#6a8d3f",
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= least).unwrap_or(least)
}
