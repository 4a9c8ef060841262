//! The plot: what the server held, over time, in panels one below the other.

use std::{fmt::Write, fs};

use crate::{plan::Plan, watch::Sample};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 34.0;
const TOP: f64 = 10.0;
const COLOURS: [&str; 3] = ["#1b6ac9", "#d1495b", "#6a8d3f"];

type Line = (&'static str, fn(&Sample, &Sample) -> f64);

/// What is drawn: title and lines, each of a sample and the one before it.
const PANELS: [(&str, &[Line]); 6] = [
    ("resident memory, MiB", &[("resident", |_, now| now.resident_kib / 1024.0)]),
    (
        "descriptors, connections and threads",
        &[
            ("descriptors", |_, now| now.descriptors),
            ("connections of clients", |_, now| now.connections),
            ("threads", |_, now| now.threads),
        ],
    ),
    (
        "allocations and what they have",
        &[
            ("allocations", |_, now| now.allocations),
            ("permissions", |_, now| now.permissions),
            ("channels", |_, now| now.channels),
        ],
    ),
    (
        "relay ports and accounts of limits",
        &[("ports in use or reserved", |_, now| now.ports), ("accounts", |_, now| now.accounts)],
    ),
    (
        "per second",
        &[
            ("allocations made", |before, now| (now.made - before.made) / (now.at - before.at)),
            ("% of a processor", |before, now| 100.0 * (now.processor - before.processor) / (now.at - before.at)),
        ],
    ),
    (
        "datagrams of calls that have not arrived: under way, or lost",
        &[("all calls", |_, now| now.missing), ("the worst", |_, now| now.worst)],
    ),
];

/// Writes the plot of these samples.
pub(crate) fn write(plan: &Plan, samples: &[Sample]) {
    if samples.len() > 1 {
        fs::write(plan.folder.join("soak.svg"), svg(samples)).expect("to write");
    }
}

fn svg(samples: &[Sample]) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP) + 20.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (number, (title, lines)) in PANELS.iter().enumerate() {
        panel(&mut text, samples, title, lines, TOP + number as f64 * (PANEL + GAP));
    }
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#666\">minutes</text>\n</svg>", height - 6.0);
    text
}

fn panel(text: &mut String, samples: &[Sample], title: &str, lines: &[Line], top: f64) {
    let last = samples.last().map_or(1.0, |sample| sample.at).max(1.0);
    let values =
        |of: fn(&Sample, &Sample) -> f64| samples.windows(2).map(move |pair| (pair[1].at, of(&pair[0], &pair[1])));
    let highest = lines.iter().flat_map(|(_, of)| values(*of)).map(|(_, value)| value).fold(1.0, f64::max);
    let step = nice_step(highest / 4.0);
    let highest = (highest / step).ceil() * step;
    let (width, top) = (WIDTH - LEFT - RIGHT, top + 20.0);
    let height = PANEL - 20.0;
    let x = |at: f64| LEFT + at / last * width;
    let y = |value: f64| top + height * (1.0 - value / highest);
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{}\" font-size=\"13\">{title}</text>", top - 7.0);
    for line in 0..=(highest / step).round() as u32 {
        let (value, right) = (f64::from(line) * step, LEFT + width);
        let (at, below) = (y(value), y(value) + 4.0);
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{below:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0
        );
    }
    let minutes = nice_step(last / 60.0 / 10.0);
    for line in 0..=(last / 60.0 / minutes) as u32 {
        let minute = f64::from(line) * minutes;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{minute}</text>",
            x(minute * 60.0),
            top + height + 14.0
        );
    }
    for (number, ((name, of), colour)) in lines.iter().zip(COLOURS).enumerate() {
        let mut points = String::new();
        for (at, value) in values(*of) {
            let _ = write!(points, "{:.1},{:.1} ", x(at), y(value));
        }
        let _ =
            writeln!(text, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
        let (beside, below) = (LEFT + width + 12.0, top + 12.0 + number as f64 * 18.0);
        let _ = writeln!(
            text,
            "<rect x=\"{beside}\" y=\"{}\" width=\"14\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{below}\">{name}</text>",
            below - 9.0,
            beside + 20.0
        );
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= least).unwrap_or(least)
}
