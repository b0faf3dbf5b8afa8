//! What this node knows at present, and how it speaks of itself.

use ria_api::state::{Condition, Severity};

use crate::convert::Reporter;
use crate::join::Failure;
use crate::link::{Absence, NetworkView, Snapshot};

/// The agent as last seen.
#[derive(Debug, Clone, Default)]
pub enum Seen {
    /// Not asked yet.
    #[default]
    Nothing,
    /// It is not there.
    Absent {
        /// Why.
        absence: Absence,
        /// Since when, seconds since 1970.
        since: f64,
    },
    /// What it said.
    Agent(Box<Snapshot>),
}

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The agent.
    pub seen: Seen,
    /// Why joining by key file did not work, and since when.
    pub join: Option<(Failure, f64)>,
    /// The machine's name as long as no agent gave it one; then the one it gave last.
    last_name: String,
    last_id: String,
}

impl View {
    /// Of a machine with this host name.
    pub fn named(host: &str) -> Self {
        Self { last_name: host.to_owned(), ..Self::default() }
    }

    /// The agent's word.
    pub fn handle_snapshot(&mut self, snapshot: Snapshot) {
        if let Some(network) = snapshot.networks.first() {
            self.last_name.clone_from(&network.status.name);
            self.last_id.clone_from(&network.status.node_id);
        } else if !snapshot.agent.suggested_name.is_empty() {
            self.last_name.clone_from(&snapshot.agent.suggested_name);
            self.last_id.clear();
        }
        self.seen = Seen::Agent(Box::new(snapshot));
    }

    /// There is no agent. `true` when that is news.
    pub fn handle_absence(&mut self, absence: Absence, now: f64) -> bool {
        let (news, since) = match &self.seen {
            // That it went has been told; what a new connection meets then is the same thing in other words.
            Seen::Absent { absence: old, since } => (old.code != "agent-gone" && *old != absence, *since),
            Seen::Nothing | Seen::Agent(_) => (true, now),
        };
        self.seen = Seen::Absent { absence, since };
        news
    }

    /// The name that this node reports under without a network.
    pub fn name(&self) -> &str {
        &self.last_name
    }

    /// What diagnostics call this device.
    pub fn hardware_id(&self) -> String {
        if self.last_id.is_empty() { self.last_name.clone() } else { self.last_id.clone() }
    }

    /// The networks; none without an agent.
    pub fn networks(&self) -> &[NetworkView] {
        match &self.seen {
            Seen::Agent(snapshot) => &snapshot.networks,
            Seen::Nothing | Seen::Absent { .. } => &[],
        }
    }

    /// The reporter of a network, or of none.
    pub fn reporter(&self, network: Option<&NetworkView>) -> Reporter {
        let (name, id) = match network {
            Some(network) => (&network.status.name, &network.status.node_id),
            None => (&self.last_name, &self.last_id),
        };
        Reporter { name: name.clone(), id: id.clone(), ..Reporter::default() }
    }

    /// Health as this node sees it.
    pub fn conditions(&self) -> Vec<Condition> {
        let of = |code: &str, text: &str, since| Condition {
            code: code.into(),
            severity: Severity::Error,
            text: text.into(),
            since,
        };
        let absent = match &self.seen {
            Seen::Absent { absence, since } => Some(of(absence.code, &absence.text, *since)),
            Seen::Nothing | Seen::Agent(_) => None,
        };
        let join = self.join.as_ref().map(|(failure, since)| of(failure.code, &failure.text, *since));
        absent.into_iter().chain(join).collect()
    }
}

/// Whether a subscriber should know at once: membership, link state or path of a peer, or the state of the network.
pub fn differs(old: &NetworkView, new: &NetworkView) -> bool {
    let peers = |view: &NetworkView| -> Vec<_> {
        let facts = view.peers.iter();
        facts
            .map(|p| {
                let path = (p.path, p.endpoint.clone(), p.relay.clone());
                (p.id.clone(), p.name.clone(), p.link_state, p.coordinator_online, path)
            })
            .collect()
    };
    let network = |view: &NetworkView| {
        let s = &view.status;
        let codes: Vec<_> = s.conditions.iter().map(|c| (c.code.clone(), c.severity)).collect();
        (
            s.state,
            s.coordinator_state,
            s.map_revision,
            s.interface.clone(),
            s.addresses.clone(),
            s.name.clone(),
            codes,
        )
    };
    network(old) != network(new) || peers(old) != peers(new)
}

#[cfg(test)]
mod tests {
    use ria_api::state::{AgentStatus, LinkState, NetworkStatus, PathKind, PeerStatus};

    use super::*;

    fn lab(peer: PeerStatus) -> NetworkView {
        let status =
            NetworkStatus { name: "robot-1".into(), node_id: "n1".into(), ..NetworkStatus::default() };
        NetworkView { status, peers: vec![peer], ..NetworkView::default() }
    }

    #[test]
    fn a_path_or_link_state_is_news_and_a_round_trip_time_is_not() {
        let old = lab(PeerStatus { link_state: LinkState::Up, rtt: Some(0.01), ..PeerStatus::default() });
        let mut new = old.clone();
        new.peers[0].rtt = Some(0.02);
        new.peers[0].rx_bytes = 10;
        assert!(!differs(&old, &new));
        new.peers[0].path = PathKind::Direct;
        assert!(differs(&old, &new));
        new = old.clone();
        new.peers[0].link_state = LinkState::Lost;
        assert!(differs(&old, &new));
        new = old.clone();
        new.peers.clear();
        assert!(differs(&old, &new));
    }

    #[test]
    fn a_robot_keeps_its_name_when_its_agent_goes() {
        let mut view = View::named("host");
        assert_eq!(view.name(), "host");
        view.handle_snapshot(Snapshot { networks: vec![lab(PeerStatus::default())], ..Snapshot::default() });
        let absence = Absence { code: "agent-gone", text: "start it".into() };
        assert!(view.handle_absence(absence.clone(), 5.0));
        assert!(!view.handle_absence(absence, 6.0), "the same again is no news");
        let reporter = view.reporter(None);
        assert_eq!((reporter.name.as_str(), reporter.id.as_str()), ("robot-1", "n1"));
        assert_eq!(view.conditions()[0].since, 5.0);
    }

    #[test]
    fn before_joining_it_goes_by_the_name_that_the_agent_would_take() {
        let mut view = View::named("HOST.example");
        let agent = AgentStatus { suggested_name: "host".into(), ..AgentStatus::default() };
        view.handle_snapshot(Snapshot { agent, networks: Vec::new() });
        assert_eq!(view.name(), "host");
    }
}
