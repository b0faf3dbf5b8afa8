//! Events.

use r2r::ria_msgs::msg;
use ria_api::state::{CoordinatorState, Event, LinkState, NetworkState, PathKind};

use super::status::coordinator;
use super::{Reporter, number, peer, severity, state, time};
use crate::constants::{conditions, events, statuses};

/// An event of the agent. `network` is the name of the network that it names by id.
pub fn event(event: &Event, network: &str, reporter: &Reporter) -> msg::Event {
    let kind = kind(&event.kind);
    let mut header = reporter.header();
    header.stamp = time(event.time);
    msg::Event {
        header,
        reporter: reporter.name.clone(),
        reporter_id: reporter.id.clone(),
        network: network.to_owned(),
        network_id: event.network_id.clone(),
        seq: event.seq,
        severity: severity(event.severity),
        kind,
        kind_name: event.kind.clone(),
        peer: event.peer.clone(),
        before: value(kind, &event.before),
        after: value(kind, &event.after),
        before_text: event.before.clone(),
        after_text: event.after.clone(),
        gap: number(event.gap),
        path_before: event.path_before.map_or(0, peer::path),
        path_after: event.path_after.map_or(0, peer::path),
        text: event.text.clone(),
        details: Vec::new(),
    }
}

/// The agent on this machine came or went; `before` and `after` are `Status.STATE_*`.
pub fn agent_event(came: bool, text: &str, reporter: &Reporter) -> msg::Event {
    let (gone, there) = ((statuses::STATE_NO_AGENT, "no_agent"), (0, "unknown"));
    let (before, after) = if came { (gone, there) } else { (there, gone) };
    let severity = if came { conditions::SEVERITY_INFO } else { conditions::SEVERITY_ERROR };
    msg::Event {
        header: reporter.header(),
        reporter: reporter.name.clone(),
        reporter_id: reporter.id.clone(),
        severity,
        kind: events::KIND_AGENT,
        kind_name: "agent".into(),
        before: before.0,
        after: after.0,
        before_text: before.1.into(),
        after_text: after.1.into(),
        gap: f32::NAN,
        text: text.into(),
        ..msg::Event::default()
    }
}

fn kind(word: &str) -> u8 {
    match word {
        "peer_added" => events::KIND_PEER_ADDED,
        "peer_removed" => events::KIND_PEER_REMOVED,
        "link_state" => events::KIND_LINK_STATE,
        "path" => events::KIND_PATH,
        "coordinator" => events::KIND_COORDINATOR,
        "network" => events::KIND_NETWORK,
        "map" => events::KIND_MAP,
        "agent" => events::KIND_AGENT,
        "uplink" => events::KIND_UPLINK,
        "access_point" => events::KIND_ACCESS_POINT,
        "ros_clash" => events::KIND_ROS_CLASH,
        "denied" => events::KIND_DENIED,
        "key" => events::KIND_KEY,
        _ => events::KIND_UNKNOWN,
    }
}

/// A word of the agent in the constants that the kind of event names.
fn value(kind: u8, word: &str) -> u8 {
    use {CoordinatorState as C, LinkState as L, NetworkState as N, PathKind as P};
    match kind {
        events::KIND_LINK_STATE => {
            let all = [L::Idle, L::Connecting, L::Up, L::Degraded, L::Lost, L::Denied];
            all.into_iter().find(|s| s.as_str() == word).map_or(0, peer::link_state)
        }
        events::KIND_PATH => {
            let all = [P::None, P::Direct, P::RelayUdp, P::RelayTls];
            all.into_iter().find(|s| s.as_str() == word).map_or(0, peer::path)
        }
        events::KIND_COORDINATOR => {
            let all = [C::Connecting, C::Connected, C::Unreachable, C::Refused];
            all.into_iter().find(|s| s.as_str() == word).map_or(0, coordinator)
        }
        events::KIND_NETWORK => {
            let all = [N::Joining, N::Waiting, N::Up, N::Disabled, N::Refused, N::Failed];
            all.into_iter().find(|s| s.as_str() == word).map_or(0, state)
        }
        events::KIND_UPLINK => match word {
            "up" => events::UPLINK_UP,
            "down" => events::UPLINK_DOWN,
            _ => events::UPLINK_UNKNOWN,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::constants::peers;

    fn happened(kind: &str, before: &str, after: &str) -> Event {
        Event {
            seq: 9,
            time: 100.5,
            kind: kind.into(),
            network_id: "id".into(),
            peer: "robot-2".into(),
            before: before.into(),
            after: after.into(),
            ..Event::default()
        }
    }

    fn values(kind: &str, before: &str, after: &str) -> (u8, u8, u8) {
        let message = event(&happened(kind, before, after), "lab", &Reporter::default());
        (message.kind, message.before, message.after)
    }

    #[test]
    fn before_and_after_are_in_the_constants_of_the_kind() {
        assert_eq!(
            values("link_state", "up", "lost"),
            (events::KIND_LINK_STATE, peers::LINK_STATE_UP, peers::LINK_STATE_LOST)
        );
        assert_eq!(
            values("path", "none", "relay_udp"),
            (events::KIND_PATH, peers::PATH_NONE, peers::PATH_RELAY_UDP)
        );
        assert_eq!(
            values("coordinator", "connected", "unreachable"),
            (events::KIND_COORDINATOR, statuses::COORDINATOR_CONNECTED, statuses::COORDINATOR_UNREACHABLE)
        );
        assert_eq!(values("network", "", "disabled"), (events::KIND_NETWORK, 0, statuses::STATE_DISABLED));
        assert_eq!(
            values("uplink", "up", "down"),
            (events::KIND_UPLINK, events::UPLINK_UP, events::UPLINK_DOWN)
        );
    }

    /// The words in backticks of the reference's section on events, as far as they are kinds.
    fn documented() -> BTreeSet<String> {
        let reference = include_str!("../../../../docs/reference.md");
        let section = reference.split("\n## Events\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let is_kind = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let kinds = section.split("`kind`").nth(1).unwrap().split('`').skip(1).step_by(2).filter(is_kind);
        kinds.map(str::to_owned).collect()
    }

    #[test]
    fn every_kind_in_the_reference_has_a_constant_and_every_constant_is_in_the_reference() {
        let definition = include_str!("../../../../msg/Event.msg");
        let constants: BTreeMap<String, u8> = definition
            .lines()
            .filter_map(|line| line.strip_prefix("uint8 KIND_")?.split_once('='))
            .map(|(name, rest)| {
                (name.to_lowercase(), rest.split_whitespace().next().unwrap().parse().unwrap())
            })
            .filter(|(_, number)| *number != events::KIND_UNKNOWN)
            .collect();
        let (documented, defined) = (documented(), constants.keys().cloned().collect());
        assert_eq!(documented, defined, "docs/reference.md and msg/Event.msg do not name the same kinds");
        for (word, number) in &constants {
            assert_eq!(kind(word), *number, "{word}");
        }
        assert_eq!(constants.values().collect::<BTreeSet<_>>().len(), constants.len(), "a number twice");
    }

    #[test]
    fn a_link_that_is_back_tells_gap_and_paths() {
        let mut happened = happened("link_state", "lost", "up");
        happened.gap = Some(5.5);
        (happened.path_before, happened.path_after) = (Some(PathKind::Direct), Some(PathKind::RelayUdp));
        let message = event(&happened, "lab", &Reporter::default());
        assert_eq!((message.path_before, message.path_after), (peers::PATH_DIRECT, peers::PATH_RELAY_UDP));
        assert!((message.gap - 5.5).abs() < 1e-6);
    }

    #[test]
    fn a_kind_of_a_newer_agent_keeps_its_words() {
        let message = event(&happened("teleported", "here", "there"), "lab", &Reporter::default());
        assert_eq!((message.kind, message.before, message.after), (0, 0, 0));
        assert_eq!(message.kind_name, "teleported");
        assert_eq!((message.before_text.as_str(), message.after_text.as_str()), ("here", "there"));
        assert!(message.gap.is_nan());
        assert_eq!((message.header.stamp.sec, message.header.stamp.nanosec), (100, 500_000_000));
    }

    #[test]
    fn a_lost_agent_is_an_error_and_no_numbered_event() {
        let message = agent_event(false, "gone", &Reporter::default());
        assert_eq!((message.seq, message.after), (0, statuses::STATE_NO_AGENT));
        assert_eq!(message.severity, conditions::SEVERITY_ERROR);
    }
}
