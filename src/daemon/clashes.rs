//! What two robots have and only one should have: from what the engine finds to health conditions and events.

use ria_api::state::Severity;
use ria_core::{Clash, EngineStatus, Unique};
use ria_protocol::id::NetworkId;
use tokio::time::{Duration, Instant};

use super::control::Control;
use super::events::Draft;

/// How often it is looked for when nobody asks.
const EVERY: Duration = Duration::from_secs(5);

/// More than these are not told one by one.
const MOST: usize = 5;

/// Each with its condition.
const CONDITIONS: [(Unique, &str); 3] = [
    (Unique::Node, "ros-node-twice"),
    (Unique::CommandReader, "ros-cmd-vel-twice"),
    (Unique::TransformWriter, "ros-tf-twice"),
];

impl Control {
    /// Looks from time to time, so that an event is told although nobody asks for the state.
    pub(super) async fn clashes_when_due(&mut self, now: Instant) {
        if self.clashes_at.is_some_and(|at| now < at)
            || !self.networks.values().any(|network| network.in_engine)
        {
            return;
        }
        self.clashes_at = Some(now + EVERY);
        if let Ok(packets) = self.packets.status().await {
            self.follow_clashes(&packets.engine);
        }
    }

    /// Sets and ends the conditions; a new one is told as an event, too.
    pub(super) fn follow_clashes(&mut self, engine: &EngineStatus) {
        for network in &engine.networks {
            for (what, code) in CONDITIONS {
                let found: Vec<&Clash> = network.clashes.iter().filter(|clash| clash.what == what).collect();
                self.set_clash(network.id, code, &found);
            }
        }
    }

    fn set_clash(&mut self, id: NetworkId, code: &'static str, found: &[&Clash]) {
        let named = found.first().map(|first| {
            let peers: Vec<_> = first.peers.iter().map(|peer| self.peer_name(id, *peer)).collect();
            (
                peers.join(", "),
                in_words(found, |clash| {
                    let peers: Vec<_> = clash.peers.iter().map(|peer| self.peer_name(id, *peer)).collect();
                    peers.join(", ")
                }),
            )
        });
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some((peer, text)) = named else {
            self.changed |= network.conditions.clear(code);
            return;
        };
        if network.conditions.set(code, Severity::Error, text.clone()) {
            self.changed = true;
            let after = code.to_owned();
            self.events.tell(
                id,
                Draft { severity: Severity::Error, kind: "ros_clash", peer, after, text, ..Draft::default() },
            );
        }
    }
}

fn in_words(found: &[&Clash], peers: impl Fn(&Clash) -> String) -> String {
    let mut parts: Vec<String> = found.iter().take(MOST).map(|clash| one(clash, &peers(clash))).collect();
    if found.len() > MOST {
        parts.push(format!("and {} more", found.len() - MOST));
    }
    let what = found.first().map(|clash| clash.what);
    let advice = match what {
        Some(Unique::Node) => "commands, parameters and services reach either of them",
        Some(Unique::CommandReader) => "both drive when one of them is told to",
        Some(Unique::TransformWriter) | None => "their transforms mix",
    };
    format!(
        "{}; {advice}. Start them in the robots' namespaces (--ros-args -r __ns:=/NAME), or give each robot a ROS domain of \
         its own (ria-coordinator network create --ros-domains per-robot)",
        parts.join("; ")
    )
}

fn one(clash: &Clash, peers: &str) -> String {
    let Clash { name, domain, .. } = clash;
    match clash.what {
        Unique::Node => format!("this machine and {peers} both have a node {name} (ROS domain {domain})"),
        Unique::CommandReader => format!("this machine and {peers} both obey {name} (ROS domain {domain})"),
        Unique::TransformWriter => {
            format!("this machine and {peers} both write {name} (ROS domain {domain})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(what: Unique, name: &str) -> Clash {
        Clash { what, name: name.into(), domain: 7, peers: Vec::new() }
    }

    #[test]
    fn all_are_named_and_many_are_counted() {
        let nodes: Vec<_> = (0..7).map(|n| clash(Unique::Node, &format!("/n{n}"))).collect();
        let nodes: Vec<_> = nodes.iter().collect();
        let text = in_words(&nodes, |_| "robot-b".into());
        assert!(
            text.starts_with("this machine and robot-b both have a node /n0 (ROS domain 7); this machine"),
            "{text}"
        );
        assert!(text.contains("/n4") && !text.contains("/n5") && text.contains("and 2 more"), "{text}");
        let drive = in_words(&[&clash(Unique::CommandReader, "/cmd_vel")], |_| "a, b".into());
        assert!(
            drive.contains("this machine and a, b both obey /cmd_vel") && drive.contains("per-robot"),
            "{drive}"
        );
    }
}
