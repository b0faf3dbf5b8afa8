//! The coordinator's durable state in memory: an immutable value that the one writer replaces as a whole, so that
//! readers never wait and never see half a change.
//!
//! It does no I/O: the store loads and saves it, the registry changes it, sessions read it.

pub mod address;
pub mod domains;
pub mod etag;
pub mod people;
pub mod policy;
pub mod relay;
pub mod routes;
pub mod sight;
pub mod stock;
pub mod view;
pub mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ria_protocol::id::{EpochId, KeyId, NetworkId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::{Member, MemberKind, NetworkInfo, Patch, PatchSet, Revision};
use ria_protocol::message::{CoordinatorMessage, to_bytes};
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};
use ria_protocol::time::UnixTime;
use ria_protocol::witness::Epoch;
use tokio::sync::broadcast;

use crate::audit::Head;
use crate::epoch::Began;
use people::{People, Reach, UserName};
use relay::RelayEntry;
use routes::RouteEntry;
use stock::StaticEntry;
use waiting::WaitingEntry;

/// How many changes a node may have missed and still be brought up to date by patches.
pub const LOG_LENGTH: usize = 4096;

/// Changes that a session may lag behind before it is closed and has to resume.
const FEED_LENGTH: usize = 1024;

/// How long a member may stay unheard of, unless it is set.
pub const DEFAULT_MEMBERSHIP: Duration = Duration::from_secs(365 * 24 * 3600);

/// Everything durable.
#[derive(Debug, Clone)]
pub struct World {
    pub networks: BTreeMap<NetworkId, Arc<Network>>,
    pub keys: BTreeMap<KeyId, Arc<JoinKeyEntry>>,
    /// The last row of the audit log.
    pub audit_head: Head,
    /// How long a member may stay unheard of.
    pub membership: Duration,
    /// All epochs of this database, the present one last; never empty.
    pub epochs: Vec<Began>,
    /// URLs besides those in the settings.
    pub added_urls: Vec<String>,
    /// Relays besides the coordinator's own, in order of their names.
    pub relays: Vec<Arc<RelayEntry>>,
    /// Who may do what, and their tokens.
    pub people: Arc<People>,
}

impl World {
    /// Has members be remembered for so long without being heard of.
    pub fn with_membership(mut self, membership: Duration) -> Self {
        self.membership = membership;
        for network in self.networks.values_mut() {
            *network = Arc::new(Network { membership, ..Network::clone(network) });
        }
        self
    }

    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        // A database without any is given one before its state is loaded.
        self.epochs
            .last()
            .map_or(Epoch { number: 1, id: EpochId::from_bytes([0; EpochId::LEN]) }, |e| e.epoch)
    }

    /// What nodes were told last of where the coordinator is.
    pub fn told_urls(&self) -> Vec<String> {
        let told = self.networks.values().map(|network| &network.info.urls);
        told.into_iter().find(|urls| !urls.is_empty()).cloned().unwrap_or_default()
    }

    /// What somebody with this reach has to do with: the rest is as if it were not there.
    pub fn within(self: Arc<Self>, reach: &Reach) -> Arc<Self> {
        let Reach::Only(networks) = reach else { return self };
        let mut world = Self::clone(&self);
        world.networks.retain(|id, _| networks.contains(id));
        world.keys.retain(|_, key| networks.contains(&key.network));
        Arc::new(world)
    }

    /// The network of this name.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.values().find(|n| n.info.name.as_str() == name)
    }
}

/// One network: its settings, its members and its latest changes.
#[derive(Debug, Clone)]
pub struct Network {
    pub info: NetworkInfo,
    pub created: UnixTime,
    pub revision: Revision,
    pub members: BTreeMap<NodeId, Arc<MemberEntry>>,
    pub static_peers: BTreeMap<NodeId, Arc<StaticEntry>>,
    /// Local networks behind members, by node and what they are there; `None` stands before all of a node's.
    pub routes: BTreeMap<(NodeId, Option<Prefix>), RouteEntry>,
    /// Nodes that wait for approval, or were rejected not long ago.
    pub waiting: BTreeMap<NodeId, Arc<WaitingEntry>>,
    /// How long a member may stay unheard of; the same as [`World::membership`].
    pub membership: Duration,
    /// Addresses of former members, and when they left.
    pub freed: BTreeMap<IpAddr, UnixTime>,
    /// Nodes that were removed for good, and when.
    pub tombstones: BTreeMap<NodeId, UnixTime>,
    /// Who may begin what with whom.
    pub policy: policy::PolicyState,
    /// Number of the present epoch: new addresses are taken from another place in each.
    pub epoch: u32,
    /// The latest changes, oldest first, without gaps up to `revision`.
    pub log: VecDeque<Arc<Change>>,
    /// Where sessions hear of changes.
    pub feed: broadcast::Sender<Arc<Change>>,
}

impl Network {
    /// A network without members.
    pub fn new(info: NetworkInfo, created: UnixTime) -> Self {
        Self {
            info,
            created,
            revision: Revision(1),
            membership: DEFAULT_MEMBERSHIP,
            members: BTreeMap::new(),
            static_peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            freed: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            policy: policy::PolicyState::default(),
            epoch: 1,
            log: VecDeque::new(),
            feed: broadcast::Sender::new(FEED_LENGTH),
        }
    }

    /// The members that are in each other's maps.
    pub fn active_members(&self) -> impl Iterator<Item = &Arc<MemberEntry>> {
        self.members.values().filter(|member| member.is_active())
    }

    /// The member of this name.
    pub fn member_named(&self, name: &Name) -> Option<&Arc<MemberEntry>> {
        self.members.values().find(|m| &m.name == name)
    }

    /// Whether a member has this name already, be it in the form that ROS takes only.
    pub fn is_taken(&self, name: &Name) -> bool {
        let ros_name = name.ros_name();
        let mut statics = self.static_peers.values().map(|peer| &peer.name);
        self.members.values().any(|m| m.name.ros_name() == ros_name)
            || statics.any(|n| n.ros_name() == ros_name)
    }

    /// The wanted name, or the first free one with a number behind it.
    pub fn free_name(&self, wanted: &Name) -> Name {
        self.free_name_but(wanted, |_| false)
    }

    /// The same, without names that are kept for others.
    pub fn free_name_but(&self, wanted: &Name, is_kept: impl Fn(&Name) -> bool) -> Name {
        let is_free = |name: &Name| !self.is_taken(name) && !is_kept(name);
        if is_free(wanted) {
            return wanted.clone();
        }
        // There are fewer members than numbers, so one of these is free.
        (2..u32::MAX).map(|n| wanted.numbered(n)).find(is_free).unwrap_or_else(|| wanted.clone())
    }

    /// The revision after this one, made of `patches`.
    pub fn next_change(&mut self, patches: Vec<Patch>) -> Arc<Change> {
        let to = self.revision.next();
        let policies = self.renew_policies(to, &patches);
        let mut change = Change::new(PatchSet { from: self.revision, to, patches });
        change.differs |= policies;
        Arc::new(change)
    }

    /// Takes a change into log and revision.
    pub fn record(&mut self, change: Arc<Change>) {
        self.revision = change.set.to;
        self.log.push_back(change);
        while self.log.len() > LOG_LENGTH {
            self.log.pop_front();
        }
    }

    /// Goes on where `before` stood, as loaded from a database in which others have made `changes` meanwhile.
    pub fn follow(&mut self, before: &Self, mut changes: VecDeque<Arc<Change>>) {
        self.policy.follow(&before.policy);
        let patches: Vec<Patch> = changes.iter().flat_map(|change| change.set.patches.clone()).collect();
        if self.renew_policies(self.revision, &patches) {
            for change in &mut changes {
                let told = Change::clone(change);
                *change = Arc::new(Change { differs: true, ..told });
            }
        }
        let joins = changes.front().is_none_or(|first| first.set.from == before.revision);
        if joins && changes.back().map_or(before.revision, |last| last.set.to) == self.revision {
            self.log.clone_from(&before.log);
            // Else nobody can be told what has changed: sessions end with the feed, and begin anew.
            self.feed = before.feed.clone();
        }
        self.log.extend(changes);
        while self.log.len() > LOG_LENGTH {
            self.log.pop_front();
        }
    }

    /// The changes after `revision`, or `None` when they are not known any more or never were.
    pub fn changes_since(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let oldest = self.log.front().map_or(self.revision, |c| c.set.from);
        (oldest..=self.revision)
            .contains(&revision)
            .then(|| self.log.iter().skip_while(move |c| c.set.from < revision))
    }
}

/// One durable change of a network.
#[derive(Debug, Clone)]
pub struct Change {
    pub set: PatchSet,
    /// The message that carries it, for all who see it as it is.
    pub encoded: Bytes,
    /// Whether some members see it otherwise.
    pub differs: bool,
}

impl Change {
    /// Wraps patches, encoded once for everybody.
    pub fn new(set: PatchSet) -> Self {
        let encoded = to_bytes(&CoordinatorMessage::Patches(set.clone())).into();
        let is_static = |p: &Patch| matches!(p, Patch::MemberSet(m) if m.kind == MemberKind::Static);
        let differs = set.patches.iter().any(is_static);
        Self { set, encoded, differs }
    }
}

/// A member, with what the map does not tell the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEntry {
    pub node: NodeId,
    pub name: Name,
    pub wg_key: WgPublicKey,
    /// SHA-256 of the public key of its TLS certificate: what it is recognised by.
    pub tls_key: SpkiHash,
    pub address_v4: Ipv4Addr,
    pub address_v6: Ipv6Addr,
    pub tags: Vec<String>,
    pub join_key: KeyId,
    pub joined: UnixTime,
    pub last_contact: UnixTime,
    pub agent_version: String,
    /// How long it may be away before it is removed; absent: it stays.
    pub ephemeral: Option<Duration>,
    /// Since when an administrator keeps it out. It keeps name and addresses, and is in nobody's map.
    pub disabled: Option<UnixTime>,
    /// Since when it is in nobody's map because it was not heard of for too long.
    pub lapsed: Option<UnixTime>,
    /// Whose laptop it is, where it is somebody's.
    pub laptop: Option<Laptop>,
    /// Its own ROS domain, where each member has one.
    pub ros_domain: Option<u8>,
}

impl MemberEntry {
    /// Whether others may have to do with it: whether it is in their maps and may use relays.
    pub fn is_active(&self) -> bool {
        self.disabled.is_none() && self.lapsed.is_none() && !self.is_login_due()
    }

    /// Whether its person has to log in again.
    pub fn is_login_due(&self) -> bool {
        self.laptop.as_ref().is_some_and(|laptop| laptop.due.is_some())
    }

    /// As the map lists it; `behind` it are addresses that it forwards for. [`Network::listed`] knows them.
    fn to_member(&self, network: NetworkId, behind: Vec<Prefix>) -> Member {
        let kind = if behind.is_empty() { MemberKind::Node } else { MemberKind::Gateway };
        let own = [Prefix::host(self.address_v4.into()), Prefix::host(self.address_v6.into())];
        let record = MemberRecord {
            network,
            node: self.node,
            wg_key: self.wg_key,
            prefixes: own.into_iter().chain(behind).collect(),
            tags: self.tags.clone(),
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: self.name.clone(),
            kind,
            stock: None,
            ros_domain: self.ros_domain,
            routes: None,
        }
    }

    /// Until when it stays a member without being heard of, which it may for so long ([`Network::membership`]).
    pub fn expires(&self, membership: Duration) -> UnixTime {
        self.last_contact.plus(membership)
    }
}

/// That a member is somebody's laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laptop {
    pub owner: UserName,
    /// The groups that the provider put them into when they last logged in from it.
    pub groups: Vec<String>,
    /// When they last logged in from it.
    pub validated: UnixTime,
    /// Since when it is in nobody's map because they should have logged in again, or may not.
    pub due: Option<UnixTime>,
}

impl Laptop {
    /// Of somebody who has just logged in from it.
    pub fn new(owner: UserName, people: &People, now: UnixTime) -> Self {
        let federated = people.users.get(&owner).and_then(|user| user.federated.as_ref());
        let groups = federated.map(|federated| federated.groups.clone()).unwrap_or_default();
        Self { owner, groups, validated: now, due: None }
    }
}

/// A join key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinKeyEntry {
    pub id: KeyId,
    pub network: NetworkId,
    pub secret_digest: [u8; 32],
    pub reusable: bool,
    pub tags: Vec<String>,
    pub created: UnixTime,
    pub expires: Option<UnixTime>,
    pub revoked: Option<UnixTime>,
    pub uses: u64,
    /// How long nodes that join by it may be away before they are removed; absent: they stay.
    pub ephemeral: Option<Duration>,
    /// Whether an administrator has to approve each node.
    pub approve: bool,
    /// Whose laptop becomes who joins by it.
    pub owner: Option<UserName>,
}

/// Whether a join key admits anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinKeyStatus {
    Valid,
    Used,
    Expired,
    Revoked,
}

impl JoinKeyEntry {
    /// Whether it admits anybody at this time.
    pub fn status(&self, now: UnixTime) -> JoinKeyStatus {
        if self.revoked.is_some() {
            JoinKeyStatus::Revoked
        } else if self.expires.is_some_and(|e| e <= now) {
            JoinKeyStatus::Expired
        } else if self.uses > 0 && !self.reusable {
            JoinKeyStatus::Used
        } else {
            JoinKeyStatus::Valid
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn network() -> Network {
        let info = NetworkInfo {
            id: NetworkId::from_bytes([1; 10]),
            name: "lab".parse().unwrap(),
            prefix_v4: "10.213.0.0/16".parse().unwrap(),
            prefix_v6: "fd12:3456:789a:1::/64".parse().unwrap(),
            mtu: 1280,
            lock_keys: Vec::new(),
            urls: Vec::new(),
            ros_domains: None,
            multicast: None,
            peers: None,
        };
        Network::new(info, UnixTime(1000))
    }

    pub(crate) fn member(number: u8, name: &str) -> Arc<MemberEntry> {
        Arc::new(MemberEntry {
            node: NodeId::from_bytes([number; 10]),
            name: name.parse().unwrap(),
            wg_key: WgPublicKey([number; 32]),
            tls_key: SpkiHash([number; 32]),
            address_v4: Ipv4Addr::new(10, 213, 0, number),
            address_v6: Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, number.into()),
            tags: Vec::new(),
            join_key: KeyId::from_bytes([0; 5]),
            joined: UnixTime(1000),
            last_contact: UnixTime(1000),
            agent_version: String::new(),
            ephemeral: None,
            disabled: None,
            lapsed: None,
            laptop: None,
            ros_domain: None,
        })
    }

    fn add(network: &mut Network, member: Arc<MemberEntry>) {
        let change = network.next_change(vec![Patch::MemberSet(network.listed(&member))]);
        network.members.insert(member.node, member);
        network.record(change);
    }

    #[test]
    fn changes_are_found_by_revision_and_only_while_they_are_kept() {
        let mut network = network();
        for n in 2..6 {
            add(&mut network, member(n, &format!("robot-{n}")));
        }
        let count = |network: &Network, r| network.changes_since(Revision(r)).map(Iterator::count);
        assert_eq!(network.revision, Revision(5));
        assert_eq!(count(&network, 5), Some(0));
        assert_eq!(count(&network, 3), Some(2));
        assert_eq!(count(&network, 1), Some(4));
        assert_eq!(count(&network, 6), None, "a revision of the future is not known");
        network.log.pop_front();
        assert_eq!(count(&network, 1), None, "a change that was dropped can't be told");
        assert_eq!(count(&network, 2), Some(3));
    }

    #[test]
    fn taken_names_are_numbered() {
        let mut network = network();
        add(&mut network, member(2, "robot"));
        add(&mut network, member(3, "robot-2"));
        assert_eq!(network.free_name(&"robot".parse().unwrap()).as_str(), "robot-3");
        assert_eq!(network.free_name(&"arm".parse().unwrap()).as_str(), "arm");
    }

    #[test]
    fn a_join_key_says_why_it_is_of_no_use() {
        let key = JoinKeyEntry {
            id: KeyId::from_bytes([0; 5]),
            network: NetworkId::from_bytes([1; 10]),
            secret_digest: [0; 32],
            reusable: false,
            tags: Vec::new(),
            created: UnixTime(0),
            expires: Some(UnixTime(100)),
            revoked: None,
            uses: 0,
            ephemeral: None,
            approve: false,
            owner: None,
        };
        assert_eq!(key.status(UnixTime(99)), JoinKeyStatus::Valid);
        assert_eq!(key.status(UnixTime(100)), JoinKeyStatus::Expired);
        let used = JoinKeyEntry { uses: 1, ..key.clone() };
        assert_eq!(used.status(UnixTime(5)), JoinKeyStatus::Used);
        assert_eq!(JoinKeyEntry { reusable: true, ..used }.status(UnixTime(5)), JoinKeyStatus::Valid);
        assert_eq!(
            JoinKeyEntry { revoked: Some(UnixTime(1)), ..key }.status(UnixTime(5)),
            JoinKeyStatus::Revoked
        );
    }
}
