//! What the measurement means, in words, and the one thing to do.

use ria_api::state::{Answer, Condition, NatBehaviour, NetworkReport, Severity};

use super::Found;
use super::classify::is_symmetric;

/// Below this packets of the overlay's default size (1280, with headers of WireGuard, UDP, IP and a relay) are cut.
const LEAST_MTU: u32 = 1400;

fn finding(code: &str, severity: Severity, text: impl Into<String>, report: &NetworkReport) -> Condition {
    Condition { code: code.into(), severity, text: text.into(), since: report.time }
}

/// All that hinders, worst first; what matters most stands first among equals.
pub fn findings(report: &NetworkReport, found: &Found) -> Vec<Condition> {
    let mut list = Vec::new();
    let mut add = |code, severity, text: String| list.push(finding(code, severity, text, report));
    if !found.has_route {
        let text = "this machine is in no network that leads anywhere; connect it (cable, Wi-Fi) first";
        add("no-network", Severity::Error, text.into());
    }
    reachability(report, found, &mut add);
    obstacles(report, found, &mut add);
    // Stable: errors first, then as they were added.
    list.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    list
}

fn reachability(report: &NetworkReport, found: &Found, add: &mut impl FnMut(&'static str, Severity, String)) {
    let reached = found.coordinator.reached();
    if report.captive_portal == Answer::Yes {
        let text = "a captive portal answers in the coordinator's place; log in to this Wi-Fi with a browser, or have \
                    this machine exempted from the login";
        add("captive-portal", Severity::Error, text.into());
    } else if !reached && found.has_route {
        let why = &found.coordinator.trouble;
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        add("coordinator-unreachable", Severity::Warning, format!("the coordinator is not reached{why}"));
    }
    if reached && report.coordinator_tcp == Answer::No {
        let text = "the coordinator is reached by the proxy only, so all traffic to peers elsewhere goes through it; ask \
                    for UDP to the coordinator's relay port (3478) to be let out";
        add("proxy-only", Severity::Info, text.into());
    }
    if report.udp == Answer::No {
        let text = "no UDP gets out of this network, so peers are reached over TLS, which is slower and stumbles when \
                    packets get lost; ask for UDP to the coordinator's relay port (3478) to be let out";
        add("udp-blocked", Severity::Warning, text.into());
    }
    let silent: Vec<&str> =
        report.relays.iter().filter(|relay| relay.rtt.is_none()).map(|relay| relay.name.as_str()).collect();
    if report.udp == Answer::Yes && !silent.is_empty() {
        let text = format!(
            "of the relays, {} did not answer over UDP; is it running, and is its port published?",
            silent.join(", ")
        );
        add("relay-silent", Severity::Info, text);
    }
}

fn obstacles(report: &NetworkReport, found: &Found, add: &mut impl FnMut(&'static str, Severity, String)) {
    if report.client_isolation == Answer::Yes {
        let text = format!(
            "the access point isolates its clients: {} in the same network can't even be seen from here, so packets \
             take the relay; ask for client isolation to be switched off for this network, or use another",
            report.isolated_peers.join(", ")
        );
        add("client-isolation", Severity::Warning, text);
    }
    if !found.isolation.blocked.is_empty() {
        let text = format!(
            "{} in the same network can be seen and yet is not reached directly; does a firewall there, or here, block \
             UDP port 41820?",
            found.isolation.blocked.join(", ")
        );
        add("local-firewall", Severity::Info, text);
    }
    if is_symmetric(report.mapping) && report.port_mapping != Answer::Yes {
        let text = "the NAT gives each destination another port (\"symmetric\"), so peers behind strict NATs are reached \
                    by the relay; switch on UPnP or PCP in the router, or use IPv6";
        add("symmetric-nat", Severity::Info, text.into());
    }
    if let Some(mtu) = report.mtu.filter(|mtu| *mtu < LEAST_MTU) {
        let text = format!(
            "packets of more than {mtu} bytes do not pass; if large ROS messages get lost, give the network a smaller \
             MTU (ria-coordinator network set)"
        );
        add("small-mtu", Severity::Info, text);
    }
}

/// What matters most, or that all is well.
pub fn verdict(report: &NetworkReport) -> String {
    match report.findings.first() {
        Some(finding) => finding.text.clone(),
        None => well(report),
    }
}

fn well(report: &NetworkReport) -> String {
    let direct = match report.mapping {
        NatBehaviour::None => "there is no NAT",
        NatBehaviour::EndpointIndependent | NatBehaviour::PortIndependent => {
            "the NAT lets direct paths through"
        }
        NatBehaviour::EndpointDependent
        | NatBehaviour::AddressDependent
        | NatBehaviour::AddressAndPortDependent => "the router has opened a port",
        NatBehaviour::Unknown if report.udp == Answer::Yes => "UDP passes",
        NatBehaviour::Unknown => return "nothing hinders, as far as could be told".into(),
    };
    format!("nothing hinders: {direct}, and peers whose network does the same are reached directly")
}

#[cfg(test)]
mod tests {
    use super::super::coordinator::Found as FoundCoordinator;
    use super::super::isolation::Isolation;
    use super::*;

    fn judged(report: NetworkReport, found: Found) -> NetworkReport {
        let mut report = NetworkReport { findings: findings(&report, &found), ..report };
        report.verdict = verdict(&report);
        report
    }

    fn reached() -> Found {
        let coordinator = FoundCoordinator { direct: Answer::Yes, ..FoundCoordinator::default() };
        Found { coordinator, has_route: true, ..Found::default() }
    }

    fn codes(report: &NetworkReport) -> Vec<&str> {
        report.findings.iter().map(|finding| finding.code.as_str()).collect()
    }

    #[test]
    fn the_verdict_is_what_matters_most() {
        let portal =
            NetworkReport { captive_portal: Answer::Yes, udp: Answer::Unknown, ..NetworkReport::default() };
        let judged_portal = judged(portal, Found { has_route: true, ..Found::default() });
        assert_eq!(codes(&judged_portal), ["captive-portal"]);
        assert!(judged_portal.verdict.contains("browser"));

        let isolated = NetworkReport {
            udp: Answer::Yes,
            client_isolation: Answer::Yes,
            isolated_peers: vec!["robot-2".into()],
            mapping: NatBehaviour::AddressAndPortDependent,
            ..NetworkReport::default()
        };
        let isolated = judged(isolated, reached());
        assert_eq!(codes(&isolated), ["client-isolation", "symmetric-nat"]);
        assert!(isolated.verdict.contains("isolates its clients") && isolated.verdict.contains("robot-2"));

        let blocked = NetworkReport { udp: Answer::No, ..NetworkReport::default() };
        assert_eq!(codes(&judged(blocked, reached())), ["udp-blocked"]);
        let nothing = judged(NetworkReport::default(), Found::default());
        assert_eq!(codes(&nothing), ["no-network"]);
    }

    #[test]
    fn a_port_that_the_router_opens_makes_up_for_its_nat() {
        let report = NetworkReport {
            udp: Answer::Yes,
            mapping: NatBehaviour::AddressAndPortDependent,
            port_mapping: Answer::Yes,
            ..NetworkReport::default()
        };
        let report = judged(report, reached());
        assert!(report.findings.is_empty() && report.verdict.contains("opened a port"), "{report:?}");
    }

    #[test]
    fn a_neighbour_that_is_seen_and_silent_is_a_firewalls_doing() {
        let isolation = Isolation { blocked: vec!["robot-2".into()], ..Isolation::default() };
        let report = judged(NetworkReport::default(), Found { isolation, ..reached() });
        assert_eq!(codes(&report), ["local-firewall"]);
    }
}
