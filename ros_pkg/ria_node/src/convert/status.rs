//! Status of the agent and its networks.

use r2r::ria_msgs::msg;
use ria_api::state::{
    AgentStatus, Condition, CoordinatorState, NetworkState, NetworkStatus, Uplink, UplinkKind,
};

use super::{Reporter, condition, key_value, number, status_report, time};
use crate::constants::statuses;

/// `Status.STATE_*`.
pub fn state(state: NetworkState) -> u8 {
    match state {
        NetworkState::Joining => statuses::STATE_JOINING,
        NetworkState::Waiting => statuses::STATE_WAITING,
        NetworkState::Up => statuses::STATE_UP,
        NetworkState::Disabled => statuses::STATE_DISABLED,
        NetworkState::Refused => statuses::STATE_REFUSED,
        NetworkState::Failed => statuses::STATE_FAILED,
        NetworkState::Unknown => statuses::STATE_UNKNOWN,
    }
}

/// `Status.COORDINATOR_*`.
pub fn coordinator(state: CoordinatorState) -> u8 {
    match state {
        CoordinatorState::Connecting => statuses::COORDINATOR_CONNECTING,
        CoordinatorState::Connected => statuses::COORDINATOR_CONNECTED,
        CoordinatorState::Unreachable => statuses::COORDINATOR_UNREACHABLE,
        CoordinatorState::Refused => statuses::COORDINATOR_REFUSED,
        CoordinatorState::Unknown => statuses::COORDINATOR_UNKNOWN,
    }
}

/// What this node adds of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own<'a> {
    /// The agent as a whole; `None` when there is none.
    pub agent: Option<&'a AgentStatus>,
    /// Health as this node sees it.
    pub conditions: &'a [Condition],
}

impl Own<'_> {
    fn conditions(&self) -> Vec<msg::Condition> {
        let of_agent = self.agent.map_or(&[][..], |a| a.conditions.as_slice());
        of_agent.iter().chain(self.conditions).map(condition).collect()
    }
}

/// One network.
pub fn network_status(network: &NetworkStatus, reporter: &Reporter, own: Own<'_>) -> msg::Status {
    let mut conditions: Vec<_> = network.conditions.iter().map(condition).collect();
    conditions.extend(own.conditions());
    let host_name = match (network.name.as_str(), network.network.as_str()) {
        ("", _) | (_, "") => String::new(),
        (name, network) => format!("{name}.{network}.ria.internal"),
    };
    msg::Status {
        ros_name: network.ros_name.clone(),
        network: network.network.clone(),
        network_id: network.network_id.clone(),
        state: state(network.state),
        interface: network.interface.clone(),
        addresses: network.addresses.clone(),
        host_name,
        mtu: network.mtu,
        public_key: network.public_key.clone(),
        coordinator: coordinator(network.coordinator_state),
        coordinator_url: network.coordinator_url.clone(),
        map_revision: network.map_revision,
        peers_total: network.peers_total,
        peers_up: network.peers_up,
        report: status_report(network),
        conditions,
        certificate_expires: time(network.certificate_expires),
        rx_bytes: network.rx_bytes,
        tx_bytes: network.tx_bytes,
        coordinator_version: network.coordinator_version.clone(),
        details: network.drops.iter().map(|(why, n)| key_value(format!("dropped: {why}"), n)).collect(),
        ..bare(reporter, own)
    }
}

/// No agent, or an agent in no network: `state` says which.
pub fn status_without_network(reporter: &Reporter, own: Own<'_>) -> msg::Status {
    let state = match own.agent {
        Some(_) => statuses::STATE_NOT_JOINED,
        None => statuses::STATE_NO_AGENT,
    };
    msg::Status {
        state,
        ros_name: reporter.name.replace('-', "_"),
        conditions: own.conditions(),
        ..bare(reporter, own)
    }
}

fn bare(reporter: &Reporter, own: Own<'_>) -> msg::Status {
    let agent = |of: fn(&AgentStatus) -> &String| own.agent.map(of).cloned().unwrap_or_default();
    msg::Status {
        header: reporter.header(),
        reporter: reporter.name.clone(),
        reporter_id: reporter.id.clone(),
        wifi: own.agent.map_or_else(|| wifi(&Uplink::default()), |agent| wifi(&agent.uplink)),
        agent_version: agent(|a| &a.version),
        boot_id: agent(|a| &a.boot_id),
        node_version: env!("CARGO_PKG_VERSION").into(),
        ..msg::Status::default()
    }
}

/// The Wi-Fi below. NetworkManager gives one rate for both directions, that of sending.
fn wifi(uplink: &Uplink) -> msg::Wifi {
    let is_wifi = uplink.kind == UplinkKind::Wifi;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    msg::Wifi {
        interface: if is_wifi { uplink.interface.clone() } else { String::new() },
        ssid: text(&uplink.ssid),
        access_point: text(&uplink.access_point),
        frequency: number(uplink.frequency),
        signal: number(uplink.signal),
        rx_rate: f32::NAN,
        tx_rate: number(uplink.rate),
    }
}

#[cfg(test)]
mod tests {
    use ria_api::state::Severity;

    use super::*;

    fn reporter() -> Reporter {
        Reporter { name: "robot-1".into(), id: "n1".into(), ..Reporter::default() }
    }

    fn warning(code: &str) -> Condition {
        Condition { code: code.into(), severity: Severity::Warning, text: "do this".into(), since: 3.0 }
    }

    #[test]
    fn without_an_agent_the_state_says_so_and_the_condition_what_to_do() {
        let conditions = [warning("agent-not-running")];
        let message = status_without_network(&reporter(), Own { agent: None, conditions: &conditions });
        assert_eq!(message.state, statuses::STATE_NO_AGENT);
        assert_eq!((message.reporter.as_str(), message.ros_name.as_str()), ("robot-1", "robot_1"));
        assert_eq!(
            (message.conditions[0].code.as_str(), message.conditions[0].since.sec),
            ("agent-not-running", 3)
        );
        assert_eq!(message.agent_version, "");
        assert!(message.wifi.signal.is_nan());
    }

    #[test]
    fn the_wi_fi_below_is_told_and_a_cable_is_none() {
        let uplink = Uplink {
            interface: "wlan0".into(),
            kind: UplinkKind::Wifi,
            ssid: Some("lab".into()),
            access_point: Some("02:00:5e:10:00:01".into()),
            frequency: Some(5.18e9),
            signal: Some(-62.0),
            rate: Some(866e6),
            ..Uplink::default()
        };
        let of = |uplink: Uplink| {
            let agent = AgentStatus { uplink, ..AgentStatus::default() };
            status_without_network(&reporter(), Own { agent: Some(&agent), conditions: &[] }).wifi
        };
        let told = of(uplink.clone());
        assert_eq!((told.interface.as_str(), told.ssid.as_str()), ("wlan0", "lab"));
        assert_eq!(told.access_point, "02:00:5e:10:00:01");
        assert!(
            (told.signal + 62.0).abs() < 1e-6
                && (told.tx_rate - 866e6).abs() < 100.0
                && told.rx_rate.is_nan()
        );
        let cable = of(Uplink { interface: "eth0".into(), kind: UplinkKind::Ethernet, ..Uplink::default() });
        assert!(cable.interface.is_empty() && cable.signal.is_nan());
    }

    #[test]
    fn an_agent_in_no_network_is_not_joined() {
        let agent = AgentStatus { version: "1.2.3".into(), boot_id: "b".into(), ..AgentStatus::default() };
        let message = status_without_network(&reporter(), Own { agent: Some(&agent), conditions: &[] });
        assert_eq!(message.state, statuses::STATE_NOT_JOINED);
        assert_eq!((message.agent_version.as_str(), message.boot_id.as_str()), ("1.2.3", "b"));
    }

    #[test]
    fn a_network_carries_the_conditions_of_all_three() {
        let agent = AgentStatus { conditions: vec![warning("of-agent")], ..AgentStatus::default() };
        let network = NetworkStatus {
            network: "lab".into(),
            name: "robot-1".into(),
            state: NetworkState::Up,
            coordinator_state: CoordinatorState::Unreachable,
            conditions: vec![warning("of-network")],
            drops: [("no_peer".to_owned(), 4)].into(),
            udp_port: 41820,
            ..NetworkStatus::default()
        };
        let own = [warning("of-node")];
        let message = network_status(&network, &reporter(), Own { agent: Some(&agent), conditions: &own });
        let codes: Vec<_> = message.conditions.iter().map(|c| c.code.as_str()).collect();
        assert_eq!(codes, ["of-network", "of-agent", "of-node"]);
        assert_eq!(message.state, statuses::STATE_UP);
        assert_eq!(message.coordinator, statuses::COORDINATOR_UNREACHABLE);
        assert_eq!(message.host_name, "robot-1.lab.ria.internal");
        assert_eq!(
            (message.details[0].key.as_str(), message.details[0].value.as_str()),
            ("dropped: no_peer", "4")
        );
        assert_eq!(message.report.udp_port, 41820);
    }
}
