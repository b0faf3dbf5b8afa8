//! What `/diagnostics` shows: the agent, each network's coordinator and interface, and each peer, for people (REP 107).

use r2r::diagnostic_msgs::msg::{DiagnosticStatus, KeyValue};
use ria_api::state::{
    Condition, CoordinatorState, LinkState, NetworkState, NetworkStatus, PeerStatus, Severity,
};

use crate::constants::levels;
use crate::convert::key_value;
use crate::link::NetworkView;
use crate::view::{Seen, View};

const OK: u8 = levels::OK;
const WARN: u8 = levels::WARN;
const ERROR: u8 = levels::ERROR;

/// All parts. Each name carries the robot, since everybody publishes on the same topic.
/// `clocks`: from how many seconds between two clocks on it is a warning.
pub fn diagnostics(view: &View, clocks: Option<f64>) -> Vec<DiagnosticStatus> {
    let mut parts = vec![agent(view)];
    if let Seen::Agent(snapshot) = &view.seen {
        for network in &snapshot.networks {
            parts.extend(of_network(network, snapshot.networks.len() > 1, clocks));
        }
    }
    let (robot, hardware_id) = (view.name().replace('-', "_"), view.hardware_id());
    for part in &mut parts {
        part.name = format!("{robot}/overlay: {}", part.name);
        part.hardware_id.clone_from(&hardware_id);
    }
    parts
}

fn part(
    name: impl Into<String>,
    level: u8,
    message: impl Into<String>,
    values: Vec<KeyValue>,
) -> DiagnosticStatus {
    DiagnosticStatus { level, name: name.into(), message: message.into(), hardware_id: String::new(), values }
}

fn agent(view: &View) -> DiagnosticStatus {
    let own = view.conditions();
    let values = own.iter().map(|c| key_value(&c.code, &c.text));
    match &view.seen {
        Seen::Nothing => part("agent", WARN, "looking for the Ria agent", Vec::new()),
        Seen::Absent { .. } => {
            let text = own.first().map_or("no Ria agent answers", |c| c.text.as_str());
            part("agent", ERROR, text, values.collect())
        }
        Seen::Agent(snapshot) => {
            let conditions: Vec<&Condition> = snapshot.agent.conditions.iter().chain(&own).collect();
            let (mut level, mut message) = worst(&conditions);
            if snapshot.networks.is_empty() && level == OK {
                (level, message) = (WARN, "in no network; join one with a key: ria join -".into());
            }
            let values = values.chain([key_value("version", &snapshot.agent.version)]);
            part("agent", level, message, values.collect())
        }
    }
}

/// The network's name is in each part's only where there are several.
fn of_network(view: &NetworkView, several: bool, clocks: Option<f64>) -> Vec<DiagnosticStatus> {
    let status = &view.status;
    let prefix = if several { format!("{}: ", status.network) } else { String::new() };
    let mut parts = vec![interface(status), coordinator(status)];
    parts.extend(view.peers.iter().map(|status| peer(status, clocks)));
    for part in &mut parts {
        part.name = format!("{prefix}{}", part.name);
    }
    parts
}

fn interface(status: &NetworkStatus) -> DiagnosticStatus {
    let conditions: Vec<&Condition> = status.conditions.iter().collect();
    let (level, text) = worst(&conditions);
    let (level, text) = match status.state {
        NetworkState::Up => (level, text),
        NetworkState::Joining | NetworkState::Disabled | NetworkState::Unknown => {
            (level.max(WARN), status.state.to_string())
        }
        NetworkState::Waiting => (level.max(WARN), text),
        NetworkState::Refused | NetworkState::Failed => {
            (ERROR, if level == OK { status.state.to_string() } else { text })
        }
    };
    let mut values = vec![
        key_value("network", &status.network),
        key_value("state", status.state),
        key_value("interface", &status.interface),
        key_value("addresses", status.addresses.join(" ")),
        key_value("mtu", status.mtu),
        key_value("received bytes", status.rx_bytes),
        key_value("sent bytes", status.tx_bytes),
        key_value("relay", &status.relay),
    ];
    values.extend(status.conditions.iter().map(|c| key_value(&c.code, &c.text)));
    values.extend(status.drops.iter().map(|(why, count)| key_value(format!("dropped: {why}"), count)));
    part("network", level, text, values)
}

fn coordinator(status: &NetworkStatus) -> DiagnosticStatus {
    let (level, text) = match status.coordinator_state {
        CoordinatorState::Connected => (OK, "connected"),
        CoordinatorState::Connecting => (WARN, "connecting"),
        CoordinatorState::Unreachable => (WARN, "unreachable; the overlay works on from what is known"),
        CoordinatorState::Refused => (ERROR, "the coordinator does not accept this node"),
        CoordinatorState::Unknown => (WARN, "unknown"),
    };
    let values = vec![
        key_value("url", &status.coordinator_url),
        key_value("map revision", status.map_revision),
        key_value("version", &status.coordinator_version),
    ];
    part("coordinator", level, text, values)
}

fn peer(peer: &PeerStatus, clocks: Option<f64>) -> DiagnosticStatus {
    let away = !peer.coordinator_online;
    let (level, text) = match peer.link_state {
        LinkState::Up | LinkState::Idle | LinkState::Denied => (OK, peer.link_state.as_str()),
        LinkState::Connecting if away => (OK, "away"),
        LinkState::Lost if away => (WARN, "lost; the coordinator does not see it either"),
        LinkState::Connecting | LinkState::Degraded | LinkState::Unknown => (WARN, peer.link_state.as_str()),
        LinkState::Lost => (ERROR, "lost, although the coordinator sees it"),
    };
    let apart = peer.clocks_apart().zip(clocks).is_some_and(|(apart, most)| apart > most);
    let (level, text) = match peer.clock_offset.filter(|_| apart && level == OK) {
        Some(offset) => {
            let direction = if offset > 0.0 { "ahead of" } else { "behind" };
            let text = format!(
                "{text}, but its clock is {:.3} s {direction} this robot's, so tf finds no transforms between the two; let both \
                 follow one time server",
                offset.abs()
            );
            (WARN, text)
        }
        None => (level, text.to_owned()),
    };
    let number = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.4}"));
    let values = vec![
        key_value("path", peer.path),
        key_value("path reason", &peer.path_reason),
        key_value("endpoint", &peer.endpoint),
        key_value("relay", &peer.relay),
        key_value("round-trip time [s]", number(peer.rtt)),
        key_value("loss [0..1]", number(peer.loss)),
        key_value("handshake age [s]", number(peer.handshake_age)),
        key_value("clock offset [s]", number(peer.clock_offset)),
        key_value("clock offset error [s]", number(peer.clock_error)),
        key_value("addresses", peer.addresses.join(" ")),
    ];
    part(format!("peer {}", peer.name), level, text, values)
}

fn worst(conditions: &[&Condition]) -> (u8, String) {
    let level = |c: &Condition| match c.severity {
        Severity::Error => ERROR,
        Severity::Warning | Severity::Unknown => WARN,
        Severity::Info => OK,
    };
    let worst = conditions.iter().max_by_key(|c| level(c));
    worst.map_or((OK, "ok".into()), |c| (level(c), c.text.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Absence, Snapshot};

    fn view(seen: Seen) -> View {
        let mut view = View::named("robot-1");
        match seen {
            Seen::Nothing => {}
            Seen::Absent { absence, since } => drop(view.handle_absence(absence, since)),
            Seen::Agent(snapshot) => view.handle_snapshot(*snapshot),
        }
        view
    }

    fn lab(state: NetworkState, peers: Vec<PeerStatus>) -> NetworkView {
        let status = NetworkStatus {
            network: "lab".into(),
            name: "robot-1".into(),
            node_id: "n1".into(),
            state,
            coordinator_state: CoordinatorState::Connected,
            ..NetworkStatus::default()
        };
        NetworkView { status, peers, ..NetworkView::default() }
    }

    fn shown(networks: Vec<NetworkView>) -> Vec<DiagnosticStatus> {
        diagnostics(&view(Seen::Agent(Box::new(Snapshot { networks, ..Snapshot::default() }))), Some(0.05))
    }

    fn level_of(parts: &[DiagnosticStatus], name: &str) -> u8 {
        parts.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no {name} in {parts:?}")).level
    }

    #[test]
    fn no_agent_is_an_error_that_says_what_to_do() {
        let absence = Absence { code: "agent-not-running", text: "start it".into() };
        let parts = diagnostics(&view(Seen::Absent { absence, since: 1.0 }), None);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].name.as_str(), parts[0].level), ("robot_1/overlay: agent", ERROR));
        assert_eq!(parts[0].message, "start it");
        assert_eq!(parts[0].hardware_id, "robot-1");
    }

    #[test]
    fn a_healthy_network_is_ok_throughout() {
        let up = PeerStatus { name: "robot-2".into(), link_state: LinkState::Up, ..PeerStatus::default() };
        let parts = shown(vec![lab(NetworkState::Up, vec![up])]);
        let names: Vec<_> = parts.iter().map(|p| p.name.as_str()).collect();
        let robot = |part: &str| format!("robot_1/overlay: {part}");
        assert_eq!(names, [robot("agent"), robot("network"), robot("coordinator"), robot("peer robot-2")]);
        assert!(parts.iter().all(|p| p.level == OK && p.hardware_id == "n1"), "{parts:?}");
    }

    #[test]
    fn a_lost_peer_is_worse_when_it_should_be_there() {
        let lost = |name: &str, coordinator_online| PeerStatus {
            name: name.into(),
            link_state: LinkState::Lost,
            coordinator_online,
            ..PeerStatus::default()
        };
        let parts = shown(vec![lab(NetworkState::Up, vec![lost("here", true), lost("away", false)])]);
        assert_eq!(level_of(&parts, "robot_1/overlay: peer here"), ERROR);
        assert_eq!(level_of(&parts, "robot_1/overlay: peer away"), WARN);
    }

    #[test]
    fn clocks_that_are_apart_beyond_doubt_are_a_warning_unless_nobody_wants_it() {
        let with = |offset: f64, error: f64| PeerStatus {
            name: "robot-2".into(),
            link_state: LinkState::Up,
            clock_offset: Some(offset),
            clock_error: Some(error),
            ..PeerStatus::default()
        };
        let told = |offset, error, most| {
            let network = lab(NetworkState::Up, vec![with(offset, error)]);
            let snapshot = Snapshot { networks: vec![network], ..Snapshot::default() };
            let parts = diagnostics(&view(Seen::Agent(Box::new(snapshot))), most);
            (parts[3].level, parts[3].message.clone())
        };
        assert_eq!(told(-0.07, 0.001, Some(0.05)).0, WARN);
        assert!(told(-0.07, 0.001, Some(0.05)).1.contains("0.070 s behind"));
        assert_eq!(told(-0.07, 0.03, Some(0.05)), (OK, "up".into()));
        assert_eq!(told(-7.0, 0.03, None), (OK, "up".into()));
    }

    #[test]
    fn a_failed_network_and_its_conditions_show() {
        let mut failed = lab(NetworkState::Failed, Vec::new());
        failed.status.conditions = vec![Condition {
            code: "no-tun".into(),
            severity: Severity::Error,
            text: "no /dev/net/tun".into(),
            since: 0.0,
        }];
        let parts = shown(vec![failed]);
        let network = &parts[1];
        assert_eq!((network.level, network.message.as_str()), (ERROR, "no /dev/net/tun"));
        assert!(network.values.iter().any(|v| v.key == "no-tun"));
    }

    #[test]
    fn an_agent_in_no_network_is_a_warning() {
        assert_eq!(shown(Vec::new())[0].level, WARN);
    }
}
