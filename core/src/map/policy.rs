//! The policy in the map: put together with the members and the time, it says whom this node has to do with at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use ria_protocol::id::NodeId;
use ria_protocol::map::Member;
use ria_protocol::policy::NodePolicy;
use ria_protocol::record::MemberRecord;
use ria_protocol::time::UnixTime;

use super::{MapMember, NetworkMap};
use crate::filter::Rules;

impl NetworkMap {
    /// The policy; `None` where everything is allowed.
    pub fn policy(&self) -> Option<&NodePolicy> {
        self.policy.as_ref().filter(|policy| policy.rules.is_some())
    }

    /// What it allows between the members of now.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.clone()
    }

    /// Members in good standing with which the policy lets nothing pass.
    pub(crate) fn denied(&self) -> impl Iterator<Item = (NodeId, &Member, MemberRecord)> {
        let denied = self.members.iter().filter(|(_, held)| held.denied);
        denied.filter_map(|(node, held)| {
            Some((*node, &held.member, held.checked.as_ref().ok()?.record.clone()))
        })
    }

    /// The earliest and the latest time that it may be; `None` before anything is known of it.
    fn between(&self) -> Option<(UnixTime, UnixTime)> {
        let latest = UnixTime(self.time.0.saturating_add(self.doubt));
        (self.time != UnixTime::default()).then_some((self.time, latest))
    }

    /// When a rule begins or ends to hold next.
    pub(super) fn next_turn(&self) -> Option<UnixTime> {
        // Before the time is known, no rule with a period holds.
        let (now, _) = self.between()?;
        let rules = self.policy.as_ref().and_then(|policy| policy.rules.as_ref());
        let sure = |until: UnixTime| UnixTime(until.0.saturating_sub(self.doubt));
        let turns = rules.into_iter().flatten().flat_map(|rule| [rule.not_before, rule.until.map(sure)]);
        turns.flatten().filter(|turn| *turn > now).min()
    }

    /// Makes rules of the policy, the members and the time as they are now.
    pub(super) fn put_together(&mut self) {
        let good = self.members.iter().filter_map(|(node, held)| Some((*node, held.checked.as_ref().ok()?)));
        let rules = self.policy.as_ref().and_then(|policy| Rules::build(policy, good, self.between()));
        let reached = rules.as_ref().map(|rules| self.reached(rules.involved()));
        for (node, held) in &mut self.members {
            held.denied = reached.as_ref().is_some_and(|reached| !reached.contains(node));
        }
        self.rules = rules.map(Arc::new);
    }

    /// With whom this node has to do, when something may pass to or from `involved`: those members, the gateways of those
    /// behind one, and those whose gateway it is itself.
    fn reached(&self, involved: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let gateway = |member: &MapMember| member.stock.as_ref().and_then(|stock| stock.gateway);
        let mut reached = involved;
        for (node, held) in &self.members {
            let Some(gateway) = held.checked.as_ref().ok().and_then(gateway) else { continue };
            if Some(gateway) == self.own {
                reached.insert(*node);
            } else if reached.contains(node) {
                reached.insert(gateway);
            }
        }
        reached.extend(self.own);
        reached
    }
}
