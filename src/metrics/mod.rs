//! The agent's figures for Prometheus, in its text format: what `ria metrics` prints and the agent serves where it is told to
//! listen ([`listen`]). They are made of what the local API tells, of nothing else.

pub mod listen;

use std::collections::BTreeMap;

use ria_api::state::{
    AgentStatus, CoordinatorState, LinkState, NetworkState, NetworkStatus, PathKind, PeerStatus,
};
use ria_core::DropReason;
use ria_service::exposition::Exposition;
use ria_service::exposition::Kind::{Counter, Gauge};

/// Where packets are dropped outside of the engine.
pub const EDGES: [&str; 8] = [
    "send-refused",
    "send-stale",
    "send-full",
    "interface-refused",
    "interface-full",
    "receive-full",
    "stream-stale",
    "stream-full",
];

/// A network with its other members.
pub type View = (NetworkStatus, Vec<PeerStatus>);

/// All figures.
pub fn text(agent: &AgentStatus, networks: &[View]) -> String {
    let mut out = Exposition::default();
    let version = [(agent.version.as_str(), 1)];
    out.family(("ria_agent_build_info", Gauge), "The version that runs.", "version", version);
    let conditions = agent.conditions.iter().map(|c| (["", c.code.as_str(), c.severity.as_str()], 1_u8));
    let of_networks = networks.iter().flat_map(|(n, _)| {
        n.conditions.iter().map(|c| ([n.network.as_str(), c.code.as_str(), c.severity.as_str()], 1))
    });
    out.labelled(
        ("ria_agent_condition", Gauge),
        "1 for each health condition that holds, of a network or of the agent itself.",
        ["network", "code", "severity"],
        conditions.chain(of_networks),
    );
    of_each_network(&mut out, networks);
    drops(&mut out, networks);
    of_each_peer(&mut out, networks);
    out.finish()
}

fn of_each_network(out: &mut Exposition, networks: &[View]) {
    type Figure = fn(&NetworkStatus) -> Option<f64>;
    let families: [(&str, &str, Figure); 7] = [
        ("network_up", "1 while the interface is there.", |n| truth(n.state == NetworkState::Up)),
        ("coordinator_connected", "1 while the coordinator is.", |n| {
            truth(n.coordinator_state == CoordinatorState::Connected)
        }),
        ("map_revision", "Revision of the network's map.", |n| Some(n.map_revision as f64)),
        ("policy_version", "Version of the policy that is enforced.", |n| n.policy_version.map(|v| v as f64)),
        ("certificate_expiry_timestamp_seconds", "When this node's certificate ends.", |n| {
            Some(n.certificate_expires).filter(|end| *end > 0.0)
        }),
        ("clock_offset_seconds", "How far this machine's clock is ahead of the coordinator's.", |n| {
            n.clock_offset
        }),
        ("mtu_bytes", "The overlay's MTU.", |n| Some(f64::from(n.mtu))),
    ];
    for (name, help, figure) in families {
        let figures = networks.iter().filter_map(|(n, _)| Some(([n.network.as_str()], figure(n)?)));
        out.labelled((&format!("ria_agent_{name}"), Gauge), help, ["network"], figures);
    }
    let states = [
        LinkState::Idle,
        LinkState::Connecting,
        LinkState::Up,
        LinkState::Degraded,
        LinkState::Lost,
        LinkState::Denied,
    ];
    let links = networks.iter().flat_map(|(n, peers)| {
        let count = |state| peers.iter().filter(|peer| peer.link_state == state).count();
        states.map(|state| ([n.network.as_str(), state.as_str()], count(state)))
    });
    out.labelled(
        ("ria_agent_peers", Gauge),
        "Other members, by the state of the link.",
        ["network", "link"],
        links,
    );
}

/// The agent counts them for all networks together, and each network tells them.
fn drops(out: &mut Exposition, networks: &[View]) {
    let told = networks.first().map(|(network, _)| &network.drops);
    let known = DropReason::ALL.iter().map(|reason| reason.name()).chain(EDGES);
    let mut all: BTreeMap<&str, u64> = known.map(|reason| (reason, 0)).collect();
    all.extend(told.into_iter().flatten().map(|(reason, count)| (reason.as_str(), *count)));
    // Before there is a network, nothing is told.
    let all = all.into_iter().filter(|_| told.is_some());
    out.family(("ria_agent_dropped_total", Counter), "Packets that went no further.", "reason", all);
}

fn of_each_peer(out: &mut Exposition, networks: &[View]) {
    type Figure = fn(&PeerStatus) -> Option<f64>;
    let families: [(&str, _, &str, Figure); 10] = [
        ("link_up", Gauge, "1 while packets reach the peer.", |p| {
            truth(matches!(p.link_state, LinkState::Up | LinkState::Degraded))
        }),
        ("direct", Gauge, "1 while the path in use is direct, 0 over a relay.", |p| {
            (p.path != PathKind::None).then_some(()).and_then(|()| truth(p.path == PathKind::Direct))
        }),
        ("receive_bytes_total", Counter, "Bytes from it through the tunnel.", |p| Some(p.rx_bytes as f64)),
        ("transmit_bytes_total", Counter, "Bytes to it through the tunnel.", |p| Some(p.tx_bytes as f64)),
        ("receive_packets_total", Counter, "Packets from it through the tunnel.", |p| {
            p.rx_packets.map(|n| n as f64)
        }),
        ("transmit_packets_total", Counter, "Packets to it through the tunnel.", |p| {
            p.tx_packets.map(|n| n as f64)
        }),
        ("rtt_seconds", Gauge, "Round-trip time of the path.", |p| p.rtt),
        ("loss_ratio", Gauge, "Share of probes lost lately.", |p| p.loss),
        ("handshake_age_seconds", Gauge, "Age of the WireGuard handshake.", |p| p.handshake_age),
        ("dds_participants", Gauge, "Its DDS participants that have announced themselves here.", |p| {
            Some(f64::from(p.participants_seen))
        }),
    ];
    for (name, kind, help, figure) in families {
        let figures = networks.iter().flat_map(|(n, peers)| {
            let network = n.network.as_str();
            peers.iter().filter_map(move |peer| Some(([network, peer.name.as_str()], figure(peer)?)))
        });
        out.labelled((&format!("ria_agent_peer_{name}"), kind), help, ["network", "peer"], figures);
    }
}

fn truth(is: bool) -> Option<f64> {
    Some(f64::from(u8::from(is)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let drops = [("no-route".to_owned(), 7), ("of-a-newer-agent".to_owned(), 1)].into();
        let network = NetworkStatus {
            network: "lab".into(),
            state: NetworkState::Up,
            drops,
            certificate_expires: 1_800_000_000.5,
            ..NetworkStatus::default()
        };
        let peer = PeerStatus {
            name: "robot-2".into(),
            link_state: LinkState::Up,
            path: PathKind::Direct,
            rx_bytes: 1 << 40,
            rtt: Some(0.0125),
            ..PeerStatus::default()
        };
        (network, vec![peer])
    }

    #[test]
    fn every_reason_to_drop_is_there_also_those_that_never_happened() {
        let text = text(&AgentStatus::default(), &[view()]);
        for reason in DropReason::ALL.iter().map(|reason| reason.name()).chain(EDGES) {
            let line = format!("ria_agent_dropped_total{{reason=\"{reason}\"}} ");
            assert_eq!(text.matches(&line).count(), 1, "{reason}");
        }
        assert!(
            text.contains("{reason=\"no-route\"} 7\n") && text.contains("{reason=\"of-a-newer-agent\"} 1\n")
        );
    }

    #[test]
    fn units_are_base_units_and_what_is_unknown_is_left_out() {
        let text = text(&AgentStatus::default(), &[view()]);
        for line in [
            "ria_agent_network_up{network=\"lab\"} 1\n",
            "ria_agent_certificate_expiry_timestamp_seconds{network=\"lab\"} 1800000000.5\n",
            "ria_agent_peers{network=\"lab\",link=\"up\"} 1\n",
            "ria_agent_peers{network=\"lab\",link=\"lost\"} 0\n",
            "ria_agent_peer_receive_bytes_total{network=\"lab\",peer=\"robot-2\"} 1099511627776\n",
            "ria_agent_peer_rtt_seconds{network=\"lab\",peer=\"robot-2\"} 0.0125\n",
            "ria_agent_peer_direct{network=\"lab\",peer=\"robot-2\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("ria_agent_peer_loss_ratio{") && !text.contains("ria_agent_policy_version{"));
    }

    #[test]
    fn each_family_has_one_head_and_a_name_that_says_its_unit() {
        let text = text(&AgentStatus::default(), &[view()]);
        let mut seen = std::collections::BTreeSet::new();
        let mut lines = text.lines();
        while let Some(head) = lines.next() {
            let Some(help) = head.strip_prefix("# HELP ") else { continue };
            let (name, _) = help.split_once(' ').unwrap();
            assert!(seen.insert(name.to_owned()), "{name} twice");
            let kind = lines.next().unwrap();
            assert!(kind.starts_with(&format!("# TYPE {name} ")), "{kind}");
            assert_eq!(kind.ends_with("counter"), name.ends_with("_total"), "{kind}");
        }
        assert!(seen.len() > 20);
    }
}
