//! What the engine tells, in words for people and words for programs.

use std::time::Duration;

use ria_api::state::{PathKind, Severity};
use ria_core::{Denied, Event, LinkState};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::policy::protocol;

use super::control::Control;
use super::events::Draft;
use super::network::{LastChange, Network};
use super::status::{link_state, path_kind};

/// A link in another state, as the engine tells it.
struct LinkChange {
    before: LinkState,
    after: LinkState,
    gap: Option<Duration>,
    paths: (PathKind, PathKind),
    reason: &'static str,
}

impl Control {
    /// Makes an event of what the engine tells, where it is one for others.
    pub(super) fn tell_engine_event(&mut self, event: Event) {
        self.note_link(&event);
        let (id, peer, draft) = match event {
            Event::MapChanged { network, revision } => {
                let after = revision.0.to_string();
                let text = format!("map revision {after}");
                (network, None, Draft { kind: "map", text, after, ..Draft::default() })
            }
            Event::PeerAdded { network, peer } => (network, None, self.added_draft(network, peer)),
            Event::PeerRemoved { network, peer } => (network, None, self.removed_draft(network, peer)),
            Event::LinkStateChanged {
                network,
                peer,
                before,
                after,
                gap,
                path_before,
                path_after,
                reason,
            } => {
                let paths = (path_kind(path_before), path_kind(path_after));
                let change = LinkChange { before, after, gap, paths, reason };
                (network, Some(peer), self.link_draft(network, peer, &change))
            }
            Event::PathChanged { network, peer, before, after, gap, reason, .. } => {
                let paths = (path_kind(before), path_kind(after));
                (network, Some(peer), self.path_draft((network, peer), paths, gap, reason))
            }
            Event::Denied { network, peer, denied } => {
                (network, None, self.denied_draft(network, peer, &denied))
            }
            Event::PingFinished { .. }
            | Event::BeaconDue { .. }
            | Event::PeerWanted { .. }
            | Event::CandidatesChanged { .. }
            | Event::Warned { .. }
            | Event::RelayUp { .. }
            | Event::RelayStreamWanted { .. }
            | Event::RelayStreamUnwanted { .. }
            | Event::RelayDown { .. } => return,
        };
        let severity = if draft.severity == Severity::Unknown { Severity::Info } else { draft.severity };
        let event = self.events.tell(id, Draft { severity, ..draft });
        if let Some((peer, network)) = peer.zip(self.networks.get_mut(&id)) {
            let last = network.last_changes.entry(peer).or_default();
            let gap = event.gap.or(last.gap);
            *last = LastChange { text: event.text, at: event.time, gap };
        }
    }

    fn added_draft(&mut self, network: NetworkId, peer: NodeId) -> Draft {
        let name = self.peer_name(network, peer);
        let has_policy = self.networks.get(&network).is_some_and(Network::has_policy);
        let text = if has_policy {
            format!("{name} is a peer now: the policy allows something between this machine and it")
        } else {
            format!("{name} is a member now")
        };
        if let Some(network) = self.networks.get_mut(&network) {
            network.peer_names.insert(peer, name.clone());
        }
        Draft { kind: "peer_added", peer: name, text, ..Draft::default() }
    }

    fn removed_draft(&mut self, network: NetworkId, peer: NodeId) -> Draft {
        let known = self.networks.get_mut(&network).and_then(|network| {
            network.last_changes.remove(&peer);
            network.peer_names.remove(&peer)
        });
        let is_listed = self.networks.get(&network).is_some_and(|network| network.lists(peer));
        let peer = known.unwrap_or_else(|| peer.to_string());
        let text = if is_listed {
            format!("{peer} is no peer any more: the policy allows nothing between this machine and it")
        } else {
            format!("{peer} is no member any more")
        };
        Draft { kind: "peer_removed", peer, text, ..Draft::default() }
    }

    fn link_draft(&self, network: NetworkId, peer: NodeId, change: &LinkChange) -> Draft {
        let peer = self.peer_name(network, peer);
        let worse = matches!(change.after, LinkState::Lost | LinkState::Degraded);
        let (before, after) = (link_state(change.before).to_string(), link_state(change.after).to_string());
        let (from, to) = change.paths;
        let by = match change.after {
            LinkState::Lost => format!(" ({})", change.reason),
            _ if change.gap.is_some() && from != to => format!(", {to} instead of {from}"),
            LinkState::Idle
            | LinkState::Connecting
            | LinkState::Up
            | LinkState::Degraded
            | LinkState::Denied => String::new(),
        };
        Draft {
            severity: if worse { Severity::Warning } else { Severity::Info },
            kind: "link_state",
            text: format!("link to {peer}: {before} -> {after}{}{by}", pause(change.gap)),
            peer,
            before,
            after,
            gap: change.gap.map(|gap| gap.as_secs_f64()),
            paths: Some(change.paths),
        }
    }

    fn denied_draft(&self, network: NetworkId, peer: NodeId, denied: &Denied) -> Draft {
        let peer = self.peer_name(network, peer);
        let what = match (denied.protocol, denied.port) {
            (protocol::TCP, Some(port)) => format!("tcp/{port}"),
            (protocol::UDP, Some(port)) => format!("udp/{port}"),
            (protocol::ICMP | protocol::ICMPV6, _) => "icmp".to_owned(),
            (protocol, _) => format!("IP protocol {protocol}"),
        };
        let direction = if denied.outbound { "to" } else { "from" };
        let more = match denied.count {
            0 | 1 => String::new(),
            count => format!(" (and {} packets more since this was told last)", count - 1),
        };
        let text = format!("the policy stopped {what} {direction} {peer}{more}");
        Draft { severity: Severity::Warning, kind: "denied", peer, after: what, text, ..Draft::default() }
    }

    fn path_draft(
        &self,
        (network, peer): (NetworkId, NodeId),
        paths: (PathKind, PathKind),
        gap: Option<Duration>,
        reason: &str,
    ) -> Draft {
        let peer = self.peer_name(network, peer);
        let (before, after) = (paths.0.to_string(), paths.1.to_string());
        Draft {
            kind: "path",
            text: format!("path to {peer}: {before} -> {after}{} ({reason})", pause(gap)),
            peer,
            before,
            after,
            gap: gap.map(|gap| gap.as_secs_f64()),
            paths: Some(paths),
            ..Draft::default()
        }
    }
}

fn pause(gap: Option<Duration>) -> String {
    gap.map(|gap| format!(", after {:.1} s without contact", gap.as_secs_f64())).unwrap_or_default()
}
