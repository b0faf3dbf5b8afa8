//! `ria netcheck`: the first line says what matters most and what to do; then come the facts.

use ria_api::client::Network;
use ria_api::state::{Answer, NatBehaviour, NetworkReport, Severity};
use serde::Serialize;

use super::Context;
use super::args::NetworkArg;
use super::failure::Failure;
use super::output::{Colour, Output, millis, with_progress};

/// A report with its network's name.
#[derive(Debug, Serialize)]
struct Named {
    network: String,
    network_id: String,
    #[serde(flatten)]
    report: NetworkReport,
}

pub async fn run(context: &Context, wanted: &NetworkArg) -> Result<(), Failure> {
    let networks = context.networks(wanted).await?;
    let mut reports = Vec::with_capacity(networks.len());
    for Network { summary, proxy } in networks {
        let what = format!("measuring the network below {}", summary.name);
        let report = with_progress(&what, proxy.netcheck()).await?;
        reports.push(Named { network: summary.name, network_id: summary.id, report });
    }
    let output = context.output;
    if output.json {
        // The networks share what is below them, mostly; with one of them its report also stands by itself.
        let mut value = serde_json::json!({ "networks": reports });
        if let ([only], Some(object)) = (reports.as_slice(), value.as_object_mut()) {
            let own = serde_json::to_value(only).ok();
            object.extend(own.and_then(|own| own.as_object().cloned()).into_iter().flatten());
        }
        return Ok(output.value(&value)?);
    }
    let named = reports.len() > 1;
    for Named { network, report, .. } in &reports {
        let title = if named { format!("{network}: ") } else { String::new() };
        output.lines(in_words(output, &title, report))?;
    }
    Ok(())
}

fn in_words(output: Output, title: &str, report: &NetworkReport) -> Vec<String> {
    let worst = report.findings.first().map(|finding| finding.severity);
    let mut lines = vec![output.paint(colour(worst), format!("{title}{}", report.verdict))];
    lines.extend(facts(report).into_iter().map(|(name, text)| format!("  {name:<16} {text}")));
    for finding in report.findings.iter().skip(1) {
        let severity = output.paint(colour(Some(finding.severity)), finding.severity);
        lines.push(format!("  {severity} {}: {}", finding.code, finding.text));
    }
    lines
}

fn colour(severity: Option<Severity>) -> Colour {
    match severity {
        None => Colour::Good,
        Some(Severity::Error) => Colour::Bad,
        Some(Severity::Warning) => Colour::Warning,
        Some(Severity::Info | Severity::Unknown) => Colour::Plain,
    }
}

fn facts(report: &NetworkReport) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("UDP", answer(report.udp).to_owned()),
        ("IPv4", with_address(report.ipv4, &report.public_ipv4)),
        ("IPv6", with_address(report.ipv6, &report.public_ipv6)),
        ("NAT mapping", behaviour(report.mapping).to_owned()),
        ("NAT filtering", behaviour(report.filtering).to_owned()),
        ("hairpin", answer(report.hairpin).to_owned()),
        ("port mapping", port_mapping(report)),
        ("captive portal", answer(report.captive_portal).to_owned()),
        ("client isolation", isolation(report)),
        ("coordinator", coordinator(report)),
    ];
    if let Some(mtu) = report.mtu {
        facts.push(("packet size", format!("{mtu} bytes reach the relay whole")));
    }
    facts.extend(report.relays.iter().map(|relay| {
        let rtt = relay.rtt.map_or_else(|| "no answer over UDP".to_owned(), millis);
        let used = if relay.name == report.relay { ", in use" } else { "" };
        ("relay", format!("{} {}, {rtt}{used}", relay.name, relay.address))
    }));
    facts
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Unknown => "unknown",
    }
}

fn with_address(works: Answer, public: &str) -> String {
    if public.is_empty() { answer(works).to_owned() } else { format!("{}, {public}", answer(works)) }
}

fn behaviour(behaviour: NatBehaviour) -> &'static str {
    match behaviour {
        NatBehaviour::None => "no NAT",
        NatBehaviour::EndpointIndependent => "endpoint-independent",
        NatBehaviour::PortIndependent => "endpoint-independent or address-dependent (one server can't tell)",
        NatBehaviour::EndpointDependent => "address-dependent or address-and-port-dependent",
        NatBehaviour::AddressDependent => "address-dependent",
        NatBehaviour::AddressAndPortDependent => "address-and-port-dependent",
        NatBehaviour::Unknown => "unknown (the relays can't tell)",
    }
}

fn port_mapping(report: &NetworkReport) -> String {
    let protocols = report.port_mapping_protocols.join(", ");
    match (report.port_mapping, report.port_mapping_address.is_empty()) {
        (Answer::Yes, false) => format!("{}, by {protocols}", report.port_mapping_address),
        (Answer::Yes, true) => protocols,
        (Answer::No, _) => "none offered by the router".into(),
        (Answer::Unknown, _) => "not asked for".into(),
    }
}

fn isolation(report: &NetworkReport) -> String {
    match report.client_isolation {
        Answer::Yes => format!("yes; not found: {}", report.isolated_peers.join(", ")),
        Answer::No => "no".into(),
        Answer::Unknown => "unknown; no relayed peer is in this local network".into(),
    }
}

fn coordinator(report: &NetworkReport) -> String {
    let by = |how: &str, answer: Answer| match answer {
        Answer::Yes => Some(format!("reached {how}")),
        Answer::No => Some(format!("not reached {how}")),
        Answer::Unknown => None,
    };
    let parts = [by("directly", report.coordinator_tcp), by("by the proxy", report.coordinator_proxy)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "unknown".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use ria_api::state::{Condition, RelayReport};

    use super::*;

    #[test]
    fn the_verdict_comes_first_and_is_not_said_twice() {
        let finding = |code: &str, text: &str| Condition {
            code: code.into(),
            text: text.into(),
            severity: Severity::Warning,
            since: 0.0,
        };
        let report = NetworkReport {
            verdict: "isolated".into(),
            findings: vec![finding("client-isolation", "isolated"), finding("symmetric-nat", "symmetric")],
            relay: "coordinator".into(),
            relays: vec![RelayReport { name: "coordinator".into(), address: "a:1".into(), rtt: Some(0.012) }],
            ..NetworkReport::default()
        };
        let lines = in_words(Output::new(false), "", &report);
        assert_eq!(lines[0], "isolated");
        assert!(
            lines.contains(&"  relay            coordinator a:1, 12.0 ms, in use".to_owned()),
            "{lines:?}"
        );
        assert!(lines.last().is_some_and(|line| line.contains("symmetric-nat: symmetric")));
        assert!(!lines.iter().any(|line| line.contains("client-isolation:")));
    }
}
