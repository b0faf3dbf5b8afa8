//! Figures in the text format of Prometheus (version 0.0.4).

use std::fmt::{Display, Write as _};

/// The media type of that text.
pub const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text in the making.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// How a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up only, until the program starts anew.
    Counter,
}

impl Exposition {
    /// A family of figures, each with its label if it has one.
    pub fn family<'a>(
        &mut self,
        family: (&str, Kind),
        help: &str,
        label: &str,
        figures: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        if label.is_empty() {
            self.labelled(family, help, [], figures.into_iter().map(|(_, figure)| ([], figure)));
        } else {
            self.labelled(
                family,
                help,
                [label],
                figures.into_iter().map(|(value, figure)| ([value], figure)),
            );
        }
    }

    /// A family of figures with several labels each.
    pub fn labelled<'a, const N: usize>(
        &mut self,
        (name, kind): (&str, Kind),
        help: &str,
        labels: [&str; N],
        figures: impl IntoIterator<Item = ([&'a str; N], impl Display)>,
    ) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (values, figure) in figures {
            let pairs = labels.iter().zip(values);
            let pairs: Vec<_> =
                pairs.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let pairs = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(self.text, "{name}{pairs} {figure}");
        }
    }

    /// One figure.
    pub fn single(&mut self, family: (&str, Kind), help: &str, figure: u64) {
        self.family(family, help, "", [("", figure)]);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_left_out_where_there_are_none() {
        let mut out = Exposition::default();
        out.single(("a_total", Kind::Counter), "All.", 3);
        out.labelled(("b", Kind::Gauge), "Some.", ["x", "y"], [(["1", "say \"\\\"\n"], 0.5)]);
        let text = "# HELP a_total All.\n# TYPE a_total counter\na_total 3\n# HELP b Some.\n# TYPE b gauge\n\
                    b{x=\"1\",y=\"say \\\"\\\\\\\"\\n\"} 0.5\n";
        assert_eq!(out.finish(), text);
    }
}
