//! The structures survive both of their forms: D-Bus and JSON.

use ria_api::state::{
    AgentStatus, Condition, Event, LinkState, NetworkState, NetworkSummary, PathKind, PeerStatus, Severity,
};
use zbus::wire::{LE, serialized::Context, to_bytes};

fn peer() -> PeerStatus {
    PeerStatus {
        name: "robot-7".into(),
        tags: vec!["arm".into()],
        link_state: LinkState::Up,
        path: PathKind::RelayUdp,
        rx_bytes: 12,
        rtt: Some(0.0125),
        ..PeerStatus::default()
    }
}

#[test]
fn peers_read_back_from_dbus_and_json() {
    let bytes = to_bytes(Context::new(LE, 0), &vec![peer()]).unwrap();
    let (back, _): (Vec<PeerStatus>, _) = bytes.deserialize().unwrap();
    assert_eq!(back, vec![peer()]);

    let json = serde_json::to_value(peer()).unwrap();
    assert_eq!(json["path"], "relay_udp");
    assert_eq!(json["rtt"], 0.0125);
    assert!(json.get("loss").is_none());
    assert_eq!(serde_json::from_value::<PeerStatus>(json).unwrap(), peer());
}

#[test]
fn nested_structures_read_back() {
    let condition = Condition { code: "no-tun".into(), severity: Severity::Error, ..Condition::default() };
    let network = NetworkSummary { name: "lab".into(), state: NetworkState::Up, ..NetworkSummary::default() };
    let status =
        AgentStatus { networks: vec![network], conditions: vec![condition], ..AgentStatus::default() };
    let bytes = to_bytes(Context::new(LE, 0), &status).unwrap();
    let (back, _): (AgentStatus, _) = bytes.deserialize().unwrap();
    assert_eq!(back, status);
}

#[test]
fn words_of_a_newer_version_read_as_unknown() {
    let event: Event = serde_json::from_str(r#"{"severity":"fatal","kind":"new","later":1}"#).unwrap();
    assert_eq!(event.severity, Severity::Unknown);
}
