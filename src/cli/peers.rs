//! `ria peers`: who is there, how it is reached, and why so.

use ria_api::state::{LinkState, NetworkSummary, PathKind, PeerStatus};
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
    let header = ["NAME", "ADDRESS", "STATE", "PATH", "RTT", "LOSS", "WHY"];
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

fn row(peer: &PeerStatus) -> [Cell; 7] {
    let none = || "-".to_owned();
    [
        Cell::plain(&peer.name),
        Cell::plain(peer.addresses.first().cloned().unwrap_or_else(none)),
        Cell(peer.link_state.to_string(), colour(peer.link_state)),
        Cell::plain(path(peer)),
        Cell::plain(peer.rtt.map_or_else(none, millis)),
        Cell::plain(peer.loss.map_or_else(none, |loss| format!("{:.0} %", loss * 100.0))),
        Cell(why(peer), Colour::Dim),
    ]
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
        assert_eq!(cells, ["robot-2", "10.213.0.2", "up", "relay (UDP) 192.0.2.1:3478", "21.3 ms", "-", why]);
    }
}
