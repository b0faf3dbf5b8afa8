//! The coordinator as nodes see it: one network, its durable history, who is connected, and what each session is told.
//!
//! The real one is asynchronous and has a database; what it says on the node stream is the same.

use std::collections::BTreeMap;

use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Live, Member, NetworkInfo, Patch, PatchSet, Relay, RelayHost, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate, NodeMessage, Resume};
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};
use ria_protocol::record::{MemberRecord, SignedRecord};
use ria_protocol::time::UnixTime;

use crate::internet::RELAY;
use crate::random::hash;
use crate::turn;

/// Changes that a node may have missed and still gets as patches.
const KEPT_CHANGES: u64 = 8;

/// A node stream, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The network of all simulations.
pub fn network() -> NetworkId {
    NetworkId::from_bytes([1; 10])
}

/// The coordinator.
pub struct Coordinator {
    runs: bool,
    revision: Revision,
    info: NetworkInfo,
    members: BTreeMap<NodeId, Member>,
    /// What made each revision; nothing but policies where there is no patch.
    changes: BTreeMap<Revision, Option<Patch>>,
    /// Who may begin what with whom: 0 is everybody with everybody. Absent: there was never a policy.
    policy: Option<u8>,
    policy_version: u64,
    /// What each member has to enforce, by revision.
    policies: BTreeMap<Revision, BTreeMap<NodeId, NodePolicy>>,
    past: BTreeMap<Revision, Snapshot>,
    sessions: BTreeMap<StreamId, NodeId>,
    live: BTreeMap<NodeId, Live>,
    outbox: Vec<(StreamId, CoordinatorMessage)>,
    closed: Vec<StreamId>,
    has_relay: bool,
}

impl Coordinator {
    /// A coordinator of a network without members.
    pub fn new(info: NetworkInfo, has_relay: bool) -> Self {
        let mut new = Self {
            runs: true,
            revision: Revision(1),
            info,
            members: BTreeMap::new(),
            changes: BTreeMap::new(),
            policy: None,
            policy_version: 0,
            policies: BTreeMap::new(),
            past: BTreeMap::new(),
            sessions: BTreeMap::new(),
            live: BTreeMap::new(),
            outbox: Vec::new(),
            closed: Vec::new(),
            has_relay,
        };
        new.past.insert(new.revision, new.snapshot());
        new
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// The network's revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The network as it was at a revision.
    pub fn past(&self, revision: Revision) -> Option<&Snapshot> {
        self.past.get(&revision)
    }

    /// A member as it is now.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Number of members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The network's settings.
    pub fn info(&self) -> &NetworkInfo {
        &self.info
    }

    fn snapshot(&self) -> Snapshot {
        let members = self.members.values().cloned().collect();
        Snapshot { revision: self.revision, network: self.info.clone(), members, policy: None }
    }

    /// An administrator, or a node that enrols, changes the network. Works also while the process is down, which stands
    /// for another coordinator on the same database.
    pub fn change(&mut self, patch: Patch) {
        let mut removed = None;
        match &patch {
            Patch::NetworkChanged(info) => self.info = info.clone(),
            Patch::PolicySet(_) => {}
            Patch::MemberSet(member) => {
                if let Ok(record) = member.record.open(self.info.id, &[]) {
                    self.members.insert(record.node, member.clone());
                }
            }
            Patch::MemberRemoved(node) => {
                self.members.remove(node);
                self.live.remove(node);
                removed = Some(*node);
            }
        }
        self.advance(Some(patch), removed);
    }

    /// Another policy comes into force.
    pub fn set_policy(&mut self, policy: u8) {
        self.policy = Some(policy);
        self.policy_version += 1;
        self.advance(None, None);
    }

    fn advance(&mut self, patch: Option<Patch>, removed: Option<NodeId>) {
        let from = self.revision;
        self.revision = from.next();
        self.changes.insert(self.revision, patch);
        self.past.insert(self.revision, self.snapshot());
        let policies = self.members.keys().filter_map(|node| Some((*node, self.compile(*node)?)));
        self.policies.insert(self.revision, policies.collect());
        let sessions: Vec<(StreamId, NodeId)> = self.sessions.iter().map(|(s, n)| (*s, *n)).collect();
        for (stream, node) in sessions {
            if removed == Some(node) {
                self.refuse(stream);
            } else {
                let set = self.patches(from, node);
                self.outbox.push((stream, CoordinatorMessage::Patches(set)));
            }
        }
    }

    /// What a member has to enforce: what is about it, by who the others are.
    fn compile(&self, own: NodeId) -> Option<NodePolicy> {
        let policy = self.policy?;
        let others = || self.members.keys().copied().filter(move |node| *node != own);
        let to: Vec<NodeId> = others().filter(|to| may_begin(policy, own, *to)).collect();
        let from: Vec<NodeId> = others().filter(|from| may_begin(policy, *from, own)).collect();
        let rule = |number, from, to| Rule {
            number,
            from: Selector::of(from),
            to: Selector::of(to),
            permits: vec![Permit::plain(PermitKind::ANY)],
            not_before: None,
            until: None,
        };
        let rules = vec![rule(1, vec![own], to), rule(2, from, vec![own])];
        Some(NodePolicy { version: self.policy_version, rules: (policy != 0).then_some(rules) })
    }

    /// What a member had to enforce at a revision.
    pub fn policy(&self, revision: Revision, node: NodeId) -> Option<&NodePolicy> {
        self.policies.get(&revision)?.get(&node)
    }

    /// Whether one member may begin something with another, by the policy of now.
    pub fn allows(&self, from: NodeId, to: NodeId) -> bool {
        self.policy.is_none_or(|policy| may_begin(policy, from, to))
    }

    /// All that has changed since a revision, as a member is told it.
    fn patches(&self, from: Revision, node: NodeId) -> PatchSet {
        let mut patches: Vec<Patch> =
            self.changes.range(from.next()..).filter_map(|(_, patch)| patch.clone()).collect();
        let policy = self.policy(self.revision, node);
        if policy != self.policy(from, node) {
            patches.extend(policy.cloned().map(Patch::PolicySet));
        }
        PatchSet { from, to: self.revision, patches }
    }

    fn refuse(&mut self, stream: StreamId) {
        let text = "this node was removed from the network; join again with a new key".to_owned();
        let refusal = Refusal { code: ErrorCode::NotAMember, text };
        self.outbox.push((stream, CoordinatorMessage::Refused(refusal)));
        self.sessions.remove(&stream);
        self.closed.push(stream);
    }

    /// The process ends, with all streams and all that is not durable.
    pub fn stop(&mut self) {
        self.runs = false;
        self.closed.extend(self.sessions.keys());
        self.sessions.clear();
        self.live.clear();
    }

    /// It runs again.
    pub fn start(&mut self) {
        self.runs = true;
    }

    /// A node said something.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only what concerns the engine is modelled")]
    pub fn handle_message(&mut self, stream: StreamId, message: NodeMessage) {
        match message {
            NodeMessage::Resume(resume) => self.resume(stream, &resume),
            NodeMessage::Report(candidates) => {
                let Some(node) = self.sessions.get(&stream).copied() else { return };
                if let Some(live) = self.live.get_mut(&node).filter(|_| !candidates.is_empty()) {
                    live.candidates = candidates;
                    self.tell_live(node);
                }
            }
            NodeMessage::Rotate(request) => self.rotate(stream, request.wg_key),
            // Acknowledgements are for people to see; nothing else is said in a simulation.
            _ => {}
        }
    }

    fn resume(&mut self, stream: StreamId, resume: &Resume) {
        let node = resume.node;
        self.sessions.insert(stream, node);
        if !self.members.contains_key(&node) {
            return self.refuse(stream);
        }
        let older: Vec<StreamId> =
            self.sessions.iter().filter(|(s, n)| **n == node && **s != stream).map(|(s, _)| *s).collect();
        for old in older {
            self.sessions.remove(&old);
            self.closed.push(old);
        }
        self.outbox.push((stream, self.catch_up(resume.revision, node)));
        let relays = if self.has_relay { vec![relay(node)] } else { vec![] };
        self.outbox.push((stream, CoordinatorMessage::Relays(relays)));
        let others = self.live.values().filter(|live| live.node != node).cloned().collect();
        self.outbox.push((stream, CoordinatorMessage::Live(LiveUpdate { whole: true, members: others })));
        let candidates = self.live.remove(&node).map_or(Vec::new(), |before| before.candidates);
        self.live.insert(node, Live { node, online: true, boot: Some(resume.boot), candidates });
        self.tell_live(node);
    }

    /// A node is known by another key from now on. Its proof is for the real coordinator to check.
    fn rotate(&mut self, stream: StreamId, wg_key: WgPublicKey) {
        let node = self.sessions.get(&stream);
        let Some(member) = node.and_then(|node| self.members.get(node)).cloned() else { return };
        let Ok(record) = member.record.open(self.info.id, &[]) else { return };
        if record.wg_key != wg_key {
            let record = SignedRecord::unsigned(&MemberRecord { wg_key, ..record });
            self.change(Patch::MemberSet(Member { record, ..member }));
        }
    }

    fn catch_up(&self, has: Option<Revision>, node: NodeId) -> CoordinatorMessage {
        let missed = has.filter(|has| *has <= self.revision && self.revision.0 - has.0 <= KEPT_CHANGES);
        let Some(from) = missed else {
            let policy = self.policy(self.revision, node).cloned();
            return CoordinatorMessage::Snapshot(Snapshot { policy, ..self.snapshot() });
        };
        CoordinatorMessage::Patches(self.patches(from, node))
    }

    /// A stream has ended.
    pub fn handle_closed(&mut self, stream: StreamId) {
        let Some(node) = self.sessions.remove(&stream) else { return };
        if let Some(live) = self.live.get_mut(&node) {
            live.online = false;
            self.tell_live(node);
        }
    }

    fn tell_live(&mut self, node: NodeId) {
        let Some(live) = self.live.get(&node) else { return };
        let update = LiveUpdate { whole: false, members: vec![live.clone()] };
        for (stream, _) in self.sessions.iter().filter(|(_, to)| **to != node) {
            self.outbox.push((*stream, CoordinatorMessage::Live(update.clone())));
        }
    }

    /// What it has to say since it was asked last.
    pub fn take_messages(&mut self) -> Vec<(StreamId, CoordinatorMessage)> {
        std::mem::take(&mut self.outbox)
    }

    /// Streams that it has ended.
    pub fn take_closed(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.closed)
    }
}

/// Three in four may begin something with the other. A host keeps its rights when it joins anew: they go by the last byte of
/// the identity, which is the host's number.
fn may_begin(policy: u8, from: NodeId, to: NodeId) -> bool {
    let host = |node: NodeId| node.as_bytes().last().copied().unwrap_or_default();
    policy == 0 || !hash(0, &[policy, host(from), host(to)]).is_multiple_of(4)
}

fn relay(node: NodeId) -> Relay {
    Relay {
        name: "relay".into(),
        host: RelayHost::Name(RELAY.ip().to_string()),
        udp_port: RELAY.port(),
        username: node.to_string(),
        password: turn::PASSWORD.into(),
        expires: UnixTime(u64::MAX),
        tls_port: None,
        tls: None,
    }
}
