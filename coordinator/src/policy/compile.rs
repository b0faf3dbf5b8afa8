//! What one node has to enforce of a policy: the rules about itself, and about the static peers that it forwards for.
//!
//! Where a rule is about the node on one side, that side names just it; so nobody learns from its rules who else may do
//! the same. The other side names identities and tags, not addresses: members come, go and move without another policy.

use ria_protocol::id::NodeId;
use ria_protocol::policy::{NodePolicy, Rule, Selector};
use ria_protocol::prefix::Prefix;

use super::Policy;
use super::ask::{Entry, Resolved};

/// For a node, which is the first of `locals`; the others are those that it forwards for.
pub fn compile(policy: &Policy, resolved: &Resolved, version: u64, locals: &[&Entry]) -> NodePolicy {
    let mut rules = Vec::new();
    for (rule, from, to) in resolved.rules(policy) {
        let local = |selector: &Selector| -> Vec<NodeId> {
            let inside = locals.iter().filter(|entry| selector.contains(entry.node, &entry.tags));
            inside.map(|entry| entry.node).collect()
        };
        // Devices answer only, so they are never on the other side.
        let (from_here, mut to_here) = (Selector::of(local(from)), Selector::of(local(to)));
        let routes = || locals.iter().flat_map(|entry| &entry.routes);
        let behind: Vec<Prefix> = to
            .devices()
            .iter()
            .filter(|prefix| routes().any(|route| route.overlaps(prefix)))
            .copied()
            .collect();
        to_here.prefixes = Some(behind).filter(|prefixes| !prefixes.is_empty());
        let mut add = |from: Selector, to: Selector| {
            if from.is_empty() || to.is_empty() {
                return;
            }
            let (not_before, until) = (rule.period.map(|p| p.from), rule.period.map(|p| p.until));
            let permits = rule.permits.clone();
            rules.push(Rule { number: rule.number, from, to, permits, not_before, until });
        };
        add(from_here, to.clone());
        add(from.clone(), to_here);
    }
    NodePolicy { version, rules: Some(rules) }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Roster;
    use super::super::text::parse;
    use super::*;
    use crate::state::tests::{member, network};

    #[test]
    fn a_node_gets_the_rules_about_itself_only() {
        let mut lab = network();
        for (n, name) in [(2, "laptop"), (3, "robot-1"), (4, "robot-2")] {
            let entry = member(n, name);
            lab.members.insert(entry.node, entry);
        }
        let text = "[[rule]]\nfrom = [\"laptop\", \"robot-2\"]\nto = [\"robot-1\", \"tag:arm\"]\nallow = [\"tcp/22\"]\n";
        let policy = parse(text).unwrap();
        let roster = Roster::of(&lab);
        let resolved = Resolved::of(&policy, &roster);
        let of = |name: &str| compile(&policy, &resolved, 5, &[roster.find(name).unwrap()]).rules.unwrap();
        let [laptop, robot_1, robot_2] =
            ["laptop", "robot-1", "robot-2"].map(|n| roster.find(n).unwrap().node);
        let told = of("laptop");
        assert_eq!(
            (told.len(), &told[0].from),
            (1, &Selector::of(vec![laptop])),
            "not that robot-2 may, too"
        );
        assert_eq!((&told[0].to.nodes, &told[0].to.tags), (&vec![robot_1], &vec!["arm".to_owned()]));
        let told = of("robot-1");
        assert_eq!(
            (told.len(), &told[0].from.nodes, &told[0].to),
            (1, &vec![laptop, robot_2], &Selector::of(vec![robot_1]))
        );
        assert_eq!(of("robot-2").len(), 1);
    }
}
