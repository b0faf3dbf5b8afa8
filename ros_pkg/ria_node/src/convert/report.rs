//! The last measurement of the network below.

use r2r::ria_msgs::msg;
use ria_api::state::{Answer, NatBehaviour, NetworkReport, NetworkStatus};

use super::{number, time};
use crate::constants::reports;

/// `NetworkReport.ANSWER_*`.
fn answer(answer: Answer) -> u8 {
    match answer {
        Answer::Yes => reports::ANSWER_YES,
        Answer::No => reports::ANSWER_NO,
        Answer::Unknown => reports::ANSWER_UNKNOWN,
    }
}

/// `NetworkReport.NAT_*`, which tell less than the agent does: what matters for direct paths.
fn nat(mapping: NatBehaviour) -> u8 {
    match mapping {
        NatBehaviour::None => reports::NAT_NONE,
        NatBehaviour::EndpointIndependent | NatBehaviour::PortIndependent => {
            reports::NAT_ENDPOINT_INDEPENDENT
        }
        NatBehaviour::EndpointDependent
        | NatBehaviour::AddressDependent
        | NatBehaviour::AddressAndPortDependent => reports::NAT_ENDPOINT_DEPENDENT,
        NatBehaviour::Unknown => reports::NAT_UNKNOWN,
    }
}

/// `NetworkReport.FILTERING_*`. What depends on the other end, and nobody knows how, counts as the strictest.
fn filtering(filtering: NatBehaviour) -> u8 {
    match filtering {
        NatBehaviour::None => reports::FILTERING_NONE,
        NatBehaviour::EndpointIndependent | NatBehaviour::PortIndependent => {
            reports::FILTERING_ENDPOINT_INDEPENDENT
        }
        NatBehaviour::AddressDependent => reports::FILTERING_ADDRESS_DEPENDENT,
        NatBehaviour::AddressAndPortDependent | NatBehaviour::EndpointDependent => {
            reports::FILTERING_ADDRESS_AND_PORT_DEPENDENT
        }
        NatBehaviour::Unknown => reports::FILTERING_UNKNOWN,
    }
}

/// As part of a status: what is known at any time stands beside what was measured.
pub fn status_report(network: &NetworkStatus) -> msg::NetworkReport {
    msg::NetworkReport {
        udp_port: u16::try_from(network.udp_port).unwrap_or(0),
        candidates: network.candidates.clone(),
        relay: network.relay.clone(),
        ..report(&network.report)
    }
}

/// As the answer to a call.
pub fn report(report: &NetworkReport) -> msg::NetworkReport {
    msg::NetworkReport {
        stamp: time(report.time),
        nat: nat(report.mapping),
        filtering: filtering(report.filtering),
        hairpin: answer(report.hairpin),
        client_isolation: answer(report.client_isolation),
        udp: answer(report.udp),
        ipv4: answer(report.ipv4),
        ipv6: answer(report.ipv6),
        captive_portal: answer(report.captive_portal),
        port_mapping: answer(report.port_mapping),
        public_ipv4: report.public_ipv4.clone(),
        public_ipv6: report.public_ipv6.clone(),
        udp_port: u16::try_from(report.udp_port).unwrap_or(0),
        candidates: report.candidates.clone(),
        relay: report.relay.clone(),
        relays: report.relays.iter().map(|relay| relay.name.clone()).collect(),
        relay_rtts: report.relays.iter().map(|relay| number(relay.rtt)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ria_api::state::RelayReport;

    use super::*;

    #[test]
    fn what_was_never_measured_is_unknown() {
        let network =
            NetworkStatus { udp_port: 41820, relay: "coordinator".into(), ..NetworkStatus::default() };
        let message = status_report(&network);
        assert_eq!(
            (message.stamp.sec, message.nat, message.udp),
            (0, reports::NAT_UNKNOWN, reports::ANSWER_UNKNOWN)
        );
        assert_eq!((message.udp_port, message.relay.as_str()), (41820, "coordinator"));
    }

    #[test]
    fn relays_and_their_times_go_together() {
        let relay = |name: &str, rtt| RelayReport { name: name.into(), address: String::new(), rtt };
        let message = report(&NetworkReport {
            time: 5.0,
            mapping: NatBehaviour::AddressDependent,
            filtering: NatBehaviour::AddressAndPortDependent,
            hairpin: Answer::No,
            relays: vec![relay("near", Some(0.01)), relay("dead", None)],
            ..NetworkReport::default()
        });
        assert_eq!((message.stamp.sec, message.nat), (5, reports::NAT_ENDPOINT_DEPENDENT));
        assert_eq!(message.filtering, reports::FILTERING_ADDRESS_AND_PORT_DEPENDENT);
        assert_eq!(
            (message.hairpin, message.client_isolation),
            (reports::ANSWER_NO, reports::ANSWER_UNKNOWN)
        );
        assert_eq!(message.relays, ["near", "dead"]);
        assert!(message.relay_rtts[0] > 0.0 && message.relay_rtts[1].is_nan());
    }
}
