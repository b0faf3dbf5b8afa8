//! `ria status`: the first line says whether it works, and what to do if not; the rest is for the curious.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ria_api::state::{
    AgentStatus, Condition, Connectivity, CoordinatorState, NetworkState, NetworkStatus, Severity, Uplink,
    UplinkKind,
};
use serde_json::json;

use super::Context;
use super::args::NetworkArg;
use super::failure::{Failure, NOT_JOINED};
use super::output::{Colour, Output, bytes, span};
use crate::names::{self, DOMAIN, HOSTS, Place};

/// How a network does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Works,
    Limited,
    Off,
    Broken,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Limited => "limited",
            Self::Off => "off",
            Self::Broken => "broken",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Works => Colour::Good,
            Self::Limited => Colour::Warning,
            Self::Off => Colour::Dim,
            Self::Broken => Colour::Bad,
        }
    }
}

pub async fn run(context: &Context, wanted: &NetworkArg) -> Result<(), Failure> {
    let agent = context.agent().await?;
    let status = agent.proxy().status().await?;
    let mut networks = Vec::new();
    for summary in &status.networks {
        if wanted.network.as_ref().is_none_or(|w| *w == summary.name || *w == summary.id) {
            networks.push(agent.network_at(&summary.path).await?.status().await?);
        }
    }
    if let (true, Some(_)) = (networks.is_empty(), &wanted.network) {
        // Tells that there is none, or which there are.
        agent.network(wanted.network.as_deref()).await?;
    }
    let output = context.output;
    if output.json {
        output.value(&in_json(&status, &networks))?;
    } else {
        output.lines(in_words(output, &status, &networks))?;
    }
    if networks.is_empty() { Err(Failure::Silent { code: NOT_JOINED }) } else { Ok(()) }
}

fn in_json(agent: &AgentStatus, networks: &[NetworkStatus]) -> serde_json::Value {
    let health = |n: &NetworkStatus| {
        let (health, text) = judge(n);
        json!({ "network": n.network, "health": health.word(), "text": text })
    };
    json!({
        "joined": !networks.is_empty(),
        "summary": networks.iter().map(health).collect::<Vec<_>>(),
        "agent": agent,
        "networks": networks,
    })
}

fn in_words(output: Output, agent: &AgentStatus, networks: &[NetworkStatus]) -> Vec<String> {
    let mut lines = Vec::new();
    if networks.is_empty() {
        lines.push(output.paint(
            Colour::Warning,
            "not joined: this machine is in no network; get a join key from the administrator, then: ria join -",
        ));
        lines.push(format!("  agent        {} runs", agent.version));
    }
    for network in networks {
        let (health, text) = judge(network);
        let named_alike = networks.iter().filter(|n| n.network == network.network).count() > 1;
        let id = if named_alike { format!(" ({})", network.network_id) } else { String::new() };
        let first = format!("{}{id} {}: {text}", network.network, health.word());
        lines.push(output.paint(health.colour(), first));
        details(network, agent, &mut lines);
        lines.extend(network.conditions.iter().map(|c| in_line(output, c)));
    }
    lines.extend(uplink(&agent.uplink).map(|text| format!("  {:<12} {text}", "connected by")));
    lines.extend(agent.conditions.iter().map(|c| in_line(output, c)));
    lines
}

/// What the machine is connected by, for people.
fn uplink(uplink: &Uplink) -> Option<String> {
    if uplink.interface.is_empty() {
        return None;
    }
    let kind = Some(uplink.kind).filter(|kind| *kind != UplinkKind::Unknown).map(|kind| match kind {
        UplinkKind::Wifi => "Wi-Fi".to_owned(),
        kind @ (UplinkKind::Ethernet | UplinkKind::Mobile | UplinkKind::Other | UplinkKind::Unknown) => {
            kind.to_string()
        }
    });
    let far = match uplink.connectivity {
        Connectivity::None => Some("leads nowhere"),
        Connectivity::Portal => Some("wants a login (captive portal)"),
        Connectivity::Limited => Some("not to the internet"),
        Connectivity::Full | Connectivity::Unknown => None,
    };
    let parts = [
        Some(uplink.interface.clone()),
        kind,
        uplink.ssid.as_ref().map(|ssid| format!("\"{ssid}\"")),
        uplink.access_point.as_ref().map(|point| format!("access point {point}")),
        uplink.signal.map(|dbm| format!("{dbm:.0} dBm")),
        uplink.rate.map(|rate| format!("{:.0} Mbit/s", rate / 1e6)),
        far.map(str::to_owned),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn details(network: &NetworkStatus, agent: &AgentStatus, lines: &mut Vec<String>) {
    let mut add = |title: &str, text: String| lines.push(format!("  {title:<12} {text}"));
    let n = network;
    let addresses = n.addresses.join(", ");
    let place = if n.interface.is_empty() {
        String::from("no interface")
    } else {
        format!("{} {addresses}, MTU {}", n.interface, n.mtu)
    };
    add("this machine", format!("{}, {place}", n.name));
    // As this machine's programs find it, whatever the agent may have meant.
    let full = format!("{}.{}.{DOMAIN}", n.name, n.network);
    if agent.names == Place::Resolved.word() {
        add("names", format!("by systemd-resolved, such as {full}"));
    } else if names::are_known(&full) {
        add("names", format!("in {HOSTS}, such as {full}"));
    }
    if !n.fingerprint.is_empty() {
        add("fingerprint", n.fingerprint.clone());
    }
    add("coordinator", coordinator(n));
    add("peers", format!("{} of {} answer", n.peers_up, n.peers_total));
    if let Some(version) = n.policy_version {
        add("policy", format!("version {version}: what no rule allows is denied"));
    }
    let relay = if n.relay.is_empty() { "none" } else { &n.relay };
    add("relay", relay.to_owned());
    let candidates =
        if n.candidates.is_empty() { String::new() } else { format!("; {}", n.candidates.join(", ")) };
    add("tunnel", format!("UDP port {}{candidates}", n.udp_port));
    if !n.report.port_mapping_address.is_empty() {
        add("port mapping", format!("{} by the router", n.report.port_mapping_address));
    }
    add("traffic", format!("{} in, {} out", bytes(n.rx_bytes), bytes(n.tx_bytes)));
    if n.drops.values().any(|count| *count > 0) {
        add("dropped", dropped(&n.drops));
    }
    if n.certificate_expires > 0.0 {
        // The end is by the coordinator's clock, and so is what is left.
        let coordinator = now() - n.clock_offset.unwrap_or(0.0);
        add("certificate", certificate(n.certificate_expires - coordinator));
    }
}

fn coordinator(n: &NetworkStatus) -> String {
    let known = n.coordinator_state != CoordinatorState::Unknown;
    let state = if known { n.coordinator_state.as_str() } else { "not connected" };
    let version =
        Some(format!("version {}", n.coordinator_version)).filter(|_| !n.coordinator_version.is_empty());
    let url = Some(n.coordinator_url.clone()).filter(|u| !u.is_empty());
    let parts = [Some(state.to_owned()), url, version, Some(format!("map {}", n.map_revision))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn certificate(left: f64) -> String {
    if left > 0.0 { format!("valid for {}", span(left)) } else { format!("expired {} ago", span(-left)) }
}

fn in_line(output: Output, condition: &Condition) -> String {
    let colour = match condition.severity {
        Severity::Error => Colour::Bad,
        Severity::Warning => Colour::Warning,
        Severity::Info | Severity::Unknown => Colour::Plain,
    };
    let Condition { severity, code, text, since } = condition;
    let age = if *since > 0.0 { format!(" (for {})", span(now() - since)) } else { String::new() };
    format!("  {} {code}: {text}{age}", output.paint(colour, severity))
}

/// How many packets were dropped, and where: the most frequent reasons first.
fn dropped(drops: &BTreeMap<String, u64>) -> String {
    let mut reasons: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    format!("{} packets: {}", drops.values().sum::<u64>(), reasons.join(", "))
}

/// Whether it works, and what to do if not.
fn judge(network: &NetworkStatus) -> (Health, String) {
    let worst = |severity| network.conditions.iter().find(|c| c.severity == severity).map(|c| c.text.clone());
    match network.state {
        NetworkState::Joining => (Health::Limited, "joining; the coordinator has not let it in yet".into()),
        NetworkState::Waiting => (Health::Limited, "waiting for approval by an administrator".into()),
        NetworkState::Disabled => (Health::Off, "switched off; on again with: ria up".into()),
        NetworkState::Refused => (
            Health::Broken,
            worst(Severity::Error).unwrap_or_else(|| {
                "the coordinator refuses this machine; ask the administrator for a new join key, then: ria leave --yes \
                 and ria join -"
                    .into()
            }),
        ),
        NetworkState::Failed => (
            Health::Broken,
            worst(Severity::Error)
                .unwrap_or_else(|| "the interface could not be made; see the agent's log: journalctl -u ria".into()),
        ),
        NetworkState::Up => judge_up(network, worst(Severity::Error)),
        NetworkState::Unknown => (Health::Broken, "the agent is newer than this command; update ria".into()),
    }
}

fn judge_up(network: &NetworkStatus, error: Option<String>) -> (Health, String) {
    let NetworkStatus { peers_up, peers_total, .. } = network;
    let peers = match peers_total {
        0 => "up; no other member yet".to_owned(),
        total => format!("{peers_up} of {total} peers answer"),
    };
    if let Some(error) = error {
        return (Health::Broken, error);
    }
    if *peers_total > 0 && *peers_up == 0 {
        return (Health::Limited, format!("{peers}; see: ria peers"));
    }
    match network.coordinator_state {
        CoordinatorState::Connected => (Health::Works, format!("{peers}, coordinator connected")),
        CoordinatorState::Connecting => (Health::Works, format!("{peers}, connecting to the coordinator")),
        CoordinatorState::Unreachable | CoordinatorState::Unknown => {
            let url = &network.coordinator_url;
            let named = if url.is_empty() { String::new() } else { format!(" {url}") };
            let text = format!(
                "{peers}; the coordinator{named} can't be reached, so changes do not arrive: see that it runs and \
                 that this network lets you reach it"
            );
            (Health::Limited, text)
        }
        CoordinatorState::Refused => (
            Health::Broken,
            "the coordinator refuses this machine; ask the administrator whether it was removed".into(),
        ),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_is_connected_by_is_one_line() {
        assert_eq!(uplink(&Uplink::default()), None);
        let by_the_kernel = Uplink { interface: "eth0".into(), source: "kernel".into(), ..Uplink::default() };
        assert_eq!(uplink(&by_the_kernel).as_deref(), Some("eth0"));
        let wifi = Uplink {
            interface: "wlan0".into(),
            kind: UplinkKind::Wifi,
            connectivity: Connectivity::Portal,
            ssid: Some("lab".into()),
            access_point: Some("02:00:5E:10:00:01".into()),
            signal: Some(-62.4),
            rate: Some(866e6),
            ..Uplink::default()
        };
        let told = "wlan0, Wi-Fi, \"lab\", access point 02:00:5E:10:00:01, -62 dBm, 866 Mbit/s, wants a login (captive portal)";
        assert_eq!(uplink(&wifi).as_deref(), Some(told));
    }

    fn up() -> NetworkStatus {
        NetworkStatus {
            network: "lab".into(),
            state: NetworkState::Up,
            coordinator_state: CoordinatorState::Connected,
            peers_up: 2,
            peers_total: 3,
            ..NetworkStatus::default()
        }
    }

    #[test]
    fn the_first_line_says_whether_it_works() {
        assert_eq!(judge(&up()), (Health::Works, "2 of 3 peers answer, coordinator connected".into()));
        let alone = NetworkStatus { peers_up: 0, peers_total: 0, ..up() };
        assert_eq!(judge(&alone).0, Health::Works);
        let deaf = NetworkStatus { peers_up: 0, ..up() };
        assert_eq!(judge(&deaf).0, Health::Limited);
    }

    #[test]
    fn and_what_to_do_if_not() {
        let off = NetworkStatus { state: NetworkState::Disabled, ..up() };
        assert!(judge(&off).1.contains("ria up"));
        let lonely = NetworkStatus { coordinator_state: CoordinatorState::Unreachable, ..up() };
        assert_eq!(judge(&lonely).0, Health::Limited);
        let broken = Condition {
            severity: Severity::Error,
            text: "load the module tun".into(),
            ..Condition::default()
        };
        for state in [NetworkState::Failed, NetworkState::Up] {
            let failed = NetworkStatus { state, conditions: vec![broken.clone()], ..up() };
            assert_eq!(judge(&failed), (Health::Broken, "load the module tun".into()));
        }
    }
}
