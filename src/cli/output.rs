//! Writing for people and for programs: JSON, colours, tables, progress, units.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    colours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Good,
    Warning,
    Bad,
    Dim,
}

impl Output {
    pub fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self { json, colours: !plain && io::stdout().is_terminal() }
    }

    pub fn line(self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    pub fn lines<T: Display>(self, lines: impl IntoIterator<Item = T>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    pub fn value(self, value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)
    }

    pub fn paint(self, colour: Colour, text: impl Display) -> String {
        let code = match colour {
            _ if !self.colours => return text.to_string(),
            Colour::Plain => return text.to_string(),
            Colour::Good => 32,
            Colour::Warning => 33,
            Colour::Bad => 31,
            Colour::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Rows below a header, columns aligned. The last column is not padded.
    pub fn table<const N: usize>(self, header: [&str; N], rows: &[[Cell; N]]) -> Vec<String> {
        let header = header.map(|title| Cell(title.to_owned(), Colour::Dim));
        let width = |column: usize| {
            rows.iter().chain([&header]).map(|r| r[column].0.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let line = |row: &[Cell; N]| {
            let cells = row.iter().zip(widths).map(|(Cell(text, colour), width)| {
                let pad = " ".repeat(width - text.chars().count());
                format!("{}{pad}", self.paint(*colour, text))
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        [&header].into_iter().chain(rows).map(line).collect()
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub struct Cell(pub String, pub Colour);

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        Self(text.into(), Colour::Plain)
    }
}

/// A remark for people, beside the result.
pub fn remark(text: impl Display) {
    // There is nowhere left to complain to.
    let _ = writeln!(io::stderr().lock(), "ria: {text}");
}

/// Waits for something, showing on a terminal that and how long.
pub async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            done = &mut work => {
                let _ = write!(io::stderr(), "\r\x1b[K");
                return done;
            }
            _ = tick.tick() => {
                let _ = write!(io::stderr(), "\r\x1b[K{what} ... {} s", started.elapsed().as_secs());
            }
        }
    }
}

/// `12.3 ms`.
pub fn millis(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// `3 min`, in the unit that a person would take.
pub fn span(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7200.0 => (s / 60.0, "min"),
        s if s < 172_800.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "days"),
    };
    format!("{:.0} {unit}", value.max(0.0).floor())
}

/// `1.2 MiB`.
#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let output = Output { json: false, colours: false };
        let rows = [
            [Cell::plain("robot-2"), Cell::plain("up"), Cell::plain("")],
            [Cell::plain("ä"), Cell(String::from("connecting"), Colour::Bad), Cell::plain("why")],
        ];
        assert_eq!(
            output.table(["NAME", "STATE", "WHY"], &rows),
            ["NAME     STATE       WHY", "robot-2  up", "ä        connecting  why"]
        );
        let coloured = Output { json: false, colours: true }.table(["NAME", "STATE", "WHY"], &rows);
        assert!(coloured[2].contains("\x1b[31mconnecting\x1b[0m  why"), "{coloured:?}");
    }

    #[test]
    fn units_fit_the_size() {
        assert_eq!([millis(0.00123), millis(0.0123), millis(1.5)], ["1.23 ms", "12.3 ms", "1500 ms"]);
        assert_eq!(
            [span(-1.0), span(119.0), span(601.0), span(604_800.0)],
            ["0 s", "119 s", "10 min", "7 days"]
        );
        assert_eq!([bytes(1023), bytes(1536), bytes(u64::MAX)], ["1023 B", "1.5 KiB", "16777216.0 TiB"]);
    }
}
