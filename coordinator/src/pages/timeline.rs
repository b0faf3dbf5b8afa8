//! What has happened on a node, drawn over time: a lane for each peer, and one for what it is connected by.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ria_protocol::links::LinkPath;
use ria_protocol::time::UnixTime;

use super::drawing::{escape, path_class};
use crate::admin::api_links::HistoryView;
use crate::duration::shown_relative;

/// Lanes beyond these are in the table only.
const MOST_LANES: usize = 12;
const WIDTH: f64 = 640.0;
/// Where lanes begin, behind their names.
const LEFT: f64 = 130.0;
const LANE: f64 = 26.0;

/// A stretch of time in which the same was so.
struct Stretch {
    from: u64,
    until: u64,
    class: &'static str,
    text: String,
}

/// The picture; empty when nothing has happened.
pub(super) fn timeline(history: &[HistoryView], now: UnixTime) -> String {
    let Some(first) = history.iter().map(|entry| entry.time.0).min() else { return String::new() };
    let last = history.iter().map(|entry| entry.time.0).max().unwrap_or(first).max(now.0);
    let (begin, span) = (first, last.saturating_sub(first).max(1));
    let lanes = lanes(history, last);
    let shown = lanes.iter().take(MOST_LANES);
    let height = 30.0 + LANE * small(lanes.len().min(MOST_LANES));
    let x = |time: u64| {
        // A share of a span of seconds, for a picture.
        let share = small_u64(time.saturating_sub(begin)) / small_u64(span);
        LEFT + share * (WIDTH - LEFT - 6.0)
    };
    let label = "Paths over time; the table below says the same";
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">");
    for (index, (name, stretches)) in shown.enumerate() {
        let top = 4.0 + LANE * small(index);
        // Writing to a string can't fail.
        let _ = write!(
            out,
            "<text class=\"lane\" x=\"0\" y=\"{:.1}\">{}</text>",
            top + 15.0,
            escape(&short(name))
        );
        for stretch in stretches {
            let (from, until) = (x(stretch.from), x(stretch.until));
            // Not by its colour alone.
            let high = if stretch.class == "relayed" { 9.0 } else { 18.0 };
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high}\"><title>{}</title></rect>",
                stretch.class,
                top + 18.0 - high,
                (until - from).max(1.5),
                escape(&stretch.text)
            );
        }
    }
    let begun = escape(&shown_relative(UnixTime(begin), now));
    let _ = write!(
        out,
        "<text class=\"lane\" x=\"{LEFT}\" y=\"{y:.1}\">{begun}</text><text class=\"now\" x=\"{WIDTH}\" y=\"{y:.1}\">now</text>",
        y = height - 8.0
    );
    out + "</svg>"
}

/// Few enough that nothing is lost.
fn small(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn small_u64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn short(name: &str) -> String {
    if name.chars().count() <= 16 { name.to_owned() } else { name.chars().take(15).chain(['…']).collect() }
}

/// Lanes by name, the uplink first; each change lasts until the next one.
fn lanes(history: &[HistoryView], last: u64) -> Vec<(String, Vec<Stretch>)> {
    let mut uplink: Vec<Stretch> = Vec::new();
    let mut peers: BTreeMap<&str, Vec<Stretch>> = BTreeMap::new();
    for entry in history {
        let begun = |class| Stretch { from: entry.time.0, until: last, class, text: entry.text() };
        let (lane, stretch) = match (&entry.uplink, &entry.peer) {
            (Some(at), _) => {
                let class = match uplink.last() {
                    _ if at.interface.is_empty() => "off",
                    // Two neighbours look different, so that a hand-over shows.
                    Some(before) if before.class == "uplink" => "uplink other",
                    Some(_) | None => "uplink",
                };
                (&mut uplink, begun(class))
            }
            (None, Some(peer)) => {
                let class = path_class(entry.after.unwrap_or(LinkPath::None));
                (peers.entry(peer.as_str()).or_default(), begun(class))
            }
            (None, None) => continue,
        };
        if let Some(before) = lane.last_mut() {
            before.until = entry.time.0.max(before.from);
        }
        lane.push(stretch);
    }
    let mut lanes: Vec<(String, Vec<Stretch>)> = Vec::new();
    if !uplink.is_empty() {
        lanes.push(("connected by".to_owned(), uplink));
    }
    lanes.extend(peers.into_iter().map(|(peer, stretches)| (peer.to_owned(), stretches)));
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api_links::{HistoryKind, UplinkView};

    fn path(time: u64, peer: &str, after: LinkPath) -> HistoryView {
        HistoryView {
            time: UnixTime(time),
            kind: HistoryKind::Path,
            peer: Some(peer.into()),
            before: Some(LinkPath::None),
            after: Some(after),
            gap_ms: None,
            reason: "<why>".into(),
            uplink: None,
        }
    }

    #[test]
    fn each_change_lasts_until_the_next_one_on_its_lane() {
        let wifi = |time, point: &str| HistoryView {
            kind: HistoryKind::Uplink,
            uplink: Some(UplinkView {
                interface: "wlan0".into(),
                kind: "wifi".into(),
                ssid: None,
                access_point: Some(point.into()),
            }),
            ..path(time, "", LinkPath::None)
        };
        let history = [
            wifi(100, "a"),
            path(110, "b", LinkPath::RelayUdp),
            path(130, "b", LinkPath::Direct),
            wifi(150, "c"),
            path(160, "d", LinkPath::None),
        ];
        let lane_of = |lane: &[Stretch]| lane.iter().map(|s| (s.from, s.until, s.class)).collect::<Vec<_>>();
        let told: Vec<_> =
            lanes(&history, 200).into_iter().map(|(name, lane)| (name, lane_of(&lane))).collect();
        let wanted = [
            ("connected by", vec![(100, 150, "uplink"), (150, 200, "uplink other")]),
            ("b", vec![(110, 130, "relayed"), (130, 200, "on")]),
            ("d", vec![(160, 200, "off")]),
        ];
        assert_eq!(told, wanted.map(|(name, lane)| (name.to_owned(), lane)));
        let drawn = timeline(&history, UnixTime(200));
        assert!(drawn.contains("&lt;why&gt;") && !drawn.contains("<why>"), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 5);
        assert_eq!(timeline(&[], UnixTime(200)), "");
    }
}
