//! Pictures, drawn here: who is connected, and keys to scan.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};
use ria_protocol::links::LinkPath;

/// Beyond that a picture shows nothing any more.
const MOST_NODES: usize = 40;
/// Lines that have their latency beside them.
const MOST_LABELS: usize = 45;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;

/// A node in the picture.
pub(super) struct Dot<'a> {
    pub name: &'a str,
    pub online: bool,
}

/// A network around its coordinator; empty when there is nothing to see.
pub(super) fn topology(dots: &[Dot<'_>]) -> String {
    if dots.is_empty() || dots.len() > MOST_NODES {
        return String::new();
    }
    let (x, y) = (WIDTH / 2.0, HEIGHT / 2.0);
    let place = |index: usize| on_ring(index, dots.len());
    let online = dots.iter().filter(|dot| dot.online).count();
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{online} of {} nodes connected\">",
        dots.len()
    );
    // Writing to a string can't fail.
    for (index, dot) in dots.iter().enumerate() {
        let (at, class) = (place(index), if dot.online { "on" } else { "away" });
        let _ = write!(
            out,
            "<line class=\"{class}\" x1=\"{x}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            at.0, at.1
        );
    }
    let _ = write!(
        out,
        "<circle class=\"hub\" cx=\"{x}\" cy=\"{y}\" r=\"11\"/><text x=\"{x}\" y=\"{}\">coordinator</text>",
        y + 28.0
    );
    draw_dots(&mut out, dots);
    out + "</svg>"
}

/// The place of one of so many on a ring.
fn on_ring(index: usize, of: usize) -> (f64, f64) {
    // Few: an index as a float loses nothing.
    let part = f64::from(u32::try_from(index).unwrap_or(0)) / f64::from(u32::try_from(of).unwrap_or(1));
    let angle = part * TAU - TAU / 4.0;
    let (x, y) = (WIDTH / 2.0, HEIGHT / 2.0);
    (x + angle.cos() * (x - 70.0), y + angle.sin() * (y - 45.0))
}

fn draw_dots(out: &mut String, dots: &[Dot<'_>]) {
    for (index, dot) in dots.iter().enumerate() {
        let (at, class) = (on_ring(index, dots.len()), if dot.online { "on" } else { "away" });
        let name = escape(dot.name);
        // Writing to a string can't fail.
        let _ = write!(
            out,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"8\"><title>{name}</title></circle>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            at.0,
            at.1,
            at.0,
            at.1 + 24.0
        );
    }
}

/// How two of the nodes in a picture reach each other.
pub(super) struct Line {
    pub between: (usize, usize),
    pub path: LinkPath,
    /// Milliseconds.
    pub rtt: Option<f64>,
}

/// How a path is drawn.
pub(super) const fn path_class(path: LinkPath) -> &'static str {
    match path {
        LinkPath::Direct => "on",
        LinkPath::RelayUdp | LinkPath::RelayTls => "relayed",
        LinkPath::None => "off",
    }
}

/// A round-trip time in words.
pub(super) fn latency(rtt: f64) -> String {
    if rtt < 9.95 { format!("{rtt:.1} ms") } else { format!("{rtt:.0} ms") }
}

/// A network as its links are; empty when there is nothing to see, or too much.
pub(super) fn mesh(dots: &[Dot<'_>], lines: &[Line], label: &str) -> String {
    if lines.is_empty() || dots.len() > MOST_NODES {
        return String::new();
    }
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(label));
    let ends = |line: &Line| (on_ring(line.between.0, dots.len()), on_ring(line.between.1, dots.len()));
    for line in lines {
        let ((x1, y1), (x2, y2)) = ends(line);
        // Writing to a string can't fail.
        let _ = write!(
            out,
            "<line class=\"{}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>",
            path_class(line.path)
        );
    }
    if lines.len() <= MOST_LABELS {
        for line in lines {
            let (Some(rtt), ((x1, y1), (x2, y2))) = (line.rtt, ends(line)) else { continue };
            // Not in the middle, where lines of opposite nodes cross.
            let (x, y) = (x1 + (x2 - x1) * 0.4, y1 + (y2 - y1) * 0.4);
            let _ = write!(out, "<text class=\"rtt\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", latency(rtt));
        }
    }
    draw_dots(&mut out, dots);
    out + "</svg>"
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A text to scan; empty when it is too long for that.
pub(super) fn qr(text: &str, label: &str) -> String {
    const QUIET: usize = 4;
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else { return String::new() };
    let width = code.width();
    let mut path = String::new();
    for (index, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let _ = write!(path, "M{} {}h1v1h-1z", index % width + QUIET, index / width + QUIET);
        }
    }
    let side = width + 2 * QUIET;
    format!(
        "<svg viewBox=\"0 0 {side} {side}\" role=\"img\" aria-label=\"{}\" shape-rendering=\"crispEdges\"><path d=\"{path}\"/></svg>",
        escape(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_pictures_are_text() {
        let drawn = topology(&[Dot { name: "<script>\"&", online: true }, Dot { name: "b", online: false }]);
        assert!(drawn.contains("&lt;script&gt;&quot;&amp;") && !drawn.contains("<script"));
        assert!(drawn.contains("1 of 2 nodes connected"));
        assert_eq!(topology(&[]), "");
    }

    #[test]
    fn a_key_is_small_enough_to_scan_and_a_book_is_not() {
        assert!(qr(&"ria1_abcdefgh".repeat(12), "key").starts_with("<svg"));
        assert_eq!(qr(&"x".repeat(10_000), "key"), "");
    }
}
