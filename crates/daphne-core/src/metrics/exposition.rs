//! Metrics in the text format that Prometheus reads, version 0.0.4.

use std::fmt::{Display, Write as _};

/// Media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// A text under construction. The samples of a metric stand together, under its help.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a metric. `name` is `[a-z_]+` and `help` one line, both ours; label names likewise. Label values may be
    /// anything. A metric without samples is left out.
    pub fn metric<const N: usize>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([String; N], u64)>,
    ) -> &mut Self {
        let mut is_first = true;
        for (values, sample) in samples {
            if std::mem::take(&mut is_first) {
                let kind = match kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                };
                self.line(format_args!("# HELP {name} {help}"));
                self.line(format_args!("# TYPE {name} {kind}"));
            }
            let pairs: Vec<String> = labels
                .iter()
                .zip(&values)
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            match pairs.as_slice() {
                [] => self.line(format_args!("{name} {sample}")),
                pairs => self.line(format_args!("{name}{{{}}} {sample}", pairs.join(","))),
            }
        }
        self
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_under_their_help_and_labels_are_escaped() {
        let mut text = Exposition::new();
        text.metric(
            "a_total",
            Kind::Counter,
            "As.",
            ["task", "type"],
            [
                (["t\\1".to_owned(), "x\"y\nz".to_owned()], 3),
                (["t2".to_owned(), String::new()], u64::MAX),
            ],
        )
        .metric("none", Kind::Gauge, "Nothing.", ["task"], [])
        .metric("b", Kind::Gauge, "Bs.", [], [([], 0)]);
        assert_eq!(
            text.finish(),
            "# HELP a_total As.\n# TYPE a_total counter\n\
             a_total{task=\"t\\\\1\",type=\"x\\\"y\\nz\"} 3\n\
             a_total{task=\"t2\",type=\"\"} 18446744073709551615\n\
             # HELP b Bs.\n# TYPE b gauge\nb 0\n"
        );
    }
}
