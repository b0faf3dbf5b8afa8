//! Peers.

use r2r::diagnostic_msgs::msg::KeyValue;
use r2r::ria_msgs::msg;
use ria_api::state::{CandidateType, LinkState, NetworkStatus, PathKind, PeerKind, PeerStatus};

use super::{Reporter, key_value, number};
use crate::constants::peers;

/// `Peer.KIND_*`.
pub fn kind(kind: PeerKind) -> u8 {
    match kind {
        PeerKind::Node => peers::KIND_NODE,
        PeerKind::Static => peers::KIND_STATIC,
        PeerKind::Gateway => peers::KIND_GATEWAY,
        PeerKind::Unknown => peers::KIND_UNKNOWN,
    }
}

/// `Peer.LINK_STATE_*`.
pub fn link_state(state: LinkState) -> u8 {
    match state {
        LinkState::Idle => peers::LINK_STATE_IDLE,
        LinkState::Connecting => peers::LINK_STATE_CONNECTING,
        LinkState::Up => peers::LINK_STATE_UP,
        LinkState::Degraded => peers::LINK_STATE_DEGRADED,
        LinkState::Lost => peers::LINK_STATE_LOST,
        LinkState::Denied => peers::LINK_STATE_DENIED,
        LinkState::Unknown => peers::LINK_STATE_UNKNOWN,
    }
}

/// `Peer.PATH_*`.
pub fn path(path: PathKind) -> u8 {
    match path {
        PathKind::None => peers::PATH_NONE,
        PathKind::Direct => peers::PATH_DIRECT,
        PathKind::RelayUdp => peers::PATH_RELAY_UDP,
        PathKind::RelayTls => peers::PATH_RELAY_TLS,
        PathKind::Unknown => peers::PATH_UNKNOWN,
    }
}

/// How the ends of the path are known (RFC 8445), where there is one, and how far its clock may be from what is told.
fn details(peer: &PeerStatus) -> Vec<KeyValue> {
    let ends = [("local candidate", peer.local_candidate), ("remote candidate", peer.remote_candidate)];
    let known = |kind: &CandidateType| *kind != CandidateType::Unknown;
    let ends = ends.into_iter().filter_map(|(key, kind)| kind.filter(known).map(|kind| key_value(key, kind)));
    let error = peer.clock_error.map(|error| key_value("clock offset error [s]", format!("{error:.6}")));
    ends.chain(error).collect()
}

/// Anything within the bound of a clock's error is as likely: a uniform distribution has this deviation.
fn stddev(bound: f64) -> f64 {
    bound / 3.0_f64.sqrt()
}

pub fn peer(peer: &PeerStatus) -> msg::Peer {
    msg::Peer {
        id: peer.id.clone(),
        name: peer.name.clone(),
        ros_name: peer.ros_name.clone(),
        kind: kind(peer.kind),
        tags: peer.tags.clone(),
        addresses: peer.addresses.clone(),
        coordinator_online: peer.coordinator_online,
        link_state: link_state(peer.link_state),
        path: path(peer.path),
        endpoint: peer.endpoint.clone(),
        relay: peer.relay.clone(),
        path_reason: peer.path_reason.clone(),
        rtt: number(peer.rtt),
        loss: number(peer.loss),
        handshake_age: number(peer.handshake_age),
        mtu: peer.mtu,
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        ros_domains: peer.ros_domains.iter().filter_map(|domain| u16::try_from(*domain).ok()).collect(),
        participants_seen: peer.participants_seen,
        participants_expected: peer.participants_expected.unwrap_or_default(),
        clock_offset: number(peer.clock_offset),
        clock_offset_stddev: number(peer.clock_error.map(stddev)),
        details: details(peer),
    }
}

pub fn peer_array(network: &NetworkStatus, peers: &[PeerStatus], reporter: &Reporter) -> msg::PeerArray {
    msg::PeerArray {
        header: reporter.header(),
        reporter: reporter.name.clone(),
        reporter_id: reporter.id.clone(),
        network: network.network.clone(),
        network_id: network.network_id.clone(),
        map_revision: network.map_revision,
        peers: peers.iter().map(peer).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relayed() -> PeerStatus {
        PeerStatus {
            id: "n2".into(),
            name: "robot-2".into(),
            ros_name: "robot_2".into(),
            kind: PeerKind::Node,
            addresses: vec!["10.213.0.2".into()],
            coordinator_online: true,
            link_state: LinkState::Degraded,
            path: PathKind::RelayUdp,
            relay: "192.0.2.1:3478".into(),
            rtt: Some(0.025),
            mtu: 1280,
            ..PeerStatus::default()
        }
    }

    #[test]
    fn a_peer_keeps_what_is_known_and_marks_what_is_not() {
        let message = peer(&relayed());
        assert_eq!(message.link_state, peers::LINK_STATE_DEGRADED);
        assert_eq!(message.path, peers::PATH_RELAY_UDP);
        assert_eq!(message.addresses, ["10.213.0.2"]);
        assert!((message.rtt - 0.025).abs() < 1e-6);
        for unknown in
            [message.loss, message.handshake_age, message.clock_offset, message.clock_offset_stddev]
        {
            assert!(unknown.is_nan());
        }
    }

    #[test]
    fn a_clock_is_told_with_its_bound_and_the_deviation_of_that() {
        let message = peer(&PeerStatus { clock_offset: Some(-0.25), clock_error: Some(0.003), ..relayed() });
        assert!((message.clock_offset + 0.25).abs() < 1e-6);
        assert!((message.clock_offset_stddev - 0.001_732).abs() < 1e-5);
        let told: Vec<_> = message.details.iter().map(|d| (d.key.as_str(), d.value.as_str())).collect();
        assert_eq!(told, [("clock offset error [s]", "0.003000")]);
    }

    #[test]
    fn details_say_how_the_ends_of_a_path_are_known() {
        assert!(peer(&relayed()).details.is_empty());
        let message = peer(&PeerStatus {
            local_candidate: Some(CandidateType::Host),
            remote_candidate: Some(CandidateType::PeerReflexive),
            ..relayed()
        });
        let told: Vec<_> = message.details.iter().map(|d| (d.key.as_str(), d.value.as_str())).collect();
        assert_eq!(told, [("local candidate", "host"), ("remote candidate", "peer_reflexive")]);
    }

    #[test]
    fn words_of_a_newer_agent_become_unknown() {
        let message = peer(&PeerStatus::default());
        assert_eq!((message.kind, message.link_state, message.path), (0, 0, 0));
    }

    #[test]
    fn an_array_says_whose_view_it_is() {
        let network = NetworkStatus { network: "lab".into(), map_revision: 7, ..NetworkStatus::default() };
        let reporter = Reporter { name: "robot-1".into(), id: "n1".into(), ..Reporter::default() };
        let message = peer_array(&network, &[relayed()], &reporter);
        assert_eq!((message.reporter.as_str(), message.network.as_str()), ("robot-1", "lab"));
        assert_eq!((message.map_revision, message.peers.len()), (7, 1));
        assert_eq!(message.header.frame_id, "");
    }
}
