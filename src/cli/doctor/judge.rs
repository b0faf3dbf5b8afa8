//! What the facts mean: pure, in the order of the way from a ROS process to a peer's.

mod clocks;
mod crowd;

use std::collections::{BTreeMap, BTreeSet};

use ria_api::environment::{CYCLONE_VARIABLE, DOMAIN_VARIABLE, FAST_DDS_VARIABLES, for_distro};
use ria_api::state::{CoordinatorState, LinkState, NetworkState, PeerKind, Severity};
use ria_core::DENIED_BY_POLICY;
use serde::Serialize;

use super::facts::{Facts, Middleware, NetworkFacts, Process};
use super::host::SETTINGS;
use crate::dds::{FAST_DDS_SERVERS, FAST_DDS_TRANSPORTS};

/// When nothing is wrong.
pub const WELL: &str = "nothing found that would keep ROS 2 nodes on the overlay apart";

/// The queue that bursts of large messages need.
const QUEUE: u64 = 10_000;

/// Conditions about two robots that have what only one should have.
const CLASH: &str = "ros-";

/// As many addresses are named.
const MOST_NAMED: usize = 5;

/// Clocks of processes and of the agent count in steps of this many seconds.
const STEP: f64 = 0.02;

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where on the way.
    pub stage: &'static str,
    /// Stable name.
    pub code: &'static str,
    pub severity: Severity,
    /// What it is.
    pub text: String,
    /// What to do; empty when nothing is to be done.
    pub next: String,
}

/// Findings in the making.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        stage: &'static str,
        code: &'static str,
        severity: Severity,
        text: String,
        next: String,
    ) {
        self.0.push(Finding { stage, code, severity, text, next });
    }

    fn fine(&mut self, stage: &'static str, code: &'static str, text: String) {
        self.add(stage, code, Severity::Info, text, String::new());
    }
}

/// All findings, those on the way first that come first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Findings::default();
    if facts.networks.is_empty() {
        let text = "this machine is in no network".to_owned();
        all.add("agent", "not-joined", Severity::Error, text, "join one: ria join --file KEYFILE".into());
        return all.0;
    }
    for condition in &facts.agent.conditions {
        all.add("agent", "condition", condition.severity, condition.text.clone(), "see the condition".into());
    }
    for network in &facts.networks {
        tunnel(&mut all, network);
        policy(&mut all, network);
        interface(&mut all, network);
        clocks::judge(&mut all, network);
    }
    environments(&mut all, facts);
    participants(&mut all, facts);
    crowd::judge(&mut all, facts);
    neighbours(&mut all, facts);
    daemon(&mut all, facts);
    shared_memory(&mut all, facts);
    buffers(&mut all, facts);
    all.0
}

fn tunnel(all: &mut Findings, network: &NetworkFacts) {
    let (status, name) = (&network.status, &network.status.network);
    let wrong = status.conditions.iter().filter(|c| c.severity != Severity::Info);
    for condition in wrong.filter(|c| !c.code.starts_with(CLASH)) {
        let text = format!("{name}: {} ({})", condition.text, condition.code);
        all.add(
            "tunnel",
            "condition",
            condition.severity,
            text,
            format!("see condition {} in ria status", condition.code),
        );
    }
    if status.state != NetworkState::Up {
        let next = if status.state == NetworkState::Disabled {
            format!("ria up --network {name}")
        } else {
            "ria status says why".into()
        };
        return all.add(
            "tunnel",
            "network-down",
            Severity::Error,
            format!("network {name} is {}", status.state),
            next,
        );
    }
    if status.coordinator_state != CoordinatorState::Connected {
        let text = format!(
            "the coordinator of {name} is {}; links work on, changes do not arrive",
            status.coordinator_state
        );
        all.add(
            "tunnel",
            "coordinator",
            Severity::Warning,
            text,
            "ria netcheck tells what is blocked".into(),
        );
    }
    links(all, network);
}

fn links(all: &mut Findings, network: &NetworkFacts) {
    let (status, name) = (&network.status, &network.status.network);
    let nodes = || network.peers.iter().filter(|peer| peer.kind != PeerKind::Static);
    for peer in nodes() {
        let text = format!("the link to {} is {}", peer.name, peer.link_state);
        match peer.link_state {
            LinkState::Lost | LinkState::Connecting if peer.coordinator_online => {
                let next = format!("ria ping {}; ria netcheck on both machines", peer.name);
                all.add("tunnel", "link", Severity::Error, text, next);
            }
            LinkState::Degraded => all.add(
                "tunnel",
                "link",
                Severity::Warning,
                text,
                "look at the Wi-Fi; ria peers shows the loss".into(),
            ),
            LinkState::Idle
            | LinkState::Connecting
            | LinkState::Up
            | LinkState::Lost
            | LinkState::Denied
            | LinkState::Unknown => {}
        }
    }
    let online = nodes().filter(|peer| peer.coordinator_online).count();
    all.fine(
        "tunnel",
        "peers",
        format!("{name}: {} of {} peers up, {online} online", status.peers_up, status.peers_total),
    );
}

fn policy(all: &mut Findings, network: &NetworkFacts) {
    let denied = network.peers.iter().filter(|peer| peer.link_state == LinkState::Denied);
    let (by_policy, others): (Vec<_>, Vec<_>) = denied.partition(|peer| peer.path_reason == DENIED_BY_POLICY);
    if !by_policy.is_empty() {
        let names: Vec<_> = by_policy.iter().map(|peer| peer.name.as_str()).collect();
        let text =
            format!("the network's policy allows nothing between this machine and {}", names.join(", "));
        all.fine("policy", "denied-by-policy", text);
    }
    for peer in others {
        let text = format!("nothing may pass between this machine and {}: {}", peer.name, peer.path_reason);
        all.add("policy", "denied", Severity::Warning, text, "ask the network's administrator".into());
    }
    let dropped = |reason: &str| network.status.drops.get(reason).copied().unwrap_or_default();
    let data = dropped("multicast-data");
    if data > 0 {
        let text = format!(
            "{data} multicast packets with data were not carried: a Cyclone DDS runs without Ria's settings"
        );
        all.add(
            "policy",
            "multicast-data",
            Severity::Warning,
            text,
            "start it with: eval \"$(ria env)\"".into(),
        );
    }
    let others = dropped("multicast-domain");
    if others > 0 {
        let text =
            format!("{others} announcements in ROS domains that {} does not carry", network.status.network);
        all.add(
            "policy",
            "multicast-domain",
            Severity::Warning,
            text,
            "use the domain that ria env gives".into(),
        );
    }
    let budget = dropped("multicast-budget");
    if budget > 0 {
        let text = format!("{budget} multicast packets were over the limit of a participant or a peer");
        all.add(
            "policy",
            "multicast-budget",
            Severity::Warning,
            text,
            "look for what sends that much: ria status --json, drops".into(),
        );
    }
}

fn interface(all: &mut Findings, network: &NetworkFacts) {
    let name = &network.status.interface;
    if network.status.state != NetworkState::Up {
        return;
    }
    let Some(seen) = network.interface else {
        let text = format!("there is no interface {name} here, though the agent has one");
        let next = "run ria doctor, and ROS 2, in the agent's network: on the machine itself, or in a container with its network";
        return all.add("interface", "interface-missing", Severity::Error, text, next.into());
    };
    if !seen.is_up || !seen.is_multicast {
        let lacks = if seen.is_up { "does no multicast" } else { "is down" };
        let next = format!("ip link set {name} up multicast on, and find out who changed it");
        all.add("interface", "interface-flags", Severity::Error, format!("{name} {lacks}"), next);
    }
    if seen.queue_length < QUEUE {
        let text = format!(
            "{name} has a queue of {} packets; bursts of large messages need {QUEUE}",
            seen.queue_length
        );
        all.add(
            "interface",
            "queue",
            Severity::Warning,
            text,
            format!("ip link set {name} txqueuelen {QUEUE}"),
        );
    }
    if seen.tx_dropped > 0 {
        let text = format!("{name} had no room for {} packets", seen.tx_dropped);
        all.add(
            "interface",
            "queue-drops",
            Severity::Warning,
            text,
            "send less at once, or smaller messages".into(),
        );
    }
    all.fine("interface", "interface", format!("{name} is up, MTU {}", network.status.mtu));
}

fn environments(all: &mut Findings, facts: &Facts) {
    let processes = &facts.processes;
    for process in processes.ros.iter().filter(|process| !process.is_daemon) {
        environment(all, facts, process);
    }
    let healthy = |process: &&Process| !process.is_daemon;
    let count = processes.ros.iter().filter(healthy).count();
    all.fine("processes", "processes", format!("{count} ROS 2 processes seen on this machine"));
    if let Some(first) = processes.hidden_ros.first() {
        let text = format!(
            "{} more look like ROS 2 and belong to other users ({first}, ...), so their settings were not seen",
            processes.hidden_ros.len()
        );
        all.add("processes", "not-seen", Severity::Info, text, "sudo ria doctor".into());
    } else if processes.hidden > 0 {
        let text = format!(
            "{} processes of other users could not be looked into (sudo ria doctor sees all)",
            processes.hidden
        );
        all.fine("processes", "not-seen", text);
    }
}

fn environment(all: &mut Findings, facts: &Facts, process: &Process) {
    let who = format!("{} (process {})", process.name, process.pid);
    let again = "start it again from a shell with: eval \"$(ria env)\"";
    // The overlay node makes itself anew when an interface comes, and sets its own variables.
    let is_own = process.name == "ria_node";
    for network in facts.networks.iter().filter(|_| !is_own) {
        let (name, since) = (&network.status.interface, network.status.interface_up_since);
        if since.is_some_and(|since| process.started + STEP < since) {
            let text = format!("{who} is older than {name}, so it neither hears nor is heard there");
            all.add(
                "processes",
                "older-than-interface",
                Severity::Error,
                text,
                format!("restart {}", process.name),
            );
        } else if is_off(process, network) {
            let text = format!(
                "{who} has no socket on {name}: it was started while no agent ran, and neither hears nor is heard there"
            );
            all.add("processes", "off-interface", Severity::Error, text, format!("restart {}", process.name));
        }
    }
    if !is_own && let Some((code, severity, text)) = profile(facts, process) {
        let next = if severity == Severity::Error { again.to_owned() } else { String::new() };
        all.add("processes", code, severity, format!("{who} {text}"), next);
    }
    let variable =
        |name: &str| process.environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let range = variable("ROS_AUTOMATIC_DISCOVERY_RANGE").filter(|range| *range != "SUBNET");
    let alone = variable("ROS_LOCALHOST_ONLY")
        .filter(|value| *value == "1")
        .map(|_| "ROS_LOCALHOST_ONLY=1".to_owned());
    if let Some(setting) =
        alone.or_else(|| range.map(|range| format!("ROS_AUTOMATIC_DISCOVERY_RANGE={range}")))
    {
        let text = format!("{who} has {setting}, so it does not announce itself to other machines");
        all.add(
            "processes",
            "range",
            Severity::Error,
            text,
            format!("unset {} and start it again", setting.split('=').next().unwrap_or_default()),
        );
    }
    domain(all, facts, process, &who);
}

fn domain(all: &mut Findings, facts: &Facts, process: &Process, who: &str) {
    let set = process.environment.get(DOMAIN_VARIABLE).filter(|text| !text.is_empty());
    let Ok(domain) = set.map_or(Ok(0), |text| text.parse::<u32>()) else { return };
    let carries = |network: &NetworkFacts| {
        network.status.ros_domains.is_empty() || network.status.ros_domains.contains(&domain)
    };
    if facts.networks.iter().any(carries) {
        return;
    }
    let given = facts.networks.iter().find_map(|network| network.status.ros_domain);
    let next = given.map_or_else(
        || "ask the network's administrator which to use (network show)".to_owned(),
        |given| format!("start it again with {DOMAIN_VARIABLE}={given}, which ria env sets"),
    );
    let text = format!("{who} is in ROS domain {domain}, which no network here carries");
    all.add("processes", "domain", Severity::Error, text, next);
}

/// Whether a process with Ria's profile does not use the interface. With it Fast DDS binds a socket to the address of each
/// interface that it uses, and one without a carrier it passes over.
fn is_off(process: &Process, network: &NetworkFacts) -> bool {
    let is_fast =
        process.middleware.iter().any(|of| matches!(of, Middleware::FastDds2 | Middleware::FastDds3));
    let distro = process.environment.get("ROS_DISTRO").map(String::as_str);
    let wanted = for_distro(network.environment.clone(), distro);
    let has_profile = FAST_DDS_VARIABLES
        .iter()
        .filter_map(|name| wanted.get_key_value(*name))
        .any(|(name, file)| process.environment.get(name) == Some(file));
    let addresses = network.status.addresses.iter();
    let own = addresses.filter_map(|a| a.split('/').next()?.parse().ok()).next();
    is_fast && has_profile && !process.udp.is_empty() && own.is_some_and(|own| !process.udp.contains(&own))
}

/// How the DDS settings of a process stand.
fn profile(facts: &Facts, process: &Process) -> Option<(&'static str, Severity, String)> {
    let environment = facts.networks.iter().map(|network| &network.environment).find(|e| !e.is_empty())?;
    let distro = process.environment.get("ROS_DISTRO").map(String::as_str);
    let wanted = for_distro(environment.clone(), distro);
    // Those of the first library that is served at all.
    let names: Vec<&str> =
        process.middleware.iter().map(|of| served(*of, &wanted)).find(|names| !names.is_empty())?;
    names.into_iter().find_map(|name| setting(process, name, wanted.get(name)?))
}

/// The variables that Ria sets for a library.
fn served(middleware: Middleware, wanted: &BTreeMap<String, String>) -> Vec<&'static str> {
    let all: &[&'static str] = match middleware {
        Middleware::FastDds2 => &[FAST_DDS_VARIABLES[0], FAST_DDS_TRANSPORTS, FAST_DDS_SERVERS],
        Middleware::FastDds3 => &[FAST_DDS_VARIABLES[1], FAST_DDS_TRANSPORTS, FAST_DDS_SERVERS],
        Middleware::Cyclone => &[CYCLONE_VARIABLE],
    };
    all.iter().copied().filter(|name| wanted.contains_key(*name)).collect()
}

fn setting(process: &Process, name: &str, value: &str) -> Option<(&'static str, Severity, String)> {
    match process.environment.get(name).filter(|own| !own.is_empty()) {
        None => Some((
            "environment",
            Severity::Error,
            format!("was started without Ria's DDS settings ({name} is not set)"),
        )),
        Some(own) if own == value || below(own, value) => None,
        Some(own) => {
            let text = format!(
                "has DDS settings of its own ({name}={own}), which Ria leaves alone and does not know"
            );
            Some(("own-profile", Severity::Info, text))
        }
    }
}

/// Whether a file is in the directory of Ria's, or in that of one network in it.
fn below(own: &str, ours: &str) -> bool {
    ours.rsplit_once('/')
        .is_some_and(|(directory, _)| !directory.is_empty() && own.starts_with(&format!("{directory}/")))
}

fn participants(all: &mut Findings, facts: &Facts) {
    let conditions = facts.networks.iter().flat_map(|network| &network.status.conditions);
    for condition in conditions.filter(|c| c.code.starts_with(CLASH)) {
        let next = "give each robot a namespace, or a ROS domain of its own".to_owned();
        all.add("discovery", "clash", condition.severity, condition.text.clone(), next);
    }
    for peer in facts.networks.iter().flat_map(|network| &network.peers) {
        let is_up = matches!(peer.link_state, LinkState::Up | LinkState::Degraded);
        let Some(expected) = peer.participants_expected.filter(|_| is_up) else { continue };
        let text = format!("{}: {} of {expected} participants heard", peer.name, peer.participants_seen);
        if peer.participants_seen < expected {
            let next = format!(
                "wait some seconds and look again; if it stays so, ria doctor on {} and ria status --json (drops)",
                peer.name
            );
            all.add("discovery", "participants", Severity::Warning, text, next);
        } else {
            all.fine("discovery", "participants", text);
        }
    }
}

fn neighbours(all: &mut Findings, facts: &Facts) {
    let interfaces: BTreeSet<&str> = facts.neighbours.iter().map(|heard| heard.interface.as_str()).collect();
    for interface in interfaces {
        let there = facts.neighbours.iter().filter(|heard| heard.interface == interface);
        let addresses: Vec<String> = there.map(|heard| heard.address.to_string()).take(MOST_NAMED).collect();
        let text = format!(
            "ROS 2 or other DDS is on {interface}, too ({}); processes with Ria's settings do not hear it",
            addresses.join(", ")
        );
        let next = format!(
            "if that is the robot's own network: [dds] local_interfaces = [\"{interface}\"] in agent.toml, and restart ROS 2"
        );
        all.add("discovery", "local-devices", Severity::Info, text, next);
    }
}

fn daemon(all: &mut Findings, facts: &Facts) {
    for process in facts.processes.ros.iter().filter(|process| process.is_daemon) {
        let since =
            facts.networks.iter().filter_map(|network| network.status.interface_up_since).fold(0.0, f64::max);
        let is_stale = process.started + STEP < since
            || profile(facts, process).is_some_and(|(_, severity, _)| severity == Severity::Error);
        if is_stale {
            let text = format!(
                "the ros2 daemon (process {}) is from before the overlay, so ros2 topic and node lists lack what is there",
                process.pid
            );
            all.add(
                "discovery",
                "stale-daemon",
                Severity::Warning,
                text,
                "ros2 daemon stop (the next ros2 command starts it anew)".into(),
            );
        }
    }
}

/// Fast DDS talks through shared memory to processes of one machine, and files of another user, or of another IPC
/// namespace, are not there for it: data is lost without a word.
fn shared_memory(all: &mut Findings, facts: &Facts) {
    let fast = |process: &&Process| {
        process.middleware.iter().any(|of| matches!(of, Middleware::FastDds2 | Middleware::FastDds3))
    };
    let mut processes = facts.processes.ros.iter().filter(fast);
    let Some(first) = processes.next() else { return };
    let pair = |other: &Process| format!("{} ({}) and {} ({})", first.name, first.pid, other.name, other.pid);
    if let Some(other) = processes.clone().find(|process| process.ipc != first.ipc) {
        let text = format!(
            "{} share a network and no shared memory, so local topics between them stay silent",
            pair(other)
        );
        all.add(
            "memory",
            "ipc",
            Severity::Warning,
            text,
            "run containers with --ipc=host (or ipc: host)".into(),
        );
    }
    if let Some(other) = processes.find(|process| process.uid != first.uid) {
        let text = format!(
            "{} run as users {} and {}, who may not use each other's shared memory",
            pair(other),
            first.uid,
            other.uid
        );
        all.add(
            "memory",
            "users",
            Severity::Warning,
            text,
            "run all ROS 2 processes of a machine as one user".into(),
        );
    }
}

fn buffers(all: &mut Findings, facts: &Facts) {
    let host = &facts.host;
    for setting in SETTINGS {
        if let Some(value) = host.settings.get(setting.name).filter(|value| !setting.suffices(**value)) {
            let text = format!("{} is {value}; large messages want {}", setting.name, setting.wanted);
            all.add("buffers", "setting", Severity::Warning, text, "sudo ria doctor --fix".into());
        }
    }
    if host.reassembly_failed > 0 {
        let text = format!(
            "{} fragmented datagrams were never whole: some DDS here or at a peer runs without Ria's settings",
            host.reassembly_failed
        );
        all.add("buffers", "reassembly", Severity::Info, text, "start it with: eval \"$(ria env)\"".into());
    }
    if host.buffer_errors > 0 {
        let text =
            format!("{} datagrams found no room in a socket's buffer since the start", host.buffer_errors);
        all.add(
            "buffers",
            "receive-buffer",
            Severity::Info,
            text,
            "larger buffers (sudo ria doctor --fix), smaller or fewer messages".into(),
        );
    }
    all.fine("buffers", "fragments", format!("{} IP fragments sent since the start", host.fragments_created));
}

#[cfg(test)]
mod tests;
