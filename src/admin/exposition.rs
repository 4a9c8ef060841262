//! The text format of Prometheus, version 0.0.4.

use std::fmt::{self, Display, Write};

/// What a family is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Of another server's making.
    Untyped,
}

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// The value of a label, escaped.
struct Label<'l>(&'l str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Untyped => "untyped",
        };
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text: &mut self.0, name }
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A family that is being written.
pub(super) struct Family<'e> {
    text: &'e mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.write("", labels, value)
    }

    /// Adds the samples of a histogram: its classes by upper bound, with what is above all bounds last, and the sum.
    pub(super) fn histogram(&mut self, bounds: &[usize], counts: &[u64], sum: u64) {
        let mut count = 0;
        let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, more) in bounds.zip(counts) {
            count += more;
            self.write("_bucket", &[("le", &bound)], count);
        }
        self.write("_sum", &[], sum).write("_count", &[], count);
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (name, label)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if at == 0 { '{' } else { ',' }, Label(label));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_says() {
        let mut text = Exposition::default();
        text.single("up", Kind::Gauge, "Whether it is up.", 1);
        text.family("a_total", Kind::Counter, "Things.")
            .sample(&[("file", "C:\\a \"b\"\n"), ("of", "x")], 7_u64)
            .sample(&[], 0.5);
        text.family("size", Kind::Histogram, "Sizes.").histogram(&[1, 2], &[3, 0, 4], 99);
        let expected = "# HELP up Whether it is up.\n# TYPE up gauge\nup 1\n\
            # HELP a_total Things.\n# TYPE a_total counter\na_total{file=\"C:\\\\a \\\"b\\\"\\n\",of=\"x\"} 7\na_total 0.5\n\
            # HELP size Sizes.\n# TYPE size histogram\nsize_bucket{le=\"1\"} 3\nsize_bucket{le=\"2\"} 3\n\
            size_bucket{le=\"+Inf\"} 7\nsize_sum 99\nsize_count 7\n";
        assert_eq!(text.into_text(), expected);
    }
}
