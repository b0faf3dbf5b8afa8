//! What of the ROS graph has to be one robot's alone: names of nodes, who obeys `/cmd_vel`, who writes `/tf`.
//!
//! Programs tell each other of their endpoints when they meet (SEDP), in clear within the tunnel. Of those that pass here,
//! the few that matter are kept: this host's as they go out, each peer's as they come in. Every ROS 2 node serves its
//! parameters, so the topic of that service tells its name. What was told before this engine began is not known.

use std::collections::BTreeMap;

use std::time::Instant;

use ria_protocol::id::NodeId;

use super::heard::Heard;
use crate::ip::IpPacket;
use crate::rtps::endpoints::{Direction, Endpoint, Guid, endpoints};

/// Entries of one host.
const MAX_ENTRIES: usize = 512;

/// Longest name of a node that is kept.
const MAX_NAME: usize = 160;

/// What two robots must not both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unique {
    /// A node of this name.
    Node,
    /// A subscription to `/cmd_vel` without a namespace.
    CommandReader,
    /// A publisher of `/tf` without a namespace.
    TransformWriter,
}

/// Something that this host and others have and only one should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clash {
    /// What.
    pub what: Unique,
    /// The node, or the topic.
    pub name: String,
    /// The ROS domain in which they meet.
    pub domain: u16,
    /// The others.
    pub peers: Vec<NodeId>,
}

impl Clash {
    /// Adds what was found among some of the peers to what was found among others.
    pub(crate) fn merge(all: &mut Vec<Self>, more: Vec<Self>) {
        for clash in more {
            let same = |known: &&mut Self| {
                (known.what, &known.name, known.domain) == (clash.what, &clash.name, clash.domain)
            };
            match all.iter_mut().find(same) {
                Some(known) => known.peers.extend(clash.peers),
                None => all.push(clash),
            }
        }
        all.sort_unstable();
    }
}

#[derive(Debug)]
struct Entry {
    guid: Guid,
    what: Unique,
    name: Box<str>,
    domain: u16,
}

/// The entries of one host.
#[derive(Debug, Default)]
pub(super) struct Graph(Vec<Entry>);

impl Graph {
    /// Looks at a packet of the host. `heard` are its participants.
    pub(super) fn note(&mut self, packet: &IpPacket<'_>, heard: &Heard, now: Instant) {
        let Some(udp) = packet.udp() else { return };
        let Some(domain) = domain(udp.destination_port) else { return };
        for endpoint in endpoints(udp.payload) {
            self.take(&endpoint, domain, heard, now);
        }
    }

    fn take(&mut self, endpoint: &Endpoint<'_>, domain: u16, heard: &Heard, now: Instant) {
        let known = self.0.iter().position(|entry| entry.guid == endpoint.guid);
        let Some(topic) = endpoint.topic else {
            known.map(|index| self.0.swap_remove(index));
            return;
        };
        let Some((what, name)) = role(endpoint.direction, topic).filter(|_| known.is_none()) else { return };
        if self.0.len() >= MAX_ENTRIES {
            self.0.retain(|entry| heard.has(participant(&entry.guid), now));
        }
        if self.0.len() < MAX_ENTRIES {
            self.0.push(Entry { guid: endpoint.guid, what, name: name.into(), domain });
        }
    }

    /// Those whose participants are alive.
    fn alive<'a>(&'a self, heard: &'a Heard, now: Instant) -> impl Iterator<Item = (Unique, &'a str, u16)> {
        let is_alive = move |entry: &&Entry| heard.has(participant(&entry.guid), now);
        self.0.iter().filter(is_alive).map(|entry| (entry.what, &*entry.name, entry.domain))
    }
}

/// What a host has that is its own, beside what the others have.
pub(super) fn clashes<'a>(
    (own, own_heard): (&'a Graph, &'a Heard),
    others: impl Iterator<Item = (NodeId, &'a Graph, &'a Heard)>,
    now: Instant,
) -> Vec<Clash> {
    let mut found: BTreeMap<_, Vec<NodeId>> =
        own.alive(own_heard, now).map(|entry| (entry, Vec::new())).collect();
    if found.is_empty() {
        return Vec::new();
    }
    for (node, graph, heard) in others {
        for entry in graph.alive(heard, now) {
            if let Some(peers) = found.get_mut(&entry).filter(|peers| !peers.contains(&node)) {
                peers.push(node);
            }
        }
    }
    let clash = |((what, name, domain), peers): ((Unique, &str, u16), Vec<NodeId>)| {
        (!peers.is_empty()).then(|| Clash { what, name: name.to_owned(), domain, peers })
    };
    found.into_iter().filter_map(clash).collect()
}

fn participant(guid: &Guid) -> &[u8] {
    &guid[..12]
}

/// The domain of a participant's own port (RTPS section 9.6.2.3): programs with other ports can't be told apart.
fn domain(port: u16) -> Option<u16> {
    let offset = port.checked_sub(7400)?;
    (offset / 250 <= 232).then_some(offset / 250)
}

/// What an endpoint stands for, by the names that ROS 2 gives in DDS.
fn role(direction: Direction, topic: &str) -> Option<(Unique, &str)> {
    match (direction, topic) {
        (Direction::Reader, "rt/cmd_vel") => Some((Unique::CommandReader, "/cmd_vel")),
        (Direction::Writer, "rt/tf") => Some((Unique::TransformWriter, "/tf")),
        (Direction::Reader, _) => {
            let name = topic.strip_prefix("rq")?.strip_suffix("/get_parametersRequest")?;
            let base = name.rsplit('/').next()?;
            // Hidden ones and those with a number of their own are tools'.
            let is_plain = !base.is_empty() && !base.starts_with('_') && !base.starts_with("launch_ros_");
            (is_plain && name.starts_with('/') && name.len() <= MAX_NAME).then_some((Unique::Node, name))
        }
        (Direction::Writer, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_the_names() {
        let reader = |topic| role(Direction::Reader, topic);
        assert_eq!(reader("rq/robot_1/arm/get_parametersRequest"), Some((Unique::Node, "/robot_1/arm")));
        assert_eq!(reader("rq/talker/get_parametersRequest"), Some((Unique::Node, "/talker")));
        assert_eq!(reader("rt/cmd_vel"), Some((Unique::CommandReader, "/cmd_vel")));
        assert_eq!(role(Direction::Writer, "rt/tf"), Some((Unique::TransformWriter, "/tf")));
        for none in [
            "rt/robot_1/cmd_vel",
            "rt/tf",
            "rq/_ros2cli_7/get_parametersRequest",
            "rq/launch_ros_71/get_parametersRequest",
            "rq/get_parametersRequest",
            "rq/talker/set_parametersRequest",
            "",
        ] {
            assert_eq!(reader(none), None, "{none}");
        }
        assert_eq!(role(Direction::Writer, "rt/cmd_vel"), None);
    }

    #[test]
    fn ports_tell_the_domain() {
        assert_eq!([7399, 7410, 7650, 7661, 32651].map(domain), [None, Some(0), Some(1), Some(1), Some(101)]);
        assert_eq!(domain(u16::MAX), Some(232));
    }
}
