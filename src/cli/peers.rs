//! `ria peers`: who is there, how it is reached, and why so.

use ria_api::state::{CLOCKS_TOO_FAR_APART, LinkState, NetworkSummary, PathKind, PeerStatus};
use serde_json::json;

use super::Context;
use super::args::NetworkArg;
use super::failure::Failure;
use super::output::{Cell, Colour, Output, millis};

pub async fn run(context: &Context, wanted: &NetworkArg) -> Result<(), Failure> {
    let mut all = Vec::new();
    for network in context.networks(wanted).await? {
        let peers = network.proxy.peers().await?;
        all.push((network.summary, peers));
    }
    let output = context.output;
    if output.json {
        return Ok(output.value(&in_json(&all))?);
    }
    for (n, (network, peers)) in all.iter().enumerate() {
        if all.len() > 1 {
            let gap = if n > 0 { "\n" } else { "" };
            output.line(format_args!("{gap}{} on {}:", network.name, network.interface))?;
        }
        show(output, &network.name, peers)?;
    }
    Ok(())
}

fn show(output: Output, network: &str, peers: &[PeerStatus]) -> Result<(), Failure> {
    if peers.is_empty() {
        return Ok(output.line(format_args!("{network} has no other member that this machine knows of"))?);
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    let header = ["NAME", "ADDRESS", "STATE", "PATH", "RTT", "LOSS", "CLOCK", "WHY"];
    Ok(output.lines(output.table(header, &rows))?)
}

/// All in `networks`; what is of one network only is there by itself too, for whoever asks about the only one.
fn in_json(all: &[(NetworkSummary, Vec<PeerStatus>)]) -> serde_json::Value {
    let of = |(network, peers): &(NetworkSummary, Vec<PeerStatus>)| json!({ "network": network.name, "network_id": network.id, "peers": peers });
    let networks: Vec<_> = all.iter().map(of).collect();
    match all {
        [(network, peers)] => json!({ "network": network.name, "peers": peers, "networks": networks }),
        _ => json!({ "networks": networks }),
    }
}

fn row(peer: &PeerStatus) -> [Cell; 8] {
    let none = || "-".to_owned();
    [
        Cell::plain(&peer.name),
        Cell::plain(peer.addresses.first().cloned().unwrap_or_else(none)),
        Cell(peer.link_state.to_string(), colour(peer.link_state)),
        Cell::plain(path(peer)),
        Cell::plain(peer.rtt.map_or_else(none, millis)),
        Cell::plain(peer.loss.map_or_else(none, |loss| format!("{:.0} %", loss * 100.0))),
        clock(peer),
        Cell(why(peer), Colour::Dim),
    ]
}

/// By how much its clock is ahead, or how well it agrees.
fn clock(peer: &PeerStatus) -> Cell {
    let (Some(offset), Some(error)) = (peer.clock_offset, peer.clock_error) else { return Cell::plain("-") };
    let far = peer.clocks_apart().is_some_and(|apart| apart > CLOCKS_TOO_FAR_APART);
    let text = match offset {
        _ if offset.abs() <= error => format!("\u{b1}{}", millis(error)),
        _ if offset.abs() >= 10.0 => format!("{offset:+.0} s"),
        _ => format!("{}{}", if offset < 0.0 { "-" } else { "+" }, millis(offset.abs())),
    };
    Cell(text, if far { Colour::Warning } else { Colour::Plain })
}

/// The colour that a link state has everywhere.
pub fn colour(state: LinkState) -> Colour {
    match state {
        LinkState::Up => Colour::Good,
        LinkState::Degraded | LinkState::Connecting => Colour::Warning,
        LinkState::Lost | LinkState::Denied => Colour::Bad,
        LinkState::Idle | LinkState::Unknown => Colour::Dim,
    }
}

/// The way to a peer in words.
pub fn way(path: PathKind) -> &'static str {
    match path {
        PathKind::None => "-",
        PathKind::Direct => "direct",
        PathKind::RelayUdp => "relay (UDP)",
        PathKind::RelayTls => "relay (TLS)",
        PathKind::Unknown => "unknown",
    }
}

fn path(peer: &PeerStatus) -> String {
    let by = if peer.path == PathKind::Direct { &peer.endpoint } else { &peer.relay };
    format!("{} {by}", way(peer.path)).trim_end().to_owned()
}

fn why(peer: &PeerStatus) -> String {
    let away = (!peer.coordinator_online).then_some("offline at the coordinator");
    let reason = Some(peer.path_reason.as_str()).filter(|r| !r.is_empty());
    away.into_iter().chain(reason).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_told_as_such_and_several_by_name() {
        let of = |name: &str| {
            (NetworkSummary { name: name.into(), ..NetworkSummary::default() }, vec![PeerStatus::default()])
        };
        let one = in_json(&[of("lab")]);
        assert_eq!((&one["network"], one["peers"].as_array().map(Vec::len)), (&json!("lab"), Some(1)));
        let two = in_json(&[of("lab"), of("field")]);
        assert_eq!((&two["peers"], &two["networks"][1]["network"]), (&json!(null), &json!("field")));
    }

    #[test]
    fn clocks_that_agree_are_told_by_how_well_and_others_by_how_far_they_are_apart() {
        let told = |clock_offset, clock_error| {
            let peer = PeerStatus { clock_offset, clock_error, ..PeerStatus::default() };
            let Cell(text, colour) = clock(&peer);
            (text, colour == Colour::Warning)
        };
        assert_eq!(told(None, None), ("-".into(), false));
        assert_eq!(told(Some(0.0004), Some(0.0007)), ("\u{b1}0.70 ms".into(), false));
        assert_eq!(told(Some(0.0213), Some(0.001)), ("+21.3 ms".into(), false));
        assert_eq!(told(Some(-0.0713), Some(0.001)), ("-71.3 ms".into(), true));
        assert_eq!(told(Some(0.0713), Some(0.03)), ("+71.3 ms".into(), false));
        assert_eq!(told(Some(-1e9), Some(0.001)), ("-1000000000 s".into(), true));
    }

    #[test]
    fn a_row_tells_way_and_reason() {
        let peer = PeerStatus {
            name: "robot-2".into(),
            addresses: vec!["10.213.0.2".into(), "fd00::2".into()],
            link_state: LinkState::Up,
            path: PathKind::RelayUdp,
            relay: "192.0.2.1:3478".into(),
            path_reason: "no direct path answered".into(),
            rtt: Some(0.0213),
            ..PeerStatus::default()
        };
        let cells = row(&peer).map(|c| c.0);
        let why = "offline at the coordinator; no direct path answered";
        assert_eq!(
            cells,
            ["robot-2", "10.213.0.2", "up", "relay (UDP) 192.0.2.1:3478", "21.3 ms", "-", "-", why]
        );
    }
}
