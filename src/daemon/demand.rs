//! On-demand networks in the agent's loop: members are sought when there is something to say to them, and released when
//! there was nothing for a while.
//!
//! What is held is what the map lists. Nothing is released while the coordinator is away, since nobody could bring it back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::state::CoordinatorState;
use ria_core::Command;
use ria_protocol::demand::Sought;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{MemberKind, Snapshot};
use ria_protocol::message::from_bytes;
use ria_protocol::record::MemberRecord;
use serde::Deserialize;
use tokio::time::Instant;

use super::control::Control;
use super::handle::Reply;
use super::network::Network;
use super::requests::no_such_network;
use crate::coordinator::session::Order;

/// How long somebody who named a member waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked who is not used any more.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// `[peers]` in agent.toml.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeersConfig {
    /// Names or overlay addresses of members that are held at all times.
    pub keep: Vec<String>,
    /// Seconds without a packet after which another one is released.
    pub release_after: u32,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { keep: Vec::new(), release_after: 300 }
    }
}

impl PeersConfig {
    /// The same, unless it says what it can't mean.
    pub fn checked(self) -> Result<Self, String> {
        if !(1..=86_400).contains(&self.release_after) {
            return Err(format!("release_after = {} is not between 1 and 86400 seconds", self.release_after));
        }
        match self.keep.iter().find(|wanted| sought(wanted).is_none()) {
            Some(wanted) => {
                Err(format!("keep: {wanted:?} is neither the name of a member nor an overlay address"))
            }
            None => Ok(self),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.release_after.into())
    }
}

/// Whom a person means by a name or an address. ROS writes names with `_`.
pub fn sought(wanted: &str) -> Option<Sought> {
    let wanted = wanted.trim();
    if let Ok(address) = wanted.parse::<IpAddr>() {
        return Some(Sought::Address(address));
    }
    if let Ok(node) = wanted.parse::<NodeId>() {
        return Some(Sought::Node(node));
    }
    let label = wanted.split_once('.').map_or(wanted, |(label, _)| label);
    label.replace('_', "-").parse().ok().map(Sought::Name)
}

/// Whom a network's members are held of, and since when they are not used.
#[derive(Debug, Default)]
pub struct Demand {
    /// When each member that is held was used last; absent where all members are told of.
    used: Option<BTreeMap<NodeId, Instant>>,
    /// Whom the coordinator was told that this node lets go.
    released: BTreeSet<NodeId>,
    /// The network was told to be on-demand a moment ago, and its map still lists everybody.
    begins: bool,
    /// Whether the map was one of everybody.
    was_pushed: bool,
    seekers: Vec<Seeker>,
    look_at: Option<Instant>,
}

/// Somebody who waits for a member.
#[derive(Debug)]
struct Seeker {
    sought: Sought,
    deadline: Instant,
    reply: Reply<()>,
}

impl Demand {
    /// The map is whole, and what it lists is what is held.
    pub fn handle_snapshot(&mut self) {
        (self.begins, self.was_pushed) = (false, false);
    }

    /// The next stream says whom this node holds, which begins all anew.
    pub fn handle_connected(&mut self) {
        self.released.clear();
    }

    /// A member is of use, whatever passes.
    pub fn touch(&mut self, node: NodeId) {
        if let Some(at) = self.used.as_mut().and_then(|used| used.get_mut(&node)) {
            *at = Instant::now();
        }
    }

    /// Holds what the map lists, which is new to it.
    fn follow(&mut self, listed: &[NodeId], now: Instant) {
        let used = self.used.get_or_insert_default();
        used.retain(|node, _| listed.contains(node));
        listed.iter().for_each(|node| _ = used.entry(*node).or_insert(now));
        self.released.retain(|node| listed.contains(node));
    }

    /// Who is let go of now, and who is held again after all. `idle` says since when a member was not used.
    fn turn(
        &mut self,
        idle: &BTreeMap<NodeId, Option<Duration>>,
        (kept, limit): (&BTreeSet<NodeId>, Duration),
        now: Instant,
    ) -> (Vec<NodeId>, Vec<NodeId>) {
        let Some(used) = &mut self.used else { return Default::default() };
        let (mut release, mut hold) = (Vec::new(), Vec::new());
        for (node, at) in used {
            let since = idle.get(node).copied().flatten().and_then(|idle| now.checked_sub(idle));
            *at = since.map_or(*at, |since| since.max(*at));
            let unused = now.saturating_duration_since(*at) >= limit && !kept.contains(node);
            if unused && self.released.insert(*node) {
                release.push(*node);
            } else if !unused && self.released.remove(node) {
                hold.push(*node);
            }
        }
        (release, hold)
    }
}

/// Members that run an agent, without this node.
fn held(network: &Network, map: &Snapshot) -> Vec<NodeId> {
    let own = network.membership.identity.node;
    let agents = map.members.iter().filter(|member| member.kind != MemberKind::Static);
    let nodes = agents.filter_map(|member| from_bytes::<MemberRecord>(&member.record.bytes).ok());
    nodes.map(|record| record.node).filter(|node| *node != own).collect()
}

/// The member that is meant, if the map lists it.
fn found(map: &Snapshot, sought: &Sought) -> Option<NodeId> {
    let mut members = map
        .members
        .iter()
        .filter_map(|member| Some((member, from_bytes::<MemberRecord>(&member.record.bytes).ok()?)));
    let is = |record: &MemberRecord, name| match sought {
        Sought::Node(node) => record.node == *node,
        Sought::Name(wanted) => wanted == name,
        Sought::Address(address) => record.own_prefixes().any(|prefix| prefix.address() == *address),
    };
    members.find(|(member, record)| is(record, &member.name)).map(|(_, record)| record.node)
}

impl Network {
    /// Whom this node holds, as the next stream is to say; absent in other networks.
    pub fn holds(&self) -> Option<Vec<NodeId>> {
        let map = self.membership.map.as_ref().filter(|map| map.network.is_on_demand())?;
        Some(held(self, map))
    }

    fn is_on_demand(&self) -> bool {
        self.membership.map.as_ref().is_some_and(|map| map.network.is_on_demand())
    }
}

impl Control {
    /// The map has changed: what is held is what it lists.
    pub(super) async fn follow_demand(&mut self, id: NetworkId) {
        let now = Instant::now();
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        if !map.network.is_on_demand() {
            (network.demand.was_pushed, network.demand.begins) = (true, false);
            if network.demand.used.take().is_some() {
                network.order(Order::Holds(None));
            }
            return;
        }
        if std::mem::take(&mut network.demand.was_pushed) && network.session.is_some() {
            return self.begin_demand(id, now).await;
        }
        if network.demand.begins {
            return;
        }
        let listed = held(network, map);
        network.demand.follow(&listed, now);
        network.order(Order::Holds(Some(listed)));
        self.answer_seekers(id);
        self.seek_kept(id);
    }

    /// All members were told of until now: those are held that are in use.
    async fn begin_demand(&mut self, id: NetworkId, now: Instant) {
        let limit = self.peers.limit();
        let idle = self.unused(id).await;
        let Some(network) = self.networks.get_mut(&id) else { return };
        let used = idle.into_iter().filter_map(|(node, idle)| Some((node, now.checked_sub(idle?)?)));
        let used: BTreeMap<NodeId, Instant> =
            used.filter(|(_, at)| now.saturating_duration_since(*at) < limit).collect();
        network.order(Order::Hold(used.keys().copied().collect()));
        network.demand.begins = true;
        network.demand.used = Some(used);
        network.demand.released.clear();
    }

    /// Since when each peer was not used; absent for one that never was.
    async fn unused(&self, id: NetworkId) -> BTreeMap<NodeId, Option<Duration>> {
        let status = self.packets.status().await;
        let networks = status.map(|status| status.engine.networks).unwrap_or_default();
        let peers = networks.into_iter().filter(|network| network.id == id).flat_map(|network| network.peers);
        peers.map(|peer| (peer.node, peer.unused_for)).collect()
    }

    /// Asks for those that are held at all times and are not.
    pub(super) fn seek_kept(&self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let Some(map) = network.membership.map.as_ref().filter(|map| map.network.is_on_demand()) else {
            return;
        };
        let kept = self.peers.keep.iter().filter_map(|wanted| sought(wanted));
        for wanted in kept.filter(|wanted| found(map, wanted).is_none()) {
            network.order(Order::Seek(wanted));
        }
    }

    /// Packets wait for somebody who is not held.
    pub(super) fn handle_wanted(&self, id: NetworkId, address: IpAddr) {
        if let Some(network) = self.networks.get(&id) {
            network.order(Order::Seek(Sought::Address(address)));
        }
    }

    /// The coordinator says that nobody is there.
    pub(super) async fn handle_absent(&mut self, id: NetworkId, absent: Sought) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for seeker in network.demand.seekers.extract_if(.., |seeker| seeker.sought == absent) {
            let text = format!("the network has no member {absent} that this machine may have to do with");
            // Whoever asked may have gone away.
            let _ = seeker.reply.send(Err(ApiError::NoSuchPeer(text)));
        }
        if let Sought::Address(address) = absent {
            self.engine(Command::SetAbsent { network: id, address }).await;
        }
    }

    /// Somebody names a member that is not held.
    pub(super) fn seek(&mut self, id: NetworkId, sought: Sought, reply: Reply<()>) {
        let Some(network) = self.networks.get_mut(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        if !network.is_on_demand() {
            let text = format!("the network has no member {sought}; see: ria peers");
            let _ = reply.send(Err(ApiError::NoSuchPeer(text)));
            return;
        }
        if network.coordinator.state != CoordinatorState::Connected {
            let text = format!(
                "{sought} is not among the members that this machine holds, and the coordinator, which knows the others, is \
                 out of reach; see: ria status"
            );
            let _ = reply.send(Err(ApiError::Failed(text)));
            return;
        }
        network.order(Order::Seek(sought.clone()));
        network.demand.seekers.push(Seeker { sought, deadline: Instant::now() + PATIENCE, reply });
        self.answer_seekers(id);
    }

    fn answer_seekers(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        for seeker in network.demand.seekers.extract_if(.., |seeker| found(map, &seeker.sought).is_some()) {
            let _ = seeker.reply.send(Ok(()));
        }
    }

    /// Lets go of whom nobody uses.
    pub(super) async fn release_when_due(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for seeker in network.demand.seekers.extract_if(.., |seeker| seeker.deadline <= now) {
            let text = format!("the coordinator did not say in time where {} is; try again", seeker.sought);
            let _ = seeker.reply.send(Err(ApiError::TimedOut(text)));
        }
        let limit = self.peers.limit();
        let demand = &mut network.demand;
        let is_due = demand.look_at.is_none_or(|at| at <= now) && demand.used.is_some() && !demand.begins;
        if !is_due || network.coordinator.state != CoordinatorState::Connected {
            return;
        }
        demand.look_at = Some(now + LOOKED_EVERY.min(limit));
        self.seek_kept(id);
        let idle = self.unused(id).await;
        let kept: Vec<Sought> = self.peers.keep.iter().filter_map(|wanted| sought(wanted)).collect();
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        let kept: BTreeSet<NodeId> = kept.iter().filter_map(|wanted| found(map, wanted)).collect();
        let (release, hold) = network.demand.turn(&idle, (&kept, limit), now);
        if !release.is_empty() {
            tracing::debug!(network = %id, members = release.len(), "released");
            network.order(Order::Release(release));
        }
        hold.into_iter().for_each(|node| network.order(Order::Seek(Sought::Node(node))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 10])
    }

    const LIMIT: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn who_is_not_used_is_let_go_of_once_and_held_again_when_it_is() {
        let start = Instant::now();
        let mut demand = Demand::default();
        demand.follow(&[node(2), node(3)], start);
        let idle = |two: Option<u64>| [(node(2), two.map(Duration::from_secs)), (node(3), None)].into();
        let kept = BTreeSet::new();
        let later = start + LIMIT;
        assert_eq!(demand.turn(&idle(Some(1)), (&kept, LIMIT), later), (vec![node(3)], vec![]));
        assert_eq!(demand.turn(&idle(Some(2)), (&kept, LIMIT), later), (vec![], vec![]), "told once");
        let much_later = later + LIMIT;
        let used = [(node(2), None), (node(3), Some(Duration::from_secs(1)))].into();
        assert_eq!(demand.turn(&used, (&kept, LIMIT), much_later), (vec![node(2)], vec![node(3)]));
        // The coordinator has taken it off the map; it comes back as new.
        demand.follow(&[node(3)], much_later);
        demand.follow(&[node(2), node(3)], much_later);
        assert_eq!(demand.turn(&idle(None), (&kept, LIMIT), much_later), (vec![], vec![]));
    }

    #[tokio::test]
    async fn who_is_kept_is_not_let_go_of() {
        let start = Instant::now();
        let mut demand = Demand::default();
        demand.follow(&[node(2)], start);
        let kept = [node(2)].into();
        let idle = [(node(2), None)].into();
        assert_eq!(demand.turn(&idle, (&kept, LIMIT), start + LIMIT * 9), (vec![], vec![]));
    }

    #[test]
    fn a_member_goes_by_name_address_and_identity() {
        let name = |text: &str| Some(Sought::Name(text.parse().unwrap()));
        assert_eq!(sought("robot-7"), name("robot-7"));
        assert_eq!(sought("robot_7"), name("robot-7"));
        assert_eq!(sought("robot-7.lab.ria.internal"), name("robot-7"));
        assert_eq!(sought("10.213.0.7"), Some(Sought::Address([10, 213, 0, 7].into())));
        assert_eq!(sought(&node(7).to_string()), Some(Sought::Node(node(7))));
        assert_eq!(sought("a b"), None);
    }

    #[test]
    fn nonsense_in_the_settings_is_told() {
        let config = |text: &str| {
            toml::from_str::<PeersConfig>(text).map_err(|e| e.to_string()).and_then(PeersConfig::checked)
        };
        assert_eq!(config("").unwrap(), PeersConfig::default());
        assert_eq!(config("keep = [\"robot-7\", \"10.213.0.9\"]\nrelease_after = 60").unwrap().keep.len(), 2);
        assert!(config("release_after = 0").unwrap_err().contains("between 1 and 86400"));
        assert!(config("keep = [\"robot 7\"]").unwrap_err().contains("neither the name"));
        assert!(config("hold = []").unwrap_err().contains("unknown field"));
    }
}
